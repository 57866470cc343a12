//! Under which salts the audit log names a customer: `salts/<owner>`, a line of 64 hex digits each.
//!
//! A customer's salt comes with its enrolment, and changes with its identity; one that has not enrolled has a salt of the store's. A receipt has to list
//! what was entered under any of them.

use std::fs;
use std::io;

use super::{Owner, Store, StoreError, files};
use crate::audit::Salt;

const FOLDER: &str = "salts";

impl Store {
    /// The salts that were noted for an owner.
    pub fn salts_of(&self, owner: Owner) -> Result<Vec<Salt>, StoreError> {
        let path = self.store.folder.join(FOLDER).join(owner.to_string());
        let text = match fs::read_to_string(&path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.map_err(StoreError::io("read", &path))?,
        };
        let wrong = || StoreError::broken(&path, "it is no list of salts; restore it from a backup");
        text.lines().map(|line| parse(line).ok_or_else(wrong)).collect()
    }

    /// Notes durably that a salt is an owner's, before anything is entered under it.
    pub fn note_salt(&self, owner: Owner, salt: &Salt) -> Result<(), StoreError> {
        let mut salts = self.salts_of(owner)?;
        if salts.contains(salt) {
            return Ok(());
        }
        salts.push(*salt);
        let folder = self.store.folder.join(FOLDER);
        files::make_private_folder(&folder)?;
        let lines = salts
            .iter()
            .map(|salt| format!("{}\n", crate::statement::hex(salt)));
        files::replace(
            &folder.join(owner.to_string()),
            lines.collect::<String>().as_bytes(),
        )
    }
}

fn parse(line: &str) -> Option<Salt> {
    let mut salt = [0; 32];
    let digits = line.as_bytes();
    if digits.len() != 2 * salt.len() {
        return None;
    }
    for (byte, pair) in salt.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(salt)
}
