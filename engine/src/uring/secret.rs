//! Memory for secrets: locked, out of core dumps, and, where the kernel has `memfd_secret`, out of its own reach too.
//!
//! A [`Locked`] value stands in a slot of one arena for all of the process, and its slot is wiped when it is dropped. The arena grows by
//! chunks and never shrinks; slots that came free are used again.
//!
//! ```text
//!   memfd_secret   not in swap, not in a core, not to be read through /proc/PID/mem or ptrace, not even by root;
//!                  the kernel's own map of all memory has no entry for it
//!   mlock          where there is no memfd_secret: not in swap, and MADV_DONTDUMP keeps it out of cores
//!   neither        counted in the report: whoever starts the engine says whether that will do
//! ```
//!
//! Invariant: a slot belongs to one value, or to the free list of its size and is then all zeros. Taking a slot costs a lock and is for what
//! happens once for a stream, a customer or a segment, never for a packet.

use std::collections::HashMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous};

use super::memory::wipe_raw;

/// The arena grows by this much: 4096 of the smallest slots, which is the keys of a thousand streams.
const CHUNK_BYTES: usize = 256 << 10;
/// Slots are multiples of a cache line, so that no two secrets share one.
const LINE_BYTES: usize = 64;
/// What frames below the caller's may have left of a secret: HKDF, HPKE and signing stay far below it.
const STACK_BYTES: usize = 32 << 10;

/// What the arena's memory is, as far as it has grown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecretReport {
    /// Bytes from `memfd_secret`.
    pub secret_bytes: usize,
    /// Bytes that are locked and out of core dumps, but can be read by root.
    pub locked_bytes: usize,
    /// Bytes that could not even be locked.
    pub unlocked_bytes: usize,
    /// Why there is no `memfd_secret`, where there is none.
    pub secret_errno: Option<i32>,
    /// Why memory could not be locked, where it could not.
    pub lock_errno: Option<i32>,
}

/// A value in the arena. Wiped when dropped; cannot be printed.
pub struct Locked<T> {
    place: NonNull<T>,
}

// SAFETY: a Locked owns its value as a Box does: what the value allows is allowed of it.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    const SLOT_BYTES: usize = {
        assert!(size_of::<T>() > 0 && size_of::<T>() <= CHUNK_BYTES / 16);
        assert!(align_of::<T>() <= LINE_BYTES);
        size_of::<T>().next_multiple_of(LINE_BYTES)
    };

    /// Puts what `make` makes into the arena, then overwrites the stack on which it was made: moving a value leaves its bytes behind.
    pub fn made_by(make: impl FnOnce() -> T) -> Locked<T> {
        let place = arena().take(Self::SLOT_BYTES).cast();
        // Owned from here on: `fill` may panic, and a slot with zeros in it is no value, so it is lost rather than dropped.
        fill(place, make);
        scrub_stack();
        Locked { place }
    }

    /// Puts `value` there. Its bytes stay wherever the caller had them: prefer [`Locked::made_by`].
    pub fn new(value: T) -> Locked<T> {
        Self::made_by(|| value)
    }
}

/// Never inlined: all of its frame lies below that of the caller, where [`scrub_stack`] reaches it.
#[inline(never)]
fn fill<T>(place: NonNull<T>, make: impl FnOnce() -> T) {
    // SAFETY: the slot is as large and as aligned as a T, and nobody else has it.
    unsafe { place.write(make()) }
}

/// Overwrites the stack below the caller, where calls that have returned may have left copies of a secret.
#[inline(never)]
pub fn scrub_stack() {
    let mut below = [0u8; STACK_BYTES];
    std::hint::black_box(&mut below);
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `made_by` put a T there, which only `drop` takes away.
        unsafe { self.place.as_ref() }
    }
}

impl<T> DerefMut for Locked<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { self.place.as_mut() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        let slot = self.place.cast::<u8>();
        // SAFETY: the value is whole, and dropped once, here; after that nothing refers to the slot's bytes, which stay mapped.
        unsafe {
            self.place.drop_in_place();
            wipe_raw(slot.as_ptr(), Self::SLOT_BYTES);
        }
        arena().give(slot, Self::SLOT_BYTES);
    }
}

/// What the arena is made of. Asking for it makes its first chunk.
pub fn report() -> SecretReport {
    let mut arena = arena();
    if arena.rest.is_none() {
        arena.grow();
    }
    arena.report
}

#[derive(Default)]
struct Arena {
    /// Slots that came free, all zeros, by their size.
    free: HashMap<usize, Vec<Slot>>,
    /// What is left of the newest chunk.
    rest: Option<(Slot, usize)>,
    report: SecretReport,
}

/// The address of a slot.
struct Slot(NonNull<u8>);

// SAFETY: an address only; the arena's lock says who may use what is there.
unsafe impl Send for Slot {}

