//! The whole verdict on small archives made with the segment writer, and on logs that say what they should hold.

use super::*;
use crate::mark::{MARK_BYTES, Mark};
use crate::plan::Media;
use crate::sentlog::{About, Entry, Flags, LoggedStream, SentLogWriter, packet_hash};
use harborseal_segment::body::{ChunkHead, StreamInfo};
use harborseal_segment::cipher::{Backend, SealKey};
use harborseal_segment::ids::{RunId, SegmentId, StreamId};
use harborseal_segment::keys::{Hint, SegmentSecret, StreamKeys, Wrap, wrap};
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::{FixedBytes, os_random};
use harborseal_segment::record::{RECORD_RTCP, push_record};
use harborseal_segment::writer::{ChunkPlan, FinishParams, SegmentParams, SegmentWriter};

const RUN: u64 = 7;
const START_NS: u64 = 1_795_000_000_000_000_000;
const CUSTOMERS: [&str; 2] = ["alice", "bob"];

fn identity(customer: usize) -> Identity {
    Identity::generate(&mut FixedBytes(&[customer as u8 + 1; 64]))
}

fn named(customers: &[usize]) -> Vec<NamedIdentity> {
    let named = |&customer: &usize| NamedIdentity {
        identity: identity(customer),
        name: CUSTOMERS[customer].to_owned(),
        said: false,
    };
    customers.iter().map(named).collect()
}

/// The packet of a stream: stream s is of camera s and has SSRC 100 + s.
fn packet(stream: u32, sequence: u64) -> Vec<u8> {
    let mut bytes = vec![sequence as u8; 12 + MARK_BYTES + 20];
    bytes[..2].copy_from_slice(&[0x90, 96]);
    bytes[2..4].copy_from_slice(&(sequence as u16).to_be_bytes());
    bytes[4..8].copy_from_slice(&(sequence as u32 * 90).to_be_bytes());
    bytes[8..12].copy_from_slice(&(100 + stream).to_be_bytes());
    let mark = Mark {
        stream,
        sequence,
        intended_ns: START_NS + due_ns(sequence),
    };
    mark.write(RUN, bytes[12..].first_chunk_mut().expect("room for the mark"));
    bytes
}

fn due_ns(sequence: u64) -> u64 {
    sequence * 1_000_000
}

fn entry(sequence: u64, bytes: &[u8], flags: Flags) -> Entry {
    let left = flags.has(Flags::SENT);
    Entry {
        hash: if left { packet_hash(bytes) } else { 0 },
        sequence,
        flags,
        intended_ns: due_ns(sequence),
        len: bytes.len() as u16,
    }
}

/// A stream of the segment: under whose key, with which name and SSRC, and its packets.
struct Stored {
    customer: usize,
    camera: String,
    ssrc: u32,
    packets: Vec<(bool, Vec<u8>)>,
}

impl Stored {
    fn of(stream: u32, sequences: impl Iterator<Item = u64>) -> Stored {
        Stored {
            customer: stream as usize % 2,
            camera: format!("camera-{stream}"),
            ssrc: 100 + stream,
            packets: sequences
                .map(|sequence| (false, packet(stream, sequence)))
                .collect(),
        }
    }
}

/// A data folder and a sent log. Cameras take turns between the customers.
struct World {
    dir: tempfile::TempDir,
    lanes: Vec<Vec<Entry>>,
    reports: Vec<Entry>,
    stored: Vec<Stored>,
    unknown: Option<u32>,
}

impl World {
    /// `streams` streams of 100 packets each, all sent and all stored.
    fn whole(streams: u32) -> World {
        let lane = |stream| {
            (0..100)
                .map(|n| entry(n, &packet(stream, n), Flags::SENT))
                .collect()
        };
        World {
            dir: tempfile::tempdir().expect("a temporary folder"),
            lanes: (0..streams).map(lane).collect(),
            reports: Vec::new(),
            stored: (0..streams).map(|stream| Stored::of(stream, 0..100)).collect(),
            unknown: None,
        }
    }

