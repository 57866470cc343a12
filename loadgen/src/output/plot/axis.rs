//! An axis: which values it shows, where they are, and which of them are named. All of it decided from the values alone.

use crate::output::words;

/// Above this ratio between the largest and the smallest value a linear axis would press most of them to the ground.
const LOG_FROM_RATIO: f64 = 60.0;

#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// With the unit.
    pub label: String,
    log: bool,
    from: f64,
    to: f64,
    /// Places in values, and their names.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a round number above the largest value, with about `count` names.
    pub fn from_zero(label: &str, values: impl Iterator<Item = f64>, count: usize) -> Axis {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let step = round_step(if most > 0.0 { most } else { 1.0 } / count.max(1) as f64);
        let steps = (most / step - 1e-9).ceil().max(1.0);
        let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let tick = |index: usize| (index as f64 * step, format!("{:.digits$}", index as f64 * step));
        Axis {
            label: label.to_owned(),
            log: false,
            from: 0.0,
            to: steps * step,
            ticks: (0..=steps as usize).map(tick).collect(),
        }
    }

    /// Milliseconds: from 0, or on decades where the values are far apart.
    pub fn of_ms(values: impl Iterator<Item = f64> + Clone, count: usize) -> Axis {
        let positive = || values.clone().filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) = (
            positive().fold(f64::MAX, f64::min),
            positive().fold(0.0, f64::max),
        );
        if most <= 0.0 || most / least < LOG_FROM_RATIO {
            return Axis::from_zero("ms", values, count);
        }
        let from = least.log10().floor() as i32;
        let to = (most.log10().ceil() as i32).max(from + 1);
        let decade = |power: i32| (10f64.powi(power), words::figures(10f64.powi(power)));
        Axis {
            label: "ms (decades)".to_owned(),
            log: true,
            from: 10f64.powi(from),
            to: 10f64.powi(to),
            ticks: (from..=to).map(decade).collect(),
        }
    }

    /// The time of a run, with as many names as there is room for.
    pub fn of_time(end_s: f64, count: usize) -> Axis {
        let end_s = if end_s > 0.0 { end_s } else { 1.0 };
        let step = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0,
            3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0,
        ]
        .into_iter()
        .find(|step| end_s / step <= count as f64)
        .unwrap_or_else(|| round_step(end_s / count as f64));
        let steps = (end_s / step + 1e-9).floor() as usize;
        let tick = |index: usize| (index as f64 * step, words::moment(index as f64 * step, end_s));
        let unit = match end_s {
            short if short < 180.0 => "seconds",
            middle if middle < 3600.0 => "min:s",
            _ => "h:min:s",
        };
        Axis {
            label: unit.to_owned(),
            log: false,
            from: 0.0,
            to: end_s,
            ticks: (0..=steps).map(tick).collect(),
        }
    }

    /// Quantiles, each further nine as far as the one before; `nines` of them.
    pub fn of_quantiles(nines: f64) -> Axis {
        let to = nines.clamp(1.0, 9.0);
        let mut ticks = vec![(0.0, "0 %".to_owned()), (2f64.log10(), "50 %".to_owned())];
        for nine in 1..=to.floor() as usize {
            let decimals = nine.saturating_sub(2);
            ticks.push((
                nine as f64,
                format!("{:.decimals$} %", 100.0 - 10f64.powi(2 - nine as i32)),
            ));
        }
        Axis {
            label: "share of packets that were faster".to_owned(),
            log: false,
            from: 0.0,
            to,
            ticks,
        }
    }

    /// Where a value is, as a share of the axis; those outside stand at its ends.
    pub fn share(&self, value: f64) -> f64 {
        let (value, from, to) = match self.log {
            true => (value.max(self.from).log10(), self.from.log10(), self.to.log10()),
            false => (value, self.from, self.to),
        };
        ((value - from) / (to - from)).clamp(0.0, 1.0)
    }
}

/// The nearest of 1, 2, 2.5, 5 × 10^n that is not below.
fn round_step(step: f64) -> f64 {
    let decade = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .find(|factor| decade * factor >= step * (1.0 - 1e-9));
    decade * factor.unwrap_or(10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn an_axis_ends_at_a_round_number_above_its_values() {
        let axis = Axis::from_zero("x", [833.0, 12.0].into_iter(), 5);
        assert_eq!(names(&axis), ["0", "200", "400", "600", "800", "1000"]);
        assert!((axis.share(500.0) - 0.5).abs() < 1e-9);
        assert_eq!(
            names(&Axis::from_zero("x", [0.07].into_iter(), 4)),
            ["0.00", "0.02", "0.04", "0.06", "0.08"]
        );
    }

    #[test]
    fn values_far_apart_stand_on_decades() {
        let axis = Axis::of_ms([0.3, 950.0].into_iter(), 5);
        assert_eq!(names(&axis), ["0.1", "1", "10", "100", "1000"]);
        assert!((axis.share(10.0) - 0.5).abs() < 1e-9);
        assert_eq!(axis.share(0.0), 0.0, "nothing is below the axis");
        assert_eq!(Axis::of_ms([1.0, 2.0].into_iter(), 4).label, "ms");
    }

    #[test]
    fn time_is_cut_at_times_people_use() {
        assert_eq!(
            names(&Axis::of_time(60.0, 8)),
            ["0", "10", "20", "30", "40", "50", "60"]
        );
        assert_eq!(
            names(&Axis::of_time(600.0, 5)),
            ["0:00", "2:00", "4:00", "6:00", "8:00", "10:00"]
        );
        assert_eq!(names(&Axis::of_time(0.4, 5)), ["0", "0.1", "0.2", "0.3", "0.4"]);
    }

    #[test]
    fn quantiles_have_a_place_for_every_nine() {
        assert_eq!(
            names(&Axis::of_quantiles(4.3)),
            ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }

    #[test]
    fn without_values_there_still_is_an_axis() {
        for axis in [
            Axis::from_zero("x", [].into_iter(), 5),
            Axis::of_ms([].into_iter(), 5),
            Axis::of_time(0.0, 5),
        ] {
            assert!(axis.ticks.len() >= 2 && axis.share(0.5).is_finite(), "{axis:?}");
        }
        let axis = Axis::from_zero("x", [f64::NAN, f64::INFINITY].into_iter(), 5);
        assert!(axis.share(0.5).is_finite());
    }
}
