//! `replay`: a capture, sent again by any number of clones.

use super::profile::{self, engine_config as files};
use super::{
    EXIT_INVALID, EXIT_UNREACHABLE, EXIT_USAGE, fail, people, resolve, show_progress, stop_on_signals,
};
use crate::fleet::Control;
use crate::output::OutputError;
use crate::output::csv::StreamRow;
use crate::output::folder::{LATENESS_HLOG, RunFolder, SENT_LOG};
use crate::replay::account::Played;
use crate::replay::capture::Capture;
use crate::replay::codec;
use crate::replay::engine_config;
use crate::replay::find::{Found, find};
use crate::replay::play::{CUSTOMER, Options, PlayError, ReplayCamera, play};
use crate::replay::score::Times;
use crate::result::RunResult;
use crate::send::Rtcp;
use clap::Args;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// One replay.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Read are pcap and pcapng, of Ethernet (VLAN too), Linux cooked, raw IP and loopback, with IPv4 or IPv6. RTP is recognised by \
its behaviour: version 2, steady sequence numbers of one SSRC, an even port; RTCP by its SSRC. What was left out is said. The \
times of the capture are intended times: a generator that cannot keep up shows as lateness, and the replay is then invalid.

Each clone has SSRCs, sequence numbers and timestamps of its own; nothing else in a packet changes, so `verify` knows each by \
its bytes. --mark puts in the header extension that `run` uses, which lengthens packets by 36 bytes.")]
pub struct ReplayArgs {
    /// The capture
    #[arg(value_name = "FILE.pcap")]
    file: PathBuf,
    /// How many times each stream is sent side by side
    #[arg(long, value_name = "N", default_value_t = 1)]
    clone: u32,
    /// Where to send; given several times, clones are dealt out over the targets
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5004", value_parser = resolve)]
    target: Vec<SocketAddr>,
    /// Address to send from
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,
    /// How much faster than captured
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    speed: f64,
    /// How often to send the capture, one after the other
    #[arg(long = "loop", value_name = "N", default_value_t = 1)]
    loops: u64,
    /// Only streams to this port of the capture, whatever it looks like; may be given several times
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// Seconds over which the clones begin, one after another [default: the capture's length, at most 2]
    #[arg(long, value_name = "S")]
    spread: Option<f64>,
    /// Decides SSRCs and offsets: the same seed gives the same packets
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Keep the capture's SSRCs, sequence numbers and timestamps (for one clone)
    #[arg(long)]
    keep: bool,
    /// Put the load generator's mark into packets that have no header extension
    #[arg(long)]
    mark: bool,
    /// Where sender reports go
    #[arg(long, value_enum, default_value_t = Rtcp::Same)]
    rtcp: Rtcp,
    /// Pin the sending thread to this CPU
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Leave a run's folder there: sent log, figures by second and stream
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace the run that the folder holds
    #[arg(long, requires = "output")]
    force: bool,
    /// Only say what was found and would be sent
    #[arg(long)]
    dry_run: bool,
    /// Print the session descriptions (SDP) of the streams as they would be sent, and send nothing
    #[arg(long, conflicts_with_all = ["dry_run", "json"])]
    sdp: bool,
    /// Write an engine.toml for the replay's cameras there, with an identity beside it, and send nothing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dry_run", "json", "sdp"])]
    engine_config: Option<PathBuf>,
    /// Print the result as one JSON object on stdout
    #[arg(long)]
    json: bool,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    /// Milliseconds between lines of progress where stderr is no terminal
    #[arg(long, hide = true, default_value_t = 5000)]
    progress_ms: u64,
}

pub fn run(args: &ReplayArgs) -> ExitCode {
    let capture = match Capture::open(&args.file) {
        Ok(capture) => capture,
        Err(error) => return fail(EXIT_USAGE, &error.to_string()),
    };
    let found = match find(capture, &args.port) {
        Ok(found) => found,
        Err(error) => return fail(EXIT_USAGE, &error.to_string()),
    };
    if !args.quiet {
        people(format!("{}\n", told(&args.file, &found)));
    }
    if found.streams.is_empty() {
        return fail(EXIT_USAGE, &nothing_found(&args.file, &args.port));
    }
    let options = args.options();
    if let Err(error) = options.times.check(found.streams.len()) {
        return fail(EXIT_USAGE, &error.to_string());
    }
    match () {
        () if args.sdp => print_sdps(&found, &options),
        () if args.engine_config.is_some() => {
            let folder = args.engine_config.as_deref().unwrap_or(Path::new("."));
            match write_engine_config(folder, &found, &options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(error.status, &error.message),
            }
        }
        () if args.dry_run => ExitCode::SUCCESS,
        () => send(args, &found, options),
    }
}

