//! `simulate`: any number of seeds, as many at once as there are jobs. Prints each failing seed with the command that replays it.
//!
//! A terminal sees a progress bar. A log gets a line every minute, and all figures so far after every [`FIGURES_AFTER`] seeds, so that what a
//! run that is cut short has shown is known, and with `--from` it can be gone on with.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use harborseal_tests::sim::{self, Sum, Tally};
use indicatif::{ProgressBar, ProgressStyle};

/// A log gets all figures after so many seeds.
const FIGURES_AFTER: u64 = 50_000;
/// A log gets a line after this time.
const LINE_AFTER: Duration = Duration::from_secs(60);

/// As the engine has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let sum = run_all(&arguments);
    let Sum { counts, failures } = &sum;
    println!("{counts}");
    let rate = counts.runs as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} seeds a second");
    let short = counts.shortcomings();
    if !short.is_empty() {
        println!("too little: {}", short.join("; "));
    }
    println!("{} seeds failed", failures.len());
    if failures.is_empty() && short.is_empty() {
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

fn run_all(arguments: &Arguments) -> Sum {
    let Arguments {
        seeds,
        from,
        jobs,
        failures,
        ..
    } = *arguments;
    let watch = Watch::new(seeds, from);
    let sum = sim::batch(from..from.saturating_add(seeds), jobs, failures, &|sum| {
        watch.see(sum);
    });
    watch.bar.finish_and_clear();
    sum
}

/// What somebody who waits sees.
struct Watch {
    bar: ProgressBar,
    seeds: u64,
    from: u64,
    told: Mutex<Told>,
}

/// What was said already.
struct Told {
    failures: usize,
    figures: u64,
    line: Instant,
}

impl Watch {
    fn new(seeds: u64, from: u64) -> Self {
        let bar = ProgressBar::new(seeds);
        let style = "{pos} of {len} seeds  {wide_bar}  {per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
        bar.enable_steady_tick(Duration::from_millis(500));
        Watch {
            bar,
            seeds,
            from,
            told: Mutex::new(Told {
                failures: 0,
                figures: 0,
                line: Instant::now(),
            }),
        }
    }

    fn see(&self, sum: &Sum) {
        let Sum { counts, failures } = sum;
        let runs = counts.runs;
        self.bar.set_position(runs);
        let mut told = self.told.lock().expect("nobody panics while telling");
        for failure in &failures[told.failures..] {
            self.bar.suspend(|| println!("{failure}"));
        }
        told.failures = failures.len();
        if std::io::stderr().is_terminal() {
            return;
        }
        if told.line.elapsed() >= LINE_AFTER {
            told.line = Instant::now();
            let (seeds, from, failed) = (self.seeds, self.from, failures.len());
            println!("{runs} of {seeds} seeds from {from}, {failed} failed");
        }
        if runs >= told.figures + FIGURES_AFTER && runs < self.seeds {
            told.figures = runs;
            println!("{counts}\n");
        }
    }
}
