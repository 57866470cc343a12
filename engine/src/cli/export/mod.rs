//! `harborseal export`: one camera's footage into a file that other tools open.
//!
//! The file appears whole or not at all. What is damaged is left out, told, and gives exit status 1.

mod interrupt;
mod merge;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::{CliError, ExitStatus, Plain};
use super::output::{self, Output, people};
use super::{footage, instant, paths};
use crate::archive::library::{Library, Part, Problem, Track, Wanted};
use crate::media::{self, Export, Format, Range, Report};
use interrupt::Interrupt;
use merge::Merge;

/// How far before the start of the range a key frame is looked for, in seconds; more each time. Cameras that save bits send one
/// every ten seconds or so; the last step reads everything there is.
const LOOK_BACK_S: [u64; 4] = [16, 128, 1024, u64::MAX];
const NS_PER_S: u64 = 1_000_000_000;
/// Damaged places told one by one; the rest are only counted.
const PROBLEMS_TOLD: usize = 20;

/// Write one camera's footage to a file that other tools open (.mp4 .pcapng .rtpdump).
///
/// .mp4 holds the video (H.264 or H.265) as the camera sent it, with its own timing: gaps stay gaps, and nothing is invented. It begins
/// at the last key frame at or before --from and is trimmed to the range by an edit list. .pcapng holds every packet, RTP and RTCP, of
/// every stream, for Wireshark; .rtpdump the same for rtptools.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  harborseal export --identity alice.identity --camera front-door -o out.mp4 data
  harborseal export --identity alice.identity --camera front-door \\
      --from 2026-11-23T14:00:00Z --to 2026-11-23T14:05:00Z -o out.mp4 data")]
pub struct Args {
    /// The customer's identity, as keygen made it
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,

    /// The camera, as `harborseal list` shows it
    #[arg(long, value_name = "ID")]
    camera: String,

    /// Begin with what arrived at T (RFC 3339 with zone)
    #[arg(long, value_name = "T")]
    from: Option<String>,

    /// End before what arrived at T (RFC 3339 with zone)
    #[arg(long, value_name = "T")]
    to: Option<String>,

    /// The file to write: .mp4, .pcapng or .rtpdump
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,

    #[command(flatten)]
    print: Output,

    /// Segments, or folders that are searched for them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Written<'a> {
    output: &'a str,
    camera: &'a str,
    /// Only an MP4 has frames.
    frames: Option<u64>,
    packets: u64,
    bytes: u64,
    from: Option<String>,
    to: Option<String>,
    gaps: u64,
    lost_packets: u64,
    damaged: usize,
    /// What it was read from, and how much of that was read.
    segments: usize,
    segment_bytes: u64,
    bytes_read: u64,
    notes: &'a [String],
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let range = range_of(args)?;
    // A wrong extension should not cost a search through the archive.
    let format = Format::of(&args.output).map_err(media_error)?;
    let (first_s, to_s) = whole_seconds(range);
    let wanted = Wanted::Chunks {
        camera_id: &args.camera,
        from_s: first_s.saturating_sub(look_back_s(format, 0)),
        to_s,
    };
    let library = footage::open(&args.identity, &args.paths, wanted)?;
    let tracks: Vec<&Track> = library.tracks_of(&args.camera).collect();
    if tracks.is_empty() {
        return Err(unknown_camera(&library, &args.camera));
    }
    if !holds(&tracks, range) {
        return Err(nothing_in_range(&tracks));
    }
    let (report, problems) = write(&args.output, &tracks, range)?;
    tell(args, &library, &report, &problems)?;
    Ok(footage::status_after(library.problems.iter().chain(&problems)))
}

fn range_of(args: &Args) -> Result<Range, CliError> {
    let parse = |name, text: &Option<String>| text.as_deref().map(|t| instant::parse(name, t)).transpose();
    let range = Range {
        from_ns: parse("--from", &args.from)?,
        to_ns: parse("--to", &args.to)?,
    };
    match range {
        Range {
            from_ns: Some(from),
            to_ns: Some(to),
        } if from >= to => Err(CliError::usage(
            "--from is not before --to, so the range is empty",
        )),
        range => Ok(range),
    }
}

