//! One open segment file as the log sees it: what was placed in it, what is on its way, what is durable.
//!
//! ```text
//!   pending ──submit──▶ in flight ──completion──▶ written ──fdatasync submitted after──▶ durable (popped, buffer freed)
//!      ▲                    │ short or failed: the same bytes again, once
//!      └────────────────────┘
//! ```
//!
//! Invariants: entries lie in log order without holes; an entry is popped only when an fdatasync that was submitted after its write
//! completed has returned without error; the watermark is the end of the last popped entry that ends a block.

use std::collections::VecDeque;

use crate::chunk::BufferId;

/// One buffer's worth of placed bytes.
#[derive(Debug)]
pub struct Entry {
    /// Where the bytes are.
    pub buffer: BufferId,
    /// How many, a multiple of 4096.
    pub len: u32,
    /// Offset in the segment file.
    pub offset: u64,
    /// How far it has come.
    pub state: State,
    /// The segment's own last block up to its end; `None` where it ends inside a block.
    pub block_no: Option<u64>,
    /// What it is, for the books.
    pub what: What,
}

/// How far an entry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Placed, not handed to the disk.
    Pending,
    /// In a write that has not completed.
    InFlight,
    /// Its write completed; not yet covered by an fdatasync.
    Written,
}

/// What an entry holds.
#[derive(Debug)]
pub enum What {
    /// A sealed chunk.
    Chunk(ChunkFacts),
    /// One or more blocks of other types, or a part of one.
    Meta,
}

/// What the books need of a sealed chunk once it is durable, or lost.
#[derive(Clone, Copy, Debug)]
pub struct ChunkFacts {
    /// Index of its stream in the shard's table.
    pub stream: u32,
    /// Packets in it.
    pub packets: u32,
    /// Payload bytes in it.
    pub packet_bytes: u32,
    /// Arrival of its first packet, realtime.
    pub first_arrival_ns: u64,
}

/// The entries of one segment from its watermark up.
#[derive(Debug, Default)]
pub struct Entries {
    queue: VecDeque<Entry>,
    /// Number of `queue[0]` since the segment began; numbers stay while the queue moves.
    first: u64,
    /// Number of the first entry not yet handed to the disk.
    pending: u64,
    /// Entries before this number are written without a hole.
    written: u64,
}

impl Entries {
    /// With room for `capacity` entries before it allocates.
    pub fn with_capacity(capacity: usize) -> Self {
        Entries {
            queue: VecDeque::with_capacity(capacity),
            ..Entries::default()
        }
    }

    /// Adds an entry at the end of the log.
    pub fn push(&mut self, entry: Entry) {
        self.queue.push_back(entry);
    }

    /// The last entry, if the disk has not got it yet.
    pub fn last_pending_mut(&mut self) -> Option<&mut Entry> {
        self.queue
            .back_mut()
            .filter(|entry| entry.state == State::Pending)
    }

    /// Whether nothing is above the watermark.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Entries above the watermark.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// All entries above the watermark, in log order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.queue.iter()
    }

    /// Entries not yet handed to the disk, in log order.
    pub fn pending(&self) -> impl Iterator<Item = &Entry> {
        self.queue.range((self.pending - self.first) as usize..)
    }

    /// Marks the next `count` pending entries as in flight; returns the number of the first.
    pub fn submit(&mut self, count: usize) -> u64 {
        let number = self.pending;
        let at = (number - self.first) as usize;
        for entry in self.queue.range_mut(at..at + count) {
            entry.state = State::InFlight;
        }
        self.pending += count as u64;
        number
    }

    /// Marks `count` entries from `number` as written and moves the gap-free prefix.
    pub fn complete(&mut self, number: u64, count: usize) {
        let at = (number - self.first) as usize;
        for entry in self.queue.range_mut(at..at + count) {
            entry.state = State::Written;
        }
        while self
            .queue
            .get((self.written - self.first) as usize)
            .is_some_and(|e| e.state == State::Written)
        {
            self.written += 1;
        }
    }

    /// The ranges of `count` entries from `number`.
    pub fn range(&self, number: u64, count: usize) -> impl Iterator<Item = &Entry> {
        let at = (number - self.first) as usize;
        self.queue.range(at..at + count)
    }

    /// Number up to which all is written without a hole: what an fdatasync submitted now would cover.
    pub fn written_upto(&self) -> u64 {
        self.written
    }

    /// Whether an fdatasync now would make anything durable.
    pub fn has_unsynced(&self) -> bool {
        self.written > self.first
    }

    /// Removes and returns the first entry if its number is below `upto`: it is durable.
    pub fn pop_durable(&mut self, upto: u64) -> Option<Entry> {
        if self.first >= upto {
            return None;
        }
        self.first += 1;
        let entry = self.queue.pop_front();
        debug_assert!(
            entry.as_ref().is_some_and(|e| e.state == State::Written),
            "durable means written first"
        );
        entry
    }

    /// Takes every entry above the watermark, for another segment. The caller has seen all its writes complete.
    pub fn take_all(&mut self) -> VecDeque<Entry> {
        self.first += self.queue.len() as u64;
        self.pending = self.first;
        self.written = self.first;
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Pool;
    use crate::uring::memory::{Region, RegionOptions};

    fn entries(count: u64) -> Entries {
        let mut pool = Pool::new(
            Region::new(RegionOptions {
                lock: false,
                ..RegionOptions::plaintext(1 << 20)
            })
            .unwrap(),
        );
        let mut entries = Entries::default();
        for i in 0..count {
            let buffer = pool.take(4096).unwrap();
            entries.push(Entry {
                buffer,
                len: 4096,
                offset: 8192 + i * 4096,
                state: State::Pending,
                block_no: Some(i),
                what: What::Meta,
            });
        }
        entries
    }

    #[test]
    fn a_hole_in_the_completions_holds_the_prefix_back() {
        let mut entries = entries(4);
        let a = entries.submit(1);
        let b = entries.submit(2);
        entries.complete(b, 2);
        assert_eq!(entries.written_upto(), 0);
        assert!(!entries.has_unsynced());
        entries.complete(a, 1);
        assert_eq!(entries.written_upto(), 3);
    }

    #[test]
    fn only_what_was_written_before_the_sync_becomes_durable() {
        let mut entries = entries(3);
        let a = entries.submit(1);
        entries.complete(a, 1);
        let upto = entries.written_upto();
        let b = entries.submit(2);
        entries.complete(b, 2);
        assert_eq!(entries.pop_durable(upto).unwrap().offset, 8192);
        assert!(entries.pop_durable(upto).is_none());
        assert_eq!(entries.len(), 2);
    }
}
