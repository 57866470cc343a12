//! The log: where sealed blocks get their place, and how they become durable.
//!
//! Owns the shard's open segments, oldest first; the last one is active and takes new blocks, the ones before it are
//! draining: their bytes are still on their way, then they are handed to the keeper to be closed. Decides when to write,
//! sync, checkpoint, rotate, extend and retire; does none of it: a [`Disk`] carries it out and reports back. The
//! io_uring driver is one, the simulator the other.
//!
//! Invariants:
//! - *durable* is said in one place, [`Log::synced`], where an fdatasync's completion is handled (design §4.8);
//! - a segment is written only below its allocated end, and room for its own tail is always kept there, so that a full
//!   disk never leaves a segment that cannot be closed;
//! - a failed fdatasync is never retried: the segment is retired and what it did not prove durable is copied on.

pub mod catalog;
pub mod entry;
pub mod files;
pub mod keeper;
pub mod prepare;
mod relocate;

use std::collections::VecDeque;
use std::sync::Arc;

use harborseal_segment::block::{BLOCK_ALIGN, HEADER_LEN, Header};
use harborseal_segment::body::{ChainHead, DeletedSegment, OriginBody};
use harborseal_segment::cipher::{Backend, SealKey};
use harborseal_segment::ids::SegmentId;
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::CryptoRng;
use harborseal_segment::writer::{ChunkPlan, Placed, SegmentWriter};

use crate::chunk::{BUFFER_BYTES, BufferId, OpenChunk, Pool};
use crate::uring::memory::Region;
use entry::{ChunkFacts, Entries, Entry, State, What};
use prepare::{CustomerKeys, Prepared};
use relocate::{Foreign, Moving};

/// Bytes gathered before a write is submitted without waiting; design §9 found 16 chunks per write to cost the least.
const GATHER_BYTES: usize = 512 * 1024;
/// Most bytes in one write.
const MAX_WRITE_BYTES: usize = 1024 * 1024;
/// Most buffers in one write: a write of full chunks reaches [`MAX_WRITE_BYTES`] first.
const MAX_WRITE_BUFFERS: usize = 64;
/// Writes in flight per shard; well below the 256 requests a block device queues by default.
pub const MAX_WRITES: usize = 16;
/// Longest a sealed block waits for company before it is written, in nanoseconds: a quarter of the commit interval.
const GATHER_NS: u64 = 5_000_000;
/// At most one checkpoint in this time, in nanoseconds.
const CHECKPOINT_NS: u64 = 1_000_000_000;
/// Wait between attempts that failed for lack of space, in nanoseconds.
const RETRY_NS: u64 = 250_000_000;
/// Buffers that only blocks other than chunks may take: a new stream's KEY and STREAM, a checkpoint, an ORIGIN.
pub const META_RESERVE: usize = 8;

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const ENOSPC: i32 = 28;

/// Names an open segment file between the log and its disk. Never reused in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u32);

/// The present, from both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_MONOTONIC in nanoseconds: intervals and deadlines.
    pub mono_ns: u64,
    /// CLOCK_REALTIME in nanoseconds since 1970: what is written down.
    pub real_ns: u64,
}

/// Whom the log tells and asks.
pub trait Outside {
    /// Passes work to the keeper, off the shard.
    fn request(&mut self, request: Request);
    /// Everything below this place is durable.
    fn durable(&mut self, place: DurablePlace);
}

/// What carries the log's writes out.
pub trait Disk: Outside {
    /// Starts writing `ranges` (offset and length in `region`) at `offset`. False: no room now, ask again.
    fn write(
        &mut self,
        token: u32,
        segment: Handle,
        offset: u64,
        region: &Region,
        ranges: &[(usize, usize)],
    ) -> bool;
    /// Starts an fdatasync. False: no room now, ask again.
    fn sync(&mut self, segment: Handle) -> bool;
}

/// Work for the keeper.
pub enum Request {
    /// Make the next segment ready: id, secrets, wraps, file, space, first blocks.
    Prepare(prepare::Order),
    /// Allocate more space.
    Extend {
        /// Which segment.
        segment: Handle,
        /// Its allocated end now.
        from: u64,
        /// Bytes wanted beyond it.
        bytes: u64,
    },
    /// All blocks are durable: write index and footer, cut, sync, release.
    Close {
        /// Which segment.
        segment: Handle,
        /// Its writer, to finish.
        writer: Box<SegmentWriter>,
        /// Root of the segment before it, if known.
        prev_root: Option<[u8; 32]>,
    },
    /// The disk failed it: release the file as it is, recovery will look at it.
    Abandon(Handle),
    /// Prepared, not needed: delete the file.
    Discard(Handle),
    /// The tombstones of this ticket are durable.
    TombstonesDurable(u64),
    /// Space ran out: retention may want to look now.
    NoSpace,
}

