//! ERASABLE, STRONG_LEAF, erased bodies.

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, rtp, seg};
use super::super::keys::{ALICE, BOB, CAROL, GRACE, Person, RECOVERY, Slot};
use super::super::wire::*;
use super::two_chunks;

pub fn all() -> Vec<Vector> {
    vec![
        strong_leaf(),
        strong_leaf_with_a_longer_extension(),
        a_plain_guest_under_strong_leaf(),
        a_hashed_guest(),
        erasable_and_released(),
        erasable_and_not_released(),
        erasable_for_some(),
        erasable_with_a_grant(),
        erasable_with_a_grant_and_not_released(),
        erasable_and_strong_leaf(),
        erased_and_stated(),
        erased_under_strong_leaf(),
        erased_in_a_copy(),
        erased_from_a_slot_that_is_not_erasable(),
    ]
}

/// A segment with these feature bits.
pub fn with_features(name: &str, incompat: u64) -> Forge {
    Forge::new(Seg {
        incompat,
        ..seg(name)
    })
}

/// A segment whose one slot is erasable; two chunks in it.
pub fn erasable(name: &str, incompat: u64, people: &[Person]) -> (Forge, Slot, Stream) {
    let mut forge = with_features(name, incompat);
    let slot = Slot::erasable(&forge.seg, 1, people);
    forge.slots(&[&slot]);
    let mut stream = Stream::new(&forge.seg, &slot, "ward", 31);
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(2));
    forge.sync();
    forge.chunk(&mut stream, rtp(1));
    (forge, slot, stream)
}

/// A segment with STRONG_LEAF and two chunks of alice's.
pub fn strong(name: &str) -> (Forge, Stream) {
    let mut forge = with_features(name, STRONG_LEAF);
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = Stream::new(&forge.seg, &alice, "vault", 1);
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(2));
    forge.sync();
    forge.chunk(&mut stream, rtp(3));
    (forge, stream)
}

fn strong_leaf() -> Vector {
    let (mut forge, stream) = strong("strong-leaf");
    forge.close();
    let about = "every CHUNK is hashed: its leaf holds the hash of its sealed body";
    Vector::good("strong-leaf", about, &[18, 42])
        .identity(ALICE)
        .file(forge)
        .streams(&[&stream])
}

fn strong_leaf_with_a_longer_extension() -> Vector {
    let name = "strong-leaf-with-a-longer-extension";
    let (mut forge, mut stream) = strong(name);
    let text = stream.text(rtp(1));
    let mut draft = forge.chunk_draft(&stream, &text);
    draft.extension.extend([0x21; 24]);
    forge.push_chunk(&mut stream, text, draft);
    forge.checkpoint(|_| {});
    let about =
        "behind the hash stands an extension of a later version, which is in the AAD as the hash is not";
    Vector::good(name, about, &[42, 44])
        .identity(ALICE)
        .file(forge)
        .streams(&[&stream])
}

fn a_plain_guest_under_strong_leaf() -> Vector {
    let name = "a-plain-guest-under-strong-leaf";
    let (from, guest) = two_chunks("a-plain-guest-under-strong-leaf, from");
    let (mut forge, stream) = strong(name);
    let offsets: Vec<u64> = from.blocks.iter().map(|block| block.offset).collect();
    forge.relocate(&from, &offsets);
    forge.close();
    let about = "the file's own chunks are hashed; those that come from elsewhere need not be";
    Vector::good(name, about, &[18, 42])
        .file(forge)
        .streams(&[&stream, &guest])
}

fn a_hashed_guest() -> Vector {
    let name = "a-hashed-guest";
    let (from, guest) = strong("a-hashed-guest, from");
    let mut forge = with_features(name, STRONG_LEAF);
    let offsets: Vec<u64> = from.blocks.iter().map(|block| block.offset).collect();
    forge.relocate(&from, &offsets);
    let about = "no chunk of its own: the bit says what its guests are";
    Vector::good(name, about, &[18, 42, 46])
        .file(forge)
        .streams(&[&guest])
}

