//! Several recipients of one slot: each opens it, everyone can count them, and what does not add up is named.

mod common;

use common::*;
use harborseal_segment::StreamId;
use harborseal_segment::body::KeyEntry;
use harborseal_segment::identity::Identity;
use harborseal_segment::keys::{Hint, SegmentSecret, StreamKeys, Wrap, wrap_all, wrap_stream};
use harborseal_segment::open::Keyring;
use harborseal_segment::random::FixedBytes;
use harborseal_segment::reader::Segment;
use harborseal_segment::verify::{Report, Severity, verify};

/// A recovery key on a card.
fn carol() -> Identity {
    Identity::generate_p256(&mut FixedBytes(&[4; 64]))
}

const FRONT_DOOR: StreamId = StreamId([0x80; 16]);

fn secret() -> SegmentSecret {
    SegmentSecret::from_bytes([0xA0; 32])
}

fn place() -> Wrap<'static> {
    Wrap {
        node_id: node().public().id(),
        segment_id: segment_id(0),
        slot: ALICE_SLOT,
        i: 0,
        n: 1,
        erase: None,
    }
}

/// Entries of Alice's slot for her and her recovery key.
fn two_entries() -> Vec<KeyEntry> {
    let (alice, carol) = (alice(), carol());
    let rng = &mut FixedBytes(&[7; 96]);
    let hint = Hint::from_bytes([0xA0; 32]);
    wrap_all(&[alice.public(), carol.public()], &place(), &hint, &secret(), rng)
}

/// Bob's standing grant for one camera of Alice's.
fn grant() -> KeyEntry {
    let keys = StreamKeys::derive(&segment_id(0), &secret(), &FRONT_DOOR);
    let hint = Hint::from_bytes([0x0B; 32]);
    let rng = &mut FixedBytes(&[7; 64]);
    wrap_stream(bob().public(), &place(), FRONT_DOOR, &hint, keys.secret(), rng)
}

/// A segment with each list of entries in a KEY block of its own, then the streams of Alice's cameras, each with a chunk.
fn segment(blocks: &[&[KeyEntry]]) -> Vec<u8> {
    let mut params = params(0);
    params.features.erasable = true;
    let mut recording = Recording::bare(params, 0);
    for entries in blocks {
        let written = recording.writer.add_keys(entries, 0);
        recording.put(written);
    }
    for camera in [0, 1] {
        recording.add_stream(camera, CAMERAS[camera]);
        recording.small_chunk(camera);
    }
    recording.finish(None).0
}

fn check(file: &[u8]) -> Report {
    verify(&file, None, |_| ()).expect("readable")
}

/// Class and offset of everything worse than a note.
fn faults(file: &[u8]) -> Vec<(&'static str, u64)> {
    let report = check(file);
    let faults = report.findings.iter().filter(|f| f.severity() > Severity::Note);
    faults.map(|f| (f.what.name(), f.offset)).collect()
}

fn cameras_of(file: &[u8], identity: Identity) -> Vec<String> {
    let mut segment = Segment::open(file).expect("opens");
    let streams = segment.open_streams(&mut Keyring::new(identity)).expect("opens");
    let streams: Vec<_> = streams.into_iter().map(|stream| stream.expect("opens")).collect();
    for stream in &streams {
        let mut chunks = segment.chunks(stream).expect("rows");
        assert!(chunks.next().is_some_and(|chunk| chunk.is_ok()));
    }
    streams.into_iter().map(|stream| stream.info.camera_id).collect()
}

#[test]
fn a_customer_and_a_recovery_key_open_the_same_cameras_in_one_block_or_in_two() {
    let entries = two_entries();
    for file in [segment(&[&entries]), segment(&[&entries[1..], &entries[..1]])] {
        assert_eq!(faults(&file), []);
        assert_eq!(cameras_of(&file, alice()), ["front-door", "garden"]);
        assert_eq!(cameras_of(&file, carol()), ["front-door", "garden"]);
    }
}

#[test]
fn a_standing_grant_opens_its_one_camera() {
    let entries = two_entries();
    let file = segment(&[&[&entries[..], &[grant()]].concat()]);
    assert_eq!(faults(&file), []);
    assert_eq!(cameras_of(&file, bob()), ["front-door"]);
}

