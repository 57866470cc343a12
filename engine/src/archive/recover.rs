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
use harborseal_segment::recover::{CloseTail, Piece, Plan, Repair, plan};
use harborseal_segment::scan::ReadError;
use harborseal_segment::source::Source;
use harborseal_segment::verify::{Report, Severity, verify};

use super::FileSource;

/// Bytes copied at a time.
const COPY_LEN: usize = 1 << 20;

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
        /// The copy was there before.
        already: bool,
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
}

/// Recovers the file at `path`, unless a process writes it. `node` is the node's key if it is at hand; `progress` is told how many bytes
/// were read, and may wait to bound the rate.
pub fn recover(
    path: &Path,
    node: Option<&NodeKey>,
    now_s: u64,
    progress: impl FnMut(u64),
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
    Ok(match plan(&source, node, now_s, progress)? {
        Plan::AlreadyClosed(report) => Outcome::AlreadyClosed(report),
        Plan::Unused(report) => Outcome::Unused(report),
        Plan::CloseTail(tail) => {
            close(&source, &tail)?;
            Outcome::Closed(tail.report)
        }
        Plan::Corrupt(repair) => return copy(&source, repair),
    })
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
        file.sync_data().map_err(at("sync", path))?;
    }
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

fn copy(source: &FileSource, repair: Repair) -> Result<Outcome, RecoverError> {
    let copy = copy_path(source.path());
    let Repair { report, pieces } = repair;
    if copy.exists() {
        let already = true;
        return Ok(Outcome::Repaired {
            report,
            copy,
            already,
        });
    }
    // Not named like a segment until it is one.
    let mut part = copy.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let made = make_copy(source, &pieces, &part).and_then(|()| finish_copy(&part, &copy));
    if !matches!(made, Ok(None)) {
        // Nothing of a copy that is not whole is to stay behind; if it cannot be removed, it still is not named like a segment.
        let _ = fs::remove_file(&part);
    }
    Ok(match made? {
        None => Outcome::Repaired {
            report,
            copy,
            already: false,
        },
        Some(why) => Outcome::Irreparable { report, why },
    })
}

fn make_copy(source: &FileSource, pieces: &[Piece], part: &Path) -> Result<(), RecoverError> {
    let mode = source
        .file()
        .metadata()
        .map(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode.map_or(0o640, |mode| mode & 0o777))
        .open(part)
        .map_err(at("create", part))?;
    let mut buffer = vec![0; COPY_LEN];
    for piece in pieces {
        match piece {
            Piece::Write { offset, bytes, len } => {
                // The zeros behind need no writing: they are a hole of the file.
                file.write_all_at(bytes, *offset).map_err(at("write", part))?;
                if *len > bytes.len() as u64 {
                    file.set_len(offset + len).map_err(at("write", part))?;
                }
            }
            Piece::Copy { offset, len } => copy_range(source, *offset, *len, &file, &mut buffer, part)?,
        }
    }
    file.sync_all().map_err(at("sync", part))
}

fn copy_range(
    source: &FileSource,
    offset: u64,
    len: u64,
    file: &File,
    buffer: &mut [u8],
    part: &Path,
) -> Result<(), RecoverError> {
    let mut at_offset = offset;
    while at_offset < offset + len {
        let n = (offset + len - at_offset).min(buffer.len() as u64) as usize;
        let read = source.read_at(at_offset, &mut buffer[..n]);
        read.map_err(|why| ReadError::Io {
            offset: at_offset,
            why,
        })?;
        file.write_all_at(&buffer[..n], at_offset)
            .map_err(at("write", part))?;
        at_offset += n as u64;
    }
    Ok(())
}

/// Verifies the copy and gives it its name; says why not if it is not clean.
fn finish_copy(part: &Path, copy: &Path) -> Result<Option<String>, RecoverError> {
    let source = FileSource::open(part).map_err(at("read", part))?;
    let report = verify(&source, None, |_| ())?;
    if let Some(finding) = report
        .findings
        .iter()
        .find(|finding| finding.severity() > Severity::Note)
    {
        return Ok(Some(finding.to_string()));
    }
    fs::rename(part, copy).map_err(at("name", copy))?;
    let folder = copy
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at("sync", folder))?;
    Ok(None)
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
    use harborseal_segment::reader::State;

    const NOW_S: u64 = fixtures::BEGAN_S + 500;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.hseal");
        fs::write(&path, bytes).expect("write");
        (dir, path)
    }

    fn recovered(path: &Path) -> Outcome {
        recover(path, Some(&fixtures::node()), NOW_S, |_| ()).expect("recovers")
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
