//! `memory`: what the engine keeps in memory for many slow cameras, and what its files hold beside RTP at slow rates.
//!
//! Memory is VmRSS and HugetlbPages (the kernel counts them apart) once all cameras send, and the most of it until they end. The overhead on disk
//! is (bytes of the files − RTP bytes) ÷ RTP bytes of whole segments, KEY, STREAM, INDEX and FOOTER included: each run is as long as a segment is
//! by default, and is stopped before a second one begins.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use harborseal::config::Segment;
use serde::Serialize;

use crate::account;
use crate::lab::{Engine, EngineOptions, Place, needed_bytes};
use crate::load::{Cameras, Description, Load, LoadOptions, Sent, objections};
use crate::machine::{Cpus, Machine};
use crate::output::{Output, progress};
use crate::runs::{LOOK, SETTLE, Site, because};

const SCHEMA: &str = "harborseal-bench/memory/1";
const CAMERAS: u32 = 10_000;
const MBPS: f64 = 0.2;
/// How long the cameras of the first run send: several times the chunk deadline.
const SECONDS: f64 = 15.0;
/// Before a segment is as old as it may become: starting and stopping are in its age too.
const BEFORE_ROTATION: Duration = Duration::from_secs(3);
const MIB: f64 = (1u64 << 20) as f64;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    load: LoadOptions,
    /// Rates at which the overhead on disk is measured, in Mb/s for each camera; a minute each
    #[arg(long, value_name = "R,…", value_delimiter = ',', default_values_t = [0.2, 1.0, 2.0])]
    overhead_mbps: Vec<f64>,
    /// Cameras meanwhile
    #[arg(long, value_name = "N", default_value_t = 500)]
    overhead_cameras: u32,
    /// Measure memory only
    #[arg(long)]
    no_overhead: bool,
    #[command(flatten)]
    engine: EngineOptions,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// One run of the engine.
#[derive(Debug, Serialize)]
struct Run {
    load: Description,
    /// At the end of the load, and the most there was.
    memory_mib: f64,
    memory_most_mib: f64,
    sent: u64,
    stored: u64,
    lost_after_sender: i64,
    durable_ms_p99: Option<f64>,
    segments: u64,
    rtp_bytes: u64,
    file_bytes: u64,
    /// (file_bytes − rtp_bytes) ÷ rtp_bytes.
    overhead: f64,
    fleet: Sent,
    valid: bool,
    invalid_because: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    machine: Machine,
    cpus: Cpus,
    command: Vec<String>,
    memory_limit_mib: u64,
    memory: Run,
    overheads: Vec<Run>,
    valid: bool,
}

/// Measures. False if a run is not valid.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    ensure!(
        options.overhead_cameras > 0,
        "--overhead-cameras must be at least 1"
    );
    let loads = loads(options)?;
    let most = loads.iter().map(needed_bytes).max().unwrap_or(0);
    let site = Site::open(&options.engine, &options.place, 1, most)?;
    let mut runs = Vec::new();
    for load in &loads {
        let run = one(&site, load)?;
        progress(format_args!("{}", line(&run)));
        runs.push(run);
    }
    site.lab.remove()?;
    let valid = runs.iter().all(|run| run.valid);
    let overheads = runs.split_off(1);
    let report = Report {
        schema: SCHEMA,
        machine: site.machine,
        cpus: site.cpus,
        command: std::env::args().collect(),
        memory_limit_mib: options.engine.memory_mib,
        memory: runs.pop().context("the first run is that of memory")?,
        overheads,
        valid,
    };
    options.output.write(&table(&report), &report)?;
    Ok(report.valid)
}

