//! Room for a packet: the open chunk of its stream, in a buffer of the right size, or the next one.
//!
//! The packet path asks once for each packet, and mostly the answer is yes by three comparisons on one cache line. Everything else, by the
//! chunk and not by the packet, stands below: a chunk moves to a larger buffer, or ends where it wastes least, or begins.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::Core;
use crate::chunk::{BUFFER_BYTES, BufferId, End, OpenChunk, chunk_len};
use crate::log::Now;

impl Core {
    /// Makes sure that the stream's open chunk takes a packet of `len` bytes. False: there is no memory for it.
    #[inline]
    pub(super) fn make_room(&mut self, index: u32, len: usize, arrival_ns: u64, now: Now) -> bool {
        if let Some(chunk) = &self.open[index as usize] {
            let aged = now.mono_ns.saturating_sub(chunk.opened_ns) >= self.settings.chunk_deadline_ns / 2;
            if chunk.fits(len, arrival_ns) && !(aged && chunk.ends_block_before(len)) {
                return true;
            }
        }
        self.make_room_anew(index, len, arrival_ns, now)
    }

    /// The stream has no open chunk; or it is full; or it is old enough that what it would be if it ended here is worth remembering.
    #[cold]
    fn make_room_anew(&mut self, index: u32, len: usize, arrival_ns: u64, now: Now) -> bool {
        if let Some(chunk) = &self.open[index as usize] {
            let aged = now.mono_ns.saturating_sub(chunk.opened_ns) >= self.settings.chunk_deadline_ns / 2;
            if chunk.fits(len, arrival_ns) {
                let end = chunk.end(self.streams[index].account.lost(), now.mono_ns);
                self.paces[index as usize].note_end(chunk, end);
                return true;
            }
            if !aged && self.grow(index, len, arrival_ns) {
                return true;
            }
        }
        // What is carried over may itself leave no room: then it is a chunk of its own, of which no earlier end is known.
        while self.open[index as usize]
            .as_ref()
            .is_some_and(|chunk| !chunk.fits(len, arrival_ns))
        {
            self.end_chunk(index, now);
        }
        self.open[index as usize].is_some() || self.open_chunk(index, len, arrival_ns, now)
    }

    /// Moves a young chunk that is full to a buffer twice as large: its stream is faster than it was, or sent a key frame. An older one is
    /// ended instead: sealed nearly full, it wastes little.
    fn grow(&mut self, index: u32, len: usize, arrival_ns: u64) -> bool {
        let Some(chunk) = &self.open[index as usize] else {
            return false;
        };
        let (was, needed) = (chunk.buffer.len(), chunk.len_with(len));
        if was == BUFFER_BYTES || needed > BUFFER_BYTES || !chunk.reaches(arrival_ns) || self.is_pressed() {
            return false;
        }
        let Some(buffer) = self.buffer_for_chunk(needed.max(2 * was), needed) else {
            return false;
        };
        self.open_bytes += buffer.len() - was;
        if let Some(chunk) = &mut self.open[index as usize] {
            let left = chunk.move_to(buffer, &mut self.pool);
            self.pool.give(left);
        }
        true
    }

    fn open_chunk(&mut self, index: u32, len: usize, arrival_ns: u64, now: Now) -> bool {
        let least = chunk_len(len);
        let wanted = self.paces[index as usize].buffer_len().max(least);
        let Some(buffer) = self.buffer_for_chunk(wanted, least) else {
            return false;
        };
        let chunk = OpenChunk::new(buffer, self.new_serial(), arrival_ns, now.mono_ns);
        self.deadlines
            .begun(now.mono_ns + self.settings.chunk_deadline_ns, index, chunk.serial);
        self.begin(index, chunk);
        true
    }

    /// The stream's chunk has to end. It ends where it wastes least; what came after that begins the next one.
    pub(super) fn end_chunk(&mut self, index: u32, now: Now) {
        let Some(mut chunk) = self.open[index as usize].take() else {
            return;
        };
        self.open_bytes -= chunk.buffer.len();
        let age_ns = now.mono_ns.saturating_sub(chunk.opened_ns);
        let pace = &mut self.paces[index as usize];
        pace.learn(chunk.len(), age_ns, self.settings.chunk_deadline_ns);
        let end = pace
            .best_end(&chunk)
            .filter(|_| !self.stopping && !self.is_pressed())
            .filter(|end| self.carry_over(index, &mut chunk, end));
        let lost = end.map_or(self.streams[index].account.lost(), |end| end.lost);
        self.enqueue(index, chunk, lost, now);
    }

