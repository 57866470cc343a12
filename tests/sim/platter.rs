//! The simulated file system on its simulated disk: what a running machine sees, and what a crash leaves of it.
//!
//! A write is cut into 4 KiB sectors. Until an fsync that was submitted after it completed has returned, each of them may be there after a
//! crash, or not, or half, in any order. What says where they are persists apart from them: the extents of a file, its length, its name,
//! the deletion of its name, the name of its folder. With a failed fsync the sectors it should have covered may be lost for good, while
//! every later fsync succeeds (fsyncgate); with one that lies nothing has happened at all.
//!
//! Invariant: `durable` is what no crash can take away. The engine may call durable only what is in it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use harborseal_segment::block::{BLOCK_ALIGN, BlockType, HEADER_LEN, Header};
use harborseal_segment::ids::SegmentId;
use harborseal_segment::source::Source;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
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
    /// How long it makes the file.
    len: u64,
    cut: u64,
}

/// What an fsync has to see to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// fdatasync: the data, and of the length what is needed to reach it.
    Data,
    /// fsync: the length too.
    All,
}

/// One sector's worth of a write, or less where a write is not aligned.
struct Unsynced {
    serial: u64,
    offset: u64,
    /// The write's bytes, and which of them are its own.
    write: Rc<[u8]>,
    from: usize,
    upto: usize,
    /// Its write completed.
    landed: bool,
}

impl Unsynced {
    fn bytes(&self) -> &[u8] {
        &self.write[self.from..self.upto]
    }
}

/// A block that was written at some place of a file.
#[derive(Clone, Copy, Debug)]
pub struct WrittenBlock {
    /// Its header.
    pub header: Header,
}

/// One file.
pub struct SimFile {
    /// Its name.
    pub path: PathBuf,
    /// Its content as a process reads it; zeros follow up to `len`. What lies beyond shows when the file grows without having been cut.
    pub image: Vec<u8>,
    /// Its length.
    pub len: u64,
    /// Everything below is promised to be durable.
    pub watermark: u64,
    /// The segment was handed to a shard: from then on no crash may take it.
    pub in_use: bool,
    /// An fsync of it lied: nothing is promised any more.
    pub lied: bool,
    /// When it was last changed, in seconds since 1970.
    pub modified_s: u64,
    /// The blocks that were ever written to it, by place.
    pub blocks: BTreeMap<u64, WrittenBlock>,
    durable: Vec<u8>,
    durable_len: u64,
    /// Lengths it was given since one was made durable.
    lens: Vec<u64>,
    /// The shortest it was cut to since it was last synced: nothing durable beyond that outlives the next fsync.
    cut: u64,
    name_durable: bool,
    removed: bool,
    /// The deletion is durable.
    gone: bool,
    unsynced: Vec<Unsynced>,
}

/// A sealed block, by the number that no other of its segment has.
type Sealed = HashMap<(SegmentId, u64), [u8; 16]>;

/// All files of the machine.
pub struct Platter {
    /// What time it is, in seconds since 1970.
    pub now_s: u64,
    files: BTreeMap<FileId, SimFile>,
    /// Folders, and whether their names are durable.
    folders: BTreeMap<PathBuf, bool>,
    /// An fsync of some file lied.
    pub lied: bool,
    /// The tag of every sealed block that was ever on its way to this disk.
    sealed: Sealed,
    next_file: u32,
    next_serial: u64,
    rng: StdRng,
    tally: Tally,
}

