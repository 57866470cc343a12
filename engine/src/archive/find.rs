//! From the PATHs of a command line to the segment files they name.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The segments that some paths name, each file once, in the order of the paths and by name below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Segment files.
    pub segments: Vec<PathBuf>,
    /// The folders among the paths. Only a folder claims to be complete: a segment missing from it is missed.
    pub folders: Vec<PathBuf>,
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
/// What disappears while the walk is under way (a running engine deletes by its retention rules) is left out.
pub fn segments(paths: &[PathBuf]) -> Result<Found, FindError> {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(|why| at(path, why))?;
        if meta.is_dir() {
            found.folders.push(path.clone());
            walk(path, &mut found.segments, &mut seen)?;
        } else if seen.insert((meta.dev(), meta.ino())) {
            found.segments.push(path.clone());
        }
    }
    Ok(found)
}

fn walk(folder: &Path, segments: &mut Vec<PathBuf>, seen: &mut HashSet<(u64, u64)>) -> Result<(), FindError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(at(folder, why)),
    };
    let mut entries = entries
        .collect::<io::Result<Vec<_>>>()
        .map_err(|why| at(folder, why))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(|why| at(&path, why))?;
        if kind.is_dir() {
            walk(&path, segments, seen)?;
        } else if path.extension().is_some_and(|e| e == super::EXTENSION) {
            match fs::metadata(&path) {
                Ok(meta) if meta.is_file() && seen.insert((meta.dev(), meta.ino())) => segments.push(path),
                Ok(_) => {}
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) => return Err(at(&path, why)),
            }
        }
    }
    Ok(())
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
