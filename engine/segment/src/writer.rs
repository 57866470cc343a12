//! The writer of one segment: it gives each block its place, its number and its leaf, in log order.
//!
//! It does no I/O. Each method returns the block's bytes, or finishes them in the caller's buffer, and says where
//! they belong; the caller writes them there. A failed write is repeated with the same bytes: nothing here is ever
//! sealed twice.
//!
//! Invariants: offsets are dense from 0 and block numbers from SEGMENT's 0, so no (key, nonce) pair repeats; a
//! stream is added after a KEY entry of its slot, and a chunk belongs to a stream that was added; the tree has one
//! leaf per placed block, in file order.

mod tables;
#[cfg(test)]
mod tests;

pub use tables::{NO_STREAM_ROW, Tables};

use crate::block::{
    BLOCK_ALIGN, BlockType, HASHED_HEADER_LEN, HEADER_LEN, Header, MAX_BLOCK_LEN, SEGMENT_PREFIX_LEN,
    STREAM_HEADER_LEN, encode_block,
};
use crate::body::index::{Row, encode_rows};
use crate::body::key::encode_entries;
use crate::body::{
    COMPAT_COMPACTED, ChainHead, CheckpointBody, ChunkHead, DeletedSegment, ErasedSlot, FOOTER_RECOVERED,
    FOOTER_SEALED, FooterBody, INCOMPAT_ERASABLE, INCOMPAT_STRONG_LEAF, IndexBody, KeyBody, KeyEntry,
    OriginBody, SCOPE_CUSTOMER, SegmentBody, StreamInfo, TombstoneBody, TombstoneKind,
};
use crate::cipher::SealKey;
use crate::ids::{RunId, SegmentId, StreamId};
use crate::merkle::{Hash, MerkleTree, leaf_of_block};
use crate::node::{NodeKey, NodePublic};
use crate::planted::{Planted, planted};
use std::collections::HashMap;

/// X-Wing entries that one KEY block holds: (1 MiB − 128 − 8) ÷ 1256.
pub const MAX_KEY_ENTRIES: usize = (MAX_BLOCK_LEN - HEADER_LEN - KeyBody::HEAD_LEN) / 1256;
/// Chain heads that one CHECKPOINT holds: (1 MiB − 128 − 160) ÷ 96.
pub const MAX_HEADS: usize = (MAX_BLOCK_LEN - HEADER_LEN - CheckpointBody::LEN) / ChainHead::LEN;
/// Deleted segments, or erased slots, that one TOMBSTONE names: (1 MiB − 128 − 80) ÷ 80.
pub const MAX_DELETIONS: usize = (MAX_BLOCK_LEN - HEADER_LEN - TombstoneBody::LEN) / DeletedSegment::LEN;

const _: () = assert!(MAX_KEY_ENTRIES == 834 && MAX_HEADS == 10_919 && MAX_DELETIONS == 13_104);

/// What of the format's options a segment uses. By default none: its bytes are then those of a format without them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// KEY entries may be erasable: [`INCOMPAT_ERASABLE`].
    pub erasable: bool,
    /// Every CHUNK carries the hash of its body: [`INCOMPAT_STRONG_LEAF`].
    pub strong_leaf: bool,
    /// It is gathered from closed segments: [`COMPAT_COMPACTED`].
    pub compacted: bool,
}

/// Who begins which segment, and after which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentParams {
    /// Random, never used before.
    pub segment_id: SegmentId,
    /// The node that writes and signs it.
    pub node: NodePublic,
    /// One life of the recording process.
    pub run_id: RunId,
    /// Which writer of the node, from 0.
    pub shard: u32,
    /// The segment before this one; `SegmentId::ZERO` for a chain's first.
    pub prev: SegmentId,
    /// Its place in its chain, from 0.
    pub chain_seq: u64,
    /// Seconds since 1970.
    pub created_s: u64,
    /// What it may hold beyond the ordinary.
    pub features: Features,
}

/// Where a block belongs, and what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Where the block stands in the file, in bytes.
    pub offset: u64,
    /// Its number in its segment of origin, dense from 0.
    pub block_no: u64,
    /// Bytes of the whole block, padding included.
    pub total_len: u32,
    /// Of a CHUNK; else 0.
    pub stream_seq: u64,
}

