//! Blocks: the 4 KiB-aligned units of a segment, and the 128-byte header that each begins with.
//!
//! A block is `header ‖ extension ‖ body ‖ zero padding`, `total_len` bytes. The header's CRC covers bytes
//! 0..124 and through them the body's CRC, so whoever holds a block can tell whether it is whole without a key.
//! A CRC of 0 is legal; the magic and the segment id tell a block from empty space.
//!
//! The bytes, as the table `header_at` below defines them:
//!
//! | off | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | magic | `89 48 53 31` |
//! | 4 | 1+1 | type, flags | flags bit 0: critical; bit 1, CHUNK: hashed |
//! | 6 | 2 | header_len | 128; STREAM and hashed CHUNK 160 |
//! | 8 | 4+4 | total_len, body_len | bytes |
//! | 16 | 16 | segment_id | of origin: a relocated block keeps it |
//! | 32 | 8 | block_no | dense and rising per origin |
//! | 40 | 16 | stream_id | STREAM and CHUNK, else 0 |
//! | 56 | 4+4 | key_slot, reserved | STREAM and CHUNK, else 0 |
//! | 64 | 8+8 | first, last arrival | CHUNK: whole seconds since 1970, else 0 |
//! | 80 | 8 | stream_seq | CHUNK: dense from 0 per segment and stream, else 0 |
//! | 88 | 4+4 | reserved, durable | watermark ÷ 4096 known when the block was made |
//! | 96 | 16 | GCM tag | STREAM and CHUNK, else 0 |
//! | 112 | 4 | body_crc32c | over 128..header_len+body_len as stored |
//! | 116 | 8+4 | reserved, header_crc32c | over 0..124 |

mod kind;

pub use kind::BlockType;

use crate::ids::{SegmentId, StreamId};
use crate::layout::{array_in, first_nonzero, layout, put, u16_in, u32_in, u64_in};
use crate::planted::{Planted, planted};
pub(crate) use crc_fast::crc32_iscsi as crc32c;
use sha2::{Digest, Sha256};

layout! {
    header_at: 128 =>
    0   4  MAGIC,
    4   1  TYPE,
    5   1  FLAGS,
    6   2  HEADER_LEN,
    8   4  TOTAL_LEN,
    12  4  BODY_LEN,
    16  16 SEGMENT_ID,
    32  8  BLOCK_NO,
    40  16 STREAM_ID,
    56  4  KEY_SLOT,
    60  4  RESERVED_60,
    64  8  FIRST_ARRIVAL_S,
    72  8  LAST_ARRIVAL_S,
    80  8  STREAM_SEQ,
    88  4  RESERVED_88,
    92  4  DURABLE_4K,
    96  16 TAG,
    112 4  BODY_CRC32C,
    116 8  RESERVED_116,
    124 4  HEADER_CRC32C,
}

/// PNG's trick: a first byte that is not text, then letters a hex dump shows ("HS1").
pub const MAGIC: [u8; 4] = *b"\x89HS1";

/// Bytes of every block header.
pub const HEADER_LEN: usize = header_at::SIZE;
/// STREAM blocks extend the header by the stream's 32-byte key commitment.
pub const STREAM_HEADER_LEN: usize = HEADER_LEN + 32;
/// Hashed CHUNK blocks extend it by the SHA-256 of their body as stored.
pub const HASHED_HEADER_LEN: usize = HEADER_LEN + HASH_LEN;
/// Bytes of that hash.
pub(crate) const HASH_LEN: usize = 32;
/// The part of the header that AEAD authenticates: all that is final before sealing.
pub const AAD_HEADER_LEN: usize = header_at::TAG.start;

/// The grid that blocks stand on: the page size, and what O_DIRECT wants of any common disk.
pub const BLOCK_ALIGN: usize = 4096;
/// The longest block. A reader that holds one whole block in memory needs no more than this.
pub const MAX_BLOCK_LEN: usize = 1 << 20;
/// What this writer's chunks are: one pool buffer. At 4 Mb/s it fills in 131 ms, at 1 Mb/s in 524 ms.
pub const CHUNK_LEN: usize = 64 * 1024;
/// The longest body of such a chunk: 65,536 − 128. A hashed one has room for 32 bytes less.
pub const MAX_CHUNK_BODY_LEN: usize = CHUNK_LEN - HEADER_LEN;
/// Where the first block after SEGMENT and its copy stands.
pub const SEGMENT_PREFIX_LEN: usize = 2 * BLOCK_ALIGN;

/// Header flag: a reader that does not know this type must not go on as if it had.
pub const FLAG_CRITICAL: u8 = 1;
/// Header flag of a CHUNK: the extension begins with the SHA-256 of the body as stored (docs/FORMAT.md §6.1).
pub const FLAG_HASHED: u8 = 2;

