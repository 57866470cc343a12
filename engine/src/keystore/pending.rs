//! An erasure that has begun: what a crash must not let anybody forget.
//!
//! Written before the log hears of it, and removed when keys and space are gone. In between, running the command again finishes it, with
//! the receipt that was logged.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Owner, Store, StoreError, files};

const FOLDER: &str = "pending";

/// An erasure under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The signed receipt, whose hash the log has.
    pub receipt: String,
    /// Its entry in the log, once that is durable.
    pub entry: Option<u64>,
    /// The keys: number of the day, and tag.
    pub keys: Vec<(u32, u32)>,
}

impl Store {
    /// What was begun for an owner and not finished.
    pub fn pending(&self, owner: Owner) -> Result<Option<Pending>, StoreError> {
        let path = self.pending_path(owner);
        let text = match fs::read(&path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(StoreError::io("read", &path))?,
        };
        let pending = serde_json::from_slice(&text);
        pending.map(Some).map_err(|error| {
            StoreError::broken(
                &path,
                format!("it is no erasure under way ({error}); remove it and erase again"),
            )
        })
    }

    /// Notes durably what is about to be done.
    pub fn set_pending(&self, owner: Owner, pending: &Pending) -> Result<(), StoreError> {
        files::make_private_folder(&self.store.folder.join(FOLDER))?;
        let text = serde_json::to_vec(pending).expect("strings and numbers can be serialised");
        files::replace(&self.pending_path(owner), &text)
    }

    /// It is finished, or did not begin.
    pub fn clear_pending(&self, owner: Owner) -> Result<(), StoreError> {
        let path = self.pending_path(owner);
        match fs::remove_file(&path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(StoreError::io("remove", &path))?,
        }
        files::sync_folder(&self.store.folder.join(FOLDER))
    }

    fn pending_path(&self, owner: Owner) -> PathBuf {
        self.store.folder.join(FOLDER).join(owner.to_string())
    }
}