/// The end of what is durable in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurablePlace {
    /// Which segment.
    pub segment: SegmentId,
    /// Every byte below this offset is durable.
    pub offset: u64,
    /// The last block below it.
    pub block_no: u64,
}

/// What happened to packets, for the books. Returned, never stored here.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The chunk.
    pub chunk: ChunkFacts,
    /// Bytes it took in the segment.
    pub stored_len: u32,
}

/// When to rotate, sync and extend. Times in nanoseconds, sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A segment is closed at this age.
    pub segment_max_age_ns: u64,
    /// A segment is closed before it grows over this.
    pub segment_max_bytes: u64,
    /// Time between fdatasyncs.
    pub commit_interval_ns: u64,
}

/// Where a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Takes blocks (if it is the last one) or waits for its last bytes to be durable.
    Good,
    /// A write or fdatasync failed for good.
    Failed,
}

/// How one stream is sealed in one segment.
pub struct StreamSeal {
    /// Its row in the writer's stream table.
    pub row: u32,
    /// K_enc, expanded.
    pub key: SealKey,
}

/// One segment that is not closed yet.
pub(crate) struct OpenSegment {
    pub(crate) handle: Handle,
    pub(crate) id: SegmentId,
    pub(crate) writer: Box<SegmentWriter>,
    pub(crate) customers: Vec<CustomerKeys>,
    pub(crate) streams: Vec<Option<StreamSeal>>,
    /// KEY and STREAM blocks without padding, for a relocation.
    pub(crate) kept: Vec<Box<[u8]>>,
    /// Tombstones above the watermark, for a relocation and for their ticket.
    tombstones: Vec<(u64, u64, Vec<DeletedSegment>)>,
    pub(crate) entries: Entries,
    pub(crate) watermark: u64,
    watermark_block_no: u64,
    alloc_end: u64,
    opened_ns: u64,
    pending_since_ns: u64,
    syncing_upto: Option<u64>,
    last_sync_ns: u64,
    last_checkpoint_ns: u64,
    blocks_at_checkpoint: u64,
    writes_in_flight: u32,
    stage: Stage,
    prev: Option<SegmentId>,
    prev_root: Option<[u8; 32]>,
    pub(crate) origin: OriginBody,
    /// Other segments whose chunks were relocated into this one.
    foreign: Vec<Foreign>,
}

/// A write the disk has not finished.
#[derive(Debug)]
struct Write {
    segment: Handle,
    first: u64,
    count: usize,
    offset: u64,
    len: u64,
    done: u64,
    failed_once: bool,
    /// Waiting to be submitted (again) at this time.
    resubmit_ns: Option<u64>,
}

/// The log of one shard.
pub struct Log {
    limits: Limits,
    node: Arc<NodeKey>,
    backend: Backend,
    /// Stream ids of streams that begin in the middle of a segment.
    rng: Box<dyn CryptoRng + Send>,
    pub(crate) segments: VecDeque<OpenSegment>,
    next: Option<Box<Prepared>>,
    moving: Option<Moving>,
    writes: Vec<Option<Write>>,
    extend_asked: bool,
    extend_retry_ns: u64,
    disk_full: bool,
    heads: Vec<ChainHead>,
    tombstones: VecDeque<(u64, Vec<DeletedSegment>)>,
    outcomes: Vec<Outcome>,
    placed_bytes: u64,
    rate: Rate,
    /// Segments given up so far.
    pub retired: u64,
    /// Segments begun so far.
    pub opened: u64,
    /// Bytes made durable so far, all block types.
    pub durable_bytes: u64,
}

/// Bytes placed in the last full second, to size allocations by.
#[derive(Debug, Default)]
struct Rate {
    since_ns: u64,
    bytes: u64,
    last_second: u64,
}

