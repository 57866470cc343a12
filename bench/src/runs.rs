//! One run of one receiver under a load, from its start until its files are gone: the engine, or the one that throws away what it gets.
//!
//! Every command that sets the two beside each other makes its runs here, so that they are alike in all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use harborseal::uring::sys;
use serde::Serialize;
use serde_json::Value;

use crate::account::{Core, Cpu};
use crate::cgroup::Group;
use crate::child::Stop;
use crate::discard::{Receiver, Taken};
use crate::lab::{Account, Engine, EngineOptions, Lab, Place};
use crate::load::{Cameras, Load, Sent, objections};
use crate::machine::{Cpus, Machine};

/// How often a running engine is looked after.
pub const LOOK: Duration = Duration::from_millis(100);
/// After the last packet: the chunk deadline (500 ms) and a commit, with room for a busy machine.
pub const SETTLE: Duration = Duration::from_millis(1000);

/// Where runs are made.
pub struct Site<'a> {
    pub engine: &'a EngineOptions,
    pub machine: Machine,
    pub cpus: Cpus,
    pub lab: Lab,
    pub stop: Stop,
    /// The part of its core that either receiver gets; all of it, if none is said.
    pub core_share: Option<f64>,
}

impl<'a> Site<'a> {
    /// Looks at the machine, says what will spoil the figures, makes a folder with room for `needed_bytes`, and moves to the fleet's CPU:
    /// the bench itself only waits, and does so where it does not disturb what is measured.
    pub fn open(
        engine: &'a EngineOptions,
        place: &Place,
        shards: usize,
        needed_bytes: u64,
    ) -> anyhow::Result<Site<'a>> {
        let machine = Machine::read()?;
        let cpus = machine.divide(shards);
        machine.warn(&cpus);
        let stop = Stop::listen()?;
        let lab = Lab::create(place, needed_bytes)?;
        sys::pin_to_cpu(cpus.fleet)?;
        Ok(Site {
            engine,
            machine,
            cpus,
            lab,
            stop,
            core_share: None,
        })
    }

    /// The same site with its cores divided for another number of shards.
    pub fn divide(&mut self, shards: usize) -> anyhow::Result<()> {
        self.cpus = self.machine.divide(shards);
        Ok(sys::pin_to_cpu(self.cpus.fleet)?)
    }

    pub fn engine_run(&self, load: &Load) -> anyhow::Result<EngineRun> {
        self.lab.empty()?;
        let mut engine = Engine::start(&self.lab, self.engine, &self.cpus.engine, load, &self.stop)?;
        let group = self.hold(engine.pid())?;
        let core = self.core()?;
        let cameras = Cameras::start(load, &[engine.listen], self.cpus.fleet)?;
        while !cameras.has_ended() {
            self.stop.sleep(LOOK)?;
            engine.look_after()?;
        }
        let sent = cameras.finish(&self.stop)?;
        self.stop.sleep(SETTLE)?;
        let account = engine.stop(&self.stop)?;
        let core = self.core()?.since(core);
        remove(group)?;
        self.lab.empty()?;
        EngineRun::new(load, sent, account, core)
    }

    pub fn discard_run(&self, load: &Load) -> anyhow::Result<DiscardRun> {
        let receiver = Receiver::start(&self.cpus.engine, self.engine.memory_mib, &self.stop)?;
        let group = self.hold(receiver.pid())?;
        let core = self.core()?;
        let cameras = Cameras::start(load, &[receiver.listen], self.cpus.fleet)?;
        while !cameras.has_ended() {
            self.stop.sleep(LOOK)?;
        }
        let sent = cameras.finish(&self.stop)?;
        let (taken, cpu) = receiver.stop(&self.stop)?;
        let core = self.core()?.since(core);
        remove(group)?;
        Ok(DiscardRun::new(load, sent, taken, cpu, core))
    }

    fn hold(&self, pid: u32) -> anyhow::Result<Option<Group>> {
        let Some(share) = self.core_share else {
            return Ok(None);
        };
        let group = Group::of_cpu(share)?;
        group.take(pid)?;
        Ok(Some(group))
    }

    /// The engine's core; the first of them, if there are several.
    fn core(&self) -> anyhow::Result<Core> {
        Core::read(self.cpus.engine[0])
    }
}

/// What is said of the part of a core that receivers had.
pub fn share_text(core_share: Option<f64>) -> String {
    core_share.map_or("all of it".to_owned(), |share| {
        format!("{share:.2} of it, by a control group")
    })
}

fn remove(group: Option<Group>) -> anyhow::Result<()> {
    group.map_or(Ok(()), Group::remove)
}

/// One run of the engine. Packets are RTP and RTCP.
#[derive(Clone, Debug, Serialize)]
pub struct EngineRun {
    pub sent: u64,
    pub received: u64,
    pub stored: u64,
    pub dropped: u64,
    pub dropped_by: BTreeMap<String, u64>,
    /// Sent less received: lost in the kernel or wherever else nobody says. Negative would be packets from nowhere.
    pub lost_unexplained: i64,
    /// The kernel's own counter, for comparison: it counts batches, not packets.
    pub kernel_drop_batches: u64,
    /// Sent less stored: lost anywhere after the sender.
    pub lost_after_sender: i64,
    /// Stored, while all cameras were on.
    pub gbps: f64,
    pub cpu_ns_per_packet: f64,
    /// Of it, until everything was durable; the rest is closing segments and giving memory back.
    pub cpu_ns_per_packet_recording: f64,
    pub cpu: Cpu,
    /// By thread, when everything was durable.
    pub cpu_ns_by_thread: BTreeMap<String, u64>,
    pub core: Core,
    pub core_busy_percent: f64,
    pub durable_ms_p50: Option<f64>,
    pub durable_ms_p99: Option<f64>,
    pub rss_mib: f64,
    /// System calls on the shards' rings, by the engine's own count, for 1,000 packets stored.
    pub ring_enters_per_1000_packets: f64,
    pub segments: u64,
    pub written_bytes: u64,
    /// Kernel workers that were found on another CPU and moved.
    pub threads_moved: u64,
    pub fleet: Sent,
    pub valid: bool,
    pub invalid_because: Vec<String>,
}

