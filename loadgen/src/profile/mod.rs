//! Profiles: a fleet described in TOML, read into a [`Profile`] that is valid as a whole, and made into a [`Plan`](crate::plan::Plan).
//!
//! `config/profiles/` holds the built-in ones; every key is explained in `config/profiles/README.md`. Invariants: a profile
//! that exists is valid; whatever is random follows from its seed; [`Profile::to_toml`] writes one that reads back the same.

mod builtin;
pub mod document;
mod engine_config;
mod faults;
mod load;
mod offered;
mod plan;
mod read;
mod section;
mod settings;
mod show;
pub mod units;

pub use builtin::BUILTIN;
pub use document::ProfileError;
pub use engine_config::{ENGINE_CONFIG_MARK, EngineConfig};
pub use offered::Offered;
pub use settings::Dimension;

use crate::frames::FrameModel;
use crate::nearest::nearest;
use crate::plan::{Impairments, Junk, Media, Stage};
use crate::program::Pacing;
use crate::send::Rtcp;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::Path;

/// Longest profile read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A fleet, described.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub name: String,
    pub about: String,
    pub seed: u64,
    /// Left out of the figures.
    pub warm_up_ns: u64,
    /// Packets that may leave back to back.
    pub burst: usize,
    /// Lateness at p99 above which a run is invalid.
    pub lateness_budget_ms: f64,
    pub customers: Vec<String>,
    pub rtcp: Rtcp,
    pub report_ns: u64,
    /// Address to send from.
    pub source: Option<IpAddr>,
    /// First address of the cameras that have one of their own.
    pub addresses: SocketAddr,
    pub stages: Vec<Stage>,
    pub groups: Vec<GroupProfile>,
}

/// Cameras of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupProfile {
    pub name: String,
    pub count: u32,
    /// Whose they are: index of the customer, and how many cameras it has for every one that weight 1 has.
    pub customers: Vec<(u32, u32)>,
    pub stream: StreamKind,
    /// A second stream of PCMU.
    pub audio: bool,
    pub pacing: Pacing,
    pub phase: Phase,
    pub unknown: bool,
    pub by_address: bool,
    pub impair: Impairments,
    pub junk: Option<Junk>,
}

/// What the camera's first stream is.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamKind {
    Video(Video),
    /// PCMU, 160 bytes every 20 ms.
    Audio,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Video {
    pub media: Media,
    /// The clip, or filler.
    pub clip: bool,
    pub width: u32,
    pub height: u32,
    /// Its rate, overdrive not counted, and its frames.
    pub frames: FrameModel,
    /// Times its rate that it really sends.
    pub overdrive: f64,
    pub packet_bytes: usize,
    pub night: Option<Night>,
}

/// When it is night, and what that does to a camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Night {
    pub windows: Vec<Range<u64>>,
    /// Times the day's rate.
    pub rate: f64,
    /// From 0 to 1: how far the sensor's noise levels I- and P-frames.
    pub noise: f64,
}

/// When the cameras' key frames come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// At any time, as the seed says.
    Random,
    /// Evenly over the key frame interval.
    Spread,
    /// All at once: the worst case.
    Aligned,
}

impl Profile {
    /// The profile of a built-in name or of a file, with settings (`key=value`) applied in their order.
    pub fn load(name: &str, settings: &[String]) -> Result<Profile, ProfileError> {
        if let Some(built_in) = BUILTIN.iter().find(|built_in| built_in.name == name) {
            return Profile::parse(built_in.file, built_in.text, settings);
        }
        let text = read_file(name)?;
        Profile::parse(name, &text, settings)
    }

    /// The profile in `text`, which messages call `file`.
    pub fn parse(file: &str, text: &str, settings: &[String]) -> Result<Profile, ProfileError> {
        let mut table = document::Table::parse(file, text)?;
        let scales = settings::apply(file, &mut table, settings)?;
        let profile = read::profile(file, &table)?;
        scales
            .into_iter()
            .try_fold(profile, |profile, scale| scale.of(&profile))
    }

    /// An error about the profile as a whole.
    fn error(&self, message: impl Into<String>) -> ProfileError {
        ProfileError {
            file: self.name.clone(),
            origin: None,
            message: message.into(),
        }
    }

    pub fn cameras(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.count)).sum()
    }

    pub fn streams(&self) -> u64 {
        self.groups
            .iter()
            .map(|group| u64::from(group.count) * group.tracks())
            .sum()
    }

    /// From the first packet to the last.
    pub fn duration_ns(&self) -> u64 {
        self.stages.last().map_or(0, |stage| stage.to_ns)
    }
}

impl GroupProfile {
    /// Streams of each camera.
    pub fn tracks(&self) -> u64 {
        1 + u64::from(self.audio)
    }

    pub fn video(&self) -> Option<&Video> {
        match &self.stream {
            StreamKind::Video(video) => Some(video),
            StreamKind::Audio => None,
        }
    }
}

impl Video {
    /// What it really sends by day.
    pub fn by_day(&self) -> FrameModel {
        FrameModel {
            mbps: self.frames.mbps * self.overdrive,
            ..self.frames
        }
    }

    pub fn by_night(&self) -> Option<FrameModel> {
        let night = self.night.as_ref()?;
        Some(self.by_day().by_night(night.rate, night.noise))
    }
}

fn read_file(name: &str) -> Result<String, ProfileError> {
    let failed = |message: String| ProfileError {
        file: name.to_owned(),
        origin: None,
        message,
    };
    let bare = !name.contains(['/', '.']);
    if bare && !Path::new(name).is_file() {
        let names = || BUILTIN.iter().map(|built_in| built_in.name);
        let meant = match nearest(name, names()) {
            Some(near) => format!("the nearest is {near:?}"),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        return Err(failed(format!(
            "no built-in profile and no file has this name; {meant}"
        )));
    }
    let bytes = std::fs::metadata(name)
        .map_err(|error| failed(format!("cannot be read: {error}")))?
        .len();
    if bytes > FILE_BYTES_MAX {
        return Err(failed(format!(
            "{bytes} bytes are too long for a profile: at most {FILE_BYTES_MAX}"
        )));
    }
    std::fs::read_to_string(name).map_err(|error| failed(format!("cannot be read: {error}")))
}

#[cfg(test)]
mod tests;