impl Platter {
    /// An empty disk.
    pub fn new(seed: u64, tally: Tally) -> Self {
        Platter {
            now_s: 0,
            files: BTreeMap::new(),
            folders: BTreeMap::new(),
            lied: false,
            sealed: Sealed::default(),
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
            lied: false,
            modified_s: self.now_s,
            blocks: BTreeMap::new(),
            durable: Vec::new(),
            durable_len: 0,
            lens: Vec::new(),
            cut: u64::MAX,
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
        if len <= file.len {
            // Also to the length it has: then what lies beyond it goes, as with ftruncate.
            file.cut = file.cut.min(len);
            file.image.truncate(len as usize);
            // A write to what is cut off is undone with the cut, or survives with the old length.
            file.unsynced
                .iter_mut()
                .filter(|sector| sector.offset >= len)
                .for_each(|sector| sector.landed = false);
        }
        file.set_len(len);
    }

    /// Deletes a file.
    pub fn remove(&mut self, id: FileId) {
        self.file_mut(id).removed = true;
    }

    // ---- Writing and syncing --------------------------------------------------------------------------------

    /// A write is submitted. Nobody reads its bytes yet, but from now on a crash may leave them.
    pub fn begin_write(&mut self, id: FileId, offset: u64, write: &Rc<[u8]>) -> WriteId {
        self.note_blocks(id, offset, write);
        let first = self.next_serial;
        let mut from = 0;
        let file = self
            .files
            .get_mut(&id)
            .expect("only files that are there are written");
        while from < write.len() {
            let place = offset + from as u64;
            let upto = (from + SECTOR - place as usize % SECTOR).min(write.len());
            file.unsynced.push(Unsynced {
                serial: self.next_serial,
                offset: place,
                write: Rc::clone(write),
                from,
                upto,
                landed: false,
            });
            self.next_serial += 1;
            from = upto;
        }
        WriteId {
            file: id,
            offset,
            first,
            last: self.next_serial,
        }
    }

    /// Notes the blocks that begin in a write. A number is given once in each segment of origin, so (key, nonce) never seals two texts:
    /// two that differ by a bit differ in their tag.
    fn note_blocks(&mut self, id: FileId, offset: u64, bytes: &[u8]) {
        let mut at = offset.next_multiple_of(BLOCK_ALIGN as u64) - offset;
        let file = self
            .files
            .get_mut(&id)
            .expect("only files that are there are written");
        while let Some(start) = bytes.get(at as usize..at as usize + HEADER_LEN) {
            // What is no header is the rest of a block whose beginning was written before.
            let Ok(header) = Header::parse(start) else {
                at += BLOCK_ALIGN as u64;
                continue;
            };
            if matches!(header.block_type, BlockType::Chunk | BlockType::Stream) {
                let known = self.sealed.entry((header.segment_id, header.block_no));
                let known = *known.or_insert(header.tag);
                assert!(
                    known == header.tag,
                    "block {} of {} has two texts under one key and nonce",
                    header.block_no,
                    header.segment_id
                );
            }
            file.blocks.insert(offset + at, WrittenBlock { header });
            at += u64::from(header.total_len);
        }
    }

    /// The first `done` bytes of a write completed. Of its other sectors each was written all the same, or not at all.
    pub fn land(&mut self, write: WriteId, done: usize) {
        let upto = write.offset + done as u64;
        let mut rng = StdRng::seed_from_u64(self.rng.random());
        let now_s = self.now_s;
        let file = self.file_mut(write.file);
        file.modified_s = now_s;
        let from = file
            .unsynced
            .partition_point(|sector| sector.serial < write.first);
        let mut len = file.len;
        for sector in file.unsynced[from..]
            .iter_mut()
            .take_while(|sector| sector.serial < write.last)
        {
            if sector.offset < upto {
                // The sector that the write stopped in is cut there; its rest is left to the next attempt.
                sector.upto = sector.upto.min(sector.from + (upto - sector.offset) as usize);
            } else if rng.random_bool(0.5) {
                sector.upto = sector.from;
            }
            sector.landed = true;
            put(&mut file.image, sector.offset, sector.bytes());
            len = len.max(sector.offset + sector.bytes().len() as u64);
        }
        if len > file.len {
            file.set_len(len);
        }
    }

    /// An fsync is submitted: it will cover what has completed by now.
    pub fn begin_sync(&self, id: FileId, kind: SyncKind) -> SyncId {
        let file = self.file(id);
        let covered = || file.unsynced.iter().filter(|sector| sector.landed);
        let needed = covered().map(|sector| sector.offset + sector.bytes().len() as u64);
        let needed = needed.max().unwrap_or(0);
        let least = || {
            let mut lens = std::iter::once(&file.durable_len).chain(&file.lens);
            lens.find(|len| **len >= needed && file.cut >= file.durable_len)
        };
        SyncId {
            file: id,
            covers: covered().map(|sector| sector.serial).collect(),
            len: match kind {
                SyncKind::Data => *least().unwrap_or(&file.len),
                SyncKind::All => file.len,
            },
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
            put(&mut file.durable, sector.offset, sector.bytes());
        }
        file.unsynced.retain(|sector| !covered(sector.serial));
        file.durable_len = sync.len;
        match file.lens.iter().position(|len| *len == sync.len) {
            Some(at) => drop(file.lens.drain(..=at)),
            None => file.lens.retain(|len| *len != sync.len),
        }
        file.cut = file.lens.iter().copied().min().unwrap_or(u64::MAX);
    }

    /// An fsync returned without error, and did nothing.
    pub fn lie_sync(&mut self, sync: &SyncId) {
        self.tally.fire(Fired::SyncLied);
        self.lied = true;
        self.file_mut(sync.file).lied = true;
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
        // A place is lost whole, however often it was written: what a process reads there is what the disk has.
        let mut lost: HashMap<u64, bool> = HashMap::new();
        for sector in unsynced.iter_mut() {
            let covered = sync.covers.binary_search(&sector.serial).is_ok();
            let place = sector.offset / SECTOR as u64;
            if covered && *lost.entry(place).or_insert_with(|| rng.random()) {
                let old = durable.get(sector.offset as usize..).unwrap_or_default();
                let mut before = vec![0; sector.bytes().len()];
                let known = old.len().min(before.len());
                before[..known].copy_from_slice(&old[..known]);
                put(image, sector.offset, &before);
                sector.upto = sector.from;
            } else if sector.landed && lost.get(&place).copied().unwrap_or(false) {
                // Written again after the fsync was asked for: that write is not lost with the one before it.
                put(image, sector.offset, sector.bytes());
            }
        }
    }

    /// Whether everything from `from` up to `offset` is durable, and the same that a process reads there.
    pub fn is_durable(&self, id: FileId, from: u64, offset: u64) -> bool {
        let file = self.file(id);
        let (from, end) = (from as usize, offset as usize);
        file.durable_len >= offset
            && file.durable.len() >= end
            && file.image.len() >= end
            && file.durable[from..end] == file.image[from..end]
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
        let rng = &mut StdRng::seed_from_u64(self.rng.random());
        let of_sectors = Survival::draw(rng);
        let folders = std::mem::take(&mut self.folders);
        let mut lost = Vec::new();
        for (path, durable) in folders {
            if durable || rng.random() {
                self.folders.insert(path, true);
            } else {
                lost.push(path);
            }
        }
        for file in self.files.values_mut() {
            let folder_lost = file
                .path
                .parent()
                .is_some_and(|folder| lost.iter().any(|path| path == folder));
            let name_lost = !file.name_durable && rng.random_bool(0.75);
            if !file.removed && (folder_lost || name_lost) {
                file.removed = true;
                self.tally.fire(Fired::NameLost);
            } else if file.removed && !file.gone && file.name_durable && rng.random_bool(0.5) {
                file.removed = false;
                self.tally.fire(Fired::DeletionUndone);
            }
            file.crash(rng, of_sectors, &self.tally);
        }
    }
}

/// How much of what is not durable a crash leaves, sector by sector.
#[derive(Clone, Copy)]
struct Survival {
    kept: f64,
    torn: f64,
    /// Extents are lost in one piece.
    unmapped: f64,
}

impl Survival {
    fn draw(rng: &mut StdRng) -> Self {
        Survival {
            // Some disks have written nearly all of their cache when power fails, some nearly nothing.
            kept: *[0.0, 0.1, 0.5, 0.9, 1.0].choose(rng).expect("not empty"),
            torn: if rng.random_bool(0.5) { 0.1 } else { 0.0 },
            unmapped: if rng.random_bool(0.5) { 0.3 } else { 0.0 },
        }
    }
}

impl SimFile {
    fn set_len(&mut self, len: u64) {
        self.len = len;
        self.lens.push(len);
    }

