//! The loads between which a search goes, of which the profile can have each.

use super::dimension::Dim;
use super::search::Load;
use crate::profile::{Profile, ProfileError};

/// From the profile's own load this far down and up, where nothing else is said.
const FACTOR: Load = 1_000;

/// Loads in grains of the dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub min: Load,
    pub max: Load,
    /// The profile's own, or the nearest between both.
    pub start: Load,
}

/// Why there is nothing to search in.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum RangeError {
    #[error("--min {0} is above --max {1}")]
    Crossed(String, String),
    #[error("--{0} {1}: {2}")]
    Cannot(&'static str, String, String),
    #[error("{0}")]
    Fixed(#[from] ProfileError),
}

/// The range for a profile; ends that were asked for must be possible, others are brought in until they are.
pub fn of(profile: &Profile, dim: Dim, min: Option<Load>, max: Option<Load>) -> Result<Range, RangeError> {
    let offered = profile.offered();
    let own = dim.load(match dim {
        Dim::Streams => offered.streams as f64,
        Dim::Mbps => offered.mbps,
        Dim::Pps => offered.pps,
    });
    let possible = |load: Load| profile.scale(dim.of_profile(), dim.value(load)).map(|_| ());
    possible(own)?;
    let asked = |name: &'static str, load: Load| {
        let cannot = |error: ProfileError| RangeError::Cannot(name, dim.text(load), error.message);
        possible(load).map(|()| load).map_err(cannot)
    };
    // A rate has bounds for each camera, and audio that cannot be scaled: found by halving the factor, as ratios go.
    let nearest = |at: fn(Load, f64) -> Load| {
        let mut factor = FACTOR as f64;
        while factor > 1.0 + 1e-3 && possible(at(own, factor)).is_err() {
            factor = factor.sqrt();
        }
        at(own, if factor > 1.0 + 1e-3 { factor } else { 1.0 })
    };
    let max = match max {
        Some(max) => asked("max", max)?,
        None => nearest(|own, factor| (own as f64 * factor) as Load).max(min.unwrap_or(1)),
    };
    let min = match min {
        Some(min) if min > max => return Err(RangeError::Crossed(dim.text(min), dim.text(max))),
        Some(min) => asked("min", min)?,
        None => nearest(|own, factor| ((own as f64 / factor).ceil() as Load).max(1)).min(max),
    };
    Ok(Range {
        min,
        max,
        start: own.clamp(min, max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> Profile {
        Profile::parse("test.toml", text, &[]).expect("a profile")
    }

    const STREET: &str = "name = \"street\"\n[[group]]\nname = \"street\"\ncount = 10\nmbps = 2\n";

    #[test]
    fn a_search_begins_at_the_profiles_own_load_and_goes_a_thousandfold_both_ways() {
        let range = of(&profile(STREET), Dim::Streams, None, None).expect("a range");
        assert_eq!((range.min, range.start, range.max), (1, 10, 10_000));
    }

    #[test]
    fn rates_stay_where_the_profile_can_have_them() {
        let profile = profile(STREET);
        for dim in [Dim::Mbps, Dim::Pps] {
            let range = of(&profile, dim, None, None).expect("a range");
            assert!(
                range.min < range.start && range.start < range.max,
                "{dim:?} {range:?}"
            );
            for load in [range.min, range.start, range.max] {
                assert!(
                    profile.scale(dim.of_profile(), dim.value(load)).is_ok(),
                    "{dim:?} {load}"
                );
            }
        }
    }

    #[test]
    fn a_load_that_cannot_be_turned_is_refused_at_once() {
        let audio = "name = \"audio\"\n[[group]]\nname = \"audio\"\ncount = 10\ncodec = \"pcmu\"\n";
        let refused = of(&profile(audio), Dim::Pps, None, None).expect_err("audio has one rate");
        assert!(
            refused.to_string().contains("scale cameras or streams instead"),
            "{refused}"
        );
    }

    #[test]
    fn ends_that_cannot_be_are_refused_by_name() {
        let profile = profile(STREET);
        let refused = |min, max| {
            of(&profile, Dim::Streams, min, max)
                .expect_err("must be refused")
                .to_string()
        };
        assert_eq!(
            refused(Some(5), Some(4)),
            "--min 5 streams is above --max 4 streams"
        );
        assert!(refused(None, Some(u64::MAX)).starts_with("--max "));
        let narrow = of(&profile, Dim::Streams, Some(20), Some(30)).expect("a range");
        assert_eq!((narrow.min, narrow.start, narrow.max), (20, 20, 30));
    }
}
