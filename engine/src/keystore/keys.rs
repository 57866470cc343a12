//! Key files, and the list of the keys that are gone.
//!
//! ```text
//! <owner>.<tag>   EK[32] ‖ EraseKey::check(day u32 ‖ owner)[32]      tag: the first 4 bytes of the key's id, hex
//! erased          a line of 32 hex digits for each key that was destroyed: its id
//! ```
//!
//! There is one key for each owner and day, until it is erased while the day lasts: then the next segment has a new one. The check
//! makes a torn or a mixed up file known; a key put back under its right name is known by its id among the erased ones.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use harborseal_segment::erase::EraseKey;
use harborseal_segment::ids::EraseKeyId;
use harborseal_segment::random::CryptoRng;
use zeroize::Zeroizing;

use super::{Day, Owner, StoreError, files};
use crate::uring::Locked;

const FILE_LEN: usize = 64;
/// 32 hex digits and a line feed.
const LINE_LEN: u64 = 33;

/// A key in its file.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// The UTC day that it is for.
    pub day: Day,
    /// Whose it is.
    pub owner: Owner,
    /// Tells it from others of the same owner and day.
    pub tag: u32,
    /// By which it is known when it is gone; `None` where the file does not hold a key.
    pub id: Option<EraseKeyId>,
}

impl KeyFile {
    /// The key.
    pub fn read(&self) -> Result<Locked<EraseKey>, StoreError> {
        let bytes = fs::read(&self.path).map_err(StoreError::io("read", &self.path))?;
        let bytes = Zeroizing::new(bytes);
        parse(&bytes, self.day, self.owner).ok_or_else(|| {
            StoreError::broken(&self.path, "it holds no whole erasure key of this day and owner")
        })
    }
}

fn place(day: Day, owner: Owner) -> [u8; 20] {
    let mut place = [0; 20];
    place[..4].copy_from_slice(&day.number().to_le_bytes());
    place[4..].copy_from_slice(&owner.0);
    place
}

fn parse(bytes: &[u8], day: Day, owner: Owner) -> Option<Locked<EraseKey>> {
    let (key, check) = bytes.split_first_chunk::<32>()?;
    let key = Locked::made_by(|| EraseKey::from_bytes(*key));
    (key.check(&place(day, owner)) == check).then_some(key)
}

fn tag_of(id: &EraseKeyId) -> u32 {
    u32::from_be_bytes(*id.0.first_chunk().expect("an id has 16 bytes"))
}

/// The key files in a day's folder by owner. No folder: no keys.
pub(super) fn list(folder: &Path, day: Day) -> Result<HashMap<Owner, Vec<KeyFile>>, StoreError> {
    let mut found: HashMap<Owner, Vec<KeyFile>> = HashMap::new();
    let entries = match fs::read_dir(folder) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(StoreError::io("read", folder))?,
    };
    for entry in entries {
        let path = entry.map_err(StoreError::io("read", folder))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some((owner, tag)) = name.split_once('.') else {
            continue;
        };
        let (Ok(owner), Ok(tag)) = (owner.parse::<Owner>(), u32::from_str_radix(tag, 16)) else {
            continue;
        };
        let mut file = KeyFile {
            path,
            day,
            owner,
            tag,
            id: None,
        };
        file.id = match file.read() {
            Ok(key) => Some(key.id()),
            Err(StoreError::Broken { .. }) => None,
            Err(error) => return Err(error),
        };
        found.entry(owner).or_default().push(file);
    }
    for files in found.values_mut() {
        files.sort_by_key(|file| file.tag);
    }
    Ok(found)
}

/// Draws a key and makes it durable.
pub(super) fn make(
    folder: &Path,
    day: Day,
    owner: Owner,
    mut rng: &mut dyn CryptoRng,
) -> Result<(Locked<EraseKey>, u32), StoreError> {
    files::make_private_folder(folder)?;
    let key = Locked::made_by(|| EraseKey::generate(&mut rng));
    let mut bytes = Zeroizing::new([0; FILE_LEN]);
    bytes[..32].copy_from_slice(key.as_bytes());
    bytes[32..].copy_from_slice(&key.check(&place(day, owner)));
    let tag = tag_of(&key.id());
    files::replace(&folder.join(format!("{owner}.{tag:08x}")), &bytes[..])?;
    Ok((key, tag))
}

/// Reads the ids of destroyed keys. A last line that a crash cut is none: nothing was destroyed by it yet.
pub(super) fn read_ids(path: &Path) -> Result<HashSet<EraseKeyId>, StoreError> {
    let text = match fs::read(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        text => text.map_err(StoreError::io("read", path))?,
    };
    let wrong = || {
        StoreError::broken(
            path,
            "it is no list of erased keys; restore it from the newest backup",
        )
    };
    let lines = text.chunks_exact(LINE_LEN as usize);
    lines
        .map(|line| {
            let digits = std::str::from_utf8(line)
                .ok()
                .and_then(|line| line.strip_suffix('\n'));
            digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)
        })
        .collect()
}

/// Adds ids to the list, durably, behind the last whole line.
pub(super) fn append_ids(path: &Path, ids: &[EraseKeyId]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let append = || {
        let new = !path.exists();
        let mut file = files::open_private(path)?;
        let whole = file.metadata()?.len() / LINE_LEN * LINE_LEN;
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        match path.parent().filter(|_| new) {
            Some(folder) => crate::uring::sys::sync_directory(folder),
            None => Ok(()),
        }
    };
    append().map_err(StoreError::io("write", path))
}
