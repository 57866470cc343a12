//! `harborseal verify`: every check, of every segment, and of the chains they form.

use std::path::{Path, PathBuf};
use std::time::Instant;

use harborseal_segment::reader::State;
use harborseal_segment::verify::{Findings, Severity, What};
use harborseal_segment::{NodeId, SegmentId};
use serde::Serialize;

use super::error::{CliError, ExitStatus};
use super::expecting::{self, Expecting};
use super::findings::{self, FindingLine};
use super::identities::Unlock;
use super::opening::Released;
use super::output::{self, Output, people};
use super::progress::{Pace, Progress};
use super::{opening, paths};
use crate::archive::find::{self, FindError};
use crate::archive::library::{Library, Wanted};
use crate::archive::recover::copy_path;
use crate::archive::verify::Check;
use crate::text::Plain;

/// Check segments, and that none is missing.
///
/// Every block is checked: lengths, checksums, numbers, hashes and signatures, the index against what is there, and each segment against
/// its neighbours. Needs no key. With an identity it also opens every chunk that is for it. Works while an engine writes: segments that it has open
/// are checked as far as they are durable.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A folder is taken to hold all its segments: one that is missing, and that the engine did not delete by its own retention rules, is a
failed check. Of segments named one by one only those in between are missed.

Examples:
  harborseal verify data
  harborseal verify --identity alice.identity data
  harborseal verify --identity alice.identity --enrolment alice.enrolment data
  harborseal verify --json data/segments/20261123")]
pub struct Args {
    /// Also open every chunk that is for this identity
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,

    /// Open only what the customer granted in FILE to this identity
    #[arg(long, value_name = "FILE", requires = "identity")]
    grant: Option<PathBuf>,

    #[command(flatten)]
    released: Released,

    #[command(flatten)]
    expecting: Expecting,

    #[command(flatten)]
    unlock: Unlock,

    /// Accept only segments that this node wrote and signed to their end: by its id or its public key, as you noted them once. Without
    /// it, who can write to the disk could have signed everything anew with a key of his own. `inspect` shows both
    #[arg(long, value_name = "ID|KEY", value_parser = node)]
    node: Option<NodeId>,

    #[command(flatten)]
    pace: Pace,

    #[command(flatten)]
    print: Output,

    /// Segments, or folders that are searched for them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// A node by its id, or by its public key, whose hash the id is.
fn node(text: &str) -> Result<NodeId, String> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return text
            .parse()
            .map_err(|_| "a node's id is 32 hex digits, its public key 64".to_owned());
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let value = std::str::from_utf8(pair)
            .ok()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        *byte = value.ok_or("a node's public key is 64 hex digits")?;
    }
    Ok(NodeId::of_key(&key))
}

/// A file or folder that could not be checked.
#[derive(Serialize)]
struct NotRead {
    path: String,
    error: String,
}

/// The summary.
#[derive(Default, Serialize)]
struct Summary {
    /// Segments that were checked.
    segments: usize,
    sealed: usize,
    recovered: usize,
    open: usize,
    /// Prepared and not used (yet); not counted as open.
    unused: usize,
    bytes: u64,
    chunks: u64,
    /// Nothing is damaged, missing, unsupported or unreadable.
    ok: bool,
    /// Segments with damage.
    damaged: usize,
    /// Segments with something that this version does not support.
    unsupported: usize,
    /// Files that are no segments, or could not be read.
    unreadable: usize,
    /// Segments that should be here and are not.
    missing: u64,
    /// Segments that the node deleted by its retention rules, as its tombstones say.
    deleted: usize,
    /// Segments that hold nothing: created, and then a crash.
    never_begun: usize,
    nodes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<Opened>,
    /// Slots that are sealed to others than their customer expects, if that was asked.
    unexpected_recipients: Vec<String>,
    seconds: f64,
    findings: Vec<FindingLine>,
    findings_left_out: u64,
    not_read: Vec<NotRead>,
    /// Damaged segments beside which no repaired copy stands yet.
    #[serde(skip)]
    without_copy: usize,
}

