//! From the PATHs of a command line to the segment files they name.

use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The segments that some paths name, each file once, in the order of the paths and by name below a folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Segment files.
    pub segments: Vec<PathBuf>,
    /// The folders among the paths. Only a folder claims to be complete: a segment missing from it is missed.
    pub folders: Vec<PathBuf>,
    /// What could not be looked at below the folders. On a bad day the rest matters all the more, so it is there all the same.
    pub problems: Vec<FindError>,
}

/// A path that could not be read.
#[derive(Debug)]
pub struct FindError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub why: io::Error,
}

/// Walks `paths`: a file stands for itself, whatever its name; a folder for every `.hseal` below it. Symbolic links are followed
/// where they are named, and to files; not to folders below a folder, which could lead in circles.
///
/// What disappears while the walk is under way (a running engine deletes by its retention rules) is left out. Only a path that was
/// named, and is not there or cannot be read, ends the walk.
pub fn segments(paths: &[PathBuf]) -> Result<Found, FindError> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(|why| at(path, why))?;
        if meta.is_dir() {
            let entries = read(path).map_err(|why| at(path, why))?;
            found.folders.push(path.clone());
            walk(entries, &mut found, &mut seen);
        } else if seen.insert((meta.dev(), meta.ino())) {
            found.segments.push(path.clone());
        }
    }
    Ok(found)
}

/// The entries of a folder by name.
fn read(folder: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

fn walk(entries: Vec<DirEntry>, found: &mut Found, seen: &mut HashSet<(u64, u64)>) {
    for entry in entries {
        let path = entry.path();
        let looked_at = match entry.file_type() {
            Ok(kind) if kind.is_dir() => read(&path).map(|entries| walk(entries, found, seen)),
            Ok(_) if path.extension().is_none_or(|e| e != super::EXTENSION) => Ok(()),
            Ok(_) => fs::metadata(&path).map(|meta| {
                if meta.is_file() && seen.insert((meta.dev(), meta.ino())) {
                    found.segments.push(path.clone());
                }
            }),
            Err(why) => Err(why),
        };
        match looked_at {
            Ok(()) => {}
            // Gone meanwhile. A link that is still there leads nowhere: to a disk that is not mounted, perhaps.
            Err(why) if why.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {}
            Err(why) => found.problems.push(at(&path, why)),
        }
    }
}

fn at(path: &Path, why: io::Error) -> FindError {
    FindError {
        path: path.to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_and_each_file_is_named_once() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let day = dir.path().join("segments/20261123");
        fs::create_dir_all(&day).expect("create");
        for name in ["b.hseal", "a.hseal", "notes.txt"] {
            fs::write(day.join(name), b"").expect("write");
        }
        std::os::unix::fs::symlink(dir.path(), day.join("circle")).expect("link");
        let found = segments(&[dir.path().to_owned(), day.join("a.hseal")]).expect("walk");
        assert_eq!(found.segments, [day.join("a.hseal"), day.join("b.hseal")]);
        assert_eq!(found.folders, [dir.path()]);
    }

    #[test]
    fn what_cannot_be_looked_at_does_not_hide_the_rest() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("b.hseal"), b"").expect("write");
        std::os::unix::fs::symlink("nowhere", dir.path().join("a.hseal")).expect("link");
        std::os::unix::fs::symlink("c.hseal", dir.path().join("c.hseal")).expect("link");
        let found = segments(&[dir.path().to_owned()]).expect("walk");
        assert_eq!(found.segments, [dir.path().join("b.hseal")]);
        let problems: Vec<_> = found.problems.iter().map(|problem| &problem.path).collect();
        assert_eq!(
            problems,
            [&dir.path().join("a.hseal"), &dir.path().join("c.hseal")]
        );
    }

    #[test]
    fn a_named_file_needs_no_extension_and_must_exist() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let odd = dir.path().join("odd.bin");
        fs::write(&odd, b"").expect("write");
        let found = segments(std::slice::from_ref(&odd)).expect("walk");
        assert_eq!(found.segments, [odd]);
        let error = segments(&[dir.path().join("none")]).expect_err("no such file");
        assert_eq!(error.why.kind(), io::ErrorKind::NotFound);
    }
}
