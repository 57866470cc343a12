//! What the searches of `limit` came to, and what follows for the ratio.

use std::fmt::Write;

use harborseal_loadgen::ndr::dimension::Dim;
use harborseal_loadgen::ndr::hunt::Tried;
use harborseal_loadgen::ndr::outcome::{Found, TrialRow, Verdict};
use serde::Serialize;

use super::{Options, Shape};
use crate::load::Description;
use crate::machine::{Cpus, Machine};
use crate::runs::share_text;
use crate::sample::{median, spread_percent};

const SCHEMA: &str = "harborseal-bench/limit/1";

/// One search.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    pub rate: Rate,
    pub found: Found,
    pub trials: Vec<TrialRow>,
}

/// What a search says of a receiver's highest rate without loss, in packets per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "known", content = "packets_per_second")]
pub enum Rate {
    /// More was lost.
    Is(f64),
    /// More could not be sent, or was not tried.
    AtLeast(f64),
    /// Something was lost at the lowest rate that was tried, or no final trial was made.
    Unknown,
}

/// What two searches say of the ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "known", content = "ratio")]
pub enum Ratio {
    Is(f64),
    /// The generator was the limit of the discard receiver.
    AtMost(f64),
    /// The generator was the limit of the engine.
    AtLeast(f64),
    /// It was of both, or one of them is not known.
    Unknown,
}

impl Limit {
    pub fn new(found: Found, tried: &[Tried]) -> Limit {
        let met = found
            .met
            .as_ref()
            .map(|end| end.packets_per_second.unwrap_or(end.load));
        Limit {
            rate: rate(found.verdict, met, found.exceeded.is_some()),
            found,
            trials: tried.iter().map(|one| TrialRow::new(Dim::Pps, one)).collect(),
        }
    }

    /// The load of the highest trial without loss.
    pub fn load(&self) -> Option<f64> {
        self.found.met.as_ref().map(|end| end.load)
    }
}

fn rate(verdict: Verdict, met: Option<f64>, exceeded: bool) -> Rate {
    match (verdict, met) {
        (Verdict::Bracketed, Some(met)) => Rate::Is(met),
        // Both ends are true, though not as near as asked.
        (Verdict::Unfinished, Some(met)) if exceeded => Rate::Is(met),
        (Verdict::AtLeast | Verdict::GeneratorLimited | Verdict::Unfinished, Some(met)) => Rate::AtLeast(met),
        _ => Rate::Unknown,
    }
}

pub fn ratio(engine: Rate, discard: Rate) -> Ratio {
    match (engine, discard) {
        (Rate::Is(engine), Rate::Is(discard)) if discard > 0.0 => Ratio::Is(engine / discard),
        (Rate::Is(engine), Rate::AtLeast(discard)) if discard > 0.0 => Ratio::AtMost(engine / discard),
        (Rate::AtLeast(engine), Rate::Is(discard)) if discard > 0.0 => Ratio::AtLeast(engine / discard),
        _ => Ratio::Unknown,
    }
}

/// The median of a receiver's rates, and as what it is known: as the least good of them that is.
fn middle(limits: &[Limit]) -> Rate {
    let values: Vec<f64> = limits.iter().filter_map(|limit| limit.rate.value()).collect();
    let all_known = limits.iter().all(|limit| matches!(limit.rate, Rate::Is(_)));
    match values.len() * 2 > limits.len() {
        true if all_known => Rate::Is(median(values)),
        true => Rate::AtLeast(median(values)),
        false => Rate::Unknown,
    }
}

impl Rate {
    fn value(self) -> Option<f64> {
        match self {
            Rate::Is(value) | Rate::AtLeast(value) => Some(value),
            Rate::Unknown => None,
        }
    }

    fn text(self) -> String {
        match self {
            Rate::Is(rate) => format!("{rate:.0} packets/s"),
            Rate::AtLeast(rate) => format!("at least {rate:.0} packets/s: the generator was the limit"),
            Rate::Unknown => "not known".to_owned(),
        }
    }
}

impl Ratio {
    fn text(self) -> String {
        match self {
            Ratio::Is(ratio) => format!("{ratio:.2}"),
            Ratio::AtMost(ratio) => format!(
                "at most {ratio:.2}: the generator was the limit of receive and discard (--core-share finds it, as root)"
            ),
            Ratio::AtLeast(ratio) => format!("at least {ratio:.2}: the generator was the limit of the engine"),
            Ratio::Unknown => {
                "not known: the generator was the limit of both, or a search found none (--core-share, as root)".to_owned()
            }
        }
    }
}

