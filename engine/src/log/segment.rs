//! One open segment: its file, its writer, its keys, and the entries on their way.

use harborseal_segment::block::BLOCK_ALIGN;
use harborseal_segment::body::{ChainHead, DeletedSegment, OriginBody};
use harborseal_segment::cipher::SealKey;
use harborseal_segment::ids::SegmentId;
use harborseal_segment::writer::{Placed, SegmentWriter};

use super::entry::{Entries, Entry, State, What};
use super::prepare::{self, CustomerKeys, Grantee, Prepared};
use super::relocate::Foreign;
use super::{Handle, Now};
use crate::chunk::{BUFFER_BYTES, BufferId, Pool};
use crate::uring::Locked;

/// Where a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Takes blocks (if it is the last one) or waits for its last bytes to be durable.
    Good,
    /// A write or fdatasync failed for good.
    Failed,
}

/// How one stream is sealed in one segment.
pub struct StreamSeal {
    /// Its row in the writer's stream table.
    pub row: u32,
    /// K_enc.
    pub key: Locked<SealKey>,
}

/// One segment that is not closed yet.
pub(super) struct OpenSegment {
    pub(super) handle: Handle,
    pub(super) id: SegmentId,
    pub(super) writer: Box<SegmentWriter>,
    pub(super) customers: Vec<CustomerKeys>,
    pub(super) grantees: Vec<Grantee>,
    pub(super) streams: Vec<Option<StreamSeal>>,
    /// KEY and STREAM blocks without padding, for a relocation.
    pub(super) kept: Vec<Box<[u8]>>,
    /// Tombstones above the watermark with their end and ticket, for a relocation and to say when they are durable.
    pub(super) tombstones: Vec<(u64, u64, Vec<DeletedSegment>)>,
    /// Chain ends above the watermark with the end of their checkpoint, for a relocation.
    pub(super) heads: Vec<(u64, Vec<ChainHead>)>,
    pub(super) entries: Entries,
    /// All below is durable. It stands between blocks: a watermark inside a block would make recovery miss what never was whole.
    pub(super) watermark: u64,
    pub(super) watermark_block_no: u64,
    pub(super) alloc_end: u64,
    /// Number of the first block placed after it became active.
    pub(super) first_block_no: u64,
    pub(super) opened_ns: u64,
    pub(super) pending_since_ns: u64,
    pub(super) syncing_upto: Option<u64>,
    pub(super) last_sync_ns: u64,
    pub(super) blocks_at_checkpoint: u64,
    pub(super) writes_in_flight: u32,
    pub(super) stage: Stage,
    pub(super) prev: Option<SegmentId>,
    pub(super) prev_root: Option<[u8; 32]>,
    pub(super) origin: OriginBody,
    /// Other segments whose chunks were relocated into this one.
    pub(super) foreign: Vec<Foreign>,
}

impl OpenSegment {
    pub(super) fn new(prepared: Prepared, prev: Option<SegmentId>, now: Now) -> Self {
        let Prepared {
            handle,
            origin,
            writer,
            customers,
            grantees,
            streams,
            kept,
            alloc_end,
            ..
        } = prepared;
        OpenSegment {
            handle,
            id: origin.segment_id,
            watermark: writer.next_offset(),
            watermark_block_no: writer.next_block_no() - 1,
            blocks_at_checkpoint: writer.next_block_no(),
            first_block_no: writer.next_block_no(),
            writer,
            customers,
            grantees,
            streams,
            kept,
            tombstones: Vec::new(),
            heads: Vec::new(),
            entries: Entries::with_capacity(1024),
            alloc_end,
            opened_ns: now.mono_ns,
            pending_since_ns: now.mono_ns,
            syncing_upto: None,
            last_sync_ns: now.mono_ns,
            writes_in_flight: 0,
            stage: Stage::Good,
            prev,
            prev_root: None,
            origin,
            foreign: Vec::new(),
        }
    }

