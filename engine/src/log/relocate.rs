//! Moving on from a segment the disk has failed (design §4.8): every chunk above its watermark is copied, byte for byte,
//! into the active segment, behind an ORIGIN block that names where it comes from, in rising block_no among the origin's KEY and
//! STREAM blocks (docs/FORMAT.md §4.6).
//!
//! The chunks never left the pool, so the copy costs no memory: an entry's buffer gets a second place in the log.
//! The other blocks need buffers, and when a disk fails the pool is likely full; so blocks move one at a time, as the
//! buffers kept back for them come free. Readers take a block that stands in both files once.
//!
//! Invariant: the chunks of one origin that are not durable lie in one segment, or are on their way to one; so a file holds one group of
//! blocks of each origin. While a relocation lasts the active segment is given up only if it fails, and then what has
//! reached it and what has not go on together.

use std::collections::{HashSet, VecDeque};

use harborseal_segment::body::OriginBody;

use super::entry::{Entry, What};
use super::prepare::with_padding;
use super::segment::OpenSegment;
use super::{Handle, Log, META_RESERVE_BYTES, Now, Outside, Request, header_of};
use crate::chunk::{BUFFER_BYTES, Pool};

/// A failed segment whose chunks live on in another: its identity, and its KEY and STREAM blocks without padding.
#[derive(Clone)]
pub(super) struct Foreign {
    pub(super) origin: OriginBody,
    pub(super) kept: Vec<Box<[u8]>>,
}

/// A relocation under way.
pub(super) struct Moving {
    /// The segment that the blocks go to, once one was there to take them.
    target: Option<Handle>,
    /// Where they come from.
    origins: Vec<Foreign>,
    /// What has not found its new place yet, in the order of the file.
    steps: VecDeque<Step>,
}

/// The next block to be placed.
enum Step {
    Origin(OriginBody),
    Kept(Box<[u8]>),
    Chunk(Entry),
}

impl Moving {
    /// Chunks that have not found a new place yet.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Entry> {
        self.steps.iter().filter_map(|step| match step {
            Step::Chunk(entry) => Some(entry),
            _ => None,
        })
    }

    /// All that must go on from a failed segment, and what was on its way there. Buffers of blocks other than chunks are freed.
    fn of(mut failed: OpenSegment, before: Option<Moving>, pool: &mut Pool) -> Moving {
        let mut chunks: Vec<Entry> = Vec::new();
        for entry in failed.entries.take_all() {
            match entry.what {
                What::Chunk(_) => chunks.push(entry),
                What::Meta => pool.give(entry.buffer),
            }
        }
        let left = before.into_iter().flat_map(|before| before.steps);
        chunks.extend(left.filter_map(|step| match step {
            Step::Chunk(entry) => Some(entry),
            _ => None,
        }));
        let own = Foreign {
            origin: failed.origin,
            kept: failed.kept,
        };
        let mut moving = Moving {
            target: None,
            origins: Vec::new(),
            steps: VecDeque::new(),
        };
        for foreign in failed.foreign.into_iter().chain([own]) {
            moving.add(foreign, &mut chunks, pool);
        }
        debug_assert!(chunks.is_empty(), "a segment knows the origins of all its chunks");
        moving
    }

    /// Adds one origin, and takes its chunks out of `chunks`. Nothing, if none of them is its own.
    fn add(&mut self, mut foreign: Foreign, chunks: &mut Vec<Entry>, pool: &Pool) {
        let header = |entry: &Entry| header_of(pool.bytes(&entry.buffer));
        let id = foreign.origin.segment_id;
        let own: Vec<Entry> = chunks
            .extract_if(.., |entry| header(entry).segment_id == id)
            .collect();
        let Some(last_block_no) = own.iter().map(|entry| header(entry).block_no).max() else {
            return;
        };
        foreign.origin.first_block_no = 1; // KEY and STREAM blocks stand before the chunks, and the first of them first
        foreign.origin.last_block_no = last_block_no;
        let streams: HashSet<_> = own.iter().map(|entry| header(entry).stream_id).collect();
        foreign.kept.retain(|block| {
            let header = header_of(block);
            let needed = header.stream_id.is_zero() || streams.contains(&header.stream_id);
            needed && header.block_no < last_block_no
        });
        let kept = foreign
            .kept
            .iter()
            .map(|block| (header_of(block).block_no, Step::Kept(block.clone())));
        let own = own
            .into_iter()
            .map(|entry| (header(&entry).block_no, Step::Chunk(entry)));
        let mut blocks: Vec<(u64, Step)> = kept.chain(own).collect();
        blocks.sort_by_key(|(block_no, _)| *block_no);
        self.steps.push_back(Step::Origin(foreign.origin));
        self.steps.extend(blocks.into_iter().map(|(_, step)| step));
        self.origins.push(foreign);
    }
}

