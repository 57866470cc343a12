//! `peers`: the same cameras into what a user could pick instead, one at a time and in the same run as Harborseal.
//!
//! Every receiver runs with all its processes on the engine's core, the cameras send from the other. CPU and memory are those of
//! the time in which all cameras send, without start and end. Then the number of streams grows until something is lost, at most
//! to a bound; the bracket is halved once. What is lost is what its own account or the kernel's says.

mod harborseal;
mod sockets;
mod tools;

use std::fmt::Write;
use std::time::Duration;

use ::harborseal::uring::sys;
use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use crate::child::Stop;
use crate::lab::{EngineOptions, Lab, Place, needed_bytes};
use crate::load::{Cameras, Description, Load, LoadOptions, objections};
use crate::machine::{Cpus, Machine};
use crate::output::{Output, progress};
use crate::runs::{LOOK, because};
use tools::Tool;

const SCHEMA: &str = "harborseal-bench/peers/1";
/// How long each run sends if nothing else is asked for.
const SECONDS: f64 = 5.0;
/// Rate of a camera if nothing else is asked for.
const MBPS: f64 = 2.0;
/// After the first packet until all cameras are on and the receiver has settled.
const SETTLED: Duration = Duration::from_millis(1500);

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    load: LoadOptions,
    /// Only these receivers
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    only: Vec<Tool>,
    /// No receiver is tried with more streams than this
    #[arg(long, value_name = "N", default_value_t = 4096)]
    most: u32,
    /// Measure with the first number of streams only, without a search for the first loss
    #[arg(long)]
    no_search: bool,
    /// Do not install what is missing, leave it out
    #[arg(long)]
    no_install: bool,
    #[command(flatten)]
    engine: EngineOptions,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// What one run of one receiver showed.
#[derive(Clone, Debug, Serialize)]
struct Run {
    streams: u64,
    sent: u64,
    /// Known to be lost.
    lost: u64,
    /// By what account.
    lost_by: &'static str,
    cpu_ms_per_stream_second: f64,
    mib_per_stream: f64,
    invalid_because: Vec<String>,
}

/// One receiver.
#[derive(Clone, Debug, Serialize)]
struct Peer {
    name: &'static str,
    version: String,
    command: Vec<String>,
    does_not: Vec<&'static str>,
    /// At the first number of streams, the same for all.
    cpu_ms_per_stream_second: f64,
    mib_per_stream: f64,
    /// At the most streams of which none lost anything: each at its best.
    cpu_ms_per_stream_second_at_most: f64,
    mib_per_stream_at_most: f64,
    /// CPU time ÷ Harborseal's: at the same number of streams, and each at its best.
    times_harborseal: Option<f64>,
    times_harborseal_at_most: Option<f64>,
    /// With so many, nothing was lost.
    streams_without_loss: u64,
    /// With so many something was; none: not found up to the bound, or the cameras were the limit.
    streams_with_loss: Option<u64>,
    runs: Vec<Run>,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    machine: Machine,
    cpus: Cpus,
    command: Vec<String>,
    load: Description,
    peers: Vec<Peer>,
    left_out: Vec<String>,
    valid: bool,
}

/// A receiver that runs.
trait Receiving {
    /// What it cost so far.
    fn cpu_ns(&mut self) -> anyhow::Result<u64>;
    fn memory_bytes(&mut self) -> anyhow::Result<u64>;
    /// Stops it; packets it is known to have lost of those sent.
    fn stop(self: Box<Self>, sent: u64) -> anyhow::Result<u64>;
    /// Keeps it where it belongs; an error if it has ended by itself.
    fn look_after(&mut self) -> anyhow::Result<()>;
}

/// Measures. False if Harborseal or a peer had not one valid run.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    ensure!(options.most > 0, "--most must be at least 1");
    let wanted: Vec<Tool> = match options.only.as_slice() {
        [] => Tool::ALL.to_vec(),
        only => only.to_vec(),
    };
    let machine = Machine::read()?;
    let cpus = machine.divide(1);
    machine.warn(&cpus);
    let (present, left_out) = tools::provide(&wanted, !options.no_install)?;
    let stop = Stop::listen()?;
    // The bench itself only waits; it does so where it does not disturb what is measured.
    sys::pin_to_cpu(cpus.fleet)?;
    let mut peers = Vec::new();
    let mut wanted_load = options.load.clone();
    // Real pictures, or there is nothing to take apart and put together again.
    wanted_load.profile.get_or_insert_with(|| "clip".to_owned());
    wanted_load.mbps.get_or_insert(MBPS);
    let first = *wanted_load.streams.get_or_insert(tools::FIRST_STREAMS);
    let load = wanted_load.load(SECONDS)?;
    for tool in present {
        let bench = Bench {
            options,
            tool,
            cpus: &cpus,
            stop: &stop,
        };
        peers.push(bench.measure(&load, first)?);
    }
    relate(&mut peers);
    let valid = peers
        .iter()
        .all(|peer| peer.runs.iter().any(|run| run.invalid_because.is_empty()));
    let report = Report {
        schema: SCHEMA,
        machine,
        cpus,
        command: std::env::args().collect(),
        load: load.describe(),
        peers,
        left_out,
        valid,
    };
    options.output.write(&table(&report), &report)?;
    Ok(report.valid)
}

