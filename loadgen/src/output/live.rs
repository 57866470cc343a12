//! What is shown of a run under way: a state that takes a second at a time, and what the plain log says of it. The terminal
//! view draws the same state.

use super::hlog::percentiles_ms;
use super::words;
use crate::fleet::{LiveSecond, lateness_histogram};
use crate::plan::{Plan, Stage};
use crate::result::{Percentiles, Second};
use hdrhistogram::Histogram;
use std::collections::VecDeque;

/// Seconds that are kept to be drawn.
pub const SECONDS_KEPT: usize = 240;
/// Rows of the heat map at most: streams are dealt out over them in order.
pub const ROWS: usize = 48;

/// What is known of a run before it begins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    pub profile: String,
    pub cameras: usize,
    pub streams: usize,
    /// By the plan, from begin to end.
    pub seconds: f64,
    pub warm_up_s: f64,
    pub stages: Vec<Stage>,
    pub lateness_budget_ms: f64,
    pub targets: Vec<String>,
}

impl About {
    pub fn of(plan: &Plan) -> About {
        let last_on = plan
            .streams
            .iter()
            .filter_map(|stream| stream.on.last())
            .map(|on| on.end);
        let ends = plan.stages.iter().map(|stage| stage.to_ns).chain(last_on);
        About {
            profile: plan.name.clone(),
            cameras: plan.cameras.len(),
            streams: plan.streams.len(),
            seconds: ends.max().unwrap_or(0) as f64 / 1e9,
            warm_up_s: plan.warm_up_ns as f64 / 1e9,
            stages: plan.stages.clone(),
            lateness_budget_ms: plan.lateness_budget_ms,
            targets: plan.targets.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A run under way.
pub struct Live {
    pub about: About,
    /// The latest, oldest first.
    pub seconds: VecDeque<Second>,
    /// Packets lost or not sent per row and second, beside `seconds`.
    pub lost: VecDeque<[u32; ROWS]>,
    /// Of the whole run.
    pub lateness: Histogram<u64>,
    pub sent: u64,
    pub not_sent: u64,
    pub impaired_lost: u64,
    pub received: Option<u64>,
    pub stored: Option<u64>,
    pub dropped: Option<u64>,
    /// A stop was asked for.
    pub stopping: bool,
}

impl Live {
    pub fn new(about: About) -> Live {
        Live {
            about,
            seconds: VecDeque::new(),
            lost: VecDeque::new(),
            lateness: lateness_histogram(),
            sent: 0,
            not_sent: 0,
            impaired_lost: 0,
            received: None,
            stored: None,
            dropped: None,
            stopping: false,
        }
    }

    /// Rows the heat map has: as many as there are streams, and [`ROWS`] at most.
    pub fn rows(&self) -> usize {
        self.about.streams.clamp(1, ROWS)
    }

    /// Takes the second that just ended.
    pub fn take(&mut self, live: LiveSecond) {
        let second = live.second;
        self.sent += second.sent;
        self.not_sent += second.not_sent;
        self.impaired_lost += second.impaired_lost;
        for (total, new) in [
            (&mut self.received, second.received),
            (&mut self.stored, second.stored),
            (&mut self.dropped, second.dropped),
        ] {
            if let Some(new) = new {
                *total = Some(total.unwrap_or(0) + new);
            }
        }
        self.lateness
            .add(&live.lateness)
            .expect("both have the bounds of all lateness");
        self.lost
            .push_back(self.dealt_out(live.per_stream_lost.as_deref().unwrap_or_default()));
        self.seconds.push_back(second);
        if self.seconds.len() > SECONDS_KEPT {
            self.seconds.pop_front();
            self.lost.pop_front();
        }
    }

    fn dealt_out(&self, per_stream: &[u32]) -> [u32; ROWS] {
        let mut rows = [0u32; ROWS];
        let streams = per_stream.len().max(self.about.streams).max(1);
        for (stream, &lost) in per_stream.iter().enumerate() {
            let row = &mut rows[stream * self.rows() / streams];
            *row = row.saturating_add(lost);
        }
        rows
    }

    /// How far the run is.
    pub fn at_s(&self) -> f64 {
        self.seconds.back().map_or(0.0, |second| second.at_s + 1.0)
    }

    /// 0 to 1.
    pub fn progress(&self) -> f64 {
        match self.about.seconds {
            whole if whole > 0.0 => (self.at_s() / whole).clamp(0.0, 1.0),
            _ => 0.0,
        }
    }

    /// What the run is doing, in a word or two.
    pub fn phase(&self) -> String {
        if self.stopping {
            return "stopping".to_owned();
        }
        let at_s = self.at_s();
        if self.seconds.is_empty() {
            return "starting".to_owned();
        }
        if at_s <= self.about.warm_up_s {
            return "warm-up".to_owned();
        }
        let at_ns = (at_s * 1e9) as u64;
        let stage = self
            .about
            .stages
            .iter()
            .find(|stage| (stage.from_ns..stage.to_ns).contains(&at_ns));
        match stage.map(|stage| stage.share) {
            Some((from, to)) if from < to => format!("ramp up to {} %", words::figures(100.0 * to)),
            Some((from, to)) if from > to => format!("ramp down to {} %", words::figures(100.0 * to)),
            Some((share, _)) if share < 1.0 => {
                format!("steady, {} % of the cameras", words::figures(100.0 * share))
            }
            Some(_) => "steady".to_owned(),
            None if self.about.seconds > 0.0 && at_s >= self.about.seconds => "finishing".to_owned(),
            None => "running".to_owned(),
        }
    }

    /// Lateness of the whole run so far.
    pub fn lateness_ms(&self) -> Percentiles {
        percentiles_ms(&self.lateness)
    }

    /// Whether the generator is already later than the run allows.
    pub fn too_late(&self) -> bool {
        self.about.lateness_budget_ms > 0.0 && self.lateness_ms().p99 > self.about.lateness_budget_ms
    }

    /// The plain log's line for the latest second.
    pub fn line(&self) -> String {
        let Some(second) = self.seconds.back() else {
            return String::new();
        };
        let whole_s = self.about.seconds;
        let mut line = format!(
            "{:>7}/{} s  {:>6} Gb/s  {:>9} packets/s  late p50 {} p99 {} p99.9 {}  CPU {} %",
            words::figures(self.at_s()),
            words::figures(whole_s),
            words::figures(second.sent_bytes as f64 * 8e-9),
            words::count(second.sent),
            words::ms(second.lateness_ms.p50),
            words::ms(second.lateness_ms.p99),
            words::ms(second.lateness_ms.p999),
            words::figures(second.cpu_percent),
        );
        let more = [
            ("NOT SENT", (second.not_sent > 0).then_some(second.not_sent)),
            ("stored", second.stored),
            ("DROPPED", second.dropped.filter(|&dropped| dropped > 0)),
        ];
        for (name, count) in more {
            if let Some(count) = count {
                line.push_str(&format!("  {name} {}", words::count(count)));
            }
        }
        if let Some(ms) = second.durable_ms_p99 {
            line.push_str(&format!("  durable p99 {}", words::ms(ms)));
        }
        format!("{line}  {}", self.phase())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::fixture;

    /// A run of [`fixture::lossy`] under way, `seconds` of it.
    pub fn under_way(seconds: usize) -> Live {
        let run = fixture::lossy();
        let mut live = Live::new(About {
            profile: run.profile.clone(),
            cameras: 4000,
            streams: 4000,
            seconds: 60.0,
            warm_up_s: 5.0,
            stages: vec![
                Stage {
                    from_ns: 0,
                    to_ns: 5_000_000_000,
                    share: (0.0, 1.0),
                },
                Stage {
                    from_ns: 5_000_000_000,
                    to_ns: 60_000_000_000,
                    share: (1.0, 1.0),
                },
            ],
            lateness_budget_ms: 20.0,
            targets: run.targets.clone(),
        });
        for (second, interval) in run.seconds.iter().zip(fixture::intervals(60, 300)).take(seconds) {
            let lost =
                (second.at_s == 20.0).then(|| (0..4000).map(|stream| u32::from(stream < 80)).collect());
            live.take(LiveSecond {
                second: second.clone(),
                lateness: interval.values,
                per_stream_lost: lost,
            });
        }
        live
    }

    #[test]
    fn counts_add_up_and_losses_land_in_the_row_of_their_stream() {
        let live = under_way(30);
        let run = fixture::lossy();
        assert_eq!(
            live.sent,
            run.seconds[..30].iter().map(|second| second.sent).sum::<u64>()
        );
        assert_eq!(live.stored, Some(live.sent));
        let rows = live.lost[20];
        assert_eq!(rows.iter().sum::<u32>(), 80);
        assert_eq!(rows[0], 80, "80 of 4,000 streams are less than a row of 48");
        assert_eq!(live.lost[19].iter().sum::<u32>(), 0);
    }

    #[test]
    fn the_phase_follows_the_plan() {
        assert_eq!(under_way(0).phase(), "starting");
        assert_eq!(under_way(3).phase(), "warm-up");
        assert_eq!(under_way(30).phase(), "steady");
        let mut live = under_way(30);
        live.stopping = true;
        assert_eq!(live.phase(), "stopping");
        assert_eq!((under_way(30).progress(), under_way(60).progress()), (0.5, 1.0));
    }

    #[test]
    fn a_line_tells_rate_lateness_and_what_was_lost() {
        let line = under_way(42).line();
        for part in [
            "42/60 s",
            "Gb/s",
            "p99.9",
            "DROPPED 41\u{202f}000",
            "durable p99",
            "steady",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(under_way(0).line(), "");
    }

    #[test]
    fn more_seconds_than_are_kept_and_more_streams_than_told_do_no_harm() {
        let mut live = Live::new(About::default());
        for at in 0..1000 {
            live.take(LiveSecond {
                second: Second {
                    at_s: f64::from(at),
                    ..Second::default()
                },
                lateness: lateness_histogram(),
                per_stream_lost: Some(vec![1; 100_000]),
            });
        }
        assert_eq!(
            (live.seconds.len(), live.lost.len()),
            (SECONDS_KEPT, SECONDS_KEPT)
        );
        assert_eq!(live.progress(), 0.0);
    }
}
