//! Stretches without a valid, accepted block, where there must be one (docs/FORMAT.md §3.2 and §3.3).

use super::super::expect::Vector;
use super::super::forge::{Forge, rtp, seg};
use super::super::keys::{ALICE, Slot};
use super::super::wire::*;
use super::{closed, one_camera, two_chunks};

pub fn all() -> Vec<Vector> {
    let mut all = fields();
    all.extend([
        a_header_bit_flipped(),
        a_stream_without_room_for_its_commitment(),
        longer_than_the_file(),
        a_body_bit_flipped(),
        padding_behind_a_chunk(),
        padding_behind_a_key_block(),
        no_magic(),
        zeros_in_a_closed_segment(),
        a_gap_between_blocks(),
        damage_below_the_floor(),
        zeros_below_the_floor(),
        a_foreign_block(),
        a_foreign_footer(),
        outside_its_origins_range(),
        before_its_origin(),
        an_unknown_critical_block(),
        a_critical_private_block(),
    ]);
    all
}

/// An open segment with two chunks, and where the first of them stands: the second says that it is durable.
fn durable(name: &str) -> (Forge, u64) {
    let (forge, _) = two_chunks(name);
    let chunk = forge.blocks[2].offset;
    (forge, chunk)
}

/// A durable chunk with one header field that no block may have; its CRC fits.
fn fields() -> Vec<Vector> {
    let field = |name: &str, about: &'static str, at: usize, value: &[u8]| {
        let (mut forge, chunk) = durable(name);
        let header = chunk as usize;
        put(&mut forge.bytes[header..], at, value);
        recrc_header(&mut forge.bytes[header..header + 4096]);
        Vector::bad(name, about, &[10])
            .raw(forge.bytes)
            .broken("field", chunk)
    };
    vec![
        field("type-0", "no block is of type 0", 4, &[0]),
        field(
            "header-len-127",
            "a header has 128 bytes at least",
            6,
            &127_u16.to_le_bytes(),
        ),
        field("total-len-0", "a block is not empty", 8, &0_u32.to_le_bytes()),
        field(
            "total-len-4097",
            "a block is a multiple of 4096 bytes",
            8,
            &4097_u32.to_le_bytes(),
        ),
        field(
            "total-len-beyond-1-mib",
            "a block is 1 MiB at most",
            8,
            &((1_u32 << 20) + 4096).to_le_bytes(),
        ),
        field(
            "body-len-beyond-the-block",
            "header and body fit into total_len",
            12,
            &4000_u32.to_le_bytes(),
        ),
    ]
}

fn a_header_bit_flipped() -> Vector {
    let (mut forge, chunk) = durable("a-header-bit-flipped");
    forge.damage(chunk, |block| block[33] ^= 4);
    let about = "one bit of block_no, and header_crc32c as it was";
    Vector::bad("a-header-bit-flipped", about, &[10])
        .raw(forge.bytes)
        .broken("header_crc", chunk)
}

fn a_stream_without_room_for_its_commitment() -> Vector {
    let name = "a-stream-without-room-for-its-commitment";
    let (mut forge, stream) = one_camera(name);
    let at = forge.blocks[1].offset;
    let draft = Draft {
        header_len: Some(128),
        block_no: 2,
        ..forge.stream_draft(&stream)
    };
    let block = draft.bytes();
    forge.edit(at, |there| there.copy_from_slice(&block));
    forge.forget(at);
    forge.close();
    let about = "header_len is 128 in a STREAM: its extension is missing";
    Vector::bad(name, about, &[10])
        .raw(forge.bytes)
        .broken("field", at)
}

fn longer_than_the_file() -> Vector {
    let (mut forge, chunk) = durable("longer-than-the-file");
    put(
        &mut forge.bytes[chunk as usize..],
        8,
        &(1_u32 << 20).to_le_bytes(),
    );
    recrc_header(&mut forge.bytes[chunk as usize..chunk as usize + 4096]);
    let about = "a chunk of 1 MiB in a file that ends before it does";
    Vector::bad("longer-than-the-file", about, &[10])
        .raw(forge.bytes)
        .broken("cut", chunk)
}

fn a_body_bit_flipped() -> Vector {
    let (mut forge, stream, chunk) = closed("a-body-bit-flipped");
    forge.damage(chunk, |block| block[150] ^= 1);
    let about = "one bit of a sealed body, and body_crc32c as it was; the other chunk still opens";
    let vector = Vector::bad("a-body-bit-flipped", about, &[10, 12, 41, 43]).raw(forge.bytes);
    vector
        .streams(&[&stream.without(0)])
        .broken("body_crc", chunk)
        .recover("repair")
}

fn padding_behind_a_chunk() -> Vector {
    let (mut forge, chunk) = durable("padding-behind-a-chunk");
    forge.damage(chunk, |block| block[4095] = 1);
    let about = "the last byte of the padding is not zero; no CRC covers it";
    Vector::bad("padding-behind-a-chunk", about, &[3, 10])
        .raw(forge.bytes)
        .broken("padding", chunk)
}

fn padding_behind_a_key_block() -> Vector {
    let (mut forge, stream) = two_chunks("padding-behind-a-key-block");
    forge.damage(8192, |block| block[2000] = 0xAA);
    forge.close();
    let about = "somebody hides a byte behind the entries, and signs it";
    let mut nobody = stream;
    nobody.readers.clear();
    let vector = Vector::bad("padding-behind-a-key-block", about, &[3, 10]).raw(forge.bytes);
    vector.streams(&[&nobody]).broken("padding", 8192)
}