/// First the one whose memory is looked at.
fn loads(options: &Options) -> anyhow::Result<Vec<Load>> {
    let mut wanted = options.load.clone();
    // Frames as cameras have them, small ones too: what slow cameras cost is what this is about.
    wanted.profile.get_or_insert_with(|| "city".to_owned());
    wanted.streams.get_or_insert(CAMERAS);
    wanted.mbps.get_or_insert(MBPS);
    let mut loads = vec![wanted.load(SECONDS)?];
    if options.no_overhead {
        return Ok(loads);
    }
    let whole = Segment::default().max_age.saturating_sub(BEFORE_ROTATION);
    for &mbps in &options.overhead_mbps {
        wanted.mbps = Some(mbps);
        wanted.streams = Some(options.overhead_cameras);
        wanted.seconds = Some(whole.as_secs_f64());
        loads.push(wanted.as_given()?);
    }
    Ok(loads)
}

fn one(site: &Site<'_>, load: &Load) -> anyhow::Result<Run> {
    let Site { cpus, lab, stop, .. } = site;
    lab.empty()?;
    let mut engine = Engine::start(lab, site.engine, &cpus.engine, load, stop)?;
    let cameras = Cameras::start(load, &[engine.listen], cpus.fleet)?;
    let (mut memory, mut most) = (0, 0);
    while !cameras.has_ended() {
        stop.sleep(LOOK)?;
        engine.look_after()?;
        memory = account::memory_bytes(engine.pid())?;
        most = most.max(memory);
    }
    let fleet = cameras.finish(stop)?;
    stop.sleep(SETTLE)?;
    let account = engine.stop(stop)?;
    let file_bytes = bytes_of_segments(&lab.data())?;
    lab.empty()?;
    let (stored, rtp_bytes) = (account.number("stored")?, account.number("stored_bytes")?);
    let mut invalid_because = objections(load, &fleet);
    if stored == 0 {
        invalid_because.push("nothing was stored".to_owned());
    }
    Ok(Run {
        load: load.describe(),
        memory_mib: memory as f64 / MIB,
        memory_most_mib: most as f64 / MIB,
        sent: fleet.packets,
        stored,
        lost_after_sender: fleet.packets as i64 - stored as i64,
        durable_ms_p99: account.ledger["durable_ms_p99"].as_f64(),
        segments: account.number("segments")?,
        rtp_bytes,
        file_bytes,
        overhead: overhead(file_bytes, rtp_bytes),
        fleet,
        valid: invalid_because.is_empty(),
        invalid_because,
    })
}

fn overhead(file_bytes: u64, rtp_bytes: u64) -> f64 {
    (file_bytes as f64 - rtp_bytes as f64) / rtp_bytes.max(1) as f64
}

/// Of all files under a folder that are segments.
fn bytes_of_segments(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let (path, about) = (entry.path(), entry.metadata().context("looking at a file")?);
        if about.is_dir() {
            bytes += bytes_of_segments(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "hseal") {
            bytes += about.len();
        }
    }
    Ok(bytes)
}

fn line(run: &Run) -> String {
    let invalid = because(&run.invalid_because);
    format!(
        "{}: {:.0} MiB (most {:.0}), {} of {} lost, {} segments, {:.2} % beside RTP{invalid}",
        run.load,
        run.memory_mib,
        run.memory_most_mib,
        run.lost_after_sender,
        run.sent,
        run.segments,
        run.overhead * 100.0
    )
}

fn table(report: &Report) -> String {
    let mut text = format!("{:24} {} MiB\n", "memory.limit", report.memory_limit_mib);
    let runs = std::iter::once(("memory", &report.memory))
        .chain(report.overheads.iter().map(|run| ("overhead on disk", run)));
    for (what, run) in runs {
        writeln!(text, "{what:24} {}", line(run)).expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_count_wherever_they_lie() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inner = folder.path().join("segments");
        std::fs::create_dir(&inner).expect("a folder");
        std::fs::write(inner.join("a.hseal"), [0; 300]).expect("a file");
        std::fs::write(folder.path().join("b.hseal"), [0; 30]).expect("a file");
        std::fs::write(inner.join("lock"), [0; 1000]).expect("a file");
        assert_eq!(bytes_of_segments(folder.path()).expect("readable"), 330);
        assert!((overhead(330, 300) - 0.1).abs() < 1e-9);
    }
}
