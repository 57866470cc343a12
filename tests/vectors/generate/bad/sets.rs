//! Segments that do not fit together (docs/FORMAT.md §8). All that there should be are given.

use super::super::expect::Vector;
use super::super::forge::{Forge, Stream, rtp, seg};
use super::super::keys::{ALICE, OTHER_NODE, Slot};
use super::super::wire::*;

pub fn all() -> Vec<Vector> {
    vec![
        the_middle_one_missing(),
        the_first_one_missing(),
        deleted_without_a_signature(),
        another_one_before_it(),
        two_in_one_place(),
        another_node_in_the_chain(),
        closed_anew_by_a_stranger(),
        the_last_of_a_run_missing(),
        a_head_of_another_root(),
        the_end_of_a_segment_cut_off(),
        chunks_so_far_over_segments(),
    ]
}

/// A closed segment of nobody's: it is about links.
fn link(seg: Seg, before: Option<&Forge>) -> Forge {
    let mut forge = Forge::new(seg);
    close(&mut forge, before);
    forge
}

/// An open one with one chunk of alice's.
fn open_link(seg: Seg, before: Option<&Stream>) -> (Forge, Stream) {
    let mut forge = Forge::new(seg);
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let mut stream = match before {
        Some(before) => before.goes_on(&forge.seg, &alice),
        None => Stream::new(&forge.seg, &alice, "front-door", 1),
    };
    forge.stream(&stream);
    forge.chunk(&mut stream, rtp(2));
    (forge, stream)
}

fn close(forge: &mut Forge, before: Option<&Forge>) {
    forge.close_with(|footer| footer.prev_root = before.map_or([0; 32], Forge::root));
}

fn chain(name: &str, len: usize) -> Vec<Forge> {
    let mut chain: Vec<Forge> = Vec::new();
    for _ in 0..len {
        let next = link(
            chain.last().map_or(seg(name), |forge| forge.seg.next()),
            chain.last(),
        );
        chain.push(next);
    }
    chain
}

fn bad(name: &str, about: &'static str, musts: &[u32], files: Vec<Forge>) -> Vector {
    let vector = Vector::bad(name, about, musts);
    files
        .into_iter()
        .fold(vector, |vector, forge| vector.raw(forge.bytes))
}

fn the_middle_one_missing() -> Vector {
    let mut files = chain("the-middle-one-missing", 3);
    files.remove(1);
    let about = "the third names a second that is not there, and no TOMBSTONE does";
    bad("the-middle-one-missing", about, &[8], files).error_in(2, "segments_missing", None, 0)
}

fn the_first_one_missing() -> Vector {
    let mut files = chain("the-first-one-missing", 3);
    files.remove(0);
    let about = "the first that is here has chain_seq 1";
    bad("the-first-one-missing", about, &[8], files).error_in(1, "segments_missing", None, 0)
}

fn deleted_without_a_signature() -> Vector {
    let name = "deleted-without-a-signature";
    let mut files = chain(name, 2);
    let second = files.remove(1);
    let mut third = Forge::new(second.seg.next());
    let stone = third.tombstone(DELETED, &[second.grave(1)]);
    third.edit(stone, |block| block[128 + 20] ^= 1);
    close(&mut third, Some(&second));
    files.push(third);
    let about = "the TOMBSTONE that would explain what is missing was not signed so";
    bad(name, about, &[35], files).error_in(2, "segments_missing", None, 0)
}

fn another_one_before_it() -> Vector {
    let name = "another-one-before-it";
    let first = link(seg(name), None);
    let second = link(
        Seg {
            prev: [0xEE; 16],
            ..first.seg.next()
        },
        Some(&first),
    );
    let about = "the second says that it follows another segment than the one before it in the chain";
    bad(name, about, &[8], vec![first, second]).error_in(2, "previous_differs", None, 0)
}

fn two_in_one_place() -> Vector {
    let name = "two-in-one-place";
    let first = link(seg(name), None);
    let second = link(
        Seg {
            id: [0xFF; 16],
            ..first.seg.clone()
        },
        None,
    );
    let about = "two segments of one run and shard with one chain_seq";
    bad(name, about, &[8], vec![first, second]).error_in(2, "same_place", None, 0)
}

fn another_node_in_the_chain() -> Vector {
    let name = "another-node-in-the-chain";
    let first = link(seg(name), None);
    let second = link(
        Seg {
            node: OTHER_NODE,
            ..first.seg.next()
        },
        Some(&first),
    );
    let about = "the second was made and signed by another node: whoever can write a file can do that";
    bad(name, about, &[16], vec![first, second]).error_in(2, "node_differs", None, 0)
}

fn closed_anew_by_a_stranger() -> Vector {
    let name = "closed-anew-by-a-stranger";
    let (mut first, mut stream) = open_link(seg(name), None);
    let mut cut = first.clone();
    first.chunk(&mut stream, rtp(4));
    close(&mut first, None);
    let second = link(first.seg.next(), Some(&first));
    cut.recover(false, 0);
    let about =
        "the end was cut off and the rest closed without the node's key: the next segment knows another root";
    bad(name, about, &[33], vec![cut, second]).error_in(1, "root_since", None, 0)
}

/// A run, and the first segment of the next, which names the run's end as `change` leaves it.
fn runs(name: &str, change: impl FnOnce(&mut Head)) -> [Forge; 2] {
    let first = link(seg(name), None);
    let mut head = first.head();
    change(&mut head);
    let mut second = Forge::new(first.seg.later_run(3));
    second.checkpoint(|body| body.heads = vec![head]);
    close(&mut second, None);
    [first, second]
}

fn the_last_of_a_run_missing() -> Vector {
    let name = "the-last-of-a-run-missing";
    let [_, second] = runs(name, |_| {});
    let third = link(second.seg.next(), Some(&second));
    let about = "the new run found an end of the one before that is not here";
    bad(name, about, &[8], vec![second, third]).error_in(1, "head_missing", None, 0)
}

fn a_head_of_another_root() -> Vector {
    let name = "a-head-of-another-root";
    let files = runs(name, |head| head.root[3] ^= 1);
    let about = "a later run found the end of this chain with another root: it was changed since";
    bad(name, about, &[33], files.to_vec()).error_in(1, "root_since", None, 0)
}

fn the_end_of_a_segment_cut_off() -> Vector {
    let name = "the-end-of-a-segment-cut-off";
    let (mut first, mut stream) = open_link(seg(name), None);
    let cut = first.clone();
    first.chunk(&mut stream, rtp(4));
    close(&mut first, None);
    let second = link(first.seg.next(), Some(&first));
    let about = "footer and last chunk are gone; by itself it looks like what a crash leaves";
    bad(name, about, &[33], vec![cut, second]).error_in(1, "root_since", None, 0)
}

fn chunks_so_far_over_segments() -> Vector {
    let name = "chunks-so-far-over-segments";
    let (mut first, stream) = open_link(seg(name), None);
    close(&mut first, None);
    let counted = Stream {
        so_far: stream.so_far + 3,
        ..stream.clone()
    };
    let (second, later) = open_link(first.seg.next(), Some(&counted));
    let chunk = second.blocks[2].offset;
    let about =
        "roots and links fit, and the sealed count tells that three chunks were taken out between the two";
    let vector = bad(name, about, &[24], vec![first, second]).identity(ALICE);
    vector
        .streams(&[&stream, &later])
        .error_in(2, "chunks_so_far", None, chunk)
}
