//! Files that are written once: whole and durable, for their owner's eyes only, and never over another.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Access;

use super::CliError;

/// Writes `text` into a new file of mode 0600. What could not be written whole is removed again.
///
/// # Errors
/// An I/O error that names the file; of one that is there already, too.
pub fn write(path: &Path, text: &[u8]) -> Result<(), CliError> {
    // O_EXCL: whatever is there, a dangling link included, stays as it is.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            let refused = CliError::file("create", path, &error);
            match error.kind() {
                io::ErrorKind::AlreadyExists => refused
                    .remedy("harborseal never overwrites what cannot be made again: choose another name"),
                _ => refused,
            }
        })?;
    fill(file, path, text).map_err(|error| {
        let failed = CliError::file("write", path, &error);
        match std::fs::remove_file(path) {
            Ok(()) => failed,
            Err(_) => failed.remedy("what was written of it is not whole: remove it"),
        }
    })
}

/// Whether [`write`] may be expected to work, for those who do before it what cannot be undone.
///
/// # Errors
/// The file is there, or its folder is not, or cannot be written. The remedy is `otherwise`.
pub fn expect_to(path: &Path, otherwise: &str) -> Result<(), CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let can = match path.symlink_metadata() {
        Ok(_) => Err(rustix::io::Errno::EXIST),
        Err(_) => rustix::fs::access(
            folder.unwrap_or(Path::new(".")),
            Access::WRITE_OK | Access::EXEC_OK,
        ),
    };
    can.map_err(|errno| CliError::file("create", path, &errno.into()).remedy(otherwise))
}

/// Durably: its owner may rely on it right away.
fn fill(mut file: File, path: &Path, text: &[u8]) -> io::Result<()> {
    // The mode given to open() is cut by the umask; exactly 0600 is promised.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text)?;
    file.sync_all()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
