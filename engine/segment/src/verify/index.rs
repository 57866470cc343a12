//! Comparing the index with what a scan finds, row by row, without holding either whole.

use crate::block::{BLOCK_ALIGN, BlockType, MAX_BLOCK_LEN, parse_block};
use crate::body::{ChunkRow, FooterBody, IndexBody, IndexRows};
use crate::ids::SegmentId;
use crate::scan::{ReadError, read_naming_the_page};
use crate::source::Source;

/// Reads the chunk rows of the index beside the scan, one INDEX block at a time: 1 MiB at most.
pub(super) struct ChunkRows<S> {
    source: S,
    segment_id: SegmentId,
    at: u64,
    end: u64,
    rows: std::vec::IntoIter<ChunkRow>,
    /// A row differed, which is said once, or could not be read: comparing on would only repeat it.
    pub(super) differs: bool,
}

impl<S: Source> ChunkRows<S> {
    pub(super) fn new(source: S, segment_id: SegmentId, footer: &FooterBody) -> Self {
        ChunkRows {
            source,
            segment_id,
            at: footer.chunks_offset,
            end: footer.chunks_offset.saturating_add(footer.chunks_len),
            rows: Vec::new().into_iter(),
            differs: false,
        }
    }

    /// Compares the next row with what was found; `None` at the end. True if they differ, for the first time.
    pub(super) fn compare(&mut self, found: Option<&ChunkRow>) -> Result<bool, ReadError> {
        if self.differs {
            return Ok(false);
        }
        let next = match self.rows.next() {
            Some(row) => Some(row),
            None => {
                if !self.fill()? {
                    self.differs = true;
                    return Ok(false);
                }
                self.rows.next()
            }
        };
        self.differs |= next.as_ref() != found;
        Ok(self.differs)
    }

    /// Takes the next block's rows; false if there is no INDEX block of chunks where the FOOTER says. What is wrong there, the scan says
    /// when it comes there, or the FOOTER's figures do: no chunk is to blame for it.
    fn fill(&mut self) -> Result<bool, ReadError> {
        if self.at >= self.end {
            return Ok(true);
        }
        let left = self
            .source
            .len()
            .saturating_sub(self.at)
            .min(MAX_BLOCK_LEN as u64) as usize;
        if left < BLOCK_ALIGN {
            return Ok(false);
        }
        let mut bytes = vec![0; BLOCK_ALIGN];
        read_naming_the_page(&self.source, self.at, &mut bytes)?;
        let len = crate::block::Header::parse(&bytes).map_or(0, |header| header.total_len as usize);
        if len > left {
            return Ok(false);
        }
        bytes.resize(len, 0);
        read_naming_the_page(&self.source, self.at, &mut bytes)?;
        let rows = parse_block(&bytes)
            .ok()
            .filter(|header| (header.block_type, header.segment_id) == (BlockType::Index, self.segment_id))
            .and_then(|header| IndexBody::parse(header.body(&bytes)).ok());
        let Some(IndexBody {
            rows: IndexRows::Chunks(rows),
            ..
        }) = rows
        else {
            return Ok(false);
        };
        self.rows = rows.into_iter();
        self.at += len as u64;
        Ok(true)
    }
}

/// Where the INDEX blocks of one kind were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Span {
    /// Adds a block; a kind whose blocks do not stand together has no span that a FOOTER could state.
    pub(super) fn add(&mut self, offset: u64, len: u64) {
        if self.len == 0 {
            self.offset = offset;
        }
        self.len += len;
    }
}
