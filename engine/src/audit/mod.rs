//! The audit log: what this node did that a customer has a right to know, in an order that nobody can change unseen.
//!
//! An append-only Merkle tree (RFC 6962) in the files of C2SP tlog-tiles, its head signed by the node as a C2SP tlog-checkpoint. Whoever kept
//! an older checkpoint can prove that nothing before it was removed or rewritten. Any tool for such logs reads it.
//!
//! ```text
//!   DATA/audit/checkpoint          the signed head          DATA/audit/lock       held for one append
//!   DATA/audit/tile/…              hashes and entries       DATA/audit/cosigned   the last head that a witness signed too
//!   DATA/audit/log.vkey            the key it is checked with                DATA/audit/reserve    room for entries on a full disk
//!   DATA/keys/audit.head           the head again, where restoring the log from a backup does not reach it
//! ```
//!
//! **An entry is durable before the act it records takes effect**: [`AuditLog::append`] returns only then, and its caller acts only after it
//! returned. So the log may hold an act that a crash prevented, and never lacks one that happened.
//!
//! Safe across threads and processes: every append holds an exclusive `flock` and reads the head again under it.

pub mod disk;
pub mod entry;
pub mod log;
pub mod note;
pub mod proof;
pub mod read;
pub mod tiles;
pub mod tree;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use harborseal_segment::node::NodeKey;

pub use entry::{Entry, Fact, Nonce, Salt};

use crate::text::Plain;
use crate::uring::sys;
use disk::{Disk, OsDisk};
use harborseal_segment::merkle::Hash;
use log::Log;
use note::{Note, NoteError};
use read::Reader;
use tiles::ENTRY_BYTES_MAX;

/// Kept for a full disk: hundreds of entries' worth, and less than the least that a segment allocates (1 MiB), so that none takes it first.
const RESERVE_BYTES: u64 = 512 << 10;

/// Why the log was not read or written. Each names its file; none is about one entry alone, but [`AuditError::EntryTooLong`].
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Reading or writing failed.
    #[error("cannot {doing} {}: {}", path.display(), Plain(error))]
    Io {
        /// A verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A folder of the log could not be synced earlier: this process writes it no more.
    #[error("{}: a sync of the audit log failed earlier, and it is not written any more; restart the engine once the disk is sound", path.display())]
    Poisoned {
        /// The log.
        path: PathBuf,
    },
    /// Not a checkpoint.
    #[error("{}: {why}", path.display())]
    BadNote {
        /// The file.
        path: PathBuf,
        /// Why.
        why: NoteError,
    },
    /// A checkpoint without the signature it must have.
    #[error("{}: not signed by {key}", path.display())]
    NotSigned {
        /// The file.
        path: PathBuf,
        /// Whose signature is missing.
        key: String,
    },
    /// The log ends before entries that it is known to have had.
    #[error("{}: the audit log was rolled back: it has {size} entries, and had {known}", path.display())]
    RolledBack {
        /// The log.
        path: PathBuf,
        /// Entries it had.
        known: u64,
        /// Entries it has.
        size: u64,
    },
    /// The log has another history than it had.
    #[error("{}: the audit log was rewritten: its first {known} entries of {size} are not those it had", path.display())]
    Rewritten {
        /// The log.
        path: PathBuf,
        /// Entries of the checkpoint that is known.
        known: u64,
        /// Entries it has.
        size: u64,
    },
    /// The tiles do not come to the root that was signed.
    #[error("{}: the tiles of the audit log do not come to the root of its checkpoint of {size} entries", path.display())]
    EditedTree {
        /// The log.
        path: PathBuf,
        /// Entries of the checkpoint.
        size: u64,
    },
    /// An entry is not the one its leaf was made of.
    #[error("{}: entry {index} was changed: it does not fit its leaf", path.display())]
    EditedEntry {
        /// The file.
        path: PathBuf,
        /// The entry, from 0.
        index: u64,
    },
    /// A tile that the checkpoint needs is not there.
    #[error("{}: missing, though the checkpoint of the audit log needs it: the log was cut", path.display())]
    MissingTile {
        /// Where it should be.
        path: PathBuf,
    },
    /// A tile is shorter than its tree.
    #[error("{}: shorter than its tree, or broken: the log was cut", path.display())]
    CutTile {
        /// The file.
        path: PathBuf,
    },
    /// The node remembers a log whose checkpoint is not there.
    #[error("{}: missing, though this node's audit log had {size} entries; restore DATA/audit from its newest copy", path.display())]
    NoCheckpoint {
        /// Where it should be.
        path: PathBuf,
        /// Entries it had.
        size: u64,
    },
    /// There is a log that the node does not remember.
    #[error("{}: missing, though {} is there; restore it with the rest of DATA/keys", memory.display(), path.display())]
    NoMemory {
        /// Where it should be.
        memory: PathBuf,
        /// The log.
        path: PathBuf,
    },
    /// An entry does not fit its bundle.
    #[error("an audit entry of {bytes} bytes; at most {ENTRY_BYTES_MAX} fit")]
    EntryTooLong {
        /// Its length.
        bytes: usize,
    },
}

