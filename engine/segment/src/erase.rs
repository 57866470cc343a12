//! Erasable slots: footage that its node can close to everyone, by destroying a key, without reaching its copies.
//!
//! ```text
//! EK   random per (customer, UTC day of created_s); stays in the node's key store, and is what is destroyed
//! E    = HKDF-Expand(PRK = EK, "harborseal/v1/erase" ‖ segment_id ‖ slot u32, 32)
//! PRK  = HKDF-Extract(salt = segment_id, IKM = S ‖ E)            in the place of IKM = S: see crate::keys
//! mask = HKDF-Expand(PRK = E, "harborseal/v1/erase-grant" ‖ stream_id, 32)       over K_st in scope 1 entries
//! ```
//!
//! Where the bytes can be reached they can go too: [`erase_chunk`] leaves of a CHUNK its header and extension, which are its Merkle leaf,
//! so that every root and signature over it still holds. A TOMBSTONE of a later segment then says so
//! ([`SegmentWriter::erasure`](crate::writer::SegmentWriter::erasure)).
//!
//! Neither EK nor E is ever in a segment (docs/FORMAT.md §5.6). Every type here that holds one is wiped when dropped and cannot be
//! printed.

use crate::block::{BLOCK_ALIGN, BlockType, Header};
use crate::ids::{EraseKeyId, SegmentId, StreamId};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha256;
use std::ops::Range;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// EK: what a node keeps for one customer and day, so that it can destroy it. It is never handed over.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct EraseKey([u8; 32]);

impl EraseKey {
    /// `bytes` must be random, and used for one customer and day only.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        EraseKey(bytes)
    }

    /// Draws 32 bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut key = EraseKey([0; 32]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// The bytes, for the node's key store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A name of this key that tells nothing of it: by it a key that was destroyed is known again, should a stale copy come back.
    pub fn id(&self) -> EraseKeyId {
        let mut id = EraseKeyId([0; 16]);
        self.expand(&[b"harborseal/v1/erase-key-id"], &mut id.0);
        id
    }

    /// What a key store keeps beside the key to know that it is this key, whole, and where it belongs.
    pub fn check(&self, place: &[u8]) -> [u8; 32] {
        let mut check = [0; 32];
        self.expand(&[b"harborseal/v1/erase-key-check", place], &mut check);
        check
    }

    fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
        let prk = Hkdf::<Sha256>::from_prk(&self.0).expect("EK is as long as the hash");
        prk.expand_multi_info(info, out)
            .expect("32 bytes are within HKDF's bound");
    }

    /// E of one slot of one segment.
    pub fn secret(&self, segment_id: &SegmentId, slot: u32) -> EraseSecret {
        let mut secret = EraseSecret([0; 32]);
        let info = [b"harborseal/v1/erase", &segment_id.0[..], &slot.to_le_bytes()];
        self.expand(&info, &mut secret.0);
        secret
    }
}

/// E: without it nothing of one slot of one segment opens, whoever has its other keys.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EraseSecret([u8; 32]);

impl EraseSecret {
    /// From a release.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        EraseSecret(bytes)
    }

    /// The bytes, to be handed over.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What lies over K_st in the scope 1 entries of a stream. Over it twice, it is gone.
    pub(crate) fn mask(&self, stream_id: &StreamId, k_st: &mut [u8; 32]) {
        let prk = Hkdf::<Sha256>::from_prk(&self.0).expect("E is as long as the hash");
        let mut mask = zeroize::Zeroizing::new([0; 32]);
        prk.expand_multi_info(&[b"harborseal/v1/erase-grant", &stream_id.0], &mut mask[..])
            .expect("32 bytes are within HKDF's bound");
        for (byte, mask) in k_st.iter_mut().zip(&mask[..]) {
            *byte ^= mask;
        }
    }
}

/// E for one slot of one segment, as a node hands it to somebody whom it lets watch.
#[derive(Clone)]
pub struct Release {
    /// The segment to which the footage was first written.
    pub segment_id: SegmentId,
    /// The slot there.
    pub slot: u32,
    /// E.
    pub secret: EraseSecret,
}

/// Which bytes of an erased CHUNK's place to write, and which to give back to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedRanges {
    /// Bytes of the erased block to write: its first page, or more where the header is longer.
    pub write: Range<usize>,
    /// Bytes to punch out, or to write as zeros. Whole pages; empty in a block of one page.
    pub punch: Range<usize>,
}

/// Erases a CHUNK: zeros all of `block` but header and extension, and says which of it is to be written where the block stands and which
/// punched. Until both are durable the place is damage to every reader: whoever erases does it again after a crash.
///
/// Panics unless `header` is that of `block`, a whole CHUNK with a body.
pub fn erase_chunk(header: &Header, block: &mut [u8]) -> ErasedRanges {
    assert!(
        header.block_type == BlockType::Chunk && header.body_len > 0,
        "what is erased is the body of a CHUNK"
    );
    let (header_len, total_len) = (usize::from(header.header_len), header.total_len as usize);
    block[header_len..total_len].fill(0);
    let written = header_len.next_multiple_of(BLOCK_ALIGN);
    ErasedRanges {
        write: 0..written,
        punch: written..total_len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit, Mac};

    /// Computed by hand from RFC 5869 with HMAC alone, as a second team would.
    fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    #[test]
    fn the_erase_schedule_is_that_of_the_format() {
        let (segment, stream) = (SegmentId([0x51; 16]), StreamId([0x52; 16]));
        let secret = EraseKey::from_bytes([9; 32]).secret(&segment, 0x0102);
        let label = b"harborseal/v1/erase";
        assert_eq!(
            secret.0,
            hmac(&[9; 32], &[label, &segment.0, &[2, 1, 0, 0], &[1]])
        );
        let mask = hmac(&secret.0, &[b"harborseal/v1/erase-grant", &stream.0, &[1]]);
        let mut k_st = [0; 32];
        secret.mask(&stream, &mut k_st);
        assert_eq!(k_st, mask);
        secret.mask(&stream, &mut k_st);
        assert_eq!(k_st, [0; 32]);
    }
}
