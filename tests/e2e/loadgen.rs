//! The load generator's verdict against real engines: what it did on purpose is found to the packet, what was lost is found where
//! it was lost, and other tools count the same.

use harborseal::ledger::Reason;
use harborseal_loadgen::Lane;
use harborseal_loadgen::assert::REASONS;
use harborseal_loadgen::mark::Mark;
use harborseal_loadgen::sentlog::Flags;
use harborseal_loadgen::verify::StreamVerdict;
use harborseal_tests::harness::engine::Engine;
use harborseal_tests::harness::fleet::Fleet;
use harborseal_tests::harness::{cli, net};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BAD_NETWORK: &str = include_str!("../../config/profiles/bad-network.toml");
const NOISY_NEIGHBOUR: &str = include_str!("../../config/profiles/noisy-neighbour.toml");

const QUIET: &str = r#"
name = "quiet"
seconds = 3
customers = ["alice", "bob"]
[[group]]
name = "all"
count = 8
mbps = 1
"#;

#[test]
fn assertions_know_every_reason_the_engine_has() {
    assert_eq!(REASONS, Reason::ALL.map(Reason::name));
}

/// Each impairment by itself, a group each, and all together in one: what was done to the packets is what is found, for each
/// stream, and nothing else is amiss.
#[test]
fn every_impairment_is_found_to_the_packet() {
    let fleet = Fleet::new(BAD_NETWORK, &["seconds=8"]);
    let ran = fleet.record_all();
    let verdict = fleet.verdict(Some(&ran));
    let text = verdict.text(Some(&ran.engine()));
    assert!(verdict.figures.as_expected, "{text}");
    assert!(
        verdict
            .impairments
            .iter()
            .all(|i| i.expected.is_none_or(|expected| expected == i.found)),
        "{text}"
    );
    let lost = &verdict.figures.lost_by;
    assert_eq!(
        (lost.remainder, lost.generator, lost.engine.len()),
        (0, 0, 0),
        "{text}"
    );

    let group = |name: &str| {
        let group: Vec<&StreamVerdict> = verdict.streams.iter().filter(|s| s.group == name).collect();
        assert!(!group.is_empty(), "no group {name}");
        group
    };
    let sum_of = |name: &str, of: fn(&StreamVerdict) -> u64| group(name).into_iter().map(of).sum::<u64>();
    for (name, of) in [
        ("lossy", (|s| s.impaired_lost) as fn(&StreamVerdict) -> u64),
        ("bursty", |s| s.impaired_lost),
        ("shuffled", |s| s.delayed.found),
        ("doubled", |s| s.copies.found),
        ("broken", |s| s.corrupted.found),
        ("broken", |s| s.truncated.found + s.runts),
        ("restarting", |s| s.strangers),
        ("restarting-known", |s| s.seen.ssrc_changes),
        ("jumping", |s| s.seen.sequence_jumps),
        ("jumping", |s| s.seen.timestamp_jumps),
        ("changing", |s| s.seen.payload_type_changes),
        ("stranger", |s| s.strangers),
    ] {
        assert!(sum_of(name, of) > 0, "nothing happened to {name}\n{text}");
    }
    for name in [
        "clean",
        "jittery",
        "drifting",
        "rebinding",
        "noisy",
        "restarting-known",
        "jumping",
        "changing",
    ] {
        assert_eq!(
            sum_of(name, |s| s.intended),
            sum_of(name, |s| s.stored),
            "{name}\n{text}"
        );
    }
    for (name, ppm) in [("drifting", 500.0), ("clean", 0.0)] {
        for stream in group(name) {
            let found = stream.seen.clock_ppm.expect("several seconds were stored");
            // The 90 kHz clock ticks each 11 µs: over 4 s and more, less than 3 parts per million.
            assert!((found - ppm).abs() < 5.0, "{name}: {found} ppm");
        }
    }
    let impaired = &ran.result.impaired;
    assert!(
        impaired.rebinds > 0 && impaired.junk > 0 && impaired.unknown > 0,
        "{impaired:?}"
    );
}

/// Every datagram that had to be refused was, for a reason of its own, and no other.
#[test]
fn what_must_be_refused_is_refused_to_the_packet() {
    let fleet = Fleet::new(BAD_NETWORK, &["seconds=4", "seed=9"]);
    let ran = fleet.record_all();
    let verdict = fleet.verdict(Some(&ran));
    let log = fleet.log();
    let strangers_reports = |stream: u32| {
        let known = log.streams()[stream as usize].known;
        let reports = log
            .packets(stream, Lane::Rtcp)
            .map(|entry| entry.expect("an undamaged log").flags);
        reports
            .filter(|flags| flags.has(Flags::SENT) && !(known && flags.fit_to_store()))
            .count() as u64
    };
    let mut refusable = ran.result.impaired.junk;
    for stream in &verdict.streams {
        refusable += stream.runts + stream.strangers + strangers_reports(stream.stream);
    }
    let dropped: u64 = ran.engine().dropped.values().sum();
    assert_eq!(dropped, refusable, "{:?}", ran.engine().dropped);
}

