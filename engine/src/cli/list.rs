//! `harborseal list`: what an identity opens. Reads the segments' tables and the identity's own STREAM blocks, and of the footage
//! itself nothing.

use std::path::PathBuf;

use serde::Serialize;

use super::error::{CliError, ExitStatus, OneLine};
use super::expecting::{self, Expecting, SealedTo, StandingLine};
use super::opening::Opening;
use super::output::{self, Output, people};
use super::{footage, instant, paths};
use crate::archive::library::{Track, Wanted};
use crate::media::{self, Stream};

/// Chunk times are whole seconds, and a chunk is sealed within a second: seconds this far apart have a pause between them.
const GAP_S: u64 = 2;

/// Show what an identity opens: cameras, streams, codecs, times and gaps.
///
/// Times are arrivals in UTC, in whole seconds. A gap is a time of a second or more from which nothing is stored, because the
/// camera was silent, the engine did not run, or footage was deleted. Packets lost in between are counted by export and verify.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  harborseal list --identity alice.identity data
  harborseal list --identity alice.identity --json data/segments/20261123
  harborseal list --identity alice.identity --enrolment alice.enrolment data
  harborseal list --grant front-door.grant --identity bob.identity data
  harborseal list --identity alice.identity --release alice.release data")]
pub struct Args {
    #[command(flatten)]
    opening: Opening,

    #[command(flatten)]
    expecting: Expecting,

    #[command(flatten)]
    print: Output,

    /// Segments, or folders that are searched for them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Listing {
    segments: usize,
    segment_bytes: u64,
    bytes_read: u64,
    cameras: Vec<Camera>,
    recipients: Vec<SealedTo>,
    standing_grants: Vec<StandingLine>,
    unexpected_recipients: Vec<String>,
    /// Segments with erasable footage of this identity that was not released, or erased.
    not_released: Vec<String>,
}

#[derive(Serialize)]
struct Camera {
    id: String,
    streams: Vec<StreamLine>,
}

#[derive(Serialize)]
struct StreamLine {
    ssrc: u32,
    media_index: Option<u16>,
    codec: String,
    chunks: u64,
    /// Absent while nothing has been stored.
    from: Option<String>,
    to: Option<String>,
    gaps: Vec<Gap>,
}

#[derive(Serialize)]
struct Gap {
    from: String,
    to: String,
    seconds: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let mut opened = args.opening.read()?;
    let expected = args.expecting.read(&opened.opener)?;
    let library = footage::open(&mut opened, &args.paths, Wanted::Times)?;
    let alarms = expected.map_or(Vec::new(), |expected| expected.alarms(&library));
    let (recipients, standing_grants) = expecting::summary(&library);
    let mut listing = Listing {
        segments: library.segments,
        segment_bytes: library.segment_bytes,
        bytes_read: library.bytes_read(),
        cameras: Vec::new(),
        recipients,
        standing_grants,
        unexpected_recipients: alarms,
        not_released: library
            .not_released
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    };
    for id in library.cameras() {
        let streams = library.tracks_of(id).map(describe).collect();
        listing.cameras.push(Camera {
            id: id.to_owned(),
            streams,
        });
    }
    if args.print.json {
        output::json(&listing)?;
    } else {
        print(&listing)?;
        print_recipients(&listing)?;
        people(footage::cost(&library));
    }
    expecting::tell(&listing.unexpected_recipients);
    Ok(
        match (
            footage::status_after(&library.problems),
            &listing.unexpected_recipients[..],
        ) {
            (ExitStatus::Ok, [_, ..]) => ExitStatus::Damage,
            (status, _) => status,
        },
    )
}

fn describe(track: &Track) -> StreamLine {
    let mut spans: Vec<_> = track.parts.iter().flat_map(|part| part.times.clone()).collect();
    spans.sort_unstable();
    let ends_s = spans.iter().map(|span| span.1).max();
    let codec = track
        .parts
        .last()
        .map(footage::stream_of)
        .map_or(String::new(), |s| media::codec_name(&s));
    StreamLine {
        ssrc: track.ssrc,
        media_index: (track.media_index != Stream::UNKNOWN_MEDIA).then_some(track.media_index),
        codec,
        chunks: track.parts.iter().map(|part| part.chunks).sum(),
        from: spans.first().map(|span| instant::seconds(span.0)),
        // The end is outside, as in --to: the next whole second.
        to: ends_s.map(|s| instant::seconds(s.saturating_add(1))),
        gaps: gaps(&spans),
    }
}

/// The pauses between chunks whose spans are in the order of their beginnings.
fn gaps(spans: &[(u64, u64)]) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut end_s = match spans.first() {
        Some(first) => first.1,
        None => return gaps,
    };
    for &(first_s, last_s) in spans {
        if first_s.saturating_sub(end_s) >= GAP_S {
            let (from_s, to_s) = (end_s + 1, first_s);
            let (from, to) = (instant::seconds(from_s), instant::seconds(to_s));
            gaps.push(Gap {
                from,
                to,
                seconds: to_s - from_s,
            });
        }
        end_s = end_s.max(last_s);
    }
    gaps
}

/// Who else opens it. That nobody does is no news.
fn print_recipients(listing: &Listing) -> Result<(), CliError> {
    for SealedTo { keys, segments } in listing.recipients.iter().filter(|sealed| sealed.keys != 1) {
        let others = keys.saturating_sub(1);
        output::data(format_args!(
            "{} sealed to {} beside this customer's first: recovery recipients, if that is what the enrolment says",
            paths::count(*segments as u64, "segment"),
            paths::count(others as u64, "key")
        ))?;
    }
    for line in &listing.standing_grants {
        let camera = line.camera.as_deref().unwrap_or("(not begun)");
        output::data(format_args!(
            "{} opened to {} of camera {}",
            paths::count(line.segments as u64, "segment"),
            paths::count(line.grantees as u64, "standing grant"),
            OneLine(camera)
        ))?;
    }
    Ok(())
}

fn print(listing: &Listing) -> Result<(), CliError> {
    let named = listing
        .cameras
        .iter()
        .map(|c| OneLine(&c.id).to_string().chars().count());
    let width = named.max().unwrap_or(0).max("CAMERA".len());
    let line = |camera: &str, ssrc: &str, codec: &str, from: &str, to: &str, gaps: &str| {
        let text = format!("{camera:width$}  {ssrc:10}  {codec:8}  {from:20}  {to:20}  {gaps}");
        output::data(text.trim_end())
    };
    line("CAMERA", "SSRC", "CODEC", "FROM", "TO", "GAPS")?;
    for camera in &listing.cameras {
        let id = OneLine(&camera.id).to_string();
        for stream in &camera.streams {
            let ssrc = format!("0x{:08x}", stream.ssrc);
            let (from, to) = (
                stream.from.as_deref().unwrap_or("-"),
                stream.to.as_deref().unwrap_or("-"),
            );
            line(
                &id,
                &ssrc,
                &stream.codec,
                from,
                to,
                &stream.gaps.len().to_string(),
            )?;
            for gap in &stream.gaps {
                line("", "", "  gap", &gap.from, &gap.to, &format!("{} s", gap.seconds))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_between_chunks_is_a_gap_and_neighbouring_seconds_are_not() {
        assert!(gaps(&[(10, 10), (11, 12), (12, 13)]).is_empty());
        let found = gaps(&[(10, 11), (10, 13), (60, 61)]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].from.as_str(), found[0].seconds),
            ("1970-01-01T00:00:14Z", 46)
        );
        assert_eq!(found[0].to, "1970-01-01T00:01:00Z");
        assert!(gaps(&[]).is_empty());
    }
}
