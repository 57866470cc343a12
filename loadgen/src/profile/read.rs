//! A profile's tables read into a [`Profile`]: every key with its range, and what holds where it is left out.

use super::document::{Node, Origin, ProfileError, Table, Value};
use super::section::{Section, duration_ns};
use super::{GroupProfile, Night, Phase, Profile, StreamKind, Video, faults, load};
use crate::clip::Clip;
use crate::frames::FrameModel;
use crate::nearest::nearest;
use crate::plan::Media;
use crate::program::{BURST_PACKETS_MAX, MBPS_MAX, MBPS_MIN, PACKET_BYTES, Pacing};
use crate::send::Rtcp;
use std::ops::RangeInclusive;

const TOP_KEYS: [&str; 17] = [
    "name",
    "about",
    "seed",
    "seconds",
    "warm_up",
    "burst",
    "pacing",
    "phase",
    "lateness_budget",
    "customers",
    "rtcp",
    "report_every",
    "source",
    "addresses",
    "load",
    "stage",
    "group",
];
const GROUP_KEYS: [&str; 22] = [
    "name",
    "count",
    "customers",
    "codec",
    "payload",
    "width",
    "height",
    "fps",
    "gop",
    "i_to_p",
    "sigma",
    "mbps",
    "packet_bytes",
    "audio",
    "night",
    "pacing",
    "phase",
    "unknown",
    "by_address",
    "overdrive",
    "impair",
    "junk",
];
const VIDEO_KEYS: [&str; 11] = [
    "payload",
    "width",
    "height",
    "fps",
    "gop",
    "i_to_p",
    "sigma",
    "mbps",
    "packet_bytes",
    "night",
    "overdrive",
];
/// What the clip decides.
const CLIP_KEYS: [&str; 7] = ["width", "height", "fps", "gop", "i_to_p", "sigma", "packet_bytes"];
const NIGHT_KEYS: [&str; 3] = ["windows", "rate", "noise"];

/// A double holds every whole number up to here.
const SEED_MAX: u64 = 1 << 53;
/// A camera costs about 2.2 KiB (its state, its lanes of the sent log): a million of them 2.2 GB.
pub const CAMERAS_MAX: u64 = 1_000_000;
const CUSTOMERS_MAX: u64 = 100_000;
const WEIGHT: RangeInclusive<u64> = 1..=1_000_000;
/// A packet table of 1 Gb/s has 800,000 entries for the four seconds of a loop.
pub const FILLER_MBPS_MAX: f64 = 1000.0;
/// The largest UDP payload that passes Ethernet with IPv4 in one piece, and the least that still holds a few filler steps.
const PACKET_BYTES_RANGE: RangeInclusive<u64> = 128..=1472;
/// From nearly nothing to a day.
const SECONDS: RangeInclusive<f64> = 0.0..=86_400.0;
const SIDE: RangeInclusive<u64> = 16..=16_384;

