//! Small system calls: clocks, CPU time, pinning, files for direct I/O, limits, and waking a ring.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::event::EventfdFlags;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::process::Resource;
use rustix::thread::CpuSet;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// CLOCK_REALTIME, nanoseconds since 1970: the clock of the kernel's receive stamps.
pub fn realtime_ns() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}

/// CLOCK_MONOTONIC, nanoseconds since some start: for deadlines.
pub fn monotonic_ns() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// CPU time, user and system, of the calling thread.
pub fn thread_cpu_ns() -> u64 {
    nanos(clock_gettime(ClockId::ThreadCPUTime))
}

fn nanos(time: Timespec) -> u64 {
    // Before 1970 there was no receive stamp; a clock set there reads as its start.
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Resources used so far (`getrusage`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub user_ns: u64,
    pub system_ns: u64,
    pub max_rss_bytes: u64,
    pub minor_faults: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

impl Usage {
    /// Of the whole process, all threads, kernel workers of its rings included.
    pub fn of_process() -> Usage {
        Self::read(libc::RUSAGE_SELF)
    }

    pub fn of_thread() -> Usage {
        Self::read(libc::RUSAGE_THREAD)
    }

    pub fn cpu_ns(&self) -> u64 {
        self.user_ns + self.system_ns
    }

    fn read(who: libc::c_int) -> Usage {
        let mut raw = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: getrusage writes one rusage to the pointer, which has room for exactly that.
        let result = unsafe { libc::getrusage(who, raw.as_mut_ptr()) };
        assert_eq!(
            result, 0,
            "getrusage fails only for an unknown `who` or a bad pointer"
        );
        // SAFETY: all-zero is a valid rusage, and the call succeeded.
        let raw = unsafe { raw.assume_init() };
        let time = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1_000;
        Usage {
            user_ns: time(raw.ru_utime),
            system_ns: time(raw.ru_stime),
            max_rss_bytes: raw.ru_maxrss as u64 * 1024,
            minor_faults: raw.ru_minflt as u64,
            voluntary_switches: raw.ru_nvcsw as u64,
            involuntary_switches: raw.ru_nivcsw as u64,
        }
    }
}

/// Binds the calling thread to one CPU. Errors: no such CPU, or not in this process's set (`EINVAL`).
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// The CPUs this thread may run on.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Names the calling thread as `ps -L` and `top -H` show it; cut to the kernel's 15 bytes.
pub fn name_thread(name: &str) -> io::Result<()> {
    let short: Vec<u8> = name.bytes().filter(|&byte| byte != 0).take(15).collect();
    let name = std::ffi::CString::new(short).expect("zero bytes were filtered out");
    Ok(rustix::thread::set_name(&name)?)
}

/// `uname -r`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Whether something (NTP, PTP) keeps the system clock in step; `None` if the kernel does not say.
pub fn clock_synchronised() -> Option<bool> {
    let mut timex = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all-zero is a valid timex, whose `modes` 0 asks to read only; adjtimex writes one timex to the pointer.
    match unsafe { libc::adjtimex(timex.as_mut_ptr()) } {
        -1 => None,
        state => Some(state != libc::TIME_ERROR),
    }
}

/// Soft and hard limit; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// RLIMIT_MEMLOCK, bytes. Does not bind a process with CAP_IPC_LOCK.
pub fn memlock_limit() -> Limit {
    limit(Resource::Memlock)
}

/// RLIMIT_NOFILE, open files.
pub fn open_files_limit() -> Limit {
    limit(Resource::Nofile)
}

fn limit(which: Resource) -> Limit {
    let limit = rustix::process::getrlimit(which);
    Limit {
        soft: limit.current,
        hard: limit.maximum,
    }
}

/// Memory of this process, from /proc/self/status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// VmRSS, which leaves reserved huge pages out.
    pub rss_bytes: u64,
    pub hugetlb_bytes: u64,
    pub locked_bytes: u64,
}

pub fn memory_use() -> io::Result<MemoryUse> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    };
    Ok(MemoryUse {
        rss_bytes: field("VmRSS:"),
        hugetlb_bytes: field("HugetlbPages:"),
        locked_bytes: field("VmLck:"),
    })
}

/// A file opened for direct I/O, or the reason why not.
#[derive(Debug)]
pub struct DirectFile {
    pub file: File,
    /// `false`: the file system has no O_DIRECT (tmpfs, some network ones); I/O goes through the page cache.
    pub direct: bool,
}

