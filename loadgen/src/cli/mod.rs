//! The command line of the load generator. [`RunArgs`] and [`send`] serve `harborseal demo`, whose fleet is a process of its own.
//!
//! Progress goes to stderr; the result to stdout, as text or with `--json` as one object.

mod compare;
mod doctor;
mod ndr;
mod profile;
mod replay;
mod report;
mod run;
pub mod verify;

use crate::clip::Clip;
use crate::fleet::{self, Control, FleetError};
use crate::program::Pacing;
use crate::report::FleetReport;
use crate::send::Rtcp;
use crate::spec::{FleetSpec, Phase};
use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_INVALID: u8 = 3;
const EXIT_UNREACHABLE: u8 = 4;

/// A fleet of RTP cameras that says exactly what it sent.
#[derive(Debug, Parser)]
#[command(
    name = "harborseal-loadgen",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "\
Exit status: 0 pass · 1 an assertion failed, or what was stored differs · 2 usage · 3 INVALID: the load was not the one asked for, \
the generator was the limit (late, stretched, unsent packets) · 4 the target refused, or a file or socket failed.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a fleet of cameras to a target and report what was sent
    Run(Box<run::RunCommand>),
    /// Find the highest load that the engine takes with a given loss
    Ndr(Box<ndr::NdrArgs>),
    /// Send the RTP of a capture again, with any number of clones
    Replay(Box<replay::ReplayArgs>),
    /// Tell what a finished run came to: in words, or as one HTML page with plots
    Report(report::ReportArgs),
    /// Compare two sets of runs, and tell a difference from noise
    Compare(Box<compare::CompareArgs>),
    /// Look for what would spoil a run on this machine
    Doctor(doctor::DoctorArgs),
    /// Compare what was stored with what was sent, packet by packet
    Verify(verify::VerifyArgs),
    /// Say what profiles there are, what one comes to, and write the engine's configuration for it
    #[command(subcommand)]
    Profile(profile::Command),
    /// Print the session description (SDP) of one camera of a fleet
    Sdp {
        /// Which camera, from 0
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        camera: u32,
        #[command(flatten)]
        fleet: FleetArgs,
    },
}

/// What identifies a fleet's cameras.
#[derive(Debug, Clone, Args)]
pub struct FleetArgs {
    /// Where to send; given several times, the cameras are dealt out over the targets
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5004", value_parser = resolve)]
    pub target: Vec<SocketAddr>,
    /// Decides SSRCs and first sequence numbers: the same seed gives the same fleet
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Give camera i the SSRC N + i instead of one derived from the seed
    #[arg(long, value_name = "N")]
    pub ssrc_base: Option<u32>,
}

/// One run of the clip, as `harborseal demo` starts it.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Every camera sends a real H.264 clip in a loop (RFC 6184), each beginning at a key frame; below the clip's rate (1 Mb/s) \
frames come more slowly, above it filler is added. When a packet is due is fixed beforehand and stands in the packet; \
a generator that cannot keep up shows as lateness, and the run is then called invalid.")]
pub struct RunArgs {
    /// Number of cameras
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub cameras: u32,
    /// Rate of each camera in Mb/s (RTP packets with their headers)
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub mbps: f64,
    /// How long each camera sends; they begin one after another, over one key frame interval
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Address to send from
    #[arg(long, value_name = "IP")]
    pub source: Option<IpAddr>,
    /// Where sender reports go
    #[arg(long, value_enum, default_value_t = Rtcp::Same)]
    pub rtcp: Rtcp,
    /// Seconds between a camera's sender reports
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub report_interval: f64,
    /// How the packets of a frame leave
    #[arg(long, value_enum, default_value_t = Pacing::Smooth)]
    pub pacing: Pacing,
    /// When the cameras' key frames come
    #[arg(long, value_enum, default_value_t = Phase::Spread)]
    pub phase: Phase,
    /// Packets that may leave back to back
    #[arg(long, value_name = "PACKETS", default_value_t = 8)]
    pub burst: usize,
    /// Send each packet by itself instead of bursts by UDP_SEGMENT
    #[arg(long)]
    pub no_gso: bool,
    /// Pin the sending thread to this CPU
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// Write what was sent, packet by packet, to this file
    #[arg(long, value_name = "FILE")]
    pub sent_log: Option<PathBuf>,
    /// Print the result as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
    /// Milliseconds between lines of progress where stderr is no terminal
    #[arg(long, hide = true, default_value_t = 5000)]
    pub progress_ms: u64,
}

