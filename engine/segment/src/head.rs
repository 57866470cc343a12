//! The head of a file: which segment it is. SEGMENT stands at 0 and, byte for byte again, at 4096.

use crate::block::{BLOCK_ALIGN, BlockError, BlockType, Header, MAGIC, SEGMENT_PREFIX_LEN, parse_block};
use crate::body::SegmentBody;
use crate::ids::{NodeId, SegmentId};
use crate::layout::all_zero;
use crate::open::Origin;
use crate::scan::{ReadError, Window};
use crate::source::Source;

/// What the SEGMENT block says, from whichever copy is whole.
#[derive(Clone, Debug)]
pub struct Head {
    /// The segment.
    pub id: SegmentId,
    /// SHA-256 of the node's key, as far as it goes.
    pub node_id: NodeId,
    /// The rest of it.
    pub body: SegmentBody,
    /// The whole block: Merkle leaf 0, and what a repaired copy begins with, twice.
    pub block: Vec<u8>,
    /// What is wrong with the block at 0 and with the one at 4096.
    pub copies: [Option<CopyFault>; 2],
}

/// What can be wrong with one of the two SEGMENT blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFault {
    /// Not a whole SEGMENT block.
    Broken(String),
    /// Whole, but not the same as the other.
    Differs,
}

impl std::fmt::Display for CopyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CopyFault::Broken(why) => write!(f, "not a whole SEGMENT block: {why}"),
            CopyFault::Differs => f.write_str("not equal to the SEGMENT block at 0"),
        }
    }
}

impl Head {
    /// The file's own origin.
    pub fn origin(&self) -> Origin {
        Origin {
            segment_id: self.id,
            node_id: self.node_id,
            run_id: self.body.run_id,
            shard: self.body.shard,
            chain_seq: self.body.chain_seq,
        }
    }

    /// Reads the first 8192 bytes. Refuses what this version cannot read, and what is no segment at all.
    pub fn read<S: Source + ?Sized>(source: &S) -> Result<Self, ReadError> {
        let mut bytes = vec![0; source.len().min(SEGMENT_PREFIX_LEN as u64) as usize];
        crate::scan::read_naming_the_page(&source, 0, &mut bytes)?;
        let (first, second) = bytes.split_at(BLOCK_ALIGN.min(bytes.len()));
        let (at_0, at_4096) = (parse(0, first), parse(BLOCK_ALIGN as u64, second));
        let faults = [at_0.fault(), at_4096.fault()];
        let (offset, head, block, copies) = match (at_0, at_4096) {
            (Copy::Valid(head), Copy::Valid(_)) if first == second => (0, head, first, [None, None]),
            (Copy::Valid(head), Copy::Valid(_)) => (0, head, first, [None, Some(CopyFault::Differs)]),
            (Copy::Valid(head), _) => (0, head, first, faults),
            // A valid block of another major version is no damage.
            (Copy::OtherMajor(error), _) => return Err(error),
            (_, Copy::Valid(head)) => (BLOCK_ALIGN as u64, head, second, faults),
            (Copy::OtherMagic(error), _) => return Err(error),
            (_, Copy::OtherMagic(error) | Copy::OtherMajor(error)) => return Err(error),
            (Copy::Broken(why), _) => return Err(headless(source, &bytes, why)?),
        };
        let (id, body) = head;
        let unsupported = body.unsupported_incompat();
        if unsupported != 0 {
            let what = format!("incompatible features {unsupported:#x}");
            return Err(ReadError::Unsupported { offset, what });
        }
        Ok(Head {
            id,
            node_id: body.node_id(),
            body,
            block: block.to_vec(),
            copies,
        })
    }

    /// The offset and fault of each SEGMENT block that is not as it must be.
    pub fn faults(&self) -> impl Iterator<Item = (u64, &CopyFault)> {
        let offsets = [0, BLOCK_ALIGN as u64];
        offsets
            .into_iter()
            .zip(&self.copies)
            .filter_map(|(at, fault)| fault.as_ref().map(|f| (at, f)))
    }
}

/// One of the two SEGMENT blocks.
enum Copy {
    Valid((SegmentId, SegmentBody)),
    /// Not whole.
    Broken(String),
    /// Not a block of this version, but perhaps one of another.
    OtherMagic(ReadError),
    /// A whole block, of another version of the format.
    OtherMajor(ReadError),
}

impl Copy {
    /// What is wrong with it, should the other one be good.
    fn fault(&self) -> Option<CopyFault> {
        match self {
            Copy::Valid(..) => None,
            Copy::Broken(why) => Some(CopyFault::Broken(why.clone())),
            Copy::OtherMagic(_) => Some(CopyFault::Broken(BlockError::NoMagic.to_string())),
            Copy::OtherMajor(_) => Some(CopyFault::Differs),
        }
    }
}

fn parse(offset: u64, block: &[u8]) -> Copy {
    if block.len() >= MAGIC.len() && block[..3] == MAGIC[..3] && block[3] != MAGIC[3] {
        let what = format!("format version {:?}", char::from(block[3]));
        return Copy::OtherMagic(ReadError::Unsupported { offset, what });
    }
    let header = match parse_block(block) {
        Ok(header) => header,
        Err(why) => return Copy::Broken(why.to_string()),
    };
    if header.block_type != BlockType::Segment {
        return Copy::Broken(format!("it is a {} block", header.block_type.name()));
    }
    match SegmentBody::parse(header.body(block)) {
        Ok(body) => Copy::Valid((header.segment_id, body)),
        Err(error) => match ReadError::of_body(offset, &error) {
            unsupported @ ReadError::Unsupported { .. } => Copy::OtherMajor(unsupported),
            _ => Copy::Broken(error.to_string()),
        },
    }
}

/// What a file without a SEGMENT block is. A writer makes the head durable before it appends a chunk, so a file with
/// blocks but without a chunk is one whose preparation a crash cut short: it never held anything.
fn headless<S: Source + ?Sized>(source: &S, prefix: &[u8], why: String) -> Result<ReadError, ReadError> {
    let mut window = Window::new(source);
    let mut zeros = all_zero(prefix);
    let mut other_blocks = false;
    let mut at = 0;
    while at < window.len() {
        let hole_end = window.source.next_data(at);
        if hole_end > at + BLOCK_ALIGN as u64 {
            at = hole_end.min(window.len()) / BLOCK_ALIGN as u64 * BLOCK_ALIGN as u64;
            if hole_end >= window.len() {
                break;
            }
        }
        let len = (window.len() - at).min(BLOCK_ALIGN as u64) as usize;
        let page = window.bytes(at, len)?;
        if let Ok(header) = Header::parse(page) {
            if header.block_type == BlockType::Chunk || header.durable_4k > 0 {
                return Ok(ReadError::HeadLost {
                    offset: at,
                    segment_id: header.segment_id,
                });
            }
            other_blocks = true;
        }
        zeros &= all_zero(page);
        at += BLOCK_ALIGN as u64;
    }
    Ok(if zeros || other_blocks {
        ReadError::NeverBegun
    } else if prefix.starts_with(&MAGIC) {
        ReadError::Damaged { offset: 0, what: why }
    } else {
        ReadError::NotASegment("it does not begin with a SEGMENT block")
    })
}
