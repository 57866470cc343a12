//! Numbers, watermarks, and what must stand before what (docs/FORMAT.md §2 to §4).

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, rtp, seg};
use super::super::keys::{ALICE, BOB, Entry, GRACE, RECOVERY, Slot};
use super::super::wire::*;
use super::{checked, one_camera, two_chunks};

pub fn all() -> Vec<Vector> {
    let mut all = recipients();
    all.extend([
        a_number_left_out(),
        a_nonce_used_twice(),
        numbers_of_an_origin_fall(),
        blocks_exchanged(),
        a_block_twice(),
        a_watermark_ahead(),
        a_checkpoint_ahead(),
        a_key_too_late(),
        a_stream_without_a_key(),
        a_slot_with_grants_only(),
        a_stream_too_late(),
        a_chunk_without_a_stream(),
        a_second_stream_block(),
        a_chunk_in_another_slot(),
        a_chunk_left_out(),
        the_first_chunk_left_out(),
        a_stream_seq_twice(),
        a_key_of_another_origin(),
    ]);
    all
}

fn a_number_left_out() -> Vector {
    let (mut forge, mut stream) = one_camera("a-number-left-out");
    forge.next_no += 1;
    let at = forge.chunk(&mut stream, rtp(1));
    let about = "block_no jumps and no hole explains it";
    Vector::bad("a-number-left-out", about, &[5, 40])
        .raw(forge.bytes)
        .error("block_number", at)
}

fn a_nonce_used_twice() -> Vector {
    let (mut forge, mut stream) = one_camera("a-nonce-used-twice");
    forge.chunk(&mut stream, rtp(1));
    forge.next_no -= 1;
    let at = forge.chunk(&mut stream, rtp(3));
    let about = "two CHUNKs with other packets under one block_no, and so under one nonce";
    let vector = Vector::bad("a-nonce-used-twice", about, &[40])
        .identity(ALICE)
        .raw(forge.bytes);
    vector.error("block_number", at)
}

fn numbers_of_an_origin_fall() -> Vector {
    let (mut from, mut stream) = two_chunks("numbers-of-an-origin-fall");
    let bob = Slot::new(&from.seg, 9, &[BOB]);
    let late = from.slots(&[&bob]);
    from.chunk(&mut stream, rtp(1));
    let mut offsets: Vec<u64> = from.blocks.iter().map(|block| block.offset).collect();
    let moved = offsets
        .iter()
        .position(|offset| *offset == late)
        .expect("it was pushed");
    let last = offsets.len() - 1;
    offsets.swap(moved, last);
    let mut forge = Forge::new(from.seg.next());
    forge.relocate(&from, &offsets);
    let at = forge.blocks.last().expect("blocks were relocated").offset;
    let about = "a KEY block of the origin stands behind a CHUNK that has a higher number there";
    Vector::bad("numbers-of-an-origin-fall", about, &[28])
        .raw(forge.bytes)
        .error("block_number", at)
}

fn blocks_exchanged() -> Vector {
    let (mut forge, mut stream) = one_camera("blocks-exchanged");
    let first = forge.chunk(&mut stream, rtp(1));
    let second = forge.chunk(&mut stream, rtp(2));
    let (one, other) = (forge.block(first).to_vec(), forge.block(second).to_vec());
    forge.edit(first, |block| block.copy_from_slice(&other));
    forge.edit(second, |block| block.copy_from_slice(&one));
    let about = "two CHUNKs in each other's place";
    Vector::bad("blocks-exchanged", about, &[5])
        .raw(forge.bytes)
        .error("block_number", first)
}

fn a_block_twice() -> Vector {
    let (mut forge, mut stream) = one_camera("a-block-twice");
    let first = forge.chunk(&mut stream, rtp(1));
    let copy = forge.block(first).to_vec();
    let at = forge.push_bytes(&copy);
    let about = "a CHUNK and, behind it, the same again";
    Vector::bad("a-block-twice", about, &[5])
        .raw(forge.bytes)
        .error("block_number", at)
}

