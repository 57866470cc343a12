//! Whether two sides were measured under like circumstances: environment, load, validity, and the order of the runs.

use crate::environment::OF_ONE_RUN;
use crate::result::RunResult;
use std::collections::{BTreeMap, BTreeSet};

/// What differs: a name, and the values on either side.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unlike {
    pub name: String,
    pub a: Vec<String>,
    pub b: Vec<String>,
}

/// All that differs between the runs and should not. What differs within a side counts too: its median would be of two
/// machines.
pub fn unlike(a: &[RunResult], b: &[RunResult]) -> Vec<Unlike> {
    let mut names: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for (runs, on_b) in [(a, false), (b, true)] {
        for (name, value) in runs.iter().flat_map(circumstances) {
            let sides = names.entry(name).or_default();
            let side = if on_b { &mut sides.1 } else { &mut sides.0 };
            side.insert(value);
        }
    }
    let differs = |(_, (a, b)): &(String, (BTreeSet<String>, BTreeSet<String>))| a.len() != 1 || a != b;
    let told = |(name, (a, b)): (String, (BTreeSet<String>, BTreeSet<String>))| Unlike {
        name,
        a: a.into_iter().collect(),
        b: b.into_iter().collect(),
    };
    names.into_iter().filter(differs).map(told).collect()
}

/// What must be alike. The seed and the targets may differ: they choose which packets are sent where, not how many.
fn circumstances(run: &RunResult) -> Vec<(String, String)> {
    let settings = run
        .settings
        .iter()
        .filter(|setting| !setting.starts_with("seed="));
    let mut all = vec![
        ("profile".to_owned(), run.profile.clone()),
        (
            "settings".to_owned(),
            settings.cloned().collect::<Vec<_>>().join(" "),
        ),
        ("cameras".to_owned(), run.load.cameras.to_string()),
        ("streams".to_owned(), run.load.streams.to_string()),
        ("Mb/s offered".to_owned(), format!("{:.3}", run.load.mbps_offered)),
        ("seconds".to_owned(), run.load.seconds.to_string()),
        ("warm-up seconds".to_owned(), run.load.warm_up_s.to_string()),
    ];
    let lasting = run
        .environment
        .iter()
        .filter(|(name, _)| !OF_ONE_RUN.contains(&name.as_str()));
    all.extend(lasting.map(|(name, value)| (name.clone(), value.clone())));
    all
}

/// Whether all runs of one side came before all of the other: then whatever changed on the machine meanwhile (heat, a
/// neighbour, a fuller disk) looks like a difference between the sides.
pub fn one_after_the_other(a: &[RunResult], b: &[RunResult]) -> bool {
    let span = |runs: &[RunResult]| {
        let times = || {
            runs.iter()
                .map(|run| run.started.clone())
                .filter(|time| !time.is_empty())
        };
        Some((times().min()?, times().max()?))
    };
    // RFC 3339 in UTC sorts as text.
    match (span(a), span(b)) {
        (Some((first_a, last_a)), Some((first_b, last_b))) => {
            a.len() + b.len() > 2 && (last_a < first_b || last_b < first_a)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::fixture;

    fn run(started: &str, change: impl Fn(&mut RunResult)) -> RunResult {
        let mut run = fixture::lossy();
        run.started = started.to_owned();
        change(&mut run);
        run
    }

    #[test]
    fn another_kernel_is_named_and_another_command_is_not() {
        let a = [run("1", |_| {})];
        let b = [run("2", |run| {
            run.environment.insert("kernel".to_owned(), "6.1".to_owned());
            run.environment.insert("command".to_owned(), "another".to_owned());
            run.environment
                .insert("git_revision".to_owned(), "another".to_owned());
            run.seed = 8;
        })];
        let found = unlike(&a, &b);
        assert_eq!(
            found
                .iter()
                .map(|unlike| unlike.name.as_str())
                .collect::<Vec<_>>(),
            ["kernel"]
        );
        assert_eq!(
            (found[0].a.as_slice(), found[0].b.as_slice()),
            (&["6.18.5".to_owned()][..], &["6.1".to_owned()][..])
        );
    }

    #[test]
    fn another_load_is_unlike_and_so_is_a_value_only_one_side_tells() {
        let a = [run("1", |_| {}), run("2", |_| {})];
        let b = [
            run("3", |run| run.load.cameras = 1),
            run("4", |run| drop(run.environment.remove("cpus"))),
        ];
        let names: Vec<_> = unlike(&a, &b).into_iter().map(|unlike| unlike.name).collect();
        assert_eq!(names, ["cameras"], "cpus are told by one run of B, and alike");
        let b = [run("3", |run| drop(run.environment.remove("cpus")))];
        assert_eq!(unlike(&a, &b)[0].name, "cpus");
    }

    #[test]
    fn runs_one_side_after_the_other_are_noticed() {
        let [one, two, three, four] = ["1", "2", "3", "4"].map(|time| run(time, |_| {}));
        assert!(one_after_the_other(
            &[one.clone(), two.clone()],
            &[three.clone(), four.clone()]
        ));
        assert!(!one_after_the_other(
            &[one.clone(), three.clone()],
            &[two.clone(), four]
        ));
        assert!(
            !one_after_the_other(&[one], &[three]),
            "two runs are always one after the other"
        );
    }
}
