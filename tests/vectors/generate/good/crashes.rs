//! What crashes, recovery and repair leave.

use super::super::expect::Vector;
use super::super::forge::{Forge, rtp, seg};
use super::super::keys::{ALICE, Slot};
use super::super::wire::*;
use super::{one_camera, two_chunks};

pub fn all() -> Vec<Vector> {
    vec![
        open_with_reserved_space(),
        open_without_reserved_space(),
        unused(),
        a_torn_tail(),
        a_tail_cut_inside_a_page(),
        an_island_above_the_floor(),
        garbage_above_the_floor(),
        recovered_and_signed(),
        recovered_unsigned(),
        recovered_with_a_hole(),
        a_stream_went_with_the_hole(),
        a_checkpoint_behind_a_hole(),
        a_repaired_copy(),
        a_footer_left_over(),
        a_footer_in_reserved_space(),
        a_head_torn_before_use(),
        an_empty_file(),
        never_begun_all_zeros(),
        never_begun_without_a_head(),
    ]
}

fn open_with_reserved_space() -> Vector {
    let (mut forge, stream) = two_chunks("open-with-reserved-space");
    forge.sync();
    forge.checkpoint(|_| {});
    forge.reserve(5 * 4096);
    let about = "being written, or left by a crash: no FOOTER, zeros behind the last block";
    let vector = Vector::good("open-with-reserved-space", about, &[9, 12, 31]);
    vector.file(forge).streams(&[&stream]).recover("close")
}

fn open_without_reserved_space() -> Vector {
    let (forge, stream) = two_chunks("open-without-reserved-space");
    let about = "no FOOTER and nothing behind the last block: everything comes from a scan";
    let vector = Vector::good("open-without-reserved-space", about, &[31]);
    vector.file(forge).streams(&[&stream]).recover("close")
}

fn unused() -> Vector {
    let (mut forge, stream) = one_camera("unused");
    forge.reserve(4 * 4096);
    let about = "prepared ahead and never appended to";
    Vector::good("unused", about, &[])
        .file(forge)
        .streams(&[&stream])
        .recover("unused")
}

fn a_torn_tail() -> Vector {
    let (mut forge, mut stream) = two_chunks("a-torn-tail");
    let torn = forge.chunk(&mut stream, vec![super::super::forge::packet(0, 0, &[7; 6000])]);
    forge.damage(torn, |block| block[4096..].fill(0));
    forge.forget(torn);
    forge.reserve(2 * 4096);
    let about = "the last chunk lost its second page in a crash, above the floor";
    let vector = Vector::good("a-torn-tail", about, &[9, 41]).file(forge);
    vector
        .streams(&[&stream.without(2)])
        .note("unfinished", torn)
        .recover("close")
}

fn a_tail_cut_inside_a_page() -> Vector {
    let name = "a-tail-cut-inside-a-page";
    let (mut forge, mut stream) = two_chunks(name);
    let torn = forge.chunk(&mut stream, rtp(2));
    forge.forget(torn);
    forge.bytes.truncate(torn as usize + 1000);
    let about = "the file ends 1,000 bytes into a chunk, above the floor: its length is no multiple of 4096";
    let vector = Vector::good(name, about, &[10, 41])
        .file(forge)
        .streams(&[&stream.without(2)]);
    vector.note("unfinished", torn).recover("close")
}

fn an_island_above_the_floor() -> Vector {
    let (mut forge, mut stream) = two_chunks("an-island-above-the-floor");
    let lost = forge.chunk(&mut stream, rtp(1));
    let island = forge.chunk(&mut stream, rtp(4));
    forge.zero(lost);
    let about = "a chunk that reached the disk behind one that did not: it is kept, the jump is explained by the hole";
    let vector = Vector::good("an-island-above-the-floor", about, &[12, 43]).file(forge);
    let vector = vector.streams(&[&stream.without(2)]).recover("close");
    vector.note("unfinished", lost).note("chunks_lost", island)
}

fn garbage_above_the_floor() -> Vector {
    let (mut forge, stream) = two_chunks("garbage-above-the-floor");
    let at = forge.end();
    forge.bytes.extend([0xA5; 3 * 4096]);
    let about = "pages of something else behind the last block, as a disk may hand them out after a crash";
    let vector = Vector::good("garbage-above-the-floor", about, &[10, 12]).file(forge);
    vector.streams(&[&stream]).note("unfinished", at).recover("close")
}

fn recovered_and_signed() -> Vector {
    let (mut forge, stream) = two_chunks("recovered-and-signed");
    let leaves = forge.leaves().len() as u64;
    forge.checkpoint(|_| {});
    forge.recover(true, leaves);
    let about =
        "closed by recovery with the node's key; the last signed CHECKPOINT covers all leaves before it";
    let vector = Vector::good("recovered-and-signed", about, &[33]);
    vector.file(forge).streams(&[&stream]).recover("closed")
}

fn recovered_unsigned() -> Vector {
    let (mut forge, mut stream) = two_chunks("recovered-unsigned");
    let leaves = forge.leaves().len() as u64;
    forge.checkpoint(|_| {});
    forge.chunk(&mut stream, rtp(1));
    let footer = forge.recover(false, leaves);
    let about = "closed by recovery without the node's key: the signature is zero, signed_leaf_count says what is covered";
    let vector = Vector::good("recovered-unsigned", about, &[32, 33]);
    vector
        .file(forge)
        .streams(&[&stream])
        .note("unsigned", footer)
        .recover("closed")
}

