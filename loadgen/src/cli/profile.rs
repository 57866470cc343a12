//! `profile`: what profiles there are, what one comes to, whether it is valid, and the engine's configuration for it.

use super::{EXIT_UNREACHABLE, EXIT_USAGE, fail, resolve};
use crate::plan::{Impairments, Media, Plan};
use crate::profile::units::format_ns;
use crate::profile::{BUILTIN, ENGINE_CONFIG_MARK, EngineConfig, GroupProfile, Offered, Profile, Video};
use crate::program::Pacing;
use clap::{Args, Subcommand};
use harborseal_segment::identity::Identity;
use harborseal_segment::random::os_random;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
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

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The folder then holds engine.toml, with the cameras' session descriptions in it, and one identity file per customer (mode \
0600). Identities that are already there are kept, so that what was recorded for them stays readable. Next:

  harborseal check --config DIR/engine.toml
  harborseal run --config DIR/engine.toml")]
pub(super) struct EngineConfigArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Where the engine listens, and the fleet will send; given several times, the cameras are dealt out over them
    #[arg(long, value_name = "IP:PORT", required = true, value_parser = resolve)]
    target: Vec<SocketAddr>,
    /// Folder to write into; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Where the engine keeps segments, seen from DIR
    #[arg(long, value_name = "DIR", default_value = "data")]
    data_dir: String,
    /// CPUs the engine records on [default: the first that this process may use]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    cpus: Vec<usize>,
}

pub(super) fn run(command: &Command) -> ExitCode {
    let done = match command {
        Command::List { json } => print(&list(*json)),
        Command::Show(chosen) => chosen.load().and_then(|profile| print(&profile.to_toml())),
        Command::Check { chosen, json } => chosen.load().and_then(|profile| check(&profile, *json)),
        Command::EngineConfig(args) => engine_config(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(failure.status, &failure.message),
    }
}

/// Why a command failed, and with which exit status.
struct Failure {
    status: u8,
    message: String,
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
    let (cameras, streams) = (thousands(offered.cameras), thousands(offered.streams));
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
         cameras    {cameras} of {} customers, {streams} streams, seed {}\n\
         at peak    {} Mb/s, {} packets/s{off}\n\
         bursts     {} packets of a stream at once at most; the largest frame has {}\n\
         duration   {}{warm_up}\n\
         memory     {:.1} MB for the plan\n\n",
        profile.name,
        profile.about,
        thousands(offered.customers),
        profile.seed,
        thousands(mbps.round() as u64),
        thousands(pps.round() as u64),
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
    let count = thousands(u64::from(group.count));
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

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn engine_config(args: &EngineConfigArgs) -> Result<(), Failure> {
    let profile = args.chosen.load()?;
    let plan = Plan::from_profile(&profile, args.target.clone()).map_err(Failure::usage)?;
    let cpus = match args.cpus.as_slice() {
        [] => vec![first_cpu()],
        cpus => cpus.to_vec(),
    };
    let sources = args.target.iter().map(|target| source(&profile, *target));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let made = DirBuilder::new().mode(0o700).recursive(true).create(&args.output);
    made.map_err(|why| Failure::file("make the folder", &args.output, &why))?;
    let path = args.output.join("engine.toml");
    refuse_foreign(&path)?;
    let identities = profile
        .customers
        .iter()
        .map(|name| identity(&args.output.join(format!("{name}.identity"))));
    let identities = identities.collect::<Result<Vec<_>, _>>()?;
    let public_keys: Vec<String> = identities
        .iter()
        .map(|identity| identity.public().to_text())
        .collect();
    let config = EngineConfig {
        profile: &profile,
        plan: &plan,
        data_dir: &args.data_dir,
        cpus: &cpus,
        public_keys: &public_keys,
        sources: &sources,
    };
    fs::write(&path, config.to_toml()).map_err(|why| Failure::file("write", &path, &why))?;
    let known = plan
        .cameras
        .iter()
        .filter(|camera| !plan.groups[camera.group as usize].unknown)
        .count();
    print(&format!(
        "{}: {} cameras of {} customers, whose identities stand beside it\n",
        path.display(),
        thousands(known as u64),
        thousands(identities.len() as u64),
    ))
}

/// The address that packets to `target` come from.
fn source(profile: &Profile, target: SocketAddr) -> Result<IpAddr, Failure> {
    if let Some(source) = profile.source {
        return Ok(source);
    }
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting sends nothing: it asks the kernel for its route.
    let local = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(target)?;
        socket.local_addr()
    });
    local.map(|local| local.ip()).map_err(|why| Failure {
        status: EXIT_UNREACHABLE,
        message: format!(
            "no way to {target}: {why}; to write a configuration for elsewhere, set -s source=IP"
        ),
    })
}