/// What was opened with the identity.
#[derive(Default, Serialize)]
struct Opened {
    cameras: usize,
    chunks: u64,
    packets: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let began = Instant::now();
    let mut reader = args
        .identity
        .as_deref()
        .map(|identity| opening::read(identity, args.grant.as_deref(), &args.unlock))
        .transpose()?;
    match &mut reader {
        None => args.released.need_identity()?,
        Some(reader) => args.released.add_to(reader)?,
    }
    let expected = match &reader {
        None => None,
        Some(reader) => args.expecting.read(&reader.opener)?,
    };
    let found = paths::find_segments(&args.paths)?;
    let mut progress = Progress::new("verifying", &found.segments, args.pace);
    let again = || {
        find::segments(&found.folders)
            .map(|found| found.segments)
            .unwrap_or_default()
    };
    let complete = !found.folders.is_empty();
    let check = Check::run(
        &found.segments,
        complete,
        reader.as_mut().map(|reader| &mut reader.keyring),
        &again,
        &mut |path, done| progress.reached(path, done),
    );
    progress.finish();
    if let Some(reader) = &reader {
        reader.answered()?;
    }

    let mut summary = Summary::default();
    if let Some((expected, reader)) = expected.zip(reader.as_mut()) {
        let library = Library::open(&found.segments, &mut reader.keyring, Wanted::Nothing, |_| ());
        summary.unexpected_recipients = expected.alarms(&library);
    }
    summary.files(&check, args.node);
    summary.between(&check);
    let io_failed = summary.not_read(&check, &found.problems, &args.paths);
    summary.seconds = began.elapsed().as_secs_f64();
    summary.ok = summary.damaged == 0
        && summary.missing == 0
        && summary.unsupported == 0
        && summary.unreadable == 0
        && summary.unexpected_recipients.is_empty();
    if reader.is_some() {
        summary.opened = Some(opened(&check));
    }
    let nothing_opened = summary.opened.as_ref().is_some_and(|opened| opened.cameras == 0);
    summary.print(args.print)?;
    if !summary.ok {
        let only_io = summary.damaged == 0
            && summary.missing == 0
            && summary.unsupported == 0
            && summary.unexpected_recipients.is_empty()
            && io_failed;
        return Ok(if only_io {
            ExitStatus::Io
        } else {
            ExitStatus::Damage
        });
    }
    if nothing_opened {
        return Err(CliError::nothing_here(
            "nothing here is for this identity; what is here is whole",
        ));
    }
    Ok(ExitStatus::Ok)
}

fn opened(check: &Check) -> Opened {
    let streams = || {
        check
            .files
            .values()
            .flat_map(|checked| &checked.report.own_streams)
    };
    let cameras: std::collections::BTreeSet<&str> =
        streams().map(|stream| stream.camera_id.as_str()).collect();
    Opened {
        cameras: cameras.len(),
        chunks: streams().map(|stream| stream.chunks).sum(),
        packets: streams().map(|stream| stream.packets).sum(),
    }
}

impl Summary {
    /// What was found in each file.
    fn files(&mut self, check: &Check, node: Option<NodeId>) {
        for (path, checked) in &check.files {
            let report = &checked.report;
            self.segments += 1;
            match report.state {
                State::Open if report.unused => self.unused += 1,
                State::Open => self.open += 1,
                State::Sealed => self.sealed += 1,
                State::Recovered => self.recovered += 1,
            }
            self.chunks += report.counts.chunks;
            let found: Findings = match node {
                None => report.findings.clone(),
                Some(expected) => {
                    let mut report = report.clone();
                    report.expect_node(expected);
                    report.findings
                }
            };
            let damaged = found.count(Severity::Damage) > 0;
            self.damaged += usize::from(damaged);
            self.without_copy += usize::from(damaged && !copy_path(path).exists());
            self.unsupported += usize::from(found.count(Severity::Unsupported) > 0);
            findings::tell(path, &found);
            self.findings
                .extend(found.iter().map(|finding| FindingLine::new(Some(path), finding)));
            self.findings_left_out += found.left_out();
        }
        self.bytes = check.bytes();
        self.nodes = check.chains.nodes().iter().map(ToString::to_string).collect();
        self.deleted = check.chains.deleted().len();
    }

