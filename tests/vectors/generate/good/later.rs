//! What later versions may add, and what a reader of version 1.0 does with it (docs/FORMAT.md §10).

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, rtp, seg};
use super::super::keys::{ALICE, BOB, Slot};
use super::super::wire::*;
use super::{one_camera, two_chunks};

pub fn all() -> Vec<Vector> {
    vec![
        minor_1(),
        minor_1_says_more_in_the_footer(),
        an_unknown_compat_bit(),
        an_unknown_ro_compat_bit(),
        an_unknown_block(),
        a_private_block(),
        longer_bodies(),
        longer_extensions(),
        longer_headers(),
        reserved_bytes(),
        unknown_flags(),
        unknown_flags_of_packets_and_entries(),
        an_unknown_tombstone(),
        an_unknown_index(),
    ]
}

/// A segment of alice's, whose SEGMENT was changed.
fn with_seg(name: &str, change: impl FnOnce(&mut Seg)) -> (Forge, Stream) {
    let mut changed = seg(name);
    change(&mut changed);
    let mut forge = Forge::new(changed);
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(2));
    (forge, stream)
}

fn minor_1() -> Vector {
    let (forge, stream) = with_seg("minor-1", |seg| seg.minor = 1);
    Vector::good("minor-1", "a later minor version is read", &[44])
        .file(forge)
        .streams(&[&stream])
}

fn minor_1_says_more_in_the_footer() -> Vector {
    let name = "minor-1-says-more-in-the-footer";
    let (mut forge, stream) = with_seg(name, |seg| seg.minor = 1);
    let footer = forge.close();
    forge.edit(footer, |block| {
        put(block, 12, &(248 + 8_u32).to_le_bytes());
        put(block, 88, &[1, 2, 3, 4]);
        put(block, 128 + 248, &[5; 8]);
    });
    let about = "a reserved field of the FOOTER's header and a longer body, which with minor 0 must not be";
    Vector::good(name, about, &[2, 34, 44])
        .file(forge)
        .streams(&[&stream])
}

fn an_unknown_compat_bit() -> Vector {
    let (forge, stream) = with_seg("an-unknown-compat-bit", |seg| seg.compat = 1 << 40);
    let vector = Vector::good("an-unknown-compat-bit", "is ignored", &[44]);
    vector.file(forge).streams(&[&stream]).recover("close")
}

fn an_unknown_ro_compat_bit() -> Vector {
    let (mut forge, stream) = with_seg("an-unknown-ro-compat-bit", |seg| seg.ro_compat = 4);
    forge.reserve(4096);
    let vector = Vector::good(
        "an-unknown-ro-compat-bit",
        "is read, and left alone by recovery",
        &[44],
    );
    vector.file(forge).streams(&[&stream]).recover("unsupported")
}

fn an_unknown_block() -> Vector {
    let (mut forge, mut stream) = one_camera("an-unknown-block");
    forge.push(forge.draft(10, vec![0xC0; 5000]));
    forge.chunk(&mut stream, rtp(2));
    forge.push(forge.draft(0x7F, Vec::new()));
    forge.close();
    let about = "of types 10 and 0x7F, not critical: skipped, but counted and in the tree";
    Vector::good("an-unknown-block", about, &[44])
        .file(forge)
        .streams(&[&stream])
}

fn a_private_block() -> Vector {
    let (mut forge, mut stream) = one_camera("a-private-block");
    forge.push(forge.draft(0x80, b"ours".to_vec()));
    forge.push(forge.draft(0xFF, b"theirs".to_vec()));
    forge.chunk(&mut stream, rtp(1));
    forge.close();
    let about = "of types 0x80 and 0xFF: never critical, skipped";
    Vector::good("a-private-block", about, &[45])
        .file(forge)
        .streams(&[&stream])
}

fn longer_bodies() -> Vector {
    let name = "longer-bodies";
    let more = [0x5A; 24];
    let (from, stream) = two_chunks("longer-bodies, from");
    let mut forge = Forge::new(seg(name));
    for at in [0, 4096] {
        let block = &mut forge.bytes[at..at + 4096];
        put(block, 12, &(128 + 24_u32).to_le_bytes());
        put(block, 256, &more);
        recrc(block);
    }
    let longer = |body: Vec<u8>| [&body[..], &more].concat();
    let bob = Slot::new(&forge.seg, 3, &[BOB]);
    forge.push(forge.draft(
        KEY,
        longer(super::super::keys::key_body(&bob.entries(&forge.seg))),
    ));
    let mut his = Stream::new(&forge.seg, &bob, "gate", 2);
    let mut draft = forge.stream_draft(&his);
    draft.body = longer(draft.body);
    forge.push(draft);
    forge.chunk(&mut his, rtp(1));
    let blocks: Vec<u64> = from.blocks.iter().map(|block| block.offset).collect();
    forge.push(forge.draft(ORIGIN, longer(origin_body(&from.seg, 1, from.next_no - 1))));
    for offset in blocks {
        let block = from.block(offset).to_vec();
        forge.push_bytes(&block);
    }
    let checkpoint = forge.checkpoint_body().body(&forge.seg.node, &forge.seg.id);
    forge.push(forge.draft(CHECKPOINT, longer(checkpoint)));
    let graves = [from.grave(2)];
    let stone = tombstone_body(DELETED, 7, &graves, &forge.seg.node, &forge.seg.id);
    forge.push(forge.draft(TOMBSTONE, longer(stone)));
    forge.close();
    let about =
        "24 unknown bytes behind the known ones in SEGMENT, KEY, STREAM, ORIGIN, CHECKPOINT and TOMBSTONE";
    Vector::good(name, about, &[14, 44])
        .file(forge)
        .streams(&[&stream, &his])
}

