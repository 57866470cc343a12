//! `run`: a profile's fleet, sent, watched, verified and judged.
//!
//! What can be wrong with the request is found before the first packet leaves. What the run came to is written into the folder also
//! when it was stopped, was invalid, or failed its assertions.

use super::verify::{self, ENGINE_JSONL, Failure, StoredArgs};
use super::{EXIT_FAILED, EXIT_INVALID, EXIT_UNREACHABLE, EXIT_USAGE, fail, people, resolve};
use crate::assert::{self, Assert};
use crate::environment;
use crate::fleet::{Control, FleetError, LiveSecond, RunOptions, run_plan};
use crate::output::csv::StreamRow;
use crate::output::folder::{LATENESS_HLOG, OutputError, PROFILE_TOML, RunFolder, SENT_LOG};
use crate::output::watch::{self, View};
use crate::output::{About, text};
use crate::plan::{Media, Plan};
use crate::profile::Profile;
use crate::program::Pacing;
use crate::report::unreachable;
use crate::result::RunResult;
use crate::send::{Method, Rtcp};
use crate::sentlog::SentLog;
use crate::spec::Phase;
use crate::stats::EngineLines;
use crate::verify::Known;
use clap::{Args, ValueEnum};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant, SystemTime};

/// The profile that `run` sends when none is named.
const DEFAULT_PROFILE: &str = "clip";
/// How long the engine may take to say its first line, and to come to rest behind the run.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Without the engine's lines nobody says when it has written what it took: its longest default deadlines, and some.
const SETTLE_UNHEARD: Duration = Duration::from_secs(3);

const AFTER_HELP: &str = "\
When a packet is due is fixed beforehand and stands in the packet; a generator that cannot keep up shows as lateness, and the run is \
then called INVALID.\n\n\
-s takes any key of the profile (group.NAME.count=200, load.shape=ramp, ...) and those that scale all of it: cameras, streams, mbps, \
total_mbps, pps. `profile show` prints what a profile and its settings come to.\n\n\
Exit status: 0 pass · 1 an assertion failed · 2 usage · 3 INVALID: the generator was the limit · 4 the target refused, or a file or \
socket failed.";

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = format!("{AFTER_HELP}\n\n{}", assert::help()), after_help = AFTER_HELP)]
pub struct RunCommand {
    /// A built-in profile or a file; without it `clip`: real H.264 in a loop
    #[arg(value_name = "PROFILE")]
    profile: Option<String>,
    /// Set a key of the profile; may be given often
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to send; given several times, the cameras are dealt out over the targets
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5004", value_parser = resolve)]
    target: Vec<SocketAddr>,
    #[command(flatten)]
    short: Short,
    /// Give stream i the SSRC N + i instead of one derived from the seed
    #[arg(long, value_name = "N")]
    ssrc_base: Option<u32>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    seen: Seen,
    #[command(flatten)]
    judged: Judged,
}

/// Settings with names of their own.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Short for -s")]
struct Short {
    /// Number of cameras
    #[arg(long, value_name = "N")]
    cameras: Option<u32>,
    /// Rate of each camera's video in Mb/s (RTP packets with their headers)
    #[arg(long, value_name = "R")]
    mbps: Option<f64>,
    /// How long the run takes
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Decides everything that is random
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Address to send from
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,
    /// Where sender reports go
    #[arg(long, value_enum)]
    rtcp: Option<Rtcp>,
    /// Seconds between a stream's sender reports
    #[arg(long, value_name = "S")]
    report_interval: Option<f64>,
    /// How the packets of a frame leave
    #[arg(long, value_enum)]
    pacing: Option<Pacing>,
    /// When the cameras' key frames come
    #[arg(long, value_enum)]
    phase: Option<Phase>,
    /// Packets that may leave back to back
    #[arg(long, value_name = "PACKETS")]
    burst: Option<usize>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sending")]
struct How {
    /// By which calls; what this system refuses is said, and the next best is taken
    #[arg(long, value_enum, default_value_t = Method::Gso, conflicts_with = "no_gso")]
    send: Method,
    /// The same as --send sendmmsg
    #[arg(long)]
    no_gso: bool,
    /// Pin the sending thread to this CPU; it may then wait awake
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Send the same packets as fast as they go, whatever their time: what this machine can
    #[arg(long)]
    unpaced: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
struct Seen {
    /// Put run.json, the sent log, seconds.csv, streams.csv, lateness.hlog and the profile there
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace a run that DIR holds
    #[arg(long, requires = "output")]
    force: bool,
    /// Write what was sent, packet by packet, to this file alone
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    sent_log: Option<PathBuf>,
    /// Show the run on the whole terminal (the default where there is one)
    #[arg(long, conflicts_with_all = ["plain", "quiet"])]
    tui: bool,
    /// A line now and then instead
    #[arg(long, conflicts_with = "quiet")]
    plain: bool,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    /// Print the result as one JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Verdict")]
struct Judged {
    /// What must hold, as 'stored_loss==0'; may be given often
    #[arg(long = "assert", value_name = "EXPR")]
    asserts: Vec<String>,
    /// The engine's JSON lines (`harborseal run --log json`): a file being written, or - for stdin
    #[arg(long, value_name = "FILE|-")]
    engine_stats: Option<PathBuf>,
    /// Verify what was stored: the engine's data folder
    #[arg(long, value_name = "DATA_DIR", num_args = 1.., requires = "identity")]
    segments: Vec<PathBuf>,
    /// Identities of the customers, by which the segments open
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "segments")]
    identity: Vec<String>,
}

/// Why a run did not come to its end, and the exit status that says so.
struct Stopped(u8, String);

impl Stopped {
    fn usage(error: impl ToString) -> Stopped {
        Stopped(EXIT_USAGE, error.to_string())
    }

