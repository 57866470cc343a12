//! What the keeper does to segment files: the operating system's here, the simulator's in `tests/sim`.
//!
//! Each method is one system call or nearly so, and promises no more than it. In which order they come, and so what a crash between
//! two of them leaves, is decided by the keeper alone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::uring::sys;

/// Segment files and the time of day.
pub trait Files {
    /// An open segment file, for the shard's direct writes. Clones are the same open file.
    type File: Clone;

    /// Seconds since 1970.
    fn now_s(&self) -> u64;
    /// Creates the folder, unless it is there. Should its parent be missing too, that is made, durably.
    fn create_folder(&mut self, folder: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&mut self, folder: &Path) -> io::Result<()>;
    /// Creates a file, open for direct writes and locked against other processes.
    fn create(&mut self, path: &Path) -> io::Result<Self::File>;
    /// Allocates space up to `end`; the file is then that long at least. `ENOSPC` where there is none.
    fn allocate(&mut self, file: &Self::File, end: u64) -> io::Result<()>;
    /// Writes all of `bytes`, aligned in no way.
    fn write(&mut self, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the content durable, and of the length what is needed to reach it.
    fn sync_data(&mut self, path: &Path) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync_all(&mut self, path: &Path) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()>;
    /// Deletes the file.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug)]
pub struct OsFiles;

impl OsFiles {
    /// A second way to the file, through the page cache: what the keeper writes is not aligned in memory, and never lies where the shard
    /// writes.
    fn plain(path: &Path) -> io::Result<File> {
        File::options().write(true).open(path)
    }
}

impl Files for OsFiles {
    type File = Arc<File>;

    fn now_s(&self) -> u64 {
        sys::realtime_ns() / 1_000_000_000
    }

    fn create_folder(&mut self, folder: &Path) -> io::Result<()> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // Somebody deleted DATA/segments under us.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(folder)?;
                match folder.parent().and_then(Path::parent) {
                    Some(home) => sys::sync_directory(home),
                    None => Ok(()),
                }
            }
            result => result,
        }
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        sys::sync_directory(folder)
    }

    fn create(&mut self, path: &Path) -> io::Result<Arc<File>> {
        let file = sys::create_direct(path)?.file;
        file.lock()?; // a reader that asks whether it is being written holds it for an instant
        Ok(Arc::new(file))
    }

    fn allocate(&mut self, file: &Arc<File>, end: u64) -> io::Result<()> {
        sys::preallocate(file, end)
    }

    fn write(&mut self, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        Self::plain(path)?.write_all_at(bytes, offset)
    }

    fn sync_data(&mut self, path: &Path) -> io::Result<()> {
        Self::plain(path)?.sync_data()
    }

    fn sync_all(&mut self, path: &Path) -> io::Result<()> {
        Self::plain(path)?.sync_all()
    }

    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()> {
        Self::plain(path)?.set_len(len)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
