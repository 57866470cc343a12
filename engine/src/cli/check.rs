//! `harborseal check`: would `run` start here with this configuration, and what would it do without?
//!
//! Disturbs nothing: it binds no port that is in use, leaves no file behind, and takes memory for a moment only.

mod enrolments;
mod protections;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use harborseal_segment::cipher::Backend;
use serde::Serialize;

use super::output::{self, Output};
use super::{CliError, ExitStatus};
use crate::config::units::format_bytes;
use crate::config::{Config, Rtcp, Settings};
use crate::engine::memory::Plan;
use crate::keystore::Keystore;
use crate::text::{Plain, counted};
use crate::uring::probe::{Feature, Need, probe};
use crate::uring::sys;

const MIB: u64 = 1 << 20;
/// A chunk buffer.
const CHUNK_BYTES: usize = 64 << 10;

/// What a shard needs of the disk to begin at all: a segment's first allocation, and room to close it.
const DISK_MIN_BYTES: u64 = 64 * MIB;
/// Below this a few cameras fill it within minutes.
const DISK_WANTED_BYTES: u64 = 5 << 30;

/// The arguments of `harborseal check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line says ok, or what is missing and the command that mends it:
  NEEDED  run does not start without it
  wanted  run starts, with more CPU, less protection or less room

Exit status 0: run would start. 1: something needed is missing. 2: the configuration is wrong. 4: it cannot be read.

Example:
  harborseal check --config engine.toml")]
pub struct Args {
    /// The configuration to check, and to check this machine for
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    #[command(flatten)]
    print: Output,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// There.
    Ok,
    /// Not there; `run` starts all the same.
    Wanted,
    /// Not there; `run` does not start.
    Needed,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    state: State,
    detail: String,
    /// Empty where nothing needs doing.
    remedy: String,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    kernel: String,
    checks: Vec<Row>,
}

impl Row {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Row {
        Row {
            name: name.into(),
            state: State::Ok,
            detail: detail.into(),
            remedy: String::new(),
        }
    }

