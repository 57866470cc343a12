//! Blocks that were first written to another segment, behind ORIGIN.

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, rtp, seg};
use super::super::keys::{ALICE, BOB, Slot};
use super::super::wire::*;
use super::{one_camera, two_chunks};

pub fn all() -> Vec<Vector> {
    vec![
        behind_origin(),
        two_origins(),
        relocated_twice(),
        not_dense(),
        only_later_chunks(),
        a_duplicate_over_two_files(),
        a_foreign_watermark(),
        own_chunks_beside(),
        a_lost_origin(),
        compacted(),
        compacted_beside_its_origins(),
        compacted_and_origins_deleted(),
    ]
}

/// The offsets of all KEY, STREAM and CHUNK blocks.
fn sealed_blocks(forge: &Forge) -> Vec<u64> {
    let sealed = |kind: u8| matches!(kind, KEY | STREAM | CHUNK);
    forge
        .blocks
        .iter()
        .filter(|block| sealed(block.kind))
        .map(|block| block.offset)
        .collect()
}

/// The segment after `from`, whose blocks it repeats.
fn next_of(from: &Forge) -> Forge {
    Forge::new(from.seg.next())
}

fn behind_origin() -> Vector {
    let (from, stream) = two_chunks("behind-origin");
    let mut forge = next_of(&from);
    forge.relocate(&from, &sealed_blocks(&from));
    forge.close();
    let about =
        "an fdatasync failed: KEY, STREAM and CHUNKs stand verbatim in the next segment and open there";
    let vector = Vector::good("behind-origin", about, &[11, 28, 29, 46]).identity(ALICE);
    vector.file(forge).streams(&[&stream])
}

fn two_origins() -> Vector {
    let (first, s) = two_chunks("two-origins");
    let (second, t) = two_chunks("two-origins, the other");
    let mut forge = next_of(&first);
    forge.relocate(&first, &sealed_blocks(&first));
    forge.relocate(&second, &sealed_blocks(&second));
    let about = "blocks of two segments, both with slot 0: an origin's slots are its own";
    let vector = Vector::good("two-origins", about, &[11, 28]).identity(ALICE);
    vector.file(forge).streams(&[&s, &t])
}

fn relocated_twice() -> Vector {
    let (first, stream) = two_chunks("relocated-twice");
    let mut second = next_of(&first);
    second.relocate(&first, &sealed_blocks(&first));
    let mut third = next_of(&second);
    let moved: Vec<u64> = sealed_blocks(&second);
    let body = origin_body(&first.seg, 1, first.next_no - 1);
    third.push(third.draft(ORIGIN, body));
    for offset in moved {
        let block = second.block(offset).to_vec();
        third.push_bytes(&block);
    }
    let about = "copied from a copy: ORIGIN names the segment they were first written to";
    Vector::good("relocated-twice", about, &[11, 46])
        .file(third)
        .streams(&[&stream])
}

fn not_dense() -> Vector {
    let mut from = Forge::new(seg("not-dense"));
    let alice = Slot::new(&from.seg, 0, &[ALICE]);
    let bob = Slot::new(&from.seg, 1, &[BOB]);
    from.slots(&[&alice, &bob]);
    let mut hers = Stream::new(&from.seg, &alice, "gate", 1);
    let mut his = Stream::new(&from.seg, &bob, "gate", 1);
    from.stream(&hers);
    from.stream(&his);
    for _ in 0..2 {
        from.chunk(&mut hers, rtp(1));
        from.chunk(&mut his, rtp(2));
    }
    let wanted = from
        .blocks
        .iter()
        .filter(|block| block.kind == KEY || block.slot == 0);
    let offsets: Vec<u64> = wanted
        .filter(|block| block.stream_id != his.id)
        .map(|block| block.offset)
        .collect();
    let mut forge = next_of(&from);
    forge.relocate(&from, &offsets);
    let about = "only one customer's blocks were copied: numbers of the origin rise and jump";
    Vector::good("not-dense", about, &[28])
        .identity(ALICE)
        .file(forge)
        .streams(&[&hers])
}

fn only_later_chunks() -> Vector {
    let (mut from, mut stream) = two_chunks("only-later-chunks");
    let late = [from.chunk(&mut stream, rtp(3)), from.chunk(&mut stream, rtp(1))];
    let mut offsets = sealed_blocks(&from)[..2].to_vec();
    offsets.extend(late);
    let mut forge = next_of(&from);
    forge.relocate(&from, &offsets);
    let about = "the first two chunks are in the origin: a foreign stream may begin at any stream_seq";
    let vector = Vector::good("only-later-chunks", about, &[24])
        .identity(ALICE)
        .file(forge);
    vector.streams(&[&stream.without(0).without(1)])
}

fn a_lost_origin() -> Vector {
    let (mut from, mut stream) = two_chunks("a-lost-origin");
    let first = sealed_blocks(&from);
    let late = from.chunk(&mut stream, rtp(3));
    let mut forge = next_of(&from);
    let origin = origin_body(&from.seg, 1, from.next_no - 1);
    forge.push(forge.draft(ORIGIN, origin.clone()));
    for offset in first {
        forge.push_bytes(from.block(offset));
    }
    let lost = forge.push(forge.draft(ORIGIN, origin));
    forge.push_bytes(from.block(late));
    forge.zero(lost);
    forge.recover(true, 0);
    let about = "a second ORIGIN was lost in a crash, the chunk behind it was not: the file's own numbers jump only at the INDEX, where no hole is \
                 the block before";
    let vector = Vector::good("a-lost-origin", about, &[9, 12, 28, 43]).identity(ALICE);
    let vector = vector.file(forge).streams(&[&stream]).recover("closed");
    vector.note("hole", lost)
}

