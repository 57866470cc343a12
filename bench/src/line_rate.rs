//! `line-rate`: the engine on one core, the cameras on another, and in turn with it a receiver that throws away what it gets.
//!
//! Both receivers get the very same load, one run each in every round; what is said of them are medians over rounds, and the ratio
//! is the median of the rounds' own ratios, so that a slow minute of a shared machine falls on both.
//!
//! What a packet costs is user and system time of every thread of the process, kernel workers included, from the moment it
//! is ready until it is gone, ÷ packets stored (the discard receiver: ÷ packets taken). The busy time of the core from
//! /proc/stat stands beside it: what nobody's account holds (interrupts, the kernel's own threads) shows there.
//!
//! System calls are counted twice: those on the rings by the engine itself, in every run; all of them by the kernel, in a run of its own,
//! because that makes each of them dearer.

mod report;

use anyhow::ensure;
use clap::Args;

use crate::lab::{Engine, EngineOptions, Place, needed_bytes};
use crate::load::{Cameras, Load, LoadOptions};
use crate::output::{Output, progress};
use crate::runs::{LOOK, SETTLE, Site};
use crate::syscalls::{self, Counting};
use report::{Calls, Report, Runs};

/// How long each run sends if nothing else is asked for. With ten runs, the one that counts, and what is around them: four minutes.
const SECONDS: f64 = 20.0;
/// Longest run for counting: shares are settled long before.
const COUNTED_SECONDS: f64 = 5.0;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    pub load: LoadOptions,
    /// Rounds, each with one run of the engine and one of the discard receiver
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub repeats: u32,
    /// Cores of the engine, one shard on each; the fleet has one of its own if there is one left
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub shards: usize,
    #[command(flatten)]
    pub engine: EngineOptions,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub output: Output,
}

/// Measures. False if the figures are not valid.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    ensure!(options.shards > 0, "--shards must be at least 1");
    let load = options.load.load(SECONDS)?;
    let site = Site::open(
        &options.engine,
        &options.place,
        options.shards,
        needed_bytes(&load),
    )?;
    let mut runs = Runs::default();
    for round in 1..=options.repeats {
        let of = options.repeats;
        let run = site.engine_run(&load)?;
        progress(format_args!("round {round}/{of}: engine   {}", run.line()));
        runs.engine.push(run);
        let run = site.discard_run(&load)?;
        progress(format_args!("round {round}/{of}: discard  {}", run.line()));
        runs.discard.push(run);
    }
    runs.calls = counted_run(&site, &load)?;
    let disk = crate::machine::file_system(site.lab.dir());
    site.lab.remove()?;
    let report = Report::new(options, &load, site.machine, site.cpus, disk, runs);
    options.output.write(&report.table(), &report)?;
    Ok(report.valid)
}

/// All system calls of the engine's process, from ready until the last packet is durable.
fn counted_run(site: &Site<'_>, load: &Load) -> anyhow::Result<Calls> {
    if let Some(why) = syscalls::objection() {
        progress(format_args!("system calls are not counted by the kernel: {why}"));
        return Ok(Calls::not_counted(why));
    }
    let load = load.lasting(COUNTED_SECONDS)?;
    site.lab.empty()?;
    let mut engine = Engine::start(&site.lab, site.engine, &site.cpus.engine, &load, &site.stop)?;
    let counting = Counting::start(engine.pid(), site.cpus.fleet, &site.stop)?;
    let cameras = Cameras::start(&load, &[engine.listen], site.cpus.fleet)?;
    while !cameras.has_ended() {
        site.stop.sleep(LOOK)?;
        engine.look_after()?;
    }
    cameras.finish(&site.stop)?;
    site.stop.sleep(SETTLE)?;
    let counted = counting.finish(&site.stop)?;
    let account = engine.stop(&site.stop)?;
    site.lab.empty()?;
    let calls = Calls::of(counted, &account)?;
    progress(format_args!("counting: {}", calls.line()));
    Ok(calls)
}