    fn lacking(
        name: impl Into<String>,
        state: State,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Row {
        Row {
            name: name.into(),
            state,
            detail: detail.into(),
            remedy: remedy.into(),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitStatus, CliError> {
    let config = Config::load(&args.config)?;
    let settings = &config.settings;
    let mut checks = vec![configuration(&config)];
    checks.extend(enrolments::rows(&config));
    checks.extend(
        settings
            .listen
            .rtp
            .iter()
            .flat_map(|address| ports(*address, settings.listen.rtcp)),
    );
    checks.extend(settings.control.listen.map(control_port));
    let kernel = machine(settings, &mut checks);
    checks.push(memory(settings, meminfo("MemAvailable:")));
    checks.push(chunk_pool(&config));
    data_dir(&config, &mut checks);
    checks.extend(protections::rows(&config));
    checks.extend(legal_holds(&config));
    checks.push(clock());
    let backend = Backend::fastest(sys::monotonic_ns);
    checks.push(Row::ok(
        "sealing",
        format!("{} is the fastest AES-256-GCM here", backend.name()),
    ));

    let ok = checks.iter().all(|row| row.state != State::Needed);
    if args.print.json {
        output::json(&Report { ok, kernel, checks })?;
    } else {
        print(&checks, ok, &kernel)?;
    }
    Ok(if ok { ExitStatus::Ok } else { ExitStatus::Damage })
}

/// Says that retention leaves something, and why the disk may fill.
fn legal_holds(config: &Config) -> Option<Row> {
    match Keystore::new(&config.data_dir.join("keys")).holds() {
        Ok(holds) if holds.is_empty() => None,
        Ok(holds) => {
            let count = counted(holds.len(), "customer");
            let detail = format!(
                "{count} held: neither retention nor erasure takes their footage; `harborseal hold` lists them"
            );
            Some(Row::ok("legal holds", detail))
        }
        Err(error) => Some(Row::lacking(
            "legal holds",
            State::Wanted,
            format!("{error}; retention deletes nothing until they can be read"),
            "run this as the engine's own user",
        )),
    }
}

fn print(checks: &[Row], ok: bool, kernel: &str) -> Result<(), CliError> {
    for row in checks {
        let state = match row.state {
            State::Ok => "ok    ",
            State::Wanted => "wanted",
            State::Needed => "NEEDED",
        };
        output::data(format_args!("{state}  {:<28} {}", row.name, row.detail))?;
        if !row.remedy.is_empty() {
            output::data(format_args!("{:37}-> {}", "", row.remedy))?;
        }
    }
    let wanted = checks.iter().filter(|row| row.state == State::Wanted).count();
    output::data(match (ok, wanted) {
        (true, 0) => format!("run would start here (Linux {kernel}), with everything it uses"),
        (true, n) => format!("run would start here (Linux {kernel}), without {n} of the things it wants"),
        (false, _) => format!("run would not start here (Linux {kernel}): see what is NEEDED"),
    })
}

fn configuration(config: &Config) -> Row {
    let cameras = config.registry.cameras.len();
    let customers = counted(config.registry.customers.len(), "customer");
    let shards = counted(config.settings.shards.cpus.len(), "shard");
    let detail = format!("valid: {} of {customers}, {shards}", counted(cameras, "camera"));
    if cameras == 0 {
        let remedy = "add a [[customer]] and a [[camera]], and send SIGHUP";
        return Row::lacking(
            "configuration",
            State::Wanted,
            format!("{detail}; nothing will be recorded"),
            remedy,
        );
    }
    Row::ok("configuration", detail)
}

/// Binding without SO_REUSEPORT fails where a socket is bound already: a running engine keeps its packets.
fn ports(address: SocketAddr, rtcp: Rtcp) -> Vec<Row> {
    let above = SocketAddr::new(address.ip(), address.port().saturating_add(1));
    let both = [(address, "RTP"), (above, "RTCP")];
    let wanted = if rtcp == Rtcp::Both { &both[..] } else { &both[..1] };
    wanted
        .iter()
        .map(|(address, what)| port(&format!("{what} port"), *address, UdpSocket::bind(address).err()))
        .collect()
}

fn control_port(address: SocketAddr) -> Row {
    port("control port", address, TcpListener::bind(address).err())
}

fn port(name: &str, address: SocketAddr, error: Option<io::Error>) -> Row {
    let Some(error) = error else {
        return Row::ok(name, format!("{address} can be listened on"));
    };
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "see who has it: `ss -lnp 'sport = :{}'` (a running harborseal?)",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            "no interface has this address: `ip address` lists those that there are".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "`sysctl net.ipv4.ip_unprivileged_port_start={}`, or CAP_NET_BIND_SERVICE",
                address.port()
            )
        }
        _ => "see `ip address` and the configuration".to_owned(),
    };
    Row::lacking(
        name,
        State::Needed,
        format!("{address}: {}", Plain(&error)),
        remedy,
    )
}

/// Kernel features and limits; returns the kernel's release.
fn machine(settings: &Settings, checks: &mut Vec<Row>) -> String {
    let limit = settings.memory.limit_bytes;
    // Locking a little more than the limit of locked memory allows tells whether the limit binds this process at all.
    let sample = match sys::memlock_limit().soft {
        Some(soft) if soft < limit => limit.min(soft + MIB),
        _ => limit.min(64 * MIB),
    };
    let probe = probe(sample as usize);
    checks.extend(probe.features.iter().map(|feature| row_of(feature, settings)));
    let path = "/proc/sys/kernel/io_uring_disabled";
    match fs::read_to_string(path).unwrap_or_default().trim() {
        // Kernels before 6.6 have no such switch.
        "" | "0" => {}
        value => checks.push(Row::lacking(
            "kernel.io_uring_disabled",
            // Whether it binds this process is told by the probe, which made a ring or could not.
            State::Wanted,
            format!(
                "{value}: io_uring is kept from {}",
                if value == "1" {
                    "ordinary users"
                } else {
                    "everybody"
                }
            ),
            "`sysctl kernel.io_uring_disabled=0`",
        )),
    }
    probe.kernel
}

fn row_of(feature: &Feature, settings: &Settings) -> Row {
    if feature.name == "locked memory" {
        return locked_memory(feature.supported, settings);
    }
    let state = match (feature.supported, feature.need) {
        (true, _) => State::Ok,
        (false, Need::Wanted) => State::Wanted,
        (false, Need::Required) => State::Needed,
    };
    Row::lacking(
        feature.name,
        state,
        feature.detail.as_str(),
        feature.remedy.as_str(),
    )
}

fn locked_memory(possible: bool, settings: &Settings) -> Row {
    let memory = &settings.memory;
    let (name, limit) = ("locked memory", format_bytes(memory.limit_bytes));
    if possible {
        return Row::ok(name, format!("memory.limit, {limit}, can be kept out of swap"));
    }
    let kib = memory.limit_bytes / 1024 + 64 * 1024;
    let remedy = format!("`ulimit -l {kib}` (as root), or LimitMEMLOCK=infinity in the unit");
    if memory.allow_unlocked {
        let detail = format!(
            "memory.limit, {limit}, cannot be locked: plaintext might reach swap (allow_unlocked is set)"
        );
        return Row::lacking(name, State::Wanted, detail, remedy);
    }
    let detail = format!("memory.limit, {limit}, cannot be locked, and plaintext must not reach swap");
    Row::lacking(
        name,
        State::Needed,
        detail,
        format!("{remedy}; or memory.allow_unlocked = true"),
    )
}

/// A line of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn memory(settings: &Settings, available_bytes: Option<u64>) -> Row {
    let limit = settings.memory.limit_bytes;
    let Some(available) = available_bytes else {
        return Row::ok(
            "memory",
            format!(
                "memory.limit is {}; the kernel does not say what is free",
                format_bytes(limit)
            ),
        );
    };
    let detail = format!(
        "memory.limit is {}, {} MiB are available",
        format_bytes(limit),
        available / MIB
    );
    if available < limit {
        return Row::lacking(
            "memory",
            State::Needed,
            detail,
            "lower memory.limit, or free memory",
        );
    }
    Row::ok("memory", detail)
}

