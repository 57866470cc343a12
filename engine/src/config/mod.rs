//! The configuration: one TOML file, parsed into types that need no second look.
//!
//! Invariants: a [`Config`] that exists is valid as a whole; relative paths have been resolved against the file's folder;
//! every refusal names file and line ([`ConfigError`]). `config/engine.toml` lists every key with its default and why;
//! a test holds it to [`document::KEYS`] and [`Settings::default`].

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod cameras;
pub mod document;
mod grants;
mod nearest;
mod sdp;
mod settings;
pub mod units;

pub use document::ConfigError;
pub use settings::{memory_min_bytes, usable_cpus};

use crate::stream::registry::Registry;
use document::Document;
use sha2::{Digest, Sha256};

/// Longest configuration file taken: ten thousand cameras with inline descriptions of the longest kind, and room.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Whether only enrolled keys are sealed to, where the file does not say.
pub const REQUIRE_ENROLMENT: bool = true;

/// A valid configuration.
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Where segments and keys are kept; absolute.
    pub data_dir: PathBuf,
    /// SHA-256 of the file, which the audit log holds.
    pub digest: [u8; 32],
    /// Whether only keys are sealed to that their customers enrolled.
    pub require_enrolment: bool,
    /// Everything that has a default.
    pub settings: Settings,
    /// The customers and cameras.
    pub registry: Arc<Registry>,
    /// Where the files are that it names.
    pub folders: Vec<PathBuf>,
}

/// What can be set, section by section. Its defaults are the defaults of the keys; `listen.rtp` has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where packets arrive.
    pub listen: Listen,
    /// Which CPUs record.
    pub shards: Shards,
    /// What the engine may take of memory.
    pub memory: Memory,
    /// When an open chunk is sealed.
    pub chunk: Chunk,
    /// When written chunks are made durable.
    pub commit: Commit,
    /// When a segment is closed.
    pub segment: Segment,
    /// When a closed segment is deleted.
    pub retention: Retention,
    /// Metrics and health.
    pub control: Control,
    /// Recovery of what a crash left.
    pub recovery: Recovery,
    /// How chunks are sealed.
    pub seal: Seal,
    /// What the process gives up.
    pub process: Process,
}

/// `[listen]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// Where RTP arrives; no two alike, none with port 0.
    pub rtp: Vec<SocketAddr>,
    /// Where RTCP arrives.
    pub rtcp: Rtcp,
}

/// Where RTCP arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rtcp {
    /// On RTP's port (RFC 5761) and on the port above it (RFC 3550 §11).
    #[default]
    Both,
    /// On RTP's port only.
    Same,
}

/// `[shards]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// One pinned shard for each; all of them usable by this process, no two alike, at least one.
    pub cpus: Vec<usize>,
}

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bound of all buffers, in bytes; at least [`memory_min_bytes`].
    pub limit_bytes: u64,
    /// Start even where buffers cannot be locked into memory.
    pub allow_unlocked: bool,
}

/// `[chunk]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Longest time from a chunk's first packet to its sealing.
    pub deadline: Duration,
}

/// `[commit]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Time between one shard's fdatasyncs; not above the chunk deadline.
    pub interval: Duration,
}

/// `[segment]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// A segment is closed at this age.
    pub max_age: Duration,
    /// A segment is closed before it grows beyond this; a multiple of 4096.
    pub max_bytes: u64,
}

/// `[retention]`: what is not set never deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Closed segments older than this are deleted.
    pub max_age: Option<Duration>,
    /// The oldest closed segments are deleted while all together take more than this.
    pub max_bytes: Option<u64>,
    /// The oldest closed segments are deleted while the file system has less than this free.
    pub min_free_bytes: Option<u64>,
}

/// `[control]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Where `/metrics`, `/healthz` and `/readyz` are served; nowhere if not set.
    pub listen: Option<SocketAddr>,
}

/// `[recovery]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How fast old segments are read beside recording.
    pub rate_limit_bytes_per_s: u64,
}

/// `[seal]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// Which AES-GCM seals.
    pub backend: SealBackend,
}

