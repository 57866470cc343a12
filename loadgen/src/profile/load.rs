//! How the load goes up and down: `load = { shape = … }`, or one `[[stage]]` after the other.
//!
//! Invariant: the stages follow each other without a gap from 0, and none is empty.

use super::document::ProfileError;
use super::section::Section;
use crate::plan::Stage;

const SHAPE_KEYS: [(&str, &[&str]); 5] = [
    ("constant", &["shape"]),
    ("ramp", &["shape", "from", "to", "over"]),
    ("step", &["shape", "from", "to", "steps"]),
    ("spike", &["shape", "base", "peak", "at", "length"]),
    ("soak", &["shape", "up", "down"]),
];
const STAGE_KEYS: [&str; 4] = ["seconds", "share", "from", "to"];
/// A stage of four months: more than anybody waits for.
pub const SECONDS: std::ops::RangeInclusive<f64> = 0.001..=1e7;
/// Shorter steps than a millisecond would be lost in the gaps between frames.
const STEPS: std::ops::RangeInclusive<u64> = 1..=1000;

/// The stages of a profile: `stages` one after the other, stretched to `total_ns` if that is given; else the shape over it.
pub fn stages(
    load: Option<Section<'_>>,
    stages: &[Section<'_>],
    total_ns: Option<u64>,
) -> Result<Vec<Stage>, ProfileError> {
    if stages.is_empty() {
        let total_ns = total_ns.unwrap_or(DEFAULT_NS);
        return load.map_or_else(|| Ok(constant(total_ns)), |load| shaped(load, total_ns));
    }
    if let Some(load) = load {
        return Err(load.error_here("load and [[stage]] are two ways to say the same: leave one out"));
    }
    let mut found = Vec::new();
    let mut at_ns = 0;
    for stage in stages {
        let one = one_stage(*stage, at_ns)?;
        at_ns = one.to_ns;
        found.push(one);
    }
    if let Some(total_ns) = total_ns {
        stretch(&mut found, total_ns);
    }
    Ok(found)
}

const DEFAULT_NS: u64 = 10_000_000_000;

fn one_stage(section: Section<'_>, from_ns: u64) -> Result<Stage, ProfileError> {
    section.refuse_unknown(&STAGE_KEYS)?;
    let Some(length_ns) = section.duration_ns("seconds", SECONDS)? else {
        return Err(section.error_here(format!(
            "{}.seconds is missing: how long the stage lasts",
            section.path
        )));
    };
    let share = match (
        section.share("share")?,
        section.share("from")?,
        section.share("to")?,
    ) {
        (Some(share), None, None) => (share, share),
        (None, Some(from), Some(to)) => (from, to),
        (None, None, None) => (1.0, 1.0),
        _ => {
            let wanted = "has either share, or from and to: the part of the cameras that is on";
            return Err(section.error_here(format!("{} {wanted}", section.path)));
        }
    };
    Ok(Stage {
        from_ns,
        to_ns: from_ns + length_ns,
        share,
    })
}

fn stretch(stages: &mut [Stage], total_ns: u64) {
    let was_ns = stages.last().map_or(1, |stage| stage.to_ns);
    let moved = |ns: u64| (u128::from(ns) * u128::from(total_ns) / u128::from(was_ns)) as u64;
    for stage in stages {
        (stage.from_ns, stage.to_ns) = (moved(stage.from_ns), moved(stage.to_ns));
    }
}

fn constant(total_ns: u64) -> Vec<Stage> {
    pieces(&[(total_ns, 1.0, 1.0)])
}

fn shaped(section: Section<'_>, total_ns: u64) -> Result<Vec<Stage>, ProfileError> {
    let shapes: Vec<(&str, usize)> = (0..).zip(SHAPE_KEYS).map(|(at, (name, _))| (name, at)).collect();
    let Some(shape) = section.word("shape", &shapes)? else {
        return Err(section.error_here("load.shape is missing: constant, ramp, step, spike or soak"));
    };
    let (name, keys) = SHAPE_KEYS[shape];
    section.refuse_unknown(keys)?;
    let part = |key: &str, default: f64| -> Result<u64, ProfileError> {
        let ns = section.duration_ns(key, SECONDS)?;
        Ok(ns.unwrap_or((total_ns as f64 * default) as u64))
    };
    let share = |key: &str, default: f64| Ok::<f64, ProfileError>(section.share(key)?.unwrap_or(default));
    let fits = |key: &str, ns: u64| match ns <= total_ns {
        true => Ok(total_ns - ns),
        false => Err(section.error_at(key, "takes longer than the whole run (seconds)")),
    };
    Ok(match name {
        "ramp" => {
            let (from, to) = (share("from", 0.0)?, share("to", 1.0)?);
            let over_ns = part("over", 1.0)?;
            let rest_ns = fits("over", over_ns)?;
            pieces(&[(over_ns, from, to), (rest_ns, to, to)])
        }
        "step" => {
            let (from, to) = (share("from", 0.0)?, share("to", 1.0)?);
            let steps = section.whole("steps", STEPS)?.unwrap_or(4);
            // The first step is one above `from`, the last one is `to`.
            let level = |step: u64| from + (to - from) * step as f64 / steps as f64;
            let parts = (1..=steps).map(|step| {
                let length_ns = total_ns * step / steps - total_ns * (step - 1) / steps;
                (length_ns, level(step), level(step))
            });
            pieces(&parts.collect::<Vec<_>>())
        }
        "spike" => {
            let (base, peak) = (share("base", 0.5)?, share("peak", 1.0)?);
            let (at_ns, length_ns) = (part("at", 0.4)?, part("length", 0.2)?);
            let rest_ns = fits("length", at_ns.saturating_add(length_ns))?;
            pieces(&[
                (at_ns, base, base),
                (length_ns, peak, peak),
                (rest_ns, base, base),
            ])
        }
        "soak" => {
            let (up_ns, down_ns) = (part("up", 0.1)?, part("down", 0.1)?);
            let long_ns = fits("up", up_ns.saturating_add(down_ns))?;
            pieces(&[(up_ns, 0.0, 1.0), (long_ns, 1.0, 1.0), (down_ns, 1.0, 0.0)])
        }
        _ => constant(total_ns),
    })
}

/// Lengths and shares, one after the other; empty ones are left out.
fn pieces(parts: &[(u64, f64, f64)]) -> Vec<Stage> {
    let mut at_ns = 0;
    let mut stages = Vec::new();
    for &(length_ns, from, to) in parts.iter().filter(|part| part.0 > 0) {
        stages.push(Stage {
            from_ns: at_ns,
            to_ns: at_ns + length_ns,
            share: (from, to),
        });
        at_ns += length_ns;
    }
    stages
}

/// When a camera that stands at `rank` (0 to 1) among all is on: while the share of cameras that are on is above it.
pub fn windows(stages: &[Stage], rank: f64) -> Vec<std::ops::Range<u64>> {
    let mut on: Vec<std::ops::Range<u64>> = Vec::new();
    for stage in stages {
        let (from, to) = stage.share;
        let length = (stage.to_ns - stage.from_ns) as f64;
        let crossing = || stage.from_ns + ((rank - from) / (to - from) * length) as u64;
        let window = match (from > rank, to > rank) {
            (true, true) => stage.from_ns..stage.to_ns,
            (false, false) => continue,
            (false, true) => crossing()..stage.to_ns,
            (true, false) => stage.from_ns..crossing(),
        };
        match on.last_mut() {
            Some(last) if last.end == window.start => last.end = window.end,
            _ if window.is_empty() => {}
            _ => on.push(window),
        }
    }
    on
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_camera_is_on_while_the_share_is_above_its_rank() {
        let windows = |stages: &[Stage], rank| {
            let on = windows(stages, rank).into_iter();
            on.map(|window| (window.start, window.end)).collect::<Vec<_>>()
        };
        let ramp = pieces(&[(10 * S, 0.0, 1.0), (10 * S, 1.0, 1.0), (10 * S, 1.0, 0.0)]);
        assert_eq!(windows(&ramp, 0.25), [(5 * S / 2, 55 * S / 2)]);
        let spike = pieces(&[(4 * S, 0.5, 0.5), (2 * S, 1.0, 1.0), (4 * S, 0.5, 0.5)]);
        assert_eq!(windows(&spike, 0.4), [(0, 10 * S)]);
        assert_eq!(windows(&spike, 0.6), [(4 * S, 6 * S)]);
        let gap = pieces(&[(S, 1.0, 1.0), (S, 0.0, 0.0), (S, 1.0, 1.0)]);
        assert_eq!(windows(&gap, 0.1), [(0, S), (2 * S, 3 * S)]);
    }

    #[test]
    fn stretched_stages_keep_their_proportions_and_leave_no_gap() {
        let mut stages = pieces(&[(S, 0.0, 1.0), (3 * S, 1.0, 1.0)]);
        stretch(&mut stages, 10 * S);
        let times: Vec<(u64, u64)> = stages.iter().map(|stage| (stage.from_ns, stage.to_ns)).collect();
        assert_eq!(times, [(0, 5 * S / 2), (5 * S / 2, 10 * S)]);
    }
}
