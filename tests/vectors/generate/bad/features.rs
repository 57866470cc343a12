//! ERASABLE, STRONG_LEAF, erased bodies and compaction, broken.

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, rtp, seg};
use super::super::good::features::{erasable, erase_all, says_erased, strong};
use super::super::keys::{ALICE, CAROL, Entry, OTHER_NODE, RECOVERY, Slot};
use super::super::wire::*;
use super::{closed, two_chunks};

pub fn all() -> Vec<Vector> {
    vec![
        an_erasable_entry_unstated(),
        a_hashed_chunk_unstated(),
        a_plain_chunk_under_strong_leaf(),
        a_hashed_guest_unstated(),
        entries_disagree_on_erasable(),
        another_hash(),
        a_body_changed_under_its_crc_and_tag(),
        a_hashed_chunk_without_room(),
        a_wrong_release(),
        erased_unstated(),
        erased_and_stated_by_nobody(),
        erased_and_another_slot_stated(),
        erased_and_stated_by_another_node(),
        erased_in_part(),
        a_stream_of_a_compacted_files_own(),
    ]
}

fn an_erasable_entry_unstated() -> Vector {
    let (forge, ..) = erasable("an-erasable-entry-unstated", 0, &[ALICE]);
    let about = "flag erasable, and no bit ERASABLE in the file";
    let vector = Vector::bad("an-erasable-entry-unstated", about, &[18]);
    vector
        .error("feature_unstated", forge.blocks[0].offset)
        .raw(forge.bytes)
}

/// A second chunk with these flags behind a first that is as the file says.
fn flagged(name: &str, about: &'static str, incompat: u64, flags: u8) -> Vector {
    let mut forge = Forge::new(Seg {
        incompat,
        ..seg(name)
    });
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = Stream::new(&forge.seg, &alice, "vault", 1);
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(1));
    let text = stream.text(rtp(2));
    let draft = Draft {
        flags,
        ..forge.chunk_draft(&stream, &text)
    };
    let at = forge.push_chunk(&mut stream, text, draft);
    Vector::bad(name, about, &[18])
        .raw(forge.bytes)
        .error("feature_unstated", at)
}

fn a_hashed_chunk_unstated() -> Vector {
    let about = "a hashed CHUNK in a file without STRONG_LEAF";
    flagged("a-hashed-chunk-unstated", about, 0, CRITICAL | HASHED)
}

fn a_plain_chunk_under_strong_leaf() -> Vector {
    let about = "a CHUNK of the file's own that is not hashed, in a file with STRONG_LEAF";
    flagged("a-plain-chunk-under-strong-leaf", about, STRONG_LEAF, CRITICAL)
}

fn a_hashed_guest_unstated() -> Vector {
    let name = "a-hashed-guest-unstated";
    let (from, _) = strong("a-hashed-guest-unstated, from");
    let mut forge = Forge::new(seg(name));
    let offsets: Vec<u64> = from.blocks.iter().map(|block| block.offset).collect();
    forge.relocate(&from, &offsets);
    let at = forge.blocks[3].offset;
    let about = "relocated chunks are hashed, and the file does not say so";
    Vector::bad(name, about, &[18])
        .raw(forge.bytes)
        .error("feature_unstated", at)
}

fn entries_disagree_on_erasable() -> Vector {
    let name = "entries-disagree-on-erasable";
    let mut forge = Forge::new(Seg {
        incompat: ERASABLE,
        ..seg(name)
    });
    let slot = Slot::erasable(&forge.seg, 0, &[ALICE, RECOVERY]);
    let mut entries: Vec<Entry> = slot.entries(&forge.seg);
    entries[1].flags = 0;
    let at = forge.key(&entries);
    let about = "one entry of a slot is erasable, the other is not";
    Vector::bad(name, about, &[21])
        .raw(forge.bytes)
        .error("recipients", at)
}

fn another_hash() -> Vector {
    let (mut forge, _) = strong("another-hash");
    let at = forge.blocks[2].offset;
    forge.edit(at, |block| block[130] ^= 1);
    let about = "the hash in a CHUNK's extension is not its body's, with CRCs that fit";
    Vector::bad("another-hash", about, &[42])
        .raw(forge.bytes)
        .error("body_hash", at)
}

fn a_body_changed_under_its_crc_and_tag() -> Vector {
    let name = "a-body-changed-under-its-crc-and-tag";
    let (mut forge, stream) = strong(name);
    let at = forge.blocks[2].offset;
    let before = forge.block(at)[..160].to_vec();
    forge.damage(at, super::sealed::change_under_the_crc);
    assert_eq!(forge.block(at)[..160], before);
    let about =
        "header, CRCs, leaf and root are what they were: without STRONG_LEAF only the customer would find it";
    let vector = Vector::bad(name, about, &[42, 41]).raw(forge.bytes);
    vector.streams(&[&stream.without(0)]).error("body_hash", at)
}

