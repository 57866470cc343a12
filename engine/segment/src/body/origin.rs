//! ORIGIN: from here on, blocks of another segment may stand in this file, copied verbatim.

use super::{BodyError, need_len};
use crate::ids::{NodeId, RunId, SegmentId};
use crate::layout::{array_in, layout, put, u32_in, u64_in};

layout! {
    at: 80 =>
    0  16 SEGMENT_ID,
    16 16 NODE_ID,
    32 16 RUN_ID,
    48 4  SHARD,
    52 4  FLAGS,
    56 8  CHAIN_SEQ,
    64 8  FIRST_BLOCK_NO,
    72 8  LAST_BLOCK_NO,
}

const BLOCK: &str = "ORIGIN";

/// A block is accepted in a foreign file only if an earlier ORIGIN there names its segment and block number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginBody {
    /// Segment of origin, and what its SEGMENT block says of it.
    pub segment_id: SegmentId,
    /// The node that wrote the origin: opening its KEY entries needs it.
    pub node_id: NodeId,
    /// One life of the recording process.
    pub run_id: RunId,
    /// Which writer of the node, from 0.
    pub shard: u32,
    /// Its place in its chain, from 0.
    pub chain_seq: u64,
    /// The first number that may stand here.
    pub first_block_no: u64,
    /// Inclusive.
    pub last_block_no: u64,
}

impl OriginBody {
    /// Bytes of the fixed part.
    pub const LEN: usize = at::SIZE;

    /// Whether a block of that origin and number may stand behind it.
    pub fn covers(&self, segment_id: &SegmentId, block_no: u64) -> bool {
        self.segment_id == *segment_id && (self.first_block_no..=self.last_block_no).contains(&block_no)
    }

    /// The body as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![0; Self::LEN];
        put(&mut body, at::SEGMENT_ID, &self.segment_id.0);
        put(&mut body, at::NODE_ID, &self.node_id.0);
        put(&mut body, at::RUN_ID, &self.run_id.0);
        put(&mut body, at::SHARD, &self.shard.to_le_bytes());
        put(&mut body, at::CHAIN_SEQ, &self.chain_seq.to_le_bytes());
        put(&mut body, at::FIRST_BLOCK_NO, &self.first_block_no.to_le_bytes());
        put(&mut body, at::LAST_BLOCK_NO, &self.last_block_no.to_le_bytes());
        body
    }

    /// Parses a body as stored; bytes behind the fields of this version are ignored (docs/FORMAT.md §4).
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        need_len(BLOCK, body, Self::LEN)?;
        let origin = OriginBody {
            segment_id: SegmentId(array_in(body, at::SEGMENT_ID)),
            node_id: NodeId(array_in(body, at::NODE_ID)),
            run_id: RunId(array_in(body, at::RUN_ID)),
            shard: u32_in(body, at::SHARD),
            chain_seq: u64_in(body, at::CHAIN_SEQ),
            first_block_no: u64_in(body, at::FIRST_BLOCK_NO),
            last_block_no: u64_in(body, at::LAST_BLOCK_NO),
        };
        if origin.first_block_no > origin.last_block_no {
            let rule = "first_block_no must not be above last_block_no";
            return Err(BodyError::Field {
                block: BLOCK,
                at: at::FIRST_BLOCK_NO.start,
                rule,
            });
        }
        Ok(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> OriginBody {
        OriginBody {
            segment_id: SegmentId([1; 16]),
            node_id: NodeId([2; 16]),
            run_id: RunId([3; 16]),
            shard: 4,
            chain_seq: 5,
            first_block_no: 6,
            last_block_no: 7,
        }
    }

    #[test]
    fn an_origin_comes_back_as_written() {
        assert_eq!(OriginBody::parse(&origin().encode()), Ok(origin()));
    }

    #[test]
    fn an_origin_covers_its_block_range_and_no_other() {
        let covered: Vec<_> = (0..10)
            .filter(|no| origin().covers(&SegmentId([1; 16]), *no))
            .collect();
        assert_eq!(covered, [6, 7]);
        assert!(!origin().covers(&SegmentId([9; 16]), 6));
    }

    #[test]
    fn an_empty_range_is_refused() {
        assert!(
            OriginBody::parse(
                &OriginBody {
                    first_block_no: 8,
                    ..origin()
                }
                .encode()
            )
            .is_err()
        );
    }
}
