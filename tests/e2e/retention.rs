//! Retention takes the oldest closed segments first, never an open one, and leaves a signed note of each, so that
//! `verify` tells what was deleted by policy from what is missing.

use std::path::PathBuf;

use harborseal_tests::harness::engine::{BOUND, count};
use harborseal_tests::harness::packets::rtp_only;
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, harborseal};

fn lab(retention: &str) -> Lab {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"16MiB\"");
    if !retention.is_empty() {
        lab.section("retention", retention);
    }
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    lab
}

/// Sends a little all the time until `segments` different segments have been announced durable.
fn record_segments(
    lab: &Lab,
    engine: &Engine,
    stream: &mut Stream,
    segments: usize,
) -> (Vec<Vec<u8>>, Vec<String>) {
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let mut sent = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let until = std::time::Instant::now() + BOUND;
    while seen.len() < segments {
        assert!(std::time::Instant::now() < until, "only {} segments", seen.len());
        let packets = stream.packets(10);
        sender.send_all(&packets);
        sent.extend(packets);
        std::thread::sleep(std::time::Duration::from_millis(20));
        for event in engine.events().iter().filter(|event| event["event"] == "durable") {
            let segment = event["segment"].as_str().expect("a segment's id");
            if !seen.iter().any(|known| known == segment) {
                seen.push(segment.to_owned());
            }
        }
    }
    (sent, seen)
}

fn file_of(lab: &Lab, segment: &str) -> Option<PathBuf> {
    lab.segments()
        .into_iter()
        .find(|path| text(path).contains(segment))
}

#[test]
fn what_grows_too_old_goes_oldest_first_and_verify_knows_why() {
    let lab = lab("max_age = \"2s\"");
    let engine = lab.start();
    let (sent, seen) = record_segments(&lab, &engine, &mut Stream::new(1), 8);
    let last = lab.settle_and_stop(engine);
    assert_eq!(count(&last, "stored"), sent.len() as u64);

    let there: Vec<bool> = seen
        .iter()
        .map(|segment| file_of(&lab, segment).is_some())
        .collect();
    let first_there = there.iter().position(|there| *there).expect("the newest stay");
    assert!(
        first_there >= 3,
        "eight segments of a second, two seconds kept: {there:?}"
    );
    assert!(
        there[first_there..].iter().all(|there| *there),
        "oldest first: {there:?}"
    );
    // What is left is the end of what was sent, whole.
    let back = rtp_only(lab.read_back("alice", "front-door"));
    assert_eq!(back, sent[sent.len() - back.len()..]);

    let report = lab.verify("alice");
    assert!(
        report["deleted"].as_u64() >= Some(1),
        "deleted by policy: {report}"
    );
    assert_eq!(report["missing"], 0, "{report}");
}

#[test]
fn a_total_size_is_kept() {
    let lab = lab("max_bytes = \"3MiB\"");
    let engine = lab.start();
    let mut stream = Stream::new(1).payload(4000);
    let (_, seen) = record_segments(&lab, &engine, &mut stream, 8);
    lab.settle_and_stop(engine);
    assert!(file_of(&lab, &seen[0]).is_none(), "the first is gone");
    assert!(file_of(&lab, &seen[7]).is_some(), "the last is not");
    let report = lab.verify("alice");
    assert_eq!(report["missing"], 0, "{report}");
}

#[test]
fn a_segment_that_somebody_took_is_missing() {
    let lab = lab("");
    let engine = lab.start();
    let (_, seen) = record_segments(&lab, &engine, &mut Stream::new(1), 4);
    lab.settle_and_stop(engine);
    lab.verify("alice");
    let taken = file_of(&lab, &seen[1]).expect("nothing deletes it");
    std::fs::remove_file(&taken).expect("it is there");
    let outcome = harborseal(["verify", "--json", text(&lab.data())]).exits(1);
    let report = outcome.json();
    assert!(report["missing"].as_u64() >= Some(1), "{report}");
    assert!(
        outcome.stderr.contains(&seen[1]),
        "it names what is missing: {}",
        outcome.stderr
    );
}