    /// What could not be checked; true if the system was the reason.
    fn not_read(&mut self, check: &Check, problems: &[FindError], named: &[PathBuf]) -> bool {
        let mut io_failed = false;
        for (path, error) in &check.unreadable {
            // A crash may leave a file without a block, and no chain misses it. Who names it takes it for a segment.
            if error.is_never_begun() && !named.contains(path) {
                self.never_begun += 1;
                people(format_args!("harborseal: {}: note: {error}", path.display()));
                continue;
            }
            io_failed |= error.is_io();
            self.unread(path, findings::unreadable(path, &error.0), &error.to_string());
        }
        for FindError { path, why } in problems {
            io_failed = true;
            self.unread(path, CliError::file("read", path, why), &Plain(why).to_string());
        }
        io_failed
    }

    fn unread(&mut self, path: &Path, told: CliError, error: &str) {
        self.unreadable += 1;
        people(format_args!("harborseal: {told}"));
        self.not_read.push(NotRead {
            path: path.display().to_string(),
            error: error.to_owned(),
        });
    }

    /// What was found between files.
    fn between(&mut self, check: &Check) {
        let mut damaged: Vec<SegmentId> = Vec::new();
        for found in &check.between {
            match &found.finding.what {
                What::SegmentsMissing { count, .. } => self.missing += count,
                What::HeadMissing { .. } => self.missing += 1,
                _ if found.severity() > Severity::Note => damaged.push(found.segment_id),
                _ => {}
            }
            let path = check
                .path_of(found.segment_id)
                .unwrap_or(std::path::Path::new(""));
            // That a chain begins where retention left off is no news.
            if found.severity() > Severity::Note {
                findings::tell_one(path, &found.finding);
            }
            self.findings.push(FindingLine::new(Some(path), &found.finding));
        }
        damaged.sort();
        damaged.dedup();
        let clean = |id: &SegmentId| {
            let path = check.path_of(*id).and_then(|path| check.files.get(path));
            path.is_some_and(|checked| checked.report.findings.count(Severity::Damage) == 0)
        };
        self.damaged += damaged.iter().filter(|id| clean(id)).count();
    }

    fn print(&self, print: Output) -> Result<(), CliError> {
        expecting::tell(&self.unexpected_recipients);
        if print.json {
            return output::json(self);
        }
        let verdict = match self.ok {
            true => "no damage, nothing missing".to_owned(),
            false => {
                let counts = [
                    (self.damaged as u64, "damaged"),
                    (self.missing, "missing"),
                    (self.unsupported as u64, "unsupported"),
                    (self.unreadable as u64, "not readable"),
                    (
                        self.unexpected_recipients.len() as u64,
                        "with unexpected recipients",
                    ),
                ];
                let counts = counts
                    .iter()
                    .filter(|(n, _)| *n > 0)
                    .map(|(n, what)| format!("{n} {what}"));
                counts.collect::<Vec<_>>().join(", ")
            }
        };
        let states = [
            (self.sealed, "sealed"),
            (self.recovered, "recovered"),
            (self.open, "open"),
            (self.unused, "not used"),
        ];
        let states = states
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, state)| format!("{n} {state}"));
        let states = match states.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => none,
            states => format!(" ({states})"),
        };
        output::data(format_args!(
            "{}{states}, {:.1} MB, {}: {verdict}",
            paths::count(self.segments as u64, "segment"),
            self.bytes as f64 / 1e6,
            paths::count(self.chunks, "chunk")
        ))?;
        match &self.nodes[..] {
            [] => {}
            [node] => output::data(format_args!("of node {node}"))?,
            nodes => output::data(format_args!("of {} nodes: {}", nodes.len(), nodes.join(", ")))?,
        }
        if self.without_copy > 0 {
            people("harborseal: `harborseal recover` saves into copies what is whole in damaged segments");
        } else if self.damaged > 0 {
            people(
                "harborseal: repaired copies stand beside the damaged segments; they count until you move them elsewhere",
            );
        }
        if self.deleted > 0 {
            output::data(format_args!(
                "{} more were deleted by policy, as signed tombstones say",
                self.deleted
            ))?;
        }
        if let Some(opened) = &self.opened {
            output::data(format_args!(
                "opened with this identity: {} cameras, {} chunks, {} packets",
                opened.cameras, opened.chunks, opened.packets
            ))?;
        }
        Ok(())
    }
}
