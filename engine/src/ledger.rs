//! The loss ledger: received = stored + Σ dropped(reason) + in flight, in packets, exactly, always.
//!
//! One [`StreamLedger`] per stream, one [`Snapshot`] per shard; *stored* counts a packet only once an fdatasync that covers it
//! has returned. After a clean stop nothing is in flight, and the two sides are equal.

use hdrhistogram::Histogram;

/// Why a received packet was not stored. Names are stable: they appear in metrics, logs and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Reason {
    /// Shorter than its own headers say, or than the 12 (RTP) or 8 (RTCP) bytes every packet has.
    Truncated,
    /// The version field is not 2 (RFC 3550 §5.1).
    BadVersion,
    /// The padding count is zero or reaches into the header (RFC 3550 §5.1).
    BadPadding,
    /// The header extension runs past the packet (RFC 3550 §5.3.1).
    BadExtension,
    /// An RTCP compound packet whose lengths do not add up, or with padding before its last part (RFC 3550 A.2).
    BadRtcp,
    /// Larger than one chunk can hold.
    Oversize,
    /// No camera of the registry sends this SSRC.
    UnknownSsrc,
    /// The SSRC is registered, but not for this source.
    WrongSource,
    /// It is a camera's, but nothing proves that its customer enrolled the key it would be sealed to.
    NotEnrolled,
    /// The camera already has as many open streams as one camera may have.
    TooManyStreams,
    /// Arrived at another shard's socket and the hand-over queue was full.
    RehomeFull,
    /// No chunk buffer was free: storage is slower than the input.
    PoolExhausted,
    /// The disk has no room for it.
    DiskFull,
    /// Sealed, but the disk failed it and every retry, or the engine had to stop before it was durable.
    DiskFailed,
}

impl Reason {
    /// Every reason, in declaration order.
    pub const ALL: [Reason; 14] = [
        Reason::Truncated,
        Reason::BadVersion,
        Reason::BadPadding,
        Reason::BadExtension,
        Reason::BadRtcp,
        Reason::Oversize,
        Reason::UnknownSsrc,
        Reason::WrongSource,
        Reason::NotEnrolled,
        Reason::TooManyStreams,
        Reason::RehomeFull,
        Reason::PoolExhausted,
        Reason::DiskFull,
        Reason::DiskFailed,
    ];

    /// The name in metrics, logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Truncated => "truncated",
            Reason::BadVersion => "bad_version",
            Reason::BadPadding => "bad_padding",
            Reason::BadExtension => "bad_extension",
            Reason::BadRtcp => "bad_rtcp",
            Reason::Oversize => "oversize",
            Reason::UnknownSsrc => "unknown_ssrc",
            Reason::WrongSource => "wrong_source",
            Reason::NotEnrolled => "not_enrolled",
            Reason::TooManyStreams => "too_many_streams",
            Reason::RehomeFull => "rehome_full",
            Reason::PoolExhausted => "pool_exhausted",
            Reason::DiskFull => "disk_full",
            Reason::DiskFailed => "disk_failed",
        }
    }
}

/// Dropped packets by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped([u64; Reason::ALL.len()]);

impl Dropped {
    /// Counts `packets` dropped for `reason`.
    pub fn add(&mut self, reason: Reason, packets: u64) {
        self.0[reason as usize] += packets;
    }

    /// Packets dropped for `reason`.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// Packets dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds another count to this one.
    pub fn merge(&mut self, other: &Dropped) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Reasons that occurred, with their counts.
    pub fn nonzero(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL
            .into_iter()
            .map(|r| (r, self.get(r)))
            .filter(|(_, n)| *n > 0)
    }
}

/// What sequence numbers say of one stream, or the sum over streams. All in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Never arrived, told by gaps in the sequence (RFC 3550 A.3).
    pub lost: u64,
    /// Arrived again.
    pub duplicates: u64,
    /// Arrived after a packet with a higher sequence number.
    pub reordered: u64,
    /// Times the sequence began anew (sender restarted).
    pub restarts: u64,
}

impl Account {
    /// Adds another account to this one.
    pub fn merge(&mut self, other: &Account) {
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.restarts += other.restarts;
    }
}

/// One stream at the end of a run, or in a snapshot. Holds no name: a stream is told by its SSRC and shard.
#[derive(Clone, Debug, Default)]
pub struct StreamLedger {
    /// Index of the shard that owns the stream.
    pub shard: u16,
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// Packets (RTP and RTCP) received.
    pub received: u64,
    /// Packets durable on disk.
    pub stored: u64,
    /// Packets dropped by reason.
    pub dropped: Dropped,
    /// Sequence account of its RTP packets.
    pub account: Account,
    /// Interarrival jitter in RTP timestamp units (RFC 3550 A.8).
    pub jitter_rtp: u32,
}

