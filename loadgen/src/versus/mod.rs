//! Comparing two sets of runs: per figure the medians, how far they differ, and whether that is more than noise.
//!
//! A difference is told only with [`RUNS_MIN`] runs a side, a p below [`SIGNIFICANT`], and an interval of the ratio that
//! leaves 1 out. Everything here is pure; `cli::compare` reads and prints.

pub mod gate;
pub mod likeness;
pub mod statistics;

use crate::assert::FIGURES;
use crate::output::words;
use crate::result::RunResult;
use serde::Serialize;

/// With fewer a side, not even complete separation is rare enough: of 4 and 4 it is 2 in 70 by chance.
pub const RUNS_MIN: usize = 5;
pub const SIGNIFICANT: f64 = 0.05;
/// Of the bootstrap; any will do, as long as it is always the same.
const SEED: u64 = 1;

/// What a figure's difference comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Better,
    Worse,
    /// Of figures that are neither better nor worse when they grow.
    Higher,
    Lower,
    NoDifference,
    /// Too few runs to say anything.
    Nothing,
}

impl Told {
    pub fn words(self) -> &'static str {
        match self {
            Told::Better => "better",
            Told::Worse => "WORSE",
            Told::Higher => "higher",
            Told::Lower => "lower",
            Told::NoDifference => "no difference told",
            Told::Nothing => "nothing: too few runs",
        }
    }
}

/// A figure's comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub figure: String,
    pub runs_a: usize,
    pub runs_b: usize,
    pub median_a: f64,
    pub median_b: f64,
    /// B − A.
    pub difference: f64,
    /// B ÷ A; none where A is 0.
    pub ratio: Option<f64>,
    /// 95 % of it.
    pub ratio_low: Option<f64>,
    pub ratio_high: Option<f64>,
    pub p: f64,
    pub told: Told,
}

impl Row {
    pub fn of(figure: &str, a: &[f64], b: &[f64], seed: u64) -> Row {
        let (median_a, median_b) = (statistics::median(a), statistics::median(b));
        let interval = statistics::ratio_interval(a, b, seed);
        let p = statistics::mann_whitney(a, b).p;
        Row {
            figure: figure.to_owned(),
            runs_a: a.len(),
            runs_b: b.len(),
            median_a,
            median_b,
            difference: median_b - median_a,
            ratio: (median_a != 0.0).then(|| median_b / median_a),
            ratio_low: interval.map(|(low, _)| low),
            ratio_high: interval.map(|(_, high)| high),
            p,
            told: told(figure, a.len().min(b.len()), median_b - median_a, interval, p),
        }
    }

    /// One line of the table.
    pub fn line(&self) -> String {
        let change = match self.ratio {
            Some(ratio) => format!("{:+.1} %", 100.0 * (ratio - 1.0)),
            None => "–".to_owned(),
        };
        let interval = match (self.ratio, self.ratio_low, self.ratio_high) {
            (Some(ratio), Some(low), Some(high)) => format!("{ratio:.3} [{low:.3}, {high:.3}]"),
            _ => "–".to_owned(),
        };
        format!(
            "{:<28} {:>12} {:>12} {:>10}  {:<24} {:>7}  {}",
            self.figure,
            words::figures(self.median_a),
            words::figures(self.median_b),
            change,
            interval,
            format!("{:.4}", self.p),
            self.told.words()
        )
    }
}

