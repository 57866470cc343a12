//! Several segments together: what they say of each other.

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, rtp, seg};
use super::super::keys::{ALICE, BOB, Ratchet, Slot, secret};
use super::super::wire::*;

pub fn all() -> Vec<Vector> {
    vec![
        three_in_a_chain(),
        a_customer_who_is_away_for_one(),
        registered_again(),
        a_new_run(),
        a_head_without_a_footer(),
        two_shards(),
        deleted_by_policy(),
        deleted_between_two(),
        closed_anew_by_recovery(),
        unused_beside_its_place(),
    ]
}

/// A closed segment of alice's front door; the watermark is at its end.
fn link(seg: Seg, stream: Option<&Stream>, prev: Option<&Forge>) -> (Forge, Stream) {
    let (mut forge, stream) = open_link(seg, stream, prev);
    forge.close_with(|footer| footer.prev_root = prev.map_or([0; 32], Forge::root));
    (forge, stream)
}

/// The same, and not closed.
fn open_link(seg: Seg, before: Option<&Stream>, prev: Option<&Forge>) -> (Forge, Stream) {
    let mut forge = Forge::new(seg);
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = match before {
        Some(before) => before.goes_on(&forge.seg, &alice),
        None => Stream::new(&forge.seg, &alice, "front-door", 1),
    };
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(2));
    forge.sync();
    forge.checkpoint(|body| body.prev_root = prev.map(Forge::root));
    (forge, stream)
}

fn three(name: &str) -> [(Forge, Stream); 3] {
    let first = link(seg(name), None, None);
    let second = link(first.0.seg.next(), Some(&first.1), Some(&first.0));
    let third = link(second.0.seg.next(), Some(&second.1), Some(&second.0));
    [first, second, third]
}

fn three_in_a_chain() -> Vector {
    let [(a, s), (b, t), (c, u)] = three("three-in-a-chain");
    let about = "prev_segment_id, chain_seq, prev_root, hints and chunks_so_far go on over three segments";
    let vector = Vector::good("three-in-a-chain", about, &[13, 39]).identity(ALICE);
    vector.file(a).file(b).file(c).streams(&[&s, &t, &u])
}

fn a_customer_who_is_away_for_one() -> Vector {
    let name = "a-customer-who-is-away-for-one";
    let first = link(seg(name), None, None);
    let mut second = Forge::new(first.0.seg.next());
    let bob = Slot::new(&second.seg, 0, &[BOB]);
    second.slots(&[&bob]);
    let mut his = Stream::new(&second.seg, &bob, "gate", 3);
    second.stream(&his);
    second.chunk(&mut his, rtp(1));
    second.close_with(|footer| footer.prev_root = first.0.root());
    let third = link(second.seg.next(), Some(&first.1), Some(&second));
    let about = "alice has nothing in the second segment; her hint in the third was turned twice";
    let vector = Vector::good(name, about, &[39]).identity(ALICE);
    vector
        .file(first.0)
        .file(second)
        .file(third.0)
        .streams(&[&first.1, &his, &third.1])
}

fn registered_again() -> Vector {
    let first = link(seg("registered-again"), None, None);
    let mut second = Forge::new(first.0.seg.next());
    let mut alice = Slot::new(&second.seg, 6, &[ALICE]);
    alice.hint = Ratchet(secret("H of alice, registered again"));
    second.slots(&[&alice]);
    let mut stream = Stream::new(&second.seg, &alice, "front-door", 1);
    second.stream(&stream);
    second.chunk(&mut stream, rtp(2));
    second.close_with(|footer| footer.prev_root = first.0.root());
    let third_seg = second.seg.next();
    let mut third = Forge::new(third_seg);
    let mut again = Slot::new(&third.seg, 1, &[ALICE]);
    again.hint = Ratchet(alice.hint.0).turned();
    third.slots(&[&again]);
    let mut last = stream.goes_on(&third.seg, &again);
    third.stream(&last);
    third.chunk(&mut last, rtp(1));
    third.close_with(|footer| footer.prev_root = second.root());
    let about =
        "removed and registered again in mid-chain: H begins anew, no hint fits, every entry is tried";
    let vector = Vector::good("registered-again", about, &[39]);
    vector
        .file(first.0)
        .file(second)
        .file(third)
        .streams(&[&first.1, &stream, &last])
}

fn a_new_run() -> Vector {
    let first = link(seg("a-new-run"), None, None);
    let (mut second, t) = open_link(first.0.seg.later_run(2), None, None);
    let head = first.0.head();
    second.checkpoint(|body| body.heads = vec![head]);
    second.close();
    let about = "a new run: chain_seq 0, a new H, and the last segment of the run before named as a head";
    let vector = Vector::good("a-new-run", about, &[39]).identity(ALICE);
    vector.file(first.0).file(second).streams(&[&first.1, &t])
}