/// Each peer's cost as a multiple of Harborseal's in the same run.
fn relate(peers: &mut [Peer]) {
    let Some(ours) = peers
        .iter()
        .find(|peer| peer.name == Tool::Harborseal.name())
        .cloned()
    else {
        return;
    };
    let times = |theirs: f64, ours: f64| (ours > 0.0).then(|| theirs / ours);
    for peer in peers {
        peer.times_harborseal = times(peer.cpu_ms_per_stream_second, ours.cpu_ms_per_stream_second);
        peer.times_harborseal_at_most = times(
            peer.cpu_ms_per_stream_second_at_most,
            ours.cpu_ms_per_stream_second_at_most,
        );
    }
}

struct Bench<'a> {
    options: &'a Options,
    tool: Tool,
    cpus: &'a Cpus,
    stop: &'a Stop,
}

impl Bench<'_> {
    fn measure(&self, load: &Load, first: u32) -> anyhow::Result<Peer> {
        let first_run = self.one(load)?;
        let mut runs = vec![first_run.clone()];
        let (mut without, mut with) = (0, None);
        if !self.options.no_search {
            let most = self.options.most.min(self.tool.most());
            let growth = self.tool.growth();
            (without, with) = search((first, most, growth), &first_run, |streams| {
                let load = load.scaled(streams, load.seconds().min(4.0))?;
                let mut run = self.one(&load)?;
                // One that came late says nothing if nothing was lost; it has a second chance.
                if run.lost == 0 && !run.invalid_because.is_empty() {
                    runs.push(run);
                    run = self.one(&load)?;
                }
                runs.push(run.clone());
                Ok(run)
            })?;
        } else if first_run.lost == 0 {
            without = first_run.streams;
        }
        let at_most = runs
            .iter()
            .rfind(|run| run.streams == without && run.lost == 0)
            .unwrap_or(&first_run);
        Ok(Peer {
            cpu_ms_per_stream_second_at_most: at_most.cpu_ms_per_stream_second,
            mib_per_stream_at_most: at_most.mib_per_stream,
            times_harborseal_at_most: None,
            name: self.tool.name(),
            version: self.tool.version(),
            command: self.tool.shown_command(),
            does_not: self.tool.does_not().to_vec(),
            cpu_ms_per_stream_second: first_run.cpu_ms_per_stream_second,
            mib_per_stream: first_run.mib_per_stream,
            times_harborseal: None,
            streams_without_loss: without,
            streams_with_loss: with,
            runs,
        })
    }

    /// One run, from start to removed files.
    fn one(&self, load: &Load) -> anyhow::Result<Run> {
        let lab = Lab::create(&self.options.place, needed_bytes(load))?;
        let (mut receiver, targets) = self.tool.start(&lab, load, self.options, self.cpus, self.stop)?;
        let cameras = Cameras::start(load, &targets, self.cpus.fleet)?;
        self.stop.sleep(SETTLED)?;
        let (from, began) = (receiver.cpu_ns()?, std::time::Instant::now());
        let (mut to, mut length, mut memory) = (from, began.elapsed(), 0);
        while !cameras.has_ended() {
            self.stop.sleep(LOOK)?;
            receiver.look_after()?;
            // The last look at which the cameras still sent is the one that counts.
            if !cameras.has_ended() {
                (to, length, memory) = (receiver.cpu_ns()?, began.elapsed(), receiver.memory_bytes()?);
            }
        }
        let sent = cameras.finish(self.stop)?;
        self.stop.sleep(Duration::from_millis(500))?;
        let lost = receiver.stop(sent.packets)?;
        lab.remove()?;
        let streams = load.streams();
        let run = Run {
            streams,
            sent: sent.packets,
            lost,
            lost_by: self.tool.lost_by(),
            cpu_ms_per_stream_second: (to - from) as f64
                / 1e6
                / length.as_secs_f64().max(1e-3)
                / streams as f64,
            mib_per_stream: memory as f64 / f64::from(1 << 20) / streams as f64,
            invalid_because: objections(load, &sent),
        };
        progress(format_args!(
            "{:12} {:5} streams: {:7.3} ms CPU per stream and second, {:6.2} MiB per stream, {} of {} lost{}",
            self.tool.name(),
            run.streams,
            run.cpu_ms_per_stream_second,
            run.mib_per_stream,
            run.lost,
            run.sent,
            because(&run.invalid_because)
        ));
        Ok(run)
    }
}