const _: () = assert!(AAD_HEADER_LEN == 96);
const _: () = assert!(MAX_CHUNK_BODY_LEN == 65_408);
const _: () = assert!(CHUNK_LEN.is_multiple_of(BLOCK_ALIGN) && MAX_BLOCK_LEN.is_multiple_of(BLOCK_ALIGN));
const _: () = assert!(STREAM_HEADER_LEN < BLOCK_ALIGN && STREAM_HEADER_LEN == HASHED_HEADER_LEN);

/// Why some bytes are not a whole block of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Empty space, or something that was never a block.
    #[error("no block begins here")]
    NoMagic,
    /// The bytes end inside the block.
    #[error("the block is cut: {len} of {needed} bytes")]
    Cut {
        /// Bytes there are.
        len: usize,
        /// Bytes of the block.
        needed: usize,
    },
    /// The header was changed, or is no header.
    #[error("header CRC32C is {stored:08x}, its bytes give {computed:08x}")]
    HeaderCrc {
        /// As the header says.
        stored: u32,
        /// Over its bytes.
        computed: u32,
    },
    /// The CRC holds, so it was written so: by a newer or a faulty writer, not by a failing disk.
    #[error("header field {field} is {value}, against the format")]
    Field {
        /// Its name in docs/FORMAT.md §3.1.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// Extension or body were changed.
    #[error("body CRC32C is {stored:08x}, its bytes give {computed:08x}")]
    BodyCrc {
        /// As the header says.
        stored: u32,
        /// Over their bytes.
        computed: u32,
    },
    /// A byte behind the body is not zero.
    #[error("padding at byte {at} of the block is not zero")]
    Padding {
        /// The first such byte of the block.
        at: usize,
    },
}

impl BlockError {
    /// The cause as docs/FORMAT.md §13 names it. Stable: readers are compared by it.
    pub fn name(&self) -> &'static str {
        match self {
            BlockError::NoMagic => "no_block",
            BlockError::Cut { .. } => "cut",
            BlockError::HeaderCrc { .. } => "header_crc",
            BlockError::Field { .. } => "field",
            BlockError::BodyCrc { .. } => "body_crc",
            BlockError::Padding { .. } => "padding",
        }
    }
}

/// What stands behind the header of a block that is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The body that its CRC is over.
    Whole,
    /// Nothing: a CHUNK whose body was given back to the disk on purpose. Header and extension stay, and with them every root over
    /// them.
    Erased,
}

/// A block header. Magic, reserved bytes and the header's own CRC are not fields: they follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it holds.
    pub block_type: BlockType,
    /// Bit 0 critical, bit 1 hashed (a CHUNK only).
    pub flags: u8,
    /// Bytes from the block's start to its body: 128, or 160 with the STREAM extension.
    pub header_len: u16,
    /// Bytes of the whole block, padding included: a multiple of 4096, up to 1 MiB.
    pub total_len: u32,
    /// Bytes of the body as stored.
    pub body_len: u32,
    /// Segment of origin.
    pub segment_id: SegmentId,
    /// Its number in its segment of origin, dense from 0.
    pub block_no: u64,
    /// The stream of a STREAM or CHUNK; else zero.
    pub stream_id: StreamId,
    /// The slot whose secret opens a STREAM or CHUNK; else 0.
    pub key_slot: u32,
    /// Arrival of a CHUNK's first packet, whole seconds since 1970; else 0.
    pub first_arrival_s: u64,
    /// Arrival of a CHUNK's last packet, whole seconds since 1970; else 0.
    pub last_arrival_s: u64,
    /// Its number in its stream and origin, dense from 0; a CHUNK only, else 0.
    pub stream_seq: u64,
    /// The origin segment's watermark ÷ 4096 when this block was made.
    pub durable_4k: u32,
    /// AES-GCM tag of a STREAM or CHUNK; else zero.
    pub tag: [u8; 16],
    /// CRC32C of everything from byte 128 to the body's end, as stored.
    pub body_crc32c: u32,
}

impl Header {
    /// A header of `block_type` for a body of `body_len` bytes; everything else is 0.
    ///
    /// Panics if such a block would exceed 1 MiB: writers bound their bodies before.
    pub fn new(block_type: BlockType, segment_id: SegmentId, block_no: u64, body_len: usize) -> Self {
        let header_len = block_type.header_len();
        let total_len = (header_len + body_len).next_multiple_of(BLOCK_ALIGN);
        assert!(
            total_len <= MAX_BLOCK_LEN,
            "a {} body of {body_len} bytes exceeds 1 MiB",
            block_type.name()
        );
        Header {
            block_type,
            flags: block_type.flags(),
            header_len: header_len as u16,
            total_len: total_len as u32,
            body_len: body_len as u32,
            segment_id,
            block_no,
            stream_id: StreamId::ZERO,
            key_slot: 0,
            first_arrival_s: 0,
            last_arrival_s: 0,
            stream_seq: 0,
            durable_4k: 0,
            tag: [0; 16],
            body_crc32c: 0,
        }
    }