impl Log {
    /// A log without a segment; it asks for the first with [`Log::order_needed`].
    pub fn new(limits: Limits, node: Arc<NodeKey>, backend: Backend, rng: Box<dyn CryptoRng + Send>) -> Self {
        Log {
            limits,
            node,
            backend,
            rng,
            segments: VecDeque::with_capacity(4),
            next: None,
            moving: None,
            writes: (0..MAX_WRITES).map(|_| None).collect(),
            extend_asked: false,
            extend_retry_ns: 0,
            disk_full: false,
            heads: Vec::new(),
            tombstones: VecDeque::new(),
            outcomes: Vec::with_capacity(1024),
            placed_bytes: 0,
            rate: Rate::default(),
            retired: 0,
            opened: 0,
            durable_bytes: 0,
        }
    }

    // ---- Placing --------------------------------------------------------------------------------------------

    /// Whether a full chunk, with the KEY and STREAM it may need, can be placed now.
    pub fn has_room(&self, pool: &Pool) -> bool {
        pool.free() >= 2
            && self
                .active()
                .is_some_and(|active| active.room() >= (BUFFER_BYTES * 3) as u64)
    }

    /// How `stream` is sealed in the active segment, if its STREAM block stands there.
    pub fn stream_is_placed(&self, stream: u32) -> bool {
        self.active()
            .is_some_and(|active| active.streams.get(stream as usize).is_some_and(Option::is_some))
    }

    /// Places the STREAM block of a stream (and its customer's KEY block if it is the customer's first) in the active
    /// segment. Call only after [`Log::has_room`].
    pub fn place_stream(
        &mut self,
        pool: &mut Pool,
        stream: u32,
        customer: u32,
        facts: &prepare::StreamFacts,
        now: Now,
    ) {
        let Some(active) = self.segments.back_mut() else {
            return;
        };
        let durable = active.durable_4k();
        let keys = &mut active.customers[customer as usize];
        if !keys.written {
            keys.written = true;
            let (placed, bytes) = active.writer.add_keys(std::slice::from_ref(&keys.entry), durable);
            active.keep(&bytes);
            active.place_meta(pool, placed, &bytes, now);
        }
        let sealed = prepare::seal_stream(
            &mut active.writer,
            active.id,
            &active.customers[customer as usize],
            facts,
            self.backend,
            durable,
            &mut *self.rng,
        );
        active.keep(&sealed.block);
        active.place_meta(pool, sealed.placed, &sealed.block, now);
        active.set_stream(stream, sealed.seal);
    }

    /// Seals `chunk` in place and appends it. Call only after [`Log::has_room`] and when the stream is placed.
    pub fn place_chunk(&mut self, pool: &mut Pool, stream: u32, chunk: OpenChunk, body_len: usize, now: Now) {
        let active = self
            .segments
            .back_mut()
            .expect("has_room said there is an active segment");
        let seal = active.streams[stream as usize]
            .as_ref()
            .expect("the stream was placed before its chunk");
        let durable = active.durable_4k();
        let bytes = pool.bytes_mut(&chunk.buffer);
        let (first_s, last_s) = (
            chunk.first_arrival_ns / 1_000_000_000,
            chunk.last_arrival_ns / 1_000_000_000,
        );
        let plan = ChunkPlan {
            row: seal.row,
            body_len,
            first_s,
            last_s,
            durable_4k: durable,
        };
        let placed = active.writer.seal_chunk(plan, &seal.key, bytes);
        let facts = ChunkFacts {
            stream,
            packets: chunk.packets,
            packet_bytes: chunk.packet_bytes,
            first_arrival_ns: chunk.first_arrival_ns,
            block_no: placed.block_no,
        };
        active.place(
            chunk.buffer,
            placed.total_len,
            placed.offset,
            What::Chunk(facts),
            now,
        );
        self.placed_bytes += u64::from(placed.total_len);
    }

    /// Queues tombstones for the active segment; the keeper hears of `ticket` once they are durable.
    pub fn add_tombstones(&mut self, ticket: u64, entries: Vec<DeletedSegment>) {
        self.tombstones.push_back((ticket, entries));
    }

    /// Chain ends found at the start, for the next checkpoint.
    pub fn add_heads(&mut self, heads: Vec<ChainHead>) {
        self.heads.extend(heads);
    }

    // ---- Moving on ------------------------------------------------------------------------------------------

    /// Does what is due: tombstones, checkpoint, retirement, extension, writes, syncs, closing.
    pub fn advance(&mut self, pool: &mut Pool, disk: &mut impl Disk, now: Now, flush: bool) {
        self.rate.note(self.placed_bytes, now.mono_ns);
        self.place_tombstones(pool, now);
        self.checkpoint_if_due(pool, now);
        self.relocate_failed(pool, disk, now);
        self.extend_if_low(disk, now);
        self.submit_writes(pool, disk, now, flush);
        self.submit_syncs(disk, now);
        self.close_drained(disk);
    }

