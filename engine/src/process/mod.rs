//! What this process gives up: core dumps, other users' files, most system calls, and the way back.
//!
//! Each step has its place in `run`'s start, and the order is the point:
//!
//! ```text
//!   begin     no core dump, not to be traced by its own user                       first of all, for every command
//!   ─ sockets are bound, the configuration is read ─
//!   become    another user, where root started it and the configuration names one
//!   ─ the data folder is opened and looked at ─
//!   confine   no_new_privs, Landlock, seccomp                    before the first thread: those that come later inherit it
//!   ─ threads start; each ring is restricted to the operations it needs before it takes one (`uring::core`) ─
//!   settle    seccomp again, on all threads: no new ring, no exec, no tracing; whoever asks is killed    once it runs
//! ```
//!
//! What a kernel lacks is a [`Protection`] that is not in force: it is told at the start and by `harborseal check`, and with
//! `process.require_sandbox` the engine does not start. Nothing is left out in silence.

pub mod confine;
pub mod folders;
pub mod syscalls;
pub mod user;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::uring::secret;
use confine::Reach;

/// One thing that protects this process, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// What people call it.
    pub name: &'static str,
    /// Whether all of it holds.
    pub in_force: bool,
    /// What holds, or why it does not.
    pub detail: String,
    /// What would mend it; empty where nothing needs doing.
    pub remedy: String,
}

impl Protection {
    fn holds(name: &'static str, detail: impl Into<String>) -> Protection {
        Protection {
            name,
            in_force: true,
            detail: detail.into(),
            remedy: String::new(),
        }
    }

    fn lacks(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Protection {
        Protection {
            name,
            in_force: false,
            detail: detail.into(),
            remedy: remedy.into(),
        }
    }
}

/// No core file, and no tracing by another process of the same user. Needs no privilege, and is done for every command: some read
/// customers' identities.
pub fn begin() -> Vec<Protection> {
    vec![undumpable(), no_core()]
}

/// What is made from now on is its owner's and group's alone: segments and keys 0600, everything else 0640, folders 0750.
pub fn make_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o027));
}

/// Also after a change of user, which may set it back.
fn undumpable() -> Protection {
    let name = "no tracing, no dumping";
    match set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        Ok(()) => Protection::holds(name, "PR_SET_DUMPABLE is 0"),
        Err(error) => Protection::lacks(name, format!("PR_SET_DUMPABLE: {error}"), "a newer kernel"),
    }
}

fn no_core() -> Protection {
    let name = "core size";
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    match setrlimit(Resource::Core, none) {
        Ok(()) => Protection::holds(name, "0"),
        Err(error) => Protection::lacks(name, error.to_string(), "`ulimit -c 0`"),
    }
}

/// Memory for keys: what the arena is made of.
pub fn secrets() -> Protection {
    let name = "memory for keys";
    let report = secret::report();
    let why = |errno: Option<i32>| {
        errno.map_or_else(String::new, |errno| {
            std::io::Error::from_raw_os_error(errno).to_string()
        })
    };
    match report {
        _ if report.unlocked_bytes > 0 => Protection::lacks(
            name,
            format!(
                "neither memfd_secret nor locked: {}: keys might reach swap",
                why(report.lock_errno)
            ),
            "raise the limit of locked memory (`ulimit -l`, or LimitMEMLOCK= in the unit)",
        ),
        _ if report.locked_bytes > 0 => Protection::lacks(
            name,
            format!(
                "locked and out of core dumps, but readable by root: no memfd_secret ({})",
                why(report.secret_errno)
            ),
            "Linux 6.5, or `secretmem.enable=1` on the kernel's command line; more locked memory (`ulimit -l`); \
             in a container a seccomp profile that allows memfd_secret",
        ),
        _ => Protection::holds(
            name,
            "memfd_secret: out of swap, of core dumps and of reach for root",
        ),
    }
}

/// Everything there is to confine this thread and those it will start.
pub fn confine(reach: &Reach) -> Vec<Protection> {
    let landlock = confine::landlock(reach);
    vec![confine::no_new_privs(), landlock, syscalls::narrow()]
}

/// What is left to forbid once all threads run.
pub fn settle() -> Protection {
    syscalls::settle()
}

/// All of it, tried on a thread of its own, which then ends: what `check` says of this machine without becoming so itself. Core size and
/// dumping are the process's, and `main` saw to them.
pub fn rehearse(reach: &Reach) -> Vec<Protection> {
    std::thread::scope(|scope| {
        let rehearsed = scope.spawn(|| {
            let mut all = confine(reach);
            all.push(syscalls::settle_this_thread());
            all
        });
        rehearsed
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
