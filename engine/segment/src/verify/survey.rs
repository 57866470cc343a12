//! One pass over a segment that checks everything a single block, or the blocks before it, can show.
//!
//! Memory is bounded by the segment's streams, keys and holes, not by its chunks. Numbers may jump over a hole; the hole itself is
//! the finding then, and what went with it is noted. Whether a hole is damage is known only at the end, when the floor is.

use std::collections::HashMap;

use super::erasure::{Erased, Erasures};
use super::finding::{Finding, Findings};
use super::index::{ChunkRows, Span};
use super::owner::Owner;
use super::recipients::{Presence, Recipients};
use super::what::What;
use crate::block::{BlockType, Header};
use crate::body::{
    BodyError, ChainHead, CheckpointBody, DeletedSegment, FOOTER_RECOVERED, FooterBody, KeyBody, KeyEntry,
    KeyRow, OriginBody, StreamRow, TombstoneBody, TombstoneKind,
};
use crate::head::Head;
use crate::ids::{SegmentId, StreamId};
use crate::merkle::{Hash, MerkleTree, leaf_of_block};
use crate::node::NodePublic;
use crate::open::{OpenError, Origin};
use crate::planted::{Planted, planted};
use crate::reader::{State, read_footer};
use crate::scan::{Block, Gap, Item, ReadError, Scanner};
use crate::source::Source;
use crate::writer::Tables;

/// Gaps whose reason and headers are kept; of all others only the range.
pub(super) const GAPS_KEPT: usize = 1000;
/// Streams that are kept of a gap, beside those whose headers are still in it: 16 MB for all gaps.
const MISSED_KEPT: usize = 1000;

/// What the pass has gathered, and what is wrong with it.
pub(crate) struct Survey<'k> {
    pub(crate) head: Head,
    pub(super) node: NodePublic,
    pub(super) file_len: u64,
    pub(crate) findings: Findings,
    pub(crate) owner: Option<Owner<'k>>,

    pub(crate) tree: MerkleTree,
    pub(crate) tables: Tables,
    pub(crate) counts: Counts,
    /// The next block number by origin.
    pub(super) next_no: HashMap<SegmentId, u64>,
    pub(crate) origins: Vec<Origin>,
    pub(super) recipients: Recipients,
    pub(crate) streams: HashMap<StreamId, StreamTrack>,

    /// Every gap before the last block: offset and length.
    pub(crate) holes: Vec<(u64, u64)>,
    pub(super) gaps: Vec<Gap>,
    /// Beside `gaps`: the streams that miss a chunk after it, and missed none before it.
    pub(super) missed: Vec<Vec<StreamId>>,
    /// The last item, if it is a gap: space behind the last block, unless another block follows.
    pub(super) trailing: Option<Gap>,
    /// The file ends with its writer's FOOTER: any gap is damage, and what the gap makes differ need not be said again.
    pub(super) sealed_whole: bool,
    /// Behind the last block there is nothing but zeros, if anything.
    pub(super) rest_is_zero: bool,
    /// Gaps and TOMBSTONE(lost) so far.
    pub(super) hole_count: usize,
    /// How many of them lay before the file's own last block.
    holes_at_own: usize,
    /// Ranges that a TOMBSTONE(lost) spans.
    pub(crate) lost: Vec<(u64, u64)>,

    pub(crate) floor: u64,
    pub(crate) footer: Option<(u64, FooterBody)>,
    /// A FOOTER stands where a crash came before its segment was closed.
    pub(super) footer_left_over: bool,
    pub(crate) last_checkpoint: Option<(u64, Hash)>,
    /// Leaves that the last checkpoint with a right root and signature covers.
    pub(crate) signed_leaf_count: u64,
    pub(crate) prev_root: Option<Hash>,
    pub(crate) heads: Vec<ChainHead>,
    pub(crate) deleted: Vec<DeletedSegment>,
    /// What its own tombstones say was erased.
    pub(crate) erasures: Erasures,
    pub(crate) erased: Erased,
    pub(super) spans: [Span; 3],
    pub(super) index_streams: Vec<StreamRow>,
    pub(super) index_keys: Vec<KeyRow>,
}

