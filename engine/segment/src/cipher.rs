//! Sealing and opening of blocks with AES-256-GCM (NIST SP 800-38D), in place.
//!
//! Who seals has up to three libraries to choose from; who opens uses `aes-gcm` only, so that writer and reader never
//! share a fault.
//!
//! ```text
//! nonce   type u8 · 0×3 · block_no u64 big-endian      never repeats: block_no is unique under a key
//! AAD     header[0..96] ‖ header[128..header_len]      so all of 0..96 is final before sealing
//!         hashed CHUNK: header[160..header_len]        the hash before it is known only after
//! tag     header[96..112]
//! ```

use crate::block::{
    AAD_HEADER_LEN, BlockType, HASH_LEN, HASHED_HEADER_LEN, HEADER_LEN, Header, STREAM_HEADER_LEN, crc32c,
};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Bytes of an AES-GCM tag (NIST SP 800-38D).
pub const TAG_LEN: usize = 16;

/// A sealing library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Has code for VAES with AVX-512, twice the speed of `ring` where the CPU has it.
    #[cfg(feature = "aws-lc")]
    AwsLc,
    /// Has code for VAES without AVX-512, twice the speed of `aes-gcm` where the CPU has it.
    #[cfg(feature = "ring")]
    Ring,
    /// Pure Rust.
    AesGcm,
}

impl Backend {
    /// Those that were built in.
    pub const ALL: &[Backend] = &[
        #[cfg(feature = "aws-lc")]
        Backend::AwsLc,
        #[cfg(feature = "ring")]
        Backend::Ring,
        Backend::AesGcm,
    ];

    /// The name in the configuration and in reports.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc => "aws-lc",
            #[cfg(feature = "ring")]
            Backend::Ring => "ring",
            Backend::AesGcm => "aes-gcm",
        }
    }

    /// The fastest on this machine, found in about a millisecond. `clock_ns` is any steady clock.
    pub fn fastest(mut clock_ns: impl FnMut() -> u64) -> Backend {
        let measured = Self::ALL
            .iter()
            .map(|backend| (backend.seal_ns(&mut clock_ns), *backend));
        measured
            .min_by_key(|(ns, _)| *ns)
            .expect("aes-gcm is always built in")
            .1
    }

    /// Nanoseconds to seal 64 KiB: the least of up to 16 tries within half a millisecond, because what
    /// disturbs a measurement only ever makes it longer.
    pub fn seal_ns(self, clock_ns: &mut impl FnMut() -> u64) -> u64 {
        const TRIES: u64 = 16;
        const BUDGET_NS: u64 = 500_000;
        let key = SealKey::new(self, &[0x42; 32]);
        let mut body = vec![0; 64 * 1024];
        let began_ns = clock_ns();
        let mut least_ns = u64::MAX;
        for block_no in 0..TRIES {
            let from_ns = clock_ns();
            key.seal_in_place(&nonce(BlockType::Chunk, block_no), &[], &mut body);
            let now_ns = clock_ns();
            least_ns = least_ns.min(now_ns.saturating_sub(from_ns));
            if now_ns.saturating_sub(began_ns) > BUDGET_NS {
                break;
            }
        }
        least_ns
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No backend of that name is built in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no sealing library {0:?} is built in")]
pub struct UnknownBackend(String);

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        let found = Self::ALL.iter().find(|backend| backend.name() == text);
        found.copied().ok_or_else(|| UnknownBackend(text.to_owned()))
    }
}

/// The nonce of a block. It differs by type, so that no two blocks of one number could share one either.
pub fn nonce(block_type: BlockType, block_no: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[0] = block_type.as_u8();
    nonce[4..].copy_from_slice(&block_no.to_be_bytes());
    nonce
}

/// The key that seals one stream of one segment. Wiped when dropped.
///
/// Nothing but its 32 bytes, so that whoever keeps it in locked memory keeps all of it there: `aws-lc` would put the expanded key behind
/// a pointer, in memory of its own. It is expanded for each block, and that is wiped after it: some two nanoseconds for a packet, and a kilobyte
/// less for each stream to be fetched from memory.
pub struct SealKey {
    backend: Backend,
    key: Zeroizing<[u8; 32]>,
}

impl SealKey {
    /// `key`, for `backend`.
    pub fn new(backend: Backend, key: &[u8; 32]) -> Self {
        SealKey {
            backend,
            key: Zeroizing::new(*key),
        }
    }

