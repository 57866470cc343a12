//! Runs of packets missing in a stream, whoever lost them.

use crate::sentlog::Entry;
use serde::{Deserialize, Serialize};

/// Gaps of a stream that are told one by one.
const WORST: usize = 3;

/// Packets of one stream without one of them, between two that are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// By their marks, both missing.
    pub first: u64,
    pub last: u64,
    /// How many; fewer than last − first + 1 where the log itself has a hole.
    pub packets: u64,
    /// Of these, sent and fit to be stored.
    pub unexpected: u64,
    /// When the first was due, from the start of the run.
    pub at_ns: u64,
}

/// The gaps of one stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    pub count: u64,
    pub longest: u64,
    /// Those with the most packets that ought to be there; then the longest.
    pub worst: Vec<Gap>,
}

impl Gaps {
    /// Over `entries` places in the order of sequence numbers; `at` tells of a place its entry, whether it was found, and whether
    /// it was to be stored. Entries of one number are copies: one of them found, and there is no gap.
    pub fn of<'a>(entries: usize, at: impl Fn(usize) -> (&'a Entry, bool, bool)) -> Gaps {
        let mut gaps = Gaps::default();
        let mut open: Option<Gap> = None;
        let mut place = 0;
        while place < entries {
            let (first, mut found, mut due) = at(place);
            place += 1;
            while place < entries && at(place).0.sequence == first.sequence {
                let (_, also_found, also_due) = at(place);
                (found, due) = (found || also_found, due || also_due);
                place += 1;
            }
            if found {
                gaps.close(open.take());
                continue;
            }
            let gap = open.get_or_insert(Gap {
                first: first.sequence,
                at_ns: first.intended_ns,
                ..Gap::default()
            });
            gap.last = first.sequence;
            gap.packets += 1;
            gap.unexpected += u64::from(due);
        }
        gaps.close(open);
        gaps
    }

    fn close(&mut self, gap: Option<Gap>) {
        let Some(gap) = gap else { return };
        self.count += 1;
        self.longest = self.longest.max(gap.packets);
        let rank = |gap: &Gap| (gap.unexpected, gap.packets);
        let at = self.worst.partition_point(|other| rank(other) >= rank(&gap));
        self.worst.insert(at, gap);
        self.worst.truncate(WORST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sentlog::Flags;

    fn entry(sequence: u64, flags: Flags) -> Entry {
        Entry {
            hash: 1,
            sequence,
            flags,
            intended_ns: sequence * 1000,
            len: 100,
        }
    }

    fn gaps(of: &[(u64, Flags, bool)]) -> Gaps {
        let entries: Vec<_> = of
            .iter()
            .map(|&(sequence, flags, _)| entry(sequence, flags))
            .collect();
        Gaps::of(of.len(), |at| {
            (&entries[at], of[at].2, entries[at].flags.fit_to_store())
        })
    }

    #[test]
    fn gaps_are_runs_of_numbers_of_which_no_copy_is_there() {
        let (sent, lost) = (Flags::SENT, Flags::LOST);
        let copy = Flags::SENT | Flags::DUPLICATE;
        let found = gaps(&[
            (0, sent, true),
            (1, sent, false),
            (2, sent, false),
            (3, lost, false),
            (4, sent, false),
            (4, copy, true),
            (5, lost, false),
            (6, sent, true),
            (7, sent, false),
        ]);
        assert_eq!((found.count, found.longest), (3, 3));
        let worst: Vec<_> = found
            .worst
            .iter()
            .map(|gap| (gap.first, gap.last, gap.packets, gap.unexpected))
            .collect();
        assert_eq!(worst, [(1, 3, 3, 2), (7, 7, 1, 1), (5, 5, 1, 0)]);
        assert_eq!(found.worst[0].at_ns, 1000);
    }

    #[test]
    fn nothing_missing_is_no_gap_and_nothing_found_is_one() {
        assert_eq!(gaps(&[]), Gaps::default());
        assert_eq!(gaps(&[(0, Flags::SENT, true)]), Gaps::default());
        let all = gaps(&[(8, Flags::SENT, false), (9, Flags::SENT, false)]);
        assert_eq!((all.count, all.longest), (1, 2));
    }
}
