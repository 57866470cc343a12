//! `report`, `compare` and `doctor` as processes: what they print, write, and end with.

use harborseal_loadgen::output::RunFolder;
use harborseal_loadgen::result::{RunResult, SCHEMA, Second};
use std::path::Path;
use std::process::{Command, Output};

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_harborseal-loadgen"))
        .args(arguments)
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A run's folder, `p99` late.
fn run(path: &Path, p99: f64, change: impl Fn(&mut RunResult)) {
    let mut result = RunResult {
        schema: SCHEMA.to_owned(),
        profile: "city".to_owned(),
        started: format!("2026-11-23T21:00:{:02}Z", (p99 * 10.0) as u64 % 60),
        valid: true,
        ..RunResult::default()
    };
    result.load.intended = 1000;
    result.load.sent = 1000;
    result.sending.lateness_ms.p99 = p99;
    result.environment.insert("kernel".to_owned(), "6.18".to_owned());
    result.seconds.push(Second {
        sent: 1000,
        sent_bytes: 1_200_000,
        ..Second::default()
    });
    change(&mut result);
    let folder = RunFolder::create(path, false).expect("a new folder");
    folder.write_result(&result).expect("written");
}

#[test]
fn a_report_is_words_or_a_page_and_without_a_run_a_usage_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("run");
    let name = path.display().to_string();
    run(&path, 1.5, |_| {});
    let words = loadgen(&["report", &name]);
    assert!(
        words.status.success() && text(&words.stdout).contains("p99 1.5 ms"),
        "{words:?}"
    );
    assert!(loadgen(&["report", &name, "--html"]).status.success());
    let page = std::fs::read_to_string(path.join("report.html")).expect("DIR/report.html");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    let out = loadgen(&["report", &name, "--html", "-o", "-"]);
    assert_eq!(text(&out.stdout), page, "the same page on stdout");
    let none = loadgen(&["report", &dir.path().display().to_string()]);
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("run.json"), "{none:?}");
}

#[test]
fn two_builds_are_told_apart_and_the_gate_fails() {
    let dir = tempfile::tempdir().expect("a folder");
    for index in 0..5 {
        // Interleaved: A, B, A, B.
        run(
            &dir.path().join(format!("a/{index}")),
            1.0 + f64::from(index) * 0.4,
            |_| {},
        );
        run(
            &dir.path().join(format!("b/{index}")),
            1.2 + f64::from(index) * 0.4,
            |run| run.sending.lateness_ms.p99 += 3.0,
        );
    }
    let (a, b) = (
        dir.path().join("a").display().to_string(),
        dir.path().join("b").display().to_string(),
    );
    let worse = loadgen(&["compare", &a, &b, "--fail-if", "lateness_ms_p99>+5%"]);
    assert_eq!(worse.status.code(), Some(1), "{worse:?}");
    assert!(
        text(&worse.stdout).contains("WORSE") && text(&worse.stderr).contains("crossed"),
        "{worse:?}"
    );
    assert!(!text(&worse.stdout).contains("Interleave"), "they were");
    let better = loadgen(&["compare", &b, &a, "--fail-if", "lateness_ms_p99>+5%", "--json"]);
    assert!(better.status.success(), "{better:?}");
    let outcome: serde_json::Value = serde_json::from_slice(&better.stdout).expect("JSON");
    assert_eq!(outcome["conclusive"], true);
    assert_eq!(outcome["rows"][0]["told"], "better");
}

#[test]
fn a_run_a_side_shows_its_figures_and_concludes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    run(&a, 1.0, |_| {});
    run(&b, 2.0, |_| {});
    let out = loadgen(&[
        "compare",
        &a.display().to_string(),
        "--b",
        &b.display().to_string(),
    ]);
    assert!(out.status.success(), "{out:?}");
    assert!(text(&out.stdout).contains("Nothing can be concluded"), "{out:?}");
}

#[test]
fn unlike_environments_and_invalid_runs_are_refused_unless_forced() {
    let dir = tempfile::tempdir().expect("a folder");
    let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
    run(&a, 1.0, |_| {});
    run(&b, 2.0, |run| {
        drop(run.environment.insert("kernel".to_owned(), "5.10".to_owned()))
    });
    run(&c, 3.0, |run| {
        run.valid = false;
        run.invalid_because = vec!["packets left late".to_owned()];
    });
    let [a, b, c] = [a, b, c].map(|path| path.display().to_string());
    let unlike = loadgen(&["compare", &a, &b]);
    assert_eq!(unlike.status.code(), Some(2));
    assert!(
        text(&unlike.stderr).contains("kernel: A 6.18, B 5.10"),
        "{unlike:?}"
    );
    assert!(loadgen(&["compare", &a, &b, "--force"]).status.success());
    let invalid = loadgen(&["compare", &a, &c]);
    assert_eq!(invalid.status.code(), Some(3));
    assert!(text(&invalid.stderr).contains("packets left late"), "{invalid:?}");
    for bad in [
        &["compare", &a][..],
        &["compare", &a, "/nowhere"],
        &["compare", &a, &a, "--fail-if", "sent>5%"],
    ] {
        assert_eq!(loadgen(bad).status.code(), Some(2), "{bad:?}");
    }
    let not_there = loadgen(&["compare", &a, &a, "--fail-if", "stored_loss>+0"]);
    assert_eq!(not_there.status.code(), Some(2));
    assert!(text(&not_there.stderr).contains("not measured"), "{not_there:?}");
}

#[test]
fn the_doctor_names_every_check_and_its_status_follows_them() {
    let out = loadgen(&["doctor", "--quick", "--json"]);
    let outcome: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let checks = outcome["checks"].as_array().expect("a list");
    let spoilt = checks.iter().any(|check| check["grade"] == "FAIL");
    assert_eq!(out.status.code(), Some(i32::from(spoilt)), "{out:?}");
    assert_eq!(outcome["fit"], !spoilt);
    for name in ["rmem_max", "UDP_SEGMENT", "io_uring", "disk", "clock", "steal"] {
        assert!(checks.iter().any(|check| check["name"] == name), "{name}");
    }
}
