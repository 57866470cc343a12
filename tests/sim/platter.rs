//! The simulated file system on its simulated disk: what a running machine sees, and what a crash leaves of it.
//!
//! A write is cut into 4 KiB sectors. Until an fsync that was submitted after it completed has returned, each of them may be there after a
//! crash, or not, or half, in any order. The length of a file and its name have to be synced likewise. With a failed fsync the
//! sectors it should have covered may be lost for good, while every later fsync succeeds (fsyncgate).
//!
//! Invariant: `durable` is what no crash can take away. The engine may call durable only what is in it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use harborseal_segment::source::Source;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::tally::{Fired, Tally};

/// What a disk writes at once, in bytes.
pub const SECTOR: usize = 4096;
/// What it may tear a sector into, in bytes.
const TORN: usize = 512;

/// Names a file for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

/// A write on its way: the sectors it is made of.
#[derive(Clone, Copy, Debug)]
pub struct WriteId {
    file: FileId,
    offset: u64,
    /// Serials of its sectors: from the first to the one after the last.
    first: u64,
    last: u64,
}

/// An fsync on its way: what it will make durable.
#[derive(Clone, Debug)]
pub struct SyncId {
    file: FileId,
    covers: Vec<u64>,
    len: u64,
    cut: u64,
}

/// One sector's worth of a write, or less where a write is not aligned.
struct Unsynced {
    serial: u64,
    offset: u64,
    bytes: Vec<u8>,
    /// Its write completed.
    landed: bool,
}

/// One file.
pub struct SimFile {
    /// Its name.
    pub path: PathBuf,
    /// Its content as a process reads it; zeros follow up to `len`.
    pub image: Vec<u8>,
    /// Its length.
    pub len: u64,
    /// Everything below is promised to be durable.
    pub watermark: u64,
    /// The segment was handed to a shard: from then on no crash may take it.
    pub in_use: bool,
    durable: Vec<u8>,
    durable_len: u64,
    /// The shortest it has been since it was last synced: nothing durable beyond that outlives the next fsync.
    cut: u64,
    name_durable: bool,
    removed: bool,
    /// The deletion is durable.
    gone: bool,
    unsynced: Vec<Unsynced>,
}

/// All files of the machine.
pub struct Platter {
    files: BTreeMap<FileId, SimFile>,
    /// Folders, and whether their names are durable.
    folders: BTreeMap<PathBuf, bool>,
    next_file: u32,
    next_serial: u64,
    rng: StdRng,
    tally: Tally,
}

impl Platter {
    /// An empty disk.
    pub fn new(seed: u64, tally: Tally) -> Self {
        Platter {
            files: BTreeMap::new(),
            folders: BTreeMap::new(),
            next_file: 0,
            next_serial: 0,
            rng: StdRng::seed_from_u64(seed),
            tally,
        }
    }

    /// A file that is open or was.
    pub fn file(&self, id: FileId) -> &SimFile {
        &self.files[&id]
    }

    /// A file that is open or was.
    pub fn file_mut(&mut self, id: FileId) -> &mut SimFile {
        self.files
            .get_mut(&id)
            .expect("files stay known when they are deleted")
    }

