//! A segment as a reader sees it: its tables, and through them the streams and chunks of one identity.
//!
//! A closed segment is read through its footer: the footer, the stream and key tables, the KEY and STREAM blocks of whom it is read for, and
//! of the chunk table and the chunks only what is asked for; each of them once, and what stands together in one read. The index is never
//! believed, only followed: every block it leads to is checked like any other, and where it leads astray, or where there is no
//! footer, the blocks are found by scanning.

mod ahead;
mod chunks;
mod streams;

pub use chunks::{Chunks, leads_to, open_chunks, together};

use ahead::Ahead;

use crate::block::{BLOCK_ALIGN, BlockType, SEGMENT_PREFIX_LEN, parse_block};
use crate::body::{FOOTER_RECOVERED, FooterBody, IndexBody, IndexRows, OriginBody, StreamRow};
use crate::head::Head;
use crate::ids::SegmentId;
use crate::open::{OpenError, Origin};
use crate::scan::{Gap, Item, ReadError, Scanner, read_naming_the_page};
use crate::source::{Access, Source};
use crate::writer::Tables;

const ALIGN: u64 = BLOCK_ALIGN as u64;

/// How far a segment has got in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No footer: being written, or left by a crash.
    Open,
    /// Closed by its writer.
    Sealed,
    /// Closed by recovery.
    Recovered,
}

impl State {
    /// The word for it in listings and JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Sealed => "sealed",
            State::Recovered => "recovered",
        }
    }
}

/// A segment, its head and its tables.
pub struct Segment<S> {
    source: S,
    head: Head,
    footer: Option<FooterBody>,
    /// Streams and keys; chunks only if the segment was scanned.
    tables: Tables,
    origins: Vec<Origin>,
    scanned: bool,
    gaps: Vec<Gap>,
}

/// Why an identity gets nothing, or not all, of a segment.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The segment could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No KEY entry opens with this identity.
    #[error("nothing here is for this identity")]
    NothingForIdentity,
    /// Chunks of the stream that are not in this file, told by a jump of stream_seq.
    #[error("{count} chunks of the stream are missing, from stream_seq {first} on")]
    ChunksMissing {
        /// The first missing stream_seq.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Something of this identity's was changed.
    #[error("at offset {offset}: {why}")]
    Open {
        /// Of the STREAM or CHUNK block.
        offset: u64,
        /// What does not hold.
        why: OpenError,
    },
}

/// The last 4096 bytes, if they are a whole FOOTER of this segment. Its claims are not checked here.
pub fn read_footer<S: Source + ?Sized>(source: &S, head: &Head) -> Result<Option<FooterBody>, ReadError> {
    let len = source.len();
    if len < SEGMENT_PREFIX_LEN as u64 + ALIGN || !len.is_multiple_of(ALIGN) {
        return Ok(None);
    }
    let mut tail = vec![0; BLOCK_ALIGN];
    read_naming_the_page(&source, len - ALIGN, &mut tail)?;
    Ok(parse_block(&tail)
        .ok()
        .filter(|header| header.block_type == BlockType::Footer && header.segment_id == head.id)
        .and_then(|header| FooterBody::parse(header.body(&tail)).ok()))
}

/// What stream and key tables say that cannot be so.
fn contradiction(tables: &Tables, footer: &FooterBody) -> Option<&'static str> {
    let rise = tables.streams.is_sorted_by(|a, b| a.offset < b.offset)
        && tables.keys.is_sorted_by(|a, b| a.offset < b.offset);
    // Otherwise a block could be listed, and paid for, any number of times.
    if !rise {
        return Some("the index is out of order");
    }
    let counted = tables
        .streams
        .iter()
        .fold(0u64, |sum, row| sum.saturating_add(row.chunks));
    // Only a crash loses a STREAM block and leaves its chunks.
    if footer.flags & FOOTER_RECOVERED == 0 && counted != footer.chunk_count {
        return Some("the index lacks streams");
    }
    (tables.keys.is_empty() && counted > 0).then_some("the index lacks keys")
}

impl<S: Source> Segment<S> {
    /// Reads head, footer and tables; scans if there is no footer or its tables cannot be read.
    pub fn open(source: S) -> Result<Self, ReadError> {
        let head = Head::read(&source)?;
        Self::open_with(source, head)
    }

