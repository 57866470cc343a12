//! The line rate bench works, in miniature: what it says adds up, and nothing is left behind. No figure is judged here.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Below `target`, which is on a disk where /tmp may not be.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn bench(arguments: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_harborseal-bench"))
        .args(arguments)
        .arg("--dir")
        .arg(dir)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_small_run_adds_up_and_leaves_nothing() {
    let dir = folder();
    let json = dir.path().join("result.json");
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let option = format!("--json={}", json.display());
    let arguments = [
        "line-rate",
        "--streams=20",
        "--mbps=0.5",
        "--seconds=0.4",
        "--repeats=1",
        &option,
    ];
    let (status, table, said) = bench(&arguments, &data);
    let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    // On a busy machine the fleet may come late; then the result says so, and so does the status.
    assert_eq!(
        status,
        Some(if result["valid"] == true { 0 } else { 3 }),
        "{said}"
    );
    let number = |key: &str| {
        result[key]
            .as_i64()
            .unwrap_or_else(|| panic!("no {key}: {result}"))
    };
    assert!(number("sent") > 0);
    assert_eq!(number("lost_unexplained"), number("sent") - number("received"));
    assert_eq!(number("received"), number("stored") + number("dropped"));
    for key in [
        "gbps",
        "engine_cpu_ns_per_packet",
        "rss_mib",
        "durable_ms_p50",
        "durable_ms_p99",
    ] {
        assert!(
            result[key].as_f64().is_some_and(|value| value > 0.0),
            "{key}: {result}"
        );
    }
    for key in ["discard_cpu_ns_per_packet", "ratio"] {
        assert!(
            result[key].as_f64().is_some_and(|value| value > 0.0),
            "{key}: {result}"
        );
    }
    assert_eq!(result["engine_runs"].as_array().unwrap().len(), 1);
    assert!(
        table.contains("ratio") && table.contains("lost, unexplained"),
        "{table}"
    );
    assert_eq!(
        std::fs::read_dir(&data).unwrap().count(),
        0,
        "what it wrote is removed"
    );
}

#[test]
fn no_room_on_the_disk_is_said_before_anything_runs() {
    let dir = folder();
    let (status, _, said) = bench(&["line-rate", "--streams=10000", "--seconds=10000"], dir.path());
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("GB free") && said.contains("--dir"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
