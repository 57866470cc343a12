//! Block bodies: one struct per block type, each with its drawing, `encode` and `parse`.
//!
//! A parser takes the body as the header delimits it. What later versions may add is ignored, as
//! docs/FORMAT.md §10 asks: reserved fields, unknown flag bits, and bytes behind the fields of this version. So a
//! body that is encoded again may differ from the one that was parsed, and signatures are made and checked over
//! the bytes as stored.

mod checkpoint;
mod chunk;
mod footer;
pub(crate) mod index;
pub(crate) mod key;
mod origin;
mod segment;
mod stream;
mod tombstone;

pub use checkpoint::{ChainHead, CheckpointBody, HEAD_FOOTER, HEAD_RECOVERED};
pub use chunk::ChunkHead;
pub use footer::{FOOTER_RECOVERED, FOOTER_SEALED, FOOTER_SIGNED, FooterBody};
pub use index::{ChunkRow, IndexBody, IndexRows, KeyRow, StreamRow};
pub use key::{KEM_P256, KEM_X_WING, KeyBody, KeyEntry, SCOPE_CUSTOMER, SCOPE_STREAM};
pub use origin::OriginBody;
pub use segment::{COMPAT_COMPACTED, INCOMPAT_ERASABLE, INCOMPAT_STRONG_LEAF, SegmentBody};
pub use stream::{MEDIA_INDEX_UNKNOWN, StreamInfo};
pub use tombstone::{DeletedSegment, DeletionReason, ErasedSlot, TombstoneBody, TombstoneKind};

use crate::ids::{NodeId, SegmentId};

/// Why a body does not follow the format, although its block is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is shorter than its fields, or than its counts ask for.
    #[error("{block} body has {len} bytes, it needs {needed}")]
    Length {
        /// The type of block.
        block: &'static str,
        /// Bytes there are.
        len: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// `at` counts from the body's start.
    #[error("{block} body, byte {at}: {rule}")]
    Field {
        /// The type of block.
        block: &'static str,
        /// The byte of the body where the field stands.
        at: usize,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Something that a later version of the format defines: not damage.
    #[error("{block} body: {what} is not supported by this version")]
    Unsupported {
        /// The type of block.
        block: &'static str,
        /// What this version does not know.
        what: &'static str,
    },
}

fn need_len(block: &'static str, body: &[u8], needed: usize) -> Result<(), BodyError> {
    if body.len() >= needed {
        Ok(())
    } else {
        Err(BodyError::Length {
            block,
            len: body.len(),
            needed,
        })
    }
}

/// What a node signs of a block: a label of its own, node and segment, and the named parts of the body.
fn signed_message(label: &str, node_id: &NodeId, segment_id: &SegmentId, parts: &[&[u8]]) -> Vec<u8> {
    let mut message = [label.as_bytes(), &node_id.0, &segment_id.0].concat();
    parts.iter().for_each(|part| message.extend_from_slice(part));
    message
}

/// Length of a body of `head` bytes and `count` entries of `entry` bytes, all of it from outside.
fn len_of(head: usize, count: u32, entry: usize) -> usize {
    head.saturating_add((count as usize).saturating_mul(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Mostly small numbers, so that counts and lengths are often plausible.
    fn hostile_body() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![3 => 0..4u8, 1 => any::<u8>()], 0..2000)
    }

    proptest! {
        #[test]
        fn no_body_makes_a_parser_panic(body in hostile_body()) {
            let node = crate::node::NodePublic([7; 32]);
            let segment_id = SegmentId([8; 16]);
            let _ = SegmentBody::parse(&body);
            let _ = KeyBody::parse(&body);
            let _ = StreamInfo::parse(&body);
            let _ = ChunkHead::parse(&body);
            let _ = OriginBody::parse(&body);
            let _ = IndexBody::parse(&body);
            prop_assert!(!node.verify_checkpoint(&body, &segment_id));
            prop_assert!(!node.verify_footer(&body, &segment_id));
            prop_assert!(!node.verify_tombstone(&body, &segment_id));
        }
    }
}