#[test]
fn sequence_numbers_and_timestamps_that_wrap_are_no_difference() {
    let mut fleet = Fleet::new(QUIET, &[]);
    for stream in &mut fleet.plan.streams {
        stream.first_sequence = 65_500;
        stream.first_timestamp = u32::MAX - 90_000;
    }
    let ran = fleet.record_all();
    let verdict = fleet.verdict(Some(&ran));
    assert!(verdict.figures.as_expected, "{}", verdict.text(None));
    for stream in &verdict.streams {
        assert_eq!(
            (stream.seen.sequence_wraps, stream.seen.timestamp_wraps),
            (1, 1),
            "{stream:?}"
        );
        assert_eq!((stream.seen.sequence_jumps, stream.seen.timestamp_jumps), (0, 0));
    }
}

#[test]
fn neighbours_at_ten_times_their_rate_cost_the_quiet_ones_nothing() {
    let settings = [
        "seconds=4",
        "group.quiet.count=20",
        "group.loud.count=2",
        "group.stranger.count=5",
        "group.stranger.junk.per_second=500",
    ];
    let fleet = Fleet::new(NOISY_NEIGHBOUR, &settings);
    let ran = fleet.record_all();
    let verdict = fleet.verdict(Some(&ran));
    assert!(verdict.figures.as_expected, "{}", verdict.text(None));
    let stored = |group: &str| {
        let all = verdict.streams.iter().filter(|s| s.group == group);
        let (stored, count) = all.fold((0, 0), |(sum, count), s| (sum + s.stored, count + 1));
        stored as f64 / f64::from(count)
    };
    let ratio = stored("loud") / stored("quiet");
    assert!(
        (15.0..25.0).contains(&ratio),
        "2 Mb/s × 10 beside 1 Mb/s, not {ratio}"
    );
}

/// A relay in front of the engine that throws away every 1,000th RTP packet, and remembers which.
#[test]
fn a_receiver_that_drops_every_thousandth_packet_is_found_out_to_the_packet() {
    let mut fleet = Fleet::new(QUIET, &["seconds=5"]);
    let relay = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    relay
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a timeout above zero");
    let engine_address = fleet.plan.targets[0];
    let engine = fleet.start();
    // The configuration was made for the engine's own address; only then is the fleet sent elsewhere.
    fleet.plan.targets = vec![relay.local_addr().expect("bound")];
    let (done, run) = (AtomicBool::new(false), fleet.plan.run);
    let (result, dropped) = std::thread::scope(|scope| {
        let relaying = scope.spawn(|| relay_without_every_thousandth(&relay, engine_address, run, &done));
        let result = fleet.send();
        done.store(true, Ordering::Relaxed);
        (result, relaying.join().expect("the relay does not panic"))
    });
    net::wait_until_taken(fleet.port);
    engine.stop();
    let verdict = fleet.verdict(None);
    let text = verdict.text(None);
    assert!(
        result.load.sent / 1000 >= 3 && dropped.len() as u64 == result.load.sent / 1000,
        "{text}"
    );
    assert_eq!(verdict.figures.stored_loss, dropped.len() as u64, "{text}");
    assert_eq!(verdict.figures.lost_by.remainder, dropped.len() as i64, "{text}");
    assert!(!verdict.figures.as_expected);
    for mark in &dropped {
        let gaps = &verdict.streams[mark.stream as usize].worst_gaps;
        let in_gap = gaps
            .iter()
            .any(|gap| (gap.first..=gap.last).contains(&mark.sequence));
        assert!(in_gap, "{mark:?} is in none of {gaps:?}");
    }
}

fn relay_without_every_thousandth(
    relay: &UdpSocket,
    to: std::net::SocketAddr,
    run: u64,
    done: &AtomicBool,
) -> Vec<Mark> {
    let (mut buffer, mut packets, mut dropped) = ([0; 2048], 0u64, Vec::new());
    loop {
        match relay.recv(&mut buffer) {
            Ok(len) => {
                if let Some(mark) = Mark::read(&buffer[..len], run) {
                    packets += 1;
                    if packets.is_multiple_of(1000) {
                        dropped.push(mark);
                        continue;
                    }
                }
                relay.send_to(&buffer[..len], to).expect("loopback takes it");
            }
            Err(_) if done.load(Ordering::Relaxed) => return dropped,
            Err(_) => {}
        }
    }
}

