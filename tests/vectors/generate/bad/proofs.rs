//! Roots, signatures, figures and tables that are not what the blocks before them give (docs/FORMAT.md §4.5 to §4.9, §6).

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, rtp};
use super::super::keys::{ALICE, OTHER_NODE, Slot};
use super::super::tables::Tables;
use super::super::wire::*;
use super::{one_camera, two_chunks};

pub fn all() -> Vec<Vector> {
    let mut all = figures();
    all.extend([
        a_checkpoint_counts_wrongly(),
        a_checkpoint_of_another_root(),
        a_checkpoint_signature_flipped(),
        a_checkpoint_of_another_node(),
        a_checkpoint_of_another_segment(),
        a_key_block_changed(),
        key_entries_exchanged(),
        a_chunk_header_changed(),
        a_head_changed_after_signing(),
        a_deletion_that_nobody_signed(),
        a_tombstone_of_another_segment(),
        a_footer_of_another_root(),
        a_footer_counts_wrongly(),
        a_footer_signature_flipped(),
        a_sealed_footer_without_a_signature(),
        a_footer_of_another_node(),
        a_footer_whose_header_says_more(),
        a_footer_longer_than_its_table(),
        a_chunk_row_that_leads_elsewhere(),
        a_chunk_row_missing(),
        a_stream_row_of_another_slot(),
        a_key_row_missing(),
        a_block_behind_the_footer(),
    ]);
    all
}

/// An open segment whose last block is a CHECKPOINT that was changed before it was signed.
fn checkpoint(name: &str, change: impl FnOnce(&mut Checkpoint)) -> (Forge, u64) {
    let (mut forge, _) = two_chunks(name);
    let at = forge.checkpoint(change);
    (forge, at)
}

fn a_checkpoint_counts_wrongly() -> Vector {
    let (forge, at) = checkpoint("a-checkpoint-counts-wrongly", |body| body.leaf_count -= 1);
    let about = "leaf_count is one less than there are";
    Vector::bad("a-checkpoint-counts-wrongly", about, &[27])
        .raw(forge.bytes)
        .error("leaf_count", at)
}

fn a_checkpoint_of_another_root() -> Vector {
    let (forge, at) = checkpoint("a-checkpoint-of-another-root", |body| body.root[31] ^= 1);
    let about = "signed, and of other leaves";
    Vector::bad("a-checkpoint-of-another-root", about, &[27])
        .raw(forge.bytes)
        .error("root", at)
}

fn a_checkpoint_signature_flipped() -> Vector {
    let (mut forge, at) = checkpoint("a-checkpoint-signature-flipped", |_| {});
    forge.edit(at, |block| block[128 + 96] ^= 1);
    let about = "one bit of the signature";
    Vector::bad("a-checkpoint-signature-flipped", about, &[27])
        .raw(forge.bytes)
        .error("signature", at)
}

fn a_checkpoint_of_another_node() -> Vector {
    let (mut forge, _) = two_chunks("a-checkpoint-of-another-node");
    let body = forge.checkpoint_body().body(&OTHER_NODE, &forge.seg.id);
    let at = forge.push(forge.draft(CHECKPOINT, body));
    let about = "signed with a key that is not the file's node's";
    Vector::bad("a-checkpoint-of-another-node", about, &[27])
        .raw(forge.bytes)
        .error("signature", at)
}

fn a_checkpoint_of_another_segment() -> Vector {
    let (mut forge, _) = two_chunks("a-checkpoint-of-another-segment");
    let body = forge.checkpoint_body().body(&forge.seg.node, &[9; 16]);
    let at = forge.push(forge.draft(CHECKPOINT, body));
    let about = "signed by the node, for another segment_id";
    Vector::bad("a-checkpoint-of-another-segment", about, &[27])
        .raw(forge.bytes)
        .error("signature", at)
}

/// A segment that somebody changed after the CHECKPOINT was signed; CRCs fit.
fn changed(name: &str, about: &'static str, musts: &[u32], change: impl FnOnce(&mut Forge)) -> Vector {
    let (mut forge, mut stream) = one_camera(name);
    forge.chunk(&mut stream, rtp(2));
    let at = forge.checkpoint(|_| {});
    change(&mut forge);
    Vector::bad(name, about, musts).raw(forge.bytes).error("root", at)
}

fn a_key_block_changed() -> Vector {
    let about = "one bit of an entry's ciphertext, with CRCs that fit: the next root tells";
    changed("a-key-block-changed", about, &[27], |forge| {
        forge.edit(8192, |block| block[1300] ^= 1)
    })
}

