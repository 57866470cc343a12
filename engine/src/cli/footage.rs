//! What `list` and `export` share: opening the footage of one identity, and saying what is wrong with it.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::{CliError, ExitStatus};
use super::opening::Opened;
use super::output::people;
use super::{instant, paths};
use crate::archive::library::{Library, Part, Problem, Track, Wanted};
use crate::media::{Range, Stream};
use crate::text::{Grouped, counted};

const NS_PER_S: u64 = 1_000_000_000;

/// Opens what `opened` can open of the segments that `paths` name, and looks up what is wanted of the chunks.
///
/// Segments that cannot be read are told to people; they end the command only if nothing else is left.
pub fn open(opened: &mut Opened, paths: &[PathBuf], wanted: Wanted<'_>) -> Result<Library, CliError> {
    let found = paths::find_segments(paths)?;
    let bar = paths::progress_count("opening segments", found.segments.len() as u64);
    let library = Library::open(&found.segments, &mut opened.keyring, wanted, |_| bar.inc(1));
    bar.finish_and_clear();
    opened.answered()?;
    if library.tracks.is_empty() {
        return Err(match library.problems.first() {
            Some(problem) if library.segments == 0 => CliError::new(status_of(problem), problem),
            _ if !library.not_released.is_empty() => {
                let closed = counted(library.not_released.len(), "segment");
                CliError::nothing_here(format_args!("the footage of this identity is erasable: {closed} open only with a release, and none was given"))
                    .remedy("ask the node's operator for one (`harborseal release`), and give it with --release; what was erased opens no more")
            }
            _ => CliError::nothing_here("nothing here is for this identity"),
        });
    }
    if !library.not_released.is_empty() {
        people(format_args!(
            "harborseal: {} of this identity not opened: erasable, and not released by what was given with --release, or erased",
            counted(library.not_released.len(), "segment")
        ));
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

/// No such camera for whoever asks.
pub fn unknown_camera(library: &Library, camera: &str) -> CliError {
    let error = CliError::nothing_here(format_args!(
        "no camera '{camera}' for this identity in these segments"
    ));
    error.remedy(named(&library.cameras()))
}

/// The cameras of an identity in one line, which a fleet would not fit.
fn named(cameras: &[&str]) -> String {
    const SHOWN: usize = 8;
    let (shown, rest) = cameras.split_at(cameras.len().min(SHOWN));
    match rest.len() {
        0 => format!("this identity has: {}", shown.join(", ")),
        more => format!(
            "this identity has: {} and {more} more, which `list` names",
            shown.join(", ")
        ),
    }
}

/// The camera is there, and has nothing of that time.
pub fn nothing_in_range(tracks: &[&Track]) -> CliError {
    let error = CliError::nothing_here("no packet of this camera in the range");
    match (
        parts(tracks).map(|p| p.first_s).min(),
        parts(tracks).map(|p| p.last_s).max(),
    ) {
        (Some(first_s), Some(last_s)) => {
            let (first, end) = (
                instant::seconds(first_s),
                instant::seconds(last_s.saturating_add(1)),
            );
            error.remedy(format_args!("it has footage from {first} to {end}"))
        }
        _ => error,
    }
}

/// The seconds a range touches, both inclusive.
pub fn whole_seconds(range: Range) -> (u64, u64) {
    let to_s = range
        .to_ns
        .map_or(u64::MAX, |to_ns| to_ns.saturating_sub(1) / NS_PER_S);
    (range.from_ns.unwrap_or(0) / NS_PER_S, to_s)
}

/// What there is of these streams.
pub fn parts<'a>(tracks: &[&'a Track]) -> impl Iterator<Item = &'a Part> {
    tracks
        .iter()
        .flat_map(|track| &track.parts)
        .filter(|part| part.chunks > 0)
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_fleet_is_named_by_its_first_few_and_a_number() {
        assert_eq!(named(&["a", "b"]), "this identity has: a, b");
        let fleet = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        let line = "this identity has: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more, which `list` names";
        assert_eq!(named(&fleet), line);
    }
}
