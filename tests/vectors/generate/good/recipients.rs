//! KEY entries: who can open what, and how they find it.

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, rtp, seg};
use super::super::keys::{ALICE, BOB, CAROL, Entry, GRACE, MALLORY, Person, RECOVERY, Slot};

pub fn all() -> Vec<Vector> {
    vec![
        several_customers(),
        two_recipients_of_one_slot(),
        recipients_over_two_key_blocks(),
        one_recovery_key_for_two_slots(),
        a_p256_customer(),
        mixed_kems_in_one_slot(),
        mixed_kems_in_one_block(),
        a_standing_grant(),
        two_standing_grants(),
        a_grant_without_its_stream(),
        a_key_block_for_a_later_customer(),
        an_unknown_kem(),
        an_unknown_kdf_and_aead(),
        an_unknown_scope(),
        a_longer_entry(),
        nobody_here(),
    ]
}

/// A segment with one slot for `people`, a camera and two chunks.
fn for_people(
    name: &str,
    people: &[Person],
    entries: impl FnOnce(&Slot, &Forge) -> Vec<Vec<Entry>>,
) -> (Forge, Stream) {
    let mut forge = Forge::new(seg(name));
    let slot = Slot::new(&forge.seg, 2, people);
    for entries in entries(&slot, &forge) {
        forge.key(&entries);
    }
    let mut stream = Stream::new(&forge.seg, &slot, "hall", 11);
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(2));
    forge.sync();
    forge.chunk(&mut stream, rtp(1));
    (forge, stream)
}

fn together(slot: &Slot, forge: &Forge) -> Vec<Vec<Entry>> {
    vec![slot.entries(&forge.seg)]
}

fn several_customers() -> Vector {
    let mut forge = Forge::new(seg("several-customers"));
    let people = [CAROL, ALICE, GRACE, BOB, RECOVERY];
    let numbers = [3, 0, 4, 1, 2];
    let slot = |(number, person): (&u32, &Person)| Slot::new(&forge.seg, *number, &[*person]);
    let slots: Vec<Slot> = numbers.iter().zip(&people).map(slot).collect();
    forge.slots(&slots.iter().collect::<Vec<_>>());
    let mut streams: Vec<Stream> = Vec::new();
    for slot in &slots[..4] {
        let stream = Stream::new(&forge.seg, slot, &format!("camera {}", slot.number), slot.number);
        forge.stream(&stream);
        streams.push(stream);
    }
    for stream in &mut streams {
        forge.chunk(stream, rtp(stream.slot + 1));
    }
    forge.close();
    let about = "five customers in one KEY block of 8 KiB, in the order of nothing; one has no stream";
    Vector::good("several-customers", about, &[19])
        .file(forge)
        .streams(&streams.iter().collect::<Vec<_>>())
}

fn two_recipients_of_one_slot() -> Vector {
    let name = "two-recipients-of-one-slot";
    let (forge, stream) = for_people(name, &[ALICE, RECOVERY], together);
    let about = "the customer and a recovery key: both open the slot, and the entries say that they are two";
    Vector::good(name, about, &[20, 22])
        .file(forge)
        .streams(&[&stream])
}

fn recipients_over_two_key_blocks() -> Vector {
    let name = "recipients-over-two-key-blocks";
    let (forge, stream) = for_people(name, &[ALICE, RECOVERY, BOB], |slot, forge| {
        let [first, second, third] = &slot.entries(&forge.seg)[..] else {
            panic!("three people have three entries")
        };
        let other = Slot::new(&forge.seg, 0, &[GRACE]).entries(&forge.seg);
        vec![
            vec![third.clone(), other[0].clone(), first.clone()],
            vec![second.clone()],
        ]
    });
    let about = "three recipients in two KEY blocks, not in order and not side by side";
    Vector::good(name, about, &[19, 20, 22])
        .file(forge)
        .streams(&[&stream])
}

fn one_recovery_key_for_two_slots() -> Vector {
    let name = "one-recovery-key-for-two-slots";
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 5, &[ALICE, RECOVERY]);
    let bob = Slot::new(&forge.seg, 3, &[BOB, RECOVERY]);
    forge.slots(&[&bob, &alice]);
    let mut hers = Stream::new(&forge.seg, &alice, "shop", 1);
    let mut his = Stream::new(&forge.seg, &bob, "barn", 2);
    forge.stream(&hers);
    forge.chunk(&mut hers, rtp(1));
    forge.stream(&his);
    forge.chunk(&mut his, rtp(2));
    let about = "two customers named one recovery key: it opens both slots, which have a hint each";
    Vector::good(name, about, &[20, 39])
        .file(forge)
        .streams(&[&hers, &his])
}

fn a_p256_customer() -> Vector {
    let (forge, stream) = for_people("a-p256-customer", &[CAROL], together);
    let about = "an entry of 208 bytes: DHKEM(P-256, HKDF-SHA256)";
    Vector::good("a-p256-customer", about, &[37])
        .file(forge)
        .streams(&[&stream])
}

fn mixed_kems_in_one_slot() -> Vector {
    let name = "mixed-kems-in-one-slot";
    let (forge, stream) = for_people(name, &[CAROL, RECOVERY], together);
    let about = "a P-256 customer with an X-Wing recovery key";
    Vector::good(name, about, &[20]).file(forge).streams(&[&stream])
}

