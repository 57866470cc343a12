//! Compaction: sorting closed segments into an object of one customer, without a key (docs/FORMAT.md §14).
//!
//! This decides which blocks go where and makes the few that are new; who has the files reads and writes them. Sealed blocks are copied
//! verbatim behind ORIGIN, so that they open there as they did, for whom they did. Whoever compacts must be told which slots are of one
//! customer, and the object says so to everyone who has it: it gives up unlinkability for that footage, and nothing else.
//!
//! Invariants: a block is copied once, whichever files hold it; blocks of one origin rise; a stream is copied whole or not at all.

use std::collections::{BTreeMap, HashMap};

use crate::block::{BlockType, Header};
use crate::body::{KeyBody, OriginBody};
use crate::head::Head;
use crate::ids::{RunId, SegmentId, StreamId};
use crate::node::NodeKey;
use crate::open::Origin;
use crate::reader::read_footer;
use crate::scan::{Block, Item, ReadError, Scanner, read_naming_the_page};
use crate::source::Source;
use crate::writer::{Features, FinishParams, Finished, SegmentParams, SegmentWriter};

/// Why segments are not compacted. Nothing was written yet.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// A source could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Only closed segments are compacted.
    #[error("segment {0} is not closed")]
    Open(SegmentId),
    /// A chosen segment is not among the sources, or holds nothing in that slot.
    #[error("nothing of slot {slot} of segment {origin} is here")]
    NothingOf {
        /// The segment.
        origin: SegmentId,
        /// The slot in it.
        slot: u32,
    },
    /// A crash or damage left a hole in a stream. The object would be taken for damaged: the segment stays as it is.
    #[error("stream {stream} of segment {origin} lacks chunks from stream_seq {missing} on")]
    ChunksMissing {
        /// The segment.
        origin: SegmentId,
        /// The stream.
        stream: StreamId,
        /// The first missing stream_seq.
        missing: u64,
    },
}

/// Who the object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectParams {
    /// Random, never used before.
    pub segment_id: SegmentId,
    /// Random: the object is a chain of its own.
    pub run_id: RunId,
    /// Seconds since 1970.
    pub created_s: u64,
}

/// A block to copy: which source, where, and what stood there.
struct Part {
    source: usize,
    offset: u64,
    header: Header,
}

/// An object in the making: its blocks come out in the order in which they are written, one behind the other.
pub struct Compaction<'a, S> {
    sources: &'a [S],
    writer: SegmentWriter,
    /// What is left to do, last first: ORIGIN blocks, and what stands behind each.
    left: Vec<Step>,
}

enum Step {
    Origin(OriginBody),
    Copy(Part),
}

impl<'a, S: Source> Compaction<'a, S> {
    /// Finds everything that is to be copied; returns the object's first 8192 bytes too. `chosen` names one slot of each origin. Reads
    /// every source once.
    pub fn begin(
        sources: &'a [S],
        chosen: &[(SegmentId, u32)],
        params: &ObjectParams,
        node: &NodeKey,
    ) -> Result<(Self, Vec<u8>), CompactError> {
        let mut found = Found::new(chosen);
        for (source, bytes) in sources.iter().enumerate() {
            found.search(source, bytes)?;
        }
        let features = found.features;
        let left = found.into_steps()?;
        let params = SegmentParams {
            segment_id: params.segment_id,
            node: node.public(),
            run_id: params.run_id,
            shard: 0,
            prev: SegmentId::ZERO,
            chain_seq: 0,
            created_s: params.created_s,
            features,
        };
        let (writer, head) = SegmentWriter::new(params);
        let compaction = Compaction {
            sources,
            writer,
            left,
        };
        Ok((compaction, head))
    }

    /// The next block, whole; `None` when only the end is left. A source that changed since it was searched is an error.
    pub fn next_block(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(match self.left.pop() {
            None => None,
            Some(Step::Origin(origin)) => Some(self.writer.origin(&origin).1),
            Some(Step::Copy(part)) => {
                let mut block = vec![0; part.header.total_len as usize];
                read_naming_the_page(&self.sources[part.source], part.offset, &mut block)?;
                if Header::parse(&block) != Ok(part.header) || part.header.check_body(&block).is_err() {
                    let (offset, what) = (part.offset, "it changed while it was copied".into());
                    return Err(ReadError::Damaged { offset, what });
                }
                self.writer.place_copy(&part.header, &block);
                Some(block)
            }
        })
    }

    /// The object's end: INDEX and FOOTER, sealed and signed. `durable_upto` is how much of it is durable by now; 0 is always true.
    ///
    /// Panics while blocks are left.
    pub fn finish(self, node: &NodeKey, durable_upto: u64, closed_s: u64) -> Finished {
        assert!(self.left.is_empty(), "an object ends behind its last block");
        let params = FinishParams::sealed(None, durable_upto, closed_s);
        self.writer.finish(Some(node), params)
    }
}