fn recovered_with_a_hole() -> Vector {
    let (mut forge, mut stream) = two_chunks("recovered-with-a-hole");
    let lost = forge.chunk(&mut stream, rtp(1));
    let island = forge.chunk(&mut stream, rtp(4));
    forge.chunk(&mut stream, rtp(1));
    forge.zero(lost);
    forge.recover(true, 0);
    let about = "recovery kept the island and left the hole above durable_upto as it was";
    let vector = Vector::good("recovered-with-a-hole", about, &[12, 43]).file(forge);
    let vector = vector.streams(&[&stream.without(2)]).recover("closed");
    vector.note("hole", lost).note("chunks_lost", island)
}

fn a_stream_went_with_the_hole() -> Vector {
    let name = "a-stream-went-with-the-hole";
    let (mut forge, stream) = two_chunks(name);
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let mut late = super::super::forge::Stream::new(&forge.seg, &alice, "cellar", 5);
    let lost = forge.stream(&late);
    let orphan = forge.chunk(&mut late, rtp(2));
    forge.zero(lost);
    forge.recover(true, 0);
    let about =
        "the STREAM block was in the hole: its chunk is kept, stream_row 0xFFFFFFFF, and cannot be opened";
    let vector = Vector::good(name, about, &[43]).file(forge).streams(&[&stream]);
    vector.note("hole", lost).note("went_with_hole", orphan)
}

fn a_checkpoint_behind_a_hole() -> Vector {
    let name = "a-checkpoint-behind-a-hole";
    let (mut forge, mut stream) = two_chunks(name);
    let lost = forge.chunk(&mut stream, rtp(1));
    forge.checkpoint(|_| {});
    forge.zero(lost);
    forge.recover(true, 0);
    let about = "its signature is checked, its root cannot be: a leaf before it is gone";
    let vector = Vector::good(name, about, &[27])
        .file(forge)
        .streams(&[&stream.without(2)]);
    vector.note("hole", lost)
}

fn a_repaired_copy() -> Vector {
    let (mut forge, mut stream) = two_chunks("a-repaired-copy");
    let no = forge.next_no;
    let first = forge.chunk(&mut stream, rtp(1));
    forge.chunk(&mut stream, rtp(2));
    let behind = forge.chunk(&mut stream, rtp(3));
    // Two tombstones in the hole of two blocks, both with the number of the first.
    let body = tombstone_body(
        LOST,
        forge.seg.created_s + 500,
        &[],
        &forge.seg.node,
        &forge.seg.id,
    );
    for (n, at) in [first, first + 4096].into_iter().enumerate() {
        let stone = Draft {
            durable_4k: 0,
            ..Draft::new(TOMBSTONE, forge.seg.id, no, body.clone())
        }
        .bytes();
        forge.edit(at, |block| block.copy_from_slice(&stone));
        assert_eq!(at, first + 4096 * n as u64);
    }
    forge.recover(true, 0);
    let about = "two blocks below the floor could not be read: TOMBSTONE(lost) twice, of one number";
    let vector = Vector::good("a-repaired-copy", about, &[43]).file(forge);
    let vector = vector.streams(&[&stream.without(2).without(3)]).recover("closed");
    vector
        .note("lost", first)
        .note("lost", first + 4096)
        .note("chunks_lost", behind)
}

fn a_footer_left_over() -> Vector {
    let (mut forge, stream) = two_chunks("a-footer-left-over");
    let mut footer = forge.tables(SEALED | SIGNED);
    let index = forge.end() - 3 * 4096;
    footer.durable_upto = 0;
    let at = forge.push(forge.footer_draft(&footer));
    forge.zero(index);
    forge.reserve(4096);
    let about =
        "a crash in the attempt to close: INDEX did not reach the disk, the FOOTER did, the file was not cut";
    let vector = Vector::good("a-footer-left-over", about, &[7])
        .file(forge)
        .streams(&[&stream]);
    vector
        .note("unfinished", index)
        .note("unfinished", at)
        .recover("close")
}

fn a_footer_in_reserved_space() -> Vector {
    let (mut forge, stream) = two_chunks("a-footer-in-reserved-space");
    forge.close();
    let end = forge.end();
    forge.reserve(3 * 4096);
    let about = "closed and whole, but a crash kept the file from being cut";
    let vector = Vector::good("a-footer-in-reserved-space", about, &[7])
        .file(forge)
        .streams(&[&stream]);
    vector.note("not_truncated", end).recover("close")
}

fn a_head_torn_before_use() -> Vector {
    let (mut forge, stream) = one_camera("a-head-torn-before-use");
    forge.bytes[4096..8192].fill(0);
    forge.reserve(4 * 4096);
    let about = "the copy of SEGMENT never reached the disk, and nothing was ever durable: above the floor, so no damage";
    let vector = Vector::good("a-head-torn-before-use", about, &[17])
        .file(forge)
        .streams(&[&stream]);
    vector.note("unfinished", 4096)
}

fn an_empty_file() -> Vector {
    let about = "created and nothing more: not one byte";
    Vector::good("an-empty-file", about, &[44])
        .raw(Vec::new())
        .note("never_begun", 0)
}

fn never_begun_all_zeros() -> Vector {
    let about = "created and reserved: nothing reached the disk";
    Vector::good("never-begun-all-zeros", about, &[44])
        .raw(vec![0; 3 * 4096])
        .note("never_begun", 0)
}

fn never_begun_without_a_head() -> Vector {
    let mut forge = Forge::new(seg("never-begun-without-a-head"));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    forge.bytes[..8192].fill(0);
    let about = "a KEY block reached the disk, neither SEGMENT did: no chunk can have been durable";
    Vector::good("never-begun-without-a-head", about, &[44])
        .raw(forge.bytes)
        .note("never_begun", 0)
}
