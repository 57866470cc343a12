//! The benches of verify, recover and read work, in miniature, so that they do not rot between measurements.

use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_harborseal-bench"))
        .args(arguments)
        .args(["--repeats", "1", "--json", "--dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn verify_is_measured_beside_its_library() {
    for more in [&[][..], &["--strong-leaf"]] {
        let report = bench(&[&["verify", "--gib", "0.02", "--segments", "2"], more].concat());
        assert_eq!(report["figures"].as_array().unwrap().len(), 4);
        assert!(report["share_of_opening_alone"].as_f64().unwrap() > 0.0);
        assert!(report["bytes"].as_u64().unwrap() > 20 << 20);
    }
}

#[test]
fn recovery_is_measured_by_the_gibibyte() {
    let report = bench(&["recover", "--gib", "0.01,0.02"]);
    let figures = report["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 6);
    for figure in figures {
        assert!(figure["seconds_per_gib"].as_f64().unwrap() > 0.0, "{figure}");
        assert!(figure["written"].as_u64().unwrap() > 0, "{figure}");
    }
}

#[test]
fn list_and_export_read_what_they_need_and_no_more() {
    let report = bench(&[
        "read",
        "--gib",
        "0.1",
        "--segments",
        "2",
        "--cameras",
        "4000",
        "--chunk-kib",
        "4",
    ]);
    assert!(report["segment_bytes"].as_u64().unwrap() > 100 << 20);
    let figures = report["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 4);
    for figure in figures {
        // Exactly: of every segment head, footer, index, KEY and STREAM blocks, and of an export the one camera's chunks.
        assert_eq!(figure["bytes_read"], figure["bytes_needed"], "{figure}");
    }
}
