//! What a process and a core cost, as the kernel accounts for it in /proc. Reads only; parsing is apart from reading.
//!
//! The figure of a process is user and system time of all its threads, of those that have ended too, and of the kernel's workers for
//! its io_urings, which the kernel counts as threads of the process: its CPU clock, to the nanosecond (clock_getcpuclockid(3)).
//! How much of it was which is told by /proc/PID/stat, in steps of 10 ms.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Child;

use anyhow::{Context, ensure};
use nix::time::{clock_getcpuclockid, clock_gettime};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::thread::CpuSet;
use serde::Serialize;

/// CPU time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    pub total_ns: u64,
    /// Of it, to 10 ms.
    pub user_ns: u64,
    /// Of it, to 10 ms.
    pub system_ns: u64,
}

impl Cpu {
    /// Of a process so far, or of its whole life if it has ended and was not yet waited for.
    pub fn of_process(pid: u32) -> anyhow::Result<Cpu> {
        let parts = read_stat(&format!("/proc/{pid}/stat"))?.cpu;
        let clock =
            clock_getcpuclockid(nix::unistd::Pid::from_raw(pid as i32)).context("a process's CPU clock")?;
        let time = clock_gettime(clock).context("a process's CPU clock")?;
        Ok(Cpu {
            total_ns: time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
            ..parts
        })
    }

    pub fn since(&self, before: Cpu) -> Cpu {
        Cpu {
            total_ns: self.total_ns.saturating_sub(before.total_ns),
            user_ns: self.user_ns.saturating_sub(before.user_ns),
            system_ns: self.system_ns.saturating_sub(before.system_ns),
        }
    }
}

/// What a thread of a process is called, and its time.
struct Stat {
    name: String,
    cpu: Cpu,
}

fn read_stat(path: &str) -> anyhow::Result<Stat> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    parse_stat(&text, tick_ns).with_context(|| format!("{path} is not as proc_pid_stat(5) says"))
}

/// `PID (name) state …`: the name may hold spaces and parentheses, so what counts is the last one that closes.
fn parse_stat(text: &str, tick_ns: u64) -> Option<Stat> {
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let name = text.get(open + 1..close)?.to_owned();
    // Behind the name comes field 3; utime and stime are fields 14 and 15.
    let mut fields = text.get(close + 1..)?.split_whitespace().skip(14 - 3);
    let mut time = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (time()?, time()?);
    Some(Stat {
        name,
        cpu: Cpu {
            total_ns: (user + system) * tick_ns,
            user_ns: user * tick_ns,
            system_ns: system * tick_ns,
        },
    })
}

/// CPU time by name of thread (the kernel's workers are all one name here). Threads that have ended are not in it.
pub fn threads(pid: u32) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut by_name = BTreeMap::new();
    for task in task_folders(pid)? {
        // One that ends while we look has no file any more.
        if let Ok(stat) = read_stat(&format!("{task}/stat")) {
            let name = match stat.name.starts_with("iou-wrk") {
                true => "io_uring workers".to_owned(),
                false => stat.name,
            };
            *by_name.entry(name).or_insert(0) += stat.cpu.total_ns;
        }
    }
    Ok(by_name)
}

fn task_folders(pid: u32) -> anyhow::Result<Vec<String>> {
    let folder = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {folder}"))?;
    let path = |entry: std::io::Result<std::fs::DirEntry>| Some(entry.ok()?.path().display().to_string());
    Ok(entries.filter_map(path).collect())
}

pub fn cpu_set(cpus: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cpus.iter()
        .filter(|&&cpu| cpu < CpuSet::MAX_CPU)
        .for_each(|&cpu| set.set(cpu));
    set
}

/// Binds every thread of the process that may still run elsewhere to these CPUs; how many that were. Threads inherit it, the kernel's
/// workers for an io_uring do not: they begin anywhere.
pub fn pin_all(pid: u32, cpus: &[usize]) -> anyhow::Result<u64> {
    let wanted = cpu_set(cpus);
    let mut moved = 0;
    for task in task_folders(pid)? {
        let number = Path::new(&task)
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let Some(thread) = number.and_then(Pid::from_raw) else {
            continue;
        };
        // One that has just ended needs no CPU.
        let Ok(set) = rustix::thread::sched_getaffinity(Some(thread)) else {
            continue;
        };
        let strays = (0..CpuSet::MAX_CPU).any(|cpu| set.is_set(cpu) && !wanted.is_set(cpu));
        if strays && rustix::thread::sched_setaffinity(Some(thread), &wanted).is_ok() {
            moved += 1;
        }
    }
    Ok(moved)
}

/// Memory of a process, what it shares with others divided among them (Pss of proc_pid_smaps(5)). One that has ended and is not waited for yet
/// has none: a peer may give up under load, and then its packets are missing, which is counted.
pub fn proportional_memory_bytes(pid: u32) -> anyhow::Result<u64> {
    const ESRCH: i32 = 3;
    let path = format!("/proc/{pid}/smaps_rollup");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(field_kib(&text, "Pss:") * 1024),
        Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(0),
        Err(error) => Err(error).with_context(|| format!("reading {path}")),
    }
}

