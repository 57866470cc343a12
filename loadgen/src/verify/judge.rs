//! Sums, and whether they are what was to be expected.

use super::camera::Finding;
use super::check::{Pair, StreamVerdict};
use crate::result::{Impaired, StoredFigures};
use serde::{Deserialize, Serialize};

/// One thing that was done on purpose: how often, and how often it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    pub name: String,
    /// By the sent log; where only the sender counted it, by that; `None` where neither did.
    pub expected: Option<u64>,
    pub found: u64,
}

/// The sums over all streams that were looked at.
pub fn figures(streams: &[StreamVerdict], finding: &Finding) -> StoredFigures {
    let looked_at = || streams.iter().filter(|stream| stream.looked_at && stream.known);
    let sum = |of: fn(&StreamVerdict) -> u64| looked_at().map(of).sum::<u64>();
    let all = |of: fn(&StreamVerdict) -> u64| streams.iter().map(of).sum::<u64>();
    StoredFigures {
        streams: looked_at().count() as u64,
        streams_found: looked_at().filter(|stream| stream.stored > 0).count() as u64,
        expected: sum(|s| s.expected),
        stored: sum(|s| s.stored),
        stored_loss: sum(|s| s.lost),
        duplicates: sum(|s| s.duplicates),
        duplicates_expected: sum(|s| s.copies.found),
        reordered: sum(|s| s.reordered),
        reordered_expected: sum(|s| s.delayed.found),
        corrupt: sum(|s| s.corrupt),
        corrupt_expected: sum(|s| s.corrupted.found + s.truncated.found),
        // Wherever they were found, and of unknown streams too.
        wrong_customer: all(|s| s.wrong),
        foreign: finding.foreign + all(|s| s.foreign),
        rtcp_expected: sum(|s| s.rtcp_expected),
        rtcp_stored: sum(|s| s.rtcp_stored),
        rtcp_foreign: finding.rtcp_foreign,
        gaps: sum(|s| s.gaps),
        longest_gap: looked_at().map(|s| s.longest_gap).max().unwrap_or(0),
        streams_not_looked_at: streams.iter().filter(|s| s.known && !s.looked_at).count() as u64,
        beyond_log: finding.beyond_log,
        other_runs: finding.other_runs,
        ..StoredFigures::default()
    }
}

/// Everything that the plan did on purpose, against what was found of it; what it did not do is left out. Jumps are told by
/// the headers of what is stored, and how many there ought to be only by the sender's count of all streams: it stands only
/// where all streams were looked at.
pub fn impairments(streams: &[StreamVerdict], impaired: Option<&Impaired>) -> Vec<Impairment> {
    let looked_at = || streams.iter().filter(|stream| stream.looked_at);
    let sum = |of: fn(&StreamVerdict) -> u64| looked_at().map(of).sum::<u64>();
    let pair = |of: fn(&StreamVerdict) -> Pair| {
        looked_at().map(of).fold(Pair::default(), |sum, pair| Pair {
            expected: sum.expected + pair.expected,
            found: sum.found + pair.found,
        })
    };
    let refused = |sent: u64, stored: u64| Pair {
        expected: sent,
        found: sent - stored.min(sent),
    };
    let by_the_log = [
        ("lost", refused(sum(|s| s.impaired_lost), sum(|s| s.ghosts))),
        ("sent twice, stored twice", pair(|s| s.copies)),
        ("sent late, stored late", pair(|s| s.delayed)),
        ("corrupted", pair(|s| s.corrupted)),
        ("truncated", pair(|s| s.truncated)),
        (
            "runts refused",
            refused(sum(|s| s.runts), sum(|s| s.runts_stored)),
        ),
        (
            "strangers refused",
            refused(sum(|s| s.strangers), sum(|s| s.strangers_stored)),
        ),
        (
            "SSRC restarts stored",
            Pair {
                expected: sum(|s| s.ssrc_changes),
                found: sum(|s| s.seen.ssrc_changes),
            },
        ),
    ];
    let everything = streams.iter().all(|s| s.looked_at && s.known && s.strangers == 0);
    let by_the_sender = |of: fn(&Impaired) -> u64| impaired.filter(|_| everything).map(of);
    let by_the_headers = [
        (
            "sequence jumps",
            by_the_sender(|i| i.sequence_jumps),
            sum(|s| s.seen.sequence_jumps),
        ),
        (
            "timestamp jumps",
            by_the_sender(|i| i.timestamp_jumps),
            sum(|s| s.seen.timestamp_jumps),
        ),
        (
            "payload type changes",
            by_the_sender(|i| i.payload_type_changes),
            sum(|s| s.seen.payload_type_changes),
        ),
        ("sequence wraps", None, sum(|s| s.seen.sequence_wraps)),
        ("timestamp wraps", None, sum(|s| s.seen.timestamp_wraps)),
    ];
    let by_the_log = by_the_log.map(|(name, pair)| (name, Some(pair.expected), pair.found));
    let happened = |(_, expected, found): &(&str, Option<u64>, u64)| expected.unwrap_or(0) + found > 0;
    let all = by_the_log.into_iter().chain(by_the_headers).filter(happened);
    all.map(|(name, expected, found)| Impairment {
        name: name.to_owned(),
        expected,
        found,
    })
    .collect()
}