impl EngineRun {
    pub fn new(load: &Load, fleet: Sent, account: Account, core: Core) -> anyhow::Result<EngineRun> {
        let ledger = &account.ledger;
        let number = |key: &str| account.number(key);
        let dropped_by = by_reason(&ledger["dropped"]);
        let (sent, received, stored) = (fleet.packets, number("received")?, number("stored")?);
        let dropped = dropped_by.values().sum();
        let mut invalid_because = objections(load, &fleet);
        if received != stored + dropped {
            invalid_because.push(format!(
                "the engine's ledger does not balance: {received} received, {stored} stored, {dropped} dropped"
            ));
        }
        if stored == 0 {
            invalid_because.push("nothing was stored".to_owned());
        }
        invalid_because.extend(too_short(account.cpu));
        let per_packet = |cpu: Cpu| cpu.total_ns as f64 / stored.max(1) as f64;
        Ok(EngineRun {
            sent,
            received,
            stored,
            dropped,
            dropped_by,
            lost_unexplained: sent as i64 - received as i64,
            lost_after_sender: sent as i64 - stored as i64,
            kernel_drop_batches: number("kernel_drop_batches")?,
            gbps: fleet.gbps * stored as f64 / sent.max(1) as f64,
            cpu_ns_per_packet: per_packet(account.cpu),
            cpu_ns_per_packet_recording: per_packet(account.cpu_recording),
            cpu: account.cpu,
            cpu_ns_by_thread: account.threads.clone(),
            core,
            core_busy_percent: core.busy_percent(),
            durable_ms_p50: ledger["durable_ms_p50"].as_f64(),
            durable_ms_p99: ledger["durable_ms_p99"].as_f64(),
            rss_mib: account.memory_bytes as f64 / f64::from(1 << 20),
            ring_enters_per_1000_packets: number("ring_enters")? as f64 * 1000.0 / stored.max(1) as f64,
            segments: number("segments")?,
            written_bytes: number("written_bytes")?,
            threads_moved: account.repinned,
            valid: invalid_because.is_empty(),
            invalid_because,
            fleet,
        })
    }

    pub fn line(&self) -> String {
        format!(
            "{:6.0} ns/packet, {:.2} Gb/s stored, {} of {} lost ({} dropped, {} unexplained), core {:.0} % busy{}",
            self.cpu_ns_per_packet,
            self.gbps,
            self.lost_after_sender,
            self.sent,
            self.dropped,
            self.lost_unexplained,
            self.core_busy_percent,
            because(&self.invalid_because),
        )
    }
}

/// Packets dropped, by the reasons that occurred.
pub fn by_reason(dropped: &Value) -> BTreeMap<String, u64> {
    let reasons = dropped.as_object().into_iter().flatten();
    let counted = reasons.filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?)));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// One run of the discard receiver.
#[derive(Clone, Debug, Serialize)]
pub struct DiscardRun {
    pub sent: u64,
    pub received: u64,
    pub lost_unexplained: i64,
    pub cpu_ns_per_packet: f64,
    pub cpu: Cpu,
    pub core: Core,
    pub core_busy_percent: f64,
    pub packets_per_datagram: f64,
    pub ring_enters_per_1000_packets: f64,
    pub taken: Taken,
    pub fleet: Sent,
    pub valid: bool,
    pub invalid_because: Vec<String>,
}

impl DiscardRun {
    pub fn new(load: &Load, fleet: Sent, taken: Taken, cpu: Cpu, core: Core) -> DiscardRun {
        let mut invalid_because = objections(load, &fleet);
        if taken.packets == 0 {
            invalid_because.push("nothing was received".to_owned());
        }
        invalid_because.extend(too_short(cpu));
        DiscardRun {
            sent: fleet.packets,
            received: taken.packets,
            lost_unexplained: fleet.packets as i64 - taken.packets as i64,
            cpu_ns_per_packet: cpu.total_ns as f64 / taken.packets.max(1) as f64,
            cpu,
            core,
            core_busy_percent: core.busy_percent(),
            packets_per_datagram: taken.packets as f64 / taken.datagrams.max(1) as f64,
            ring_enters_per_1000_packets: taken.ring_enters as f64 * 1000.0 / taken.packets.max(1) as f64,
            taken,
            valid: invalid_because.is_empty(),
            invalid_because,
            fleet,
        }
    }

    pub fn line(&self) -> String {
        format!(
            "{:6.0} ns/packet, {} of {} lost, {:.1} packets per datagram, core {:.0} % busy{}",
            self.cpu_ns_per_packet,
            self.lost_unexplained,
            self.sent,
            self.packets_per_datagram,
            self.core_busy_percent,
            because(&self.invalid_because),
        )
    }
}

/// A run that says more of starting and ending than of packets.
fn too_short(cpu: Cpu) -> Option<String> {
    const LEAST_NS: u64 = 20_000_000;
    let ms = cpu.total_ns / 1_000_000;
    (cpu.total_ns < LEAST_NS).then(|| format!("too short: {ms} ms of CPU time in all"))
}

/// What is added to a line of progress about a run that is not valid.
pub fn because(reasons: &[String]) -> String {
    match reasons {
        [] => String::new(),
        reasons => format!("  INVALID: {}", reasons.join("; ")),
    }
}
