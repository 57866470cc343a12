//! `compare`: two sets of runs, figure by figure.

use super::{EXIT_INVALID, EXIT_UNREACHABLE, EXIT_USAGE, fail, people};
use crate::output::{OutputError, RunFolder};
use crate::result::RunResult;
use crate::versus::gate::Limit;
use crate::versus::{self, Comparison, RUNS_MIN, likeness};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXIT_LIMIT: u8 = 1;

/// One comparison.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A and B are each the folder of a run, or a folder of such folders (A/1 A/2 …). Runs should be interleaved: A B A B …, at \
least 5 of each. p is of a two-sided Mann-Whitney U test, the interval of the ratio of medians (B ÷ A) is a 95 % bootstrap \
interval; a difference is told if p < 0.05 and the interval leaves 1 out.

Exit status: 0 compared · 1 a --fail-if limit is crossed · 2 usage, or unlike environments · 3 a run is invalid · 4 a file \
failed.")]
pub struct CompareArgs {
    /// The runs to compare with
    #[arg(value_name = "RUN_A", required_unless_present = "a")]
    run_a: Option<PathBuf>,
    /// The runs to compare
    #[arg(value_name = "RUN_B", required_unless_present = "b")]
    run_b: Option<PathBuf>,
    /// More runs of side A
    #[arg(long, value_name = "DIR")]
    a: Vec<PathBuf>,
    /// More runs of side B
    #[arg(long, value_name = "DIR")]
    b: Vec<PathBuf>,
    /// Exit with 1 if the median changes by more: 'lateness_ms_p99>+5%', 'gbps<-1%', 'not_sent>+0'
    #[arg(long, value_name = "LIMIT")]
    fail_if: Vec<Limit>,
    /// Compare even runs that are invalid or of unlike environments
    #[arg(long)]
    force: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Outcome<'a> {
    schema: &'static str,
    #[serde(flatten)]
    comparison: &'a Comparison,
    conclusive: bool,
    unlike: &'a [likeness::Unlike],
    one_after_the_other: bool,
    limits_crossed: Vec<&'a str>,
}

pub fn main(args: &CompareArgs) -> ExitCode {
    let sides = side(args.run_a.as_ref(), &args.a).and_then(|a| Ok((a, side(args.run_b.as_ref(), &args.b)?)));
    let (a, b) = match sides {
        Ok(sides) => sides,
        Err(error) => return fail(EXIT_USAGE, &error.to_string()),
    };
    match compare(args, &a, &b) {
        Ok(status) => status,
        Err((status, message)) => fail(status, &message),
    }
}

fn compare(args: &CompareArgs, a: &[Run], b: &[Run]) -> Result<ExitCode, (u8, String)> {
    if !args.force {
        all_valid(a, b)?;
    }
    let results = |runs: &[Run]| runs.iter().map(|run| run.result.clone()).collect::<Vec<_>>();
    let (a, b) = (results(a), results(b));
    let unlike = likeness::unlike(&a, &b);
    if !unlike.is_empty() && !args.force {
        return Err((EXIT_USAGE, refusal(&unlike)));
    }
    let comparison = versus::compare(&a, &b);
    let mut crossed = Vec::new();
    for limit in &args.fail_if {
        let row = versus::row(&limit.figure, &a, &b);
        let row = row.ok_or_else(|| {
            (
                EXIT_USAGE,
                format!(
                    "{:?}: {} was not measured on both sides",
                    limit.text, limit.figure
                ),
            )
        })?;
        if limit.crossed(&row) {
            crossed.push((limit.text.as_str(), row));
        }
    }
    let after = likeness::one_after_the_other(&a, &b);
    let text = match args.json {
        true => {
            let outcome = Outcome {
                schema: "harborseal-loadgen/compare/1",
                comparison: &comparison,
                conclusive: comparison.conclusive(),
                unlike: &unlike,
                one_after_the_other: after,
                limits_crossed: crossed.iter().map(|(text, _)| *text).collect(),
            };
            serde_json::to_string(&outcome).expect("numbers and texts are always JSON") + "\n"
        }
        false => table(&comparison, &unlike, after),
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| (EXIT_UNREACHABLE, format!("cannot write the comparison: {error}")))?;
    for (text, row) in &crossed {
        people(format!(
            "harborseal-loadgen: crossed: {text} ({})\n",
            row.line().split_whitespace().collect::<Vec<_>>().join(" ")
        ));
    }
    Ok(if crossed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_LIMIT)
    })
}

