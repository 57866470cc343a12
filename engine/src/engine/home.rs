//! The data folder: one engine at a time, the node's signing key, and the segments.
//!
//! ```text
//!   DATA/lock               held while an engine runs
//!   DATA/keys/node.key      0600   the node's Ed25519 seed, 64 hex digits; made at the first start
//!   DATA/keys/node.pub      0640   its public key, 64 hex digits: what `verify` can hold signatures against
//!   DATA/keys/erase/        0700   erasure keys (crate::keystore)
//!   DATA/segments/<yyyymmdd>/<id>.hseal
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use harborseal_segment::node::NodeKey;
use harborseal_segment::random::os_random;
use rand::Rng;
use zeroize::Zeroizing;

use super::StartError;
use crate::keystore::Keystore;
use crate::process::folders::{self, Place, Verdict};
use crate::uring::{Locked, sys};

/// An engine's folder, locked.
pub struct Home {
    /// Where segments are kept.
    pub segments: PathBuf,
    data: PathBuf,
    keys: PathBuf,
    /// Holding it open holds the lock.
    _lock: File,
}

impl Home {
    /// Opens or makes the folder. Fails if another engine has it.
    pub fn open(data: &Path) -> Result<Home, StartError> {
        let failed = |what: &Path, error: &io::Error| {
            let remedy = "check data_dir and its permissions";
            StartError::io(format!("cannot use {}", what.display()), error, remedy)
        };
        let (keys, segments) = (data.join("keys"), data.join("segments"));
        // The folder's own name too, where it is made here: everything durable in it hangs on that.
        let made_in = parents_of_missing(data);
        for (folder, mode) in [(data, 0o750), (&keys, 0o700), (&segments, 0o750)] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(folder)
                .map_err(|error| failed(folder, &error))?;
        }
        sys::sync_directory(data).map_err(|error| failed(data, &error))?;
        for parent in made_in {
            sys::sync_directory(&parent).map_err(|error| failed(&parent, &error))?;
        }
        let path = data.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Home {
                segments,
                data: data.to_owned(),
                keys,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StartError {
                message: format!("another engine is using {}", data.display()),
                remedy: "stop it, or give this one a data_dir of its own".to_owned(),
                configuration: false,
            }),
            Err(TryLockError::Error(error)) => Err(failed(&path, &error)),
        }
    }

    /// The store of erasure keys.
    pub fn keystore(&self) -> Keystore {
        Keystore::new(&self.keys)
    }

    /// Who else may use the folder: what is worth telling, or why it must not be used.
    pub fn look(&self) -> Result<Vec<String>, StartError> {
        let mut notes: Vec<String> = looked(Place::Data, &self.data)?.into_iter().collect();
        notes.extend(looked(Place::Keys, &self.keys)?);
        Ok(notes)
    }

    /// Reads the node's key, or makes it at the first start.
    pub fn node_key(&self) -> Result<NodeKey, StartError> {
        let path = self.keys.join("node.key");
        match path.try_exists() {
            Ok(false) => self.make_node_key(&path),
            _ => read_node_key(&path),
        }
    }

    fn make_node_key(&self, path: &Path) -> Result<NodeKey, StartError> {
        let mut seed = Zeroizing::new([0; 32]);
        os_random().fill_bytes(&mut seed[..]);
        let key = locked(&seed);
        let text = Zeroizing::new(hex(&seed[..]) + "\n");
        let made = self
            .write_new("node.pub", 0o640, (hex(&key.public().0) + "\n").as_bytes())
            .and_then(|()| self.write_new("node.key", 0o600, text.as_bytes()));
        made.map_err(|error| {
            StartError::io(
                format!("cannot write {}", path.display()),
                &error,
                "check data_dir",
            )
        })?;
        Ok(key)
    }

    /// Writes a file whole or not at all, durably.
    fn write_new(&self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let part = self.keys.join(format!("{name}.part"));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, self.keys.join(name))?;
        sys::sync_directory(&self.keys)
    }
}

