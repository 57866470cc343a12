//! Set-up, submission and completion of one `io_uring`: the thin layer that knows the crate and its traps.
//!
//! Invariants:
//! - one thread makes, uses and drops a [`Core`] (SINGLE_ISSUER, DEFER_TASKRUN); it is `!Send`;
//! - only one `Submitter` ever exists, because the registered ring descriptor lives in it: `IoUring::submit()`
//!   would make a new one and pay for the file look-up on every call;
//! - the taskrun flag is always set together with DEFER_TASKRUN, or a poll loop would never see a completion.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;

use io_uring::register::Restriction;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, cqueue, opcode, squeue};

/// How to make a ring.
#[derive(Clone, Debug)]
pub(super) struct CoreOptions {
    pub entries: u32,
    pub completions: u32,
    /// Bound on kernel workers for this thread's blocking operations (every fsync runs in one).
    pub workers: u32,
    /// CPUs those workers may use; empty: those of the thread that makes the ring.
    pub worker_cpus: Vec<usize>,
    /// Allow only the operations this room uses, once the ring is set up.
    pub restrict: bool,
    /// Begin at the bottom of the ladder of optional flags.
    pub plain_flags: bool,
}

/// What the ring got, for the start-up report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreReport {
    /// Set-up flags in force.
    pub flags: Vec<&'static str>,
    /// Features the kernel refused, with its `errno`.
    pub refused: Vec<(&'static str, i32)>,
    /// Waits can batch wake-ups (Linux 6.12).
    pub min_wait: bool,
}

impl CoreReport {
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }
}

pub(super) const DEFER_TASKRUN: &str = "DEFER_TASKRUN";

/// A completion, copied out of the ring.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Completion {
    pub user_data: u64,
    pub result: i32,
    pub flags: u32,
}

/// Completions taken from the ring at a time.
pub(super) const BATCH: usize = 64;

pub(super) struct Core {
    ring: NonNull<IoUring>,
    /// Borrows `*ring`, which outlives it: see `drop`.
    submitter: Submitter<'static>,
    registered: bool,
    /// System calls made on this ring, those that set it up not counted.
    pub enters: u64,
    pub report: CoreReport,
    _one_thread: PhantomData<*const ()>,
}

/// Set-up flags, in the order in which they are given up when the kernel refuses the set. Each step drops one
/// group of flags that belong together.
const FLAG_LADDER: [&[&str]; 4] = [
    &["NO_SQARRAY"],
    &[DEFER_TASKRUN, "TASKRUN_FLAG", "SINGLE_ISSUER"],
    &["COOP_TASKRUN"],
    &["SUBMIT_ALL"],
];

impl Core {
    pub(super) fn new(options: &CoreOptions) -> io::Result<Core> {
        let mut report = CoreReport::default();
        let mut dropped = if options.plain_flags { FLAG_LADDER.len() } else { 0 };
        let ring = loop {
            match Self::build(options, dropped, &mut report) {
                Ok(ring) => break ring,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && dropped < FLAG_LADDER.len() => {
                    report
                        .refused
                        .extend(FLAG_LADDER[dropped].iter().map(|&flag| (flag, libc::EINVAL)));
                    dropped += 1;
                }
                Err(error) => return Err(error),
            }
        };
        report.min_wait = ring.params().is_feature_min_timeout();
        let ring = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: `ring` was just leaked and is freed only in `drop`, after the last use of `submitter`; the
        // IoUring is from now on used through shared references only.
        let submitter = unsafe { ring.as_ref() }.submitter();
        let mut core = Core {
            ring,
            submitter,
            registered: false,
            enters: 0,
            report,
            _one_thread: PhantomData,
        };
        core.set_up_workers(options);
        Ok(core)
    }