    /// Ends `chunk` at `end`, and makes what came after that the stream's open chunk. False: there is no memory for it.
    fn carry_over(&mut self, index: u32, chunk: &mut OpenChunk, end: &End) -> bool {
        let least = chunk_len(chunk.len() - end.len as usize);
        let wanted = self.paces[index as usize].buffer_len().max(least);
        let Some(buffer) = self.buffer_for_chunk(wanted, least) else {
            return false;
        };
        let rest = chunk.split_at(end, buffer, self.new_serial(), &mut self.pool);
        self.deadlines.carried_over(
            rest.opened_ns + self.settings.chunk_deadline_ns,
            index,
            rest.serial,
        );
        self.begin(index, rest);
        true
    }

    fn begin(&mut self, index: u32, chunk: OpenChunk) {
        self.streams[index].chunks += 1;
        self.open_bytes += chunk.buffer.len();
        self.open[index as usize] = Some(chunk);
    }

    /// A buffer of `wanted` bytes for a chunk, or what there is, if that holds `least`.
    fn buffer_for_chunk(&mut self, wanted: usize, least: usize) -> Option<BufferId> {
        if self.free_for_chunks() < least {
            return None;
        }
        let buffer = self.pool.take_most(wanted)?;
        if buffer.len() < least {
            self.pool.give(buffer);
            return None;
        }
        Some(buffer)
    }

    fn new_serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }
}

/// Chunks by the time they must be sealed. Some have ended since: whoever takes one out looks.
///
/// The deadline is the same for all, so those that were begun by a packet stand in the order of opening. What was carried over counts from an
/// earlier packet, and only slow streams have such chunks: a heap, off the way of the fast ones.
pub(super) struct Deadlines {
    begun: VecDeque<Due>,
    carried_over: BinaryHeap<Reverse<Due>>,
}

/// Monotonic nanoseconds, stream, serial.
type Due = (u64, u32, u64);

impl Deadlines {
    pub(super) fn with_capacity(chunks: usize) -> Deadlines {
        Deadlines {
            begun: VecDeque::with_capacity(chunks),
            carried_over: BinaryHeap::new(),
        }
    }

    /// A chunk that a packet began just now.
    fn begun(&mut self, due_ns: u64, stream: u32, serial: u64) {
        self.begun.push_back((due_ns, stream, serial));
    }

    /// A chunk that began with what came after the end of another.
    fn carried_over(&mut self, due_ns: u64, stream: u32, serial: u64) {
        self.carried_over.push(Reverse((due_ns, stream, serial)));
    }

    /// The earliest.
    pub(super) fn first(&self) -> Option<Due> {
        let carried_over = self.carried_over.peek().map(|Reverse(due)| *due);
        let begun = self.begun.front().copied();
        carried_over.into_iter().chain(begun).min()
    }

    /// Takes the earliest out.
    pub(super) fn pop_first(&mut self) {
        let carried_over = self.carried_over.peek().map(|Reverse(due)| due);
        match (self.begun.front(), carried_over) {
            (Some(begun), Some(carried_over)) if begun < carried_over => self.begun.pop_front(),
            (_, Some(_)) => self.carried_over.pop().map(|Reverse(due)| due),
            (_, None) => self.begun.pop_front(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_carried_over_falls_due_before_what_began_earlier_in_vain() {
        let mut deadlines = Deadlines::with_capacity(4);
        deadlines.begun(500, 1, 1);
        deadlines.begun(510, 2, 2);
        deadlines.carried_over(505, 3, 3);
        deadlines.carried_over(501, 4, 4);
        let mut order = Vec::new();
        while let Some((due_ns, ..)) = deadlines.first() {
            order.push(due_ns);
            deadlines.pop_first();
        }
        assert_eq!(order, [500, 501, 505, 510]);
    }
}
