//! `doctor`: what would spoil a run, found before it does. Each check grades one thing the machine said; the grading is pure,
//! the asking is in [`probe`]. Invariant: what is not well names the command that mends it, or says that none does.

pub mod probe;

use crate::output::words;
use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Grade {
    Ok,
    /// A run may be worse than it need be, or less certain.
    Warn,
    /// A run would be spoilt.
    Fail,
}

impl Grade {
    pub fn word(self) -> &'static str {
        match self {
            Grade::Ok => "OK",
            Grade::Warn => "WARN",
            Grade::Fail => "FAIL",
        }
    }
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub grade: Grade,
    /// What there is, and what it means for a run.
    pub found: String,
    /// The command that mends it, or what to do where there is no command.
    pub mend: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check {
            name,
            grade: Grade::Ok,
            found: found.into(),
            mend: None,
        }
    }

    fn bad(name: &'static str, grade: Grade, found: impl Into<String>, mend: impl Into<String>) -> Check {
        Check {
            name,
            grade,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    /// For people: a line, and one for the mending.
    pub fn lines(&self) -> String {
        let mut text = format!("{:<5} {:<16} {}\n", self.grade.word(), self.name, self.found);
        if let Some(mend) = &self.mend {
            text.push_str(&format!("{:<23}→ {mend}\n", ""));
        }
        text
    }
}

/// Whether nothing would spoil a run.
pub fn fit(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.grade < Grade::Fail)
}

/// 20 ms of 8 Gb/s: while a receiver is not scheduled (a tick of the kernel is up to 10 ms, a steal easily as much) its socket
/// must hold what comes.
const SOCKET_BYTES: u64 = 20 << 20;
/// A burst of the catch-up after a stall of some milliseconds.
const SEND_BYTES: u64 = 1 << 20;
/// Sockets beside one per camera with an address of its own: standard streams, logs, targets.
const FILES: u64 = 4096;
/// Two rings of 64 entries and their pages; kernels before 5.12 count them here.
const LOCKED_BYTES: u64 = 64 << 10;
/// A sent log has 24 bytes a packet or less: a minute at a million packets/s, and what an engine may store of ten seconds.
const DISK_BYTES_WARN: u64 = 10 << 30;
const DISK_BYTES_FAIL: u64 = 512 << 20;
const PORTS_MIN: u64 = 10_000;
/// One packet at 1 M packets/s.
const CLOCK_NS_WARN: u64 = 1_000;
/// A packet's whole lateness budget is 20 ms; a clock that moves in steps of one of them cannot say p99.
const CLOCK_NS_FAIL: u64 = 1_000_000;
const STEAL_PERCENT_WARN: f64 = 1.0;
const STEAL_PERCENT_FAIL: f64 = 10.0;
/// The share of the unpaced rate that a paced run should reach.
pub const PACED_SHARE: f64 = 0.75;

/// `rmem_max` and `wmem_max`; whoever may set buffers beyond them (CAP_NET_ADMIN) is not bound.
pub fn socket_buffer(name: &'static str, value: Option<u64>, privileged: bool) -> Check {
    let (wanted, for_whom) = match name {
        "wmem_max" => (SEND_BYTES, "a sender that catches up"),
        _ => (
            SOCKET_BYTES,
            "a receiver that is off its core for 20 ms at 8 Gb/s",
        ),
    };
    let mend = format!("sysctl -w net.core.{name}={wanted}");
    match value {
        None => Check::bad(name, Grade::Warn, "cannot be read", mend),
        Some(bytes) if bytes >= wanted => Check::ok(name, words::bytes(bytes)),
        Some(bytes) if privileged => {
            let found = format!(
                "{}, but this user may set more (CAP_NET_ADMIN)",
                words::bytes(bytes)
            );
            Check::ok(name, found)
        }
        Some(bytes) => {
            let found = format!(
                "{}: too little for {for_whom} ({})",
                words::bytes(bytes),
                words::bytes(wanted)
            );
            Check::bad(name, Grade::Warn, found, mend)
        }
    }
}

pub fn open_files(limit: Option<u64>) -> Check {
    let mend = format!("ulimit -n {}", FILES.max(65_536));
    match limit {
        None => Check::bad("open files", Grade::Warn, "the limit cannot be read", mend),
        Some(files) if files >= FILES => Check::ok("open files", words::count(files)),
        Some(files) => {
            let found = format!(
                "{}: cameras with an address of their own take a socket each",
                words::count(files)
            );
            Check::bad(
                "open files",
                if files < 64 { Grade::Fail } else { Grade::Warn },
                found,
                mend,
            )
        }
    }
}

pub fn locked_memory(limit: Option<u64>) -> Check {
    match limit {
        Some(bytes) if bytes >= LOCKED_BYTES => {
            let found = if bytes == u64::MAX {
                "no limit".to_owned()
            } else {
                words::bytes(bytes)
            };
            Check::ok("locked memory", found)
        }
        Some(bytes) => {
            let found = format!(
                "{}: io_uring may be refused before Linux 5.12",
                words::bytes(bytes)
            );
            Check::bad("locked memory", Grade::Warn, found, "ulimit -l 65536")
        }
        None => Check::bad(
            "locked memory",
            Grade::Warn,
            "the limit cannot be read",
            "ulimit -l 65536",
        ),
    }
}

