//! `stages`: where the time of a packet goes, by switching stages off.
//!
//! Receivers that do one stage more each get the same cameras on the same core, in turn: one takes packets from the kernel and throws
//! them away, the next parses and admits them too, and so on up to the engine itself. All stages are the engine's own functions in
//! its own memory. What a stage costs is the difference to the receiver before, so the stages add up to the whole by construction;
//! a stage that makes the next one cheaper (by warming the cache, say) is charged accordingly.
//!
//! Beside the stages, in a run of its own in every round: how fast full chunks are sealed where the engine seals them, beside the library alone
//! ([`sealing`]).
//!
//! Needs neither root nor a profiler. The price: what is inside a stage is not told. `perf record -g -p PID` tells that, as root.

mod sealing;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use harborseal::engine::memory::Plan;
use harborseal::log::Now;
use harborseal::shard::{DRAIN_LIMIT, MIN_WAIT_US, PUBLISH_NS};
use harborseal::uring::{Datagram, Event, Flow, Ring, RingOptions, SocketOptions, Waker, bind_group, sys};
use harborseal_bench::parts::{Admission, NullDisk, Packing, SealRates, Sealing, registry};
use harborseal_segment::cipher::Backend;
use serde::Serialize;

use crate::account::Cpu;
use crate::discard::{Receiver, Taken};
use crate::lab::{EngineOptions, Place, needed_bytes};
use crate::load::{Cameras, Description, Load, LoadOptions, Sent, objections};
use crate::machine::{Cpus, Machine};
use crate::output::{Output, progress};
use crate::runs::{EngineRun, LOOK, Site, because};
use crate::sample::{median, spread_percent};
use sealing::Sealed;

/// How long each run sends if nothing else is asked for. With 35 runs and what is around them: under five minutes.
const SECONDS: f64 = 4.0;
const SCHEMA: &str = "harborseal-bench/stages/1";

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    load: LoadOptions,
    /// Rounds, each with one run up to every stage
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeats: u32,
    #[command(flatten)]
    engine: EngineOptions,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// How far a receiver takes a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Upto {
    Receive,
    Admit,
    Pack,
    Seal,
    Place,
    /// The engine itself.
    Write,
}

impl Upto {
    const ALL: [Upto; 6] = [
        Upto::Receive,
        Upto::Admit,
        Upto::Pack,
        Upto::Seal,
        Upto::Place,
        Upto::Write,
    ];

    fn argument(self) -> String {
        let value = self
            .to_possible_value()
            .expect("no stage is hidden from the command line");
        value.get_name().to_owned()
    }

    /// What it does more than the one before.
    fn stage(self) -> &'static str {
        match self {
            Upto::Receive => "kernel receive, into the ring's buffers",
            Upto::Admit => "parse, admit, account",
            Upto::Pack => "pack into chunks",
            Upto::Seal => "seal: AES-256-GCM, checksum, index row",
            Upto::Place => "place, gather, commit, settle",
            Upto::Write => "write, fdatasync, other threads",
        }
    }
}

/// The hidden command: a receiver up to a stage, in a process of its own.
#[derive(Args, Debug)]
pub struct Child {
    #[arg(long, value_enum)]
    upto: Upto,
    #[arg(long)]
    memory_mib: u64,
    /// Time some of the chunks that are sealed
    #[arg(long)]
    time_sealing: bool,
    #[command(flatten)]
    load: LoadOptions,
}

/// The parts that a receiver is made of.
#[allow(clippy::large_enum_variant)] // there is one of it in a process
enum Path {
    Nothing,
    Admit(Admission),
    Pack(Admission, Packing),
    Place(NullDisk),
}

