//! Legal holds: while one stands, its customer's footage is neither erased nor deleted by retention.
//!
//! A hold is a small file, `holds/<owner>`, its first line the second since 1970 from which it stands, the rest the reason. It
//! outlives restarts and changes of the configuration, until it is lifted.

use std::fs;
use std::io;

use super::{Keystore, Owner, Store, StoreError, files};

const FOLDER: &str = "holds";

/// A hold in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Whose footage stays.
    pub owner: Owner,
    /// Since when, in seconds since 1970.
    pub since_s: u64,
    /// Why, in the words of whoever set it.
    pub reason: String,
}

impl Keystore {
    /// All holds in force. One that cannot be read is an error, and no permission to delete.
    pub fn holds(&self) -> Result<Vec<Hold>, StoreError> {
        let folder = self.folder.join(FOLDER);
        let entries = match fs::read_dir(&folder) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(StoreError::io("read", &folder))?,
        };
        let mut holds = Vec::new();
        for entry in entries {
            let path = entry.map_err(StoreError::io("read", &folder))?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let Ok(owner) = name.parse::<Owner>() else {
                continue;
            };
            let text = match fs::read_to_string(&path) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue, // lifted meanwhile
                text => text.map_err(StoreError::io("read", &path))?,
            };
            let (since, reason) = text.split_once('\n').unwrap_or((&text, ""));
            let since_s = since.parse();
            holds.push(Hold {
                owner,
                since_s: since_s.map_err(|_| StoreError::broken(&path, "it is no legal hold"))?,
                reason: reason.trim_end().to_owned(),
            });
        }
        holds.sort_by_key(|hold| hold.since_s);
        Ok(holds)
    }
}

impl Store {
    /// The hold on an owner's footage.
    pub fn hold_of(&self, owner: Owner) -> Result<Option<Hold>, StoreError> {
        let holds = self.store.holds()?;
        Ok(holds.into_iter().find(|hold| hold.owner == owner))
    }

    /// Sets a hold, in the place of one that stands.
    pub fn set_hold(&mut self, hold: &Hold) -> Result<(), StoreError> {
        let folder = self.store.folder.join(FOLDER);
        files::make_private_folder(&folder)?;
        let text = format!("{}\n{}\n", hold.since_s, hold.reason);
        files::replace(&folder.join(hold.owner.to_string()), text.as_bytes())?;
        self.count_change()
    }

    /// Lifts a hold.
    pub fn lift_hold(&mut self, owner: Owner) -> Result<(), StoreError> {
        let folder = self.store.folder.join(FOLDER);
        let path = folder.join(owner.to_string());
        fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        files::sync_folder(&folder)?;
        self.count_change()
    }
}