    /// The files there are, in order of creation.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &SimFile)> {
        self.files
            .iter()
            .filter(|(_, file)| !file.removed)
            .map(|(id, file)| (*id, file))
    }

    /// Finds a file by name.
    pub fn find(&self, path: &Path) -> Option<FileId> {
        self.files().find(|(_, file)| file.path == path).map(|(id, _)| id)
    }

    /// The length of a file, which may not be there yet, and of all together.
    pub fn used(&self, id: FileId) -> (u64, u64) {
        let len = self.files.get(&id).map_or(0, |file| file.len);
        (len, self.files().map(|(_, file)| file.len).sum())
    }

    // ---- Names and lengths ----------------------------------------------------------------------------------

    /// Creates a folder, unless it is there.
    pub fn create_folder(&mut self, folder: &Path) {
        self.folders.entry(folder.to_owned()).or_insert(false);
    }

    /// Makes the names in `folder` durable.
    pub fn sync_folder(&mut self, folder: &Path) {
        let inside = |path: &Path| path.parent() == Some(folder);
        self.folders
            .iter_mut()
            .filter(|(path, _)| inside(path))
            .for_each(|(_, durable)| *durable = true);
        for file in self.files.values_mut().filter(|file| inside(&file.path)) {
            file.name_durable = true;
            file.gone = file.removed;
        }
    }

    /// The name that a file will get, before it is there.
    pub fn reserve(&mut self) -> FileId {
        self.next_file += 1;
        FileId(self.next_file)
    }

    /// Creates an empty file.
    pub fn create(&mut self, id: FileId, path: &Path) {
        let file = SimFile {
            path: path.to_owned(),
            image: Vec::new(),
            len: 0,
            watermark: 0,
            in_use: false,
            durable: Vec::new(),
            durable_len: 0,
            cut: 0,
            name_durable: false,
            removed: false,
            gone: false,
            unsynced: Vec::new(),
        };
        self.files.insert(id, file);
    }

    /// Gives a file its length: longer, as fallocate does, or shorter.
    pub fn set_len(&mut self, id: FileId, len: u64) {
        let file = self.file_mut(id);
        if len < file.len {
            file.cut = file.cut.min(len);
            file.image.truncate(len as usize);
            // A write to what is cut off is undone with the cut, or survives with the old length.
            file.unsynced
                .iter_mut()
                .filter(|sector| sector.offset >= len)
                .for_each(|sector| sector.landed = false);
        }
        file.len = len;
    }

    /// Deletes a file.
    pub fn remove(&mut self, id: FileId) {
        self.file_mut(id).removed = true;
    }

    // ---- Writing and syncing --------------------------------------------------------------------------------

    /// A write is submitted. Nobody reads its bytes yet, but from now on a crash may leave them.
    pub fn begin_write(&mut self, id: FileId, offset: u64, bytes: &[u8]) -> WriteId {
        let first = self.next_serial;
        let mut rest = bytes;
        let mut place = offset;
        while !rest.is_empty() {
            let len = (SECTOR - place as usize % SECTOR).min(rest.len());
            let serial = self.next_serial;
            self.next_serial += 1;
            self.file_mut(id).unsynced.push(Unsynced {
                serial,
                offset: place,
                bytes: rest[..len].to_vec(),
                landed: false,
            });
            rest = &rest[len..];
            place += len as u64;
        }
        WriteId {
            file: id,
            offset,
            first,
            last: self.next_serial,
        }
    }

    /// The first `done` bytes of a write completed. Of its other sectors each was written all the same, or not at all.
    pub fn land(&mut self, write: WriteId, done: usize) {
        let upto = write.offset + done as u64;
        let mut rng = StdRng::seed_from_u64(self.rng.random());
        let SimFile {
            unsynced, image, len, ..
        } = self.file_mut(write.file);
        let from = unsynced.partition_point(|sector| sector.serial < write.first);
        let of_write = unsynced[from..]
            .iter_mut()
            .take_while(|sector| sector.serial < write.last);
        for sector in of_write {
            if sector.offset < upto {
                // The sector that the write stopped in is cut there; its rest is left to the next attempt.
                sector.bytes.truncate((upto - sector.offset) as usize);
            } else if rng.random_bool(0.5) {
                sector.bytes.clear();
            }
            sector.landed = true;
            put(image, sector.offset, &sector.bytes);
            *len = (sector.offset + sector.bytes.len() as u64).max(*len);
        }
    }

    /// An fsync is submitted: it will cover what has completed by now.
    pub fn begin_sync(&self, id: FileId) -> SyncId {
        let file = self.file(id);
        let covered = file.unsynced.iter().filter(|sector| sector.landed);
        SyncId {
            file: id,
            covers: covered.map(|sector| sector.serial).collect(),
            len: file.len,
            cut: file.cut,
        }
    }

    /// An fsync returned without error.
    pub fn end_sync(&mut self, sync: &SyncId) {
        let file = self.file_mut(sync.file);
        let covered = |serial: u64| sync.covers.binary_search(&serial).is_ok();
        file.durable.truncate(sync.cut as usize);
        file.unsynced
            .retain(|sector| sector.landed || sector.offset < sync.cut);
        for sector in file.unsynced.iter().filter(|sector| covered(sector.serial)) {
            put(&mut file.durable, sector.offset, &sector.bytes);
        }
        file.unsynced.retain(|sector| !covered(sector.serial));
        file.durable_len = sync.len;
        file.cut = file.len;
    }

    /// An fsync failed: some of what it should have covered is gone, and no fsync will ever say so.
    pub fn fail_sync(&mut self, sync: &SyncId) {
        let mut rng = StdRng::seed_from_u64(self.rng.random());
        let SimFile {
            unsynced,
            image,
            durable,
            ..
        } = self.file_mut(sync.file);
        for sector in unsynced.iter_mut() {
            if sync.covers.binary_search(&sector.serial).is_ok() && rng.random_bool(0.5) {
                let old = durable.get(sector.offset as usize..).unwrap_or_default();
                let mut before = vec![0; sector.bytes.len()];
                let known = old.len().min(before.len());
                before[..known].copy_from_slice(&old[..known]);
                put(image, sector.offset, &before);
                sector.bytes.clear();
            }
        }
    }

    /// Whether everything below `offset` is durable, and the same that a process reads there.
    pub fn is_durable(&self, id: FileId, offset: u64) -> bool {
        let file = self.file(id);
        let end = offset as usize;
        file.durable_len >= offset
            && file.durable.len() >= end
            && file.image.len() >= end
            && file.durable[..end] == file.image[..end]
    }

    /// Changes one bit of what is durable below `offset`.
    pub fn flip_bit(&mut self, id: FileId, offset: u64) {
        let at = self.rng.random_range(0..offset) as usize;
        let file = self.file_mut(id);
        file.durable[at] ^= 0x10;
        file.image[at] ^= 0x10;
    }

    // ---- Crashing -------------------------------------------------------------------------------------------

    /// The machine loses power. What is left is durable: it has survived.
    pub fn crash(&mut self) {
        let mut rng = StdRng::seed_from_u64(self.rng.random());
        // Some disks have written nearly all of their cache when power fails, some nearly nothing.
        let survival = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        let torn = if rng.random_bool(0.5) { 0.1 } else { 0.0 };
        let folders = std::mem::take(&mut self.folders);
        let lost: Vec<PathBuf> = folders
            .iter()
            .filter(|(_, durable)| !**durable && rng.random_bool(0.5))
            .map(|(path, _)| path.clone())
            .collect();
        self.folders = folders
            .into_keys()
            .filter(|path| !lost.contains(path))
            .map(|path| (path, true))
            .collect();
        let tally = self.tally.clone();
        for file in self.files.values_mut() {
            let folder_lost = file
                .path
                .parent()
                .is_some_and(|folder| lost.iter().any(|path| path == folder));
            let name_lost = !file.name_durable && rng.random_bool(0.5);
            if !file.removed && (folder_lost || name_lost) {
                file.removed = true;
                tally.fire(Fired::NameLost);
            } else if file.removed && file.name_durable && rng.random_bool(0.3) {
                file.removed = file.gone; // the deletion was not synced
            }
            file.crash(&mut rng, survival, torn, &tally);
        }
    }
}