    fn log(&self, cut: usize) -> SentLog {
        let path = self.dir.path().join("sent.log");
        let stream = |number: u32| LoggedStream {
            camera: format!("camera-{number}"),
            customer: CUSTOMERS[number as usize % 2].to_owned(),
            group: "all".to_owned(),
            media: Media::H264,
            ssrc: 100 + number,
            target: 0,
            known: self.unknown != Some(number),
        };
        let about = About {
            run: RUN,
            start_ns: START_NS,
            streams: (0..self.lanes.len() as u32).map(stream).collect(),
            ..About::default()
        };
        let mut writer = SentLogWriter::create(&path, &about).expect("a temporary file");
        for (stream, lane) in (0u32..).zip(&self.lanes) {
            lane.iter()
                .for_each(|entry| writer.note(stream, Lane::Rtp, *entry));
        }
        self.reports
            .iter()
            .for_each(|entry| writer.note(0, Lane::Rtcp, *entry));
        writer.finish().expect("a temporary file");
        let bytes = std::fs::read(&path).expect("just written");
        std::fs::write(&path, &bytes[..bytes.len() - cut]).expect("a temporary file");
        SentLog::open(&path).expect("just written")
    }

    /// One closed segment with all that is stored, in chunks of 25 packets, below a folder as an engine makes it.
    fn segments(&self) -> PathBuf {
        let (data, node) = (self.dir.path().join("data"), NodeKey::from_bytes(&[0x22; 32]));
        let (mut writer, mut bytes) = SegmentWriter::new(SegmentParams {
            segment_id: SegmentId([0x10; 16]),
            node: node.public(),
            run_id: RunId([0x33; 16]),
            shard: 0,
            prev: SegmentId::ZERO,
            chain_seq: 0,
            created_s: START_NS / 1_000_000_000,
            features: Default::default(),
        });
        let secret = |customer: usize| SegmentSecret::from_bytes([0xa0 + customer as u8; 32]);
        let entries = [0usize, 1].map(|customer| {
            let place = Wrap {
                node_id: node.public().id(),
                segment_id: writer.segment_id(),
                slot: customer as u32,
                i: 0,
                n: 1,
                erase: None,
            };
            let hint = Hint::from_bytes([customer as u8; 32]);
            wrap(
                identity(customer).public(),
                &place,
                &hint,
                &secret(customer),
                &mut os_random(),
            )
        });
        bytes.extend(writer.add_keys(&entries, 0).1);
        for (number, stored) in self.stored.iter().enumerate() {
            let stream_id = StreamId([0x80 + number as u8; 16]);
            let keys = StreamKeys::derive(&writer.segment_id(), &secret(stored.customer), &stream_id);
            let seal = keys.seal_key(Backend::AesGcm);
            let info = StreamInfo {
                ssrc: stored.ssrc,
                media_index: 0,
                clock_rate: 90_000,
                opened_ns: START_NS,
                camera_id: stored.camera.clone(),
                sdp: String::new(),
            };
            let slot = stored.customer as u32;
            let (row, _, block) = writer.add_stream(stream_id, slot, &seal, keys.commitment(), &info, 0);
            bytes.extend(block);
            for (so_far, packets) in (0..).zip(stored.packets.chunks(25)) {
                bytes.extend(chunk(&mut writer, row, &seal, so_far, packets));
            }
        }
        let finished = writer.finish(
            Some(&node),
            FinishParams::sealed(None, 0, START_NS / 1_000_000_000),
        );
        bytes.extend(finished.bytes);
        let day = data.join("node-22/segments/20261123");
        std::fs::create_dir_all(&day).expect("a temporary folder");
        std::fs::write(day.join("0.hseal"), bytes).expect("a temporary file");
        data
    }

    fn verdict(&self) -> Verdict {
        self.verdict_with(&self.log(0), named(&[0, 1]))
    }

    fn verdict_with(&self, log: &SentLog, identities: Vec<NamedIdentity>) -> Verdict {
        verify(log, &[self.segments()], identities, Known::default(), &|_| {})
            .expect("everything can be read")
    }
}

