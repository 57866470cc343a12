//! One shard's decisions, alone: under a clock that the test moves, with a disk that takes everything after a given time and a keeper that
//! answers at once.
//!
//! Everything up to the system call is the engine's own. Nothing is kept of what is written but its size, so an hour of thousands of cameras
//! takes minutes and a few megabytes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use harborseal::chunk::Pool;
use harborseal::ledger::Snapshot;
use harborseal::log::keeper::KeeperSettings;
use harborseal::log::prepare::{Chain, Given, Order, prepare};
use harborseal::log::{Disk, DurablePlace, Handle, Limits, Log, Now, Outside, Request};
use harborseal::shard::core::{Core, Datagram, Neighbours, Settings};
use harborseal::stream::registry::{Camera, Customer, Media, Registry, Source, Stream};
use harborseal::uring::{Huge, Region, RegionOptions};
use harborseal_segment::cipher::Backend;
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::RunId;
use harborseal_segment::keys::{Hint, wrap};
use harborseal_segment::node::NodeKey;
use harborseal_segment::writer::FinishParams;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Where every camera sends from.
const CAMERA: ([u8; 4], u16) = ([127, 0, 0, 1], 5000);

/// What a [`Alone`] is made of. Times in nanoseconds.
pub struct Parts {
    /// One camera for each, of one customer.
    pub ssrcs: Vec<u32>,
    pub pool_bytes: usize,
    pub chunk_deadline_ns: u64,
    pub commit_interval_ns: u64,
    pub segment_max_age_ns: u64,
    /// From a write, or an fdatasync, to its completion.
    pub disk_ns: u64,
}

/// What there is on the disk of a run that ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files {
    pub count: u64,
    /// Of whole segment files, from SEGMENT to FOOTER.
    pub bytes: u64,
}

enum Done {
    Written(u32, i32),
    Synced(Handle),
}

struct VirtualDisk {
    disk_ns: u64,
    now_ns: u64,
    /// In order of their times: all take the same.
    under_way: VecDeque<(u64, Done)>,
    orders: Vec<Order>,
    extensions: Vec<(Handle, u64)>,
    files: Files,
    node: Arc<NodeKey>,
}

impl Outside for VirtualDisk {
    fn request(&mut self, request: Request) {
        match request {
            Request::Prepare(order) => self.orders.push(order),
            Request::Extend { segment, from, bytes } => self.extensions.push((segment, from + bytes)),
            Request::Close {
                writer, prev_root, ..
            } => {
                let upto = writer.next_offset();
                let end = writer.finish(Some(&self.node), FinishParams::sealed(prev_root, upto, 0));
                self.files.count += 1;
                self.files.bytes += end.offset + end.bytes.len() as u64;
            }
            _ => {}
        }
    }

    fn durable(&mut self, _: DurablePlace) {}
}

impl Disk for VirtualDisk {
    fn write(&mut self, token: u32, _: Handle, _: u64, _: &Region, ranges: &[(usize, usize)]) -> bool {
        let len: usize = ranges.iter().map(|(_, len)| len).sum();
        let done = Done::Written(token, len as i32);
        self.under_way.push_back((self.now_ns + self.disk_ns, done));
        true
    }

    fn sync(&mut self, segment: Handle) -> bool {
        let done = Done::Synced(segment);
        self.under_way.push_back((self.now_ns + self.disk_ns, done));
        true
    }
}

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

/// The shard.
pub struct Alone {
    pub core: Core,
    pub now: Now,
    disk: VirtualDisk,
    random: StdRng,
    /// Segments made ready so far.
    prepared: u32,
    /// Most of the pool that was ever in use.
    pub peak_bytes: usize,
}