#[test]
fn entries_that_do_not_fit_each_other_are_named_at_their_block() {
    let entries = two_entries();
    let broken = |edit: fn(&mut KeyEntry)| {
        let mut second = entries[1].clone();
        edit(&mut second);
        faults(&segment(&[&entries[..1], &[second]]))
    };
    let at = 8192 + 4096;
    assert_eq!(broken(|_| ()), []);
    // Whatever else it breaks, a STREAM is missed a recipient where one never came.
    for edit in [
        (|entry| entry.n = 3) as fn(&mut KeyEntry),
        |entry| entry.i = 0,
        |entry| entry.i = 2,
    ] {
        assert_eq!(broken(edit)[0], ("recipients", at));
    }
    assert_eq!(broken(|entry| entry.n = 3), [("recipients", at)]);
    let repeated = broken(|entry| entry.i = 0);
    assert_eq!(
        repeated.len(),
        3,
        "{repeated:?}: at the block, and at both streams"
    );
    assert!(broken(|entry| entry.erasable = true).contains(&("recipients", at)));
}

#[test]
fn a_stream_needs_all_recipients_of_its_customer_before_it() {
    // KEY, KEY, STREAM: the second two exchanged.
    let exchanged = |file: &[u8]| {
        let mut file = file.to_vec();
        let second = file[12288..16384].to_vec();
        file.copy_within(16384..20480, 12288);
        file[16384..20480].copy_from_slice(&second);
        faults(&file)
    };
    let entries = two_entries();
    let found = exchanged(&segment(&[&entries[..1], &entries[1..]]));
    assert!(found.contains(&("recipients", 12288)), "{found:?}");
    // A grantee is not the customer.
    let found = exchanged(&segment(&[&[grant()], &entries]));
    assert!(found.contains(&("key_missing", 12288)), "{found:?}");
}

#[test]
fn a_recipient_of_a_suite_that_is_not_known_here_is_counted_like_any_other() {
    let mut entries = two_entries();
    entries[1].kem = 0x0012;
    let file = segment(&[&entries]);
    assert_eq!(faults(&file), []);
    assert_eq!(cameras_of(&file, alice()), ["front-door", "garden"]);
}

#[test]
fn the_second_recipient_finds_later_segments_by_the_shared_hint() {
    let mut keyring = Keyring::new(carol());
    for n in 0..3u8 {
        let mut hint = Hint::from_bytes([0xA0; 32]);
        (0..n).for_each(|_| hint.ratchet());
        let place = Wrap {
            segment_id: segment_id(n),
            ..place()
        };
        let (alice, carol) = (alice(), carol());
        let rng = &mut FixedBytes(&[7; 96]);
        let entries = wrap_all(&[alice.public(), carol.public()], &place, &hint, &secret(), rng);
        let origin = harborseal_segment::open::Origin {
            segment_id: segment_id(n),
            node_id: node().public().id(),
            run_id: run(),
            shard: 0,
            chain_seq: n.into(),
        };
        let unlocked = keyring.unlock(&origin, &entries);
        assert_eq!(unlocked.len(), 1, "segment {n}");
        assert_eq!(unlocked[0].slot, ALICE_SLOT);
    }
}

#[test]
fn standing_grants_that_come_up_in_the_middle_of_a_chain_are_found_beside_what_is_known() {
    let mut keyring = Keyring::new(bob());
    for n in 0..4u8 {
        let hint_at = |seed: u8, steps: u8| {
            let mut hint = Hint::from_bytes([seed; 32]);
            (0..steps).for_each(|_| hint.ratchet());
            hint
        };
        let place = |slot| Wrap {
            segment_id: segment_id(n),
            slot,
            ..place()
        };
        // Bob is a customer himself, and from the third segment on sees two streams of Alice's: one grant, one hint.
        let rng = &mut FixedBytes(&[7; 192]);
        let bob = bob();
        let mut entries = wrap_all(&[bob.public()], &place(9), &hint_at(0xB0, n), &secret(), rng);
        for stream in [[1; 16], [2; 16]].map(StreamId).into_iter().filter(|_| n >= 2) {
            let keys = StreamKeys::derive(&segment_id(n), &secret(), &stream);
            let (place, hint) = (place(ALICE_SLOT), hint_at(0x0B, n));
            entries.push(wrap_stream(
                bob.public(),
                &place,
                stream,
                &hint,
                keys.secret(),
                rng,
            ));
        }
        let origin = harborseal_segment::open::Origin {
            segment_id: segment_id(n),
            node_id: node().public().id(),
            run_id: run(),
            shard: 0,
            chain_seq: n.into(),
        };
        let unlocked = keyring.unlock(&origin, &entries);
        assert_eq!(unlocked.len(), if n >= 2 { 3 } else { 1 }, "segment {n}");
    }
}