    /// The next thing that falls due by itself, monotonic nanoseconds.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        // What waits for a completion is not due by itself: waking up for it would be a busy loop.
        let free_slot = self.writes.iter().any(Option::is_none);
        let of_segments = self
            .segments
            .iter()
            .filter(|segment| !segment.failed())
            .filter_map(|segment| {
                let waiting = free_slot && segment.entries.pending().next().is_some();
                let write = waiting.then_some(segment.pending_since_ns + GATHER_NS);
                let unsynced = segment.entries.has_unsynced() && segment.syncing_upto.is_none();
                let sync = unsynced.then_some(segment.last_sync_ns + self.limits.commit_interval_ns);
                write.into_iter().chain(sync).min()
            });
        let of_writes = self.writes.iter().flatten().filter_map(|write| write.resubmit_ns);
        of_segments.chain(of_writes).min()
    }

    /// A write completed: `result` is the number of bytes, or a negative errno.
    pub fn written(&mut self, token: u32, result: i32, now: Now) {
        let Some(handle) = self.writes[token as usize].as_ref().map(|write| write.segment) else {
            return;
        };
        let failed = self.segment_mut(handle).is_none_or(|segment| segment.failed());
        let Some(write) = self.writes[token as usize].as_mut() else {
            return;
        };
        if failed {
            self.fail_write(token); // whatever it wrote, its bytes go to another segment
            return;
        }
        if result > 0 {
            write.done += result as u64;
            if write.done < write.len {
                write.resubmit_ns = Some(now.mono_ns); // a short write: the rest of the same bytes
                return;
            }
        } else {
            match -result {
                EINTR | EAGAIN => write.resubmit_ns = Some(now.mono_ns),
                ENOSPC => {
                    self.disk_full = true;
                    write.resubmit_ns = Some(now.mono_ns + RETRY_NS);
                }
                _ if !write.failed_once => {
                    write.failed_once = true;
                    write.resubmit_ns = Some(now.mono_ns);
                }
                _ => self.fail_write(token),
            }
            return;
        }
        let write = self.writes[token as usize]
            .take()
            .expect("it was there a moment ago");
        if let Some(segment) = self.segment_mut(write.segment) {
            segment.writes_in_flight -= 1;
            segment.entries.complete(write.first, write.count);
        }
    }

    /// An fdatasync returned. Here, and nowhere else, written bytes become durable and their buffers free.
    pub fn synced(&mut self, handle: Handle, result: i32, pool: &mut Pool, outside: &mut impl Outside) {
        let Some(at) = self.segments.iter().position(|segment| segment.handle == handle) else {
            return;
        };
        let segment = &mut self.segments[at];
        let Some(upto) = segment.syncing_upto.take() else {
            return;
        };
        if result < 0 {
            segment.stage = Stage::Failed; // what the kernel has now is unknown: never ask it again
            return;
        }
        while let Some(entry) = segment.entries.pop_durable(upto) {
            segment.watermark = entry.offset + u64::from(entry.len);
            self.durable_bytes += u64::from(entry.len);
            pool.give(entry.buffer);
            match entry.what {
                What::Chunk(chunk) => {
                    segment.watermark_block_no = chunk.block_no;
                    self.outcomes.push(Outcome {
                        chunk,
                        stored_len: entry.len,
                    });
                }
                What::Meta { block_no } => segment.watermark_block_no = block_no,
            }
        }
        let watermark = segment.watermark;
        segment.tombstones.retain(|(end, ticket, _)| {
            let durable = *end <= watermark;
            if durable {
                outside.request(Request::TombstonesDurable(*ticket));
            }
            !durable
        });
        outside.durable(DurablePlace {
            segment: segment.id,
            offset: watermark,
            block_no: segment.watermark_block_no,
        });
    }

    /// Takes the chunks that became durable since the last call, in log order.
    pub fn drain_durable(&mut self) -> std::vec::Drain<'_, Outcome> {
        self.outcomes.drain(..)
    }

    // ---- Segments -------------------------------------------------------------------------------------------

    /// What the keeper would need for the segment after the present ones.
    pub fn position(&self) -> (Option<SegmentId>, u64) {
        match self.segments.back() {
            Some(last) => (Some(last.id), last.origin.chain_seq + 1),
            None => (None, 0),
        }
    }

    /// A prepared segment arrived. Returns one it replaces, to be discarded.
    pub fn prepared(&mut self, prepared: Box<Prepared>) -> Option<Box<Prepared>> {
        self.next.replace(prepared)
    }

    /// Whether a prepared segment waits.
    pub fn next(&self) -> Option<&Prepared> {
        self.next.as_deref()
    }

    /// Takes the waiting segment back, when it will not be used.
    pub fn take_next(&mut self) -> Option<Box<Prepared>> {
        self.next.take()
    }

    /// Whether the active segment should give way: by age, size, failure, or because the disk has no more for it.
    pub fn rotation_due(&self, now: Now) -> bool {
        let Some(active) = self.active() else {
            return self.next.is_some();
        };
        if active.stage == Stage::Failed || self.moving.is_some() {
            return active.stage == Stage::Failed; // a relocation ends where it began, if it can
        }
        let used = active.writer.chunk_count() > 0;
        let old = now.mono_ns.saturating_sub(active.opened_ns) >= self.limits.segment_max_age_ns;
        let full = active.writer.next_offset() + active.tail_bytes() + (BUFFER_BYTES * 3) as u64
            > self.limits.segment_max_bytes;
        let starved = self.disk_full && active.room() < (BUFFER_BYTES * 3) as u64;
        used && (old || full || starved)
    }

    /// Makes the waiting segment the active one.
    pub fn rotate(&mut self, now: Now) {
        let Some(next) = self.next.take() else { return };
        self.disk_full = false; // there was space for this one
        self.opened += 1;
        let prev = self.segments.back().map(|last| last.id);
        self.segments.push_back(OpenSegment::new(*next, prev, now));
        self.extend_asked = false;
        self.extend_retry_ns = 0;
    }

    /// Space was allocated up to `end`, or not (`errno`).
    pub fn extended(
        &mut self,
        handle: Handle,
        result: Result<u64, i32>,
        outside: &mut impl Outside,
        now: Now,
    ) {
        if !self.active().is_some_and(|active| active.handle == handle) {
            return;
        }
        self.extend_asked = false;
        match result {
            Ok(end) => {
                self.disk_full = false;
                if let Some(active) = self.segments.back_mut() {
                    active.alloc_end = end;
                }
            }
            Err(ENOSPC) => {
                self.disk_full = true;
                self.extend_retry_ns = now.mono_ns + RETRY_NS;
                outside.request(Request::NoSpace);
            }
            // Anything else (a read-only or failing file system) is this segment's end; the next one may fare better.
            Err(_) => {
                self.extend_retry_ns = now.mono_ns + RETRY_NS;
                if let Some(active) = self
                    .segments
                    .back_mut()
                    .filter(|active| active.room() < BUFFER_BYTES as u64)
                {
                    active.stage = Stage::Failed;
                }
            }
        }
    }

    /// A segment was closed; its final root goes into the next checkpoint of the one after it.
    pub fn closed(&mut self, id: SegmentId, root: [u8; 32]) {
        if let Some(next) = self.segments.iter_mut().find(|segment| segment.prev == Some(id)) {
            next.prev_root = Some(root);
        }
    }

    /// The next segment could not be prepared for lack of space.
    pub fn note_disk_full(&mut self) {
        self.disk_full = true;
    }

    /// Whether the disk last said that it is full.
    pub fn disk_full(&self) -> bool {
        self.disk_full
    }

    /// Whether nothing at all is on its way to the disk.
    pub fn is_quiet(&self) -> bool {
        self.segments
            .iter()
            .all(|s| s.entries.is_empty() && s.writes_in_flight == 0 && s.syncing_upto.is_none())
            && self.tombstones.is_empty()
            && self.moving.is_none()
    }

    /// Whether there is a segment to append to.
    pub fn has_active(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Whether the active segment has taken more than `bytes`.
    pub fn active_is_used_up(&self, bytes: u64) -> bool {
        self.active()
            .is_some_and(|active| active.writer.next_offset() > bytes)
    }

    /// The slot `stream` goes to another stream: nothing placed for the old one is used for the new one.
    pub fn forget_stream(&mut self, stream: u32) {
        let of_next = self.next.iter_mut().map(|next| &mut next.streams);
        for streams in self
            .segments
            .iter_mut()
            .map(|segment| &mut segment.streams)
            .chain(of_next)
        {
            if let Some(seal) = streams.get_mut(stream as usize) {
                *seal = None;
            }
        }
    }

    /// At the end of a run: hands every segment to the keeper as it stands and returns the chunks that did not become
    /// durable. Buffers of writes still in flight stay with the log, for the kernel may yet read them.
    pub fn give_up(&mut self, outside: &mut impl Outside) -> Vec<Outcome> {
        let outcome = |entry: &Entry| match entry.what {
            What::Chunk(chunk) => Some(Outcome {
                chunk,
                stored_len: entry.len,
            }),
            What::Meta { .. } => None,
        };
        let mut lost: Vec<Outcome> = self
            .moving
            .iter()
            .flat_map(Moving::chunks)
            .filter_map(outcome)
            .collect();
        for segment in &mut self.segments {
            lost.extend(segment.entries.iter().filter_map(outcome));
            if !segment.entries.is_empty() {
                segment.stage = Stage::Failed;
            }
        }
        while let Some(segment) = self.segments.pop_front() {
            finish_segment(segment, outside);
        }
        lost
    }

    fn active(&self) -> Option<&OpenSegment> {
        self.segments.back()
    }

    fn segment_mut(&mut self, handle: Handle) -> Option<&mut OpenSegment> {
        self.segments.iter_mut().find(|segment| segment.handle == handle)
    }

    // ---- Steps of `advance` ---------------------------------------------------------------------------------

    fn place_tombstones(&mut self, pool: &mut Pool, now: Now) {
        while let Some((ticket, entries)) = self.tombstones.pop_front() {
            let Some(active) = self.segments.back_mut().filter(|a| {
                a.stage == Stage::Good && pool.free() > entries.len() * 80 / BUFFER_BYTES && a.room() > 0
            }) else {
                self.tombstones.push_front((ticket, entries));
                return;
            };
            let (placed, bytes) = active
                .writer
                .tombstone(&self.node, &entries, now.real_ns / 1_000_000_000);
            let end = placed.offset + u64::from(placed.total_len);
            active.place_meta(pool, placed, &bytes, now);
            active.tombstones.push((end, ticket, entries));
        }
    }

    fn checkpoint_if_due(&mut self, pool: &mut Pool, now: Now) {
        let Some(active) = self.segments.back_mut() else {
            return;
        };
        let idle = active.writer.next_block_no() == active.blocks_at_checkpoint && self.heads.is_empty();
        let early = now.mono_ns.saturating_sub(active.last_checkpoint_ns) < CHECKPOINT_NS;
        if idle
            || early
            || active.stage == Stage::Failed
            || pool.free() < 2
            || active.room() < BUFFER_BYTES as u64
        {
            return;
        }
        let batch = self.heads.len().min(512); // 48 KiB of heads: two buffers at most
        let heads: Vec<ChainHead> = self.heads.drain(..batch).collect();
        let time_s = now.real_ns / 1_000_000_000;
        let (placed, bytes) =
            active
                .writer
                .checkpoint(&self.node, active.watermark, active.prev_root, time_s, &heads);
        active.place_meta(pool, placed, &bytes, now);
        active.last_checkpoint_ns = now.mono_ns;
        active.blocks_at_checkpoint = active.writer.next_block_no();
    }

    fn extend_if_low(&mut self, outside: &mut impl Outside, now: Now) {
        let step = self.rate.allocation_bytes();
        let Some(active) = self.segments.back().filter(|a| a.stage == Stage::Good) else {
            return;
        };
        let at_limit = active.alloc_end >= self.limits.segment_max_bytes;
        if self.extend_asked || at_limit || active.room() >= step || now.mono_ns < self.extend_retry_ns {
            return;
        }
        self.extend_asked = true;
        let bytes = step
            .min(self.limits.segment_max_bytes - active.alloc_end)
            .next_multiple_of(BLOCK_ALIGN as u64);
        outside.request(Request::Extend {
            segment: active.handle,
            from: active.alloc_end,
            bytes,
        });
    }

    fn submit_writes(&mut self, pool: &Pool, disk: &mut impl Disk, now: Now, flush: bool) {
        for token in 0..self.writes.len() {
            self.resubmit(token, pool, disk, now);
        }
        for at in 0..self.segments.len() {
            let draining = at + 1 < self.segments.len();
            while self.submit_one(at, pool, disk, now, flush || draining) {}
        }
    }

    fn resubmit(&mut self, token: usize, pool: &Pool, disk: &mut impl Disk, now: Now) {
        let Some(write) = self.writes[token]
            .as_ref()
            .filter(|w| w.resubmit_ns.is_some_and(|t| t <= now.mono_ns))
        else {
            return;
        };
        let Some(segment) = self
            .segments
            .iter()
            .find(|segment| segment.handle == write.segment)
        else {
            return;
        };
        if segment.failed() {
            self.fail_write(token as u32);
            return;
        }
        let mut ranges = [(0, 0); MAX_WRITE_BUFFERS];
        let mut count = 0;
        let mut skip = write.done as usize;
        for entry in segment.entries.range(write.first, write.count) {
            let len = entry.len as usize;
            if skip < len {
                ranges[count] = (entry.buffer.offset() + skip, len - skip);
                count += 1;
            }
            skip = skip.saturating_sub(len);
        }
        let offset = write.offset + write.done;
        if disk.write(
            token as u32,
            segment.handle,
            offset,
            pool.region(),
            &ranges[..count],
        ) && let Some(write) = self.writes[token].as_mut()
        {
            write.resubmit_ns = None;
        }
    }

    /// Submits one gathered write of segment `at`, if one is due and a slot is free.
    fn submit_one(&mut self, at: usize, pool: &Pool, disk: &mut impl Disk, now: Now, flush: bool) -> bool {
        let segment = &mut self.segments[at];
        let Some(token) = self.writes.iter().position(Option::is_none) else {
            return false;
        };
        if segment.stage == Stage::Failed {
            return false;
        }
        let mut ranges = [(0, 0); MAX_WRITE_BUFFERS];
        let (mut count, mut len, mut offset) = (0, 0, 0);
        for entry in segment.entries.pending() {
            if count == MAX_WRITE_BUFFERS || len + entry.len as usize > MAX_WRITE_BYTES {
                break;
            }
            if count == 0 {
                offset = entry.offset;
            }
            ranges[count] = (entry.buffer.offset(), entry.len as usize);
            count += 1;
            len += entry.len as usize;
        }
        let ripe = flush || len >= GATHER_BYTES || now.mono_ns >= segment.pending_since_ns + GATHER_NS;
        if count == 0
            || !ripe
            || !disk.write(
                token as u32,
                segment.handle,
                offset,
                pool.region(),
                &ranges[..count],
            )
        {
            return false;
        }
        let first = segment.entries.submit(count);
        segment.writes_in_flight += 1;
        segment.pending_since_ns = now.mono_ns;
        self.writes[token] = Some(Write {
            segment: segment.handle,
            first,
            count,
            offset,
            len: len as u64,
            done: 0,
            failed_once: false,
            resubmit_ns: None,
        });
        true
    }

    fn submit_syncs(&mut self, disk: &mut impl Disk, now: Now) {
        for segment in &mut self.segments {
            let due = now.mono_ns.saturating_sub(segment.last_sync_ns) >= self.limits.commit_interval_ns;
            let wanted = segment.stage == Stage::Good && segment.syncing_upto.is_none();
            if due && wanted && segment.entries.has_unsynced() && disk.sync(segment.handle) {
                segment.syncing_upto = Some(segment.entries.written_upto());
                segment.last_sync_ns = now.mono_ns;
            }
        }
    }

    fn close_drained(&mut self, outside: &mut impl Outside) {
        while self.segments.len() > 1 && self.segments.front().is_some_and(OpenSegment::is_drained) {
            if let Some(segment) = self.segments.pop_front() {
                finish_segment(segment, outside);
            }
        }
    }

    fn fail_write(&mut self, token: u32) {
        let Some(write) = self.writes[token as usize].take() else {
            return;
        };
        if let Some(segment) = self.segment_mut(write.segment) {
            segment.writes_in_flight -= 1;
            segment.stage = Stage::Failed;
        }
    }
}

