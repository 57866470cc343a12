//! The run: what is due goes out, and what went out is noted.
//!
//! One thread does it all, so that order and counts need no agreement. Invariants: a packet is counted and logged as sent
//! only after the kernel took it; its lateness counts from its intended time; nothing is skipped to catch up.

mod live;

pub use live::{Control, LiveSecond, lateness_histogram};

use crate::camera::{Camera, RunClock};
use crate::clip::Clip;
use crate::plan::Plan;
use crate::program::{PACKET_BYTES, Program};
use crate::report::{FleetReport, Lateness, StreamCount};
use crate::rtp::HEADER_BYTES;
use crate::schedule::{CatchUp, Event, Schedule};
use crate::send::{Batch, Kind, Method, Rtcp, Sender};
use crate::sentlog::{About, Entry, Flags, Lane, LoggedStream, SentLogError, SentLogWriter, packet_hash};
use crate::spec::{FleetSpec, SpecError};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// From now to the schedule's 0: no camera starts late because the threads were only just made.
const LEAD_NS: u64 = 20_000_000;
/// Shortest sleep: what comes due meanwhile leaves together. Waking costs about 5 µs, so this bounds it to some percent
/// of a core; packets are late by it at most, and the report counts that too.
const SLEEP_NS_MIN: u64 = 100_000;
/// A stop is noticed within this time.
const SLEEP_NS_MAX: u64 = 50_000_000;
/// A sender report and its CNAME are 60 bytes at most here.
const REPORT_BYTES_MAX: usize = 64;

/// How to send a plan.
#[derive(Debug, Clone)]
pub struct RunOptions {
    pub method: Method,
    /// Pin the sending thread to this CPU.
    pub cpu: Option<usize>,
    /// Write the sent log here.
    pub sent_log: Option<PathBuf>,
    /// `false`: the same packets as fast as they go, to see what the machine can.
    pub paced: bool,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions {
            method: Method::default(),
            cpu: None,
            sent_log: None,
            paced: true,
        }
    }
}

/// Why a run did not come to a report.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("{0}")]
    Spec(#[from] SpecError),
    #[error("cannot open the sending sockets: {0}")]
    Socket(std::io::Error),
    #[error("cannot pin the sending thread to CPU {cpu}: {errno}")]
    Cpu { cpu: usize, errno: nix::Error },
    #[error("cannot start the sending thread: {0}")]
    Thread(std::io::Error),
    #[error("cannot handle signals: {0}")]
    Signal(std::io::Error),
    #[error("{0}")]
    SentLog(#[from] SentLogError),
}

/// Sends a whole fleet on a thread of its own and waits for it. Ends when all cameras have sent their time, or soon after
/// `control.stop` is set, with a report of what there was.
pub fn run(spec: &FleetSpec, control: &Control) -> Result<FleetReport, FleetError> {
    spec.check()?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("fleet".into());
        let thread = thread.spawn_scoped(scope, || {
            if let Some(cpu) = spec.cpu {
                pin(cpu)?; // the sent log's thread inherits it
            }
            let program = Program::new(&Clip::builtin(), spec.mbps, spec.pacing, spec.burst_packets);
            Fleet::new(spec, &program, control)?.run()
        });
        thread
            .map_err(FleetError::Thread)?
            .join()
            .expect("the sending thread does not panic")
    })
}

fn pin(cpu: usize) -> Result<(), FleetError> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
        .map_err(|errno| FleetError::Cpu { cpu, errno })
}

struct Fleet<'a> {
    spec: &'a FleetSpec,
    program: &'a Program,
    control: &'a Control,
    cameras: Vec<Camera>,
    schedule: Schedule,
    sender: Sender,
    log: Option<SentLogWriter>,
    counts: Vec<StreamCount>,
    tally: Tally,
    clock: RunClock,
    start: Instant,
}

/// Counts of the whole run, and marks in time.
#[derive(Default)]
struct Tally {
    lateness: Lateness,
    messages: u64,
    sent: u64,
    sent_bytes: u64,
    not_sent: u64,
    rtcp_sent: u64,
    rtcp_not_sent: u64,
    /// The latest due time and the moment its packet left.
    last_due_ns: u64,
    last_sent_ns: u64,
    /// (time, bytes sent by then) when the last camera had begun, and when the first ended.
    all_on: Option<(u64, u64)>,
    first_off: Option<(u64, u64)>,
}