/// Every stream that sends has one chunk open, and half as many again are on their way to the disk.
fn chunk_pool(config: &Config) -> Row {
    let (settings, name) = (&config.settings, "chunk pool");
    let streams: usize = config
        .registry
        .cameras
        .iter()
        .map(|camera| camera.streams.len().max(1))
        .sum();
    let shards = settings.shards.cpus.len();
    let chunks = Plan::new(settings.memory.limit_bytes, shards).pool_bytes / CHUNK_BYTES * shards;
    let missing = (streams * 3 / 2).saturating_sub(chunks);
    let detail = format!("{} for {}", counted(chunks, "buffer"), counted(streams, "stream"));
    if missing == 0 {
        return Row::ok(name, detail);
    }
    let limit = settings.memory.limit_bytes + (missing * CHUNK_BYTES) as u64 * 17 / 16;
    let remedy = format!(
        "memory.limit = \"{}MiB\" or more, if all of them send at once",
        limit.div_ceil(MIB)
    );
    Row::lacking(name, State::Wanted, detail, remedy)
}

/// The folder, or where it will be made: writable, O_DIRECT, room.
fn data_dir(config: &Config, checks: &mut Vec<Row>) {
    let (wanted, shards) = (&config.data_dir, config.settings.shards.cpus.len() as u64);
    let folder = wanted
        .ancestors()
        .find(|folder| folder.symlink_metadata().is_ok())
        .unwrap_or(Path::new("/"));
    let shown = wanted.display();
    match try_file(folder) {
        Ok(true) => checks.push(Row::ok(
            "data_dir",
            format!("{shown} can be written, with O_DIRECT"),
        )),
        Ok(false) => {
            checks.push(Row::ok("data_dir", format!("{shown} can be written")));
            checks.push(Row::lacking(
                "O_DIRECT",
                State::Wanted,
                format!("the file system of {shown} has none: writes go through the page cache"),
                "put data_dir on ext4 or XFS",
            ));
        }
        Err(error) => checks.push(Row::lacking(
            "data_dir",
            State::Needed,
            format!("cannot write to {}: {}", folder.display(), Plain(&error)),
            format!("`install -d -m 700 -o USER {shown}`, with the user that run has"),
        )),
    }
    if let Ok((free, total)) = sys::free_space(folder) {
        let wanted = config
            .settings
            .retention
            .min_free_bytes
            .unwrap_or(DISK_WANTED_BYTES);
        checks.push(disk(free, total, shards * DISK_MIN_BYTES, wanted));
    }
}

