//! `ndr`: the highest load an engine takes with a given loss.

use super::verify::{self, StoredArgs};
use super::{
    EXIT_FAILED, EXIT_INVALID, EXIT_UNREACHABLE, EXIT_USAGE, fail, people, resolve, stop_on_signals,
};
use crate::fleet::Control;
use crate::ndr::dimension::{Dim, parse_seconds, parse_share};
use crate::ndr::hunt::{Tried, hunt};
use crate::ndr::outcome::{self, NdrResult, SCHEMA, TrialRow, Verdict};
use crate::ndr::range::{self, Range};
use crate::ndr::search::{Search, Settings};
use crate::ndr::trial::{Engine, TrialError, Trials, open_lines};
use crate::output::folder;
use crate::profile::Profile;
use crate::result::EngineFigures;
use crate::send::Method;
use crate::sentlog::SentLog;
use crate::verify::Known;
use clap::Args;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What the search's own result is called in its folder.
const NDR_JSON: &str = "ndr.json";

/// One search.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Short trials find about where the limit is, final ones decide (RFC 2544 §26.1, MLRsearch): a load met a goal when every final \
trial at it did, and no lower load failed. A trial in which the generator was the limit is made once more and never counts \
against the engine; if it is the limit, the result is \"at least\". The share lost is what the engine stored (--engine-stats), or \
what its segments hold packet by packet (--segments, --identity), against what was sent.

Exit status: 0 every goal was bracketed, or met at the highest load · 1 a goal was not met at the lowest load · 2 usage · \
3 the generator was the limit, or the search was stopped · 4 the target refused, or a file, a socket or the engine failed.")]
pub struct NdrArgs {
    /// A built-in profile or a file
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// What to turn up and down
    #[arg(long, value_enum)]
    dim: Dim,
    /// Share of packets that may be lost, as in 0, 0.001% or 1e-5; may be given several times
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_share)]
    goal: Vec<f64>,
    /// How near the ends of a bracket must be, as a share of the upper one
    #[arg(long, value_name = "SHARE", default_value = "1%", value_parser = parse_share)]
    precision: f64,
    /// Length of a short trial
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_seconds)]
    trial: f64,
    /// Length of a final trial
    #[arg(long = "final", value_name = "TIME", default_value = "60s", value_parser = parse_seconds)]
    final_s: f64,
    /// Final trials that must meet a goal
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Lowest load to try, in the dimension's unit [default: a thousandth of the profile's]
    #[arg(long, value_name = "LOAD")]
    min: Option<String>,
    /// Highest load to try [default: a thousand times the profile's]
    #[arg(long, value_name = "LOAD")]
    max: Option<String>,
    /// End the search after so many trials, with what it has
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_trials: usize,
    /// Change the profile: key=value, as in `run`
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to send; given several times, the cameras are dealt out over the targets
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5004", value_parser = resolve)]
    target: Vec<SocketAddr>,
    /// How packets are given to the kernel
    #[arg(long, value_enum, default_value_t = Method::default())]
    send: Method,
    /// Pin the sending thread to this CPU
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// The engine's JSON lines (harborseal run --log json): a file it writes to, or - for stdin
    #[arg(long, value_name = "FILE")]
    engine_stats: Option<PathBuf>,
    /// The engine's data folder: look up every packet in its segments
    #[arg(long, value_name = "DATA_DIR", num_args = 1.., requires = "identity")]
    segments: Vec<PathBuf>,
    /// The customers' identities, to open the segments with
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "segments")]
    identity: Vec<String>,
    /// How long to wait for the engine to come to rest after a trial
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_seconds)]
    settle: f64,
    /// Leave the result there, and a folder of each trial
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the result as one JSON object on stdout
    #[arg(long)]
    json: bool,
    /// No table on stderr
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(args: &NdrArgs) -> ExitCode {
    match search(args) {
        Ok(status) => status,
        Err(Failure(status, message)) => fail(status, &message),
    }
}

/// An exit status and what to say.
struct Failure(u8, String);

fn usage(error: impl ToString) -> Failure {
    Failure(EXIT_USAGE, error.to_string())
}

fn failed(error: impl ToString) -> Failure {
    Failure(EXIT_UNREACHABLE, error.to_string())
}

impl From<TrialError> for Failure {
    fn from(error: TrialError) -> Failure {
        let status = if error.is_usage() {
            EXIT_USAGE
        } else {
            EXIT_UNREACHABLE
        };
        Failure(status, error.to_string())
    }
}