fn a_watermark_ahead() -> Vector {
    let (mut forge, mut stream) = one_camera("a-watermark-ahead");
    let at = forge.end();
    forge.durable = at + 4096;
    forge.chunk(&mut stream, rtp(1));
    let about = "a CHUNK says that it is durable itself";
    Vector::bad("a-watermark-ahead", about, &[9])
        .raw(forge.bytes)
        .error("watermark_ahead", at)
}

fn a_checkpoint_ahead() -> Vector {
    let (mut forge, _) = two_chunks("a-checkpoint-ahead");
    let at = forge.end();
    forge.checkpoint(|body| body.durable_upto = at + 1);
    let about = "durable_upto lies a byte beyond the CHECKPOINT's start";
    Vector::bad("a-checkpoint-ahead", about, &[9])
        .raw(forge.bytes)
        .error("watermark_ahead", at)
}

fn a_key_too_late() -> Vector {
    let mut forge = Forge::new(seg("a-key-too-late"));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    let at = forge.stream(&stream);
    forge.slots(&[&alice]);
    let about = "KEY stands behind the STREAM that needs it";
    Vector::bad("a-key-too-late", about, &[6, 22])
        .raw(forge.bytes)
        .error("key_missing", at)
}

fn a_stream_without_a_key() -> Vector {
    let (mut forge, _) = checked("a-stream-without-a-key");
    let bob = Slot::new(&forge.seg, 1, &[BOB]);
    let stream = Stream::new(&forge.seg, &bob, "gate", 1);
    let at = forge.stream(&stream);
    let about = "nobody could ever open it: its slot has no entry";
    Vector::bad("a-stream-without-a-key", about, &[6, 22])
        .raw(forge.bytes)
        .error("key_missing", at)
}

fn a_slot_with_grants_only() -> Vector {
    let mut forge = Forge::new(seg("a-slot-with-grants-only"));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    forge.key(&[alice.grant(&forge.seg, &stream.id, &GRACE, 0, 1)]);
    let at = forge.stream(&stream);
    let about = "an entry of scope 1 is no customer's";
    Vector::bad("a-slot-with-grants-only", about, &[22])
        .raw(forge.bytes)
        .error("key_missing", at)
}

fn a_stream_too_late() -> Vector {
    let mut forge = Forge::new(seg("a-stream-too-late"));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    let at = forge.chunk(&mut stream, rtp(1));
    forge.stream(&stream);
    let about = "STREAM stands behind its first CHUNK";
    Vector::bad("a-stream-too-late", about, &[6])
        .raw(forge.bytes)
        .error("stream_missing", at)
}

fn a_chunk_without_a_stream() -> Vector {
    let (mut forge, _) = checked("a-chunk-without-a-stream");
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let mut other = Stream::new(&forge.seg, &alice, "cellar", 2);
    let at = forge.chunk(&mut other, rtp(1));
    let about = "no STREAM names it";
    Vector::bad("a-chunk-without-a-stream", about, &[6])
        .raw(forge.bytes)
        .error("stream_missing", at)
}

fn a_second_stream_block() -> Vector {
    let (mut forge, mut stream) = checked("a-second-stream-block");
    let at = forge.stream(&stream);
    forge.chunk(&mut stream, rtp(1));
    let about = "a stream has one STREAM block";
    Vector::bad("a-second-stream-block", about, &[6])
        .raw(forge.bytes)
        .error("stream_repeated", at)
}

fn a_chunk_in_another_slot() -> Vector {
    let (mut forge, mut stream) = checked("a-chunk-in-another-slot");
    let text = stream.text(rtp(1));
    let draft = Draft {
        slot: 1,
        ..forge.chunk_draft(&stream, &text)
    };
    let at = forge.push_chunk(&mut stream, text, draft);
    let about = "key_slot is not the one of its STREAM";
    Vector::bad("a-chunk-in-another-slot", about, &[25])
        .raw(forge.bytes)
        .error("slot_differs", at)
}

