//! The simulator in the test run: a batch of seeds in which every fault fires, and every canary caught.

use harborseal_tests::sim::{self, Canary, Tally};

/// As the engine has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds of one test run; `simulate` takes any number.
const SEEDS: u64 = 1000;
/// A planted fault is caught in one of so many seeds; most are in the first.
const CANARY_SEEDS: u64 = 400;

#[test]
fn no_seed_breaks_a_promise_and_every_fault_fires() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let sim::Sum { counts, failures } = sim::batch(0..SEEDS, jobs, 5, &|_| {});
    println!("{counts}");
    let stories: Vec<String> = failures.iter().map(|failure| failure.to_string()).collect();
    assert!(
        failures.is_empty(),
        "{} seeds failed:\n{}",
        failures.len(),
        stories.join("\n")
    );
    let shortcomings = counts.shortcomings();
    assert!(shortcomings.is_empty(), "too rare: {shortcomings:?}");
}

#[test]
fn every_planted_fault_is_caught() {
    for canary in Canary::ALL {
        let tally = Tally::default();
        let caught = (0..CANARY_SEEDS).find_map(|seed| sim::run(seed, Some(canary), &tally).err());
        let caught = caught.unwrap_or_else(|| panic!("{canary:?} was not caught in {CANARY_SEEDS} seeds"));
        println!("{canary:?}: {}", caught.story);
    }
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    let story = |seed| {
        let tally = Tally::default();
        let outcome = sim::run(seed, None, &tally).map_err(|failure| failure.story);
        (outcome, tally.counts().to_string())
    };
    for seed in 0..10 {
        assert_eq!(story(seed), story(seed), "seed {seed}");
    }
}
