//! How `memory.limit` is divided.
//!
//! ```text
//!   limit − 32 MiB (process: registry, streams, indexes, key preparation, control)
//!     ÷ shards = a shard's share
//!         − receive buffers: a sixteenth, 8 to 64 MiB     64 MiB are 128 ms at 4 Gb/s
//!         − 8 MiB between shards, if there are several     hold queue and hand-over slots
//!         = chunk pool
//! ```
//! The configuration refuses a limit that leaves a shard less than 32 MiB (`config::memory_min_bytes`).

use crate::config::memory_min_bytes;
use crate::shard::hold::HOLD_BYTES;
use crate::shard::links::ARENA_BYTES;

use super::StartError;

const MIB: usize = 1 << 20;
/// Regions come in huge pages: a pool of this granularity wastes nothing.
const GRANULE_BYTES: usize = 2 * MIB;

/// One shard's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For datagrams the kernel delivers.
    pub receive_bytes: usize,
    /// For chunks.
    pub pool_bytes: usize,
}

impl Plan {
    /// Divides `limit_bytes` among `shards`.
    pub fn new(limit_bytes: u64, shards: usize) -> Plan {
        let base = memory_min_bytes(0);
        let share = (limit_bytes.saturating_sub(base) / shards as u64) as usize;
        let receive_bytes = (share / 16).clamp(8 * MIB, 64 * MIB) / GRANULE_BYTES * GRANULE_BYTES;
        let between = if shards > 1 { HOLD_BYTES + ARENA_BYTES } else { 0 };
        let rest = share.saturating_sub(receive_bytes + between);
        Plan {
            receive_bytes,
            pool_bytes: (rest / GRANULE_BYTES * GRANULE_BYTES).max(8 * MIB),
        }
    }
}

/// What to say when memory could not be locked.
pub fn unlocked(errno: Option<i32>) -> StartError {
    let why = errno.map_or_else(
        || "refused".to_owned(),
        |errno| std::io::Error::from_raw_os_error(errno).to_string(),
    );
    StartError {
        message: format!("plaintext memory could not be locked ({why}): it might reach swap"),
        remedy: "raise the limit of locked memory above memory.limit (`ulimit -l`, or LimitMEMLOCK= in the unit), \
                 or set memory.allow_unlocked = true"
            .to_owned(),
        configuration: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_never_exceed_the_limit() {
        for shards in [1, 2, 8] {
            for extra in [0, 1, 100 * MIB as u64, 5 << 30] {
                let limit = memory_min_bytes(shards) + extra;
                let plan = Plan::new(limit, shards);
                let between = if shards > 1 { HOLD_BYTES + ARENA_BYTES } else { 0 };
                let all = shards * (plan.receive_bytes + plan.pool_bytes + between);
                assert!(all as u64 <= limit, "{shards} shards, {limit}: {plan:?}");
            }
        }
    }
}