impl RunArgs {
    fn spec(&self) -> FleetSpec {
        FleetSpec {
            cameras: self.cameras,
            mbps: self.mbps,
            seconds: self.seconds,
            targets: self.fleet.target.clone(),
            source: self.source,
            seed: self.fleet.seed,
            ssrc_base: self.fleet.ssrc_base,
            rtcp: self.rtcp,
            report_seconds: self.report_interval,
            pacing: self.pacing,
            phase: self.phase,
            burst_packets: self.burst,
            gso: !self.no_gso,
            cpu: self.cpu,
            sent_log: self.sent_log.clone(),
        }
    }
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| format!("{error}; wanted is address:port"))?;
    found.next().ok_or_else(|| "this name has no address".to_owned())
}

/// Parses the process's arguments and runs the command.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Ndr(args) => ndr::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Report(args) => report::main(&args),
        Command::Compare(args) => compare::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Profile(command) => profile::run(&command),
        Command::Sdp { camera, fleet } => print_sdp(camera, fleet),
    }
}

/// Sends the fleet that the arguments describe, with progress, until its end or SIGINT/SIGTERM; a second one ends the
/// process at once.
pub fn send(args: &RunArgs) -> Result<FleetReport, FleetError> {
    let control = Control::default();
    stop_on_signals(&control)?;
    let spec = args.spec();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| fleet::run(&spec, &control));
        if !args.quiet {
            show_progress(args.progress_ms, &control, || sending.is_finished());
        }
        sending.join().expect("the sending thread does not panic")
    })
}

/// The first SIGINT or SIGTERM asks for a stop; a second one ends the process at once.
fn stop_on_signals(control: &Control) -> Result<(), FleetError> {
    for signal in [SIGINT, SIGTERM] {
        // The one for the second signal is registered first: it acts only where the other has already set the flag.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&control.stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&control.stop)))
            .map_err(FleetError::Signal)?;
    }
    Ok(())
}

fn print_sdp(camera: u32, fleet: FleetArgs) -> ExitCode {
    let spec = FleetSpec {
        seed: fleet.seed,
        ssrc_base: fleet.ssrc_base,
        ..FleetSpec::new(camera.saturating_add(1), 1.0, 1.0, fleet.target)
    };
    if let Err(error) = spec.check() {
        return fail(EXIT_USAGE, &error.to_string());
    }
    match write!(std::io::stdout(), "{}", spec.sdp(&Clip::builtin(), camera)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(
            EXIT_UNREACHABLE,
            &format!("cannot write the description: {error}"),
        ),
    }
}

/// One live line on a terminal; without one a line now and then.
fn show_progress(every_ms: u64, control: &Control, finished: impl Fn() -> bool) {
    let terminal = std::io::stderr().is_terminal();
    let every = Duration::from_millis(if terminal { 500 } else { every_ms });
    let start = Instant::now();
    let mut last = (start, 0, 0);
    while !finished() {
        std::thread::sleep(Duration::from_millis(50));
        let now = Instant::now();
        if now - last.0 < every {
            continue;
        }
        let (sent, bytes) = (
            control.sent.load(Ordering::Relaxed),
            control.sent_bytes.load(Ordering::Relaxed),
        );
        let seconds = (now - last.0).as_secs_f64();
        let line = format!(
            "{:6.1} s  {:6.3} Gb/s  {:8.0} packets/s  {:7.1} ms late",
            (now - start).as_secs_f64(),
            (bytes - last.2) as f64 * 8e-9 / seconds,
            (sent - last.1) as f64 / seconds,
            control.late_ns.load(Ordering::Relaxed) as f64 / 1e6,
        );
        people(if terminal {
            format!("\r{line}\x1b[K")
        } else {
            format!("{line}\n")
        });
        last = (now, sent, bytes);
    }
    if terminal && last.1 > 0 {
        people("\n".to_owned());
    }
}

fn fail(status: u8, message: &str) -> ExitCode {
    people(format!("harborseal-loadgen: {message}\n"));
    ExitCode::from(status)
}

/// Text for people. That nobody reads it is no reason to fail.
fn people(text: String) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_target_that_is_no_address_is_a_usage_error() {
        for bad in ["localhost", "127.0.0.1", "127.0.0.1:65536", ""] {
            assert!(
                Cli::try_parse_from(["loadgen", "run", "--target", bad]).is_err(),
                "{bad}"
            );
        }
        assert!(Cli::try_parse_from(["loadgen", "run", "--target", "[::1]:5004"]).is_ok());
    }
}
