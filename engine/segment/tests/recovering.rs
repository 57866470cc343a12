//! Recovering: every torn tail closes, every damage is repaired or named, and a crash in between changes nothing.

mod common;

use common::*;
use harborseal_segment::block::{BlockType, parse_block};
use harborseal_segment::node::NodeKey;
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::{Segment, State};
use harborseal_segment::recover::{CloseTail, Piece, Plan, Repair, plan};
use harborseal_segment::scan::ReadError;
use harborseal_segment::verify::{Report, verify};

const NOW_S: u64 = BEGAN_S + 1000;
const RESERVED: usize = 256 << 10;

fn decide(file: &[u8]) -> Plan {
    plan(&file, Some(&node()), NOW_S, |_| ()).expect("readable")
}

fn check(file: &[u8]) -> Report {
    verify(&file, None, |_| ()).expect("readable")
}

fn assert_clean(file: &[u8], what: &str) -> Report {
    let report = check(file);
    let found: Vec<_> = report.findings.iter().map(|f| f.to_string()).collect();
    assert!(report.is_clean(), "{what}: {found:?}");
    report
}

fn closed(file: &[u8], tail: &CloseTail) -> Vec<u8> {
    let mut file = file.to_vec();
    file.resize(file.len().max(tail.end() as usize), 0);
    file[tail.offset as usize..tail.end() as usize].copy_from_slice(&tail.bytes);
    file.truncate(tail.end() as usize);
    file
}

fn copied(file: &[u8], repair: &Repair) -> Vec<u8> {
    let mut copy = Vec::new();
    for piece in &repair.pieces {
        match piece {
            Piece::Copy { offset, len } => {
                assert_eq!(*offset as usize, copy.len(), "one behind the other");
                copy.extend_from_slice(&file[*offset as usize..(*offset + *len) as usize]);
            }
            Piece::Write { offset, bytes, len } => {
                assert_eq!(*offset as usize, copy.len(), "one behind the other");
                copy.extend_from_slice(bytes);
                copy.resize((offset + len) as usize, 0);
            }
        }
    }
    copy
}

fn close_tail(file: &[u8]) -> Vec<u8> {
    match decide(file) {
        Plan::CloseTail(tail) => closed(file, &tail),
        other => panic!("{other:?}"),
    }
}

fn repaired(file: &[u8]) -> Vec<u8> {
    match decide(file) {
        Plan::Corrupt(repair) => copied(file, &repair),
        other => panic!("{other:?}"),
    }
}

/// An open segment with much above its floor, in reserved space.
fn torn_segment() -> (Vec<u8>, usize, usize) {
    let mut recording = open_segment(0);
    recording.chunk(1, &vec![vec![0x77; 1000]; 30]);
    for camera in [2, 0, 1] {
        recording.small_chunk(camera);
    }
    recording.checkpoint(None, &[]);
    recording.small_chunk(0);
    let (floor, end) = (recording.durable as usize, recording.bytes.len());
    let mut file = recording.bytes;
    file.resize(end + RESERVED, 0);
    (file, floor, end)
}

/// Chunks that open with Alice's identity.
fn alices_chunks(file: &[u8]) -> usize {
    let mut segment = Segment::open(file).expect("opens");
    let streams = segment.open_streams(&mut Keyring::new(alice())).expect("opens");
    let mut opened = 0;
    for stream in streams {
        let stream = stream.expect("opens");
        opened += segment
            .chunks(&stream)
            .expect("rows")
            .filter(|chunk| chunk.is_ok())
            .count();
    }
    opened
}

#[test]
fn a_healthy_tail_is_closed_in_place_and_signed() {
    let (file, _, end) = torn_segment();
    let done = close_tail(&file);
    assert_eq!(done[..end], file[..end], "not a byte of it changed");
    let report = assert_clean(&done, "closed");
    assert_eq!(
        (report.state, report.findings.iter().count()),
        (State::Recovered, 0)
    );
    assert_eq!(alices_chunks(&done), alices_chunks(&file));
    assert!(matches!(decide(&done), Plan::AlreadyClosed(_)));
}