    fn crash(&mut self, rng: &mut StdRng, survival: Survival, tally: &Tally) {
        let mut sectors = std::mem::take(&mut self.unsynced);
        if rng.random() {
            self.durable.truncate(self.cut as usize);
            sectors.retain(|sector| sector.landed || sector.offset < self.cut);
        }
        if rng.random_bool(survival.unmapped) && !sectors.is_empty() {
            self.lose_extent(&mut sectors, rng, tally);
        }
        sectors.shuffle(rng);
        for sector in &sectors {
            if rng.random_bool(survival.torn) {
                for (part, bytes) in sector.bytes().chunks(TORN).enumerate() {
                    if rng.random_bool(0.5) {
                        put(&mut self.durable, sector.offset + (part * TORN) as u64, bytes);
                    }
                }
                tally.fire(Fired::SectorTorn);
            } else if rng.random_bool(survival.kept) {
                put(&mut self.durable, sector.offset, sector.bytes());
                tally.fire(Fired::SectorKept);
            } else {
                tally.fire(Fired::SectorLost);
            }
        }
        self.lens.push(self.durable_len);
        self.durable_len = *self.lens.choose(rng).expect("it has at least this one");
        tally.add(Fired::LengthLost, u64::from(self.durable_len != self.len));
        if self.durable.len() as u64 > self.durable_len && rng.random() {
            self.durable.truncate(self.durable_len as usize);
        }
        self.lens.clear();
        self.len = self.durable_len;
        self.cut = u64::MAX;
        self.image.clone_from(&self.durable);
        tally.add(Fired::ExtentKept, u64::from(self.image.len() as u64 > self.len));
        self.name_durable = !self.removed;
        self.gone = self.removed;
    }

    /// Where a run of sectors was allocated is not on the disk: they read as zeros, whatever was written.
    fn lose_extent(&mut self, sectors: &mut Vec<Unsynced>, rng: &mut StdRng, tally: &Tally) {
        let place = |sector: Option<&Unsynced>| sector.map_or(0, |sector| sector.offset);
        let (one, other) = (place(sectors.choose(rng)), place(sectors.choose(rng)));
        let extent = one.min(other)..=one.max(other);
        sectors.retain(|sector| !extent.contains(&sector.offset));
        tally.fire(Fired::ExtentLost);
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
