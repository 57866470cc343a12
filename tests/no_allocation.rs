//! No allocation per packet after warm-up: the shard's decisions under a counting allocator, with a disk that takes
//! everything at once.
//!
//! What allocates by design is asked for rarely and off the packet's way: a segment (once a minute), a checkpoint (once a second),
//! and the tables of a segment, which grow with its chunks by doubling.

use std::path::PathBuf;
use std::sync::Arc;

use harborseal::chunk::Pool;
use harborseal::log::keeper::KeeperSettings;
use harborseal::log::prepare::{Chain, Order, prepare};
use harborseal::log::{Disk, DurablePlace, Handle, Limits, Log, Now, Outside, Request};
use harborseal::shard::core::{Core, Datagram, Neighbours, Settings};
use harborseal::stream::registry::{Camera, Customer, Media, Registry, Source, Stream};
use harborseal::uring::{Huge, Region, RegionOptions};
use harborseal_segment::cipher::Backend;
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::RunId;
use harborseal_segment::keys::{Hint, wrap};
use harborseal_segment::node::NodeKey;
use rand::SeedableRng;
use rand::rngs::StdRng;

const STREAMS: u32 = 50;
const PACKETS: usize = 200_000;
/// 80,000 packets a second: 40 chunks of 64 KiB a second and stream are far beyond what a camera sends.
const BETWEEN_NS: u64 = 12_500;

/// A disk on which every write and sync has already happened, and a keeper that answers at once.
#[derive(Default)]
struct Instant {
    written: Vec<(u32, i32)>,
    synced: Vec<Handle>,
    orders: Vec<Order>,
    extensions: Vec<(Handle, u64)>,
    durable_places: u64,
}

impl Outside for Instant {
    fn request(&mut self, request: Request) {
        match request {
            Request::Prepare(order) => self.orders.push(order),
            Request::Extend { segment, from, bytes } => self.extensions.push((segment, from + bytes)),
            _ => {}
        }
    }

    fn durable(&mut self, _: DurablePlace) {
        self.durable_places += 1;
    }
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

/// There is one shard.
struct Nobody;

impl Neighbours for Nobody {
    fn hand_over(&mut self, _: usize, _: &Datagram<'_>) -> bool {
        false
    }

    fn all_past(&self, _: u16, _: u64) -> bool {
        true
    }
}

struct Shard {
    core: Core,
    disk: Instant,
    node: Arc<NodeKey>,
    random: StdRng,
    now: Now,
}

impl Shard {
    fn new() -> Shard {
        let mut random = StdRng::seed_from_u64(1);
        let customer = Customer {
            name: "alice".into(),
            public_key: Identity::generate(&mut random).public().clone(),
        };
        let camera = |ssrc: u32| Camera {
            id: format!("camera-{ssrc}").into(),
            customer: 0,
            source: Source::host([127, 0, 0, 1].into()),
            streams: vec![Stream {
                ssrc,
                media: Media::UNKNOWN,
            }],
            unlisted: Media::UNKNOWN,
            sdp: None,
        };
        let registry = Registry::new(vec![customer], (0..STREAMS).map(camera).collect());
        let registry = Arc::new(registry.unwrap_or_else(|_| panic!("the cameras differ")));
        let node = Arc::new(NodeKey::from_bytes(&[7; 32]));
        let settings = Settings {
            shard: 0,
            shards: 1,
            chunk_deadline_ns: 500_000_000,
            segment_max_age_ns: 3600 * 1_000_000_000,
            segment_max_bytes: 16 << 30,
        };
        let limits = Limits {
            segment_max_age_ns: settings.segment_max_age_ns,
            segment_max_bytes: settings.segment_max_bytes,
            commit_interval_ns: 20_000_000,
        };
        let region = RegionOptions {
            bytes: 64 << 20,
            lock: false,
            huge: Huge::None,
            wipe_on_drop: false,
        };
        let pool = Pool::new(Region::new(region).expect("64 MiB of memory"));
        let log = Log::new(
            limits,
            Arc::clone(&node),
            Backend::Ring,
            Box::new(StdRng::seed_from_u64(2)),
        );
        let core = Core::new(settings, registry, pool, log, None);
        let now = Now {
            mono_ns: 1_000_000_000,
            real_ns: 1_800_000_000_000_000_000,
        };
        Shard {
            core,
            disk: Instant::default(),
            node,
            random,
            now,
        }
    }