fn key_entries_exchanged() -> Vector {
    let (mut forge, _) = one_camera("key-entries-exchanged");
    let slots = [1, 2].map(|number| Slot::new(&forge.seg, number, &[ALICE]));
    let key = forge.slots(&[&slots[0], &slots[1]]);
    let at = forge.checkpoint(|_| {});
    forge.edit(key, |block| {
        let (first, second) = block[136..].split_at_mut(1256);
        first[56..1256].swap_with_slice(&mut second[56..1256]);
    });
    let about = "enc and ct of two entries in each other's place";
    Vector::bad("key-entries-exchanged", about, &[27])
        .raw(forge.bytes)
        .error("root", at)
}

fn a_chunk_header_changed() -> Vector {
    let about = "first_s of a CHUNK a day earlier, with CRCs that fit: without a key the root tells";
    changed("a-chunk-header-changed", about, &[27], |forge| {
        let chunk = forge.blocks[2].offset;
        forge.edit(chunk, |block| {
            let first_s = u32_at(block, 64) - 86_400;
            put(block, 64, &first_s.to_le_bytes());
        });
    })
}

fn a_head_changed_after_signing() -> Vector {
    let about = "created_s in both SEGMENT blocks: leaf 0";
    changed("a-head-changed-after-signing", about, &[4, 27], |forge| {
        for at in [0, 4096] {
            let block = &mut forge.bytes[at..at + 4096];
            block[128 + 88] ^= 1;
            recrc(block);
        }
    })
}

fn a_deletion_that_nobody_signed() -> Vector {
    let (mut forge, _) = two_chunks("a-deletion-that-nobody-signed");
    let grave = Grave {
        segment_id: [8; 16],
        ..forge.grave(1)
    };
    let at = forge.tombstone(DELETED, &[grave]);
    forge.edit(at, |block| block[128 + 16..128 + 80].fill(0));
    let about = "a TOMBSTONE(deleted) whose signature is zero";
    Vector::bad("a-deletion-that-nobody-signed", about, &[35])
        .raw(forge.bytes)
        .error("signature", at)
}

fn a_tombstone_of_another_segment() -> Vector {
    let (mut forge, _) = two_chunks("a-tombstone-of-another-segment");
    let grave = Grave {
        segment_id: [8; 16],
        ..forge.grave(1)
    };
    let body = tombstone_body(DELETED, 1, &[grave], &forge.seg.node, &[9; 16]);
    let at = forge.push(forge.draft(TOMBSTONE, body));
    let about = "the node's signature, for a block of another segment";
    Vector::bad("a-tombstone-of-another-segment", about, &[35])
        .raw(forge.bytes)
        .error("signature", at)
}

/// A closed segment whose FOOTER was changed before it was signed.
fn footer(name: &str, change: impl FnOnce(&mut Footer)) -> (Forge, u64) {
    let (mut forge, mut stream) = one_camera(name);
    forge.chunk(&mut stream, rtp(2));
    let at = forge.close_with(change);
    (forge, at)
}

fn a_footer_of_another_root() -> Vector {
    let (forge, at) = footer("a-footer-of-another-root", |footer| footer.root[0] ^= 1);
    Vector::bad("a-footer-of-another-root", "signed, and of other leaves", &[33])
        .raw(forge.bytes)
        .error("root", at)
}

fn a_footer_counts_wrongly() -> Vector {
    let (forge, at) = footer("a-footer-counts-wrongly", |footer| {
        footer.leaf_count += 1;
        footer.signed_leaf_count += 1;
    });
    let about = "leaf_count is one more than there are";
    Vector::bad("a-footer-counts-wrongly", about, &[33])
        .raw(forge.bytes)
        .error("leaf_count", at)
}

fn a_footer_signature_flipped() -> Vector {
    let (mut forge, at) = footer("a-footer-signature-flipped", |_| {});
    forge.edit(at, |block| block[128 + 247] ^= 0x10);
    let about = "one bit of the signature";
    Vector::bad("a-footer-signature-flipped", about, &[33])
        .raw(forge.bytes)
        .error("signature", at)
}

fn a_sealed_footer_without_a_signature() -> Vector {
    let name = "a-sealed-footer-without-a-signature";
    let (forge, at) = footer(name, |footer| footer.flags = SEALED);
    let about = "SEALED without SIGNED: somebody closed it anew, who has not the node's key";
    Vector::bad(name, about, &[32])
        .raw(forge.bytes)
        .error("signature", at)
}

fn a_footer_of_another_node() -> Vector {
    let (mut forge, mut stream) = one_camera("a-footer-of-another-node");
    forge.chunk(&mut stream, rtp(2));
    let footer = forge.tables(SEALED | SIGNED);
    let mut draft = forge.footer_draft(&footer);
    draft.body = footer.body(&OTHER_NODE, &forge.seg.id);
    let at = forge.push(draft);
    let about = "signed, with a key that is not the file's node's";
    Vector::bad("a-footer-of-another-node", about, &[33])
        .raw(forge.bytes)
        .error("signature", at)
}

