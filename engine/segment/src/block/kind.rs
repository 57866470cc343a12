//! The types of blocks, and what the format fixes for each: number, name, whether it is critical, header length.

use super::{FLAG_CRITICAL, HEADER_LEN, STREAM_HEADER_LEN};

/// What a block is. Type 0 is never written: it is what empty space holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// What file this is; stands at 0 and at 4096.
    Segment,
    /// Secrets of the segment, each wrapped for one recipient.
    Key,
    /// Which camera a stream is, sealed.
    Stream,
    /// Packets of one stream, sealed.
    Chunk,
    /// A signed root over all blocks before it.
    Checkpoint,
    /// Permission for blocks of another segment to stand behind it.
    Origin,
    /// A table of what a scan would find.
    Index,
    /// The end of a closed segment.
    Footer,
    /// Something is gone, and this says why.
    Tombstone,
    /// 10..=0x7F: kept for later versions of the format.
    Reserved(u8),
    /// 0x80 and up: never given a meaning by the format.
    Private(u8),
}

impl BlockType {
    /// The type of this number; `None` for 0, which is none.
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => return None,
            1 => BlockType::Segment,
            2 => BlockType::Key,
            3 => BlockType::Stream,
            4 => BlockType::Chunk,
            5 => BlockType::Checkpoint,
            6 => BlockType::Origin,
            7 => BlockType::Index,
            8 => BlockType::Footer,
            9 => BlockType::Tombstone,
            10..=0x7F => BlockType::Reserved(value),
            0x80.. => BlockType::Private(value),
        })
    }

    /// Its number in a header.
    pub fn as_u8(self) -> u8 {
        match self {
            BlockType::Segment => 1,
            BlockType::Key => 2,
            BlockType::Stream => 3,
            BlockType::Chunk => 4,
            BlockType::Checkpoint => 5,
            BlockType::Origin => 6,
            BlockType::Index => 7,
            BlockType::Footer => 8,
            BlockType::Tombstone => 9,
            BlockType::Reserved(value) | BlockType::Private(value) => value,
        }
    }

    /// The name as the format's text writes it.
    pub fn name(self) -> &'static str {
        match self {
            BlockType::Segment => "SEGMENT",
            BlockType::Key => "KEY",
            BlockType::Stream => "STREAM",
            BlockType::Chunk => "CHUNK",
            BlockType::Checkpoint => "CHECKPOINT",
            BlockType::Origin => "ORIGIN",
            BlockType::Index => "INDEX",
            BlockType::Footer => "FOOTER",
            BlockType::Tombstone => "TOMBSTONE",
            BlockType::Reserved(_) => "reserved",
            BlockType::Private(_) => "private",
        }
    }

    /// Whether v1 gives this type a meaning.
    pub fn is_known(self) -> bool {
        !matches!(self, BlockType::Reserved(_) | BlockType::Private(_))
    }

    /// The body is ciphertext.
    pub fn is_sealed(self) -> bool {
        matches!(self, BlockType::Stream | BlockType::Chunk)
    }

    /// The flags that v1 writes for a known type. Without SEGMENT, KEY, STREAM, CHUNK or ORIGIN understood,
    /// footage would be missed; the others only help to check and to find.
    pub fn flags(self) -> u8 {
        use BlockType::*;
        if matches!(self, Segment | Key | Stream | Chunk | Origin) {
            FLAG_CRITICAL
        } else {
            0
        }
    }

    /// Header bytes, extension included, of a known type.
    pub fn header_len(self) -> usize {
        if self == BlockType::Stream {
            STREAM_HEADER_LEN
        } else {
            HEADER_LEN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_keeps_its_number() {
        for value in 1..=255 {
            assert_eq!(BlockType::from_u8(value).map(BlockType::as_u8), Some(value));
        }
    }
}
