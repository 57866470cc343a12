//! What a seed decides before anything happens: who there is, how tight everything is, what fails when, and how the run ends.

use std::net::SocketAddr;
use std::sync::Arc;

use harborseal::log::Limits;
use harborseal::shard::core::Settings;
use harborseal::shard::links::Slots;
use harborseal::stream::registry::{Camera, Customer, Media, Registry, Source, Stream};
use harborseal_segment::cipher::Backend;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::canary::Canary;
use super::keeper::Job;
use super::keys::{MAX_CUSTOMERS, public};

/// A millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;
/// A second in nanoseconds.
pub const S: u64 = 1_000_000_000;
/// CLOCK_MONOTONIC when the first life begins. Not 0: a fresh machine has been up for a while.
const FIRST_START_NS: u64 = 1000 * S;
/// After the faults have stopped, everything received must be durable within this time: a preparation that is tried again, a segment
/// age, and whatever a slow disk has left.
pub const PATIENCE_NS: u64 = 8 * S;

/// One in so many seeds with an honest disk.
const SURVIVOR_SEEDS: u64 = 4;

/// Everything that is decided beforehand of one life: from a start of the engine to its end.
pub struct Plan {
    /// It begins, monotonic.
    pub start_ns: u64,
    /// What earlier lives left is looked at, and closed.
    pub look_back_ns: u64,
    /// Shards.
    pub shards: u16,
    /// Memory for chunks of each shard, in buffers of 64 KiB. Eight of them are kept back for other blocks.
    pub buffers: usize,
    /// Of the log.
    pub limits: Limits,
    /// Age at which a chunk is sealed, in nanoseconds.
    pub chunk_deadline_ns: u64,
    /// Sealing library.
    pub backend: Backend,
    /// CLOCK_REALTIME less CLOCK_MONOTONIC at the start.
    pub real_offset_ns: i64,
    /// Customers there are; not all need have a camera.
    pub customers: usize,
    /// Cameras of all configurations.
    pub cameras: Vec<CameraPlan>,
    /// Packets on their way between shards.
    pub slots: Slots,
    /// Datagrams that a socket buffers.
    pub socket_datagrams: usize,
    /// Datagrams that a shard takes at once.
    pub drain: usize,
    /// Of the network.
    pub network: NetworkFaults,
    /// Of the disk.
    pub disk: DiskFaults,
    /// Of the keeper's file system.
    pub keeper: KeeperFaults,
    /// What else happens, by time.
    pub events: Vec<(u64, Happening)>,
    /// Faults and heavy traffic end here, monotonic.
    pub quiet_ns: u64,
    /// How it ends, and when.
    pub ending: Ending,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Power fails; if the keeper of a shard comes to such a job within a second, then in the middle of it.
    Crash(u64, Option<Job>),
    /// Power fails while what an earlier life left is being closed.
    CrashLookingBack,
    /// It is told to stop.
    Stop(u64),
}

/// A camera and its streams.
#[derive(Clone)]
pub struct CameraPlan {
    /// Its id.
    pub id: String,
    /// Index of its customer.
    pub customer: usize,
    /// Where it sends from.
    pub from: SocketAddr,
    /// The SSRCs it sends; new ones are drawn if it is told by address.
    pub ssrcs: Vec<u32>,
    /// It is told by its address alone.
    pub by_address: bool,
    /// Its media description.
    pub sdp: Option<Arc<str>>,
    /// The first configuration that has it, and the first that has it no more.
    pub configurations: (usize, usize),
}

/// Probabilities, per packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkFaults {
    /// Lost.
    pub loss: f64,
    /// Sent twice.
    pub duplicate: f64,
    /// Overtaken.
    pub reorder: f64,
    /// A packet of a stranger beside it.
    pub hostile: f64,
    /// The sender starts its sequence anew.
    pub restart: f64,
    /// Joined with the one before it, if it can be.
    pub batch: f64,
    /// The ring has no buffer to receive into (ENOBUFS), per round of a shard.
    pub no_buffers: f64,
}

/// Probabilities, per operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    /// Takes far longer than others.
    pub late: f64,
    /// Slow between these times.
    pub slow_ns: (u64, u64),
    /// A write stops short.
    pub short: f64,
    /// EIO.
    pub once: f64,
    /// EIO, from then on for the whole file.
    pub sticky: f64,
    /// EINTR or EAGAIN.
    pub interrupted: f64,
    /// ENOSPC though the space was allocated: a thin volume.
    pub no_space: f64,
    /// No room in the ring.
    pub ring_full: f64,
    /// fdatasync fails.
    pub sync: f64,
    /// fdatasync lies.
    pub lie: f64,
}

