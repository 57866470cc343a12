//! The shard's decisions, without I/O: packets, completions and times come in, writes and events go out.
//!
//! Owns the streams, the pool and the log of one shard. Read [`Core::receive`] and [`Core::advance`] aloud and you have the README's sentence: a
//! packet is validated, admitted, accounted and packed; a full or ageing chunk is sealed, placed and written; what an fdatasync covers is stored.
//!
//! Invariant, checked after every run and by the simulator: received = stored + Σ dropped(reason) + packets in chunks
//! and in the hold queue.

mod pack;
mod receive;
mod seal;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use pack::Deadlines;
use seal::Full;

use super::hold::{Hold, MAX_HOLD_NS};
use crate::chunk::{BUFFER_BYTES, OpenChunk, Pace, Pool};
use crate::ledger::{Reason, Snapshot, StreamLedger};
use crate::log::prepare::{Order, Prepared, StreamFacts};
use crate::log::{Disk, Log, META_RESERVE_BYTES, Now, Outside, Request};
use crate::port::Stray;
use crate::stream::registry::Registry;
use crate::stream::table::{ACTIVE_NS, Streams};
pub use crate::uring::Datagram;

/// Receiving pauses below this share of the memory that chunks may take, and goes on above twice of it.
const LOW_WATER_DIVISOR: usize = 16;
/// Longest pause of receiving, in nanoseconds: by then the socket buffer has absorbed what it can. After it, packets
/// are taken and dropped with their reason, so that the loss is counted to the packet.
const MAX_PAUSE_NS: u64 = 250_000_000;
/// How long a new segment is used before the one after it is prepared, in nanoseconds: by then most of its streams are
/// known, so that their STREAM blocks are written ahead.
const PREPARE_AFTER_NS: u64 = 2_000_000_000;
/// Pause after a failed preparation, in nanoseconds.
const PREPARE_RETRY_NS: u64 = 500_000_000;

/// The other shards, as one shard sees them.
pub trait Neighbours {
    /// Hands a packet, `data`, of a datagram to the shard that owns its stream. False: its queue is full.
    fn hand_over(&mut self, owner: usize, datagram: &Datagram<'_>, data: &[u8]) -> bool;
    /// Whether every shard has processed and handed over all that arrived at its socket `socket` up to `arrival_ns`.
    fn all_past(&self, socket: u16, arrival_ns: u64) -> bool;
}

/// What one shard needs to know of itself. Times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Its index.
    pub shard: u16,
    /// How many shards there are.
    pub shards: u16,
    /// A chunk is sealed at this age at the latest.
    pub chunk_deadline_ns: u64,
    /// Longest life of a segment; only to prepare the next in time.
    pub segment_max_age_ns: u64,
    /// Largest segment; likewise.
    pub segment_max_bytes: u64,
}

/// One shard's decisions.
pub struct Core {
    settings: Settings,
    registry: Arc<Registry>,
    /// The registry that the next segment should bring.
    wanted: Arc<Registry>,
    /// When standing grants were looked at last, realtime.
    grants_seen_ns: Option<u64>,
    /// One of them has begun or ended since the segments there are were asked for.
    grants_turned: bool,
    streams: Streams,
    pool: Pool,
    log: Log,
    hold: Option<Hold>,
    deadlines: Deadlines,
    /// Chunks that take no more packets and wait for a place in a segment.
    full: VecDeque<Full>,
    /// The chunk that takes a stream's packets, by the stream's index.
    open: Vec<Option<OpenChunk>>,
    /// What each stream's chunks were like, by the stream's index.
    paces: Vec<Pace>,
    /// Bytes of the open chunks' buffers. All others in use come back by themselves.
    open_bytes: usize,
    next_serial: u64,
    books: Box<Snapshot>,
    /// SSRC and stream of the latest RTP packet: a batch mostly holds packets of one.
    latest: Option<(u32, u32)>,
    /// The stream of an SSRC whose RTP was admitted last: one look-up in a small table instead of two in large ones. It holds for packets
    /// from that [`Stream::source`], under the registry in force.
    ///
    /// [`Stream::source`]: crate::stream::table::Stream::source
    admitted: HashMap<u32, u32, FixedState>,
    /// The latest packet that was not admitted: a sample for the log.
    stray: Option<Stray>,
    low_since_ns: Option<u64>,
    order_out: bool,
    /// Slots that changed hands since the latest order.
    reused: Vec<u32>,
    order_after_ns: u64,
    segment_since_ns: u64,
    stopping: bool,
}

