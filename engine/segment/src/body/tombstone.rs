//! TOMBSTONE: something is gone, and this says why. Segments that the node deleted, or chunks whose bodies it erased, both
//! signed by it; or blocks that recovery could not save.
//!
//! ```text
//! body   80 bytes as drawn below · deleted, erased: count × 80 bytes
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
    36 4  REASON_OR_SLOT,
    40 8  CHAIN_SEQ,
    48 32 ROOT,
}

const BLOCK: &str = "TOMBSTONE";

/// What is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TombstoneKind {
    /// Segments deleted on purpose. Signed.
    Deleted(Vec<DeletedSegment>),
    /// Slots of closed segments whose CHUNK bodies the node erased, in every file that it knew to hold one. Signed.
    Erased(Vec<ErasedSlot>),
    /// A hole in a repaired copy, from the header's `block_no` on; the block's `total_len` spans it, or part of
    /// it if it exceeds 1 MiB: then more of the same number follow. Not signed: it is no leaf of the original.
    Lost,
}

/// The body of a TOMBSTONE block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneBody {
    /// What is gone, and why.
    pub kind: TombstoneKind,
    /// Seconds since 1970.
    pub time_s: u64,
    /// Ed25519, by the node, over [`TombstoneBody::signed_message`]; zero in [`TombstoneKind::Lost`].
    pub signature: [u8; 64],
}

/// Why a segment was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeletionReason {
    /// It was older than the retention policy allows.
    MaxAge,
    /// The node stored more than the retention policy allows.
    MaxBytes,
    /// The disk was too full.
    MinFree,
    /// Its footage was gathered into objects of one customer each (docs/FORMAT.md §14).
    Compacted,
    /// Its footage was erased on purpose, and there was none of anybody else in it.
    Erased,
    /// A reason of a later version. It was deleted all the same.
    Other(u32),
}

/// A segment that its node deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletedSegment {
    /// The segment.
    pub segment_id: SegmentId,
    /// Its run, and with the shard its chain.
    pub run_id: RunId,
    /// Its shard.
    pub shard: u32,
    /// Why.
    pub reason: DeletionReason,
    /// Its place in its chain.
    pub chain_seq: u64,
    /// Its final root, as its footer had it; zero if it had none.
    pub root: [u8; 32],
}

/// A slot of a segment whose CHUNK bodies its node erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErasedSlot {
    /// The segment to which the chunks were first written.
    pub segment_id: SegmentId,
    /// Its run, and with the shard its chain.
    pub run_id: RunId,
    /// Its shard.
    pub shard: u32,
    /// The slot there.
    pub slot: u32,
    /// Its place in its chain.
    pub chain_seq: u64,
    /// Its final root, which erasing does not change; zero if unknown.
    pub root: [u8; 32],
}

impl TombstoneBody {
    /// Bytes of a tombstone without entries.
    pub const LEN: usize = at::SIZE;

    /// What the node signs of a body of kind 1 or 3 that parses, as stored in `host_id`.
    pub fn signed_message(body: &[u8], node_id: &NodeId, host_id: &SegmentId) -> Vec<u8> {
        let entries = &body[at::SIZE..len_of(at::SIZE, u32_in(body, at::COUNT), entry_at::SIZE)];
        signed_message(
            "harborseal/v1/tombstone",
            node_id,
            host_id,
            &[&body[..at::SIGNATURE.start], entries],
        )
    }