/// What the sources hold of the chosen slots.
struct Found<'c> {
    chosen: &'c [(SegmentId, u32)],
    slots: HashMap<SegmentId, u32>,
    origins: HashMap<SegmentId, Origin>,
    /// By origin, then by number: a block in two files is one.
    parts: HashMap<SegmentId, BTreeMap<u64, Part>>,
    features: Features,
}

impl<'c> Found<'c> {
    fn new(chosen: &'c [(SegmentId, u32)]) -> Self {
        Found {
            chosen,
            slots: chosen.iter().copied().collect(),
            origins: HashMap::new(),
            parts: HashMap::new(),
            features: Features {
                compacted: true,
                ..Features::default()
            },
        }
    }

    fn search<S: Source>(&mut self, source: usize, bytes: &S) -> Result<(), CompactError> {
        let head = Head::read(bytes)?;
        if read_footer(bytes, &head)?.is_none() {
            return Err(CompactError::Open(head.id));
        }
        self.origins.insert(head.id, head.origin());
        let mut scanner = Scanner::new(bytes, head.id);
        while let Some(item) = scanner.next_item()? {
            let Item::Block(block) = item else { continue };
            block.refuse_unknown_critical()?;
            if self.wants(&block)? {
                let header = block.header;
                let parts = self.parts.entry(header.segment_id).or_default();
                let part = Part {
                    source,
                    offset: block.offset,
                    header,
                };
                parts.entry(header.block_no).or_insert(part);
            }
        }
        Ok(())
    }

    fn wants(&mut self, block: &Block<'_>) -> Result<bool, ReadError> {
        let malformed = |error| ReadError::of_body(block.offset, &error);
        if block.header.block_type == BlockType::Origin {
            let origin = Origin::from(&OriginBody::parse(block.body()).map_err(malformed)?);
            self.origins.entry(origin.segment_id).or_insert(origin);
            return Ok(false);
        }
        let Some(&slot) = self.slots.get(&block.header.segment_id) else {
            return Ok(false);
        };
        Ok(match block.header.block_type {
            BlockType::Key => {
                let entries = KeyBody::parse(block.body()).map_err(malformed)?.entries;
                let wanted = entries.iter().any(|entry| entry.slot == slot);
                self.features.erasable |= wanted && entries.iter().any(|entry| entry.erasable);
                wanted
            }
            BlockType::Stream => block.header.key_slot == slot,
            BlockType::Chunk => {
                let wanted = block.header.key_slot == slot;
                self.features.strong_leaf |= wanted && block.header.is_hashed();
                wanted
            }
            _ => false,
        })
    }

    /// Everything in the order of writing, last first.
    fn into_steps(mut self) -> Result<Vec<Step>, CompactError> {
        let mut origins = Vec::new();
        for &(id, slot) in self.chosen {
            let nothing = CompactError::NothingOf { origin: id, slot };
            let parts = self.parts.remove(&id).ok_or(nothing)?;
            whole_streams(id, &parts)?;
            let origin = self.origins[&id];
            origins.push((origin, parts));
        }
        origins.sort_by_key(|(origin, _)| {
            (
                origin.node_id,
                origin.run_id,
                origin.shard,
                origin.chain_seq,
                origin.segment_id,
            )
        });
        let mut steps = Vec::new();
        for (origin, parts) in origins {
            let numbers = (parts.first_key_value(), parts.last_key_value());
            let (Some((&first_block_no, _)), Some((&last_block_no, _))) = numbers else {
                continue;
            };
            steps.push(Step::Origin(OriginBody {
                segment_id: origin.segment_id,
                node_id: origin.node_id,
                run_id: origin.run_id,
                shard: origin.shard,
                chain_seq: origin.chain_seq,
                first_block_no,
                last_block_no,
            }));
            steps.extend(parts.into_values().map(Step::Copy));
        }
        steps.reverse();
        Ok(steps)
    }
}

/// All chunks of each stream are there, from the first one on.
fn whole_streams(origin: SegmentId, parts: &BTreeMap<u64, Part>) -> Result<(), CompactError> {
    let mut due: HashMap<StreamId, u64> = HashMap::new();
    for header in parts.values().map(|part| &part.header) {
        let stream = header.stream_id;
        if header.block_type != BlockType::Chunk {
            continue;
        }
        let missing = due.get(&stream).copied().unwrap_or(0);
        if header.stream_seq != missing {
            return Err(CompactError::ChunksMissing {
                origin,
                stream,
                missing,
            });
        }
        due.insert(stream, missing.saturating_add(1));
    }
    Ok(())
}
