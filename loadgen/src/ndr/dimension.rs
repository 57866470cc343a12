//! What is turned up and down: its unit, its grain, and how people write it.

use super::search::Load;
use crate::profile::Dimension;
use crate::profile::units;

/// What a search turns up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dim {
    /// The number of streams, each at its rate.
    Streams,
    /// The rate of all together in Mb/s, the number of cameras as it is.
    Mbps,
    /// The packets per second of all together, the number of cameras as it is.
    Pps,
}

impl Dim {
    pub fn name(self) -> &'static str {
        match self {
            Dim::Streams => "streams",
            Dim::Mbps => "mbps",
            Dim::Pps => "pps",
        }
    }

    /// As a setting (`-s`) of a profile.
    pub fn setting(self) -> &'static str {
        match self {
            Dim::Streams => "streams",
            Dim::Mbps => "total_mbps",
            Dim::Pps => "pps",
        }
    }

    /// As a profile is scaled by it.
    pub fn of_profile(self) -> Dimension {
        match self {
            Dim::Streams => Dimension::Streams,
            Dim::Mbps => Dimension::Mbps,
            Dim::Pps => Dimension::Pps,
        }
    }

    /// One stream, one kb/s, one packet per second.
    fn grain(self) -> f64 {
        match self {
            Dim::Mbps => 1e-3,
            Dim::Streams | Dim::Pps => 1.0,
        }
    }

    /// The nearest whole number of grains, at least one.
    pub fn load(self, value: f64) -> Load {
        ((value / self.grain()).round() as Load).max(1)
    }

    pub fn value(self, load: Load) -> f64 {
        load as f64 * self.grain()
    }

    /// `350 streams`, `1250.5 Mb/s`, `104167 packets/s`.
    pub fn text(self, load: Load) -> String {
        match self {
            Dim::Streams => format!("{load} streams"),
            Dim::Mbps => format!("{} Mb/s", self.value(load)),
            Dim::Pps => format!("{load} packets/s"),
        }
    }

    /// A load as people write it: a number, or with a unit or multiple that fits.
    pub fn parse(self, text: &str) -> Option<Load> {
        const MULTIPLES: [(&str, f64); 3] = [("k", 1e3), ("M", 1e6), ("G", 1e9)];
        let plain = || text.parse::<f64>().ok();
        let multiple = || {
            let (suffix, factor) = MULTIPLES.iter().find(|(suffix, _)| text.ends_with(suffix))?;
            Some(text.strip_suffix(suffix)?.parse::<f64>().ok()? * factor)
        };
        let value = match self {
            Dim::Mbps => plain().or_else(|| units::mbps(text)),
            Dim::Streams | Dim::Pps => plain().or_else(multiple),
        };
        value
            .filter(|value| value.is_finite() && *value > 0.0)
            .map(|value| self.load(value))
    }
}

/// A goal: the share of packets that may be lost. `0`, `0.001%`, `1e-5`.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().or_else(|| units::share(text));
    share
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| "wanted is a share below 1, as in 0, 0.001% or 1e-5".to_owned())
}

/// A time of a trial, in seconds: `10s`, `1m`, or a number of seconds.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok();
    let seconds = seconds.or_else(|| units::duration_ns(text).map(|ns| ns / 1e9));
    seconds
        .filter(|seconds| (0.1..=86_400.0).contains(seconds))
        .ok_or_else(|| "wanted is a time of 100ms to 24h, as in 10s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_whole_grains_and_read_as_people_write_them() {
        assert_eq!(Dim::Streams.parse("4000"), Some(4_000));
        assert_eq!(Dim::Streams.parse("4k"), Some(4_000));
        assert_eq!(Dim::Pps.parse("1.3M"), Some(1_300_000));
        assert_eq!(Dim::Mbps.parse("2.5"), Some(2_500));
        assert_eq!(Dim::Mbps.parse("7Gb/s"), Some(7_000_000));
        assert_eq!(Dim::Mbps.text(2_500), "2.5 Mb/s");
        for bad in ["", "-1", "0", "nan", "inf", "4x", "Gb/s"] {
            assert_eq!(Dim::Mbps.parse(bad), None, "{bad}");
            assert_eq!(Dim::Streams.parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn shares_and_times_read_as_people_write_them() {
        assert_eq!(parse_share("0"), Ok(0.0));
        assert_eq!(parse_share("1e-5"), Ok(1e-5));
        assert!((parse_share("0.001%").expect("a share") - 1e-5).abs() < 1e-12);
        assert_eq!(parse_seconds("1m"), Ok(60.0));
        assert_eq!(parse_seconds("0.5"), Ok(0.5));
        for bad in ["", "1", "100%", "-0.1", "x"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "10 years", "-1s"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