impl SimFile {
    fn crash(&mut self, rng: &mut StdRng, survival: f64, torn: f64, tally: &Tally) {
        let mut sectors = std::mem::take(&mut self.unsynced);
        if rng.random() {
            self.durable.truncate(self.cut as usize);
            sectors.retain(|sector| sector.landed || sector.offset < self.cut);
        }
        sectors.shuffle(rng);
        for sector in sectors {
            if rng.random_bool(torn) {
                for (part, bytes) in sector.bytes.chunks(TORN).enumerate() {
                    if rng.random_bool(0.5) {
                        put(&mut self.durable, sector.offset + (part * TORN) as u64, bytes);
                    }
                }
                tally.fire(Fired::SectorTorn);
            } else if rng.random_bool(survival) {
                put(&mut self.durable, sector.offset, &sector.bytes);
                tally.fire(Fired::SectorKept);
            } else {
                tally.fire(Fired::SectorLost);
            }
        }
        if self.len != self.durable_len {
            let between = self.durable_len.min(self.len)..=self.durable_len.max(self.len);
            self.durable_len = match rng.random_range(0..3) {
                0 => self.durable_len,
                1 => self.len,
                _ => rng.random_range(between) / SECTOR as u64 * SECTOR as u64,
            };
            tally.add(Fired::LengthLost, u64::from(self.durable_len < self.len));
        }
        self.durable.truncate(self.durable_len as usize);
        self.len = self.durable_len;
        self.cut = self.len;
        self.image.clone_from(&self.durable);
        self.name_durable = !self.removed;
    }

    /// Its content for a reader.
    pub fn source(&self) -> Content<'_> {
        Content {
            bytes: &self.image,
            len: self.len,
        }
    }
}

/// A file's bytes, with zeros behind them.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    bytes: &'a [u8],
    len: u64,
}

impl Source for Content<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset + buf.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let there = self.bytes.get(offset as usize..).unwrap_or_default();
        let there = &there[..there.len().min(buf.len())];
        buf[..there.len()].copy_from_slice(there);
        buf[there.len()..].fill(0);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> u64 {
        if offset < self.bytes.len() as u64 {
            offset
        } else {
            self.len
        }
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, end) = (offset as usize, offset as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[from..end].copy_from_slice(bytes);
}