/// What is worth telling of who may use `path`, or why it must not be relied on.
pub fn looked(place: Place, path: &Path) -> Result<Option<String>, StartError> {
    match folders::look(place, path) {
        Ok(Verdict::Fine) => Ok(None),
        // Of the configuration `check` tells more: a file that everybody may read is what an editor makes.
        Ok(Verdict::Loose(..)) if place == Place::Config => Ok(None),
        Ok(Verdict::Loose(what, remedy)) => Ok(Some(format!("{what}; `{remedy}`"))),
        Ok(Verdict::Open(what, remedy)) => Err(StartError {
            message: what,
            remedy: format!("`{remedy}`"),
            configuration: false,
        }),
        Err(error) => Err(StartError::io(
            format!("cannot look at {}", path.display()),
            &error,
            "",
        )),
    }
}

/// The key of the node whose data folder this is, for commands beside the engine.
pub fn node_key_of(data: &Path) -> Result<NodeKey, StartError> {
    read_node_key(&data.join("keys/node.key"))
}

fn read_node_key(path: &Path) -> Result<NodeKey, StartError> {
    let text = fs::read_to_string(path).map_err(|error| {
        let remedy = "the engine makes it when it first starts; it is for the engine's own user only";
        StartError::io(format!("cannot read {}", path.display()), &error, remedy)
    })?;
    let text = Zeroizing::new(text);
    let mode = fs::metadata(path)
        .map(|meta| meta.permissions().mode() & 0o777)
        .unwrap_or(0);
    if mode & 0o077 != 0 {
        return Err(StartError {
            message: format!("{} can be read by others (mode {mode:o})", path.display()),
            remedy: format!("chmod 600 {}", path.display()),
            configuration: false,
        });
    }
    let seed = parse_hex(text.trim()).ok_or_else(|| StartError {
        message: format!("{} is not a node key: 64 hex digits are expected", path.display()),
        remedy: "restore it from a backup; without it this node is a new node to everybody who verifies"
            .to_owned(),
        configuration: false,
    })?;
    Ok(locked(&seed))
}

/// The key, in memory for secrets.
fn locked(seed: &[u8; 32]) -> NodeKey {
    NodeKey::kept_by(seed, |make| Box::new(Locked::made_by(make)))
}

/// The folders that will have a new name in them once `folder` and its parents are made.
fn parents_of_missing(folder: &Path) -> Vec<PathBuf> {
    let named = |folder: &&Path| !folder.as_os_str().is_empty();
    folder
        .ancestors()
        .filter(named)
        .take_while(|folder| !folder.exists())
        .map(|missing| match missing.parent().filter(named) {
            Some(parent) => parent.to_owned(),
            None => PathBuf::from("."),
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_key_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let first = Home::open(folder.path()).unwrap_or_else(|e| panic!("{}", e.message));
        let key = first
            .node_key()
            .unwrap_or_else(|e| panic!("{}", e.message))
            .public();
        assert_eq!(
            first
                .node_key()
                .unwrap_or_else(|e| panic!("{}", e.message))
                .public(),
            key
        );
        let path = folder.path().join("keys/node.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(first.node_key().err().unwrap().remedy.contains("chmod 600"));
    }

    #[test]
    fn a_folder_that_is_made_is_made_durable_up_to_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (there, inner) = (folder.path().to_owned(), folder.path().join("a/b"));
        assert_eq!(parents_of_missing(&inner), [there.join("a"), there.clone()]);
        assert!(parents_of_missing(&there).is_empty());
        assert_eq!(
            parents_of_missing(Path::new("no-such-folder")),
            [PathBuf::from(".")]
        );
    }

    #[test]
    fn one_folder_has_one_engine() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Home::open(folder.path()).unwrap_or_else(|e| panic!("{}", e.message));
        assert!(
            Home::open(folder.path())
                .err()
                .unwrap()
                .message
                .contains("another engine")
        );
    }
}
