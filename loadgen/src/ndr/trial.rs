//! One real trial: the profile at a load, sent; the engine brought to rest; what it stored set against what was sent.
//!
//! Every trial has a key of its own for its marks, so that what an earlier trial stored is never taken for this one's. The
//! cameras are the same in all: the engine's configuration for the largest load fits every trial.

use super::dimension::Dim;
use super::hunt::{Attempt, Measured, Trial};
use super::search::Length;
use crate::camera::mix;
use crate::fleet::{Control, FleetError, RunOptions, run_plan};
use crate::output::OutputError;
use crate::output::folder::{RunFolder, SENT_LOG};
use crate::plan::Plan;
use crate::profile::{Profile, ProfileError};
use crate::report::unreachable;
use crate::result::{EngineFigures, RunResult, StoredFigures};
use crate::send::Method;
use crate::sentlog::{SentLog, SentLogError};
use crate::stats::{EngineLines, StatsError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The engine says something every two seconds; one that is silent this long is not there.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// Without its lines nobody knows when the engine is at rest: a hundred times its usual way to the disk.
const REST_UNSEEN: Duration = Duration::from_secs(2);

/// Why a trial came to nothing. No loss of the engine's is among them.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("{0}")]
    Profile(#[from] ProfileError),
    #[error("{0}")]
    Fleet(#[from] FleetError),
    #[error("{0}")]
    Stats(#[from] StatsError),
    #[error("{0}")]
    SentLog(#[from] SentLogError),
    #[error("{0}")]
    Stored(String),
    #[error("{0}")]
    Output(#[from] OutputError),
    #[error("{path}: no line of the engine's within {} s; is it `harborseal run --log json` that writes there?", HEARD_WITHIN.as_secs())]
    Silent { path: PathBuf },
    #[error("after trial {0}: {1}")]
    NoRest(usize, String),
    #[error("the target refused: nothing listens there")]
    Refused,
    #[error("cannot make a folder for the sent log: {0}")]
    Temporary(std::io::Error),
}

impl TrialError {
    /// Whether the command was wrong, and not a file or the engine.
    pub fn is_usage(&self) -> bool {
        matches!(self, TrialError::Profile(_))
    }
}

/// Looks up in the segments what was stored of a run.
pub type Look<'a> = &'a dyn Fn(&SentLog, Option<&EngineFigures>) -> Result<StoredFigures, String>;

/// Where it is read what the engine stored; at least one of both.
pub struct Engine<'a> {
    pub lines: Option<EngineLines>,
    pub look: Option<Look<'a>>,
    /// How long it may take to come to rest.
    pub settle: Duration,
}

/// Opens the engine's lines, and sees that there is an engine behind them before anything is sent.
pub fn open_lines(path: &Path) -> Result<EngineLines, TrialError> {
    let lines = EngineLines::open(path)?;
    match lines.wait_until_heard(HEARD_WITHIN) {
        true => Ok(lines),
        false => Err(TrialError::Silent {
            path: path.to_owned(),
        }),
    }
}

impl Engine<'_> {
    /// Waits until the engine has taken all it will take, and says what that was.
    fn rest(&self, number: usize, sent: u64) -> Result<Option<EngineFigures>, TrialError> {
        let Some(lines) = &self.lines else {
            std::thread::sleep(REST_UNSEEN.min(self.settle));
            return Ok(None);
        };
        lines
            .settle(self.settle, Some(sent))
            .map_err(|why| TrialError::NoRest(number, why))?;
        Ok(lines.figures(sent))
    }
}

/// Makes trials of a profile.
pub struct Trials<'a> {
    pub profile: &'a str,
    pub settings: &'a [String],
    pub dim: Dim,
    pub targets: &'a [SocketAddr],
    pub method: Method,
    pub cpu: Option<usize>,
    pub engine: Engine<'a>,
    /// Where each trial leaves a folder.
    pub folder: Option<&'a Path>,
    pub control: &'a Control,
}

impl Trials<'_> {
    pub fn attempt(&mut self, trial: &Trial) -> Result<Attempt, TrialError> {
        if self.control.stop.load(Ordering::Relaxed) {
            return Ok(Attempt::Stopped);
        }
        let (plan, settings) = self.plan(trial)?;
        let temporary = match self.engine.look.is_none() {
            true => None,
            false => Some(TemporaryFolder::new().map_err(TrialError::Temporary)?),
        };
        let folder = self
            .folder
            .map(|folder| RunFolder::create(&folder.join(name(trial)), false));
        let folder = folder.transpose()?;
        let sent_log = match (&folder, &temporary) {
            (Some(folder), _) => Some(folder.file(SENT_LOG)),
            (None, Some(temporary)) => Some(temporary.0.join(SENT_LOG)),
            (None, None) => None,
        };
        if let Some(lines) = &self.engine.lines {
            lines.begin();
        }
        let options = RunOptions {
            method: self.method,
            cpu: self.cpu,
            sent_log: sent_log.clone(),
            paced: true,
        };
        let mut result = run_plan(&plan, &options, self.control)?;
        let (load, sending) = (&result.load, &result.sending);
        if unreachable(load.sent, sending.refused, sending.packets_per_message) {
            return Err(TrialError::Refused);
        }
        if result.stopped {
            return Ok(Attempt::Stopped);
        }
        result.settings = settings;
        result.engine = self.engine.rest(trial.number, datagrams(&result))?;
        if let (Some(log), Some(look)) = (&sent_log, self.engine.look) {
            let log = SentLog::open(log)?;
            let stored = look(&log, result.engine.as_ref()).map_err(TrialError::Stored)?;
            result.stored = Some(stored);
        }
        if let Some(folder) = folder {
            folder.write_seconds(&result)?;
            folder.write_result(&result)?;
        }
        let measured = measured(&result);
        Ok(match result.valid {
            true => Attempt::Valid(measured),
            false => Attempt::Invalid(measured, result.invalid_because),
        })
    }

    /// The profile at the trial's load and length, and the settings that made it.
    fn plan(&self, trial: &Trial) -> Result<(Plan, Vec<String>), ProfileError> {
        let mut settings = self.settings.to_vec();
        settings.push(format!("seconds={}", trial.seconds));
        settings.push("warm_up=0".to_owned());
        let profile = Profile::load(self.profile, &settings)?;
        let value = self.dim.value(trial.load);
        let profile = profile.scale(self.dim.of_profile(), value)?;
        settings.push(format!("{}={value}", self.dim.setting()));
        let mut plan = Plan::from_profile(&profile, self.targets.to_vec())?;
        plan.run = mix(plan.run ^ trial.number as u64);
        Ok((plan, settings))
    }
}

/// `trial-007-final`.
fn name(trial: &Trial) -> String {
    let length = match trial.length {
        Length::Short => "",
        Length::Final => "-final",
    };
    format!("trial-{:03}{length}", trial.number)
}

/// Everything that left, whatever it was: the engine counts all that reaches it.
fn datagrams(result: &RunResult) -> u64 {
    let (load, impaired) = (&result.load, &result.impaired);
    load.sent + load.rtcp_sent + impaired.junk + impaired.unknown
}

/// The figures of a run, its loss by the segments where they were read and else by the engine's count.
fn measured(result: &RunResult) -> Measured {
    let load = &result.load;
    let measured = Measured {
        gbps: load.gbps,
        packets_per_second: load.packets_per_second,
        streams: load.streams,
        dropped: result.engine.as_ref().map(|engine| engine.dropped.values().sum()),
        cpu_ns_per_packet: result.engine.as_ref().and_then(|engine| engine.cpu_ns_per_packet),
        durable_ms_p99: result.engine.as_ref().and_then(|engine| engine.durable_ms_p99),
        ..Measured::default()
    };
    match (&result.stored, &result.engine) {
        (Some(stored), _) => measured.with_loss(stored.expected, stored.stored_loss),
        (None, engine) => {
            let expected = load.sent + load.rtcp_sent - result.impaired.runts.min(load.sent);
            let stored = engine.as_ref().map_or(0, |engine| engine.stored);
            measured.with_loss(expected, expected.saturating_sub(stored))
        }
    }
}

/// A folder that goes with its trial: a sent log takes 24 bytes for each packet.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> std::io::Result<TemporaryFolder> {
        let path = std::env::temp_dir().join(format!("harborseal-ndr-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(TemporaryFolder(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What cannot be removed from a temporary folder is the system's to remove.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
