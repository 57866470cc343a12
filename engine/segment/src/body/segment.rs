//! SEGMENT: which file this is, who wrote it, and what it follows. Block 0, and again at 4096.

use super::{BodyError, need_len};
use crate::ids::{NodeId, RunId, SegmentId};
use crate::layout::{array_in, layout, put, u16_in, u32_in, u64_in};

layout! {
    at: 128 =>
    0  2  MAJOR,
    2  2  MINOR,
    4  4  SHARD,
    8  8  INCOMPAT,
    16 8  RO_COMPAT,
    24 8  COMPAT,
    32 16 NODE_ID,
    48 16 RUN_ID,
    64 16 PREV_SEGMENT_ID,
    80 8  CHAIN_SEQ,
    88 8  CREATED_S,
    96 32 NODE_KEY,
}

/// A KEY entry of the file is erasable.
pub const INCOMPAT_ERASABLE: u64 = 1;
/// Every CHUNK first written to the file is hashed: Merkle leaves cover the bodies too.
pub const INCOMPAT_STRONG_LEAF: u64 = 2;
/// Gathered from closed segments, not recorded.
pub const COMPAT_COMPACTED: u64 = 1;
/// The bits that this version can read.
const INCOMPAT_SUPPORTED: u64 = INCOMPAT_ERASABLE | INCOMPAT_STRONG_LEAF;

const BLOCK: &str = "SEGMENT";

/// The masks follow ext4: with an unknown `incompat` bit do not read, with an unknown `ro_compat` bit do not
/// write, unknown `compat` bits are harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentBody {
    /// Minor version: a reader of an older one reads on.
    pub minor: u16,
    /// Which writer of the node, from 0.
    pub shard: u32,
    /// Features without which a reader must not read: [`INCOMPAT_ERASABLE`], [`INCOMPAT_STRONG_LEAF`].
    pub incompat: u64,
    /// Features without which a tool must not change the file; none in version 1.0.
    pub ro_compat: u64,
    /// Features that a reader may ignore: [`COMPAT_COMPACTED`].
    pub compat: u64,
    /// One life of the recording process.
    pub run_id: RunId,
    /// The segment before this one in its chain; zero in the first.
    pub prev_segment_id: SegmentId,
    /// Place in the chain of this run and shard, from 0.
    pub chain_seq: u64,
    /// Seconds since 1970.
    pub created_s: u64,
    /// The node's Ed25519 public key. `node_id` is derived from it.
    pub node_key: [u8; 32],
}

impl SegmentBody {
    /// Bytes of the fixed part.
    pub const LEN: usize = at::SIZE;
    /// The version of the format that this is.
    pub const MAJOR: u16 = 1;

    /// What `node_key` comes to.
    pub fn node_id(&self) -> NodeId {
        NodeId::of_key(&self.node_key)
    }

    /// The incompatible feature bits of this segment that this version cannot read; 0 when there are none.
    pub fn unsupported_incompat(&self) -> u64 {
        self.incompat & !INCOMPAT_SUPPORTED
    }

