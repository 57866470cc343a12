//! Recovering one segment file: carrying out what [`harborseal_segment::recover`] decides.
//!
//! The order of writes and syncs is such that a crash at any moment leaves a file that the next attempt closes to the same end. A
//! repaired copy appears under its name only once it is whole, verified and durable.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use harborseal_segment::node::NodeKey;
use harborseal_segment::reader::State;
use harborseal_segment::recover::{CloseTail, Piece, Plan, Repair, plan};
use harborseal_segment::scan::ReadError;
use harborseal_segment::source::Source;
use harborseal_segment::verify::{Report, Severity, verify};

use super::FileSource;
use crate::uring::sys;

/// Bytes copied at a time.
const COPY_LEN: usize = 1 << 20;
/// Copied bytes are made durable this often, so that progress tells the disk's speed and not the memory's.
const SYNC_EVERY: u64 = 256 << 20;

/// What is being done with a file. Each begins again at its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is read, to decide.
    Reading,
    /// A repaired copy is written.
    Copying,
    /// The copy is verified.
    Checking,
}

/// What became of a segment file.
#[derive(Debug)]
pub enum Outcome {
    /// A process writes it; it was left alone.
    BeingWritten,
    /// It was closed and whole already.
    AlreadyClosed(Report),
    /// It was prepared and never used; it was left alone.
    Unused(Report),
    /// It is closed now. The report is of how it was.
    Closed(Report),
    /// Durable blocks of it are damaged. It was left as it is; a repaired copy stands beside it.
    Repaired {
        /// Of the original.
        report: Report,
        /// The copy.
        copy: PathBuf,
        /// The copy was there before, and is whole.
        already: bool,
    },
    /// Durable blocks of it are damaged, and where its repaired copy would stand is something else. Both were left as they are.
    InTheWay {
        /// Of the original.
        report: Report,
        /// What stands there.
        copy: PathBuf,
        /// Why it is no repaired copy.
        why: String,
    },
    /// Durable blocks of it are damaged, and no repaired copy could be written. Nothing of one is left behind.
    NotCopied {
        /// Of the original.
        report: Report,
        /// Why.
        error: RecoverError,
    },
    /// Durable blocks of it are damaged or were tampered with, and no copy of what is left would verify.
    Irreparable {
        /// Of the original.
        report: Report,
        /// What is wrong with the copy that was tried.
        why: String,
    },
}

/// Why a file could not be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It could not be read, or is no segment that this version can recover.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file could not be written.
    #[error("cannot {doing} {}: {why}", path.display())]
    Write {
        /// A verb.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// A repaired copy would not fit on its file system.
    #[error("no room for {}: it takes {needed} bytes, and {free} are free", path.display())]
    NoRoom {
        /// The copy.
        path: PathBuf,
        /// Its length.
        needed: u64,
        /// What is left there.
        free: u64,
    },
}

/// Recovers the file at `path`, unless a process writes it. `node` is the node's key if it is at hand; `progress` is told how many bytes
/// are done, and may wait to bound the rate.
pub fn recover(
    path: &Path,
    node: Option<&NodeKey>,
    now_s: u64,
    mut progress: impl FnMut(Step, u64),
) -> Result<Outcome, RecoverError> {
    // Read-only first: a file that needs nothing may lie on a read-only disk.
    let source = FileSource::open(path).map_err(|why| ReadError::Io { offset: 0, why })?;
    if source.is_empty() {
        // Its writer may be about to lock it.
        return Err(ReadError::NeverBegun.into());
    }
    let lock = source.lock().map_err(|why| ReadError::Io { offset: 0, why })?;
    if !lock {
        return Ok(Outcome::BeingWritten);
    }
    Ok(
        match plan(&source, node, now_s, |done| progress(Step::Reading, done))? {
            Plan::AlreadyClosed(report) => Outcome::AlreadyClosed(report),
            Plan::Unused(tail) => Outcome::Unused(tail.report),
            Plan::CloseTail(tail) => {
                close(&source, &tail)?;
                Outcome::Closed(tail.report)
            }
            Plan::Corrupt(Repair { report, pieces }) => {
                match copy(&source, &report, &pieces, &mut progress) {
                    Ok(Copied::Whole { copy, already }) => Outcome::Repaired {
                        report,
                        copy,
                        already,
                    },
                    Ok(Copied::InTheWay { copy, why }) => Outcome::InTheWay { report, copy, why },
                    Ok(Copied::NotWhole { why }) => Outcome::Irreparable { report, why },
                    Err(error) => Outcome::NotCopied { report, error },
                }
            }
        },
    )
}

