//! Proofs that stand alone: files that convince somebody who has the log's key and nothing else.
//!
//! ```text
//!   c2sp.org/tlog-proof@v1            an entry is in the log (C2SP tlog-proof)
//!   extra <base64>                    the entry
//!   index <N>
//!   <base64 hash>…
//!
//!   <checkpoint>
//!
//!   old <size>                        the log begins as it did (the request of C2SP tlog-witness)
//!   <base64 hash>…
//!
//!   <checkpoint>
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use harborseal_segment::merkle::{Hash, leaf_hash};

use super::note::{Checkpoint, Note, NoteError, VerifierKey};
use super::tree;

const INCLUSION: &str = "c2sp.org/tlog-proof@v1";

/// That an entry is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The entry.
    pub entry: Vec<u8>,
    /// Its place, from 0.
    pub index: u64,
    /// The hashes beside its path to the root.
    pub hashes: Vec<Hash>,
    /// The log that has it.
    pub note: Note,
}

/// That a log begins as it was at an older checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// Entries of the older one.
    pub old: u64,
    /// The hashes that both share.
    pub hashes: Vec<Hash>,
    /// The newer one.
    pub note: Note,
}

/// Either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Of an entry.
    Inclusion(Inclusion),
    /// Of an older checkpoint.
    Consistency(Consistency),
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not in the form of one.
    #[error("not a proof: it begins neither with {INCLUSION} nor with 'old'")]
    Form,
    /// Its checkpoint is none.
    #[error("its checkpoint is {0}")]
    Note(#[from] NoteError),
    /// Somebody else's.
    #[error("its checkpoint is not signed by {key}")]
    NotSigned {
        /// Who should have.
        key: String,
    },
    /// The hashes do not lead from the entry to the root.
    #[error("it does not prove that entry {index} is in a log of {size} entries: one of them was changed")]
    NotIncluded {
        /// Which entry.
        index: u64,
        /// Of how many.
        size: u64,
    },
    /// The proof is about another checkpoint.
    #[error("it is about a checkpoint of {found} entries, and the one that was kept has {kept}")]
    OtherCheckpoint {
        /// Of the proof.
        found: u64,
        /// Of the one kept.
        kept: u64,
    },
    /// The newer log is not a continuation of the older.
    #[error(
        "it does not prove that the log of {size} entries begins with the {old} of the checkpoint that was kept: something was removed or \
         rewritten, or two people were shown two logs"
    )]
    NotConsistent {
        /// Entries of the older one.
        old: u64,
        /// Entries of the newer one.
        size: u64,
    },
}

impl Inclusion {
    /// Checks everything: signature, place, entry.
    pub fn check(&self, key: &VerifierKey) -> Result<(), ProofError> {
        check_signed(&self.note, key)?;
        let Checkpoint { size, root, .. } = &self.note.checkpoint;
        let (index, size) = (self.index, *size);
        match tree::includes(&self.hashes, index, size, &leaf_hash(&self.entry), root) {
            true => Ok(()),
            false => Err(ProofError::NotIncluded { index, size }),
        }
    }

    /// The proof as a file.
    pub fn to_text(&self) -> String {
        let entry = BASE64.encode(&self.entry);
        let head = format!("{INCLUSION}\nextra {entry}\nindex {}\n", self.index);
        head + &body(&self.hashes, &self.note)
    }
}

impl Consistency {
    /// Checks that the log goes on from `old`, both signed with `key`.
    pub fn check(&self, key: &VerifierKey, old: &Note) -> Result<(), ProofError> {
        check_signed(&self.note, key)?;
        check_signed(old, key)?;
        let (old, new) = (&old.checkpoint, &self.note.checkpoint);
        if old.size != self.old {
            return Err(ProofError::OtherCheckpoint {
                found: self.old,
                kept: old.size,
            });
        }
        match tree::consistent(&self.hashes, old.size, new.size, &old.root, &new.root) {
            true => Ok(()),
            false => Err(ProofError::NotConsistent {
                old: old.size,
                size: new.size,
            }),
        }
    }

    /// The proof as a file.
    pub fn to_text(&self) -> String {
        format!("old {}\n", self.old) + &body(&self.hashes, &self.note)
    }
}

impl Proof {
    /// Reads a proof of either kind; nothing of it is checked yet.
    pub fn parse(text: &str) -> Result<Proof, ProofError> {
        let (head, note) = text.split_once("\n\n").ok_or(ProofError::Form)?;
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default();
        if first == INCLUSION {
            let entry = lines.next().and_then(|line| line.strip_prefix("extra "));
            let index = lines.next().and_then(|line| line.strip_prefix("index "));
            let (entry, index) = entry.zip(index).ok_or(ProofError::Form)?;
            return Ok(Proof::Inclusion(Inclusion {
                entry: BASE64.decode(entry).map_err(|_| ProofError::Form)?,
                index: index.parse().map_err(|_| ProofError::Form)?,
                hashes: parse_hashes(lines)?,
                note: Note::parse(note.as_bytes())?,
            }));
        }
        let old = first.strip_prefix("old ").ok_or(ProofError::Form)?;
        Ok(Proof::Consistency(Consistency {
            old: old.parse().map_err(|_| ProofError::Form)?,
            hashes: parse_hashes(lines)?,
            note: Note::parse(note.as_bytes())?,
        }))
    }
}

