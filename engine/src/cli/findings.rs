//! How inspect, verify and recover say what they found in a segment, to people and in JSON.

use std::collections::BTreeSet;
use std::path::Path;

use harborseal_segment::scan::ReadError;
use harborseal_segment::verify::{Finding, Findings, Severity, What};
use serde::Serialize;

use super::error::{CliError, OneLine, Plain};
use super::output::people;
use crate::text::Grouped;

/// Lines per file for people. A segment full of damage must not hide the other segments; JSON has the first thousand.
const LINES: usize = 20;
/// More notes of one kind than this are summed up.
const SINGLE_NOTES: usize = 3;

/// What a disk says that cannot read a place any more (errno.h).
const EIO: i32 = 5;

/// A finding in JSON.
#[derive(Serialize)]
pub struct FindingLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    severity: &'static str,
    kind: &'static str,
    offset: u64,
    len: u64,
    streams: Vec<String>,
    message: String,
}

impl FindingLine {
    /// A finding in the file `path`, which is named where one object tells of many files.
    pub fn new(path: Option<&Path>, finding: &Finding) -> Self {
        FindingLine {
            path: path.map(|path| path.display().to_string()),
            severity: finding.severity().name(),
            kind: finding.what.name(),
            offset: finding.offset,
            len: finding.len,
            streams: finding.streams.iter().map(ToString::to_string).collect(),
            message: finding.what.to_string(),
        }
    }
}

/// Tells people of findings in `path`, damage first, a bounded number of lines. Of notes of one kind, which come by the hundred where a
/// hole took something of every stream, a few are told, or else their sum.
pub fn tell(path: &Path, findings: &Findings) {
    let (notes, grave): (Vec<&Finding>, Vec<_>) = findings
        .iter()
        .partition(|finding| finding.severity() == Severity::Note);
    let mut grave = grave;
    grave.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    for finding in grave.iter().take(LINES) {
        tell_one(path, finding);
    }
    let mut kinds: Vec<(&'static str, Vec<&Finding>)> = Vec::new();
    for note in notes {
        let kind = note.what.name();
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, of_kind)) => of_kind.push(note),
            None => kinds.push((kind, vec![note])),
        }
    }
    for (_, of_kind) in &kinds {
        match of_kind.len() <= SINGLE_NOTES {
            true => of_kind.iter().for_each(|note| tell_one(path, note)),
            false => people(format_args!(
                "harborseal: {}: note: {}; --json has each",
                path.display(),
                OneLine(&sum(of_kind))
            )),
        }
    }
    let more = grave.len().saturating_sub(LINES) as u64 + findings.left_out();
    if more > 0 {
        people(format_args!(
            "harborseal: {}: and {more} more findings; --json has them",
            path.display()
        ));
    }
}

/// Many notes of one kind in one line.
fn sum(notes: &[&Finding]) -> String {
    let bytes: u64 = notes.iter().map(|note| note.len).sum();
    let streams: BTreeSet<_> = notes.iter().flat_map(|note| &note.streams).collect();
    let times = notes.len();
    match notes[0].what {
        What::ChunksLost { .. } => {
            let chunks = notes.iter().map(|note| match note.what {
                What::ChunksLost { count, .. } => count,
                _ => 0,
            });
            format!(
                "lost with holes: {} chunks of {} streams",
                Grouped(chunks.sum()),
                streams.len()
            )
        }
        What::Lost | What::Hole | What::Unfinished => {
            let end = notes.iter().map(|note| note.offset + note.len).max().unwrap_or(0);
            format!(
                "{}: {} bytes at {times} places between {} and {end}",
                notes[0].what,
                Grouped(bytes),
                notes[0].offset
            )
        }
        _ => format!("{times} times: {}", notes[0]),
    }
}

/// Tells people of one finding.
pub fn tell_one(path: &Path, finding: &Finding) {
    let severity = match finding.severity() {
        Severity::Note => "note: ",
        Severity::Unsupported | Severity::Damage => "",
    };
    let remedy = match finding.what {
        What::Unclosed => "; `harborseal recover` closes it",
        What::NotTruncated => "; `harborseal recover` cuts it",
        _ => "",
    };
    let text = finding.to_string();
    let path = path.display();
    people(format_args!(
        "harborseal: {path}: {severity}{}{remedy}",
        OneLine(&text)
    ));
}

/// A file that could not be read as a segment: I/O is 4, anything else is damage.
pub fn unreadable(path: &Path, error: &ReadError) -> CliError {
    let message = format_args!("{}: {error}", path.display()).to_string();
    match error {
        ReadError::Io { why, .. } if why.kind() == std::io::ErrorKind::IsADirectory => {
            CliError::usage(format_args!("{} is a folder", path.display()))
        }
        ReadError::Io { offset, why } if why.raw_os_error() == Some(EIO) => CliError::io(format_args!(
            "cannot read {} at offset {offset}: {}",
            path.display(),
            Plain(why)
        ))
        .remedy("the disk fails: copy what it still gives to another one (ddrescue), and recover that"),
        ReadError::Io { offset: 0, why } => CliError::file("read", path, why),
        ReadError::Io { .. } => CliError::io(message),
        ReadError::NotASegment(_) => {
            CliError::damage(message).remedy("name a .hseal file of an engine's data folder")
        }
        ReadError::NeverBegun => CliError::damage(message).remedy("nothing is lost if it is deleted"),
        ReadError::HeadLost { .. } | ReadError::Damaged { .. } => CliError::damage(message)
            .remedy("restore it from a copy: without a SEGMENT block it cannot be repaired"),
        ReadError::Unsupported { .. } => CliError::damage(message).remedy("use a newer harborseal"),
    }
}
