//! `shapes`: what a packet costs by the number of streams, in each shape of traffic: 1,200 bytes of video in bursts that GRO joins, the same as
//! single datagrams, and 160 bytes of audio, which always are; on one shard and on two.
//!
//! In one shape the packets a second, their size and the length of a burst are the same for every number of streams, so that the number is all that
//! changes. The rate is what one camera of the load generator can send: 100,000 packets a second.

mod plot;

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;

use crate::lab::{EngineOptions, Place, needed_bytes};
use crate::load::{Load, LoadOptions};
use crate::machine::Machine;
use crate::output::{Output, progress};
use crate::runs::{DiscardRun, EngineRun, Site, because};
use crate::sample::median;

const SCHEMA: &str = "harborseal-bench/shapes/1";
/// One camera of the load generator sends 1 Gb/s at most: so many packets of 1,200 bytes.
const PACKETS_PER_SECOND: f64 = 100_000.0;
/// Of a burst that arrives as one: about what a frame of a city camera is.
const BURST: u16 = 10;
/// Of a frame where packets are sent one by one, a burst of one each.
const SINGLE_FRAME: u16 = 2;
/// Most frames a second of one stream; beyond, they are longer, and cut into the same bursts.
const FPS_MOST: f64 = 240.0;
/// Payload and RTP header.
const VIDEO_BYTES: u16 = 1200;
const AUDIO_BYTES: u16 = 160 + 12;
/// Size of packets, and whether they come in bursts. Audio does not: a packet every 20 ms, and nothing beside it to join.
const SHAPES: [(u16, bool); 3] = [(VIDEO_BYTES, true), (VIDEO_BYTES, false), (AUDIO_BYTES, false)];
/// How long each run sends if nothing else is asked for: 48 runs in five minutes, 12 in one and a half.
const SECONDS: f64 = 2.0;
const QUICK_SECONDS: f64 = 1.5;
const QUICK_STREAMS: [u32; 2] = [100, 10_000];

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Numbers of streams
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 100, 4000, 10_000])]
    streams: Vec<u32>,
    /// Numbers of shards
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 2])]
    shards: Vec<usize>,
    /// How long each run sends [default: 2; with --quick 1.5]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Rounds, each with one run of either receiver for each number of streams in each shape
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeats: u32,
    /// One shard, and 100 and 10,000 streams only: two minutes
    #[arg(long)]
    quick: bool,
    /// Draw it
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineOptions,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// One point of the plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    pub packet_bytes: u16,
    /// Packets come in bursts that arrive as one.
    pub gso: bool,
    pub shards: usize,
    pub streams: u32,
}

#[derive(Debug, Serialize)]
struct Round {
    case: Case,
    round: u32,
    engine: EngineRun,
    discard: DiscardRun,
}

/// Medians of a case over its rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    #[serde(flatten)]
    pub case: Case,
    /// Without start and end: until everything was durable.
    pub engine_ns: f64,
    pub discard_ns: f64,
    /// The median of the rounds' own ratios.
    pub ratio: f64,
    pub packets_per_datagram: f64,
    pub lost: i64,
    pub valid: bool,
    pub invalid_because: Option<String>,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    machine: Machine,
    command: Vec<String>,
    packets_per_second: f64,
    seconds: f64,
    repeats: u32,
    points: Vec<Point>,
    valid: bool,
    rounds: Vec<Round>,
}

/// Measures. False if no point of a shape is valid.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    ensure!(
        options.streams.iter().all(|streams| *streams > 0) && options.shards.iter().all(|shards| *shards > 0),
        "--streams and --shards must be at least 1"
    );
    let seconds = options
        .seconds
        .unwrap_or(if options.quick { QUICK_SECONDS } else { SECONDS });
    let cases = cases(options);
    let largest = cases
        .first()
        .context("--streams and --shards name at least one each")?;
    let needed = needed_bytes(&load_of(*largest, seconds)?);
    let mut site = Site::open(&options.engine, &options.place, largest.shards, needed)?;
    let mut rounds = Vec::new();
    for round in 1..=options.repeats {
        for &case in &cases {
            site.divide(case.shards)?;
            let run = one(&site, case, (round, seconds))?;
            progress(format_args!("{}", line(&run)));
            rounds.push(run);
        }
    }
    site.lab.remove()?;
    let points: Vec<Point> = cases.iter().map(|&case| point(case, &rounds)).collect();
    let report = Report {
        schema: SCHEMA,
        machine: site.machine,
        command: std::env::args().collect(),
        packets_per_second: PACKETS_PER_SECOND,
        seconds,
        repeats: options.repeats,
        valid: points.iter().all(|point| point.valid),
        points,
        rounds,
    };
    if let Some(path) = &options.svg {
        let drawing = plot::draw(&report.points, &report.machine);
        std::fs::write(path, drawing).with_context(|| format!("writing {}", path.display()))?;
    }
    options.output.write(&table(&report), &report)?;
    Ok(report.valid)
}

/// Shape by shape, the numbers of streams within.
fn cases(options: &Options) -> Vec<Case> {
    let (streams, shards): (&[u32], &[usize]) = match options.quick {
        true => (&QUICK_STREAMS, &options.shards[..1.min(options.shards.len())]),
        false => (&options.streams, &options.shards),
    };
    let mut cases = Vec::new();
    for &shards in shards {
        for (packet_bytes, gso) in SHAPES {
            cases.extend(streams.iter().map(|&streams| Case {
                packet_bytes,
                gso,
                shards,
                streams,
            }));
        }
    }
    cases
}

