//! `harborseal-bench`: what this machine can do at most, with the parts the engine is made of.

mod ceilings;
mod flood;
mod machine;
mod sample;
mod table;

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
    /// Sends datagrams as fast as one core can (used by `ceilings`, in a process of its own).
    #[command(hide = true)]
    Flood(flood::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Ceilings(options) => ceilings::run(&options),
        Command::Flood(options) => flood::run(&options),
    }
}
