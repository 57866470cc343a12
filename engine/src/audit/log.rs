//! Appending to a log, one append at a time, so that a crash at any point leaves the old log or the new one.
//!
//! ```text
//!   entries ─▶ hash tiles ─▶ checkpoint ─▶ keys/audit.head ─▶ delete what the new tiles took the place of
//! ```
//!
//! Each file is written beside its name, synced, renamed, and its folder synced, before the next is begun. Tiles have their width in their
//! names, so nothing that the checkpoint in force needs is ever written over: what a crash leaves beyond it is not part of the log, and the
//! next append replaces it. The head is read again before every append, and must continue what this process and `keys/audit.head` remember.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harborseal_segment::merkle::{Hash, leaf_hash};
use harborseal_segment::node::NodeKey;

use super::AuditError;
use super::disk::Disk;
use super::note::{Checkpoint, Note, VerifierKey, origin};
use super::read::{self, Reader};
use super::tiles::{Kind, TILE_WIDTH, Tile, joined, push_entry};
use super::tree;

/// The log of one node, for one process that has the lock.
pub struct Log<D> {
    disk: D,
    node: Arc<NodeKey>,
    folder: PathBuf,
    /// `DATA/keys/audit.head`: what the node remembers beside the log.
    memory: PathBuf,
    /// The head last seen here.
    seen: Option<Checkpoint>,
    /// Folders whose own names are known to be durable.
    durable_folders: HashSet<PathBuf>,
    /// A folder could not be synced: what it holds may or may not outlive a crash, and asking again proves nothing.
    poisoned: bool,
}

impl<D: Disk> Log<D> {
    /// The log under `data`, made if the node never had one. Call with the lock held.
    pub fn open(disk: D, data: &Path, node: Arc<NodeKey>) -> Result<Self, AuditError> {
        let mut log = Log {
            disk,
            node,
            folder: data.join("audit"),
            memory: data.join("keys/audit.head"),
            seen: None,
            durable_folders: HashSet::new(),
            poisoned: false,
        };
        log.begin_if_new()?;
        let head = log.head()?;
        log.tidy(head.checkpoint.size);
        Ok(log)
    }

    /// The head as it is now.
    pub fn checkpoint(&mut self) -> Result<Note, AuditError> {
        self.head()
    }

    /// Appends entries, all of them or none; returns the index of the first. They are durable when this returns. After an error they may be
    /// in the log or not: what they announce must not be done.
    pub fn append(&mut self, entries: &[Vec<u8>]) -> Result<u64, AuditError> {
        if self.poisoned {
            return Err(AuditError::Poisoned {
                path: self.folder.clone(),
            });
        }
        let head = self.head()?;
        let first = head.checkpoint.size;
        if entries.is_empty() {
            return Ok(first);
        }
        let mut edge = self.edge(first)?;
        if edge.root() != head.checkpoint.root {
            return Err(AuditError::EditedTree {
                path: self.folder.clone(),
                size: first,
            });
        }
        let mut done = Vec::new();
        for entry in entries {
            edge.push(entry, &mut done);
        }
        edge.partial_tiles(&mut done);
        // Entries first, then hashes from the leaves up.
        done.sort_by_key(|(tile, _)| (tile.kind != Kind::Entries, *tile));
        for (tile, bytes) in &done {
            self.place(&self.folder.join(tile.path()), bytes)?;
        }
        let checkpoint = Checkpoint {
            size: edge.size,
            root: edge.root(),
            ..head.checkpoint.clone()
        };
        if head.is_cosigned(&self.node.public()) {
            self.place(&self.folder.join("cosigned"), head.to_text().as_bytes())?;
        }
        self.put_in_force(&Note::signed(checkpoint, &self.node))?;
        self.remove_outgrown(first, edge.size);
        Ok(first)
    }

    /// Makes `note` the head, durably, here and in the node's memory.
    fn put_in_force(&mut self, note: &Note) -> Result<(), AuditError> {
        let text = note.to_text();
        self.place(&self.folder.join("checkpoint"), text.as_bytes())?;
        // After the log, never before it: a memory ahead of its log would look like a log rolled back.
        self.place(&self.memory.clone(), text.as_bytes())?;
        self.seen = Some(note.checkpoint.clone());
        Ok(())
    }