impl ReplayArgs {
    fn options(&self) -> Options {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        Options {
            name: format!("replay of {}", name.to_string_lossy()),
            times: Times {
                clones: self.clone,
                speed: self.speed,
                loops: self.loops,
                spread_s: self.spread,
                seed: self.seed,
                keep: self.keep,
            },
            targets: self.target.clone(),
            source: self.source,
            rtcp: self.rtcp,
            mark: self.mark,
            sent_log: self.output.as_deref().map(|folder| folder.join(SENT_LOG)),
        }
    }
}

fn send(args: &ReplayArgs, found: &Found, options: Options) -> ExitCode {
    let folder = args
        .output
        .as_deref()
        .map(|path| RunFolder::create(path, args.force));
    let folder = match folder.transpose() {
        Ok(folder) => folder,
        Err(error @ OutputError::Taken { .. }) => return fail(EXIT_USAGE, &error.to_string()),
        Err(error) => return fail(EXIT_UNREACHABLE, &error.to_string()),
    };
    let control = Control::default();
    if let Err(error) = stop_on_signals(&control) {
        return fail(EXIT_UNREACHABLE, &error.to_string());
    }
    let played = std::thread::scope(|scope| {
        let sending = scope.spawn(|| play(found, &options, args.cpu, &control));
        if !args.quiet {
            show_progress(args.progress_ms, &control, || sending.is_finished());
        }
        sending.join().expect("the sending thread does not panic")
    });
    let played = match played {
        Ok(played) => played,
        Err(error @ PlayError::Times(_)) => return fail(EXIT_USAGE, &error.to_string()),
        Err(error) => return fail(EXIT_UNREACHABLE, &error.to_string()),
    };
    if let Some(folder) = folder
        && let Err(error) = write_folder(&folder, &played, found, &options)
    {
        return fail(EXIT_UNREACHABLE, &error.to_string());
    }
    finish(&played, args.json)
}

fn write_folder(
    folder: &RunFolder,
    played: &Played,
    found: &Found,
    options: &Options,
) -> Result<(), OutputError> {
    let start = UNIX_EPOCH + Duration::from_nanos(played.start_ns);
    let mut log = folder.begin_hlog(LATENESS_HLOG, start)?;
    for (second, lateness) in &played.lateness {
        log.add(second.at_s, 1.0, lateness)
            .map_err(|error| OutputError::Write {
                path: folder.file(LATENESS_HLOG),
                error,
            })?;
    }
    folder.write_seconds(&played.result)?;
    let streams = found.streams.len();
    let row = |(index, count): (usize, &crate::report::StreamCount)| {
        let (clone, stream) = (index / streams, index % streams);
        StreamRow {
            stream: index as u32,
            camera: found.camera(clone as u32, stream),
            customer: CUSTOMER.to_owned(),
            group: found.streams[stream].source.to_string(),
            media: codec::guess(found, stream).name().to_owned(),
            ssrc: count.ssrc,
            target: options.targets[options.target(found, index as u32)].to_string(),
            intended: count.sent + count.not_sent,
            sent: count.sent,
            sent_bytes: count.sent_bytes,
            not_sent: count.not_sent,
            impaired_lost: 0,
            rtcp_sent: count.rtcp_sent,
        }
    };
    folder.write_streams(played.streams.iter().enumerate().map(row))?;
    folder.write_result(&played.result)
}

fn finish(played: &Played, json: bool) -> ExitCode {
    let result = &played.result;
    let text = if json {
        serde_json::to_string(result).expect("a result of numbers and texts is always JSON")
    } else {
        summary(result)
    };
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        return fail(EXIT_UNREACHABLE, &format!("cannot write the result: {error}"));
    }
    if played.unreachable {
        fail(EXIT_UNREACHABLE, "the target refused: nothing listens there")
    } else if !result.valid {
        let because = result.invalid_because.join("; ");
        fail(EXIT_INVALID, &format!("INVALID: {because}"))
    } else {
        ExitCode::SUCCESS
    }
}

