//! Files made by somebody who knows the format, lacks the keys, and can compute a CRC: nothing panics, and in a sealed segment
//! no change passes.

mod common;

use common::*;
use harborseal_segment::block::{BlockType, HEADER_LEN, Header, Stored, parse_block};
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::{Segment, State};
use harborseal_segment::recover::{Plan, plan};
use harborseal_segment::scan::ReadError;
use harborseal_segment::source::Source;
use harborseal_segment::verify::{Chains, verify};
use proptest::prelude::*;

/// Offsets of all blocks, both SEGMENT blocks among them.
fn offsets(file: &[u8]) -> Vec<usize> {
    let mut offsets = vec![0, 4096];
    let mut at = 8192;
    while at < file.len() {
        offsets.push(at);
        at += parse_block(&file[at..]).expect("a whole block").total_len as usize;
    }
    offsets
}

/// Makes the CRCs of the block at `at` right again, as far as its header still says where its body is.
fn reseal(file: &mut [u8], at: usize) {
    let block = &mut file[at..];
    let header_len = usize::from(u16::from_le_bytes([block[6], block[7]]));
    let body_len = u32::from_le_bytes([block[12], block[13], block[14], block[15]]) as usize;
    if let Some(covered) = block.get(HEADER_LEN..header_len.saturating_add(body_len)) {
        let crc = crc32c::crc32c(covered);
        block[112..116].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(&block[..124]);
    block[124..128].copy_from_slice(&crc.to_le_bytes());
}

/// Everything that reads a segment, with an identity that it holds something for.
fn read_all(file: &[u8]) {
    let _ = plan(&file, Some(&node()), BEGAN_S, |_| ());
    let mut keyring = Keyring::new(alice());
    let _ = verify(&file, Some(&mut keyring), |_| ());
    let Ok(mut segment) = Segment::open(file) else {
        return;
    };
    let Ok(streams) = segment.open_streams(&mut keyring) else {
        return;
    };
    for stream in streams.into_iter().flatten() {
        let Ok(chunks) = segment.chunks(&stream) else {
            continue;
        };
        for chunk in chunks.flatten() {
            assert!(chunk.packets().count() > 0);
        }
    }
}

#[test]
fn no_change_to_a_sealed_segment_passes_even_with_right_crcs() {
    let file = closed_segment(0);
    for at in offsets(&file) {
        let header = parse_block(&file[at..]).expect("a whole block");
        let in_header = (0..HEADER_LEN).filter(|byte| !(112..116).contains(byte) && *byte < 124);
        let in_body = (HEADER_LEN..header.body_end()).step_by(if header.body_len > 1000 { 211 } else { 13 });
        for byte in in_header.chain(in_body) {
            let mut file = file.clone();
            file[at + byte] ^= 1;
            reseal(&mut file, at);
            if header.block_type == BlockType::Segment {
                // Both, or the other one tells.
                file.copy_within(at..at + 4096, 4096 - at);
            }
            match verify(&&file[..], None, |_| ()) {
                // Under another segment's id no block is its own any more: it is open, and nobody writes it.
                Ok(report) => assert!(
                    !report.is_clean() || (report.state == State::Open && !report.unused),
                    "{:?}, byte {byte}",
                    header.block_type
                ),
                Err(ReadError::Io { why, .. }) => panic!("{why}"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn a_chunk_forged_under_the_same_crc_and_tag_opens_for_nobody() {
    let file = closed_segment(0);
    let chunk = offsets(&file)
        .into_iter()
        .find(|at| parse_block(&file[*at..]).is_ok_and(|header| header.block_type == BlockType::Chunk));
    let at = chunk.expect("chunks");
    // A body with the same CRC32C: the generator polynomial, somewhere, changes nothing of the sum.
    let mut forged = file.clone();
    let header = Header::parse(&file[at..]).expect("a header");
    let polynomial: u64 = 0x0001_05EC_76F1;
    for bit in (0..33).filter(|bit| polynomial >> bit & 1 == 1) {
        let place = 8 * (at + HEADER_LEN) + bit;
        forged[place / 8] ^= 1 << (place % 8);
    }
    assert_eq!(
        header.check_body(&forged[at..]),
        Ok(Stored::Whole),
        "the CRC cannot tell"
    );
    let blind = verify(&&forged[..], None, |_| ()).expect("readable");
    assert!(
        blind.is_clean(),
        "without a key it passes: the leaf is the header's alone, unless the segment has STRONG_LEAF"
    );
    let mut keyring = Keyring::new(alice());
    let seen = verify(&&forged[..], Some(&mut keyring), |_| ()).expect("readable");
    let kinds: Vec<_> = seen.findings.iter().map(|finding| finding.what.name()).collect();
    assert_eq!(kinds, ["not_authentic"]);
}

/// Bytes to write over a block, and where: anything, or a number at the edge of what a field can hold.
fn edit() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let anything = prop::collection::vec(any::<u8>(), 1..4);
    let edges = [0, 1, u64::from(u32::MAX), u64::MAX - 1, u64::MAX, 1 << 63, 4096];
    let edge = prop::sample::select(edges.to_vec()).prop_map(|value| value.to_le_bytes().to_vec());
    let place = (0..(HEADER_LEN + 260) / 4).prop_map(|word| word * 4);
    (place, prop_oneof![anything, edge])
}

/// Camera and chunks of all streams that Alice opens, and the longest read that it took.
fn chunks_read(file: &[u8]) -> Option<(Vec<(String, usize)>, usize)> {
    let source = Longest(file, Default::default());
    let mut segment = Segment::open(&source).ok()?;
    let mut opened = Vec::new();
    for stream in segment.open_streams(&mut Keyring::new(alice())).ok()? {
        let stream = stream.ok()?;
        let chunks = segment.chunks(&stream).ok()?.filter(Result::is_ok).count();
        opened.push((stream.info.camera_id.clone(), chunks));
    }
    Some((opened, source.1.get()))
}

/// Remembers the longest read of it.
struct Longest<'a>(&'a [u8], std::cell::Cell<usize>);

impl Source for Longest<'_> {
    fn len(&self) -> u64 {
        Source::len(self.0)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.1.set(self.1.get().max(buf.len()));
        self.0.read_at(offset, buf)
    }
}

/// What an index must not be believed: each 32-bit word of it and of the footer is once each of these.
const LIES: [u32; 6] = [0, 1, 4096, 1 << 20, u32::MAX - 4095, u32::MAX];

#[test]
fn an_index_that_lies_about_its_places_hides_no_chunk() {
    let (mut file, finished) = open_segment(0).finish(None);
    let footer = finished.footer;
    let whole = chunks_read(&file).expect("opens").0;
    assert_eq!(whole, [("front-door".to_owned(), 3), ("garden".to_owned(), 2)]);
    let (chunks_at, streams_at, keys_at) = (footer.chunks_offset, footer.streams_offset, footer.keys_offset);
    let footer_at = file.len() - 4096;
    // From the table's head on: kind, row_len, row_count, part; then the rows, without what says whose they are and when they were: who
    // believes in a slot or a time, believes it (verify does not).
    let mut words: Vec<(usize, usize)> = (0..48 / 4).map(|word| (footer_at, 128 + 8 + word * 4)).collect();
    words.extend(
        (0..3).flat_map(|word| [chunks_at, streams_at, keys_at].map(|at| (at as usize, 128 + word * 4))),
    );
    let rows = finished.footer.chunk_count as usize;
    let offset_len_row = [0, 4, 8, 12, 40, 44];
    words
        .extend((0..rows).flat_map(|row| offset_len_row.map(|at| (chunks_at as usize, 144 + row * 48 + at))));
    let offset_chunks = [16, 20, 32, 36];
    words.extend((0..3).flat_map(|row| offset_chunks.map(|at| (streams_at as usize, 144 + row * 64 + at))));
    words.extend([0, 4, 8].map(|at| (keys_at as usize, 144 + at)));
    for (block, word) in words {
        for lie in LIES {
            let place = block + word..block + word + 4;
            let truth: [u8; 4] = file[place.clone()].try_into().expect("four bytes");
            file[place.clone()].copy_from_slice(&lie.to_le_bytes());
            reseal(&mut file, block);
            let (opened, longest) = chunks_read(&file).expect("whatever the index says");
            assert!(
                longest <= 1 << 20,
                "a read of {longest} bytes: block {block}, byte {word}, {lie}"
            );
            assert_eq!(opened, whole, "block {block}, byte {word}, {lie}");
            file[place].copy_from_slice(&truth);
            reseal(&mut file, block);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_edits_never_panic_and_what_recovery_closes_is_clean(
        edits in prop::collection::vec((any::<prop::sample::Index>(), edit()), 1..6),
        open: bool,
    ) {
        let mut file = if open { open_segment(0).bytes } else { closed_segment(0) };
        let places = offsets(&file);
        for (block, (byte, bytes)) in edits {
            let at = places[block.index(places.len())];
            file[at + byte..][..bytes.len()].copy_from_slice(&bytes);
            reseal(&mut file, at);
        }
        read_all(&file);
        if let Ok(report) = verify(&&file[..], None, |_| ()) {
            let mut chains = Chains::default();
            chains.add(report.member);
            chains.add(verify(&&closed_segment(1)[..], None, |_| ()).expect("readable").member);
            chains.check(true, &|_| false);
        }
        if let Ok(Plan::CloseTail(tail)) = plan(&&file[..], None, BEGAN_S, |_| ()) {
            file.resize(file.len().max(tail.end() as usize), 0);
            file[tail.offset as usize..tail.end() as usize].copy_from_slice(&tail.bytes);
            file.truncate(tail.end() as usize);
            let report = verify(&&file[..], None, |_| ()).expect("readable");
            let found: Vec<_> = report.findings.iter().map(|finding| finding.to_string()).collect();
            prop_assert!(report.is_clean(), "{found:?}");
        }
    }
}