/// What is not as it was to be; empty if all is.
pub fn differences(figures: &StoredFigures, impairments: &[Impairment], damage: Vec<String>) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |count: u64, what: &str| {
        if count > 0 {
            all.push(format!("{count} {what}"));
        }
    };
    say(figures.stored_loss, "packets that ought to be stored are not");
    say(
        figures.duplicates,
        "packets are stored once more than they were sent",
    );
    say(figures.reordered, "packets are stored behind one that left later");
    say(figures.corrupt, "packets are stored with other bytes than left");
    say(
        figures.wrong_customer,
        "packets are stored with a wrong customer, camera or stream",
    );
    say(
        figures.foreign,
        "packets are stored that were never sent, or that were to be refused",
    );
    say(
        figures.rtcp_expected - figures.rtcp_stored,
        "RTCP packets that ought to be stored are not",
    );
    say(
        figures.rtcp_foreign,
        "RTCP packets are stored that were never sent",
    );
    for Impairment {
        name,
        expected,
        found,
    } in impairments
    {
        if let Some(expected) = expected.filter(|expected| expected != found) {
            all.push(format!("{name}: {expected} expected, {found} found"));
        }
    }
    all.extend(damage);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> StreamVerdict {
        StreamVerdict {
            known: true,
            looked_at: true,
            expected: 10,
            stored: 10,
            impaired_lost: 2,
            copies: Pair {
                expected: 3,
                found: 3,
            },
            ..StreamVerdict::default()
        }
    }

    fn judged(streams: &[StreamVerdict], finding: Finding) -> Vec<String> {
        let impairments = impairments(streams, None);
        differences(&figures(streams, &finding), &impairments, Vec::new())
    }

    #[test]
    fn what_was_done_on_purpose_and_found_is_as_expected() {
        assert_eq!(judged(&[stream()], Finding::default()), [""; 0]);
        let impairments = impairments(&[stream()], None);
        let told: Vec<_> = impairments
            .iter()
            .map(|i| (i.name.as_str(), i.expected, i.found))
            .collect();
        assert_eq!(
            told,
            [("lost", Some(2), 2), ("sent twice, stored twice", Some(3), 3)]
        );
    }

    #[test]
    fn each_difference_is_told_with_its_count() {
        let mut bad = stream();
        bad.lost = 4;
        bad.wrong = 5;
        bad.copies.found = 2;
        let finding = Finding {
            foreign: 6,
            other_runs: 99,
            ..Finding::default()
        };
        let told = judged(&[stream(), bad], finding);
        assert_eq!(told.len(), 4, "{told:?}");
        for (line, begin) in told.iter().zip([
            "4 packets",
            "5 packets",
            "6 packets",
            "sent twice, stored twice: 6",
        ]) {
            assert!(line.starts_with(begin), "{line}");
        }
    }

    #[test]
    fn streams_that_were_not_looked_at_are_counted_and_not_judged() {
        let closed = StreamVerdict {
            looked_at: false,
            stored: 0,
            lost: 10,
            ..stream()
        };
        let figures = figures(&[stream(), closed.clone()], &Finding::default());
        assert_eq!((figures.streams, figures.streams_not_looked_at), (1, 1));
        assert_eq!((figures.expected, figures.stored_loss), (10, 0));
        assert_eq!(judged(&[stream(), closed], Finding::default()), [""; 0]);
    }
}
