//! The control plane: health, readiness and figures, in the words that monitoring understands.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harborseal_tests::harness::engine::BOUND;
use harborseal_tests::harness::net::{http_get, wait_until_taken};
use harborseal_tests::harness::{Camera, Lab, Sender, Stream};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn health_readiness_and_metrics_are_served() {
    let mut lab = Lab::new();
    lab.section("control", &format!("listen = \"127.0.0.1:{}\"", lab.port));
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    let engine = lab.start();
    assert_eq!(http_get(lab.port, "/healthz").0, 200);
    assert_eq!(http_get(lab.port, "/readyz").0, 200);
    assert_eq!(http_get(lab.port, "/nothing-here").0, 404);
    let mut sender = Sender::from("127.0.0.1", lab.address());
    sender.send_all(&Stream::new(1).packets(700));
    sender.send_all(&Stream::new(2).packets(30));
    wait_until_taken(lab.port);

    let until = std::time::Instant::now() + harborseal_tests::harness::engine::BOUND;
    let metrics = loop {
        let (status, text) = http_get(lab.port, "/metrics");
        assert_eq!(status, 200);
        if sum_of(&text, "stored") == 700 && sum_of(&text, "dropped") == 30 {
            break text;
        }
        assert!(
            std::time::Instant::now() < until,
            "the figures never came:\n{text}"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert_eq!(sum_of(&metrics, "received"), 730, "{metrics}");
    for line in metrics.lines() {
        assert!(
            line.starts_with('#') || line.starts_with("harborseal_"),
            "no metric of ours: {line}"
        );
    }
    lab.settle_and_stop(engine);
}

/// A supervisor that never reads, or that has gone away, costs its own lines and nothing else.
#[test]
fn a_reader_that_is_slow_or_gone_neither_blocks_nor_kills() {
    for gone in [false, true] {
        let mut lab = Lab::new();
        lab.section("control", &format!("listen = \"127.0.0.1:{}\"", lab.port));
        lab.customer("alice");
        lab.camera(Camera::new("front-door", "alice", 1));
        lab.write_config();
        // A pipe holds 64 KiB (pipe(7)): the engine's first line finds it full.
        let (reader, mut full) = std::io::pipe().expect("a pipe");
        full.write_all(&[b'\n'; 65_536]).expect("it fits");
        let reader = (!gone).then_some(reader);
        let mut engine = Command::new(harborseal_tests::harness::cli::binary())
            .args(["run", "--log", "json", "--config"])
            .arg(lab.config())
            .stdout(full)
            .stderr(Stdio::null())
            .spawn()
            .expect("the engine can be started");
        let until = Instant::now() + BOUND;
        let stored = |count| {
            let connected = TcpStream::connect(("127.0.0.1", lab.port)).is_ok();
            connected && sum_of(&http_get(lab.port, "/metrics").1, "stored") == count
        };
        let wait = |count| {
            while !stored(count) {
                assert!(
                    Instant::now() < until,
                    "{count} packets were never stored, gone: {gone}"
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        wait(0);
        while http_get(lab.port, "/readyz").0 != 200 {
            assert!(Instant::now() < until, "never ready, gone: {gone}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Sender::from("127.0.0.1", lab.address()).send_all(&Stream::new(1).packets(300));
        wait(300);
        kill(Pid::from_raw(engine.id() as i32), Signal::SIGTERM).expect("the engine is ours to signal");
        let status = harborseal_tests::harness::cli::wait(&mut engine, BOUND);
        assert_eq!(status.and_then(|status| status.code()), Some(0), "gone: {gone}");
        drop(reader);
    }
}

/// Without a terminal, the line that says ready is on stdout too, alone: a supervisor waits for it.
#[test]
fn ready_is_said_on_stdout_and_on_stderr() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    lab.write_config();
    let mut engine = Command::new(harborseal_tests::harness::cli::binary())
        .args(["run", "--config"])
        .arg(lab.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the engine can be started");
    let mut stdout = BufReader::new(engine.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("text");
    assert!(line.starts_with("ready"), "{line:?}");
    kill(Pid::from_raw(engine.id() as i32), Signal::SIGINT).expect("the engine is ours to signal");
    let status = harborseal_tests::harness::cli::wait(&mut engine, BOUND);
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    let (mut more, mut people) = (String::new(), String::new());
    stdout.read_to_string(&mut more).expect("text");
    assert_eq!(more, "", "nothing but the ready line");
    engine
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut people)
        .expect("text");
    assert!(people.lines().any(|line| line.starts_with("ready")), "{people}");
    assert!(
        people.contains("received = stored + dropped"),
        "the ledger ends it: {people}"
    );
}

/// The sum of `harborseal_<what>_packets_total` over its labels.
fn sum_of(metrics: &str, what: &str) -> u64 {
    let name = format!("harborseal_{what}_packets_total");
    let lines = metrics.lines().filter(|line| line.starts_with(&name));
    lines
        .map(|line| {
            line.rsplit(' ')
                .next()
                .and_then(|n| n.parse::<f64>().ok())
                .expect("a number") as u64
        })
        .sum()
}
