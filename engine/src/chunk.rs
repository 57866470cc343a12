//! Packing: the run of packets that fills a chunk, and the buffers that chunks are made in ([`Pool`]).
//!
//! A chunk begins in a buffer as large as its stream needs as a rule ([`Pace`]), moves to a larger one where it does not, and is
//! sealed where it stands. It ends at the deadline of its first packet at the latest; and because a block is padded to 4 KiB, it ends
//! at the place within its last half where the least is wasted, what came after that being the beginning of the next chunk.
//!
//! ```text
//! buffer  0        128      160                                 128+body_len       4, 8 … 64 KiB
//!         ├─header─┼─prefix─┼─ {len u16, flags u16, Δarrival_us u32, packet}* ─┼─ padding ─┤
//!                  └────────────── sealed in place ─────────────┘
//! ```

mod pace;
mod pool;

use harborseal_segment::block::{BLOCK_ALIGN, HEADER_LEN};
use harborseal_segment::body::ChunkHead;
use harborseal_segment::record;

pub use pace::{End, Pace};
pub use pool::{BUFFER_BYTES, BufferId, LEAST_BUFFER_BYTES, Pool};

/// Largest packet one chunk can hold: the buffer less header, prefix and one record header.
pub const MAX_PACKET_BYTES: usize = record::MAX_PACKET_LEN;

/// What kind of packet a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An RTP packet.
    Rtp,
    /// An RTCP compound packet.
    Rtcp,
}

/// A chunk that still takes packets of one stream. Its bytes are plaintext in the pool until it is sealed.
///
/// One cache line: the packet path looks at it once for each packet.
#[derive(Debug)]
#[repr(align(64))]
pub struct OpenChunk {
    /// Where its bytes are.
    pub buffer: BufferId,
    body_len: u32,
    /// Arrival of its first packet, realtime.
    pub first_arrival_ns: u64,
    /// Arrival of its latest packet, realtime.
    pub last_arrival_ns: u64,
    /// When its first packet was taken, monotonic.
    pub opened_ns: u64,
    /// Packets in it.
    pub packets: u32,
    /// Payload bytes in it: the packets without record headers.
    pub packet_bytes: u32,
    /// Told apart from earlier chunks of the stream by this number, unique in the shard.
    pub serial: u64,
}

const _: () = assert!(size_of::<Option<OpenChunk>>() == 64);

/// Bytes of a chunk that holds one packet of `len` bytes: what its buffer has at least.
pub const fn chunk_len(len: usize) -> usize {
    HEADER_LEN + ChunkHead::LEN + record::record_len(len)
}

impl OpenChunk {
    /// An empty chunk over `buffer`.
    pub fn new(buffer: BufferId, serial: u64, first_arrival_ns: u64, opened_ns: u64) -> Self {
        OpenChunk {
            buffer,
            body_len: ChunkHead::LEN as u32,
            first_arrival_ns,
            last_arrival_ns: first_arrival_ns,
            opened_ns,
            packets: 0,
            packet_bytes: 0,
            serial,
        }
    }

    /// Whether a packet of `len` bytes that arrived at `arrival_ns` still fits.
    #[inline]
    pub fn fits(&self, len: usize, arrival_ns: u64) -> bool {
        self.len_with(len) <= self.buffer.len() && self.reaches(arrival_ns)
    }

    /// Whether a record can say this arrival.
    #[inline]
    pub fn reaches(&self, arrival_ns: u64) -> bool {
        self.delta_us(arrival_ns) <= u64::from(u32::MAX)
    }

    /// Whether a packet of `len` bytes would make it longer by a block or more: the last moment at which it wastes as little as now.
    #[inline]
    pub fn ends_block_before(&self, len: usize) -> bool {
        self.len().div_ceil(BLOCK_ALIGN) != self.len_with(len).div_ceil(BLOCK_ALIGN)
    }

    /// Its length once it has a packet of `len` bytes more.
    #[inline]
    pub fn len_with(&self, len: usize) -> usize {
        self.len() + record::record_len(len)
    }