/// Of the keeper's work.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeeperFaults {
    /// Between these times there is hardly any space.
    pub full_ns: (u64, u64),
    /// Bytes that are left then.
    pub left_bytes: u64,
    /// EIO while preparing, per call.
    pub prepare: f64,
    /// EIO while extending.
    pub extend: f64,
    /// EIO while closing, per call.
    pub close: f64,
    /// fsync and fdatasync lie.
    pub lie: f64,
    /// Everything takes this many times longer.
    pub slowness: u64,
}

/// Something from outside.
#[derive(Clone, Debug)]
pub enum Happening {
    /// The configuration of this index is put in force.
    Reload(usize),
    /// That many segments were deleted; shard 0 writes it down.
    Tombstones(usize),
    /// That many chains of earlier runs were found.
    Heads(usize),
    /// CLOCK_REALTIME is set, by so many nanoseconds.
    Clock(i64),
    /// A shard does not get to run for so many nanoseconds.
    Stall(usize, u64),
}

/// What of a plan is the whole seed's.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// The seed.
    pub seed: u64,
    /// A planted fault.
    pub canary: Option<Canary>,
    /// How many lives there are.
    pub lives: usize,
    /// What an fsync is worth on this machine: probability that it lies.
    pub lie: f64,
}

impl Story {
    /// The story of a seed.
    pub fn new(seed: u64, canary: Option<Canary>) -> Story {
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x7374_6f72);
        let lives = match rng.random_range(0..100) {
            _ if canary.is_some() => 1,
            0..70 => 1,
            70..95 => 2,
            _ => 3,
        };
        let liar = canary.is_none() && rng.random_bool(0.04);
        Story {
            seed,
            canary,
            lives,
            lie: if liar { rng.random_range(0.1..0.9) } else { 0.0 },
        }
    }

    /// Whether every block that outlived the crashes is followed: where the disk lied, and in one of some other seeds.
    pub fn is_told_whole(&self) -> bool {
        self.lie > 0.0 || self.seed.is_multiple_of(SURVIVOR_SEEDS)
    }
}

/// When a life begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Which one, from 0.
    pub life: usize,
    /// CLOCK_MONOTONIC.
    pub mono_ns: u64,
    /// CLOCK_REALTIME less CLOCK_MONOTONIC.
    pub real_offset_ns: i64,
}

impl Start {
    /// Of the first life of a seed. In some, midnight passes.
    pub fn first(seed: u64) -> Start {
        let real_ns = (1_796_000_000 / 86_400 * 86_400 - seed % 4) * S;
        Start {
            life: 0,
            mono_ns: FIRST_START_NS,
            real_offset_ns: (real_ns - FIRST_START_NS) as i64,
        }
    }
}

