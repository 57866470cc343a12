//! FOOTER: the file's last 4096 bytes. One ranged read of the tail finds everything.

use super::{BodyError, need_len, signed_message};
use crate::ids::{NodeId, SegmentId};
use crate::layout::{array_in, layout, put, u32_in, u64_in};

layout! {
    at: 248 =>
    0   4  FLAGS,
    4   4  RESERVED,
    8   8  CHUNKS_OFFSET,
    16  8  CHUNKS_LEN,
    24  8  STREAMS_OFFSET,
    32  8  STREAMS_LEN,
    40  8  KEYS_OFFSET,
    48  8  KEYS_LEN,
    56  8  LEAF_COUNT,
    64  32 ROOT,
    96  32 PREV_ROOT,
    128 8  DURABLE_UPTO,
    136 8  DATA_END,
    144 8  CHUNK_COUNT,
    152 8  FIRST_S,
    160 8  LAST_S,
    168 8  SIGNED_LEAF_COUNT,
    176 8  CLOSED_S,
    184 64 SIGNATURE,
}

/// The writer itself closed the segment.
pub const FOOTER_SEALED: u32 = 1;
/// Recovery closed it.
pub const FOOTER_RECOVERED: u32 = 2;
/// The signature is the node's; without it, it is zero.
pub const FOOTER_SIGNED: u32 = 4;

const BLOCK: &str = "FOOTER";

/// The body of a FOOTER block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterBody {
    /// [`FOOTER_SEALED`] or [`FOOTER_RECOVERED`], with or without [`FOOTER_SIGNED`].
    pub flags: u32,
    /// Where the INDEX blocks of each kind stand, and how many bytes of blocks they are; both 0 for none.
    pub chunks_offset: u64,
    /// Bytes of the INDEX blocks of chunks; 0 for none.
    pub chunks_len: u64,
    /// Where the INDEX blocks of streams begin; 0 for none.
    pub streams_offset: u64,
    /// Bytes of them.
    pub streams_len: u64,
    /// Where the INDEX blocks of keys begin; 0 for none.
    pub keys_offset: u64,
    /// Bytes of them.
    pub keys_len: u64,
    /// All leaves, those of the INDEX blocks too, not the footer's own.
    pub leaf_count: u64,
    /// The Merkle root over them (docs/FORMAT.md §6).
    pub root: [u8; 32],
    /// The previous segment's final root; zero when unknown or none.
    pub prev_root: [u8; 32],
    /// The watermark when it was written; in a RECOVERED one the floor that was found. Bytes.
    pub durable_upto: u64,
    /// End of the last block that is not INDEX.
    pub data_end: u64,
    /// CHUNK blocks in the file.
    pub chunk_count: u64,
    /// Earliest and latest arrival of all chunks, seconds since 1970.
    pub first_s: u64,
    /// Arrival of the last packet over all chunks, whole seconds since 1970.
    pub last_s: u64,
    /// RECOVERED: leaves that the last valid signed checkpoint covers. Else equal to `leaf_count`.
    pub signed_leaf_count: u64,
    /// When it was closed, seconds since 1970.
    pub closed_s: u64,
    /// Ed25519, by the node; zero where there is none.
    pub signature: [u8; 64],
}

impl FooterBody {
    /// Bytes of the fixed part.
    pub const LEN: usize = at::SIZE;

    /// What the node signs of a body that parses, as stored: all up to the signature.
    pub fn signed_message(body: &[u8], node_id: &NodeId, segment_id: &SegmentId) -> Vec<u8> {
        signed_message(
            "harborseal/v1/footer",
            node_id,
            segment_id,
            &[&body[..at::SIGNATURE.start]],
        )
    }

