//! Walking a segment block by block, without trusting its index, past whatever is broken.
//!
//! The grid of 4096 bytes is the only anchor. At each place stands an accepted block or not (docs/FORMAT.md §3.2, §3.3); after a
//! block the walk goes on at its end, after anything else 4096 bytes further. What lies between blocks comes out as one [`Gap`]
//! with the first reason why it is none, so that nothing between the walk's ends is left unsaid.
//!
//! A read error ends the walk with an error. It is never taken for the end of the segment.

use std::io;

use crate::block::{BLOCK_ALIGN, BlockError, BlockType, Header, MAX_BLOCK_LEN, SEGMENT_PREFIX_LEN, Stored};
use crate::body::{BodyError, OriginBody};
use crate::ids::SegmentId;
use crate::layout::all_zero;
use crate::planted::{Planted, planted};
use crate::source::Source;

/// Bytes asked of the source at a time: what is read stays in a core's own cache (512 KiB and more) while it is checked, hashed and opened,
/// which makes a tenth of the speed. A disk streams all the same, by the kernel's reading ahead.
const PIECE_LEN: usize = 256 << 10;
const ALIGN: u64 = BLOCK_ALIGN as u64;

/// The headers that one gap remembers: enough to name the streams of ordinary damage, bounded in a file full of it.
const GAP_HEADERS: usize = 64;

/// Why a segment could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed. Says nothing about the segment.
    #[error("cannot read at offset {offset}: {why}")]
    Io {
        /// The first 4096-byte page that could not be read.
        offset: u64,
        /// What the source said.
        why: io::Error,
    },
    /// The bytes are something else altogether.
    #[error("not a Harborseal segment: {0}")]
    NotASegment(&'static str),
    /// A file that was created and reserved, but whose first blocks never reached the disk. It holds nothing.
    #[error("the segment was never begun: it holds no block")]
    NeverBegun,
    /// Both copies of the SEGMENT block are gone, while other blocks are still there.
    #[error(
        "both SEGMENT blocks are damaged, at offsets 0 and 4096; a block of segment {segment_id} stands at {offset}"
    )]
    HeadLost {
        /// The first valid block.
        offset: u64,
        /// What it says it belongs to.
        segment_id: SegmentId,
    },
    /// Written by a later version of the format, or with a feature that this one does not have. Not damage.
    #[error("unsupported at offset {offset}: {what}")]
    Unsupported {
        /// Of the block that asks for it.
        offset: u64,
        /// What is not supported.
        what: String,
    },
    /// A block that had to be there is not, or says something impossible.
    #[error("damaged at offset {offset}: {what}")]
    Damaged {
        /// Of the block.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl ReadError {
    /// The class that docs/FORMAT.md §13 gives it; `io` if it is the source that failed, of which the format says nothing.
    pub fn class(&self) -> &'static str {
        match self {
            ReadError::Io { .. } => "io",
            ReadError::NotASegment(_) => "not_a_segment",
            ReadError::NeverBegun => "never_begun",
            ReadError::HeadLost { .. } => "head_lost",
            ReadError::Unsupported { .. } => "unsupported",
            ReadError::Damaged { .. } => "damaged",
        }
    }

    /// The offset that goes with the class: of a file that is refused whole, 0.
    pub fn offset(&self) -> u64 {
        match self {
            ReadError::Io { offset, .. }
            | ReadError::Unsupported { offset, .. }
            | ReadError::Damaged { offset, .. } => *offset,
            ReadError::NotASegment(_) | ReadError::NeverBegun | ReadError::HeadLost { .. } => 0,
        }
    }

    /// Sorts what a body's parser says into damage and "not supported".
    pub fn of_body(offset: u64, error: &BodyError) -> Self {
        let what = error.to_string();
        match error {
            BodyError::Unsupported { .. } => ReadError::Unsupported { offset, what },
            _ => ReadError::Damaged { offset, what },
        }
    }
}

/// An accepted block.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Where it stands in the file.
    pub offset: u64,
    /// Its header.
    pub header: Header,
    /// All its bytes, from header to padding.
    pub bytes: &'a [u8],
    /// Whether its body is there. That of an erased CHUNK is not.
    pub stored: Stored,
}

impl<'a> Block<'a> {
    /// Where the next block stands.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.header.total_len)
    }

    /// A CHUNK whose body was given back to the disk.
    pub fn is_erased(&self) -> bool {
        self.stored == Stored::Erased
    }

    /// The body as stored.
    pub fn body(&self) -> &'a [u8] {
        self.header.body(self.bytes)
    }

    /// A critical block of a type that this version does not know: reading on as if it were not there could be wrong.
    pub fn refuse_unknown_critical(&self) -> Result<(), ReadError> {
        let kind = self.header.block_type;
        if kind.is_known() || !self.header.is_critical() {
            return Ok(());
        }
        Err(ReadError::Unsupported {
            offset: self.offset,
            what: format!("a critical block of unknown type {:#04x}", kind.as_u8()),
        })
    }
}

