//! The options of version 1: hashed chunks, erasable slots, and chunks whose bodies were erased.

mod common;

use common::*;
use harborseal_segment::block::{BlockType, HEADER_LEN, Header, parse_block};
use harborseal_segment::body::{ErasedSlot, KeyEntry};
use harborseal_segment::erase::{EraseKey, Release, erase_chunk};
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::{SegmentId, StreamId};
use harborseal_segment::keys::{Hint, SegmentSecret, StreamKeys, Wrap, wrap, wrap_stream};
use harborseal_segment::node::NodeKey;
use harborseal_segment::open::{Keyring, OpenError};
use harborseal_segment::random::FixedBytes;
use harborseal_segment::reader::{Segment, StreamError};
use harborseal_segment::recover::{Plan, plan};
use harborseal_segment::scan::ReadError;
use harborseal_segment::verify::{Chains, Erasures, Report, verify};
use harborseal_segment::writer::{Features, SegmentParams};

fn check(file: &[u8]) -> Report {
    verify(&file, None, |_| ()).expect("readable")
}

fn check_as(file: &[u8], keyring: &mut Keyring) -> Report {
    verify(&file, Some(keyring), |_| ()).expect("readable")
}

/// Class and offset of every finding.
fn found(report: &Report) -> Vec<(&'static str, u64)> {
    let findings = report.findings.iter();
    findings.map(|f| (f.what.name(), f.offset)).collect()
}

/// Offset and header of every CHUNK.
fn chunks(file: &[u8]) -> Vec<(usize, Header)> {
    let mut chunks = Vec::new();
    let mut at = 8192;
    while at < file.len() {
        let header = Header::parse(&file[at..]).expect("a header");
        if header.block_type == BlockType::Chunk {
            chunks.push((at, header));
        }
        at += header.total_len as usize;
    }
    chunks
}

fn with(features: Features) -> SegmentParams {
    SegmentParams {
        features,
        ..params(0)
    }
}

fn strong() -> Features {
    Features {
        strong_leaf: true,
        ..Features::default()
    }
}

fn hashed_recording() -> Recording {
    let mut recording = Recording::begin_with(with(strong()), 0);
    for camera in [0, 1, 2, 0] {
        recording.small_chunk(camera);
    }
    recording.sync();
    recording.chunk(1, &vec![vec![0x55; 1000]; 12]);
    recording.checkpoint(None, &[]);
    recording
}

