//! The fuzzers' corpora as ordinary tests: every file of `corpus/`, and every past find in `found/`, goes once through the function that
//! the fuzzer of its folder calls. The fuzzers themselves, which look for more, are `tests/fuzz/run`.

#[path = "src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target};

/// What a corpus may take of the repository: enough to reach everything, few enough to be run in every test run.
const FILES_MAX: usize = 100;
const BYTES_MAX: u64 = 300 << 10;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files in a folder, sorted; none if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn names(folder: &str) -> BTreeSet<String> {
    let stem = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    files(&home().join(folder)).iter().map(stem).collect()
}

/// Runs every file of a target; returns those that broke it.
fn broken(name: &str, target: Target) -> Vec<PathBuf> {
    let inputs = ["corpus", "found"].map(|folder| files(&home().join(folder).join(name)));
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).expect("it was just listed");
        catch_unwind(|| target(&bytes)).is_ok()
    };
    inputs.into_iter().flatten().filter(|path| !holds(path)).collect()
}

#[test]
fn no_corpus_file_and_no_past_find_breaks_its_target() {
    std::thread::scope(|scope| {
        let runs = TARGETS.map(|(name, target)| (name, scope.spawn(move || broken(name, target))));
        for (name, run) in runs {
            let broken = run.join().expect("panics are caught file by file");
            assert!(
                broken.is_empty(),
                "{name}: {broken:?}; what panicked is told above"
            );
        }
    });
}

#[test]
fn every_target_is_one_line_and_has_a_corpus_and_a_fuzzer() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), known);
    assert_eq!(names("corpus"), known);
    assert!(names("found").is_subset(&known));
    for name in known {
        let program =
            std::fs::read_to_string(home().join(format!("fuzz_targets/{name}.rs"))).expect("a program");
        let line = format!("libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::{name}(data));");
        assert!(program.lines().any(|found| found == line), "{name}");
    }
}

#[test]
fn corpora_stay_small() {
    for (name, _) in TARGETS {
        let files = files(&home().join("corpus").join(name));
        let bytes: u64 = files
            .iter()
            .map(|path| path.metadata().expect("a file").len())
            .sum();
        assert!(
            (1..=FILES_MAX).contains(&files.len()),
            "{name}: {} files",
            files.len()
        );
        assert!(bytes <= BYTES_MAX, "{name}: {bytes} bytes");
    }
}