fn close(source: &FileSource, tail: &CloseTail) -> Result<(), RecoverError> {
    let path = source.path();
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(at("open for writing", path))?;
    if !tail.bytes.is_empty() {
        file.set_len(tail.offset).map_err(at("cut", path))?;
        file.set_len(tail.room()).map_err(at("lengthen", path))?;
        file.sync_all().map_err(at("sync", path))?;
        file.write_all_at(&tail.bytes, tail.offset)
            .map_err(at("write", path))?;
    }
    // Also where only the cut is missing: that the tail can be read does not prove that a disk has it.
    file.sync_data().map_err(at("sync", path))?;
    file.set_len(tail.end()).map_err(at("cut", path))?;
    file.sync_all().map_err(at("sync", path))
}

/// `a.hseal` becomes `a.recovered.hseal`.
pub fn copy_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().map_or_else(OsString::new, OsString::from);
    name.push(".recovered.");
    name.push(super::EXTENSION);
    path.with_file_name(name)
}

/// What came of copying.
enum Copied {
    Whole { copy: PathBuf, already: bool },
    InTheWay { copy: PathBuf, why: String },
    NotWhole { why: String },
}

fn copy(
    source: &FileSource,
    original: &Report,
    pieces: &[Piece],
    progress: &mut dyn FnMut(Step, u64),
) -> Result<Copied, RecoverError> {
    let copy = copy_path(source.path());
    if copy.symlink_metadata().is_ok() {
        // An earlier copy. What it once was says nothing about what it is today.
        return Ok(match not_a_copy(&copy, original, progress)? {
            None => Copied::Whole { copy, already: true },
            Some(why) => Copied::InTheWay { copy, why },
        });
    }
    // Not named like a segment until it is one.
    let mut part = copy.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let made = make_copy(source, pieces, &part, progress)
        .and_then(|()| finish_copy(&part, &copy, original, progress));
    if !matches!(made, Ok(None)) {
        // Nothing of a copy that is not whole is to stay behind; if it cannot be removed, it still is not named like a segment.
        let _ = fs::remove_file(&part);
    }
    Ok(match made? {
        None => Copied::Whole { copy, already: false },
        Some(why) => Copied::NotWhole { why },
    })
}

fn make_copy(
    source: &FileSource,
    pieces: &[Piece],
    part: &Path,
    progress: &mut dyn FnMut(Step, u64),
) -> Result<(), RecoverError> {
    let mode = source
        .file()
        .metadata()
        .map(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()));
    // Of an attempt that was cut off, if anything. It is not opened: whatever stands there, nothing else may be written to through it.
    match fs::remove_file(part) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(at("remove", part)(why)),
        _ => {}
    }
    need_room(pieces, part)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode.map_or(0o640, |mode| mode & 0o777))
        .open(part)
        .map_err(at("create", part))?;
    let mut copying = Copying {
        source,
        file,
        part,
        buffer: vec![0; COPY_LEN],
        synced: 0,
        progress,
    };
    for piece in pieces {
        copying.piece(piece)?;
    }
    copying.file.sync_all().map_err(at("sync", part))
}

