//! `profile`: what profiles there are, what one comes to, whether it is valid; and, in a file of its own, the engine's
//! configuration for it.

pub(super) mod engine_config;

use super::{EXIT_UNREACHABLE, EXIT_USAGE, fail};
use crate::output::words::with_commas;
use crate::plan::{Impairments, Media};
use crate::profile::units::format_ns;
use crate::profile::{BUILTIN, GroupProfile, Offered, Profile, Video};
use crate::program::Pacing;
use clap::{Args, Subcommand};
use engine_config::EngineConfigArgs;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the built-in profiles
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Print a profile with every default and setting resolved, as TOML
    Show(Chosen),
    /// Say whether a profile is valid and what it asks of sender and receiver
    Check {
        #[command(flatten)]
        chosen: Chosen,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write the engine's configuration and the customers' identities for a profile's fleet
    EngineConfig(EngineConfigArgs),
}

/// A profile and its settings.
#[derive(Debug, Clone, Args)]
pub(super) struct Chosen {
    /// A built-in profile, or a file
    #[arg(value_name = "PROFILE")]
    profile: String,
    /// Set a key: seconds=5, group.street.count=200, group.*.impair.loss=0.1%; or scale the fleet: cameras, streams, mbps,
    /// total_mbps, pps
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

pub(super) fn run(command: &Command) -> ExitCode {
    let done = match command {
        Command::List { json } => print(&list(*json)),
        Command::Show(chosen) => chosen.load().and_then(|profile| print(&profile.to_toml())),
        Command::Check { chosen, json } => chosen.load().and_then(|profile| check(&profile, *json)),
        Command::EngineConfig(args) => engine_config::write(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(failure.status, &failure.message),
    }
}

/// Why a command failed, and with which exit status.
pub(super) struct Failure {
    pub status: u8,
    pub message: String,
}

impl Failure {
    fn usage(why: impl ToString) -> Failure {
        Failure {
            status: EXIT_USAGE,
            message: why.to_string(),
        }
    }

    fn file(what: &str, path: &Path, why: &io::Error) -> Failure {
        Failure {
            status: EXIT_UNREACHABLE,
            message: format!("cannot {what} {}: {why}", path.display()),
        }
    }
}

impl Chosen {
    fn load(&self) -> Result<Profile, Failure> {
        Profile::load(&self.profile, &self.settings).map_err(Failure::usage)
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|why| Failure {
            status: EXIT_UNREACHABLE,
            message: format!("cannot write to stdout: {why}"),
        })
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and texts are always JSON") + "\n"
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    about: String,
}

fn list(as_json: bool) -> String {
    let listed = BUILTIN.iter().map(|built_in| {
        let profile =
            Profile::load(built_in.name, &[]).expect("built-in profiles are valid: a test shows it");
        Listed {
            name: built_in.name,
            about: profile.about,
        }
    });
    if as_json {
        return json(&listed.collect::<Vec<_>>());
    }
    listed
        .map(|one| format!("{:<17}{}\n", one.name, one.about))
        .collect()
}

/// What `check --json` prints.
#[derive(Serialize)]
struct Checked<'a> {
    profile: &'a str,
    cameras: u64,
    streams: u64,
    customers: u64,
    seconds: f64,
    warm_up_s: f64,
    peak_share: f64,
    peak_mbps: f64,
    peak_packets_per_second: f64,
    burst_packets_max: usize,
    frame_packets_max: usize,
    memory_bytes: usize,
}

fn check(profile: &Profile, as_json: bool) -> Result<(), Failure> {
    let offered = profile.offered();
    if as_json {
        return print(&json(&Checked {
            profile: &profile.name,
            cameras: offered.cameras,
            streams: offered.streams,
            customers: offered.customers,
            seconds: profile.duration_ns() as f64 / 1e9,
            warm_up_s: profile.warm_up_ns as f64 / 1e9,
            peak_share: offered.peak_share,
            peak_mbps: offered.mbps * offered.peak_share,
            peak_packets_per_second: offered.pps * offered.peak_share,
            burst_packets_max: offered.burst_packets_max,
            frame_packets_max: offered.frame_packets_max,
            memory_bytes: offered.memory_bytes,
        }));
    }
    print(&checked_text(profile, &offered))
}

fn checked_text(profile: &Profile, offered: &Offered) -> String {
    let (cameras, streams) = (with_commas(offered.cameras), with_commas(offered.streams));
    let (mbps, pps) = (
        offered.mbps * offered.peak_share,
        offered.pps * offered.peak_share,
    );
    let off = if offered.peak_share < 1.0 {
        format!(", {:.0} % of the cameras on", offered.peak_share * 100.0)
    } else {
        String::new()
    };
    let warm_up = match profile.warm_up_ns {
        0 => String::new(),
        ns => format!(", the first {} left out of the figures", format_ns(ns)),
    };
    let mut text = format!(
        "{}: valid. {}\n\n\
         cameras    {cameras} of {}, {streams} streams, seed {}\n\
         at peak    {} Mb/s, {} packets/s{off}\n\
         bursts     {} packets of a stream at once at most; the largest frame has {}\n\
         duration   {}{warm_up}\n\
         memory     {:.1} MB for the plan\n\n",
        profile.name,
        profile.about,
        match offered.customers {
            1 => "one customer".to_owned(),
            more => format!("{} customers", with_commas(more)),
        },
        profile.seed,
        with_commas(mbps.round() as u64),
        with_commas(pps.round() as u64),
        offered.burst_packets_max,
        offered.frame_packets_max,
        format_ns(profile.duration_ns()),
        offered.memory_bytes as f64 / 1e6,
    );
    let mut rows = vec![["group", "cameras", "what", "Mb/s each", "key frames", "how"].map(str::to_owned)];
    rows.extend(profile.groups.iter().map(row));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn row(group: &GroupProfile) -> [String; 6] {
    let mut how = vec![
        match group.pacing {
            Pacing::Smooth => "smooth",
            Pacing::Frame => "line-rate",
        }
        .to_owned(),
        format!("{:?}", group.phase).to_lowercase(),
    ];
    how.extend(notes(group));
    let (what, mbps, key) = match group.video() {
        None => ("PCMU".to_owned(), "0.083".to_owned(), String::new()),
        Some(video) => (what(video, group.audio), rate(video), key_interval(video)),
    };
    let count = with_commas(u64::from(group.count));
    [group.name.clone(), count, what, mbps, key, how.join(", ")]
}

fn what(video: &Video, audio: bool) -> String {
    let codec = if video.media == Media::H265 {
        "H.265"
    } else {
        "H.264"
    };
    let clip = if video.clip { " clip" } else { "" };
    let audio = if audio { " + PCMU" } else { "" };
    format!(
        "{codec}{clip} {}×{}@{}{audio}",
        video.width, video.height, video.frames.fps
    )
}

fn rate(video: &Video) -> String {
    let rate = format!("{:.3}", video.frames.mbps);
    let rate = rate.trim_end_matches('0').trim_end_matches('.');
    match video.overdrive {
        1.0 => rate.to_owned(),
        times => format!("{rate} × {times}"),
    }
}

fn key_interval(video: &Video) -> String {
    match video.clip {
        true => "1 s".to_owned(),
        false => {
            format!("{:.3} s, {}:1", video.frames.gop_seconds(), video.frames.i_to_p).replace(".000 s", " s")
        }
    }
}

/// What is special about a group.
fn notes(group: &GroupProfile) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(night) = group.video().and_then(|video| video.night.as_ref()) {
        notes.push(format!("night × {}", night.rate));
    }
    if group.unknown {
        notes.push("unknown to the engine".to_owned());
    }
    if group.by_address {
        notes.push("known by address".to_owned());
    }
    let impaired = impaired(&group.impair);
    if !impaired.is_empty() {
        notes.push(impaired.join(" + "));
    }
    if let Some(junk) = group.junk {
        notes.push(format!("{} junk/s", junk.per_second));
    }
    notes
}

fn impaired(impair: &Impairments) -> Vec<&'static str> {
    let all = [
        (impair.loss > 0.0, "loss"),
        (impair.bursts.is_some(), "bursts of loss"),
        (impair.reorder > 0.0, "reordering"),
        (impair.duplicate > 0.0, "duplicates"),
        (impair.jitter_ns > 0, "jitter"),
        (impair.corrupt > 0.0, "corruption"),
        (impair.truncate > 0.0, "truncation"),
        (impair.clock_ppm != 0.0, "drift"),
        (impair.restart_every_ns > 0, "restarts"),
        (impair.sequence_jump_every_ns > 0, "sequence jumps"),
        (impair.timestamp_jump_every_ns > 0, "timestamp jumps"),
        (impair.payload_type_every_ns > 0, "payload type changes"),
        (impair.rebind_every_ns > 0, "rebinds"),
    ];
    all.into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_says_what_a_profile_asks_for() {
        let profile = Profile::load("city", &[]).expect("valid");
        let text = checked_text(&profile, &profile.offered());
        for part in [
            "4,000 of 40 customers",
            "at peak    8,000 Mb/s",
            "duration   20s",
            "H.264 1920×1080@25",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(BUILTIN.iter().all(|built_in| list(false).contains(built_in.name)));
    }
}
