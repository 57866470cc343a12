//! Checkpoints as signed notes: C2SP signed-note, tlog-checkpoint and tlog-cosignature.
//!
//! ```text
//!   harborseal/v1/audit/<node id>          origin, and the name of the node's key
//!   <size>                                 decimal
//!   <root>                                 base64 of 32 bytes
//!
//!   — <name> <base64(key id[4] ‖ signature)>      the node's, Ed25519 over the text above the empty line
//!   — <name> <base64(key id[4] ‖ time u64 BE ‖ signature)>     a witness's, over "cosignature/v1\ntime <time>\n" ‖ text
//! ```
//!
//! The text that the node signs begins with a label of its own, as everything it signs does. A line by a key that is not known
//! proves nothing and does no harm: it is kept.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use harborseal_segment::ids::NodeId;
use harborseal_segment::merkle::Hash;
use harborseal_segment::node::{NodeKey, NodePublic};
use sha2::{Digest, Sha256};

/// What every origin begins with; the node's id in hex follows.
pub const ORIGIN_LABEL: &str = "harborseal/v1/audit/";
/// Longest note read: a checkpoint has 200 bytes, and each witness adds 150.
pub const NOTE_BYTES_MAX: usize = 64 << 10;

/// Algorithms of signed-note: plain Ed25519, and Ed25519 with a time, for witnesses.
const ED25519: u8 = 0x01;
const COSIGNATURE_V1: u8 = 0x04;

/// The head of a log: how many entries, and the root over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Hash,
}

/// Why a note was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the form of a signed note.
    #[error("not a signed note (C2SP signed-note)")]
    Form,
    /// A signed note, but no checkpoint.
    #[error("not a checkpoint (C2SP tlog-checkpoint)")]
    Checkpoint,
    /// Not a verifier key.
    #[error("not a verifier key: NAME+HASH+KEY is expected (C2SP signed-note)")]
    Key,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    fn parse(text: &str) -> Option<Checkpoint> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let plain = size == "0" || (!size.starts_with('0') && size.bytes().all(|b| b.is_ascii_digit()));
        // Further lines are extensions, which this log has none of and a reader passes over; none may be empty.
        let whole = !origin.is_empty() && plain && lines.all(|line| !line.is_empty());
        let root = BASE64.decode(root).ok()?.try_into().ok()?;
        whole.then_some(Checkpoint {
            origin: origin.to_owned(),
            size: size.parse().ok()?,
            root,
        })
    }
}

/// A checkpoint with the lines that sign it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it says.
    pub checkpoint: Checkpoint,
    text: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    key_id: [u8; 4],
    signature: Vec<u8>,
}

impl Note {
    /// A checkpoint signed by the node.
    pub fn signed(checkpoint: Checkpoint, node: &NodeKey) -> Note {
        let text = checkpoint.text();
        let key = VerifierKey::of_node(&node.public());
        let line = Line {
            name: key.name.clone(),
            key_id: key.id(),
            signature: node.sign(text.as_bytes()).to_vec(),
        };
        Note {
            checkpoint,
            text,
            lines: vec![line],
        }
    }

    /// Reads a note. Its signatures are not yet believed.
    pub fn parse(bytes: &[u8]) -> Result<Note, NoteError> {
        let note = std::str::from_utf8(bytes)
            .ok()
            .filter(|note| note.len() <= NOTE_BYTES_MAX && !note.chars().any(|c| c < ' ' && c != '\n'));
        let at = note
            .and_then(|note| note.rfind("\n\n").map(|at| (note, at)))
            .ok_or(NoteError::Form)?;
        let (note, at) = at;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let lines: Option<Vec<Line>> = lines.split('\n').map(Line::parse).collect();
        Ok(Note {
            checkpoint: Checkpoint::parse(text).ok_or(NoteError::Checkpoint)?,
            text: text.to_owned(),
            lines: lines.ok_or(NoteError::Form)?,
        })
    }

    /// The whole note.
    pub fn to_text(&self) -> String {
        let mut note = self.text.clone() + "\n";
        for line in &self.lines {
            let bytes = [&line.key_id[..], &line.signature].concat();
            note += &format!("— {} {}\n", line.name, BASE64.encode(bytes));
        }
        note
    }

