//! Erased chunks, and the statements that they were erased on purpose (docs/FORMAT.md §4.9).
//!
//! The chunks stand in one segment and the statement in another, written later by the same node. So one segment alone cannot tell
//! whether an erasure was allowed: it collects both, and whoever reads several together settles it with [`Erasures`].

use std::collections::{BTreeMap, HashSet};

use crate::ids::{NodeId, SegmentId, StreamId};

/// Places kept per segment, of the first chunks; all others are counted.
const KEPT: usize = 1000;

/// What valid TOMBSTONE blocks say was erased: which slot of which segment, and which node says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasures(HashSet<(NodeId, SegmentId, u32)>);

impl Erasures {
    /// Takes the word of `node_id` for a slot of one of its own segments.
    pub fn state(&mut self, node_id: NodeId, segment_id: SegmentId, slot: u32) {
        self.0.insert((node_id, segment_id, slot));
    }

    /// Takes all that another list holds.
    pub fn extend(&mut self, other: &Erasures) {
        self.0.extend(&other.0);
    }

    /// Whether the node that wrote `segment_id` stated that it erased this slot of it.
    pub fn is_stated(&self, node_id: NodeId, segment_id: SegmentId, slot: u32) -> bool {
        self.0.contains(&(node_id, segment_id, slot))
    }
}

/// The erased chunks of one segment, by slot of their origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Erased {
    pub(super) slots: BTreeMap<(SegmentId, u32), ErasedChunks>,
    /// Offset, length, stream, and the slot by its origin.
    pub(super) places: Vec<(u64, u64, StreamId, (SegmentId, u32))>,
}

/// Those of one slot.
#[derive(Clone, Debug)]
pub(super) struct ErasedChunks {
    /// Who wrote the origin.
    pub(super) node_id: NodeId,
    pub(super) chunks: u64,
    /// A statement was found.
    pub(super) stated: bool,
}

impl Erased {
    pub(super) fn add(
        &mut self,
        place: (u64, u64),
        stream: StreamId,
        slot: (SegmentId, u32),
        node_id: NodeId,
    ) {
        let chunks = self.slots.entry(slot).or_insert(ErasedChunks {
            node_id,
            chunks: 0,
            stated: false,
        });
        chunks.chunks += 1;
        if self.places.len() < KEPT {
            self.places.push((place.0, place.1, stream, slot));
        }
    }
}
