//! Forgeries with right checksums, and as far as the forger's keys go with right tags, by somebody who knows a customer's public key.

use harborseal_segment::block::{BlockType, HEADER_LEN};
use harborseal_segment::body::KeyBody;
use harborseal_segment::node::NodeKey;
use harborseal_segment::open::{Keyring, OpenError};
use harborseal_segment::reader::Segment;
use harborseal_segment::verify::{What, verify};

use crate::common::*;
use crate::forger::{Ending, LIE, forged_chunk, forged_key, forged_stream, forged_twin, key_block, rebuilt};
use crate::lab::{Expected, Found, Lab, Part, Row, Seen, VICTIM, look_as, refinished, root_since};

/// The victim's own KEY block, and Alice's STREAM and CHUNK blocks in it.
struct Targets {
    key: Part,
    streams: Vec<Part>,
    chunks: Vec<Part>,
}

fn targets(lab: &Lab) -> Targets {
    let own = |kind| {
        lab.of(kind)
            .filter(|part| part.header.segment_id == segment_id(VICTIM))
    };
    let alices = |kind| {
        own(kind)
            .filter(|part| part.header.key_slot == ALICE_SLOT)
            .collect()
    };
    Targets {
        key: own(BlockType::Key).next().expect("one"),
        streams: alices(BlockType::Stream),
        chunks: alices(BlockType::Chunk),
    }
}

/// Chunks of the camera in the run before this one, so that even the sealed count goes on.
fn so_far(lab: &Lab, chunk: &Part) -> u64 {
    let targets = targets(lab);
    let camera = targets
        .streams
        .iter()
        .position(|s| s.header.stream_id == chunk.header.stream_id);
    let earlier = [3, 2][camera.expect("one of hers")];
    earlier + chunk.header.stream_seq
}

/// How much of the way from KEY to CHUNK is forged.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Upto {
    Key,
    Stream,
    Chunk,
    /// Chunks that are long enough keep their header to the last bit.
    Twin,
}

fn forge(lab: &Lab, upto: Upto, node_id: harborseal_segment::NodeId) -> Vec<u8> {
    let mut file = lab.file.clone();
    let Targets { key, streams, chunks } = targets(lab);
    let block = forged_key(&lab.file[key.range()], node_id);
    file[key.range()].copy_from_slice(&block);
    for (camera, part) in streams.iter().enumerate().filter(|_| upto >= Upto::Stream) {
        file[part.range()].copy_from_slice(&forged_stream(part.header, camera));
    }
    for part in chunks.iter().filter(|_| upto >= Upto::Chunk) {
        let original = &lab.file[part.range()];
        let block = match upto == Upto::Twin && part.header.body_len > 1000 {
            true => forged_twin(original, so_far(lab, part)),
            false => forged_chunk(part.header, so_far(lab, part)),
        };
        file[part.range()].copy_from_slice(&block);
    }
    file
}

fn at(part: &Part, error: OpenError) -> Found {
    (part.at as u64, part.len as u64, What::Open(error))
}

#[test]
fn key_stream_and_chunk_of_a_forger_are_found_by_the_root() {
    let lab = Lab::new();
    let node_id = node().public().id();
    let targets = targets(&lab);
    let roots = || lab.roots_after(targets.key.at);
    let mut row = Row::new(
        "KEY; KEY and STREAM; KEY, STREAM and CHUNK forged to a customer's public key, CRCs and tags right",
    );
    let mut tell = |upto, of_hers: Vec<Found>| {
        let file = forge(&lab, upto, node_id);
        row.expect("blind", lab.look(&file), Expected::Damage(roots()));
        let (_, mut seen) = look_as(alice(), &file);
        seen.retain(|(_, _, what)| matches!(what, What::Open(_)));
        assert!(seen == of_hers, "{seen:?}");
    };
    tell(
        Upto::Key,
        targets
            .streams
            .iter()
            .map(|part| at(part, OpenError::Commitment))
            .collect(),
    );
    let not_authentic = |part| at(part, OpenError::NotAuthentic("CHUNK"));
    tell(Upto::Stream, targets.chunks.iter().map(not_authentic).collect());
    // All of it opens for her: only the tree tells.
    tell(Upto::Chunk, vec![]);
    tell(Upto::Twin, vec![]);
    row.end();
    assert!(
        shows_the_lie(&forge(&lab, Upto::Twin, node_id)),
        "the forgery is a good one"
    );
}