fn a_hashed_chunk_without_room() -> Vector {
    let name = "a-hashed-chunk-without-room";
    let (mut forge, _, chunk) = closed(name);
    forge.edit(chunk, |block| block[5] |= HASHED);
    let about = "flag hashed, and header_len is 128";
    Vector::bad(name, about, &[10])
        .raw(forge.bytes)
        .broken("field", chunk)
}

fn a_wrong_release() -> Vector {
    let name = "a-wrong-release";
    let (forge, slot, mut stream) = erasable(name, ERASABLE, &[CAROL]);
    let at = forge.blocks[1].offset;
    let mut wrong = slot.clone();
    wrong.e.as_mut().expect("the slot is erasable")[0] ^= 1;
    stream.readers.clear();
    let about = "an E that is not the slot's: the commitment differs, and nothing opens";
    let vector = Vector::bad(name, about, &[38, 41])
        .identity(CAROL)
        .release(&forge.seg, &wrong);
    vector
        .raw(forge.bytes)
        .streams(&[&stream])
        .error("commitment", at)
}

/// Alice's closed segment with its chunks erased; where they stand.
fn erased(name: &str) -> (Forge, Stream, Vec<u64>) {
    let (mut forge, mut stream) = two_chunks(name);
    forge.close();
    let places = erase_all(&mut forge, &mut stream);
    (forge, stream, places)
}

fn erased_unstated() -> Vector {
    let (forge, stream, places) = erased("erased-unstated");
    let about = "bodies are zeros, and no TOMBSTONE says that they may be";
    let vector = Vector::bad("erased-unstated", about, &[26, 36]).raw(forge.bytes);
    vector.streams(&[&stream]).error("erased_unstated", places[0])
}

/// The same, beside a next segment that says something else.
fn beside(name: &str, about: &'static str, musts: &[u32], later: impl FnOnce(&Forge) -> Forge) -> Vector {
    let (forge, _, places) = erased(name);
    let later = later(&forge);
    let vector = Vector::bad(name, about, musts).raw(forge.bytes).raw(later.bytes);
    vector.error_in(1, "erased_unstated", None, places[0])
}

fn erased_and_stated_by_nobody() -> Vector {
    let about = "the TOMBSTONE(erased) has a signature that is not the node's";
    beside("erased-and-stated-by-nobody", about, &[35, 36], |forge| {
        let mut later = Forge::new(forge.seg.next());
        let stone = later.tombstone(ERASED, &[forge.grave(0)]);
        later.edit(stone, |block| block[128 + 79] ^= 1);
        later.close_with(|footer| footer.prev_root = forge.root());
        later
    })
}

fn erased_and_another_slot_stated() -> Vector {
    let about = "the TOMBSTONE(erased) speaks of slot 1, erased is slot 0";
    beside("erased-and-another-slot-stated", about, &[36], |forge| {
        says_erased(forge, 1)
    })
}

fn erased_and_stated_by_another_node() -> Vector {
    let about = "another node speaks of a segment that is not its own";
    beside("erased-and-stated-by-another-node", about, &[35, 36], |forge| {
        let elsewhere = Seg {
            node: OTHER_NODE,
            ..seg("erased-and-stated-by-another-node, elsewhere")
        };
        let mut later = Forge::new(elsewhere);
        later.tombstone(ERASED, &[forge.grave(0)]);
        later.close();
        later
    })
}

fn erased_in_part() -> Vector {
    let (mut forge, _, chunk) = closed("erased-in-part");
    forge.damage(chunk, |block| block[128..200].fill(0));
    let about = "the first bytes of a body are zeros, the others are not: that is no erasure";
    Vector::bad("erased-in-part", about, &[10, 26])
        .raw(forge.bytes)
        .broken("body_crc", chunk)
}

fn a_stream_of_a_compacted_files_own() -> Vector {
    let name = "a-stream-of-a-compacted-files-own";
    let mut forge = Forge::new(Seg {
        compat: 1,
        ..seg(name)
    });
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    let at = forge.stream(&stream);
    forge.chunk(&mut stream, rtp(1));
    forge.close();
    let about = "an object that was gathered holds nothing sealed of its own";
    Vector::bad(name, about, &[47])
        .raw(forge.bytes)
        .error("misplaced_block", at)
}
