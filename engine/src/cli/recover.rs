//! `harborseal recover`: closing what a crash left open, and saving what damage has left.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use harborseal_segment::node::NodeKey;
use harborseal_segment::scan::ReadError;
use harborseal_segment::verify::Report;
use serde::Serialize;
use zeroize::Zeroizing;

use super::error::{CliError, ExitStatus};
use super::findings::{self, FindingLine};
use super::output::{self, Output, people};
use super::paths;
use super::progress::{Pace, Progress};
use crate::archive::recover::{Outcome, RecoverError, Step, recover};
use crate::text::{Grouped, Plain};

/// Close segments that a crash left open, and save in a copy what damage has left.
///
/// An engine closes torn segments by itself at its start, beside recording; those that it has open are left alone. A segment whose end was torn by a
/// crash is closed in place: nothing that was durable is lost. A damaged one stays as it is, and NAME.recovered.hseal is written
/// beside it with everything that is still whole.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status 1: durable footage is damaged; what and where is said, and what is left is in the copy.

Examples:
  harborseal recover data
  harborseal recover --node-key /etc/harborseal/node.key archive/20261123")]
pub struct Args {
    /// Sign what is closed with this node key; without it, with DATA/keys/node.key where it can be read
    #[arg(long, value_name = "FILE")]
    node_key: Option<PathBuf>,

    #[command(flatten)]
    pace: Pace,

    #[command(flatten)]
    print: Output,

    /// Segments, or folders that are searched for them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// The summary.
#[derive(Default, Serialize)]
struct Summary {
    /// Segments that were looked at.
    segments: usize,
    /// Closed just now.
    closed: usize,
    /// Closed and whole before.
    whole: usize,
    /// Left alone, because a process writes them.
    being_written: usize,
    /// Left alone, because nothing was ever recorded in them.
    unused: usize,
    /// Damaged; a repaired copy stands beside each.
    repaired: usize,
    /// Damaged beyond repair.
    irreparable: usize,
    /// Damaged, and where the repaired copy would stand is something else.
    in_the_way: usize,
    /// Damaged, and no repaired copy could be written.
    not_copied: usize,
    /// Files that are no segments, or could not be read or written.
    failed: usize,
    files: Vec<FileLine>,
}

#[derive(Serialize)]
struct FileLine {
    path: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<FindingLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let node = args.node_key.as_deref().map(read_node_key).transpose()?;
    let found = paths::find_segments(&args.paths)?;
    let mut progress = Progress::new(READING, &found.segments, args.pace);
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut summary = Summary::default();
    let mut status = ExitStatus::Ok;
    for path in &found.segments {
        let beside = if node.is_some() {
            None
        } else {
            node_key_beside(path)
        };
        let outcome = recover(path, node.as_ref().or(beside.as_ref()), now_s, |step, done| {
            progress.now(match step {
                Step::Reading => READING,
                Step::Copying => "copying",
                Step::Checking => "checking the copy",
            });
            progress.reached(path, done);
        });
        let named = args.paths.contains(path);
        let of_file = progress.suspend(|| summary.add(path, named, outcome));
        status = graver(status, of_file);
    }
    progress.finish();
    for problem in &found.problems {
        status = graver(status, summary.unread(&problem.path, &problem.why));
    }
    summary.print(args.print)?;
    Ok(status)
}

const READING: &str = "recovering";

/// Damage is the graver news: an I/O error only says that a file was not looked at.
fn graver(status: ExitStatus, other: ExitStatus) -> ExitStatus {
    match (status, other) {
        (ExitStatus::Damage, _) | (_, ExitStatus::Ok) => status,
        (_, worse) => worse,
    }
}

/// The key of the node in whose data folder a segment lies (DATA/segments/DAY/ID.hseal, DATA/keys/node.key), if it is there and may be
/// read. It signs only what it signed before: another node's segment is closed without it.
fn node_key_beside(path: &Path) -> Option<NodeKey> {
    let path = path.canonicalize().ok()?;
    read_node_key(&path.ancestors().nth(3)?.join("keys/node.key")).ok()
}

/// A node's key file: 64 hex digits.
fn read_node_key(path: &Path) -> Result<NodeKey, CliError> {
    let text = std::fs::read_to_string(path).map_err(|why| CliError::file("read", path, &why))?;
    let text = Zeroizing::new(text);
    let mut seed = Zeroizing::new([0; 32]);
    let digits = text.trim().as_bytes();
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let mut pairs = digits
        .chunks_exact(2)
        .map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?));
    let parsed = digits.len() == 64
        && seed
            .iter_mut()
            .all(|byte| pairs.next().flatten().map(|b| *byte = b).is_some());
    if !parsed {
        return Err(CliError::usage(format_args!(
            "{} is not a node key: 64 hex digits are expected",
            path.display()
        ))
        .remedy("it is in the engine's data folder, keys/node.key"));
    }
    Ok(NodeKey::from_bytes(&seed))
}