/// Why a place holds no accepted block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Nothing but zeros.
    Zero,
    /// Not a whole block.
    Broken(BlockError),
    /// A whole block of another segment, which no ORIGIN before it names.
    Foreign(SegmentId),
    /// A second SEGMENT or FOOTER of this segment, where none may stand.
    Misplaced(BlockType),
}

impl std::fmt::Display for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GapReason::Zero => f.write_str("zeros where a block should be"),
            GapReason::Broken(error) => error.fmt(f),
            GapReason::Foreign(id) => write!(f, "a block of segment {id}, which no ORIGIN block names"),
            GapReason::Misplaced(kind) => write!(f, "a {} block out of place", kind.name()),
        }
    }
}

/// Bytes between blocks, or after the last one.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Where it begins: a block's end, or 8192.
    pub offset: u64,
    /// Bytes. A multiple of 4096, except at the end of a cut file.
    pub len: u64,
    /// What stands at its first place that is not zeros; [`GapReason::Zero`] if it is all zeros.
    pub reason: GapReason,
    /// Headers that are still whole in it, the first 64: what was there.
    pub headers: Vec<Header>,
}

impl Gap {
    /// The first byte after it.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    fn add(&mut self, len: u64, reason: GapReason, header: Option<Header>) {
        self.len += len;
        if self.reason == GapReason::Zero {
            self.reason = reason;
        }
        if self.headers.len() < GAP_HEADERS {
            self.headers.extend(header);
        }
    }
}

/// What the walk meets.
#[derive(Debug)]
pub enum Item<'a> {
    /// An accepted block. Its type may be unknown: critical ones are for the caller to refuse.
    Block(Block<'a>),
    /// The space up to the next accepted block or the end.
    Gap(Gap),
}

/// The walk. Memory is bounded by its window of 1 MiB, a largest block, and the file's ORIGIN blocks.
#[derive(Debug)]
pub struct Scanner<S> {
    window: Window<S>,
    segment_id: SegmentId,
    origins: Vec<OriginBody>,
    at: u64,
    /// The block at `at`, judged when the gap before it ended.
    judged: Option<(Header, Stored)>,
}

enum Verdict {
    Accepted(Header, Stored),
    Rejected(GapReason, Option<Header>),
}

impl<S: Source> Scanner<S> {
    /// Walks the blocks of `segment_id` from 8192 on.
    pub fn new(source: S, segment_id: SegmentId) -> Self {
        Scanner {
            window: Window::new(source),
            segment_id,
            origins: Vec::new(),
            at: SEGMENT_PREFIX_LEN as u64,
            judged: None,
        }
    }

