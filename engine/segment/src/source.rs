//! Where a segment's bytes come from: a file, a slice in memory, a ranged read of an object store.
//!
//! The crate does no I/O. It asks a [`Source`] for ranges; an error of the source is handed on as it is and is never
//! taken for the end of the segment.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a source will be read from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Here and there: what follows a range is not wanted.
    Scattered,
    /// From one end to the other.
    Whole,
}

/// Random access to the bytes of one segment.
pub trait Source {
    /// Length in bytes, as it was when the source was opened. A file that a writer holds open may be longer than its
    /// blocks (reserved space reads as zeros) and is cut to its footer's end when it is closed.
    fn len(&self) -> u64;

    /// True if there is not one byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes from `offset` on, or fails. `UnexpectedEof` if the source has become shorter.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// The first offset at or after `offset` where something other than zeros may stand; `len()` if nothing follows.
    /// A file can answer with `SEEK_DATA`, so that gigabytes of reserved space need not be read.
    fn next_data(&self, offset: u64) -> u64 {
        offset
    }

    /// Told before reading changes its manner. A file can pass it on to the kernel, which else reads ahead, and from a disk several times what
    /// is asked for.
    fn expect(&self, _access: Access) {}
}

impl Source for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|start| self.get(start..));
        match from.and_then(|rest| rest.get(..buf.len())) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Source for Vec<u8> {
    fn len(&self) -> u64 {
        Source::len(self.as_slice())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buf)
    }
}

impl<T: Source + ?Sized> Source for &T {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> u64 {
        (**self).next_data(offset)
    }

    fn expect(&self, access: Access) {
        (**self).expect(access);
    }
}

/// What was read of one source or of many.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: AtomicU64,
}

impl Tally {
    /// Bytes that sources gave out.
    pub fn bytes(&self) -> u64 {
        // A sum that nothing else is ordered by.
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A source that notes what is read of it.
#[derive(Debug)]
pub struct Counted<S> {
    source: S,
    tally: Arc<Tally>,
}

impl<S> Counted<S> {
    /// Notes in `tally` what is read of `source`.
    pub fn new(source: S, tally: &Arc<Tally>) -> Self {
        let tally = Arc::clone(tally);
        Counted { source, tally }
    }
}

impl<S: Source> Source for Counted<S> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.source.read_at(offset, buf)?;
        self.tally.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> u64 {
        self.source.next_data(offset)
    }

    fn expect(&self, access: Access) {
        self.source.expect(access);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_reads_inside_and_refuses_beyond_its_end() {
        let bytes = [1u8, 2, 3, 4];
        let mut two = [0; 2];
        bytes[..].read_at(2, &mut two).expect("inside");
        assert_eq!(two, [3, 4]);
        for offset in [3, 4, u64::MAX] {
            let error = bytes[..].read_at(offset, &mut two).expect_err("beyond");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
