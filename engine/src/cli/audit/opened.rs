//! A log as a command finds it: its folder, its key, its checkpoint with the signature checked.

use std::path::{Path, PathBuf};

use crate::audit::disk::OsDisk;
use crate::audit::note::{Note, VerifierKey};
use crate::audit::read::{self, Reader};
use crate::audit::{AuditError, Entry};
use crate::cli::CliError;
use crate::cli::output::people;

/// A log that is its node's.
pub struct Opened {
    pub folder: PathBuf,
    pub key: VerifierKey,
    pub note: Note,
}

/// An entry, and where it is.
pub struct Placed {
    pub index: u64,
    pub bytes: Vec<u8>,
    /// `None`: of a later version than this program knows.
    pub entry: Option<Entry>,
}

impl Opened {
    /// Finds the log at `path`, and checks whose it is.
    pub fn open(path: &Path, key: Option<&str>) -> Result<Opened, CliError> {
        let folder = match path.join("audit/checkpoint").exists() {
            true => path.join("audit"),
            false => path.to_owned(),
        };
        let key = match key {
            Some(key) => parse_key(key)?,
            None => {
                let beside = folder.join("log.vkey");
                let key = read_key(&beside).map_err(|error| {
                    error.remedy("PATH is a node's data folder or its audit folder; give the key with --key")
                })?;
                people(format_args!(
                    "the key is taken from {}: compare it with the one you noted",
                    beside.display()
                ));
                key
            }
        };
        let at = folder.join("checkpoint");
        let note = read::checkpoint(&OsDisk, &at).map_err(cli_error)?;
        check_signed(&note, &key, &at)?;
        Ok(Opened { folder, key, note })
    }

    pub fn size(&self) -> u64 {
        self.note.checkpoint.size
    }

    pub fn reader(&self) -> Reader<'_, OsDisk> {
        Reader::new(&OsDisk, &self.folder, self.size())
    }

    /// Every entry that `wanted` takes, once all of the log was found to come to its root.
    pub fn entries(&self, mut wanted: impl FnMut(Option<&Entry>) -> bool) -> Result<Vec<Placed>, CliError> {
        let mut found = Vec::new();
        let mut each = |index, bytes: &[u8]| {
            let entry = Entry::parse(bytes).ok();
            if wanted(entry.as_ref()) {
                found.push(Placed {
                    index,
                    bytes: bytes.to_vec(),
                    entry,
                });
            }
        };
        self.reader()
            .all_entries(&self.note.checkpoint.root, &mut each)
            .map_err(cli_error)?;
        Ok(found)
    }
}

/// A key as text, or the file it is in.
pub fn parse_key(text: &str) -> Result<VerifierKey, CliError> {
    match VerifierKey::parse(text) {
        Ok(key) => Ok(key),
        Err(_) if Path::new(text).exists() => read_key(Path::new(text)),
        Err(error) => Err(CliError::usage(format_args!("--key {text}: {error}"))
            .remedy("give it as the node's log.vkey has it, or name that file")),
    }
}

fn read_key(path: &Path) -> Result<VerifierKey, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| CliError::file("read", path, &error))?;
    VerifierKey::parse(&text).map_err(|error| CliError::usage(format_args!("{}: {error}", path.display())))
}

/// A checkpoint that somebody kept.
pub fn read_note(path: &Path, key: &VerifierKey) -> Result<Note, CliError> {
    let note = read::checkpoint(&OsDisk, path).map_err(cli_error)?;
    check_signed(&note, key, path)?;
    Ok(note)
}

fn check_signed(note: &Note, key: &VerifierKey, path: &Path) -> Result<(), CliError> {
    match note.checkpoint.origin == key.name && note.signed_by(key).is_some() {
        true => Ok(()),
        false => Err(cli_error(AuditError::NotSigned {
            path: path.to_owned(),
            key: key.name.clone(),
        })),
    }
}

/// An I/O error, or a log that is not what it should be.
pub fn cli_error(error: AuditError) -> CliError {
    match error.is_io() {
        true => CliError::io(error),
        false => CliError::damage(error),
    }
}
