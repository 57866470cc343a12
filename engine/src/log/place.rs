//! Placing: every block gets its offset, number and leaf here, in log order.

use harborseal_segment::body::{ChainHead, DeletedSegment};
use harborseal_segment::writer::ChunkPlan;

use super::entry::{ChunkFacts, What};
use super::prepare::StreamPlace;
use super::segment::Stage;
use super::{Log, Now, prepare};
use crate::chunk::{BUFFER_BYTES, OpenChunk, Pool};
use crate::planted::{Planted, planted};

/// At most one checkpoint in this time, in nanoseconds.
const CHECKPOINT_NS: u64 = 1_000_000_000;

impl Log {
    /// Whether a full chunk, with the KEY and STREAM it may need, can be placed now.
    pub fn has_room(&self, pool: &Pool) -> bool {
        pool.free_bytes() >= 2 * BUFFER_BYTES
            && self
                .active()
                .is_some_and(|active| active.room() >= (BUFFER_BYTES * 3) as u64)
    }

    /// How `stream` is sealed in the active segment, if its STREAM block stands there.
    pub fn stream_is_placed(&self, stream: u32) -> bool {
        self.active()
            .is_some_and(|active| active.streams.get(stream as usize).is_some_and(Option::is_some))
    }

    /// Places the STREAM block of a stream (and its customer's KEY block if it is the customer's first, and one for standing
    /// grants) in the active segment. Call only after [`Log::has_room`].
    pub fn place_stream(
        &mut self,
        pool: &mut Pool,
        stream: u32,
        customer: u32,
        facts: &prepare::StreamFacts,
        now: Now,
    ) {
        let Some(active) = self.segments.back_mut() else {
            return;
        };
        let durable = active.durable_4k();
        let keys = &mut active.customers[customer as usize];
        if !keys.written && !planted(Planted::KeyAfterChunk) {
            keys.written = true;
            let (placed, bytes) = active.writer.add_keys(&keys.entries, durable);
            active.keep(&bytes);
            active.place_meta(pool, placed, &bytes, now);
        }
        let place = StreamPlace {
            origin: &active.origin,
            customer: &active.customers[customer as usize],
            camera: facts.camera,
            grantees: &active.grantees,
            backend: self.backend,
            durable_4k: durable,
        };
        let sealed = prepare::seal_stream(&mut active.writer, place, facts, &mut *self.rng);
        if let Some((placed, block)) = sealed.grants {
            active.keep(&block);
            active.place_meta(pool, placed, &block, now);
        }
        active.keep(&sealed.block);
        active.place_meta(pool, sealed.placed, &sealed.block, now);
        active.set_stream(stream, sealed.seal);
    }

    /// Seals `chunk` in place and appends it. Call only after [`Log::has_room`] and when the stream is placed.
    pub fn place_chunk(&mut self, pool: &mut Pool, stream: u32, chunk: OpenChunk, body_len: usize, now: Now) {
        let active = self
            .segments
            .back_mut()
            .expect("has_room said there is an active segment");
        let seal = active.streams[stream as usize]
            .as_ref()
            .expect("the stream was placed before its chunk");
        let durable = active.durable_4k();
        let bytes = pool.bytes_mut(&chunk.buffer);
        let (first_s, last_s) = (
            chunk.first_arrival_ns / 1_000_000_000,
            chunk.last_arrival_ns / 1_000_000_000,
        );
        let plan = ChunkPlan {
            row: seal.row,
            body_len,
            first_s,
            last_s,
            durable_4k: durable,
        };
        let placed = active.writer.seal_chunk(plan, &seal.key, bytes);
        let facts = ChunkFacts {
            stream,
            packets: chunk.packets,
            packet_bytes: chunk.packet_bytes,
            first_arrival_ns: chunk.first_arrival_ns,
        };
        active.place(
            chunk.buffer,
            placed.total_len,
            placed.offset,
            What::Chunk(facts),
            now,
        );
        self.placed_bytes += u64::from(placed.total_len);
        #[cfg(feature = "planted-faults")]
        self.place_late_keys(pool, now);
    }

    /// Queues tombstones for the active segment; the keeper hears of `ticket` once they are durable.
    pub fn add_tombstones(&mut self, ticket: u64, entries: Vec<DeletedSegment>) {
        self.tombstones.push_back((ticket, entries));
    }

    /// Chain ends found at the start, for the next checkpoint.
    pub fn add_heads(&mut self, heads: Vec<ChainHead>) {
        self.heads.extend(heads);
    }

    /// The slot `stream` goes to another stream: nothing placed for the old one is used for the new one.
    pub fn forget_stream(&mut self, stream: u32) {
        let of_next = self.next.iter_mut().map(|next| &mut next.streams);
        for streams in self
            .segments
            .iter_mut()
            .map(|segment| &mut segment.streams)
            .chain(of_next)
        {
            if let Some(seal) = streams.get_mut(stream as usize) {
                *seal = None;
            }
        }
    }

    pub(super) fn place_tombstones(&mut self, pool: &mut Pool, now: Now) {
        while let Some((ticket, entries)) = self.tombstones.pop_front() {
            let Some(active) = self.segments.back_mut().filter(|a| {
                let room = pool.free_bytes() >= 2 * BUFFER_BYTES && a.room() >= BUFFER_BYTES as u64;
                a.stage == Stage::Good && room
            }) else {
                self.tombstones.push_front((ticket, entries));
                return;
            };
            let (placed, bytes) = active
                .writer
                .tombstone(&self.node, &entries, now.real_ns / 1_000_000_000);
            let end = placed.offset + u64::from(placed.total_len);
            active.place_meta(pool, placed, &bytes, now);
            active.tombstones.push((end, ticket, entries));
        }
    }

    pub(super) fn checkpoint_if_due(&mut self, pool: &mut Pool, now: Now) {
        let Some(active) = self.segments.back_mut() else {
            return;
        };
        let idle = active.writer.next_block_no() == active.blocks_at_checkpoint && self.heads.is_empty();
        let early = now.mono_ns.saturating_sub(self.last_checkpoint_ns) < CHECKPOINT_NS;
        if idle
            || early
            || active.stage == Stage::Failed
            || pool.free_bytes() < 2 * BUFFER_BYTES
            || active.room() < BUFFER_BYTES as u64
        {
            return;
        }
        let batch = self.heads.len().min(512); // 48 KiB of heads: two buffers at most
        let heads: Vec<ChainHead> = self.heads.drain(..batch).collect();
        let time_s = now.real_ns / 1_000_000_000;
        let (placed, bytes) =
            active
                .writer
                .checkpoint(&self.node, active.watermark, active.prev_root, time_s, &heads);
        if !heads.is_empty() {
            let end = placed.offset + u64::from(placed.total_len);
            active.heads.push((end, heads));
        }
        active.place_meta(pool, placed, &bytes, now);
        self.last_checkpoint_ns = now.mono_ns;
        active.blocks_at_checkpoint = active.writer.next_block_no();
    }
}
