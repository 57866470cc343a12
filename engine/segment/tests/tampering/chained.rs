//! What is done to segments as a whole: one taken away, one put in another's place, a statement invented that it was deleted by policy.

use harborseal_segment::block::{BlockType, Header, encode_block};
use harborseal_segment::body::{DeletedSegment, SegmentBody, TombstoneBody, TombstoneKind};
use harborseal_segment::node::NodeKey;
use harborseal_segment::verify::{Chains, Severity, What, verify};
use harborseal_segment::{RunId, SegmentId};

use crate::common::*;
use crate::forger::{Ending, rebuilt};
use crate::lab::{Expected, Lab, Row, Seen, VICTIM, deleted};

/// What files say of each other that is damage. `complete`: they claim to be all there are.
fn between(files: &[&[u8]], complete: bool) -> Seen {
    let mut chains = Chains::default();
    for file in files {
        chains.add(verify(file, None, |_| ()).expect("readable").member);
    }
    let found = chains.check(complete, &|_| false).into_iter();
    let found = found.filter(|found| found.severity() > Severity::Note);
    Seen::between(
        found
            .map(|found| (found.segment_id, found.finding.what))
            .collect(),
    )
}

fn missing(first: u64, count: u64, last: u8, shows_in: u8) -> Expected {
    let last = Some(segment_id(last));
    Expected::Betrayed(vec![(
        segment_id(shows_in),
        What::SegmentsMissing { first, count, last },
    )])
}

/// A segment of another run and node that says `gone` was deleted by policy.
fn statement_of(node_key: &NodeKey, gone: DeletedSegment) -> Vec<u8> {
    let mut params = params(0);
    (params.segment_id, params.run_id) = (SegmentId([0x77; 16]), RunId([0x78; 16]));
    params.node = node_key.public();
    let mut recording = Recording::begin_with(params, 0);
    recording.small_chunk(0);
    recording.tombstone(&[gone]);
    let file = recording.finish(None).0;
    rebuilt(&file, &Ending::AsNode(node_key))
}

fn victim_deleted() -> DeletedSegment {
    DeletedSegment {
        segment_id: segment_id(VICTIM),
        chain_seq: VICTIM.into(),
        ..deleted(0)
    }
}

#[test]
fn a_segment_that_somebody_deleted_is_missed_whatever_he_says() {
    let lab = Lab::new();
    let [first, failed] = [&lab.before[0][..], &lab.before[1][..]];
    let mut row = Row::new("a segment of the middle deleted, two of them, the first of a chain");
    for complete in [true, false] {
        row.expect(
            "one",
            between(&[first, failed, &lab.after], complete),
            missing(2, 1, 2, 3),
        );
        row.expect(
            "two",
            between(&[first, &lab.after], complete),
            missing(1, 2, 2, 3),
        );
    }
    row.expect(
        "the first",
        between(&[failed, &lab.file, &lab.after], true),
        missing(0, 1, 0, 1),
    );
    row.end();

    let mut row = Row::new(
        "the same, and a segment beside it that claims a deletion by policy, signed with another node's key",
    );
    let statement = statement_of(&NodeKey::from_bytes(&[0x66; 32]), victim_deleted());
    row.expect(
        "one",
        between(&[first, failed, &lab.after, &statement], true),
        missing(2, 1, 2, 3),
    );
    row.end();
    let statement = statement_of(&node(), victim_deleted());
    let Seen::Judged { between, .. } = between(&[first, failed, &lab.after, &statement], true) else {
        panic!("readable");
    };
    assert_eq!(between, [], "the node itself may say so");
}

#[test]
fn a_statement_of_deletion_that_the_node_did_not_sign_is_none() {
    let lab = Lab::new();
    let part = lab.of(BlockType::Tombstone).next().expect("one");
    let block = &lab.file[part.range()];
    let body = TombstoneBody::parse(part.header.body(block)).expect("parses");
    let mut row =
        Row::new("TOMBSTONE changed to name another segment, CRCs right; signed with another node's key");
    let mut put = |name, body: TombstoneBody| {
        let mut file = lab.file.clone();
        file[part.range()].copy_from_slice(&encode_block(part.header, &body.encode()));
        let signature = (
            part.at as u64,
            4096,
            What::Signature {
                on: BlockType::Tombstone,
            },
        );
        let damage = [signature].into_iter().chain(lab.roots_after(part.at)).collect();
        row.expect(name, lab.look(&file), Expected::Damage(damage));
    };
    let mut other = TombstoneBody {
        kind: TombstoneKind::Deleted(vec![victim_deleted()]),
        ..body.clone()
    };
    put("named", other.clone());
    NodeKey::from_bytes(&[0x66; 32]).sign_tombstone(&mut other, &segment_id(VICTIM));
    put("signed", other);
    let mut moved = body;
    node().sign_tombstone(&mut moved, &segment_id(VICTIM + 1));
    put("from another segment", moved);
    row.end();
}

