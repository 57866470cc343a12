//! Who is in the recipes' segments: a node, its segment and a foreign one, three customers with fixed keys.

use std::sync::OnceLock;

use harborseal_segment::body::KeyEntry;
use harborseal_segment::erase::EraseSecret;
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::{SegmentId, StreamId};
use harborseal_segment::keys::{Hint, SegmentSecret, StreamKeys, Wrap, wrap};
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::FixedBytes;

/// When everything happens.
pub const NOW_S: u64 = 1_795_000_000;
pub const OWN: SegmentId = SegmentId([0x10; 16]);
pub const FOREIGN: SegmentId = SegmentId([0x77; 16]);

pub fn node() -> &'static NodeKey {
    static NODE: OnceLock<NodeKey> = OnceLock::new();
    NODE.get_or_init(|| NodeKey::from_bytes(&[0x22; 32]))
}

/// The customer of a slot: Alice, Bob, Carol, whose key is a P-256 one, and so on from the beginning.
pub fn identity(slot: u8) -> Identity {
    let customer = slot % 3;
    let random = [1 + customer; 64];
    match customer {
        2 => Identity::generate_p256(&mut FixedBytes(&random)),
        _ => Identity::generate(&mut FixedBytes(&random)),
    }
}

fn secret(slot: u8, segment_id: SegmentId) -> SegmentSecret {
    SegmentSecret::from_bytes([0xA0 ^ (slot % 3) ^ segment_id.0[0]; 32])
}

pub fn stream_id(stream: u8) -> StreamId {
    StreamId([0x80 | stream; 16])
}

/// E of every slot, where slots are erasable.
pub fn erase_secret() -> EraseSecret {
    EraseSecret::from_bytes([0xE0; 32])
}

pub fn stream_keys(slot: u8, stream: u8, segment_id: SegmentId, erasable: bool) -> StreamKeys {
    let (secret, stream_id) = (secret(slot, segment_id), stream_id(stream));
    match erasable {
        true => StreamKeys::derive_erasable(&segment_id, &secret, &erase_secret(), &stream_id),
        false => StreamKeys::derive(&segment_id, &secret, &stream_id),
    }
}

/// KEY entries of the slots 0, 1 and 2, wrapped once: a decapsulation costs more than all the rest of a file.
pub fn key_entries(segment_id: SegmentId, erasable: bool) -> &'static [KeyEntry] {
    static ENTRIES: [OnceLock<Vec<KeyEntry>>; 4] = [const { OnceLock::new() }; 4];
    let kind = 2 * usize::from(erasable) + usize::from(segment_id == FOREIGN);
    let erase = erasable.then(erase_secret);
    ENTRIES[kind].get_or_init(|| {
        let entry = |slot: u8| {
            let place = Wrap {
                node_id: node().public().id(),
                segment_id,
                slot: slot.into(),
                i: 0,
                n: 1,
                erase: erase.as_ref(),
            };
            let hint = Hint::from_bytes([0xB0 + slot; 32]);
            let mut random = FixedBytes(&[0xC0; 64]);
            wrap(
                identity(slot).public(),
                &place,
                &hint,
                &secret(slot, segment_id),
                &mut random,
            )
        };
        [0, 1, 2].map(entry).to_vec()
    })
}
