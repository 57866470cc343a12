//! Recovery: closing segments that no process writes any more, after a crash or after damage.
//!
//! This decides and makes bytes; who has the file writes them. The decision (docs/FORMAT.md §9) never changes a byte below the
//! floor and comes out the same again if a crash interrupts carrying it out:
//!
//! - a healthy torn tail is closed in place: INDEX and FOOTER(RECOVERED) behind the last whole block, nothing is copied;
//! - damage below the floor is corruption: the original stays as it is, and a copy is made beside it, each block at its old
//!   offset, TOMBSTONE(lost) in the holes.

use crate::block::{
    BLOCK_ALIGN, BlockType, Header, MAX_BLOCK_LEN, SEGMENT_PREFIX_LEN, encode_block, parse_block,
};
use crate::body::{TombstoneBody, TombstoneKind};
use crate::head::Head;
use crate::ids::SegmentId;
use crate::node::NodeKey;
use crate::planted::{Planted, planted};
use crate::reader::State;
use crate::scan::{Block, Item, ReadError, Scanner};
use crate::source::Source;
use crate::verify::survey::{Survey, survey};
use crate::verify::{Report, Severity};
use crate::writer::{FinishParams, Finished, SegmentWriter};

/// What is to be done about a segment.
#[derive(Debug)]
pub enum Plan {
    /// It is closed, and whole.
    AlreadyClosed(Report),
    /// It was prepared and never used: it holds keys, and no chunk. Nothing is lost if it is deleted, unless others of its chain come after
    /// it: then it would be missed, and is closed like this.
    Unused(CloseTail),
    /// Its tail is to be closed.
    CloseTail(CloseTail),
    /// Blocks that were durable are damaged.
    Corrupt(Repair),
}

/// How to close a segment in place: cut the file at `offset`, lengthen it to [`CloseTail::room`], fsync; write `bytes` at `offset`, fdatasync;
/// cut the file at [`CloseTail::end`], fsync. Where `bytes` is empty, fdatasync and the last cut: that the tail is there to be read does not say
/// that it is durable.
#[derive(Debug)]
pub struct CloseTail {
    /// What was found.
    pub report: Report,
    /// Where to write: the end of the last block.
    pub offset: u64,
    /// INDEX and FOOTER; empty where only the cut is missing.
    pub bytes: Vec<u8>,
}

impl CloseTail {
    /// How long the file must be, with nothing but zeros from `offset` on, before the tail is written. Were the FOOTER its last page at once,
    /// a crash could leave that page and not the INDEX before it: a closed segment with a hole, which is corruption and no torn tail. And
    /// what an attempt before this one left further back would stand behind the FOOTER.
    pub fn room(&self) -> u64 {
        self.end() + BLOCK_ALIGN as u64
    }

    /// Where the file ends.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// How to make the repaired copy of a corrupt segment: carry out the pieces, which lie one behind the other from 0 on.
#[derive(Debug)]
pub struct Repair {
    /// What was found.
    pub report: Report,
    /// What the copy consists of.
    pub pieces: Vec<Piece>,
}

/// A part of a repaired copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `len` bytes of the original at `offset`, to the same offset.
    Copy {
        /// In both files.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// New bytes, then zeros.
    Write {
        /// In the copy.
        offset: u64,
        /// SEGMENT blocks, a tombstone, or INDEX and FOOTER.
        bytes: Vec<u8>,
        /// Bytes in all: a tombstone over a megabyte of hole is 208 bytes and the rest of it zeros.
        len: u64,
    },
}

impl Piece {
    fn write(offset: u64, bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        Piece::Write { offset, bytes, len }
    }
}

/// Decides what to do. `node` is the key of the node that wrote the segment, if it is at hand: only with it will the FOOTER be signed.
/// `progress` is told how many bytes were read, often; it may wait, to bound the rate. Of a corrupt segment they are read twice.
pub fn plan<S: Source>(
    source: &S,
    node: Option<&NodeKey>,
    now_s: u64,
    mut progress: impl FnMut(u64),
) -> Result<Plan, ReadError> {
    let head = Head::read(source)?;
    refuse_ro_compat(&head)?;
    let node = node.filter(|node| node.public().0 == head.body.node_key);
    let mut tail = Tail::new(&head);
    let survey = survey(source, None, &mut |reached, block| {
        if let Some(block) = block {
            tail.add(block);
        }
        progress(reached);
    })?;
    refuse_unsupported(&survey)?;
    if survey.findings.count(Severity::Damage) > 0 {
        return repair(source, survey, node, now_s, &mut progress).map(Plan::Corrupt);
    }
    if survey.state() == State::Open {
        let unused = survey.is_unused();
        let finished = tail.writer.finish(node, params(&survey, now_s));
        let close = close(survey, finished);
        return Ok(if unused {
            Plan::Unused(close)
        } else {
            Plan::CloseTail(close)
        });
    }
    let (footer_at, _) = survey.footer.expect("a segment that is not open has one");
    let end = footer_at + BLOCK_ALIGN as u64;
    Ok(match end == survey.file_len() {
        true => Plan::AlreadyClosed(survey.into_report()),
        false => Plan::CloseTail(CloseTail {
            report: survey.into_report(),
            offset: end,
            bytes: Vec::new(),
        }),
    })
}

fn close(survey: Survey<'_>, finished: Finished) -> CloseTail {
    CloseTail {
        report: survey.into_report(),
        offset: finished.offset,
        bytes: finished.bytes,
    }
}

fn params(survey: &Survey<'_>, now_s: u64) -> FinishParams {
    FinishParams::recovered(survey.prev_root, survey.floor, now_s, survey.signed_leaf_count)
}

fn refuse_ro_compat(head: &Head) -> Result<(), ReadError> {
    match head.body.ro_compat {
        0 => Ok(()),
        bits => Err(ReadError::Unsupported {
            offset: 0,
            what: format!("read-only features {bits:#x}: this version may read it and not change it"),
        }),
    }
}

fn refuse_unsupported(survey: &Survey<'_>) -> Result<(), ReadError> {
    let unsupported = survey
        .findings
        .iter()
        .find(|finding| finding.severity() == Severity::Unsupported);
    match unsupported {
        None => Ok(()),
        Some(finding) => Err(ReadError::Unsupported {
            offset: finding.offset,
            what: finding.what.to_string(),
        }),
    }
}

/// A writer that follows the scan. INDEX blocks and a FOOTER are held back and dropped at the end: they are rebuilt. If anything else
/// comes behind them they were no end, and stay as they are.
struct Tail {
    writer: SegmentWriter,
    held: Vec<(u64, Vec<u8>)>,
}

impl Tail {
    fn new(head: &Head) -> Self {
        let mut writer = SegmentWriter::adopting(head.id);
        let header = parse_block(&head.block).expect("the head was read from a whole block");
        writer.adopt(0, &header, &head.block);
        Tail {
            writer,
            held: Vec::new(),
        }
    }

