//! One life of the engine, from its first moment to its last: the clock, and what happens when.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use harborseal::chunk::{BUFFER_BYTES, Pool};
use harborseal::ledger::Reason;
use harborseal::log::catalog::Note;
use harborseal::log::prepare::Chain;
use harborseal::log::{Log, Now};
use harborseal::shard::core::Core;
use harborseal::shard::hold::Hold;
use harborseal::shard::links;
use harborseal::stream::registry::Registry;
use harborseal::uring::steer::steer_payload;
use harborseal::uring::{Huge, Region, RegionOptions, Waker};
use harborseal_segment::body::{ChainHead, DeletedSegment, DeletionReason};
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::node::NodeKey;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::canary::Canary;
use super::disk::SimDisk;
use super::keeper::{Job, KeeperParts, SimKeeper};
use super::keys::generator;
use super::machine::Machine;
use super::plan::{Ending, Happening, MS, PATIENCE_NS, Plan, S, Start};
use super::platter::Platter;
use super::recovery::{self, Chances};
use super::shard::{ShardParts, SimShard};
use super::tally::{Fired, Tally};
use super::traffic::{Arrival, SOCKETS, Traffic};

/// With so many chunk buffers a calm network never waits for one.
const ENOUGH_BUFFERS: usize = 48;

/// Memory of the hold queue, in spaces of 64 KiB: it is cleared when it ends, and a few hundred packets are all there are.
const HOLD_SPACES: usize = 8;

/// What is not for us, or no packet.
const OF_STRANGERS: [Reason; 8] = [
    Reason::Truncated,
    Reason::BadVersion,
    Reason::BadPadding,
    Reason::BadExtension,
    Reason::BadRtcp,
    Reason::Oversize,
    Reason::UnknownSsrc,
    Reason::WrongSource,
];

/// Everything there is in one life: from a start of the engine to its end.
pub struct World {
    /// What was decided beforehand.
    pub plan: Plan,
    /// What is sent.
    pub traffic: Traffic,
    /// The shards.
    pub shards: Vec<SimShard>,
    /// All files.
    pub platter: Rc<RefCell<Platter>>,
    /// The node's key.
    pub node: Arc<NodeKey>,
    /// This run of the engine.
    pub run_id: RunId,
    /// What really arrived, in order: index of the arrival and CLOCK_REALTIME at that moment.
    pub arrived: Vec<(usize, u64)>,
    /// No datagram had to wait too long for its shard, and the clock never went back.
    pub order_is_strict: bool,
    /// Tombstones that were asked for, by ticket.
    pub tombstones: Vec<Vec<DeletedSegment>>,
    /// Chain ends that were told.
    pub heads: Vec<ChainHead>,
    /// Where to count.
    pub tally: Tally,
    /// A planted fault.
    pub canary: Option<Canary>,
    arrivals: Vec<Rc<Arrival>>,
    next_arrival: usize,
    registries: [Arc<Registry>; 2],
    next_event: usize,
    mono_ns: u64,
    /// CLOCK_REALTIME less CLOCK_MONOTONIC.
    real_offset_ns: i64,
    looked_back: bool,
    stopping: bool,
    /// Power failed while it looked back.
    cut_short: bool,
    /// Packets that a well disk would have stored, dropped until the faults had stopped for long enough.
    dropped_ill: Option<u64>,
    quiet_received: Option<u64>,
    rng: StdRng,
}