    /// A node without memory and without checkpoint begins a log. The memory comes first, so that a log that later loses its checkpoint
    /// is not begun anew.
    fn begin_if_new(&mut self) -> Result<(), AuditError> {
        let memory = self.read_note_if_there(&self.memory)?;
        let checkpoint = self.read_note_if_there(&self.folder.join("checkpoint"))?;
        let remembered = memory.as_ref().map(|note| note.checkpoint.size);
        match (remembered, &checkpoint) {
            (None, Some(_)) => Err(AuditError::NoMemory {
                memory: self.memory.clone(),
                path: self.folder.clone(),
            }),
            (Some(size @ 1..), None) => Err(AuditError::NoCheckpoint {
                path: self.folder.join("checkpoint"),
                size,
            }),
            (None | Some(0), None) => {
                let node = self.node.public();
                let empty = Checkpoint {
                    origin: origin(&node.id()),
                    size: 0,
                    root: tree::empty_root(),
                };
                let note = Note::signed(empty, &self.node);
                self.place(&self.memory.clone(), note.to_text().as_bytes())?;
                let key = VerifierKey::of_node(&node).to_text() + "\n";
                self.place(&self.folder.join("log.vkey"), key.as_bytes())?;
                self.put_in_force(&note)
            }
            (Some(_), Some(_)) => Ok(()),
        }
    }