impl Core {
    /// A shard without a segment: it receives at once, and seals as soon as one is prepared.
    pub fn new(
        settings: Settings,
        registry: Arc<Registry>,
        pool: Pool,
        log: Log,
        hold: Option<Hold>,
    ) -> Self {
        let mut books = Box::new(Snapshot::new(settings.shard));
        books.pool_bytes = pool.total_bytes() as u64;
        Core {
            settings,
            wanted: Arc::clone(&registry),
            grants_seen_ns: None,
            grants_turned: false,
            registry,
            streams: Streams::default(),
            open: Vec::new(),
            paces: Vec::new(),
            deadlines: Deadlines::with_capacity(2 * pool.total_bytes() / BUFFER_BYTES),
            full: VecDeque::with_capacity(pool.total_bytes() / BUFFER_BYTES),
            pool,
            log,
            hold,
            open_bytes: 0,
            next_serial: 0,
            books,
            latest: None,
            admitted: HashMap::default(),
            stray: None,
            low_since_ns: None,
            order_out: false,
            reused: Vec::new(),
            order_after_ns: 0,
            segment_since_ns: 0,
            stopping: false,
        }
    }

    /// Does everything that is due. Call after each batch of packets and completions.
    pub fn advance(&mut self, disk: &mut impl Disk, others: &impl Neighbours, now: Now) {
        if self.holds_packets() {
            self.release_held(|socket, arrival_ns| others.all_past(socket, arrival_ns), now);
        }
        self.seal_due(now);
        self.turn_grants(disk, now);
        self.rotate_if_due(disk, now);
        self.seal_full(now);
        self.log.advance(&mut self.pool, disk, now, self.stopping);
        self.settle(now);
        self.order_if_needed(disk, now);
        self.note_pressure(now);
    }

    /// Where a standing grant begins or ends, the next segment is begun at once, as if the configuration had changed. An idle segment, or one that was
    /// prepared and not needed, could otherwise be written to long after its end.
    fn turn_grants(&mut self, disk: &mut impl Disk, now: Now) {
        let seen_ns = self.grants_seen_ns.replace(now.real_ns).unwrap_or(now.real_ns);
        self.grants_turned |= self.wanted.grants_turn(seen_ns, now.real_ns);
        // A reload under way ends first: whoever asked for it waits to see its registry in force.
        if self.grants_turned && Arc::ptr_eq(&self.wanted, &self.registry) {
            self.grants_turned = false;
            self.reload(Arc::new(Registry::clone(&self.registry)), disk);
        }
    }

    fn rotate_if_due(&mut self, disk: &mut impl Disk, now: Now) {
        let brings_registry = self
            .log
            .next()
            .is_some_and(|next| !Arc::ptr_eq(&next.registry, &self.registry));
        let due = brings_registry && !self.log.is_moving() || self.log.rotation_due(now);
        if self.log.next().is_none() || !due {
            return;
        }
        if brings_registry && self.waits_for_a_segment() {
            // It has no place for packets of cameras that leave: one of the configuration in force comes first.
            if let Some(next) = self.log.take_next() {
                disk.request(Request::Discard(next.handle));
            }
            return;
        }
        if brings_registry {
            self.adopt_registry(disk, now);
        }
        self.log.rotate(now);
        self.segment_since_ns = now.mono_ns;
        self.books.segments += 1;
    }