#[test]
fn without_the_nodes_key_the_footer_is_not_signed() {
    let (file, ..) = torn_segment();
    for key in [None, Some(NodeKey::from_bytes(&[9; 32]))] {
        let Plan::CloseTail(tail) = plan(&&file[..], key.as_ref(), NOW_S, |_| ()).expect("readable") else {
            panic!("closes")
        };
        let report = assert_clean(&closed(&file, &tail), "closed");
        let notes: Vec<_> = report.findings.iter().map(|f| f.what.name()).collect();
        assert_eq!(notes, ["unsigned"]);
        assert!(report.footer.expect("closed").signed_leaf_count > 0);
    }
}

#[test]
fn a_tail_torn_at_any_page_closes_and_keeps_its_islands() {
    let (file, floor, end) = torn_segment();
    let durable = alices_chunks(&file[..floor]);
    for page in (floor..end).step_by(4096) {
        let mut cut = file.clone();
        cut[page..].fill(0);
        let done = close_tail(&cut);
        assert_clean(&done, &format!("cut at {page}"));
        assert!(alices_chunks(&done) >= durable);

        let mut shorter = file.clone();
        shorter.truncate(page);
        assert_clean(&close_tail(&shorter), &format!("shortened to {page}"));

        for garbage in [0, 0xA5] {
            let mut hole = file.clone();
            hole[page..page + 4096].fill(garbage);
            let done = close_tail(&hole);
            let report = assert_clean(&done, &format!("hole at {page}"));
            assert!(
                alices_chunks(&done) + 1 >= alices_chunks(&file),
                "one block is lost, {page}"
            );
            let last = page + 4096 >= end;
            assert_eq!(
                report.findings.iter().any(|f| f.what.name() == "hole"),
                !last,
                "{page}"
            );
            assert!(matches!(decide(&done), Plan::AlreadyClosed(_)));
        }
    }
}

#[test]
fn a_crash_during_recovery_changes_nothing_about_the_outcome() {
    let (mut file, floor, _) = torn_segment();
    file[floor..floor + 4096].fill(0xA5);
    let Plan::CloseTail(tail) = decide(&file) else {
        panic!("closes")
    };
    let whole = closed(&file, &tail);
    let pages = tail.bytes.len() / 4096;
    assert!(pages >= 4);
    // Any subset of the pages reached the disk; the file was not cut yet.
    for subset in 0..1u32 << pages {
        let mut crashed = file.clone();
        for page in (0..pages).filter(|page| subset >> page & 1 == 1) {
            let at = tail.offset as usize + page * 4096;
            crashed[at..at + 4096].copy_from_slice(&tail.bytes[page * 4096..(page + 1) * 4096]);
        }
        assert_clean(&crashed, "before the second attempt");
        assert_eq!(close_tail(&crashed), whole, "{subset:b}");
    }
}

#[test]
fn a_writers_own_crash_while_closing_is_a_torn_tail_too() {
    let (file, finished) = open_segment(0).finish(None);
    let start = finished.offset as usize;
    let pages = finished.bytes.len() / 4096;
    for subset in 0..1u32 << pages {
        let mut crashed = file.clone();
        crashed.resize(file.len() + RESERVED, 0);
        for page in (0..pages).filter(|page| subset >> page & 1 == 0) {
            crashed[start + page * 4096..][..4096].fill(0);
        }
        assert_clean(&crashed, "before recovery");
        let done = close_tail(&crashed);
        let report = assert_clean(&done, "after recovery");
        let whole = subset == (1 << pages) - 1;
        assert_eq!(report.state, if whole { State::Sealed } else { State::Recovered });
        if whole {
            assert_eq!(done, file, "only the cut was missing");
        }
    }
}