    /// Bytes from the buffer's beginning to the end of the last record.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // one without packets is never kept
    pub fn len(&self) -> usize {
        HEADER_LEN + self.body_len as usize
    }

    /// Appends a packet that [`fits`](Self::fits). `bytes` are those of its buffer.
    ///
    /// A clock stepped backwards cannot be written as a delta: such a packet is stamped with the chunk's first arrival,
    /// and the next chunk starts at the new time.
    #[inline]
    pub fn push(&mut self, bytes: &mut [u8], kind: RecordKind, arrival_ns: u64, packet: &[u8]) {
        let delta_us = self.delta_us(arrival_ns) as u32;
        let flags = match kind {
            RecordKind::Rtp => 0,
            RecordKind::Rtcp => record::RECORD_RTCP,
        };
        let end = record::push_record(bytes, self.len(), flags, delta_us, packet);
        self.body_len = (end - HEADER_LEN) as u32;
        self.packets += 1;
        self.packet_bytes += packet.len() as u32;
        self.last_arrival_ns = self.last_arrival_ns.max(arrival_ns);
    }

    /// It as it would be if it ended here. `lost` is its stream's loss so far, `now_ns` when the next packet was taken, monotonic.
    pub fn end(&self, lost: u64, now_ns: u64) -> End {
        End {
            len: self.len() as u32,
            packets: self.packets,
            packet_bytes: self.packet_bytes,
            last_arrival_ns: self.last_arrival_ns,
            lost,
            next_taken_ns: now_ns,
        }
    }

    /// Moves it, as it is, to `buffer`. Returns the one it leaves, which holds nothing of it any more.
    pub fn move_to(&mut self, buffer: BufferId, pool: &mut Pool) -> BufferId {
        let body = self.len() - HEADER_LEN;
        pool.transfer((&self.buffer, HEADER_LEN), (&buffer, HEADER_LEN), body);
        std::mem::replace(&mut self.buffer, buffer)
    }

    /// Makes it end at `end`, which it once did, and moves what came after that to `buffer`: the chunk that follows it.
    ///
    /// The times of what is moved are as they were written, to the microsecond.
    pub fn split_at(&mut self, end: &End, buffer: BufferId, serial: u64, pool: &mut Pool) -> OpenChunk {
        let (from, to) = (end.len as usize, HEADER_LEN + ChunkHead::LEN);
        let moved = self.len() - from;
        pool.transfer((&self.buffer, from), (&buffer, to), moved);
        let (base_us, latest_us) = record::rebase(&mut pool.bytes_mut(&buffer)[to..to + moved]);
        let first_arrival_ns = self.first_arrival_ns + u64::from(base_us) * 1000;
        let rest = OpenChunk {
            buffer,
            body_len: (ChunkHead::LEN + moved) as u32,
            first_arrival_ns,
            last_arrival_ns: first_arrival_ns + u64::from(latest_us) * 1000,
            opened_ns: end.next_taken_ns,
            packets: self.packets - end.packets,
            packet_bytes: self.packet_bytes - end.packet_bytes,
            serial,
        };
        self.body_len = end.len - HEADER_LEN as u32;
        (self.packets, self.packet_bytes) = (end.packets, end.packet_bytes);
        self.last_arrival_ns = end.last_arrival_ns;
        rest
    }

    /// Writes the prefix and returns the body's length: what is left before sealing.
    pub fn finish(&self, bytes: &mut [u8], lost_before: u32, chunks_so_far: u64) -> usize {
        let prefix = ChunkHead {
            base_ns: self.first_arrival_ns,
            packet_count: self.packets,
            lost_before,
            chunks_so_far,
        };
        prefix.encode_to(&mut bytes[HEADER_LEN..HEADER_LEN + ChunkHead::LEN]);
        self.body_len as usize
    }

    fn delta_us(&self, arrival_ns: u64) -> u64 {
        arrival_ns.saturating_sub(self.first_arrival_ns) / 1000
    }
}
