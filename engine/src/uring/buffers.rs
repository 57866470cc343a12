//! The buffers the kernel receives into: one provided-buffer ring, shared by all sockets of a shard.
//!
//! Incremental (`IOU_PBUF_RING_INC`, with `min_left`): a few large buffers, each filled from the front by many
//! datagrams. The kernel gives no offset, so `head` is counted here: completions of one ring come in the order
//! in which buffers were consumed. A buffer is ours again with the first completion that lacks BUF_MORE.
//!
//! Plain: one entry holds one datagram, and must hold the largest GRO batch.
//!
//! Which part of a buffer belongs to whom:
//! ```text
//! 0 ─────────── wiped-or-dirty ─────────── head ─── completions not taken yet ─── the kernel's ─── end
//! ```
//! The kernel writes at and above `head` only, and only while the thread is inside `io_uring_enter`
//! (DEFER_TASKRUN) or, without it, at any time.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::datagram::{HEADER_BYTES, PAYLOAD_MAX_BYTES};
use super::memory::{Huge, Mapping, MemoryReport, PAGE_BYTES, RegionOptions, wipe_raw};

/// Buffer group id; the only one of a ring.
pub(super) const GROUP: u16 = 0;
/// What a buffer must have left to receive one more datagram: the largest there is, with its header.
const MIN_LEFT_BYTES: u32 = (HEADER_BYTES + PAYLOAD_MAX_BYTES) as u32;
/// One entry of the plain ring, a multiple of the page size.
const PLAIN_ENTRY_BYTES: u32 = MIN_LEFT_BYTES.next_multiple_of(PAGE_BYTES as u32);
/// One buffer of the incremental ring: the unusable tail (min_left) is at most 1/16 of it.
const INC_BUFFER_BYTES: u32 = 1 << 20;

const _: () = assert!(INC_BUFFER_BYTES >= 16 * MIN_LEFT_BYTES - (16 * HEADER_BYTES as u32));

/// Which kind of buffer ring to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferMode {
    /// Incremental where the kernel has it (Linux 6.12, with `min_left`), else plain.
    Auto,
    /// Plain entries of 68 KiB, on any kernel.
    Plain,
}

/// Bytes of a cache line, on all machines this is for.
const CACHE_LINE_BYTES: usize = 64;