/// A segment is looked at as it is: while it is written, when its engine was killed, and when the next one has recovered it.
#[test]
fn open_and_recovered_segments_are_looked_at_like_closed_ones() {
    let fleet = Fleet::new(QUIET, &["rtcp=\"off\""]);
    let engine = fleet.start();
    let result = fleet.send();
    engine.wait_for_stored(result.load.sent);
    let whole = |when: &str| {
        let verdict = fleet.verdict(None);
        assert!(verdict.figures.as_expected, "{when}\n{}", verdict.text(None));
        assert_eq!(verdict.figures.stored, result.load.sent, "{when}");
    };
    whole("while it is written");
    engine.kill();
    whole("when its engine was killed");
    Engine::start(&fleet.path("engine.toml")).stop();
    cli::harborseal(["recover".as_ref(), fleet.data().as_os_str()]).ok();
    whole("when it was recovered");
}

/// Several customers, one identity: the others' streams are named, and nothing is said of them.
#[test]
fn without_an_identity_nothing_is_said_of_a_customers_streams() {
    let fleet = Fleet::new(QUIET, &["seconds=1"]);
    fleet.record_all();
    let mut loadgen = std::process::Command::new(cli::build_folder().join("harborseal-loadgen"));
    loadgen
        .arg("verify")
        .arg(fleet.path("sent.log"))
        .arg("--segments")
        .arg(fleet.data());
    loadgen
        .arg("--identity")
        .arg(&fleet.identities()[0])
        .arg("-o")
        .arg(fleet.path("out"));
    let outcome = cli::run(loadgen, Duration::from_secs(60)).ok();
    assert!(
        outcome.stdout.contains("4 of 8 streams") && outcome.stdout.contains("bob"),
        "{}",
        outcome.stdout
    );
    assert!(fleet.path("out/verify.json").is_file() && fleet.path("out/stored.csv").is_file());
}

/// The command against a real engine: sent, watched by the engine's lines, verified and judged in one go.
#[test]
fn a_run_with_lines_and_segments_is_judged_whole_and_can_be_verified_again() {
    let fleet = Fleet::new(QUIET, &["seconds=2"]);
    let mut engine = fleet.start_writing_lines();
    let mut loadgen = fleet.run_command(QUIET, &["seconds=2"]);
    loadgen.arg("--engine-stats").arg(fleet.path("lines.jsonl"));
    loadgen
        .arg("--segments")
        .arg(fleet.data())
        .arg("--identity")
        .args(fleet.identities());
    loadgen.args([
        "--assert",
        "stored_loss==0",
        "--assert",
        "engine.dropped.pool_exhausted==0",
        "--assert",
        "foreign==0",
    ]);
    cli::run(loadgen, Duration::from_secs(90)).ok();
    engine.stop();
    let run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fleet.path("run/run.json")).expect("written")).expect("JSON");
    assert_eq!(run["stored"]["stored"], run["load"]["sent"], "{run}");
    assert_eq!(run["engine"]["never_received"], 0, "{run}");
    assert!(
        run["assertions"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["holds"] == true)),
        "{run}"
    );

    let mut again = std::process::Command::new(cli::build_folder().join("harborseal-loadgen"));
    again
        .arg("verify")
        .arg(fleet.path("run"))
        .arg("--segments")
        .arg(fleet.data());
    again.arg("--identity").args(fleet.identities());
    let said = cli::run(again, Duration::from_secs(60)).ok().stdout;
    assert!(said.contains("verdict    as expected"), "{said}");
}

/// A generator that is killed leaves a log that says what left, but for the last moments; what the engine stored of these is not held
/// against anybody.
#[test]
fn the_log_of_a_generator_that_was_killed_is_still_good_to_verify_by() {
    let fleet = Fleet::new(QUIET, &["seconds=60"]);
    let engine = fleet.start();
    let mut loadgen = fleet.run_command(QUIET, &["seconds=60"]);
    loadgen
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut loadgen = loadgen.spawn().expect("the command starts");
    engine.wait_for_stored(3000);
    loadgen.kill().expect("it is ours");
    loadgen.wait().expect("it was ours");
    net::wait_until_taken(fleet.port);
    engine.stop();
    let mut verify = std::process::Command::new(cli::build_folder().join("harborseal-loadgen"));
    verify
        .arg("verify")
        .arg(fleet.path("run"))
        .arg("--json")
        .arg("--segments")
        .arg(fleet.data());
    verify.arg("--identity").args(fleet.identities());
    let verdict = cli::run(verify, Duration::from_secs(60)).ok().json();
    assert!(
        verdict["stored"]["stored"]
            .as_u64()
            .is_some_and(|stored| stored > 1000),
        "{verdict}"
    );
    assert!(verdict["notes"].to_string().contains("cut"), "{verdict}");
    assert_eq!(verdict["stored"]["stored_loss"], 0, "{verdict}");
}