#[test]
fn damage_below_the_floor_is_reported_and_repaired_in_a_copy() {
    let (open, floor, _) = torn_segment();
    let sealed = closed_segment(0);
    for (file, end) in [(&open, floor), (&sealed, floor)] {
        let all = alices_chunks(file);
        let mut at = 8192;
        while at < end {
            let header = parse_block(&file[at..]).expect("a block");
            let mut damaged = file.clone();
            damaged[at + 140] ^= 1;
            let Plan::Corrupt(repair) = decide(&damaged) else {
                panic!("corrupt at {at}")
            };
            let found = repair
                .report
                .findings
                .iter()
                .find(|f| f.what.name() == "broken_block");
            let found = found.expect("the damage is named");
            assert_eq!((found.offset, found.len), (at as u64, header.total_len.into()));
            assert_eq!(found.streams.len(), usize::from(header.block_type.is_sealed()));
            let copy = copied(&damaged, &repair);
            let report = assert_clean(&copy, &format!("copy, {at}"));
            assert_eq!(report.state, State::Recovered);
            assert_eq!(copy[8192..at], file[8192..at], "blocks keep their offsets");
            let after = at + header.total_len as usize;
            assert_eq!(
                copy[after..floor],
                file[after..floor],
                "blocks keep their offsets"
            );
            if header.block_type == BlockType::Chunk {
                assert!(alices_chunks(&copy) + 1 >= all);
            }
            assert!(matches!(decide(&copy), Plan::AlreadyClosed(_)));
            at = after;
        }
    }
}

#[test]
fn a_hole_longer_than_a_block_takes_several_tombstones() {
    let mut recording = Recording::begin(0);
    let placed: Vec<_> = (0..60)
        .map(|_| recording.chunk(0, &vec![vec![1; 1200]; 50]))
        .collect();
    recording.sync();
    recording.small_chunk(1);
    let mut file = recording.bytes;
    let (from, to) = (placed[1].offset as usize, placed[40].offset as usize);
    file[from..to].fill(0);
    let copy = repaired(&file);
    let report = assert_clean(&copy, "copy");
    let lost: Vec<_> = report
        .findings
        .iter()
        .filter(|f| f.what.name() == "lost")
        .collect();
    assert_eq!(lost.len(), 3);
    assert_eq!(lost.iter().map(|f| f.len).sum::<u64>(), (to - from) as u64);
    assert!(report.findings.iter().any(|f| f.what.name() == "chunks_lost"));
}

#[test]
fn one_damaged_segment_block_is_repaired_from_the_other() {
    let file = closed_segment(0);
    for at in [50, 4096 + 50] {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        let copy = repaired(&damaged);
        assert_clean(&copy, "copy");
        assert_eq!(copy[..8192], file[..8192]);
    }
}

#[test]
fn a_lost_index_or_footer_is_rebuilt() {
    let (file, finished) = open_segment(0).finish(None);
    let mut damaged = file.clone();
    damaged[finished.footer.streams_offset as usize + 200] ^= 1;
    let copy = repaired(&damaged);
    let report = assert_clean(&copy, "index");
    assert_eq!(report.findings.iter().count(), 0, "nothing is lost");
    let mut damaged = file.clone();
    let footer = file.len() - 4096;
    damaged[footer + 200] ^= 1;
    let done = close_tail(&damaged);
    assert_clean(&done, "footer");
    assert_eq!(done[..finished.offset as usize], file[..finished.offset as usize]);
}

/// Seed 16 of the simulator: a crash while a segment was prepared left it as long as its head. Recovery closed it with a data_end of
/// 4096, the end of one SEGMENT block, and called its own work corrupt the next time.
#[test]
fn a_segment_of_nothing_but_its_head_closes_cleanly() {
    let done = close_tail(&Recording::begin(0).bytes[..8192]);
    assert_clean(&done, "closed");
    assert!(matches!(decide(&done), Plan::AlreadyClosed(_)));
}

#[test]
fn what_holds_nothing_is_left_alone() {
    let mut unused = Recording::begin(0).bytes;
    unused.resize(unused.len() + RESERVED, 0);
    assert!(matches!(decide(&unused), Plan::Unused(_)));
    // A crash while it was being prepared.
    unused[4096..8192].fill(0);
    assert!(matches!(decide(&unused), Plan::Unused(_)));
    assert_clean(&unused, "half prepared");
    unused[..4096].fill(0);
    let error = plan(&&unused[..], None, NOW_S, |_| ()).expect_err("no head");
    assert!(matches!(error, ReadError::NeverBegun));
    let error = plan(&&b"hello"[..], None, NOW_S, |_| ()).expect_err("no segment");
    assert!(matches!(error, ReadError::NotASegment(_)));
}
