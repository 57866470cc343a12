//! From an open chunk to the log, and from the log to the books: seal what is full, old or in the way; settle what is durable.

use super::{Core, facts_of};
use crate::chunk::OpenChunk;
use crate::ledger::Reason;
use crate::log::Now;
use crate::planted::{Planted, planted};

/// A chunk that takes no more packets and waits for a place in a segment.
pub(super) struct Full {
    pub(super) stream: u32,
    pub(super) chunk: OpenChunk,
    /// Loss of its stream up to its end, since the stream began.
    pub(super) lost: u64,
}

impl Core {
    /// A chunk takes no more packets: seal it now if it can be placed, else let it wait. `lost` is its stream's loss up to its end.
    pub(super) fn enqueue(&mut self, stream: u32, chunk: OpenChunk, lost: u64, now: Now) {
        self.full.push_back(Full { stream, chunk, lost });
        self.seal_full(now);
    }

    pub(super) fn seal_full(&mut self, now: Now) {
        while !self.full.is_empty() && self.log.has_room(&self.pool) {
            let Some(Full {
                stream: index,
                chunk,
                lost,
            }) = self.full.pop_front()
            else {
                return;
            };
            let stream = &mut self.streams[index];
            let Some(camera) = stream.camera else {
                // Its camera left the configuration while the disk had no room for it.
                self.lose_chunk(index, chunk, Reason::DiskFull);
                continue;
            };
            if !self.log.stream_is_placed(index) {
                let mut facts = facts_of(index, stream, &self.registry.cameras[camera as usize]);
                facts.camera = camera;
                let customer = self.registry.cameras[camera as usize].customer;
                self.log
                    .place_stream(&mut self.pool, index, customer, &facts, now);
            }
            let lost_before = stream.take_lost(lost);
            let bytes = self.pool.bytes_mut(&chunk.buffer);
            let body_len = chunk.finish(bytes, lost_before, stream.chunks_sealed);
            stream.chunks_sealed += 1;
            self.books.chunks += 1;
            self.log.place_chunk(&mut self.pool, index, chunk, body_len, now);
        }
    }

    /// Seals the chunks whose deadline has come, oldest first; and, where the pool is low because many streams have one open, as
    /// many more as may bring it back, half the pool at most: padding costs space on disk, a paused receiver costs packets.
    pub(super) fn seal_due(&mut self, now: Now) {
        while let Some((due_ns, stream, serial)) = self.deadlines.first() {
            let current = self.open[stream as usize]
                .as_ref()
                .is_some_and(|chunk| chunk.serial == serial);
            let under_way = self.pool.total_bytes() - self.pool.free_bytes() - self.open_bytes;
            let pressed = self.is_pressed() && under_way < self.pool.total_bytes() / 2;
            if current && due_ns > now.mono_ns && !self.stopping && !pressed {
                return;
            }
            self.deadlines.pop_first();
            if current {
                self.end_chunk(stream, now);
            }
        }
    }

    /// Whether the pool is low: chunks are then sealed early, and none is given more memory than its packets need.
    pub(super) fn is_pressed(&self) -> bool {
        self.free_for_chunks() < 2 * self.low_water()
    }

    pub(super) fn lose_chunk(&mut self, stream: u32, chunk: OpenChunk, reason: Reason) {
        crate::uring::memory::wipe(self.pool.bytes_mut(&chunk.buffer));
        self.streams[stream].chunks -= 1;
        self.drop_packets(stream, u64::from(chunk.packets), reason);
        self.pool.give(chunk.buffer);
    }

    /// Chunks that became durable: only now their packets are *stored*.
    pub(super) fn settle(&mut self, now: Now) {
        for outcome in self.log.drain_durable() {
            let chunk = outcome.chunk;
            let stream = &mut self.streams[chunk.stream];
            stream.chunks -= 1;
            stream.stored += u64::from(chunk.packets);
            self.books.stored += u64::from(chunk.packets) + u64::from(planted(Planted::LedgerOffByOne));
            self.books.stored_bytes += u64::from(chunk.packet_bytes);
            let latency_us = now.real_ns.saturating_sub(chunk.first_arrival_ns) / 1000;
            self.books.durable_latency_us.saturating_record(latency_us.max(1));
        }
    }
}