fn a_footer_whose_header_says_more() -> Vector {
    let (mut forge, at) = footer("a-footer-whose-header-says-more", |_| {});
    forge.edit(at, |block| block[40] = 1);
    let about = "a stream_id in the FOOTER's header, which neither leaf nor signature covers";
    let vector = Vector::bad("a-footer-whose-header-says-more", about, &[34]).raw(forge.bytes);
    vector.error("malformed_body", at)
}

fn a_footer_longer_than_its_table() -> Vector {
    let (mut forge, at) = footer("a-footer-longer-than-its-table", |_| {});
    forge.edit(at, |block| {
        put(block, 12, &256_u32.to_le_bytes());
        block[128 + 250] = 1;
    });
    let about = "with minor 0 a FOOTER's body has 248 bytes: what is behind them nobody signed";
    let vector = Vector::bad("a-footer-longer-than-its-table", about, &[34]).raw(forge.bytes);
    vector.error("malformed_body", at)
}

/// FOOTERs with one figure that is not so, signed.
fn figures() -> Vec<Vector> {
    let case = |name: &str, about: &'static str, change: fn(&mut Footer)| {
        let (forge, at) = footer(name, change);
        Vector::bad(name, about, &[33])
            .raw(forge.bytes)
            .error("footer", at)
    };
    vec![
        case("a-footer-of-another-data-end", "data_end", |footer| {
            footer.data_end -= 4096
        }),
        case("a-footer-of-another-chunk-count", "chunk_count", |footer| {
            footer.chunk_count += 1
        }),
        case("a-footer-of-another-first-s", "first_s", |footer| {
            footer.first_s -= 1
        }),
        case("a-footer-of-another-last-s", "last_s", |footer| {
            footer.last_s += 1
        }),
        case("a-footer-of-another-index-place", "keys_offset", |footer| {
            footer.keys.0 -= 4096
        }),
        case(
            "a-footer-that-signs-less",
            "SEALED, and signed_leaf_count is not leaf_count",
            |footer| {
                footer.signed_leaf_count -= 1;
            },
        ),
    ]
}

/// A closed segment whose tables were changed; figures, root and signature are right.
fn table(name: &str, change: impl FnOnce(&mut Tables)) -> (Forge, Stream, u64) {
    let (mut forge, stream) = two_chunks(name);
    let (data_end, mut tables) = (forge.end(), Tables::of(&forge));
    change(&mut tables);
    let footer = forge.tables_of(SEALED | SIGNED, data_end, tables, 1000);
    let at = forge.footer(&footer);
    (forge, stream, at)
}

fn a_chunk_row_that_leads_elsewhere() -> Vector {
    let (forge, stream, _) = table("a-chunk-row-that-leads-elsewhere", |tables| {
        put(&mut tables.chunks[1], 0, &8192_u64.to_le_bytes());
    });
    let chunk = forge.blocks[3].offset;
    let about =
        "the row of the second chunk leads to the KEY block: readers scan instead, and get everything";
    let vector = Vector::bad("a-chunk-row-that-leads-elsewhere", about, &[31]).raw(forge.bytes);
    vector.streams(&[&stream]).error("index", chunk)
}

fn a_chunk_row_missing() -> Vector {
    let (forge, stream, _) = table("a-chunk-row-missing", |tables| _ = tables.chunks.remove(0));
    let chunk = forge.blocks[2].offset;
    let about = "the index hides a chunk; a scan finds it";
    let vector = Vector::bad("a-chunk-row-missing", about, &[31]).raw(forge.bytes);
    vector.streams(&[&stream]).error("index", chunk)
}

fn a_stream_row_of_another_slot() -> Vector {
    let (forge, _, at) = table("a-stream-row-of-another-slot", |tables| tables.streams[0][24] = 5);
    let about = "the slot in a stream row";
    Vector::bad("a-stream-row-of-another-slot", about, &[31])
        .raw(forge.bytes)
        .error("index", at)
}

fn a_key_row_missing() -> Vector {
    let (forge, _, at) = table("a-key-row-missing", |tables| tables.keys.clear());
    let about = "no key table, though there is a KEY block";
    Vector::bad("a-key-row-missing", about, &[31])
        .raw(forge.bytes)
        .error("index", at)
}

fn a_block_behind_the_footer() -> Vector {
    let (mut forge, mut stream) = two_chunks("a-block-behind-the-footer");
    forge.close();
    let at = forge.chunk(&mut stream, rtp(1));
    let about = "a CHUNK behind the FOOTER that closed the segment";
    Vector::bad("a-block-behind-the-footer", about, &[7])
        .raw(forge.bytes)
        .error("after_footer", at)
}