impl Path {
    fn new(options: &Child, plan: Plan) -> anyhow::Result<Path> {
        let plan_of_load = options
            .load
            .load(SECONDS)?
            .plan(vec![([127, 0, 0, 1], 1).into()])?;
        let ssrcs: Vec<u32> = plan_of_load.streams.iter().map(|stream| stream.ssrc).collect();
        let streams = ssrcs.len() as u32;
        let backend = Backend::fastest(sys::monotonic_ns);
        let admission = || Admission::new(registry(&ssrcs));
        let packing = |sealing| Packing::new(streams, plan.pool_bytes, true, sealing);
        Ok(match options.upto {
            Upto::Receive => Path::Nothing,
            Upto::Admit => Path::Admit(admission()),
            Upto::Pack => Path::Pack(admission(), packing(None)?),
            Upto::Seal => {
                let sealing = Sealing::new(streams, backend);
                let sealing = match options.time_sealing {
                    true => sealing.timed(backend),
                    false => sealing,
                };
                Path::Pack(admission(), packing(Some(sealing))?)
            }
            Upto::Place | Upto::Write => {
                Path::Place(NullDisk::new(registry(&ssrcs), plan.pool_bytes, true, backend)?)
            }
        })
    }

    #[inline]
    fn take(&mut self, datagram: &Datagram<'_>, now: Now) {
        match self {
            Path::Nothing => {}
            Path::Admit(admission) => {
                for packet in datagram.packets() {
                    admission.take(packet, datagram.from, datagram.arrival_ns);
                }
            }
            Path::Pack(admission, packing) => {
                for packet in datagram.packets() {
                    if let Some(admitted) = admission.take(packet, datagram.from, datagram.arrival_ns) {
                        packing.pack(admitted, packet, datagram.arrival_ns);
                    }
                }
            }
            Path::Place(shard) => shard.receive(datagram, now),
        }
    }

    /// What the shard does after each batch; how long it may sleep then.
    fn advance(&mut self) -> u64 {
        let Path::Place(shard) = self else {
            return PUBLISH_NS / 1000;
        };
        let now = now();
        shard.advance(now);
        let due_ns = shard.next_deadline_ns().unwrap_or(u64::MAX);
        due_ns.saturating_sub(now.mono_ns).min(PUBLISH_NS) / 1000
    }

    fn seal_rates(&mut self) -> Option<SealRates> {
        match self {
            Path::Pack(_, packing) => packing.seal_rates(),
            _ => None,
        }
    }

    /// Packets that were taken from the kernel and went no further.
    fn refused(&mut self) -> u64 {
        match self {
            Path::Nothing => 0,
            Path::Admit(admission) | Path::Pack(admission, _) => admission.refused,
            Path::Place(shard) => shard.counts(now()).2,
        }
    }
}

fn now() -> Now {
    Now {
        mono_ns: sys::monotonic_ns(),
        real_ns: sys::realtime_ns(),
    }
}

pub fn run_child(options: &Child) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    let plan = Plan::new(options.memory_mib << 20, 1);
    let mut path = Path::new(options, plan)?;
    let group = bind_group(([127, 0, 0, 1], 0).into(), 1, &SocketOptions::default())?;
    let ring_options = RingOptions {
        receive_bytes: plan.receive_bytes,
        ..RingOptions::default()
    };
    let mut ring = Ring::new(&ring_options, &Waker::new()?).context("making a ring")?;
    for socket in group.sockets {
        ring.add_socket(socket);
    }
    ring.resume();
    ring.submit()?;
    println!("{}", serde_json::json!({ "listen": group.local }));
    let mut taken = Taken::default();
    let mut timeout_us = path.advance();
    while !stop.load(Ordering::Relaxed) {
        ring.wait(MIN_WAIT_US.min(timeout_us as u32), timeout_us)?;
        taken.wakeups += 1;
        let now = now();
        ring.drain(DRAIN_LIMIT, |event| {
            if let Event::Datagram(datagram) = event {
                taken.datagrams += 1;
                taken.packets += datagram.packets().count() as u64;
                taken.bytes += datagram.data.len() as u64;
                path.take(&datagram, now);
            }
            Flow::Continue
        })?;
        timeout_us = path.advance();
    }
    taken.kernel_drop_batches = ring.kernel_drops(0);
    taken.ring_enters = ring.counters().enters;
    taken.sealing = path.seal_rates();
    let refused = path.refused();
    ensure!(
        refused == 0,
        "{refused} packets went no further than to be refused"
    );
    println!("{}", serde_json::to_string(&taken)?);
    Ok(())
}

/// One run of one receiver.
#[derive(Clone, Debug, Serialize)]
struct Run {
    upto: Upto,
    sent: u64,
    packets: u64,
    cpu_ns_per_packet: f64,
    /// Of the engine: by thread.
    cpu_ns_by_thread: BTreeMap<String, u64>,
    fleet: Sent,
    invalid_because: Vec<String>,
}

