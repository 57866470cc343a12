//! Files made by somebody who knows the format, lacks the keys, and can compute a CRC: nothing panics, and in a sealed segment
//! no change passes.

mod common;

use common::*;
use harborseal_segment::block::{BlockType, HEADER_LEN, Header, Stored, parse_block};
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::{Segment, State};
use harborseal_segment::recover::{Plan, plan};
use harborseal_segment::scan::ReadError;
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
