//! Faults of placing and committing, planted for the tests that must catch them ([`crate::planted`]). Not in what ships.

use harborseal_segment::random::CryptoRng;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::entry::State;
use super::{Disk, Log, Now};
use crate::chunk::Pool;
use crate::planted::{Planted, planted};

/// Randomness that begins anew with every run.
pub(super) fn as_in_another_run(rng: Box<dyn CryptoRng + Send>, shard: u32) -> Box<dyn CryptoRng + Send> {
    match planted(Planted::SecretsOfAnotherRun) {
        false => rng,
        true => Box::new(StdRng::seed_from_u64(shard.into())),
    }
}

impl Log {
    /// KEY blocks of the customers whose STREAM blocks, and now a chunk, stand there without them.
    pub(super) fn place_late_keys(&mut self, pool: &mut Pool, now: Now) {
        let active = self
            .segments
            .back_mut()
            .filter(|_| planted(Planted::KeyAfterChunk));
        let Some(active) = active else {
            return;
        };
        let durable = active.durable_4k();
        for at in 0..active.customers.len() {
            let keys = &mut active.customers[at];
            if !std::mem::replace(&mut keys.written, true) {
                let (placed, block) = active.writer.add_keys(&keys.entries, durable);
                active.keep(&block);
                active.place_meta(pool, placed, &block, now);
            }
        }
    }

    /// What follows the asking for an fdatasync, as somebody would have it who has not understood it.
    pub(super) fn commit_wrongly(&mut self, pool: &mut Pool, disk: &mut impl Disk, now: Now) {
        for at in 0..self.segments.len() {
            let segment = &mut self.segments[at];
            let handle = segment.handle;
            if planted(Planted::FdatasyncLeftOut) && segment.syncing_upto.is_some() {
                self.synced(handle, 0, pool, disk);
            } else if planted(Planted::WatermarkAtWrite)
                && !segment.failed()
                && segment.entries.has_unsynced()
            {
                let asked_for = segment.syncing_upto.replace(segment.entries.written_upto());
                self.synced(handle, 0, pool, disk);
                self.segments[at].syncing_upto = asked_for;
            } else if planted(Planted::BufferFreedEarly)
                && segment.syncing_upto.is_some()
                && segment.last_sync_ns == now.mono_ns
            {
                let entries = segment.entries.iter();
                for entry in entries.take_while(|entry| entry.state == State::Written) {
                    pool.give(entry.buffer.twin());
                }
            }
        }
    }
}
