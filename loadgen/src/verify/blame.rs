//! Who lost what: each packet that was intended and is not stored is laid to the generator, to the plan's own impairments, to the
//! engine by its reason, or to nobody who says so.
//!
//! RTP and RTCP together, because the engine counts them together. What it had to refuse (noise, strangers, runts) is in
//! its counts too, and is no loss: it is taken off first.

use super::check::StreamVerdict;
use crate::result::{EngineFigures, LostBy};
use std::collections::BTreeMap;

/// Reasons for which the engine refuses what it is right to refuse.
const REFUSALS: [&str; 8] = [
    "truncated",
    "bad_version",
    "bad_padding",
    "bad_extension",
    "bad_rtcp",
    "oversize",
    "unknown_ssrc",
    "wrong_source",
];

/// What the sums of all streams come to. `junk` is what the generator sent beside RTP.
pub fn lost_by(streams: &[StreamVerdict], junk: u64, engine: Option<&EngineFigures>) -> LostBy {
    let looked_at = || streams.iter().filter(|stream| stream.looked_at);
    let sum = |of: fn(&StreamVerdict) -> u64| looked_at().map(of).sum::<u64>();
    let missing = sum(|s| s.lost) + sum(|s| s.rtcp_expected - s.rtcp_stored);
    let refusable: u64 = streams.iter().map(|s| s.runts + s.strangers).sum::<u64>() + junk;
    let engine = engine.map_or_else(BTreeMap::new, |engine| {
        of_engine(&engine.dropped, refusable, missing)
    });
    LostBy {
        generator: sum(|s| s.not_sent),
        impairment: sum(|s| s.impaired_lost + s.runts + s.strangers),
        remainder: missing as i64 - engine.values().sum::<u64>() as i64,
        engine,
    }
}

/// Of what the engine dropped, what it lost: everything for want of room or time, and of what it refused only what is more than
/// there was to refuse. Never more than is missing: what it dropped of streams that were not looked at is not told apart.
fn of_engine(dropped: &BTreeMap<String, u64>, mut refusable: u64, mut missing: u64) -> BTreeMap<String, u64> {
    let mut lost = BTreeMap::new();
    let (refused, wanting): (Vec<_>, Vec<_>) = dropped
        .iter()
        .filter(|(_, packets)| **packets > 0)
        .partition(|(reason, _)| REFUSALS.contains(&reason.as_str()));
    let mut blame = |reason: &String, packets: u64| {
        let packets = packets.min(missing);
        missing -= packets;
        if packets > 0 {
            lost.insert(reason.clone(), packets);
        }
    };
    for (reason, packets) in wanting {
        blame(reason, *packets);
    }
    for (reason, packets) in refused {
        let rightly = refusable.min(*packets);
        refusable -= rightly;
        blame(reason, packets - rightly);
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> StreamVerdict {
        StreamVerdict {
            looked_at: true,
            not_sent: 3,
            impaired_lost: 5,
            runts: 2,
            strangers: 4,
            lost: 10,
            rtcp_expected: 2,
            rtcp_stored: 1,
            ..StreamVerdict::default()
        }
    }

    fn engine(dropped: &[(&str, u64)]) -> EngineFigures {
        EngineFigures {
            dropped: dropped
                .iter()
                .map(|(reason, packets)| ((*reason).to_owned(), *packets))
                .collect(),
            ..EngineFigures::default()
        }
    }

    #[test]
    fn without_the_engines_word_what_is_missing_is_the_remainder() {
        let lost = lost_by(&[stream()], 0, None);
        assert_eq!((lost.generator, lost.impairment, lost.remainder), (3, 11, 11));
        assert!(lost.engine.is_empty());
    }

    #[test]
    fn what_the_engine_was_right_to_refuse_is_no_loss_of_its() {
        let said = engine(&[
            ("bad_extension", 2),
            ("unknown_ssrc", 4),
            ("bad_version", 7),
            ("pool_exhausted", 6),
        ]);
        let lost = lost_by(&[stream()], 7, Some(&said));
        assert_eq!(lost.engine, engine(&[("pool_exhausted", 6)]).dropped);
        assert_eq!(lost.remainder, 5);
    }

    #[test]
    fn what_it_refused_beyond_that_is_and_never_more_than_is_missing() {
        let lost = lost_by(&[stream()], 0, Some(&engine(&[("wrong_source", 9)])));
        assert_eq!(
            (lost.engine, lost.remainder),
            (engine(&[("wrong_source", 3)]).dropped, 8)
        );
        let lost = lost_by(&[stream()], 0, Some(&engine(&[("disk_full", 900)])));
        assert_eq!(
            (lost.engine, lost.remainder),
            (engine(&[("disk_full", 11)]).dropped, 0)
        );
    }

    #[test]
    fn streams_that_were_not_looked_at_lost_nothing_that_is_known() {
        let closed = StreamVerdict {
            looked_at: false,
            ..stream()
        };
        let lost = lost_by(&[closed], 0, None);
        assert_eq!((lost.generator, lost.impairment, lost.remainder), (0, 0, 0));
    }
}