/// Closes a segment with its footer, or abandons it where the disk failed it.
fn finish_segment(segment: OpenSegment, outside: &mut impl Outside) {
    let OpenSegment {
        handle,
        stage,
        writer,
        prev_root,
        ..
    } = segment;
    outside.request(match stage {
        Stage::Good => Request::Close {
            segment: handle,
            writer,
            prev_root,
        },
        Stage::Failed => Request::Abandon(handle),
    });
}

impl OpenSegment {
    fn new(prepared: Prepared, prev: Option<SegmentId>, now: Now) -> Self {
        let Prepared {
            handle,
            origin,
            writer,
            customers,
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
            writer,
            customers,
            streams,
            kept,
            tombstones: Vec::new(),
            entries: Entries::with_capacity(1024),
            alloc_end,
            opened_ns: now.mono_ns,
            pending_since_ns: now.mono_ns,
            syncing_upto: None,
            last_sync_ns: now.mono_ns,
            last_checkpoint_ns: now.mono_ns,
            writes_in_flight: 0,
            stage: Stage::Good,
            prev,
            prev_root: None,
            origin,
            foreign: Vec::new(),
        }
    }

    fn durable_4k(&self) -> u32 {
        (self.watermark / BLOCK_ALIGN as u64) as u32
    }

    /// Bytes that index and footer would take now, with room for a last checkpoint and some new streams.
    fn tail_bytes(&self) -> u64 {
        self.writer.tail_len() + 16 * BLOCK_ALIGN as u64
    }