/// A chunk about to be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlan {
    /// Its stream, as [`SegmentWriter::add_stream`] numbered it.
    pub row: u32,
    /// Bytes of plaintext in the buffer, from [`SegmentWriter::chunk_body_at`] on.
    pub body_len: usize,
    /// Arrival of its first and last packet, whole seconds since 1970.
    pub first_s: u64,
    /// Arrival of the last packet, whole seconds since 1970.
    pub last_s: u64,
    /// This segment's watermark ÷ 4096.
    pub durable_4k: u32,
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishParams {
    recovered: bool,
    prev_root: Option<Hash>,
    durable_upto: u64,
    closed_s: u64,
    signed_leaf_count: Option<u64>,
}

impl FinishParams {
    /// Closed by the one who wrote it.
    pub fn sealed(prev_root: Option<Hash>, durable_upto: u64, closed_s: u64) -> Self {
        FinishParams {
            recovered: false,
            prev_root,
            durable_upto,
            closed_s,
            signed_leaf_count: None,
        }
    }

    /// Closed after a crash. `durable_upto` is the floor that was found, `signed_leaf_count` how many leaves the
    /// last valid signed checkpoint covers.
    pub fn recovered(
        prev_root: Option<Hash>,
        durable_upto: u64,
        closed_s: u64,
        signed_leaf_count: u64,
    ) -> Self {
        let signed_leaf_count = Some(signed_leaf_count);
        FinishParams {
            recovered: true,
            prev_root,
            durable_upto,
            closed_s,
            signed_leaf_count,
        }
    }
}

/// A segment's end, to be written at `offset`; the file is then cut after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Where the block stands in the file, in bytes.
    pub offset: u64,
    /// INDEX blocks and FOOTER.
    pub bytes: Vec<u8>,
    /// The segment's final root, for its successor.
    pub root: Hash,
    /// Leaves that the root covers.
    pub leaf_count: u64,
    /// What the FOOTER says.
    pub footer: FooterBody,
}

/// The writer of one segment; the module says what holds of it.
pub struct SegmentWriter {
    segment_id: SegmentId,
    features: Features,
    next_offset: u64,
    next_block_no: u64,
    /// The last watermark that the caller told, for blocks that come without one.
    durable_4k: u32,
    tree: MerkleTree,
    tables: Tables,
    /// Slots with the numbers of customers' entries: due and placed.
    slots: HashMap<u32, (u8, u8)>,
}

impl SegmentWriter {
    /// Begins a segment: returns its first 8192 bytes, SEGMENT and its copy.
    pub fn new(params: SegmentParams) -> (Self, Vec<u8>) {
        let features = params.features;
        let bit = |bit, set| if set { bit } else { 0 };
        let body = SegmentBody {
            minor: 0,
            shard: params.shard,
            incompat: bit(INCOMPAT_ERASABLE, features.erasable)
                | bit(INCOMPAT_STRONG_LEAF, features.strong_leaf),
            ro_compat: 0,
            compat: bit(COMPAT_COMPACTED, features.compacted),
            run_id: params.run_id,
            prev_segment_id: params.prev,
            chain_seq: params.chain_seq,
            created_s: params.created_s,
            node_key: params.node.0,
        };
        let mut writer = Self::adopting(params.segment_id);
        writer.features = features;
        let (_, block) = writer.append(BlockType::Segment, &body.encode());
        writer.next_offset = SEGMENT_PREFIX_LEN as u64;
        (writer, block.repeat(2))
    }

    /// For recovery: a writer that has nothing yet and takes over the blocks of a file with
    /// [`SegmentWriter::adopt`], to write the end that is missing.
    pub fn adopting(segment_id: SegmentId) -> Self {
        SegmentWriter {
            segment_id,
            features: Features::default(),
            next_offset: 0,
            next_block_no: 0,
            durable_4k: 0,
            tree: MerkleTree::new(),
            tables: Tables::default(),
            slots: HashMap::new(),
        }
    }

    /// Makes room for that many chunks and streams, so that sealing them does not allocate.
    pub fn reserve(&mut self, chunks: usize, streams: usize) {
        self.tables.chunks.reserve(chunks);
        self.tables.streams.reserve(streams);
    }