    /// Whether the holder of this key signed it; of a witness, when.
    pub fn signed_by(&self, key: &VerifierKey) -> Option<Signed> {
        let id = key.id();
        let of_key = |line: &&Line| line.name == key.name && line.key_id == id;
        self.lines
            .iter()
            .filter(of_key)
            .find_map(|line| key.verify(&self.text, &line.signature))
    }

    /// Whether lines beside the node's stand under it.
    pub fn is_cosigned(&self, node: &NodePublic) -> bool {
        let id = VerifierKey::of_node(node).id();
        self.lines.iter().any(|line| line.key_id != id)
    }

    /// Adds the lines of another note over the same checkpoint that this one lacks.
    pub fn add_lines_of(&mut self, other: &Note) {
        if self.text == other.text {
            for line in &other.lines {
                if !self.lines.contains(line) {
                    self.lines.push(line.clone());
                }
            }
        }
    }
}

impl Line {
    fn parse(line: &str) -> Option<Line> {
        let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
        let bytes = BASE64.decode(signature).ok()?;
        let (key_id, signature) = bytes.split_first_chunk::<4>()?;
        let named = is_name(name) && !signature.is_empty();
        named.then(|| Line {
            name: name.to_owned(),
            key_id: *key_id,
            signature: signature.to_vec(),
        })
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c == '+')
}

/// What a signature line was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// When a witness saw it, in seconds since 1970. A log's own line says no time.
    pub time_s: Option<u64>,
}

/// A key that signs notes, as `NAME+HASH+KEY` (signed-note calls it a vkey).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    /// Its name: a node's is its log's origin.
    pub name: String,
    algorithm: u8,
    /// Its Ed25519 key.
    pub public: NodePublic,
}

impl VerifierKey {
    /// The key of a node's log.
    pub fn of_node(node: &NodePublic) -> VerifierKey {
        VerifierKey {
            name: origin(&node.id()),
            algorithm: ED25519,
            public: *node,
        }
    }

    /// SHA-256(name ‖ "\n" ‖ algorithm ‖ key), its first four bytes.
    pub fn id(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', self.algorithm])
            .chain_update(self.public.0)
            .finalize();
        *digest
            .first_chunk()
            .expect("a SHA-256 digest is longer than a key id")
    }

    /// `NAME+HASH+KEY`.
    pub fn to_text(&self) -> String {
        let id: String = self.id().iter().map(|byte| format!("{byte:02x}")).collect();
        let key = [&[self.algorithm], &self.public.0[..]].concat();
        format!("{}+{id}+{}", self.name, BASE64.encode(key))
    }

    /// Reads `NAME+HASH+KEY`, for Ed25519 with or without a witness's time.
    pub fn parse(text: &str) -> Result<VerifierKey, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let key = BASE64.decode(key).map_err(|_| NoteError::Key)?;
        let (Some(algorithm), Ok(public)) = (key.first(), key.get(1..).unwrap_or_default().try_into()) else {
            return Err(NoteError::Key);
        };
        let key = VerifierKey {
            name: name.to_owned(),
            algorithm: *algorithm,
            public: NodePublic(public),
        };
        // The hash is there against slips of the pen.
        let known = [ED25519, COSIGNATURE_V1].contains(algorithm);
        match known && is_name(name) && key.to_text() == text.trim() {
            true => Ok(key),
            false => Err(NoteError::Key),
        }
    }

    fn verify(&self, text: &str, signature: &[u8]) -> Option<Signed> {
        if self.algorithm == ED25519 {
            let signature = signature.try_into().ok()?;
            let good = self.public.verify(text.as_bytes(), signature);
            return good.then_some(Signed { time_s: None });
        }
        let (time, signature) = signature.split_first_chunk::<8>()?;
        let time_s = u64::from_be_bytes(*time);
        let message = format!("cosignature/v1\ntime {time_s}\n{text}");
        let good = self.public.verify(message.as_bytes(), signature.try_into().ok()?);
        good.then_some(Signed { time_s: Some(time_s) })
    }
}