impl Summary {
    /// Counts what became of one file, tells people what they should know of it, and returns the status it earns.
    fn add(&mut self, path: &Path, named: bool, outcome: Result<Outcome, RecoverError>) -> ExitStatus {
        self.segments += 1;
        let mut line = FileLine {
            path: path.display().to_string(),
            outcome: "",
            copy: None,
            findings: Vec::new(),
            error: None,
        };
        let say = |text: &str| people(format_args!("harborseal: {}: {text}", path.display()));
        let mut status = ExitStatus::Ok;
        match outcome {
            Ok(Outcome::AlreadyClosed(_)) => {
                self.whole += 1;
                line.outcome = "whole";
            }
            Ok(Outcome::Closed(report)) => {
                self.closed += 1;
                line.outcome = "closed";
                line.tell(path, &report);
                say("closed");
            }
            Ok(Outcome::Unused(_)) => {
                self.unused += 1;
                line.outcome = "unused";
                say("left alone: nothing was recorded in it, and nothing is lost if it is deleted");
            }
            Ok(Outcome::BeingWritten) => {
                self.being_written += 1;
                line.outcome = "being_written";
                say("left alone: an engine is writing it");
            }
            Ok(Outcome::Repaired {
                report,
                copy,
                already,
            }) => {
                self.repaired += 1;
                line.outcome = "repaired";
                line.tell(path, &report);
                let was = if already {
                    "was there already"
                } else {
                    "is whole and durable"
                };
                say(&format!(
                    "damaged; left as it is, the repaired copy {} {was}",
                    copy.display()
                ));
                line.copy = Some(copy.display().to_string());
                status = ExitStatus::Damage;
            }
            Ok(Outcome::InTheWay { report, copy, why }) => {
                self.in_the_way += 1;
                line.outcome = "in_the_way";
                line.tell(path, &report);
                let copy = copy.display();
                say(&format!(
                    "damaged, and {copy} is there already and is no whole copy of it ({why}); move that away and try again"
                ));
                line.copy = Some(copy.to_string());
                status = ExitStatus::Damage;
            }
            Ok(Outcome::NotCopied { report, error }) => {
                self.not_copied += 1;
                line.outcome = "not_copied";
                line.tell(path, &report);
                line.error = Some(error.to_string());
                say("damaged; left as it is, and no repaired copy could be made of it");
                people(format_args!("harborseal: {}", told(path, &error)));
                status = ExitStatus::Damage;
            }
            Ok(Outcome::Irreparable { report, why }) => {
                self.irreparable += 1;
                line.outcome = "irreparable";
                line.tell(path, &report);
                say(&format!(
                    "damaged beyond repair: a copy of what is left does not verify ({why})"
                ));
                line.error = Some(why);
                status = ExitStatus::Damage;
            }
            // A crash may leave a file without a block. Who names it takes it for a segment.
            Err(RecoverError::Read(ReadError::NeverBegun)) if !named => {
                self.unused += 1;
                line.outcome = "unused";
                say("left alone: it holds nothing, and nothing is lost if it is deleted");
            }
            Err(error) => {
                self.failed += 1;
                line.outcome = "failed";
                line.error = Some(error.to_string());
                let error = told(path, &error);
                people(format_args!("harborseal: {error}"));
                status = error.status();
            }
        }
        self.files.push(line);
        status
    }

    /// A path below a folder that could not be looked at.
    fn unread(&mut self, path: &Path, why: &std::io::Error) -> ExitStatus {
        let error = CliError::file("read", path, why);
        people(format_args!("harborseal: {error}"));
        self.failed += 1;
        self.files.push(FileLine {
            path: path.display().to_string(),
            outcome: "failed",
            copy: None,
            findings: Vec::new(),
            error: Some(Plain(why).to_string()),
        });
        error.status()
    }

    fn print(&self, print: Output) -> Result<(), CliError> {
        if print.json {
            return output::json(self);
        }
        let counts = [
            (self.closed, "closed now"),
            (self.whole, "whole before"),
            (self.being_written, "being written"),
            (self.unused, "never used"),
            (self.repaired, "damaged, with a repaired copy"),
            (self.irreparable, "damaged beyond repair"),
            (self.in_the_way, "damaged, with something in the copy's place"),
            (self.not_copied, "damaged, and not copied"),
            (self.failed, "not recovered"),
        ];
        let counts = counts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        let segments = paths::count(self.segments as u64, "segment");
        output::data(format_args!("{segments}: {counts}"))
    }
}

/// What is said of a file that could not be recovered.
fn told(path: &Path, error: &RecoverError) -> CliError {
    match error {
        RecoverError::Read(error) => findings::unreadable(path, error),
        RecoverError::Write { doing, path, why } => {
            let error = CliError::file(doing, path, why);
            match why.kind() {
                std::io::ErrorKind::StorageFull => error.remedy("make room, and run recover again"),
                std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
                    error.remedy("nothing was changed; it can be recovered where it may be written, or in a copy of it")
                }
                _ => error.remedy("running recover again begins anew"),
            }
        }
        RecoverError::NoRoom { path, needed, free } => {
            let (path, needed, free) = (path.display(), Grouped(*needed), Grouped(*free));
            CliError::io(format_args!(
                "no room for the repaired copy {path}: it takes {needed} bytes, and {free} are free"
            ))
            .remedy("make room, or copy the segment to another disk and recover it there")
        }
    }
}

impl FileLine {
    fn tell(&mut self, path: &Path, report: &Report) {
        findings::tell(path, &report.findings);
        self.findings = report
            .findings
            .iter()
            .map(|finding| FindingLine::new(None, finding))
            .collect();
    }
}
