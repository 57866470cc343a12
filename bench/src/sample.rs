//! Repetitions of one measurement, and what is said of them.

use serde::Serialize;

/// What one repetition measured.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Things done: packets, or operations.
    pub count: u64,
    pub bytes: u64,
    pub wall_ns: u64,
    /// CPU time of this process, user and system, by getrusage.
    pub cpu_ns: u64,
}

/// All repetitions of one case. Figures are medians; `runs` holds what they were taken from.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub per_second: f64,
    /// Payload, gigabits per second.
    pub gbps: f64,
    /// Payload, gigabytes per second.
    pub gigabytes_per_second: f64,
    /// CPU time of this process per packet or operation.
    pub cpu_ns_per_packet: f64,
    /// Payload per second of CPU time: what an undisturbed core would do, however busy the machine was.
    pub gigabytes_per_cpu_second: f64,
    /// CPU time as a share of one core.
    pub cpu_percent: f64,
    pub runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Run {
    pub per_second: f64,
    pub gbps: f64,
    pub cpu_ns_per_packet: f64,
    pub gigabytes_per_cpu_second: f64,
    pub cpu_percent: f64,
}

impl Figure {
    pub fn of(name: &str, samples: &[Sample]) -> Figure {
        let runs: Vec<Run> = samples.iter().map(Run::of).collect();
        let over = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
        let gbps = over(|run| run.gbps);
        Figure {
            name: name.to_owned(),
            per_second: over(|run| run.per_second),
            gbps,
            gigabytes_per_second: gbps / 8.0,
            cpu_ns_per_packet: over(|run| run.cpu_ns_per_packet),
            gigabytes_per_cpu_second: over(|run| run.gigabytes_per_cpu_second),
            cpu_percent: over(|run| run.cpu_percent),
            runs,
        }
    }
}

impl Run {
    fn of(sample: &Sample) -> Run {
        let wall_ns = sample.wall_ns.max(1) as f64;
        Run {
            per_second: sample.count as f64 * 1e9 / wall_ns,
            gbps: sample.bytes as f64 * 8.0 / wall_ns,
            cpu_ns_per_packet: sample.cpu_ns as f64 / sample.count.max(1) as f64,
            gigabytes_per_cpu_second: sample.bytes as f64 / sample.cpu_ns.max(1) as f64,
            cpu_percent: sample.cpu_ns as f64 * 100.0 / wall_ns,
        }
    }
}

/// The middle one; of an even number the mean of the two middle ones; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// (Largest − smallest) ÷ median, in percent; 0 of none.
pub fn spread_percent(values: &[f64]) -> f64 {
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(least, most), &value| {
        (least.min(value), most.max(value))
    });
    match median(values.to_vec()) {
        middle if middle > 0.0 => (most - least) * 100.0 / middle,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_its_runs() {
        let sample = |count, cpu_ns| Sample {
            count,
            bytes: count * 1000,
            wall_ns: 1_000_000_000,
            cpu_ns,
        };
        let figure = Figure::of(
            "x",
            &[sample(100, 1_000), sample(300, 3_000_000), sample(200, 10_000)],
        );
        assert_eq!((figure.per_second, figure.cpu_ns_per_packet), (200.0, 50.0));
        assert_eq!(figure.runs.len(), 3);
        assert_eq!(median(vec![1.0, 3.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
