//! Where a tree and its entries lie: the paths of C2SP tlog-tiles, and what stands in an entry bundle.
//!
//! ```text
//!   checkpoint                  the signed head
//!   tile/<L>/<N>                256 hashes of level 8·L, from 256·N on           8,192 bytes
//!   tile/<L>/<N>.p/<W>          the first W of them, while the tree ends there
//!   tile/entries/<N>[.p/<W>]    the entries under tile/0/<N>, each as length u16 big-endian ‖ bytes
//! ```
//!
//! N is written in groups of three digits, all but the last with an x before them: 1234067 is `x001/x234/067`.

use harborseal_segment::merkle::{Hash, node_hash};

/// Hashes in a full tile, and entries in a full bundle.
pub const TILE_WIDTH: u64 = 256;
/// Longest entry: its length is a u16.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// What a tile is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Hashes of the level 8 times this.
    Hashes(u32),
    /// The entries themselves.
    Entries,
}

/// One tile, as far as a tree of some size fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile {
    /// Of hashes or entries.
    pub kind: Kind,
    /// Its place from the left.
    pub index: u64,
    /// How many hashes or entries it has: 1 to [`TILE_WIDTH`].
    pub width: u64,
}

impl Tile {
    /// Its path inside the log's folder.
    pub fn path(&self) -> String {
        let full = self.full_path();
        match self.width {
            TILE_WIDTH => full,
            width => format!("{full}.p/{width}"),
        }
    }

    /// The folder of its partial forms.
    pub fn partial_folder(&self) -> String {
        self.full_path() + ".p"
    }

    /// Where it is once it is full.
    pub fn full_path(&self) -> String {
        let mut groups = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups = format!("x{:03}/{groups}", rest % 1000);
            rest /= 1000;
        }
        match self.kind {
            Kind::Hashes(level) => format!("tile/{level}/{groups}"),
            Kind::Entries => format!("tile/entries/{groups}"),
        }
    }

    /// The tile at `index` in a tree of `size` leaves; `None` where such a tree has nothing.
    pub fn in_tree(kind: Kind, index: u64, size: u64) -> Option<Tile> {
        let level = match kind {
            Kind::Hashes(level) => level,
            Kind::Entries => 0,
        };
        let at_level = size.checked_shr(8 * level).unwrap_or(0);
        let width = at_level.saturating_sub(index * TILE_WIDTH).min(TILE_WIDTH);
        (width > 0).then_some(Tile { kind, index, width })
    }
}

/// The hash of the full subtree over `hashes`, whose count is a power of two.
pub fn joined(hashes: &[Hash]) -> Hash {
    match hashes {
        [hash] => *hash,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&joined(left), &joined(right))
        }
    }
}

/// The hashes of a tile; `None` if it does not have `width` of them at least.
pub fn parse_hashes(bytes: &[u8], width: u64) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    (rest.is_empty() && hashes.len() as u64 >= width).then(|| hashes[..width as usize].to_vec())
}

/// Appends an entry to a bundle.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    let len = u16::try_from(entry.len()).expect("entries are held to ENTRY_BYTES_MAX before they come here");
    bundle.extend_from_slice(&len.to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// The first `width` entries of a bundle; `None` if it is cut, or has fewer.
pub fn parse_entries(mut bundle: &[u8], width: u64) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::with_capacity(width.min(TILE_WIDTH) as usize);
    while (entries.len() as u64) < width {
        let (len, rest) = bundle.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        entries.push(entry);
        bundle = rest;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |kind, index, width| Tile { kind, index, width }.path();
        assert_eq!(tile(Kind::Hashes(0), 0, 256), "tile/0/000");
        assert_eq!(tile(Kind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(tile(Kind::Hashes(1), 0, 1), "tile/1/000.p/1");
        assert_eq!(tile(Kind::Entries, 999, 8), "tile/entries/999.p/8");
        assert_eq!(tile(Kind::Entries, 1000, 8), "tile/entries/x001/000.p/8");
    }

    /// The example of the specification: a tree of 70,000 leaves.
    #[test]
    fn a_tree_of_seventy_thousand_has_the_tiles_of_the_example() {
        let width = |level, index| Tile::in_tree(Kind::Hashes(level), index, 70_000).map(|tile| tile.width);
        assert_eq!(width(0, 272), Some(256));
        assert_eq!(width(0, 273), Some(112));
        assert_eq!(width(0, 274), None);
        assert_eq!(width(1, 1), Some(17));
        assert_eq!(width(2, 0), Some(1));
        assert_eq!(width(3, 0), None);
        assert_eq!(width(9, 0), None);
    }

    #[test]
    fn bundles_give_back_what_was_put_in_and_no_cut_entry() {
        let mut bundle = Vec::new();
        for entry in [&b"one"[..], b"", &[7; ENTRY_BYTES_MAX]] {
            push_entry(&mut bundle, entry);
        }
        let entries = parse_entries(&bundle, 3).expect("three");
        assert_eq!(entries[0], b"one");
        assert_eq!(entries[2].len(), ENTRY_BYTES_MAX);
        assert_eq!(parse_entries(&bundle, 4), None);
        assert_eq!(parse_entries(&bundle[..bundle.len() - 1], 3), None);
        assert_eq!(parse_entries(&bundle[..8], 3), None);
    }
}
