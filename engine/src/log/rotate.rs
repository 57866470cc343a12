//! From one segment to the next: when to rotate, how far to allocate ahead, and how a segment is let go.

use harborseal_segment::block::BLOCK_ALIGN;
use harborseal_segment::ids::SegmentId;

use super::entry::{Entry, What};
use super::prepare::Prepared;
use super::relocate::Moving;
use super::segment::{OpenSegment, Stage};
use super::{ENOSPC, Handle, Log, Now, Outcome, Outside, RETRY_NS, Request};
use crate::chunk::BUFFER_BYTES;

/// Most chunks in one segment: 12 MiB of index rows, which lie outside the pool.
const MAX_CHUNKS: u64 = 256 * 1024;
/// Least space asked for at once, in bytes.
const MIN_STEP_BYTES: u64 = 1 << 20;

/// Bytes placed of late, to size allocations by.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// When the second under way began, and how many bytes had been placed by then.
    since_ns: u64,
    bytes: u64,
    /// Bytes of the second before it, or half as many as of the one before that: a log that waited for space has placed little, and must
    /// not ask for little because of that.
    per_second: u64,
}

impl Log {
    /// What the keeper would need for the segment after the present ones.
    pub fn position(&self) -> (Option<SegmentId>, u64) {
        match self.segments.back() {
            Some(last) => (Some(last.id), last.origin.chain_seq + 1),
            None => (None, 0),
        }
    }

    /// A prepared segment arrived. Returns one it replaces, to be discarded.
    pub fn prepared(&mut self, prepared: Box<Prepared>) -> Option<Box<Prepared>> {
        self.disk_full = false; // there was space for this one
        self.disk_failing = false;
        self.next.replace(prepared)
    }

    /// Whether a prepared segment waits.
    pub fn next(&self) -> Option<&Prepared> {
        self.next.as_deref()
    }

    /// Takes the waiting segment back, when it will not be used.
    pub fn take_next(&mut self) -> Option<Box<Prepared>> {
        self.next.take()
    }

    /// Whether the active segment should give way: by age, size, failure, or because the disk has no more for it.
    pub fn rotation_due(&self, now: Now) -> bool {
        let Some(active) = self.active() else {
            return self.next.is_some();
        };
        if active.stage == Stage::Failed || self.moving.is_some() {
            return active.stage == Stage::Failed; // a relocation ends where it began, if it can
        }
        let touched = active.writer.next_block_no() > active.first_block_no;
        let used = active.writer.chunk_count() > 0;
        let old = now.mono_ns.saturating_sub(active.opened_ns) >= self.limits.segment_max_age_ns;
        let full = active.writer.next_offset() + active.tail_bytes() + (BUFFER_BYTES * 3) as u64
            > self.limits.segment_max_bytes;
        let starved = self.disk_full && active.room() < (BUFFER_BYTES * 3) as u64;
        let indexed = active.writer.chunk_count() >= MAX_CHUNKS;
        (touched && (full || starved || indexed)) || (used && old)
    }

    /// Makes the waiting segment the active one.
    pub fn rotate(&mut self, now: Now) {
        let Some(next) = self.next.take() else { return };
        self.opened += 1;
        let prev = self.segments.back_mut().map(OpenSegment::seal_no_more);
        self.segments.push_back(OpenSegment::new(*next, prev, now));
        self.extend_asked = false;
        self.extend_retry_ns = 0;
    }

    pub(super) fn extend_if_low(&mut self, outside: &mut impl Outside, now: Now) {
        let step = self.rate.allocation_bytes(self.placed_bytes);
        let Some(active) = self.segments.back().filter(|a| a.stage == Stage::Good) else {
            return;
        };
        // A relocation ends in the segment it began in, however large.
        let at_limit = active.alloc_end >= self.limits.segment_max_bytes && self.moving.is_none();
        if self.extend_asked || at_limit || active.room() >= step || now.mono_ns < self.extend_retry_ns {
            return;
        }
        self.extend_asked = true;
        let bytes = step
            .min(
                self.limits
                    .segment_max_bytes
                    .saturating_sub(active.alloc_end)
                    .max(MIN_STEP_BYTES),
            )
            .next_multiple_of(BLOCK_ALIGN as u64);
        outside.request(Request::Extend {
            segment: active.handle,
            from: active.alloc_end,
            bytes,
        });
    }

