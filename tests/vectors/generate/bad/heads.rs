//! Files that do not begin as a segment must.

use super::super::expect::Vector;
use super::super::forge::{Forge, seg};
use super::super::wire::*;
use super::checked;

pub fn all() -> Vec<Vector> {
    vec![
        not_a_segment(),
        another_version(),
        major_2(),
        an_unknown_incompat_bit(),
        a_node_id_of_another_key(),
        a_short_head(),
        both_heads_gone(),
        both_heads_broken(),
        less_than_a_header(),
        the_first_head_broken(),
        the_second_head_broken(),
        the_first_head_of_another_node_id(),
        the_heads_differ(),
        a_head_of_8192(),
        a_head_in_the_middle(),
    ]
}

fn not_a_segment() -> Vector {
    let text = b"This is a text, as somebody may have put it beside the segments.\n".repeat(200);
    Vector::bad("not-a-segment", "a text", &[10, 44])
        .raw(text)
        .error("not_a_segment", 0)
}

/// The same change to both SEGMENT blocks, whose CRCs fit.
fn both(forge: &mut Forge, change: impl Fn(&mut [u8])) {
    for at in [0, 4096] {
        let block = &mut forge.bytes[at..at + 4096];
        change(block);
        recrc(block);
    }
}

fn another_version() -> Vector {
    let (mut forge, _) = checked("another-version");
    both(&mut forge, |block| block[3] = b'2');
    let about = "\\x89HS2: some later format, not damage";
    let vector = Vector::bad("another-version", about, &[44])
        .raw(forge.bytes)
        .error("unsupported", 0);
    vector.recover("unsupported")
}

fn major_2() -> Vector {
    let (mut forge, _) = checked("major-2");
    both(&mut forge, |block| block[128] = 2);
    let vector = Vector::bad("major-2", "a later major version", &[44]).raw(forge.bytes);
    vector.error("unsupported", 0).recover("unsupported")
}

fn an_unknown_incompat_bit() -> Vector {
    let (mut forge, _) = checked("an-unknown-incompat-bit");
    both(&mut forge, |block| block[128 + 8 + 2] = 1);
    let about = "incompat bit 16: refused, and not called damage";
    let vector = Vector::bad("an-unknown-incompat-bit", about, &[44]).raw(forge.bytes);
    vector.error("unsupported", 0).recover("unsupported")
}

fn a_node_id_of_another_key() -> Vector {
    let (mut forge, _) = checked("a-node-id-of-another-key");
    both(&mut forge, |block| block[128 + 32] ^= 1);
    let about = "in both SEGMENT blocks node_id is not what node_key gives";
    Vector::bad("a-node-id-of-another-key", about, &[16])
        .raw(forge.bytes)
        .error("head_lost", 0)
}

fn a_short_head() -> Vector {
    let (mut forge, _) = checked("a-short-head");
    both(&mut forge, |block| {
        put(block, 12, &120_u32.to_le_bytes());
        block[128 + 120..256].fill(0);
    });
    let about = "both SEGMENT bodies are 8 bytes too short";
    Vector::bad("a-short-head", about, &[15])
        .raw(forge.bytes)
        .error("head_lost", 0)
}

fn both_heads_gone() -> Vector {
    let (mut forge, _) = checked("both-heads-gone");
    forge.bytes[..8192].fill(0);
    let about = "zeros in place of both, and chunks behind them";
    Vector::bad("both-heads-gone", about, &[4, 17])
        .raw(forge.bytes)
        .error("head_lost", 0)
}

fn both_heads_broken() -> Vector {
    let mut forge = Forge::new(seg("both-heads-broken"));
    forge.bytes[20] ^= 1;
    forge.bytes[4096 + 20] ^= 1;
    forge.reserve(4096);
    let about = "a bit flipped in either, and no other block: the magic tells what it was";
    Vector::bad("both-heads-broken", about, &[10, 17])
        .raw(forge.bytes)
        .error("damaged", 0)
}

fn less_than_a_header() -> Vector {
    let mut forge = Forge::new(seg("less-than-a-header"));
    forge.bytes.truncate(100);
    Vector::bad("less-than-a-header", "cut after 100 bytes", &[10])
        .raw(forge.bytes)
        .error("damaged", 0)
}

fn the_first_head_broken() -> Vector {
    let (mut forge, stream) = checked("the-first-head-broken");
    forge.bytes[130] ^= 1;
    let about = "the block at 4096 is used, and everything opens";
    let vector = Vector::bad("the-first-head-broken", about, &[4, 17]).raw(forge.bytes);
    vector
        .streams(&[&stream])
        .error("segment_copy", 0)
        .recover("repair")
}

fn the_second_head_broken() -> Vector {
    let (mut forge, stream) = checked("the-second-head-broken");
    forge.bytes[4096..8192].fill(0);
    let about = "the copy is gone; the first is enough to read";
    let vector = Vector::bad("the-second-head-broken", about, &[4, 17]).raw(forge.bytes);
    vector
        .streams(&[&stream])
        .error("segment_copy", 4096)
        .recover("repair")
}

fn the_first_head_of_another_node_id() -> Vector {
    let name = "the-first-head-of-another-node-id";
    let (mut forge, stream) = checked(name);
    forge.bytes[128 + 32] ^= 1;
    recrc(&mut forge.bytes[..4096]);
    let about = "its CRCs are right and its node_id is not: it is not valid, and the copy is used";
    let vector = Vector::bad(name, about, &[16, 17]).raw(forge.bytes);
    vector.streams(&[&stream]).error("segment_copy", 0)
}

fn the_heads_differ() -> Vector {
    let (mut forge, _) = checked("the-heads-differ");
    let copy = &mut forge.bytes[4096..8192];
    copy[128 + 88] ^= 1;
    recrc(copy);
    let about = "both are valid, created_s differs by a second";
    Vector::bad("the-heads-differ", about, &[4])
        .raw(forge.bytes)
        .error("segment_copy", 4096)
}

fn a_head_of_8192() -> Vector {
    let (mut forge, _) = checked("a-head-of-8192");
    put(&mut forge.bytes, 8, &8192_u32.to_le_bytes());
    recrc_header(&mut forge.bytes[..4096]);
    let about = "SEGMENT is 4096 bytes long: one that says 8192 is not valid";
    Vector::bad("a-head-of-8192", about, &[10])
        .raw(forge.bytes)
        .error("segment_copy", 0)
}

fn a_head_in_the_middle() -> Vector {
    let (mut forge, mut stream) = super::one_camera("a-head-in-the-middle");
    let at = forge.end();
    let head = forge.bytes[..4096].to_vec();
    forge.bytes.extend(head);
    forge.sync();
    forge.chunk(&mut stream, super::rtp(1));
    let about = "a third SEGMENT block, where a CHUNK should be";
    Vector::bad("a-head-in-the-middle", about, &[11])
        .raw(forge.bytes)
        .error("misplaced_block", at)
}
