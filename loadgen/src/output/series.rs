//! A run over time, in as many steps as a plot has room for. Counts of several seconds add up; percentiles of several
//! seconds come from merged histograms, or, where only a second's percentiles are known, are those of the worst second.

use super::hlog::{self, Interval};
use crate::result::{Percentiles, RunResult, Second};
use hdrhistogram::Histogram;
use std::ops::Range;

/// A last bin shorter than this share of the others is counted into the one before: the rate of a few milliseconds after the
/// last whole second is no rate of the run, and what the engine counts while it is waited for stands there too.
const LAST_BIN_MIN: f64 = 0.5;
/// More points than a plot has pixels to tell apart.
const BINS_MAX: usize = 240;

/// One step in time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bin {
    pub at_s: f64,
    pub length_s: f64,
    pub warm_up: bool,
    /// Packets per second.
    pub due: Option<f64>,
    pub sent: f64,
    pub not_sent: f64,
    pub impaired_lost: f64,
    pub received: Option<f64>,
    pub stored: Option<f64>,
    pub dropped: Option<f64>,
    pub mbps: f64,
    pub lateness_ms: Percentiles,
    /// p50 and p99; of a histogram, p99.9 too.
    pub durable_ms: Option<(f64, f64, Option<f64>)>,
    pub cpu_percent: f64,
}

/// A run over time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    pub bins: Vec<Bin>,
    /// Seconds in a bin.
    pub seconds_per_bin: usize,
    /// Whether percentiles come from histograms, or are those of the worst second in a bin.
    pub lateness_merged: bool,
    /// The end of the last bin.
    pub end_s: f64,
}

/// Cuts a run into bins.
pub fn series(run: &RunResult, lateness: &[Interval], durable: &[Interval]) -> Series {
    let lengths = lengths(&run.seconds, run.load.duration_s);
    let received = spread(&run.seconds, |second| second.received);
    let stored = spread(&run.seconds, |second| second.stored);
    let dropped = spread(&run.seconds, |second| second.dropped);
    let durables = held(&run.seconds);
    let per_bin = run.seconds.len().div_ceil(BINS_MAX).max(1);
    let bin = |places: Range<usize>| {
        let seconds = &run.seconds[places.clone()];
        let at_s = seconds[0].at_s;
        let length_s = lengths[places.clone()].iter().sum::<f64>();
        let sum = |get: fn(&Second) -> u64| seconds.iter().map(get).sum::<u64>() as f64 / length_s;
        // Of the seconds for which it is known; a bin may reach beyond the engine's last line.
        let known = |all: &[Option<f64>]| {
            let of = all[places.clone()].iter().zip(&lengths[places.clone()]);
            let known = of.filter_map(|(value, length)| Some(((*value)?, *length)));
            let (count, length) = known.reduce(|one, other| (one.0 + other.0, one.1 + other.1))?;
            Some(count / length)
        };
        let late = within(lateness, at_s, at_s + length_s);
        let durably = within(durable, at_s, at_s + length_s);
        Bin {
            at_s,
            length_s,
            warm_up: seconds.iter().all(|second| second.warm_up),
            due: seconds
                .iter()
                .map(|second| second.due)
                .sum::<Option<u64>>()
                .map(|due| due as f64 / length_s),
            sent: sum(|second| second.sent),
            not_sent: sum(|second| second.not_sent),
            impaired_lost: sum(|second| second.impaired_lost),
            received: known(&received),
            stored: known(&stored),
            dropped: known(&dropped),
            mbps: sum(|second| second.sent_bytes) * 8e-6,
            lateness_ms: late.map_or_else(|| worst(seconds), |values| hlog::percentiles_ms(&values)),
            durable_ms: match durably {
                Some(values) => Some(hlog::percentiles_ms(&values)).map(|ms| (ms.p50, ms.p99, Some(ms.p999))),
                None => worst_durable(&durables[places.clone()]),
            },
            cpu_percent: seconds
                .iter()
                .zip(&lengths[places.clone()])
                .map(|(second, length)| second.cpu_percent * length)
                .sum::<f64>()
                / length_s,
        }
    };
    let bins: Vec<Bin> = groups(&lengths, per_bin).into_iter().map(bin).collect();
    Series {
        end_s: bins.last().map_or(0.0, |bin| bin.at_s + bin.length_s),
        bins,
        seconds_per_bin: per_bin,
        lateness_merged: !lateness.is_empty(),
    }
}

/// Which seconds make which bin.
fn groups(lengths: &[f64], per_bin: usize) -> Vec<Range<usize>> {
    let starts = (0..lengths.len()).step_by(per_bin);
    let mut groups: Vec<_> = starts
        .map(|from| from..(from + per_bin).min(lengths.len()))
        .collect();
    if let [.., before, last] = &mut groups[..] {
        let length_s = |group: &Range<usize>| lengths[group.clone()].iter().sum::<f64>();
        if length_s(last) < LAST_BIN_MIN * length_s(before) {
            before.end = last.end;
            groups.pop();
        }
    }
    groups
}

/// How long each second was: the last one may be shorter.
fn lengths(seconds: &[Second], duration_s: f64) -> Vec<f64> {
    let next = seconds.iter().skip(1).map(|second| second.at_s);
    let ends = next.chain(
        seconds
            .last()
            .map(|last| duration_s.clamp(last.at_s, last.at_s + 1.0)),
    );
    // One of no length would divide by nothing: what is counted in it happened within a millisecond at least.
    seconds
        .iter()
        .zip(ends)
        .map(|(second, end)| (end - second.at_s).max(1e-3))
        .collect()
}