impl<'a> Fleet<'a> {
    fn new(spec: &'a FleetSpec, program: &'a Program, control: &'a Control) -> Result<Fleet<'a>, FleetError> {
        let sender =
            Sender::open(&spec.targets, spec.source, spec.rtcp, spec.gso).map_err(FleetError::Socket)?;
        let streams = |camera| (spec.ssrc(camera), spec.target(camera) as u32);
        let streams: Vec<_> = (0..spec.cameras).map(streams).collect();
        let cameras = spec.cameras(program);
        let mut schedule = Schedule::default();
        for camera in &cameras {
            add_burst(&mut schedule, camera, program);
            if spec.rtcp != Rtcp::Off {
                add_report(&mut schedule, camera);
            }
        }

        let start = Instant::now() + Duration::from_nanos(LEAD_NS);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = RunClock {
            run: spec.run(),
            start_ns: since_1970.as_nanos() as u64 + LEAD_NS,
        };
        let log = spec
            .sent_log
            .as_deref()
            .map(|path| SentLogWriter::create(path, &about(&spec.plan(), clock.start_ns)));
        Ok(Fleet {
            spec,
            program,
            control,
            cameras,
            schedule,
            sender,
            log: log.transpose()?,
            counts: streams
                .iter()
                .map(|&(ssrc, _)| StreamCount {
                    ssrc,
                    ..Default::default()
                })
                .collect(),
            tally: Tally::default(),
            clock,
            start,
        })
    }

    /// Sleep, gather what is due, send it, count it; until nothing is due any more or someone says stop.
    fn run(mut self) -> Result<FleetReport, FleetError> {
        let cpu_before = thread_cpu_ns();
        let mut bound = CatchUp::new(f64::from(self.spec.cameras) * self.spec.mbps * 1e6 / 8.0);
        let (mut batch, mut left) = (Batch::default(), Vec::new());
        let mut stopped = false;
        while let Some(due_ns) = self.schedule.next_due_ns() {
            stopped = self.control.stop.load(Ordering::Relaxed);
            if stopped {
                break;
            }
            let now_ns = self.now_ns();
            let wait_ns = match now_ns {
                None => SLEEP_NS_MIN,
                Some(now_ns) if due_ns > now_ns => due_ns - now_ns,
                Some(now_ns) => bound.may_send(now_ns).err().unwrap_or(0),
            };
            if wait_ns > 0 {
                std::thread::sleep(Duration::from_nanos(wait_ns.clamp(SLEEP_NS_MIN, SLEEP_NS_MAX)));
                continue;
            }
            let now_ns = now_ns.expect("without a clock the wait is not 0");
            self.mark_phases(now_ns);
            self.gather(now_ns, &mut batch);
            self.sender.send(&batch, &mut left);
            self.count(&batch, &left, &mut bound);
        }
        let cpu_ns = thread_cpu_ns() - cpu_before;
        if let Some(log) = self.log.take() {
            log.finish()?;
        }
        Ok(self.report(cpu_ns, stopped))
    }

    /// Nanoseconds since the schedule's 0; `None` before it.
    fn now_ns(&self) -> Option<u64> {
        let since = Instant::now().checked_duration_since(self.start)?;
        Some(since.as_nanos() as u64)
    }

    /// Takes due events into the batch until it is full or nothing more is due.
    fn gather(&mut self, now_ns: u64, batch: &mut Batch) {
        batch.clear();
        let messages = if self.sender.gso() {
            1
        } else {
            self.spec.burst_packets
        };
        while batch.has_room(messages, self.spec.burst_packets.max(1) * PACKET_BYTES) {
            match self.schedule.take_due(now_ns) {
                Some((due_ns, Event::Burst(camera))) => self.gather_burst(camera, due_ns, batch),
                Some((due_ns, Event::Report(camera))) => self.gather_report(camera, due_ns, batch),
                None => break,
            }
        }
    }

    fn gather_burst(&mut self, index: u32, due_ns: u64, batch: &mut Batch) {
        let program = self.program;
        let camera = &mut self.cameras[index as usize];
        let (_, burst) = camera
            .next_burst(program)
            .expect("only cameras that are on are in the schedule");
        let socket = self.sender.socket(self.spec.target(index), Kind::Rtp);
        let whole = if self.sender.gso() { burst.packets.len() } else { 1 };
        let mut first = burst.packets.start;
        while first < burst.packets.end {
            let packets = first..first + whole;
            let len = packets.clone().map(|packet| program.packet_bytes(packet)).sum();
            let mut rest = batch.add(index, Kind::Rtp, socket, due_ns, len);
            for packet in packets {
                let (out, tail) = rest.split_at_mut(program.packet_bytes(packet));
                camera.write_packet(program, packet, self.clock, out);
                rest = tail;
            }
            first += whole;
        }
        camera.advance(program);
        add_burst(&mut self.schedule, camera, program);
    }

    fn gather_report(&mut self, index: u32, due_ns: u64, batch: &mut Batch) {
        let interval_ns = (self.spec.report_seconds * 1e9) as u64;
        let camera = &mut self.cameras[index as usize];
        let mut bytes = Vec::with_capacity(REPORT_BYTES_MAX);
        camera
            .take_report(interval_ns, self.clock)
            .write(&camera.cname(), &mut bytes);
        let socket = self.sender.socket(self.spec.target(index), Kind::Rtcp);
        batch
            .add(index, Kind::Rtcp, socket, due_ns, bytes.len())
            .copy_from_slice(&bytes);
        add_report(&mut self.schedule, camera);
    }

    /// Notes of each message what became of it: counts, lateness, sent log.
    fn count(&mut self, batch: &Batch, left: &[bool], bound: &mut CatchUp) {
        let now_ns = self.now_ns().unwrap_or(0);
        for (message, &left) in batch.messages().iter().zip(left) {
            let bytes = batch.bytes(message);
            bound.sent(bytes.len());
            self.tally.messages += 1;
            match (message.kind, left) {
                (Kind::Rtp, true) => {
                    self.count_sent(message.camera, message.due_ns, now_ns, batch.packets(message))
                }
                (Kind::Rtp, false) => {
                    self.count_not_sent(message.camera, message.due_ns, batch.packets(message))
                }
                (Kind::Rtcp, true) => {
                    self.tally.rtcp_sent += 1;
                    self.counts[message.camera as usize].rtcp_sent += 1;
                    if let Some(log) = &mut self.log {
                        let number = self.counts[message.camera as usize].rtcp_sent - 1;
                        log.note(message.camera, Lane::Rtcp, entry(number, message.due_ns, bytes));
                    }
                }
                (Kind::Rtcp, false) => self.tally.rtcp_not_sent += 1,
            }
        }
        self.control.sent.store(self.tally.sent, Ordering::Relaxed);
        self.control
            .sent_bytes
            .store(self.tally.sent_bytes, Ordering::Relaxed);
        self.control
            .late_ns
            .store(now_ns.saturating_sub(self.tally.last_due_ns), Ordering::Relaxed);
    }

    fn count_sent<'p>(
        &mut self,
        camera: u32,
        due_ns: u64,
        now_ns: u64,
        packets: impl Iterator<Item = &'p [u8]>,
    ) {
        let (mut count, mut bytes) = (0, 0);
        let stream = &self.counts[camera as usize];
        let sequences = stream.sent + stream.not_sent..;
        for (packet, sequence) in packets.zip(sequences) {
            count += 1;
            bytes += packet.len();
            if let Some(log) = &mut self.log {
                log.note(camera, Lane::Rtp, entry(sequence, due_ns, packet));
            }
        }
        self.cameras[camera as usize].count_sent(count, (bytes - count as usize * HEADER_BYTES) as u32);
        let stream = &mut self.counts[camera as usize];
        stream.sent += u64::from(count);
        stream.sent_bytes += bytes as u64;
        self.tally.sent += u64::from(count);
        self.tally.sent_bytes += bytes as u64;
        self.tally
            .lateness
            .count(now_ns.saturating_sub(due_ns), u64::from(count));
        self.tally.last_due_ns = self.tally.last_due_ns.max(due_ns);
        self.tally.last_sent_ns = now_ns;
    }

