//! What a segment's INDEX will say, gathered while its blocks are placed or scanned.
//!
//! The writer fills the tables as it appends; recovery and verification fill them from a scan. Both must come to
//! the same rows, so there is one place that makes them.

use crate::block::{BlockType, Header, SEGMENT_PREFIX_LEN};
use crate::body::{ChunkRow, KeyBody, KeyRow, StreamRow};
use crate::ids::StreamId;
use std::collections::HashMap;

/// `stream_row` of a chunk whose STREAM block is not in the file: recovery keeps such a chunk all the same.
pub const NO_STREAM_ROW: u32 = u32::MAX;

/// The rows of a segment's blocks, in the order of their offsets.
#[derive(Default)]
pub struct Tables {
    /// One row for each CHUNK block.
    pub chunks: Vec<ChunkRow>,
    /// One row for each STREAM block.
    pub streams: Vec<StreamRow>,
    /// One row for each KEY block.
    pub keys: Vec<KeyRow>,
    /// Which row a stream is. Random ids do not collide, also not between origins.
    stream_rows: HashMap<StreamId, u32>,
    /// End of the last block that is not INDEX or FOOTER.
    pub data_end: u64,
}

impl Tables {
    /// Notes a whole, checked block at `offset`, wherever it comes from.
    pub fn note(&mut self, offset: u64, header: &Header, block: &[u8]) {
        match header.block_type {
            BlockType::Key => {
                // Of a body that does not parse nothing is known but that it is there.
                let entry_count =
                    KeyBody::parse(header.body(block)).map_or(0, |body| body.entries.len() as u32);
                self.keys.push(KeyRow {
                    offset,
                    total_len: header.total_len,
                    entry_count,
                });
            }
            BlockType::Stream => {
                self.add_stream(offset, header);
            }
            BlockType::Chunk => {
                let row = self
                    .stream_rows
                    .get(&header.stream_id)
                    .copied()
                    .unwrap_or(NO_STREAM_ROW);
                self.add_chunk(offset, header, row);
            }
            _ => {}
        }
        if !matches!(header.block_type, BlockType::Index | BlockType::Footer) {
            // The copy of the SEGMENT block is part of it: the next block stands behind both.
            self.data_end = match header.block_type {
                BlockType::Segment => SEGMENT_PREFIX_LEN as u64,
                _ => offset + u64::from(header.total_len),
            };
        }
    }

    /// Earliest and latest arrival over all chunks; zeros without any.
    pub fn first_and_last_s(&self) -> (u64, u64) {
        let first_s = self.chunks.iter().map(|row| row.first_s).min();
        let last_s = self.chunks.iter().map(|row| row.last_s).max();
        (first_s.unwrap_or(0), last_s.unwrap_or(0))
    }

    fn add_stream(&mut self, offset: u64, header: &Header) {
        // The first STREAM block of an id is the one; a duplicate of it adds nothing.
        let row = self.streams.len() as u32;
        if *self.stream_rows.entry(header.stream_id).or_insert(row) == row {
            let (stream_id, slot) = (header.stream_id, header.key_slot);
            self.streams.push(StreamRow {
                stream_id,
                offset,
                slot,
                chunks: 0,
                first_s: 0,
                last_s: 0,
                bytes: 0,
            });
        }
    }

    /// Allocates only when `chunks` has no room left.
    pub(super) fn add_chunk(&mut self, offset: u64, header: &Header, stream_row: u32) {
        let &Header {
            total_len,
            first_arrival_s: first_s,
            last_arrival_s: last_s,
            block_no,
            stream_seq,
            ..
        } = header;
        self.chunks.push(ChunkRow {
            offset,
            total_len,
            stream_row,
            first_s,
            last_s,
            block_no,
            stream_seq,
        });
        self.data_end = offset + u64::from(total_len);
        if let Some(stream) = self.streams.get_mut(stream_row as usize) {
            stream.first_s = if stream.chunks == 0 {
                first_s
            } else {
                stream.first_s.min(first_s)
            };
            stream.last_s = stream.last_s.max(last_s);
            stream.chunks += 1;
            stream.bytes += u64::from(total_len);
        }
    }
}