/// Better to find out before an hour of copying than after it.
fn need_room(pieces: &[Piece], part: &Path) -> Result<(), RecoverError> {
    let folder = folder_of(part);
    let needed = pieces.iter().map(|piece| match piece {
        Piece::Copy { len, .. } => *len,
        Piece::Write { bytes, .. } => bytes.len() as u64,
    });
    let needed = needed.sum();
    let Ok((free, _)) = sys::free_space(folder) else {
        return Ok(()); // A file system that does not tell: writing will.
    };
    match free < needed {
        false => Ok(()),
        true => Err(RecoverError::NoRoom {
            path: part.with_extension(""),
            needed,
            free,
        }),
    }
}

/// A repaired copy being written.
struct Copying<'a> {
    source: &'a FileSource,
    file: File,
    part: &'a Path,
    buffer: Vec<u8>,
    /// Durable up to here.
    synced: u64,
    progress: &'a mut dyn FnMut(Step, u64),
}

impl Copying<'_> {
    fn piece(&mut self, piece: &Piece) -> Result<(), RecoverError> {
        match piece {
            Piece::Write { offset, bytes, len } => {
                let write = || {
                    self.file.write_all_at(bytes, *offset)?;
                    // The zeros behind need no writing: they are a hole of the file.
                    match *len > bytes.len() as u64 {
                        true => self.file.set_len(offset + len),
                        false => Ok(()),
                    }
                };
                write().map_err(at("write", self.part))
            }
            Piece::Copy { offset, len } => self.range(*offset, offset + len),
        }
    }

    fn range(&mut self, mut offset: u64, end: u64) -> Result<(), RecoverError> {
        while offset < end {
            let n = (end - offset).min(self.buffer.len() as u64) as usize;
            let bytes = &mut self.buffer[..n];
            let read = self.source.read_at(offset, bytes);
            read.map_err(|why| ReadError::Io { offset, why })?;
            let written = self.file.write_all_at(bytes, offset);
            written.map_err(at("write", self.part))?;
            offset += n as u64;
            if offset >= self.synced + SYNC_EVERY {
                self.file.sync_data().map_err(at("sync", self.part))?;
                self.synced = offset;
            }
            (self.progress)(Step::Copying, offset);
        }
        Ok(())
    }
}

/// Verifies the copy and gives it its name; says why not if it is not clean.
fn finish_copy(
    part: &Path,
    copy: &Path,
    original: &Report,
    progress: &mut dyn FnMut(Step, u64),
) -> Result<Option<String>, RecoverError> {
    if let Some(why) = not_a_copy(part, original, progress)? {
        return Ok(Some(why));
    }
    fs::rename(part, copy).map_err(at("name", copy))?;
    let folder = folder_of(copy);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at("sync", folder))?;
    Ok(None)
}

