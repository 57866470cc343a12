//! Compacting: one customer's footage out of closed segments, without a key, whole and as sealed as before.

mod common;

use common::*;
use harborseal_segment::compact::{CompactError, Compaction, ObjectParams};
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::{Segment, StreamError};
use harborseal_segment::verify::{Chains, Report, verify};

fn object(sources: &[Vec<u8>], chosen: &[(SegmentId, u32)]) -> Result<Vec<u8>, CompactError> {
    let params = ObjectParams {
        segment_id: SegmentId([0xC0; 16]),
        run_id: RunId([0xC1; 16]),
        created_s: BEGAN_S,
    };
    let (mut compaction, mut file) = Compaction::begin(sources, chosen, &params, &node())?;
    while let Some(block) = compaction.next_block()? {
        file.extend_from_slice(&block);
    }
    let finished = compaction.finish(&node(), 0, BEGAN_S);
    assert_eq!(finished.offset, file.len() as u64);
    file.extend_from_slice(&finished.bytes);
    Ok(file)
}

fn check(file: &[u8], identity: Identity) -> Report {
    verify(&file, Some(&mut Keyring::new(identity)), |_| ()).expect("readable")
}

fn packets_of(file: &[u8], identity: Identity) -> Vec<Vec<u8>> {
    let mut segment = Segment::open(file).expect("opens");
    let mut packets = Vec::new();
    for stream in segment.open_streams(&mut Keyring::new(identity)).expect("opens") {
        let stream = stream.expect("opens");
        for chunk in segment.chunks(&stream).expect("rows") {
            packets.extend(
                chunk
                    .expect("opens")
                    .packets()
                    .map(|packet| packet.bytes.to_vec()),
            );
        }
    }
    packets
}

#[test]
fn an_object_is_clean_and_opens_to_the_same_packets_for_its_customer_alone() {
    let sources = [closed_segment(1), closed_segment(0)];
    let chosen = [(segment_id(0), ALICE_SLOT), (segment_id(1), ALICE_SLOT)];
    let file = object(&sources, &chosen).expect("compacts");
    let report = check(&file, alice());
    assert_eq!(report.findings.iter().count(), 0);
    assert!(report.head.body.is_compacted());
    assert_eq!((report.counts.chunks, report.streams.len()), (10, 4));
    let [second, first] = sources.map(|source| packets_of(&source, alice()));
    assert_eq!(packets_of(&file, alice()), [first, second].concat());
    // Bob's KEY entries came along in the same block, and open nothing here.
    let mut segment = Segment::open(&file[..]).expect("opens");
    assert!(
        segment
            .open_streams(&mut Keyring::new(bob()))
            .is_ok_and(|streams| streams.is_empty())
    );
    let refused = segment.open_streams(&mut Keyring::new(eve())).err();
    assert!(matches!(refused, Some(StreamError::NothingForIdentity)));
    // It is a chain of its own, which does not count its customer's chunks from the first one on.
    let mut late = Recording::begin(1);
    late.so_far = [4, 5, 6];
    late.small_chunk(0);
    let later = object(&[late.finish(None).0], &chosen[1..]).expect("compacts");
    let mut chains = Chains::default();
    chains.add(check(&later, alice()).member);
    assert_eq!(chains.check(true, &|_| false), []);
}

#[test]
fn a_block_that_two_files_hold_is_copied_once() {
    let sources = [closed_segment(0), closed_segment(0)];
    let chosen = [(segment_id(0), BOB_SLOT)];
    let once = object(&sources[..1], &chosen).expect("compacts");
    assert_eq!(object(&sources, &chosen).expect("compacts"), once);
    // An object is a closed segment too, and can be compacted again.
    assert_eq!(
        packets_of(&object(&[once], &chosen).expect("compacts"), bob()).len(),
        4
    );
}

#[test]
fn what_cannot_be_compacted_whole_is_left_as_it_is() {
    let chosen = [(segment_id(0), ALICE_SLOT)];
    let open = open_segment(0).bytes;
    assert!(matches!(object(&[open], &chosen), Err(CompactError::Open(_))));
    let elsewhere = [(segment_id(5), ALICE_SLOT)];
    let refused = object(&[closed_segment(0)], &elsewhere);
    assert!(matches!(refused, Err(CompactError::NothingOf { .. })));
    let mut recording = Recording::begin(0);
    let placed: Vec<_> = (0..3).map(|_| recording.small_chunk(0)).collect();
    let (mut file, _) = recording.finish(None);
    file[placed[1].offset as usize + 200] ^= 1;
    let refused = object(&[file], &chosen);
    assert!(
        matches!(refused, Err(CompactError::ChunksMissing { missing: 1, .. })),
        "{:?}",
        refused.err()
    );
}