fn chunk(
    writer: &mut SegmentWriter,
    row: u32,
    seal: &SealKey,
    so_far: u64,
    packets: &[(bool, Vec<u8>)],
) -> Vec<u8> {
    let mut buf = vec![0; 64 * 1024];
    let body = &mut buf[writer.chunk_body_at()..];
    ChunkHead {
        base_ns: START_NS + 5_000_000,
        packet_count: packets.len() as u32,
        lost_before: 0,
        chunks_so_far: so_far,
    }
    .encode_to(body);
    let mut end = ChunkHead::LEN;
    for (rtcp, packet) in packets {
        end = push_record(body, end, if *rtcp { RECORD_RTCP } else { 0 }, 1000, packet);
    }
    let at_s = START_NS / 1_000_000_000;
    let plan = ChunkPlan {
        row,
        body_len: end,
        first_s: at_s,
        last_s: at_s,
        durable_4k: 0,
    };
    let placed = writer.seal_chunk(plan, seal, &mut buf);
    buf.truncate(placed.total_len as usize);
    buf
}

#[test]
fn everything_sent_and_stored_is_as_expected() {
    let mut world = World::whole(3);
    world.reports = vec![entry(0, b"report of camera 0", Flags::SENT)];
    world.stored[0]
        .packets
        .insert(7, (true, b"report of camera 0".to_vec()));
    let verdict = world.verdict();
    let figures = &verdict.figures;
    assert!(figures.as_expected, "{:?}", figures.differences);
    assert_eq!(
        (figures.streams, figures.streams_found, figures.expected),
        (3, 3, 300)
    );
    assert_eq!((figures.stored, figures.rtcp_stored, figures.gaps), (300, 1, 0));
    let arrival = figures.arrival_ms.expect("packets were found");
    assert!(
        (5.0..7.0).contains(&arrival.max),
        "the first came 6 ms after it was due: {arrival:?}"
    );
    assert!(verdict.text(None).contains("as expected"));
    assert_eq!(verdict.csv().lines().count(), 4);
}

#[test]
fn what_is_missing_is_found_by_stream_and_number_and_laid_to_nobody() {
    let mut world = World::whole(3);
    world.stored[1] = Stored::of(1, (0..100).filter(|n| !(40..43).contains(n) && *n != 77));
    let verdict = world.verdict();
    let figures = &verdict.figures;
    assert_eq!(
        (figures.stored_loss, figures.gaps, figures.longest_gap),
        (4, 2, 3)
    );
    assert_eq!((figures.lost_by.remainder, figures.as_expected), (4, false));
    let worst = verdict.streams[1].worst_gaps[0];
    assert_eq!((worst.first, worst.last, worst.unexpected), (40, 42, 3));
    let heat = figures.heat.as_ref().expect("packets were due");
    assert_eq!(
        heat.lost
            .iter()
            .map(|row| row.iter().sum::<u64>())
            .collect::<Vec<_>>(),
        [0, 4, 0]
    );
    let text = verdict.text(None);
    assert!(text.contains("40–42, 77") && text.contains("DIFFERS"), "{text}");
}

#[test]
fn what_the_plan_did_is_expected_and_found() {
    let mut world = World::whole(2);
    let lane = &mut world.lanes[0];
    let flags = |flag| Flags::SENT | flag;
    lane[3] = entry(3, b"", Flags::LOST);
    lane[4] = entry(4, b"", Flags::FAILED);
    lane[5] = entry(5, &packet(0, 5)[..20], flags(Flags::RUNT));
    lane[6] = entry(6, &packet(0, 6)[..60], flags(Flags::TRUNCATED));
    let mut flipped = packet(0, 7);
    flipped[60] ^= 1;
    lane[7] = entry(7, &flipped, flags(Flags::CORRUPT));
    lane.insert(9, entry(8, &packet(0, 8), flags(Flags::DUPLICATE)));
    let late = lane.remove(20);
    lane.insert(
        25,
        Entry {
            flags: flags(Flags::DELAYED),
            ..late
        },
    );
    let order: Vec<Entry> = lane.clone();
    let bytes = |entry: &Entry| match entry.sequence {
        6 => packet(0, 6)[..60].to_vec(),
        7 => flipped.clone(),
        sequence => packet(0, sequence),
    };
    let fit = order.iter().filter(|entry| entry.flags.fit_to_store());
    world.stored[0].packets = fit.map(|entry| (false, bytes(entry))).collect();

    let verdict = world.verdict();
    assert!(verdict.figures.as_expected, "{:?}", verdict.figures.differences);
    let told: Vec<_> = verdict
        .impairments
        .iter()
        .map(|i| (i.name.as_str(), i.expected, i.found))
        .collect();
    assert_eq!(
        told,
        [
            ("lost", Some(1), 1),
            ("sent twice, stored twice", Some(1), 1),
            ("sent late, stored late", Some(1), 1),
            ("corrupted", Some(1), 1),
            ("truncated", Some(1), 1),
            ("runts refused", Some(1), 1),
        ]
    );
    let lost = &verdict.figures.lost_by;
    assert_eq!((lost.generator, lost.impairment, lost.remainder), (1, 2, 0));
    assert_eq!(
        verdict.figures.expected, 198,
        "of 201 datagrams one was lost, one failed, one is a runt"
    );
}

