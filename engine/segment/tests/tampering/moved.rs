//! Whole blocks in the wrong place: exchanged, repeated, taken out, put in, brought from another segment. Every block here is valid.

use harborseal_segment::block::{BlockType, encode_block, parse_block};
use harborseal_segment::body::{FOOTER_SIGNED, FooterBody};
use harborseal_segment::node::NodeKey;
use harborseal_segment::scan::GapReason;
use harborseal_segment::verify::What;
use harborseal_segment::{RunId, SegmentId};

use crate::common::*;
use crate::lab::{Expected, Lab, Part, Row, VICTIM, chunks, parts_of, root_since};

/// The blocks between SEGMENT and FOOTER.
fn middle(lab: &Lab) -> Vec<Part> {
    let ends = [BlockType::Segment, BlockType::Footer];
    let parts = lab.parts.iter().copied();
    parts
        .filter(|part| !ends.contains(&part.header.block_type))
        .collect()
}

fn is_own(part: &Part) -> bool {
    part.header.segment_id == segment_id(VICTIM)
}

fn footer_at(lab: &Lab) -> u64 {
    lab.of(BlockType::Footer).next().expect("closed").at as u64
}

/// What names a block that stands where `number` should: by its number if it is one of the victim's own, else by the root alone.
fn out_of_place(lab: &Lab, own: bool, at: usize) -> Expected {
    let root = (footer_at(lab), "root");
    match own {
        true => Expected::Among(vec![(at as u64, "block_number"), root]),
        false => Expected::Among(vec![root]),
    }
}

#[test]
fn exchanged_blocks_are_found_by_number_and_root() {
    let lab = Lab::new();
    let parts = middle(&lab);
    let mut row = Row::new("two blocks exchanged: every pair of one length");
    for (n, a) in parts.iter().enumerate() {
        for b in parts[n + 1..].iter().filter(|b| b.len == a.len) {
            let mut file = lab.file.clone();
            file.copy_within(b.range(), a.at);
            file[b.range()].copy_from_slice(&lab.file[a.range()]);
            // A block of another origin that comes to stand before the ORIGIN that names it is a stranger there.
            let origin = lab.of(BlockType::Origin).next().expect("one").at;
            let stranger = !is_own(b) && a.at <= origin || a.is(BlockType::Origin) && !is_own(b);
            let expected = match stranger {
                true => Expected::Among(vec![(a.at as u64, "foreign_block")]),
                false if a.is(BlockType::Origin) => Expected::Among(vec![(a.at as u64, "block_number")]),
                false => out_of_place(&lab, is_own(a) && is_own(b), a.at),
            };
            row.expect(format_args!("{} and {}", a.at, b.at), lab.look(&file), expected);
        }
    }
    row.end();
}

#[test]
fn a_repeated_block_is_found() {
    let lab = Lab::new();
    let parts = middle(&lab);
    let mut row = Row::new("a block copied over another one: every pair of one length");
    for (from, to) in parts.iter().flat_map(|a| parts.iter().map(move |b| (a, b))) {
        if from.at == to.at || from.len != to.len {
            continue;
        }
        let mut file = lab.file.clone();
        file.copy_within(from.range(), to.at);
        let origin = lab.of(BlockType::Origin).next().expect("one").at;
        let expected = if !is_own(from) && to.at <= origin {
            Expected::Among(vec![(to.at as u64, "foreign_block")])
        } else if to.is(BlockType::Origin) {
            Expected::Among(vec![(to.at as u64, "block_number")])
        } else {
            out_of_place(&lab, is_own(from) && is_own(to), to.at)
        };
        row.expect(
            format_args!("{} to {}", from.at, to.at),
            lab.look(&file),
            expected,
        );
    }
    row.end();

    let mut row = Row::new("a block put in once more behind itself");
    for part in &parts {
        let (head, rest) = lab.file.split_at(part.range().end);
        let file = [head, &lab.file[part.range()], rest].concat();
        let footer = footer_at(&lab) + part.len as u64;
        let again = (part.range().end as u64, "block_number");
        row.expect(
            part.at,
            lab.look(&file),
            Expected::Among(vec![again, (footer, "leaf_count")]),
        );
    }
    row.end();
}