pub fn segmentation(offload: bool) -> Check {
    match offload {
        true => Check::ok("UDP_SEGMENT", "available: bursts leave by one message"),
        false => Check::bad(
            "UDP_SEGMENT",
            Grade::Warn,
            "not available: each packet costs a message of its own, some three times the CPU",
            "run on Linux 4.18 or later; `--send sendmmsg` goes without",
        ),
    }
}

/// `error`: why there is no ring.
pub fn ring(error: Option<String>, disabled: Option<&str>) -> Check {
    match (error, disabled) {
        (None, _) => Check::ok("io_uring", "available"),
        (Some(error), Some("1" | "2")) => Check::bad(
            "io_uring",
            Grade::Warn,
            format!("switched off here ({error}): --send io_uring and the engine need it"),
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        (Some(error), _) => Check::bad(
            "io_uring",
            Grade::Warn,
            format!("not available ({error}): --send io_uring and the engine need it"),
            "allow io_uring_setup in the container's seccomp profile; Linux 5.6 or later",
        ),
    }
}

/// `allowed`: CPUs this process may use; `online`: those there are.
pub fn cpus(allowed: usize, online: usize) -> Check {
    let mend = "run the generator on another machine, or give this one a second CPU";
    match allowed {
        0 | 1 if online <= 1 => Check::bad(
            "CPUs",
            Grade::Warn,
            "1: generator and receiver take time from each other",
            mend,
        ),
        0 | 1 => Check::bad(
            "CPUs",
            Grade::Warn,
            format!("1 of {online} allowed here: generator and receiver take time from each other"),
            format!("taskset -c 0-{} harborseal-loadgen …", online - 1),
        ),
        _ => Check::ok(
            "CPUs",
            format!("{allowed}; `--cpu N` pins the sending thread to one that the receiver does not use"),
        ),
    }
}

pub fn governor(name: &str) -> Check {
    match name {
        "performance" | "schedutil" => Check::ok("governor", name),
        none if none.starts_with("none") => Check::ok("governor", none),
        other => Check::bad(
            "governor",
            Grade::Warn,
            format!("{other}: the same load costs other CPU time from run to run"),
            "cpupower frequency-set -g performance",
        ),
    }
}

pub fn steal(percent: Option<f64>) -> Check {
    let mend = "nothing on this machine: its host gives the CPU to others; take another machine or hour";
    let told = |percent: f64| {
        format!(
            "{} % of the CPU's time went to other guests",
            words::figures(percent)
        )
    };
    match percent {
        None => Check::bad("steal", Grade::Warn, "cannot be read (/proc/stat)", mend),
        Some(percent) if percent < STEAL_PERCENT_WARN => Check::ok("steal", told(percent)),
        Some(percent) if percent < STEAL_PERCENT_FAIL => {
            Check::bad("steal", Grade::Warn, told(percent), mend)
        }
        Some(percent) => Check::bad("steal", Grade::Fail, told(percent), mend),
    }
}

/// `busy`: the share of all CPUs that others used before anything was measured.
pub fn neighbours(percent: Option<f64>) -> Check {
    let mend = "stop what else runs here (top -o %CPU)";
    match percent {
        None => Check::bad("other load", Grade::Warn, "cannot be read (/proc/stat)", mend),
        Some(percent) if percent < 10.0 => {
            Check::ok("other load", format!("{} % of the CPUs", words::figures(percent)))
        }
        Some(percent) => {
            let found = format!(
                "{} % of the CPUs: figures taken now are of a shared machine",
                words::figures(percent)
            );
            Check::bad("other load", Grade::Warn, found, mend)
        }
    }
}

/// `free`: bytes where the run's folder will be; the error says why it cannot be told.
pub fn disk(folder: &str, free: Result<u64, String>) -> Check {
    let mend = format!("name another folder (-o), or make room: df -h {folder}");
    match free {
        Err(error) => Check::bad(
            "disk",
            Grade::Fail,
            format!("{folder} cannot be written to: {error}"),
            mend,
        ),
        Ok(bytes) => {
            let found = format!("{} free in {folder}", words::bytes(bytes));
            match bytes {
                few if few < DISK_BYTES_FAIL => Check::bad("disk", Grade::Fail, found, mend),
                some if some < DISK_BYTES_WARN => {
                    let found = format!("{found}: a minute at 8 Gb/s stores 60 GB");
                    Check::bad("disk", Grade::Warn, found, mend)
                }
                _ => Check::ok("disk", found),
            }
        }
    }
}

/// `step_ns`: the smallest step the monotonic clock was seen to take, reading included.
pub fn clock(step_ns: u64, source: &str) -> Check {
    let found = format!("steps of {step_ns} ns ({source})");
    let mend = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource";
    match step_ns {
        fine if fine < CLOCK_NS_WARN => Check::ok("clock", found),
        coarse if coarse < CLOCK_NS_FAIL => Check::bad(
            "clock",
            Grade::Warn,
            format!("{found}: reading it costs as much as sending"),
            mend,
        ),
        _ => Check::bad(
            "clock",
            Grade::Fail,
            format!("{found}: too coarse for a lateness of 20 ms"),
            mend,
        ),
    }
}

pub fn ports(range: Option<(u64, u64)>) -> Check {
    let mend = "sysctl -w net.ipv4.ip_local_port_range='1024 65535'";
    match range {
        None => Check::bad("ports", Grade::Warn, "the range cannot be read", mend),
        Some((from, to)) => {
            let count = (to + 1).saturating_sub(from);
            let found = format!(
                "{from} to {to}: {} for cameras with a port of their own",
                words::count(count)
            );
            match count >= PORTS_MIN {
                true => Check::ok("ports", found),
                false => Check::bad("ports", Grade::Warn, found, mend),
            }
        }
    }
}

/// What sending to nobody on loopback came to, in packets/s: as fast as it goes.
pub fn unpaced(rate: Result<f64, String>) -> Check {
    match rate {
        Ok(rate) => Check::ok(
            "unpaced rate",
            format!(
                "{} packets/s ({} Gb/s) on one core over loopback",
                words::count(rate as u64),
                gbps(rate)
            ),
        ),
        Err(error) => Check::bad(
            "unpaced rate",
            Grade::Fail,
            error,
            "harborseal-loadgen run clip --target 127.0.0.1:5004",
        ),
    }
}

/// A paced run at [`PACED_SHARE`] of that: the rate asked for, or why it was not reached.
pub fn paced(rate: f64, outcome: Result<(f64, Vec<String>), String>) -> Check {
    let asked = format!(
        "{} packets/s ({} Gb/s, {PACED_SHARE} of unpaced)",
        words::count(rate as u64),
        gbps(rate)
    );
    match outcome {
        Ok((p99_ms, because)) if because.is_empty() => Check::ok(
            "paced rate",
            format!("{asked}: on time, late by {} at p99", words::ms(p99_ms)),
        ),
        Ok((_, because)) => Check::bad(
            "paced rate",
            Grade::Warn,
            format!(
                "{asked}: not on time ({}); a run at this rate would be INVALID",
                because.join("; ")
            ),
            "stay below it, pin with --cpu, or stop what else runs here",
        ),
        Err(error) => Check::bad(
            "paced rate",
            Grade::Fail,
            error,
            "harborseal-loadgen run clip --target 127.0.0.1:5004",
        ),
    }
}

fn gbps(packets_per_second: f64) -> String {
    words::figures(packets_per_second * crate::program::PACKET_BYTES as f64 * 8e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_says_how_to_mend_it() {
        let bad = [
            socket_buffer("rmem_max", Some(212_992), false),
            socket_buffer("wmem_max", None, true),
            open_files(Some(10)),
            locked_memory(Some(1)),
            segmentation(false),
            ring(Some("EPERM".to_owned()), Some("2")),
            ring(Some("ENOSYS".to_owned()), None),
            cpus(1, 1),
            cpus(1, 8),
            governor("powersave"),
            steal(Some(3.0)),
            steal(None),
            neighbours(Some(50.0)),
            disk("x", Ok(1 << 20)),
            disk("x", Err("read-only".to_owned())),
            clock(4_000_000, "jiffies"),
            ports(Some((40_000, 41_000))),
            unpaced(Err("no socket".to_owned())),
            paced(1e6, Ok((40.0, vec!["late".to_owned()]))),
        ];
        for check in bad {
            assert!(check.grade > Grade::Ok && check.mend.is_some(), "{check:?}");
            assert_eq!(check.lines().lines().count(), 2);
        }
    }

    #[test]
    fn what_is_well_is_one_line() {
        let good = [
            socket_buffer("rmem_max", Some(64 << 20), false),
            socket_buffer("rmem_max", Some(212_992), true),
            open_files(Some(1 << 20)),
            locked_memory(Some(u64::MAX)),
            segmentation(true),
            ring(None, Some("0")),
            cpus(2, 2),
            governor("none (the system does not set frequencies)"),
            steal(Some(0.0)),
            neighbours(Some(1.0)),
            disk("x", Ok(1 << 40)),
            clock(30, "tsc"),
            ports(Some((32_768, 60_999))),
            unpaced(Ok(1.3e6)),
            paced(1e6, Ok((0.4, Vec::new()))),
        ];
        for check in &good {
            assert_eq!(
                (check.grade, check.lines().lines().count()),
                (Grade::Ok, 1),
                "{check:?}"
            );
        }
        assert!(fit(&good));
    }

    #[test]
    fn only_what_spoils_a_run_makes_the_machine_unfit() {
        assert!(fit(&[segmentation(false), governor("powersave")]));
        assert!(!fit(&[segmentation(true), steal(Some(30.0))]));
    }
}