#[derive(Serialize)]
pub struct Report {
    schema: &'static str,
    machine: Machine,
    cpus: Cpus,
    command: Vec<String>,
    load: Description,
    shape: Shape,
    /// The part of the core that either receiver had; none: all of it.
    core_share: Option<f64>,
    precision: f64,
    repeats: u32,
    engine: Rate,
    discard: Rate,
    /// The median of the rounds' own ratios, where each of them is known; otherwise what the medians of the rates bound it by.
    ratio: Ratio,
    ratios: Vec<Ratio>,
    pub valid: bool,
    engine_searches: Vec<Limit>,
    discard_searches: Vec<Limit>,
}

impl Report {
    pub fn new(
        options: &Options,
        machine: Machine,
        cpus: Cpus,
        load: Description,
        engine_searches: Vec<Limit>,
        discard_searches: Vec<Limit>,
    ) -> Report {
        let rounds = engine_searches.iter().zip(&discard_searches);
        let ratios: Vec<Ratio> = rounds.map(|(e, d)| ratio(e.rate, d.rate)).collect();
        let (engine, discard) = (middle(&engine_searches), middle(&discard_searches));
        let ratio = overall(&ratios, engine, discard);
        Report {
            schema: SCHEMA,
            machine,
            cpus,
            command: std::env::args().collect(),
            load,
            shape: options.shape,
            core_share: options.core_share,
            precision: options.precision,
            repeats: options.repeats,
            engine,
            discard,
            ratio,
            ratios,
            valid: matches!(ratio, Ratio::Is(_)),
            engine_searches,
            discard_searches,
        }
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut line =
            |what: &str, value: String| writeln!(text, "{what:24} {value}").expect("a String takes all");
        line("load", format!("{}; {} rounds", self.load, self.repeats));
        let share = share_text(self.core_share);
        line("receivers' core", share);
        line(
            "engine, no loss",
            self.engine.text() + &spread(&self.engine_searches),
        );
        line(
            "discard, no loss",
            self.discard.text() + &spread(&self.discard_searches),
        );
        line("ratio", self.ratio.text());
        text
    }
}

fn overall(ratios: &[Ratio], engine: Rate, discard: Rate) -> Ratio {
    let exact: Vec<f64> = ratios
        .iter()
        .filter_map(|ratio| match ratio {
            Ratio::Is(value) => Some(*value),
            _ => None,
        })
        .collect();
    match exact.len() * 2 > ratios.len() {
        true => Ratio::Is(median(exact)),
        false => ratio(engine, discard),
    }
}

fn spread(limits: &[Limit]) -> String {
    let values: Vec<f64> = limits.iter().filter_map(|limit| limit.rate.value()).collect();
    format!(" (spread {:.0} %)", spread_percent(&values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_at_its_limit_makes_a_bound_and_never_a_ratio() {
        assert_eq!(ratio(Rate::Is(70.0), Rate::Is(100.0)), Ratio::Is(0.7));
        assert_eq!(ratio(Rate::Is(70.0), Rate::AtLeast(100.0)), Ratio::AtMost(0.7));
        assert_eq!(ratio(Rate::AtLeast(70.0), Rate::Is(100.0)), Ratio::AtLeast(0.7));
        assert_eq!(ratio(Rate::AtLeast(70.0), Rate::AtLeast(100.0)), Ratio::Unknown);
        assert_eq!(ratio(Rate::Unknown, Rate::Is(100.0)), Ratio::Unknown);
    }

    #[test]
    fn what_a_search_proved_is_what_is_said_of_the_rate() {
        assert_eq!(rate(Verdict::Bracketed, Some(5.0), true), Rate::Is(5.0));
        assert_eq!(rate(Verdict::Unfinished, Some(5.0), true), Rate::Is(5.0));
        assert_eq!(rate(Verdict::Unfinished, Some(5.0), false), Rate::AtLeast(5.0));
        assert_eq!(
            rate(Verdict::GeneratorLimited, Some(5.0), true),
            Rate::AtLeast(5.0)
        );
        assert_eq!(rate(Verdict::BelowLowest, None, true), Rate::Unknown);
    }

    #[test]
    fn the_ratio_is_that_of_most_rounds() {
        let known = [Ratio::Is(0.5), Ratio::Is(0.7), Ratio::AtMost(0.6)];
        assert_eq!(overall(&known, Rate::Is(1.0), Rate::Is(2.0)), Ratio::Is(0.6));
        let bound = [Ratio::Is(0.5), Ratio::AtMost(0.7), Ratio::AtMost(0.6)];
        assert_eq!(
            overall(&bound, Rate::Is(1.0), Rate::AtLeast(2.0)),
            Ratio::AtMost(0.5)
        );
    }
}