/// Evens out counters whose lines come less often than every second: a line counts for all seconds since the line before.
fn spread(seconds: &[Second], get: impl Fn(&Second) -> Option<u64>) -> Vec<Option<f64>> {
    let mut even = vec![None; seconds.len()];
    let mut from = 0;
    for (index, second) in seconds.iter().enumerate() {
        if let Some(value) = get(second) {
            let each = value as f64 / (index + 1 - from) as f64;
            even[from..=index].fill(Some(each));
            from = index + 1;
        }
    }
    even
}

/// The values of the intervals that begin within a time; `None` if there are none.
fn within(intervals: &[Interval], from_s: f64, to_s: f64) -> Option<Histogram<u64>> {
    let mut inside = intervals
        .iter()
        .filter(|interval| (from_s..to_s).contains(&interval.at_s))
        .peekable();
    inside.peek()?;
    let values = hlog::merge(inside.map(|interval| &interval.values));
    (!values.is_empty()).then_some(values)
}

fn worst(seconds: &[Second]) -> Percentiles {
    let most = |get: fn(&Percentiles) -> f64| {
        seconds
            .iter()
            .map(|second| get(&second.lateness_ms))
            .fold(0.0, f64::max)
    };
    Percentiles {
        p50: most(|ms| ms.p50),
        p90: most(|ms| ms.p90),
        p99: most(|ms| ms.p99),
        p999: most(|ms| ms.p999),
        max: most(|ms| ms.max),
    }
}

fn worst_durable(seconds: &[Option<(f64, f64)>]) -> Option<(f64, f64, Option<f64>)> {
    let worse = |one: (f64, f64), other: (f64, f64)| (one.0.max(other.0), one.1.max(other.1));
    let (p50, p99) = seconds.iter().copied().flatten().reduce(worse)?;
    Some((p50, p99, None))
}

/// Durable p50 and p99 of each second: a line of the engine tells those of the time since the line before.
fn held(seconds: &[Second]) -> Vec<Option<(f64, f64)>> {
    let mut held = vec![None; seconds.len()];
    let mut from = 0;
    for (index, second) in seconds.iter().enumerate() {
        if let (Some(p50), Some(p99)) = (second.durable_ms_p50, second.durable_ms_p99) {
            held[from..=index].fill(Some((p50, p99)));
            from = index + 1;
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    #[test]
    fn every_packet_is_in_one_bin() {
        for run in [fixture::lossy(), fixture::many_streams(), fixture::one_second()] {
            let series = series(&run, &[], &[]);
            assert!(series.bins.len() <= BINS_MAX);
            let sent: f64 = series.bins.iter().map(|bin| bin.sent * bin.length_s).sum();
            let expected: u64 = run.seconds.iter().map(|second| second.sent).sum();
            assert!((sent - expected as f64).abs() < 1.0, "{sent} of {expected}");
        }
    }

    #[test]
    fn a_short_last_second_has_its_own_rate() {
        let series = series(&fixture::one_second(), &[], &[]);
        assert!(
            (series.bins[0].sent - 150.0).abs() < 1e-6,
            "60 packets in 0.4 s: {:?}",
            series.bins
        );
    }

    #[test]
    fn a_few_milliseconds_at_the_end_are_counted_into_the_second_before() {
        assert_eq!(groups(&[1.0, 1.0, 0.02], 1), [0..1, 1..3]);
        assert_eq!(groups(&[1.0, 1.0, 0.6], 1), [0..1, 1..2, 2..3]);
        assert_eq!(groups(&[0.02], 1), vec![0..1]);
        assert_eq!(groups(&[1.0, 1.0, 1.0, 1.0, 0.1], 2), [0..2, 2..5]);
    }

    #[test]
    fn a_line_of_the_engine_counts_for_the_seconds_since_the_line_before() {
        let mut seconds = vec![Second::default(); 5];
        seconds[0].stored = Some(10);
        seconds[3].stored = Some(60);
        let even = spread(&seconds, |second| second.stored);
        assert_eq!(even, [Some(10.0), Some(20.0), Some(20.0), Some(20.0), None]);
        (seconds[3].durable_ms_p50, seconds[3].durable_ms_p99) = (Some(2.0), Some(9.0));
        assert_eq!(held(&seconds)[..4], [Some((2.0, 9.0)); 4]);
        assert_eq!(held(&seconds)[4], None);
    }

    #[test]
    fn percentiles_of_a_bin_come_from_the_merged_histogram_where_there_is_one() {
        let run = fixture::many_streams();
        let intervals = fixture::intervals(30, 1000);
        let with = series(&run, &intervals, &[]);
        let merged = hlog::percentiles_ms(&hlog::merge(
            intervals[..15].iter().map(|interval| &interval.values),
        ));
        assert_eq!((with.seconds_per_bin, with.bins[0].lateness_ms), (15, merged));
        let without = series(&run, &[], &[]);
        assert_eq!(without.bins[0].lateness_ms, worst(&run.seconds[..15]));
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(series(&fixture::empty(), &[], &[]).bins, []);
    }
}
