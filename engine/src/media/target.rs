//! The output file: invisible until it is whole and durable, and gone if it never becomes so.
//!
//! Where the file system can, the file has no name at all while it is written (`O_TMPFILE`), so that not even
//! `kill -9` leaves a part of it. Elsewhere it has a hidden name in the same folder, which `Drop` removes.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::Error;

/// Permissions before the umask, as any other program's output.
const MODE: u32 = 0o666;

/// A file under construction in the folder of its final place.
pub(super) struct Target {
    path: PathBuf,
    folder: PathBuf,
    /// The name it has while it is written, if it has one.
    hidden: Option<PathBuf>,
    /// Where the bytes go.
    pub file: File,
}

impl Target {
    /// Opens a file that [`Target::commit`] will put at `path`.
    ///
    /// # Errors
    /// If `path` is something else than a regular file, or its folder cannot be written.
    pub fn create(path: &Path) -> Result<Target, Error> {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                return Err(Error::NotAFile {
                    path: path.to_owned(),
                    what: "a folder",
                });
            }
            Ok(meta) if !meta.is_file() => {
                return Err(Error::NotAFile {
                    path: path.to_owned(),
                    what: "a device or pipe",
                });
            }
            Ok(_) | Err(_) => {}
        }
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let (file, hidden) = match open_nameless(&folder) {
            Some(file) => (file, None),
            None => {
                let hidden = hidden_name(path, &folder);
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(&hidden)
                    .map_err(Error::io(path, "cannot be written"))?;
                (file, Some(hidden))
            }
        };
        Ok(Target {
            path: path.to_owned(),
            folder,
            hidden,
            file,
        })
    }

    /// Wraps an I/O error met while writing.
    pub fn error(&self, what: &'static str) -> impl FnOnce(io::Error) -> Error + use<'_> {
        Error::io(&self.path, what)
    }

    /// Makes the file durable and gives it its name, replacing a file that had it.
    ///
    /// # Errors
    /// If the system refuses; then nothing is left.
    pub fn commit(mut self) -> Result<(), Error> {
        self.commit_inner()
            .map_err(Error::io(&self.path, "cannot be completed"))
    }

    fn commit_inner(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.hidden.is_none() {
            // A nameless file can only be linked to a free name; the rename then replaces what stood at `path`.
            let hidden = hidden_name(&self.path, &self.folder);
            let descriptor = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            rustix::fs::linkat(CWD, descriptor, CWD, &hidden, AtFlags::SYMLINK_FOLLOW)?;
            self.hidden = Some(hidden);
        }
        if let Some(hidden) = &self.hidden {
            fs::rename(hidden, &self.path)?;
            self.hidden = None;
        }
        File::open(&self.folder)?.sync_all()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // Already failing: the first error is the one that is reported.
            let _ = fs::remove_file(hidden);
        }
    }
}

/// A nameless file in `folder`, or `None` where the file system or a missing /proc does not allow it.
fn open_nameless(folder: &Path) -> Option<File> {
    if !Path::new("/proc/self/fd").exists() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::from_raw_mode(MODE))
        .ok()
        .map(File::from)
}

/// `.NAME.PID.partial` beside the target: hidden, and unlike any other process's.
fn hidden_name(path: &Path, folder: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    folder.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_is_visible_before_commit_and_the_file_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.mp4");
        let mut target = Target::create(&path).unwrap();
        target.file.write_all(b"whole").unwrap();
        assert!(!path.exists());
        target.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["out.mp4"]);
    }

    #[test]
    fn a_dropped_target_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.mp4");
        fs::write(&path, b"old").unwrap();
        let mut target = Target::create(&path).unwrap();
        target.file.write_all(b"half").unwrap();
        drop(target);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["out.mp4"]);
    }

    #[test]
    fn commit_replaces_an_older_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.mp4");
        fs::write(&path, b"old").unwrap();
        let mut target = Target::create(&path).unwrap();
        target.file.write_all(b"new").unwrap();
        target.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn folders_and_missing_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Target::create(folder.path()),
            Err(Error::NotAFile { .. })
        ));
        let missing = folder.path().join("none/out.mp4");
        assert!(matches!(Target::create(&missing), Err(Error::Io { .. })));
        assert!(names(folder.path()).is_empty());
    }
}