    fn failed(error: impl ToString) -> Stopped {
        Stopped(EXIT_UNREACHABLE, error.to_string())
    }
}

impl From<OutputError> for Stopped {
    fn from(error: OutputError) -> Stopped {
        match error {
            OutputError::Taken { .. } => Stopped::usage(error),
            _ => Stopped::failed(error),
        }
    }
}

impl From<FleetError> for Stopped {
    fn from(error: FleetError) -> Stopped {
        match error {
            FleetError::Spec(_) | FleetError::Empty | FleetError::Cpu { .. } => Stopped::usage(error),
            _ => Stopped::failed(error),
        }
    }
}

impl From<Failure> for Stopped {
    fn from(error: Failure) -> Stopped {
        Stopped(error.status(), error.to_string())
    }
}

/// Runs the command.
pub fn run(args: &RunCommand) -> ExitCode {
    match prepare(args).and_then(|run| run.go()) {
        Ok(status) => status,
        Err(Stopped(status, why)) => fail(status, &why),
    }
}

/// A run whose request holds.
struct Run<'a> {
    args: &'a RunCommand,
    settings: Vec<String>,
    plan: Plan,
    asserts: Vec<Assert>,
    folder: Option<RunFolder>,
    /// Where the sent log goes, and whether it goes away again.
    sent_log: Option<PathBuf>,
    log_is_ours: bool,
    engine: Option<EngineLines>,
}

/// Everything that can be refused before a packet leaves.
fn prepare(args: &RunCommand) -> Result<Run<'_>, Stopped> {
    let settings = args.settings();
    let name = args.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    let profile = Profile::load(name, &settings).map_err(Stopped::usage)?;
    if let Some(bad) = args.target.iter().find(|target| target.port() == 0) {
        return Err(Stopped::usage(format!("{bad} is no target: port 0")));
    }
    let mut plan = Plan::from_profile(&profile, args.target.clone()).map_err(Stopped::usage)?;
    if let Some(base) = args.ssrc_base {
        for (number, stream) in (0..).zip(&mut plan.streams) {
            stream.ssrc = base.wrapping_add(number);
        }
    }
    let judged = &args.judged;
    let asserts = judged.asserts.iter().map(|text| text.parse());
    let asserts: Vec<Assert> = asserts.collect::<Result<_, _>>().map_err(Stopped::usage)?;
    let stored = !judged.segments.is_empty();
    if let Some(why) = assert::cannot_judge(&asserts, judged.engine_stats.is_some(), stored) {
        return Err(Stopped::usage(why));
    }
    if stored {
        verify::identities(&judged.identity)?;
        let missing = judged.segments.iter().find(|path| !path.exists());
        if let Some(path) = missing {
            return Err(Stopped::usage(format!(
                "--segments {}: there is no such thing",
                path.display()
            )));
        }
    }
    let engine = judged.engine_stats.as_deref().map(EngineLines::open);
    let engine = engine.transpose().map_err(Stopped::usage)?;
    let folder = args.seen.output.as_deref();
    let folder = folder
        .map(|path| RunFolder::create(path, args.seen.force))
        .transpose()?;
    if let Some(folder) = &folder {
        folder.replace(PROFILE_TOML, profile.to_toml().as_bytes())?;
    }
    let named = args.seen.sent_log.clone();
    let in_folder = folder.as_ref().map(|folder| folder.file(SENT_LOG));
    let ours = || std::env::temp_dir().join(format!("harborseal-loadgen-{}.sent", std::process::id()));
    let log_is_ours = stored && named.is_none() && in_folder.is_none();
    Ok(Run {
        args,
        settings,
        plan,
        asserts,
        sent_log: named.or(in_folder).or_else(|| log_is_ours.then(ours)),
        log_is_ours,
        folder,
        engine,
    })
}

