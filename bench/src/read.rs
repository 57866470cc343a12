//! `read`: what `list` and `export` read of an archive, and how long it takes, from the disk and from the page cache.
//!
//! Each run is a process of its own, the commands' own code, timed from its start to its end. Before a cold one the files are dropped
//! from the page cache. How much was read is counted twice: by the command, of its segments, and by the kernel, of the disk.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use harborseal_segment::writer::Features;
use rustix::fs::{Advice, fadvise};
use serde::Serialize;
use serde_json::Value;

use crate::account::{self, Cpu};
use crate::child::{Stop, myself};
use crate::lab::{Lab, Place};
use crate::machine::Machine;
use crate::output::{Output, progress};
use crate::sample::median;
use crate::segments::{self, End, Plan, Written};

const MIB: f64 = (1u64 << 20) as f64;
/// Of the files' own length, for what is exported and what a file system keeps for itself.
const SPACE_PERCENT: u64 = 110;
/// The longest chunk that the engine writes.
const MAX_CHUNK_KIB: usize = 64;

#[derive(Args, Debug)]
pub struct Options {
    /// Gibibytes of segments to make and read
    #[arg(long, default_value_t = 10.0)]
    pub gib: f64,
    /// Segments they are spread over, one behind the other
    #[arg(long, default_value_t = 10)]
    pub segments: u8,
    /// Cameras in each, all of one customer
    #[arg(long, default_value_t = 4000)]
    pub cameras: u32,
    /// Kibibytes of a chunk
    #[arg(long, default_value_t = 64)]
    pub chunk_kib: usize,
    /// Repetitions, of all cases in turn
    #[arg(long, default_value_t = 5)]
    pub repeats: u32,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    file_system: String,
    segment_bytes: u64,
    segments: u8,
    cameras: u32,
    chunk_bytes: usize,
    repeats: u32,
    figures: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    wall_ms: f64,
    cpu_ms: f64,
    /// By the command's own account, of all segments.
    bytes_read: u64,
    /// What it needs: heads (twice), footers, indexes, KEY and STREAM blocks, and for an export the camera's own chunks.
    bytes_needed: u64,
    /// By the kernel's account, whatever it was read for; absent where the kernel keeps none.
    disk_bytes: Option<f64>,
    runs: Vec<Run>,
}

#[derive(Clone, Serialize)]
struct Run {
    wall_ms: f64,
    cpu_ms: f64,
    bytes_read: u64,
    disk_bytes: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    List,
    Export,
}

const CASES: [(&str, What, bool); 4] = [
    ("list, from the disk", What::List, true),
    ("list, from the page cache", What::List, false),
    ("export of one camera, from the disk", What::Export, true),
    ("export of one camera, from the page cache", What::Export, false),
];

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    ensure!(
        options.gib > 0.0 && options.gib <= 256.0,
        "--gib must be above 0 and at most 256"
    );
    ensure!(
        (1..=100).contains(&options.segments),
        "--segments must be 1 to 100"
    );
    ensure!(options.cameras > 0, "--cameras must be at least 1");
    ensure!(
        (4..=MAX_CHUNK_KIB).contains(&options.chunk_kib) && options.chunk_kib.is_multiple_of(4),
        "--chunk-kib must be a multiple of 4 up to {MAX_CHUNK_KIB}"
    );
    let stop = Stop::listen()?;
    let machine = Machine::read()?;
    let archive = Archive::write(options, &stop)?;
    let mut runs = [const { Vec::new() }; CASES.len()];
    for _ in 0..options.repeats {
        for (runs, (_, what, cold)) in runs.iter_mut().zip(CASES) {
            stop.check()?;
            if cold {
                archive.drop_from_cache()?;
            }
            runs.push(archive.read(what, options)?);
        }
    }
    let lines = CASES
        .iter()
        .zip(runs)
        .map(|((name, what, _), runs)| archive.line(name, *what, runs));
    let report = Report {
        machine,
        file_system: crate::machine::file_system(archive.lab.dir()),
        segment_bytes: archive.bytes,
        segments: options.segments,
        cameras: options.cameras,
        chunk_bytes: options.chunk_kib << 10,
        repeats: options.repeats,
        figures: lines.collect(),
    };
    archive.lab.remove()?;
    options.output.write(&table(&report), &report)
}

/// Segments on the disk, and whoever may read them.
struct Archive {
    lab: Lab,
    identity: PathBuf,
    segments: Vec<(PathBuf, Written)>,
    bytes: u64,
}

impl Archive {
    fn write(options: &Options, stop: &Stop) -> anyhow::Result<Archive> {
        let bytes = (options.gib * (1u64 << 30) as f64) as u64;
        // At least one chunk of each camera, whatever was asked for.
        let least =
            u64::from(options.cameras) * (4 + options.chunk_kib as u64) * 1024 * u64::from(options.segments);
        let lab = Lab::create(&options.place, bytes.max(least) / 100 * SPACE_PERCENT)?;
        let identity = lab.dir().join("identity");
        std::fs::write(&identity, segments::identity().to_file_text().as_bytes())?;
        let mut archive = Archive {
            identity,
            segments: Vec::new(),
            bytes: 0,
            lab,
        };
        let mut first_s = segments::BEGAN_S;
        for n in 0..options.segments {
            stop.check()?;
            progress(format_args!("writing segment {} of {}", n + 1, options.segments));
            let path = archive.lab.dir().join(format!("{n:03}.hseal"));
            let plan = Plan {
                n,
                bytes: bytes / u64::from(options.segments),
                cameras: options.cameras,
                chunk_len: options.chunk_kib << 10,
                first_s,
                end: End::Sealed,
                features: Features::default(),
            };
            let written = segments::write_plan(&path, &plan)?;
            first_s = written.next_s;
            let file = File::open(&path)?;
            file.sync_all()?;
            archive.bytes += file.metadata()?.len();
            archive.segments.push((path, written));
        }
        Ok(archive)
    }

