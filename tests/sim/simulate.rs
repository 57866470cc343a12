//! `simulate`: any number of seeds, as many at once as there are jobs. Prints each failing seed with the command that replays it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use harborseal_tests::sim::{self, Failure, Tally, tally::Counts};
use indicatif::{ProgressBar, ProgressStyle};

/// Lives seeds of the simulated engine through.
#[derive(Parser)]
#[command(about, long_about = None)]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One seed only: tells what happens in it, and the backtrace of its failure
    #[arg(long, conflicts_with_all = ["seeds", "from", "jobs"])]
    seed: Option<u64>,
    /// Seeds at once
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Stop a job after this many failures
    #[arg(long, default_value_t = 10)]
    failures: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return replay(seed);
    }
    // A failing seed is a panic in the simulated world; its story is printed below.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let (counts, failures) = run_all(&arguments);
    println!("{counts}");
    println!(
        "{:.0} seeds a second",
        counts.runs as f64 / began.elapsed().as_secs_f64()
    );
    for failure in &failures {
        println!("{failure}");
    }
    let never = counts.missing();
    if !never.is_empty() {
        println!("never fired: {}", never.join(", "));
    }
    println!("{} seeds failed", failures.len());
    if failures.is_empty() && never.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(seed: u64) -> ExitCode {
    let tally = Tally::telling();
    let outcome = sim::run(seed, None, &tally);
    println!("{}", tally.counts());
    match outcome {
        Ok(()) => {
            println!("seed {seed}: every promise was kept");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(arguments: &Arguments) -> (Counts, Vec<Failure>) {
    let bar = ProgressBar::new(arguments.seeds);
    let style = "{pos} of {len} seeds  {wide_bar}  {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
    bar.enable_steady_tick(Duration::from_millis(500));
    let seeds = arguments.from..arguments.from.saturating_add(arguments.seeds);
    let ran = sim::batch(seeds, arguments.jobs, arguments.failures, &|| bar.inc(1));
    bar.finish_and_clear();
    ran
}
