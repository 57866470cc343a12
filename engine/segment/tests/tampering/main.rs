//! Tampering with a sealed segment: everything that somebody with the disk and without the node's key can do to it is found, without
//! a customer's key, and named: what it is, and where.
//!
//! Each test prints its lines of a table: the manipulation, how often it was tried, how often it was found, and under which names
//! (docs/FORMAT.md §13). To see it: `cargo test --release -p harborseal-segment --test tampering -- --nocapture --test-threads 1 | grep -o '| .* |'`.

#[path = "../common/mod.rs"]
mod common;

mod chained;
mod flips;
mod forged;
mod forger;
mod lab;
mod moved;

use lab::{Lab, Seen};

#[test]
fn the_victim_is_whole_and_has_every_kind_of_block() {
    use harborseal_segment::BlockType::*;
    let lab = Lab::new();
    let seen = lab.look(&lab.file);
    let Seen::Judged {
        damage,
        between,
        notes,
        ..
    } = &seen
    else {
        panic!("{seen:?}");
    };
    assert!(
        damage.is_empty() && between.is_empty() && notes.is_empty(),
        "{seen:?}"
    );
    for kind in [
        Segment, Key, Stream, Chunk, Checkpoint, Origin, Index, Footer, Tombstone,
    ] {
        assert!(lab.of(kind).count() > 0, "{}", kind.name());
    }
    for customer in [common::alice(), common::bob()] {
        let (streams, damage) = lab::look_as(customer, &lab.file);
        assert!(!streams.is_empty() && damage.is_empty(), "{damage:?}");
    }
}
