//! Who lost what: from the packets that came due down to those that are stored, one step per loss.
//!
//! Where the segments were opened, the steps sum up exactly (`verify` attributes every packet that was due and is not
//! stored); where they were not, the steps end with what was sent, and what came after is not known and not drawn.

use crate::result::RunResult;

/// One step of the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub label: String,
    pub kind: Kind,
    pub packets: i64,
    /// What it is, or who says so.
    pub note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// How many there are at this point.
    Level,
    /// How many did not come further.
    Loss,
}

/// The steps of a run.
pub fn steps(run: &RunResult) -> Vec<Step> {
    let mut steps = vec![level("intended", run.load.intended, "came due by the schedule")];
    match &run.stored {
        Some(stored) => {
            let by = &stored.lost_by;
            let fit = run.load.intended as i64 - by.generator as i64 - by.impairment as i64;
            steps.push(loss(
                "generator",
                by.generator as i64,
                "the sender's kernel did not take them",
            ));
            steps.push(loss(
                "impairment",
                by.impairment as i64,
                "lost, or made unfit to be stored, on purpose",
            ));
            steps.push(level(
                "sent, fit to be stored",
                fit.max(0) as u64,
                "duplicates not counted",
            ));
            for (reason, &packets) in &by.engine {
                steps.push(loss(
                    &format!("engine: {reason}"),
                    packets as i64,
                    "dropped, as the engine says",
                ));
            }
            let who = match run.engine {
                Some(_) => "kernel or network: the rest, which nobody counted by packet",
                None => "kernel, network or engine: its lines were not read",
            };
            steps.push(loss("remainder", by.remainder, who));
            let lost = by.engine.values().sum::<u64>() as i64 + by.remainder;
            steps.push(level(
                "stored",
                (fit - lost).max(0) as u64,
                "found in the segments, packet by packet",
            ));
        }
        None => {
            let meant = run
                .load
                .intended
                .saturating_sub(run.load.not_sent)
                .saturating_sub(run.impaired.lost);
            steps.push(loss(
                "generator",
                run.load.not_sent as i64,
                "the sender's kernel did not take them",
            ));
            steps.push(loss("impairment", run.impaired.lost as i64, "lost on purpose"));
            steps.push(level(
                "sent",
                meant,
                "the kernel took them; duplicates not counted",
            ));
        }
    }
    // A loss of nothing is told only of those that always could be: that the generator lost nothing is a statement.
    steps.retain(|step| {
        step.packets != 0 || step.kind == Kind::Level || ALWAYS.contains(&step.label.as_str())
    });
    steps
}

const ALWAYS: [&str; 2] = ["generator", "remainder"];

fn level(label: &str, packets: u64, note: &str) -> Step {
    Step {
        label: label.to_owned(),
        kind: Kind::Level,
        packets: packets as i64,
        note: note.to_owned(),
    }
}

fn loss(label: &str, packets: i64, note: &str) -> Step {
    Step {
        label: label.to_owned(),
        kind: Kind::Loss,
        packets,
        note: note.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    #[test]
    fn the_losses_lead_from_one_level_to_the_next_to_the_packet() {
        for run in [fixture::lossy(), fixture::one_second(), fixture::empty()] {
            let mut left = None;
            for step in steps(&run) {
                match (step.kind, left) {
                    (Kind::Level, None) => left = Some(step.packets),
                    (Kind::Level, Some(expected)) => assert_eq!(step.packets, expected, "{}", step.label),
                    (Kind::Loss, Some(before)) => left = Some(before - step.packets),
                    (Kind::Loss, None) => panic!("a loss of nothing"),
                }
            }
        }
        let run = fixture::lossy();
        let stored = run.stored.as_ref().map(|stored| stored.stored as i64);
        assert_eq!(steps(&run).last().map(|step| step.packets), stored);
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let labels: Vec<_> = steps(&fixture::one_second())
            .into_iter()
            .map(|step| step.label)
            .collect();
        assert_eq!(labels, ["intended", "generator", "sent"]);
    }
}
