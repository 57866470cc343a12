//! `fleet`: how much the load generator can send on one core with every packet at its time, against the same packets as fast as
//! they go.
//!
//! In every round the unpaced loop comes first; its rate is the round's measure. Then the same cameras are paced at shares of it, until
//! one is not valid any more: the load generator's own gate (lateness, stretch, send errors) decides, not a rate that looks right. A discard
//! receiver takes what comes, on the other core; on loopback the kernel's whole way down and up is the sender's.

use std::fmt::Write;

use anyhow::ensure;
use clap::Args;
use harborseal::uring::sys;
use serde::Serialize;

use crate::child::Stop;
use crate::discard::Receiver;
use crate::load::{Cameras, Description, Load, LoadOptions, Sent, objections};
use crate::machine::{Cpus, Machine};
use crate::output::{Output, progress};
use crate::runs::{LOOK, because};
use crate::sample::median;

const SCHEMA: &str = "harborseal-bench/fleet/1";
/// How long each run sends if nothing else is asked for.
const SECONDS: f64 = 4.0;
/// Of the discard receiver, as the engine's default.
const MEMORY_MIB: u64 = 1024;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    load: LoadOptions,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeats: u32,
    /// Shares of the unpaced rate to be paced at, rising
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',', default_values_t = [0.6, 0.75, 0.85, 0.95])]
    shares: Vec<f64>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Debug, Serialize)]
struct Run {
    round: u32,
    /// Of the round's unpaced rate; none: the unpaced loop itself.
    share: Option<f64>,
    packets_per_second: f64,
    /// Packets per second ÷ those of the round's unpaced loop.
    ratio: f64,
    received: u64,
    fleet: Sent,
    invalid_because: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    machine: Machine,
    cpus: Cpus,
    command: Vec<String>,
    load: Description,
    repeats: u32,
    unpaced_packets_per_second: f64,
    /// The largest valid ratio of each round, median over rounds; 0 where a round had none.
    ratio: f64,
    paced_packets_per_second: f64,
    valid: bool,
    runs: Vec<Run>,
}

/// Measures. False if not one paced run of a round in the middle was valid.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    let sound = |share: &f64| *share > 0.0 && *share <= 1.5;
    ensure!(
        options.shares.iter().all(sound),
        "--shares must be above 0 and at most 1.5"
    );
    let load = options.load.load(SECONDS)?;
    let machine = Machine::read()?;
    let cpus = machine.divide(1);
    machine.warn(&cpus);
    let stop = Stop::listen()?;
    sys::pin_to_cpu(cpus.engine[0])?;
    let mut runs = Vec::new();
    for round in 1..=options.repeats {
        let unpaced = one_run(round, None, &load, &cpus, 0.0, &stop)?;
        say(options, &unpaced);
        let rate = unpaced.packets_per_second;
        runs.push(unpaced);
        for &share in &options.shares {
            let paced = load.at_rate(rate * share)?;
            let run = one_run(round, Some(share), &paced, &cpus, rate, &stop)?;
            say(options, &run);
            let valid = run.invalid_because.is_empty();
            runs.push(run);
            if !valid {
                break;
            }
        }
    }
    let report = report(options, machine, cpus, load.describe(), runs);
    options.output.write(&table(&report), &report)?;
    Ok(report.valid)
}

fn one_run(
    round: u32,
    share: Option<f64>,
    load: &Load,
    cpus: &Cpus,
    unpaced_rate: f64,
    stop: &Stop,
) -> anyhow::Result<Run> {
    let receiver = Receiver::start(&cpus.engine, MEMORY_MIB, stop)?;
    let targets = [receiver.listen];
    let cameras = match share {
        None => Cameras::start_unpaced(load, &targets, cpus.fleet)?,
        Some(_) => Cameras::start(load, &targets, cpus.fleet)?,
    };
    while !cameras.has_ended() {
        stop.sleep(LOOK)?;
    }
    let fleet = cameras.finish(stop)?;
    let (taken, _) = receiver.stop(stop)?;
    let packets_per_second = match share {
        // Over all of its time, which is not the schedule's.
        None => fleet.packets as f64 / fleet.seconds.max(1e-9),
        Some(_) => fleet.packets_per_second,
    };
    Ok(Run {
        round,
        share,
        packets_per_second,
        ratio: packets_per_second
            / if share.is_none() {
                packets_per_second
            } else {
                unpaced_rate
            },
        received: taken.packets,
        invalid_because: share.map_or_else(Vec::new, |_| objections(load, &fleet)),
        fleet,
    })
}

fn say(options: &Options, run: &Run) {
    let what = run
        .share
        .map_or("unpaced".to_owned(), |share| format!("paced at {share:.2}"));
    progress(format_args!(
        "round {}/{}: {what:14} {:.3} M packets/s, {:.0} ns/packet{}",
        run.round,
        options.repeats,
        run.packets_per_second / 1e6,
        run.fleet.cpu_ns_per_packet,
        because(&run.invalid_because)
    ));
}

fn report(options: &Options, machine: Machine, cpus: Cpus, load: Description, runs: Vec<Run>) -> Report {
    let best = |round: u32| {
        let valid = runs
            .iter()
            .filter(|run| run.round == round && run.share.is_some() && run.invalid_because.is_empty());
        valid
            .map(|run| (run.ratio, run.packets_per_second))
            .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    };
    let best: Vec<(f64, f64)> = (1..=options.repeats).map(best).collect();
    let unpaced = runs.iter().filter(|run| run.share.is_none());
    let ratio = median(best.iter().map(|(ratio, _)| *ratio).collect());
    Report {
        schema: SCHEMA,
        machine,
        cpus,
        command: std::env::args().collect(),
        load,
        repeats: options.repeats,
        unpaced_packets_per_second: median(unpaced.map(|run| run.packets_per_second).collect()),
        ratio,
        paced_packets_per_second: median(best.iter().map(|(_, rate)| *rate).collect()),
        valid: ratio > 0.0,
        runs,
    }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut line =
        |what: &str, value: String| writeln!(text, "{what:24} {value}").expect("a String takes all");
    let rate = |rate: f64| format!("{:.3} M packets/s", rate / 1e6);
    line("load", format!("{}; {} rounds", report.load, report.repeats));
    line("unpaced loop", rate(report.unpaced_packets_per_second));
    line("paced, still valid", rate(report.paced_packets_per_second));
    line("ratio", format!("{:.2}", report.ratio));
    text
}
