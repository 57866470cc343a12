//! What one stream teaches about its chunks: how large a buffer the next one needs, and where the present one had best end.
//!
//! Both are decided from the stream's own bytes and times alone, so the same packets always make the same chunks.
//!
//! *Where to end.* A block is padded to 4 KiB, so a chunk of 12 KiB that ends anywhere wastes a sixth on average. Whoever decides as
//! packets come must guess whether a better end is still to come; here nobody guesses: the ends in the second half of the deadline are
//! remembered, and when the chunk has to end, it ends at the best of them and what came later moves to the next. That is the choice
//! of somebody who had known, for the price of a copy of at most [`ENDS`] blocks; and since the next chunk's deadline counts from its
//! own first packet, no packet waits longer for it. Only the last end before each 4 KiB boundary can be the best of its block.
//!
//! Invariants: ends are of the chunk with `serial`, in rising order; `expected` is at most one buffer.

use harborseal_segment::block::{BLOCK_ALIGN, HEADER_LEN};
use harborseal_segment::body::ChunkHead;

use super::{BUFFER_BYTES, OpenChunk};

/// Bytes of a chunk's row in the INDEX (docs/FORMAT.md §4.7).
const INDEX_ROW_BYTES: usize = 48;
/// What a chunk costs beside its records and padding.
const CHUNK_COST_BYTES: u64 = (HEADER_LEN + ChunkHead::LEN + INDEX_ROW_BYTES) as u64;
/// Ends remembered. Two bring 200 kb/s from 13 % to 7 % and copy a fifth of its bytes, and 1 Mb/s to 2 % for a twentieth; four would
/// gain a tenth of that for twice the copying (docs/decisions/0028).
const ENDS: usize = 2;
/// Buffer of a stream's first chunk, in bytes: what 100 kb/s need. A faster stream doubles it as it fills.
const FIRST_BYTES: u32 = 8 * 1024;

/// A place where a chunk could have ended: behind its last packet so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Bytes from the buffer's beginning.
    pub len: u32,
    /// Packets up to there.
    pub packets: u32,
    /// Payload bytes up to there.
    pub packet_bytes: u32,
    /// Latest arrival up to there, realtime.
    pub last_arrival_ns: u64,
    /// Loss of the stream up to there, since it began.
    pub lost: u64,
    /// When the packet behind it was taken, monotonic.
    pub next_taken_ns: u64,
}

impl End {
    /// Bytes on the disk that are no packets, should the chunk end here. Record headers are left out: they cost the same wherever it ends.
    fn overhead_bytes(&self) -> u64 {
        let len = u64::from(self.len);
        len.next_multiple_of(BLOCK_ALIGN as u64) - len + CHUNK_COST_BYTES
    }

    /// Whether ending here costs less of each byte stored than ending at `other`.
    fn is_better_than(&self, other: &End) -> bool {
        // a / b < c / d, without division
        self.overhead_bytes() * u64::from(other.packet_bytes)
            < other.overhead_bytes() * u64::from(self.packet_bytes)
    }
}

/// What is known of one stream's chunks.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Bytes of a chunk as old as the deadline: a moving average.
    expected: u32,
    count: u32,
    serial: u64,
    ends: [End; ENDS],
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            expected: FIRST_BYTES,
            count: 0,
            serial: 0,
            ends: [End::default(); ENDS],
        }
    }
}

impl Pace {
    /// Remembers that `chunk` could have ended here, in the second half of its deadline.
    pub fn note_end(&mut self, chunk: &OpenChunk, end: End) {
        if self.serial != chunk.serial {
            (self.serial, self.count) = (chunk.serial, 0);
        }
        if self.count as usize == ENDS {
            self.ends.rotate_left(1);
        } else {
            self.count += 1;
        }
        self.ends[self.count as usize - 1] = end;
    }

    /// Where `chunk` had best end, now that it has to: `None` where it stands.
    pub fn best_end(&self, chunk: &OpenChunk) -> Option<End> {
        let here = chunk.end(0, 0);
        let ends = self.ends[..self.count as usize].iter();
        let best = ends
            .filter(|_| self.serial == chunk.serial)
            .copied()
            .fold(
                here,
                |best, end| if end.is_better_than(&best) { end } else { best },
            );
        (best != here).then_some(best)
    }

    /// Learns from a chunk that ends: `len` bytes came in `age_ns`.
    ///
    /// A quarter of the difference to what was expected of that age is learnt: steady where every fourth chunk has a key frame, and a
    /// stream that turns out fast has its full buffer after a few chunks.
    pub fn learn(&mut self, len: usize, age_ns: u64, deadline_ns: u64) {
        let expected = i64::from(self.expected);
        let share = u128::from(age_ns.min(deadline_ns));
        let by_now = (expected as u128 * share / u128::from(deadline_ns.max(1))) as i64;
        let learnt = expected + (len as i64 - by_now) / 4;
        self.expected = learnt.clamp(0, BUFFER_BYTES as i64) as u32;
    }

