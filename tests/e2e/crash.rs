//! kill -9 at random moments under load, five times into the same data folder: what the engine had called durable is
//! there after each kill, block by block, and in the end packet by packet; every life records from its first moment.
//!
//! `HARBORSEAL_KILLS` makes them more: `tests/kill-many` sets it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harborseal_tests::harness::engine::{BOUND, count};
use harborseal_tests::harness::packets::rtp_only;
use harborseal_tests::harness::rtp::Random;
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, blocks, harborseal};
use serde_json::Value;

const STREAMS: u32 = 8;

/// What was sent of each stream in one life: how it stood at the beginning, and how many packets.
type Sent = BTreeMap<u32, (Stream, usize)>;
/// The highest watermark announced of each segment, and the last block below it.
type Durable = BTreeMap<String, (u64, u64)>;

/// One life of the engine.
struct Life {
    sent: Sent,
    /// Packets that its last figures called stored.
    stored: u64,
}

fn kills() -> usize {
    std::env::var("HARBORSEAL_KILLS").map_or(5, |kills| kills.parse().expect("HARBORSEAL_KILLS is a number"))
}

fn camera_name(ssrc: u32) -> String {
    format!("camera-{ssrc}")
}

/// Sends all streams as fast as the engine takes them, until told to stop.
fn send_until(stop: &AtomicBool, mut sender: Sender, streams: &mut [Stream]) -> Sent {
    let begun = streams.iter().map(|stream| (stream.ssrc, (stream.clone(), 0)));
    let mut sent: Sent = begun.collect();
    while !stop.load(Ordering::Relaxed) {
        for stream in streams.iter_mut() {
            sender.send(&stream.packet());
            sent.get_mut(&stream.ssrc).expect("every stream has begun").1 += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    sent
}

#[test]
fn nothing_durable_is_missing_after_five_kills_under_load() {
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut lab = Lab::new();
    // Short segments: some lives see rotations, some do not.
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"32MiB\"");
    lab.customer("alice");
    for ssrc in 1..=STREAMS {
        lab.camera(Camera::new(&camera_name(ssrc), "alice", ssrc));
    }
    let mut streams: Vec<Stream> = (1..=STREAMS).map(Stream::new).collect();
    let mut lives: Vec<Life> = Vec::new();
    let mut durable = Durable::new();
    let kills = kills();
    for kill in 1..=kills {
        let begun = Instant::now();
        let (sent, events) = live_and_be_killed(&lab, &mut streams, &mut random);
        let lived = begun.elapsed();
        note_durable(&mut durable, &events);
        let last = events.iter().rfind(|event| event["event"] == "progress");
        let stored = last.map_or(0, |event| count(event, "stored"));
        lives.push(Life { sent, stored });
        // Every other time the next life finds the segment as the kill has left it.
        let recovered = kill % 2 == 0 || kill == kills;
        if recovered {
            harborseal(["recover", text(&lab.data())]).ok();
            lab.verify("alice");
        }
        assert!(durable.len() >= kill, "each life wrote at least one segment");
        assert_blocks_are_there(&lab, &durable);
        println!(
            "kill {kill} after {} ms: {} segments have all their durable blocks{}",
            lived.as_millis(),
            durable.len(),
            if recovered { ", recovered and verified" } else { "" }
        );
    }
    let packets = assert_streams_come_in_order(&lab, &lives);
    println!(
        "{kills} kills, {} segments, {packets} packets back, byte by byte; nothing durable is missing",
        durable.len()
    );
}

/// A life under load, killed at a random moment: what was sent, and what the engine said.
#[track_caller]
fn live_and_be_killed(lab: &Lab, streams: &mut [Stream], random: &mut Random) -> (Sent, Vec<Value>) {
    let engine = lab.start();
    let stop = AtomicBool::new(false);
    let wanted = 3 + random.below(80) as usize;
    std::thread::scope(|scope| {
        let sender = Sender::from("127.0.0.1", lab.address());
        let sending = scope.spawn(|| send_until(&stop, sender, streams));
        let mut seen = 0;
        engine.wait_within(BOUND, "durable events", |event| {
            seen += usize::from(event["event"] == "durable");
            (seen == wanted).then_some(())
        });
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        let events = engine.kill();
        stop.store(true, Ordering::Relaxed);
        (sending.join().expect("the sender does not panic"), events)
    })
}

#[track_caller]
fn note_durable(durable: &mut Durable, events: &[Value]) {
    for event in events.iter().filter(|event| event["event"] == "durable") {
        let segment = event["segment"].as_str().expect("a segment's id").to_owned();
        let now = (count(event, "offset"), count(event, "block_no"));
        let before = durable.insert(segment, now).unwrap_or_default();
        assert!(
            before <= now,
            "the watermark of a segment only rises: {before:?} then {now:?}"
        );
    }
}

/// Every block at or below the watermark that was announced is in the segment, whole and in its place.
#[track_caller]
fn assert_blocks_are_there(lab: &Lab, durable: &Durable) {
    let segments = lab.segments();
    for (segment, (offset, block_no)) in durable {
        let file = segments.iter().find(|path| text(path).contains(segment.as_str()));
        let file = file.unwrap_or_else(|| panic!("segment {segment} is gone"));
        let bytes = std::fs::read(file).expect("a segment can be read");
        let found = blocks::walk(&bytes, *offset).unwrap_or_else(|error| panic!("{segment}: {error}"));
        assert_eq!(found, Some(*block_no), "{segment}: the last block below {offset}");
    }
}

/// Of each stream and life, what came back was sent, in the order in which it was sent, and no less of it than was called stored. Above the
/// watermark a kill may leave holes: of writes under way together some end and some do not. Returns how many came back.
#[track_caller]
fn assert_streams_come_in_order(lab: &Lab, lives: &[Life]) -> usize {
    let mut kept_in_life = vec![0; lives.len()];
    for ssrc in 1..=STREAMS {
        let mut back = rtp_only(lab.read_back("alice", &camera_name(ssrc)))
            .into_iter()
            .peekable();
        for (life, Life { sent, .. }) in lives.iter().enumerate() {
            let (mut stream, packets) = sent[&ssrc].clone();
            let kept = (0..packets)
                .filter(|_| back.next_if_eq(&stream.packet()).is_some())
                .count();
            assert!(kept > 0, "stream {ssrc}: nothing of life {life} came back");
            kept_in_life[life] += kept;
        }
        assert_eq!(
            back.count(),
            0,
            "stream {ssrc}: packets that were not sent, or not in this place"
        );
    }
    for (life, (kept, Life { stored, .. })) in kept_in_life.iter().zip(lives).enumerate() {
        assert!(
            *kept as u64 >= *stored,
            "life {life}: {stored} packets were stored, {kept} came back"
        );
    }
    kept_in_life.into_iter().sum()
}

#[test]
fn a_killed_engine_records_at_once_and_closes_what_it_left_beside_it() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("camera-1", "alice", 1));
    let mut stream = Stream::new(1);
    let first = lab.start();
    let mut sent = stream.packets(300);
    Sender::from("127.0.0.1", lab.address()).send_all(&sent);
    first.wait_for("a durable event", |event| {
        (event["event"] == "durable" && count(event, "block_no") > 3).then_some(())
    });
    // Everything has its deadline behind it soon; a stop makes certain, a kill leaves the segment open.
    first.wait_for_stored(300);
    first.kill();
    let left: Vec<_> = lab.segments();

    let second = lab.start();
    let after = stream.packets(300);
    Sender::from("127.0.0.1", lab.address()).send_all(&after);
    sent.extend(after);
    lab.settle_and_stop(second);
    // Without `recover`: the second life has closed the first one's segment by itself.
    for segment in left {
        if segment.exists() {
            harborseal(["verify", text(&segment)]).ok();
        }
    }
    assert_eq!(rtp_only(lab.read_back("alice", "camera-1")), sent);
}
