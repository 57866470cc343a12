//! The node's key store: EK, one for each customer with `erasable = true` and UTC day, and what is needed to destroy it for good.
//!
//! ```text
//!   DATA/keys/erase/                        0700
//!     lock                                  held by whoever changes the store or reads keys: engine and command line share it
//!     state                                 salt, and the counters that a running engine watches (state)
//!     <yyyymmdd>/<owner>.<tag>              EK, 32 bytes, and a check that binds it to its place
//!     <yyyymmdd>/slots                      which slot of which segment is whose (slots): no segment says so
//!     pending/<owner>                       an erasure that was logged and is not finished
//!     holds/<owner>                         a legal hold
//!     salts/<owner>                         by which the audit log names that customer
//!   DATA/keys/erased                        the ids of all keys that were ever destroyed; outlives the store
//! ```
//!
//! Invariants:
//! - a key is durable before a segment is sealed with it, and so is the note of the slots it is for;
//! - a key whose id is among the erased ones is never used again, whoever put it back: sealing takes a new one, releasing refuses;
//! - destroying is: id durable among the erased, file overwritten, synced, unlinked, folder synced, generation counted up. Done again
//!   after a crash it comes to the same;
//! - no name of a customer is in it: an owner is HMAC-SHA256(salt, name).
//!
//! Backups (docs/OPERATING.md): footage is as lasting as the longest kept copy of its key. So no backup of this folder may be kept
//! longer than footage may outlive its erasure, and best there is none.

mod days;
mod files;
pub mod holds;
mod keys;
pub mod pending;
mod salts;
mod slots;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harborseal_segment::erase::EraseKey;
use harborseal_segment::ids::EraseKeyId;
use harborseal_segment::random::CryptoRng;

pub use days::Day;
pub use keys::KeyFile;
pub use slots::{NewSegment, Place};
pub use state::{Owner, State};

use crate::uring::Locked;

/// How long somebody waits for the store: whoever holds it does so for a second or two at the most.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {doing} {}: {}", path.display(), crate::text::Plain(why))]
    Io {
        /// A verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
}

