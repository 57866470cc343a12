//! Faults planted in the simulated world that break a promise for sure: a checker that lets one pass checks nothing.

/// One planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// fdatasync returns 0 and does nothing.
    SyncLies,
    /// fdatasync covers what completed before it returned, not before it was submitted, is what the engine is told: a write completes, in its
    /// words, when it is submitted.
    WriteCompletesEarly,
    /// A segment is handed to the shard before its first blocks are synced.
    PrepareWithoutSync,
    /// The name of a new segment is not made durable.
    NameNotSynced,
    /// The disk changes one bit of what it has made durable.
    BitFlipped,
    /// A write goes to the place of the block before it.
    WriteMisplaced,
    /// A packet's bytes change between the socket and the shard.
    PacketChanged,
    /// One packet is delivered to a shard and not in the sender's account.
    PacketInvented,
    /// A packet that a shard handed over never arrives.
    HandOverLost,
    /// A packet handed over arrives after its shard was told that it had.
    HandOverLate,
    /// A completion is never reported.
    CompletionLost,
    /// Every segment draws the same secrets and the same id.
    RandomnessRepeats,
}

impl Canary {
    /// All of them.
    pub const ALL: [Canary; 12] = [
        Canary::SyncLies,
        Canary::WriteCompletesEarly,
        Canary::PrepareWithoutSync,
        Canary::NameNotSynced,
        Canary::BitFlipped,
        Canary::WriteMisplaced,
        Canary::PacketChanged,
        Canary::PacketInvented,
        Canary::HandOverLost,
        Canary::HandOverLate,
        Canary::CompletionLost,
        Canary::RandomnessRepeats,
    ];
}

impl Canary {
    /// Whether it shows only in a run that lives to its end.
    pub fn needs_a_stop(self) -> bool {
        matches!(
            self,
            Canary::HandOverLost | Canary::HandOverLate | Canary::CompletionLost | Canary::RandomnessRepeats
        )
    }
}
