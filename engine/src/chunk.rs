//! Packing: the chunk buffers of a shard, and the run of packets that fills one.
//!
//! Owns the pool. Its memory is one region, preallocated and never grown, so that what is on its way to the disk can
//! never exceed what the configuration allows. A [`BufferId`] is the right to touch one buffer: it is neither
//! `Clone` nor `Copy`, it moves from the open chunk to the log and back to the pool, and while the kernel reads the
//! buffer only the log holds it.
//!
//! ```text
//! buffer  0        128      160                                 128+body_len            65,536
//!         ├─header─┼─prefix─┼─ {len u16, flags u16, Δarrival_us u32, packet}* ─┼─ padding ─┤
//!                  └────────────── sealed in place ─────────────┘
//! ```

use harborseal_segment::block::{BLOCK_ALIGN, CHUNK_LEN, HEADER_LEN};
use harborseal_segment::body::ChunkHead;
use harborseal_segment::record;

use crate::uring::memory::Region;

/// Size of every pool buffer and so of the largest chunk the engine writes, in bytes.
///
/// 64 KiB fill in half a second at 1 Mb/s, the deadline; the format allows up to 1 MiB.
pub const BUFFER_BYTES: usize = CHUNK_LEN;
/// Largest packet one chunk can hold: the buffer less header, prefix and one record header.
pub const MAX_PACKET_BYTES: usize = record::MAX_PACKET_LEN;
/// Padding a chunk may have to be sealed ahead of its deadline, in bytes.
const SMALL_PADDING_BYTES: usize = 384;

/// The right to one buffer of the pool.
#[derive(Debug, PartialEq, Eq)]
pub struct BufferId(u32);

impl BufferId {
    /// Where the buffer begins in the pool's region, in bytes.
    pub fn offset(&self) -> usize {
        self.0 as usize * BUFFER_BYTES
    }

    /// A second right to the same buffer: what must not be ([`crate::planted`]).
    #[cfg(feature = "planted-faults")]
    pub(crate) fn twin(&self) -> BufferId {
        BufferId(self.0)
    }
}

/// The bounded pool of chunk buffers.
pub struct Pool {
    region: Region,
    free: Vec<BufferId>,
    total: usize,
}

impl Pool {
    /// Divides `region` into buffers. What does not fill a buffer at its end is left unused.
    pub fn new(region: Region) -> Self {
        let total = region.bytes().len() / BUFFER_BYTES;
        // Handed out from the lowest address, so that a lightly loaded engine touches little memory.
        let free = (0..total as u32).rev().map(BufferId).collect();
        Pool { region, free, total }
    }

    /// Takes a buffer; its content is whatever was left in it.
    pub fn take(&mut self) -> Option<BufferId> {
        self.free.pop()
    }

    /// Gives a buffer back.
    pub fn give(&mut self, buffer: BufferId) {
        debug_assert!(self.free.len() < self.total, "a buffer was given back twice");
        self.free.push(buffer);
    }

    /// The bytes of one buffer.
    pub fn bytes_mut(&mut self, buffer: &BufferId) -> &mut [u8] {
        let at = buffer.offset();
        &mut self.region.bytes_mut()[at..at + BUFFER_BYTES]
    }

    /// The bytes of one buffer, to read.
    pub fn bytes(&self, buffer: &BufferId) -> &[u8] {
        let at = buffer.offset();
        &self.region.bytes()[at..at + BUFFER_BYTES]
    }

    /// The memory behind the pool, for the ring to write from.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Buffers free now.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Buffers in all.
    pub fn total(&self) -> usize {
        self.total
    }
}

/// What kind of packet a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An RTP packet.
    Rtp,
    /// An RTCP compound packet.
    Rtcp,
}

/// A chunk that still takes packets of one stream. Its bytes are plaintext in the pool until it is sealed.
#[derive(Debug)]
pub struct OpenChunk {
    /// Where its bytes are.
    pub buffer: BufferId,
    /// Told apart from earlier chunks of the stream by this number, unique in the shard.
    pub serial: u64,
    /// Arrival of its first packet, realtime.
    pub first_arrival_ns: u64,
    /// Arrival of its latest packet, realtime.
    pub last_arrival_ns: u64,
    /// When it was opened, monotonic.
    pub opened_ns: u64,
    /// Packets in it.
    pub packets: u32,
    /// Payload bytes in it: the packets without record headers.
    pub packet_bytes: u32,
    body_len: usize,
}

impl OpenChunk {
    /// An empty chunk over `buffer`.
    pub fn new(buffer: BufferId, serial: u64, first_arrival_ns: u64, opened_ns: u64) -> Self {
        OpenChunk {
            buffer,
            serial,
            first_arrival_ns,
            last_arrival_ns: first_arrival_ns,
            opened_ns,
            packets: 0,
            packet_bytes: 0,
            body_len: ChunkHead::LEN,
        }
    }

    /// Whether a packet of `len` bytes that arrived at `arrival_ns` still fits.
    pub fn fits(&self, len: usize, arrival_ns: u64) -> bool {
        HEADER_LEN + self.body_len + record::RECORD_HEAD_LEN + len <= BUFFER_BYTES
            && self.delta_us(arrival_ns) <= u64::from(u32::MAX)
    }

    /// Appends a packet that [`fits`](Self::fits). `bytes` are those of its buffer.
    ///
    /// A clock stepped backwards cannot be written as a delta: such a packet is stamped with the chunk's first arrival,
    /// and the next chunk starts at the new time.
    pub fn push(&mut self, bytes: &mut [u8], kind: RecordKind, arrival_ns: u64, packet: &[u8]) {
        let delta_us = self.delta_us(arrival_ns) as u32;
        let flags = match kind {
            RecordKind::Rtp => 0,
            RecordKind::Rtcp => record::RECORD_RTCP,
        };
        let end = record::push_record(bytes, HEADER_LEN + self.body_len, flags, delta_us, packet);
        self.body_len = end - HEADER_LEN;
        self.packets += 1;
        self.packet_bytes += packet.len() as u32;
        self.last_arrival_ns = self.last_arrival_ns.max(arrival_ns);
    }

    /// Whether sealing now wastes little: the chunk ends just below a block boundary.
    pub fn ends_well(&self) -> bool {
        let end = HEADER_LEN + self.body_len;
        end.next_multiple_of(BLOCK_ALIGN) - end <= SMALL_PADDING_BYTES
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
        self.body_len
    }

    fn delta_us(&self, arrival_ns: u64) -> u64 {
        arrival_ns.saturating_sub(self.first_arrival_ns) / 1000
    }
}