    /// The next reader finds nothing of the segments in memory. They are synced, so nothing keeps them there.
    fn drop_from_cache(&self) -> anyhow::Result<()> {
        for (path, _) in &self.segments {
            fadvise(&File::open(path)?, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }

    /// What must be read: a camera's chunks stand among those of all others.
    fn bytes_needed(&self, what: What) -> u64 {
        const HEAD_AGAIN: u64 = 8192; // once for the order of the chain, once to read the segment
        let own = |written: &Written| match what {
            What::List => 0,
            What::Export => written.first_camera_bytes,
        };
        let of_all = self
            .segments
            .iter()
            .map(|(_, written)| HEAD_AGAIN + written.chunks_at + own(written));
        let blocks: u64 = self.segments.iter().map(|(_, written)| written.blocks_end).sum();
        of_all.sum::<u64>() + (self.bytes - blocks)
    }

    fn read(&self, what: What, options: &Options) -> anyhow::Result<Run> {
        let exported = self.lab.dir().join("camera.pcapng");
        let command = match what {
            What::List => vec!["list".into()],
            What::Export => vec![
                "export".into(),
                "--camera".into(),
                segments::camera_id(0).into(),
                "--output".into(),
                exported.clone().into_os_string(),
            ],
        };
        let common = [
            "--json".into(),
            "--identity".into(),
            self.identity.clone().into_os_string(),
        ];
        let folder = self.lab.dir().as_os_str().to_owned();
        let arguments = myself(command.into_iter().chain(common).chain([folder]))?;
        let (run, told) = timed(&arguments)?;
        match what {
            What::List => {
                let cameras = told["cameras"].as_array().map_or(0, Vec::len);
                ensure!(
                    cameras == options.cameras as usize,
                    "list shows {cameras} cameras"
                );
            }
            What::Export => {
                ensure!(told["packets"].as_u64() > Some(0), "nothing was exported");
                std::fs::remove_file(&exported)?;
            }
        }
        Ok(run)
    }

    fn line(&self, name: &'static str, what: What, runs: Vec<Run>) -> Line {
        let over = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
        let disk: Option<Vec<u64>> = runs.iter().map(|run| run.disk_bytes).collect();
        Line {
            name,
            wall_ms: over(|run| run.wall_ms),
            cpu_ms: over(|run| run.cpu_ms),
            bytes_read: over(|run| run.bytes_read as f64) as u64,
            bytes_needed: self.bytes_needed(what),
            disk_bytes: disk.map(|disk| median(disk.iter().map(|bytes| *bytes as f64).collect())),
            runs,
        }
    }
}

/// Runs a command to its end; what it cost, and the object that it said.
fn timed(arguments: &[OsString]) -> anyhow::Result<(Run, Value)> {
    let began = Instant::now();
    let mut child = Command::new(&arguments[0])
        .args(&arguments[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the reader")?;
    let mut told = Vec::new();
    let stdout = child.stdout.as_mut().expect("piped");
    stdout
        .read_to_end(&mut told)
        .context("reading what the reader says")?;
    account::await_end(&child)?;
    let wall_ms = began.elapsed().as_secs_f64() * 1e3;
    let disk_bytes = account::disk_bytes_read(child.id());
    let cpu = Cpu::of_process(child.id())?;
    let status = child.wait().context("waiting for the reader")?;
    ensure!(status.success(), "the reader ended with {status}");
    let told: Value = serde_json::from_slice(&told).context("the reader's JSON")?;
    let run = Run {
        wall_ms,
        cpu_ms: cpu.total_ns as f64 / 1e6,
        bytes_read: told["bytes_read"].as_u64().context("the reader's bytes_read")?,
        disk_bytes,
    };
    Ok((run, told))
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "\n{:.2} GiB in {} segments, {} cameras, chunks of {} KiB, {}\n{:42} {:>9} {:>8} {:>10} {:>10} {:>10}\n",
        report.segment_bytes as f64 / (1u64 << 30) as f64,
        report.segments,
        report.cameras,
        report.chunk_bytes >> 10,
        report.file_system,
        "read",
        "wall ms",
        "CPU ms",
        "MiB read",
        "needed",
        "from disk",
    );
    for line in &report.figures {
        let mib = |bytes: f64| format!("{:.2}", bytes / MIB);
        let disk = line.disk_bytes.map_or("-".to_owned(), mib);
        text += &format!(
            "{:42} {:>9.1} {:>8.1} {:>10} {:>10} {disk:>10}\n",
            line.name,
            line.wall_ms,
            line.cpu_ms,
            mib(line.bytes_read as f64),
            mib(line.bytes_needed as f64),
        );
    }
    text
}