/// Reads a whole profile.
pub fn profile(file: &str, table: &Table) -> Result<Profile, ProfileError> {
    let top = Section {
        file,
        path: "",
        table,
    };
    top.refuse_unknown(&TOP_KEYS)?;
    let customers = customers(&top)?;
    let load = top.table("load", "load")?;
    let stages = sections(&top, "stage")?;
    let stage_paths: Vec<String> = (1..=stages.len()).map(|at| format!("stage.{at}")).collect();
    let stages: Vec<Section<'_>> = stages
        .iter()
        .zip(&stage_paths)
        .map(|(table, path)| Section { file, path, table })
        .collect();
    let stages = load::stages(load, &stages, top.duration_ns("seconds", load::SECONDS)?)?;
    let mut profile = Profile {
        name: top.text("name")?.map_or_else(|| stem(file), str::to_owned),
        about: top.text("about")?.unwrap_or_default().trim().to_owned(),
        seed: top.whole("seed", 0..=SEED_MAX)?.unwrap_or(1),
        warm_up_ns: top.duration_ns("warm_up", SECONDS)?.unwrap_or(0),
        burst: top.whole("burst", 1..=BURST_PACKETS_MAX as u64)?.unwrap_or(8) as usize,
        lateness_budget_ms: top
            .duration_ns("lateness_budget", 0.0001..=3600.0)?
            .map_or(DEFAULT_LATENESS_BUDGET_MS, |ns| ns as f64 / 1e6),
        rtcp: top.word("rtcp", &RTCP)?.unwrap_or(Rtcp::Same),
        report_ns: top
            .duration_ns("report_every", 0.1..=86_400.0)?
            .unwrap_or(5_000_000_000),
        source: top.parsed("source", "an IP address, as in \"192.0.2.7\"")?,
        addresses: top
            .parsed("addresses", "an address and port, as in \"127.64.0.1:20000\"")?
            .unwrap_or(([127, 64, 0, 1], 20_000).into()),
        customers,
        stages,
        groups: Vec::new(),
    };
    let duration_ns = profile.duration_ns();
    if profile.warm_up_ns >= duration_ns && shortened_by_setting(table) {
        profile.warm_up_ns = duration_ns / 10;
    }
    if profile.warm_up_ns >= duration_ns {
        return Err(top.error_at(
            "warm_up",
            "leaves nothing of the run to look at: it must be shorter than it",
        ));
    }
    if profile.addresses.port() < 1024 || profile.addresses.port() % 2 == 1 {
        return Err(top.error_at(
            "addresses",
            "the port must be even (RTCP takes the one above) and 1024 or more",
        ));
    }
    for table in sections(&top, "group")? {
        let group = group(file, table, &top, &profile)?;
        profile.groups.push(group);
    }
    if profile.groups.is_empty() {
        return Err(top.error_here("a profile needs at least one [[group]] of cameras"));
    }
    match profile.cameras() {
        0 => Err(top.error_here("no group has a camera: the counts are all 0")),
        1..=CAMERAS_MAX => Ok(profile),
        more => Err(top.error_here(format!("{more} cameras are more than {CAMERAS_MAX}"))),
    }
}

/// Whether a setting made the run shorter than the file's warm-up reckoned with.
fn shortened_by_setting(table: &Table) -> bool {
    let origin = |key| table.get(key).map(|node| &node.origin);
    matches!(
        (origin("seconds"), origin("warm_up")),
        (Some(Origin::Setting(_)), Some(Origin::Line(_)))
    )
}

/// p99 of lateness that a receiver's default buffer still takes at 1 Gb/s.
const DEFAULT_LATENESS_BUDGET_MS: f64 = 10.0;
pub(super) const RTCP: [(&str, Rtcp); 3] = [("same", Rtcp::Same), ("next", Rtcp::Next), ("off", Rtcp::Off)];
pub(super) const PACING: [(&str, Pacing); 2] = [("smooth", Pacing::Smooth), ("line-rate", Pacing::Frame)];
pub(super) const PHASE: [(&str, Phase); 3] = [
    ("random", Phase::Random),
    ("spread", Phase::Spread),
    ("aligned", Phase::Aligned),
];
pub(super) const CODEC: [(&str, Media); 3] = [
    ("h264", Media::H264),
    ("h265", Media::H265),
    ("pcmu", Media::Pcmu),
];

fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".toml").unwrap_or(name).to_owned()
}

/// The tables of `[[key]]`.
fn sections<'a>(top: &Section<'a>, key: &str) -> Result<Vec<&'a Table>, ProfileError> {
    let Some(items) = top.list(key)? else {
        return Ok(Vec::new());
    };
    let tables = items.iter().map(|node| match &node.value {
        Value::Table(table) => Ok(table),
        _ => Err(top.error(&node.origin, format!("write {key}s as [[{key}]]"))),
    });
    tables.collect()
}

