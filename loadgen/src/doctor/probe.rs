//! Asking the machine: limits, offloads, clocks, and a short measurement of what one core sends over loopback.

use super::{Check, PACED_SHARE};
use crate::environment::{field, governor, read, sysctl};
use crate::fleet::{Control, RunOptions, run_plan};
use crate::result::RunResult;
use crate::send::{Method, Sockets};
use crate::spec::FleetSpec;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The fleet of the measurements: as many cameras as the figures in the notes are of.
const CAMERAS: u32 = 4000;
const SECONDS: f64 = 1.0;
/// At 2 Mb/s each they send 0.83 M packets in that second: what a core sends unpaced in about one.
const MBPS: f64 = 2.0;
/// A machine that takes longer is slow enough to be told so from what it did by then.
const BOUND: Duration = Duration::from_secs(4);
/// How long /proc/stat is watched.
const WATCHED: Duration = Duration::from_millis(400);

/// All checks, in the order in which they are told; with `measure` also what the machine can send, which takes some seconds.
pub fn all(folder: &Path, measure: bool) -> Vec<Check> {
    let privileged = privileged();
    let before = times();
    std::thread::sleep(WATCHED);
    let quiet = times();
    let mut checks = vec![
        super::socket_buffer("rmem_max", number("net.core.rmem_max"), privileged),
        super::socket_buffer("wmem_max", number("net.core.wmem_max"), privileged),
        super::open_files(limit(Resource::RLIMIT_NOFILE)),
        super::locked_memory(limit(Resource::RLIMIT_MEMLOCK)),
        super::segmentation(Sockets::can_segment()),
        super::ring(ring_error(), sysctl("kernel.io_uring_disabled").as_deref()),
        super::cpus(allowed(), online()),
        super::governor(&governor()),
        super::neighbours(share(before.as_ref(), quiet.as_ref(), Times::busy)),
        super::disk(&folder.display().to_string(), free(folder)),
        super::clock(clock_step_ns(), &clock_source()),
        super::ports(port_range()),
    ];
    if measure {
        checks.extend(measured());
    }
    checks.push(super::steal(share(before.as_ref(), times().as_ref(), |times| {
        times.steal
    })));
    checks
}

fn number(name: &str) -> Option<u64> {
    sysctl(name)?.parse().ok()
}

fn limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).ok().map(|(soft, _)| soft)
}

/// Whether this process has CAP_NET_ADMIN (bit 12, capability.h): it may set buffers beyond the maxima.
fn privileged() -> bool {
    let effective = read("/proc/self/status").and_then(|text| field(&text, &["CapEff"]));
    let bits = effective.and_then(|text| u64::from_str_radix(&text, 16).ok());
    bits.is_some_and(|bits| bits & (1 << 12) != 0)
}

fn ring_error() -> Option<String> {
    crate::send::ring_works().err().map(|error| error.to_string())
}

/// CPUs this process may use, by its affinity and its control group.
fn allowed() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn online() -> usize {
    let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count()
        .max(1)
}

/// Free bytes for this user where the folder is or will be; whether it can be written to is tried.
fn free(folder: &Path) -> Result<u64, String> {
    let absolute = std::path::absolute(folder).map_err(|error| error.to_string())?;
    let there = absolute
        .ancestors()
        .find(|path| path.is_dir())
        .ok_or("there is no such folder")?;
    let probe = there.join(format!(".harborseal-doctor-{}", std::process::id()));
    std::fs::write(&probe, b"a run writes here").map_err(|error| error.to_string())?;
    std::fs::remove_file(&probe).map_err(|error| error.to_string())?;
    let system = statvfs(there).map_err(|errno| errno.desc().to_owned())?;
    Ok(system.blocks_available() as u64 * system.fragment_size() as u64)
}

/// The smallest difference of two readings that is not 0.
fn clock_step_ns() -> u64 {
    let step = || {
        let first = Instant::now();
        loop {
            let passed = first.elapsed();
            if !passed.is_zero() {
                return passed.as_nanos() as u64;
            }
        }
    };
    (0..200).map(|_| step()).min().unwrap_or(u64::MAX)
}

fn clock_source() -> String {
    read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .unwrap_or_else(|| "source unknown".to_owned())
}

