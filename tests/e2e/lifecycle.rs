//! The life of a run, as those who supervise it see it: ready, one at a time, ended by either signal, the ledger last.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use harborseal_tests::harness::cli;
use harborseal_tests::harness::engine::{BOUND, count};
use harborseal_tests::harness::packets::{assert_same, rtp_only};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, harborseal, net};
use nix::sys::signal::Signal;

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    lab.write_config();
    lab
}

/// Waits for a line that the engine writes for people.
#[track_caller]
fn wait_for_line(engine: &Engine, wanted: &str) {
    let until = std::time::Instant::now() + BOUND;
    while !engine.lines().iter().any(|line| line.contains(wanted)) {
        assert!(
            std::time::Instant::now() < until,
            "no {wanted:?} in {:#?}",
            engine.lines()
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn without_json_it_says_ready_and_prints_the_ledger_at_the_end() {
    let lab = lab();
    let mut command = Command::new(cli::binary());
    command.args(["run", "--config", text(&lab.config())]);
    let mut engine = Engine::spawn_command(command);
    wait_for_line(&engine, "ready");
    assert!(
        engine.lines().iter().any(|line| line.starts_with("ready")),
        "{:#?}",
        engine.lines()
    );
    Sender::from("127.0.0.1", lab.address()).send_all(&Stream::new(1).packets(123));
    net::wait_until_taken(lab.port);
    engine.signal(Signal::SIGINT);
    assert_eq!(engine.end(), Some(0));
    let lines = engine.lines();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("stored") && line.contains("123")),
        "{lines:#?}"
    );
    assert!(
        engine.events().is_empty(),
        "no JSON where none was asked for: {lines:#?}"
    );
}

#[test]
fn the_supervisor_is_told_ready_and_stopping() {
    let lab = lab();
    let path = lab.path("notify");
    let notify = UnixDatagram::bind(&path).expect("a socket in the laboratory");
    notify
        .set_read_timeout(Some(BOUND))
        .expect("a time-out can be set");
    let mut command = Command::new(cli::binary());
    command
        .args(["run", "--log", "json", "--config", text(&lab.config())])
        .env("NOTIFY_SOCKET", &path);
    let engine = Engine::spawn_command(command);
    let hear = |wanted: &str| {
        let mut bytes = [0; 4096];
        let mut heard = String::new();
        while !heard.contains(wanted) {
            let length = notify
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("no {wanted}: {error}; {heard}"));
            heard.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    };
    hear("READY=1");
    engine.signal(Signal::SIGTERM);
    hear("STOPPING=1");
    engine.stop();
}

#[test]
fn a_second_engine_keeps_off_a_data_folder_in_use() {
    let mut lab = lab();
    let engine = lab.start();
    Sender::from("127.0.0.1", lab.address()).send_all(&Stream::new(1).packets(50));
    // The same data folder, but ports of its own: the folder is what must stop it.
    let (first, second) = (lab.port, net::free_port_pair());
    lab.listen(&[format!("127.0.0.1:{second}")]);
    lab.write_config();
    harborseal(["run", "--config", text(&lab.config())])
        .exits(4)
        .complains_about("data");
    lab.port = first;
    let last = lab.settle_and_stop(engine);
    assert_eq!(count(&last, "stored"), 50);
}

#[test]
fn footage_goes_on_over_segments_and_runs() {
    let mut lab = lab();
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"4MiB\"");
    let mut stream = Stream::new(1).payload(1200);
    let mut sent = Vec::new();
    for _ in 0..3 {
        let engine = lab.start();
        let packets = stream.packets(5000);
        Sender::from("127.0.0.1", lab.address()).send_all(&packets);
        sent.extend(packets);
        lab.settle_and_stop(engine);
    }
    assert!(
        lab.segments().len() >= 6,
        "{} segments of at most 4 MiB",
        lab.segments().len()
    );
    assert_same(&sent, &rtp_only(lab.read_back("alice", "front-door")));
    let report = lab.verify("alice");
    assert_eq!(report["missing"], 0, "{report}");
}
