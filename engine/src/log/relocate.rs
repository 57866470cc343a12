//! Moving on from a segment the disk has failed (design §4.8): every chunk above its watermark is copied, byte for byte,
//! into the active segment, behind an ORIGIN block that names where it comes from and the origin's KEY and STREAM blocks.
//!
//! The chunks never left the pool, so the copy costs no memory: an entry's buffer gets a second place in the log.
//! The other blocks need buffers, and when a disk fails the pool is likely full; so blocks move one at a time, as the
//! buffers kept back for them come free. Readers take a block that stands in both files once.

use std::collections::{HashSet, VecDeque};

use harborseal_segment::block::{BlockType, Header};
use harborseal_segment::body::OriginBody;

use super::entry::{Entry, What};
use super::prepare::with_padding;
use super::segment::OpenSegment;
use super::{Handle, Log, META_RESERVE, Now, Outside, Request, header_of};
use crate::chunk::{BUFFER_BYTES, Pool};

/// A failed segment whose chunks live on in another: its identity, and its KEY and STREAM blocks without padding.
#[derive(Clone)]
pub(super) struct Foreign {
    pub(super) origin: OriginBody,
    pub(super) kept: Vec<Box<[u8]>>,
}

/// A relocation under way.
pub(super) struct Moving {
    /// The segment the blocks so far went to. If that fails too, they all go again, to the next.
    target: Option<Handle>,
    foreign: Vec<Foreign>,
    blocks: VecDeque<Next>,
    chunks: VecDeque<(Entry, Header)>,
}

/// The next block that is not a chunk.
enum Next {
    Origin(OriginBody),
    Kept(Box<[u8]>),
}

impl Moving {
    /// Chunks that have not found a new place yet.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().map(|(entry, _)| entry)
    }

    fn aim_at(&mut self, active: &mut OpenSegment) {
        self.target = Some(active.handle);
        self.blocks.clear();
        for foreign in &self.foreign {
            self.blocks.push_back(Next::Origin(foreign.origin));
            self.blocks.extend(foreign.kept.iter().cloned().map(Next::Kept));
        }
        active.foreign.extend(self.foreign.iter().cloned());
    }
}

impl Log {
    /// Takes up the oldest failed segment that the kernel is done with, and moves as much as there is room for.
    pub(super) fn relocate_failed(&mut self, pool: &mut Pool, outside: &mut impl Outside, now: Now) {
        let last = self.segments.len().saturating_sub(1);
        if self.moving.is_none() {
            let done_for = |s: &OpenSegment| s.failed() && s.is_settled();
            let Some(at) = self.segments.iter().take(last).position(done_for) else {
                return;
            };
            let Some(mut failed) = self.segments.remove(at) else {
                return;
            };
            let tombstones = std::mem::take(&mut failed.tombstones);
            self.tombstones.extend(
                tombstones
                    .into_iter()
                    .map(|(_, ticket, entries)| (ticket, entries)),
            );
            self.retired += 1;
            outside.request(Request::Abandon(failed.handle));
            self.moving = Some(take_chunks(failed, pool));
        }
        let (Some(moving), Some(active)) = (self.moving.as_mut(), self.segments.back_mut()) else {
            return;
        };
        if active.failed() {
            return;
        }
        if moving.target != Some(active.handle) {
            moving.aim_at(active);
        }
        if move_on(moving, active, pool, now) {
            self.moving = None;
        }
    }
}

/// Empties a failed segment: its chunks and what is needed to open them are kept, other blocks' buffers are freed.
fn take_chunks(mut failed: OpenSegment, pool: &mut Pool) -> Moving {
    let mut chunks = VecDeque::new();
    for entry in failed.entries.take_all() {
        if matches!(entry.what, What::Chunk(_)) {
            let header = header_of(pool.bytes(&entry.buffer));
            chunks.push_back((entry, header));
        } else {
            pool.give(entry.buffer);
        }
    }
    let own = Foreign {
        origin: failed.origin,
        kept: failed.kept,
    };
    let needed = failed
        .foreign
        .into_iter()
        .chain([own])
        .filter_map(|foreign| only_needed(foreign, &chunks));
    Moving {
        target: None,
        foreign: needed.collect(),
        blocks: VecDeque::new(),
        chunks,
    }
}

/// What of an origin must come along: nothing if none of the chunks is its own.
fn only_needed(mut foreign: Foreign, chunks: &VecDeque<(Entry, Header)>) -> Option<Foreign> {
    let own = || {
        chunks
            .iter()
            .map(|(_, header)| header)
            .filter(|h| h.segment_id == foreign.origin.segment_id)
    };
    let streams: HashSet<_> = own().map(|header| header.stream_id).collect();
    let last_block_no = own().map(|header| header.block_no).max()?;
    foreign.origin.first_block_no = 1; // KEY and STREAM blocks come along, and they stand first
    foreign.origin.last_block_no = last_block_no;
    foreign.kept.retain(|block| {
        let header = header_of(block);
        header.block_type == BlockType::Key || streams.contains(&header.stream_id)
    });
    Some(foreign)
}

/// Moves blocks while file and pool have room; true when all are placed.
fn move_on(moving: &mut Moving, active: &mut OpenSegment, pool: &mut Pool, now: Now) -> bool {
    while let Some(next) = moving.blocks.front() {
        let len = match next {
            Next::Origin(_) => 4096,
            Next::Kept(block) => header_of(block).total_len as usize,
        };
        // A KEY block of 256 entries takes five buffers; META_RESERVE is never less.
        let buffers = len.div_ceil(BUFFER_BYTES).min(META_RESERVE);
        if pool.free() < buffers || active.room() < (len + BUFFER_BYTES) as u64 {
            return false;
        }
        match moving.blocks.pop_front() {
            Some(Next::Origin(origin)) => {
                let (placed, block) = active.writer.origin(&origin);
                active.place_meta(pool, placed, &block, now);
            }
            Some(Next::Kept(block)) => {
                let (header, block) = with_padding(&block);
                let placed = active.writer.place_copy(&header, &block);
                active.place_meta(pool, placed, &block, now);
            }
            None => {}
        }
    }
    while active.room() >= (2 * BUFFER_BYTES) as u64 {
        let Some((entry, header)) = moving.chunks.pop_front() else {
            break;
        };
        let placed = active
            .writer
            .place_copy(&header, &pool.bytes(&entry.buffer)[..entry.len as usize]);
        active.place(entry.buffer, entry.len, placed.offset, entry.what, now);
    }
    moving.chunks.is_empty()
}