/// Blocks and their bytes, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted blocks from 8192 on.
    pub blocks: u64,
    /// CHUNK blocks.
    pub chunks: u64,
    /// Bytes of CHUNK blocks, padding included.
    pub chunk_bytes: u64,
    /// KEY entries.
    pub key_entries: u64,
    /// CHECKPOINT blocks.
    pub checkpoints: u64,
    /// Blocks that were first written to another segment.
    pub relocated: u64,
    /// Blocks of types that this version does not know.
    pub unknown: u64,
    /// Arrival of the first and last packet, whole seconds since 1970; 0 without chunks.
    pub first_s: u64,
    /// See `first_s`.
    pub last_s: u64,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamTrack {
    pub(crate) origin: SegmentId,
    slot: u32,
    pub(crate) first_seq: Option<u64>,
    pub(crate) next_seq: u64,
    holes_seen: usize,
    /// `gaps` before its last block.
    gaps_seen: usize,
}

/// Runs the pass. `watch` is told of every item: the offset reached, and the block if it is one.
pub(crate) fn survey<'k, S: Source>(
    source: &S,
    owner: Option<Owner<'k>>,
    watch: &mut dyn FnMut(u64, Option<&Block<'_>>),
) -> Result<Survey<'k>, ReadError> {
    let head = Head::read(source)?;
    let closed = read_footer(source, &head)?;
    let mut rows = closed
        .as_ref()
        .map(|footer| ChunkRows::new(source, head.id, footer));
    let mut scanner = Scanner::new(source, head.id);
    let mut survey = Survey::new(head, source.len(), owner);
    survey.sealed_whole = closed.is_some_and(|footer| footer.flags & FOOTER_RECOVERED == 0);
    while let Some(item) = scanner.next_item()? {
        let reached = match &item {
            Item::Gap(gap) => gap.end(),
            Item::Block(block) => block.end(),
        };
        match item {
            Item::Gap(gap) => {
                watch(reached, None);
                survey.gap(gap);
            }
            Item::Block(block) => {
                watch(reached, Some(&block));
                survey.block(&block, rows.as_mut())?;
            }
        }
    }
    survey.finish();
    Ok(survey)
}

impl<'k> Survey<'k> {
    fn new(head: Head, file_len: u64, owner: Option<Owner<'k>>) -> Self {
        let mut survey = Survey {
            node: NodePublic(head.body.node_key),
            file_len,
            findings: Findings::default(),
            owner,
            tree: MerkleTree::new(),
            tables: Tables::default(),
            counts: Counts::default(),
            next_no: HashMap::from([(head.id, 1)]),
            origins: vec![head.origin()],
            recipients: Recipients::default(),
            streams: HashMap::new(),
            holes: Vec::new(),
            gaps: Vec::new(),
            missed: Vec::new(),
            trailing: None,
            sealed_whole: false,
            rest_is_zero: true,
            hole_count: 0,
            holes_at_own: 0,
            lost: Vec::new(),
            floor: 0,
            footer: None,
            footer_left_over: false,
            last_checkpoint: None,
            signed_leaf_count: 0,
            prev_root: None,
            heads: Vec::new(),
            deleted: Vec::new(),
            erasures: Erasures::default(),
            erased: Erased::default(),
            spans: [Span::default(); 3],
            index_streams: Vec::new(),
            index_keys: Vec::new(),
            head,
        };
        let header = Header::parse(&survey.head.block).expect("the head was read from a whole block");
        if header.block_no != 0 {
            let (expected, found) = (0, header.block_no);
            let (at, len) = (0, u64::from(header.total_len));
            survey
                .findings
                .push(Finding::new(at, len, What::BlockNo { expected, found }));
        }
        survey.tree.push(crate::merkle::leaf_hash(&survey.head.block));
        survey.tables.data_end = crate::block::SEGMENT_PREFIX_LEN as u64;
        survey
    }

    pub(crate) fn state(&self) -> State {
        match &self.footer {
            None => State::Open,
            Some((_, footer)) if footer.flags & FOOTER_RECOVERED != 0 => State::Recovered,
            Some(_) => State::Sealed,
        }
    }

    pub(super) fn find(&mut self, block: &Block<'_>, what: What) {
        let finding = Finding::new(block.offset, u64::from(block.header.total_len), what);
        self.findings.push(match block.header.stream_id.is_zero() {
            true => finding,
            false => finding.of_stream(block.header.stream_id),
        });
    }

    fn gap(&mut self, gap: Gap) {
        self.trailing = Some(gap);
    }

