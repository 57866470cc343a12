//! How inspect, verify and recover say what they found in a segment, to people and in JSON.

use std::path::Path;

use harborseal_segment::scan::ReadError;
use harborseal_segment::verify::{Finding, Findings, Severity, What};
use serde::Serialize;

use super::error::{CliError, OneLine};
use super::output::people;

/// Lines per file for people. A segment full of damage must not hide the other segments; JSON has the first thousand.
const LINES: usize = 20;

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

/// Tells people of findings in `path`, damage first, a bounded number of lines.
pub fn tell(path: &Path, findings: &Findings) {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    for finding in sorted.iter().take(LINES) {
        tell_one(path, finding);
    }
    let more = sorted.len().saturating_sub(LINES) as u64 + findings.left_out();
    if more > 0 {
        people(format_args!(
            "harborseal: {}: and {more} more findings; --json has them",
            path.display()
        ));
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
