//! `ndr` against a receiver whose limit is known: it takes 20 packets in each 20 ms of the packets' own intended time, and says
//! what it took as the engine says it. So the truth does not depend on how busy the machine is that runs the test.

use harborseal_loadgen::mark::MARK_BYTES;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Streams of 50 packets per second that the receiver can take.
const LIMIT: u64 = 20;
const WINDOW_NS: u64 = 20_000_000;
const SAYS_EVERY: Duration = Duration::from_millis(40);

/// Ten cameras that send 160 bytes of audio every 20 ms. Lateness is no matter here.
const PROFILE: &str = "\
name = \"audio\"
lateness_budget = \"5s\"
rtcp = \"off\"
[[group]]
name = \"audio\"
count = 10
codec = \"pcmu\"
";

/// The receiver, until dropped.
struct Limited {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Limited {
    fn start(lines: &Path) -> Limited {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        socket
            .set_read_timeout(Some(SAYS_EVERY))
            .expect("a timeout above zero");
        // As large as the system lets it be: what this receiver loses must be what it says it loses.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &(4 << 20))
            .expect("an option of sockets");
        let port = socket.local_addr().expect("bound").port();
        let file = File::create(lines).expect("a file");
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || receive(&socket, file, &asked));
        Limited {
            port,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the receiver does not panic");
        }
    }
}

fn receive(socket: &UdpSocket, mut file: File, stop: &AtomicBool) {
    let (mut received, mut stored) = (0u64, 0u64);
    let mut windows: HashMap<u64, u64> = HashMap::new();
    let mut buffer = [0; 2048];
    let mut said = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(len) = socket.recv(&mut buffer) {
            assert!(len >= 12 + MARK_BYTES, "only marked packets come");
            // The mark's intended time (see `mark`).
            let at = 12 + 22;
            let intended_ns = u64::from_be_bytes(buffer[at..at + 8].try_into().expect("eight bytes"));
            let window = windows.entry(intended_ns / WINDOW_NS).or_default();
            received += 1;
            stored += u64::from(*window < LIMIT);
            *window += 1;
        }
        if said.elapsed() >= SAYS_EVERY {
            said = Instant::now();
            let dropped = received - stored;
            let line = format!(
                "{{\"event\":\"progress\",\"received\":{received},\"stored\":{stored},\"dropped\":{{\"limit\":{dropped}}},\"in_flight\":0}}\n"
            );
            file.write_all(line.as_bytes()).expect("a file");
        }
    }
}

/// A folder with the profile, a receiver, and `ndr` with these arguments.
fn ndr(more: &[&str]) -> (Output, Option<Value>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let profile = folder.path().join("audio.toml");
    std::fs::write(&profile, PROFILE).expect("a file");
    let lines = folder.path().join("engine.jsonl");
    let receiver = Limited::start(&lines);
    let mut command = Command::new(env!("CARGO_BIN_EXE_harborseal-loadgen"));
    command
        .arg("ndr")
        .arg(&profile)
        .args(["--dim", "streams", "--trial", "0.4", "--final", "0.8"]);
    command
        .arg("--target")
        .arg(format!("127.0.0.1:{}", receiver.port));
    command.arg("--engine-stats").arg(&lines).args(["--json"]);
    command.arg("-o").arg(folder.path().join("search")).args(more);
    let output = command.output().expect("the binary is built with the tests");
    let result = serde_json::from_slice(&output.stdout).ok();
    if let Some(result) = &result {
        let kept = std::fs::read(folder.path().join("search/ndr.json")).expect("written");
        assert_eq!(serde_json::from_slice::<Value>(&kept).ok().as_ref(), Some(result));
        assert!(folder.path().join("search/trial-001/run.json").is_file());
    }
    (output, result)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_limit_of_each_goal_is_found_to_the_stream() {
    // At 21 streams one packet of 21 is lost, at 22 two of 22.
    let (output, result) = ndr(&["--goal", "0", "--goal", "8%"]);
    let result = result.unwrap_or_else(|| panic!("no result: {}", stderr(&output)));
    for (goal, truth) in result["goals"]
        .as_array()
        .expect("goals")
        .iter()
        .zip([LIMIT, LIMIT + 1])
    {
        let met = goal["met"]["load"].as_f64();
        // Whatever the machine: nothing above the limit is ever said to have met the goal.
        assert!(met.is_none_or(|met| met <= truth as f64), "{goal}");
        if goal["verdict"] == "bracketed" {
            assert_eq!(
                (met, goal["exceeded"]["load"].as_f64()),
                (Some(truth as f64), Some(truth as f64 + 1.0)),
                "{goal}"
            );
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        } else {
            // The machine was too busy to send a few hundred packets a second in time, and the search says so.
            assert_eq!(
                (&goal["verdict"], output.status.code()),
                (&"generator_limited".into(), Some(3)),
                "{goal}"
            );
        }
    }
    let trials = result["trials"].as_array().expect("trials").len();
    assert!((4..=40).contains(&trials), "{trials} trials\n{}", stderr(&output));
}

#[test]
fn a_highest_and_a_lowest_load_bound_what_is_said() {
    let (output, result) = ndr(&["--max", "15"]);
    let goal = result
        .map(|result| result["goals"][0].clone())
        .unwrap_or_default();
    let valid = goal["verdict"] == "at_least";
    assert!(
        valid && output.status.success() || output.status.code() == Some(3),
        "{goal}\n{}",
        stderr(&output)
    );
    let (output, result) = ndr(&["--min", "40", "--max", "60"]);
    let goal = result
        .map(|result| result["goals"][0].clone())
        .unwrap_or_default();
    let below = goal["verdict"] == "below_lowest";
    assert!(
        below && output.status.code() == Some(1) || output.status.code() == Some(3),
        "{goal}\n{}",
        stderr(&output)
    );
}

#[test]
fn what_cannot_be_searched_is_a_usage_error_before_anything_is_sent() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harborseal-loadgen"));
        let output = command
            .arg("ndr")
            .args(arguments)
            .output()
            .expect("the binary is built with the tests");
        (output.status.code(), stderr(&output))
    };
    let stats = ["--engine-stats", "/dev/null"];
    let (status, text) = run(&["tiny", "--dim", "streams"]);
    assert!(status == Some(2) && text.contains("--engine-stats"), "{text}");
    let (status, text) = run(&[
        &["tiny", "--dim", "streams", "--min", "9", "--max", "3"][..],
        &stats,
    ]
    .concat());
    assert!(
        status == Some(2) && text.contains("--min 9 streams is above --max 3 streams"),
        "{text}"
    );
    let (status, text) = run(&[&["tiny", "--dim", "watts"][..], &stats].concat());
    assert!(status == Some(2) && text.contains("streams"), "{text}");
    let (status, text) = run(&[&["tiniest", "--dim", "pps"][..], &stats].concat());
    assert!(status == Some(2) && text.contains("tiniest"), "{text}");
    let (status, text) = run(&[
        &["tiny", "--dim", "pps", "--trial", "20s", "--final", "10s"][..],
        &stats,
    ]
    .concat());
    assert!(
        status == Some(2) && text.contains("--final is below --trial"),
        "{text}"
    );
}
