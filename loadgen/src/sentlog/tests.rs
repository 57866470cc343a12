//! The sent log, written and read back.

use super::*;
use std::path::Path;

/// A log's header for `streams` streams of one camera each.
pub fn about(streams: u32) -> About {
    let stream = |at| LoggedStream {
        camera: format!("camera-{at}"),
        customer: "alice".into(),
        group: "all".into(),
        media: Media::H264,
        ssrc: 10 + at,
        target: at % 2,
        known: true,
    };
    About {
        plan: "test".into(),
        seed: 1,
        run: 7,
        start_ns: 99,
        targets: vec!["127.0.0.1:1".into(), "127.0.0.1:2".into()],
        streams: (0..streams).map(stream).collect(),
    }
}

/// An entry of a packet that left.
pub fn sent(sequence: u64, packet: &[u8]) -> Entry {
    Entry {
        hash: packet_hash(packet),
        sequence,
        flags: Flags::SENT,
        intended_ns: sequence * 1_000,
        len: packet.len() as u16,
    }
}

/// An entry of a packet of which nothing left.
pub fn not_sent(sequence: u64, why: Flags) -> Entry {
    Entry {
        hash: 0,
        flags: why,
        ..sent(sequence, b"")
    }
}

fn log_of_300_packets(path: &Path) {
    let mut writer = SentLogWriter::create(path, &about(3)).expect("a temporary file");
    for at in 0..300u32 {
        writer.note(0, Lane::Rtp, sent(at.into(), &at.to_be_bytes()));
        if at % 3 == 0 {
            writer.note(2, Lane::Rtp, not_sent(at.into(), Flags::FAILED));
        } else {
            writer.note(2, Lane::Rtp, sent(at.into(), b"same"));
        }
    }
    writer.note(2, Lane::Rtcp, sent(0, b"report"));
    writer.note_ssrc(2, LATER);
    writer.finish().expect("a temporary file");
}

const LATER: SsrcFrom = SsrcFrom {
    ssrc: 0xfeed,
    sequence: 120,
    at_ns: 5_000,
};

fn entries(log: &SentLog, stream: u32, lane: Lane) -> Vec<Entry> {
    log.packets(stream, lane)
        .collect::<Result<_, _>>()
        .expect("an undamaged log")
}

#[test]
fn what_was_written_reads_back_per_stream_and_lane_in_order() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("sent");
    log_of_300_packets(&path);
    let log = SentLog::open(&path).expect("just written");
    assert!(log.complete());
    assert_eq!((log.about(), log.run(), log.start_ns()), (&about(3), 7, 99));
    let first: Vec<_> = (0..300u32).map(|at| sent(at.into(), &at.to_be_bytes())).collect();
    assert_eq!(entries(&log, 0, Lane::Rtp), first);
    assert_eq!(entries(&log, 1, Lane::Rtp), []);
    let third = entries(&log, 2, Lane::Rtp);
    assert_eq!((third.len(), log.entries(2, Lane::Rtp)), (300, 300));
    let failed = |at: usize| third[at] == not_sent(at as u64, Flags::FAILED);
    assert!((0..300).all(|at| failed(at) == (at % 3 == 0)));
    assert_eq!(entries(&log, 2, Lane::Rtcp), [sent(0, b"report")]);
    assert_eq!(entries(&log, 77, Lane::Rtp), []);
    let first = SsrcFrom {
        ssrc: 12,
        sequence: 0,
        at_ns: 0,
    };
    assert_eq!(log.ssrcs(2).expect("an undamaged log"), [first, LATER]);
    assert_eq!(log.ssrcs(1).expect("an undamaged log").len(), 1);
}

#[test]
fn an_entry_keeps_every_field_at_its_limits() {
    for entry in [
        Entry {
            hash: u64::MAX,
            sequence: U48_MAX,
            flags: Flags(u16::MAX),
            intended_ns: U48_MAX * 1000,
            len: u16::MAX,
        },
        Entry {
            hash: 1,
            sequence: 1 << 40,
            flags: Flags::SENT | Flags::STRANGER,
            intended_ns: 7_000,
            len: 1,
        },
    ] {
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), entry);
    }
    assert_eq!(format!("{:?}", Flags::SENT | Flags::RUNT), "SENT|RUNT");
}

#[test]
fn only_what_left_whole_enough_and_of_a_known_camera_is_fit_to_store() {
    assert!((Flags::SENT | Flags::CORRUPT | Flags::TRUNCATED | Flags::DELAYED).fit_to_store());
    for unfit in [
        Flags::LOST,
        Flags::FAILED,
        Flags::SENT | Flags::RUNT,
        Flags::SENT | Flags::STRANGER,
    ] {
        assert!(!unfit.fit_to_store(), "{unfit:?}");
    }
}

#[test]
fn a_log_cut_anywhere_is_incomplete_and_never_invents_an_entry() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("sent");
    log_of_300_packets(&path);
    let whole = std::fs::read(&path).expect("just written");
    let good = SentLog::open(&path).expect("just written");
    let all = entries(&good, 0, Lane::Rtp);
    for len in (0..whole.len()).step_by(29) {
        let cut = dir.path().join("cut");
        std::fs::write(&cut, &whole[..len]).expect("a temporary file");
        if let Ok(log) = SentLog::open(&cut) {
            assert!(!log.complete(), "cut at {len}");
            assert!(all.starts_with(&entries(&log, 0, Lane::Rtp)));
        }
    }
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("sent");
    log_of_300_packets(&path);
    let whole = std::fs::read(&path).expect("just written");
    for at in (0..whole.len()).step_by(37) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let changed = dir.path().join("changed");
        std::fs::write(&changed, bytes).expect("a temporary file");
        let Ok(log) = SentLog::open(&changed) else {
            continue;
        };
        let lanes = (0..3).flat_map(|stream| [Lane::Rtp, Lane::Rtcp, Lane::Ssrc].map(|lane| (stream, lane)));
        let damaged = |(stream, lane)| log.packets(stream, lane).any(|entry| entry.is_err());
        // What nothing depends on: the block size a writer states for people, and the end block but for its number.
        let spare = (12..16).contains(&at) || at >= whole.len() - BLOCK_HEADER_BYTES;
        assert!(
            !log.complete() || lanes.into_iter().any(damaged) || spare,
            "byte {at}"
        );
    }
}

#[test]
fn a_foreign_file_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("holiday.jpg");
    std::fs::write(&path, [0xff; 100]).expect("a temporary file");
    let error = SentLog::open(&path).err().expect("not a log").to_string();
    assert!(
        error.contains("holiday.jpg") && error.contains("not a sent log"),
        "{error}"
    );
}
