//! Whole segments: read, verified, recovered. Each has its own view of the same file, and the views must agree.

use std::collections::BTreeMap;

use harborseal_segment::block::{BLOCK_ALIGN, Header, SEGMENT_PREFIX_LEN};
use harborseal_segment::body::{ChunkRow, StreamRow};
use harborseal_segment::head::Head;
use harborseal_segment::ids::{SegmentId, StreamId};
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::{Segment, State};
use harborseal_segment::recover::{CloseTail, Piece, Plan, Repair, plan};
use harborseal_segment::scan::{Item, ReadError, Scanner};
use harborseal_segment::verify::{Chains, Finding, Report, Severity};

use super::customers::{NOW_S, node};
use super::forge::forge;
use super::input::Input;
use super::recipe::ending;

/// What could be opened: stream_seq and packets of each chunk, by origin and stream.
pub type Opened = BTreeMap<(SegmentId, StreamId), Vec<(u64, u64)>>;

/// Everything a reader does with a file.
pub fn reader(data: &[u8]) {
    let forged = forge(&mut Input::new(data));
    let file = &forged.file;
    let Ok(head) = Head::read(file) else {
        assert!(Segment::open(file).is_err(), "no head, no segment");
        return;
    };
    assert_walk(file, &head);
    let Ok(mut segment) = Segment::open(file) else {
        return;
    };
    every_row(&segment);
    if let Some(mut keyring) = forged.reader() {
        open_all(&mut segment, &mut keyring);
    }
}

/// The walk meets every byte behind the head, once, in order, and takes nothing for a block that is none.
fn assert_walk(file: &Vec<u8>, head: &Head) {
    let mut scanner = Scanner::new(file, head.id);
    let mut at = SEGMENT_PREFIX_LEN as u64;
    while let Some(item) = scanner.next_item().expect("memory can be read") {
        let (offset, end) = match item {
            Item::Gap(gap) => {
                assert!(gap.len > 0 && gap.headers.len() <= 64);
                (gap.offset, gap.end())
            }
            Item::Block(block) => {
                assert_eq!(Header::parse(block.bytes), Ok(block.header));
                assert_eq!(block.header.check_body(block.bytes), Ok(block.stored));
                assert!(block.bytes == &file[block.offset as usize..block.end() as usize]);
                (block.offset, block.end())
            }
        };
        assert_eq!(offset, at, "nothing is left out");
        at = end;
    }
    assert!(at == file.len() as u64 || file.len() < SEGMENT_PREFIX_LEN);
}

/// Streams, and chunks with their streams.
type Rows = (Vec<StreamRow>, Vec<(StreamId, ChunkRow)>);

/// Streams and chunks as the index has them, or a scan; `None` if the index leads astray.
fn every_row(segment: &Segment<&Vec<u8>>) -> Option<Rows> {
    let mut chunks = Vec::new();
    let listed = segment.each_chunk(|stream, row| chunks.push((stream.stream_id, *row)));
    listed.ok().map(|()| (segment.streams().to_vec(), chunks))
}

/// Opens everything that is for one customer.
fn open_all(segment: &mut Segment<&Vec<u8>>, keyring: &mut Keyring) -> Opened {
    let mut opened = Opened::new();
    let Ok(streams) = segment.open_streams(keyring) else {
        return opened;
    };
    // A segment of n pages holds less than n chunks, and as many places where some are missing; a hostile index may list one often.
    let bound = 2 * 21_842 * (segment.source().len() / BLOCK_ALIGN + 1);
    for stream in streams.into_iter().flatten() {
        let Ok(chunks) = segment.chunks(&stream) else {
            continue;
        };
        let found = opened.entry((stream.origin, stream.stream_id)).or_default();
        for (step, chunk) in chunks.enumerate() {
            assert!(step < bound, "a stream's chunks come to an end");
            let Ok(chunk) = chunk else { continue };
            let packets = chunk.packets().count() as u64;
            assert_eq!(packets, u64::from(chunk.head.packet_count));
            found.push((chunk.stream_seq, packets));
        }
    }
    opened
}

/// The same without believing the index: a page of zeros behind the FOOTER, and the file is one that must be scanned.
pub fn scan_all(file: &[u8], keyring: &mut Keyring) -> Opened {
    let scanned = without_index(file);
    Segment::open(&scanned).map_or_else(|_| Opened::new(), |mut segment| open_all(&mut segment, keyring))
}

fn without_index(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    if file.len().is_multiple_of(BLOCK_ALIGN) {
        file.resize(file.len() + BLOCK_ALIGN, 0);
    }
    file
}

/// What a check says, in words too: none of them may panic.
pub fn check(file: &Vec<u8>, keyring: Option<&mut Keyring>) -> Result<Report, ReadError> {
    let report = harborseal_segment::verify::verify(file, keyring, |_| ())?;
    for finding in report.findings.iter() {
        assert!(finding.offset.checked_add(finding.len).is_some());
        assert!(!finding.to_string().is_empty() && !finding.what.name().is_empty());
    }
    let damage = report.findings.count(Severity::Damage) + report.findings.count(Severity::Unsupported);
    assert_eq!(report.is_clean(), damage == 0);
    let mut chains = Chains::default();
    chains.add(report.member.clone());
    for complete in [true, false] {
        for found in chains.check(complete, &|_| false) {
            assert!(!found.finding.to_string().is_empty());
        }
    }
    Ok(report)
}

