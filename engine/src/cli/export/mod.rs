//! `harborseal export`: one camera's footage into a file that other tools open.
//!
//! The file appears whole or not at all. What is damaged is left out, told, and gives exit status 1.

mod interrupt;
mod merge;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::{CliError, ExitStatus, Plain};
use super::opening::Opening;
use super::output::{self, Output, people};
use super::{footage, instant, paths};
use crate::archive::library::{Library, Problem, Track, Wanted};
use crate::media::{self, Export, Format, Range, Report};
use crate::statement::Grant;
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
      --from 2026-11-23T14:00:00Z --to 2026-11-23T14:05:00Z -o out.mp4 data
  harborseal export --grant front-door.grant --identity bob.identity -o out.mp4 data
  harborseal export --identity alice.identity --release alice.release --camera front-door -o out.mp4 data

With --grant the range is the one that was asked for, or less. An MP4 begins at a key frame before it, hidden by its edit list.")]
pub struct Args {
    #[command(flatten)]
    opening: Opening,

    /// The camera, as `harborseal list` shows it; with --grant, the one that was granted
    #[arg(long, value_name = "ID", required_unless_present = "grant")]
    camera: Option<String>,

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
    let range = instant::range(args.from.as_deref(), args.to.as_deref())?;
    // A wrong extension should not cost a search through the archive.
    let format = Format::of(&args.output).map_err(media_error)?;
    let mut opened = args.opening.read()?;
    let grant = opened.grant.take();
    let (camera, range) = match &grant {
        None => (args.camera.as_deref().unwrap_or_default(), range),
        Some(grant) => within(grant, args.camera.as_deref(), range)?,
    };
    let (first_s, to_s) = footage::whole_seconds(range);
    let wanted = Wanted::Chunks {
        camera_id: camera,
        from_s: first_s.saturating_sub(look_back_s(format, 0)),
        to_s,
    };
    let library = footage::open(&mut opened, &args.paths, wanted)?;
    let tracks: Vec<&Track> = library.tracks_of(camera).collect();
    if tracks.is_empty() {
        return Err(footage::unknown_camera(&library, camera));
    }
    if !holds(&tracks, range) {
        return Err(footage::nothing_in_range(&tracks));
    }
    let (report, problems) = write(&args.output, &tracks, range)?;
    tell(args, camera, &library, &report, &problems)?;
    Ok(footage::status_after(library.problems.iter().chain(&problems)))
}

/// The camera and range of a grant, or the part of that range that is asked for. More than was granted is refused, although its keys may open more.
fn within<'a>(grant: &'a Grant, camera: Option<&str>, range: Range) -> Result<(&'a str, Range), CliError> {
    let granted = &grant.terms.camera;
    if let Some(camera) = camera.filter(|camera| camera != granted) {
        return Err(CliError::nothing_here(format_args!(
            "the grant is for camera '{granted}', not for '{camera}'"
        )));
    }
    let (first_ns, end_ns) = grant.disclosure.asked_ns;
    let (from_ns, to_ns) = (range.from_ns.unwrap_or(first_ns), range.to_ns.unwrap_or(end_ns));
    if from_ns < first_ns || to_ns > end_ns || from_ns >= to_ns {
        return Err(CliError::nothing_here(format_args!(
            "the grant is for the time from {} to {}, and more was asked for",
            instant::exact(first_ns),
            instant::exact(end_ns)
        )));
    }
    let range = Range {
        from_ns: Some(from_ns),
        to_ns: Some(to_ns),
    };
    Ok((granted, range))
}

/// Whether any packet arrived in the range. Looked up first, so that a range without footage does not send the search for a key
/// frame through the whole archive. Chunks are opened for it only if no header can tell: at the ends of the range, inside a second.
fn holds(tracks: &[&Track], range: Range) -> bool {
    let (from_s, to_s) = footage::whole_seconds(range);
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
    let (first_s, to_s) = footage::whole_seconds(range);
    let streams: Vec<_> = tracks
        .iter()
        .flat_map(|track| &track.parts)
        .map(footage::stream_of)
        .collect();
    let begins_s = footage::parts(tracks).map(|part| part.first_s).min().unwrap_or(0);
    for step in 0..LOOK_BACK_S.len() {
        let from_s = first_s.saturating_sub(look_back_s(format, step));
        let inside = footage::parts(tracks).filter(|part| part.first_s <= to_s && part.last_s >= from_s);
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

fn tell(
    args: &Args,
    camera: &str,
    library: &Library,
    report: &Report,
    problems: &[Problem],
) -> Result<(), CliError> {
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
            camera,
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
