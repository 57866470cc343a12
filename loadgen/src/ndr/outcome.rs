//! What a search came to: every trial, and for each goal a bracket in three units.

use super::dimension::Dim;
use super::hunt::{Measured, Tried};
use super::search::{Above, Bracket, Length, Load, Search};
use serde::Serialize;

/// Name and version of the object.
pub const SCHEMA: &str = "harborseal-loadgen/ndr/1";

/// A whole search, as `--json` and `ndr.json` hold it. A figure that was not measured is `null`.
#[derive(Debug, Clone, Serialize)]
pub struct NdrResult {
    pub schema: &'static str,
    pub version: &'static str,
    pub profile: String,
    pub settings: Vec<String>,
    /// `streams`, `mbps` or `pps`: the unit of every `load`.
    pub dimension: &'static str,
    pub precision: f64,
    pub trial_seconds: f64,
    pub final_seconds: f64,
    pub repeat: u32,
    /// Whether every goal was found out as far as can be.
    pub complete: bool,
    pub goals: Vec<Found>,
    pub trials: Vec<TrialRow>,
}

/// What is known of one goal.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Share of packets that may be lost.
    pub goal: f64,
    pub verdict: Verdict,
    /// The highest load that met it in every final trial, below all that exceeded it.
    pub met: Option<End>,
    /// The lowest load that exceeded it; with `generator_limited`, that the generator could not make.
    pub exceeded: Option<End>,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The limit lies between both ends, which are as near as was asked.
    Bracketed,
    /// Met at the highest load that was to be tried: it is at least that.
    AtLeast,
    /// Met up to a load above which the generator was the limit: it is at least that.
    GeneratorLimited,
    /// Exceeded at the lowest load that was to be tried.
    BelowLowest,
    /// Stopped, or out of trials: the ends are true, but not as near as was asked.
    Unfinished,
}

/// One end of a bracket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct End {
    pub load: f64,
    /// As measured there, in the longest trial.
    pub gbps: Option<f64>,
    pub packets_per_second: Option<f64>,
    /// The worst share lost there.
    pub loss: Option<f64>,
}

/// One trial.
#[derive(Debug, Clone, Serialize)]
pub struct TrialRow {
    pub number: usize,
    pub load: f64,
    pub seconds: f64,
    #[serde(rename = "final")]
    pub is_final: bool,
    pub valid: bool,
    pub invalid_because: Vec<String>,
    #[serde(flatten)]
    pub measured: Measured,
}

impl Found {
    /// What a bracket says, with the figures of the trials at its ends.
    pub fn new(dim: Dim, bracket: &Bracket, tried: &[Tried]) -> Found {
        let end = |load: Load| End::new(dim, load, tried);
        let exceeded = match bracket.above {
            Above::Exceeded(load) | Above::Generator(load) => Some(load),
            Above::Highest | Above::Unknown => None,
        };
        let verdict = match (bracket.settled, bracket.met, bracket.above) {
            (true, _, Above::Generator(_)) => Verdict::GeneratorLimited,
            (true, _, Above::Highest) => Verdict::AtLeast,
            (true, Some(_), Above::Exceeded(_)) => Verdict::Bracketed,
            (true, None, Above::Exceeded(_)) => Verdict::BelowLowest,
            _ => Verdict::Unfinished,
        };
        let mut found = Found {
            goal: bracket.goal,
            verdict,
            met: bracket.met.map(end),
            exceeded: exceeded.map(end),
            text: String::new(),
        };
        found.text = found.describe(dim, bracket);
        found
    }

    fn describe(&self, dim: Dim, bracket: &Bracket) -> String {
        let met = bracket.met.map(|load| dim.text(load));
        let figures = self.met.as_ref().and_then(End::figures).unwrap_or_default();
        let high = match bracket.above {
            Above::Exceeded(load) | Above::Generator(load) => dim.text(load),
            Above::Highest | Above::Unknown => String::new(),
        };
        match (self.verdict, met) {
            (Verdict::Bracketed, Some(met)) => format!("between {met}{figures} and {high}"),
            (Verdict::AtLeast, Some(met)) => {
                format!("at least {met}{figures}, the highest load that was to be tried")
            }
            (Verdict::GeneratorLimited, Some(met)) => {
                format!("at least {met}{figures}: the generator was the limit (at {high})")
            }
            (Verdict::GeneratorLimited, None) => {
                format!("not known: the generator was the limit even at {high}")
            }
            (Verdict::BelowLowest, _) => format!("below {high}, the lowest load that was to be tried"),
            (Verdict::Unfinished, Some(met)) if !high.is_empty() => {
                format!("between {met}{figures} and {high}, not yet as near as asked")
            }
            (Verdict::Unfinished, Some(met)) => format!("at least {met}{figures}, as far as the search came"),
            (Verdict::Unfinished, None) if !high.is_empty() => {
                format!("below {high}, as far as the search came")
            }
            _ => "not known: no final trial was made".to_owned(),
        }
    }
}