impl World {
    /// A life that begins on this machine.
    pub fn new(machine: &Machine, start: Start) -> World {
        let Machine {
            story,
            platter,
            node,
            tally,
            ..
        } = machine;
        let life = start.life;
        let plan = Plan::new(*story, start);
        let mut rng = StdRng::seed_from_u64(story.seed ^ 0x776f_726c ^ (life as u64) << 56);
        let until_ns = match plan.ending {
            Ending::Crash(at_ns, _) => at_ns + S,
            Ending::CrashLookingBack => plan.look_back_ns + 1,
            Ending::Stop(at_ns) => at_ns,
        };
        let traffic = Traffic::new(&plan, until_ns, machine.next_stream(), rng.random(), tally);
        let registries = [plan.registry(0), plan.registry(1)];
        let wakers: Vec<Waker> = (0..plan.shards)
            .map(|_| Waker::new().expect("an eventfd"))
            .collect();
        let links = links::connect(&wakers, SOCKETS, plan.slots, false).expect("memory");
        let run_id = RunId(rng.random());
        let shards = links
            .into_iter()
            .zip(wakers)
            .enumerate()
            .map(|(index, (links, waker))| {
                let shard = index as u16;
                let random = StdRng::seed_from_u64(rng.random());
                let log = Log::new(plan.limits, Arc::clone(node), plan.backend, Box::new(random));
                let hold = (plan.shards > 1).then(|| Hold::with_spaces(HOLD_SPACES, false).expect("memory"));
                let core = Core::new(
                    plan.settings(shard),
                    Arc::clone(&registries[0]),
                    pool(plan.buffers),
                    log,
                    hold,
                );
                let disk = SimDisk::new(
                    Rc::clone(platter),
                    plan.disk,
                    plan.quiet_ns,
                    rng.random(),
                    story.canary,
                    tally.clone(),
                );
                let seed = story.seed;
                let keeper = SimKeeper::new(KeeperParts {
                    chain: Chain {
                        run_id,
                        shard: u32::from(shard),
                    },
                    backend: plan.backend,
                    node: Arc::clone(node),
                    platter: Rc::clone(platter),
                    faults: plan.keeper,
                    quiet_ns: plan.quiet_ns,
                    seed: rng.random(),
                    generator: Box::new(move |attempt| generator(seed, life, u32::from(shard), attempt)),
                    canary: story.canary,
                    tally: tally.clone(),
                });
                let parts = ShardParts {
                    core,
                    disk,
                    keeper,
                    links,
                    waker,
                    socket_datagrams: plan.socket_datagrams,
                    drain: plan.drain,
                    no_buffers: plan.network.no_buffers,
                    quiet_ns: plan.quiet_ns,
                    canary: story.canary,
                    seed: rng.random(),
                    tally: tally.clone(),
                };
                SimShard::new(parts, plan.start_ns)
            });
        let shards = shards.collect();
        let arrivals = traffic.arrivals.iter().cloned().map(Rc::new).collect();
        World {
            mono_ns: plan.start_ns,
            real_offset_ns: plan.real_offset_ns,
            looked_back: life == 0,
            plan,
            traffic,
            shards,
            platter: Rc::clone(platter),
            node: Arc::clone(node),
            run_id,
            arrived: Vec::new(),
            order_is_strict: true,
            tombstones: Vec::new(),
            heads: Vec::new(),
            tally: tally.clone(),
            canary: story.canary,
            arrivals,
            next_arrival: 0,
            registries,
            next_event: 0,
            stopping: false,
            cut_short: false,
            dropped_ill: None,
            quiet_received: None,
            rng,
        }
    }

    /// Lives it through; true if it was ended by a crash.
    pub fn live(&mut self) -> bool {
        match self.plan.ending {
            Ending::Crash(at_ns, amid) => {
                self.run_until(|world| world.next_ns() >= at_ns);
                let amid =
                    |world: &World| amid.is_none_or(|job| world.shards.iter().any(|s| s.keeper.job() == job));
                self.run_until(|world| amid(world) || world.next_ns() >= at_ns + S);
                self.crash();
                true
            }
            Ending::CrashLookingBack => {
                self.run_until(|world| world.cut_short || world.looked_back);
                self.crash();
                true
            }
            Ending::Stop(at_ns) => {
                self.run_until(|world| world.next_ns() >= at_ns);
                self.stop(at_ns);
                false
            }
        }
    }

    /// The present.
    pub fn now(&self) -> Now {
        Now {
            mono_ns: self.mono_ns,
            real_ns: (self.mono_ns as i64 + self.real_offset_ns) as u64,
        }
    }

    /// How long it has run, in nanoseconds.
    pub fn mono_since_start_ns(&self) -> u64 {
        self.mono_ns - self.plan.start_ns
    }

    /// The clocks when it ends.
    pub fn clocks(&self) -> (u64, i64) {
        (self.mono_ns, self.real_offset_ns)
    }

    // ---- Time -----------------------------------------------------------------------------------------------

    /// When the next thing happens.
    fn next_ns(&self) -> u64 {
        let arrival = self.arrivals.get(self.next_arrival).map(|arrival| arrival.at_ns);
        let event = self.plan.events.get(self.next_event).map(|(at_ns, _)| *at_ns);
        let of_shards = self.shards.iter().flat_map(|shard| {
            let turn = (!shard.has_ended()).then_some(shard.turn_ns);
            [turn, shard.disk.next_due_ns(), shard.keeper.next_due_ns()]
        });
        let look_back = (!self.looked_back && !self.stopping).then_some(self.plan.look_back_ns);
        let next = of_shards.chain([arrival, event, look_back]).flatten().min();
        next.unwrap_or(u64::MAX).max(self.mono_ns)
    }

