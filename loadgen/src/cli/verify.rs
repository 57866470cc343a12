//! `verify`: what was stored of a run, against what was sent.

use super::{EXIT_UNREACHABLE, EXIT_USAGE, fail, people};
use crate::output::folder::{OutputError, RUN_JSON, RunFolder, SENT_LOG};
use crate::result::{EngineFigures, RunResult};
use crate::sentlog::{Flags, Lane, SentLog, SentLogError};
use crate::stats::{self, StatsError};
use crate::verify::{self, Known, NamedIdentity, Progress, Verdict, VerifyError};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub const VERIFY_JSON: &str = "verify.json";
pub const STORED_CSV: &str = "stored.csv";
pub const ENGINE_JSONL: &str = "engine.jsonl";

/// What was stored is not what was to be expected.
const EXIT_DIFFERS: u8 = 1;

/// Arguments of `verify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Every packet of every stream is looked at. What the run did on purpose (losses, copies, cuts, new SSRCs) stands in its sent log \
and is expected, to the packet; what differs is told by kind, and whom it is to be laid to: the generator, the engine by its \
reason, or the remainder (kernel, network, or nobody who says so).\n\n\
An identity's file has its customer's name (alice.identity), or it is said: --identity alice=FILE; a folder stands for every \
.identity in it. Streams of customers without an identity are not looked at, and it says so.\n\n\
Writes verify.json and stored.csv into DIR, or where -o says, and what was stored into DIR's run.json.\n\n\
Exit status: 0 as expected · 1 it differs · 2 usage · 4 a file could not be read or written.")]
pub struct VerifyArgs {
    /// Folder of the run (or its sent log alone)
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    stored: StoredArgs,
    /// The engine's JSON lines, as `harborseal run --log json` wrote them; without it, those that DIR has
    #[arg(long, value_name = "FILE")]
    engine_stats: Option<PathBuf>,
    /// Print the verdict as one JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Write verify.json and stored.csv there instead, and leave run.json alone
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
}

