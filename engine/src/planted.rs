//! Faults planted in the engine on purpose, for the tests that must catch them (`tests/canaries`).
//!
//! The choice is that of [`harborseal_segment::planted`]: one fault at most, named by `HARBORSEAL_PLANT`, and only in a build with the
//! cargo feature `planted-faults`, which nothing that ships turns on. Without it [`planted`] is a constant `false`.

/// The faults of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// No fdatasync is ever asked for: the interval passes, and all that was written counts as durable.
    FdatasyncLeftOut,
    /// What is written counts as durable at once; fdatasync is asked for, and not waited for.
    WatermarkAtWrite,
    /// An fdatasync covers what was written before it returned, not before it was asked for.
    SyncCoversLaterWrites,
    /// A failed fdatasync is asked again, and believed when it then returns without error.
    FailedSyncRetried,
    /// A short write is taken for a whole one.
    ShortWriteTakenForWhole,
    /// Buffers go back to the pool when the fdatasync that covers them is asked for.
    BufferFreedEarly,
    /// The KEY block of a customer whose first camera begins late follows the chunk that needs it.
    KeyAfterChunk,
    /// Every run draws the same ids and secrets again: the same nonces under the same keys, with other text.
    SecretsOfAnotherRun,
    /// The name of a new segment is not made durable.
    FolderNotSynced,
    /// A sequence number that wraps counts one packet as lost.
    LossAtWrap,
    /// The packets of a chunk are counted as one more than there are.
    LedgerOffByOne,
    /// An SSRC that some camera has is admitted from anywhere.
    StrangerAdmitted,
}

/// Whether `fault` is planted in this process.
#[cfg(not(feature = "planted-faults"))]
#[inline(always)]
pub const fn planted(_fault: Planted) -> bool {
    false
}

#[cfg(not(feature = "planted-faults"))]
const _: () = assert!(!planted(Planted::FailedSyncRetried));

/// Whether `fault` is planted in this process.
#[cfg(feature = "planted-faults")]
pub fn planted(fault: Planted) -> bool {
    number(fault).is_some()
}

/// The number that came with `fault`, as in `HARBORSEAL_PLANT=NAME=17`; 0 if none did, `None` if it is not planted.
#[cfg(feature = "planted-faults")]
pub fn number(fault: Planted) -> Option<u64> {
    let (name, number) = harborseal_segment::planted::choice()?;
    (name == format!("{fault:?}")).then(|| number.unwrap_or(0))
}