#[test]
fn a_block_taken_out_is_found() {
    let lab = Lab::new();
    let mut row = Row::new("a block taken out, and the rest moved up");
    for part in middle(&lab) {
        let file = [&lab.file[..part.at], &lab.file[part.range().end..]].concat();
        let footer = footer_at(&lab) - part.len as u64;
        let expected = match part.header.block_type {
            BlockType::Origin => vec![(part.at as u64, "foreign_block")],
            _ => vec![(footer, "leaf_count")],
        };
        row.expect(part.at, lab.look(&file), Expected::Among(expected));
    }
    row.end();
}

/// A segment of another run, of the same node and customers.
fn of_another_run() -> Vec<u8> {
    let mut params = params(0);
    (params.segment_id, params.run_id) = (SegmentId([0x77; 16]), RunId([0x78; 16]));
    let mut other = Recording::begin_with(params, 0);
    chunks(&mut other, &[0, 1, 2, 0]);
    other.chunk(1, &vec![vec![0x57; 1000]; 12]);
    other.checkpoint(None, &[]);
    other.tombstone(&[]);
    other.finish(None).0
}

#[test]
fn a_block_of_another_segment_is_found() {
    let lab = Lab::new();
    let donors = [
        (
            "a block spliced in from the next segment of the same chain and customers",
            lab.after.clone(),
        ),
        (
            "a block spliced in from another run, of the same customers",
            of_another_run(),
        ),
    ];
    for (manipulation, donor) in donors {
        let mut row = Row::new(manipulation);
        for (from, to) in parts_of(&donor)
            .into_iter()
            .flat_map(|from| middle(&lab).into_iter().map(move |to| (from, to)))
        {
            if from.len != to.len {
                continue;
            }
            let mut file = lab.file.clone();
            file[to.range()].copy_from_slice(&donor[from.range()]);
            let reason = match from.header.block_type {
                BlockType::Segment => GapReason::Misplaced(BlockType::Segment),
                _ => GapReason::Foreign(from.header.segment_id),
            };
            let place = format!("{} to {}", from.at, to.at);
            row.expect(place, lab.look(&file), lab.damage(&to, What::Gap(reason)));
        }
        row.end();
    }
}

#[test]
fn a_block_of_another_segment_under_this_ones_name_is_found_by_the_root() {
    let lab = Lab::new();
    let donor = of_another_run();
    let mut row = Row::new("the same, its header rewritten to fit the place, CRCs right");
    for (from, to) in parts_of(&donor)
        .into_iter()
        .flat_map(|from| middle(&lab).into_iter().map(move |to| (from, to)))
    {
        if from.len != to.len || from.header.block_type != to.header.block_type || !is_own(&to) {
            continue;
        }
        let mut header = to.header;
        (header.body_len, header.tag) = (from.header.body_len, from.header.tag);
        let extension = usize::from(header.header_len) - 128;
        let stored = &donor[from.at + 128..from.at + from.header.body_end()];
        header.body_crc32c = crc32c::crc32c(stored);
        let mut block = vec![0; to.len];
        block[..128].copy_from_slice(&header.encode());
        block[128..128 + stored.len()].copy_from_slice(stored);
        assert!(extension == 0 || header.block_type == BlockType::Stream);
        let mut file = lab.file.clone();
        file[to.range()].copy_from_slice(&block);
        let among = match to.header.block_type {
            // Signed for its own segment.
            BlockType::Checkpoint | BlockType::Tombstone => {
                vec![(to.at as u64, "signature"), (footer_at(&lab), "root")]
            }
            _ => vec![(footer_at(&lab), "root")],
        };
        row.expect(
            format_args!("{} to {}", from.at, to.at),
            lab.look(&file),
            Expected::Among(among),
        );
    }
    row.end();
}