fn body(hashes: &[Hash], note: &Note) -> String {
    let hashes: String = hashes.iter().map(|hash| BASE64.encode(hash) + "\n").collect();
    hashes + "\n" + &note.to_text()
}

fn parse_hashes<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Hash>, ProofError> {
    let hash = |line| BASE64.decode(line).ok()?.try_into().ok();
    lines.map(hash).collect::<Option<_>>().ok_or(ProofError::Form)
}

fn check_signed(note: &Note, key: &VerifierKey) -> Result<(), ProofError> {
    match note.checkpoint.origin == key.name && note.signed_by(key).is_some() {
        true => Ok(()),
        false => Err(ProofError::NotSigned {
            key: key.name.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::note::origin;
    use harborseal_segment::node::NodeKey;

    fn note(node: &NodeKey, entries: &[&[u8]]) -> Note {
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let checkpoint = Checkpoint {
            origin: origin(&node.public().id()),
            size: leaves.len() as u64,
            root: of(&leaves, leaves.len() as u64),
        };
        Note::signed(checkpoint, node)
    }

    fn of(leaves: &[Hash], size: u64) -> Hash {
        let Ok(root) = tree::root(size, &mut |level, index| subtree(leaves, level, index));
        root
    }

    fn subtree(leaves: &[Hash], level: u32, index: u64) -> Result<Hash, std::convert::Infallible> {
        let range = (index << level) as usize..((index + 1) << level) as usize;
        Ok(super::super::tiles::joined(&leaves[range]))
    }

    const ENTRIES: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];

    #[test]
    fn an_inclusion_proof_stands_alone_and_survives_no_change() {
        let node = NodeKey::from_bytes(&[1; 32]);
        let key = VerifierKey::of_node(&node.public());
        let leaves: Vec<Hash> = ENTRIES.iter().map(|entry| leaf_hash(entry)).collect();
        let Ok(hashes) = tree::inclusion_proof(2, 5, &mut |level, index| subtree(&leaves, level, index));
        let proof = Inclusion {
            entry: b"c".to_vec(),
            index: 2,
            hashes,
            note: note(&node, &ENTRIES),
        };
        let read = Proof::parse(&proof.to_text()).expect("a proof");
        assert_eq!(read, Proof::Inclusion(proof.clone()));
        assert_eq!(proof.check(&key), Ok(()));
        let changes: [fn(&mut Inclusion); 3] = [
            |proof| proof.entry = b"x".to_vec(),
            |proof| proof.index = 3,
            |proof| proof.hashes[0][0] ^= 1,
        ];
        for change in changes {
            let mut changed = proof.clone();
            change(&mut changed);
            assert!(matches!(changed.check(&key), Err(ProofError::NotIncluded { .. })));
        }
        let other = VerifierKey::of_node(&NodeKey::from_bytes(&[2; 32]).public());
        assert!(matches!(proof.check(&other), Err(ProofError::NotSigned { .. })));
    }

    #[test]
    fn a_consistency_proof_holds_for_the_checkpoint_it_is_about_and_no_other() {
        let node = NodeKey::from_bytes(&[1; 32]);
        let key = VerifierKey::of_node(&node.public());
        let leaves: Vec<Hash> = ENTRIES.iter().map(|entry| leaf_hash(entry)).collect();
        let Ok(hashes) = tree::consistency_proof(3, 5, &mut |level, index| subtree(&leaves, level, index));
        let proof = Consistency {
            old: 3,
            hashes,
            note: note(&node, &ENTRIES),
        };
        assert_eq!(
            Proof::parse(&proof.to_text()),
            Ok(Proof::Consistency(proof.clone()))
        );
        assert_eq!(proof.check(&key, &note(&node, &ENTRIES[..3])), Ok(()));
        let shown_to_another = note(&node, &[b"a", b"b", b"x"]);
        assert_eq!(
            proof.check(&key, &shown_to_another),
            Err(ProofError::NotConsistent { old: 3, size: 5 })
        );
        assert_eq!(
            proof.check(&key, &note(&node, &ENTRIES[..2])),
            Err(ProofError::OtherCheckpoint { found: 3, kept: 2 })
        );
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        for text in [
            "",
            "old",
            "old x\n\n",
            "c2sp.org/tlog-proof@v1\n\n",
            "old 3\nAAAA\n\nx",
        ] {
            assert!(Proof::parse(text).is_err(), "{text:?}");
        }
    }
}
