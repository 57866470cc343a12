//! The shard's decisions with a disk on which every write and sync has already happened, and a keeper that answers at once.
//!
//! Everything up to the system call is the engine's own: parse, admit, pack, seal, place, gather, commit, settle.

use std::path::PathBuf;
use std::sync::Arc;

use harborseal::chunk::Pool;
use harborseal::log::keeper::KeeperSettings;
use harborseal::log::prepare::{Chain, Given, Order, prepare};
use harborseal::log::{Disk, DurablePlace, Handle, Limits, Log, Now, Outside, Request};
use harborseal::shard::core::{Core, Datagram, Neighbours, Settings};
use harborseal::stream::registry::Registry;
use harborseal::uring::{Region, RegionOptions};
use harborseal_segment::cipher::Backend;
use harborseal_segment::ids::RunId;
use harborseal_segment::keys::{Hint, wrap};
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::os_random;

use super::packing::ordinary_memory;

const DEADLINE_NS: u64 = 500_000_000;
const SEGMENT_MAX_AGE_NS: u64 = 60_000_000_000;
const SEGMENT_MAX_BYTES: u64 = 16 << 30;
const COMMIT_NS: u64 = 20_000_000;

/// There is one shard.
struct Nobody;

impl Neighbours for Nobody {
    fn hand_over(&mut self, _: usize, _: &Datagram<'_>, _: &[u8]) -> bool {
        false
    }

    fn all_past(&self, _: u16, _: u64) -> bool {
        true
    }
}

#[derive(Default)]
struct Instant {
    written: Vec<(u32, i32)>,
    synced: Vec<Handle>,
    orders: Vec<Order>,
    extensions: Vec<(Handle, u64)>,
}

impl Outside for Instant {
    fn request(&mut self, request: Request) {
        match request {
            Request::Prepare(order) => self.orders.push(order),
            Request::Extend { segment, from, bytes } => self.extensions.push((segment, from + bytes)),
            // Nothing was written, so there is nothing to close or to delete.
            _ => {}
        }
    }

    fn durable(&mut self, _: DurablePlace) {}
}

impl Disk for Instant {
    fn write(&mut self, token: u32, _: Handle, _: u64, _: &Region, ranges: &[(usize, usize)]) -> bool {
        let length: usize = ranges.iter().map(|(_, length)| length).sum();
        self.written.push((token, length as i32));
        true
    }

    fn sync(&mut self, segment: Handle) -> bool {
        self.synced.push(segment);
        true
    }
}

/// A shard on such a disk.
pub struct NullDisk {
    core: Core,
    disk: Instant,
    node: Arc<NodeKey>,
    backend: Backend,
}

impl NullDisk {
    /// With `pool_bytes` for chunks; locked and in huge pages as the engine has them, or ordinary memory.
    pub fn new(
        registry: Arc<Registry>,
        pool_bytes: usize,
        like_the_engine: bool,
        backend: Backend,
    ) -> std::io::Result<NullDisk> {
        let settings = Settings {
            shard: 0,
            shards: 1,
            chunk_deadline_ns: DEADLINE_NS,
            segment_max_age_ns: SEGMENT_MAX_AGE_NS,
            segment_max_bytes: SEGMENT_MAX_BYTES,
        };
        let limits = Limits {
            segment_max_age_ns: SEGMENT_MAX_AGE_NS,
            segment_max_bytes: SEGMENT_MAX_BYTES,
            commit_interval_ns: COMMIT_NS,
        };
        let memory = match like_the_engine {
            true => RegionOptions::plaintext(pool_bytes),
            false => ordinary_memory(pool_bytes),
        };
        let node = Arc::new(NodeKey::from_bytes(&[7; 32]));
        let log = Log::new(limits, Arc::clone(&node), backend, Box::new(os_random()));
        Ok(NullDisk {
            core: Core::new(settings, registry, Pool::new(Region::new(memory)?), log, None),
            disk: Instant::default(),
            node,
            backend,
        })
    }

    /// Takes a datagram: one packet, or a batch of packets of `gro_size` bytes.
    #[inline]
    pub fn receive(&mut self, datagram: &Datagram<'_>, now: Now) {
        self.core.receive(datagram, &mut Nobody, now);
    }

    /// What the driver does after each batch, and what disk and keeper do when asked.
    pub fn advance(&mut self, now: Now) {
        self.core.advance(&mut self.disk, &Nobody, now);
        while let Some((token, length)) = self.disk.written.pop() {
            self.core.log_and_pool().0.written(token, length, now);
        }
        while let Some(segment) = self.disk.synced.pop() {
            let (log, pool) = self.core.log_and_pool();
            log.synced(segment, 0, pool, &mut self.disk);
        }
        while let Some((segment, end)) = self.disk.extensions.pop() {
            let (log, _) = self.core.log_and_pool();
            log.extended(segment, Ok(end), &mut self.disk, now);
        }
        while let Some(order) = self.disk.orders.pop() {
            self.prepare(&order, now);
        }
    }

    fn prepare(&mut self, order: &Order, now: Now) {
        let hints = [Hint::from_bytes([1; 32]), Hint::from_bytes([2; 32])];
        let settings = KeeperSettings {
            folder: PathBuf::new(),
            chain: Chain {
                run_id: RunId([3; 16]),
                shard: 0,
            },
            backend: self.backend,
            node: Arc::clone(&self.node),
            audit: None,
            wrap: |public, place, hint, secret, mut rng| wrap(public, place, hint, secret, &mut rng),
        };
        let created_s = now.real_ns / 1_000_000_000;
        let hints = [&hints[0], &hints[1]];
        let given = Given {
            hints: &hints,
            grantees: &[],
            erase_keys: &[],
            erasable: false,
            created_s,
        };
        let (mut prepared, _) = prepare(order, &settings, given, &mut os_random());
        prepared.alloc_end += order.alloc_bytes;
        self.core.prepared(Box::new(prepared), &mut self.disk);
    }

    /// When it has to be looked at again.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.core.next_deadline_ns()
    }

    /// Packets (received, stored, dropped) so far.
    pub fn counts(&mut self, now: Now) -> (u64, u64, u64) {
        let books = self.core.snapshot(now);
        (books.received, books.stored, books.dropped.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{Packets, SOURCE, Shape, registry};

    #[test]
    fn every_packet_is_stored_on_a_disk_that_takes_everything() {
        let shape = Shape {
            streams: 20,
            burst: 8,
            bytes: 1200,
        };
        let mut shard = NullDisk::new(registry(&shape.ssrcs()), 16 << 20, false, Backend::Ring)
            .expect("16 MiB of memory");
        let mut packets = Packets::new(shape);
        let mut now = Now {
            mono_ns: 1_000_000_000,
            real_ns: 1_800_000_000_000_000_000,
        };
        shard.advance(now);
        for _ in 0..2000 {
            now.mono_ns += 100_000;
            now.real_ns += 100_000;
            let datagram = Datagram {
                socket: 0,
                from: SOURCE,
                arrival_ns: now.real_ns,
                gro_size: 1200,
                rxq_ovfl: 0,
                truncated: false,
                data: packets.next_burst(),
            };
            shard.receive(&datagram, now);
            shard.advance(now);
        }
        for _ in 0..10 {
            now.mono_ns += 200_000_000;
            now.real_ns += 200_000_000;
            shard.advance(now);
        }
        assert_eq!(shard.counts(now), (16_000, 16_000, 0));
    }
}