    /// A header of a hashed CHUNK: 32 bytes longer, else as [`Header::new`] makes it.
    pub fn hashed_chunk(segment_id: SegmentId, block_no: u64, body_len: usize) -> Self {
        let chunk = Self::new(BlockType::Chunk, segment_id, block_no, HASH_LEN + body_len);
        Header {
            flags: chunk.flags | FLAG_HASHED,
            header_len: HASHED_HEADER_LEN as u16,
            body_len: body_len as u32,
            ..chunk
        }
    }

    /// Bytes of the whole block that a body of `body_len` bytes makes.
    pub fn total_len_for(block_type: BlockType, body_len: usize) -> usize {
        (block_type.header_len() + body_len).next_multiple_of(BLOCK_ALIGN)
    }

    /// Whether a reader that does not know the type must not go on without it.
    pub fn is_critical(&self) -> bool {
        self.flags & FLAG_CRITICAL != 0
    }

    /// A CHUNK whose extension begins with the hash of its body.
    pub fn is_hashed(&self) -> bool {
        self.block_type == BlockType::Chunk && self.flags & FLAG_HASHED != 0
    }

    /// The 128 bytes, with the header's CRC over the rest.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        use header_at as at;
        let mut bytes = [0; HEADER_LEN];
        put(&mut bytes, at::MAGIC, &MAGIC);
        put(&mut bytes, at::TYPE, &[self.block_type.as_u8()]);
        put(&mut bytes, at::FLAGS, &[self.flags]);
        put(&mut bytes, at::HEADER_LEN, &self.header_len.to_le_bytes());
        put(&mut bytes, at::TOTAL_LEN, &self.total_len.to_le_bytes());
        put(&mut bytes, at::BODY_LEN, &self.body_len.to_le_bytes());
        put(&mut bytes, at::SEGMENT_ID, &self.segment_id.0);
        put(&mut bytes, at::BLOCK_NO, &self.block_no.to_le_bytes());
        put(&mut bytes, at::STREAM_ID, &self.stream_id.0);
        put(&mut bytes, at::KEY_SLOT, &self.key_slot.to_le_bytes());
        put(
            &mut bytes,
            at::FIRST_ARRIVAL_S,
            &self.first_arrival_s.to_le_bytes(),
        );
        put(&mut bytes, at::LAST_ARRIVAL_S, &self.last_arrival_s.to_le_bytes());
        put(&mut bytes, at::STREAM_SEQ, &self.stream_seq.to_le_bytes());
        put(&mut bytes, at::DURABLE_4K, &self.durable_4k.to_le_bytes());
        put(&mut bytes, at::TAG, &self.tag);
        put(&mut bytes, at::BODY_CRC32C, &self.body_crc32c.to_le_bytes());
        let crc = crc32c(&bytes[..at::HEADER_CRC32C.start]);
        put(&mut bytes, at::HEADER_CRC32C, &crc.to_le_bytes());
        bytes
    }

    /// Parses the header at the start of `bytes` and checks what docs/FORMAT.md §3.2 asks of it alone; reserved
    /// bytes and unknown flags are ignored. The body may be missing; see [`Header::check_body`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        use header_at as at;
        if !bytes.starts_with(&MAGIC) {
            return Err(BlockError::NoMagic);
        }
        let bytes = bytes.get(..HEADER_LEN).ok_or(BlockError::Cut {
            len: bytes.len(),
            needed: HEADER_LEN,
        })?;
        let stored = u32_in(bytes, at::HEADER_CRC32C);
        let computed = crc32c(&bytes[..at::HEADER_CRC32C.start]);
        if stored != computed && !planted(Planted::HeaderCrcUnchecked) {
            return Err(BlockError::HeaderCrc { stored, computed });
        }
        let [type_byte] = array_in(bytes, at::TYPE);
        let header = Header {
            block_type: BlockType::from_u8(type_byte).ok_or(BlockError::Field {
                field: "type",
                value: 0,
            })?,
            flags: bytes[at::FLAGS.start],
            header_len: u16_in(bytes, at::HEADER_LEN),
            total_len: u32_in(bytes, at::TOTAL_LEN),
            body_len: u32_in(bytes, at::BODY_LEN),
            segment_id: SegmentId(array_in(bytes, at::SEGMENT_ID)),
            block_no: u64_in(bytes, at::BLOCK_NO),
            stream_id: StreamId(array_in(bytes, at::STREAM_ID)),
            key_slot: u32_in(bytes, at::KEY_SLOT),
            first_arrival_s: u64_in(bytes, at::FIRST_ARRIVAL_S),
            last_arrival_s: u64_in(bytes, at::LAST_ARRIVAL_S),
            stream_seq: u64_in(bytes, at::STREAM_SEQ),
            durable_4k: u32_in(bytes, at::DURABLE_4K),
            tag: array_in(bytes, at::TAG),
            body_crc32c: u32_in(bytes, at::BODY_CRC32C),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BlockError> {
        let refuse = |field, value| Err(BlockError::Field { field, value });
        let header_len = usize::from(self.header_len);
        let total_len = self.total_len as usize;
        if header_len < HEADER_LEN {
            return refuse("header_len", u64::from(self.header_len));
        }
        if total_len == 0 || !total_len.is_multiple_of(BLOCK_ALIGN) || total_len > MAX_BLOCK_LEN {
            return refuse("total_len", u64::from(self.total_len));
        }
        if header_len + self.body_len as usize > total_len {
            return refuse("body_len", u64::from(self.body_len));
        }
        let kind = self.block_type;
        if matches!(kind, BlockType::Segment | BlockType::Footer) && total_len != BLOCK_ALIGN {
            return refuse("total_len", u64::from(self.total_len));
        }
        if (kind == BlockType::Stream || self.is_hashed()) && header_len < STREAM_HEADER_LEN {
            return refuse("header_len", u64::from(self.header_len));
        }
        Ok(())
    }

    /// Checks the rest of the block that this header was parsed from: body CRC and padding. `block` begins with the header and may be
    /// longer than the block.
    pub fn check_body(&self, block: &[u8]) -> Result<Stored, BlockError> {
        let needed = self.total_len as usize;
        let block = block.get(..needed).ok_or(BlockError::Cut {
            len: block.len(),
            needed,
        })?;
        let computed = crc32c(&block[HEADER_LEN..self.body_end()]);
        if self.body_crc32c != computed && !planted(Planted::BodyCrcUnchecked) {
            if self.looks_erased(block) {
                return Ok(Stored::Erased);
            }
            return Err(BlockError::BodyCrc {
                stored: self.body_crc32c,
                computed,
            });
        }
        match first_nonzero(&block[self.body_end()..]) {
            Some(at) if !planted(Planted::PaddingUnchecked) => Err(BlockError::Padding {
                at: self.body_end() + at,
            }),
            _ => Ok(Stored::Whole),
        }
    }

    /// A CHUNK that has a body, and nothing but zeros where it should be.
    fn looks_erased(&self, block: &[u8]) -> bool {
        self.block_type == BlockType::Chunk
            && self.body_len > 0
            && first_nonzero(&block[usize::from(self.header_len)..]).is_none()
    }

    /// Whether the body is the one whose hash a hashed CHUNK's extension holds. True of any other block.
    pub fn hash_fits(&self, block: &[u8]) -> bool {
        if !self.is_hashed() {
            return true;
        }
        let hash: [u8; HASH_LEN] = Sha256::digest(self.body(block)).into();
        self.extension(block).starts_with(&hash)
    }

    /// The header's extension, as stored in its block.
    pub fn extension<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[HEADER_LEN..usize::from(self.header_len)]
    }

    /// The body, as stored in its block.
    pub fn body<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[usize::from(self.header_len)..self.body_end()]
    }

    /// Bytes from the block's start to the end of its body.
    pub fn body_end(&self) -> usize {
        usize::from(self.header_len) + self.body_len as usize
    }
}

/// A whole unsealed block: `header` with its body CRC, `body`, zero padding.
///
/// Panics if `body` is not as long as the header says.
pub fn encode_block(mut header: Header, body: &[u8]) -> Vec<u8> {
    assert_eq!(
        header.body_len as usize,
        body.len(),
        "the header was made for this body"
    );
    header.body_crc32c = crc32c(body);
    let mut block = Vec::with_capacity(header.total_len as usize);
    block.extend_from_slice(&header.encode());
    block.extend_from_slice(body);
    block.resize(header.total_len as usize, 0);
    block
}

/// Parses and checks the block at the start of `bytes`, which must be whole: an erased one is refused for its CRC.
pub fn parse_block(bytes: &[u8]) -> Result<Header, BlockError> {
    let header = Header::parse(bytes)?;
    match header.check_body(bytes)? {
        Stored::Whole => Ok(header),
        Stored::Erased => Err(BlockError::BodyCrc {
            stored: header.body_crc32c,
            computed: crc32c(&bytes[HEADER_LEN..header.body_end()]),
        }),
    }
}

#[cfg(test)]
mod tests;
