//! The sending thread: sleep, gather what is due, send it, count it; until nothing is due any more or someone says stop.

use super::gather::{Junker, gather_held};
use super::outlets::{self, Outlet};
use super::tally::Tally;
use super::{Control, FleetError, RunOptions};
use crate::camera::{RunClock, Stream};
use crate::impair::Impairer;
use crate::plan::Plan;
use crate::result::{Impaired, RunResult};
use crate::rtp::HEADER_BYTES;
use crate::schedule::{CatchUp, Event, Schedule};
use crate::send::{Batch, Kind, Message, Note, Rtcp, Sender};
use crate::sentlog::{About, Entry, Flags, Lane, LoggedStream, SentLogWriter, packet_hash};
use nix::sys::prctl::set_timerslack;
use nix::time::{ClockId, clock_gettime};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// From now to the schedule's 0: no camera starts late because the threads were only just made.
const LEAD_NS: u64 = 20_000_000;
/// Shortest sleep: what comes due meanwhile leaves together. Waking costs about 5 µs, so this bounds it to some percent
/// of a core; packets are late by it at most, and the report counts that too.
const SLEEP_NS_MIN: u64 = 100_000;
/// A thread with a CPU of its own wakes this much before the time and waits for it awake: a sleep on Linux ends late by up to as much.
const AWAKE_NS: u64 = 60_000;
/// A stop is noticed, and a second ends, within this time.
const SLEEP_NS_MAX: u64 = 50_000_000;

pub struct Fleet<'a> {
    pub(super) plan: &'a Plan,
    control: &'a Control,
    paced: bool,
    pinned: bool,
    pub(super) streams: Vec<Option<Stream<'a>>>,
    pub(super) impairers: Vec<Option<Box<Impairer>>>,
    pub(super) outlets: Vec<Outlet>,
    /// By stream: whether the engine must refuse what it sends now.
    pub(super) stranger: Vec<bool>,
    pub(super) junkers: Vec<Junker>,
    /// Sockets that rebinding left, still in use by the batch under way.
    pub(super) retired: Vec<u32>,
    /// SSRCs that a restart must not take.
    pub(super) taken: HashSet<u32>,
    pub(super) schedule: Schedule,
    pub(super) sender: Sender,
    pub(super) log: Option<SentLogWriter>,
    pub(super) tally: Tally,
    pub(super) clock: RunClock,
    /// Buffers of impaired packets that have left.
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) start: Instant,
}

