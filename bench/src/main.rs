//! `harborseal-bench`: what this machine can do at most, with the parts the engine is made of.

mod ceilings;
mod flood;
mod machine;
mod recover;
mod sample;
mod segments;
mod table;
mod verify;

use clap::{Parser, Subcommand};

/// Measures ceilings of this machine. A table for people goes to stderr, `--json` to stdout.
#[derive(Parser)]
#[command(name = "harborseal-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Receive and discard, seal, write, copy: each alone, as fast as it goes.
    Ceilings(ceilings::Options),
    /// Check segments in the page cache, without a key and with one, beside the opening library alone.
    Verify(verify::Options),
    /// Close torn segments and copy damaged ones: seconds per gibibyte.
    Recover(recover::Options),
    /// Sends datagrams as fast as one core can (used by `ceilings`, in a process of its own).
    #[command(hide = true)]
    Flood(flood::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Ceilings(options) => ceilings::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Recover(options) => recover::run(&options),
        Command::Flood(options) => flood::run(&options),
    }
}