fn unknown_camera(library: &Library, camera: &str) -> CliError {
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

/// Whether any packet arrived in the range. Looked up first, so that a range without footage does not send the search for a key
/// frame through the whole archive. Chunks are opened for it only if no header can tell: at the ends of the range, inside a second.
fn holds(tracks: &[&Track], range: Range) -> bool {
    let (from_s, to_s) = whole_seconds(range);
    let inside_from_s = range.from_ns.unwrap_or(0).div_ceil(NS_PER_S);
    let inside_end_s = range.to_ns.map_or(u64::MAX, |to_ns| to_ns / NS_PER_S);
    let whole_inside = inside_from_s..inside_end_s;
    if !whole_inside.is_empty()
        && tracks
            .iter()
            .any(|track| track.has_within(whole_inside.start, whole_inside.end - 1))
    {
        return true;
    }
    let mut chunks = tracks
        .iter()
        .flat_map(|track| track.chunks(from_s, to_s))
        .flatten();
    let inside = |arrival_ns| !range.is_before(arrival_ns) && !range.is_after(arrival_ns);
    chunks.any(|chunk| chunk.packets().any(|packet| inside(packet.arrival_ns)))
}

fn nothing_in_range(tracks: &[&Track]) -> CliError {
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
fn whole_seconds(range: Range) -> (u64, u64) {
    let to_s = range
        .to_ns
        .map_or(u64::MAX, |to_ns| to_ns.saturating_sub(1) / NS_PER_S);
    (range.from_ns.unwrap_or(0) / NS_PER_S, to_s)
}

/// How far before its range an export is read from, at its first attempt and at later ones.
fn look_back_s(format: Format, step: usize) -> u64 {
    match format.needs_earlier() {
        true => LOOK_BACK_S[step],
        false => 0,
    }
}

/// Exports `range` of one camera's streams to `output`.
///
/// # Errors
/// As the command's exit status says; then there is no output.
fn write(output: &Path, tracks: &[&Track], range: Range) -> Result<(Report, Vec<Problem>), CliError> {
    let interrupt = Interrupt::catch();
    let format = Format::of(output).map_err(media_error)?;
    let from_ns = range.from_ns.unwrap_or(0);
    let (first_s, to_s) = whole_seconds(range);
    let streams: Vec<_> = tracks
        .iter()
        .flat_map(|track| &track.parts)
        .map(footage::stream_of)
        .collect();
    let begins_s = parts(tracks).map(|part| part.first_s).min().unwrap_or(0);
    for step in 0..LOOK_BACK_S.len() {
        let from_s = first_s.saturating_sub(look_back_s(format, step));
        let inside = parts(tracks).filter(|part| part.first_s <= to_s && part.last_s >= from_s);
        let bar = paths::progress_count("exporting", inside.map(|part| part.chunks).sum());
        let mut tick = || {
            bar.inc(1);
            interrupt.check()
        };
        let mut export = Export::create(output, &streams, range).map_err(media_error)?;
        let mut merge = Merge::new(tracks, from_s, to_s);
        merge.feed(from_ns, &mut export, &mut tick).map_err(media_error)?;
        if format.needs_earlier() && !export.has_begun() && begins_s < from_s {
            continue;
        }
        merge
            .feed(u64::MAX, &mut export, &mut tick)
            .map_err(media_error)?;
        let report = export.finish().map_err(media_error)?;
        return Ok((report, merge.problems));
    }
    unreachable!("the last look back begins at 0, before which there is nothing")
}

fn parts<'a>(tracks: &[&'a Track]) -> impl Iterator<Item = &'a Part> {
    tracks
        .iter()
        .flat_map(|track| &track.parts)
        .filter(|part| part.chunks > 0)
        .collect::<Vec<_>>()
        .into_iter()
}

fn tell(args: &Args, library: &Library, report: &Report, problems: &[Problem]) -> Result<(), CliError> {
    for problem in problems.iter().take(PROBLEMS_TOLD) {
        people(format_args!("harborseal: {problem}; left out"));
    }
    if problems.len() > PROBLEMS_TOLD {
        people(format_args!(
            "harborseal: and {} more damaged places",
            problems.len() - PROBLEMS_TOLD
        ));
    }
    for note in &report.notes {
        people(format_args!("note: {note}"));
    }
    let format = Format::of(&args.output).map_err(media_error)?;
    let frames = (format == Format::Mp4).then_some(report.frames);
    let (from, to) = report.span_ns.unzip();
    let (from, to) = (from.map(instant::exact), to.map(instant::exact));
    if args.print.json {
        return output::json(&Written {
            output: &args.output.to_string_lossy(),
            camera: &args.camera,
            frames,
            packets: report.packets,
            bytes: report.bytes,
            from,
            to,
            gaps: report.gaps,
            lost_packets: report.lost,
            damaged: problems.len(),
            segments: library.segments,
            segment_bytes: library.segment_bytes,
            bytes_read: library.bytes_read(),
            notes: &report.notes,
        });
    }
    let frames = frames.map_or(String::new(), |frames| format!("{frames} frames, "));
    let span = from
        .zip(to)
        .map_or(String::new(), |(from, to)| format!(", from {from} to {to}"));
    // A sender that began anew, or an outage longer than its numbers reach, is a gap of unknown size.
    let gaps = match report.gaps {
        0 => String::new(),
        1 => format!("; 1 gap, at least {} packets missing", report.lost),
        gaps => format!("; {gaps} gaps, at least {} packets missing", report.lost),
    };
    people(format_args!(
        "{}: {frames}{} packets, {} bytes{span}{gaps}",
        args.output.display(),
        report.packets,
        report.bytes
    ));
    people(footage::cost(library));
    Ok(())
}

fn media_error(error: media::Error) -> CliError {
    match error {
        media::Error::Io { path, what, source } => {
            CliError::io(format_args!("{}: {what}: {}", path.display(), Plain(&source)))
        }
        media::Error::UnknownExtension { .. } => CliError::usage(error),
        media::Error::NotAFile { .. } => CliError::io(error),
        media::Error::NoVideo(_) => CliError::usage(error),
        media::Error::NothingInRange(_) => CliError::nothing_here(error),
        media::Error::Unsupported(_) | media::Error::Interrupted => CliError::io(error),
    }
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