impl Plan {
    /// The plan of one life.
    pub fn new(story: Story, start: Start) -> Plan {
        let Story { seed, canary, .. } = story;
        let Start { life, mono_ns, .. } = start;
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x706c_616e ^ (life as u64) << 56);
        let shards = *[1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3]
            .choose(rng)
            .expect("not empty");
        // One in fifty is long: idle streams give their slots away.
        let long = life == 0 && rng.random_bool(0.02);
        let busy_ns = match long {
            true => rng.random_range(15 * S..30 * S),
            false if life == 0 => rng.random_range(S / 3..2 * S),
            false => rng.random_range(S / 5..S),
        };
        let quiet_ns = mono_ns + busy_ns;
        let ending = ending(rng, story, start, quiet_ns);
        let customers = rng.random_range(1..=MAX_CUSTOMERS);
        let cameras = cameras(rng, customers);
        let max_age_ns = rng.random_range(S / 3..3 * S);
        let healthy = canary.is_some() || rng.random_bool(0.15);
        let (mut disk, mut keeper) = match healthy {
            true => (DiskFaults::default(), KeeperFaults::default()),
            false => (
                disk_faults(rng, mono_ns, busy_ns),
                keeper_faults(rng, mono_ns, busy_ns),
            ),
        };
        (disk.lie, keeper.lie) = (story.lie, story.lie);
        Plan {
            start_ns: mono_ns,
            look_back_ns: mono_ns + rng.random_range(0..S / 2),
            shards,
            buffers: if rng.random_bool(0.15) {
                rng.random_range(9..=12)
            } else {
                rng.random_range(20..=80)
            },
            limits: Limits {
                segment_max_age_ns: if long { 5 * S } else { max_age_ns },
                // Small ones are allocated at once, large ones extended.
                segment_max_bytes: if rng.random_bool(0.6) {
                    rng.random_range(1..=4) << 20
                } else {
                    64 << 20
                },
                commit_interval_ns: rng.random_range(MS..60 * MS),
            },
            chunk_deadline_ns: rng.random_range(20 * MS..500 * MS),
            backend: if rng.random() {
                Backend::Ring
            } else {
                Backend::AesGcm
            },
            real_offset_ns: start.real_offset_ns,
            customers,
            slots: Slots {
                small: rng.random_range(16..=96),
                large: rng.random_range(2..=6),
            },
            socket_datagrams: if rng.random_bool(0.2) {
                rng.random_range(4..20)
            } else {
                4096
            },
            drain: rng.random_range(4..512),
            network: network_faults(rng),
            disk,
            keeper,
            events: events(rng, start, busy_ns, shards, &cameras),
            cameras,
            quiet_ns,
            ending,
        }
    }

    /// The registry of one configuration.
    pub fn registry(&self, configuration: usize) -> Arc<Registry> {
        let customer = |index: usize| Customer {
            name: format!("customer {index}").into(),
            public_key: public(index),
            erasable: false,
            enrolment: None,
        };
        // A later configuration may list its customers in another order.
        let mut order: Vec<usize> = (0..self.customers).collect();
        order.rotate_left(configuration % self.customers);
        let place = |customer: usize| {
            order
                .iter()
                .position(|c| *c == customer)
                .expect("it is one of them") as u32
        };
        let media = |index: usize| Media {
            media_index: index as u16,
            clock_rate_hz: 90_000,
        };
        let camera = |plan: &CameraPlan| {
            let listed = plan.ssrcs.iter().enumerate();
            let streams = listed.map(|(at, ssrc)| Stream {
                ssrc: *ssrc,
                media: media(at),
            });
            let source = match plan.by_address {
                true => plan.from.to_string(),
                false => plan.from.ip().to_string(),
            };
            Camera {
                id: plan.id.as_str().into(),
                customer: place(plan.customer),
                source: source.parse::<Source>().expect("an address is a source"),
                streams: if plan.by_address {
                    Vec::new()
                } else {
                    streams.collect()
                },
                unlisted: media(0),
                sdp: plan.sdp.clone(),
            }
        };
        let (customers, here) = (
            order.iter().map(|c| customer(*c)).collect(),
            |plan: &&CameraPlan| (plan.configurations.0..plan.configurations.1).contains(&configuration),
        );
        let cameras = self.cameras.iter().filter(here).map(camera).collect();
        let registry = Registry::new(customers, cameras);
        Arc::new(
            registry.unwrap_or_else(|conflict| panic!("two cameras of the plan are alike: {conflict:?}")),
        )
    }

    /// What the core of a shard is told.
    pub fn settings(&self, shard: u16) -> Settings {
        Settings {
            shard,
            shards: self.shards,
            chunk_deadline_ns: self.chunk_deadline_ns,
            segment_max_age_ns: self.limits.segment_max_age_ns,
            segment_max_bytes: self.limits.segment_max_bytes,
        }
    }
}

fn ending(rng: &mut StdRng, story: Story, start: Start, quiet_ns: u64) -> Ending {
    let whole = story.canary.is_some_and(Canary::needs_a_stop);
    let stops = match start.life {
        _ if story.canary.is_some() => 0.3,
        // What has more lives than one has seen a crash by then.
        0 => 0.005,
        _ => 0.5,
    };
    if whole || rng.random_bool(stops) {
        let early = !whole && rng.random_bool(0.2);
        let late_ns = quiet_ns + rng.random_range(PATIENCE_NS..PATIENCE_NS + 2 * S);
        return Ending::Stop(if early {
            start.mono_ns + rng.random_range(0..20 * MS)
        } else {
            late_ns
        });
    }
    if start.life > 0 && rng.random_bool(0.3) {
        return Ending::CrashLookingBack;
    }
    let amid = [
        None,
        None,
        Some(Job::Prepare),
        Some(Job::Close),
        Some(Job::Extend),
    ];
    let early_ns = start.mono_ns + 5 * MS;
    let usual_ns = quiet_ns - (quiet_ns - start.mono_ns) / 3;
    let from_ns = if rng.random_bool(0.02) { early_ns } else { usual_ns };
    let at_ns = rng.random_range(from_ns..quiet_ns + S / 2);
    Ending::Crash(at_ns, *amid.choose(rng).expect("not empty"))
}