fn arena() -> std::sync::MutexGuard<'static, Arena> {
    static ARENA: LazyLock<Mutex<Arena>> = LazyLock::new(Mutex::default);
    // Nothing in here is half done when it panics: it panics only where there is no memory left at all.
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    fn take(&mut self, bytes: usize) -> NonNull<u8> {
        if let Some(Slot(free)) = self.free.get_mut(&bytes).and_then(Vec::pop) {
            return free;
        }
        if self.rest.as_ref().is_none_or(|(_, left)| *left < bytes) {
            // The end of a chunk that is too short for this slot is given up: at most a sixteenth of it.
            self.grow();
        }
        let (Slot(start), left) = self.rest.take().expect("a chunk was just made");
        // SAFETY: `bytes` are left of the chunk from `start` on; one past its end at most.
        let next = unsafe { start.byte_add(bytes) };
        self.rest = Some((Slot(next), left - bytes));
        start
    }

    fn give(&mut self, slot: NonNull<u8>, bytes: usize) {
        self.free.entry(bytes).or_default().push(Slot(slot));
    }

    /// Panics where there is no memory at all, as every allocation does.
    fn grow(&mut self) {
        let chunk = match secret_chunk() {
            Ok(chunk) => {
                self.report.secret_bytes += CHUNK_BYTES;
                chunk
            }
            Err(error) => {
                self.report.secret_errno = error.raw_os_error();
                let (chunk, locked) = locked_chunk().expect("256 KiB of memory for keys");
                match locked {
                    Ok(()) => self.report.locked_bytes += CHUNK_BYTES,
                    Err(errno) => {
                        self.report.unlocked_bytes += CHUNK_BYTES;
                        self.report.lock_errno = Some(errno.raw_os_error());
                    }
                }
                chunk
            }
        };
        self.rest = Some((Slot(chunk), CHUNK_BYTES));
    }
}

/// Memory that nobody but this process can read (memfd_secret(2), Linux 5.14; on by default since 6.5).
fn secret_chunk() -> io::Result<NonNull<u8>> {
    // SAFETY: the call takes one flag and returns a descriptor or -1; nothing of this process's memory is given to it.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for us, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    rustix::fs::ftruncate(&fd, CHUNK_BYTES as u64)?;
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing; the file behind it keeps its length, since its
    // descriptor is closed here and has no name.
    let chunk = unsafe {
        mmap(
            std::ptr::null_mut(),
            CHUNK_BYTES,
            prot,
            MapFlags::SHARED,
            fd.as_fd(),
            0,
        )
    }?;
    // SAFETY: the range just mapped; a forked child must not share it.
    let _kept = unsafe { madvise(chunk, CHUNK_BYTES, Advice::LinuxDontFork) };
    Ok(NonNull::new(chunk.cast()).expect("mmap without MAP_FIXED never returns null"))
}

type Chunk = (NonNull<u8>, Result<(), rustix::io::Errno>);

/// The next best: locked, and left out of core dumps.
fn locked_chunk() -> io::Result<Chunk> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
    let chunk = unsafe { mmap_anonymous(std::ptr::null_mut(), CHUNK_BYTES, prot, MapFlags::PRIVATE) }?;
    // SAFETY: the range just mapped; neither the advice nor locking changes its contents.
    let locked = unsafe {
        let _undumpable = madvise(chunk, CHUNK_BYTES, Advice::LinuxDontDump);
        let _kept = madvise(chunk, CHUNK_BYTES, Advice::LinuxDontFork);
        mlock(chunk, CHUNK_BYTES)
    };
    let chunk = NonNull::new(chunk.cast()).expect("mmap without MAP_FIXED never returns null");
    Ok((chunk, locked))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in a slot, whether or not it belongs to a value.
    fn bytes_of(place: NonNull<u8>, len: usize) -> Vec<u8> {
        // SAFETY: the arena never unmaps; tests look while nobody writes there.
        unsafe { std::slice::from_raw_parts(place.as_ptr(), len) }.to_vec()
    }

    #[test]
    fn a_value_is_wiped_when_it_goes_and_when_a_panic_takes_it() {
        // A size of its own: the tests beside this one share the arena.
        let kept = Locked::new([0xA5u8; 1000]);
        let place = kept.place.cast();
        assert_eq!(bytes_of(place, 1000), [0xA5; 1000]);
        drop(kept);
        assert_eq!(bytes_of(place, 1024), [0; 1024]);

        let kept = Locked::new([0x5Au8; 1000]);
        assert_eq!(kept.place.cast(), place, "slots are used again");
        let panicked = std::thread::spawn(move || {
            let _kept = kept;
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(bytes_of(place, 1024), [0; 1024]);
    }

    #[test]
    fn many_values_stand_apart_and_each_keeps_its_own() {
        let values: Vec<Locked<[u64; 5]>> = (0..20_000).map(|n| Locked::made_by(|| [n; 5])).collect();
        for (n, value) in values.iter().enumerate() {
            assert_eq!(**value, [n as u64; 5]);
            assert_eq!(value.place.addr().get() % LINE_BYTES, 0);
        }
        let report = report();
        let all = report.secret_bytes + report.locked_bytes + report.unlocked_bytes;
        assert!(all >= 20_000 * LINE_BYTES, "{report:?}");
    }

    #[test]
    fn what_a_kernel_without_memfd_secret_gets_works_too() {
        let (chunk, _locked) = locked_chunk().unwrap();
        assert_eq!(bytes_of(chunk, CHUNK_BYTES), vec![0; CHUNK_BYTES]);
    }
}