/// One stage. Figures are medians over the rounds.
#[derive(Debug, Serialize)]
struct Stage {
    name: &'static str,
    /// A receiver that does this and everything before.
    upto: Upto,
    cpu_ns_per_packet_so_far: f64,
    spread_percent: f64,
    /// The difference to the receiver before.
    cpu_ns_per_packet: f64,
    share_percent: f64,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    machine: Machine,
    cpus: Cpus,
    command: Vec<String>,
    load: Description,
    repeats: u32,
    stages: Vec<Stage>,
    /// The sum of all stages: the engine.
    total_cpu_ns_per_packet: f64,
    sealing: Sealed,
    valid: bool,
    invalid_because: Vec<String>,
    runs: Vec<Run>,
}

/// Measures. False if the figures are not valid.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    let load = options.load.load(SECONDS)?;
    let site = Site::open(&options.engine, &options.place, 1, needed_bytes(&load))?;
    let (mut runs, mut sealed) = (Vec::new(), Vec::new());
    for round in 1..=options.repeats {
        for upto in Upto::ALL {
            let run = match upto {
                Upto::Write => Run::of_engine(site.engine_run(&load)?),
                upto => Run::of_part(upto, &load, receiver_run(&site, &load, upto, &[])?),
            };
            progress(format_args!(
                "round {round}/{}: up to {:40} {:6.0} ns/packet{}",
                options.repeats,
                upto.stage(),
                run.cpu_ns_per_packet,
                because(&run.invalid_because)
            ));
            runs.push(run);
        }
        let run = sealing::run(&site, &load)?;
        progress(format_args!("round {round}/{}: {}", options.repeats, run.line()));
        sealed.push(run);
    }
    site.lab.remove()?;
    let report = report(options, site.machine, site.cpus, load.describe(), runs, sealed);
    options.output.write(&table(&report), &report)?;
    Ok(report.valid)
}

/// A receiver up to a stage, under the load: what the cameras sent, its CPU time until they had ended, what it took.
fn receiver_run(
    site: &Site<'_>,
    load: &Load,
    upto: Upto,
    more: &[&str],
) -> anyhow::Result<(Sent, Cpu, Taken)> {
    let mut arguments = vec![
        "stage".to_owned(),
        format!("--upto={}", upto.argument()),
        format!("--memory-mib={}", site.engine.memory_mib),
    ];
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    arguments.extend(load.arguments());
    let receiver = Receiver::of("receiver", &site.cpus.engine, arguments, &site.stop)?;
    let cameras = Cameras::start(load, &[receiver.listen], site.cpus.fleet)?;
    while !cameras.has_ended() {
        site.stop.sleep(LOOK)?;
    }
    let fleet = cameras.finish(&site.stop)?;
    let cpu = receiver.cpu_so_far()?;
    let (taken, _) = receiver.stop(&site.stop)?;
    Ok((fleet, cpu, taken))
}

impl Run {
    fn of_part(upto: Upto, load: &Load, (fleet, cpu, taken): (Sent, Cpu, Taken)) -> Run {
        let mut invalid_because = objections(load, &fleet);
        if taken.packets == 0 {
            invalid_because.push("no packet got through".to_owned());
        }
        Run {
            upto,
            sent: fleet.packets,
            packets: taken.packets,
            cpu_ns_per_packet: cpu.total_ns as f64 / taken.packets.max(1) as f64,
            cpu_ns_by_thread: BTreeMap::new(),
            fleet,
            invalid_because,
        }
    }

    /// Until everything was durable, as the parts' time ends with the load.
    fn of_engine(run: EngineRun) -> Run {
        Run {
            upto: Upto::Write,
            sent: run.sent,
            packets: run.stored,
            cpu_ns_per_packet: run.cpu_ns_per_packet_recording,
            cpu_ns_by_thread: run.cpu_ns_by_thread,
            fleet: run.fleet,
            invalid_because: run.invalid_because,
        }
    }
}

