//! The run: what is due goes out, and what went out is noted.
//!
//! One thread does it all, so that order and counts need no agreement. Invariants: a packet is counted and logged as sent
//! only after the kernel took it; its lateness counts from when it should have left; nothing is skipped to catch up.

mod gather;
mod live;
mod outlets;
mod sending;
mod tally;

pub use live::{Control, LiveSecond, lateness_histogram};

use crate::plan::Plan;
use crate::report::FleetReport;
use crate::result::RunResult;
use crate::send::{Method, OpenError};
use crate::sentlog::SentLogError;
use crate::spec::{FleetSpec, SpecError};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::path::PathBuf;

/// How to send a plan.
#[derive(Debug, Clone)]
pub struct RunOptions {
    pub method: Method,
    /// Pin the sending thread to this CPU; it may then wait for a packet's time awake.
    pub cpu: Option<usize>,
    /// Write the sent log here.
    pub sent_log: Option<PathBuf>,
    /// `false`: the same packets as fast as they go, to see what the machine can.
    pub paced: bool,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions {
            method: Method::default(),
            cpu: None,
            sent_log: None,
            paced: true,
        }
    }
}

/// Why a run did not come to a report.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("{0}")]
    Spec(#[from] SpecError),
    #[error("the plan has no stream that sends")]
    Empty,
    #[error("cannot open the sending sockets: {0}")]
    Socket(#[from] OpenError),
    #[error(
        "{sockets} sockets are needed, one for each camera with an address of its own; this process may have {limit} files open (ulimit -n)"
    )]
    OpenFiles { sockets: u64, limit: u64 },
    #[error("cannot pin the sending thread to CPU {cpu}: {errno}")]
    Cpu { cpu: usize, errno: nix::Error },
    #[error("cannot start the sending thread: {0}")]
    Thread(std::io::Error),
    #[error("cannot handle signals: {0}")]
    Signal(std::io::Error),
    #[error("{0}")]
    SentLog(#[from] SentLogError),
}

/// Sends a whole fleet on a thread of its own and waits for it. Ends when all cameras have sent their time, or soon after
/// `control.stop` is set, with a report of what there was.
pub fn run(spec: &FleetSpec, control: &Control) -> Result<FleetReport, FleetError> {
    spec.check()?;
    let options = RunOptions {
        method: if spec.gso { Method::Gso } else { Method::Sendmmsg },
        cpu: spec.cpu,
        sent_log: spec.sent_log.clone(),
        paced: true,
    };
    let result = run_plan(&spec.plan(), &options, control)?;
    Ok(FleetReport::new(spec, result))
}

/// Sends what a plan says on a thread of its own and waits for it. Ends when all streams have sent their time, or soon after
/// `control.stop` is set, with what there was.
pub fn run_plan(plan: &Plan, options: &RunOptions, control: &Control) -> Result<RunResult, FleetError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("fleet".into());
        let thread = thread.spawn_scoped(scope, || {
            if let Some(cpu) = options.cpu {
                pin(cpu)?; // the sent log's thread inherits it
            }
            sending::Fleet::new(plan, options, control)?.run()
        });
        thread
            .map_err(FleetError::Thread)?
            .join()
            .expect("the sending thread does not panic")
    })
}

fn pin(cpu: usize) -> Result<(), FleetError> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
        .map_err(|errno| FleetError::Cpu { cpu, errno })
}

#[cfg(test)]
mod tests;