fn disk(free: u64, total: u64, needed: u64, wanted: u64) -> Row {
    let detail = format!("{} MiB of {} MiB are free", free / MIB, total / MIB);
    let remedy = "free space, or let [retention] delete old segments";
    match free {
        _ if free < needed => Row::lacking("disk", State::Needed, detail, remedy),
        _ if free < wanted => Row::lacking("disk", State::Wanted, detail, remedy),
        _ => Row::ok("disk", detail),
    }
}

/// Makes a file the way segments are made, and removes it; whether it was for direct I/O.
fn try_file(folder: &Path) -> io::Result<bool> {
    if !folder.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let path = folder.join(format!(".harborseal-check-{}", std::process::id()));
    let made = sys::create_direct(&path)?;
    fs::remove_file(&path)?;
    Ok(made.direct)
}

fn clock() -> Row {
    match sys::clock_synchronised() {
        Some(true) => Row::ok("clock", "synchronised"),
        Some(false) => Row::lacking(
            "clock",
            State::Wanted,
            "not synchronised: the times of recordings are as good as this machine's clock",
            "`timedatectl set-ntp true`, or run chrony",
        ),
        None => Row::lacking(
            "clock",
            State::Wanted,
            "the kernel does not say whether it is synchronised",
            "",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Memory;

    fn settings(limit_bytes: u64, allow_unlocked: bool) -> Settings {
        Settings {
            memory: Memory {
                limit_bytes,
                allow_unlocked,
            },
            ..Settings::default()
        }
    }

    #[test]
    fn memory_that_cannot_be_locked_stops_run_unless_that_is_allowed() {
        let limit = 1 << 30;
        assert_eq!(locked_memory(true, &settings(limit, false)).state, State::Ok);
        assert_eq!(locked_memory(false, &settings(limit, true)).state, State::Wanted);
        let row = locked_memory(false, &settings(limit, false));
        assert_eq!(row.state, State::Needed);
        assert!(
            row.remedy.contains("ulimit -l 1114112") && row.remedy.contains("allow_unlocked"),
            "{row:?}"
        );
    }

    #[test]
    fn memory_and_disk_are_compared_with_what_is_there() {
        let limit = 1 << 30;
        assert_eq!(memory(&settings(limit, false), Some(limit)).state, State::Ok);
        assert_eq!(
            memory(&settings(limit, false), Some(limit - 1)).state,
            State::Needed
        );
        assert_eq!(disk(10, 100, 11, 20).state, State::Needed);
        assert_eq!(disk(11, 100, 11, 20).state, State::Wanted);
        assert_eq!(disk(20, 100, 11, 20).state, State::Ok);
    }

    #[test]
    fn a_port_in_use_is_told_without_disturbing_its_owner() {
        let owner = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = owner.local_addr().expect("bound");
        let rows = ports(address, Rtcp::Same);
        assert_eq!((rows.len(), rows[0].state), (1, State::Needed));
        assert!(rows[0].remedy.contains("ss -lnp"), "{rows:?}");
        let foreign = port("RTP port", address, UdpSocket::bind("192.0.2.1:5004").err());
        assert!(foreign.remedy.contains("ip address"), "{foreign:?}");
    }

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(try_file(folder.path()).is_ok());
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
        let file = folder.path().join("file");
        fs::write(&file, "x").expect("written");
        assert_eq!(
            try_file(&file).map_err(|e| e.kind()),
            Err(io::ErrorKind::NotADirectory)
        );
    }
}