impl End {
    fn new(dim: Dim, load: Load, tried: &[Tried]) -> End {
        let valid = || {
            tried
                .iter()
                .filter(|tried| tried.load == load && tried.invalid_because.is_empty())
        };
        let longest = valid().max_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let finals = || valid().filter(|tried| tried.length == Length::Final);
        End {
            load: dim.value(load),
            gbps: longest.map(|tried| tried.measured.gbps),
            packets_per_second: longest.map(|tried| tried.measured.packets_per_second),
            loss: finals().map(|tried| tried.measured.loss).reduce(f64::max),
        }
    }

    fn figures(&self) -> Option<String> {
        Some(format!(
            " ({:.3} Gb/s, {:.0} packets/s)",
            self.gbps?, self.packets_per_second?
        ))
    }
}

impl TrialRow {
    pub fn new(dim: Dim, tried: &Tried) -> TrialRow {
        TrialRow {
            number: tried.number,
            load: dim.value(tried.load),
            seconds: tried.seconds,
            is_final: tried.length == Length::Final,
            valid: tried.invalid_because.is_empty(),
            invalid_because: tried.invalid_because.clone(),
            measured: tried.measured.clone(),
        }
    }
}

/// The heading of the table that a search shows as it goes.
pub fn heading(dim: Dim) -> String {
    format!(
        "trial  {:>14}  {:>9}  {:>8}  {:>11}  {:>12}  {:>9}  verdict",
        dim.name(),
        "seconds",
        "Gb/s",
        "packets/s",
        "lost",
        "loss"
    )
}

/// A trial's line in it.
pub fn line(dim: Dim, goals: &[f64], tried: &Tried) -> String {
    let measured = &tried.measured;
    let verdict = if tried.invalid_because.is_empty() {
        let met = goals
            .iter()
            .filter(|&&goal| measured.loss <= goal)
            .map(|goal| percent(*goal));
        let met: Vec<String> = met.collect();
        match met.first() {
            Some(strictest) => format!("meets {strictest}"),
            None => "meets none".to_owned(),
        }
    } else {
        format!("INVALID: {}", tried.invalid_because.join("; "))
    };
    let length = if tried.length == Length::Final {
        "final"
    } else {
        ""
    };
    format!(
        "{:>5}  {:>14}  {:>9}  {:>8.3}  {:>11.0}  {:>12}  {:>9}  {verdict}",
        tried.number,
        format!("{}", dim.value(tried.load)),
        format!("{length} {}", tried.seconds),
        measured.gbps,
        measured.packets_per_second,
        measured.lost,
        percent(measured.loss),
    )
}

/// A share as people read it.
pub fn percent(share: f64) -> String {
    match share {
        0.0 => "0 %".to_owned(),
        share if share < 1e-5 => format!("{:.1e} %", share * 100.0),
        share if share < 0.01 => format!("{:.4} %", share * 100.0),
        share => format!("{:.2} %", share * 100.0),
    }
}

/// The brackets of a search, for people: a line for each goal.
pub fn brackets(found: &[Found]) -> String {
    let line = |found: &Found| format!("loss up to {:<9} {}", percent(found.goal), found.text);
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// All goals of a search. Of those that are not found out, what short trials point to is said too.
pub fn found(dim: Dim, search: &Search, tried: &[Tried]) -> Vec<Found> {
    let guesses = search.brackets_of(Length::Short);
    let one = |(bracket, guess): (&Bracket, &Bracket)| {
        let mut found = Found::new(dim, bracket, tried);
        if found.verdict == Verdict::Unfinished {
            found.text += &pointer(dim, guess);
        }
        found
    };
    search.brackets().iter().zip(&guesses).map(one).collect()
}

/// What short trials say, which prove nothing.
fn pointer(dim: Dim, guess: &Bracket) -> String {
    match (guess.met, guess.above) {
        (Some(met), Above::Exceeded(high)) => {
            format!(
                "; short trials point to between {} and {}",
                dim.text(met),
                dim.text(high)
            )
        }
        (Some(met), _) => format!("; short trials point to {} or more", dim.text(met)),
        (None, Above::Exceeded(high)) => format!("; short trials point below {}", dim.text(high)),
        (None, _) => String::new(),
    }
}
