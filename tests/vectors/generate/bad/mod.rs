//! Vectors that break one rule each, by what they break.

mod blocks;
mod bodies;
mod features;
mod heads;
mod order;
mod proofs;
mod sealed;
mod sets;

use super::expect::Vector;
use super::forge::{Forge, Stream, rtp};
use super::good::{one_camera, two_chunks};

/// All of them.
pub fn all() -> Vec<Vector> {
    [
        heads::all(),
        blocks::all(),
        bodies::all(),
        order::all(),
        proofs::all(),
        sealed::all(),
        sets::all(),
        features::all(),
    ]
    .concat()
}

/// An open segment with one chunk and a CHECKPOINT for it, to be broken further on.
fn checked(name: &str) -> (Forge, Stream) {
    let (mut forge, mut stream) = one_camera(name);
    forge.chunk(&mut stream, rtp(2));
    forge.sync();
    forge.checkpoint(|_| {});
    (forge, stream)
}

/// A closed segment with two chunks; where the first of them stands.
fn closed(name: &str) -> (Forge, Stream, u64) {
    let (mut forge, stream) = two_chunks(name);
    let chunk = forge.blocks[2].offset;
    forge.close();
    (forge, stream, chunk)
}