    /// The body as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![0; Self::LEN];
        put(&mut body, at::MAJOR, &Self::MAJOR.to_le_bytes());
        put(&mut body, at::MINOR, &self.minor.to_le_bytes());
        put(&mut body, at::SHARD, &self.shard.to_le_bytes());
        put(&mut body, at::INCOMPAT, &self.incompat.to_le_bytes());
        put(&mut body, at::RO_COMPAT, &self.ro_compat.to_le_bytes());
        put(&mut body, at::COMPAT, &self.compat.to_le_bytes());
        put(&mut body, at::NODE_ID, &self.node_id().0);
        put(&mut body, at::RUN_ID, &self.run_id.0);
        put(&mut body, at::PREV_SEGMENT_ID, &self.prev_segment_id.0);
        put(&mut body, at::CHAIN_SEQ, &self.chain_seq.to_le_bytes());
        put(&mut body, at::CREATED_S, &self.created_s.to_le_bytes());
        put(&mut body, at::NODE_KEY, &self.node_key);
        body
    }

    /// Some of its slots need E beside their KEY entries.
    pub fn is_erasable(&self) -> bool {
        self.incompat & INCOMPAT_ERASABLE != 0
    }

    /// The Merkle leaves of its own CHUNKs cover their bodies.
    pub fn has_strong_leaves(&self) -> bool {
        self.incompat & INCOMPAT_STRONG_LEAF != 0
    }

    /// It was gathered from closed segments.
    pub fn is_compacted(&self) -> bool {
        self.compat & COMPAT_COMPACTED != 0
    }

    /// Feature bits are parsed, not judged: ask [`SegmentBody::unsupported_incompat`].
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        // The version decides what the rest means, so it is looked at before anything else.
        need_len(BLOCK, body, at::MAJOR.end)?;
        if u16_in(body, at::MAJOR) != Self::MAJOR {
            return Err(BodyError::Unsupported {
                block: BLOCK,
                what: "this major version",
            });
        }
        need_len(BLOCK, body, Self::LEN)?;
        let segment = SegmentBody {
            minor: u16_in(body, at::MINOR),
            shard: u32_in(body, at::SHARD),
            incompat: u64_in(body, at::INCOMPAT),
            ro_compat: u64_in(body, at::RO_COMPAT),
            compat: u64_in(body, at::COMPAT),
            run_id: RunId(array_in(body, at::RUN_ID)),
            prev_segment_id: SegmentId(array_in(body, at::PREV_SEGMENT_ID)),
            chain_seq: u64_in(body, at::CHAIN_SEQ),
            created_s: u64_in(body, at::CREATED_S),
            node_key: array_in(body, at::NODE_KEY),
        };
        if segment.node_id().0 != body[at::NODE_ID] {
            let rule = "node_id must be the hash of node_key";
            return Err(BodyError::Field {
                block: BLOCK,
                at: at::NODE_ID.start,
                rule,
            });
        }
        Ok(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> SegmentBody {
        SegmentBody {
            minor: 0,
            shard: 3,
            incompat: 0,
            ro_compat: 0,
            compat: 0,
            run_id: RunId([1; 16]),
            prev_segment_id: SegmentId([2; 16]),
            chain_seq: 5,
            created_s: 1_795_000_000,
            node_key: [9; 32],
        }
    }

    #[test]
    fn a_segment_body_comes_back_as_written() {
        assert_eq!(SegmentBody::parse(&segment().encode()), Ok(segment()));
    }

    #[test]
    fn a_node_id_of_another_key_is_refused() {
        let mut body = segment().encode();
        body[at::NODE_KEY.start] ^= 1;
        assert!(matches!(
            SegmentBody::parse(&body),
            Err(BodyError::Field { at: 32, .. })
        ));
    }

    #[test]
    fn another_major_version_is_unsupported_whatever_its_length() {
        let mut body = segment().encode();
        body[0] = 2;
        assert!(matches!(
            SegmentBody::parse(&body),
            Err(BodyError::Unsupported { .. })
        ));
        for len in [2, 50, 200] {
            body.resize(len, 0);
            assert!(
                matches!(SegmentBody::parse(&body), Err(BodyError::Unsupported { .. })),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn feature_bits_beyond_those_of_this_version_are_unsupported() {
        let parse = |incompat| {
            let body = SegmentBody {
                incompat,
                ..segment()
            };
            SegmentBody::parse(&body.encode()).expect("parses")
        };
        assert_eq!(parse(3).unsupported_incompat(), 0);
        assert!(parse(1).is_erasable() && !parse(1).has_strong_leaves());
        assert!(parse(2).has_strong_leaves() && !parse(2).is_erasable());
        assert_eq!(parse(1 << 63 | 7).unsupported_incompat(), 1 << 63 | 4);
    }
}
