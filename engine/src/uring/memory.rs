//! Anonymous memory that holds plaintext or feeds the disk: locked, out of core dumps, wiped.
//!
//! A [`Mapping`] owns one `mmap`. A [`Region`] is a mapping that only this process writes, handed out as
//! ordinary slices; the receive buffers, which the kernel writes, are bare mappings inside the ring.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

/// Alignment and granularity of huge mappings: one x86-64 or arm64 (4 KiB granule) huge page.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Granularity of ordinary mappings; also the block size of the segment format.
pub const PAGE_BYTES: usize = 4096;

/// Which pages to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Huge {
    /// Reserved huge pages (hugetlb) if enough are free, else transparent ones, else ordinary pages.
    Auto,
    /// Ordinary pages.
    None,
}

/// How to make a [`Region`].
#[derive(Clone, Copy, Debug)]
pub struct RegionOptions {
    /// Size asked for; rounded up to whole pages.
    pub bytes: usize,
    /// Keep it out of swap (`mlock`, which also populates it). Failure is reported, not fatal.
    pub lock: bool,
    pub huge: Huge,
    /// Overwrite the whole of it with zeros before it is unmapped.
    pub wipe_on_drop: bool,
}

impl RegionOptions {
    /// Locked, huge pages where there are some, wiped when dropped: what plaintext needs.
    pub fn plaintext(bytes: usize) -> Self {
        RegionOptions {
            bytes,
            lock: true,
            huge: Huge::Auto,
            wipe_on_drop: true,
        }
    }
}

/// Which pages a mapping was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Reserved huge pages. Counted in HugetlbPages, not in VmRSS.
    Hugetlb,
    /// 2 MiB aligned with transparent huge pages asked for and not switched off; under memory pressure the kernel
    /// may still give some ordinary ones.
    Transparent,
    Small,
}

/// What a mapping got of what was asked.
#[derive(Clone, Copy, Debug)]
pub struct MemoryReport {
    /// Bytes mapped (a multiple of the page size; at least what was asked for).
    pub bytes: usize,
    pub pages: Pages,
    /// Kept out of swap. Reserved huge pages are never swapped, so they count as locked.
    pub locked: bool,
    /// `errno` of `mlock` where locking was asked for and refused.
    pub lock_errno: Option<i32>,
    /// Left out of core dumps (`MADV_DONTDUMP`).
    pub undumpable: bool,
}

/// One owned anonymous `mmap`, at a fixed address for its whole life.
///
/// Carries no promise about who reads or writes it: its holders make that promise.
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    wipe_on_drop: bool,
}

// SAFETY: a Mapping is only an address range and its ownership; it gives out no references by itself, and
// munmap may be called from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` offers only the address and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(options: &RegionOptions) -> io::Result<(Mapping, MemoryReport)> {
        let mut huge = HugePages::allowed();
        let (mapping, mut pages) = Self::map(options)?;
        let (base, bytes) = (mapping.base.as_ptr().cast::<c_void>(), mapping.bytes);
        if pages == Pages::Transparent {
            // SAFETY: the range is exactly this mapping; the advice changes no contents.
            if !transparent_allowed() || unsafe { madvise(base, bytes, Advice::LinuxHugepage) }.is_err() {
                pages = Pages::Small;
            }
        }
        // SAFETY: as above.
        let undumpable = unsafe { madvise(base, bytes, Advice::LinuxDontDump) }.is_ok();
        // A child made by fork must not hold a copy of plaintext.
        // SAFETY: as above; nothing in a forked child uses this range (children only exec).
        let _kept = unsafe { madvise(base, bytes, Advice::LinuxDontFork) };
        let mut report = MemoryReport {
            bytes,
            pages,
            locked: false,
            lock_errno: None,
            undumpable,
        };
        if options.lock {
            // SAFETY: the range is exactly this mapping; locking changes no contents.
            match unsafe { mlock(base, bytes) } {
                Ok(()) => report.locked = true,
                Err(_) if pages == Pages::Hugetlb => report.locked = true,
                Err(errno) => report.lock_errno = Some(errno.raw_os_error()),
            }
        }
        if report.lock_errno.is_some() {
            huge.stay_allowed();
        }
        Ok((mapping, report))
    }

    fn map(options: &RegionOptions) -> io::Result<(Mapping, Pages)> {
        let huge = options.huge == Huge::Auto && options.bytes >= HUGE_PAGE_BYTES;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let own = |base: *mut c_void, bytes| Mapping {
            base: NonNull::new(base.cast()).expect("mmap without MAP_FIXED never returns null"),
            bytes,
            wipe_on_drop: options.wipe_on_drop,
        };
        if !huge {
            let bytes = options.bytes.max(1).next_multiple_of(PAGE_BYTES);
            // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
            let base = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, prot, MapFlags::PRIVATE) }?;
            return Ok((own(base, bytes), Pages::Small));
        }
        let bytes = options.bytes.next_multiple_of(HUGE_PAGE_BYTES);
        // Without NORESERVE the kernel reserves the pages here, so a later touch cannot fail.
        let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        // SAFETY: as above.
        if let Ok(base) = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, prot, flags) } {
            return Ok((own(base, bytes), Pages::Hugetlb));
        }
        // Transparent huge pages want alignment: map one huge page more than needed and give the ends back.
        let wide = bytes + HUGE_PAGE_BYTES;
        // SAFETY: as above.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), wide, prot, MapFlags::PRIVATE) }?;
        let head = start.addr().next_multiple_of(HUGE_PAGE_BYTES) - start.addr();
        let tail = wide - head - bytes;
        // SAFETY: head < 2 MiB, so base and its `bytes` lie inside the `wide` mapping just made; the two
        // ends given back are page-aligned parts of it that nothing has seen.
        let base = unsafe {
            let base = start.byte_add(head);
            if head > 0 {
                munmap(start, head)?;
            }
            if tail > 0 {
                munmap(base.byte_add(bytes), tail)?;
            }
            base
        };
        Ok((own(base, bytes), Pages::Transparent))
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.wipe_on_drop {
            // SAFETY: the whole mapping is ours and mapped until the munmap below; being dropped, no
            // holder is left that could read or write it.
            unsafe { wipe_raw(self.base.as_ptr(), self.bytes) };
        }
        // SAFETY: this is the range that mmap gave and nothing refers to it any more: holders keep the
        // Mapping alive (Arc) for as long as they, or the kernel on their behalf, use its addresses.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of an owned mapping");
    }
}