/// `[process]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Whom it becomes once its sockets are bound, if root started it.
    pub user: Option<String>,
    /// Do not start unless all of the sandbox is in force.
    pub require_sandbox: bool,
    /// Folders that a reload may read beside those of the configuration and of the files it names.
    pub read: Vec<PathBuf>,
}

/// Which AES-GCM seals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SealBackend {
    /// The fastest here, by a millisecond of measuring at start.
    #[default]
    Auto,
    /// The `aws-lc-rs` library.
    #[cfg(feature = "aws-lc")]
    AwsLc,
    /// The `ring` library.
    Ring,
    /// The `aes-gcm` library.
    AesGcm,
}

impl Default for Shards {
    fn default() -> Self {
        Shards { cpus: vec![0] }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            limit_bytes: 1 << 30,
            allow_unlocked: false,
        }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Chunk {
            deadline: Duration::from_millis(500),
        }
    }
}

impl Default for Commit {
    fn default() -> Self {
        Commit {
            interval: Duration::from_millis(20),
        }
    }
}

impl Default for Segment {
    fn default() -> Self {
        Segment {
            max_age: Duration::from_secs(60),
            max_bytes: 16 << 30,
        }
    }
}

impl Default for Recovery {
    fn default() -> Self {
        Recovery {
            rate_limit_bytes_per_s: 64 << 20,
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`, and every session description it names.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::from_text(path, read(path)?, &usable_cpus())
    }

    /// Checks `text` as if it stood in a file at `path`, on a machine with these CPUs.
    pub fn from_text(path: &Path, text: String, cpus: &[usize]) -> Result<Config, ConfigError> {
        let digest = Sha256::digest(&text).into();
        let document = Document::new(path, text);
        let root = document.parse()?;
        root.refuse_unknown()?;
        let data_dir = root.top().require("data_dir")?;
        let data_dir = match data_dir.text()? {
            "" => return Err(data_dir.error("must name a folder")),
            folder => path.parent().unwrap_or(Path::new("")).join(folder),
        };
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        let require_enrolment = root.top().get("require_enrolment");
        let require_enrolment = require_enrolment.map_or(Ok(REQUIRE_ENROLMENT), |value| value.flag())?;
        let registry = cameras::parse(&document, &root)?;
        let mut settings = settings::parse(&root, &registry, cpus)?;
        for folder in &mut settings.process.read {
            *folder = path.parent().unwrap_or(Path::new("")).join(&*folder);
        }
        Ok(Config {
            path: path.to_owned(),
            data_dir,
            digest,
            require_enrolment,
            settings,
            registry: Arc::new(registry),
            folders: document.folders_named(),
        })
    }

    /// The sections of `self` that differ from the running configuration's and take effect only at the next start.
    /// Cameras, customers and retention take effect at once.
    pub fn sections_needing_restart(&self, running: &Config) -> Vec<&'static str> {
        let (new, old) = (&self.settings, &running.settings);
        let changed = [
            ("data_dir", self.data_dir != running.data_dir),
            ("[listen]", new.listen != old.listen),
            ("[shards]", new.shards != old.shards),
            ("[memory]", new.memory != old.memory),
            ("[chunk]", new.chunk != old.chunk),
            ("[commit]", new.commit != old.commit),
            ("[segment]", new.segment != old.segment),
            ("[control]", new.control != old.control),
            ("[recovery]", new.recovery != old.recovery),
            ("[seal]", new.seal != old.seal),
            ("[process]", new.process != old.process),
        ];
        changed
            .into_iter()
            .filter(|(_, changed)| *changed)
            .map(|(name, _)| name)
            .collect()
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |message: String| ConfigError {
        file: path.to_owned(),
        line: None,
        message,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    file.map_err(|error| failed(crate::text::Plain(&error).to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(format!(
            "longer than {}",
            units::format_bytes(FILE_BYTES_MAX)
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|b| **b == b'\n').count();
        ConfigError {
            file: path.to_owned(),
            line: Some(line),
            message: "not UTF-8 text".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests;
