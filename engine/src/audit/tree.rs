//! The Merkle tree of RFC 6962, seen through anything that knows the hashes of its full subtrees: roots, and the two kinds
//! of proof, made and checked.
//!
//! Pure: hashes come in by a function, proofs go out. A subtree is named by its level (it has 2^level leaves) and its
//! index from the left among those of its level. The two checks need no tree, and follow RFC 9162 §2.1.3.2 and §2.1.4.2, which say
//! step by step what RFC 6962 leaves to the reader.

use harborseal_segment::merkle::{Hash, MerkleTree, node_hash};

/// The root over no leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    MerkleTree::new().root()
}

/// The root of the first `size` leaves.
pub fn root<E>(size: u64, hash: &mut impl FnMut(u32, u64) -> Result<Hash, E>) -> Result<Hash, E> {
    match size {
        0 => Ok(empty_root()),
        _ => range_root(0, size, hash),
    }
}

/// MTH(D[from..to]) of RFC 6962 §2.1, where `from` is a multiple of the largest power of two below `to - from`, as it is in every
/// step of that definition. `from` < `to`.
fn range_root<E>(from: u64, to: u64, hash: &mut impl FnMut(u32, u64) -> Result<Hash, E>) -> Result<Hash, E> {
    let count = to - from;
    if count.is_power_of_two() && from.is_multiple_of(count) {
        let level = count.trailing_zeros();
        return hash(level, from >> level);
    }
    let middle = from + split(count);
    let left = range_root(from, middle, hash)?;
    Ok(node_hash(&left, &range_root(middle, to, hash)?))
}

/// The largest power of two smaller than `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// PATH(index, D[size]) of RFC 6962 §2.1.1: what proves that the leaf at `index` is in the tree of `size` leaves.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    hash: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let mut proof = Vec::new();
    let (mut from, mut to) = (0, size);
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            proof.push(range_root(middle, to, hash)?);
            to = middle;
        } else {
            proof.push(range_root(from, middle, hash)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// PROOF(old, D[size]) of RFC 6962 §2.1.2: what proves that the tree of `size` leaves begins with that of `old` leaves.
/// Empty for the empty tree and for a tree and itself, which need no proof.
pub fn consistency_proof<E>(
    old: u64,
    size: u64,
    hash: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let mut proof = Vec::new();
    if old == 0 || old == size {
        return Ok(proof);
    }
    // SUBPROOF, from the whole tree down to the subtree that both trees end with.
    let (mut from, mut to, mut whole) = (0, size, true);
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(range_root(middle, to, hash)?);
            to = middle;
        } else {
            proof.push(range_root(from, middle, hash)?);
            from = middle;
            whole = false;
        }
    }
    // A subtree from the very left is the old tree, whose root the verifier has.
    if !whole {
        proof.push(range_root(from, to, hash)?);
    }
    proof.reverse();
    Ok(proof)
}

/// RFC 9162 §2.1.3.2: whether `proof` shows that `leaf` is at `index` in the tree of `size` leaves with this root.
pub fn includes(proof: &[Hash], index: u64, size: u64, leaf: &Hash, root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(step, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, step);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// RFC 9162 §2.1.4.2: whether `proof` shows that the tree of `size` leaves begins with that of `old` leaves.
pub fn consistent(proof: &[Hash], old: u64, size: u64, old_root: &Hash, root: &Hash) -> bool {
    if old == size {
        return proof.is_empty() && old_root == root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    if old > size || proof.is_empty() {
        return false;
    }
    let (mut at, mut last) = (old - 1, size - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    // The old tree is itself a full subtree: its root begins the proof.
    let (first, steps) = match old.is_power_of_two() {
        true => (old_root, proof),
        false => (&proof[0], &proof[1..]),
    };
    let (mut old_hash, mut hash) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(step, &old_hash);
            hash = node_hash(step, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, step);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && old_hash == *old_root && hash == *root
}

#[cfg(test)]
mod tests {
    use super::*;
    use harborseal_segment::merkle::leaf_hash;
    use std::convert::Infallible;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_le_bytes())).collect()
    }

    /// Full subtrees hashed from their leaves each time: slow and plain.
    fn of_leaves(leaves: &[Hash]) -> impl FnMut(u32, u64) -> Result<Hash, Infallible> {
        fn full(leaves: &[Hash]) -> Hash {
            match leaves {
                [leaf] => *leaf,
                _ => node_hash(
                    &full(&leaves[..leaves.len() / 2]),
                    &full(&leaves[leaves.len() / 2..]),
                ),
            }
        }
        |level, index| {
            Ok(full(
                &leaves[(index << level) as usize..((index + 1) << level) as usize],
            ))
        }
    }

    fn root_of(leaves: &[Hash]) -> Hash {
        let mut tree = MerkleTree::new();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        tree.root()
    }

    #[test]
    fn roots_are_those_of_the_growing_tree() {
        let leaves = leaves(70);
        for size in 0..=70 {
            let Ok(root) = root(size, &mut of_leaves(&leaves));
            assert_eq!(root, root_of(&leaves[..size as usize]), "{size} leaves");
        }
    }

    #[test]
    fn every_leaf_of_every_tree_is_proved_there_and_nowhere_else() {
        let leaves = leaves(33);
        for size in 1..=33u64 {
            let root = root_of(&leaves[..size as usize]);
            for index in 0..size {
                let Ok(proof) = inclusion_proof(index, size, &mut of_leaves(&leaves));
                let leaf = &leaves[index as usize];
                assert!(includes(&proof, index, size, leaf, &root), "{index} of {size}");
                for elsewhere in (0..size + 2).filter(|other| *other != index) {
                    assert!(
                        !includes(&proof, elsewhere, size, leaf, &root),
                        "{index} at {elsewhere}"
                    );
                }
                assert!(!includes(&proof, index, size, &leaf_hash(b"another"), &root));
                let longer: Vec<Hash> = proof.iter().copied().chain([[0; 32]]).collect();
                assert!(!includes(&longer, index, size, leaf, &root));
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!includes(shorter, index, size, leaf, &root));
                }
            }
        }
    }

    #[test]
    fn every_tree_is_proved_to_begin_with_every_smaller_one_and_with_no_other() {
        let leaves = leaves(33);
        for size in 0..=33u64 {
            let root = root_of(&leaves[..size as usize]);
            for old in 0..=size {
                let old_root = root_of(&leaves[..old as usize]);
                let Ok(proof) = consistency_proof(old, size, &mut of_leaves(&leaves));
                assert!(consistent(&proof, old, size, &old_root, &root), "{old} in {size}");
                assert!(!consistent(&proof, old, size, &[9; 32], &root), "{old} in {size}");
                // Every tree begins with the empty one, whatever its root.
                let refused = !consistent(&proof, old, size, &old_root, &[9; 32]);
                assert!(refused || (old == 0 && size > 0), "{old} in {size}");
                let longer: Vec<Hash> = proof.iter().copied().chain([[0; 32]]).collect();
                assert!(!consistent(&longer, old, size, &old_root, &root));
                for step in 0..proof.len() {
                    let mut wrong = proof.clone();
                    wrong[step][0] ^= 1;
                    assert!(!consistent(&wrong, old, size, &old_root, &root));
                }
            }
        }
    }

    #[test]
    fn a_tree_does_not_begin_with_a_larger_one() {
        assert!(!consistent(&[[0; 32]], 5, 4, &[1; 32], &[1; 32]));
        assert!(!includes(&[], 0, 0, &[0; 32], &empty_root()));
    }
}