/// Where what was stored is, and who can open it.
#[derive(Debug, Clone, Default, Args)]
pub struct StoredArgs {
    /// The engine's data folder, or segment files
    #[arg(long, value_name = "DATA_DIR", num_args = 1.., required = true)]
    pub segments: Vec<PathBuf>,
    /// The customers' identities
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub identity: Vec<String>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Verify(#[from] VerifyError),
    #[error("{0}")]
    Log(#[from] SentLogError),
    #[error("{0}")]
    Output(#[from] OutputError),
    #[error("{0}")]
    Stats(#[from] StatsError),
    #[error("cannot read {}: {error}", path.display())]
    Folder { path: PathBuf, error: std::io::Error },
    #[error("{}: {what}", path.display())]
    Nothing { path: PathBuf, what: &'static str },
}

impl Failure {
    pub fn status(&self) -> u8 {
        match self {
            Failure::Verify(error) if error.is_usage() => EXIT_USAGE,
            _ => EXIT_UNREACHABLE,
        }
    }
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> ExitCode {
    match verdict(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_DIFFERS),
        Err(error) => fail(error.status(), &error.to_string()),
    }
}

fn verdict(args: &VerifyArgs) -> Result<bool, Failure> {
    let (log_path, folder) = match args.dir.is_file() {
        true => (args.dir.clone(), None),
        false => (args.dir.join(SENT_LOG), Some(args.dir.clone())),
    };
    let log = SentLog::open(&log_path)?;
    // A run that was killed left a log and no result.
    let run_folder = folder.as_deref().filter(|dir| dir.join(RUN_JSON).exists());
    let run_folder = run_folder.map(RunFolder::open).transpose()?;
    let mut result = run_folder.as_ref().map(RunFolder::read_result).transpose()?;
    let engine = engine(args, folder.as_deref(), &log, result.as_ref())?;
    let known = Known {
        impaired: result.as_ref().map(|result| &result.impaired),
        engine: engine.as_ref().map(|(figures, _)| figures),
        dropped_of: engine.as_ref().and_then(|(_, dropped_of)| dropped_of.as_ref()),
    };
    let verdict = look(&log, &args.stored, known, args.quiet)?;
    let figures = engine.map(|(figures, _)| figures);
    let to = args
        .output
        .clone()
        .or(folder)
        .unwrap_or_else(|| PathBuf::from("."));
    write(&to, &verdict)?;
    if let (Some(run_folder), Some(result), None) = (&run_folder, &mut result, &args.output) {
        result.stored = Some(verdict.figures.clone());
        if args.engine_stats.is_some() {
            result.engine = figures.clone();
        }
        run_folder.write_result(result)?;
    }
    print(&verdict, figures.as_ref(), args.json)?;
    Ok(verdict.figures.as_expected)
}

/// Opens the segments with the identities and compares all of them with the log; shows how far it is.
pub fn look(log: &SentLog, stored: &StoredArgs, known: Known<'_>, quiet: bool) -> Result<Verdict, Failure> {
    raise_open_files();
    let identities = identities(&stored.identity)?;
    let shown = Shown::default();
    let progress = |progress| {
        if !quiet {
            shown.show(progress);
        }
    };
    let verdict = verify::verify(log, &stored.segments, identities, known, &progress);
    shown.finish();
    Ok(verdict?)
}

/// Writes `verify.json` and `stored.csv`.
pub fn write(folder: &Path, verdict: &Verdict) -> Result<(), Failure> {
    let mut json = serde_json::to_vec_pretty(&verdict.document())
        .expect("numbers and texts with text keys are always JSON");
    json.push(b'\n');
    std::fs::create_dir_all(folder).map_err(|error| Failure::Folder {
        path: folder.to_owned(),
        error,
    })?;
    crate::output::folder::replace(&folder.join(VERIFY_JSON), &json)?;
    crate::output::folder::replace(&folder.join(STORED_CSV), verdict.csv().as_bytes())?;
    Ok(())
}

fn print(verdict: &Verdict, engine: Option<&EngineFigures>, json: bool) -> Result<(), Failure> {
    let text = match json {
        true => {
            let document = verdict.document();
            serde_json::to_string(&document).expect("numbers and texts with text keys are always JSON") + "\n"
        }
        false => verdict.text(engine),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::Folder {
            path: PathBuf::from("stdout"),
            error,
        })
}

type Engine = (EngineFigures, Option<HashMap<u32, u64>>);

/// The engine's account: from the file that was named, from the run's folder, or from the run's result.
fn engine(
    args: &VerifyArgs,
    folder: Option<&Path>,
    log: &SentLog,
    result: Option<&RunResult>,
) -> Result<Option<Engine>, Failure> {
    let kept = folder
        .map(|folder| folder.join(ENGINE_JSONL))
        .filter(|kept| kept.exists());
    let Some(path) = args.engine_stats.clone().or(kept) else {
        let figures = result.and_then(|result| result.engine.clone());
        return Ok(figures.map(|figures| (figures, None)));
    };
    let books = stats::read_whole(&path)?;
    let junk = result.map_or(0, |result| result.impaired.junk);
    let figures = books.figures(datagrams(log)? + junk).ok_or(Failure::Nothing {
        path,
        what: "no line with the engine's figures (progress or final) is in it",
    })?;
    Ok(Some((figures, books.dropped_of().cloned())))
}

/// Datagrams that left, by the log: RTP and RTCP of all streams.
fn datagrams(log: &SentLog) -> Result<u64, SentLogError> {
    let mut sent = 0;
    for stream in 0..log.streams().len() as u32 {
        for lane in [Lane::Rtp, Lane::Rtcp] {
            for entry in log.packets(stream, lane) {
                sent += u64::from(entry?.flags.has(Flags::SENT));
            }
        }
    }
    Ok(sent)
}

/// Identities by file, by CUSTOMER=FILE, or all of a folder.
pub fn identities(arguments: &[String]) -> Result<Vec<NamedIdentity>, Failure> {
    let mut identities = Vec::new();
    for argument in arguments {
        let path = Path::new(argument);
        if !path.is_dir() {
            identities.push(NamedIdentity::read(argument)?);
            continue;
        }
        let folder = |error| Failure::Folder {
            path: path.to_owned(),
            error,
        };
        let entries = std::fs::read_dir(path).map_err(folder)?;
        let mut files = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(folder)?;
        files.retain(|file| file.extension().is_some_and(|e| e == "identity"));
        files.sort();
        if files.is_empty() {
            return Err(Failure::Nothing {
                path: path.to_owned(),
                what: "no .identity file is in it",
            });
        }
        for file in files {
            identities.push(NamedIdentity::read(&file.to_string_lossy())?);
        }
    }
    Ok(identities)
}

/// All segments are open at once: a day of one shard is 1,440.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where it is refused, opening the files says so, by name.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Progress on stderr: one live line on a terminal, without one a line now and then.
struct Shown {
    terminal: bool,
    last: Mutex<Option<Instant>>,
}

impl Default for Shown {
    fn default() -> Shown {
        Shown {
            terminal: std::io::stderr().is_terminal(),
            last: Mutex::new(None),
        }
    }
}

impl Shown {
    fn show(&self, progress: Progress) {
        let every = Duration::from_millis(if self.terminal { 100 } else { 5000 });
        let mut last = self.last.lock().expect("nothing here panics");
        // Without a terminal what takes less than a few seconds needs no line.
        let since = last.get_or_insert_with(Instant::now);
        if since.elapsed() < every {
            return;
        }
        *since = Instant::now();
        let line = match progress {
            Progress::Segments(done, all) => format!("opening segments: {done} of {all}"),
            Progress::Cameras(done, all) => format!("comparing cameras: {done} of {all}"),
        };
        people(match self.terminal {
            true => format!("\r{line}\x1b[K"),
            false => format!("{line}\n"),
        });
    }

    fn finish(&self) {
        if self.terminal {
            people("\r\x1b[K".to_owned());
        }
    }
}