    /// The gap before a block has turned out not to be the last thing in the file.
    fn settle_gap(&mut self) {
        let Some(gap) = self.trailing.take() else { return };
        if self.footer.is_some() {
            return;
        }
        self.holes.push((gap.offset, gap.len));
        self.hole_count += 1;
        if self.gaps.len() < GAPS_KEPT {
            self.gaps.push(gap);
            self.missed.push(Vec::new());
        }
    }

    /// A stream misses chunks since `track`: they stood in a gap behind that.
    pub(super) fn note_missed(&mut self, stream_id: StreamId, track: &StreamTrack) {
        let until = self.missed.len();
        for missed in &mut self.missed[track.gaps_seen.min(until)..] {
            if missed.len() < MISSED_KEPT {
                missed.push(stream_id);
            }
        }
    }

    fn block<S: Source>(
        &mut self,
        block: &Block<'_>,
        rows: Option<&mut ChunkRows<S>>,
    ) -> Result<(), ReadError> {
        self.settle_gap();
        if self.footer.is_some() || self.footer_left_over {
            self.find(block, What::AfterFooter);
        }
        if self.footer.is_some() {
            return Ok(());
        }
        let own = block.header.segment_id == self.head.id;
        self.counts.blocks += 1;
        self.counts.relocated += u64::from(!own);
        self.check_number(block, own);
        if own {
            self.check_watermark(block, u64::from(block.header.durable_4k) * 4096);
        }
        if own && self.head.body.is_compacted() && block.header.block_type.is_sealed() {
            self.find(block, What::NotGathered);
        }
        match block.header.block_type {
            BlockType::Segment => unreachable!("the scanner accepts no SEGMENT block behind the head"),
            BlockType::Key => self.check_key(block),
            BlockType::Stream => self.check_stream(block, own),
            BlockType::Chunk => {
                self.check_chunk_body(block, own);
                self.check_chunk(block);
            }
            BlockType::Checkpoint if own => self.check_checkpoint(block),
            BlockType::Tombstone if own => self.check_tombstone(block),
            BlockType::Origin => self.check_origin(block),
            BlockType::Index if own => self.note_index(block),
            BlockType::Footer => {
                self.close(block);
                if self.footer.is_some()
                    && !self.is_broken()
                    && let Some(rows) = rows
                    && rows.compare(None)?
                {
                    self.find(block, What::Index { table: "chunks" });
                }
                return Ok(());
            }
            BlockType::Checkpoint | BlockType::Tombstone | BlockType::Index => {}
            BlockType::Reserved(_) | BlockType::Private(_) => self.check_unknown(block),
        }
        if block.header.block_type != BlockType::Index {
            self.spans = [Span::default(); 3];
            self.index_streams.clear();
            self.index_keys.clear();
        }
        self.tree.push(leaf_of_block(&block.header, block.bytes));
        self.tables.note(block.offset, &block.header, block.bytes);
        // The row is compared here and now: a segment may have millions.
        if let (Some(row), Some(rows)) = (self.tables.chunks.pop(), rows)
            && !self.is_broken()
            && rows.compare(Some(&row))?
        {
            self.find(block, What::Index { table: "chunks" });
        }
        Ok(())
    }

    /// A closed segment has a hole: its index and figures cannot fit any more.
    pub(super) fn is_broken(&self) -> bool {
        self.sealed_whole && self.hole_count > 0
    }

    fn check_number(&mut self, block: &Block<'_>, own: bool) {
        let found = block.header.block_no;
        let next = self.next_no.entry(block.header.segment_id).or_insert(0);
        let expected = *next;
        *next = expected.max(found.saturating_add(1));
        // A foreign origin's blocks need not be dense, nor the file's own where a hole came since the last of them.
        let may_jump = !own || self.hole_count > self.holes_at_own;
        if own {
            self.holes_at_own = self.hole_count;
        }
        if found < expected || (found > expected && !may_jump) {
            self.find(block, What::BlockNo { expected, found });
        }
    }

    pub(super) fn check_watermark(&mut self, block: &Block<'_>, stated: u64) {
        if stated > block.offset {
            self.find(block, What::WatermarkAhead { stated });
        } else {
            self.floor = self.floor.max(stated);
        }
    }

    fn check_key(&mut self, block: &Block<'_>) {
        match KeyBody::parse(block.body()) {
            Err(error) => self.find(block, What::Body(error)),
            Ok(body) => {
                let origin = block.header.segment_id;
                self.counts.key_entries += body.entries.len() as u64;
                self.check_recipients(block, &body.entries);
                if let Some(owner) = &mut self.owner {
                    owner.keys(origin, block.offset, body.entries);
                }
            }
        }
    }