    fn run_until(&mut self, mut over: impl FnMut(&mut World) -> bool) {
        while !over(self) {
            self.mono_ns = self.next_ns();
            self.step();
        }
    }

    /// Everything that happens at this moment.
    fn step(&mut self) {
        let now = self.now();
        self.platter.borrow_mut().now_s = now.real_ns / S;
        self.arrive();
        self.happen();
        if !self.looked_back && !self.stopping && self.plan.look_back_ns <= now.mono_ns {
            self.look_back();
            if self.cut_short {
                return;
            }
        }
        for index in 0..self.shards.len() {
            let shard = &mut self.shards[index];
            if shard
                .disk
                .next_due_ns()
                .is_some_and(|due_ns| due_ns <= now.mono_ns)
            {
                shard.complete(now);
            }
            if shard
                .keeper
                .next_due_ns()
                .is_some_and(|due_ns| due_ns <= now.mono_ns)
            {
                shard.keep(now);
            }
            if shard.turn_ns <= now.mono_ns && !shard.has_ended() {
                let waited_ns = shard.oldest_wait_ns(now);
                if waited_ns > harborseal::shard::hold::MAX_HOLD_NS / 2 && self.order_is_strict {
                    self.order_is_strict = false;
                    self.tally.fire(Fired::OrderGivenUp);
                }
                shard.turn(now);
                let others = self.shards.iter_mut().enumerate().filter(|(at, _)| *at != index);
                others.for_each(|(_, shard)| shard.look_for_wake(now));
            }
        }
        self.watch_recovery();
    }

    fn arrive(&mut self) {
        while let Some(arrival) = self
            .arrivals
            .get(self.next_arrival)
            .filter(|a| a.at_ns <= self.mono_ns)
        {
            let owner = steer_payload(&arrival.packets[0], self.shards.len());
            let now = Now {
                mono_ns: self.mono_ns,
                real_ns: (self.mono_ns as i64 + self.real_offset_ns) as u64,
            };
            if self.shards[owner].arrive(arrival, now) {
                self.arrived.push((self.next_arrival, now.real_ns));
            }
            self.next_arrival += 1;
        }
    }

    fn happen(&mut self) {
        while let Some((_, happening)) = self
            .plan
            .events
            .get(self.next_event)
            .filter(|(at_ns, _)| *at_ns <= self.mono_ns)
        {
            let happening = happening.clone();
            self.next_event += 1;
            let now = self.now();
            self.tally.tell(now.mono_ns, || format!("{happening:?}"));
            match happening {
                Happening::Reload(configuration) => {
                    self.tally.fire(Fired::Reload);
                    let registry = &self.registries[configuration];
                    for shard in &mut self.shards {
                        shard.core.reload(Arc::clone(registry), &mut shard.disk);
                        shard.wake_within(now, 0);
                    }
                }
                Happening::Tombstones(count) => {
                    self.tally.fire(Fired::Tombstones);
                    let deleted: Vec<DeletedSegment> = (0..count).map(|_| deleted(&mut self.rng)).collect();
                    let ticket = self.tombstones.len() as u64;
                    self.tombstones.push(deleted.clone());
                    self.shards[0]
                        .core
                        .log_and_pool()
                        .0
                        .add_tombstones(ticket, deleted);
                    self.shards[0].wake_within(now, 0);
                }
                Happening::Heads(count) => {
                    self.tally.fire(Fired::Heads);
                    let heads: Vec<ChainHead> = (0..count).map(|_| head(&mut self.rng)).collect();
                    self.heads.extend_from_slice(&heads);
                    self.shards[0].core.log_and_pool().0.add_heads(heads);
                    self.shards[0].wake_within(now, 0);
                }
                Happening::Clock(step_ns) => {
                    self.tally.fire(if step_ns > 0 {
                        Fired::ClockForward
                    } else {
                        Fired::ClockBack
                    });
                    self.real_offset_ns += step_ns;
                    // Arrival times that go back tell no order between shards.
                    self.order_is_strict &= step_ns > 0;
                }
                Happening::Stall(shard, stall_ns) => self.shards[shard].stall(now, stall_ns),
            }
        }
    }