    /// Space was allocated up to `end`, or not (`errno`).
    pub fn extended(
        &mut self,
        handle: Handle,
        result: Result<u64, i32>,
        outside: &mut impl Outside,
        now: Now,
    ) {
        if !self.active().is_some_and(|active| active.handle == handle) {
            return;
        }
        self.extend_asked = false;
        match result {
            Ok(end) => {
                self.disk_full = false;
                if let Some(active) = self.segments.back_mut() {
                    active.alloc_end = end;
                }
            }
            Err(ENOSPC) => {
                self.disk_full = true;
                self.extend_retry_ns = now.mono_ns + RETRY_NS;
                outside.request(Request::NoSpace);
            }
            // Anything else (a read-only or failing file system) is this segment's end; the next one may fare better.
            Err(_) => {
                self.extend_retry_ns = now.mono_ns + RETRY_NS;
                if let Some(active) = self
                    .segments
                    .back_mut()
                    .filter(|active| active.room() < BUFFER_BYTES as u64)
                {
                    active.stage = Stage::Failed;
                }
            }
        }
    }

    /// Space the next segment should start with, in bytes.
    pub fn allocation_bytes(&self) -> u64 {
        self.rate
            .allocation_bytes(self.placed_bytes)
            .min(self.limits.segment_max_bytes)
    }

    pub(super) fn close_drained(&mut self, outside: &mut impl Outside) {
        while self.segments.len() > 1 && self.segments.front().is_some_and(OpenSegment::is_drained) {
            if let Some(segment) = self.segments.pop_front() {
                finish_segment(segment, outside);
            }
        }
    }

    /// A segment was closed; its final root goes into the next checkpoint of the one after it.
    pub fn closed(&mut self, id: SegmentId, root: [u8; 32]) {
        if let Some(next) = self.segments.iter_mut().find(|segment| segment.prev == Some(id)) {
            next.prev_root = Some(root);
        }
    }

    /// Whether chunks of a failed segment are being copied on.
    pub fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// Packets in chunks that were placed and are neither durable nor given up.
    pub fn packets_under_way(&self) -> u64 {
        let in_segments = self.segments.iter().flat_map(|segment| segment.entries.iter());
        let moving = self.moving.iter().flat_map(Moving::chunks);
        let packets = |entry: &Entry| match entry.what {
            What::Chunk(chunk) => u64::from(chunk.packets),
            What::Meta => 0,
        };
        let unsettled = self
            .outcomes
            .iter()
            .map(|outcome| u64::from(outcome.chunk.packets));
        in_segments.chain(moving).map(packets).chain(unsettled).sum()
    }

    /// At the end of a run: hands every segment to the keeper as it stands and returns the chunks that did not become
    /// durable. Buffers of writes still in flight stay with the log, for the kernel may yet read them.
    pub fn give_up(&mut self, outside: &mut impl Outside) -> Vec<Outcome> {
        let outcome = |entry: &Entry| match entry.what {
            What::Chunk(chunk) => Some(Outcome {
                chunk,
                stored_len: entry.len,
            }),
            What::Meta => None,
        };
        let mut lost: Vec<Outcome> = self
            .moving
            .iter()
            .flat_map(Moving::chunks)
            .filter_map(outcome)
            .collect();
        for segment in &mut self.segments {
            lost.extend(segment.entries.iter().filter_map(outcome));
            if !segment.entries.is_empty() {
                segment.stage = Stage::Failed;
            }
        }
        while let Some(segment) = self.segments.pop_front() {
            finish_segment(segment, outside);
        }
        lost
    }
}

/// Closes a segment with its footer, or abandons it where the disk failed it.
fn finish_segment(segment: OpenSegment, outside: &mut impl Outside) {
    let OpenSegment {
        handle,
        stage,
        writer,
        prev_root,
        ..
    } = segment;
    outside.request(match stage {
        Stage::Good => Request::Close {
            segment: handle,
            writer,
            prev_root,
        },
        Stage::Failed => Request::Abandon(handle),
    });
}

impl Rate {
    pub(super) fn note(&mut self, placed_bytes: u64, mono_ns: u64) {
        if mono_ns.saturating_sub(self.since_ns) >= 1_000_000_000 {
            self.per_second = (placed_bytes - self.bytes).max(self.per_second / 2);
            self.bytes = placed_bytes;
            self.since_ns = mono_ns;
        }
    }

    /// Two seconds of the present rate, from 16 MiB to 1 GiB: enough that the keeper is always ahead, and never
    /// more of a small disk than it needs. The second under way counts as far as it has come, so that a start at full rate doubles its
    /// steps instead of waiting for the first second to end.
    fn allocation_bytes(&self, placed_bytes: u64) -> u64 {
        (2 * self.per_second.max(placed_bytes - self.bytes))
            .clamp(16 << 20, 1 << 30)
            .next_multiple_of(1 << 20)
    }
}