    /// Bytes that may still be placed below the allocated end, the tail's share taken off.
    pub(crate) fn room(&self) -> u64 {
        self.alloc_end
            .saturating_sub(self.writer.next_offset() + self.tail_bytes())
    }

    fn is_drained(&self) -> bool {
        self.entries.is_empty() && self.writes_in_flight == 0 && self.syncing_upto.is_none()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.writes_in_flight == 0 && self.syncing_upto.is_none()
    }

    pub(crate) fn failed(&self) -> bool {
        self.stage == Stage::Failed
    }

    fn set_stream(&mut self, stream: u32, seal: StreamSeal) {
        let at = stream as usize;
        if self.streams.len() <= at {
            self.streams.resize_with(at + 1, || None);
        }
        self.streams[at] = Some(seal);
    }

    fn keep(&mut self, block: &[u8]) {
        self.kept.push(prepare::without_padding(block));
    }

    /// Queues placed bytes. `buffer` holds `len` of them.
    pub(crate) fn place(&mut self, buffer: BufferId, len: u32, offset: u64, what: What, now: Now) {
        if self.entries.pending().next().is_none() {
            self.pending_since_ns = now.mono_ns;
        }
        self.entries.push(Entry {
            buffer,
            len,
            offset,
            state: State::Pending,
            what,
        });
    }