/// Whether Alice would be shown the forger's packets.
fn shows_the_lie(file: &[u8]) -> bool {
    let mut segment = Segment::open(file).expect("readable");
    let streams = segment.open_streams(&mut Keyring::new(alice())).expect("hers");
    let streams: Vec<_> = streams.into_iter().map(|stream| stream.expect("opens")).collect();
    streams.iter().any(|stream| {
        let chunks = segment.chunks(stream).expect("rows");
        let packets = chunks.flat_map(|chunk| {
            chunk
                .expect("opens")
                .packets()
                .map(|p| p.bytes.to_vec())
                .collect::<Vec<_>>()
        });
        packets.into_iter().any(|packet| packet.starts_with(LIE))
    })
}

#[test]
fn a_chunk_with_the_same_header_opens_under_no_key_but_the_forgers() {
    let lab = Lab::new();
    let mut row =
        Row::new("CHUNK alone forged with equal CRC and tag: looked at with the customer's identity");
    let long = |part: &&Part| part.header.body_len > 1000;
    for part in targets(&lab).chunks.iter().filter(long) {
        let mut file = lab.file.clone();
        let twin = forged_twin(&lab.file[part.range()], so_far(&lab, part));
        assert!(twin[..HEADER_LEN] == lab.file[part.at..][..HEADER_LEN] && twin != lab.file[part.range()]);
        file[part.range()].copy_from_slice(&twin);
        // The leaf of a CHUNK is its header: without a key nothing can be seen (docs/FORMAT.md §12).
        let blind = verify(&&file[..], None, |_| ()).expect("readable");
        assert!(blind.is_clean());
        let (_, damage) = look_as(alice(), &file);
        let expected = at(part, OpenError::NotAuthentic("CHUNK"));
        row.expect(part.at, Seen::sealed(damage), Expected::Damage(vec![expected]));
    }
    row.end();
}

#[test]
fn exchanged_key_entries_are_found_by_the_root_and_open_for_nobody() {
    let lab = Lab::new();
    let key = targets(&lab).key;
    let block = &lab.file[key.range()];
    let entries = KeyBody::parse(key.header.body(block)).expect("parses").entries;
    let [a, b] = &entries[..] else {
        panic!("two customers")
    };
    let swap_slots = |mut a: harborseal_segment::body::KeyEntry,
                      mut b: harborseal_segment::body::KeyEntry| {
        std::mem::swap(&mut a.slot, &mut b.slot);
        vec![a, b]
    };
    let other = {
        let part = crate::lab::parts_of(&lab.after)
            .into_iter()
            .find(|part| part.is(BlockType::Key))
            .expect("one");
        KeyBody::parse(part.header.body(&lab.after[part.range()]))
            .expect("parses")
            .entries
    };
    let mixed = |of: &[harborseal_segment::body::KeyEntry]| {
        let take = |slot| of.iter().find(|entry| entry.slot == slot).expect("both").clone();
        let mut alices = take(ALICE_SLOT);
        alices.hint = a.hint;
        vec![alices, take(BOB_SLOT)]
    };
    let own = |identity, file: &[u8]| {
        let streams = look_as(identity, file).0;
        streams
            .iter()
            .filter(|stream| stream.origin == segment_id(VICTIM))
            .count()
    };
    let cases = [
        ("order", vec![b.clone(), a.clone()], [2, 1]),
        ("slots", swap_slots(a.clone(), b.clone()), [0, 0]),
        (
            "recipients",
            vec![a.clone(), a.clone()],
            [
                if a.slot == ALICE_SLOT { 2 } else { 0 },
                usize::from(a.slot != ALICE_SLOT),
            ],
        ),
        ("of the next segment", other.clone(), [0, 0]),
        ("of the next segment under this one's hint", mixed(&other), [0, 0]),
    ];
    let mut row = Row::new(
        "KEY entries exchanged: their order, slots, one for the other, for those of another segment, CRCs right",
    );
    for (name, entries, opened) in cases {
        let mut file = lab.file.clone();
        file[key.range()].copy_from_slice(&key_block(key.header, &entries));
        let mut roots: Vec<(u64, &str)> = lab
            .roots_after(key.at)
            .into_iter()
            .map(|(at, _, what)| (at, what.name()))
            .collect();
        roots.sort();
        row.expect(name, lab.look(&file), Expected::Among(roots));
        assert_eq!([own(alice(), &file), own(bob(), &file)], opened, "{name}");
    }
    row.end();
}