fn cameras(rng: &mut StdRng, customers: usize) -> Vec<CameraPlan> {
    let count = *[1, 2, 2, 3].choose(rng).expect("not empty");
    let mut ssrcs: Vec<u32> = (0..64).map(|_| rng.random()).collect();
    let camera = |at: usize| {
        let by_address = rng.random_bool(0.25);
        let streams = rng.random_range(1..=3);
        // Long media descriptions make STREAM blocks of many pages.
        let sdp_len = *[
            0, 0, 0, 0, 0, 0, 0, 0, 300, 300, 300, 300, 300, 1000, 5000, 16_000,
        ]
        .choose(rng)
        .expect("not empty");
        let configurations = match rng.random_range(0..5) {
            // One is always there: a life in which nothing is stored shows little.
            _ if at == 0 => (0, 2),
            0 => (0, 1),
            1 => (1, 2),
            _ => (0, 2),
        };
        CameraPlan {
            id: format!("camera {at}"),
            customer: rng.random_range(0..customers),
            from: SocketAddr::new([10, 0, 0, at as u8 + 1].into(), 5000),
            ssrcs: ssrcs.drain(..streams).collect(),
            by_address,
            sdp: (sdp_len > 0).then(|| "v=0\r\n".repeat(sdp_len / 5).into()),
            configurations,
        }
    };
    (0..count).map(camera).collect()
}

fn network_faults(rng: &mut StdRng) -> NetworkFaults {
    NetworkFaults {
        loss: pick(rng, 0.4, 0.3),
        duplicate: pick(rng, 0.4, 0.1),
        reorder: pick(rng, 0.4, 0.2),
        hostile: pick(rng, 0.5, 0.2),
        restart: pick(rng, 0.3, 0.02),
        batch: pick(rng, 0.8, 0.95),
        no_buffers: pick(rng, 0.2, 0.2),
    }
}

fn disk_faults(rng: &mut StdRng, start_ns: u64, busy_ns: u64) -> DiskFaults {
    if rng.random_bool(0.1) {
        // A dying disk: one segment after the other fails.
        return DiskFaults {
            sticky: 0.2,
            sync: 0.4,
            late: 0.1,
            ..DiskFaults::default()
        };
    }
    DiskFaults {
        late: pick(rng, 0.7, 0.3),
        slow_ns: window(rng, 0.3, start_ns, busy_ns),
        short: pick(rng, 0.3, 0.3),
        once: pick(rng, 0.3, 0.1),
        sticky: pick(rng, 0.25, 0.02),
        interrupted: pick(rng, 0.2, 0.3),
        no_space: pick(rng, 0.1, 0.1),
        ring_full: pick(rng, 0.2, 0.3),
        sync: pick(rng, 0.3, 0.1),
        lie: 0.0,
    }
}

fn keeper_faults(rng: &mut StdRng, start_ns: u64, busy_ns: u64) -> KeeperFaults {
    KeeperFaults {
        full_ns: window(rng, 0.3, start_ns, busy_ns),
        left_bytes: rng.random_range(0..8 << 20),
        prepare: pick(rng, 0.12, 0.2),
        extend: pick(rng, 0.2, 0.7),
        close: pick(rng, 0.15, 0.2),
        lie: 0.0,
        slowness: if rng.random_bool(0.2) {
            rng.random_range(5..60)
        } else {
            1
        },
    }
}

fn events(
    rng: &mut StdRng,
    start: Start,
    busy_ns: u64,
    shards: u16,
    cameras: &[CameraPlan],
) -> Vec<(u64, Happening)> {
    let mut events = Vec::new();
    let mut at = |rng: &mut StdRng, probability: f64, what: Happening| {
        if rng.random_bool(probability) {
            events.push((start.mono_ns + rng.random_range(0..busy_ns), what));
        }
    };
    if cameras.iter().any(|camera| camera.configurations != (0, 2)) {
        at(rng, 0.5, Happening::Reload(1));
    }
    for _ in 0..3 {
        let deleted = *[1, 3, 40, 500].choose(rng).expect("not empty");
        at(rng, 0.15, Happening::Tombstones(deleted));
    }
    let heads = *[1, 3, 600].choose(rng).expect("not empty");
    at(rng, 0.3, Happening::Heads(heads));
    let step_ns = rng.random_range(MS as i64..20 * S as i64);
    at(rng, 0.1, Happening::Clock(step_ns));
    at(rng, 0.1, Happening::Clock(-step_ns));
    for _ in 0..3 {
        let stalled = rng.random_range(0..usize::from(shards));
        let stall_ns = rng.random_range(MS..600 * MS);
        at(rng, 0.1, Happening::Stall(stalled, stall_ns));
    }
    events.sort_by_key(|(at_ns, _)| *at_ns);
    events
}

/// Zero in most plans, else up to `most`: a fault that strikes everywhere hides the others.
fn pick(rng: &mut StdRng, enabled: f64, most: f64) -> f64 {
    if rng.random_bool(enabled) {
        rng.random_range(0.0..most)
    } else {
        0.0
    }
}

fn window(rng: &mut StdRng, enabled: f64, start_ns: u64, busy_ns: u64) -> (u64, u64) {
    if !rng.random_bool(enabled) {
        return (0, 0);
    }
    let from = start_ns + rng.random_range(0..busy_ns);
    (from, from + rng.random_range(0..busy_ns))
}