    /// Appends one KEY block in the given order: shuffle them before. It takes up to [`MAX_KEY_ENTRIES`] entries, more of those with
    /// P-256. Panics if they exceed 1 MiB, or if one is erasable and the segment is not.
    pub fn add_keys(&mut self, entries: &[KeyEntry], durable_4k: u32) -> (Placed, Vec<u8>) {
        assert!(
            self.features.erasable || !entries.iter().any(|entry| entry.erasable),
            "a segment with erasable entries says so"
        );
        self.durable_4k = durable_4k;
        for entry in entries.iter().filter(|entry| entry.scope == SCOPE_CUSTOMER) {
            self.slots.entry(entry.slot).or_insert((entry.n, 0)).1 += 1;
        }
        self.append(BlockType::Key, &encode_entries(entries))
    }

    /// Appends a STREAM block; returns the stream's row, for its chunks. `commitment` is that of `key`'s stream.
    ///
    /// Panics unless all KEY entries for the customer of `slot` are here, or if `info` does not [fit](StreamInfo::fits).
    pub fn add_stream(
        &mut self,
        stream_id: StreamId,
        slot: u32,
        key: &SealKey,
        commitment: &[u8; 32],
        info: &StreamInfo,
        durable_4k: u32,
    ) -> (u32, Placed, Vec<u8>) {
        assert!(
            self.slots.get(&slot).is_some_and(|(due, placed)| due == placed)
                || planted(Planted::KeyAfterChunk),
            "the KEY entries of a slot's customer stand before its streams, all of them"
        );
        self.durable_4k = durable_4k;
        let mut body = info.encode();
        body.resize(StreamInfo::padded_len(body.len()), 0);
        let mut header = Header {
            stream_id,
            key_slot: slot,
            ..self.header(BlockType::Stream, body.len())
        };
        let mut block = vec![0; header.total_len as usize];
        block[HEADER_LEN..STREAM_HEADER_LEN].copy_from_slice(commitment);
        block[STREAM_HEADER_LEN..][..body.len()].copy_from_slice(&body);
        key.seal_block(&mut header, &mut block);
        let row = self.tables.streams.len() as u32;
        (row, self.place(&header, &block), block)
    }

    /// Where the plaintext of a chunk begins in its buffer: at 128, with [`Features::strong_leaf`] at 160.
    pub fn chunk_body_at(&self) -> usize {
        match self.features.strong_leaf {
            true => HASHED_HEADER_LEN,
            false => HEADER_LEN,
        }
    }

    /// Seals a chunk in place: `body_len` bytes from [`SegmentWriter::chunk_body_at`] on are its plaintext on entry,
    /// `buf[..total_len]` the finished block on return, padding zeroed. `key` is the one its stream was added with.
    ///
    /// Does not allocate within what [`SegmentWriter::reserve`] made room for. Panics if the block does not fit
    /// `buf`, or has no such stream.
    pub fn seal_chunk(&mut self, plan: ChunkPlan, key: &SealKey, buf: &mut [u8]) -> Placed {
        assert!(plan.body_len >= ChunkHead::LEN, "a chunk begins with its head");
        let stream = &self.tables.streams[plan.row as usize];
        let (stream_id, key_slot, stream_seq) = (stream.stream_id, stream.slot, stream.chunks);
        self.durable_4k = plan.durable_4k;
        let mut header = Header {
            stream_id,
            key_slot,
            stream_seq,
            first_arrival_s: plan.first_s,
            last_arrival_s: plan.last_s,
            ..self.chunk_header(plan.body_len)
        };
        key.seal_block(&mut header, buf);
        self.tree.push(leaf_of_block(&header, buf));
        let placed = self.advance(&header);
        self.tables.add_chunk(placed.offset, &header, plan.row);
        placed
    }

    /// Appends a checkpoint over all blocks so far, signed. `heads`, up to [`MAX_HEADS`], are the chain ends found
    /// at the start of the run.
    pub fn checkpoint(
        &mut self,
        node: &NodeKey,
        durable_upto: u64,
        prev_root: Option<Hash>,
        time_s: u64,
        heads: &[ChainHead],
    ) -> (Placed, Vec<u8>) {
        let mut body = CheckpointBody {
            durable_upto,
            leaf_count: self.tree.leaf_count(),
            root: self.tree.root(),
            prev_root,
            time_s,
            signature: [0; 64],
            heads: heads.to_vec(),
        };
        node.sign_checkpoint(&mut body, &self.segment_id);
        self.durable_4k = in_4k(durable_upto);
        self.append(BlockType::Checkpoint, &body.encode())
    }

