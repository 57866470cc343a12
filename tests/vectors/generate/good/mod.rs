//! Vectors that readers accept, by what they show.

mod chains;
mod crashes;
pub mod features;
mod later;
mod plain;
mod recipients;
mod relocated;

use super::expect::Vector;
use super::forge::{Forge, Stream, seg};
use super::keys::{ALICE, Slot};

/// All of them.
pub fn all() -> Vec<Vector> {
    [
        plain::all(),
        recipients::all(),
        crashes::all(),
        chains::all(),
        relocated::all(),
        later::all(),
        features::all(),
    ]
    .concat()
}

/// A segment of alice's with one camera, and no chunk yet.
pub fn one_camera(name: &str) -> (Forge, Stream) {
    let mut forge = Forge::new(seg(name));
    let alice = Slot::new(&forge.seg, 0, &[ALICE]);
    forge.slots(&[&alice]);
    let stream = Stream::new(&forge.seg, &alice, "front-door", 1);
    forge.stream(&stream);
    (forge, stream)
}

/// The same with two chunks, the first of them durable.
pub fn two_chunks(name: &str) -> (Forge, Stream) {
    let (mut forge, mut stream) = one_camera(name);
    forge.chunk(&mut stream, super::forge::rtp(3));
    forge.sync();
    forge.chunk(&mut stream, super::forge::rtp(2));
    (forge, stream)
}