fn mixed_kems_in_one_block() -> Vector {
    let mut forge = Forge::new(seg("mixed-kems-in-one-block"));
    let carol = Slot::new(&forge.seg, 0, &[CAROL]);
    let alice = Slot::new(&forge.seg, 1, &[ALICE]);
    forge.slots(&[&alice, &carol]);
    let mut hers = Stream::new(&forge.seg, &alice, "lift", 1);
    let mut carols = Stream::new(&forge.seg, &carol, "lift", 1);
    forge.stream(&carols);
    forge.stream(&hers);
    forge.chunk(&mut carols, rtp(1));
    forge.chunk(&mut hers, rtp(2));
    let about = "entries of 1,256 and 208 bytes side by side";
    Vector::good("mixed-kems-in-one-block", about, &[])
        .file(forge)
        .streams(&[&hers, &carols])
}

/// Alice's two cameras; grants are for the first.
fn granted(name: &str, people: &[Person]) -> Vector {
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let mut shared = Stream::new(&forge.seg, &alice, "car park", 21);
    let mut private = Stream::new(&forge.seg, &alice, "office", 22);
    let mut entries = alice.entries(&forge.seg);
    for (i, person) in people.iter().enumerate() {
        entries.insert(
            0,
            alice.grant(&forge.seg, &shared.id, person, i as u8, people.len() as u8),
        );
        shared.readers.push(person.name);
    }
    forge.key(&entries);
    forge.stream(&shared);
    forge.stream(&private);
    forge.chunk(&mut shared, rtp(3));
    forge.chunk(&mut private, rtp(1));
    forge.chunk(&mut shared, rtp(1));
    let about = "scope 1: K_st of one camera, and nothing of the other";
    Vector::good(name, about, &[20, 38])
        .file(forge)
        .streams(&[&shared, &private])
}

fn a_standing_grant() -> Vector {
    granted("a-standing-grant", &[GRACE])
}

fn two_standing_grants() -> Vector {
    granted("two-standing-grants", &[CAROL, GRACE])
}

fn a_grant_without_its_stream() -> Vector {
    let name = "a-grant-without-its-stream";
    let (forge, stream) = for_people(name, &[ALICE], |slot, forge| {
        let mut entries = slot.entries(&forge.seg);
        entries.push(slot.grant(&forge.seg, &[0x77; 16], &GRACE, 0, 1));
        vec![entries]
    });
    let about = "a grant for a stream of which nothing came";
    Vector::good(name, about, &[]).file(forge).streams(&[&stream])
}

fn a_key_block_for_a_later_customer() -> Vector {
    let name = "a-key-block-for-a-later-customer";
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut hers = Stream::new(&forge.seg, &alice, "gate", 1);
    forge.stream(&hers);
    forge.chunk(&mut hers, rtp(2));
    let bob = Slot::new(&forge.seg, 1, &[BOB]);
    forge.slots(&[&bob]);
    let mut his = Stream::new(&forge.seg, &bob, "gate", 1);
    forge.stream(&his);
    forge.chunk(&mut his, rtp(2));
    forge.chunk(&mut hers, rtp(2));
    let about = "a second KEY block in the middle of the file, before the first STREAM that needs it";
    Vector::good(name, about, &[6, 22])
        .file(forge)
        .streams(&[&hers, &his])
}

/// Alice's entry, and before it one that `change` made into something of a later version.
fn beside_an_unknown(name: &str, change: impl FnOnce(&mut Entry)) -> (Forge, Stream) {
    for_people(name, &[ALICE], |slot, forge| {
        let mut unknown = Slot::new(&forge.seg, 9, &[BOB]).entries(&forge.seg);
        change(&mut unknown[0]);
        vec![[unknown, slot.entries(&forge.seg)].concat()]
    })
}

fn an_unknown_kem() -> Vector {
    let (forge, stream) = beside_an_unknown("an-unknown-kem", |entry| {
        (entry.kem, entry.enc) = (0x0042, vec![0xAB; 1568]);
    });
    let about = "an entry of a KEM that nobody knows is skipped, the next one opens";
    Vector::good("an-unknown-kem", about, &[44])
        .file(forge)
        .streams(&[&stream])
}

fn an_unknown_kdf_and_aead() -> Vector {
    let (forge, stream) = beside_an_unknown("an-unknown-kdf-and-aead", |entry| {
        (entry.kdf, entry.aead) = (3, 3);
    });
    let about = "SHA-512 and ChaCha20-Poly1305 are not in version 1.0: skipped";
    Vector::good("an-unknown-kdf-and-aead", about, &[44])
        .file(forge)
        .streams(&[&stream])
}

fn an_unknown_scope() -> Vector {
    let (forge, stream) = beside_an_unknown("an-unknown-scope", |entry| entry.scope = 7);
    let about = "an entry of an unknown scope is skipped";
    Vector::good("an-unknown-scope", about, &[44])
        .file(forge)
        .streams(&[&stream])
}

fn a_longer_entry() -> Vector {
    let (forge, stream) = for_people("a-longer-entry", &[ALICE, BOB], |slot, forge| {
        let mut entries = slot.entries(&forge.seg);
        entries[0].entry_len = Some(1256 + 16);
        vec![entries]
    });
    let about = "zeros behind an entry's ct, up to entry_len";
    Vector::good("a-longer-entry", about, &[15])
        .file(forge)
        .streams(&[&stream])
}

fn nobody_here() -> Vector {
    let (forge, stream) = for_people("for-one-who-is-not-asked", &[MALLORY], together);
    let about = "all customers but one find nothing: no entry opens, and not a byte comes out";
    Vector::good("for-one-who-is-not-asked", about, &[37, 41])
        .file(forge)
        .streams(&[&stream])
}