    /// Appends a signed list of segments that the node deleted, up to [`MAX_DELETIONS`].
    pub fn tombstone(
        &mut self,
        node: &NodeKey,
        deleted: &[DeletedSegment],
        time_s: u64,
    ) -> (Placed, Vec<u8>) {
        self.signed_tombstone(node, TombstoneKind::Deleted(deleted.to_vec()), time_s)
    }

    /// Appends a signed list of slots whose CHUNK bodies the node erased, up to [`MAX_DELETIONS`]. It stands in a segment written later
    /// than those.
    pub fn erasure(&mut self, node: &NodeKey, erased: &[ErasedSlot], time_s: u64) -> (Placed, Vec<u8>) {
        self.signed_tombstone(node, TombstoneKind::Erased(erased.to_vec()), time_s)
    }

    fn signed_tombstone(&mut self, node: &NodeKey, kind: TombstoneKind, time_s: u64) -> (Placed, Vec<u8>) {
        let mut body = TombstoneBody {
            kind,
            time_s,
            signature: [0; 64],
        };
        node.sign_tombstone(&mut body, &self.segment_id);
        self.append(BlockType::Tombstone, &body.encode())
    }

    /// Appends the permission for blocks of another segment to stand behind it.
    pub fn origin(&mut self, origin: &OriginBody) -> (Placed, Vec<u8>) {
        self.append(BlockType::Origin, &origin.encode())
    }

    /// Places a whole block of another segment, to be written verbatim after an [`SegmentWriter::origin`] that
    /// covers it. It keeps its own number.
    pub fn place_copy(&mut self, header: &Header, block: &[u8]) -> Placed {
        assert!(
            header.segment_id != self.segment_id,
            "a segment's own blocks are placed once"
        );
        self.place(header, block)
    }

    /// For recovery: takes over a whole, checked block that stands at `offset` already, in file order, holes left
    /// out. SEGMENT is taken over once, at 0, from whichever copy is whole.
    pub fn adopt(&mut self, offset: u64, header: &Header, block: &[u8]) {
        assert!(offset >= self.next_offset, "blocks are adopted in file order");
        self.next_offset = offset;
        self.place(header, block);
        if header.block_type == BlockType::Segment {
            self.next_offset = SEGMENT_PREFIX_LEN as u64;
        }
    }

    /// Ends the segment: INDEX blocks, then the FOOTER, signed if the node's key is at hand. Hashes and encodes the
    /// whole index, 48 bytes a chunk, so better not on the packet path.
    pub fn finish(mut self, node: Option<&NodeKey>, params: FinishParams) -> Finished {
        let offset = self.next_offset;
        self.durable_4k = in_4k(params.durable_upto);
        let mut bytes = Vec::with_capacity(self.tail_len() as usize);
        let tables = std::mem::take(&mut self.tables);
        let chunks_at = self.append_index(&tables.chunks, &mut bytes);
        let streams_at = self.append_index(&tables.streams, &mut bytes);
        let keys_at = self.append_index(&tables.keys, &mut bytes);
        let (leaf_count, root) = (self.tree.leaf_count(), self.tree.root());
        let (first_s, last_s) = tables.first_and_last_s();
        let mut footer = FooterBody {
            flags: if params.recovered {
                FOOTER_RECOVERED
            } else {
                FOOTER_SEALED
            },
            chunks_offset: chunks_at.0,
            chunks_len: chunks_at.1,
            streams_offset: streams_at.0,
            streams_len: streams_at.1,
            keys_offset: keys_at.0,
            keys_len: keys_at.1,
            leaf_count,
            root,
            prev_root: params.prev_root.unwrap_or_default(),
            durable_upto: params.durable_upto,
            data_end: tables.data_end,
            chunk_count: tables.chunks.len() as u64,
            first_s,
            last_s,
            signed_leaf_count: params.signed_leaf_count.unwrap_or(leaf_count),
            closed_s: params.closed_s,
            signature: [0; 64],
        };
        if let Some(node) = node {
            node.sign_footer(&mut footer, &self.segment_id);
        }
        let header = self.header(BlockType::Footer, FooterBody::LEN);
        bytes.extend_from_slice(&encode_block(header, &footer.encode()));
        Finished {
            offset,
            bytes,
            root,
            leaf_count,
            footer,
        }
    }