    /// How far the walk has come, in bytes.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next block or gap; `None` at the end.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        if let Some((header, stored)) = self.judged.take() {
            return self.take(header, stored).map(Some);
        }
        if self.at >= self.window.len() {
            return Ok(None);
        }
        match self.judge()? {
            Verdict::Accepted(header, stored) => self.take(header, stored).map(Some),
            Verdict::Rejected(reason, header) => self.gap(reason, header).map(|gap| Some(Item::Gap(gap))),
        }
    }

    /// Hands out the block at `at` and steps over it.
    fn take(&mut self, header: Header, stored: Stored) -> Result<Item<'_>, ReadError> {
        let offset = self.at;
        self.at += u64::from(header.total_len);
        let bytes = self.window.bytes(offset, header.total_len as usize)?;
        let block = Block {
            offset,
            header,
            bytes,
            stored,
        };
        if header.block_type == BlockType::Origin
            && let Ok(origin) = OriginBody::parse(block.body())
        {
            self.origins.push(origin);
        }
        Ok(Item::Block(block))
    }

    /// Resyncs: steps over the grid until a block is accepted.
    fn gap(&mut self, reason: GapReason, header: Option<Header>) -> Result<Gap, ReadError> {
        let mut gap = Gap {
            offset: self.at,
            len: 0,
            reason: GapReason::Zero,
            headers: Vec::new(),
        };
        let mut verdict = Verdict::Rejected(reason, header);
        loop {
            match verdict {
                Verdict::Accepted(header, stored) => {
                    self.judged = Some((header, stored));
                    return Ok(gap);
                }
                Verdict::Rejected(reason, header) => gap.add(self.step(reason), reason, header),
            }
            self.at = gap.end();
            if self.at >= self.window.len() {
                return Ok(gap);
            }
            verdict = self.judge()?;
        }
    }

    /// How far to go from a place that holds no block: one page, or over a hole that the source knows of.
    fn step(&self, reason: GapReason) -> u64 {
        let len = self.window.len();
        let page_end = (self.at + ALIGN).min(len);
        if reason != GapReason::Zero || self.window.holds(page_end) {
            return page_end - self.at;
        }
        let data = self.window.source.next_data(page_end);
        // A hole may end inside a page. At the file's end the last page may be short.
        let data = if data >= len { len } else { data / ALIGN * ALIGN };
        data.max(page_end) - self.at
    }

    fn judge(&mut self) -> Result<Verdict, ReadError> {
        let left = self.window.len() - self.at;
        let page = self.window.bytes(self.at, left.min(ALIGN) as usize)?;
        if all_zero(page) {
            return Ok(Verdict::Rejected(GapReason::Zero, None));
        }
        let header = match Header::parse(page) {
            Ok(header) => header,
            Err(error) => return Ok(Verdict::Rejected(GapReason::Broken(error), None)),
        };
        let needed = header.total_len as usize;
        if left < needed as u64 {
            let cut = BlockError::Cut {
                len: left as usize,
                needed,
            };
            return Ok(Verdict::Rejected(GapReason::Broken(cut), Some(header)));
        }
        let block = self.window.bytes(self.at, needed)?;
        Ok(match header.check_body(block) {
            Err(error) => Verdict::Rejected(GapReason::Broken(error), Some(header)),
            Ok(stored) => match self.accept(&header) {
                None => Verdict::Accepted(header, stored),
                Some(reason) => Verdict::Rejected(reason, Some(header)),
            },
        })
    }

    /// Why a whole block is not one of this file's; `None` if it is.
    fn accept(&self, header: &Header) -> Option<GapReason> {
        let own = header.segment_id == self.segment_id || planted(Planted::StrangersAccepted);
        match header.block_type {
            BlockType::Segment => Some(GapReason::Misplaced(header.block_type)),
            BlockType::Footer if !own => Some(GapReason::Foreign(header.segment_id)),
            _ if own => None,
            _ => {
                let named = |origin: &OriginBody| origin.covers(&header.segment_id, header.block_no);
                (!self.origins.iter().any(named)).then_some(GapReason::Foreign(header.segment_id))
            }
        }
    }
}

/// A stretch of the source in memory, moved forward only.
#[derive(Debug)]
pub(crate) struct Window<S> {
    pub(crate) source: S,
    len: u64,
    buf: Vec<u8>,
    /// Where `buf[0]` stands in the source.
    start: u64,
    filled: usize,
}

impl<S: Source> Window<S> {
    pub(crate) fn new(source: S) -> Self {
        let len = source.len();
        Window {
            source,
            len,
            buf: Vec::new(),
            start: 0,
            filled: 0,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether the byte at `offset` is in memory already.
    fn holds(&self, offset: u64) -> bool {
        (self.start..self.start + self.filled as u64).contains(&offset)
    }

    /// `len` bytes at `offset`, inside the source. Offsets must not go back behind the last one asked for.
    pub(crate) fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], ReadError> {
        debug_assert!(len <= MAX_BLOCK_LEN && offset + len as u64 <= self.len);
        if offset < self.start || offset + len as u64 > self.start + self.filled as u64 {
            self.advance(offset, len)?;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.buf[from..from + len])
    }

    /// Moves the window to begin at `offset` and fills it, with `len` bytes at least.
    fn advance(&mut self, offset: u64, len: usize) -> Result<(), ReadError> {
        let want = (self.len - offset).min(len.max(PIECE_LEN) as u64) as usize;
        if self.buf.len() < want {
            self.buf.resize(want, 0);
        }
        let kept = if self.holds(offset) {
            let from = (offset - self.start) as usize;
            self.buf.copy_within(from..self.filled, 0);
            self.filled - from
        } else {
            0
        };
        self.start = offset;
        self.filled = kept;
        read_naming_the_page(&self.source, offset + kept as u64, &mut self.buf[kept..want])?;
        self.filled = want;
        Ok(())
    }
}

/// Reads, and on failure finds the first page that fails, so that the error names a place and not a stretch.
pub(crate) fn read_naming_the_page<S: Source>(
    source: &S,
    offset: u64,
    buf: &mut [u8],
) -> Result<(), ReadError> {
    let Err(why) = source.read_at(offset, buf) else {
        return Ok(());
    };
    let mut at = offset;
    for page in buf.chunks_mut(BLOCK_ALIGN) {
        if let Err(why) = source.read_at(at, page) {
            return Err(ReadError::Io { offset: at, why });
        }
        at += page.len() as u64;
    }
    // Every page can be read now: the source failed as a whole, or for a moment. It is an error all the same.
    Err(ReadError::Io { offset, why })
}
