//! From an open chunk to the log, and from the log to the books: seal what is full, old or in the way; settle what is durable.

use super::{Core, facts_of};
use crate::chunk::OpenChunk;
use crate::ledger::Reason;
use crate::log::Now;
use crate::planted::{Planted, planted};

impl Core {
    /// A chunk takes no more packets: seal it now if it can be placed, else let it wait.
    pub(super) fn enqueue(&mut self, stream: u32, chunk: OpenChunk, now: Now) {
        self.enqueue_unsealed(stream, chunk);
        self.seal_full(now);
    }

    /// Puts a chunk behind those that wait for a place.
    pub(super) fn enqueue_unsealed(&mut self, stream: u32, chunk: OpenChunk) {
        self.under_way += 1;
        self.full.push_back((stream, chunk));
    }

    pub(super) fn seal_full(&mut self, now: Now) {
        while !self.full.is_empty() && self.log.has_room(&self.pool) {
            let Some((index, chunk)) = self.full.pop_front() else {
                return;
            };
            let stream = &mut self.streams[index];
            let Some(camera) = stream.camera else {
                // Its camera left the configuration while the disk had no room for it.
                self.lose_chunk(index, chunk, Reason::DiskFull);
                continue;
            };
            if !self.log.stream_is_placed(index) {
                let facts = facts_of(index, stream, &self.registry.cameras[camera as usize]);
                let customer = self.registry.cameras[camera as usize].customer;
                self.log
                    .place_stream(&mut self.pool, index, customer, &facts, now);
            }
            let lost_before = stream.take_lost();
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
        let (wanted, most) = (2 * self.low_water(), self.pool.total() / 2);
        while let Some(&(due_ns, stream, serial)) = self.deadlines.front() {
            let current = self.open[stream as usize]
                .as_ref()
                .is_some_and(|chunk| chunk.serial == serial);
            let pressed = self.pool.free() < wanted && self.under_way < most;
            if current && due_ns > now.mono_ns && !self.stopping && !pressed {
                return;
            }
            self.deadlines.pop_front();
            if current && let Some(chunk) = self.open[stream as usize].take() {
                self.enqueue(stream, chunk, now);
            }
        }
    }

    pub(super) fn lose_chunk(&mut self, stream: u32, chunk: OpenChunk, reason: Reason) {
        crate::uring::memory::wipe(self.pool.bytes_mut(&chunk.buffer));
        self.streams[stream].chunks -= 1;
        self.under_way -= 1;
        self.drop_packets(stream, u64::from(chunk.packets), reason);
        self.pool.give(chunk.buffer);
    }

    /// Chunks that became durable: only now their packets are *stored*.
    pub(super) fn settle(&mut self, now: Now) {
        for outcome in self.log.drain_durable() {
            let chunk = outcome.chunk;
            let stream = &mut self.streams[chunk.stream];
            stream.chunks -= 1;
            self.under_way -= 1;
            stream.stored += u64::from(chunk.packets);
            self.books.stored += u64::from(chunk.packets) + u64::from(planted(Planted::LedgerOffByOne));
            self.books.stored_bytes += u64::from(chunk.packet_bytes);
            let latency_us = now.real_ns.saturating_sub(chunk.first_arrival_ns) / 1000;
            self.books.durable_latency_us.saturating_record(latency_us.max(1));
        }
    }
}
