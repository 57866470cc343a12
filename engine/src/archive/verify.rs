//! Verifying segment files, also while an engine writes them, closes them and deletes them.
//!
//! The checks themselves are the format's ([`harborseal_segment::verify`]). Here is what only somebody who knows about files and
//! processes can tell: that what looked torn was on its way, that an open segment has a writer, that a file has gone since.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use harborseal_segment::SegmentId;
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::State;
use harborseal_segment::scan::ReadError;
use harborseal_segment::verify::{ChainFinding, Chains, Finding, Report, Severity, What, verify};

use super::FileSource;

/// Looks again this often at a file that changes under the check.
const LOOKS: usize = 5;

/// One file, checked.
#[derive(Debug)]
pub struct Checked {
    /// What was found.
    pub report: Report,
    /// A process holds the writer's lock.
    pub being_written: bool,
}

/// Why a file could not be checked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Unreadable(#[from] pub ReadError);

impl Unreadable {
    fn io(why: io::Error) -> Self {
        Unreadable(ReadError::Io { offset: 0, why })
    }

    /// The file is not there (any more).
    pub fn is_gone(&self) -> bool {
        matches!(&self.0, ReadError::Io { why, .. } if why.kind() == io::ErrorKind::NotFound)
    }

    /// It was created and reserved, and holds no block.
    pub fn is_never_begun(&self) -> bool {
        matches!(self.0, ReadError::NeverBegun)
    }

    /// Reading failed, which says nothing about the segment.
    pub fn is_io(&self) -> bool {
        matches!(self.0, ReadError::Io { .. })
    }
}

/// Checks one file. `progress` is told how many of its bytes are done.
///
/// While it is being written, blocks are on their way to the disk in any order, and the floor passes places that were read before
/// they were whole; when it is closed, its end is cut off. So what looks damaged then is looked at again.
pub fn check(
    path: &Path,
    mut keyring: Option<&mut Keyring>,
    mut progress: impl FnMut(u64),
) -> Result<Checked, Unreadable> {
    let mut before = Vec::new();
    for look in 1.. {
        let mut source = FileSource::open(path).map_err(Unreadable::io)?;
        let written_before = source.is_being_written().map_err(Unreadable::io)?;
        let verified = verify(&source, keyring.as_deref_mut(), &mut progress);
        let closed_meanwhile = source.refresh().map_err(Unreadable::io)?;
        let being_written = source.is_being_written().map_err(Unreadable::io)?;
        let changing = closed_meanwhile || (written_before && !being_written);
        let suspect = match &verified {
            Ok(report) => {
                // What was below the floor at one look, and is as broken at the next, is not on its way any more.
                let found = std::mem::replace(&mut before, damage(report));
                let on_its_way = being_written && before.iter().any(|finding| !found.contains(finding));
                report.state == State::Open && (changing || on_its_way)
            }
            Err(_) => changing,
        };
        if suspect && look < LOOKS {
            continue;
        }
        let mut report = verified?;
        if report.state == State::Open && !being_written && !report.unused {
            report
                .findings
                .push(Finding::new(report.data_end, 0, What::Unclosed));
        }
        return Ok(Checked {
            report,
            being_written,
        });
    }
    unreachable!("the last look returns")
}

fn damage(report: &Report) -> Vec<Finding> {
    let grave = |finding: &&Finding| finding.severity() > Severity::Note;
    report.findings.iter().filter(grave).cloned().collect()
}

/// Many files, checked together.
#[derive(Debug, Default)]
pub struct Check {
    /// Those that could be checked.
    pub files: BTreeMap<PathBuf, Checked>,
    /// Those that could not.
    pub unreadable: BTreeMap<PathBuf, Unreadable>,
    /// What they say of each other.
    pub chains: Chains,
    /// What is wrong between them.
    pub between: Vec<ChainFinding>,
    /// Files that were deleted while the check ran.
    gone: BTreeSet<PathBuf>,
}