fn search(args: &NdrArgs) -> Result<ExitCode, Failure> {
    if args.engine_stats.is_none() && args.segments.is_empty() {
        return Err(usage(
            "what the engine stored must come from somewhere: --engine-stats FILE (its JSON lines), or --segments DIR with \
             --identity FILE",
        ));
    }
    if args.final_s < args.trial {
        return Err(usage(
            "a final trial is at least as long as a short one: --final is below --trial",
        ));
    }
    let profile = Profile::load(&args.profile, &args.set).map_err(usage)?;
    let range = args.range(&profile)?;
    let mut search = Search::new(args.settings(range));
    let control = Control::default();
    stop_on_signals(&control).map_err(failed)?;
    if let Some(path) = &args.output {
        create_folder(path)?;
    }
    let stored = StoredArgs {
        segments: args.segments.clone(),
        identity: args.identity.clone(),
    };
    let look = |log: &SentLog, engine: Option<&EngineFigures>| {
        let known = Known {
            engine,
            ..Known::default()
        };
        let verdict = verify::look(log, &stored, known, true).map_err(|error| error.to_string())?;
        Ok(verdict.figures)
    };
    let engine = Engine {
        lines: args.engine_stats.as_deref().map(open_lines).transpose()?,
        look: (!args.segments.is_empty()).then_some(&look),
        settle: Duration::from_secs_f64(args.settle),
    };
    let mut trials = Trials {
        profile: &args.profile,
        settings: &args.set,
        dim: args.dim,
        targets: &args.target,
        method: args.send,
        cpu: args.cpu,
        engine,
        folder: args.output.as_deref(),
        control: &control,
    };
    let goals = search.settings().goals.clone();
    say(args, &outcome::heading(args.dim));
    let seen = |tried: &Tried| say(args, &outcome::line(args.dim, &goals, tried));
    let (tried, ended) = hunt(
        &mut search,
        (args.trial, args.final_s),
        |trial| trials.attempt(trial),
        seen,
    );
    let result = args.result(&profile, &search, &tried);
    if let Some(path) = &args.output {
        let text = serde_json::to_vec_pretty(&result).expect("numbers and texts are always JSON");
        folder::replace(&path.join(NDR_JSON), &text).map_err(failed)?;
    }
    if !tried.is_empty() {
        print(args, &result)?;
    }
    // What was found before something failed is worth its lines; the failure decides the status.
    ended?;
    Ok(ExitCode::from(status(&result)))
}

impl NdrArgs {
    /// The loads between which to search, of which the profile can have each.
    fn range(&self, profile: &Profile) -> Result<Range, Failure> {
        let parse = |name: &str, text: &Option<String>| {
            let load = |text: &String| {
                let what = format!(
                    "--{name} {text}: wanted is a number of {}, above 0",
                    self.dim.name()
                );
                self.dim.parse(text).ok_or_else(|| usage(what))
            };
            text.as_ref().map(load).transpose()
        };
        let (min, max) = (parse("min", &self.min)?, parse("max", &self.max)?);
        range::of(profile, self.dim, min, max).map_err(usage)
    }

    fn settings(&self, range: Range) -> Settings {
        let mut goals = self.goal.clone();
        goals.sort_by(f64::total_cmp);
        goals.dedup();
        Settings {
            goals,
            precision: self.precision,
            repeat: self.repeat,
            min: range.min,
            max: range.max,
            start: range.start,
            trials_max: self.max_trials,
        }
    }

    fn result(&self, profile: &Profile, search: &Search, tried: &[Tried]) -> NdrResult {
        let goals = outcome::found(self.dim, search, tried);
        NdrResult {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            profile: profile.name.clone(),
            settings: self.set.clone(),
            dimension: self.dim.name(),
            precision: self.precision,
            trial_seconds: self.trial,
            final_seconds: self.final_s,
            repeat: self.repeat,
            complete: goals.iter().all(|found| found.verdict != Verdict::Unfinished),
            goals,
            trials: tried.iter().map(|tried| TrialRow::new(self.dim, tried)).collect(),
        }
    }
}

fn create_folder(path: &std::path::Path) -> Result<(), Failure> {
    let taken = path.join(NDR_JSON);
    if taken.exists() {
        let path = path.display();
        return Err(usage(format!(
            "{path} holds a search already ({NDR_JSON}); take another folder"
        )));
    }
    std::fs::create_dir_all(path).map_err(|error| failed(format!("cannot make {}: {error}", path.display())))
}

fn say(args: &NdrArgs, line: &str) {
    if !args.quiet {
        people(format!("{line}\n"));
    }
}

fn print(args: &NdrArgs, result: &NdrResult) -> Result<(), Failure> {
    let text = if args.json {
        serde_json::to_string(result).expect("numbers and texts are always JSON")
    } else {
        outcome::brackets(&result.goals)
    };
    writeln!(std::io::stdout(), "{text}").map_err(|error| failed(format!("cannot write the result: {error}")))
}

/// The least good of all goals decides.
fn status(result: &NdrResult) -> u8 {
    let any = |verdict| result.goals.iter().any(|found| found.verdict == verdict);
    if any(Verdict::Unfinished) || any(Verdict::GeneratorLimited) {
        EXIT_INVALID
    } else if any(Verdict::BelowLowest) {
        EXIT_FAILED
    } else {
        0
    }
}
