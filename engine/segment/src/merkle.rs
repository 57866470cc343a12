//! The Merkle tree over a segment's blocks, after RFC 6962 §2.1.
//!
//! A leaf is SHA-256(0x00 ‖ bytes), a node SHA-256(0x01 ‖ left ‖ right), the empty tree SHA-256 of nothing. The
//! leaf of a CHUNK covers its header and extension only: the GCM tag and the CRC in it stand for the body against everyone
//! who lacks the chunk's key, and the hash in a hashed one's extension against everyone. The leaf of any other block covers the whole block, padding included.

use crate::block::{BlockType, Header};
use sha2::{Digest, Sha256};

/// SHA-256 (FIPS 180-4).
pub type Hash = [u8; 32];

/// The hash of a leaf: SHA-256(0x00 ‖ bytes), RFC 6962 §2.1.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(bytes)
        .finalize()
        .into()
}

/// The leaf of a whole block. The SEGMENT copy at 4096 and the FOOTER have none; that is the caller's to know.
pub fn leaf_of_block(header: &Header, block: &[u8]) -> Hash {
    let covered = if header.block_type == BlockType::Chunk {
        usize::from(header.header_len)
    } else {
        header.total_len as usize
    };
    leaf_hash(&block[..covered])
}

/// The hash of two subtrees joined: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// A tree that only grows: it keeps the roots of its full subtrees, one per set bit of the leaf count, 2 KiB at
/// most. Pushing never allocates and costs two hashes on average.
#[derive(Clone)]
pub struct MerkleTree {
    leaf_count: u64,
    /// `peaks[h]` is the root of a full subtree of 2^h leaves, wherever bit h of `leaf_count` is set.
    peaks: [Hash; 64],
}

impl MerkleTree {
    /// A tree without leaves.
    pub fn new() -> Self {
        MerkleTree {
            leaf_count: 0,
            peaks: [[0; 32]; 64],
        }
    }

    /// How many leaves were pushed.
    pub fn leaf_count(&self) -> u64 {
        self.leaf_count
    }

    /// Appends a leaf: adding one to a binary number, where a carry joins two subtrees.
    pub fn push(&mut self, leaf: Hash) {
        let mut carry = leaf;
        let height = self.leaf_count.trailing_ones() as usize;
        for peak in &self.peaks[..height] {
            carry = node_hash(peak, &carry);
        }
        self.peaks[height] = carry;
        self.leaf_count += 1;
    }

    /// The root over all leaves so far: the subtrees joined from the smallest, on the right, upwards.
    pub fn root(&self) -> Hash {
        let mut peaks = (0..64)
            .filter(|height| self.leaf_count >> height & 1 == 1)
            .map(|height| &self.peaks[height]);
        match peaks.next() {
            None => Sha256::digest([]).into(),
            Some(smallest) => peaks.fold(*smallest, |right, left| node_hash(left, &right)),
        }
    }
}

impl Default for MerkleTree {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 §2.1, word for word: the largest power of two below n splits the leaves.
    fn slow_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&slow_root(&leaves[..split]), &slow_root(&leaves[split..]))
            }
        }
    }

    /// Leaves and roots of the Certificate Transparency reference tests (merkle_tree_test.cc).
    #[test]
    fn roots_are_those_of_the_certificate_transparency_vectors() {
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = MerkleTree::new();
        for (count, expected) in roots.iter().enumerate() {
            let root: String = tree.root().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(root, *expected, "{count} leaves");
            if let Some(leaf) = leaves.get(count) {
                tree.push(leaf_hash(leaf));
            }
        }
    }

    #[test]
    fn the_growing_tree_agrees_with_the_definition() {
        let leaves: Vec<Hash> = (0..300u32).map(|n| leaf_hash(&n.to_le_bytes())).collect();
        let mut tree = MerkleTree::new();
        for count in 0..leaves.len() {
            assert_eq!(tree.root(), slow_root(&leaves[..count]), "{count} leaves");
            assert_eq!(tree.leaf_count(), count as u64);
            tree.push(leaves[count]);
        }
    }

    #[test]
    fn a_chunk_leaf_covers_its_header_and_extension_and_any_other_leaf_its_whole_block() {
        let header = |block_type| Header::new(block_type, Default::default(), 1, 100);
        for (header, covered) in [
            (header(BlockType::Chunk), 128),
            (Header::hashed_chunk(Default::default(), 1, 100), 160),
            (header(BlockType::Key), 4096),
            (header(BlockType::Index), 4096),
        ] {
            let mut block = vec![0; 4096];
            let leaf = leaf_of_block(&header, &block);
            for at in [0, 127, 128, 159, 160, 4095] {
                block[at] ^= 1;
                assert_eq!(
                    leaf_of_block(&header, &block) != leaf,
                    at < covered,
                    "{header:?} byte {at}"
                );
                block[at] ^= 1;
            }
        }
    }
}