/// `customers = 3`, or their names.
fn customers(top: &Section<'_>) -> Result<Vec<String>, ProfileError> {
    let names = top.read(
        "customers",
        "how many there are, or a list of their names",
        |node| match &node.value {
            Value::List(items) if !items.is_empty() => items
                .iter()
                .map(|item| match &item.value {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => {
                let count = super::section::whole(node, &(1..=CUSTOMERS_MAX))?;
                Some((1..=count).map(|at| format!("customer-{at}")).collect())
            }
        },
    )?;
    let names: Vec<String> = names.unwrap_or_else(|| vec!["customer-1".to_owned()]);
    for (at, name) in names.iter().enumerate() {
        check_name(top, "customers", name)?;
        if names[..at].contains(name) && names.len() < 1000 {
            return Err(top.error_at("customers", format!("{name:?} is there twice")));
        }
    }
    Ok(names)
}

/// A name that may stand in a file name and in a setting.
fn check_name(section: &Section<'_>, key: &str, name: &str) -> Result<(), ProfileError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
        let wanted = "a name has 1 to 64 letters, digits, - and _";
        return Err(section.error_at(key, format!("{wanted}: not {name:?}")));
    }
    Ok(())
}

fn group(
    file: &str,
    table: &Table,
    top: &Section<'_>,
    profile: &Profile,
) -> Result<GroupProfile, ProfileError> {
    let nameless = Section {
        file,
        path: "group",
        table,
    };
    let Some(name) = nameless.text("name")? else {
        return Err(nameless.error_here("group.name is missing"));
    };
    check_name(&nameless, "name", name)?;
    if profile.groups.iter().any(|group| group.name == name) {
        return Err(nameless.error_at("name", format!("another group is called {name:?} too")));
    }
    let path = format!("group.{name}");
    let section = Section {
        path: &path,
        ..nameless
    };
    section.refuse_unknown(&GROUP_KEYS)?;
    let Some(count) = section.whole("count", 0..=CAMERAS_MAX)? else {
        return Err(section.error_here(format!("{path}.count is missing: how many cameras the group has")));
    };
    let media = section.word("codec", &CODEC)?.unwrap_or(Media::H264);
    let audio = section.flag("audio")?;
    let stream = match media {
        Media::Pcmu => {
            let video = VIDEO_KEYS.into_iter().find(|key| section.has(key));
            if let Some(key) = video.or(audio.then_some("audio")) {
                let why = "means nothing for codec = \"pcmu\": 160 bytes every 20 ms, and nothing else; leave it out";
                return Err(section.error_at(key, why));
            }
            StreamKind::Audio
        }
        _ => StreamKind::Video(video(&section, media, profile.duration_ns())?),
    };
    let default_pacing = top.word("pacing", &PACING)?.unwrap_or(Pacing::Smooth);
    let default_phase = top.word("phase", &PHASE)?.unwrap_or(Phase::Random);
    Ok(GroupProfile {
        name: name.to_owned(),
        count: count as u32,
        customers: group_customers(&section, &profile.customers)?,
        stream,
        audio,
        pacing: section.word("pacing", &PACING)?.unwrap_or(default_pacing),
        phase: section.word("phase", &PHASE)?.unwrap_or(default_phase),
        unknown: section.flag("unknown")?,
        by_address: section.flag("by_address")?,
        impair: faults::impair(&section)?,
        junk: faults::junk(&section)?,
    })
}

/// Whose cameras: all customers evenly, the first so many, some by name, or by name with a weight.
fn group_customers(section: &Section<'_>, names: &[String]) -> Result<Vec<(u32, u32)>, ProfileError> {
    let unknown = |node: &Node, name: &str| {
        let meant = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("the nearest is {near:?}"),
            None => "customers at the top of the profile names them".to_owned(),
        };
        let path = section.path;
        section.error(
            &node.origin,
            format!("{path}.customers: no customer is called {name:?}; {meant}"),
        )
    };
    let index = |node: &Node, name: &str| {
        let at = names.iter().position(|known| known == name);
        at.map(|at| at as u32).ok_or_else(|| unknown(node, name))
    };
    let wanted = "a number of customers, a list of names, or names with weights: { alice = 3, bob = 1 }";
    let Some(node) = section.read("customers", wanted, |node| match node.value {
        Value::Date | Value::Flag(_) => None,
        _ => Some(node),
    })?
    else {
        return Ok((0..names.len() as u32).map(|at| (at, 1)).collect());
    };
    let mut dealt: Vec<(u32, u32)> = match &node.value {
        Value::Text(text) if text == "even" => (0..names.len() as u32).map(|at| (at, 1)).collect(),
        Value::Text(name) => vec![(index(node, name)?, 1)],
        Value::List(items) => {
            let named = items.iter().map(|item| match &item.value {
                Value::Text(name) => Ok((index(item, name)?, 1)),
                _ => Err(section.error(
                    &item.origin,
                    format!("{}.customers must be {wanted}", section.path),
                )),
            });
            named.collect::<Result<_, _>>()?
        }
        Value::Table(weights) => {
            let weighted = weights.entries.iter().map(|(name, node)| {
                let weight = super::section::whole(node, &WEIGHT).ok_or_else(|| {
                    let wanted = format!(
                        "a weight is a whole number from {} to {}",
                        WEIGHT.start(),
                        WEIGHT.end()
                    );
                    section.error(&node.origin, format!("{}.customers: {wanted}", section.path))
                })?;
                Ok((index(node, name)?, weight as u32))
            });
            weighted.collect::<Result<_, _>>()?
        }
        _ => {
            let count = section.whole("customers", 1..=names.len() as u64)?.unwrap_or(1);
            (0..count as u32).map(|at| (at, 1)).collect()
        }
    };
    dealt.sort_unstable();
    if let Some(twice) = dealt.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let name = &names[twice[0].0 as usize];
        return Err(section.error_at(
            "customers",
            format!("{name:?} is there twice: use a weight, {{ {name} = 2 }}"),
        ));
    }
    if dealt.is_empty() {
        return Err(section.error_at("customers", "a group belongs to at least one customer"));
    }
    Ok(dealt)
}