#[test]
fn each_way_to_be_wrong_is_told_as_itself() {
    let mut world = World::whole(2);
    let packets = &mut world.stored[0].packets;
    packets.push((false, packet(0, 10))); // again
    packets.swap(50, 51); // in the wrong order
    packets[60].1[60] ^= 4; // changed
    packets.push((false, vec![0x80; 40])); // nobody's
    packets.push((true, b"nobody's report".to_vec()));
    let figures = world.verdict().figures;
    assert_eq!(
        (figures.duplicates, figures.reordered, figures.corrupt),
        (1, 1, 1)
    );
    assert_eq!(
        (figures.foreign, figures.rtcp_foreign, figures.wrong_customer),
        (1, 1, 0)
    );
    assert_eq!(figures.stored_loss, 1, "the changed one is not stored as it left");
}

#[test]
fn a_stream_under_another_customers_key_is_found_as_theirs() {
    let mut world = World::whole(4);
    world.stored[2].customer = 1;
    let verdict = world.verdict();
    assert_eq!(
        (verdict.figures.wrong_customer, verdict.figures.stored_loss),
        (100, 100)
    );
    assert_eq!(verdict.streams[2].wrong, 100);
    assert!(verdict.text(None).contains("wrong customer 100"));
}

#[test]
fn a_packet_under_another_camera_or_stream_is_found_there() {
    let mut world = World::whole(4);
    let lost = world.stored[0].packets.remove(30);
    world.stored[2].packets.push(lost);
    let verdict = world.verdict();
    assert_eq!((verdict.figures.wrong_customer, verdict.streams[0].wrong), (1, 1));
    let mut world = World::whole(2);
    world.stored[0].ssrc = 999;
    assert_eq!(
        world.verdict().figures.wrong_customer,
        100,
        "filed under another SSRC"
    );
}

#[test]
fn streams_without_an_identity_are_named_and_not_counted_as_lost() {
    let world = World::whole(3);
    let verdict = world.verdict_with(&world.log(0), named(&[0]));
    let figures = &verdict.figures;
    assert_eq!((figures.streams, figures.streams_not_looked_at), (2, 1));
    assert_eq!(
        (figures.stored_loss, figures.expected, figures.as_expected),
        (0, 200, true)
    );
    assert!(
        verdict.notes.iter().any(|note| note.contains("bob")),
        "{:?}",
        verdict.notes
    );
}

#[test]
fn an_identity_of_another_name_is_known_by_what_it_opens() {
    let world = World::whole(4);
    let mut identities = named(&[1, 0]);
    identities[0].name = "key-2".to_owned();
    let verdict = world.verdict_with(&world.log(0), identities);
    assert!(verdict.figures.as_expected, "{:?}", verdict.figures.differences);
    assert!(verdict.notes[0].contains("key-2") && verdict.notes[0].contains("bob"));
    let mut identities = named(&[0]);
    (identities[0].name, identities[0].said) = ("alise".to_owned(), true);
    let refused = verify(
        &world.log(0),
        &[world.segments()],
        identities,
        Known::default(),
        &|_| {},
    );
    let refused = refused.expect_err("no such customer");
    assert!(
        refused.is_usage() && refused.to_string().contains("alice"),
        "{refused}"
    );
}