impl Check {
    /// Checks `paths`. `complete`: they are all the segments of their folders. `again` lists what is there now: a running engine
    /// begins, closes and deletes segments meanwhile. `progress` is told of every file's bytes as they are done.
    pub fn run(
        paths: &[PathBuf],
        complete: bool,
        mut keyring: Option<&mut Keyring>,
        again: &dyn Fn() -> Vec<PathBuf>,
        progress: &mut dyn FnMut(&Path, u64),
    ) -> Self {
        let mut check = Check::default();
        for path in paths {
            check.add(path, keyring.as_deref_mut(), progress);
        }
        for look in 1.. {
            check.compare(complete);
            let moving: Vec<PathBuf> = check.moving(&again());
            let suspect = check
                .between
                .iter()
                .any(|found| found.severity() > Severity::Note);
            if !suspect || moving.is_empty() || look == LOOKS {
                break;
            }
            for path in moving {
                check.add(&path, keyring.as_deref_mut(), progress);
            }
        }
        check
    }

    fn add(&mut self, path: &Path, keyring: Option<&mut Keyring>, progress: &mut dyn FnMut(&Path, u64)) {
        match self::check(path, keyring, |done| progress(path, done)) {
            Ok(checked) => {
                self.files.insert(path.to_owned(), checked);
            }
            Err(error) if error.is_gone() => {
                self.files.remove(path);
                self.gone.insert(path.to_owned());
            }
            Err(error) => {
                self.unreadable.insert(path.to_owned(), error);
            }
        }
    }

    /// Files that may say something else by now: those that were open, and those that are new.
    fn moving(&self, there: &[PathBuf]) -> Vec<PathBuf> {
        let open = self.files.iter().filter(|(_, checked)| checked.being_written);
        let known = |path: &&PathBuf| !self.files.contains_key(*path) && !self.unreadable.contains_key(*path);
        let new = there.iter().filter(known);
        open.map(|(path, _)| path).chain(new).cloned().collect()
    }

    fn compare(&mut self, complete: bool) {
        let mut chains = Chains::default();
        for checked in self.files.values() {
            chains.add(checked.report.member.clone());
        }
        let erasures = chains.erasures();
        for checked in self.files.values_mut() {
            checked.report.settle(&erasures);
        }
        self.between = chains.check(complete, &|id| self.is_elsewhere(id));
        self.chains = chains;
    }

    /// Whether a segment lies beside the checked ones, in their folders or the folders next to them, was not readable, or was deleted
    /// a moment ago.
    fn is_elsewhere(&self, id: SegmentId) -> bool {
        let name = format!("{id}.{}", super::EXTENSION);
        if self.gone.iter().any(|path| path.ends_with(&name)) {
            return true;
        }
        let paths = self.files.keys().chain(self.unreadable.keys());
        let folders: BTreeSet<&Path> = paths.filter_map(|path| path.parent()).collect();
        let beside = folders
            .iter()
            .filter_map(|folder| folder.canonicalize().ok()?.parent()?.read_dir().ok());
        let beside: BTreeSet<PathBuf> = beside.flatten().flatten().map(|entry| entry.path()).collect();
        // A file of its name that was checked is another segment, which somebody put in its place.
        let taken = self.files.keys().filter(|path| path.ends_with(&name));
        let taken: Vec<PathBuf> = taken.filter_map(|path| path.canonicalize().ok()).collect();
        let mut folders = folders.into_iter().map(Path::to_owned).chain(beside);
        folders.any(|folder| {
            let path = folder.join(&name).canonicalize();
            path.is_ok_and(|path| path.is_file() && !taken.contains(&path))
        })
    }

    /// The file of a segment.
    pub fn path_of(&self, id: SegmentId) -> Option<&Path> {
        let mut files = self.files.iter();
        files
            .find(|(_, checked)| checked.report.head.id == id)
            .map(|(path, _)| path.as_path())
    }

    /// Bytes of all checked files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|checked| checked.report.file_len).sum()
    }
}

/// Bytes of the files, for a progress bar.
pub fn total_bytes(paths: &[PathBuf]) -> u64 {
    paths.iter().map(|path| len_of(path)).sum()
}