    /// Seals `body` in place and returns the tag. Does not allocate, but for what `aws-lc` takes for the expanded key and wipes.
    pub fn seal_in_place(&self, nonce: &[u8; 12], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self.seal_expanded(nonce, aad, body);
        match self.backend {
            // Its key was never on the stack, and is wiped where it was (OPENSSL_free).
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc => {}
            #[cfg(feature = "ring")]
            Backend::Ring => scrub_stack(),
            // Wipes its key, but not where it moved it from.
            Backend::AesGcm => scrub_stack(),
        }
        tag
    }

    /// Never inlined: what it expands lies in frames below that of the caller, who wipes them.
    #[inline(never)]
    fn seal_expanded(&self, nonce: &[u8; 12], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        match self.backend {
            #[cfg(feature = "aws-lc")]
            Backend::AwsLc => {
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
                let key = aws_lc_key(&self.key);
                let tag = key.seal_in_place_separate_tag(nonce, aws_lc_rs::aead::Aad::from(aad), body);
                let tag = tag.expect("a block is far below GCM's 64 GiB");
                tag.as_ref().try_into().expect("a GCM tag has 16 bytes")
            }
            #[cfg(feature = "ring")]
            Backend::Ring => {
                let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
                let key = ring_key(&self.key);
                let tag = key.seal_in_place_separate_tag(nonce, ring::aead::Aad::from(aad), body);
                let tag = tag.expect("a block is far below GCM's 64 GiB");
                tag.as_ref().try_into().expect("a GCM tag has 16 bytes")
            }
            Backend::AesGcm => {
                let key = Aes256Gcm::new((&*self.key).into());
                let tag = key.encrypt_inout_detached(&Nonce::from(*nonce), aad, body.into());
                tag.expect("a block is far below GCM's 64 GiB").into()
            }
        }
    }

    /// Finishes a sealed block in place: `buf` holds the extension, if any, and the plaintext body where they
    /// belong; on return `buf[..total_len]` is the block, its padding zero, and `header` is what stands in it. The extension
    /// of a hashed CHUNK is filled in. Does not allocate.
    pub fn seal_block(&self, header: &mut Header, buf: &mut [u8]) {
        let (body_from, body_end) = (usize::from(header.header_len), header.body_end());
        buf[..HEADER_LEN].copy_from_slice(&header.encode());
        let aad = BlockAad::of(header, buf);
        let nonce = nonce(header.block_type, header.block_no);
        header.tag = self.seal_in_place(&nonce, aad.as_bytes(), &mut buf[body_from..body_end]);
        if header.is_hashed() {
            let hash = Sha256::digest(&buf[body_from..body_end]);
            buf[HEADER_LEN..HASHED_HEADER_LEN].copy_from_slice(&hash);
        }
        header.body_crc32c = crc32c(&buf[HEADER_LEN..body_end]);
        buf[..HEADER_LEN].copy_from_slice(&header.encode());
        buf[body_end..header.total_len as usize].fill(0);
    }
}

/// Overwrites the stack below the caller. An expanded key of `aes-gcm`, the largest, has a kilobyte, and is moved a few times.
#[inline(never)]
fn scrub_stack() {
    let mut below = [0u8; 8 << 10];
    std::hint::black_box(&mut below);
}

#[cfg(feature = "aws-lc")]
fn aws_lc_key(key: &[u8; 32]) -> aws_lc_rs::aead::LessSafeKey {
    let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_256_GCM, key);
    aws_lc_rs::aead::LessSafeKey::new(key.expect("an AES-256 key has 32 bytes"))
}

#[cfg(feature = "ring")]
fn ring_key(key: &[u8; 32]) -> ring::aead::LessSafeKey {
    let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, key);
    ring::aead::LessSafeKey::new(key.expect("an AES-256 key has 32 bytes"))
}

/// What a sealed block authenticates beside its body: the final part of its header, and the extension.
///
/// On the stack for the headers of this version, so that sealing does not allocate.
pub struct BlockAad {
    bytes: [u8; AAD_HEADER_LEN + STREAM_HEADER_LEN - HEADER_LEN],
    len: usize,
    /// Instead of `bytes`, for a header that a later version extended.
    longer: Vec<u8>,
}