fn summary(result: &RunResult) -> String {
    let (load, sending) = (&result.load, &result.sending);
    let late = &sending.lateness_ms;
    let until = if result.stopped {
        " until it was stopped"
    } else {
        ""
    };
    let verdict = if result.valid { "valid" } else { "INVALID" };
    [
        format!(
            "replay     {} streams of {} clones, seed {}",
            load.streams, load.cameras, result.seed
        ),
        format!("intended   {} packets{until}", load.intended),
        format!(
            "sent       {} packets, {} bytes; {} RTCP",
            load.sent, load.sent_bytes, load.rtcp_sent
        ),
        format!("not sent   {}", load.not_sent),
        format!(
            "rate       {:.3} Gb/s, {:.0} packets/s over {:.1} s",
            load.gbps, load.packets_per_second, load.duration_s
        ),
        format!(
            "lateness   {:.2} ms (p50), {:.2} ms (p99), {:.2} ms (max)",
            late.p50, late.p99, late.max
        ),
        format!("load       {verdict}"),
    ]
    .join("\n")
}

/// What the capture holds, for people.
fn told(file: &Path, found: &Found) -> String {
    let mut text = format!(
        "{}: {} frames, RTP streams: {}, over {:.3} s",
        file.display(),
        found.frames,
        found.streams.len(),
        found.span_ns as f64 / 1e9
    );
    const LISTED: usize = 20;
    for (index, stream) in found.streams.iter().enumerate().take(LISTED) {
        let rtcp = stream.packets.len() as u64 - stream.rtp_packets;
        let lost = stream.sequence_span.saturating_sub(stream.rtp_packets);
        write!(
            text,
            "\n  {} → {}  ssrc {:08x}  {}  {} packets, {rtcp} RTCP, {lost} missing in the capture",
            stream.source,
            stream.target,
            stream.ssrc,
            codec::guess(found, index).name(),
            stream.rtp_packets,
        )
        .expect("writing to a String cannot fail");
    }
    let mut line = |line: String| {
        text.push_str("\n  ");
        text.push_str(&line);
    };
    if found.streams.len() > LISTED {
        line(format!("and {} more", found.streams.len() - LISTED));
    }
    for (reason, count) in &found.skipped {
        line(format!("left out: {count} {reason}"));
    }
    if found.other > 0 {
        line(format!("left out: {} datagrams of no RTP stream", found.other));
    }
    if found.oversize > 0 {
        line(format!(
            "{} packets are above 1,500 bytes: batches, captured before the card cut them; they are sent as they are",
            found.oversize
        ));
    }
    if found.ended_within_a_record {
        line("the capture ends within a record; what came before is used".to_owned());
    }
    text
}

fn nothing_found(file: &Path, ports: &[u16]) -> String {
    let hint = match ports {
        [] => "name its port with --port if you know that there is some",
        _ => "leave out --port to look at all of them",
    };
    format!("{}: no RTP was found; {hint}", file.display())
}

fn print_sdps(found: &Found, options: &Options) -> ExitCode {
    let cameras = options.cameras(found);
    let sdp = |camera: &ReplayCamera| codec::sdp(found, &camera.id, &camera.streams, camera.target);
    let texts: Vec<String> = cameras.iter().filter_map(sdp).collect();
    if let Err(error) = std::io::stdout().write_all(texts.concat().as_bytes()) {
        return fail(
            EXIT_UNREACHABLE,
            &format!("cannot write the descriptions: {error}"),
        );
    }
    let unknown = cameras.len() - texts.len();
    if unknown > 0 {
        people(format!(
            "{unknown} cameras have no description: their codec could not be told\n"
        ));
    }
    ExitCode::SUCCESS
}

fn write_engine_config(folder: &Path, found: &Found, options: &Options) -> Result<(), profile::Failure> {
    let sources = options
        .targets
        .iter()
        .map(|target| files::source(options.source, *target));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let path = files::config_path(folder)?;
    let identity = files::identity(&folder.join(format!("{CUSTOMER}.identity")))?;
    let cpu = files::first_cpu();
    let text = engine_config::to_toml(found, options, cpu, &identity.public().to_text(), &sources);
    files::write_config(&path, &text)
}