    /// Copies a finished block of any type but CHUNK into pool buffers: behind the last block if that one still waits
    /// and has room, else into fresh ones. The caller has made sure that the pool holds enough.
    pub(crate) fn place_meta(&mut self, pool: &mut Pool, placed: Placed, block: &[u8], now: Now) {
        let mut offset = placed.offset;
        let mut rest = block;
        while !rest.is_empty() {
            let what = What::Meta {
                block_no: placed.block_no,
            };
            if let Some(last) = self.entries.last_pending_mut().filter(|e| {
                matches!(e.what, What::Meta { .. }) && e.len as usize + rest.len() <= BUFFER_BYTES
            }) {
                let at = last.len as usize;
                pool.bytes_mut(&last.buffer)[at..at + rest.len()].copy_from_slice(rest);
                last.len += rest.len() as u32;
                last.what = what;
                return;
            }
            let part = rest.len().min(BUFFER_BYTES);
            let buffer = pool
                .take()
                .expect("has_room keeps buffers back for blocks that are no chunks");
            pool.bytes_mut(&buffer)[..part].copy_from_slice(&rest[..part]);
            self.place(buffer, part as u32, offset, what, now);
            offset += part as u64;
            rest = &rest[part..];
        }
    }
}

impl Rate {
    fn note(&mut self, placed_bytes: u64, mono_ns: u64) {
        if mono_ns.saturating_sub(self.since_ns) >= 1_000_000_000 {
            self.last_second = placed_bytes - self.bytes;
            self.bytes = placed_bytes;
            self.since_ns = mono_ns;
        }
    }

    /// Two seconds of the present rate, from 16 MiB to 1 GiB: enough that the keeper is always ahead, and never
    /// more of a small disk than it needs.
    pub(crate) fn allocation_bytes(&self) -> u64 {
        (2 * self.last_second)
            .clamp(16 << 20, 1 << 30)
            .next_multiple_of(1 << 20)
    }
}

impl Log {
    /// Space the next segment should start with, in bytes.
    pub fn allocation_bytes(&self) -> u64 {
        self.rate.allocation_bytes().min(self.limits.segment_max_bytes)
    }
}

/// The header of a finished block in a buffer.
pub(crate) fn header_of(bytes: &[u8]) -> Header {
    Header::parse(&bytes[..HEADER_LEN]).expect("the log placed this block itself")
}
