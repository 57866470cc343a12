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
        let (deadline_ns, stream) = (self.settings.chunk_deadline_ns, &self.streams[index]);
        match stream.chunks_sealed {
            0 => {
                let due_ns = now.mono_ns + first_deadline_ns(stream.ssrc, deadline_ns);
                self.deadlines.out_of_turn(due_ns, index, chunk.serial);
            }
            _ => self
                .deadlines
                .begun(now.mono_ns + deadline_ns, index, chunk.serial),
        }
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
        self.deadlines.out_of_turn(
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

/// The deadline of a stream's first chunk: a part of the others', by its SSRC. Ten thousand cameras that are heard within one frame of the
/// start would otherwise need their buffers twice at once, and again with every deadline until they have drifted apart.
fn first_deadline_ns(ssrc: u32, deadline_ns: u64) -> u64 {
    // Fibonacci hashing: also SSRCs that count up are spread evenly.
    let part = u64::from(ssrc.wrapping_mul(0x9E37_79B1) >> 16);
    deadline_ns / 4 + deadline_ns / 4 * 3 * part / 65_536
}

/// Chunks by the time they must be sealed. Some have ended since: whoever takes one out looks.
///
/// The deadline is the same for nearly all, so those that were begun by a packet stand in the order of opening. What was carried over counts
/// from an earlier packet, and a stream's first chunk has its own deadline: a heap, off the way of the fast streams.
pub(super) struct Deadlines {
    begun: VecDeque<Due>,
    out_of_turn: BinaryHeap<Reverse<Due>>,
}

/// Monotonic nanoseconds, stream, serial.
type Due = (u64, u32, u64);

impl Deadlines {
    pub(super) fn with_capacity(chunks: usize) -> Deadlines {
        Deadlines {
            begun: VecDeque::with_capacity(chunks),
            out_of_turn: BinaryHeap::new(),
        }
    }

    /// A chunk that a packet began just now.
    fn begun(&mut self, due_ns: u64, stream: u32, serial: u64) {
        self.begun.push_back((due_ns, stream, serial));
    }

    /// A chunk that falls due before some that began earlier.
    fn out_of_turn(&mut self, due_ns: u64, stream: u32, serial: u64) {
        self.out_of_turn.push(Reverse((due_ns, stream, serial)));
    }

    /// The earliest.
    pub(super) fn first(&self) -> Option<Due> {
        let out_of_turn = self.out_of_turn.peek().map(|Reverse(due)| *due);
        let begun = self.begun.front().copied();
        out_of_turn.into_iter().chain(begun).min()
    }

    /// Takes the earliest out.
    pub(super) fn pop_first(&mut self) {
        let out_of_turn = self.out_of_turn.peek().map(|Reverse(due)| due);
        match (self.begun.front(), out_of_turn) {
            (Some(begun), Some(other)) if begun < other => self.begun.pop_front(),
            (_, Some(_)) => self.out_of_turn.pop().map(|Reverse(due)| due),
            (_, None) => self.begun.pop_front(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_whenever_it_began() {
        let mut deadlines = Deadlines::with_capacity(4);
        deadlines.begun(500, 1, 1);
        deadlines.begun(510, 2, 2);
        deadlines.out_of_turn(505, 3, 3);
        deadlines.out_of_turn(501, 4, 4);
        let mut order = Vec::new();
        while let Some((due_ns, ..)) = deadlines.first() {
            order.push(due_ns);
            deadlines.pop_first();
        }
        assert_eq!(order, [500, 501, 505, 510]);
    }

    #[test]
    fn first_deadlines_are_spread_evenly_and_never_longer_than_the_others() {
        let mut deadlines: Vec<u64> = (1..=1000)
            .map(|ssrc| first_deadline_ns(ssrc, 4_000_000))
            .collect();
        deadlines.sort_unstable();
        assert!(deadlines[0] >= 1_000_000 && deadlines[999] < 4_000_000);
        let widest = deadlines.windows(2).map(|two| two[1] - two[0]).max();
        assert!(widest < Some(10_000), "{widest:?}");
    }
}