    /// What the recovery thread does when the engine starts: closes what earlier lives left, and has the ends of their chains written down.
    fn look_back(&mut self) {
        self.looked_back = true;
        self.tally.fire(Fired::LookedBack);
        let amid = self.plan.ending == Ending::CrashLookingBack;
        let chances = Chances {
            crash: if amid { 0.1 } else { 0.0 },
            error: if self.rng.random_bool(0.2) { 0.1 } else { 0.0 },
        };
        let (node, seed) = (&self.node, self.rng.random());
        let look = recovery::look_back(&self.platter, node, self.run_id, seed, chances, &self.tally);
        self.cut_short = look.cut_short;
        // The janitor passes the ends of chains on to shard 0.
        for note in look.notes {
            let Note::Heads(heads) = note else { continue };
            self.heads.extend_from_slice(&heads);
            self.shards[0].core.log_and_pool().0.add_heads(heads);
            let now = self.now();
            self.shards[0].wake_within(now, 0);
        }
    }

    /// After the faults have stopped, what was received before becomes durable within [`PATIENCE_NS`], and from then on everything does.
    fn watch_recovery(&mut self) {
        let now = self.now();
        if self.quiet_received.is_none() && self.mono_ns >= self.plan.quiet_ns + 100 * MS {
            self.quiet_received = Some(self.sum(now).0);
        }
        if let Some(before) = self.quiet_received
            && self.dropped_ill.is_none()
            && self.mono_ns >= self.plan.quiet_ns + PATIENCE_NS
        {
            let (_, stored, dropped) = self.sum(now);
            assert!(
                stored + dropped >= before,
                "a wedge: of {before} packets, {} are neither stored nor dropped {PATIENCE_NS} ns after the last fault",
                before.saturating_sub(stored + dropped)
            );
            self.dropped_ill = Some(self.dropped_ill());
        }
    }

    fn sum(&mut self, now: Now) -> (u64, u64, u64) {
        let books = self.shards.iter_mut().map(|shard| shard.books(now));
        books.fold((0, 0, 0), |sum, books| {
            (
                sum.0 + books.received,
                sum.1 + books.stored,
                sum.2 + books.dropped.total(),
            )
        })
    }

    // ---- The end --------------------------------------------------------------------------------------------

    fn crash(&mut self) {
        self.tally.fire(Fired::Crashed);
        for shard in &self.shards {
            match shard.keeper.job() {
                Job::Prepare => self.tally.fire(Fired::CrashedPreparing),
                Job::Close => self.tally.fire(Fired::CrashedClosing),
                Job::Extend => self.tally.fire(Fired::CrashedExtending),
                Job::Other => {}
            }
        }
        self.close_books();
    }

    fn stop(&mut self, at_ns: u64) {
        self.tally.fire(Fired::Stopped);
        self.mono_ns = at_ns.max(self.mono_ns);
        self.tally
            .add(Fired::EarlyStop, u64::from(self.mono_ns < self.plan.quiet_ns));
        let now = self.now();
        self.next_arrival = self.arrivals.len();
        self.next_event = self.plan.events.len();
        // Whatever ails the disk is over: a stop has to end well.
        self.plan.quiet_ns = self.plan.quiet_ns.min(self.mono_ns);
        let before = self.dropped_ill.unwrap_or_else(|| self.dropped_ill());
        // What sockets still hold needs memory. Little of it may be full of what waited for the disk, until the next try.
        let has_memory = self.dropped_ill.is_some() || self.plan.buffers >= ENOUGH_BUFFERS;
        for shard in &mut self.shards {
            shard.disk.end_of_faults(now.mono_ns);
            shard.keeper.end_of_faults(now.mono_ns);
            shard.stop(now);
        }
        self.stopping = true;
        let give_up_ns = self.mono_ns + PATIENCE_NS;
        self.run_until(|world| world.shards.iter().all(SimShard::has_ended) || world.next_ns() >= give_up_ns);
        let ended = self.shards.iter().all(SimShard::has_ended);
        assert!(
            ended,
            "a wedge: a stop was not carried out within {PATIENCE_NS} ns"
        );
        self.run_until(|world| world.shards.iter().all(|shard| shard.keeper.is_idle()));
        self.shards.iter_mut().for_each(|shard| shard.disk.close());
        for shard in &mut self.shards {
            assert_eq!(shard.core.in_flight(), 0, "packets in flight after a stop");
            assert_eq!(shard.bytes_out(), 0, "chunk buffers were not given back");
            for ledger in shard.core.ledgers() {
                let (ssrc, gone) = (ledger.ssrc, ledger.stored + ledger.dropped.total());
                assert_eq!(ledger.received, gone, "SSRC {ssrc}: received = stored + dropped");
            }
        }
        let (received, stored, dropped) = self.sum(self.now());
        assert_eq!(
            received,
            stored + dropped,
            "received = stored + dropped after a stop"
        );
        let since = self.dropped_ill() - before;
        assert!(
            since == 0 || !has_memory,
            "{since} packets dropped though the disk was well ({:?})",
            self.reasons()
        );
        let handed: u64 = self.shards.iter_mut().map(|shard| shard.books(now).rehomed).sum();
        let taken_over: u64 = self.shards.iter().map(|shard| shard.taken_over).sum();
        assert_eq!(handed, taken_over, "packets handed over, and taken");
        self.close_books();
    }