/// A file that is called clean reads the same whichever way it is read, and not after one bit was changed.
pub fn verify(data: &[u8]) {
    let mut input = Input::new(data);
    let (flip_at, flip_bit) = (input.u32() as usize, input.u8() % 8);
    let forged = forge(&mut input);
    let file = &forged.file;
    let Ok(report) = check(file, None) else {
        return;
    };
    if let Some(mut keyring) = forged.reader() {
        // One keyring for all: a segment that it has seen is found by its hints the second time.
        let owned = check(file, Some(&mut keyring)).expect("it was readable without a key");
        assert!(report.is_clean() || !owned.is_clean(), "a key hides nothing");
        if owned.is_clean() {
            assert_opened(file, &owned, &mut keyring);
        }
    }
    if !report.is_clean() || report.state != State::Sealed {
        return;
    }
    let segment = Segment::open(file).expect("it is clean");
    let scanned = without_index(file);
    let scanned = Segment::open(&scanned).expect("it is clean");
    assert_eq!(
        every_row(&segment),
        every_row(&scanned),
        "the index is what a scan finds"
    );
    let mut flipped = file.clone();
    flipped[flip_at % file.len()] ^= 1 << flip_bit;
    if let Ok(after) = check(&flipped, None)
        && report.file_len == report.data_end + footer_and_index(&report)
    {
        let unseen = after.is_clean() && after.state == State::Sealed;
        assert!(
            !unseen,
            "bit {flip_bit} of byte {} is not missed",
            flip_at % file.len()
        );
    }
}

/// Bytes that stand behind a closed segment's data.
fn footer_and_index(report: &Report) -> u64 {
    let footer = report.footer.expect("it is closed");
    footer.chunks_len + footer.streams_len + footer.keys_len + BLOCK_ALIGN as u64
}

/// What a clean check counted can be opened.
fn assert_opened(file: &[u8], report: &Report, keyring: &mut Keyring) {
    let opened = scan_all(file, keyring);
    for seen in &report.own_streams {
        let chunks = opened.get(&(seen.origin, seen.stream_id));
        let chunks = chunks.expect("a stream that the check opened opens again");
        assert_eq!(chunks.len() as u64, seen.chunks);
        assert_eq!(
            chunks.iter().map(|(_, packets)| packets).sum::<u64>(),
            seen.packets
        );
    }
}

/// A file after its tail was closed.
pub fn closed(file: &[u8], tail: &CloseTail) -> Vec<u8> {
    let mut file = file[..tail.offset as usize].to_vec();
    file.extend_from_slice(&tail.bytes);
    assert_eq!(file.len() as u64, tail.end());
    file
}

/// The repaired copy of a file.
pub fn copied(file: &[u8], repair: &Repair) -> Vec<u8> {
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

/// Recovery of any file: it is told why not, or what comes of it is whole, keeps what could be read, and needs no second time.
pub fn recover(data: &[u8]) {
    let forged = forge(&mut Input::new(data));
    let file = &forged.file;
    let signed = forged.ending & ending::UNSIGNED == 0;
    let done = match plan(file, signed.then(node), NOW_S + 99, |_| ()) {
        Err(ReadError::Unsupported { .. }) => return,
        Err(error) => {
            assert!(
                check(file, None).is_err(),
                "readable, and not recoverable: {error}"
            );
            return;
        }
        Ok(Plan::AlreadyClosed(report)) => {
            assert!(report.is_clean() && report.state != State::Open);
            return;
        }
        Ok(Plan::Unused(tail)) => {
            let report = &tail.report;
            assert!(report.is_clean() && report.unused && report.counts.chunks == 0);
            return;
        }
        Ok(Plan::CloseTail(tail)) => {
            assert!(tail.report.is_clean());
            assert!(
                tail.offset >= tail.report.floor,
                "nothing below the floor is touched"
            );
            closed(file, &tail)
        }
        Ok(Plan::Corrupt(repair)) => {
            assert!(!repair.report.is_clean());
            let copy = copied(file, &repair);
            // Blocks that were moved or exchanged are beyond repair, and the copy's own check is what says so.
            match check(&copy, None).expect("its head is whole").is_clean() {
                true => copy,
                false => return,
            }
        }
    };
    assert_whole(&done);
    if let Some(mut keyring) = forged.reader() {
        let before = scan_all(file, &mut keyring);
        assert_eq!(
            scan_all(&done, &mut keyring),
            before,
            "what could be opened still can"
        );
    }
}

/// Closed, clean, and nothing left to do.
pub fn assert_whole(done: &Vec<u8>) {
    let report = check(done, None).expect("it was just made");
    // That chunks were erased is another segment's to allow, and no matter of recovery.
    let worse =
        |finding: &&Finding| finding.severity() != Severity::Note && finding.what.name() != "erased_unstated";
    let found: Vec<_> = report
        .findings
        .iter()
        .filter(worse)
        .map(ToString::to_string)
        .collect();
    assert!(found.is_empty() && report.state != State::Open, "{found:?}");
    let again = plan(done, None, NOW_S + 100, |_| ()).expect("it was just made");
    assert!(matches!(again, Plan::AlreadyClosed(_)), "recovery is repeatable");
}