    fn build(options: &CoreOptions, dropped: usize, report: &mut CoreReport) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(options.completions).setup_clamp();
        if options.restrict {
            builder.setup_r_disabled();
        }
        report.flags.clear();
        for &flag in FLAG_LADDER[dropped..].iter().copied().flatten() {
            match flag {
                "NO_SQARRAY" => builder.setup_no_sqarray(),
                DEFER_TASKRUN => builder.setup_defer_taskrun(),
                "TASKRUN_FLAG" => builder.setup_taskrun_flag(),
                "SINGLE_ISSUER" => builder.setup_single_issuer(),
                // Excluded by DEFER_TASKRUN, and the next best thing without it.
                "COOP_TASKRUN" if dropped < 2 => continue,
                "COOP_TASKRUN" => builder.setup_coop_taskrun().setup_taskrun_flag(),
                _ => builder.setup_submit_all(),
            };
            report.flags.push(flag);
        }
        builder.build(options.entries)
    }

    fn set_up_workers(&mut self, options: &CoreOptions) {
        let mut most = [options.workers.max(1), 1];
        if let Err(error) = self.submitter.register_iowq_max_workers(&mut most) {
            self.refuse("iowq_max_workers", &error);
        }
        if options.worker_cpus.is_empty() {
            return;
        }
        // SAFETY: an all-zero cpu_set_t is the empty set.
        let mut set = unsafe { MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init() };
        for &cpu in options
            .worker_cpus
            .iter()
            .filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize)
        {
            // SAFETY: cpu is below CPU_SETSIZE, so the bit lies inside the set.
            unsafe { libc::CPU_SET(cpu, &mut set) };
        }
        if let Err(error) = self.submitter.register_iowq_aff(&set) {
            self.refuse("iowq_affinity", &error);
        }
    }

    /// Ends set-up: restricts the ring to the operations this room uses, enables it, and registers its own
    /// descriptor. What was made with `restrict` takes no submission before this.
    pub(super) fn enable(&mut self, options: &CoreOptions) -> io::Result<()> {
        if options.restrict {
            const REGISTER_RING_FDS: u8 = 20;
            const UNREGISTER_RING_FDS: u8 = 21;
            let mut allowed = [
                Restriction::sqe_op(opcode::RecvMsgMulti::CODE),
                Restriction::sqe_op(opcode::Writev::CODE),
                Restriction::sqe_op(opcode::Fsync::CODE),
                Restriction::sqe_op(opcode::Read::CODE),
                Restriction::sqe_op(opcode::AsyncCancel::CODE),
                Restriction::sqe_flags_allowed(squeue::Flags::BUFFER_SELECT.bits()),
                Restriction::register_op(REGISTER_RING_FDS),
                Restriction::register_op(UNREGISTER_RING_FDS),
            ];
            match self.submitter.register_restrictions(&mut allowed) {
                Ok(()) => self.report.flags.push("RESTRICTED"),
                Err(error) => self.refuse("RESTRICTIONS", &error),
            }
            self.submitter.register_enable_rings()?;
        }
        match self.submitter.register_ring_fd() {
            Ok(()) => {
                self.registered = true;
                self.report.flags.push("REGISTERED_RING");
            }
            Err(error) => self.refuse("REGISTERED_RING", &error),
        }
        Ok(())
    }

    fn refuse(&mut self, what: &'static str, error: &io::Error) {
        self.report
            .refused
            .push((what, error.raw_os_error().unwrap_or(0)));
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.ring().as_raw_fd()
    }

    fn ring(&self) -> &IoUring {
        // SAFETY: leaked in `new`, freed in `drop`; only shared references to it exist in between.
        unsafe { self.ring.as_ref() }
    }

    /// Queues an operation, submitting what is queued if there is no room. `false`: still no room.
    ///
    /// # Safety
    /// Everything the entry points to must stay valid, and unmoved, until its completion was taken.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<bool> {
        // SAFETY: the queue made here is the only one, and gone at the end of the statement; the caller
        // vouches for the entry.
        if unsafe { self.ring().submission_shared().push(entry) }.is_ok() {
            return Ok(true);
        }
        self.submit()?;
        // SAFETY: as above.
        Ok(unsafe { self.ring().submission_shared().push(entry) }.is_ok())
    }

    /// Submits what is queued and runs deferred work, without waiting.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.enters += 1;
        tolerate(self.submitter.submit())
    }

    /// Submits, then waits for `want` completions; after `min_wait_us` one is enough, after `timeout_us` none
    /// is needed. Does not wait if completions are there already.
    pub(super) fn wait(&mut self, want: usize, min_wait_us: u32, timeout_us: u64) -> io::Result<()> {
        self.enters += 1;
        let timeout = Timespec::new()
            .sec(timeout_us / 1_000_000)
            .nsec((timeout_us % 1_000_000) as u32 * 1_000);
        let args = SubmitArgs::new().timespec(&timeout);
        if min_wait_us > 0 && self.report.min_wait {
            tolerate(
                self.submitter
                    .submit_with_args(want.max(1), &args.min_wait_usec(min_wait_us)),
            )
        } else {
            tolerate(self.submitter.submit_with_args(1, &args))
        }
    }

    /// Whether a submission is queued or the kernel asks to be entered (deferred work, overflow).
    pub(super) fn needs_enter(&self) -> bool {
        // SAFETY: the only queue at this moment, gone at the end of the block.
        let queue = unsafe { self.ring().submission_shared() };
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether completions wait in the kernel because the queue was full.
    pub(super) fn overflowed(&self) -> bool {
        // SAFETY: as above.
        unsafe { self.ring().submission_shared() }.cq_overflow()
    }

    /// Completions ready to be taken.
    pub(super) fn ready(&self) -> usize {
        // SAFETY: the only queue at this moment.
        unsafe { self.ring().completion_shared() }.len()
    }

    /// Takes up to [`BATCH`] completions, in the kernel's order.
    pub(super) fn take(&mut self, out: &mut [Completion; BATCH]) -> usize {
        let mut raw = [const { MaybeUninit::<cqueue::Entry>::uninit() }; BATCH];
        // SAFETY: the only queue at this moment; dropping it gives the entries back to the kernel.
        let mut queue = unsafe { self.ring().completion_shared() };
        let taken = queue.fill(&mut raw);
        for (to, from) in out.iter_mut().zip(taken.iter()) {
            *to = Completion {
                user_data: from.user_data(),
                result: from.result(),
                flags: from.flags(),
            };
        }
        taken.len()
    }
}