fn video(section: &Section<'_>, media: Media, run_ns: u64) -> Result<Video, ProfileError> {
    let clip = section
        .word("payload", &[("clip", true), ("filler", false)])?
        .unwrap_or(false);
    if clip && media != Media::H264 {
        return Err(section.error_at(
            "payload",
            "the clip is H.264: leave codec out, or payload = \"filler\"",
        ));
    }
    let most = if clip { MBPS_MAX } else { FILLER_MBPS_MAX };
    let overdrive = section.number("overdrive", 0.1..=100.0)?.unwrap_or(1.0);
    let asked = section.mbps("mbps", MBPS_MIN..=most)?;
    let mut video = if clip {
        clip_video(section, asked)?
    } else {
        filler_video(section, media, asked)?
    };
    video.overdrive = overdrive;
    video.night = night(section, run_ns)?;
    check_rate(section, &video)?;
    Ok(video)
}

/// What the clip is; only its rate can be chosen.
fn clip_video(section: &Section<'_>, mbps: Option<f64>) -> Result<Video, ProfileError> {
    if let Some(key) = CLIP_KEYS.into_iter().find(|key| section.has(key)) {
        let why = "is the clip's own where payload = \"clip\"; leave it out, or payload = \"filler\"";
        return Err(section.error_at(key, why));
    }
    Ok(Video {
        media: Media::H264,
        clip: true,
        width: Clip::BUILTIN_SIZE.0,
        height: Clip::BUILTIN_SIZE.1,
        frames: FrameModel {
            mbps: mbps.unwrap_or(1.0),
            fps: 25.0,
            gop: 25,
            i_to_p: 1.0,
            sigma: 0.0,
        },
        overdrive: 1.0,
        packet_bytes: PACKET_BYTES,
        night: None,
    })
}

fn filler_video(section: &Section<'_>, media: Media, mbps: Option<f64>) -> Result<Video, ProfileError> {
    let width = section.whole("width", SIDE)?.unwrap_or(1920) as u32;
    let height = section.whole("height", SIDE)?.unwrap_or(1080) as u32;
    let fps = section.number("fps", 0.1..=240.0)?.unwrap_or(25.0);
    let gop = section.read(
        "gop",
        "a number of frames, or a time as in \"10s\", up to 60 s",
        |node| {
            let frames = match node.value {
                Value::Text(_) => {
                    duration_ns(node, &(0.0..=60.0)).map(|ns| (ns as f64 / 1e9 * fps).round() as u64)
                }
                _ => super::section::whole(node, &(1..=(60.0 * fps) as u64)),
            };
            frames.filter(|frames| *frames > 0)
        },
    )?;
    Ok(Video {
        media,
        clip: false,
        width,
        height,
        frames: FrameModel {
            mbps: mbps.unwrap_or_else(|| derived_mbps(media, width, height, fps)),
            fps,
            gop: gop.map_or_else(|| (2.0 * fps).round().max(1.0) as u32, |gop| gop as u32),
            i_to_p: section.number("i_to_p", 1.0..=100.0)?.unwrap_or(8.0),
            sigma: section.number("sigma", 0.0..=2.0)?.unwrap_or(0.35),
        },
        overdrive: 1.0,
        packet_bytes: section
            .whole("packet_bytes", PACKET_BYTES_RANGE)?
            .unwrap_or(PACKET_BYTES as u64) as usize,
        night: None,
    })
}