impl Alone {
    pub fn new(parts: Parts) -> Alone {
        let mut random = StdRng::seed_from_u64(1);
        let customer = Customer {
            name: "alice".into(),
            public_key: Identity::generate(&mut random).public().clone(),
            erasable: false,
            enrolment: None,
        };
        let cameras = parts.ssrcs.iter().map(|ssrc| camera(*ssrc)).collect();
        let registry = Registry::new(vec![customer], cameras);
        let registry = Arc::new(registry.unwrap_or_else(|_| panic!("the cameras differ")));
        let node = Arc::new(NodeKey::from_bytes(&[7; 32]));
        let settings = Settings {
            shard: 0,
            shards: 1,
            chunk_deadline_ns: parts.chunk_deadline_ns,
            segment_max_age_ns: parts.segment_max_age_ns,
            segment_max_bytes: 16 << 30,
        };
        let limits = Limits {
            segment_max_age_ns: settings.segment_max_age_ns,
            segment_max_bytes: settings.segment_max_bytes,
            commit_interval_ns: parts.commit_interval_ns,
        };
        let region = RegionOptions {
            bytes: parts.pool_bytes,
            lock: false,
            huge: Huge::None,
            wipe_on_drop: false,
        };
        let pool = Pool::new(Region::new(region).expect("memory for the pool"));
        let rng = Box::new(StdRng::seed_from_u64(2));
        let log = Log::new(limits, Arc::clone(&node), Backend::Ring, rng);
        Alone {
            core: Core::new(settings, registry, pool, log, None),
            now: Now {
                mono_ns: 1_000_000_000,
                real_ns: 1_800_000_000_000_000_000,
            },
            disk: VirtualDisk {
                disk_ns: parts.disk_ns,
                now_ns: 0,
                under_way: VecDeque::new(),
                orders: Vec::new(),
                extensions: Vec::new(),
                files: Files::default(),
                node,
            },
            random,
            prepared: 0,
            peak_bytes: 0,
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, ns: u64) {
        self.now.mono_ns += ns;
        self.now.real_ns += ns;
    }

    /// A packet arrives now.
    pub fn receive(&mut self, packet: &[u8]) {
        let datagram = Datagram {
            socket: 0,
            from: SocketAddr::from(CAMERA),
            arrival_ns: self.now.real_ns,
            gro_size: 0,
            rxq_ovfl: 0,
            truncated: false,
            data: packet,
        };
        self.core.receive(&datagram, &mut Nobody, self.now);
        self.note_pool();
    }

    /// What the driver does after each batch, and what disk and keeper do when asked.
    pub fn advance(&mut self) {
        self.disk.now_ns = self.now.mono_ns;
        self.core.advance(&mut self.disk, &Nobody, self.now);
        self.note_pool();
        self.complete();
        while let Some((segment, end)) = self.disk.extensions.pop() {
            let (log, _) = self.core.log_and_pool();
            log.extended(segment, Ok(end), &mut self.disk, self.now);
        }
        while let Some(order) = self.disk.orders.pop() {
            self.prepare(&order);
        }
    }

    /// Lets time pass up to `mono_ns`, doing on the way what falls due.
    pub fn advance_to(&mut self, mono_ns: u64) {
        while self.now.mono_ns < mono_ns {
            let done_ns = self.disk.under_way.front().map(|(at_ns, _)| *at_ns);
            let due_ns = [self.core.next_deadline_ns(), done_ns]
                .into_iter()
                .flatten()
                .min();
            // A round of the loop takes a little, and nothing sleeps longer than to the next publishing of figures.
            let soonest_ns = self.now.mono_ns + 100_000;
            let next_ns = due_ns
                .unwrap_or(u64::MAX)
                .clamp(soonest_ns, soonest_ns + 200_000_000)
                .min(mono_ns);
            self.pass(next_ns - self.now.mono_ns);
            self.advance();
        }
    }

    /// Ends the run: everything is made durable, segments are closed.
    pub fn stop(mut self) -> (Snapshot, Files) {
        self.core.stop();
        while !self.core.is_settled() {
            let next_ns = self.now.mono_ns + 1_000_000;
            self.advance_to(next_ns);
        }
        self.core.finish(&mut self.disk);
        (self.core.snapshot(self.now).clone(), self.disk.files)
    }

    fn complete(&mut self) {
        let Alone { core, disk, now, .. } = self;
        while let Some((_, done)) = disk.under_way.pop_front_if(|(at_ns, _)| *at_ns <= now.mono_ns) {
            let (log, pool) = core.log_and_pool();
            match done {
                Done::Written(token, len) => log.written(token, len, *now),
                Done::Synced(segment) => log.synced(segment, 0, pool, disk),
            }
        }
    }

    fn prepare(&mut self, order: &Order) {
        let hint = Hint::generate(&mut self.random);
        let settings = KeeperSettings {
            folder: PathBuf::new(),
            chain: Chain {
                run_id: RunId([3; 16]),
                shard: 0,
            },
            backend: Backend::Ring,
            node: Arc::clone(&self.disk.node),
            audit: None,
            wrap: |public, place, hint, secret, mut rng| wrap(public, place, hint, secret, &mut rng),
        };
        let created_s = self.now.real_ns / 1_000_000_000;
        let given = Given {
            hints: &[&hint],
            grantees: &[],
            erase_keys: &[],
            erasable: false,
            created_s,
        };
        let (mut prepared, _) = prepare(order, &settings, given, &mut self.random);
        self.prepared += 1;
        prepared.handle = Handle(self.prepared);
        prepared.alloc_end += 1 << 30;
        self.core.prepared(Box::new(prepared), &mut self.disk);
    }

    fn note_pool(&mut self) {
        let pool = self.core.pool();
        self.peak_bytes = self.peak_bytes.max(pool.total_bytes() - pool.free_bytes());
    }
}

fn camera(ssrc: u32) -> Camera {
    Camera {
        id: format!("camera-{ssrc}").into(),
        customer: 0,
        source: Source::host(CAMERA.0.into()),
        streams: vec![Stream {
            ssrc,
            media: Media::UNKNOWN,
        }],
        unlisted: Media::UNKNOWN,
        sdp: None,
    }
}