/// A wait that ends early is no error: timeouts, signals, and a full completion queue all mean "look again".
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.registered {
            // A registered descriptor would keep the ring alive until the thread ends.
            let _closing = self.submitter.unregister_ring_fd();
        }
        // SAFETY: this pointer came from Box::leak in `new` and is freed once, here. `submitter` still holds a
        // reference to it but is not used again: it has no Drop.
        drop(unsafe { Box::from_raw(self.ring.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(plain_flags: bool, restrict: bool) -> Core {
        let options = CoreOptions {
            entries: 8,
            completions: 16,
            workers: 1,
            worker_cpus: vec![0],
            restrict,
            plain_flags,
        };
        let mut core = Core::new(&options).unwrap();
        core.enable(&options).unwrap();
        core
    }

    /// The result of an operation the engine never uses.
    fn result_of_nop(core: &mut Core) -> i32 {
        let entry = opcode::Nop::new().build().user_data(1);
        // SAFETY: a no-op points to nothing.
        assert!(unsafe { core.push(&entry) }.unwrap());
        core.wait(1, 0, 1_000_000).unwrap();
        let mut batch = [Completion::default(); BATCH];
        assert_eq!(core.take(&mut batch), 1);
        batch[0].result
    }

    #[test]
    fn a_restricted_ring_refuses_what_the_engine_does_not_use() {
        let mut restricted = core(false, true);
        if restricted.report.has("RESTRICTED") {
            assert_eq!(result_of_nop(&mut restricted), -libc::EACCES);
        }
        assert_eq!(result_of_nop(&mut core(false, false)), 0);
    }

    #[test]
    fn many_rings_in_turn_leave_no_descriptor_registered() {
        // A thread can register 16; each ring must give its own back.
        for _ in 0..40 {
            let core = core(false, true);
            assert_eq!(core.report.refused, []);
        }
    }

    #[test]
    fn without_optional_flags_a_ring_still_works() {
        let mut core = core(true, false);
        assert!(!core.report.has(DEFER_TASKRUN));
        assert_eq!(result_of_nop(&mut core), 0);
    }
}
