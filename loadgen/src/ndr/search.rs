//! The search: which trial comes next, and what the trials so far prove. Pure: trials come in as figures, wishes go out.
//!
//! In the way of MLRsearch (draft-ietf-bmwg-mlrsearch): one set of trials serves all goals; short trials find about where
//! the limits are, long ones decide; and where trials contradict each other the lower load wins, so that a load counts as
//! having met a goal only if no lower one exceeded it (RFC 2544 §26.1 asks for no less). Invariants:
//!
//! - A bracket stands on final trials alone: its lower end met the goal in all of `repeat` of them, its upper end exceeded
//!   it in one. Short trials are guesses. (Limits sink with time, by pools that fill and disks that pause: a short trial
//!   that lost nothing proves nothing about a minute.)
//! - A trial that was not valid says something of the generator and nothing of the engine. It is made once more; a load
//!   that was invalid twice, and above all valid ones, is the generator's limit.
//! - A load is a whole number of grains (one stream, one kb/s, one packet/s): equal loads are equal.

use std::collections::BTreeMap;

/// A load in grains of its dimension.
pub type Load = u64;

/// Invalid trials of a load after which it is given up.
const INVALID_MAX: u32 = 2;
/// Loss from which it says where the limit is (what came through came through); below, only that it is lower.
const TELLING_LOSS: f64 = 0.1;
/// Bounds of one step where the limit is not yet between two loads: a step is the square of the one before.
const STEP_MAX: f64 = 4.0;

/// How long a trial lasts. Ordered by what it proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Length {
    Short,
    Final,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Share of packets that may be lost, 0 for none; rising, without equal ones.
    pub goals: Vec<f64>,
    /// A bracket is narrow enough when its ends differ by this share of the upper one (or by one grain).
    pub precision: f64,
    /// Final trials that must meet a goal.
    pub repeat: u32,
    /// Lowest and highest load tried; the lowest is at least 1.
    pub min: Load,
    pub max: Load,
    /// The first load tried.
    pub start: Load,
    /// The search ends after so many trials, whatever it has.
    pub trials_max: usize,
}

/// What a trial came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// The share of packets that was lost; the load was the one asked for.
    Loss(f64),
    /// The generator was the limit.
    Invalid,
}

/// A trial to be made, and for which goal (by index).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub load: Load,
    pub length: Length,
    pub goal: usize,
}

/// What bounds a goal's load from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Above {
    /// The engine exceeded the goal there.
    Exceeded(Load),
    /// The generator could not make this load.
    Generator(Load),
    /// The goal was met at the highest load asked for.
    Highest,
    /// Not found (yet).
    Unknown,
}

/// What final trials say about one goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bracket {
    pub goal: f64,
    /// The highest load that met it, below all that exceeded it.
    pub met: Option<Load>,
    pub above: Above,
    /// Whether nothing more is to be found out: the ends are as near as asked, or one is the lowest or highest load.
    pub settled: bool,
}

#[derive(Debug, Clone, Default)]
struct Tally {
    losses: Vec<f64>,
    invalid: u32,
}

/// The state of a search.
#[derive(Debug, Clone)]
pub struct Search {
    settings: Settings,
    tallies: BTreeMap<(Length, Load), Tally>,
    trials: usize,
}

/// What trials of one length say about one goal.
#[derive(Debug, Default)]
struct Evidence {
    /// Rising.
    met: Vec<Load>,
    /// Rising, with the loss.
    exceeded: Vec<(Load, f64)>,
    /// Loads at which no trial was valid, rising.
    unusable: Vec<Load>,
    /// The highest load with a valid trial, decided or not.
    highest_valid: Load,
}

