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
#[cfg(feature = "planted-faults")]
mod faults;
pub mod files;
mod granting;
pub mod keeper;
mod place;
pub mod prepare;
mod relocate;
mod rotate;
mod segment;
mod writes;

use std::collections::VecDeque;
use std::sync::Arc;

use harborseal_segment::block::{HEADER_LEN, Header};
use harborseal_segment::body::{ChainHead, DeletedSegment};
use harborseal_segment::cipher::Backend;
use harborseal_segment::ids::SegmentId;
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::CryptoRng;
use harborseal_segment::writer::SegmentWriter;

use crate::chunk::{BUFFER_BYTES, Pool};
use crate::uring::memory::Region;
use entry::ChunkFacts;
use prepare::Prepared;
use relocate::Moving;
use rotate::Rate;
use segment::OpenSegment;
pub use segment::StreamSeal;
use writes::Write;

/// Writes in flight per shard; well below the 256 requests a block device queues by default.
pub const MAX_WRITES: usize = 16;
/// Longest a sealed block waits for company before it is written, in nanoseconds: a quarter of the commit interval.
const GATHER_NS: u64 = 5_000_000;
/// Wait between attempts that failed for lack of space, in nanoseconds.
const RETRY_NS: u64 = 250_000_000;
/// Memory that only blocks other than chunks may take: a new stream's KEY and STREAM, a checkpoint, an ORIGIN. A KEY block of 256 entries,
/// the largest there is, needs 316 KiB of it, in whatever pieces.
pub const META_RESERVE_BYTES: usize = 8 * BUFFER_BYTES;

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

/// The log of one shard.
pub struct Log {
    limits: Limits,
    node: Arc<NodeKey>,
    backend: Backend,
    /// Stream ids of streams that begin in the middle of a segment.
    rng: Box<dyn CryptoRng + Send>,
    segments: VecDeque<OpenSegment>,
    next: Option<Box<Prepared>>,
    moving: Option<Moving>,
    writes: Vec<Option<Write>>,
    extend_asked: bool,
    extend_retry_ns: u64,
    disk_full: bool,
    disk_failing: bool,
    heads: Vec<ChainHead>,
    last_checkpoint_ns: u64,
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

impl Log {
    /// A log without a segment: the first is waited for like every other.
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
            disk_failing: false,
            heads: Vec::new(),
            last_checkpoint_ns: 0,
            tombstones: VecDeque::new(),
            outcomes: Vec::with_capacity(1024),
            placed_bytes: 0,
            rate: Rate::default(),
            retired: 0,
            opened: 0,
            durable_bytes: 0,
        }
    }

    /// Does what is due: tombstones, checkpoint, retirement, extension, writes, syncs, closing.
    pub fn advance(&mut self, pool: &mut Pool, disk: &mut impl Disk, now: Now, flush: bool) {
        self.rate.note(self.placed_bytes, now.mono_ns);
        self.place_tombstones(pool, now);
        self.checkpoint_if_due(pool, now);
        self.relocate_failed(pool, disk, now);
        self.extend_if_low(disk, now);
        self.submit_writes(pool, disk, now, flush);
        self.submit_syncs(disk, now);
        #[cfg(feature = "planted-faults")]
        self.commit_wrongly(pool, disk, now);
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

    /// The next segment could not be prepared for lack of space.
    pub fn note_disk_full(&mut self) {
        self.disk_full = true;
    }

    /// The next segment could not be prepared for another reason: a failing or read-only file system.
    pub fn note_disk_failing(&mut self) {
        self.disk_failing = true;
    }

    /// Whether the last attempt to prepare a segment failed, and not for lack of space.
    pub fn disk_failing(&self) -> bool {
        self.disk_failing
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

    /// Whether there is a segment to append to, and the disk has not failed it.
    pub fn can_append(&self) -> bool {
        self.active().is_some_and(|active| !active.failed())
    }

    /// Whether the active segment has taken more than `bytes`.
    pub fn active_is_used_up(&self, bytes: u64) -> bool {
        self.active()
            .is_some_and(|active| active.writer.next_offset() > bytes)
    }

    fn active(&self) -> Option<&OpenSegment> {
        self.segments.back()
    }

    fn segment_mut(&mut self, handle: Handle) -> Option<&mut OpenSegment> {
        self.segments.iter_mut().find(|segment| segment.handle == handle)
    }
}

/// The header of a finished block in a buffer.
pub(crate) fn header_of(bytes: &[u8]) -> Header {
    Header::parse(&bytes[..HEADER_LEN]).expect("the log placed this block itself")
}
