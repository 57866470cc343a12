//! TOMBSTONE: something is gone, and this says why. Either segments that retention deleted, signed by the node,
//! or blocks that recovery could not save.
//!
//! ```text
//! body   80 bytes as drawn below · deleted: count × 80 bytes
//! ```

use super::{BodyError, len_of, need_len, signed_message};
use crate::ids::{NodeId, RunId, SegmentId};
use crate::layout::{array_in, layout, put, u32_in, u64_in};

layout! {
    at: 80 =>
    0  4  KIND,
    4  4  COUNT,
    8  8  TIME_S,
    16 64 SIGNATURE,
}

layout! {
    entry_at: 80 =>
    0  16 SEGMENT_ID,
    16 16 RUN_ID,
    32 4  SHARD,
    36 4  REASON,
    40 8  CHAIN_SEQ,
    48 32 ROOT,
}

const BLOCK: &str = "TOMBSTONE";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TombstoneKind {
    /// Segments deleted on purpose. Signed.
    Deleted(Vec<DeletedSegment>),
    /// A hole in a repaired copy, from the header's `block_no` on; the block's `total_len` spans it, or part of
    /// it if it exceeds 1 MiB: then more of the same number follow. Not signed: it is no leaf of the original.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneBody {
    pub kind: TombstoneKind,
    /// Seconds since 1970.
    pub time_s: u64,
    /// Ed25519, by the node, over [`TombstoneBody::signed_message`]; zero in [`TombstoneKind::Lost`].
    pub signature: [u8; 64],
}

/// Which limit of the retention policy a segment met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeletionReason {
    MaxAge,
    MaxBytes,
    MinFree,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedSegment {
    pub segment_id: SegmentId,
    pub run_id: RunId,
    pub shard: u32,
    pub reason: DeletionReason,
    pub chain_seq: u64,
    /// Its final root, as its footer had it; zero if it had none.
    pub root: [u8; 32],
}

impl TombstoneBody {
    /// Bytes of a tombstone without entries.
    pub const LEN: usize = at::SIZE;

    /// What the node signs of a body that parses, as stored in `host_id`.
    pub fn signed_message(body: &[u8], node_id: &NodeId, host_id: &SegmentId) -> Vec<u8> {
        let entries = &body[at::SIZE..len_of(at::SIZE, u32_in(body, at::COUNT), entry_at::SIZE)];
        signed_message(
            "harborseal/v1/tombstone",
            node_id,
            host_id,
            &[&body[..at::SIGNATURE.start], entries],
        )
    }

    pub fn encode(&self) -> Vec<u8> {
        let (kind, entries): (u32, &[DeletedSegment]) = match &self.kind {
            TombstoneKind::Deleted(entries) => (1, entries),
            TombstoneKind::Lost => (2, &[]),
        };
        let mut body = vec![0; at::SIZE];
        put(&mut body, at::KIND, &kind.to_le_bytes());
        put(&mut body, at::COUNT, &(entries.len() as u32).to_le_bytes());
        put(&mut body, at::TIME_S, &self.time_s.to_le_bytes());
        put(&mut body, at::SIGNATURE, &self.signature);
        for entry in entries {
            body.extend_from_slice(&entry.encode());
        }
        body
    }

    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        need_len(BLOCK, body, at::SIZE)?;
        let entries_end = len_of(at::SIZE, u32_in(body, at::COUNT), entry_at::SIZE);
        need_len(BLOCK, body, entries_end)?;
        let unsupported = |what| Err(BodyError::Unsupported { block: BLOCK, what });
        let kind = match u32_in(body, at::KIND) {
            1 => {
                let entries = body[at::SIZE..entries_end]
                    .chunks_exact(entry_at::SIZE)
                    .map(DeletedSegment::parse);
                TombstoneKind::Deleted(entries.collect::<Result<_, _>>()?)
            }
            2 => TombstoneKind::Lost,
            3 => return unsupported("erasure"),
            _ => return unsupported("this kind"),
        };
        let signature = array_in(body, at::SIGNATURE);
        Ok(TombstoneBody {
            kind,
            time_s: u64_in(body, at::TIME_S),
            signature,
        })
    }
}

