//! INDEX: where things are in this file. Never authoritative: a scan can rebuild it.
//!
//! ```text
//! body   a 16-byte head · row_count × row_len bytes
//! ```
//!
//! A table longer than one block is cut into parts, numbered from 0 per kind, in order.

use super::{BodyError, len_of, need_len};
use crate::block::{HEADER_LEN, MAX_BLOCK_LEN};
use crate::ids::StreamId;
use crate::layout::{array_in, layout, put, u32_in, u64_in};

layout! {
    at: 16 =>
    0  4 KIND,
    4  4 ROW_LEN,
    8  4 ROW_COUNT,
    12 4 PART,
}

layout! {
    chunk_at: 48 =>
    0  8 OFFSET,
    8  4 TOTAL_LEN,
    12 4 STREAM_ROW,
    16 8 FIRST_S,
    24 8 LAST_S,
    32 8 BLOCK_NO,
    40 8 STREAM_SEQ,
}

layout! {
    stream_at: 64 =>
    0  16 STREAM_ID,
    16 8  OFFSET,
    24 4  SLOT,
    28 4  FLAGS,
    32 8  CHUNKS,
    40 8  FIRST_S,
    48 8  LAST_S,
    56 8  BYTES,
}

layout! {
    key_at: 24 =>
    0  8 OFFSET,
    8  4 TOTAL_LEN,
    12 4 ENTRY_COUNT,
    16 8 RESERVED,
}

const KIND_CHUNKS: u32 = 1;
const KIND_STREAMS: u32 = 2;
const KIND_KEYS: u32 = 3;

const BLOCK: &str = "INDEX";

/// One chunk. Rows stand in the order of their offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRow {
    /// Where the block stands in the file, in bytes.
    pub offset: u64,
    /// Bytes of the whole block, padding included.
    pub total_len: u32,
    /// Which stream row, counted over all parts.
    pub stream_row: u32,
    /// Arrival of the first packet, whole seconds since 1970.
    pub first_s: u64,
    /// Arrival of the last packet, whole seconds since 1970.
    pub last_s: u64,
    /// Its number in its segment of origin, dense from 0.
    pub block_no: u64,
    /// Its number in its stream and origin, dense from 0; a CHUNK only, else 0.
    pub stream_seq: u64,
}

/// One stream, with totals of its chunks in this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamRow {
    /// The stream, by its random name in its origin.
    pub stream_id: StreamId,
    /// Of its STREAM block.
    pub offset: u64,
    /// The customer, by a number that means something in this segment only.
    pub slot: u32,
    /// CHUNK blocks of the stream in this file.
    pub chunks: u64,
    /// Both 0 while `chunks` is 0.
    pub first_s: u64,
    /// Arrival of the last packet, whole seconds since 1970.
    pub last_s: u64,
    /// Sum of the chunks' `total_len`.
    pub bytes: u64,
}

/// One KEY block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRow {
    /// Where the block stands in the file, in bytes.
    pub offset: u64,
    /// Bytes of the whole block, padding included.
    pub total_len: u32,
    /// KEY entries in the block.
    pub entry_count: u32,
}

/// The rows of one INDEX block, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexRows {
    /// Kind 1.
    Chunks(Vec<ChunkRow>),
    /// Kind 2.
    Streams(Vec<StreamRow>),
    /// Kind 3.
    Keys(Vec<KeyRow>),
}

/// One INDEX block: one part of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexBody {
    /// Number of the block within its kind, from 0.
    pub part: u32,
    /// In the order of their blocks' offsets.
    pub rows: IndexRows,
}

impl IndexBody {
    /// Bytes before the first row.
    pub const HEAD_LEN: usize = at::SIZE;

    /// Rows of `row_len` bytes that one block holds: (1 MiB − 128 − 16) ÷ row_len, 21,842 chunk rows.
    pub(crate) const fn rows_per_block(row_len: usize) -> usize {
        (MAX_BLOCK_LEN - HEADER_LEN - at::SIZE) / row_len
    }