/// Why the file at `path` is no repaired copy of the segment that `original` reports on; `None` if it is one, and whole.
fn not_a_copy(
    path: &Path,
    original: &Report,
    progress: &mut dyn FnMut(Step, u64),
) -> Result<Option<String>, RecoverError> {
    let source = FileSource::open(path).map_err(at("read", path))?;
    let report = match verify(&source, None, |done| progress(Step::Checking, done)) {
        Ok(report) => report,
        Err(error @ ReadError::Io { .. }) => return Err(error.into()),
        Err(error) => return Ok(Some(error.to_string())),
    };
    let worst = report
        .findings
        .iter()
        .find(|finding| finding.severity() > Severity::Note);
    Ok(match worst {
        Some(finding) => Some(finding.to_string()),
        None if report.head.id != original.head.id => Some(format!("it is segment {}", report.head.id)),
        None if report.state != State::Recovered => Some("it is not a repaired one".into()),
        None => None,
    })
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent();
    folder
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn at(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> RecoverError {
    let path = path.to_owned();
    move |why| RecoverError::Write {
        doing,
        path: path.clone(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::fixtures;

    const NOW_S: u64 = fixtures::BEGAN_S + 500;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.hseal");
        fs::write(&path, bytes).expect("write");
        (dir, path)
    }

    fn recovered(path: &Path) -> Outcome {
        recover(path, Some(&fixtures::node()), NOW_S, |_, _| ()).expect("recovers")
    }

    fn checked(path: &Path) -> Report {
        verify(&FileSource::open(path).expect("open"), None, |_| ()).expect("readable")
    }

    #[test]
    fn a_torn_tail_is_closed_and_cut() {
        let mut bytes = fixtures::open_segment(0).bytes;
        bytes.resize(bytes.len() + (1 << 20), 0);
        let (_dir, path) = written(&bytes);
        assert!(matches!(recovered(&path), Outcome::Closed(_)));
        let report = checked(&path);
        assert!(report.is_clean());
        assert_eq!(report.state, State::Recovered);
        assert!(matches!(recovered(&path), Outcome::AlreadyClosed(_)));
    }

    #[test]
    fn a_segment_that_is_being_written_is_left_alone() {
        let bytes = fixtures::open_segment(0).bytes;
        let (_dir, path) = written(&bytes);
        let writer = FileSource::open_writable(&path).expect("open");
        assert!(writer.lock().expect("lock"));
        assert!(matches!(recovered(&path), Outcome::BeingWritten));
        assert_eq!(fs::read(&path).expect("read"), bytes);
    }

    #[test]
    fn damage_leaves_the_original_and_a_verified_copy_beside_it() {
        let mut bytes = fixtures::closed_segment(0);
        bytes[6 * 4096 + 200] ^= 1;
        let (dir, path) = written(&bytes);
        let Outcome::Repaired { copy, already, .. } = recovered(&path) else {
            panic!("repaired")
        };
        assert_eq!(
            (copy.as_path(), already),
            (dir.path().join("a.recovered.hseal").as_path(), false)
        );
        assert!(checked(&copy).is_clean());
        assert_eq!(fs::read(&path).expect("read"), bytes);
        assert_eq!(
            fs::read_dir(dir.path()).expect("list").count(),
            2,
            "nothing else is left"
        );
        assert!(matches!(
            recovered(&path),
            Outcome::Repaired { already: true, .. }
        ));
    }

    #[test]
    fn what_stands_where_the_copy_would_is_judged_and_kept() {
        let mut bytes = fixtures::closed_segment(0);
        bytes[6 * 4096 + 200] ^= 1;
        let (dir, path) = written(&bytes);
        assert!(matches!(recovered(&path), Outcome::Repaired { .. }));
        let copy = copy_path(&path);
        let mut worn = fs::read(&copy).expect("read");
        worn[7 * 4096 + 200] ^= 1;
        for other in [
            worn,
            b"notes".to_vec(),
            fixtures::closed_segment(1),
            fixtures::closed_segment(0),
        ] {
            fs::write(&copy, &other).expect("write");
            assert!(matches!(recovered(&path), Outcome::InTheWay { .. }));
            assert_eq!(fs::read(&copy).expect("read"), other);
            assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 2);
        }
    }

    #[test]
    fn what_an_interrupted_attempt_left_is_no_way_to_write_elsewhere() {
        let mut bytes = fixtures::closed_segment(0);
        bytes[6 * 4096 + 200] ^= 1;
        let (dir, path) = written(&bytes);
        let other = dir.path().join("other");
        fs::write(&other, b"something of value").expect("write");
        std::os::unix::fs::symlink(&other, dir.path().join("a.recovered.hseal.part")).expect("link");
        assert!(matches!(recovered(&path), Outcome::Repaired { .. }));
        assert_eq!(fs::read(&other).expect("read"), b"something of value");
    }

    #[test]
    fn what_cannot_be_repaired_leaves_nothing_behind() {
        let mut bytes = fixtures::closed_segment(0);
        // Two chunks exchanged: every block is whole, and none stands where it belongs.
        let (first, second) = (6 * 4096, 7 * 4096);
        let block = bytes[first..first + 4096].to_vec();
        bytes.copy_within(second..second + 4096, first);
        bytes[second..second + 4096].copy_from_slice(&block);
        let (dir, path) = written(&bytes);
        assert!(matches!(recovered(&path), Outcome::Irreparable { .. }));
        assert_eq!(fs::read(&path).expect("read"), bytes);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
