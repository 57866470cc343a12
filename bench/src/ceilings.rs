//! `ceilings`: the parts of the packet's path, each alone, against which the engine's own figures are read.
//!
//! Method: every case runs a few times, all cases in turn before any is repeated, so that a slow minute of a
//! shared machine hits them alike; the figure is the median. CPU time is that of this process by getrusage: it
//! holds the receiver's system calls, but not the sender's process nor the kernel's work in its context (on
//! loopback the whole way down and up the stack runs on the sender's CPU).

mod copy;
mod receive;
mod recvmmsg;
mod seal;
mod write;

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::machine::Machine;
use crate::output::Output;
use crate::sample::{Figure, Sample};
use crate::table::{self, Columns};

#[derive(Args, Debug)]
pub struct Options {
    /// Length of one repetition of one case.
    #[arg(long, default_value_t = 0.7)]
    pub seconds: f64,
    /// Repetitions of every case.
    #[arg(long, default_value_t = 5)]
    pub repeats: u32,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Folder for the file that is written (and removed); a temporary one if not given.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Receive,
    Seal,
    Write,
    Copy,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    seconds: f64,
    repeats: u32,
    receive: Vec<Figure>,
    seal: Vec<Figure>,
    write: Vec<Figure>,
    copy: Vec<Figure>,
}

/// One thing to measure, again and again.
pub trait Case {
    fn name(&self) -> String;
    fn run(&mut self, seconds: f64) -> anyhow::Result<Sample>;
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(
        options.seconds > 0.0 && options.seconds <= 600.0,
        "--seconds must be above 0 and at most 600"
    );
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    let machine = Machine::read()?;
    eprintln!(
        "{}, CPUs {:?}, {} MiB, Linux {}",
        machine.cpu, machine.cpus, machine.memory_mib, machine.kernel
    );
    if !machine.optimised {
        eprintln!("WARNING: not a release build; these figures mean nothing");
    }
    if machine.cpus.len() < 2 {
        eprintln!("WARNING: one CPU only: sender and receiver share it");
    }
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let (receive_cpu, send_cpu) = machine.receive_and_send_cpus();
    // Everything but the sender runs here, so that no repetition moves to another CPU.
    harborseal::uring::sys::pin_to_cpu(receive_cpu)?;
    let measure =
        |part, cases: &dyn Fn() -> anyhow::Result<Vec<Box<dyn Case>>>| -> anyhow::Result<Vec<Figure>> {
            if wanted(part) {
                interleave(cases()?, options)
            } else {
                Ok(Vec::new())
            }
        };
    let report = Report {
        receive: measure(Part::Receive, &|| Ok(receive::cases(send_cpu)))?,
        seal: measure(Part::Seal, &|| Ok(seal::cases()))?,
        write: measure(Part::Write, &|| write::cases(options))?,
        copy: measure(Part::Copy, &|| Ok(copy::cases()))?,
        machine,
        seconds: options.seconds,
        repeats: options.repeats,
    };
    let tables = [
        table::of("receive and discard, 1,200 B", &Columns::Packets, &report.receive),
        table::of("seal in place, AES-256-GCM", &Columns::Bytes, &report.seal),
        table::of("write, O_DIRECT, preallocated", &Columns::Bytes, &report.write),
        table::of("copy", &Columns::Bytes, &report.copy),
    ];
    options.output.write(&tables.concat(), &report)
}

fn interleave(mut cases: Vec<Box<dyn Case>>, options: &Options) -> anyhow::Result<Vec<Figure>> {
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..options.repeats {
        for (case, samples) in cases.iter_mut().zip(&mut samples) {
            samples.push(case.run(options.seconds)?);
        }
    }
    Ok(cases
        .iter()
        .zip(&samples)
        .map(|(case, samples)| Figure::of(&case.name(), samples))
        .collect())
}
