//! How many system calls a process makes, by thread: counted by the kernel's own tracepoint, through `perf stat`.
//!
//! Exact, and not free: while it counts, every system call of the machine takes the kernel's slow way in. So whoever wants costs too
//! measures them in another run. Needs root and perf; where either is missing it says so, and nothing is guessed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;
use serde::Serialize;

use crate::child::{Process, Stop};

const EVENT: &str = "raw_syscalls:sys_enter";
/// Attaching takes milliseconds; a machine that is busy may need longer.
const ATTACHED: Duration = Duration::from_millis(300);
const END_BOUND: Duration = Duration::from_secs(10);

/// A count that goes on.
pub struct Counting {
    perf: Process,
}

/// System calls by name of thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub total: u64,
    pub by_thread: BTreeMap<String, u64>,
}

/// Why nothing can be counted here, if so.
pub fn objection() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("counting needs root".to_owned());
    }
    let perf = Command::new("perf")
        .args(["stat", "-x,", "-e", EVENT, "true"])
        .stdin(Stdio::null())
        .output();
    match perf {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or("it failed");
            Some(format!("perf cannot count {EVENT} here: {first}"))
        }
        Err(_) => Some("perf is missing (Debian: apt-get install linux-perf)".to_owned()),
    }
}

impl Counting {
    /// Of all threads that the process has now.
    pub fn start(pid: u32, cpu: usize, stop: &Stop) -> anyhow::Result<Counting> {
        let command = format!("perf stat --per-thread -x, -e {EVENT} -p {pid}");
        let command: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        let mut perf = Process::start("perf", &[cpu], &command)?;
        stop.sleep(ATTACHED)?;
        perf.drain(|_| ());
        ensure!(
            !perf.has_ended(),
            "perf ended before it counted: {}",
            perf.complaint()
        );
        Ok(Counting { perf })
    }

    pub fn finish(self, stop: &Stop) -> anyhow::Result<Counted> {
        self.perf.signal(Signal::INT);
        let mut counted = Counted::default();
        self.perf.finish(END_BOUND, stop, |line| {
            if let Some((thread, calls)) = parse(&line) {
                counted.total += calls;
                *counted.by_thread.entry(thread).or_default() += calls;
            }
        })?;
        ensure!(counted.total > 0, "perf counted nothing");
        Ok(counted)
    }
}

/// `NAME-TID,COUNT,,EVENT,…`; the count of a thread that never ran is no number. The kernel's workers make no system calls.
fn parse(line: &str) -> Option<(String, u64)> {
    let mut fields = line.rsplit_once(&format!(",,{EVENT},"))?.0.rsplitn(2, ',');
    let calls = fields.next()?.parse().ok()?;
    let (name, _) = fields.next()?.rsplit_once('-')?;
    Some((name.trim().to_owned(), calls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_perf_names_the_thread_and_its_calls() {
        let line = "shard-0-4711,15082,,raw_syscalls:sys_enter,503045585,100.00,,";
        assert_eq!(parse(line), Some(("shard-0".to_owned(), 15_082)));
        let odd = "a, b-7,1,,raw_syscalls:sys_enter,5,100.00,,";
        assert_eq!(parse(odd), Some(("a, b".to_owned(), 1)));
        let idle = "keeper-0-4712,<not counted>,,raw_syscalls:sys_enter,0,100.00,,";
        assert_eq!(parse(idle), None);
        assert_eq!(parse("# started on Mon Nov 23"), None);
    }
}
