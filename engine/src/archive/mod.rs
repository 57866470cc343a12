//! Segments at rest: finding them, reading them, and whether somebody still writes them.
//!
//! A process that writes a segment holds an exclusive advisory lock (`flock`) on its file from creation to close. The
//! lock ends with the process, however it ends, so a free lock on a segment without a footer means: nobody closes it any more.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harborseal_segment::source::{Access, Source};
use rustix::fs::{Advice, SeekFrom};

pub mod closing;
pub mod find;
pub mod library;
pub mod recover;
pub mod verify;

/// The extension of segment files, without the dot.
pub const EXTENSION: &str = "hseal";

/// How often, and how far apart, a lock is asked for before it counts as a writer's.
const LOCK_TRIES: usize = 3;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A segment file opened for reading.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    path: PathBuf,
    len: u64,
}

impl FileSource {
    /// Opens `path`. Its length is taken now; [`FileSource::refresh`] takes it again. A folder is refused
    /// (`IsADirectory`), because opening one for reading succeeds and only its first read would fail; a pipe or a device too
    /// (`InvalidInput`), without opening it, because that could wait for ever.
    pub fn open(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        if !meta.is_file() && !meta.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Self::from_file(File::open(path)?, path)
    }

    /// Opens `path` for reading and writing, as recovery needs it.
    pub fn open_writable(path: &Path) -> io::Result<Self> {
        Self::from_file(OpenOptions::new().read(true).write(true).open(path)?, path)
    }

    fn from_file(file: File, path: &Path) -> io::Result<Self> {
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(FileSource {
            file,
            path: path.to_owned(),
            len: meta.len(),
        })
    }

    /// Takes the length again; true if it has changed, as it does when the writer closes the segment.
    pub fn refresh(&mut self) -> io::Result<bool> {
        let len = self.file.metadata()?.len();
        Ok(std::mem::replace(&mut self.len, len) != len)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// True if a process holds the writer's lock. The question takes a shared lock for an instant, so that
    /// several readers may ask at once. It is not asked of an empty file: its writer may be about to take the lock, and must not
    /// find it taken.
    pub fn is_being_written(&self) -> io::Result<bool> {
        if self.file.metadata()?.len() == 0 {
            return Ok(false);
        }
        match self.file.try_lock_shared() {
            Ok(()) => self.file.unlock().map(|()| false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the writer's lock until the file is dropped; false if another process has it.
    pub fn lock(&self) -> io::Result<bool> {
        // Whoever only asks has it for an instant; a writer has it for minutes.
        for _ in 0..LOCK_TRIES {
            match self.file.try_lock() {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(false)
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> u64 {
        // The file position that this moves is never used: all reads are positioned.
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data.clamp(offset, self.len.max(offset)),
            Err(rustix::io::Errno::NXIO) => self.len.max(offset),
            // A file system without SEEK_DATA: the zeros are read.
            Err(_) => offset,
        }
    }

    fn expect(&self, access: Access) {
        let advice = match access {
            Access::Scattered => Advice::Random,
            Access::Whole => Advice::Sequential,
        };
        // A file system that takes no advice reads as well without.
        let _ = rustix::fs::fadvise(&self.file, 0, None, advice);
    }
}

/// The segments that the format's own tests use.
#[cfg(test)]
#[path = "../../segment/tests/common/mod.rs"]
pub(crate) mod fixtures;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_space_is_skipped_and_reads_as_zeros() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.hseal");
        let file = File::create(&path).expect("create");
        file.set_len(1 << 20).expect("reserve");
        file.write_all_at(b"data", 512 << 10).expect("write");
        let source = FileSource::open(&path).expect("open");
        assert_eq!(source.len(), 1 << 20);
        let data = source.next_data(0);
        assert!(data <= 512 << 10, "{data} is past the data");
        let mut bytes = [9; 8];
        source.read_at(0, &mut bytes).expect("read");
        assert_eq!(bytes, [0; 8]);
        assert!(source.next_data((1 << 20) - 1) >= (1 << 20) - 1);
    }

    #[test]
    fn a_writers_lock_is_seen_until_it_is_dropped() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.hseal");
        std::fs::write(&path, b"begun").expect("create");
        let reader = FileSource::open(&path).expect("open");
        let writer = FileSource::open_writable(&path).expect("open");
        assert!(!reader.is_being_written().expect("ask"));
        assert!(writer.lock().expect("lock"));
        assert!(reader.is_being_written().expect("ask"));
        drop(writer);
        assert!(!reader.is_being_written().expect("ask"));
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.hseal");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("coreutils have mkfifo").success());
        let error = FileSource::open(&path).expect_err("a pipe");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_folder_is_not_a_segment() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let error = FileSource::open(dir.path()).expect_err("a folder");
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