/// The victim with another footer body in its footer's place, CRCs right.
fn with_footer(lab: &Lab, change: impl FnOnce(&mut FooterBody)) -> Vec<u8> {
    let part = lab.of(BlockType::Footer).next().expect("closed");
    let mut body = FooterBody::parse(part.header.body(&lab.file[part.range()])).expect("a footer");
    change(&mut body);
    let mut file = lab.file.clone();
    file[part.range()].copy_from_slice(&encode_block(part.header, &body.encode()));
    file
}

#[test]
fn a_footer_of_another_segment_closes_nothing() {
    let lab = Lab::new();
    let footer = lab.of(BlockType::Footer).next().expect("closed");
    let mut row = Row::new("the footer of another segment in its place: of the same chain, of another run");
    for donor in [&lab.before[0], &lab.before[1], &lab.after, &of_another_run()] {
        let mut file = lab.file.clone();
        file[footer.range()].copy_from_slice(&donor[donor.len() - 4096..]);
        row.expect("footer", lab.look(&file), Expected::Unclosed);
        // Under this segment's name it is a footer, and says what is not so.
        let mut header = parse_block(&file[footer.range()]).expect("whole");
        (header.segment_id, header.block_no) = (segment_id(VICTIM), footer.header.block_no);
        let body = header.body(&file[footer.range()]).to_vec();
        file[footer.range()].copy_from_slice(&encode_block(header, &body));
        let mut among = vec![(footer.at as u64, "leaf_count")];
        if FooterBody::parse(&body).expect("a footer").flags & FOOTER_SIGNED != 0 {
            among.push((footer.at as u64, "signature"));
        }
        row.expect("footer, renamed", lab.look(&file), Expected::Among(among));
    }
    row.end();
}

#[test]
fn a_footer_that_the_node_did_not_sign_is_none_of_its_own() {
    let lab = Lab::new();
    let at = footer_at(&lab);
    let unsigned = || {
        Expected::Damage(vec![(
            at,
            4096,
            What::Signature {
                on: BlockType::Footer,
            },
        )])
    };
    let mut row =
        Row::new("a footer of one's own: unsigned, signed with another node's key, every figure changed");
    let file = with_footer(&lab, |body| body.flags &= !FOOTER_SIGNED);
    row.expect("unsigned", lab.look(&file), unsigned());
    let file = with_footer(&lab, |body| {
        NodeKey::from_bytes(&[0x66; 32]).sign_footer(body, &segment_id(VICTIM))
    });
    row.expect("signed by another", lab.look(&file), unsigned());
    let figures: [fn(&mut FooterBody); 12] = [
        |body| body.root[0] ^= 1,
        |body| body.leaf_count -= 1,
        |body| body.chunk_count -= 1,
        |body| body.first_s += 1,
        |body| body.last_s -= 1,
        |body| body.data_end -= 4096,
        |body| body.durable_upto -= 4096,
        |body| body.closed_s += 1,
        |body| body.prev_root[0] ^= 1,
        |body| body.signed_leaf_count -= 1,
        |body| body.chunks_offset += 4096,
        |body| body.keys_len += 4096,
    ];
    for (n, change) in figures.into_iter().enumerate() {
        let file = with_footer(&lab, change);
        row.expect(n, lab.look(&file), Expected::Among(vec![(at, "signature")]));
    }
    row.end();

    // It stands for recovery without the node's key, which may close what a crash left; the next segment knows better.
    let mut row = Row::new("a footer that passes for recovery's, over other blocks than there were");
    let mut parts = lab.parts.clone();
    parts.retain(|part| ![BlockType::Index, BlockType::Footer].contains(&part.header.block_type));
    for end in parts.iter().skip(3).map(|part| part.at) {
        let file = crate::lab::refinished(&lab.file[..end]);
        let seen = lab.look(&file);
        row.expect(end, seen, Expected::Betrayed(vec![root_since()]));
    }
    row.end();
}