/// Bits per pixel that surveillance cameras spend on ordinary scenes: 1080p at 25 frames/s comes to 3.6 Mb/s in H.264 (the
/// middle of what makers state for 2 megapixels), and H.265 saves a third. Rounded to 10 kb/s.
pub(super) fn derived_mbps(media: Media, width: u32, height: u32, fps: f64) -> f64 {
    let bits_per_pixel = if media == Media::H265 { 0.047 } else { 0.07 };
    let mbps = f64::from(width) * f64::from(height) * fps * bits_per_pixel / 1e6;
    (mbps * 100.0).round().clamp(1.0, FILLER_MBPS_MAX * 100.0) / 100.0
}

/// Whether the smallest frames still are packets and the largest rate can be laid out, by day and by night.
pub(super) fn check_rate(section: &Section<'_>, video: &Video) -> Result<(), ProfileError> {
    rate_problem(video).map_or(Ok(()), |problem| Err(section.error_at("mbps", problem)))
}

/// Why a video's rate cannot be, with what would do.
pub(super) fn rate_problem(video: &Video) -> Option<String> {
    let most = if video.clip { MBPS_MAX } else { FILLER_MBPS_MAX };
    for model in [Some(video.by_day()), video.by_night()].into_iter().flatten() {
        if !(MBPS_MIN..=most).contains(&model.mbps) {
            return Some(format!(
                "overdrive and night included, a camera sends {MBPS_MIN} to {most} Mb/s, not {}",
                model.mbps
            ));
        }
        let least = 2.0 * crate::filler::PACKET_BYTES_MIN as f64;
        if !video.clip && model.mean_p_bytes() < least {
            let factor = least / model.mean_p_bytes();
            return Some(format!(
                "{} Mb/s at {} frames/s leave {:.0} bytes for a P-frame, and packets need {least}: \
                 at least {:.3} Mb/s, or at most {:.1} frames/s",
                model.mbps,
                model.fps,
                model.mean_p_bytes(),
                model.mbps * factor,
                model.fps / factor
            ));
        }
    }
    None
}

fn night(section: &Section<'_>, run_ns: u64) -> Result<Option<Night>, ProfileError> {
    let path = format!("{}.night", section.path);
    let Some(night) = section.table("night", &path)? else {
        return Ok(None);
    };
    night.refuse_unknown(&NIGHT_KEYS)?;
    let wanted = "a list of times from and to, in order: [[\"10s\", \"20s\"], [\"30s\", \"40s\"]]";
    let windows = night.read("windows", wanted, |node| {
        let Value::List(items) = &node.value else {
            return None;
        };
        let windows = items.iter().map(|item| match &item.value {
            Value::List(ends) if ends.len() == 2 => {
                let [from, to] = [&ends[0], &ends[1]].map(|end| duration_ns(end, &(0.0..=1e7)));
                from.zip(to)
                    .map(|(from, to)| from..to)
                    .filter(|window| !window.is_empty())
            }
            _ => None,
        });
        let windows: Vec<_> = windows.collect::<Option<_>>()?;
        let in_order = windows.windows(2).all(|pair| pair[0].end < pair[1].start);
        in_order.then_some(windows)
    })?;
    // Without windows it is night for the middle third of the run.
    let windows = windows.unwrap_or_else(|| std::iter::once(run_ns / 3..run_ns * 2 / 3).collect());
    Ok(Some(Night {
        windows,
        rate: night.number("rate", 0.01..=10.0)?.unwrap_or(0.6),
        noise: night.share("noise")?.unwrap_or(0.5),
    }))
}
