//! kill -9 at random moments under load, five times into the same data folder: what the engine had called durable is
//! there afterwards, block by block and packet by packet, and every life records from its first moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harborseal_tests::harness::engine::{BOUND, count};
use harborseal_tests::harness::packets::rtp_only;
use harborseal_tests::harness::rtp::Random;
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, blocks, harborseal};

const STREAMS: u32 = 8;
const LIVES: usize = 5;

/// What was sent of each stream in one life, in order.
type Sent = BTreeMap<u32, Vec<Vec<u8>>>;

fn camera_name(ssrc: u32) -> String {
    format!("camera-{ssrc}")
}

/// Sends all streams as fast as the engine takes them, until told to stop.
fn send_until(stop: &AtomicBool, mut sender: Sender, streams: &mut [Stream]) -> Sent {
    let mut sent = Sent::new();
    while !stop.load(Ordering::Relaxed) {
        for stream in streams.iter_mut() {
            let packet = stream.packet();
            sender.send(&packet);
            sent.entry(stream.ssrc).or_default().push(packet);
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
    let mut lives: Vec<Sent> = Vec::new();
    let mut durable: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for _ in 0..LIVES {
        let engine = lab.start();
        let stop = AtomicBool::new(false);
        let wanted = 3 + random.below(80) as usize;
        let (sent, events) = std::thread::scope(|scope| {
            let sender = Sender::from("127.0.0.1", lab.address());
            let sending = scope.spawn(|| send_until(&stop, sender, &mut streams));
            let mut seen = 0;
            engine.wait_within(BOUND, "durable events", |event| {
                seen += usize::from(event["event"] == "durable");
                (seen == wanted).then_some(())
            });
            std::thread::sleep(Duration::from_micros(random.below(20_000)));
            let events = engine.kill();
            stop.store(true, Ordering::Relaxed);
            (sending.join().expect("the sender does not panic"), events)
        });
        lives.push(sent);
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
    harborseal(["recover", text(&lab.data())]).ok();
    lab.verify("alice");
    assert_blocks_are_there(&lab, &durable);
    assert_streams_come_in_order(&lab, &lives);
}

/// Every block at or below the watermark that was announced is in the segment, whole and in its place.
#[track_caller]
fn assert_blocks_are_there(lab: &Lab, durable: &BTreeMap<String, (u64, u64)>) {
    assert!(durable.len() >= LIVES, "each life wrote at least one segment");
    let segments = lab.segments();
    for (segment, (offset, block_no)) in durable {
        let file = segments.iter().find(|path| text(path).contains(segment.as_str()));
        let file = file.unwrap_or_else(|| panic!("segment {segment} is gone"));
        let bytes = std::fs::read(file).expect("a segment can be read");
        let found = blocks::walk(&bytes, *offset).unwrap_or_else(|error| panic!("{segment}: {error}"));
        assert_eq!(found, Some(*block_no), "{segment}: the last block below {offset}");
    }
}

/// Of each stream and life, what came back was sent, in the order in which it was sent. Above the watermark a kill may
/// leave holes: of writes under way together some end and some do not.
#[track_caller]
fn assert_streams_come_in_order(lab: &Lab, lives: &[Sent]) {
    for ssrc in 1..=STREAMS {
        let mut back = rtp_only(lab.read_back("alice", &camera_name(ssrc)))
            .into_iter()
            .peekable();
        for (life, sent) in lives.iter().enumerate() {
            let sent = &sent[&ssrc];
            let mut kept = 0;
            for packet in sent {
                kept += usize::from(back.next_if_eq(packet).is_some());
            }
            println!("stream {ssrc}, life {life}: {kept} of {} packets", sent.len());
            assert!(kept > 0, "stream {ssrc}: nothing of life {life} came back");
        }
        assert_eq!(
            back.count(),
            0,
            "stream {ssrc}: packets that were not sent, or not in this place"
        );
    }
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