    fn count_not_sent<'p>(&mut self, camera: u32, due_ns: u64, packets: impl Iterator<Item = &'p [u8]>) {
        for packet in packets {
            let stream = &mut self.counts[camera as usize];
            let failed = Entry {
                hash: 0,
                flags: Flags::FAILED,
                ..entry(stream.sent + stream.not_sent, due_ns, packet)
            };
            stream.not_sent += 1;
            self.tally.not_sent += 1;
            if let Some(log) = &mut self.log {
                log.note(camera, Lane::Rtp, failed);
            }
        }
    }

    /// Remembers where the time with all cameras on begins and ends, by the clock and not by the schedule: a late
    /// generator shows as a lower rate there.
    fn mark_phases(&mut self, now_ns: u64) {
        let so_far = (now_ns, self.tally.sent_bytes);
        if now_ns >= self.spec.spread_ns(self.program) {
            self.tally.all_on.get_or_insert(so_far);
        }
        if now_ns >= self.spec.seconds_ns() {
            self.tally.first_off.get_or_insert(so_far);
        }
    }

    fn report(self, cpu_ns: u64, stopped: bool) -> FleetReport {
        let tally = &self.tally;
        let spec = self.spec;
        let end = (tally.last_sent_ns, tally.sent_bytes);
        let from = tally.all_on.unwrap_or_default();
        let window = Some((from, tally.first_off.unwrap_or(end))).filter(|(from, to)| to.0 > from.0);
        let (from, to) = window.unwrap_or(((0, 0), end));
        let late_at_end_ns = tally.last_sent_ns.saturating_sub(tally.last_due_ns);
        FleetReport {
            cameras: spec.cameras,
            mbps: spec.mbps,
            seconds: spec.seconds,
            seed: spec.seed,
            intended: tally.sent + tally.not_sent,
            sent: tally.sent,
            not_sent: tally.not_sent,
            sent_bytes: tally.sent_bytes,
            rtcp_sent: tally.rtcp_sent,
            rtcp_not_sent: tally.rtcp_not_sent,
            gbps: ratio((to.1 - from.1) * 8, to.0 - from.0),
            duration_s: tally.last_sent_ns as f64 / 1e9,
            stretch_percent: 100.0 * ratio(late_at_end_ns, tally.last_due_ns),
            lateness_ms_p50: tally.lateness.percentile_ms(50.0),
            lateness_ms_p99: tally.lateness.percentile_ms(99.0),
            lateness_ms_max: tally.lateness.max_ms(),
            cpu_ns_per_packet: ratio(cpu_ns, tally.sent) as u64,
            packets_per_send: ratio(tally.sent, tally.messages),
            gso: self.sender.gso(),
            refused: self.sender.errors.refused,
            send_errors: self.sender.errors.failed.clone(),
            stopped,
            valid: true,
            invalid_because: Vec::new(),
            streams: self.counts,
        }
        .judge()
    }
}