    /// Every packet that was given to a shard is in exactly one shard's books.
    fn close_books(&mut self) {
        let now = self.now();
        let received = self.sum(now).0;
        let given: u64 = self.shards.iter().map(|shard| shard.given).sum();
        let handed: u64 = self.shards.iter_mut().map(|shard| shard.books(now).rehomed).sum();
        let taken_over: u64 = self.shards.iter().map(|shard| shard.taken_over).sum();
        assert_eq!(
            given,
            received + handed - taken_over,
            "packets given to shards, and in their books"
        );
        let reloaded = |(_, what): &(u64, Happening)| matches!(what, Happening::Reload(_));
        let all_known = self
            .plan
            .cameras
            .iter()
            .all(|camera| camera.configurations.0 == 0);
        if all_known && !self.plan.events.iter().any(reloaded) {
            let strangers: u64 = self.shards.iter().map(|shard| shard.strangers).sum();
            let refused = self.count_dropped(&OF_STRANGERS);
            assert_eq!(
                strangers,
                refused,
                "packets of strangers, and dropped as such ({:?})",
                self.reasons()
            );
        }
        self.shards.iter_mut().for_each(|shard| shard.tally_books(now));
    }

    fn count_dropped(&mut self, reasons: &[Reason]) -> u64 {
        let now = self.now();
        let books = self.shards.iter_mut().map(|shard| shard.books(now).dropped);
        books
            .map(|dropped| reasons.iter().map(|reason| dropped.get(*reason)).sum::<u64>())
            .sum()
    }

    /// Packets dropped for want of a disk or of memory behind it.
    fn dropped_ill(&mut self) -> u64 {
        // A small pool may be too small for all streams at once.
        let of_pool = self.plan.buffers >= ENOUGH_BUFFERS;
        let reasons = [Reason::DiskFull, Reason::DiskFailed, Reason::PoolExhausted];
        self.count_dropped(if of_pool { &reasons } else { &reasons[..2] })
    }

    fn reasons(&mut self) -> Vec<(&'static str, u64)> {
        let now = self.now();
        let books = self.shards.iter_mut().map(|shard| shard.books(now).dropped);
        books
            .flat_map(|dropped| dropped.nonzero().map(|(r, n)| (r.name(), n)).collect::<Vec<_>>())
            .collect()
    }
}

fn pool(buffers: usize) -> Pool {
    let region = Region::new(RegionOptions {
        bytes: buffers * BUFFER_BYTES,
        lock: false,
        huge: Huge::None,
        wipe_on_drop: false,
    });
    Pool::new(region.expect("memory"))
}

fn deleted(rng: &mut StdRng) -> DeletedSegment {
    DeletedSegment {
        segment_id: SegmentId(rng.random()),
        run_id: RunId(rng.random()),
        shard: 0,
        reason: DeletionReason::MaxAge,
        chain_seq: rng.random(),
        root: rng.random(),
    }
}

fn head(rng: &mut StdRng) -> ChainHead {
    ChainHead {
        run_id: RunId(rng.random()),
        shard: 0,
        flags: 1,
        chain_seq: rng.random(),
        segment_id: SegmentId(rng.random()),
        durable_upto: 0,
        leaf_count: 1,
        root: rng.random(),
    }
}