fn a_chunk_left_out() -> Vector {
    let (mut forge, mut stream) = checked("a-chunk-left-out");
    stream.next_seq = 2;
    let at = forge.chunk(&mut stream, rtp(1));
    let about = "stream_seq jumps from 0 to 2, block_no does not";
    Vector::bad("a-chunk-left-out", about, &[24, 43])
        .raw(forge.bytes)
        .error("chunks_missing", at)
}

fn the_first_chunk_left_out() -> Vector {
    let (mut forge, mut stream) = one_camera("the-first-chunk-left-out");
    stream.next_seq = 1;
    let at = forge.chunk(&mut stream, rtp(1));
    let about = "a stream of the file's own begins at stream_seq 0";
    Vector::bad("the-first-chunk-left-out", about, &[24, 43])
        .raw(forge.bytes)
        .error("chunks_missing", at)
}

fn a_stream_seq_twice() -> Vector {
    let (mut forge, mut stream) = checked("a-stream-seq-twice");
    stream.next_seq = 0;
    let at = forge.chunk(&mut stream, rtp(1));
    let about = "two CHUNKs of one stream_seq, with a block_no of their own each";
    Vector::bad("a-stream-seq-twice", about, &[24])
        .raw(forge.bytes)
        .error("stream_seq_repeated", at)
}

fn a_key_of_another_origin() -> Vector {
    let (from, _) = two_chunks("a-key-of-another-origin, from");
    let mut forge = Forge::new(seg("a-key-of-another-origin"));
    forge.relocate(&from, &[from.blocks[0].offset]);
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    let at = forge.stream(&stream);
    let about = "slot 0 of the origin has a key, slot 0 of the file has none";
    Vector::bad("a-key-of-another-origin", about, &[22])
        .raw(forge.bytes)
        .error("key_missing", at)
}

/// Slots whose entries do not fit together. `needed`: at the STREAM; else at the KEY block.
fn recipients() -> Vec<Vector> {
    type Change = fn(&mut Vec<Entry>);
    let case = |name: &str, about: &'static str, musts: &[u32], at_stream: bool, change: Change| {
        let mut forge = Forge::new(seg(name));
        let alice = Slot::new(&forge.seg, 0, &[ALICE, RECOVERY]);
        let stream = Stream::new(&forge.seg, &alice, "front-door", 1);
        let mut entries = alice.entries(&forge.seg);
        for (i, person) in [GRACE, BOB].iter().enumerate() {
            entries.push(alice.grant(&forge.seg, &stream.id, person, i as u8, 2));
        }
        change(&mut entries);
        let key = forge.key(&entries);
        let needs = forge.stream(&stream);
        let at = if at_stream { needs } else { key };
        Vector::bad(name, about, musts)
            .raw(forge.bytes)
            .error("recipients", at)
    };
    vec![
        case(
            "a-recipient-missing",
            "n says two, only the first is there",
            &[20, 22],
            true,
            |entries| {
                entries.remove(1);
            },
        ),
        case(
            "the-customer-missing",
            "n says two, only the second is there",
            &[20, 22],
            true,
            |entries| {
                entries.remove(0);
            },
        ),
        case(
            "recipients-count-differently",
            "one entry says n = 2, the other n = 3",
            &[20],
            false,
            |entries| {
                entries[1].n = 3;
            },
        ),
        case(
            "a-recipient-twice",
            "both entries are i = 0",
            &[20],
            false,
            |entries| entries[1].i = 0,
        ),
        case(
            "a-recipient-beyond-n",
            "i = 2 of n = 2",
            &[20],
            false,
            |entries| entries[1].i = 2,
        ),
        case(
            "grants-count-differently",
            "scope 1: n = 2 and n = 1",
            &[20],
            false,
            |entries| entries[3].n = 1,
        ),
    ]
}