fn longer_extensions() -> Vector {
    let mut forge = Forge::new(seg("longer-extensions"));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    let mut draft = forge.stream_draft(&stream);
    draft.extension.extend([0x17; 40]);
    forge.push(draft);
    let text = stream.text(rtp(2));
    let mut draft = forge.chunk_draft(&stream, &text);
    draft.extension.extend([0x18; 16]);
    forge.push_chunk(&mut stream, text, draft);
    forge.close();
    let about = "STREAM with 72 bytes of extension and CHUNK with 16: authenticated, in the leaf, and otherwise ignored";
    Vector::good("longer-extensions", about, &[44])
        .file(forge)
        .streams(&[&stream])
}

fn longer_headers() -> Vector {
    let (mut forge, stream) = two_chunks("longer-headers");
    let checkpoint = forge.checkpoint_body().body(&forge.seg.node, &forge.seg.id);
    let draft = Draft {
        extension: vec![0x19; 8],
        ..forge.draft(CHECKPOINT, checkpoint)
    };
    forge.push(draft);
    forge.close();
    let about = "a CHECKPOINT with an extension: its body begins at header_len";
    Vector::good("longer-headers", about, &[44])
        .file(forge)
        .streams(&[&stream])
}

fn reserved_bytes() -> Vector {
    let mut forge = Forge::new(seg("reserved-bytes"));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let mut entries = alice.entries(&forge.seg);
    entries[0].reserved = 0xDEAD;
    let mut key = forge.draft(KEY, super::super::keys::key_body(&entries));
    put(&mut key.body, 4, &[9, 9, 9, 9]);
    forge.push(Draft {
        reserved_60: 1,
        reserved_88: 2,
        reserved_116: 3,
        ..key
    });
    let mut stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    let mut draft = forge.stream_draft(&stream);
    put(&mut draft.body, 24, &[0xFF; 8]);
    forge.push(draft);
    let text = stream.text(rtp(2));
    let mut draft = forge.chunk_draft(&stream, &text);
    put(&mut draft.body, 24, &[0xFF; 8]);
    (draft.reserved_60, draft.reserved_88, draft.reserved_116) = (4, 5, 6);
    forge.push_chunk(&mut stream, text, draft);
    forge.close_with(|footer| footer.reserved = 7);
    let about = "everything reserved in headers, entries and plaintexts is set: a reader does not look there";
    Vector::good("reserved-bytes", about, &[1, 2])
        .file(forge)
        .streams(&[&stream])
}

fn unknown_flags() -> Vector {
    let (mut forge, mut stream) = one_camera("unknown-flags");
    let text = stream.text(rtp(2));
    let mut draft = forge.chunk_draft(&stream, &text);
    draft.flags |= 0xF0;
    forge.push_chunk(&mut stream, text, draft);
    forge.checkpoint(|_| {});
    let about = "flag bits 4 to 7 of a CHUNK's header";
    Vector::good("unknown-flags", about, &[44])
        .file(forge)
        .streams(&[&stream])
}

fn unknown_flags_of_packets_and_entries() -> Vector {
    let name = "unknown-flags-of-packets-and-entries";
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let mut entries = alice.entries(&forge.seg);
    entries[0].flags |= 0x80;
    forge.key(&entries);
    let mut stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    forge.stream(&stream);
    let mut packets = rtp(3);
    packets[0].flags = 0x8000;
    packets[1].flags = 0x0003;
    forge.chunk(&mut stream, packets);
    let about = "bit 7 of a KEY entry's flags, bits 1 and 15 of records";
    Vector::good(name, about, &[44]).file(forge).streams(&[&stream])
}

fn an_unknown_tombstone() -> Vector {
    let (mut forge, stream) = two_chunks("an-unknown-tombstone");
    let offset = forge.tombstone(77, &[]);
    forge.close();
    let about = "a TOMBSTONE of kind 77 is skipped";
    let vector = Vector::good("an-unknown-tombstone", about, &[44]).file(forge);
    vector.streams(&[&stream]).note("skipped", offset)
}

fn an_unknown_index() -> Vector {
    let (mut forge, stream) = two_chunks("an-unknown-index");
    let data_end = forge.end();
    let extra = forge.push(forge.draft(INDEX, index_body(9, 8, 0, &[vec![1; 8], vec![2; 8]])));
    let tables = super::super::tables::Tables::of(&forge);
    let footer = forge.tables_of(SEALED | SIGNED, data_end, tables, 1000);
    forge.footer(&footer);
    let about = "an INDEX of kind 9 before the others is skipped";
    let vector = Vector::good("an-unknown-index", about, &[44]).file(forge);
    vector.streams(&[&stream]).note("skipped", extra)
}