/// A run and where it is.
struct Run {
    folder: PathBuf,
    result: RunResult,
}

/// The runs of a side: of each path itself, or of the folders in it, by name.
fn side(first: Option<&PathBuf>, more: &[PathBuf]) -> Result<Vec<Run>, OutputError> {
    let mut runs = Vec::new();
    for path in first.into_iter().chain(more) {
        for folder in folders(path)? {
            runs.push(Run {
                result: folder.read_result()?,
                folder: folder.path().to_owned(),
            });
        }
    }
    Ok(runs)
}

fn folders(path: &Path) -> Result<Vec<RunFolder>, OutputError> {
    let none = match RunFolder::open(path) {
        Ok(folder) => return Ok(vec![folder]),
        Err(none) => none,
    };
    let entries = fs::read_dir(path).map_err(|error| OutputError::Read {
        path: path.to_owned(),
        error,
    })?;
    let mut inside: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    inside.sort();
    let runs: Vec<RunFolder> = inside
        .iter()
        .filter_map(|path| RunFolder::open(path).ok())
        .collect();
    if runs.is_empty() { Err(none) } else { Ok(runs) }
}

fn all_valid(a: &[Run], b: &[Run]) -> Result<(), (u8, String)> {
    let bad: Vec<String> = a
        .iter()
        .chain(b)
        .filter(|run| !run.result.valid)
        .map(|run| {
            format!(
                "{}: {}",
                run.folder.display(),
                run.result.invalid_because.join("; ")
            )
        })
        .collect();
    match bad.is_empty() {
        true => Ok(()),
        false => Err((
            EXIT_INVALID,
            format!(
                "the load of these runs was not the one asked for, so their figures are the generator's; --force compares \
                 them all the same\n  {}",
                bad.join("\n  ")
            ),
        )),
    }
}

fn refusal(unlike: &[likeness::Unlike]) -> String {
    let mut text = "the runs are of unlike circumstances; --force compares them all the same".to_owned();
    for unlike in unlike {
        let side = |values: &[String]| match values.is_empty() {
            true => "not told".to_owned(),
            false => values.join(" | "),
        };
        write!(
            text,
            "\n  {}: A {}, B {}",
            unlike.name,
            side(&unlike.a),
            side(&unlike.b)
        )
        .expect("a String takes everything");
    }
    text
}

fn table(comparison: &Comparison, unlike: &[likeness::Unlike], after: bool) -> String {
    let mut text = format!("A: {} runs, B: {} runs\n", comparison.runs_a, comparison.runs_b);
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if !comparison.conclusive() {
        line(format!(
            "Nothing can be concluded from fewer than {RUNS_MIN} runs a side; the medians are shown as they are."
        ));
    }
    if after {
        line("The runs of one side were all made before those of the other: a drift of the machine would look like a difference. Interleave them.".to_owned());
    }
    for unlike in unlike {
        line(format!(
            "Unlike, by --force: {} (A {}, B {})",
            unlike.name,
            unlike.a.join(" | "),
            unlike.b.join(" | ")
        ));
    }
    line(format!(
        "\n{:<28} {:>12} {:>12} {:>10}  {:<24} {:>7}  {}",
        "figure", "A median", "B median", "change", "B ÷ A [95 %]", "p", "told"
    ));
    for row in &comparison.rows {
        line(row.line());
    }
    line(format!("\nThe same in all runs: {}", list(&comparison.equal)));
    line(format!(
        "Not measured on both sides: {}",
        list(&comparison.not_measured)
    ));
    if comparison.rows.len() > 1 && comparison.conclusive() {
        line(format!(
            "Of {} figures about {:.0} would be told apart by chance alone at p < 0.05: decide beforehand which one counts.",
            comparison.rows.len(),
            (comparison.rows.len() as f64 * versus::SIGNIFICANT).max(1.0)
        ));
    }
    text
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}