    /// The buffer to begin the next chunk in, in bytes. One that is an eighth too small is good enough: its chunk is full when the deadline
    /// is near, and then wastes no more than others do.
    pub fn buffer_len(&self) -> usize {
        self.expected as usize / 8 * 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{Pool, RecordKind};
    use crate::uring::memory::{Huge, Region, RegionOptions};
    use harborseal_segment::record::Records;

    const DEADLINE_NS: u64 = 500_000_000;

    fn pool() -> Pool {
        let region = Region::new(RegionOptions {
            bytes: 1 << 20,
            lock: false,
            huge: Huge::None,
            wipe_on_drop: false,
        });
        Pool::new(region.expect("a little memory"))
    }

    /// A chunk of packets of these lengths, 20 ms apart, and what was noted of its ends.
    fn packed(pool: &mut Pool, lens: &[usize]) -> (OpenChunk, Pace) {
        let mut chunk = OpenChunk::new(pool.take(BUFFER_BYTES).expect("room"), 1, 5_000_000_123, 70);
        let mut pace = Pace::default();
        for (at, len) in (0u64..).zip(lens) {
            if chunk.ends_block_before(*len) && at > 0 {
                pace.note_end(&chunk, chunk.end(at, 70 + at));
            }
            let packet = vec![at as u8; *len];
            let bytes = pool.bytes_mut(&chunk.buffer);
            chunk.push(bytes, RecordKind::Rtp, 5_000_000_123 + at * 20_000_000, &packet);
        }
        (chunk, pace)
    }

    #[test]
    fn a_chunk_ends_where_it_wastes_the_least_of_each_byte() {
        let mut pool = pool();
        // 160 + 3 × 1,308 = 4,084: a full block. One more packet would waste 2,800 bytes of the second.
        let (chunk, pace) = packed(&mut pool, &[1300; 4]);
        assert_eq!(
            pace.best_end(&chunk).map(|end| (end.len, end.packets)),
            Some((4084, 3))
        );
        // The same end is no better than one that fills the second block, too.
        let (chunk, pace) = packed(&mut pool, &[1300, 1300, 1300, 1300, 1300, 1380]);
        assert_eq!(pace.best_end(&chunk), None);
    }

    #[test]
    fn an_end_of_an_earlier_chunk_is_none_of_this_one() {
        let mut pool = pool();
        let (mut chunk, pace) = packed(&mut pool, &[1300; 4]);
        chunk.serial = 2;
        assert_eq!(pace.best_end(&chunk), None);
    }

    #[test]
    fn what_came_after_the_end_begins_the_next_chunk_with_its_own_times() {
        let mut pool = pool();
        let (mut chunk, pace) = packed(&mut pool, &[1300, 1300, 1300, 700, 10]);
        let end = pace.best_end(&chunk).expect("it ended well once");
        let buffer = pool.take(8192).expect("room");
        let rest = chunk.split_at(&end, buffer, 9, &mut pool);
        assert_eq!((chunk.packets, chunk.packet_bytes, chunk.len()), (3, 3900, 4084));
        assert_eq!(chunk.last_arrival_ns, 5_040_000_123);
        assert_eq!((rest.packets, rest.packet_bytes, rest.serial), (2, 710, 9));
        assert_eq!(
            (rest.first_arrival_ns, rest.last_arrival_ns),
            (5_060_000_123, 5_080_000_123)
        );
        assert_eq!(rest.opened_ns, 73, "when its first packet was taken");
        let body = &pool.bytes(&rest.buffer)[HEADER_LEN..rest.len()];
        let records: Vec<_> = Records::new(body).map(|record| record.expect("whole")).collect();
        assert_eq!(records.len(), 2);
        assert_eq!(
            (records[0].arrival_delta_us, records[0].packet),
            (0, &[3; 700][..])
        );
        assert_eq!(
            (records[1].arrival_delta_us, records[1].packet),
            (20_000, &[4; 10][..])
        );
        let left = &pool.bytes(&chunk.buffer)[chunk.len()..];
        assert!(
            left.iter().all(|byte| *byte == 0),
            "its plaintext stands in one place"
        );
    }

    /// What a stream of `bytes_per_s` needs, after some chunks.
    fn settled(bytes_per_s: u64) -> usize {
        let mut pace = Pace::default();
        for _ in 0..8 {
            let deadline = (bytes_per_s * DEADLINE_NS / 1_000_000_000) as usize;
            let age_ns = BUFFER_BYTES as u64 * 1_000_000_000 / bytes_per_s;
            pace.learn(deadline.min(BUFFER_BYTES), age_ns.min(DEADLINE_NS), DEADLINE_NS);
        }
        pace.buffer_len()
    }

    #[test]
    fn a_stream_is_given_what_it_fills_in_a_deadline() {
        let mut pool = pool();
        for (kbps, buffer) in [
            (30, 4096),
            (100, 8192),
            (200, 16_384),
            (250, 16_384),
            (500, 32_768),
            (1000, 65_536),
            (20_000, 65_536),
        ] {
            let given = pool.take(settled(kbps * 1000 / 8)).expect("room");
            assert_eq!(given.len(), buffer, "{kbps} kb/s");
            pool.give(given);
        }
    }

    #[test]
    fn one_burst_does_not_move_a_slow_stream_to_a_large_buffer() {
        let mut pace = Pace::default();
        for _ in 0..8 {
            pace.learn(12_500, DEADLINE_NS, DEADLINE_NS);
        }
        pace.learn(24_000, DEADLINE_NS, DEADLINE_NS);
        assert!(pace.buffer_len() <= 16_384, "{}", pace.buffer_len());
    }
}
