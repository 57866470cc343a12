//! `recover`: seconds per gibibyte, for a torn tail that is closed in place and for a damaged segment that is copied.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use harborseal::archive::recover::{Outcome, copy_path, recover};
use harborseal::uring::sys::{self, Usage};
use harborseal_segment::writer::Features;
use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use crate::machine::Machine;
use crate::output::Output;
use crate::sample::median;
use crate::segments::{self, End};

#[derive(Args, Debug)]
pub struct Options {
    /// Sizes of the segments to recover, in gibibytes.
    #[arg(long, value_delimiter = ',', default_values_t = [1.0, 4.0])]
    pub gib: Vec<f64>,
    /// Repetitions, of all cases in turn.
    #[arg(long, default_value_t = 5)]
    pub repeats: u32,
    /// Folder for the segments (which are removed); it needs twice the largest. A temporary one if not given.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    repeats: u32,
    figures: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    gib: f64,
    /// Medians; `runs` holds what they were taken from.
    seconds_per_gib: f64,
    cpu_seconds_per_gib: f64,
    /// Bytes written for it.
    written: u64,
    runs: Vec<Run>,
}

#[derive(Clone, Copy, Serialize)]
struct Run {
    seconds: f64,
    cpu_seconds: f64,
}

/// Space that a writer reserved behind the last block.
const RESERVED: u64 = 64 << 20;
const NOW_S: u64 = 1_795_001_000;

#[derive(Clone, Copy)]
enum Case {
    TornInCache,
    TornFromDisk,
    Copy,
}

const CASES: [(Case, &str); 3] = [
    (
        Case::TornInCache,
        "torn tail, closed in place, file in the page cache",
    ),
    (
        Case::TornFromDisk,
        "torn tail, closed in place, read from the disk",
    ),
    (Case::Copy, "damage, repaired copy written, synced and verified"),
];

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    ensure!(
        options.gib.iter().all(|gib| *gib > 0.0 && *gib <= 64.0),
        "--gib must be above 0 and at most 64"
    );
    let machine = Machine::read()?;
    sys::pin_to_cpu(machine.receive_and_send_cpus().0)?;
    let mut figures = Vec::new();
    for &gib in &options.gib {
        let folder = match &options.dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        let path = folder.path().join("a.hseal");
        let end = segments::write(
            &path,
            0,
            (gib * (1u64 << 30) as f64) as u64,
            End::Torn,
            Features::default(),
        )?;
        let mut runs = [const { Vec::new() }; CASES.len()];
        let mut written = [0; CASES.len()];
        for _ in 0..options.repeats {
            for (at, (case, _)) in CASES.iter().enumerate() {
                let (run, bytes) = measure(*case, &path, end)?;
                runs[at].push(run);
                written[at] = bytes;
            }
        }
        for (at, (_, name)) in CASES.iter().enumerate() {
            let of = |value: fn(&Run) -> f64| median(runs[at].iter().map(value).collect()) / gib;
            figures.push(Line {
                name,
                gib,
                seconds_per_gib: of(|run| run.seconds),
                cpu_seconds_per_gib: of(|run| run.cpu_seconds),
                written: written[at],
                runs: runs[at].clone(),
            });
        }
    }
    let mut table = format!(
        "\n{:52} {:>5} {:>9} {:>9} {:>14}\n",
        "recover", "GiB", "s/GiB", "CPU s/GiB", "bytes written"
    );
    for Line {
        name,
        gib,
        seconds_per_gib,
        cpu_seconds_per_gib,
        written,
        ..
    } in &figures
    {
        table +=
            &format!("{name:52} {gib:>5} {seconds_per_gib:>9.2} {cpu_seconds_per_gib:>9.2} {written:>14}\n");
    }
    let report = Report {
        machine,
        repeats: options.repeats,
        figures,
    };
    options.output.write(&table, &report)
}

/// Tears the segment whose blocks end at `end` again, and recovers it. Returns the time and the bytes that recovery wrote.
fn measure(case: Case, path: &Path, end: u64) -> anyhow::Result<(Run, u64)> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    file.set_len(end)?;
    file.set_len(end + RESERVED)?;
    let (damaged, mut byte) = (end / 2, [0]);
    file.read_exact_at(&mut byte, damaged)?;
    if matches!(case, Case::Copy) {
        file.write_all_at(&[byte[0] ^ 1], damaged)?;
    }
    file.sync_all()?;
    if matches!(case, Case::TornFromDisk) {
        fadvise(&file, 0, None, Advice::DontNeed)?;
    } else {
        std::io::copy(&mut &file, &mut std::io::sink())?;
    }
    let (began, cpu) = (Instant::now(), Usage::of_process().cpu_ns());
    let outcome = recover(path, Some(&segments::node()), NOW_S, |_, _| ())?;
    let run = Run {
        seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: (Usage::of_process().cpu_ns() - cpu) as f64 / 1e9,
    };
    file.write_all_at(&byte, damaged)?;
    let written = match (case, outcome) {
        (Case::Copy, Outcome::Repaired { already: false, .. }) => {
            let copy = copy_path(path);
            let len = copy.metadata()?.len();
            std::fs::remove_file(copy)?;
            len
        }
        (Case::TornInCache | Case::TornFromDisk, Outcome::Closed(_)) => file.metadata()?.len() - end,
        (_, other) => anyhow::bail!("recovered to {other:?}"),
    };
    Ok((run, written))
}
