//! `harborseal-bench`: what this machine can do at most, and how close the engine comes to it.

mod account;
mod ceilings;
mod cgroup;
mod child;
mod discard;
mod fleet;
mod flood;
mod lab;
mod limit;
mod line_rate;
mod load;
mod machine;
mod memory;
mod output;
mod overload;
mod peers;
mod read;
mod recover;
mod runs;
mod sample;
mod segments;
mod shapes;
mod stages;
mod syscalls;
mod table;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use harborseal::cli::error::{CliError, ExitStatus};

/// The engine's own, so that the engine inside this program is the one that ships.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The figures do not mean what they say: the load did not come, or the generator was the limit.
const EXIT_INVALID: u8 = 3;

/// What this machine can do at most, and how close the engine comes to it.
///
/// Every command measures on this machine, now; nothing is compared with figures from elsewhere. Ratios of one run hold on a busy
/// machine, single figures do not: bench/README.md says how to read them.
#[derive(Parser)]
#[command(
    name = "harborseal-bench",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "\
Exit status: 0 measured · 1 the tool failed, and says why · 2 usage · 3 measured, but not valid: the load that was asked for did \
not come.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The engine on one core and thousands of cameras on the other, beside a receiver that throws away what it gets
    LineRate(line_rate::Options),
    /// The most that the engine takes without loss, ÷ what receive-and-discard takes
    Limit(limit::Options),
    /// What a packet costs by the number of streams, in each shape of traffic
    Shapes(shapes::Options),
    /// Memory for many slow cameras, and what files hold beside RTP
    Memory(memory::Options),
    /// More than the engine can take, a stop in the middle of it, and a disk that is slow for a while
    Overload(overload::Options),
    /// The same cameras into ffmpeg, GStreamer and tcpdump: CPU, memory, and streams until the first loss
    Peers(peers::Options),
    /// Where the time of a packet goes, from the kernel to the disk
    Stages(stages::Options),
    /// What the load generator can send on one core, each packet at its time, against the same as fast as it goes
    Fleet(fleet::Options),
    /// Receive and discard, seal, write, copy: each alone, as fast as it goes
    Ceilings(ceilings::Options),
    /// Check segments in the page cache, without a key and with one, beside the opening library alone
    Verify(verify::Options),
    /// Close torn segments and copy damaged ones: seconds per gibibyte
    Recover(recover::Options),
    /// Count the instructions of each stage under valgrind, beside bench/baseline.json; from the repository's root
    Guard(GuardOptions),
    /// List an archive and export one of its cameras, from the disk and from the page cache: time, and bytes read
    Read(read::Options),
    /// Becomes another program, bound to CPUs and to its parent's life
    #[command(hide = true)]
    Pinned(child::Pinned),
    /// `harborseal run`, as the daemon runs it
    #[command(hide = true)]
    Engine(harborseal::cli::run::Args),
    /// `harborseal list`
    #[command(hide = true)]
    List(harborseal::cli::list::Args),
    /// `harborseal export`
    #[command(hide = true)]
    Export(harborseal::cli::export::Args),
    /// The cameras
    #[command(hide = true)]
    Load(load::Child),
    /// A receiver that throws away what it gets
    #[command(hide = true)]
    Discard(discard::Child),
    /// A receiver that does some of what the engine does
    #[command(hide = true)]
    Stage(stages::Child),
    /// Sends datagrams as fast as one core can
    #[command(hide = true)]
    Flood(flood::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::LineRate(options) => line_rate::run(&options),
        Command::Limit(options) => limit::run(&options),
        Command::Shapes(options) => shapes::run(&options),
        Command::Memory(options) => memory::run(&options),
        Command::Overload(options) => overload::run(&options),
        Command::Peers(options) => peers::run(&options),
        Command::Stages(options) => stages::run(&options),
        Command::Fleet(options) => fleet::run(&options),
        Command::Ceilings(options) => ceilings::run(&options).map(|()| true),
        Command::Verify(options) => verify::run(&options).map(|()| true),
        Command::Recover(options) => recover::run(&options).map(|()| true),
        Command::Guard(options) => guard(&options),
        Command::Read(options) => read::run(&options).map(|()| true),
        Command::Pinned(options) => child::run_pinned(&options).map(|()| true),
        Command::Engine(options) => return as_the_engine_does(harborseal::cli::run::run(&options)),
        Command::List(options) => return as_the_engine_does(harborseal::cli::list::run(&options)),
        Command::Export(options) => return as_the_engine_does(harborseal::cli::export::run(&options)),
        Command::Load(options) => load::run_child(&options).map(|()| true),
        Command::Discard(options) => discard::run_child(&options).map(|()| true),
        Command::Stage(options) => stages::run_child(&options).map(|()| true),
        Command::Flood(options) => flood::run(&options).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_INVALID),
        Err(error) => {
            output::progress(format_args!("harborseal-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The guard's options.
#[derive(clap::Args)]
struct GuardOptions {
    /// Make today's counts the baseline, and say why they are what they are
    #[arg(long, value_name = "WHY")]
    update: Option<String>,
}

/// Counts, and judges by the baseline or writes a new one. False if a stage has become too expensive.
fn guard(options: &GuardOptions) -> anyhow::Result<bool> {
    use harborseal_bench::guard::{Baseline, Tools, judge};
    let root = std::env::current_dir()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let tools = Tools { root, target };
    let now = tools.count()?;
    if let Some(reason) = &options.update {
        let written = serde_json::to_string_pretty(&tools.update(reason, &now)?)?;
        println!("{written}");
        return Ok(true);
    }
    let before = tools.before(&Baseline::read(&tools.root)?)?;
    for (stage, is) in &now {
        println!(
            "{stage:14} {is:>10} instructions, {:>10} before",
            before.get(stage).unwrap_or(&0)
        );
    }
    let wrong = judge(&before, &now);
    wrong.iter().for_each(|line| println!("{line}"));
    Ok(wrong.is_empty())
}

/// Ends as the engine's own program would.
fn as_the_engine_does(result: Result<ExitStatus, CliError>) -> ExitCode {
    match result {
        Ok(status) => status.into(),
        Err(error) => {
            output::progress(format_args!("harborseal: {error}"));
            error.status().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