#[test]
fn a_segment_in_anothers_place_is_found() {
    let lab = Lab::new();
    let [first, failed] = [&lab.before[0][..], &lab.before[1][..]];
    let mut row = Row::new("a file replaced by a copy of another one of its chain");
    for copy in [first, failed, &lab.after] {
        row.expect(
            "copy",
            between(&[first, failed, copy, &lab.after], true),
            missing(2, 1, 2, 3),
        );
    }
    row.end();
}

#[test]
fn another_place_in_the_chain_is_found_by_the_root_and_the_links() {
    let lab = Lab::new();
    let part = lab.parts[0];
    let body = SegmentBody::parse(part.header.body(&lab.file[part.range()])).expect("parses");
    let with = |change: &dyn Fn(&mut SegmentBody)| {
        let mut body = body;
        change(&mut body);
        let mut file = lab.file.clone();
        let block = encode_block(part.header, &body.encode());
        file[..8192].copy_from_slice(&block.repeat(2));
        file
    };
    let here = |what| (segment_id(VICTIM), what);
    let next = segment_id(VICTIM + 1);
    let (zero, two) = (SegmentId::ZERO, segment_id(VICTIM));
    let mut row =
        Row::new("both SEGMENT blocks rewritten: time, number, previous segment, place, run, CRCs right");
    row.expect(
        "time",
        lab.look(&with(&|body| body.created_s += 1)),
        Expected::Damage(lab.roots_after(0)),
    );
    let mut file = lab.file.clone();
    let renumbered = Header {
        block_no: 7,
        ..part.header
    };
    let block = encode_block(renumbered, part.header.body(&lab.file[part.range()]));
    file[..8192].copy_from_slice(&block.repeat(2));
    let (expected, found) = (0, 7);
    let number = (0, 4096, What::BlockNo { expected, found });
    let damage = [number].into_iter().chain(lab.roots_after(0)).collect();
    row.expect("number", lab.look(&file), Expected::Damage(damage));
    let file = with(&|body| body.prev_segment_id = SegmentId([0xEE; 16]));
    let (expected, found) = (segment_id(1), SegmentId([0xEE; 16]));
    let differs = here(What::PrevDiffers { expected, found });
    row.expect(
        "previous",
        lab.look(&file),
        Expected::Both(lab.roots_after(0), vec![differs]),
    );
    let file = with(&|body| body.chain_seq = 3);
    let jump = here(What::SegmentsMissing {
        first: 2,
        count: 1,
        last: Some(segment_id(1)),
    });
    let same = (next, What::SamePlace { other: two });
    row.expect(
        "place",
        lab.look(&file),
        Expected::Both(lab.roots_after(0), vec![jump, same]),
    );
    let file =
        with(&|body| (body.run_id, body.chain_seq, body.prev_segment_id) = (RunId([0x78; 16]), 0, zero));
    let gone = (
        next,
        What::SegmentsMissing {
            first: 2,
            count: 1,
            last: Some(two),
        },
    );
    row.expect(
        "run",
        lab.look(&file),
        Expected::Both(lab.roots_after(0), vec![gone]),
    );
    row.end();

    let mut row = Row::new("the node's key in both SEGMENT blocks exchanged, CRCs right");
    let other = NodeKey::from_bytes(&[0x66; 32]).public();
    let file = with(&|body| body.node_key = other.0);
    let signed = |part: &&crate::lab::Part| {
        [BlockType::Checkpoint, BlockType::Tombstone, BlockType::Footer].contains(&part.header.block_type)
    };
    let signatures = lab.parts.iter().filter(signed);
    let signatures = signatures.map(|part| (part.at as u64, part.header.block_type));
    let among = signatures.map(|(at, _)| (at, "signature")).collect();
    row.expect("key", lab.look(&file), Expected::Among(among));
    row.end();
    let mut row = Row::new("the node's id in both SEGMENT blocks exchanged, and not its key, CRCs right");
    let mut file = lab.file.clone();
    let mut body = part.header.body(&lab.file[part.range()]).to_vec();
    body[32..48].copy_from_slice(&other.id().0);
    file[..8192].copy_from_slice(&encode_block(part.header, &body).repeat(2));
    row.expect("id", lab.look(&file), Expected::Refused("head_lost", 0));
    row.end();
}
