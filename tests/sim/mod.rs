//! The simulator: the engine's own decisions under a virtual clock, network, file system and disk.
//!
//! ```text
//!   plan ── a seed decides: cameras, limits, faults and when they stop, and how the run ends
//!    │
//!   traffic ─▶ sockets ─▶ world ─▶ shard::core::Core  ◀─▶ shard::links      the shipped code, and its order of calls
//!                           │          │ writes, syncs          │ requests
//!                           │          ▼                        ▼
//!                           │        disk                     keeper ─▶ log::keeper::Keeper
//!                           │          └──────▶ platter ◀───────┘
//!                           ▼                      │ crash: any subset of what no fsync covered survives
//!                         check ◀── recover ◀──────┘
//! ```
//!
//! Replaced are the ring (`uring`), the clocks, the file system and the operating system's randomness; everything that decides runs as
//! shipped. One seed is one run of one engine, from its start to a crash or a stop, then recovery, then every check of [`check`].
//! Nothing here reads a clock or draws a random number that does not come from the seed, so a seed tells the same story every time.
//!
//! A broken promise is a panic that says which; [`run`] turns it into a [`Failure`]. Every checker has a [`Canary`]: a fault planted in the
//! simulated world that it must catch.

pub mod canary;
pub mod check;
pub mod disk;
pub mod keeper;
pub mod keys;
pub mod machine;
pub mod packets;
pub mod plan;
pub mod platter;
pub mod recovery;
pub mod shard;
pub mod survivors;
pub mod tally;
pub mod traffic;
pub mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub use canary::Canary;
pub use tally::{Counts, Fired, Tally};

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which seed.
    pub seed: u64,
    /// Which promise, and where.
    pub story: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { seed, story } = self;
        writeln!(f, "seed {seed}: {story}")?;
        write!(
            f,
            "replay: cargo run --release -p harborseal-tests --bin simulate -- --seed {seed}"
        )
    }
}

/// Lives one seed through. What fired is added to `tally` whether it fails or not.
pub fn run(seed: u64, canary: Option<Canary>, tally: &Tally) -> Result<(), Failure> {
    let lived = catch_unwind(AssertUnwindSafe(|| machine::live(seed, canary, tally)));
    tally.end_of_run();
    lived.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let story = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let story = story.unwrap_or("a panic without words").to_owned();
        Failure { seed, story }
    })
}

/// Seeds after which a job adds its counts to the sum.
const ADD_AFTER: u64 = 50;

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// What fired.
    pub counts: Counts,
    /// What failed.
    pub failures: Vec<Failure>,
}

/// Lives many seeds through, `jobs` at once; a job ends after `most_failures`. `watch` sees the sum now and then while it grows.
pub fn batch(seeds: Range<u64>, jobs: usize, most_failures: usize, watch: &(dyn Fn(&Sum) + Sync)) -> Sum {
    // A huge page takes longer to clear than most seeds need it for. Where that cannot be asked for, it takes longer.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    let add = |tally: &Tally, failed: Option<Failure>| {
        let mut sum = sum.lock().expect("no thread panics while it adds");
        sum.counts.merge(&tally.take());
        sum.failures.extend(failed);
        watch(&sum);
    };
    let work = || {
        let tally = Tally::default();
        let (mut lived, mut failures) = (0, 0);
        while failures < most_failures {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let failed = run(seed, None, &tally).err();
            failures += usize::from(failed.is_some());
            lived += 1;
            if failed.is_some() || lived % ADD_AFTER == 0 {
                add(&tally, failed);
            }
        }
        add(&tally, None);
    };
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    sum.into_inner().expect("no thread panics while it adds")
}