/// A body that has the same CRC32C: the generator polynomial, somewhere, changes nothing of the sum. With another bit in the hash that
/// covers it, or not, there is no such freedom.
fn forge_under_the_same_crc(file: &mut [u8], body_at: usize) {
    let polynomial: u64 = 0x0001_05EC_76F1;
    for bit in (0..33).filter(|bit| polynomial >> bit & 1 == 1) {
        file[body_at + bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_segment_of_hashed_chunks_is_clean_opens_and_recovers() {
    let open = hashed_recording();
    let bytes = open.bytes.clone();
    let (file, _) = open.finish(None);
    let report = check_as(&file, &mut Keyring::new(alice()));
    assert_eq!(found(&report), []);
    let packets: u64 = report.own_streams.iter().map(|own| own.packets).sum();
    assert_eq!(packets, 2 + 2 + 2 + 12);
    for (_, header) in chunks(&file) {
        assert!(header.is_hashed() && header.header_len == 160);
    }
    let Plan::CloseTail(tail) = plan(&bytes, Some(&node()), BEGAN_S, |_| ()).expect("readable") else {
        panic!("a torn tail");
    };
    let mut closed = bytes;
    closed.extend_from_slice(&tail.bytes);
    assert_eq!(found(&check(&closed)), []);
}

#[test]
fn a_hashed_chunk_forged_under_the_same_crc_is_found_without_a_key() {
    let (mut file, _) = hashed_recording().finish(None);
    let (at, header) = chunks(&file)[0];
    forge_under_the_same_crc(&mut file, at + 160);
    assert!(parse_block(&file[at..]).is_ok(), "the CRC cannot tell");
    assert_eq!(header.stream_seq, 0);
    assert_eq!(found(&check(&file)), [("body_hash", at as u64)]);
    let mut segment = Segment::open(&file[..]).expect("opens");
    let streams = segment.open_streams(&mut Keyring::new(alice())).expect("opens");
    let stream = streams[0].as_ref().expect("opens");
    let refused = segment
        .chunks(stream)
        .expect("rows")
        .next()
        .expect("a chunk")
        .err();
    assert!(matches!(
        refused,
        Some(StreamError::Open {
            why: OpenError::BodyHash,
            ..
        })
    ));
}

/// A segment's feature bits are exchanged, and its head made whole again.
fn restated(file: &[u8], incompat: u8) -> Vec<u8> {
    let mut file = file.to_vec();
    file[HEADER_LEN + 8] = incompat;
    let mut header = Header::parse(&file).expect("SEGMENT");
    header.body_crc32c = crc32c::crc32c(header.body(&file));
    file[..HEADER_LEN].copy_from_slice(&header.encode());
    file.copy_within(..4096, 4096);
    file
}

#[test]
fn a_feature_that_is_used_and_not_stated_is_found_where_it_is_used() {
    let strong = hashed_recording().bytes;
    let plain = open_segment(0).bytes;
    let first = |file: &[u8]| found(&check(file))[0];
    assert_eq!(
        first(&restated(&strong, 0)),
        ("feature_unstated", chunks(&strong)[0].0 as u64)
    );
    assert_eq!(
        first(&restated(&plain, 2)),
        ("feature_unstated", chunks(&plain)[0].0 as u64)
    );
    let (erasable, _) = erasable_segment();
    assert_eq!(first(&restated(&erasable, 0)), ("feature_unstated", 8192));
    // One that is stated and not used is no fault, and one that is not known is not read.
    let mut bare = Recording::begin(0);
    bare.small_chunk(0);
    assert_eq!(found(&check(&restated(&bare.bytes, 1))), []);
    let error = verify(&&restated(&plain, 4)[..], None, |_| ()).expect_err("refused");
    assert!(matches!(error, ReadError::Unsupported { offset: 0, .. }));
}

const FRONT_DOOR: StreamId = StreamId([0x80; 16]);

/// Alice's camera in an erasable slot, which Bob may watch too by a standing grant. Returns it open, and E.
fn erasable_segment() -> (Vec<u8>, Release) {
    let features = Features {
        erasable: true,
        ..Features::default()
    };
    let mut recording = Recording::bare(with(features), 0);
    let erase = EraseKey::from_bytes([0xEE; 32]).secret(&segment_id(0), ALICE_SLOT);
    let place = Wrap {
        node_id: node().public().id(),
        segment_id: segment_id(0),
        slot: ALICE_SLOT,
        i: 0,
        n: 1,
        erase: Some(&erase),
    };
    let secret = SegmentSecret::from_bytes([0xA0; 32]);
    let keys = StreamKeys::derive_erasable(&segment_id(0), &secret, &erase, &FRONT_DOOR);
    let rng = &mut FixedBytes(&[7; 128]);
    let entries: [KeyEntry; 2] = [
        wrap(alice().public(), &place, &Hint::from_bytes([1; 32]), &secret, rng),
        wrap_stream(
            bob().public(),
            &place,
            FRONT_DOOR,
            &Hint::from_bytes([2; 32]),
            keys.secret(),
            rng,
        ),
    ];
    let written = recording.writer.add_keys(&entries, 0);
    recording.put(written);
    recording.add_stream_of(0, CAMERAS[0], FRONT_DOOR, ALICE_SLOT, &keys);
    recording.small_chunk(0);
    let release = Release {
        segment_id: segment_id(0),
        slot: ALICE_SLOT,
        secret: erase,
    };
    (recording.finish(None).0, release)
}

#[test]
fn an_erasable_slot_opens_with_a_release_and_with_nothing_less() {
    let (file, release) = erasable_segment();
    let stream_at = 8192 + 4096;
    for identity in [alice as fn() -> Identity, bob] {
        let mut keyring = Keyring::new(identity());
        let report = check_as(&file, &mut keyring);
        assert_eq!(found(&report), [("needs_release", stream_at)]);
        assert!(report.is_clean() && report.own_streams.is_empty());
        let mut segment = Segment::open(&file[..]).expect("opens");
        let streams = segment.open_streams(&mut keyring).expect("opens");
        assert!(matches!(
            streams[0],
            Err(StreamError::Open {
                why: OpenError::NeedsRelease,
                ..
            })
        ));

        keyring.add_release(release.clone());
        let report = check_as(&file, &mut keyring);
        assert_eq!(found(&report), []);
        assert_eq!(report.own_streams[0].packets, 2);

        let wrong = EraseKey::from_bytes([0xDD; 32]).secret(&segment_id(0), ALICE_SLOT);
        keyring.add_release(Release {
            secret: wrong,
            ..release.clone()
        });
        let report = check_as(&file, &mut keyring);
        assert_eq!(found(&report), [("commitment", stream_at)]);
    }
    let mut stranger = Keyring::new(eve());
    stranger.add_release(release);
    assert_eq!(found(&check_as(&file, &mut stranger)), []);
}

/// Segment 0 with every CHUNK of Alice's erased, and where they stand.
fn erased_segment() -> (Vec<u8>, Vec<u64>) {
    let mut file = closed_segment(0);
    let mut places = Vec::new();
    for (at, header) in chunks(&file) {
        if header.key_slot == ALICE_SLOT {
            let block = &mut file[at..at + header.total_len as usize];
            let ranges = erase_chunk(&header, block);
            assert_eq!((ranges.write, ranges.punch.end), (0..4096, block.len()));
            places.push(at as u64);
        }
    }
    (file, places)
}

fn erased_slot(segment_id: SegmentId, slot: u32) -> ErasedSlot {
    ErasedSlot {
        segment_id,
        run_id: run(),
        shard: 0,
        slot,
        chain_seq: 0,
        root: [0; 32],
    }
}

/// Segment 1, in which `node` says that `slots` were erased.
fn statement(node: &NodeKey, slots: &[ErasedSlot]) -> Vec<u8> {
    let mut params = params(1);
    params.node = node.public();
    let mut recording = Recording::bare(params, 1);
    let written = recording.writer.erasure(node, slots, BEGAN_S);
    recording.put(written);
    recording.bytes
}

/// What is found in the erased segment when it is read together with `other`.
fn settled(other: &[u8]) -> Vec<(&'static str, u64)> {
    let (file, _) = erased_segment();
    let mut report = check(&file);
    let mut chains = Chains::default();
    chains.add(report.member.clone());
    chains.add(check(other).member);
    report.settle(&chains.erasures());
    assert_eq!(
        report.is_clean(),
        found(&report).iter().all(|(class, _)| *class == "erased")
    );
    found(&report)
}

#[test]
fn erased_chunks_keep_every_root_and_are_told_from_damage_by_their_nodes_word() {
    let (file, places) = erased_segment();
    let all = |class| places.iter().map(|at| (class, *at)).collect::<Vec<_>>();
    let report = check(&file);
    assert_eq!(found(&report), all("erased_unstated"));
    assert_eq!(report.erased_chunks(), places.len() as u64);
    assert_eq!(report.root, check(&closed_segment(0)).root);

    let of_alice = erased_slot(segment_id(0), ALICE_SLOT);
    assert_eq!(settled(&statement(&node(), &[of_alice])), all("erased"));
    let others = [
        erased_slot(segment_id(0), BOB_SLOT),
        erased_slot(segment_id(2), ALICE_SLOT),
    ];
    assert_eq!(settled(&statement(&node(), &others)), all("erased_unstated"));
    let stranger = NodeKey::from_bytes(&[0x66; 32]);
    assert_eq!(
        settled(&statement(&stranger, &[of_alice])),
        all("erased_unstated"),
        "a node speaks of its own segments"
    );
    // Signed by somebody who is not the node of the segment it stands in.
    let mut recording = Recording::bare(params(1), 1);
    let written = recording.writer.erasure(&stranger, &[of_alice], BEGAN_S);
    recording.put(written);
    assert_eq!(found(&check(&recording.bytes)), [("signature", 8192)]);
    assert_eq!(settled(&recording.bytes), all("erased_unstated"));
    let mut nothing = Erasures::default();
    nothing.extend(&Chains::default().erasures());
    assert_eq!(nothing, Erasures::default());
}

#[test]
fn an_erased_chunk_is_handed_out_as_erased_and_the_rest_opens() {
    let mut file = closed_segment(0);
    let (at, header) = chunks(&file)
        .into_iter()
        .find(|(_, header)| header.key_slot == ALICE_SLOT)
        .expect("a chunk");
    erase_chunk(&header, &mut file[at..at + header.total_len as usize]);
    let mut segment = Segment::open(&file[..]).expect("opens");
    let streams = segment.open_streams(&mut Keyring::new(alice())).expect("opens");
    let stream = streams[0].as_ref().expect("opens");
    let opened: Vec<_> = segment.chunks(stream).expect("rows").collect();
    assert_eq!(opened.len(), 3);
    assert!(matches!(
        &opened[0],
        Err(StreamError::Open {
            why: OpenError::Erased,
            ..
        })
    ));
    assert!(opened[1].is_ok() && opened[2].is_ok());
    // Nobody's business but the erased chunk's: the others count on.
    let report = check_as(&file, &mut Keyring::new(alice()));
    assert_eq!(found(&report), [("erased_unstated", at as u64)]);
}

#[test]
fn recovery_leaves_erased_chunks_as_they_are() {
    let (file, places) = erased_segment();
    let Plan::AlreadyClosed(report) = plan(&file, Some(&node()), BEGAN_S, |_| ()).expect("readable") else {
        panic!("it is whole");
    };
    assert!(report.is_clean());
    // A segment that is repaired for something else keeps them.
    let mut damaged = file.clone();
    let (bobs, _) = chunks(&file)
        .into_iter()
        .find(|(_, header)| header.key_slot == BOB_SLOT)
        .expect("a chunk");
    damaged[bobs + 150] ^= 1;
    let Plan::Corrupt(repair) = plan(&damaged, Some(&node()), BEGAN_S, |_| ()).expect("readable") else {
        panic!("it is damaged");
    };
    let findings: Vec<_> = repair.report.findings.iter().map(|f| f.what.name()).collect();
    assert_eq!(findings, ["broken_block", "chunks_lost"]);
    assert_eq!(repair.report.erased_chunks(), places.len() as u64);
}

#[test]
fn a_chunk_of_its_own_is_misplaced_in_a_compacted_file() {
    let features = Features {
        compacted: true,
        ..Features::default()
    };
    let mut recording = Recording::begin_with(with(features), 0);
    recording.small_chunk(0);
    let report = check(&recording.finish(None).0);
    let kinds: Vec<_> = found(&report).into_iter().map(|(class, _)| class).collect();
    assert_eq!(kinds, ["misplaced_block"; 4], "three streams and a chunk");
}