fn port_range() -> Option<(u64, u64)> {
    let text = sysctl("net.ipv4.ip_local_port_range")?;
    let (from, to) = text.split_once(' ')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// Ticks of all CPUs since the start (proc_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Times {
    all: u64,
    idle: u64,
    steal: u64,
}

impl Times {
    fn busy(&self) -> u64 {
        self.all - self.idle - self.steal
    }
}

fn times() -> Option<Times> {
    parse_times(&read("/proc/stat")?)
}

/// `cpu user nice system idle iowait irq softirq steal guest guest_nice`; guest time is in user already.
fn parse_times(text: &str) -> Option<Times> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map_while(|tick| tick.parse().ok())
        .collect();
    let [_, _, _, idle, iowait, _, _, steal] = ticks[..] else {
        return None;
    };
    Some(Times {
        all: ticks.iter().sum(),
        idle: idle + iowait,
        steal,
    })
}

/// The share of the time between two readings, in percent.
fn share(before: Option<&Times>, after: Option<&Times>, of: impl Fn(&Times) -> u64) -> Option<f64> {
    let (before, after) = (before?, after?);
    let all = after.all.checked_sub(before.all).filter(|&all| all > 0)?;
    Some(100.0 * of(after).saturating_sub(of(before)) as f64 / all as f64)
}

/// What one core sends over loopback to a socket nobody reads: unpaced, then paced at a share of that.
fn measured() -> Vec<Check> {
    let socket = match UdpSocket::bind(("127.0.0.1", 0)) {
        Ok(socket) => socket,
        Err(error) => return vec![super::unpaced(Err(format!("no socket on loopback: {error}")))],
    };
    let unpaced = fleet(&socket, MBPS, false).map(|run| run.load.sent as f64 / run.load.duration_s.max(1e-3));
    let Ok(rate) = unpaced.clone() else {
        return vec![super::unpaced(unpaced)];
    };
    let asked = rate * PACED_SHARE;
    let offered = f64::from(CAMERAS) * MBPS * 1e6 / 8.0 / crate::program::PACKET_BYTES as f64;
    let outcome = fleet(&socket, (MBPS * asked / offered).clamp(0.1, 50.0), true);
    let outcome = outcome.map(|run| (run.sending.lateness_ms.p99, run.invalid_because));
    vec![super::unpaced(unpaced), super::paced(asked, outcome)]
}

fn fleet(target: &UdpSocket, mbps: f64, paced: bool) -> Result<RunResult, String> {
    let address = target.local_addr().map_err(|error| error.to_string())?;
    let plan = FleetSpec::new(CAMERAS, mbps, SECONDS, vec![address]).plan();
    let options = RunOptions {
        method: if Sockets::can_segment() {
            Method::Gso
        } else {
            Method::Sendmmsg
        },
        paced,
        ..RunOptions::default()
    };
    let control = Control::default();
    let stop = Arc::clone(&control.stop);
    let (done, waits) = std::sync::mpsc::channel::<()>();
    // Bounds the measurement; ends with it, because the sender of the channel goes away.
    let bound = std::thread::spawn(move || {
        if waits.recv_timeout(BOUND) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let result = run_plan(&plan, &options, &control).map_err(|error| error.to_string());
    drop(done);
    bound.join().expect("a thread that only waits does not panic");
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_looked_at() {
        let dir = tempfile::tempdir().expect("a folder");
        let checks = all(&dir.path().join("not there yet"), false);
        assert_eq!(checks.len(), 13);
        assert_eq!(
            std::fs::read_dir(dir.path()).expect("listed").count(),
            0,
            "nothing is left behind"
        );
    }

    #[test]
    fn shares_of_the_cpus_time() {
        let one = parse_times("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1\n").expect("a line");
        let two = parse_times("cpu  20 0 10 140 10 0 0 20 5 0\n").expect("a line");
        assert_eq!(
            one,
            Times {
                all: 100,
                idle: 80,
                steal: 0
            }
        );
        assert_eq!(share(Some(&one), Some(&two), |times| times.steal), Some(20.0));
        assert_eq!(share(Some(&one), Some(&two), Times::busy), Some(10.0));
        assert_eq!(share(Some(&one), Some(&one), Times::busy), None, "no time passed");
        for bad in ["", "cpu  1 2 3\n", "cpu  a b c d e f g h\n"] {
            assert_eq!(parse_times(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_said_to_be_so() {
        assert!(free(Path::new("/proc/nowhere")).is_err());
    }
}
