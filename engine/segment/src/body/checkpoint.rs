//! CHECKPOINT: the node's signed word on how far this segment is durable and what it holds up to here.
//!
//! ```text
//! body   160 bytes as drawn below · head_count × 96 bytes
//! ```
//!
//! The heads are the chain ends that a run found when it started, so that a segment deleted later shows.

use super::{BodyError, len_of, need_len, signed_message};
use crate::ids::{NodeId, RunId, SegmentId};
use crate::layout::{array_in, layout, put, u32_in, u64_in};

layout! {
    at: 160 =>
    0  8  DURABLE_UPTO,
    8  8  LEAF_COUNT,
    16 32 ROOT,
    48 32 PREV_ROOT,
    80 8  TIME_S,
    88 4  FLAGS,
    92 4  HEAD_COUNT,
    96 64 SIGNATURE,
}

layout! {
    head_at: 96 =>
    0  16 RUN_ID,
    16 4  SHARD,
    20 4  FLAGS,
    24 8  CHAIN_SEQ,
    32 16 SEGMENT_ID,
    48 8  DURABLE_UPTO,
    56 8  LEAF_COUNT,
    64 32 ROOT,
}

/// Flag of a checkpoint: `prev_root` is known.
const FLAG_PREV_ROOT: u32 = 1;
/// Flag of a chain head: that segment has a footer.
pub const HEAD_FOOTER: u32 = 1;
/// Flag of a chain head: its footer was written by recovery.
pub const HEAD_RECOVERED: u32 = 2;

const BLOCK: &str = "CHECKPOINT";

/// The body of a CHECKPOINT block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointBody {
    /// Byte offset in this file below which all was durable when this block was made.
    pub durable_upto: u64,
    /// Merkle leaves before this block.
    pub leaf_count: u64,
    /// Root over them.
    pub root: [u8; 32],
    /// The previous segment's final root, once known.
    pub prev_root: Option<[u8; 32]>,
    /// Seconds since 1970.
    pub time_s: u64,
    /// Ed25519, by the node, over [`CheckpointBody::signed_message`].
    pub signature: [u8; 64],
    /// Chain ends that the run found when it began; empty but in its first segments.
    pub heads: Vec<ChainHead>,
}

/// The last segment of a chain as found at the start of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// One life of the recording process.
    pub run_id: RunId,
    /// Which writer of the node, from 0.
    pub shard: u32,
    /// [`HEAD_FOOTER`], [`HEAD_RECOVERED`].
    pub flags: u32,
    /// Its place in its chain, from 0.
    pub chain_seq: u64,
    /// The segment.
    pub segment_id: SegmentId,
    /// From the segment's footer or, if it has none, its last valid checkpoint; likewise the next two.
    pub durable_upto: u64,
    /// Leaves that the root covers.
    pub leaf_count: u64,
    /// The Merkle root over them (docs/FORMAT.md §6).
    pub root: [u8; 32],
}

impl CheckpointBody {
    /// Bytes of a checkpoint without heads.
    pub const LEN: usize = at::SIZE;

    /// What the node signs of a body that parses, as stored. The heads are not in it: they are part of a leaf, so
    /// the next signed root covers them.
    pub fn signed_message(body: &[u8], node_id: &NodeId, segment_id: &SegmentId) -> Vec<u8> {
        signed_message(
            "harborseal/v1/checkpoint",
            node_id,
            segment_id,
            &[&body[..at::FLAGS.start]],
        )
    }

