//! The benchmark itself works, in miniature, so that it does not rot between measurements.

use std::process::Command;

#[test]
fn every_part_yields_a_figure() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_harborseal-bench"))
        .args([
            "ceilings",
            "--seconds",
            "0.02",
            "--repeats",
            "1",
            "--json",
            "--dir",
        ])
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for part in ["receive", "seal", "write", "copy"] {
        let figures = report[part].as_array().unwrap();
        assert!(!figures.is_empty());
        for figure in figures {
            assert!(figure["gbps"].as_f64().unwrap() > 0.0, "{part}: {figure}");
            assert_eq!(figure["runs"].as_array().unwrap().len(), 1);
            assert!(text.contains(figure["name"].as_str().unwrap()));
        }
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "the written file is removed"
    );
}

#[test]
fn one_part_alone_can_be_asked_for() {
    let output = Command::new(env!("CARGO_BIN_EXE_harborseal-bench"))
        .args([
            "ceilings",
            "--seconds",
            "0.01",
            "--repeats",
            "2",
            "--only",
            "copy",
            "--json",
        ])
        .output()
        .unwrap();
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["receive"].as_array().unwrap().len(), 0);
    assert_eq!(report["copy"][0]["runs"].as_array().unwrap().len(), 2);
}