fn first_cpu() -> usize {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count())
        .find(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .unwrap_or(0)
}

/// A configuration that somebody else wrote stays as it is.
fn refuse_foreign(path: &Path) -> Result<(), Failure> {
    match fs::read_to_string(path) {
        Ok(text) if text.starts_with(ENGINE_CONFIG_MARK) => Ok(()),
        Ok(_) => Err(Failure::usage(format!(
            "{} is there and is not ours: name another folder",
            path.display()
        ))),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(Failure::file("read", path, &why)),
    }
}

/// The identity in a file; if there is none, a new one, as `harborseal keygen` makes it.
fn identity(path: &Path) -> Result<Identity, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let text = zeroize::Zeroizing::new(text);
            return Identity::from_file_text(&text)
                .map_err(|why| Failure::usage(format!("{}: {why}", path.display())));
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(Failure::file("read", path, &why)),
    }
    let identity = Identity::generate(&mut os_random());
    let write = |mut file: File| {
        // The mode given to open() is cut by the umask; exactly 0600 is promised.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(identity.to_file_text().as_bytes())
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(write)
        .map_err(|why| Failure::file("write", path, &why))?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(profile: &str, settings: &[&str]) -> Chosen {
        Chosen {
            profile: profile.to_owned(),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
        }
    }

    fn args(profile: &str, output: &Path) -> EngineConfigArgs {
        EngineConfigArgs {
            chosen: chosen(profile, &[]),
            target: vec!["127.0.0.1:5004".parse().expect("an address")],
            output: output.to_owned(),
            data_dir: "data".to_owned(),
            cpus: vec![0],
        }
    }

    #[test]
    fn a_check_says_what_a_profile_asks_for() {
        let profile = chosen("city", &[]).load().ok().expect("valid");
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

    #[test]
    fn identities_are_private_and_kept_and_a_foreign_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(engine_config(&args("tiny", folder.path())).is_ok());
        let path = folder.path().join("alice.identity");
        assert_eq!(
            path.metadata().expect("made").permissions().mode() & 0o7777,
            0o600
        );
        let before = fs::read(&path).expect("an identity");
        assert!(engine_config(&args("clip", folder.path())).is_ok());
        assert_eq!(fs::read(&path).expect("an identity"), before);
        let config = folder.path().join("engine.toml");
        fs::write(&config, "data_dir = \"precious\"\n").expect("written");
        let failure = engine_config(&args("tiny", folder.path()))
            .err()
            .expect("refused");
        assert_eq!(failure.status, EXIT_USAGE);
        assert_eq!(
            fs::read(&config).expect("still there"),
            b"data_dir = \"precious\"\n"
        );
    }

    #[test]
    fn strangers_are_left_out_and_cameras_of_their_own_address_are_known_by_it_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(engine_config(&args("bad-network", folder.path())).is_ok());
        let text = fs::read_to_string(folder.path().join("engine.toml")).expect("written");
        assert!(!text.contains("stranger"));
        let by_address = text
            .split("[[camera]]")
            .find(|camera| camera.contains("\"restarting-known-00002\""));
        let by_address = by_address.expect("configured");
        assert!(
            by_address.contains("source = \"127.64.0.1:20004\""),
            "{by_address}"
        );
        assert!(!by_address.contains("ssrc"), "{by_address}");
        let both = text
            .split("[[camera]]")
            .find(|camera| camera.contains("\"everything-00000\""));
        let both = both.expect("configured");
        assert!(both.contains("m=video") && both.contains("m=audio"), "{both}");
    }
}