/// Leaves huge pages to the mappings made here, from now on.
///
/// The allocator asks for them, too, for all of its heap: 30 MiB are then in memory where two are used, and each list that grows takes
/// another 2 MiB. The heap is off the packet path, so small pages are as fast for it.
pub fn keep_heap_in_small_pages() {
    // An old kernel refuses; the heap is then larger, and nothing else changes.
    let _ = disable_transparent_huge_pages(true);
}

/// While it lives, transparent huge pages are allowed in this process, whatever [`keep_heap_in_small_pages`] said. One at a time: the
/// switch is the process's, and mappings are made by several threads.
struct HugePages {
    were_disabled: bool,
    _alone: MutexGuard<'static, ()>,
}

impl HugePages {
    fn allowed() -> HugePages {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let were_disabled = transparent_huge_pages_are_disabled().unwrap_or(false);
        if were_disabled {
            let _ = disable_transparent_huge_pages(false);
        }
        HugePages {
            were_disabled,
            _alone: alone,
        }
    }

    /// What is locked has its pages; what is not gets each when it is touched. Those are the larger part: the heap takes its chance.
    fn stay_allowed(&mut self) {
        self.were_disabled = false;
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if self.were_disabled {
            let _ = disable_transparent_huge_pages(true);
        }
    }
}

/// Whether the system allows transparent huge pages where they are asked for; the advice succeeds either way.
fn transparent_allowed() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    setting.is_ok_and(|setting| !setting.contains("[never]"))
}

/// Overwrites `len` bytes from `ptr` with zeros, by stores the compiler must not leave out.
///
/// # Safety
/// The range must be mapped, and nothing else may read or write it during the call.
pub(super) unsafe fn wipe_raw(ptr: *mut u8, len: usize) {
    let head = ptr.align_offset(8).min(len);
    let words = (len - head) / 8;
    // SAFETY: all three loops stay inside ptr..ptr+len, which the caller vouches for; the u64 stores start
    // at the first 8-aligned address.
    unsafe {
        for i in 0..head {
            ptr.add(i).write_volatile(0);
        }
        let word = ptr.add(head).cast::<u64>();
        for i in 0..words {
            word.add(i).write_volatile(0);
        }
        for i in head + words * 8..len {
            ptr.add(i).write_volatile(0);
        }
    }
}

/// Memory this process alone writes, and the kernel at most reads (writes to a file from it).
///
/// The ring keeps the mapping alive while a write from it is in flight, so dropping a `Region` early is
/// harmless. Changing bytes under a write in flight is not undefined, but puts an unknown mixture of old and
/// new on the disk: the owner keeps a span untouched from `Ring::write` until its `Event::Written`.
pub struct Region {
    map: Arc<Mapping>,
    report: MemoryReport,
}

impl Region {
    /// Maps it, zeroed. Errors: the kernel has no such memory to give (`ENOMEM`).
    pub fn new(options: RegionOptions) -> io::Result<Region> {
        let (map, report) = Mapping::new(&options)?;
        Ok(Region {
            map: Arc::new(map),
            report,
        })
    }

    pub fn report(&self) -> MemoryReport {
        self.report
    }

    /// Mapped bytes: what was asked for, rounded up to whole pages.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable for len bytes and lives as long as self. Only `bytes_mut` and
        // `wipe`, which need `&mut self`, write it: no Arc of a Region's mapping is ever given to the kernel
        // to write into.
        unsafe { std::slice::from_raw_parts(self.map.base(), self.map.len()) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes it exclusive, since Region is not Clone and the ring's
        // Arcs are used for their address only, which the kernel reads.
        unsafe { std::slice::from_raw_parts_mut(self.map.base(), self.map.len()) }
    }

    /// Overwrites all of it with zeros, by stores the compiler must not leave out.
    pub fn wipe(&mut self) {
        // SAFETY: the whole mapping, borrowed exclusively.
        unsafe { wipe_raw(self.map.base(), self.map.len()) }
    }

    pub(super) fn mapping(&self) -> &Arc<Mapping> {
        &self.map
    }
}

/// Overwrites a slice with zeros, by stores the compiler must not leave out; eight bytes at a time, so a
/// 64 KiB buffer costs a few microseconds.
pub fn wipe(bytes: &mut [u8]) {
    // SAFETY: an exclusive slice.
    unsafe { wipe_raw(bytes.as_mut_ptr(), bytes.len()) }
}