fn erasable_and_released() -> Vector {
    let (mut forge, slot, stream) = erasable("erasable-and-released", ERASABLE, &[ALICE, RECOVERY]);
    forge.close();
    let about = "E is at hand: customer and recovery key open the slot";
    let vector = Vector::good("erasable-and-released", about, &[18, 21]).identity(ALICE);
    vector.release(&forge.seg, &slot).file(forge).streams(&[&stream])
}

fn erasable_and_not_released() -> Vector {
    let name = "erasable-and-not-released";
    let (forge, _, stream) = erasable(name, ERASABLE, &[CAROL]);
    let at = forge.blocks[1].offset;
    let about = "the KEY entry opens, and nothing else does without E";
    let vector = Vector::good(name, about, &[18, 41]).identity(CAROL).file(forge);
    vector.streams(&[&stream]).note("needs_release", at)
}

fn erasable_for_some() -> Vector {
    let (mut forge, _, hers) = erasable("erasable-for-some", ERASABLE, &[ALICE]);
    let bob = Slot::new(&forge.seg, 0, &[BOB]);
    forge.slots(&[&bob]);
    let mut his = Stream::new(&forge.seg, &bob, "ward", 31);
    forge.stream(&his);
    forge.chunk(&mut his, rtp(3));
    let about = "one slot is erasable and the other is not, in one file";
    Vector::good("erasable-for-some", about, &[18, 21])
        .identity(BOB)
        .file(forge)
        .streams(&[&hers, &his])
}

/// An erasable slot of alice's with two streams; grace holds a grant for the first. Where the first STREAM stands.
fn granted(name: &str) -> (Forge, Slot, [Stream; 2], u64) {
    let mut forge = with_features(name, ERASABLE);
    let slot = Slot::erasable(&forge.seg, 4, &[ALICE]);
    let mut shared = Stream::new(&forge.seg, &slot, "ward", 31);
    let mut private = Stream::new(&forge.seg, &slot, "office", 32);
    let mut entries = slot.entries(&forge.seg);
    entries.push(slot.grant(&forge.seg, &shared.id, &GRACE, 0, 1));
    shared.readers.push(GRACE.name);
    forge.key(&entries);
    let at = forge.stream(&shared);
    forge.stream(&private);
    forge.chunk(&mut shared, rtp(2));
    forge.chunk(&mut private, rtp(1));
    (forge, slot, [shared, private], at)
}

fn erasable_with_a_grant() -> Vector {
    let name = "erasable-with-a-grant";
    let (forge, slot, [shared, private], _) = granted(name);
    let about = "the grant holds K_st under a mask that E lifts";
    let vector = Vector::good(name, about, &[18, 38])
        .identity(GRACE)
        .release(&forge.seg, &slot);
    vector.file(forge).streams(&[&shared, &private])
}

fn erasable_with_a_grant_and_not_released() -> Vector {
    let name = "erasable-with-a-grant-and-not-released";
    let (forge, _, [shared, private], at) = granted(name);
    let about = "without E a standing grant is no way around the erasure";
    let vector = Vector::good(name, about, &[18, 41]).identity(GRACE).file(forge);
    vector.streams(&[&shared, &private]).note("needs_release", at)
}

fn erasable_and_strong_leaf() -> Vector {
    let name = "erasable-and-strong-leaf";
    let (mut forge, slot, stream) = erasable(name, ERASABLE | STRONG_LEAF, &[CAROL, RECOVERY]);
    forge.checkpoint(|_| {});
    let about = "both features, a P-256 customer and an X-Wing recovery key";
    let vector = Vector::good(name, about, &[18, 21, 42])
        .identity(CAROL)
        .release(&forge.seg, &slot);
    vector.file(forge).streams(&[&stream])
}

/// The segment after `forge`, which says that a slot of it was erased.
pub fn says_erased(forge: &Forge, slot: u32) -> Forge {
    let mut later = Forge::new(forge.seg.next());
    later.seg.incompat = 0;
    let mut later = Forge::new(later.seg);
    later.tombstone(ERASED, &[forge.grave(slot)]);
    later.close_with(|footer| footer.prev_root = forge.root());
    later
}