/// Creates a new file for writing with O_DIRECT, mode 0600; never opens an existing one.
pub fn create_direct(path: &Path) -> io::Result<DirectFile> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    open(path, flags, Mode::RUSR | Mode::WUSR)
}

/// Opens an existing file for writing with O_DIRECT.
pub fn open_direct(path: &Path) -> io::Result<DirectFile> {
    open(
        path,
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )
}

fn open(path: &Path, flags: OFlags, mode: Mode) -> io::Result<DirectFile> {
    match rustix::fs::open(path, flags | OFlags::DIRECT, mode) {
        Ok(fd) => {
            return Ok(DirectFile {
                file: File::from(fd),
                direct: true,
            });
        }
        Err(rustix::io::Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    // A file system without O_DIRECT refuses only after O_CREAT took effect, so the file may exist by now.
    let again = flags - OFlags::EXCL;
    Ok(DirectFile {
        file: File::from(rustix::fs::open(path, again, mode)?),
        direct: false,
    })
}

/// Reserves `0..len_bytes` of the file and sets its size; the space reads as zeros.
/// Errors: `ENOSPC`; `EOPNOTSUPP` where the file system cannot preallocate.
pub fn preallocate(file: &File, len_bytes: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len_bytes) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Gives `len_bytes` of the file from `at` on back to the disk; they read as zeros. Where the file system has no holes, zeros are written.
pub fn punch_hole(file: &File, at: u64, len_bytes: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, flags, at, len_bytes) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::OPNOTSUPP) => break,
            result => return Ok(result?),
        }
    }
    let zeros = vec![0; len_bytes as usize];
    std::os::unix::fs::FileExt::write_all_at(file, &zeros, at)
}

/// Makes the names in a directory durable (create, rename, unlink).
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Gives what root has just made at `path` to whom its folder belongs: a command run by root beside an engine that is another user
/// must leave nothing that this one cannot read. For any other user nothing happens.
pub fn keep_owner(path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let owner = std::fs::metadata(folder.unwrap_or(Path::new(".")))?;
    let made = std::fs::symlink_metadata(path)?;
    if (owner.uid(), owner.gid()) == (made.uid(), made.gid()) {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Free and total bytes of the file system that holds `path`, as an unprivileged writer sees them.
pub fn free_space(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

/// Wakes one ring from any thread: the ring reports `Event::Woken`. Clones wake the same ring.
///
/// Wakes are not counted: many before the ring looks are one event. So a sender first puts its message where the
/// shard will find it, then wakes; the shard on `Woken` empties all its queues.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    pub fn new() -> io::Result<Waker> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker {
            event: Arc::new(event),
        })
    }

    /// Never blocks: when the counter is at its maximum the ring is already due to wake.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        while rustix::io::write(&self.event, &one) == Err(rustix::io::Errno::INTR) {}
    }

    pub(super) fn fd(&self) -> &Arc<OwnedFd> {
        &self.event
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_and_cpu_time_move_forward() {
        let (wall, steady) = (realtime_ns(), monotonic_ns());
        let (cpu, usage) = (thread_cpu_ns(), Usage::of_process());
        let mut sum = 0u64;
        while thread_cpu_ns() < cpu + 30_000_000 {
            sum = std::hint::black_box(sum.wrapping_mul(3) + 1);
        }
        assert!(wall > 1_600_000_000_000_000_000 && monotonic_ns() > steady + 20_000_000);
        assert!(Usage::of_process().cpu_ns() > usage.cpu_ns() && Usage::of_thread().cpu_ns() > 0);
    }

    #[test]
    fn a_thread_is_pinned_and_named() {
        let cpus = allowed_cpus().unwrap();
        let last = *cpus.last().unwrap();
        let thread = std::thread::spawn(move || {
            pin_to_cpu(last).unwrap();
            name_thread("a name longer than fifteen bytes").unwrap();
            (
                allowed_cpus().unwrap(),
                std::fs::read_to_string("/proc/thread-self/comm").unwrap(),
            )
        });
        let (pinned, name) = thread.join().unwrap();
        assert_eq!(pinned, [last]);
        assert_eq!(name.trim_end(), "a name longer t");
        assert!(pin_to_cpu(100_000).is_err() && pin_to_cpu(1023).is_err());
    }

    #[test]
    fn limits_and_memory_are_read() {
        assert!(open_files_limit().soft.is_none_or(|files| files > 0));
        assert!(memory_use().unwrap().rss_bytes > 0);
        assert!(kernel_release().contains('.'));
    }
}