/// Asks the cache for what is at `at`, if this machine can be asked.
#[inline]
fn prefetch_read(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is allowed, and has no effect that a program could see.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// What the receive buffers got.
#[derive(Clone, Copy, Debug)]
pub struct BuffersReport {
    pub incremental: bool,
    /// `errno` with which the kernel refused the incremental ring, if it was tried.
    pub refused_errno: Option<i32>,
    pub buffers: u16,
    pub buffer_bytes: u32,
    pub memory: MemoryReport,
}

/// `struct io_uring_buf_reg` with `min_left`, which the io-uring crate does not know.
///
/// ```text
/// 0 ring_addr u64 · 8 ring_entries u32 · 12 bgid u16 · 14 flags u16 · 16 min_left u32 · 20 reserved u32×5
/// ```
#[repr(C)]
struct BufReg {
    ring_addr: u64,
    ring_entries: u32,
    bgid: u16,
    flags: u16,
    min_left: u32,
    reserved: [u32; 5],
}

const _: () = assert!(size_of::<BufReg>() == 40);
const _: () = assert!(size_of::<BufRingEntry>() == 16);

const IORING_REGISTER_PBUF_RING: libc::c_uint = 22;

/// Bookkeeping of one buffer.
#[derive(Clone, Copy, Default)]
struct Buffer {
    /// Where the next completion's bytes begin; 0 in a plain ring.
    head: u32,
    /// Bytes from the start that may hold received data not yet wiped.
    dirty: u32,
}

pub(super) struct Buffers {
    /// The shared ring of entries; its `tail` is the `resv` field of entry 0.
    entries: Mapping,
    mask: u16,
    tail: u16,
    memory: Mapping,
    buffer_bytes: u32,
    buffers: Box<[Buffer]>,
    report: BuffersReport,
}

impl Buffers {
    /// Maps the memory and registers it with the ring. `bytes` is the most it may map.
    pub(super) fn new(ring: RawFd, mode: BufferMode, bytes: usize, lock: bool) -> io::Result<Buffers> {
        let mut refused = None;
        if mode == BufferMode::Auto {
            match Self::with(ring, true, bytes, lock) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(libc::EINVAL),
                result => return result,
            }
        }
        let mut buffers = Self::with(ring, false, bytes, lock)?;
        buffers.report.refused_errno = refused;
        Ok(buffers)
    }

    fn with(ring: RawFd, incremental: bool, bytes: usize, lock: bool) -> io::Result<Buffers> {
        let buffer_bytes = if incremental {
            INC_BUFFER_BYTES
        } else {
            PLAIN_ENTRY_BYTES
        };
        // Two, so that one can be filled while the other is read; 32,768 is the kernel's limit on entries.
        let count = (bytes / buffer_bytes as usize).clamp(2, 32_768) as u16;
        let ring_entries = count.next_power_of_two();
        let (entries, _) = Mapping::new(&RegionOptions {
            bytes: usize::from(ring_entries) * size_of::<BufRingEntry>(),
            lock: false, // pinned by the kernel; holds addresses only
            huge: Huge::None,
            wipe_on_drop: false,
        })?;
        let memory_bytes = usize::from(count) * buffer_bytes as usize;
        let (memory, report) = Mapping::new(&RegionOptions {
            lock,
            ..RegionOptions::plaintext(memory_bytes)
        })?;
        let mut buffers = Buffers {
            entries,
            mask: ring_entries - 1,
            tail: 0,
            memory,
            buffer_bytes,
            buffers: vec![Buffer::default(); usize::from(count)].into_boxed_slice(),
            report: BuffersReport {
                incremental,
                refused_errno: None,
                buffers: count,
                buffer_bytes,
                memory: report,
            },
        };
        buffers.register(ring)?;
        for id in 0..count {
            buffers.offer(id);
        }
        Ok(buffers)
    }

    fn register(&mut self, ring: RawFd) -> io::Result<()> {
        let incremental = self.report.incremental;
        let registration = BufReg {
            ring_addr: self.entries.base() as u64,
            ring_entries: u32::from(self.mask) + 1,
            bgid: GROUP,
            flags: if incremental {
                io_uring::types::IOU_PBUF_RING_INC as u16
            } else {
                0
            },
            min_left: if incremental { MIN_LEFT_BYTES } else { 0 },
            reserved: [0; 5],
        };
        // SAFETY: the kernel reads one 40-byte structure during the call. The ring memory it names is page
        // aligned, large enough for its entries, and lives until after the ring is closed: `Ring` drops
        // its core first.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring,
                IORING_REGISTER_PBUF_RING,
                std::ptr::from_ref(&registration),
                1 as libc::c_uint,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    pub(super) fn report(&self) -> BuffersReport {
        self.report
    }

    /// How many datagrams the buffers can hold at once, empty ones: the most completions that can wait.
    pub(super) fn most_datagrams(&self) -> usize {
        let BuffersReport {
            incremental,
            buffers,
            buffer_bytes,
            ..
        } = self.report;
        let per_buffer = if incremental {
            buffer_bytes as usize / HEADER_BYTES
        } else {
            1
        };
        usize::from(buffers) * per_buffer
    }

    /// Takes note that a completion of `len` bytes was put into buffer `id`; `last`: the kernel is done with it.
    /// Returns where the bytes begin, or `None` if the completion does not fit what is known of the buffer.
    pub(super) fn consumed(&mut self, id: u16, len: usize) -> Option<usize> {
        let buffer = self.buffers.get_mut(usize::from(id))?;
        let start = buffer.head;
        let end = start
            .checked_add(u32::try_from(len).ok()?)
            .filter(|&end| end <= self.buffer_bytes)?;
        buffer.head = end;
        buffer.dirty = buffer.dirty.max(end);
        Some(start as usize)
    }

    /// Where the next completion of buffer `id` begins.
    pub(super) fn head(&self, id: u16) -> u32 {
        self.buffers.get(usize::from(id)).map_or(0, |buffer| buffer.head)
    }

    /// Asks the cache for the head of a datagram at `start` of buffer `id`, which will be read soon: its descriptor and the first line of
    /// its payload. What the kernel copied is not always near: reading it unasked costs a tenth of a microsecond (measured).
    pub(super) fn prefetch(&self, id: u16, start: u32) {
        let needed = (HEADER_BYTES + CACHE_LINE_BYTES) as u32;
        if usize::from(id) >= self.buffers.len() || start > self.buffer_bytes - needed {
            return;
        }
        for line in (0..needed as usize).step_by(CACHE_LINE_BYTES) {
            // SAFETY: inside the mapping, as just checked.
            prefetch_read(unsafe { self.address(id).add(start as usize + line) });
        }
    }

    /// The bytes of a completion, after [`Buffers::consumed`] and before [`Buffers::recycle`].
    pub(super) fn slice(&self, id: u16, start: usize, len: usize) -> &[u8] {
        let end = start + len;
        assert!(usize::from(id) < self.buffers.len() && end <= self.buffer_bytes as usize);
        // SAFETY: inside the mapping, as just checked. The kernel writes at and above a buffer's head only,
        // and `consumed` moved the head past `end`; the buffer is offered again only by `recycle`, which
        // needs `&mut self` and so the end of this borrow.
        unsafe { std::slice::from_raw_parts(self.address(id).add(start), len) }
    }

    /// Gives a buffer back to the kernel, whole.
    pub(super) fn recycle(&mut self, id: u16) {
        if let Some(buffer) = self.buffers.get_mut(usize::from(id)) {
            buffer.head = 0;
            self.offer(id);
        }
    }

    fn offer(&mut self, id: u16) {
        let (address, len) = (self.address(id) as u64, self.buffer_bytes);
        let base = self.entries.base().cast::<BufRingEntry>();
        // SAFETY: the index is below the number of entries, and this entry lies outside the kernel's
        // head..tail window (there are as many entries as buffers or more, and `id` is not in the ring), so
        // nobody reads it. The setters leave `resv`, which in entry 0 is the tail, alone. A zeroed entry is
        // a valid one.
        unsafe {
            let entry = &mut *base.add(usize::from(self.tail & self.mask));
            entry.set_addr(address);
            entry.set_len(len);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // Release: the kernel's acquire load of the tail must see the entry written above.
        // SAFETY: `tail` points into entry 0 of the live ring, 2-aligned, and is written by this thread only.
        unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) }
            .store(self.tail, Ordering::Release);
    }

    fn address(&self, id: u16) -> *mut u8 {
        debug_assert!(usize::from(id) < self.buffers.len());
        // SAFETY: the mapping holds `buffers.len()` buffers of this size, and id is one of them.
        unsafe {
            self.memory
                .base()
                .add(usize::from(id) * self.buffer_bytes as usize)
        }
    }

    /// Overwrites received data in every part that is no longer needed.
    ///
    /// With `quiescent`, that is everything received so far.
    ///
    /// # Safety
    /// `quiescent` states two facts: the kernel does not write while this runs (DEFER_TASKRUN: it writes only
    /// inside our own system calls; or no receive is armed), and every completion was taken.
    pub(super) unsafe fn wipe(&mut self, quiescent: bool) {
        for id in 0..self.buffers.len() {
            let Buffer { head, dirty } = self.buffers[id];
            // Not quiescent: only what lies below the head is certainly not being written.
            let until = if quiescent { dirty } else { dirty.min(head) };
            if until == 0 {
                continue;
            }
            // SAFETY: inside this buffer. Below `head` the kernel never writes until `recycle`; above it, the
            // caller vouches for it. No slice is lent: `&mut self`.
            unsafe { wipe_raw(self.address(id as u16), until as usize) };
            self.buffers[id].dirty = if until == dirty { 0 } else { dirty };
        }
    }

    /// Overwrites what one buffer received, before it is recycled.
    pub(super) fn wipe_one(&mut self, id: u16) {
        let Some(&Buffer { head, .. }) = self.buffers.get(usize::from(id)) else {
            return;
        };
        // SAFETY: as in `wipe`: below the head, and no slice is lent.
        unsafe { wipe_raw(self.address(id), head as usize) };
        self.buffers[usize::from(id)].dirty = 0;
    }

    #[cfg(test)]
    pub(super) fn still_holds(&self, needle: &[u8]) -> bool {
        // SAFETY: the whole mapping; called by tests while nothing is being received.
        let all = unsafe { std::slice::from_raw_parts(self.memory.base(), self.memory.len()) };
        all.windows(needle.len()).any(|window| window == needle)
    }
}