/// Grows until something is lost, then halves the bracket once. Returns the most streams without loss, and the least with. A run that
/// is not valid ends the search: what follows would be worse.
fn search(
    (first, most, growth): (u32, u32, u32),
    first_run: &Run,
    mut run: impl FnMut(u32) -> anyhow::Result<Run>,
) -> anyhow::Result<(u64, Option<u64>)> {
    let sound = |run: &Run| run.invalid_because.is_empty();
    if first_run.lost > 0 {
        return Ok((0, Some(first_run.streams)));
    }
    let (mut without, mut with) = (first, None);
    while with.is_none() && without < most {
        let streams = without.saturating_mul(growth).min(most);
        let outcome = run(streams)?;
        match (outcome.lost, sound(&outcome)) {
            // What is lost of a load that did not quite come is lost all the same.
            (lost, _) if lost > 0 => with = Some(streams),
            (_, true) => without = streams,
            (_, false) => return Ok((without.into(), None)),
        }
    }
    if let Some(lossy) = with
        && lossy - without > first
    {
        let middle = without.midpoint(lossy);
        let outcome = run(middle)?;
        if outcome.lost > 0 {
            with = Some(middle);
        } else if sound(&outcome) {
            without = middle;
        }
    }
    Ok((without.into(), with.map(u64::from)))
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "{}\n{:10} {:>8} {:>7} {:>6} {:>8}   {:>8} {:>8} {:>7} {:>6} {:>8}\n",
        report.load, "", "streams", "ms/s", "×", "MiB", "loss at", "no loss", "ms/s", "×", "MiB"
    );
    for peer in &report.peers {
        let times = |times: Option<f64>| times.map_or_else(|| "?".to_owned(), |times| format!("{times:.1}"));
        let with = peer
            .streams_with_loss
            .map_or_else(|| "-".to_owned(), |streams| streams.to_string());
        let first = peer.runs.first().map_or(0, |run| run.streams);
        writeln!(
            text,
            "{:10} {first:>8} {:>7.3} {:>6} {:>8.2}   {with:>8} {:>8} {:>7.3} {:>6} {:>8.2}",
            peer.name,
            peer.cpu_ms_per_stream_second,
            times(peer.times_harborseal),
            peer.mib_per_stream,
            peer.streams_without_loss,
            peer.cpu_ms_per_stream_second_at_most,
            times(peer.times_harborseal_at_most),
            peer.mib_per_stream_at_most,
        )
        .expect("a String takes all");
    }
    text += "ms/s: CPU time per stream and second; ×: of Harborseal's; MiB: per stream; right: each with the most streams without loss\n";
    for peer in report.peers.iter().filter(|peer| !peer.does_not.is_empty()) {
        writeln!(
            text,
            "{} does not {}",
            peer.name,
            peer.does_not.join(", does not ")
        )
        .expect("a String takes all");
    }
    for left_out in &report.left_out {
        writeln!(text, "left out: {left_out}").expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(streams: u32, lost: u64) -> Run {
        Run {
            streams: streams.into(),
            sent: 1000,
            lost,
            lost_by: "test",
            cpu_ms_per_stream_second: 1.0,
            mib_per_stream: 1.0,
            invalid_because: Vec::new(),
        }
    }

    #[test]
    fn the_first_loss_is_bracketed() {
        let find = |first, most, limit| {
            let first_run = run(first, u64::from(first > limit));
            search((first, most, 2), &first_run, |streams| {
                Ok(run(streams, u64::from(streams > limit)))
            })
            .expect("no I/O")
        };
        assert_eq!(find(16, 4096, 200), (192, Some(256)));
        assert_eq!(find(16, 4096, 130), (128, Some(192)));
        assert_eq!(find(16, 4096, 20), (16, Some(32)));
        assert_eq!(find(16, 4096, 3), (0, Some(16)));
        assert_eq!(find(16, 100, 5000), (100, None));
    }

    #[test]
    fn a_search_ends_where_the_cameras_are_the_limit() {
        let late = |streams| Run {
            invalid_because: vec!["late".to_owned()],
            ..run(streams, 0)
        };
        let found = search((16, 4096, 2), &run(16, 0), |streams| {
            Ok(if streams > 64 {
                late(streams)
            } else {
                run(streams, 0)
            })
        });
        assert_eq!(found.expect("no I/O"), (64, None));
    }
}