    fn add(&mut self, block: &Block<'_>) {
        match block.header.block_type {
            BlockType::Index => self.held.push((block.offset, block.bytes.to_vec())),
            BlockType::Footer => {}
            _ if block.offset > self.writer.next_offset()
                && self.held.is_empty()
                && planted(Planted::IslandCutOff) => {}
            _ => {
                self.release();
                self.writer.adopt(block.offset, &block.header, block.bytes);
            }
        }
    }

    fn release(&mut self) {
        for (offset, bytes) in self.held.drain(..) {
            let header = Header::parse(&bytes).expect("it was accepted as a block");
            self.writer.adopt(offset, &header, &bytes);
        }
    }
}

/// The pieces of a repaired copy, gathered along a second scan.
struct Copy {
    segment_id: SegmentId,
    tail: Tail,
    pieces: Vec<Piece>,
    /// Where the data must reach, whatever is left of it.
    data_end: u64,
    /// The number after the last block of the segment's own. A tombstone uses none up.
    next_block_no: u64,
    now_s: u64,
}

fn repair<S: Source>(
    source: &S,
    survey: Survey<'_>,
    node: Option<&NodeKey>,
    now_s: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Repair, ReadError> {
    let head = &survey.head;
    let read_before = survey.file_len();
    let mut copy = Copy {
        segment_id: head.id,
        tail: Tail::new(head),
        pieces: vec![Piece::write(0, head.block.repeat(2))],
        // The FOOTER may lie, but not about what is beyond itself.
        data_end: match &survey.footer {
            Some((footer_at, footer)) => footer.data_end.min(*footer_at),
            None => survey.floor,
        },
        next_block_no: 1,
        now_s,
    };
    let mut scanner = Scanner::new(source, head.id);
    let mut at = SEGMENT_PREFIX_LEN as u64;
    while let Some(item) = scanner.next_item()? {
        let Item::Block(block) = item else { continue };
        if matches!(block.header.block_type, BlockType::Index | BlockType::Footer) {
            continue;
        }
        copy.fill(at, block.offset);
        copy.take(&block);
        at = block.end();
        progress(read_before + at);
    }
    // A hole at the end of what must be there. Its last byte is known to the page.
    let end = copy.data_end.next_multiple_of(BLOCK_ALIGN as u64);
    copy.fill(at, end);
    let finished = copy.tail.writer.finish(node, params(&survey, now_s));
    copy.pieces.push(Piece::write(finished.offset, finished.bytes));
    Ok(Repair {
        report: survey.into_report(),
        pieces: copy.pieces,
    })
}

impl Copy {
    fn take(&mut self, block: &Block<'_>) {
        self.tail.writer.adopt(block.offset, &block.header, block.bytes);
        if block.header.segment_id == self.segment_id {
            self.next_block_no = block.header.block_no + 1;
        }
        let more = u64::from(block.header.total_len);
        match self.pieces.last_mut() {
            Some(Piece::Copy { offset, len }) if *offset + *len == block.offset => *len += more,
            _ => self.pieces.push(Piece::Copy {
                offset: block.offset,
                len: more,
            }),
        }
    }

    /// Puts tombstones in a hole, all with the number of the first block that is missing there.
    fn fill(&mut self, from: u64, to: u64) {
        let block_no = self.next_block_no;
        let mut offset = from;
        while offset < to {
            let len = (to - offset).min(MAX_BLOCK_LEN as u64) as u32;
            let mut bytes = tombstone(self.segment_id, block_no, len, self.now_s);
            let header = Header::parse(&bytes).expect("it was just made");
            self.tail.writer.adopt(offset, &header, &bytes);
            bytes.truncate(header.body_end());
            let len = u64::from(len);
            self.pieces.push(Piece::Write { offset, bytes, len });
            offset += len;
        }
    }
}

/// TOMBSTONE(lost), as long as the hole.
fn tombstone(segment_id: SegmentId, block_no: u64, len: u32, now_s: u64) -> Vec<u8> {
    let body = TombstoneBody {
        kind: TombstoneKind::Lost,
        time_s: now_s,
        signature: [0; 64],
    }
    .encode();
    let header = Header {
        total_len: len,
        ..Header::new(BlockType::Tombstone, segment_id, block_no, body.len())
    };
    encode_block(header, &body)
}