impl AuditError {
    /// Reading or writing `path` failed.
    pub fn io(doing: &'static str, path: &Path, error: io::Error) -> AuditError {
        AuditError::Io {
            doing,
            path: path.to_owned(),
            error,
        }
    }

    /// Whether the disk, or a quota, has no more room.
    pub fn is_no_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, AuditError::Io { error, .. } if matches!(error.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether reading or writing failed, rather than the log being other than it should be.
    pub fn is_io(&self) -> bool {
        matches!(self, AuditError::Io { .. } | AuditError::Poisoned { .. })
    }
}

/// The audit log of a node, to append to.
pub struct AuditLog {
    log: Mutex<Log<OsDisk>>,
    lock: PathBuf,
}

impl AuditLog {
    /// Opens the log under the data folder, or begins it where the node never had one. What a crash left unfinished is put aside; a log
    /// that is not the one the node remembers is refused.
    pub fn open(data: &Path, node: Arc<NodeKey>) -> Result<AuditLog, AuditError> {
        let folder = data.join("audit");
        OsDisk
            .make_folder(&folder)
            .map_err(|error| AuditError::io("make", &folder, error))?;
        let lock = folder.join("lock");
        let held = take(&lock)?;
        let log = Log::open(OsDisk, data, node)?;
        drop(held);
        let log = AuditLog {
            log: Mutex::new(log),
            lock,
        };
        log.keep_reserve();
        Ok(log)
    }

    /// Appends entries, all or none, and returns the index of the first. Returns only when they are durable: what they announce may then be
    /// done. After an error it must not be.
    pub fn append(&self, entries: &[Entry]) -> Result<u64, AuditError> {
        let entries: Vec<Vec<u8>> = entries.iter().map(Entry::to_bytes).collect();
        if let Some(entry) = entries.iter().find(|entry| entry.len() > ENTRY_BYTES_MAX) {
            return Err(AuditError::EntryTooLong { bytes: entry.len() });
        }
        let first = self.locked(|log| log.append(&entries)).or_else(|error| {
            // A full disk must not keep the node from sealing what it has: retention deletes sealed segments only.
            match error.is_no_space() && self.use_reserve() {
                true => self.locked(|log| log.append(&entries)),
                false => Err(error),
            }
        })?;
        self.keep_reserve();
        Ok(first)
    }

    /// Gives the reserve's space up; false if there was none.
    fn use_reserve(&self) -> bool {
        std::fs::remove_file(self.lock.with_file_name("reserve")).is_ok()
    }

    /// Has a reserve, as far as the disk has room; without one it is tried again with the next entry.
    fn keep_reserve(&self) {
        let path = self.lock.with_file_name("reserve");
        if path.exists() {
            return;
        }
        let made = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| sys::preallocate(&file, RESERVE_BYTES))
            .and_then(|()| sys::keep_owner(&path));
        if made.is_err() {
            let _ = std::fs::remove_file(&path);
        }
    }

    /// Reads the log as it is now: `read` is given its tiles and the root that they must come to.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&mut Reader<'_, OsDisk>, &Hash) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        let head = self.checkpoint()?.checkpoint;
        let folder = self.lock.parent().expect("the lock is in the log's folder");
        read(&mut Reader::new(&OsDisk, folder, head.size), &head.root)
    }

    /// The head of the log as it is now.
    pub fn checkpoint(&self) -> Result<Note, AuditError> {
        self.locked(Log::checkpoint)
    }

    fn locked<T>(
        &self,
        act: impl FnOnce(&mut Log<OsDisk>) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        // A thread that panicked with the lock left files as a crash would: the next append copes with both.
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let _held = take(&self.lock)?;
        act(&mut log)
    }
}

/// Holds the lock until it is dropped. Opened anew each time: `flock` is of an open file, and does not keep two threads apart that share one.
fn take(path: &Path) -> Result<File, AuditError> {
    let failed = |error| AuditError::io("lock", path, error);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    sys::keep_owner(path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
