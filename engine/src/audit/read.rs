//! Reading a log: checkpoint, tiles and entries of a folder, checked against one another as they are read.
//!
//! Needs no lock. Files are replaced whole, and a tile that a larger one took the place of may be gone by the time it is asked for; the
//! larger one begins with it.

use std::io;
use std::path::{Path, PathBuf};

use harborseal_segment::merkle::{Hash, MerkleTree, leaf_hash};

use super::AuditError;
use super::disk::Disk;
use super::note::Note;
use super::tiles::{Kind, TILE_WIDTH, Tile, joined, parse_entries, parse_hashes};
use super::tree;

/// How often a tile that is being replaced is looked for.
const TILE_TRIES: usize = 8;

/// A log's folder, seen as a tree of `size` leaves.
pub struct Reader<'a, D> {
    disk: &'a D,
    folder: &'a Path,
    size: u64,
    /// The tile read last, of each level: proofs and roots ask for neighbours.
    recent: Vec<Option<(Tile, Vec<Hash>)>>,
}

impl<'a, D: Disk> Reader<'a, D> {
    /// The first `size` entries of the log in `folder`.
    pub fn new(disk: &'a D, folder: &'a Path, size: u64) -> Self {
        Reader {
            disk,
            folder,
            size,
            recent: Vec::new(),
        }
    }

    /// How many entries it is taken to have.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash of the full subtree at `index` among those of 2^`level` leaves, from the tile that holds it.
    pub fn hash(&mut self, level: u32, index: u64) -> Result<Hash, AuditError> {
        let (tile_level, height) = (level / 8, level % 8);
        let first = index << height;
        let tile = first / TILE_WIDTH;
        let at = (first % TILE_WIDTH) as usize;
        let hashes = self.hashes(tile_level, tile)?;
        let of_subtree = hashes.get(at..at + (1 << height));
        Ok(joined(of_subtree.expect(
            "a full subtree of the tree lies in one tile, as far as the tree fills it",
        )))
    }

    /// The root over the first `size` entries, from the tiles.
    pub fn root(&mut self, size: u64) -> Result<Hash, AuditError> {
        tree::root(size, &mut |level, index| self.hash(level, index))
    }

    /// The hashes of one tile.
    pub fn hashes(&mut self, level: u32, index: u64) -> Result<&[Hash], AuditError> {
        let tile = Tile::in_tree(Kind::Hashes(level), index, self.size)
            .expect("only hashes of the tree are asked for");
        let slot = level as usize;
        if self.recent.len() <= slot {
            self.recent.resize(slot + 1, None);
        }
        if self.recent[slot].as_ref().is_none_or(|(of, _)| *of != tile) {
            let (path, bytes) = self.read_tile(&tile)?;
            let hashes = parse_hashes(&bytes, tile.width).ok_or(AuditError::CutTile { path })?;
            self.recent[slot] = Some((tile, hashes));
        }
        let (_, hashes) = self.recent[slot].as_ref().expect("it was just put there");
        Ok(hashes)
    }

    /// Every entry, in order, with its index; an error unless all of them together come to `root`.
    pub fn all_entries(&mut self, root: &Hash, each: &mut impl FnMut(u64, &[u8])) -> Result<(), AuditError> {
        let mut tree = MerkleTree::new();
        for bundle in 0..self.size.div_ceil(TILE_WIDTH) {
            for entry in self.entries(bundle)? {
                each(tree.leaf_count(), &entry);
                tree.push(leaf_hash(&entry));
            }
        }
        match tree.root() == *root {
            true => Ok(()),
            false => Err(AuditError::EditedTree {
                path: self.folder.to_owned(),
                size: self.size,
            }),
        }
    }

    /// The entries of one bundle, each held against its leaf in the tree.
    pub fn entries(&mut self, index: u64) -> Result<Vec<Vec<u8>>, AuditError> {
        let tile =
            Tile::in_tree(Kind::Entries, index, self.size).expect("only entries of the tree are asked for");
        let (path, bytes) = self.read_tile(&tile)?;
        let entries =
            parse_entries(&bytes, tile.width).ok_or_else(|| AuditError::CutTile { path: path.clone() })?;
        let entries: Vec<Vec<u8>> = entries.into_iter().map(<[u8]>::to_vec).collect();
        let leaves = self.hashes(0, index)?;
        let edited = entries
            .iter()
            .zip(leaves)
            .position(|(entry, leaf)| leaf_hash(entry) != *leaf);
        match edited {
            Some(at) => Err(AuditError::EditedEntry {
                path,
                index: index * TILE_WIDTH + at as u64,
            }),
            None => Ok(entries),
        }
    }

    /// A tile's bytes, from the file of its own width or from a larger one.
    fn read_tile(&self, tile: &Tile) -> Result<(PathBuf, Vec<u8>), AuditError> {
        let own = self.folder.join(tile.path());
        for _ in 0..TILE_TRIES {
            match self.disk.read(&own) {
                Ok(bytes) => return Ok((own, bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(AuditError::io("read", &own, error)),
            }
            for larger in self.larger(tile) {
                if let Ok(bytes) = self.disk.read(&larger) {
                    return Ok((larger, bytes));
                }
            }
        }
        Err(AuditError::MissingTile { path: own })
    }

    /// Where a tile with more in it may be.
    fn larger(&self, tile: &Tile) -> Vec<PathBuf> {
        let folder = self.folder.join(tile.partial_folder());
        let widths = self.disk.names(&folder).unwrap_or_default();
        let mut paths: Vec<PathBuf> = widths
            .iter()
            .filter(|name| name.parse().is_ok_and(|width: u64| width > tile.width))
            .map(|name| folder.join(name))
            .collect();
        paths.push(self.folder.join(tile.full_path()));
        paths
    }
}

/// Reads a checkpoint and its signatures; they are not yet believed.
pub fn checkpoint(disk: &impl Disk, path: &Path) -> Result<Note, AuditError> {
    let bytes = disk
        .read(path)
        .map_err(|error| AuditError::io("read", path, error))?;
    Note::parse(&bytes).map_err(|why| AuditError::BadNote {
        path: path.to_owned(),
        why,
    })
}