    fn check_recipients(&mut self, block: &Block<'_>, entries: &[KeyEntry]) {
        let mut broken = None;
        for entry in entries {
            if let Err(why) = self.recipients.add(block.header.segment_id, entry) {
                broken = broken.or(Some((entry.slot, why)));
            }
        }
        if let Some((slot, why)) = broken {
            self.find(block, What::Recipients { slot, why });
        }
        if entries.iter().any(|entry| entry.erasable) && !self.head.body.is_erasable() {
            let what = "an erasable KEY entry, and ERASABLE is not set";
            self.find(block, What::FeatureUnstated { what });
        }
    }

    fn check_stream(&mut self, block: &Block<'_>, own: bool) {
        let header = &block.header;
        let (origin, slot) = (header.segment_id, header.key_slot);
        match self.recipients.of_slot(origin, slot) {
            Presence::Complete => {}
            Presence::Missing => self.find_unless_lost(block, What::KeyMissing { slot }),
            Presence::Incomplete => {
                let why = "not all of them stand before the stream";
                self.find_unless_lost(block, What::Recipients { slot, why });
            }
        }
        let track = StreamTrack {
            origin,
            slot,
            // A stream's first chunk in its own segment is number 0; where a relocated part begins is not known here.
            first_seq: own.then_some(0),
            next_seq: 0,
            holes_seen: self.hole_count,
            gaps_seen: self.gaps.len(),
        };
        if self.streams.contains_key(&header.stream_id) {
            return self.find(block, What::StreamRepeated);
        }
        self.streams.insert(header.stream_id, track);
        let Some(owner) = &mut self.owner else { return };
        let opened = owner.stream(block, &self.origins);
        for offset in owner.malformed_keys() {
            let what = What::Open(OpenError::Entry);
            self.findings.push(Finding::new(offset, 0, what));
        }
        if let Err(error) = opened {
            self.find(block, What::Open(error));
        }
    }

    /// A finding that a hole before the block would explain.
    fn find_unless_lost(&mut self, block: &Block<'_>, what: What) {
        match self.hole_count {
            0 => self.find(block, what),
            _ => self.find(block, What::WentWithHole(what.name())),
        }
    }

    fn check_chunk(&mut self, block: &Block<'_>) {
        let header = &block.header;
        let counts = &mut self.counts;
        counts.first_s = match counts.chunks {
            0 => header.first_arrival_s,
            _ => counts.first_s.min(header.first_arrival_s),
        };
        counts.last_s = counts.last_s.max(header.last_arrival_s);
        counts.chunks += 1;
        counts.chunk_bytes += u64::from(header.total_len);
        let holes = self.hole_count;
        let found = header.stream_seq;
        let Some(track) = self.streams.get_mut(&header.stream_id) else {
            return self.find_unless_lost(block, What::StreamMissing);
        };
        let before = *track;
        let expected = if before.first_seq.is_none() {
            found
        } else {
            before.next_seq
        };
        track.first_seq = Some(before.first_seq.unwrap_or(found));
        track.next_seq = expected.max(found.saturating_add(1));
        track.holes_seen = holes;
        track.gaps_seen = self.gaps.len();
        if before.slot != header.key_slot || before.origin != header.segment_id {
            let (expected, found) = (before.slot, header.key_slot);
            self.find(block, What::SlotDiffers { expected, found });
        }
        if found > expected {
            let (first, count) = (expected, found - expected);
            self.note_missed(header.stream_id, &before);
            self.find(
                block,
                match holes > before.holes_seen {
                    true => What::ChunksLost { first, count },
                    false => What::ChunksMissing { first, count },
                },
            );
        } else if found < expected {
            self.find(block, What::SeqRepeated { expected, found });
        }
        if block.is_erased() {
            let origin = header.segment_id;
            let node = self.origins.iter().find(|known| known.segment_id == origin);
            let place = (block.offset, u64::from(header.total_len));
            let slot = (origin, header.key_slot);
            let node_id = node.expect("an accepted block has an origin").node_id;
            self.erased.add(place, header.stream_id, slot, node_id);
        } else if let Some(owner) = &mut self.owner
            && let Some(what) = owner.chunk(block)
        {
            self.find(block, what);
        }
    }