fn no_magic() -> Vector {
    let (mut forge, chunk) = durable("no-magic");
    forge.damage(chunk, |block| block[0] = b'X');
    Vector::bad("no-magic", "the first byte of a block", &[10])
        .raw(forge.bytes)
        .broken("no_block", chunk)
}

fn zeros_in_a_closed_segment() -> Vector {
    let (mut forge, stream, chunk) = closed("zeros-in-a-closed-segment");
    forge.zero(chunk);
    let about = "a page that the disk lost";
    let vector = Vector::bad("zeros-in-a-closed-segment", about, &[5, 43]).raw(forge.bytes);
    vector
        .streams(&[&stream.without(0)])
        .error("zeros", chunk)
        .recover("repair")
}

fn a_gap_between_blocks() -> Vector {
    let (mut forge, mut stream) = one_camera("a-gap-between-blocks");
    forge.chunk(&mut stream, rtp(1));
    let at = forge.end();
    forge.reserve(4096);
    forge.chunk(&mut stream, rtp(2));
    forge.close();
    let about = "nothing is missing, but a writer leaves no gap";
    Vector::bad("a-gap-between-blocks", about, &[5])
        .raw(forge.bytes)
        .error("zeros", at)
}

fn damage_below_the_floor() -> Vector {
    let (mut forge, mut stream) = two_chunks("damage-below-the-floor");
    let chunk = forge.blocks[2].offset;
    forge.damage(chunk, |block| block[140] ^= 0x80);
    forge.chunk(&mut stream, rtp(1));
    forge.reserve(4096);
    let about = "in an open segment, under a watermark that a later block states";
    let vector = Vector::bad("damage-below-the-floor", about, &[9, 10, 12]).raw(forge.bytes);
    vector
        .streams(&[&stream.without(0)])
        .broken("body_crc", chunk)
        .recover("repair")
}

fn zeros_below_the_floor() -> Vector {
    let (mut forge, mut stream) = two_chunks("zeros-below-the-floor");
    let chunk = forge.blocks[2].offset;
    forge.chunk(&mut stream, rtp(1));
    forge.zero(chunk);
    let about = "a chunk that was durable is gone";
    let vector = Vector::bad("zeros-below-the-floor", about, &[9, 43]).raw(forge.bytes);
    vector
        .streams(&[&stream.without(0)])
        .error("zeros", chunk)
        .recover("repair")
}

/// A file with one camera, and a block of another segment at its end; `before` puts in what may make it welcome.
fn stranger(name: &str, before: impl FnOnce(&mut Forge, &Forge)) -> (Forge, u64) {
    let (from, ..) = two_chunks(&format!("{name}, from"));
    let (mut forge, _) = one_camera(name);
    before(&mut forge, &from);
    let at = forge.end();
    let block = from.block(from.blocks[2].offset).to_vec();
    forge.bytes.extend(block);
    (forge, at)
}

fn a_foreign_block() -> Vector {
    let (mut forge, at) = stranger("a-foreign-block", |_, _| {});
    forge.close();
    let about = "a valid CHUNK of a segment that no ORIGIN names";
    Vector::bad("a-foreign-block", about, &[11])
        .raw(forge.bytes)
        .error("foreign_block", at)
}

fn a_foreign_footer() -> Vector {
    let (from, _, _) = closed("a-foreign-footer, from");
    let (mut forge, _) = one_camera("a-foreign-footer");
    forge.push(forge.draft(ORIGIN, origin_body(&from.seg, 0, 100)));
    let at = forge.end();
    forge.bytes.extend(&from.bytes[from.bytes.len() - 4096..]);
    forge.close();
    let about = "an ORIGIN covers it, but a FOOTER of another segment is accepted nowhere";
    Vector::bad("a-foreign-footer", about, &[11])
        .raw(forge.bytes)
        .error("foreign_block", at)
}

fn outside_its_origins_range() -> Vector {
    let (mut forge, at) = stranger("outside-its-origins-range", |forge, from| {
        forge.push(forge.draft(ORIGIN, origin_body(&from.seg, 1, 2)));
    });
    forge.close();
    let about = "ORIGIN names blocks 1 to 2, and this is 3";
    Vector::bad("outside-its-origins-range", about, &[11])
        .raw(forge.bytes)
        .error("foreign_block", at)
}

fn before_its_origin() -> Vector {
    let (mut forge, at) = stranger("before-its-origin", |_, _| {});
    let (from, _) = two_chunks("before-its-origin, from");
    forge.push(forge.draft(ORIGIN, origin_body(&from.seg, 1, 9)));
    forge.close();
    let about = "the ORIGIN that would cover it comes behind it";
    Vector::bad("before-its-origin", about, &[11])
        .raw(forge.bytes)
        .error("foreign_block", at)
}

fn critical(name: &'static str, kind: u8, about: &'static str, musts: &[u32]) -> Vector {
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let draft = Draft {
        flags: CRITICAL,
        ..forge.draft(kind, vec![7; 64])
    };
    let at = forge.push(draft);
    forge.checkpoint(|_| {});
    forge.close();
    Vector::bad(name, about, musts)
        .raw(forge.bytes)
        .error("unsupported", at)
        .recover("unsupported")
}

fn an_unknown_critical_block() -> Vector {
    let about = "type 11, critical: unsupported, never damage";
    critical("an-unknown-critical-block", 11, about, &[44])
}

fn a_critical_private_block() -> Vector {
    let about = "a private type must not be critical in files for others";
    critical("a-critical-private-block", 0x90, about, &[44, 45])
}