impl Search {
    /// A search that has seen nothing. The settings must be as their fields say.
    pub fn new(settings: Settings) -> Search {
        assert!(
            settings.goals.is_sorted_by(|a, b| a < b),
            "goals rise and none comes twice"
        );
        assert!(
            1 <= settings.min && settings.min <= settings.max,
            "a lowest load of at least one grain"
        );
        assert!(settings.repeat > 0, "at least one final trial decides");
        let start = settings.start.clamp(settings.min, settings.max);
        Search {
            settings: Settings { start, ..settings },
            tallies: BTreeMap::new(),
            trials: 0,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Trials made so far.
    pub fn trials(&self) -> usize {
        self.trials
    }

    /// Notes what a trial came to.
    pub fn record(&mut self, load: Load, length: Length, outcome: Outcome) {
        let tally = self.tallies.entry((length, load)).or_default();
        match outcome {
            Outcome::Loss(share) => tally.losses.push(share),
            Outcome::Invalid => tally.invalid += 1,
        }
        self.trials += 1;
    }

    /// The next trial: short ones until every goal is narrowed down, then final ones; `None` when all is found out that can
    /// be. Asked again without a new outcome it gives the same answer.
    pub fn next(&self) -> Option<Wanted> {
        if self.trials >= self.settings.trials_max {
            return None;
        }
        [Length::Short, Length::Final].into_iter().find_map(|length| {
            (0..self.settings.goals.len()).find_map(|goal| {
                let load = self.next_load(length, goal)?;
                Some(Wanted { load, length, goal })
            })
        })
    }

    /// What is proven of each goal.
    pub fn brackets(&self) -> Vec<Bracket> {
        self.brackets_of(Length::Final)
    }

    /// What trials of this length say; with short ones that is a guess.
    pub fn brackets_of(&self, length: Length) -> Vec<Bracket> {
        let bracket = |(index, &goal)| {
            let evidence = self.evidence(length, index);
            Bracket {
                goal,
                met: evidence.lower(),
                above: self.above(length, index, &evidence),
                settled: self.next_load(length, index).is_none(),
            }
        };
        self.settings.goals.iter().enumerate().map(bracket).collect()
    }

    fn next_load(&self, length: Length, goal: usize) -> Option<Load> {
        let evidence = self.evidence(length, goal);
        match (evidence.lower(), self.above(length, goal, &evidence)) {
            (_, Above::Highest) => None,
            (None, Above::Unknown) => Some(self.first(length, goal)),
            (Some(low), Above::Unknown) => Some(self.higher(low, length, goal, &evidence)),
            (None, Above::Exceeded(high) | Above::Generator(high)) => self.lower(high, length, &evidence),
            (Some(low), Above::Exceeded(high) | Above::Generator(high)) => self.between(low, high, &evidence),
        }
    }

    fn evidence(&self, length: Length, goal: usize) -> Evidence {
        let goal = self.settings.goals[goal];
        let needed = match length {
            Length::Short => 1,
            Length::Final => self.settings.repeat as usize,
        };
        let mut evidence = Evidence::default();
        for (&(_, load), tally) in self.tallies.range((length, 0)..=(length, Load::MAX)) {
            let worst = tally.losses.iter().copied().reduce(f64::max);
            if worst.is_some() {
                evidence.highest_valid = load;
            }
            match worst {
                Some(loss) if loss > goal => evidence.exceeded.push((load, loss)),
                Some(_) if tally.losses.len() >= needed => evidence.met.push(load),
                _ if tally.invalid >= INVALID_MAX => evidence.unusable.push(load),
                _ => {} // not decided: it will be asked for again
            }
        }
        evidence
    }

    fn above(&self, length: Length, goal: usize, evidence: &Evidence) -> Above {
        if let Some(&(high, _)) = evidence.exceeded.first() {
            return Above::Exceeded(high);
        }
        if evidence.lower() == Some(self.settings.max) {
            return Above::Highest;
        }
        if let Some(high) = evidence.generator_limit() {
            return Above::Generator(high);
        }
        // What the generator could not do for a short time it cannot do for a long one.
        let short = (length == Length::Final).then(|| self.evidence(Length::Short, goal).generator_limit());
        let limit = short.flatten().filter(|&limit| limit > evidence.highest_valid);
        limit.map_or(Above::Unknown, Above::Generator)
    }

    /// Where to begin: final trials at the short ones' lower end.
    fn first(&self, length: Length, goal: usize) -> Load {
        match length {
            Length::Short => self.settings.start,
            Length::Final => {
                let short = self.evidence(Length::Short, goal);
                let high = short.exceeded.first().map(|&(load, _)| load);
                short.lower().or(high).unwrap_or(self.settings.start)
            }
        }
    }

    /// A higher load than `low`, the highest that met the goal: for final trials first the short ones' upper end.
    fn higher(&self, low: Load, length: Length, goal: usize, evidence: &Evidence) -> Load {
        if length == Length::Final {
            let short = self.evidence(Length::Short, goal);
            let guess = short.exceeded.first().map(|&(load, _)| load);
            let not_yet = low <= short.lower().unwrap_or(0);
            if let Some(guess) = guess.filter(|&guess| not_yet && guess > low) {
                return guess;
            }
        }
        let before = evidence.met.iter().rev().find(|&&load| load < low);
        let step = before.map_or(1.0, |&before| low as f64 / before as f64);
        let step = (step * step).clamp(self.first_step(length), STEP_MAX);
        let load = (low as f64 * step).ceil() as Load;
        load.clamp(low + 1, self.settings.max)
    }

    /// A lower load than `high`, the lowest that did not meet the goal; `None` when there is none to try.
    fn lower(&self, high: Load, length: Length, evidence: &Evidence) -> Option<Load> {
        let mut exceeded = evidence.exceeded.iter();
        let loss = exceeded.next().map_or(0.0, |&(_, loss)| loss);
        let mut load = if loss > TELLING_LOSS {
            high as f64 * (1.0 - loss)
        } else {
            let step = exceeded
                .next()
                .map_or(1.0, |&(before, _)| before as f64 / high as f64);
            high as f64 / (step * step).clamp(self.first_step(length), STEP_MAX)
        };
        loop {
            let candidate = (load as Load).min(high.saturating_sub(1)).max(self.settings.min);
            if candidate >= high {
                return None;
            }
            if !evidence.unusable.contains(&candidate) {
                return Some(candidate);
            }
            if candidate == self.settings.min {
                return None;
            }
            load = (candidate - 1) as f64;
        }
    }

    /// The middle of two loads, as ratios go; `None` when they are near enough to each other. A load that would not give a
    /// valid trial, though higher ones did, is gone round.
    fn between(&self, low: Load, high: Load, evidence: &Evidence) -> Option<Load> {
        let width = (high - low) as f64;
        if high - low <= 1 || width <= self.settings.precision * high as f64 {
            return None;
        }
        let at = |share: f64| {
            let load = low as f64 * (high as f64 / low as f64).powf(share);
            (load.round() as Load).clamp(low + 1, high - 1)
        };
        let shares = [0.5, 0.25, 0.75, 0.375, 0.625, 0.125, 0.875];
        let loads = shares.map(at).into_iter();
        loads.into_iter().find(|load| !evidence.unusable.contains(load))
    }

    /// Short trials look for the order of magnitude; final ones begin where short ones ended and look close by.
    fn first_step(&self, length: Length) -> f64 {
        match length {
            Length::Short => 2.0,
            Length::Final => (1.0 + 2.0 * self.settings.precision).min(2.0),
        }
    }
}

impl Evidence {
    /// The highest load that met the goal, below all that exceeded it.
    fn lower(&self) -> Option<Load> {
        let lowest = self.exceeded.first().map_or(Load::MAX, |&(load, _)| load);
        self.met.iter().copied().rev().find(|&load| load < lowest)
    }

    /// The lowest load the generator could not make, if it made none above it.
    fn generator_limit(&self) -> Option<Load> {
        self.unusable
            .iter()
            .copied()
            .find(|&load| load > self.highest_valid)
    }
}

#[cfg(test)]
mod tests;