impl<'a> Fleet<'a> {
    pub fn new(plan: &'a Plan, options: &RunOptions, control: &'a Control) -> Result<Fleet<'a>, FleetError> {
        let mut sender = Sender::new(options.method);
        let outlets = outlets::open(plan, &mut sender)?;
        let streams: Vec<_> = (0..)
            .zip(&plan.streams)
            .map(|(number, stream)| {
                let impair = &group(plan, stream.camera).impair;
                Stream::new(number, stream, &plan.programs, impair)
            })
            .collect();
        if streams.iter().all(Option::is_none) {
            return Err(FleetError::Empty);
        }
        let start = Instant::now() + Duration::from_nanos(LEAD_NS);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = RunClock {
            run: plan.run,
            start_ns: since_1970.as_nanos() as u64 + LEAD_NS,
        };
        let log = options.sent_log.as_deref();
        let log = log.map(|path| SentLogWriter::create(path, &about(plan, clock.start_ns)));
        let mut fleet = Fleet {
            plan,
            control,
            paced: options.paced,
            pinned: options.cpu.is_some(),
            impairers: impairers(plan),
            outlets,
            stranger: plan
                .streams
                .iter()
                .map(|stream| group(plan, stream.camera).unknown)
                .collect(),
            junkers: Junker::open_all(plan, &mut sender)?,
            retired: Vec::new(),
            taken: plan.streams.iter().map(|stream| stream.ssrc).collect(),
            schedule: Schedule::default(),
            sender,
            log: log.transpose()?,
            tally: Tally::new(plan, control.is_watched(), options.paced),
            clock,
            spare: Vec::new(),
            start,
            streams,
        };
        fleet.fill_schedule();
        Ok(fleet)
    }

    fn fill_schedule(&mut self) {
        for number in 0..self.streams.len() as u32 {
            self.add_burst(number);
            if self.plan.rtcp != Rtcp::Off {
                self.add_report(number);
            }
        }
        for (number, junker) in (0..).zip(&self.junkers) {
            if let Some(due_ns) = junker.next_due_ns() {
                self.schedule.add(due_ns, Event::Junk(number));
            }
        }
    }

    pub fn run(mut self) -> Result<RunResult, FleetError> {
        // Sleeps end when they should and not up to 50 µs later; where that is refused, lateness shows it.
        let _ = set_timerslack(1);
        let mut bound = CatchUp::new(nominal_bytes_per_s(self.plan));
        let (mut batch, mut left) = (Batch::default(), Vec::new());
        let mut stopped = false;
        self.tally.begin(thread_cpu_ns());
        while let Some(due_ns) = self.schedule.next_due_ns() {
            stopped = self.control.stop.load(Ordering::Relaxed);
            if stopped {
                break;
            }
            let now_ns = self.now_ns();
            if let Some(now_ns) = now_ns {
                self.end_seconds(now_ns);
            }
            let wait_ns = match now_ns {
                None => SLEEP_NS_MIN,
                Some(_) if !self.paced => 0,
                Some(now_ns) if due_ns > now_ns => due_ns - now_ns,
                Some(now_ns) => bound.may_send(now_ns).err().unwrap_or(0),
            };
            if wait_ns > 0 {
                self.wait(wait_ns);
                continue;
            }
            let now_ns = now_ns.expect("without a clock the wait is not 0");
            self.gather(if self.paced { now_ns } else { u64::MAX }, &mut batch);
            self.send(&batch, &mut left, &mut bound);
        }
        if stopped {
            let now_ns = self.now_ns().unwrap_or(0);
            gather_held(&mut self, now_ns, &mut batch);
            self.send(&batch, &mut left, &mut bound);
        }
        self.end(stopped)
    }

    /// Sleeps, or with a CPU of its own waits awake for what comes soon.
    fn wait(&self, wait_ns: u64) {
        if !self.pinned {
            let sleep_ns = wait_ns.clamp(SLEEP_NS_MIN, SLEEP_NS_MAX);
            std::thread::sleep(Duration::from_nanos(sleep_ns));
        } else if wait_ns > 2 * AWAKE_NS {
            let sleep_ns = (wait_ns - AWAKE_NS).min(SLEEP_NS_MAX);
            std::thread::sleep(Duration::from_nanos(sleep_ns));
        } else {
            std::hint::spin_loop();
        }
    }

    /// Nanoseconds since the schedule's 0; `None` before it.
    fn now_ns(&self) -> Option<u64> {
        let since = Instant::now().checked_duration_since(self.start)?;
        Some(since.as_nanos() as u64)
    }

    fn end_seconds(&mut self, now_ns: u64) {
        if self.tally.second_is_over(now_ns) {
            self.tally.end_seconds(now_ns, thread_cpu_ns(), self.control);
        }
    }

    /// Takes due events into the batch until it is full or nothing more is due.
    fn gather(&mut self, now_ns: u64, batch: &mut Batch) {
        batch.clear();
        while !batch.is_full() {
            match self.schedule.take_due(now_ns) {
                Some((due_ns, Event::Burst(stream))) => self.gather_burst(stream, due_ns, batch),
                Some((due_ns, Event::Report(stream))) => self.gather_report(stream, due_ns, batch),
                Some((due_ns, Event::Junk(junker))) => self.gather_junk(junker, due_ns, batch),
                None => break,
            }
        }
    }

    fn send(&mut self, batch: &Batch, left: &mut Vec<bool>, bound: &mut CatchUp) {
        self.sender.send(batch, left);
        let now_ns = self.now_ns().unwrap_or(0);
        for (message, &left) in batch.messages().iter().zip(left.iter()) {
            bound.sent(message.len(), message.due_ns, now_ns);
            match message.kind {
                Kind::Rtp => self.count_rtp(batch, message, left, now_ns),
                Kind::Rtcp => self.count_rtcp(batch, message, left),
                Kind::Junk => self.tally.junk(left),
            }
        }
        self.tally.bursts(batch, self.sender.order());
        for socket in self.retired.drain(..) {
            self.sender.sockets.close(socket);
        }
        self.control.sent.store(self.tally.sent(), Ordering::Relaxed);
        self.control
            .sent_bytes
            .store(self.tally.sent_bytes(), Ordering::Relaxed);
        self.control
            .late_ns
            .store(self.tally.late_ns(), Ordering::Relaxed);
    }

    /// Notes of each packet of a message what became of it: counts, lateness, sent log.
    fn count_rtp(&mut self, batch: &Batch, message: &Message, left: bool, now_ns: u64) {
        let number = message.stream;
        let outcome = if left { Flags::SENT } else { Flags::FAILED };
        if let Some(log) = &mut self.log {
            for (note, packet) in batch.packets(message) {
                log.note(number, Lane::Rtp, entry(note, outcome, packet));
            }
        }
        self.tally.rtp(batch, message, left, now_ns);
        if left {
            let headers = message.packets() * HEADER_BYTES as u64;
            let payload = (message.len() as u64).saturating_sub(headers);
            if let Some(stream) = &mut self.streams[number as usize] {
                stream.count_sent(message.packets() as u32, payload as u32);
            }
        }
    }

    fn count_rtcp(&mut self, batch: &Batch, message: &Message, left: bool) {
        let outcome = if left { Flags::SENT } else { Flags::FAILED };
        if let Some(log) = &mut self.log {
            for (note, packet) in batch.packets(message) {
                log.note(message.stream, Lane::Rtcp, entry(note, outcome, packet));
            }
        }
        self.tally.rtcp(message.stream, left);
    }

    fn end(mut self, stopped: bool) -> Result<RunResult, FleetError> {
        if let Some(log) = self.log.take() {
            log.finish()?;
        }
        let now_ns = self.now_ns().unwrap_or(0);
        self.tally.end(now_ns, thread_cpu_ns(), self.control);
        let mut done = Impaired::default();
        for impairer in self.impairers.iter().flatten() {
            add(&mut done, &impairer.done);
        }
        Ok(self
            .tally
            .result(self.plan, &self.sender, self.clock, done, stopped))
    }
}