    /// The segment that it writes.
    pub fn segment_id(&self) -> SegmentId {
        self.segment_id
    }

    /// The slots whose KEY entries it has placed itself, in no order.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.slots.keys().copied()
    }

    /// Where the next block goes: the end of all that was placed.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The number that the next block gets.
    pub fn next_block_no(&self) -> u64 {
        self.next_block_no
    }

    /// CHUNK blocks so far.
    pub fn chunk_count(&self) -> u64 {
        self.tables.chunks.len() as u64
    }

    /// Leaves of the Merkle tree so far.
    pub fn leaf_count(&self) -> u64 {
        self.tree.leaf_count()
    }

    /// The root over all blocks so far.
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// Bytes that [`SegmentWriter::finish`] would return now.
    pub fn tail_len(&self) -> u64 {
        let Tables {
            chunks,
            streams,
            keys,
            ..
        } = &self.tables;
        index_len(chunks) + index_len(streams) + index_len(keys) + BLOCK_ALIGN as u64
    }

    /// Appends the INDEX blocks of one table; returns where they begin and their bytes, zeros for none.
    fn append_index<R: Row>(&mut self, rows: &[R], bytes: &mut Vec<u8>) -> (u64, u64) {
        if rows.is_empty() {
            return (0, 0);
        }
        let offset = self.next_offset;
        for (part, rows) in (0..).zip(rows.chunks(IndexBody::rows_per_block(R::LEN))) {
            let (_, block) = self.append(BlockType::Index, &encode_rows(part, rows));
            bytes.extend_from_slice(&block);
        }
        (offset, self.next_offset - offset)
    }

    /// Appends an unsealed block of this segment.
    fn append(&mut self, block_type: BlockType, body: &[u8]) -> (Placed, Vec<u8>) {
        let header = self.header(block_type, body.len());
        let block = encode_block(header, body);
        (self.place(&header, &block), block)
    }

    /// The next block's header.
    fn header(&self, block_type: BlockType, body_len: usize) -> Header {
        Header {
            durable_4k: self.durable_4k,
            ..Header::new(block_type, self.segment_id, self.next_block_no, body_len)
        }
    }

    fn chunk_header(&self, body_len: usize) -> Header {
        if !self.features.strong_leaf {
            return self.header(BlockType::Chunk, body_len);
        }
        Header {
            durable_4k: self.durable_4k,
            ..Header::hashed_chunk(self.segment_id, self.next_block_no, body_len)
        }
    }

    /// Gives a finished block its leaf, its rows and its place.
    fn place(&mut self, header: &Header, block: &[u8]) -> Placed {
        self.tree.push(leaf_of_block(header, block));
        let placed = self.advance(header);
        self.tables.note(placed.offset, header, block);
        placed
    }

    fn advance(&mut self, header: &Header) -> Placed {
        let offset = self.next_offset;
        self.next_offset += u64::from(header.total_len);
        if header.segment_id == self.segment_id {
            let next = match header.block_no % 16 == 7 && planted(Planted::NumberUsedTwice) {
                false => header.block_no.saturating_add(1),
                true => header.block_no,
            };
            self.next_block_no = self.next_block_no.max(next);
        }
        Placed {
            offset,
            block_no: header.block_no,
            total_len: header.total_len,
            stream_seq: header.stream_seq,
        }
    }
}

/// Bytes of the INDEX blocks of one table.
fn index_len<R: Row>(rows: &[R]) -> u64 {
    let block_len =
        |rows: usize| Header::total_len_for(BlockType::Index, IndexBody::HEAD_LEN + rows * R::LEN) as u64;
    let per_block = IndexBody::rows_per_block(R::LEN);
    let rest = rows.len() % per_block;
    (rows.len() / per_block) as u64 * block_len(per_block) + if rest == 0 { 0 } else { block_len(rest) }
}

/// A watermark as headers hold it. It stands between blocks, so nothing is rounded off.
fn in_4k(durable_upto: u64) -> u32 {
    u32::try_from(durable_upto / BLOCK_ALIGN as u64).expect("a segment is below 16 TiB")
}