    fn read_note_if_there(&self, path: &Path) -> Result<Option<Note>, AuditError> {
        match read::checkpoint(&self.disk, path) {
            Ok(note) => Ok(Some(note)),
            Err(AuditError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the head, and refuses one that is not this node's or does not continue what is remembered.
    fn head(&mut self) -> Result<Note, AuditError> {
        let path = self.folder.join("checkpoint");
        let note = read::checkpoint(&self.disk, &path)?;
        self.refuse_foreign(&note, &path)?;
        let memory = read::checkpoint(&self.disk, &self.memory)?;
        self.refuse_foreign(&memory, &self.memory)?;
        for known in [Some(memory.checkpoint), self.seen.take()].into_iter().flatten() {
            continues(&self.disk, &self.folder, &known, &note.checkpoint)?;
        }
        self.seen = Some(note.checkpoint.clone());
        Ok(note)
    }

    fn refuse_foreign(&self, note: &Note, path: &Path) -> Result<(), AuditError> {
        let key = VerifierKey::of_node(&self.node.public());
        let own = note.checkpoint.origin == key.name && note.signed_by(&key).is_some();
        match own {
            true => Ok(()),
            false => Err(AuditError::NotSigned {
                path: path.to_owned(),
                key: key.name,
            }),
        }
    }

    /// The right edge of the tree of `size` leaves, its last entries held against their leaves.
    fn edge(&self, size: u64) -> Result<Edge, AuditError> {
        let mut reader = Reader::new(&self.disk, &self.folder, size);
        let mut edge = Edge::empty(size);
        let mut count = size;
        for level in 0.. {
            if count == 0 {
                break;
            }
            let hashes = match count % TILE_WIDTH {
                0 => Vec::new(),
                _ => reader.hashes(level, count / TILE_WIDTH)?.to_vec(),
            };
            edge.levels.push(hashes);
            count /= TILE_WIDTH;
        }
        if !size.is_multiple_of(TILE_WIDTH) {
            for entry in reader.entries(size / TILE_WIDTH)? {
                push_entry(&mut edge.bundle, &entry);
            }
        }
        Ok(edge)
    }

    /// Writes a file whole or not at all, durably. A write that fails can be asked for again: it makes another file from the same
    /// bytes, and trusts nothing that an earlier sync said. A folder's sync cannot.
    fn place(&mut self, path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
        let folder = path.parent().expect("every file of the log is in a folder");
        self.make_folders(folder)?;
        let part = path.with_extension(match path.extension() {
            Some(extension) => format!("{}.part", extension.to_string_lossy()),
            None => "part".to_owned(),
        });
        self.disk
            .write(&part, bytes)
            .map_err(|error| AuditError::io("write", &part, error))?;
        self.disk
            .rename(&part, path)
            .map_err(|error| AuditError::io("rename", &part, error))?;
        self.sync(folder)
    }

    /// Makes `folder` and those above it, up to the data folder, and their names durable; once in a life of the process.
    fn make_folders(&mut self, folder: &Path) -> Result<(), AuditError> {
        let home = self.folder.parent().expect("the log is in the data folder");
        if folder == home || self.durable_folders.contains(folder) {
            return Ok(());
        }
        let parent = folder
            .parent()
            .expect("every folder of the log is in the data folder")
            .to_owned();
        self.make_folders(&parent)?;
        self.disk
            .make_folder(folder)
            .map_err(|error| AuditError::io("make", folder, error))?;
        self.sync(&parent)?;
        self.durable_folders.insert(folder.to_owned());
        Ok(())
    }

    fn sync(&mut self, folder: &Path) -> Result<(), AuditError> {
        self.disk.sync_folder(folder).map_err(|error| {
            self.poisoned = true;
            AuditError::io("sync", folder, error)
        })
    }

    /// Deletes the partial tiles of the tree of `old` leaves that the tree of `size` leaves has wider. They are not needed, and not in the
    /// way: one that cannot be deleted stays.
    fn remove_outgrown(&mut self, old: u64, size: u64) {
        for tile in right_edge(old) {
            let now = Tile::in_tree(tile.kind, tile.index, size);
            if tile.width == TILE_WIDTH || now == Some(tile) {
                continue;
            }
            let _ = self.disk.remove(&self.folder.join(tile.path()));
            if now.is_some_and(|now| now.width == TILE_WIDTH) {
                let folder = self.folder.join(tile.partial_folder());
                let _ = self.disk.remove_folder(&folder);
                self.durable_folders.remove(&folder);
            }
        }
    }

    /// Deletes what a crash left beside the partial tiles in force; likewise.
    fn tidy(&mut self, size: u64) {
        for tile in right_edge(size) {
            let folder = self.folder.join(tile.partial_folder());
            let own = tile.width.to_string();
            for name in self.disk.names(&folder).unwrap_or_default() {
                if tile.width == TILE_WIDTH || name != own {
                    let _ = self.disk.remove(&folder.join(name));
                }
            }
        }
    }
}

/// Whether the log in `folder`, now at `head`, is a later state of what it was at `known`.
pub fn continues(
    disk: &impl Disk,
    folder: &Path,
    known: &Checkpoint,
    head: &Checkpoint,
) -> Result<(), AuditError> {
    if known.size > head.size {
        return Err(AuditError::RolledBack {
            path: folder.to_owned(),
            known: known.size,
            size: head.size,
        });
    }
    let root_then = match known.size == head.size {
        true => head.root,
        false => Reader::new(disk, folder, head.size).root(known.size)?,
    };
    match root_then == known.root {
        true => Ok(()),
        false => Err(AuditError::Rewritten {
            path: folder.to_owned(),
            known: known.size,
            size: head.size,
        }),
    }
}

/// The last tile of each level, and of the entries.
fn right_edge(size: u64) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let mut count = size;
    for level in 0.. {
        if count == 0 {
            break;
        }
        let last = (count - 1) / TILE_WIDTH;
        tiles.extend(Tile::in_tree(Kind::Hashes(level), last, size));
        if level == 0 {
            tiles.extend(Tile::in_tree(Kind::Entries, last, size));
        }
        count /= TILE_WIDTH;
    }
    tiles
}

/// The part of a tree that grows: at each level the tile that is not yet full.
struct Edge {
    size: u64,
    /// `levels[l]` are the hashes of the unfinished tile at level l: fewer than [`TILE_WIDTH`].
    levels: Vec<Vec<Hash>>,
    /// The unfinished bundle of entries.
    bundle: Vec<u8>,
}

impl Edge {
    fn empty(size: u64) -> Edge {
        Edge {
            size,
            levels: Vec::new(),
            bundle: Vec::new(),
        }
    }

    /// Adds an entry; tiles that it fills go to `done`.
    fn push(&mut self, entry: &[u8], done: &mut Vec<(Tile, Vec<u8>)>) {
        push_entry(&mut self.bundle, entry);
        let index = self.size / TILE_WIDTH;
        self.size += 1;
        if self.size.is_multiple_of(TILE_WIDTH) {
            let width = TILE_WIDTH;
            let kind = Kind::Entries;
            done.push((Tile { kind, index, width }, std::mem::take(&mut self.bundle)));
        }
        let mut carry = Some(leaf_hash(entry));
        for level in 0.. {
            let Some(hash) = carry.take() else { break };
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            if hashes.len() as u64 == TILE_WIDTH {
                let kind = Kind::Hashes(level as u32);
                let index = (self.size >> (8 * (level + 1))) - 1;
                let width = TILE_WIDTH;
                done.push((Tile { kind, index, width }, hashes.concat()));
                carry = Some(joined(hashes));
                hashes.clear();
            }
        }
    }

    /// The unfinished tiles as they are now.
    fn partial_tiles(&self, done: &mut Vec<(Tile, Vec<u8>)>) {
        for (level, hashes) in self.levels.iter().enumerate() {
            let kind = Kind::Hashes(level as u32);
            let index = self.size >> (8 * (level + 1));
            let width = hashes.len() as u64;
            if width > 0 {
                done.push((Tile { kind, index, width }, hashes.concat()));
            }
            if width > 0 && level == 0 {
                let kind = Kind::Entries;
                done.push((Tile { kind, index, width }, self.bundle.clone()));
            }
        }
    }

    /// The root over all leaves: the full subtrees joined from the smallest, on the right, upwards.
    fn root(&self) -> Hash {
        let mut root = None;
        for hashes in &self.levels {
            let mut end = hashes.len();
            while end > 0 {
                let count = 1 << end.trailing_zeros();
                let peak = joined(&hashes[end - count..end]);
                root = Some(match root {
                    None => peak,
                    Some(right) => harborseal_segment::merkle::node_hash(&peak, &right),
                });
                end -= count;
            }
        }
        root.unwrap_or_else(tree::empty_root)
    }
}
