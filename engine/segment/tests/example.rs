//! The example does what its first line says. Cargo builds it beside the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// Runs the example over a test vector with the identity of `name`.
fn packets(vector: &str, name: &str) -> Output {
    let keys = std::fs::read_to_string(vectors().join("keys.json")).expect("keys.json");
    let (_, after) = keys
        .split_once(&format!("\"{name}\": {{"))
        .expect("an identity of that name");
    let from = after.find("hss1").expect("it has a secret");
    let secret = after[from..].split('"').next().expect("quoted");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let identity = dir.path().join("identity");
    std::fs::write(&identity, format!("# {name}\n{secret}\n")).expect("write");
    Command::new(example())
        .arg(vectors().join("good").join(vector))
        .arg(&identity)
        .output()
        .expect("the example runs")
}

/// Where cargo put it. A run of all tests builds examples before them; a run of this file alone does not.
fn example() -> PathBuf {
    let tests = std::env::current_exe().expect("this test is a file");
    let profile = tests.parent().and_then(Path::parent).expect("it stands in deps/");
    let example = profile.join("examples/packets");
    if !example.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--locked",
            "--example",
            "packets",
            "--package",
            "harborseal-segment",
        ]);
        cargo.args(profile.ends_with("release").then_some("--release"));
        assert!(cargo.status().expect("cargo runs").success());
    }
    example
}

#[test]
fn the_example_counts_the_packets_of_its_identity() {
    let output = packets("two-streams-of-one-camera.hseal", "alice");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort();
    assert_eq!(lines, ["front-door 1: 4 packets", "front-door 2: 8 packets"]);
}

#[test]
fn the_example_says_when_nothing_is_for_its_identity() {
    let output = packets("two-streams-of-one-camera.hseal", "mallory");
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn the_example_is_short() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/packets.rs");
    let lines = std::fs::read_to_string(path)
        .expect("it is there")
        .lines()
        .count();
    assert!(lines <= 40, "{lines} lines");
}