fn a_duplicate_over_two_files() -> Vector {
    let (mut from, stream) = two_chunks("a-duplicate-over-two-files");
    let mut forge = next_of(&from);
    forge.relocate(&from, &sealed_blocks(&from));
    from.recover(true, 0);
    forge.close_with(|footer| footer.prev_root = from.root());
    let about = "the chunks stand in their own segment and in the next: each counts once";
    let vector = Vector::good("a-duplicate-over-two-files", about, &[13]).identity(ALICE);
    vector.file(from).file(forge).streams(&[&stream])
}

fn a_foreign_watermark() -> Vector {
    let (mut from, mut stream) = two_chunks("a-foreign-watermark");
    (0..8).for_each(|_| _ = from.chunk(&mut stream, rtp(1)));
    from.sync();
    let late = from.chunk(&mut stream, rtp(2));
    let mut offsets = sealed_blocks(&from)[..2].to_vec();
    offsets.push(late);
    let mut forge = next_of(&from);
    forge.relocate(&from, &offsets);
    forge.reserve(4096);
    let about = "a relocated block states its origin's watermark, which lies behind this file's end: the floor here is 0";
    let mut alone = stream.clone();
    alone.chunks.retain(|(seq, _)| *seq == 10);
    let vector = Vector::good("a-foreign-watermark", about, &[29])
        .file(forge)
        .streams(&[&alone]);
    vector.recover("close")
}

fn own_chunks_beside() -> Vector {
    let (from, stream) = two_chunks("own-chunks-beside");
    let mut forge = next_of(&from);
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut own = stream.goes_on(&forge.seg, &alice);
    forge.stream(&own);
    forge.chunk(&mut own, rtp(1));
    forge.relocate(&from, &sealed_blocks(&from));
    forge.chunk(&mut own, rtp(2));
    forge.close();
    let about = "relocated blocks between the file's own, whose numbers go on as if nothing stood there";
    let vector = Vector::good("own-chunks-beside", about, &[11, 29]);
    vector.file(forge).streams(&[&stream, &own])
}

/// Origins with alice and bob in them, closed, and what was gathered from them for alice.
fn gathered(name: &str) -> ([Forge; 2], [Stream; 4], Forge) {
    let mut before: Option<(Forge, Stream, Stream)> = None;
    let mut made = Vec::new();
    for _ in 0..2 {
        let seg = before.as_ref().map_or(seg(name), |(forge, ..)| forge.seg.next());
        let mut forge = Forge::new(seg);
        let alice = Slot::new(&forge.seg, 1, &[ALICE]);
        let bob = Slot::new(&forge.seg, 0, &[BOB]);
        forge.slots(&[&bob, &alice]);
        let (mut hers, mut his) = match &before {
            Some((_, hers, his)) => (hers.goes_on(&forge.seg, &alice), his.goes_on(&forge.seg, &bob)),
            None => (
                Stream::new(&forge.seg, &alice, "till", 1),
                Stream::new(&forge.seg, &bob, "till", 2),
            ),
        };
        forge.stream(&hers);
        forge.stream(&his);
        for _ in 0..2 {
            forge.chunk(&mut his, rtp(1));
            forge.chunk(&mut hers, rtp(2));
        }
        forge.close_with(|footer| {
            footer.prev_root = before.as_ref().map_or([0; 32], |(forge, ..)| forge.root())
        });
        before = Some((forge.clone(), hers.clone(), his.clone()));
        made.push((forge, hers, his));
    }
    let [(first, s, t), (second, u, v)] = <[_; 2]>::try_from(made).ok().expect("two were made");
    let object = super::super::forge::seg(&format!("{name}, alice"));
    let mut forge = Forge::new(Seg {
        compat: 1,
        created_s: object.created_s + 86_400,
        ..object
    });
    for (from, stream) in [(&first, &s), (&second, &u)] {
        let hers =
            |block: &&super::super::expect::BlockSeen| block.kind == KEY || block.stream_id == stream.id;
        let offsets: Vec<u64> = from
            .blocks
            .iter()
            .filter(hers)
            .map(|block| block.offset)
            .collect();
        forge.relocate(from, &offsets);
    }
    forge.sync();
    forge.checkpoint(|_| {});
    forge.close();
    ([first, second], [s, t, u, v], forge)
}

fn compacted() -> Vector {
    let (_, [s, _, u, _], object) = gathered("compacted");
    let about = "one customer's footage gathered from two segments: COMPACTED, nothing sealed of its own";
    let vector = Vector::good("compacted", about, &[47, 11]).identity(ALICE);
    vector.file(object).streams(&[&s, &u])
}

fn compacted_beside_its_origins() -> Vector {
    let ([first, second], [s, t, u, v], object) = gathered("compacted-beside-its-origins");
    let about = "object and origins together: what is met in both counts once";
    let vector = Vector::good("compacted-beside-its-origins", about, &[13, 47]);
    vector
        .file(first)
        .file(second)
        .file(object)
        .streams(&[&s, &t, &u, &v])
}

fn compacted_and_origins_deleted() -> Vector {
    let ([first, second], [s, _, u, _], object) = gathered("compacted-and-origins-deleted");
    let (mut third, later) = one_camera("compacted-and-origins-deleted, later");
    third.tombstone(DELETED, &[first.grave(4), second.grave(4)]);
    third.close();
    let about = "the origins are gone, and a TOMBSTONE says that they were compacted";
    let vector = Vector::good("compacted-and-origins-deleted", about, &[35, 47]);
    vector.file(object).file(third).streams(&[&s, &u, &later])
}