    /// The next segment brings other cameras or customers. Chunks under the old ones are sealed first, where they belong.
    fn adopt_registry(&mut self, disk: &mut impl Disk, now: Now) {
        let Some((registry, remap)) = self
            .log
            .next()
            .map(|n| (Arc::clone(&n.registry), Arc::clone(&n.remap)))
        else {
            return;
        };
        let leaving: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, stream)| {
                stream
                    .camera
                    .is_some_and(|camera| remap[camera as usize].is_none())
            })
            .map(|(index, _)| index)
            .collect();
        for index in leaving {
            while self.open[index as usize].is_some() {
                self.end_chunk(index, now);
            }
        }
        self.seal_full(now);
        self.log.advance(&mut self.pool, disk, now, true);
        self.streams.remap(&remap);
        self.streams.renew_media(&registry);
        self.registry = registry;
        self.latest = None;
        self.admitted.clear();
    }

    fn order_if_needed(&mut self, disk: &mut impl Outside, now: Now) {
        let reload = !Arc::ptr_eq(&self.wanted, &self.registry);
        let settle_ns = PREPARE_AFTER_NS.min(self.settings.segment_max_age_ns / 4);
        let early = self.log.can_append()
            && now.mono_ns.saturating_sub(self.segment_since_ns) < settle_ns
            && !self.log.active_is_used_up(self.settings.segment_max_bytes / 4);
        let have = self.log.next().is_some() || self.order_out || self.needs_no_more();
        if have || now.mono_ns < self.order_after_ns || (early && !reload) {
            return;
        }
        self.order_out = true;
        self.reused.clear();
        let (prev, chain_seq) = self.log.position();
        let streams = self
            .streams
            .iter()
            .filter(|(_, stream)| now.mono_ns.saturating_sub(stream.last_packet_ns) < ACTIVE_NS)
            .filter_map(|(index, stream)| {
                let camera = stream.camera?;
                let mut facts = facts_of(index, stream, &self.registry.cameras[camera as usize]);
                facts.camera = camera;
                Some(facts)
            })
            .collect();
        disk.request(Request::Prepare(Order {
            prev,
            chain_seq,
            registry: Arc::clone(self.registry_to_order()),
            current: Arc::clone(&self.registry),
            streams,
            alloc_bytes: self.log.allocation_bytes(),
        }));
    }

    /// The configuration that the next segment should bring: the wanted one, unless packets wait under the one in force and have no segment to
    /// go to. Cameras that leave may be among theirs, and a segment of the wanted one would have no place for those.
    fn registry_to_order(&self) -> &Arc<Registry> {
        match self.waits_for_a_segment() {
            true => &self.registry,
            false => &self.wanted,
        }
    }

    /// Whether there are packets, and no segment to place them in.
    fn waits_for_a_segment(&self) -> bool {
        let waiting =
            || !self.full.is_empty() || self.holds_packets() || self.open.iter().any(Option::is_some);
        !self.log.can_append() && waiting()
    }

    fn note_pressure(&mut self, now: Now) {
        let (low, free) = (self.low_water(), self.free_for_chunks());
        self.low_since_ns = match self.low_since_ns {
            None if free < low => Some(now.mono_ns),
            Some(_) if free >= 2 * low => None,
            unchanged => unchanged,
        };
    }

    /// Bytes that chunks may still take. What is kept back for other blocks is none of it, else a small pool would be exhausted before it is low.
    fn free_for_chunks(&self) -> usize {
        self.pool.free_bytes().saturating_sub(META_RESERVE_BYTES)
    }

    /// [`Core::free_for_chunks`] below which receiving pauses.
    fn low_water(&self) -> usize {
        self.pool.total_bytes().saturating_sub(META_RESERVE_BYTES) / LOW_WATER_DIVISOR
    }

    /// Whether to take datagrams from the sockets now.
    pub fn wants_packets(&self, now: Now) -> bool {
        !self.stopping
            && self
                .low_since_ns
                .is_none_or(|since_ns| now.mono_ns.saturating_sub(since_ns) >= MAX_PAUSE_NS)
    }

    /// Whether packets wait for other shards to get further.
    pub fn holds_packets(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| !hold.is_empty())
    }

    /// The next time something falls due by itself, monotonic nanoseconds.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let chunk = self.deadlines.first().map(|(due_ns, ..)| due_ns);
        let held = self
            .hold
            .as_ref()
            .and_then(Hold::oldest_ns)
            .map(|since_ns| since_ns + MAX_HOLD_NS);
        chunk
            .into_iter()
            .chain(held)
            .chain(self.log.next_deadline_ns())
            .min()
    }

    /// The log, for completions of writes and syncs, and for what the keeper did.
    pub fn log_and_pool(&mut self) -> (&mut Log, &mut Pool) {
        (&mut self.log, &mut self.pool)
    }

    /// The pool, for the driver to write from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A segment is ready. One that was overtaken by a reload is thrown away, unless it is needed.
    pub fn prepared(&mut self, mut prepared: Box<Prepared>, outside: &mut impl Outside) {
        self.order_out = false;
        // Slots that changed hands while the keeper worked: what it placed belongs to streams that are gone.
        for stream in self.reused.drain(..) {
            if let Some(seal) = prepared.streams.get_mut(stream as usize) {
                *seal = None;
            }
        }
        let overtaken = !Arc::ptr_eq(&prepared.registry, &self.wanted) && !self.is_needed(&prepared);
        if overtaken || self.needs_no_more() {
            outside.request(Request::Discard(prepared.handle));
            return;
        }
        if let Some(replaced) = self.log.prepared(prepared) {
            outside.request(Request::Discard(replaced.handle));
        }
    }

    /// Whether a segment for the configuration in force has to be used though another is wanted: there is none, and what was received from
    /// cameras that leave would have no place.
    fn is_needed(&self, prepared: &Prepared) -> bool {
        Arc::ptr_eq(&prepared.registry, &self.registry) && !self.log.can_append()
    }

    /// Whether the run ends with the segment there is. Without one, or where it failed or is full, what was received has nowhere to go.
    fn needs_no_more(&self) -> bool {
        self.stopping && self.log.can_append() && self.full.is_empty()
    }

    /// The keeper could not prepare a segment; it is asked again a little later.
    pub fn prepare_failed(&mut self, no_space: bool, now: Now) {
        self.order_out = false;
        match no_space {
            true => self.log.note_disk_full(),
            false => self.log.note_disk_failing(),
        }
        self.order_after_ns = now.mono_ns + PREPARE_RETRY_NS;
    }

    /// Another configuration: takes effect with the next segment, which is prepared at once.
    pub fn reload(&mut self, registry: Arc<Registry>, outside: &mut impl Outside) {
        self.wanted = registry;
        let overtaken = self.log.next().is_some_and(|next| !self.is_needed(next));
        if overtaken && let Some(next) = self.log.take_next() {
            outside.request(Request::Discard(next.handle));
        }
    }

    /// Whether these customers and cameras are the ones in force.
    pub fn is_in_force(&self, registry: &Arc<Registry>) -> bool {
        Arc::ptr_eq(&self.registry, registry)
    }

    /// From now on no packet is taken; open chunks are sealed and everything is made durable.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether everything received is durable.
    pub fn is_settled(&self) -> bool {
        // A segment still being prepared would be left behind, empty and without a footer.
        !self.order_out
            && self.full.is_empty()
            && self.log.is_quiet()
            && self.hold.as_ref().is_none_or(Hold::is_empty)
            && self.open.iter().all(Option::is_none)
    }

    /// Ends the run: closes the segments; what is still not durable is counted as dropped.
    pub fn finish(&mut self, outside: &mut impl Outside) {
        let reason = if self.log.disk_full() {
            Reason::DiskFull
        } else {
            Reason::DiskFailed
        };
        for index in 0..self.open.len() {
            if let Some(chunk) = self.open[index].take() {
                self.open_bytes -= chunk.buffer.len();
                self.lose_chunk(index as u32, chunk, reason);
            }
        }
        while let Some(full) = self.full.pop_front() {
            self.lose_chunk(full.stream, full.chunk, reason);
        }
        self.lose_held(reason);
        for outcome in self.log.give_up(outside) {
            self.drop_packets(outcome.chunk.stream, u64::from(outcome.chunk.packets), reason);
        }
        if let Some(next) = self.log.take_next() {
            outside.request(Request::Discard(next.handle));
        }
    }

    /// Bytes made durable so far: while it grows, stopping is making progress.
    pub fn durable_bytes(&self) -> u64 {
        self.log.durable_bytes
    }

    /// Bytes taken so far, whatever became of them.
    pub fn received_bytes(&self) -> u64 {
        self.books.received_bytes
    }

    /// The figures as they stand.
    pub fn snapshot(&mut self, now: Now) -> &Snapshot {
        let books = &mut self.books;
        books.streams = 0;
        books.account = self
            .streams
            .ended()
            .map(|ledger| ledger.account)
            .unwrap_or_default();
        for (_, stream) in self.streams.iter() {
            books.streams += u64::from(now.mono_ns.saturating_sub(stream.last_packet_ns) < ACTIVE_NS);
            let counts = stream.account.counts();
            books.account.lost += counts.lost;
            books.account.duplicates += counts.duplicates;
            books.account.reordered += counts.reordered;
            books.account.restarts += counts.restarts;
        }
        books.written_bytes = self.log.durable_bytes;
        books.segments_retired = self.log.retired;
        books.pool_free_bytes = self.pool.free_bytes() as u64;
        books.paused = self.low_since_ns.is_some();
        books
    }

    /// A packet that was not admitted since the last call, if any.
    pub fn take_stray(&mut self) -> Option<Stray> {
        self.stray.take()
    }

    /// Packets received that are neither stored nor dropped yet, counted where they are: in the hold queue, in chunks and in the log. Walks
    /// them all: it is there to check the books against, not for the packet path.
    pub fn in_flight(&self) -> u64 {
        let held = self.hold.as_ref().map_or(0, Hold::len) as u64;
        let open = self.open.iter().flatten();
        let full = self.full.iter().map(|full| &full.chunk);
        let in_chunks: u64 = open.chain(full).map(|chunk| u64::from(chunk.packets)).sum();
        held + in_chunks + self.log.packets_under_way()
    }

    /// Notes the kernel's drop counter of this shard's sockets (batches, with GRO).
    pub fn note_kernel_drops(&mut self, batches: u64) {
        self.books.kernel_drop_batches = batches;
    }

    /// Notes the system calls made on this shard's ring.
    pub fn note_ring_enters(&mut self, enters: u64) {
        self.books.ring_enters = enters;
    }

    /// Every stream's ledger.
    pub fn ledgers(&self) -> Vec<StreamLedger> {
        self.streams.ledgers(self.settings.shard)
    }
}

fn facts_of(
    index: u32,
    stream: &crate::stream::table::Stream,
    camera: &crate::stream::registry::Camera,
) -> StreamFacts {
    StreamFacts {
        stream: index,
        camera: 0,
        ssrc: stream.ssrc,
        media: stream.media,
        opened_ns: stream.opened_ns,
        camera_id: camera.id.clone(),
        sdp: camera.sdp.clone(),
    }
}