    /// What the driver does after each batch, and what the keeper does when asked.
    fn advance(&mut self) {
        self.core.advance(&mut self.disk, &Nobody, self.now);
        while let Some((token, length)) = self.disk.written.pop() {
            self.core.log_and_pool().0.written(token, length, self.now);
        }
        while let Some(segment) = self.disk.synced.pop() {
            let (log, pool) = self.core.log_and_pool();
            log.synced(segment, 0, pool, &mut self.disk);
        }
        while let Some((segment, end)) = self.disk.extensions.pop() {
            let (log, _) = self.core.log_and_pool();
            log.extended(segment, Ok(end), &mut self.disk, self.now);
        }
        while let Some(order) = self.disk.orders.pop() {
            let hint = Hint::generate(&mut self.random);
            let settings = KeeperSettings {
                folder: PathBuf::new(),
                chain: Chain {
                    run_id: RunId([3; 16]),
                    shard: 0,
                },
                backend: Backend::Ring,
                node: Arc::clone(&self.node),
                wrap: |public, place, hint, secret, mut rng| wrap(public, place, hint, secret, &mut rng),
            };
            let created_s = self.now.real_ns / 1_000_000_000;
            let (mut prepared, _) = prepare(&order, &settings, &[&hint], created_s, &mut self.random);
            prepared.alloc_end += 1 << 30;
            self.core.prepared(Box::new(prepared), &mut self.disk);
        }
    }

    fn receive(&mut self, packet: &[u8]) {
        self.now.mono_ns += BETWEEN_NS;
        self.now.real_ns += BETWEEN_NS;
        let from = ([127, 0, 0, 1], 5000).into();
        let datagram = Datagram {
            socket: 0,
            from,
            arrival_ns: self.now.real_ns,
            gro_size: 0,
            data: packet,
        };
        self.core.receive(datagram, &mut Nobody, self.now);
    }

    /// Feeds `count` packets, 40 to a batch; the allocations of receiving, and of everything else.
    fn feed(&mut self, packet: &mut [u8], from: usize, count: usize) -> (u64, u64) {
        let (mut receiving, mut advancing) = (0, 0);
        for batch in (from..from + count).step_by(40) {
            receiving += allocation_counter::measure(|| {
                for at in batch..batch + 40 {
                    let (ssrc, seq) = (at as u32 % STREAMS, (at as u32 / STREAMS) as u16);
                    packet[2..4].copy_from_slice(&seq.to_be_bytes());
                    packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
                    self.receive(packet);
                }
            })
            .count_total;
            advancing += allocation_counter::measure(|| self.advance()).count_total;
        }
        (receiving, advancing)
    }
}

#[test]
fn packets_cost_no_allocation_after_warm_up() {
    let mut shard = Shard::new();
    let mut packet = vec![0; 1200];
    packet[0] = 0x80;
    packet[1] = 96;
    shard.advance();
    shard.feed(&mut packet, 0, PACKETS / 4);
    let (receiving, advancing) = shard.feed(&mut packet, PACKETS / 4, PACKETS);
    let books = shard.core.snapshot(shard.now).clone();
    let chunks = books.chunks;
    println!(
        "{PACKETS} packets in {chunks} chunks: {receiving} allocations receiving, {advancing} moving on"
    );
    assert_eq!(books.received, (PACKETS / 4 + PACKETS) as u64);
    assert_eq!(books.dropped.total(), 0);
    assert!(books.stored > PACKETS as u64, "they went all the way to the disk");
    // A full chunk is placed while its last packet is received, in tables that double a few times.
    assert!(
        receiving <= 16,
        "{receiving} allocations while receiving {PACKETS} packets"
    );
    // Commits and checkpoints, each a few: by the second, not by the packet.
    assert!(
        advancing * 200 < PACKETS as u64,
        "{advancing} allocations for {PACKETS} packets"
    );
}
