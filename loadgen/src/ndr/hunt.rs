//! Makes the trials a search wants, one after the other, through whoever can make one; nothing here sends or reads.

use super::search::{Length, Load, Outcome, Search};
use serde::Serialize;

/// A trial to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// From 1.
    pub number: usize,
    pub load: Load,
    pub length: Length,
    pub seconds: f64,
}

/// The figures of a trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Packets that ought to be stored, and those of them that are not.
    pub expected: u64,
    pub lost: u64,
    /// Lost of expected.
    pub loss: f64,
    pub gbps: f64,
    pub packets_per_second: f64,
    pub streams: u64,
    /// What the engine said of it, where it was asked.
    pub dropped: Option<u64>,
    pub cpu_ns_per_packet: Option<f64>,
    pub durable_ms_p99: Option<f64>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    Valid(Measured),
    /// The generator was the limit; why.
    Invalid(Measured, Vec<String>),
    /// Somebody said stop: the trial counts for nothing.
    Stopped,
}

/// A trial that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    pub number: usize,
    pub load: Load,
    pub length: Length,
    pub seconds: f64,
    pub measured: Measured,
    /// Empty where it was valid.
    pub invalid_because: Vec<String>,
}

impl Measured {
    /// With the share that follows from both counts.
    pub fn with_loss(self, expected: u64, lost: u64) -> Measured {
        let loss = match expected {
            0 => 0.0,
            _ => lost as f64 / expected as f64,
        };
        Measured {
            expected,
            lost,
            loss,
            ..self
        }
    }
}

/// Runs a search to its end, or until a trial is stopped or fails. `lengths` are the seconds of short and final trials.
pub fn hunt<E>(
    search: &mut Search,
    lengths: (f64, f64),
    mut attempt: impl FnMut(&Trial) -> Result<Attempt, E>,
    mut seen: impl FnMut(&Tried),
) -> (Vec<Tried>, Result<(), E>) {
    let mut tried = Vec::new();
    while let Some(wanted) = search.next() {
        let trial = Trial {
            number: tried.len() + 1,
            load: wanted.load,
            length: wanted.length,
            seconds: match wanted.length {
                Length::Short => lengths.0,
                Length::Final => lengths.1,
            },
        };
        let (measured, invalid_because) = match attempt(&trial) {
            Ok(Attempt::Valid(measured)) => (measured, Vec::new()),
            Ok(Attempt::Invalid(measured, because)) => (measured, because),
            Ok(Attempt::Stopped) => return (tried, Ok(())),
            Err(error) => return (tried, Err(error)),
        };
        let outcome = match invalid_because.is_empty() {
            true => Outcome::Loss(measured.loss),
            false => Outcome::Invalid,
        };
        search.record(trial.load, trial.length, outcome);
        let one = Tried {
            number: trial.number,
            load: trial.load,
            length: trial.length,
            seconds: trial.seconds,
            measured,
            invalid_because,
        };
        seen(&one);
        tried.push(one);
    }
    (tried, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::super::dimension::Dim;
    use super::super::outcome::{Verdict, found};
    use super::super::search::Settings;
    use super::*;
    use std::convert::Infallible;

    fn search() -> Search {
        Search::new(Settings {
            goals: vec![0.0, 0.005],
            precision: 0.01,
            repeat: 1,
            min: 1,
            max: 100_000,
            start: 500,
            trials_max: 200,
        })
    }

    /// An engine that stores 4,000 of whatever comes, each trial's packets being 100 times its load.
    fn measured(trial: &Trial) -> Measured {
        let measured = Measured {
            gbps: trial.load as f64 * 2e-3,
            packets_per_second: trial.load as f64 * 200.0,
            ..Measured::default()
        };
        measured.with_loss(trial.load * 100, trial.load.saturating_sub(4_000) * 100)
    }

    #[test]
    fn a_hunt_ends_with_brackets_that_say_what_was_measured_at_their_ends() {
        let mut search = search();
        let (tried, ended) = hunt(
            &mut search,
            (1.0, 6.0),
            |trial| Ok::<_, Infallible>(Attempt::Valid(measured(trial))),
            |_| {},
        );
        assert_eq!(ended, Ok(()));
        let found = found(Dim::Streams, &search, &tried);
        assert!(
            found.iter().all(|found| found.verdict == Verdict::Bracketed),
            "{found:?}"
        );
        let met = found[0].met.as_ref().expect("a lower end");
        assert!((3_950.0..=4_000.0).contains(&met.load), "{met:?}");
        assert_eq!((met.gbps, met.loss), (Some(met.load * 2e-3), Some(0.0)));
        assert!(
            found[0].text.starts_with("between ") && found[0].text.contains("Gb/s"),
            "{}",
            found[0].text
        );
        assert!(
            tried
                .iter()
                .all(|one| one.seconds == if one.length == Length::Final { 6.0 } else { 1.0 })
        );
    }

    #[test]
    fn a_generator_at_its_limit_is_named_and_the_result_is_a_lower_bound() {
        let mut search = search();
        let attempt = |trial: &Trial| {
            Ok::<_, Infallible>(match trial.load > 2_000 {
                true => Attempt::Invalid(Measured::default(), vec!["late".to_owned()]),
                false => Attempt::Valid(measured(trial)),
            })
        };
        let (tried, _) = hunt(&mut search, (1.0, 6.0), attempt, |_| {});
        let found = found(Dim::Streams, &search, &tried);
        assert!(
            found
                .iter()
                .all(|found| found.verdict == Verdict::GeneratorLimited),
            "{found:?}"
        );
        assert!(
            found[0].text.contains("the generator was the limit"),
            "{}",
            found[0].text
        );
    }

    #[test]
    fn a_stop_leaves_what_there_is() {
        let mut search = search();
        let attempt = |trial: &Trial| {
            Ok::<_, Infallible>(match trial.length {
                Length::Final => Attempt::Stopped,
                Length::Short => Attempt::Valid(measured(trial)),
            })
        };
        let (tried, ended) = hunt(&mut search, (1.0, 6.0), attempt, |_| {});
        assert!(ended.is_ok() && !tried.is_empty());
        let found = found(Dim::Streams, &search, &tried);
        assert!(
            found.iter().all(|found| found.verdict == Verdict::Unfinished),
            "{found:?}"
        );
    }
}