fn told(figure: &str, runs: usize, difference: f64, interval: Option<(f64, f64)>, p: f64) -> Told {
    if runs < RUNS_MIN {
        return Told::Nothing;
    }
    // Where A is 0 there is no ratio to bound, and the test stands alone.
    let apart = interval.is_none_or(|(low, high)| low > 1.0 || high < 1.0);
    if p >= SIGNIFICANT || !apart || difference == 0.0 {
        return Told::NoDifference;
    }
    match (direction(figure), difference > 0.0) {
        (Direction::Neither, true) => Told::Higher,
        (Direction::Neither, false) => Told::Lower,
        (Direction::LowerIsBetter, up) if up => Told::Worse,
        (Direction::HigherIsBetter, up) if !up => Told::Worse,
        _ => Told::Better,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    LowerIsBetter,
    HigherIsBetter,
    Neither,
}

/// Which way a figure is better. What the load's plan decides is neither.
fn direction(figure: &str) -> Direction {
    const LOWER: [&str; 30] = [
        "not_sent",
        "rtcp_not_sent",
        "duration_s",
        "stretch_percent",
        "lateness_ms",
        "pacing_error_ms",
        "cpu_percent",
        "cpu_ns_per_packet",
        "refused",
        "engine.dropped",
        "engine.never_received",
        "engine.kernel_drop_batches",
        "engine.durable_ms",
        "engine.cpu_ns_per_packet",
        "engine.memory_bytes",
        "stored_loss",
        "loss_percent",
        "duplicates",
        "reordered",
        "corrupt",
        "wrong_customer",
        "foreign",
        "gaps",
        "longest_gap",
        "rtcp_loss",
        "lost_by.generator",
        "lost_by.engine",
        "lost_by.remainder",
        "arrival_ms",
        "rtcp_foreign",
    ];
    const HIGHER: [&str; 5] = ["valid", "gbps", "packets_per_second", "engine.stored", "stored"];
    // A family's percentiles share its name: `lateness_ms_p99`.
    let is = |name: &&str| figure == *name || figure.strip_prefix(*name).is_some_and(is_percentile);
    match (LOWER.iter().any(is), HIGHER.contains(&figure)) {
        (true, _) => Direction::LowerIsBetter,
        (_, true) => Direction::HigherIsBetter,
        _ => Direction::Neither,
    }
}

fn is_percentile(rest: &str) -> bool {
    rest == "_max"
        || rest
            .strip_prefix("_p")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A whole comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    pub runs_a: usize,
    pub runs_b: usize,
    /// Figures that are not the same in all runs.
    pub rows: Vec<Row>,
    /// Names of those that are.
    pub equal: Vec<String>,
    /// Neither side of which was measured, or only one.
    pub not_measured: Vec<String>,
}

impl Comparison {
    /// Whether there are enough runs to tell anything.
    pub fn conclusive(&self) -> bool {
        self.runs_a.min(self.runs_b) >= RUNS_MIN
    }
}

/// Compares every figure that both sides have.
pub fn compare(a: &[RunResult], b: &[RunResult]) -> Comparison {
    let mut comparison = Comparison {
        runs_a: a.len(),
        runs_b: b.len(),
        ..Comparison::default()
    };
    for figure in FIGURES {
        let of = |runs: &[RunResult]| {
            runs.iter()
                .filter_map(|run| figure.value(run))
                .collect::<Vec<f64>>()
        };
        let (a, b) = (of(a), of(b));
        if a.is_empty() || b.is_empty() {
            comparison.not_measured.push(figure.name.to_owned());
        } else if a.iter().chain(&b).all(|value| *value == a[0]) {
            comparison.equal.push(figure.name.to_owned());
        } else {
            comparison.rows.push(Row::of(figure.name, &a, &b, SEED));
        }
    }
    comparison
}

/// A figure's row even where it is the same in all runs; `None` where it was not measured.
pub fn row(name: &str, a: &[RunResult], b: &[RunResult]) -> Option<Row> {
    let figure = FIGURES.iter().find(|figure| figure.name == name)?;
    let of = |runs: &[RunResult]| {
        runs.iter()
            .filter_map(|run| figure.value(run))
            .collect::<Vec<f64>>()
    };
    let (a, b) = (of(a), of(b));
    (!a.is_empty() && !b.is_empty()).then(|| Row::of(name, &a, &b, SEED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(lateness: &[f64], bytes_sent: u64) -> Vec<RunResult> {
        let run = |&p99: &f64| {
            let mut run = RunResult::default();
            run.sending.lateness_ms.p99 = p99;
            run.load.sent = bytes_sent;
            run
        };
        lateness.iter().map(run).collect()
    }

    fn told_of(a: &[f64], b: &[f64]) -> Told {
        let comparison = compare(&runs(a, 1), &runs(b, 1));
        comparison
            .rows
            .iter()
            .find(|row| row.figure == "lateness_ms_p99")
            .map_or(Told::NoDifference, |row| row.told)
    }

    #[test]
    fn five_apart_are_told_apart_and_four_are_not() {
        let (low, high) = ([1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.1, 2.2, 2.3, 2.4]);
        assert_eq!(told_of(&low, &high), Told::Worse);
        assert_eq!(told_of(&high, &low), Told::Better);
        assert_eq!(told_of(&low[..4], &high[..4]), Told::Nothing);
    }

    #[test]
    fn noise_is_not_told_for_a_difference() {
        assert_eq!(
            told_of(&[1.0, 1.4, 1.2, 1.6, 1.1], &[1.3, 1.05, 1.5, 1.15, 1.25]),
            Told::NoDifference
        );
    }

    #[test]
    fn what_is_equal_everywhere_and_what_was_not_measured_have_no_row() {
        let comparison = compare(&runs(&[1.0, 2.0], 7), &runs(&[1.5, 2.0], 7));
        assert!(comparison.equal.iter().any(|name| name == "sent"));
        assert!(comparison.not_measured.iter().any(|name| name == "stored_loss"));
        assert_eq!(comparison.rows.len(), 1, "{:?}", comparison.rows);
        assert!(!comparison.conclusive());
    }

    #[test]
    fn directions_are_of_figures_there_are() {
        assert_eq!(direction("lateness_ms_p999"), Direction::LowerIsBetter);
        assert_eq!(direction("engine.cpu_ns_per_packet"), Direction::LowerIsBetter);
        assert_eq!(direction("gbps"), Direction::HigherIsBetter);
        assert_eq!(direction("cameras"), Direction::Neither);
        assert_eq!(direction("duplicates_made"), Direction::Neither);
    }

    #[test]
    fn a_row_where_a_is_nothing_has_no_ratio() {
        let row = Row::of("not_sent", &[0.0; 5], &[3.0, 4.0, 5.0, 6.0, 7.0], 1);
        assert_eq!((row.ratio, row.told), (None, Told::Worse));
        assert!(
            !row.line().contains("NaN") && row.line().contains('–'),
            "{}",
            row.line()
        );
    }
}
