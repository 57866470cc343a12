//! Whole blocks whose bodies break their tables (docs/FORMAT.md §4): too short, or with counts and lengths that do not fit.

use super::super::expect::Vector;
use super::super::forge::{Forge, rtp, seg};
use super::super::keys::{ALICE, Entry, Slot, key_body};
use super::super::wire::*;
use super::{checked, one_camera};

pub fn all() -> Vec<Vector> {
    vec![
        more_key_entries_than_there_are(),
        a_key_entry_longer_than_the_body(),
        a_key_entry_shorter_than_its_parts(),
        a_key_entry_of_odd_length(),
        a_key_body_of_7_bytes(),
        a_ct_of_112_bytes(),
        an_enc_of_64_bytes(),
        a_short_checkpoint(),
        more_heads_than_there_are(),
        a_short_origin(),
        a_short_index(),
        rows_shorter_than_version_1(),
        more_rows_than_there_are(),
        a_short_tombstone(),
        more_entries_than_the_tombstone_has(),
        a_short_footer(),
    ]
}

/// A KEY block with one body that is not as it must be, and nothing that needs it.
fn key(name: &'static str, about: &'static str, change: impl FnOnce(&mut Entry, &mut Vec<u8>)) -> Vector {
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    let mut entries = alice.entries(&forge.seg);
    let mut cut = Vec::new();
    change(&mut entries[0], &mut cut);
    let body = if cut.is_empty() { key_body(&entries) } else { cut };
    let at = forge.push(forge.draft(KEY, body));
    forge.checkpoint(|_| {});
    Vector::bad(name, about, &[15])
        .raw(forge.bytes)
        .error("malformed_body", at)
}

fn more_key_entries_than_there_are() -> Vector {
    key(
        "more-key-entries-than-there-are",
        "count says two, one is there",
        |entry, body| {
            *body = key_body(std::slice::from_ref(entry));
            body[0] = 2;
        },
    )
}

fn a_key_entry_longer_than_the_body() -> Vector {
    let about = "entry_len reaches beyond body_len";
    key("a-key-entry-longer-than-the-body", about, |entry, body| {
        *body = key_body(std::slice::from_ref(entry));
        put(body, 8, &(1256_u16 + 8).to_le_bytes());
    })
}

fn a_key_entry_shorter_than_its_parts() -> Vector {
    let about = "entry_len is 8 less than head, enc and ct need";
    key("a-key-entry-shorter-than-its-parts", about, |entry, body| {
        *body = key_body(std::slice::from_ref(entry));
        put(body, 8, &(1256_u16 - 8).to_le_bytes());
    })
}

fn a_key_entry_of_odd_length() -> Vector {
    let about = "entry_len is no multiple of 8";
    key("a-key-entry-of-odd-length", about, |entry, body| {
        entry.entry_len = Some(1257);
        *body = key_body(std::slice::from_ref(entry));
    })
}

fn a_key_body_of_7_bytes() -> Vector {
    key(
        "a-key-body-of-7-bytes",
        "shorter than its count and reserved field",
        |_, body| {
            *body = vec![0; 7];
        },
    )
}

fn a_ct_of_112_bytes() -> Vector {
    let about = "an X-Wing entry whose ct is 32 bytes too long: it would open to another length";
    let mut vector = key("a-ct-of-112-bytes", about, |entry, _| entry.ct.extend([0x55; 32]));
    vector.musts.push("M37".into());
    vector
}

fn an_enc_of_64_bytes() -> Vector {
    let about = "an X-Wing entry with the enc of something else";
    key("an-enc-of-64-bytes", about, |entry, _| entry.enc.truncate(64))
}

/// One block with this body behind a whole CHECKPOINT.
fn one(name: &'static str, about: &'static str, kind: u8, body: impl FnOnce(&Forge) -> Vec<u8>) -> Vector {
    let (mut forge, _) = checked(name);
    let at = forge.push(forge.draft(kind, body(&forge)));
    Vector::bad(name, about, &[15])
        .raw(forge.bytes)
        .error("malformed_body", at)
}

fn checkpoint_of(forge: &Forge) -> Vec<u8> {
    forge.checkpoint_body().body(&forge.seg.node, &forge.seg.id)
}

fn a_short_checkpoint() -> Vector {
    one(
        "a-short-checkpoint",
        "cut inside its signature",
        CHECKPOINT,
        |forge| checkpoint_of(forge)[..159].to_vec(),
    )
}

fn more_heads_than_there_are() -> Vector {
    one(
        "more-heads-than-there-are",
        "head_count is 2^32 − 1",
        CHECKPOINT,
        |forge| {
            let mut body = checkpoint_of(forge);
            put(&mut body, 92, &[0xFF; 4]);
            body
        },
    )
}

fn a_short_origin() -> Vector {
    one("a-short-origin", "79 of 80 bytes", ORIGIN, |_| {
        origin_body(&seg("somewhere"), 1, 9)[..79].to_vec()
    })
}

fn a_short_index() -> Vector {
    one("a-short-index", "15 of 16 bytes", INDEX, |_| vec![1; 15])
}

fn rows_shorter_than_version_1() -> Vector {
    let about = "row_len 40 for chunk rows of 48 bytes";
    one("rows-shorter-than-version-1", about, INDEX, |_| {
        index_body(1, 40, 0, &[vec![0; 40]])
    })
}

fn more_rows_than_there_are() -> Vector {
    one(
        "more-rows-than-there-are",
        "row_count says a thousand",
        INDEX,
        |_| {
            let mut body = index_body(3, 24, 0, &[vec![0; 24]]);
            put(&mut body, 8, &1000_u32.to_le_bytes());
            body
        },
    )
}

fn a_short_tombstone() -> Vector {
    one("a-short-tombstone", "79 of 80 bytes", TOMBSTONE, |forge| {
        tombstone_body(LOST, 1, &[], &forge.seg.node, &forge.seg.id)[..79].to_vec()
    })
}

fn more_entries_than_the_tombstone_has() -> Vector {
    let name = "more-entries-than-the-tombstone-has";
    one(name, "count says two, one is there", TOMBSTONE, |forge| {
        let graves = [forge.grave(1)];
        let mut body = tombstone_body(DELETED, 1, &graves, &forge.seg.node, &forge.seg.id);
        body[4] = 2;
        body
    })
}

fn a_short_footer() -> Vector {
    let (mut forge, mut stream) = one_camera("a-short-footer");
    forge.chunk(&mut stream, rtp(1));
    let footer = forge.tables(SEALED | SIGNED);
    let mut draft = forge.footer_draft(&footer);
    draft.body.truncate(247);
    let at = forge.push(draft);
    assert_eq!(at + 4096, forge.end());
    let about = "247 of 248 bytes, at the end of the file";
    Vector::bad("a-short-footer", about, &[15])
        .raw(forge.bytes)
        .error("malformed_body", at)
}