fn a_head_without_a_footer() -> Vector {
    let name = "a-head-without-a-footer";
    let (mut first, s) = open_link(seg(name), None, None);
    let checkpoint = first.blocks.last().expect("a link ends with a checkpoint").offset as usize;
    let stated = Head {
        flags: 0,
        leaf_count: first.leaves().len() as u64 - 1,
        root: first.bytes[checkpoint + 128 + 16..][..32]
            .try_into()
            .expect("a root has 32 bytes"),
        ..first.head()
    };
    first.recover(true, stated.leaf_count);
    let (mut second, t) = open_link(first.seg.later_run(1), None, None);
    second.checkpoint(|body| body.heads = vec![stated]);
    second.close();
    let about =
        "the run before ended in a crash: the head is its last CHECKPOINT, and recovery closed it since";
    let vector = Vector::good(name, about, &[]).file(first).file(second);
    vector.streams(&[&s, &t])
}

fn two_shards() -> Vector {
    let first = link(seg("two-shards"), None, None);
    let other = Seg {
        shard: 1,
        label: "two-shards, shard 1/1".into(),
        id: [0x31; 16],
        ..first.0.seg.clone()
    };
    let second = link(other, None, None);
    let about = "one run, two chains: each shard has an H and a stream of its own";
    Vector::good("two-shards", about, &[])
        .file(first.0)
        .file(second.0)
        .streams(&[&first.1, &second.1])
}

fn deleted_by_policy() -> Vector {
    let [(a, _), (b, t), _] = three("deleted-by-policy");
    let (mut c, u) = open_link(b.seg.next(), Some(&t), Some(&b));
    let grave = a.grave(1);
    c.tombstone(DELETED, &[grave]);
    c.close_with(|footer| footer.prev_root = b.root());
    let about = "the first segment grew too old: a signed TOMBSTONE in the third names it";
    let vector = Vector::good("deleted-by-policy", about, &[35])
        .file(b)
        .file(c)
        .streams(&[&t, &u]);
    vector.note_in(1, "segments_deleted", 0)
}

fn deleted_between_two() -> Vector {
    let [(a, s), (b, t), _] = three("deleted-between-two");
    let (mut c, u) = open_link(b.seg.next(), Some(&t), Some(&b));
    let graves = [
        b.grave(3),
        Grave {
            segment_id: [0x99; 16],
            run_id: [0x98; 16],
            ..b.grave(2)
        },
    ];
    c.tombstone(DELETED, &graves);
    c.close_with(|footer| footer.prev_root = b.root());
    let about = "two entries in one TOMBSTONE, one of them for the segment between the two that are here";
    let vector = Vector::good("deleted-between-two", about, &[35])
        .file(a)
        .file(c)
        .streams(&[&s, &u]);
    vector.note_in(2, "segments_deleted", 0)
}

fn closed_anew_by_recovery() -> Vector {
    let (mut a, s) = open_link(seg("closed-anew-by-recovery"), None, None);
    let sealed = {
        let mut sealed = a.clone();
        sealed.close();
        sealed
    };
    let (b, t) = link(a.seg.next(), Some(&s), Some(&sealed));
    // Something was lost in between, so the root differs.
    let lost = a.draft(
        TOMBSTONE,
        tombstone_body(LOST, a.seg.created_s + 900, &[], &a.seg.node, &a.seg.id),
    );
    let lost = a.push(lost);
    a.recover(true, a.leaves().len() as u64 - 2);
    let about =
        "the root that the next segment names is not the one now: the node closed it anew and signed that";
    let vector = Vector::good("closed-anew-by-recovery", about, &[33]);
    vector
        .file(a)
        .file(b)
        .streams(&[&s, &t])
        .note_in(1, "lost", lost)
        .note_in(1, "repaired_since", 0)
}

fn unused_beside_its_place() -> Vector {
    let first = link(seg("unused-beside-its-place"), None, None);
    let second = link(first.0.seg.next(), Some(&first.1), Some(&first.0));
    let spare = Seg {
        id: [0x32; 16],
        label: "unused-beside-its-place, spare/2".into(),
        ..first.0.seg.next()
    };
    let mut unused = Forge::new(spare);
    let alice = Slot::new(&unused.seg, 0, &[ALICE]);
    unused.slots(&[&alice]);
    unused.reserve(3 * 4096);
    let about = "a segment prepared for a place that another one took is no second claim to it";
    let vector = Vector::good("unused-beside-its-place", about, &[]);
    vector
        .file(first.0)
        .file(second.0)
        .file(unused)
        .streams(&[&first.1, &second.1])
}