/// Erases all chunks of a stream; where they stand.
pub fn erase_all(forge: &mut Forge, stream: &mut Stream) -> Vec<u64> {
    let chunks = forge
        .blocks
        .iter()
        .filter(|block| block.kind == CHUNK && block.stream_id == stream.id);
    let offsets: Vec<u64> = chunks.map(|block| block.offset).collect();
    for offset in &offsets {
        forge.erase(*offset, stream);
    }
    offsets
}

fn erased_and_stated() -> Vector {
    let name = "erased-and-stated";
    let (mut forge, slot, mut stream) = erasable(name, ERASABLE, &[ALICE]);
    let bob = Slot::new(&forge.seg, 0, &[BOB]);
    forge.slots(&[&bob]);
    let mut his = Stream::new(&forge.seg, &bob, "gate", 2);
    forge.stream(&his);
    forge.chunk(&mut his, rtp(2));
    forge.close();
    let places = erase_all(&mut forge, &mut stream);
    let later = says_erased(&forge, slot.number);
    let about =
        "alice's bodies are gone and a TOMBSTONE of the next segment says so; roots hold, bob has all of his";
    let vector = Vector::good(name, about, &[26, 35, 36]).release(&forge.seg, &slot);
    let vector = vector.file(forge).file(later).streams(&[&stream, &his]);
    places
        .iter()
        .fold(vector, |vector, at| vector.note_in(1, "erased", *at))
}

fn erased_under_strong_leaf() -> Vector {
    let name = "erased-under-strong-leaf";
    let (mut forge, mut stream) = strong(name);
    forge.close();
    let places = erase_all(&mut forge, &mut stream);
    let later = says_erased(&forge, 0);
    let about = "the hash of a body that is gone is not checked, and stays in the leaf";
    let vector = Vector::good(name, about, &[26, 36, 42])
        .file(forge)
        .file(later)
        .streams(&[&stream]);
    places
        .iter()
        .fold(vector, |vector, at| vector.note_in(1, "erased", *at))
}

fn erased_in_a_copy() -> Vector {
    let name = "erased-in-a-copy";
    let (from, mut stream) = two_chunks("erased-in-a-copy, from");
    let mut forge = Forge::new(from.seg.next());
    let offsets: Vec<u64> = from.blocks.iter().map(|block| block.offset).collect();
    forge.relocate(&from, &offsets);
    forge.close();
    let places = erase_all(&mut forge, &mut stream);
    let mut later = Forge::new(forge.seg.next());
    later.tombstone(ERASED, &[from.grave(0)]);
    later.close_with(|footer| footer.prev_root = forge.root());
    let mut first = from;
    first.close();
    let about = "relocated chunks, erased: the TOMBSTONE names their origin, of which all was erased too";
    let mut again = stream.clone();
    let own = erase_all(&mut first, &mut again);
    let vector = Vector::good(name, about, &[26, 36])
        .file(first)
        .file(forge)
        .file(later)
        .streams(&[&stream]);
    let vector = own
        .iter()
        .fold(vector, |vector, at| vector.note_in(1, "erased", *at));
    places
        .iter()
        .fold(vector, |vector, at| vector.note_in(2, "erased", *at))
}

fn erased_from_a_slot_that_is_not_erasable() -> Vector {
    let name = "erased-from-a-slot-that-is-not-erasable";
    let (mut forge, mut stream) = two_chunks(name);
    forge.close();
    let places = erase_all(&mut forge, &mut stream);
    let later = says_erased(&forge, 0);
    let about = "bodies can be given back whether or not the slot has an E; with the customer's identity";
    let vector = Vector::good(name, about, &[26, 36])
        .identity(ALICE)
        .file(forge)
        .file(later);
    let vector = vector.streams(&[&stream]);
    places
        .iter()
        .fold(vector, |vector, at| vector.note_in(1, "erased", *at))
}