impl StoreError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |why| StoreError::Io { doing, path, why }
    }

    fn broken(path: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Broken {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

impl From<StoreError> for io::Error {
    /// Keeps the kind, by which a full disk is told from a failing one.
    fn from(error: StoreError) -> io::Error {
        let kind = match &error {
            StoreError::Io { why, .. } => why.kind(),
            StoreError::Broken { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// Where a store is. Nothing is opened, and nothing made, before it is used.
#[derive(Clone, Debug)]
pub struct Keystore {
    folder: PathBuf,
    erased: PathBuf,
}

/// The keys of the day for one segment.
pub struct Drawn {
    /// EK of each customer, in the order asked for; `None` for those that are not erasable.
    pub keys: Vec<Option<Locked<EraseKey>>>,
    /// What a person should read: a stale copy that came back, a key that is broken.
    pub troubles: Vec<String>,
    owners: Vec<Option<(Owner, u32)>>,
    day: Day,
    generation: u64,
}

impl Keystore {
    /// The store below `keys`, which is `DATA/keys`.
    pub fn new(keys: &Path) -> Keystore {
        Keystore {
            folder: keys.join("erase"),
            erased: keys.join("erased"),
        }
    }

    /// Whether anything was ever kept here.
    pub fn exists(&self) -> bool {
        self.state_path().exists()
    }

    /// What a running engine watches, without the lock: the file is replaced whole. `None` while there is no store.
    pub fn look(&self) -> Result<Option<State>, StoreError> {
        let path = self.state_path();
        match fs::read_to_string(&path) {
            Ok(text) => State::parse(&text)
                .map(Some)
                .map_err(|what| StoreError::broken(&path, what)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(StoreError::io("read", &path)(why)),
        }
    }

    /// Takes the store for oneself, and makes it if there is none.
    pub fn lock(&self) -> Result<Store, StoreError> {
        files::make_private_folder(&self.folder)?;
        let path = self.folder.join("lock");
        let lock = files::open_private(&path).map_err(StoreError::io("open", &path))?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let what = "another process has held the key store for too long: see who with `fuser`";
                    return Err(StoreError::broken(&path, what));
                }
                Err(TryLockError::Error(why)) => return Err(StoreError::io("lock", &path)(why)),
            }
        }
        Store::load(self.clone(), lock)
    }

    /// EK of the day of `created_s` for each of `customers` by name, made where there is none.
    pub fn draw(
        &self,
        created_s: u64,
        customers: &[Option<&str>],
        rng: &mut dyn CryptoRng,
    ) -> Result<Drawn, StoreError> {
        let locked = self.lock()?;
        let day = Day::of(created_s);
        let mut drawn = Drawn {
            keys: Vec::with_capacity(customers.len()),
            troubles: Vec::new(),
            owners: Vec::with_capacity(customers.len()),
            day,
            generation: locked.state.generation,
        };
        let mut of_day = locked.files_of(day)?;
        for name in customers {
            let Some(name) = name else {
                drawn.keys.push(None);
                drawn.owners.push(None);
                continue;
            };
            let owner = locked.state.owner(name);
            let there = of_day.remove(&owner).unwrap_or_default();
            let (key, tag) = locked.usable_or_new(day, owner, &there, rng, &mut drawn.troubles)?;
            drawn.keys.push(Some(key));
            drawn.owners.push(Some((owner, tag)));
        }
        Ok(drawn)
    }

    /// Notes durably which slots of a new segment the drawn keys are for. False if something was erased since they were drawn: they
    /// may be gone, and have to be drawn again.
    pub fn note(
        &self,
        drawn: &Drawn,
        segment: &NewSegment,
        slots: impl Iterator<Item = u32>,
    ) -> Result<bool, StoreError> {
        let locked = self.lock()?;
        if locked.state.generation != drawn.generation {
            return Ok(false);
        }
        let owners = drawn.owners.iter().zip(slots);
        let rows = owners.filter_map(|(owner, slot)| owner.map(|(owner, tag)| (owner, tag, slot)));
        let frame = slots::encode(segment, &rows.collect::<Vec<_>>());
        slots::append(&self.day_folder(drawn.day).join(slots::NAME), &frame)?;
        Ok(true)
    }

    fn state_path(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn day_folder(&self, day: Day) -> PathBuf {
        self.folder.join(day.folder_name())
    }
}

/// The store, while nobody else changes it.
pub struct Store {
    store: Keystore,
    /// Its counters.
    state: State,
    erased: HashSet<EraseKeyId>,
    _lock: File,
}

impl Store {
    fn load(store: Keystore, lock: File) -> Result<Store, StoreError> {
        let state = match store.look()? {
            Some(state) => state,
            None => {
                let state = State::new();
                files::replace(&store.state_path(), state.to_text().as_bytes())?;
                state
            }
        };
        let erased = keys::read_ids(&store.erased)?;
        Ok(Store {
            store,
            state,
            erased,
            _lock: lock,
        })
    }

    /// The store's counters.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The owner that stands for a customer's name here.
    pub fn owner(&self, name: &str) -> Owner {
        self.state.owner(name)
    }

    /// The days that the store knows, the oldest first.
    pub fn days(&self) -> Result<Vec<Day>, StoreError> {
        let folder = &self.store.folder;
        let mut days = Vec::new();
        for entry in fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
            let name = entry.map_err(StoreError::io("read", folder))?.file_name();
            days.extend(name.to_str().and_then(Day::of_folder));
        }
        days.sort();
        Ok(days)
    }

    /// Every key file of an owner, also such as must not be used, the oldest first.
    pub fn keys_of(&self, owner: Owner) -> Result<Vec<KeyFile>, StoreError> {
        let mut keys = Vec::new();
        for day in self.days()? {
            keys.extend(self.files_of(day)?.remove(&owner).unwrap_or_default());
        }
        Ok(keys)
    }

    /// Which slots are an owner's in the segments of one day.
    pub fn places_of(&self, owner: Owner, day: Day) -> Result<Vec<Place>, StoreError> {
        slots::read(&self.store.day_folder(day).join(slots::NAME), owner)
    }

    /// Whether a key of this id was destroyed, by what this store or the log remembers.
    pub fn was_erased(&self, id: &EraseKeyId) -> bool {
        self.erased.contains(id)
    }

    /// Takes note of keys that the log says were destroyed, should a stale copy of the store have come back. Returns how many were
    /// not known here.
    pub fn learn_erased(&mut self, ids: &[EraseKeyId]) -> Result<usize, StoreError> {
        let unknown: Vec<EraseKeyId> = ids
            .iter()
            .filter(|id| !self.erased.contains(*id))
            .copied()
            .collect();
        if !unknown.is_empty() {
            keys::append_ids(&self.store.erased, &unknown)?;
            self.erased.extend(&unknown);
            self.count(|state| state.generation += 1)?;
        }
        Ok(unknown.len())
    }

    /// Destroys keys, for good. When this returns, no way is left to them from here.
    pub fn destroy(&mut self, keys: &[KeyFile]) -> Result<(), StoreError> {
        let ids: Vec<EraseKeyId> = keys.iter().filter_map(|key| key.id).collect();
        let new: Vec<EraseKeyId> = ids.into_iter().filter(|id| !self.erased.contains(id)).collect();
        keys::append_ids(&self.store.erased, &new)?;
        self.erased.extend(&new);
        for key in keys {
            files::destroy(&key.path)?;
        }
        let mut folders: Vec<PathBuf> = keys.iter().map(|key| self.store.day_folder(key.day)).collect();
        folders.dedup();
        for folder in folders {
            // What a crash left of a key that was being made.
            files::destroy(&folder.join(files::PART))?;
            files::sync_folder(&folder)?;
        }
        self.count(|state| state.generation += 1)
    }

    /// Forgets the slots of an owner's destroyed keys, when their space was given back; a day of which nothing is left goes whole.
    pub fn forget(&mut self, owner: Owner, day: Day, tags: &[u32]) -> Result<(), StoreError> {
        let folder = self.store.day_folder(day);
        slots::forget(&folder.join(slots::NAME), owner, tags)?;
        if self.files_of(day)?.is_empty() && slots::is_empty(&folder.join(slots::NAME))? {
            match fs::remove_dir_all(&folder) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => {} // before a crash
                removed => removed.map_err(StoreError::io("remove", &folder))?,
            }
            files::sync_folder(&self.store.folder)?;
        }
        Ok(())
    }

    /// Tells a running engine to look at its catalog anew: segments were deleted or lost a part of their size, or a hold changed.
    pub fn count_change(&mut self) -> Result<(), StoreError> {
        self.count(|state| state.changes += 1)
    }

    /// Remembers up to which entry the log was read for erased keys.
    pub fn count_logged(&mut self, entries: u64) -> Result<(), StoreError> {
        self.count(|state| state.logged = entries)
    }

    fn count(&mut self, change: impl FnOnce(&mut State)) -> Result<(), StoreError> {
        change(&mut self.state);
        files::replace(&self.store.state_path(), self.state.to_text().as_bytes())
    }

    /// The key files of a day by owner.
    fn files_of(&self, day: Day) -> Result<HashMap<Owner, Vec<KeyFile>>, StoreError> {
        keys::list(&self.store.day_folder(day), day)
    }

    /// The one key of a day and owner that may be used, or a new one.
    fn usable_or_new(
        &self,
        day: Day,
        owner: Owner,
        there: &[KeyFile],
        rng: &mut dyn CryptoRng,
        troubles: &mut Vec<String>,
    ) -> Result<(Locked<EraseKey>, u32), StoreError> {
        for file in there {
            let shown = file.path.display();
            match file.read() {
                Ok(key) if !self.erased.contains(&key.id()) => return Ok((key, file.tag)),
                Ok(_) => troubles.push(format!(
                    "{shown}: this erasure key was destroyed, and somebody put a stale copy back; it is not used. \
                     `harborseal erase` destroys it again"
                )),
                Err(StoreError::Broken { what, .. }) => {
                    troubles.push(format!("{shown}: {what}; a new key is used from here on"));
                }
                Err(error) => return Err(error),
            }
        }
        keys::make(&self.store.day_folder(day), day, owner, rng)
    }
}