impl RunCommand {
    /// All settings, the short forms behind those of -s.
    fn settings(&self) -> Vec<String> {
        let short = &self.short;
        let word = |value: clap::builder::PossibleValue| value.get_name().to_owned();
        let named = [
            ("cameras", short.cameras.map(|value| value.to_string())),
            ("mbps", short.mbps.map(|value| value.to_string())),
            ("seconds", short.seconds.map(|value| value.to_string())),
            ("seed", short.seed.map(|value| value.to_string())),
            ("source", short.source.map(|value| value.to_string())),
            (
                "rtcp",
                short.rtcp.and_then(|value| value.to_possible_value()).map(word),
            ),
            (
                "report_every",
                short.report_interval.map(|value| value.to_string()),
            ),
            (
                "pacing",
                short.pacing.and_then(|value| value.to_possible_value()).map(word),
            ),
            (
                "phase",
                short.phase.and_then(|value| value.to_possible_value()).map(word),
            ),
            ("burst", short.burst.map(|value| value.to_string())),
        ];
        let named = named.into_iter();
        let named = named.filter_map(|(key, value)| Some(format!("{key}={}", value?)));
        self.set.iter().cloned().chain(named).collect()
    }
}

impl Run<'_> {
    fn go(self) -> Result<ExitCode, Stopped> {
        let environment = environment::capture(self.args.seen.output.as_deref());
        self.hear_engine();
        let (control, seconds) = Control::watched();
        watch::stop_on_signals(&control.stop).map_err(Stopped::failed)?;
        let began = Instant::now();
        let sent = self.send(&control, seconds);
        let finished = sent.and_then(|mut result| {
            result.settings = self.settings.clone();
            result.environment = environment;
            self.ask_engine(&mut result, began)?;
            self.verify(&mut result)?;
            result.assertions = self.asserts.iter().map(|assert| assert.judge(&result)).collect();
            self.write(&result)?;
            Ok(result)
        });
        if let Some(log) = self.sent_log.as_deref().filter(|_| self.log_is_ours) {
            // A file in the folder for temporary ones; that it stays there is not worth an error.
            let _ = std::fs::remove_file(log);
        }
        self.tell(&finished?)
    }

    /// The engine's counters before the run, if it says any; a fresh engine has said nothing and counted nothing.
    fn hear_engine(&self) {
        let Some(engine) = &self.engine else { return };
        if !engine.wait_until_heard(HEARD_WITHIN) && !self.args.seen.quiet {
            people(
                "harborseal-loadgen: the engine has said nothing yet; its counters are taken to begin at 0\n"
                    .to_owned(),
            );
        }
        engine.begin();
    }

    /// Sends, with the view that was asked for; each second goes into lateness.hlog as it ends.
    fn send(&self, control: &Control, seconds: Receiver<LiveSecond>) -> Result<RunResult, Stopped> {
        let (how, seen) = (&self.args.how, &self.args.seen);
        let options = RunOptions {
            method: if how.no_gso { Method::Sendmmsg } else { how.send },
            cpu: how.cpu,
            sent_log: self.sent_log.clone(),
            paced: !how.unpaced,
        };
        let log = self
            .folder
            .as_ref()
            .map(|folder| folder.begin_hlog(LATENESS_HLOG, SystemTime::now()));
        let mut log = log.transpose()?;
        let (to_view, view) = sync_channel(16);
        let over = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let sent = run_plan(&self.plan, &options, control);
                over.store(true, Ordering::Relaxed);
                sent
            });
            let finished = || over.load(Ordering::Relaxed);
            let logging = scope.spawn(move || -> std::io::Result<()> {
                let mut last = false;
                while !last {
                    // Once more behind the end: the last second comes with it.
                    last = finished();
                    while let Ok(live) = seconds.recv_timeout(Duration::from_millis(50)) {
                        if let Some(log) = &mut log {
                            log.add(live.second.at_s, 1.0, &live.lateness)?;
                        }
                        // A view that is full or gone misses a second; the log has it.
                        let _ = to_view.try_send(live);
                    }
                }
                Ok(())
            });
            let chosen = View::choose(seen.plain, seen.quiet);
            watch::watch(chosen, About::of(&self.plan), control, &view, finished);
            let sent = sending.join().expect("the sending thread does not panic");
            let logged = logging.join().expect("the logging thread does not panic");
            let result = sent?;
            logged.map_err(|error| Stopped::failed(format!("cannot write {LATENESS_HLOG}: {error}")))?;
            Ok(result)
        })
    }

    /// Waits until the engine has come to rest, and takes its account.
    fn ask_engine(&self, result: &mut RunResult, began: Instant) -> Result<(), Stopped> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let datagrams = datagrams(result);
        if let Err(why) = engine.settle(SETTLED_WITHIN, Some(datagrams)) {
            people(format!("harborseal-loadgen: {why}\n"));
        }
        result.engine = engine.figures(datagrams);
        engine.fill(&mut result.seconds, began);
        if let Some(folder) = &self.folder {
            folder.replace(ENGINE_JSONL, engine.text().as_bytes())?;
        }
        Ok(())
    }

    /// Compares what was stored with what was sent.
    fn verify(&self, result: &mut RunResult) -> Result<(), Stopped> {
        let judged = &self.args.judged;
        let Some(path) = self.sent_log.as_deref().filter(|_| !judged.segments.is_empty()) else {
            return Ok(());
        };
        if self.engine.is_none() {
            std::thread::sleep(SETTLE_UNHEARD);
        }
        let log = SentLog::open(path).map_err(Stopped::failed)?;
        let stored = StoredArgs {
            segments: judged.segments.clone(),
            identity: judged.identity.clone(),
        };
        let dropped_of = self.engine.as_ref().and_then(EngineLines::dropped_of);
        let known = Known {
            impaired: Some(&result.impaired),
            engine: result.engine.as_ref(),
            dropped_of: dropped_of.as_ref(),
        };
        let verdict = verify::look(&log, &stored, known, self.args.seen.quiet)?;
        if let Some(folder) = &self.folder {
            verify::write(folder.path(), &verdict)?;
        }
        result.stored = Some(verdict.figures);
        Ok(())
    }

    fn write(&self, result: &RunResult) -> Result<(), Stopped> {
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.write_seconds(result)?;
        folder.write_streams(rows(&self.plan, result))?;
        folder.write_result(result)?;
        Ok(())
    }

    /// Prints the result; its status is the first of: refused, invalid, an assertion failed.
    fn tell(&self, result: &RunResult) -> Result<ExitCode, Stopped> {
        let text = match self.args.seen.json {
            true => {
                serde_json::to_string(result).expect("numbers and texts with text keys are always JSON")
                    + "\n"
            }
            false => text::report(result),
        };
        let printed = std::io::stdout().write_all(text.as_bytes());
        printed.map_err(|error| Stopped::failed(format!("cannot write the report: {error}")))?;
        let (load, sending) = (&result.load, &result.sending);
        let failed: Vec<&str> = result
            .assertions
            .iter()
            .filter(|assertion| !assertion.holds)
            .map(|assertion| assertion.text.as_str())
            .collect();
        Ok(
            if unreachable(
                load.sent + result.impaired.unknown,
                sending.refused,
                sending.packets_per_message,
            ) {
                fail(EXIT_UNREACHABLE, "the target refused: nothing listens there")
            } else if !result.valid {
                fail(
                    EXIT_INVALID,
                    &format!("INVALID: {}", result.invalid_because.join("; ")),
                )
            } else if !failed.is_empty() {
                fail(EXIT_FAILED, &format!("failed: {}", failed.join(", ")))
            } else {
                ExitCode::SUCCESS
            },
        )
    }
}

/// Everything that left, as the engine counts it.
fn datagrams(result: &RunResult) -> u64 {
    result.load.sent + result.impaired.unknown + result.impaired.junk + result.load.rtcp_sent
}

/// What each stream was and sent.
pub fn rows<'a>(plan: &'a Plan, result: &'a RunResult) -> impl Iterator<Item = StreamRow> + 'a {
    (0..)
        .zip(&plan.streams)
        .zip(&result.streams)
        .map(|((number, stream), count)| {
            let camera = &plan.cameras[stream.camera as usize];
            let media = match stream.media {
                Media::H264 => "h264",
                Media::H265 => "h265",
                Media::Pcmu => "pcmu",
            };
            StreamRow {
                stream: number,
                camera: camera.id.clone(),
                customer: plan.customers[camera.customer as usize].clone(),
                group: plan.groups[camera.group as usize].name.clone(),
                media: media.to_owned(),
                ssrc: stream.ssrc,
                target: plan.targets[stream.target as usize].to_string(),
                intended: count.intended,
                sent: count.sent,
                sent_bytes: count.sent_bytes,
                not_sent: count.not_sent,
                impaired_lost: count.lost,
                rtcp_sent: count.rtcp_sent,
            }
        })
}

#[cfg(test)]
mod tests;
