//! The benches that start receivers of several kinds work, in miniature, and leave nothing behind. No figure is judged here.

use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str], with_dir: bool) -> (Value, String) {
    // Below `target`, which is on a disk where /tmp may not be.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_harborseal-bench"));
    command.args(arguments).arg("--json");
    if with_dir {
        command.arg("--dir").arg(folder.path());
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // 3: measured, and on a busy machine not valid.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left"
    );
    (serde_json::from_slice(&output.stdout).unwrap(), said)
}

#[test]
fn stages_add_up_to_the_engine() {
    let (report, said) = bench(
        &[
            "stages",
            "--streams=20",
            "--mbps=1",
            "--seconds=0.5",
            "--repeats=1",
        ],
        true,
    );
    let stages = report["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 6, "{said}");
    let sum: f64 = stages
        .iter()
        .map(|stage| stage["cpu_ns_per_packet"].as_f64().unwrap())
        .sum();
    let total = report["total_cpu_ns_per_packet"].as_f64().unwrap();
    assert!((sum - total).abs() < 1.0, "{sum} {total}");
    for run in report["runs"].as_array().unwrap() {
        assert_eq!(run["packets"], run["sent"], "{run}");
    }
}

#[test]
fn the_fleet_is_measured_against_its_own_unpaced_loop() {
    let arguments = [
        "fleet",
        "--streams=100",
        "--seconds=0.5",
        "--repeats=1",
        "--shares=0.05",
    ];
    let (report, said) = bench(&arguments, false);
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "{said}");
    assert!(report["unpaced_packets_per_second"].as_f64().unwrap() > 0.0);
    assert!(runs[0]["share"].is_null() && runs[1]["share"] == 0.05);
}

#[test]
fn peers_get_what_harborseal_gets() {
    let arguments = [
        "peers",
        "--only=harborseal,ffmpeg,gstreamer",
        "--streams=2",
        "--seconds=3",
        "--no-search",
        "--no-install",
    ];
    let (report, said) = bench(&arguments, true);
    let peers = report["peers"].as_array().unwrap();
    let left_out = report["left_out"].as_array().unwrap();
    assert_eq!(peers.len() + left_out.len(), 3, "{said}");
    for peer in peers {
        assert!(peer["runs"][0]["sent"].as_u64().unwrap() > 500, "{peer}");
        assert!(peer["mib_per_stream"].as_f64().unwrap() > 0.0, "{peer}");
        let modest = peer["does_not"]
            .as_array()
            .unwrap()
            .iter()
            .any(|what| what == "encrypt");
        assert_eq!(modest, peer["name"] != "harborseal");
    }
}
