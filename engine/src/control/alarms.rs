//! What an operator should hear of at once, read off the figures: each alarm at most once in [`QUIET_NS`], each with what
//! mends it. The ledger has the exact numbers.

use crate::ledger::{Reason, Snapshot};
use crate::port::Stray;

/// A flood of one cause is one line in ten seconds.
const QUIET_NS: u64 = 10_000_000_000;

type Count = fn(&Snapshot) -> u64;

const ALARMS: [(Count, &str); 4] = [
    (
        |s| s.segments_retired,
        "a write or fdatasync failed; its segment is given up at its watermark and what lay above goes to a new one: look at \
         the disk and the kernel log",
    ),
    (
        |s| s.dropped.get(Reason::DiskFull),
        "the disk is full, packets are dropped: free space, or let [retention] delete old segments",
    ),
    (
        |s| s.dropped.get(Reason::DiskFailed),
        "packets were lost to a failing disk: look at the kernel log",
    ),
    (
        |s| s.dropped.get(Reason::PoolExhausted),
        "chunk buffers ran out, packets are dropped: the disk is slower than the input, or memory.limit too small for this \
         many streams",
    ),
];

/// Remembers what was said of one shard, and when.
#[derive(Debug, Default)]
pub struct Alarms {
    counts: [u64; ALARMS.len()],
    quiet_until_ns: [u64; ALARMS.len()],
    strays_quiet_until_ns: [u64; 3],
}

impl Alarms {
    /// What there is to say of a new snapshot.
    pub fn look(&mut self, snapshot: &Snapshot, now_ns: u64) -> Vec<String> {
        let mut said = Vec::new();
        for (at, (count, message)) in ALARMS.iter().enumerate() {
            let count = count(snapshot);
            // While quiet the old count stays, so that what happened meanwhile is not missed afterwards.
            if count > self.counts[at] && now_ns >= self.quiet_until_ns[at] {
                self.counts[at] = count;
                self.quiet_until_ns[at] = now_ns + QUIET_NS;
                said.push(format!("shard {}: {message}", snapshot.shard));
            }
        }
        said
    }

    /// What there is to say of a packet that was not admitted.
    pub fn stray(&mut self, stray: &Stray, now_ns: u64) -> Option<String> {
        let (at, why) = match stray.reason {
            Reason::WrongSource => (0, "is registered, but not from there"),
            Reason::NotEnrolled => (
                2,
                "is of a customer whose key is not enrolled: nothing of it is recorded; `harborseal check` says whose",
            ),
            _ => (1, "is no camera's"),
        };
        if now_ns < self.strays_quiet_until_ns[at] {
            return None;
        }
        self.strays_quiet_until_ns[at] = now_ns + QUIET_NS;
        Some(format!(
            "packets are dropped ({}): SSRC {} from {} {why}",
            stray.reason.name(),
            stray.ssrc,
            stray.from
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_raised_once_and_again_after_a_while() {
        let mut alarms = Alarms::default();
        let mut snapshot = Snapshot::new(3);
        assert!(alarms.look(&snapshot, 0).is_empty());
        snapshot.dropped.add(Reason::DiskFull, 1);
        let said = alarms.look(&snapshot, 1);
        assert!(
            said.len() == 1 && said[0].contains("shard 3: the disk is full"),
            "{said:?}"
        );
        snapshot.dropped.add(Reason::DiskFull, 1);
        assert!(alarms.look(&snapshot, 2).is_empty());
        assert_eq!(alarms.look(&snapshot, 1 + QUIET_NS).len(), 1);
        assert!(alarms.look(&snapshot, 3 * QUIET_NS).is_empty(), "nothing new");
        snapshot.segments_retired = 1;
        assert_eq!(alarms.look(&snapshot, 3 * QUIET_NS).len(), 1);
    }

    #[test]
    fn strays_are_named_by_address_once_per_reason() {
        let mut alarms = Alarms::default();
        let from = "192.0.2.1:7".parse().expect("address");
        let unknown = Stray {
            reason: Reason::UnknownSsrc,
            ssrc: 5,
            from,
        };
        let said = alarms.stray(&unknown, 0).expect("the first is said");
        assert_eq!(
            said,
            "packets are dropped (unknown_ssrc): SSRC 5 from 192.0.2.1:7 is no camera's"
        );
        assert_eq!(alarms.stray(&unknown, 1), None);
        assert!(
            alarms
                .stray(
                    &Stray {
                        reason: Reason::WrongSource,
                        ..unknown
                    },
                    1
                )
                .is_some()
        );
    }
}
