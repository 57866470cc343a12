//! seccomp: the system calls this process still makes.
//!
//! Two filters, of which the stricter answer counts. [`narrow`] lists what is allowed, as it was found by tracing the engine through start,
//! load, reload, rotation, recovery, retention and stop; what is not on the list fails with ENOSYS, as on a kernel that does not have it, so
//! that a C library of tomorrow falls back instead of failing. [`settle`] kills whoever asks for what only somebody who has taken this process
//! over would ask for.
//!
//! seccomp does not see what a ring is asked to do: that is bounded when the ring is made (`uring::core`), and no other can be made after
//! [`settle`]. Nor does it see paths: that is Landlock's part.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter, apply_filter_all_threads,
};

use super::Protection;

const REMEDY: &str = "a kernel with CONFIG_SECCOMP_FILTER, and a container that does not forbid it";

/// Allowed whatever their arguments.
const ALLOWED: &[i64] = &[
    // Files, below the folders that Landlock leaves.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_readlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    // Memory. New mappings and protections: see `conditions`.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_memfd_secret,
    // Threads and waiting.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    // Clocks, figures and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    // What is bound already: the kernel hands us connections for figures, and datagrams. New sockets: see `conditions`.
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // The shards' rings. io_uring_setup goes with `settle`.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // For the second filter.
    libc::SYS_seccomp,
];

/// Names that later architectures do without.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[i64] = &[];

/// Killed for, once it runs: another program, another's memory, the kernel's own, and rings without bounds.
const DEADLY: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_io_uring_setup,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_mount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_keyctl,
];

/// What the CPU can do, as the standard library asks (Linux 6.4).
const PR_GET_AUXV: i32 = 0x4155_5856;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// One argument of a call, all of it.
fn argument(index: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Qword, compare, value)?;
    SeccompRule::new(vec![condition])
}

/// Calls that are allowed with some arguments only.
fn conditions(rules: &mut Rules) -> Result<(), seccompiler::BackendError> {
    // Memory that can be written and run never: no code but the program's own.
    let not_executable = || argument(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    rules.insert(libc::SYS_mmap, vec![not_executable()?]);
    rules.insert(libc::SYS_mprotect, vec![not_executable()?]);
    // A thread, not a process. clone3 hides its flags from filters: without it, the C library takes clone.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(
        libc::SYS_clone,
        vec![argument(0, SeccompCmpOp::MaskedEq(thread), thread)?],
    );
    // The supervisor's socket. All others are bound by now.
    rules.insert(
        libc::SYS_socket,
        vec![argument(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?],
    );
    // Names of threads and mappings, huge pages; never back to being dumpable.
    let harmless = [
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_SET_VMA,
        PR_GET_AUXV,
        libc::PR_SET_THP_DISABLE,
        libc::PR_GET_THP_DISABLE,
        libc::PR_GET_DUMPABLE,
        libc::PR_SET_NO_NEW_PRIVS,
    ];
    let of_prctl: Result<Vec<_>, _> = harmless
        .iter()
        .map(|what| argument(0, SeccompCmpOp::Eq, *what as u64))
        .collect();
    rules.insert(libc::SYS_prctl, of_prctl?);
    // Is it a terminal, do not block, how much is waiting.
    let questions = [libc::TCGETS, libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX];
    let of_ioctl: Result<Vec<_>, _> = questions
        .iter()
        .map(|what| argument(1, SeccompCmpOp::Eq, *what))
        .collect();
    rules.insert(libc::SYS_ioctl, of_ioctl?);
    // Limits may be read: with a place for new ones it would be a change.
    rules.insert(libc::SYS_prlimit64, vec![argument(2, SeccompCmpOp::Eq, 0)?]);
    Ok(())
}

fn program(rules: Rules, others: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(|_| format!("no filter is made for {}", std::env::consts::ARCH))?;
    let filter = SeccompFilter::new(rules, others, listed, arch).map_err(|error| error.to_string())?;
    filter
        .try_into()
        .map_err(|error: seccompiler::BackendError| error.to_string())
}

fn allowing() -> Result<BpfProgram, String> {
    let mut rules: Rules = ALLOWED
        .iter()
        .chain(ALLOWED_OLD)
        .map(|call| (*call, Vec::new()))
        .collect();
    conditions(&mut rules).map_err(|error| error.to_string())?;
    program(
        rules,
        SeccompAction::Errno(libc::ENOSYS as u32),
        SeccompAction::Allow,
    )
}

fn killing() -> Result<BpfProgram, String> {
    let rules = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    program(rules, SeccompAction::Allow, SeccompAction::KillProcess)
}

/// Leaves this thread, and those that it starts, the calls on the list.
pub fn narrow() -> Protection {
    let applied = allowing().and_then(|program| apply_filter(&program).map_err(|error| error.to_string()));
    told("seccomp", applied, "only the system calls that recording takes")
}

/// Forbids all threads what none of them needs any more.
pub fn settle() -> Protection {
    let applied =
        killing().and_then(|program| apply_filter_all_threads(&program).map_err(|error| error.to_string()));
    told(
        "seccomp once it runs",
        applied,
        "exec, tracing and new rings are deadly",
    )
}

/// The same for this thread alone.
pub fn settle_this_thread() -> Protection {
    let applied = killing().and_then(|program| apply_filter(&program).map_err(|error| error.to_string()));
    told(
        "seccomp once it runs",
        applied,
        "exec, tracing and new rings are deadly",
    )
}

fn told(name: &'static str, applied: Result<(), String>, what: &str) -> Protection {
    match applied {
        Ok(()) => Protection::holds(name, what),
        Err(why) => Protection::lacks(name, why, REMEDY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn a_narrowed_thread_runs_no_program_opens_no_port_and_makes_no_process() {
        let narrowed = std::thread::spawn(|| {
            if !narrow().in_force {
                return; // nothing to show here, and `check` says so
            }
            let refused = |error: Error| assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            refused(std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err());
            refused(std::net::TcpListener::bind("127.0.0.1:0").unwrap_err());
            refused(std::process::Command::new("/bin/true").spawn().unwrap_err());
            // And what it needs it has.
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            std::os::unix::net::UnixDatagram::unbound().unwrap();
            assert!(
                rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).is_err()
            );
        });
        narrowed.join().unwrap();
    }

    #[test]
    fn what_is_deadly_in_the_end_is_not_allowed_before_but_for_making_rings() {
        let both: Vec<_> = DEADLY.iter().filter(|call| ALLOWED.contains(call)).collect();
        assert_eq!(both, [&libc::SYS_io_uring_setup]);
    }
}