impl BlockAad {
    /// `block` begins with the encoded header and its extension.
    pub fn of(header: &Header, block: &[u8]) -> Self {
        let head = &block[..AAD_HEADER_LEN];
        let extension = match header.is_hashed() {
            true => &header.extension(block)[HASH_LEN..],
            false => header.extension(block),
        };
        let mut aad = BlockAad {
            bytes: [0; _],
            len: AAD_HEADER_LEN + extension.len(),
            longer: Vec::new(),
        };
        if aad.len > aad.bytes.len() {
            aad.longer = [head, extension].concat();
        } else {
            aad.bytes[..AAD_HEADER_LEN].copy_from_slice(head);
            aad.bytes[AAD_HEADER_LEN..aad.len].copy_from_slice(extension);
        }
        aad
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        if self.longer.is_empty() {
            &self.bytes[..self.len]
        } else {
            &self.longer
        }
    }
}

/// Something in the block is not what was sealed under this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not authenticate under its key")]
pub struct NotAuthentic;

/// The key that opens one stream of one segment. Wiped when dropped.
pub struct OpenKey(Aes256Gcm);

impl OpenKey {
    /// Expands `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        OpenKey(Aes256Gcm::new(key.into()))
    }

    /// Opens `body` in place. On failure it is left as it was: the tag is checked before anything is decrypted.
    pub fn open_in_place(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), NotAuthentic> {
        let opened = self
            .0
            .decrypt_inout_detached(&Nonce::from(*nonce), aad, body.into(), &Tag::from(*tag));
        opened.map_err(|_| NotAuthentic)
    }

    /// Opens a STREAM or CHUNK block in place and returns its plaintext body. `header` is the block's, parsed.
    ///
    /// The commitment is not looked at here: check it first, once per stream, with
    /// [`crate::keys::StreamKeys::matches`].
    pub fn open_block<'a>(&self, header: &Header, block: &'a mut [u8]) -> Result<&'a [u8], NotAuthentic> {
        let aad = BlockAad::of(header, block);
        let nonce = nonce(header.block_type, header.block_no);
        let body = &mut block[usize::from(header.header_len)..header.body_end()];
        self.open_in_place(&nonce, aad.as_bytes(), body, &header.tag)?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::parse_block;
    use crate::ids::{SegmentId, StreamId};

    const KEY: [u8; 32] = [3; 32];

    fn sealed_chunk(backend: Backend, text: &[u8]) -> Vec<u8> {
        let mut header = Header {
            stream_id: StreamId([5; 16]),
            ..Header::new(BlockType::Chunk, SegmentId([4; 16]), 17, text.len())
        };
        let mut buf = vec![0xAA; header.total_len as usize];
        buf[HEADER_LEN..][..text.len()].copy_from_slice(text);
        SealKey::new(backend, &KEY).seal_block(&mut header, &mut buf);
        buf
    }

    #[test]
    fn every_backend_seals_to_the_same_bytes_and_the_reader_opens_them() {
        for len in [0, 1, 15, 16, 1200, 65_408] {
            let text = vec![0x5A; len];
            let sealed: Vec<_> = Backend::ALL
                .iter()
                .map(|backend| sealed_chunk(*backend, &text))
                .collect();
            assert!(sealed.windows(2).all(|pair| pair[0] == pair[1]), "{len} bytes");
            let mut block = sealed[0].clone();
            let header = parse_block(&block).expect("a whole block");
            assert!(OpenKey::new(&KEY).open_block(&header, &mut block) == Ok(&text[..]));
        }
    }

    /// NIST GCM test vector 16 (McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B).
    #[test]
    fn every_backend_computes_gcm_test_case_16() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                .collect()
        };
        let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let iv = hex("cafebabefacedbaddecaf888");
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let text = hex(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ));
        let sealed = hex(concat!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        ));
        for backend in Backend::ALL {
            let mut body = text.clone();
            let key = SealKey::new(*backend, key[..].try_into().unwrap());
            let tag = key.seal_in_place(iv[..].try_into().unwrap(), &aad, &mut body);
            assert_eq!(
                (body, tag.to_vec()),
                (sealed.clone(), hex("76fc6ece0f4e1768cddf8853bb2d551b")),
                "{backend}"
            );
        }
    }

    #[test]
    fn a_block_opens_only_with_everything_it_authenticates_intact() {
        let sealed = sealed_chunk(Backend::AesGcm, b"a packet");
        let header = parse_block(&sealed).expect("a whole block");
        let refused = |header: Header| {
            let mut block = sealed.clone();
            block[..HEADER_LEN].copy_from_slice(&header.encode());
            assert_eq!(
                OpenKey::new(&KEY).open_block(&header, &mut block),
                Err(NotAuthentic)
            );
            assert_eq!(
                block[HEADER_LEN..],
                sealed[HEADER_LEN..],
                "a refused body is left sealed"
            );
        };
        refused(Header {
            block_no: 18,
            ..header
        });
        refused(Header {
            segment_id: SegmentId([9; 16]),
            ..header
        });
        refused(Header {
            stream_id: StreamId([9; 16]),
            ..header
        });
        refused(Header {
            stream_seq: 1,
            ..header
        });
        refused(Header {
            durable_4k: 1,
            ..header
        });
        refused(Header {
            first_arrival_s: 1,
            last_arrival_s: 1,
            ..header
        });
        refused(Header {
            tag: [0; 16],
            ..header
        });
        let mut block = sealed.clone();
        assert_eq!(
            OpenKey::new(&[4; 32]).open_block(&header, &mut block),
            Err(NotAuthentic)
        );
    }

    #[test]
    fn a_hashed_chunk_holds_the_hash_of_what_is_stored_and_opens_without_asking_it() {
        for header_len in [160, 400] {
            let mut header = Header {
                header_len,
                ..Header::hashed_chunk(SegmentId([4; 16]), 17, 8)
            };
            let mut block = vec![0xAA; header.total_len as usize];
            let body = usize::from(header_len);
            block[body..body + 8].copy_from_slice(b"a packet");
            SealKey::new(Backend::ALL[0], &KEY).seal_block(&mut header, &mut block);
            assert_eq!(parse_block(&block), Ok(header));
            assert_eq!(block[128..160], *Sha256::digest(&block[body..body + 8]));
            assert!(header.hash_fits(&block));
            let open = |block: &[u8]| {
                OpenKey::new(&KEY)
                    .open_block(&header, &mut block.to_vec())
                    .map(<[u8]>::to_vec)
            };
            assert_eq!(open(&block), Ok(b"a packet".to_vec()));
            block[130] ^= 1;
            assert!(!header.hash_fits(&block));
            assert!(open(&block).is_ok(), "the hash is not what the tag is over");
            if header_len > 160 {
                block[399] ^= 1;
                assert_eq!(open(&block), Err(NotAuthentic), "what follows it is");
            }
        }
    }

    #[test]
    fn a_block_with_a_longer_header_than_this_version_writes_opens() {
        let extended = Header {
            header_len: 400,
            ..Header::new(BlockType::Chunk, SegmentId([4; 16]), 17, 8)
        };
        let mut header = extended;
        let mut block = vec![0xAA; header.total_len as usize];
        block[400..408].copy_from_slice(b"a packet");
        SealKey::new(Backend::AesGcm, &KEY).seal_block(&mut header, &mut block);
        assert!(parse_block(&block).is_ok());
        assert_eq!(
            OpenKey::new(&KEY).open_block(&header, &mut block.clone()),
            Ok(&b"a packet"[..])
        );
        block[399] ^= 1;
        assert_eq!(
            OpenKey::new(&KEY).open_block(&header, &mut block),
            Err(NotAuthentic)
        );
    }

    #[test]
    fn the_nonce_is_type_zeros_and_block_number() {
        assert_eq!(
            nonce(BlockType::Chunk, 0x0102),
            [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
        );
        assert_eq!(
            nonce(BlockType::Stream, u64::MAX),
            [3, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
        );
    }

    #[test]
    fn the_fastest_backend_is_the_one_the_clock_says() {
        // A clock under which each later measurement costs more: the first backend wins.
        let mut now_ns = 0;
        let mut step_ns = 0;
        let fastest = Backend::fastest(|| {
            step_ns += 1;
            now_ns += step_ns;
            now_ns
        });
        assert_eq!(fastest, Backend::ALL[0]);
        // A clock that stands still ends the measurement all the same.
        assert_eq!(Backend::fastest(|| 0), Backend::ALL[0]);
    }

    #[test]
    fn backends_are_found_by_name() {
        for backend in Backend::ALL {
            assert_eq!(backend.name().parse(), Ok(*backend));
        }
        let err = "openssl".parse::<Backend>().unwrap_err();
        assert_eq!(err.to_string(), "no sealing library \"openssl\" is built in");
    }
}