impl DeletedSegment {
    /// Bytes of one entry.
    pub const LEN: usize = entry_at::SIZE;

    fn encode(&self) -> [u8; Self::LEN] {
        let mut entry = [0; Self::LEN];
        put(&mut entry, entry_at::SEGMENT_ID, &self.segment_id.0);
        put(&mut entry, entry_at::RUN_ID, &self.run_id.0);
        put(&mut entry, entry_at::SHARD, &self.shard.to_le_bytes());
        put(&mut entry, entry_at::REASON, &self.reason.as_u32().to_le_bytes());
        put(&mut entry, entry_at::CHAIN_SEQ, &self.chain_seq.to_le_bytes());
        put(&mut entry, entry_at::ROOT, &self.root);
        entry
    }

    fn parse(entry: &[u8]) -> Result<Self, BodyError> {
        let reason = DeletionReason::from_u32(u32_in(entry, entry_at::REASON));
        let reason = reason.ok_or(BodyError::Unsupported {
            block: BLOCK,
            what: "this reason of a deletion",
        })?;
        Ok(DeletedSegment {
            segment_id: SegmentId(array_in(entry, entry_at::SEGMENT_ID)),
            run_id: RunId(array_in(entry, entry_at::RUN_ID)),
            shard: u32_in(entry, entry_at::SHARD),
            reason,
            chain_seq: u64_in(entry, entry_at::CHAIN_SEQ),
            root: array_in(entry, entry_at::ROOT),
        })
    }
}

impl DeletionReason {
    fn as_u32(self) -> u32 {
        match self {
            DeletionReason::MaxAge => 1,
            DeletionReason::MaxBytes => 2,
            DeletionReason::MinFree => 3,
        }
    }

    fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            1 => DeletionReason::MaxAge,
            2 => DeletionReason::MaxBytes,
            3 => DeletionReason::MinFree,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deleted() -> TombstoneBody {
        let entry = DeletedSegment {
            segment_id: SegmentId([1; 16]),
            run_id: RunId([2; 16]),
            shard: 3,
            reason: DeletionReason::MinFree,
            chain_seq: 4,
            root: [5; 32],
        };
        let entries = vec![
            entry,
            DeletedSegment {
                reason: DeletionReason::MaxAge,
                ..entry
            },
        ];
        TombstoneBody {
            kind: TombstoneKind::Deleted(entries),
            time_s: 6,
            signature: [7; 64],
        }
    }

    #[test]
    fn both_kinds_come_back_as_written() {
        let lost = TombstoneBody {
            kind: TombstoneKind::Lost,
            time_s: 1,
            signature: [0; 64],
        };
        for body in [deleted(), lost] {
            assert_eq!(TombstoneBody::parse(&body.encode()), Ok(body));
        }
    }

    #[test]
    fn every_cut_is_refused() {
        let whole = deleted().encode();
        for len in 0..whole.len() {
            assert!(TombstoneBody::parse(&whole[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn erasure_is_reserved_rather_than_corrupt() {
        let mut body = deleted().encode();
        body[0] = 3;
        assert!(matches!(
            TombstoneBody::parse(&body),
            Err(BodyError::Unsupported { .. })
        ));
    }

    #[test]
    fn the_signed_message_covers_the_entries_and_not_the_signature() {
        let message = |body: &TombstoneBody| {
            TombstoneBody::signed_message(&body.encode(), &NodeId([1; 16]), &SegmentId([2; 16]))
        };
        let other_signature = TombstoneBody {
            signature: [0; 64],
            ..deleted()
        };
        assert_eq!(message(&deleted()), message(&other_signature));
        assert_eq!(message(&deleted()).len(), 23 + 16 + 16 + 16 + 2 * 80);
    }
}
