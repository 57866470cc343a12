//! The store's files: made for nobody else's eyes, replaced whole or not at all, destroyed so that nothing of them is left.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::StoreError;
use crate::uring::sys;

/// What a file is called until it is whole. One name, so that a crash leaves at most one, and the next writer takes it over.
pub(super) const PART: &str = "new.part";

/// Makes a folder that only its owner can enter, durably; refuses one that others can.
pub(super) fn make_private_folder(folder: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {
            sys::keep_owner(folder).map_err(StoreError::io("give its owner", folder))?;
            folder.parent().map_or(Ok(()), sync_folder)
        }
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::metadata(folder).map_err(StoreError::io("look at", folder))?;
            match meta.permissions().mode() & 0o077 {
                0 => Ok(()),
                _ => Err(StoreError::broken(
                    folder,
                    format!("others can enter it; `chmod 700 {}`", folder.display()),
                )),
            }
        }
        Err(why) => Err(StoreError::io("make", folder)(why)),
    }
}

/// Opens a file for writing, made for its owner alone where there is none.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    let file = options.mode(0o600).open(path)?;
    sys::keep_owner(path)?;
    Ok(file)
}

/// Puts a file in its place whole or not at all, durably.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let part = folder.join(PART);
    let write = || {
        let mut file = open_private(&part)?;
        file.set_len(0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        sys::sync_directory(folder)
    };
    write().map_err(StoreError::io("write", path))
}

/// Overwrites a file in its place, makes that durable, and unlinks it; whoever calls syncs the folder. One that is not there is
/// destroyed already.
///
/// What a file system or a disk keeps of overwritten blocks (a journal of data, snapshots, a flash disk's spare blocks) is not reached from
/// here: docs/THREATS.md.
pub(super) fn destroy(path: &Path) -> Result<(), StoreError> {
    let overwrite = || {
        let file = OpenOptions::new().write(true).open(path)?;
        let len = file.metadata()?.len() as usize;
        file.write_all_at(&vec![0; len], 0)?;
        file.sync_all()?;
        fs::remove_file(path)
    };
    match overwrite() {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(StoreError::io("destroy", path)),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    sys::sync_directory(folder).map_err(StoreError::io("sync", folder))
}