/// Bytes of one file; 0 if it cannot be told.
pub fn len_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::fixtures;

    fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut paths = Vec::new();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("write");
            paths.push(path);
        }
        (dir, paths)
    }

    fn kinds(report: &Report) -> Vec<&'static str> {
        report
            .findings
            .iter()
            .map(|finding| finding.what.name())
            .collect()
    }

    #[test]
    fn an_open_segment_is_fine_while_somebody_writes_it() {
        let open = fixtures::open_segment(0).bytes;
        let (_dir, paths) = folder(&[("a.hseal", &open)]);
        let writer = FileSource::open_writable(&paths[0]).expect("open");
        assert!(writer.lock().expect("lock"));
        let checked = check(&paths[0], None, |_| ()).expect("readable");
        assert!(checked.being_written && checked.report.is_clean());
        drop(writer);
        let checked = check(&paths[0], None, |_| ()).expect("readable");
        assert_eq!(kinds(&checked.report), ["unclosed"]);
    }

    #[test]
    fn what_looks_damaged_while_it_is_written_is_looked_at_again() {
        let whole = fixtures::open_segment(0);
        let mut torn = whole.bytes.clone();
        torn[8 * 4096 - 1000..8 * 4096].fill(0xEE);
        let (_dir, paths) = folder(&[("a.hseal", &torn)]);
        let writer = FileSource::open_writable(&paths[0]).expect("open");
        assert!(writer.lock().expect("lock"));
        let mut looks = 0;
        let checked = check(&paths[0], None, |done| {
            if done == whole.bytes.len() as u64 {
                looks += 1;
                std::fs::write(&paths[0], &whole.bytes).expect("the block arrives");
            }
        });
        assert!(checked.expect("readable").report.is_clean());
        assert_eq!(looks, 2);
    }

    #[test]
    fn damage_that_stays_is_damage_also_while_it_is_written() {
        let mut bytes = fixtures::open_segment(0).bytes;
        bytes[6 * 4096 + 200] ^= 1;
        let (_dir, paths) = folder(&[("a.hseal", &bytes)]);
        let writer = FileSource::open_writable(&paths[0]).expect("open");
        assert!(writer.lock().expect("lock"));
        let mut looks = 0;
        let checked = check(&paths[0], None, |done| {
            looks += usize::from(done == bytes.len() as u64)
        });
        let report = checked.expect("readable").report;
        assert_eq!((looks, kinds(&report)), (2, vec!["broken_block", "chunks_lost"]));
    }

    #[test]
    fn a_segment_closed_during_the_check_is_a_closed_segment() {
        let open = fixtures::open_segment(0);
        let end = open.bytes.len() as u64;
        let mut reserved = open.bytes.clone();
        reserved.resize(reserved.len() + (1 << 20), 0);
        let closed = fixtures::closed_segment(0);
        let (_dir, paths) = folder(&[("a.hseal", &reserved)]);
        let checked = check(&paths[0], None, |done| {
            if done == end {
                std::fs::write(&paths[0], &closed).expect("the writer closes it");
            }
        });
        let report = checked.expect("readable").report;
        assert_eq!((report.state, kinds(&report)), (State::Sealed, vec![]));
    }

    #[test]
    fn a_copy_of_another_segment_under_its_name_does_not_stand_for_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut paths = Vec::new();
        for (name, content) in [(0, 0), (1, 0), (2, 2)] {
            let path = dir.path().join(format!("{}.hseal", fixtures::segment_id(name)));
            std::fs::write(&path, fixtures::closed_segment(content)).expect("write");
            paths.push(path);
        }
        let check = Check::run(&paths, true, None, &|| paths.clone(), &mut |_, _| ());
        let missing = check
            .between
            .iter()
            .filter(|found| found.finding.what.name() == "segments_missing");
        assert_eq!(missing.count(), 1, "{:?}", check.between);
    }

    #[test]
    fn a_predecessor_in_the_folder_beside_is_not_missing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (day, n) in [("20261122", 0), ("20261123", 1)] {
            std::fs::create_dir(dir.path().join(day)).expect("create");
            let name = format!("{day}/{}.hseal", fixtures::segment_id(n));
            std::fs::write(dir.path().join(name), fixtures::closed_segment(n)).expect("write");
        }
        let path = dir
            .path()
            .join(format!("20261123/{}.hseal", fixtures::segment_id(1)));
        let run = |complete| {
            Check::run(
                std::slice::from_ref(&path),
                complete,
                None,
                &Vec::new,
                &mut |_, _| (),
            )
        };
        let worst = |check: &Check| check.between.iter().map(|found| found.severity()).max();
        assert_eq!(worst(&run(true)), Some(Severity::Note));
        std::fs::remove_dir_all(dir.path().join("20261122")).expect("remove");
        assert_eq!(worst(&run(true)), Some(Severity::Damage));
        assert_eq!(worst(&run(false)), Some(Severity::Note));
    }
}