    /// The body as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![0; at::SIZE];
        let flags = if self.prev_root.is_some() {
            FLAG_PREV_ROOT
        } else {
            0
        };
        put(&mut body, at::DURABLE_UPTO, &self.durable_upto.to_le_bytes());
        put(&mut body, at::LEAF_COUNT, &self.leaf_count.to_le_bytes());
        put(&mut body, at::ROOT, &self.root);
        put(&mut body, at::PREV_ROOT, &self.prev_root.unwrap_or_default());
        put(&mut body, at::TIME_S, &self.time_s.to_le_bytes());
        put(&mut body, at::FLAGS, &flags.to_le_bytes());
        put(
            &mut body,
            at::HEAD_COUNT,
            &(self.heads.len() as u32).to_le_bytes(),
        );
        put(&mut body, at::SIGNATURE, &self.signature);
        for head in &self.heads {
            body.extend_from_slice(&head.encode());
        }
        body
    }

    /// Parses a body as stored; bytes behind the fields of this version are ignored (docs/FORMAT.md §4).
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        need_len(BLOCK, body, at::SIZE)?;
        let heads_end = len_of(at::SIZE, u32_in(body, at::HEAD_COUNT), head_at::SIZE);
        need_len(BLOCK, body, heads_end)?;
        let heads = body[at::SIZE..heads_end]
            .chunks_exact(head_at::SIZE)
            .map(ChainHead::parse)
            .collect();
        let prev_root_known = u32_in(body, at::FLAGS) & FLAG_PREV_ROOT != 0;
        Ok(CheckpointBody {
            durable_upto: u64_in(body, at::DURABLE_UPTO),
            leaf_count: u64_in(body, at::LEAF_COUNT),
            root: array_in(body, at::ROOT),
            prev_root: prev_root_known.then(|| array_in(body, at::PREV_ROOT)),
            time_s: u64_in(body, at::TIME_S),
            signature: array_in(body, at::SIGNATURE),
            heads,
        })
    }
}

impl ChainHead {
    /// Bytes of one head.
    pub const LEN: usize = head_at::SIZE;

    fn encode(&self) -> [u8; Self::LEN] {
        let mut head = [0; Self::LEN];
        put(&mut head, head_at::RUN_ID, &self.run_id.0);
        put(&mut head, head_at::SHARD, &self.shard.to_le_bytes());
        put(&mut head, head_at::FLAGS, &self.flags.to_le_bytes());
        put(&mut head, head_at::CHAIN_SEQ, &self.chain_seq.to_le_bytes());
        put(&mut head, head_at::SEGMENT_ID, &self.segment_id.0);
        put(&mut head, head_at::DURABLE_UPTO, &self.durable_upto.to_le_bytes());
        put(&mut head, head_at::LEAF_COUNT, &self.leaf_count.to_le_bytes());
        put(&mut head, head_at::ROOT, &self.root);
        head
    }

    fn parse(head: &[u8]) -> Self {
        ChainHead {
            run_id: RunId(array_in(head, head_at::RUN_ID)),
            shard: u32_in(head, head_at::SHARD),
            flags: u32_in(head, head_at::FLAGS),
            chain_seq: u64_in(head, head_at::CHAIN_SEQ),
            segment_id: SegmentId(array_in(head, head_at::SEGMENT_ID)),
            durable_upto: u64_in(head, head_at::DURABLE_UPTO),
            leaf_count: u64_in(head, head_at::LEAF_COUNT),
            root: array_in(head, head_at::ROOT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> CheckpointBody {
        let head = ChainHead {
            run_id: RunId([1; 16]),
            shard: 1,
            flags: HEAD_FOOTER | HEAD_RECOVERED,
            chain_seq: 2,
            segment_id: SegmentId([3; 16]),
            durable_upto: 4096,
            leaf_count: 5,
            root: [6; 32],
        };
        CheckpointBody {
            durable_upto: 1 << 20,
            leaf_count: 19,
            root: [7; 32],
            prev_root: Some([8; 32]),
            time_s: 1_795_000_000,
            signature: [9; 64],
            heads: vec![head, ChainHead { shard: 2, ..head }],
        }
    }

    #[test]
    fn a_checkpoint_comes_back_as_written() {
        assert_eq!(CheckpointBody::parse(&checkpoint().encode()), Ok(checkpoint()));
        let bare = CheckpointBody {
            prev_root: None,
            heads: vec![],
            ..checkpoint()
        };
        assert_eq!(CheckpointBody::parse(&bare.encode()), Ok(bare));
    }

    #[test]
    fn lengths_that_do_not_match_the_head_count_are_refused() {
        let whole = checkpoint().encode();
        for len in 0..whole.len() {
            assert!(CheckpointBody::parse(&whole[..len]).is_err(), "{len} bytes");
        }
        let mut wild = whole;
        wild[at::HEAD_COUNT].fill(0xFF);
        assert!(CheckpointBody::parse(&wild).is_err());
    }

    #[test]
    fn the_signed_message_is_fixed_width() {
        let message =
            CheckpointBody::signed_message(&checkpoint().encode(), &NodeId([1; 16]), &SegmentId([2; 16]));
        assert_eq!(message.len(), 24 + 16 + 16 + 8 + 8 + 32 + 32 + 8);
        assert!(message.starts_with(b"harborseal/v1/checkpoint\x01"));
    }
}
