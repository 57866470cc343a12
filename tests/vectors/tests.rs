//! The vectors themselves: they come out the same each time, there are enough, every rule has some, and the crate agrees with all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use harborseal_tests::vectors::{self, check::check, expect::Vector};

/// Findings that depend on more than files: on processes, on what was asked for, on segments that were left out on purpose.
const NOT_OF_FILES: [&str; 3] = ["not_attested", "segments_not_given", "unclosed"];
/// The least of each kind.
const ENOUGH: usize = 60;
/// The folder is cloned with the repository: mostly zeros, less than a tenth of this when packed.
const MAX_BYTES: usize = 12 << 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// All files under `dir`, by their path in it.
fn files_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).expect("the folder can be read") {
            let path = entry.expect("its entries can be read").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = fs::read(&path).expect("its files can be read");
                files.insert(path.strip_prefix(dir).expect("found inside").to_path_buf(), bytes);
            }
        }
    }
    files
}

#[test]
fn the_vectors_come_out_byte_for_byte_as_they_are_in_the_repository() {
    let made = vectors::files(&vectors::all());
    let dir = tempfile::tempdir().expect("a folder for a while");
    vectors::write(&made, dir.path()).expect("it can be written to");
    let written = files_in(dir.path());
    for kind in ["good", "bad"] {
        let (here, there) = (files_in(&folder().join(kind)), files_in(&dir.path().join(kind)));
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&here), names(&there), "{kind}: the same files, no more");
    }
    for (path, bytes) in written {
        let here = fs::read(folder().join(&path)).unwrap_or_default();
        assert!(here == bytes, "{}: run `vectors generate`", path.display());
    }
    // A second time, in the same process: nothing carries over.
    assert!(vectors::files(&vectors::all()) == made);
}

#[test]
fn the_segment_crate_agrees_with_every_vector() {
    let told: Vec<String> = vectors::all().iter().flat_map(check).collect();
    assert!(
        told.is_empty(),
        "{} disagreements:\n{}",
        told.len(),
        told.join("\n")
    );
}

#[test]
fn there_are_enough_vectors_each_about_something() {
    let all = vectors::all();
    let (good, bad): (Vec<_>, Vec<_>) = all.iter().partition(|vector| vector.good);
    assert!(
        good.len() >= ENOUGH && bad.len() >= ENOUGH,
        "{} good, {} bad",
        good.len(),
        bad.len()
    );
    let names: BTreeSet<&str> = all.iter().map(|vector| vector.name.as_str()).collect();
    assert_eq!(names.len(), all.len(), "each has a name of its own");
    let bytes: usize = vectors::files(&all).values().map(Vec::len).sum();
    assert!(bytes < MAX_BYTES, "{bytes} bytes");
    for vector in all {
        assert!(!vector.about.is_empty(), "{}", vector.name);
        assert_eq!(vector.error.is_some(), !vector.good, "{}", vector.name);
        assert_eq!(vector.refused_by.is_empty(), vector.good, "{}", vector.name);
        let clean = vector
            .findings
            .iter()
            .flatten()
            .all(|finding| finding.severity == "note");
        assert!(clean, "{}: what is accepted has notes at most", vector.name);
    }
}

#[test]
fn every_rule_of_the_format_has_a_vector_and_every_named_rule_exists() {
    let format = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMAT.md");
    let format = fs::read_to_string(format).expect("the format is described");
    let rules = rules_in(&format);
    assert!(rules.len() >= 47, "{} rules", rules.len());
    let all = vectors::all();
    let shown: BTreeSet<String> = all.iter().flat_map(|vector| vector.musts.clone()).collect();
    assert_eq!(
        rules, shown,
        "each rule of docs/FORMAT.md has a vector, and each vector's rules are there"
    );
    let readme = fs::read_to_string(folder().join("README.md")).expect("the README can be read");
    let mut in_table = BTreeSet::new();
    for line in readme.lines().filter(|line| line.starts_with("| M")) {
        in_table.insert(line[2..].split(' ').next().expect("a word").to_string());
        for name in line.split('[').skip(1).filter_map(|part| part.split(']').next()) {
            assert!(named(&all, name), "the README's table names {name}");
        }
    }
    assert_eq!(in_table, rules, "the README's table has a line for each rule");
}

#[test]
fn every_class_of_finding_has_a_vector_and_every_expected_class_exists() {
    let format = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMAT.md");
    let format = fs::read_to_string(format).expect("the format is described");
    let section = format
        .split("\n## ")
        .find(|section| section.starts_with("13. "))
        .expect("§13");
    let first_cells = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = first_cells.flat_map(|cell| cell.split('`').step_by(2));
    let mut classes: BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
    for class in NOT_OF_FILES {
        assert!(classes.remove(class), "{class} is in §13");
    }
    let all = vectors::all();
    let noted = all
        .iter()
        .flat_map(|vector| vector.findings.iter().flatten().map(|found| found.class.as_str()));
    let errors = all
        .iter()
        .filter_map(|vector| Some(vector.error.as_ref()?.class.as_str()));
    assert_eq!(noted.chain(errors).collect::<BTreeSet<_>>(), classes);
}

fn named(all: &[Vector], name: &str) -> bool {
    all.iter().any(|vector| vector.name == name) && folder().join(format!("{name}.json")).exists()
}

/// Every `[M…]` in the text, also where several stand in one pair of brackets.
fn rules_in(text: &str) -> BTreeSet<String> {
    let bracketed = text.split('[').skip(1).filter_map(|part| part.split(']').next());
    let rule = |word: &str| {
        let number = word.trim().strip_prefix('M')?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| word.trim().to_string())
    };
    bracketed
        .flat_map(|inside| inside.split(',').filter_map(rule).collect::<Vec<_>>())
        .collect()
}