    /// The body as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        match &self.rows {
            IndexRows::Chunks(rows) => encode_rows(self.part, rows),
            IndexRows::Streams(rows) => encode_rows(self.part, rows),
            IndexRows::Keys(rows) => encode_rows(self.part, rows),
        }
    }

    /// Parses a body as stored; bytes behind the fields of this version are ignored (docs/FORMAT.md §4).
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        need_len(BLOCK, body, at::SIZE)?;
        let rows = match u32_in(body, at::KIND) {
            KIND_CHUNKS => IndexRows::Chunks(parse_rows(body)?),
            KIND_STREAMS => IndexRows::Streams(parse_rows(body)?),
            KIND_KEYS => IndexRows::Keys(parse_rows(body)?),
            _ => {
                return Err(BodyError::Unsupported {
                    block: BLOCK,
                    what: "this kind of table",
                });
            }
        };
        Ok(IndexBody {
            part: u32_in(body, at::PART),
            rows,
        })
    }
}

/// What the three kinds of row have in common.
pub(crate) trait Row: Sized {
    const KIND: u32;
    const LEN: usize;
    fn encode_to(&self, row: &mut [u8]);
    /// `row` is at least `LEN` bytes.
    fn parse(row: &[u8]) -> Self;
}

pub(crate) fn encode_rows<R: Row>(part: u32, rows: &[R]) -> Vec<u8> {
    let mut body = vec![0; at::SIZE + rows.len() * R::LEN];
    put(&mut body, at::KIND, &R::KIND.to_le_bytes());
    put(&mut body, at::ROW_LEN, &(R::LEN as u32).to_le_bytes());
    put(&mut body, at::ROW_COUNT, &(rows.len() as u32).to_le_bytes());
    put(&mut body, at::PART, &part.to_le_bytes());
    for (row, bytes) in rows.iter().zip(body[at::SIZE..].chunks_exact_mut(R::LEN)) {
        row.encode_to(bytes);
    }
    body
}

/// Rows may be longer than this version knows them: `row_len` is the step.
fn parse_rows<R: Row>(body: &[u8]) -> Result<Vec<R>, BodyError> {
    let row_len = u32_in(body, at::ROW_LEN) as usize;
    if row_len < R::LEN {
        return Err(BodyError::Field {
            block: BLOCK,
            at: at::ROW_LEN.start,
            rule: "row_len is too small",
        });
    }
    let end = len_of(at::SIZE, u32_in(body, at::ROW_COUNT), row_len);
    need_len(BLOCK, body, end)?;
    Ok(body[at::SIZE..end].chunks_exact(row_len).map(R::parse).collect())
}

impl Row for ChunkRow {
    const KIND: u32 = KIND_CHUNKS;
    const LEN: usize = chunk_at::SIZE;

    fn encode_to(&self, row: &mut [u8]) {
        put(row, chunk_at::OFFSET, &self.offset.to_le_bytes());
        put(row, chunk_at::TOTAL_LEN, &self.total_len.to_le_bytes());
        put(row, chunk_at::STREAM_ROW, &self.stream_row.to_le_bytes());
        put(row, chunk_at::FIRST_S, &self.first_s.to_le_bytes());
        put(row, chunk_at::LAST_S, &self.last_s.to_le_bytes());
        put(row, chunk_at::BLOCK_NO, &self.block_no.to_le_bytes());
        put(row, chunk_at::STREAM_SEQ, &self.stream_seq.to_le_bytes());
    }

    fn parse(row: &[u8]) -> Self {
        ChunkRow {
            offset: u64_in(row, chunk_at::OFFSET),
            total_len: u32_in(row, chunk_at::TOTAL_LEN),
            stream_row: u32_in(row, chunk_at::STREAM_ROW),
            first_s: u64_in(row, chunk_at::FIRST_S),
            last_s: u64_in(row, chunk_at::LAST_S),
            block_no: u64_in(row, chunk_at::BLOCK_NO),
            stream_seq: u64_in(row, chunk_at::STREAM_SEQ),
        }
    }
}

impl Row for StreamRow {
    const KIND: u32 = KIND_STREAMS;
    const LEN: usize = stream_at::SIZE;