/// One shard's figures since the run began. Shards send them to the control thread several times a second.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Index of the shard.
    pub shard: u16,
    /// Streams with a packet in the last five seconds.
    pub streams: u64,
    /// Packets received.
    pub received: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Packets durable on disk.
    pub stored: u64,
    /// Payload bytes of the durable packets.
    pub stored_bytes: u64,
    /// Packets dropped by reason.
    pub dropped: Dropped,
    /// Sum of the streams' sequence accounts.
    pub account: Account,
    /// Packets handed to the shard that owns their stream.
    pub rehomed: u64,
    /// Kernel's socket drop counter. With GRO it counts batches: a hint that the loss lies before us, no more.
    pub kernel_drop_batches: u64,
    /// System calls that the shard made on its ring: under load, far fewer than packets.
    pub ring_enters: u64,
    /// Chunks sealed.
    pub chunks: u64,
    /// Bytes of segments made durable by the shard, padding included; a segment's first blocks, its index and footer are
    /// the keeper's and not in it.
    pub written_bytes: u64,
    /// Segments opened, closed ones included.
    pub segments: u64,
    /// Segments given up after a failed write or fdatasync.
    pub segments_retired: u64,
    /// Chunk buffers of the pool, and how many are free.
    pub pool_bytes: u64,
    /// Free chunk buffers.
    pub pool_free_bytes: u64,
    /// Receiving is paused because the pool is low.
    pub paused: bool,
    /// From the arrival of a chunk's first packet to the return of the fdatasync that covers it, in microseconds.
    pub durable_latency_us: Histogram<u64>,
}

impl Snapshot {
    /// An empty snapshot of shard `shard`. Latencies are kept to 3 digits up to 10 minutes.
    pub fn new(shard: u16) -> Self {
        Snapshot {
            shard,
            streams: 0,
            received: 0,
            received_bytes: 0,
            stored: 0,
            stored_bytes: 0,
            dropped: Dropped::default(),
            account: Account::default(),
            rehomed: 0,
            kernel_drop_batches: 0,
            ring_enters: 0,
            chunks: 0,
            written_bytes: 0,
            segments: 0,
            segments_retired: 0,
            pool_bytes: 0,
            pool_free_bytes: 0,
            paused: false,
            durable_latency_us: Histogram::new_with_bounds(1, 600_000_000, 3)
                .expect("1 < 600,000,000 and 3 digits are within hdrhistogram's limits"),
        }
    }

    /// Becomes a copy of `other` without allocating.
    pub fn copy_from(&mut self, other: &Snapshot) {
        // Every field by name: a new one is an error here, not a figure that stays behind.
        let Snapshot {
            shard,
            streams,
            received,
            received_bytes,
            stored,
            stored_bytes,
            dropped,
            account,
            rehomed,
            kernel_drop_batches,
            ring_enters,
            chunks,
            written_bytes,
            segments,
            segments_retired,
            pool_bytes,
            pool_free_bytes,
            paused,
            durable_latency_us,
        } = other;
        self.shard = *shard;
        self.streams = *streams;
        self.received = *received;
        self.received_bytes = *received_bytes;
        self.stored = *stored;
        self.stored_bytes = *stored_bytes;
        self.dropped = *dropped;
        self.account = *account;
        self.rehomed = *rehomed;
        self.kernel_drop_batches = *kernel_drop_batches;
        self.ring_enters = *ring_enters;
        self.chunks = *chunks;
        self.written_bytes = *written_bytes;
        self.segments = *segments;
        self.segments_retired = *segments_retired;
        self.pool_bytes = *pool_bytes;
        self.pool_free_bytes = *pool_free_bytes;
        self.paused = *paused;
        let copied = self.durable_latency_us.set_to(durable_latency_us);
        copied.expect("every snapshot's histogram has the bounds that new() gives it");
    }

    /// Adds another shard's figures to these; paused if either is.
    pub fn merge(&mut self, other: &Snapshot) {
        self.streams += other.streams;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.stored += other.stored;
        self.stored_bytes += other.stored_bytes;
        self.dropped.merge(&other.dropped);
        self.account.merge(&other.account);
        self.rehomed += other.rehomed;
        self.kernel_drop_batches += other.kernel_drop_batches;
        self.ring_enters += other.ring_enters;
        self.chunks += other.chunks;
        self.written_bytes += other.written_bytes;
        self.segments += other.segments;
        self.segments_retired += other.segments_retired;
        self.pool_bytes += other.pool_bytes;
        self.pool_free_bytes += other.pool_free_bytes;
        self.paused |= other.paused;
        let added = self.durable_latency_us.add(&other.durable_latency_us);
        added.expect("every snapshot's histogram has the bounds that new() gives it");
    }
}
