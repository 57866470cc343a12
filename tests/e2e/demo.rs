//! The demo as a newcomer runs it, small: every packet stored and accounted for, in words and as JSON, as root and as
//! a plain user with the limits of a default Debian 12.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harborseal_tests::harness::cli::{self, Outcome};
use harborseal_tests::harness::engine::assert_books_close;
use harborseal_tests::harness::tools::{assert_decodes, text};
use harborseal_tests::harness::{Lab, root};

const BOUND: Duration = Duration::from_secs(120);

fn small_demo(folder: &Path) -> Vec<String> {
    [
        "demo",
        "--cameras",
        "20",
        "--mbps",
        "1",
        "--seconds",
        "3",
        "--json",
        "--dir",
        text(folder),
    ]
    .map(str::to_owned)
    .into()
}

#[track_caller]
fn assert_shows_what_it_should(outcome: &Outcome, folder: &Path) {
    let report = outcome.json();
    assert_books_close(&report);
    for key in ["sent", "received", "stored"] {
        assert!(report[key].as_u64() > Some(1000), "{key}: {report}");
    }
    assert_eq!(report["sent"], report["stored"], "{report}");
    for key in ["gbps", "cpu_ns_per_packet", "durable_ms_p50", "durable_ms_p99"] {
        assert!(report[key].as_f64() > Some(0.0), "{key}: {report}");
    }
    let films: Vec<_> = cli::files_under(folder)
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "mp4"))
        .collect();
    assert_eq!(films.len(), 1, "one film in {}", folder.display());
    assert_decodes(&films[0]);
}

#[test]
fn a_small_demo_stores_every_packet_and_shows_a_film() {
    let lab = Lab::new();
    let folder = lab.path("demo");
    let mut command = Command::new(cli::binary());
    command.args(small_demo(&folder));
    let outcome = cli::run(command, BOUND).ok();
    assert_shows_what_it_should(&outcome, &folder);
}

#[test]
fn a_plain_user_with_small_limits_can_run_the_demo() {
    let name = "demo::a_plain_user_with_small_limits_can_run_the_demo";
    let lab = Lab::new();
    let folder = lab.path("demo");
    let arguments = small_demo(&folder);
    let outcome = if root::have_root(
        name,
        "root alone can become another user; run the demo itself instead",
    ) {
        // The build folder may be out of another user's reach: the binary goes where everybody can run it.
        let shared = tempfile::tempdir().expect("a temporary folder");
        let binary = shared.path().join("harborseal");
        std::fs::copy(cli::binary(), &binary).expect("the binary can be copied");
        let folder = shared.path().join("demo");
        let script = format!(
            "chmod 777 {0} && ulimit -l 8192 && ulimit -n 1024 && exec setpriv --reuid=65534 --regid=65534 --clear-groups {1} {2}",
            text(shared.path()),
            text(&binary),
            small_demo(&folder).join(" ")
        );
        let mut command = Command::new("bash");
        command.args(["-c", &script]);
        let outcome = cli::run(command, BOUND).ok();
        assert_shows_what_it_should(&outcome, &folder);
        outcome
    } else {
        let mut command = Command::new(cli::binary());
        command.args(&arguments);
        cli::run(command, BOUND).ok()
    };
    // It says what it did without, and how to have it.
    assert!(outcome.stderr.contains("memlock"), "{}", outcome.stderr);
}