    fn encode_to(&self, row: &mut [u8]) {
        put(row, stream_at::STREAM_ID, &self.stream_id.0);
        put(row, stream_at::OFFSET, &self.offset.to_le_bytes());
        put(row, stream_at::SLOT, &self.slot.to_le_bytes());
        put(row, stream_at::CHUNKS, &self.chunks.to_le_bytes());
        put(row, stream_at::FIRST_S, &self.first_s.to_le_bytes());
        put(row, stream_at::LAST_S, &self.last_s.to_le_bytes());
        put(row, stream_at::BYTES, &self.bytes.to_le_bytes());
    }

    fn parse(row: &[u8]) -> Self {
        StreamRow {
            stream_id: StreamId(array_in(row, stream_at::STREAM_ID)),
            offset: u64_in(row, stream_at::OFFSET),
            slot: u32_in(row, stream_at::SLOT),
            chunks: u64_in(row, stream_at::CHUNKS),
            first_s: u64_in(row, stream_at::FIRST_S),
            last_s: u64_in(row, stream_at::LAST_S),
            bytes: u64_in(row, stream_at::BYTES),
        }
    }
}

impl Row for KeyRow {
    const KIND: u32 = KIND_KEYS;
    const LEN: usize = key_at::SIZE;

    fn encode_to(&self, row: &mut [u8]) {
        put(row, key_at::OFFSET, &self.offset.to_le_bytes());
        put(row, key_at::TOTAL_LEN, &self.total_len.to_le_bytes());
        put(row, key_at::ENTRY_COUNT, &self.entry_count.to_le_bytes());
    }

    fn parse(row: &[u8]) -> Self {
        KeyRow {
            offset: u64_in(row, key_at::OFFSET),
            total_len: u32_in(row, key_at::TOTAL_LEN),
            entry_count: u32_in(row, key_at::ENTRY_COUNT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> [IndexBody; 3] {
        let chunk = ChunkRow {
            offset: 8192,
            total_len: 65_536,
            stream_row: 1,
            first_s: 2,
            last_s: 3,
            block_no: 4,
            stream_seq: 5,
        };
        let stream = StreamRow {
            stream_id: StreamId([6; 16]),
            offset: 4096,
            slot: 7,
            chunks: 8,
            first_s: 9,
            last_s: 10,
            bytes: 11,
        };
        let key = KeyRow {
            offset: 12,
            total_len: 4096,
            entry_count: 3,
        };
        [
            IndexBody {
                part: 0,
                rows: IndexRows::Chunks(vec![chunk; 3]),
            },
            IndexBody {
                part: 1,
                rows: IndexRows::Streams(vec![stream; 2]),
            },
            IndexBody {
                part: 2,
                rows: IndexRows::Keys(vec![key]),
            },
        ]
    }

    #[test]
    fn each_table_comes_back_as_written() {
        for table in tables() {
            assert_eq!(IndexBody::parse(&table.encode()), Ok(table));
        }
    }

    #[test]
    fn every_cut_and_wild_count_is_refused() {
        for table in tables() {
            let whole = table.encode();
            for len in 0..whole.len() {
                assert!(IndexBody::parse(&whole[..len]).is_err(), "{len} bytes");
            }
            let mut wild = whole;
            wild[at::ROW_COUNT].fill(0xFF);
            assert!(IndexBody::parse(&wild).is_err());
        }
    }

    #[test]
    fn longer_rows_of_a_later_version_are_stepped_over() {
        let [chunks, ..] = tables();
        let body = chunks.encode();
        let mut longer = body[..at::SIZE].to_vec();
        put(&mut longer, at::ROW_LEN, &56u32.to_le_bytes());
        for row in body[at::SIZE..].chunks(chunk_at::SIZE) {
            longer.extend_from_slice(row);
            longer.extend_from_slice(&[0xFF; 8]);
        }
        assert_eq!(IndexBody::parse(&longer), Ok(chunks));
    }

    #[test]
    fn an_unknown_table_is_unsupported_rather_than_corrupt() {
        let mut body = tables()[0].encode();
        body[0] = 4;
        assert!(matches!(
            IndexBody::parse(&body),
            Err(BodyError::Unsupported { .. })
        ));
    }
}
