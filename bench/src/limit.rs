//! `limit`: the highest rate that the engine takes without losing a packet, ÷ that of the receiver that throws away what it gets.
//!
//! The search is the load generator's own (`harborseal-loadgen ndr`, RFC 2544 §26.1): short trials find about where the limit is, final ones
//! decide; a trial in which the generator came late is made once more and never counts against the receiver. In every round both are searched, one
//! after the other; the rates are medians over rounds, the ratio is that of the rounds' own ratios.
//!
//! Where the generator was the limit of one of them, what is known of the ratio is a bound, and it is called that: a rate that could
//! not be sent is nobody's limit. Then `--core-share` gives both receivers a part of their core, in root's control group, so that the limit is theirs.

mod report;

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use harborseal_loadgen::ndr::dimension::Dim;
use harborseal_loadgen::ndr::hunt::{Attempt, Measured, Tried};
use harborseal_loadgen::ndr::search::{Search, Settings};
use harborseal_loadgen::ndr::{hunt, outcome, range};
use serde::Serialize;

use crate::lab::{EngineOptions, Place, needed_bytes};
use crate::load::{Load, LoadOptions, Sent};
use crate::output::{Output, progress};
use crate::runs::Site;
use report::Report;
pub use report::{Limit, Rate};

/// Lengths of trials if nothing else is asked for.
const SHORT_SECONDS: f64 = 1.5;
const FINAL_SECONDS: f64 = 4.0;
/// Where the first search begins, in packets per second: for either shape what one core takes on most machines.
pub const START_GSO: f64 = 1_200_000.0;
pub const START_SINGLE: f64 = 150_000.0;
/// What throws bursts away takes several times what stores them; of single packets both take about as many.
const DISCARD_TIMES: f64 = 3.0;
/// A search that needs more has met a limit that moves.
const TRIALS_MOST: usize = 16;
/// Of the first search's result, for the ranges of the rounds after it.
const NEAR: f64 = 3.0;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    load: LoadOptions,
    /// How packets arrive: in bursts that the kernel joins, or one by one
    #[arg(long, value_enum, default_value_t = Shape::Gso)]
    shape: Shape,
    /// Rounds, each with a search for either receiver
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeats: u32,
    /// How near the ends of a bracket must be, as a share of the upper one
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    precision: f64,
    /// Length of a final trial; short ones take 1.5 s at most
    #[arg(long = "final", value_name = "S", default_value_t = FINAL_SECONDS)]
    final_s: f64,
    /// Seconds for all of it; a search that has used its part ends with what it has
    #[arg(long, value_name = "S", default_value_t = 270.0)]
    budget: f64,
    /// Give both receivers this part of their core only (root), where the generator is the limit otherwise
    #[arg(long, value_name = "SHARE")]
    core_share: Option<f64>,
    #[command(flatten)]
    engine: EngineOptions,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Shape {
    /// Bursts by UDP_SEGMENT, which GRO joins again
    Gso,
    /// Single datagrams: nothing to join
    Single,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    Engine,
    Discard,
}

/// Measures. False if the ratio is not known.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    ensure!(
        options.precision > 0.0 && options.precision < 1.0,
        "--precision must be above 0 and below 1"
    );
    ensure!(
        options.final_s >= SHORT_SECONDS,
        "--final must be at least {SHORT_SECONDS}"
    );
    let mut wanted = options.load.clone();
    wanted.no_gso |= options.shape == Shape::Single;
    let load = wanted.load(options.final_s)?;
    let site = Site {
        core_share: options.core_share,
        ..Site::open(&options.engine, &options.place, 1, needed_bytes(&load))?
    };
    let start = match options.shape {
        Shape::Gso => START_GSO,
        Shape::Single => START_SINGLE,
    };
    let searches = Searches {
        load: &load,
        site: &site,
        precision: options.precision,
        final_s: options.final_s,
        start,
        until: Instant::now() + Duration::from_secs_f64(options.budget),
    };
    let (mut engine, mut discard): (Vec<Limit>, Vec<Limit>) = (Vec::new(), Vec::new());
    for round in 1..=options.repeats {
        let left = 2 * (options.repeats - round) + 2;
        let found = searches.one(Who::Discard, round, left, discard.first())?;
        discard.push(found);
        let found = searches.one(Who::Engine, round, left - 1, engine.first())?;
        engine.push(found);
    }
    site.lab.remove()?;
    let report = Report::new(options, site.machine, site.cpus, load.describe(), engine, discard);
    options.output.write(&report.table(), &report)?;
    Ok(report.valid)
}

