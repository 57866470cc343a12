//! What `list` and `export` share: opening the footage of one identity, and saying what is wrong with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{CliError, ExitStatus};
use super::output::people;
use super::{keygen, paths};
use crate::archive::library::{Library, Part, Problem, Wanted};
use crate::media::Stream;
use crate::text::{Grouped, counted};

/// Opens what the identity in the file `identity` can open of the segments that `paths` name, and looks up what is wanted of the
/// chunks.
///
/// Segments that cannot be read are told to people; they end the command only if nothing else is left.
pub fn open(identity: &Path, paths: &[PathBuf], wanted: Wanted<'_>) -> Result<Library, CliError> {
    let identity = keygen::read(identity)?;
    let found = paths::find_segments(paths)?;
    let bar = paths::progress_count("opening segments", found.segments.len() as u64);
    let library = Library::open(&found.segments, identity, wanted, |_| bar.inc(1));
    bar.finish_and_clear();
    if library.tracks.is_empty() {
        return Err(match library.problems.first() {
            Some(problem) if library.segments == 0 => CliError::new(status_of(problem), problem),
            _ => CliError::nothing_here("nothing here is for this identity"),
        });
    }
    for problem in &library.problems {
        people(format_args!("harborseal: {problem}"));
    }
    Ok(library)
}

/// The exit status that a problem earns.
pub fn status_of(problem: &Problem) -> ExitStatus {
    if problem.is_io() {
        ExitStatus::Io
    } else {
        ExitStatus::Damage
    }
}

/// How a command that did its work ends, given what was wrong on the way.
pub fn status_after<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> ExitStatus {
    let mut status = ExitStatus::Ok;
    for problem in problems {
        match status_of(problem) {
            ExitStatus::Io => return ExitStatus::Io,
            other => status = other,
        }
    }
    status
}

/// What reading cost, for people.
pub fn cost(library: &Library) -> String {
    format!(
        "read {} of {} bytes in {}",
        Grouped(library.bytes_read()),
        Grouped(library.segment_bytes),
        counted(library.segments, "segment")
    )
}

/// A part of a track as the exporter knows it.
pub fn stream_of(part: &Part) -> Stream {
    let info = &part.stream.info;
    Stream {
        ssrc: info.ssrc,
        media_index: info.media_index,
        sdp: Arc::from(info.sdp.as_str()),
    }
}