#[test]
fn a_forged_file_with_right_roots_is_found_by_its_signatures() {
    let lab = Lab::new();
    let forged = forge(&lab, Upto::Twin, node().public().id());
    let signatures = |kinds: &[BlockType]| -> Vec<Found> {
        let signed = lab
            .parts
            .iter()
            .filter(|part| kinds.contains(&part.header.block_type));
        let found = signed.map(|part| {
            (
                part.at as u64,
                4096,
                What::Signature {
                    on: part.header.block_type,
                },
            )
        });
        found.collect()
    };
    let mut row = Row::new("all forged, roots and figures right: old signatures, and those of another key");
    let file = rebuilt(&forged, &Ending::OldSignatures);
    let of = signatures(&[BlockType::Checkpoint, BlockType::Footer]);
    row.expect("old", lab.look(&file), Expected::Both(of, vec![root_since()]));
    let file = rebuilt(&forged, &Ending::Signed(&NodeKey::from_bytes(&[0x66; 32])));
    let of = signatures(&[BlockType::Checkpoint, BlockType::Tombstone, BlockType::Footer]);
    row.expect(
        "another key",
        lab.look(&file),
        Expected::Both(of, vec![root_since()]),
    );
    row.end();
}

#[test]
fn a_whole_file_of_another_hand_is_betrayed_by_its_neighbours_and_by_its_node() {
    let lab = Lab::new();
    let (real, other) = (node().public().id(), NodeKey::from_bytes(&[0x66; 32]));
    let forged = forge(&lab, Upto::Twin, other.public().id());
    let resigned = rebuilt(&forged, &Ending::AsNode(&other));
    // Nothing of the original is left, SEGMENT says what the original's says, and nobody signed the end.
    let mut invented = Recording::begin_with(params(VICTIM), 0x50);
    crate::lab::chunks(&mut invented, &[0, 1, 2, 0]);
    let invented = refinished(&invented.bytes);

    let differs = (segment_id(VICTIM), What::NodeDiffers { expected: real });
    let mut row = Row::new(
        "the whole file made anew, signed with a key that SEGMENT names, or unsigned as by recovery",
    );
    let between = vec![differs.clone(), root_since()];
    row.expect("resigned", lab.look(&resigned), Expected::Betrayed(between));
    row.expect(
        "resigned, the chain's last",
        lab.look_at_the_end(&resigned),
        Expected::Betrayed(vec![differs]),
    );
    row.expect(
        "unsigned",
        lab.look(&invented),
        Expected::Betrayed(vec![root_since()]),
    );
    row.end();

    let mut row = Row::new("the same with no neighbour to tell, held against the node's id");
    let expect = |file: &[u8]| {
        let mut report = verify(&file, None, |_| ()).expect("readable");
        assert!(report.is_clean(), "by itself it is whole");
        report.expect_node(real);
        let found = report
            .findings
            .iter()
            .filter(|found| found.severity() > harborseal_segment::verify::Severity::Note);
        found
            .map(|found| (found.offset, found.len, found.what.clone()))
            .collect::<Vec<_>>()
    };
    let seen = expect(&resigned);
    let differs = vec![(0, 0, What::NodeDiffers { expected: real })];
    row.expect("resigned", Seen::sealed(seen), Expected::Damage(differs));
    let leaf_count = verify(&&invented[..], None, |_| ()).expect("readable").leaf_count;
    let seen = expect(&invented);
    let unsigned = vec![(
        0,
        0,
        What::NotAttested {
            signed_leaf_count: 0,
            leaf_count,
        },
    )];
    row.expect("unsigned", Seen::sealed(seen), Expected::Damage(unsigned));
    row.end();
    assert!(expect(&lab.file).is_empty(), "the real one is the node's");
}