/// Searches at one site.
pub struct Searches<'a> {
    pub load: &'a Load,
    pub site: &'a Site<'a>,
    pub precision: f64,
    pub final_s: f64,
    /// Where the first one begins, in packets per second with all of the core.
    pub start: f64,
    /// When the last one ends.
    pub until: Instant,
}

impl Searches<'_> {
    /// One search of one receiver. `left` searches share the time that is left; `before` says where to look.
    pub fn one(&self, who: Who, round: u32, left: u32, before: Option<&Limit>) -> anyhow::Result<Limit> {
        let all = self.until.saturating_duration_since(Instant::now());
        let until = Instant::now() + all / left.max(1);
        let mut search = Search::new(self.settings(who, before)?);
        let short_s = SHORT_SECONDS.min(self.final_s);
        let goals = search.settings().goals.clone();
        let attempt = |trial: &harborseal_loadgen::ndr::Trial| match Instant::now() < until {
            true => self.attempt(who, Dim::Pps.value(trial.load), trial.seconds),
            false => Ok(Attempt::Stopped),
        };
        let seen = |tried: &Tried| {
            progress(format_args!(
                "round {round}: {who:?}: {}",
                outcome::line(Dim::Pps, &goals, tried)
            ));
        };
        let (tried, ended) = hunt(&mut search, (short_s, self.final_s), attempt, seen);
        ended?;
        let found = outcome::found(Dim::Pps, &search, &tried).remove(0);
        progress(format_args!("round {round}: {who:?}: {}", found.text));
        Ok(Limit::new(found, &tried))
    }

    fn settings(&self, who: Who, before: Option<&Limit>) -> anyhow::Result<Settings> {
        let times = match who {
            Who::Discard if !self.load.is_single() => DISCARD_TIMES,
            _ => 1.0,
        };
        let start = self.start * times * self.site.core_share.unwrap_or(1.0);
        let (start, near) = match before.and_then(Limit::load) {
            Some(found) => (found, NEAR),
            None => (start, 100.0),
        };
        let profile = &self.load.at_rate(start)?.profile;
        let whole = range::of(profile, Dim::Pps, None, None)?;
        let bounds = (Dim::Pps.load(start / near), Dim::Pps.load(start * near));
        Ok(Settings {
            goals: vec![0.0],
            precision: self.precision,
            repeat: 1,
            min: bounds.0.max(whole.min),
            max: bounds.1.min(whole.max),
            start: Dim::Pps.load(start),
            trials_max: TRIALS_MOST,
        })
    }

    fn attempt(&self, who: Who, packets_per_second: f64, seconds: f64) -> anyhow::Result<Attempt> {
        let load = self.load.at_rate(packets_per_second)?.lasting(seconds)?;
        let (fleet, lost, cpu_ns_per_packet, own): (Sent, i64, f64, Vec<String>) = match who {
            Who::Engine => {
                self.site.lab.make_sure_of(needed_bytes(&load))?;
                let run = self.site.engine_run(&load)?;
                (
                    run.fleet,
                    run.lost_after_sender,
                    run.cpu_ns_per_packet,
                    run.invalid_because,
                )
            }
            Who::Discard => {
                let run = self.site.discard_run(&load)?;
                (
                    run.fleet,
                    run.lost_unexplained,
                    run.cpu_ns_per_packet,
                    run.invalid_because,
                )
            }
        };
        let measured = Measured {
            gbps: fleet.gbps,
            packets_per_second: fleet.packets_per_second,
            streams: load.streams(),
            cpu_ns_per_packet: Some(cpu_ns_per_packet),
            ..Measured::default()
        };
        let measured = measured.with_loss(fleet.packets, lost.max(0).unsigned_abs());
        Ok(match own.is_empty() {
            true => Attempt::Valid(measured),
            false => Attempt::Invalid(measured, own),
        })
    }
}
