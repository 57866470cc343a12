//! What an engine takes of the machine while it still may: sockets, another user, its folder. After that it confines itself
//! (`crate::process`), and only then threads start.

use std::fs::File;
use std::io::Read;

use sha2::{Digest, Sha256};

use super::StartError;
use super::home::{Home, looked};
use super::sockets::{Bound, bind};
use crate::config::Config;
use crate::process::user::become_user;
use crate::process::{self, folders};
use crate::uring::secret;

/// What an engine needs of the world outside its folder, taken while it may still take it: before it confines itself.
pub struct Opened {
    pub(super) home: Home,
    pub(super) sockets: Bound,
    pub(super) notes: Vec<String>,
    /// SHA-256 of the program, whose file is out of reach afterwards.
    pub(super) program: [u8; 32],
}

/// Binds the sockets, becomes the user it is to run as, and opens the data folder. Starts no thread.
pub fn open(config: &Config) -> Result<Opened, StartError> {
    let settings = &config.settings;
    let shards = settings.shards.cpus.len();
    let mut notes = Vec::new();
    let program = program_digest()?;
    // What is made in the folder must be that user's. Without one, a folder in use is told before an address in use.
    let (home, sockets) = match &settings.process.user {
        None => {
            let home = Home::open(&config.data_dir)?;
            (home, bind(config, shards, &mut notes)?)
        }
        Some(user) => {
            let sockets = bind(config, shards, &mut notes)?;
            become_user(user).map_err(|error| StartError {
                message: error.message,
                remedy: error.remedy,
                configuration: true,
            })?;
            (Home::open(&config.data_dir)?, sockets)
        }
    };
    notes.extend(home.look()?);
    notes.extend(looked(folders::Place::Config, &config.path)?);
    Ok(Opened {
        home,
        sockets,
        notes,
        program,
    })
}

/// SHA-256 of the program that runs.
fn program_digest() -> Result<[u8; 32], StartError> {
    let failed = |error| StartError::io("cannot read this program's own file", &error, "is /proc mounted?");
    let mut file = File::open("/proc/self/exe").map_err(failed)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).map_err(failed)? {
            0 => return Ok(hash.finalize().into()),
            len => hash.update(&piece[..len]),
        }
    }
}

/// Whether keys have memory of their own: what is worth telling, or why it must not start without.
pub(super) fn memory_for_keys(allow_unlocked: bool) -> Result<Option<String>, StartError> {
    let keys = process::secrets();
    if keys.in_force {
        return Ok(None);
    }
    let message = format!("{}: {}", keys.name, keys.detail);
    if secret::report().unlocked_bytes > 0 && !allow_unlocked {
        return Err(StartError {
            message,
            remedy: keys.remedy,
            configuration: true,
        });
    }
    Ok(Some(format!("{message}; {}", keys.remedy)))
}