/// The origin of a node's log.
pub fn origin(node: &NodeId) -> String {
    format!("{ORIGIN_LABEL}{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> (NodeKey, Note) {
        let node = NodeKey::from_bytes(&[1; 32]);
        let checkpoint = Checkpoint {
            origin: origin(&node.public().id()),
            size: 7,
            root: [5; 32],
        };
        let note = Note::signed(checkpoint, &node);
        (node, note)
    }

    fn cosign(note: &Note, key: &NodeKey, name: &str, time_s: u64) -> (VerifierKey, Note) {
        let witness = VerifierKey {
            name: name.to_owned(),
            algorithm: COSIGNATURE_V1,
            public: key.public(),
        };
        let message = format!("cosignature/v1\ntime {time_s}\n{}", note.text);
        let mut signed = note.clone();
        signed.lines.push(Line {
            name: name.to_owned(),
            key_id: witness.id(),
            signature: [&time_s.to_be_bytes()[..], &key.sign(message.as_bytes())].concat(),
        });
        (witness, signed)
    }

    #[test]
    fn a_note_reads_back_and_is_its_nodes() {
        let (node, note) = note();
        let read = Note::parse(note.to_text().as_bytes()).expect("a note");
        assert_eq!(read, note);
        assert!(read.signed_by(&VerifierKey::of_node(&node.public())).is_some());
        let other = NodeKey::from_bytes(&[2; 32]).public();
        assert!(read.signed_by(&VerifierKey::of_node(&other)).is_none());
    }

    #[test]
    fn a_changed_note_is_nobodys() {
        let (node, note) = note();
        let key = VerifierKey::of_node(&node.public());
        let text = note.to_text();
        for (from, to) in [("\n7\n", "\n8\n"), ("BQUF", "BQUE"), ("audit/", "audit/0")] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            let accepted = Note::parse(changed.as_bytes()).is_ok_and(|note| note.signed_by(&key).is_some());
            assert!(!accepted, "{from:?} made {to:?}");
        }
    }

    #[test]
    fn a_witness_signs_with_its_time_and_its_line_is_kept() {
        let (node, note) = note();
        let (witness, cosigned) = cosign(&note, &NodeKey::from_bytes(&[3; 32]), "witness.example/w1", 1234);
        let read = Note::parse(cosigned.to_text().as_bytes()).expect("a note");
        assert_eq!(read.signed_by(&witness), Some(Signed { time_s: Some(1234) }));
        assert!(read.signed_by(&VerifierKey::of_node(&node.public())).is_some());
        assert!(read.is_cosigned(&node.public()) && !note.is_cosigned(&node.public()));
        // Another time, or the same key under another name, did not sign.
        let mut later = read.clone();
        later.lines[1].signature[7] ^= 1;
        assert_eq!(later.signed_by(&witness), None);
        let mut gathered = note;
        gathered.add_lines_of(&read);
        assert_eq!(gathered, read);
    }

    #[test]
    fn keys_read_back_and_slips_are_refused() {
        let (node, _) = note();
        let key = VerifierKey::of_node(&node.public());
        assert_eq!(VerifierKey::parse(&key.to_text()), Ok(key.clone()));
        let text = key.to_text();
        for wrong in [
            &text[..text.len() - 2],
            &text.replacen("audit", "audio", 1),
            "",
            "a+b",
            "a+00000000+AQ==",
        ] {
            assert_eq!(VerifierKey::parse(wrong), Err(NoteError::Key), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let good = note().1.to_text();
        let cases: [(&str, String); 6] = [
            ("nothing", String::new()),
            ("unsigned", good.split("\n\n").next().expect("text").to_owned()),
            ("a control character", good.replacen("harbor", "har\tbor", 1)),
            (
                "a size with a zero before it",
                good.replacen("\n7\n", "\n07\n", 1),
            ),
            ("a signed size", good.replacen("\n7\n", "\n+7\n", 1)),
            ("a cut line", good.trim_end().to_owned()),
        ];
        for (what, text) in cases {
            assert!(Note::parse(text.as_bytes()).is_err(), "{what}");
        }
    }
}