    /// The hash of its body, and whether the file says that its chunks have one or not.
    fn check_chunk_body(&mut self, block: &Block<'_>, own: bool) {
        let (hashed, stated) = (block.header.is_hashed(), self.head.body.has_strong_leaves());
        if hashed && !stated {
            let what = "a hashed CHUNK, and STRONG_LEAF is not set";
            self.find(block, What::FeatureUnstated { what });
        } else if own && stated && !hashed {
            let what = "a CHUNK without a hash, and STRONG_LEAF is set";
            self.find(block, What::FeatureUnstated { what });
        }
        if !block.is_erased() && !block.header.hash_fits(block.bytes) {
            self.find(block, What::BodyHash);
        }
    }

    fn check_checkpoint(&mut self, block: &Block<'_>) {
        self.counts.checkpoints += 1;
        let body = match CheckpointBody::parse(block.body()) {
            Ok(body) => body,
            Err(error) => return self.find(block, What::Body(error)),
        };
        let by = BlockType::Checkpoint;
        self.check_watermark(block, body.durable_upto);
        let signed = self.node.verify_checkpoint(block.body(), &self.head.id);
        if !signed {
            self.find(block, What::Signature { on: by });
        }
        // Over a hole the leaves are not all there any more, so nothing can be said of the root.
        if self.hole_count == 0 && self.check_root(block, by, body.leaf_count, &body.root) && signed {
            self.signed_leaf_count = body.leaf_count;
        }
        if signed {
            self.last_checkpoint = Some((body.leaf_count, body.root));
            self.prev_root = body.prev_root.or(self.prev_root);
            self.heads.extend(body.heads);
        }
    }

    /// Compares a stated leaf count and root with the leaves before the block.
    pub(super) fn check_root(&mut self, block: &Block<'_>, by: BlockType, stated: u64, root: &Hash) -> bool {
        let found = self.tree.leaf_count();
        if stated != found {
            self.find(block, What::LeafCount { by, stated, found });
            return false;
        }
        let same = self.tree.root() == *root || planted(Planted::RootUnchecked);
        if !same {
            self.find(block, What::Root { by });
        }
        same
    }

    fn check_tombstone(&mut self, block: &Block<'_>) {
        let body = match TombstoneBody::parse(block.body()) {
            Ok(body) => body,
            Err(error) => return self.find(block, malformed(error)),
        };
        match &body.kind {
            TombstoneKind::Lost => {
                self.lost.push((block.offset, u64::from(block.header.total_len)));
                self.hole_count += 1;
                // The number is that of the first block missing here: it may come again in the next tombstone.
                self.next_no.insert(self.head.id, block.header.block_no);
                self.find(block, What::Lost);
            }
            _ if !self.node.verify_tombstone(block.body(), &self.head.id)
                && !planted(Planted::TombstoneSignatureUnchecked) =>
            {
                let on = BlockType::Tombstone;
                self.find(block, What::Signature { on });
            }
            TombstoneKind::Deleted(entries) => self.deleted.extend(entries),
            TombstoneKind::Erased(entries) => {
                for entry in entries {
                    self.erasures
                        .state(self.head.node_id, entry.segment_id, entry.slot);
                }
            }
        }
    }

    fn check_origin(&mut self, block: &Block<'_>) {
        match OriginBody::parse(block.body()) {
            Err(error) => self.find(block, What::Body(error)),
            Ok(body) => {
                let origin = Origin::from(&body);
                if !self.origins.contains(&origin) {
                    self.origins.push(origin);
                }
            }
        }
    }

    fn check_unknown(&mut self, block: &Block<'_>) {
        self.counts.unknown += 1;
        if let Err(ReadError::Unsupported { what, .. }) = block.refuse_unknown_critical() {
            self.find(block, What::Unsupported(what));
        }
    }

    /// Length of the file, reserved space included.
    pub(crate) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Nothing but its own preparation stands in it, keys and streams: nothing was ever appended that could be durable.
    pub(crate) fn is_unused(&self) -> bool {
        let prepared = self.tables.keys.len() + self.tables.streams.len();
        self.footer.is_none()
            && self.rest_is_zero
            && self.floor == 0
            && self.counts.blocks == prepared as u64
            && self.file_len > self.tables.data_end
    }
}

/// A body that does not parse, in a block that may be left out: of a later version, or broken.
pub(super) fn malformed(error: BodyError) -> What {
    match error {
        BodyError::Unsupported { .. } => What::Skipped(error),
        _ => What::Body(error),
    }
}