/// VmRSS and HugetlbPages, which the kernel counts apart.
pub fn memory_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kib = |name| field_kib(&status, name);
    Ok((kib("VmRSS:") + kib("HugetlbPages:")) * 1024)
}

fn field_kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.unwrap_or(0) // a kernel without huge pages has no such line
}

/// What one core did, of /proc/stat, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Core {
    /// Whatever ran on it, interrupts included.
    pub busy_ns: u64,
    /// Of it: processes of lower priority than usual. None of ours is; on a machine with nothing else it is 0.
    pub nice_ns: u64,
    /// Of it: interrupts and the network stack's part of them.
    pub interrupts_ns: u64,
    /// Taken by other guests of the same host.
    pub stolen_ns: u64,
    pub idle_ns: u64,
}

impl Core {
    pub fn read(cpu: usize) -> anyhow::Result<Core> {
        let text = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let core = parse_core(&text, cpu, tick_ns);
        core.with_context(|| format!("/proc/stat has no CPU {cpu}"))
    }

    pub fn since(&self, before: Core) -> Core {
        Core {
            busy_ns: self.busy_ns.saturating_sub(before.busy_ns),
            nice_ns: self.nice_ns.saturating_sub(before.nice_ns),
            interrupts_ns: self.interrupts_ns.saturating_sub(before.interrupts_ns),
            stolen_ns: self.stolen_ns.saturating_sub(before.stolen_ns),
            idle_ns: self.idle_ns.saturating_sub(before.idle_ns),
        }
    }

    pub fn busy_percent(&self) -> f64 {
        let all = self.busy_ns + self.idle_ns + self.stolen_ns;
        self.busy_ns as f64 * 100.0 / all.max(1) as f64
    }
}

/// `cpuN user nice system idle iowait irq softirq steal …` (proc_stat(5)).
fn parse_core(text: &str, cpu: usize, tick_ns: u64) -> Option<Core> {
    let name = format!("cpu{cpu}");
    let line = text.lines().find(|line| line.split(' ').next() == Some(&name))?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    Some(Core {
        busy_ns: (user + nice + system + irq + softirq) * tick_ns,
        nice_ns: nice * tick_ns,
        interrupts_ns: (irq + softirq) * tick_ns,
        stolen_ns: steal * tick_ns,
        idle_ns: (idle + iowait) * tick_ns,
    })
}

/// Waits for the end of a child without burying it, so that its whole account can be read.
pub fn await_end(child: &Child) -> anyhow::Result<()> {
    let id = WaitId::Pid(Pid::from_child(child));
    while let Err(errno) = waitid(id.clone(), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
        ensure!(errno == Errno::INTR, "waiting for a child process: {errno}");
    }
    Ok(())
}

/// Bytes that a process, ended or not, has had read from disks: read_bytes of proc_pid_io(5). Not every kernel keeps that account.
pub fn disk_bytes_read(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("read_bytes:"))?;
    value.trim().parse().ok()
}

/// The account of a child's whole life; waits for its end, and buries it.
pub fn cpu_of_whole_life(child: &mut Child) -> anyhow::Result<Cpu> {
    await_end(child)?;
    let cpu = Cpu::of_process(child.id())?;
    child.wait().context("waiting for a child process")?;
    Ok(cpu)
}

/// Whether a child has ended. Does not bury it.
pub fn has_ended(child: &Child) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // An error means that there is no such child any more.
    !matches!(waitid(WaitId::Pid(Pid::from_child(child)), options), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_be_called_anything() {
        let text = "42 (a) b (c) S 1 42 42 0 -1 4194304 9 8 7 6 150 25 0 0 20 0 3 0 100 0 0";
        let stat = parse_stat(text, 10).expect("as the manual says");
        assert_eq!(
            (stat.name.as_str(), stat.cpu.user_ns, stat.cpu.system_ns),
            ("a) b (c", 1500, 250)
        );
        assert!(parse_stat("42 (short) S 1", 10).is_none());
    }

    #[test]
    fn a_core_is_busy_with_all_but_idling_and_waiting() {
        let text = "cpu  9 9 9 9\ncpu1 1 0 0 0 0 0 0 0 0 0\ncpu11 10 2 30 400 50 6 7 8 0 0\n";
        let core = parse_core(text, 11, 1).expect("there is one");
        assert_eq!((core.busy_ns, core.nice_ns, core.interrupts_ns), (55, 2, 13));
        assert_eq!((core.stolen_ns, core.idle_ns), (8, 450));
        assert_eq!(parse_core(text, 2, 1), None);
    }

    #[test]
    fn this_process_and_its_end_are_accounted_for() {
        let me = std::process::id();
        assert!(memory_bytes(me).expect("Linux has /proc") > 1 << 20);
        assert!(Cpu::of_process(me).expect("Linux has CPU clocks").total_ns > 0);
        assert!(proportional_memory_bytes(me).expect("Linux has /proc") > 1 << 16);
        assert!(!threads(me).expect("Linux has /proc").is_empty());
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"])
            .spawn()
            .expect("a shell");
        let cpu = cpu_of_whole_life(&mut child).expect("it ends");
        assert!(cpu.total_ns > 0, "a child that has ended still has its account");
    }
}