#[test]
fn what_a_cut_log_does_not_say_is_not_judged() {
    let mut world = World::whole(2);
    let more = (100..300).map(|n| entry(n, &packet(1, n), Flags::SENT));
    world.lanes[1].extend(more);
    world.stored[1] = Stored::of(1, 0..300);
    // The end, and the last block of the second stream with it.
    let log = world.log(32 + 20);
    assert!(!log.complete());
    let verdict = world.verdict_with(&log, named(&[0, 1]));
    assert!(verdict.figures.as_expected, "{:?}", verdict.figures.differences);
    assert!(verdict.figures.beyond_log > 0 && verdict.figures.stored_loss == 0);
    assert!(verdict.notes.iter().any(|note| note.contains("cut")));
}

#[test]
fn packets_of_other_runs_are_passed_over() {
    let mut world = World::whole(2);
    let mut earlier = packet(0, 5);
    let mark = Mark {
        stream: 0,
        sequence: 5,
        intended_ns: START_NS - 3_600_000_000_000,
    };
    mark.write(RUN, earlier[12..].first_chunk_mut().expect("room for the mark"));
    world.stored[0].packets.insert(0, (false, earlier));
    let figures = world.verdict().figures;
    assert!(figures.as_expected, "{:?}", figures.differences);
    assert_eq!(figures.other_runs, 1);
}

#[test]
fn what_nobody_was_told_of_must_not_be_stored() {
    let mut world = World::whole(3);
    world.unknown = Some(2);
    let verdict = world.verdict();
    assert_eq!((verdict.figures.foreign, verdict.figures.expected), (100, 200));
    world.stored.pop();
    let verdict = world.verdict();
    assert!(verdict.figures.as_expected, "{:?}", verdict.figures.differences);
    assert_eq!(verdict.figures.lost_by.impairment, 100);
}

#[test]
fn a_damaged_segment_is_told_and_what_it_held_is_lost() {
    let world = World::whole(2);
    let data = world.segments();
    let path = data.join("node-22/segments/20261123/0.hseal");
    let mut bytes = std::fs::read(&path).expect("just written");
    let is_chunk = |at: &usize| {
        let header = harborseal_segment::block::parse_block(&bytes[*at..]);
        header.is_ok_and(|header| header.block_type == harborseal_segment::BlockType::Chunk)
    };
    let chunk = (0..bytes.len())
        .step_by(4096)
        .find(is_chunk)
        .expect("chunks are there");
    bytes[chunk + 1000] ^= 1;
    std::fs::write(&path, &bytes).expect("a temporary file");
    let verdict = verify(&world.log(0), &[data], named(&[0, 1]), Known::default(), &|_| {})
        .expect("the rest can be read");
    assert_eq!(verdict.figures.stored_loss, 25, "a chunk of 25 packets");
    let damage = verdict
        .figures
        .differences
        .iter()
        .any(|line| line.contains("0.hseal"));
    assert!(damage, "{:?}", verdict.figures.differences);
}

#[test]
fn a_folder_without_segments_is_an_error_that_says_what_to_name() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let world = World::whole(1);
    let error = verify(
        &world.log(0),
        &[dir.path().to_owned()],
        named(&[0]),
        Known::default(),
        &|_| {},
    );
    let error = error.expect_err("nothing is there").to_string();
    assert!(error.contains("data folder"), "{error}");
}

#[test]
fn a_file_that_is_no_segment_and_an_identity_that_opens_nothing_are_told() {
    let world = World::whole(2);
    let path = world.dir.path().join("notes.hseal");
    std::fs::write(&path, "no segment").expect("a temporary file");
    let refused = verify(&world.log(0), &[path], named(&[0]), Known::default(), &|_| {});
    let refused = refused.expect_err("there is nothing to look at").to_string();
    assert!(refused.contains("notes.hseal"), "{refused}");
    let mut identities = named(&[0, 1]);
    identities[0].identity = identity(7);
    let verdict = world.verdict_with(&world.log(0), identities);
    assert!(
        verdict.notes[0].contains("\"alice\" opens nothing"),
        "{:?}",
        verdict.notes
    );
    assert_eq!(verdict.figures.stored_loss, 100);
}