    /// Nothing will be sealed in it any more: its secrets go at once. Returns its id.
    pub(super) fn seal_no_more(&mut self) -> SegmentId {
        self.streams = Vec::new();
        self.customers = Vec::new();
        self.grantees = Vec::new();
        self.id
    }

    pub(super) fn durable_4k(&self) -> u32 {
        (self.watermark / BLOCK_ALIGN as u64) as u32
    }

    /// Bytes that index and footer would take now, with room for a last checkpoint and some new streams.
    pub(super) fn tail_bytes(&self) -> u64 {
        self.writer.tail_len() + 16 * BLOCK_ALIGN as u64
    }

    /// Bytes that may still be placed below the allocated end, the tail's share taken off.
    pub(super) fn room(&self) -> u64 {
        self.alloc_end
            .saturating_sub(self.writer.next_offset() + self.tail_bytes())
    }

    pub(super) fn is_drained(&self) -> bool {
        self.entries.is_empty() && self.writes_in_flight == 0 && self.syncing_upto.is_none()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.writes_in_flight == 0 && self.syncing_upto.is_none()
    }

    pub(super) fn failed(&self) -> bool {
        self.stage == Stage::Failed
    }

    pub(super) fn set_stream(&mut self, stream: u32, seal: StreamSeal) {
        let at = stream as usize;
        if self.streams.len() <= at {
            self.streams.resize_with(at + 1, || None);
        }
        self.streams[at] = Some(seal);
    }

    pub(super) fn keep(&mut self, block: &[u8]) {
        self.kept.push(prepare::without_padding(block));
    }

    /// Queues a placed chunk. `buffer` holds its `len` bytes.
    pub(super) fn place(&mut self, buffer: BufferId, len: u32, offset: u64, what: What, now: Now) {
        let block_no = Some(self.last_block_no());
        self.queue(
            Entry {
                buffer,
                len,
                offset,
                state: State::Pending,
                block_no,
                what,
            },
            now,
        );
    }

    fn queue(&mut self, entry: Entry, now: Now) {
        if self.entries.pending().next().is_none() {
            self.pending_since_ns = now.mono_ns;
        }
        self.entries.push(entry);
    }

    /// The last own block that was placed. A relocated one keeps the number it has in its origin.
    fn last_block_no(&self) -> u64 {
        self.writer.next_block_no() - 1
    }

    /// Copies a finished block of any type but CHUNK into pool buffers: behind the last block if that one still waits
    /// and has room, else into fresh ones. The caller has made sure that the pool holds enough.
    pub(super) fn place_meta(&mut self, pool: &mut Pool, placed: Placed, block: &[u8], now: Now) {
        let block_no = Some(self.last_block_no());
        let mut offset = placed.offset;
        let mut rest = block;
        while !rest.is_empty() {
            if let Some(last) = self
                .entries
                .last_pending_mut()
                .filter(|e| matches!(e.what, What::Meta) && e.len as usize + rest.len() <= e.buffer.len())
            {
                let at = last.len as usize;
                pool.bytes_mut(&last.buffer)[at..at + rest.len()].copy_from_slice(rest);
                last.len += rest.len() as u32;
                last.block_no = block_no;
                return;
            }
            // Where such blocks follow each other, each time twice as much: a thousand STREAM blocks are no thousand buffers.
            let before = self.entries.last_pending_mut().map_or(0, |e| {
                if matches!(e.what, What::Meta) {
                    e.buffer.len()
                } else {
                    0
                }
            });
            let wanted = rest.len().max(2 * before).min(BUFFER_BYTES);
            let buffer = pool
                .take_most(wanted)
                .expect("has_room keeps memory back for blocks that are no chunks");
            let part = rest.len().min(buffer.len());
            pool.bytes_mut(&buffer)[..part].copy_from_slice(&rest[..part]);
            let entry = Entry {
                buffer,
                len: part as u32,
                offset,
                state: State::Pending,
                block_no: block_no.filter(|_| part == rest.len()),
                what: What::Meta,
            };
            self.queue(entry, now);
            offset += part as u64;
            rest = &rest[part..];
        }
    }
}