fn group(plan: &Plan, camera: u32) -> &crate::plan::Group {
    &plan.groups[plan.cameras[camera as usize].group as usize]
}

fn impairers(plan: &Plan) -> Vec<Option<Box<Impairer>>> {
    let of = |(number, stream): (u32, &crate::plan::StreamPlan)| {
        let rules = group(plan, stream.camera).impair;
        let begins_ns = stream.on.first().map_or(0, |time| time.start);
        (!rules.none()).then(|| Box::new(Impairer::new(rules, plan.seed, number, begins_ns)))
    };
    (0..).zip(&plan.streams).map(of).collect()
}

fn add(sum: &mut Impaired, one: &Impaired) {
    let pairs = [
        (&mut sum.lost, one.lost),
        (&mut sum.duplicated, one.duplicated),
        (&mut sum.reordered, one.reordered),
        (&mut sum.corrupted, one.corrupted),
        (&mut sum.truncated, one.truncated),
        (&mut sum.runts, one.runts),
        (&mut sum.restarts, one.restarts),
        (&mut sum.sequence_jumps, one.sequence_jumps),
        (&mut sum.timestamp_jumps, one.timestamp_jumps),
        (&mut sum.payload_type_changes, one.payload_type_changes),
        (&mut sum.rebinds, one.rebinds),
    ];
    for (sum, one) in pairs {
        *sum += one;
    }
}

/// What the sent log says of the fleet.
fn about(plan: &Plan, start_ns: u64) -> About {
    let streams = plan.streams.iter().map(|stream| {
        let camera = &plan.cameras[stream.camera as usize];
        let group = &plan.groups[camera.group as usize];
        LoggedStream {
            camera: camera.id.clone(),
            customer: plan.customers[camera.customer as usize].clone(),
            group: group.name.clone(),
            media: stream.media,
            ssrc: stream.ssrc,
            target: stream.target,
            known: !group.unknown,
        }
    });
    About {
        plan: plan.name.clone(),
        seed: plan.seed,
        run: plan.run,
        start_ns,
        targets: plan.targets.iter().map(ToString::to_string).collect(),
        streams: streams.collect(),
    }
}

/// A packet's entry in the sent log; one that was lost on purpose met no `outcome`.
fn entry(note: &Note, outcome: Flags, packet: Option<&[u8]>) -> Entry {
    let there = packet.filter(|_| outcome == Flags::SENT);
    Entry {
        hash: there.map_or(0, packet_hash),
        sequence: note.sequence,
        flags: packet.map_or(note.flags, |_| note.flags | outcome),
        intended_ns: note.intended_ns,
        len: note.len,
    }
}

/// All streams' rates together, as if all were on.
fn nominal_bytes_per_s(plan: &Plan) -> f64 {
    let rate = |stream: &crate::plan::StreamPlan| plan.programs[stream.program as usize].bits_per_s() / 8.0;
    plan.streams.iter().map(rate).sum()
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has a CPU clock per thread");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
