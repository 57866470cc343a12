//! How a ring is made, and what it says about itself.

use super::buffers::{BufferMode, BuffersReport};
use super::core::CoreReport;

/// How to make a ring; the defaults suit one shard of a loaded engine.
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// Submission entries: more than operations queued between two waits; it overflows by submitting early.
    pub entries: u32,
    /// Completion entries: under an incremental buffer ring one per datagram waiting.
    pub completions: u32,
    /// Memory for received datagrams, bytes; at least 2 MiB is taken.
    pub receive_bytes: usize,
    pub buffers: BufferMode,
    /// Lock the receive buffers in memory.
    pub lock: bool,
    /// Writes and syncs in flight at most.
    pub flights: u16,
    /// Kernel workers for blocking operations: every fdatasync occupies one while it runs.
    pub workers: u32,
    /// CPUs for those workers; empty: wherever the shard may run.
    pub worker_cpus: Vec<usize>,
    /// Restrict the ring to the operations used here.
    pub restrict: bool,
    /// Use none of the optional set-up flags, as on an old kernel: for tests, and to measure what they bring.
    pub plain_flags: bool,
}

impl Default for RingOptions {
    fn default() -> Self {
        RingOptions {
            entries: 256,
            completions: 8192,
            receive_bytes: 8 << 20,
            buffers: BufferMode::Auto,
            lock: true,
            flights: 64,
            workers: 4,
            worker_cpus: Vec::new(),
            restrict: true,
            plain_flags: false,
        }
    }
}

/// What the ring got, for the start-up report.
#[derive(Clone, Debug)]
pub struct RingReport {
    pub core: CoreReport,
    pub buffers: BuffersReport,
}

/// Counters of the whole ring since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// System calls made on the ring: waits and submissions.
    pub enters: u64,
    /// Receives that ended because no buffer was free.
    pub out_of_buffers: u64,
    /// Receives armed, the first time included.
    pub armed: u64,
    /// Completions whose bytes were not what the kernel's interface promises; dropped.
    pub malformed: u64,
    /// Receives found dead and armed again.
    pub revived: u64,
}