impl Log {
    /// Takes up a failed segment that the kernel is done with, and moves as much as there is room for.
    pub(super) fn relocate_failed(&mut self, pool: &mut Pool, outside: &mut impl Outside, now: Now) {
        if let Some(mut failed) = self.take_failed() {
            let tombstones = std::mem::take(&mut failed.tombstones);
            self.tombstones.extend(
                tombstones
                    .into_iter()
                    .map(|(_, ticket, entries)| (ticket, entries)),
            );
            let heads = std::mem::take(&mut failed.heads);
            self.heads.extend(heads.into_iter().flat_map(|(_, heads)| heads));
            self.retired += 1;
            outside.request(Request::Abandon(failed.handle));
            self.moving = Some(Moving::of(failed, self.moving.take(), pool));
        }
        let (Some(moving), Some(active)) = (self.moving.as_mut(), self.segments.back_mut()) else {
            return;
        };
        if active.failed() {
            return;
        }
        if moving.target.is_none() {
            moving.target = Some(active.handle);
            active.foreign.extend(moving.origins.iter().cloned());
        }
        if moving.target == Some(active.handle) && move_on(moving, active, pool, now) {
            self.moving = None;
        }
    }

    /// Removes the failed segment to be taken up next, if there is one whose writes and syncs are all over: during a
    /// relocation only its target, else the oldest.
    fn take_failed(&mut self) -> Option<OpenSegment> {
        let last = self.segments.len().saturating_sub(1);
        let target = self.moving.as_ref().map(|moving| moving.target);
        let is_next = |segment: &OpenSegment| {
            let in_turn = target.is_none_or(|target| target == Some(segment.handle));
            in_turn && segment.failed() && segment.is_settled()
        };
        let at = self.segments.iter().take(last).position(is_next)?;
        self.segments.remove(at)
    }
}

/// Moves blocks while file and pool have room; true when all are placed.
fn move_on(moving: &mut Moving, active: &mut OpenSegment, pool: &mut Pool, now: Now) -> bool {
    while let Some(step) = moving.steps.front() {
        let (len, memory) = match step {
            Step::Origin(_) => (4096, BUFFER_BYTES),
            Step::Kept(block) => {
                let len = header_of(block).total_len as usize;
                (len, len.clamp(BUFFER_BYTES, META_RESERVE_BYTES))
            }
            Step::Chunk(entry) => (entry.len as usize, 0),
        };
        if pool.free_bytes() < memory || active.room() < (len + BUFFER_BYTES) as u64 {
            return false;
        }
        match moving.steps.pop_front() {
            Some(Step::Origin(origin)) => {
                let (placed, block) = active.writer.origin(&origin);
                active.place_meta(pool, placed, &block, now);
            }
            Some(Step::Kept(block)) => {
                let (header, block) = with_padding(&block);
                let placed = active.writer.place_copy(&header, &block);
                active.place_meta(pool, placed, &block, now);
            }
            Some(Step::Chunk(entry)) => {
                let block = &pool.bytes(&entry.buffer)[..entry.len as usize];
                let placed = active.writer.place_copy(&header_of(block), block);
                active.place(entry.buffer, entry.len, placed.offset, entry.what, now);
            }
            None => {}
        }
    }
    true
}