/// Differences of medians. Runs that are not valid count only where there is no valid one.
fn stages(runs: &[Run]) -> Vec<Stage> {
    let costs = |upto| -> Vec<f64> {
        let of_it = || runs.iter().filter(move |run| run.upto == upto);
        let valid: Vec<f64> = of_it()
            .filter(|run| run.invalid_because.is_empty())
            .map(|run| run.cpu_ns_per_packet)
            .collect();
        if valid.is_empty() {
            of_it().map(|run| run.cpu_ns_per_packet).collect()
        } else {
            valid
        }
    };
    let total = median(costs(Upto::Write));
    let mut before = 0.0;
    let stage = |upto: Upto| {
        let costs = costs(upto);
        let so_far = median(costs.clone());
        let alone = so_far - std::mem::replace(&mut before, so_far);
        Stage {
            name: upto.stage(),
            upto,
            cpu_ns_per_packet_so_far: so_far,
            spread_percent: spread_percent(&costs),
            cpu_ns_per_packet: alone,
            share_percent: if total > 0.0 { alone * 100.0 / total } else { 0.0 },
        }
    };
    Upto::ALL.into_iter().map(stage).collect()
}

fn report(
    options: &Options,
    machine: Machine,
    cpus: Cpus,
    load: Description,
    runs: Vec<Run>,
    sealed: Vec<sealing::Run>,
) -> Report {
    let stages = stages(&runs);
    let mut invalid_because = Vec::new();
    for upto in Upto::ALL {
        let of_it = runs.iter().filter(|run| run.upto == upto);
        let good = of_it.clone().filter(|run| run.invalid_because.is_empty()).count();
        if good * 2 <= options.repeats as usize {
            let reasons = of_it.flat_map(|run| run.invalid_because.first());
            let reason = reasons.last().cloned().unwrap_or_default();
            invalid_because.push(format!(
                "up to {}: {good} of {} runs are valid; {reason}",
                upto.stage(),
                options.repeats
            ));
        }
    }
    Report {
        schema: SCHEMA,
        machine,
        cpus,
        command: std::env::args().collect(),
        load,
        repeats: options.repeats,
        total_cpu_ns_per_packet: stages.last().map_or(0.0, |stage| stage.cpu_ns_per_packet_so_far),
        stages,
        sealing: Sealed::of(sealed),
        valid: invalid_because.is_empty(),
        invalid_because,
        runs,
    }
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "{:42} {:>11} {:>7} {:>12} {:>8}\n",
        "stage", "ns CPU/pkt", "share", "up to here", "spread"
    );
    for stage in &report.stages {
        writeln!(
            text,
            "{:42} {:>11.0} {:>6.0}% {:>12.0} {:>7.0}%",
            stage.name,
            stage.cpu_ns_per_packet,
            stage.share_percent,
            stage.cpu_ns_per_packet_so_far,
            stage.spread_percent
        )
        .expect("a String takes all");
    }
    let engine = format!(
        "{:42} {:>11.0} {:>6}%\n",
        "the engine", report.total_cpu_ns_per_packet, 100
    );
    let valid = match report.valid {
        true => "valid: yes\n".to_owned(),
        false => format!("valid: NO: {}\n", report.invalid_because.join("; ")),
    };
    text + &engine + &report.sealing.line() + &valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_to_the_engine() {
        let run = |upto, cpu_ns_per_packet, valid: bool| Run {
            upto,
            sent: 1,
            packets: 1,
            cpu_ns_per_packet,
            cpu_ns_by_thread: BTreeMap::new(),
            fleet: Sent::default(),
            invalid_because: if valid { vec![] } else { vec!["late".to_owned()] },
        };
        let mut runs: Vec<Run> = Upto::ALL
            .iter()
            .zip([100.0, 130.0, 200.0, 190.0, 300.0, 450.0])
            .map(|(&upto, cost)| run(upto, cost, true))
            .collect();
        runs.push(run(Upto::Receive, 9000.0, false));
        let stages = stages(&runs);
        let alone: Vec<f64> = stages.iter().map(|stage| stage.cpu_ns_per_packet).collect();
        assert_eq!(alone, [100.0, 30.0, 70.0, -10.0, 110.0, 150.0]);
        assert!((stages.iter().map(|stage| stage.share_percent).sum::<f64>() - 100.0).abs() < 1e-9);
    }
}