    /// The body as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![0; Self::LEN];
        put(&mut body, at::FLAGS, &self.flags.to_le_bytes());
        put(&mut body, at::CHUNKS_OFFSET, &self.chunks_offset.to_le_bytes());
        put(&mut body, at::CHUNKS_LEN, &self.chunks_len.to_le_bytes());
        put(&mut body, at::STREAMS_OFFSET, &self.streams_offset.to_le_bytes());
        put(&mut body, at::STREAMS_LEN, &self.streams_len.to_le_bytes());
        put(&mut body, at::KEYS_OFFSET, &self.keys_offset.to_le_bytes());
        put(&mut body, at::KEYS_LEN, &self.keys_len.to_le_bytes());
        put(&mut body, at::LEAF_COUNT, &self.leaf_count.to_le_bytes());
        put(&mut body, at::ROOT, &self.root);
        put(&mut body, at::PREV_ROOT, &self.prev_root);
        put(&mut body, at::DURABLE_UPTO, &self.durable_upto.to_le_bytes());
        put(&mut body, at::DATA_END, &self.data_end.to_le_bytes());
        put(&mut body, at::CHUNK_COUNT, &self.chunk_count.to_le_bytes());
        put(&mut body, at::FIRST_S, &self.first_s.to_le_bytes());
        put(&mut body, at::LAST_S, &self.last_s.to_le_bytes());
        put(
            &mut body,
            at::SIGNED_LEAF_COUNT,
            &self.signed_leaf_count.to_le_bytes(),
        );
        put(&mut body, at::CLOSED_S, &self.closed_s.to_le_bytes());
        put(&mut body, at::SIGNATURE, &self.signature);
        body
    }

    /// Parses a body as stored; bytes behind the fields of this version are ignored (docs/FORMAT.md §4).
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        need_len(BLOCK, body, Self::LEN)?;
        let flags = u32_in(body, at::FLAGS);
        if !matches!(
            flags & (FOOTER_SEALED | FOOTER_RECOVERED),
            FOOTER_SEALED | FOOTER_RECOVERED
        ) {
            let rule = "flags must name either SEALED or RECOVERED";
            return Err(BodyError::Field {
                block: BLOCK,
                at: 0,
                rule,
            });
        }
        Ok(FooterBody {
            flags,
            chunks_offset: u64_in(body, at::CHUNKS_OFFSET),
            chunks_len: u64_in(body, at::CHUNKS_LEN),
            streams_offset: u64_in(body, at::STREAMS_OFFSET),
            streams_len: u64_in(body, at::STREAMS_LEN),
            keys_offset: u64_in(body, at::KEYS_OFFSET),
            keys_len: u64_in(body, at::KEYS_LEN),
            leaf_count: u64_in(body, at::LEAF_COUNT),
            root: array_in(body, at::ROOT),
            prev_root: array_in(body, at::PREV_ROOT),
            durable_upto: u64_in(body, at::DURABLE_UPTO),
            data_end: u64_in(body, at::DATA_END),
            chunk_count: u64_in(body, at::CHUNK_COUNT),
            first_s: u64_in(body, at::FIRST_S),
            last_s: u64_in(body, at::LAST_S),
            signed_leaf_count: u64_in(body, at::SIGNED_LEAF_COUNT),
            closed_s: u64_in(body, at::CLOSED_S),
            signature: array_in(body, at::SIGNATURE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> FooterBody {
        FooterBody {
            flags: FOOTER_SEALED | FOOTER_SIGNED,
            chunks_offset: 1,
            chunks_len: 2,
            streams_offset: 3,
            streams_len: 4,
            keys_offset: 5,
            keys_len: 6,
            leaf_count: 7,
            root: [8; 32],
            prev_root: [9; 32],
            durable_upto: 10,
            data_end: 11,
            chunk_count: 12,
            first_s: 13,
            last_s: 14,
            signed_leaf_count: 15,
            closed_s: 16,
            signature: [17; 64],
        }
    }

    #[test]
    fn a_footer_comes_back_as_written() {
        assert_eq!(FooterBody::parse(&footer().encode()), Ok(footer()));
    }

    #[test]
    fn a_footer_is_either_sealed_or_recovered() {
        for flags in [0, FOOTER_SIGNED, FOOTER_SEALED | FOOTER_RECOVERED] {
            assert!(
                FooterBody::parse(&FooterBody { flags, ..footer() }.encode()).is_err(),
                "flags {flags}"
            );
        }
    }

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let later = FooterBody {
            flags: FOOTER_SEALED | 8,
            ..footer()
        };
        let mut body = later.encode();
        body[at::RESERVED].fill(0xFF);
        body.extend([0xFF; 8]);
        assert_eq!(FooterBody::parse(&body), Ok(later));
    }

    #[test]
    fn the_signed_message_covers_all_but_the_signature() {
        let message = |footer: FooterBody| {
            FooterBody::signed_message(&footer.encode(), &NodeId([1; 16]), &SegmentId([2; 16]))
        };
        assert_eq!(message(footer()).len(), 20 + 16 + 16 + 184);
        assert_eq!(
            message(footer()),
            message(FooterBody {
                signature: [0; 64],
                ..footer()
            })
        );
        assert_ne!(
            message(footer()),
            message(FooterBody {
                closed_s: 0,
                ..footer()
            })
        );
    }
}