fn add_burst(schedule: &mut Schedule, camera: &Camera, program: &Program) {
    if let Some((due_ns, _)) = camera.next_burst(program) {
        schedule.add(due_ns, Event::Burst(camera.index()));
    }
}

fn add_report(schedule: &mut Schedule, camera: &Camera) {
    if let Some(due_ns) = camera.next_report_ns() {
        schedule.add(due_ns, Event::Report(camera.index()));
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

fn entry(sequence: u64, intended_ns: u64, packet: &[u8]) -> Entry {
    Entry {
        hash: packet_hash(packet),
        sequence,
        flags: Flags::SENT,
        intended_ns,
        len: packet.len() as u16,
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has a CPU clock per thread");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_late_sender_skips_nothing_and_says_how_late_it_was() {
        let sink = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let spec = FleetSpec::new(2, 1.0, 0.6, vec![sink.local_addr().expect("bound")]);
        let program = Program::new(&Clip::builtin(), spec.mbps, spec.pacing, spec.burst_packets);
        let planned: usize = spec
            .cameras(&program)
            .into_iter()
            .map(|camera| packets(camera, &program))
            .sum();
        let control = Control::default();
        let mut fleet = Fleet::new(&spec, &program, &control).expect("loopback");
        fleet.start = Instant::now()
            .checked_sub(Duration::from_millis(500))
            .expect("up for half a second");

        let report = fleet.run().expect("no log, no error");
        assert_eq!((report.sent, report.not_sent), (planned as u64, 0));
        assert!((400.0..5000.0).contains(&report.lateness_ms_max), "{report:?}");
        assert!(report.lateness_ms_p99 > 400.0);
        assert!(
            !report.valid && report.invalid_because[0].contains("late"),
            "{report:?}"
        );
        assert_eq!(control.sent.load(Ordering::Relaxed), report.sent);
    }

    fn packets(mut camera: Camera, program: &Program) -> usize {
        let mut count = 0;
        while let Some((_, burst)) = camera.next_burst(program) {
            count += burst.packets.len();
            camera.advance(program);
        }
        count
    }
}