fn load_of(case: Case, seconds: f64) -> anyhow::Result<Load> {
    let (frame, burst) = if case.gso {
        (BURST, BURST)
    } else {
        (SINGLE_FRAME, 1)
    };
    // Frames are whole bursts, or what is left of the last one would change the rate.
    let frames_per_second = PACKETS_PER_SECOND / f64::from(case.streams) / f64::from(frame);
    let bursts = (frames_per_second / FPS_MOST).ceil().max(1.0);
    let fps = (frames_per_second / bursts).max(0.1);
    let options = LoadOptions {
        profile: None,
        settings: vec![
            "group.*.sigma=0".to_owned(),
            "group.*.i_to_p=1".to_owned(),
            "group.*.gop=1".to_owned(),
            format!("group.*.fps={fps}"),
            format!("burst={burst}"),
            "pacing=smooth".to_owned(),
            // In this order: what scales the fleet is done one after the other.
            format!("streams={}", case.streams),
            format!("pps={PACKETS_PER_SECOND}"),
        ],
        streams: None,
        mbps: None,
        seconds: None,
        packet_bytes: Some(case.packet_bytes),
        no_gso: !case.gso,
    };
    options.load(seconds)
}

fn one(site: &Site<'_>, case: Case, (round, seconds): (u32, f64)) -> anyhow::Result<Round> {
    let load = load_of(case, seconds)?;
    Ok(Round {
        case,
        round,
        engine: site.engine_run(&load)?,
        discard: site.discard_run(&load)?,
    })
}

fn point(case: Case, rounds: &[Round]) -> Point {
    let all: Vec<&Round> = rounds.iter().filter(|round| round.case == case).collect();
    let sound = |round: &&Round| round.engine.valid && round.discard.valid;
    let good: Vec<&Round> = all.iter().copied().filter(sound).collect();
    let valid = good.len() * 2 > all.len();
    let used = if good.is_empty() { &all } else { &good };
    let over = |value: fn(&Round) -> f64| median(used.iter().map(|round| value(round)).collect());
    let mut reasons = all.iter().flat_map(|round| {
        round
            .engine
            .invalid_because
            .iter()
            .chain(&round.discard.invalid_because)
    });
    Point {
        case,
        engine_ns: over(|round| round.engine.cpu_ns_per_packet_recording),
        discard_ns: over(|round| round.discard.cpu_ns_per_packet),
        ratio: over(|round| {
            round.engine.cpu_ns_per_packet_recording / round.discard.cpu_ns_per_packet.max(1e-9)
        }),
        packets_per_datagram: over(|round| round.discard.packets_per_datagram),
        lost: used
            .iter()
            .map(|round| round.engine.lost_after_sender)
            .max()
            .unwrap_or(0),
        valid,
        invalid_because: reasons.next().filter(|_| !valid).cloned(),
    }
}

/// `video, bursts, 1 shard`.
pub fn name(case: Case) -> String {
    let media = match case.packet_bytes {
        VIDEO_BYTES => "video, 1,200 B",
        _ => "audio, 160 B",
    };
    let shape = if case.gso { "bursts" } else { "single" };
    format!("{media}, {shape}")
}

fn line(round: &Round) -> String {
    let (engine, discard) = (&round.engine, &round.discard);
    let invalid = because(match engine.valid {
        true => &discard.invalid_because,
        false => &engine.invalid_because,
    });
    format!(
        "{}, {} shard(s), {:5} streams: engine {:5.0} ns, discard {:5.0} ns{invalid}",
        name(round.case),
        round.case.shards,
        round.case.streams,
        engine.cpu_ns_per_packet_recording,
        discard.cpu_ns_per_packet,
    )
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "{:24} {:>6} {:>8} {:>10} {:>10} {:>7} {:>10} {:>6}\n",
        "ns CPU per packet", "shards", "streams", "engine", "discard", "ratio", "batch", "lost"
    );
    for point in &report.points {
        let invalid = point
            .invalid_because
            .as_ref()
            .map_or(String::new(), |why| format!("  not valid: {why}"));
        writeln!(
            text,
            "{:24} {:>6} {:>8} {:>10.0} {:>10.0} {:>7.2} {:>10.1} {:>6}{invalid}",
            name(point.case),
            point.case.shards,
            point.case.streams,
            point.engine_ns,
            point.discard_ns,
            point.ratio,
            point.packets_per_datagram,
            point.lost,
        )
        .expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_of_streams_changes_within_a_shape() {
        for (packet_bytes, gso) in SHAPES {
            for streams in [1, 100, 4000, 10_000] {
                let case = Case {
                    packet_bytes,
                    gso,
                    shards: 1,
                    streams,
                };
                let load = load_of(case, 1.0).expect("a profile can have it");
                let offered = load.profile.offered();
                assert_eq!(load.streams(), u64::from(streams));
                assert!(
                    (offered.pps / PACKETS_PER_SECOND - 1.0).abs() < 0.02,
                    "{case:?}: {offered:?}"
                );
            }
        }
    }
}