    /// The bytes of the body.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, entries): (u32, Vec<[u8; entry_at::SIZE]>) = match &self.kind {
            TombstoneKind::Deleted(entries) => (1, entries.iter().map(|entry| entry.encode()).collect()),
            TombstoneKind::Lost => (2, Vec::new()),
            TombstoneKind::Erased(entries) => (3, entries.iter().map(|entry| entry.encode()).collect()),
        };
        let mut body = vec![0; at::SIZE];
        put(&mut body, at::KIND, &kind.to_le_bytes());
        put(&mut body, at::COUNT, &(entries.len() as u32).to_le_bytes());
        put(&mut body, at::TIME_S, &self.time_s.to_le_bytes());
        put(&mut body, at::SIGNATURE, &self.signature);
        body.extend(entries.into_iter().flatten());
        body
    }

    /// Parses a body. The kind is looked at first: what a later one holds is not known here.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        need_len(BLOCK, body, at::SIZE)?;
        let entries = || {
            let end = len_of(at::SIZE, u32_in(body, at::COUNT), entry_at::SIZE);
            need_len(BLOCK, body, end)?;
            Ok(body[at::SIZE..end].chunks_exact(entry_at::SIZE))
        };
        let kind = match u32_in(body, at::KIND) {
            1 => TombstoneKind::Deleted(entries()?.map(DeletedSegment::parse).collect()),
            2 => TombstoneKind::Lost,
            3 => TombstoneKind::Erased(entries()?.map(ErasedSlot::parse).collect()),
            _ => {
                let what = "this kind";
                return Err(BodyError::Unsupported { block: BLOCK, what });
            }
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

    fn encode(&self) -> [u8; entry_at::SIZE] {
        let &DeletedSegment {
            segment_id,
            run_id,
            shard,
            reason,
            chain_seq,
            root,
        } = self;
        let entry = ErasedSlot {
            segment_id,
            run_id,
            shard,
            slot: reason.as_u32(),
            chain_seq,
            root,
        };
        entry.encode()
    }

    fn parse(entry: &[u8]) -> Self {
        let ErasedSlot {
            segment_id,
            run_id,
            shard,
            slot: reason,
            chain_seq,
            root,
        } = ErasedSlot::parse(entry);
        DeletedSegment {
            segment_id,
            run_id,
            shard,
            reason: DeletionReason::from_u32(reason),
            chain_seq,
            root,
        }
    }
}

/// Both kinds of entry are drawn alike; only what stands at 36 differs.
impl ErasedSlot {
    /// Bytes of one entry.
    pub const LEN: usize = entry_at::SIZE;

    fn encode(&self) -> [u8; entry_at::SIZE] {
        let mut entry = [0; entry_at::SIZE];
        put(&mut entry, entry_at::SEGMENT_ID, &self.segment_id.0);
        put(&mut entry, entry_at::RUN_ID, &self.run_id.0);
        put(&mut entry, entry_at::SHARD, &self.shard.to_le_bytes());
        put(&mut entry, entry_at::REASON_OR_SLOT, &self.slot.to_le_bytes());
        put(&mut entry, entry_at::CHAIN_SEQ, &self.chain_seq.to_le_bytes());
        put(&mut entry, entry_at::ROOT, &self.root);
        entry
    }

    fn parse(entry: &[u8]) -> Self {
        ErasedSlot {
            segment_id: SegmentId(array_in(entry, entry_at::SEGMENT_ID)),
            run_id: RunId(array_in(entry, entry_at::RUN_ID)),
            shard: u32_in(entry, entry_at::SHARD),
            slot: u32_in(entry, entry_at::REASON_OR_SLOT),
            chain_seq: u64_in(entry, entry_at::CHAIN_SEQ),
            root: array_in(entry, entry_at::ROOT),
        }
    }
}

impl DeletionReason {
    fn as_u32(self) -> u32 {
        match self {
            DeletionReason::MaxAge => 1,
            DeletionReason::MaxBytes => 2,
            DeletionReason::MinFree => 3,
            DeletionReason::Compacted => 4,
            DeletionReason::Erased => 5,
            DeletionReason::Other(value) => value,
        }
    }

    fn from_u32(value: u32) -> Self {
        match value {
            1 => DeletionReason::MaxAge,
            2 => DeletionReason::MaxBytes,
            3 => DeletionReason::MinFree,
            4 => DeletionReason::Compacted,
            5 => DeletionReason::Erased,
            _ => DeletionReason::Other(value),
        }
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
                reason: DeletionReason::Compacted,
                ..entry
            },
            DeletedSegment {
                reason: DeletionReason::Erased,
                ..entry
            },
            DeletedSegment {
                reason: DeletionReason::Other(6),
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
    fn all_kinds_come_back_as_written() {
        let slot = ErasedSlot {
            segment_id: SegmentId([1; 16]),
            run_id: RunId([2; 16]),
            shard: 3,
            slot: 9,
            chain_seq: 4,
            root: [5; 32],
        };
        let erased = TombstoneBody {
            kind: TombstoneKind::Erased(vec![slot; 2]),
            time_s: 6,
            signature: [7; 64],
        };
        let lost = TombstoneBody {
            kind: TombstoneKind::Lost,
            time_s: 1,
            signature: [0; 64],
        };
        for body in [deleted(), lost, erased] {
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
    fn an_unknown_kind_is_unsupported_whatever_it_counts() {
        let mut body = deleted().encode();
        body[0] = 4;
        body[at::COUNT].fill(0xFF);
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
        assert_eq!(message(&deleted()).len(), 23 + 16 + 16 + 16 + 4 * 80);
    }
}