    /// The same for somebody who has read the head.
    pub fn open_with(source: S, head: Head) -> Result<Self, ReadError> {
        source.expect(Access::Scattered);
        let footer = read_footer(&source, &head)?;
        let mut segment = Segment {
            source,
            head,
            footer,
            tables: Tables::default(),
            origins: Vec::new(),
            scanned: false,
            gaps: Vec::new(),
        };
        match footer {
            Some(footer) if segment.load_tables(&footer).is_ok() => {}
            _ => segment.scan()?,
        }
        Ok(segment)
    }

    /// What the SEGMENT block says.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What the FOOTER says, in a closed segment.
    pub fn footer(&self) -> Option<&FooterBody> {
        self.footer.as_ref()
    }

    /// How far it has got.
    pub fn state(&self) -> State {
        match &self.footer {
            None => State::Open,
            Some(footer) if footer.flags & FOOTER_RECOVERED != 0 => State::Recovered,
            Some(_) => State::Sealed,
        }
    }

    /// The source it is read from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Its streams, in the order of their STREAM blocks.
    pub fn streams(&self) -> &[StreamRow] {
        &self.tables.streams
    }

    /// Whether its tables come from a walk over all of it, and not from its index.
    pub fn is_scanned(&self) -> bool {
        self.scanned
    }

    /// What a scan found between and behind the blocks; empty if the index was followed.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Stream and key tables from the index. An error of any kind means: scan.
    fn load_tables(&mut self, footer: &FooterBody) -> Result<(), ReadError> {
        let mut tables = Tables::default();
        self.index_rows(footer.streams_offset, footer.streams_len, |rows| match rows {
            IndexRows::Streams(rows) => {
                tables.streams.extend(rows);
                true
            }
            _ => false,
        })?;
        self.index_rows(footer.keys_offset, footer.keys_len, |rows| match rows {
            IndexRows::Keys(rows) => {
                tables.keys.extend(rows);
                true
            }
            _ => false,
        })?;
        if let Some(what) = contradiction(&tables, footer) {
            let (offset, what) = (footer.streams_offset, what.into());
            return Err(ReadError::Damaged { offset, what });
        }
        self.tables = tables;
        Ok(())
    }

    /// Feeds the tables in `len` bytes of INDEX blocks at `offset` to `take`, which refuses those of another kind.
    fn index_rows(
        &self,
        offset: u64,
        len: u64,
        mut take: impl FnMut(IndexRows) -> bool,
    ) -> Result<(), ReadError> {
        let wrong = |offset, what: &str| ReadError::Damaged {
            offset,
            what: what.into(),
        };
        let end = offset
            .checked_add(len)
            .ok_or_else(|| wrong(offset, "the index is out of bounds"))?;
        let mut blocks = Ahead::new(&self.source);
        let mut at = offset;
        while at < end {
            let (header, _, bytes) = blocks.block(at, end)?;
            if header.block_type != BlockType::Index {
                return Err(wrong(at, "it is not an INDEX block"));
            }
            let body =
                IndexBody::parse(header.body(bytes)).map_err(|error| ReadError::of_body(at, &error))?;
            if !take(body.rows) {
                return Err(wrong(at, "it indexes something else"));
            }
            at += u64::from(header.total_len);
        }
        Ok(())
    }

    /// Finds streams, keys and chunks by walking the whole segment: what to do once its index has led astray.
    pub fn scan(&mut self) -> Result<(), ReadError> {
        self.source.expect(Access::Whole);
        let (mut tables, mut origins, mut gaps) = (Tables::default(), Vec::new(), Vec::new());
        let mut scanner = Scanner::new(&self.source, self.head.id);
        while let Some(item) = scanner.next_item()? {
            match item {
                Item::Block(block) => {
                    block.refuse_unknown_critical()?;
                    tables.note(block.offset, &block.header, block.bytes);
                    if block.header.block_type == BlockType::Origin {
                        let origin = OriginBody::parse(block.body());
                        origins.extend(origin.map(|origin| Origin::from(&origin)));
                    }
                }
                Item::Gap(gap) => gaps.push(gap),
            }
        }
        self.tables = tables;
        self.origins = origins;
        self.gaps = gaps;
        self.scanned = true;
        Ok(())
    }

    /// What is known of a segment whose blocks stand in this file: itself, or one that an ORIGIN block names.
    pub fn origin_of(&self, segment_id: SegmentId) -> Option<Origin> {
        if segment_id == self.head.id {
            return Some(self.head.origin());
        }
        let origins = self.origins.iter();
        origins.copied().find(|origin| origin.segment_id == segment_id)
    }
}
