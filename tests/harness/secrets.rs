//! What a customer's identity opens of segments: the secrets themselves, to be looked for where they must not be; and what stands in clear
//! beside them.

use std::path::Path;

use harborseal_segment::block::BlockType;
use harborseal_segment::body::{KeyBody, KeyEntry};
use harborseal_segment::head::Head;
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::{SegmentId, StreamId};
use harborseal_segment::keys::{Secret, StreamKeys, Unwrapped, unwrap};
use harborseal_segment::open::Origin;
use harborseal_segment::scan::{Item, Scanner};
use hkdf::Hkdf;
use sha2::Sha256;

use super::memory::Needle;

/// A STREAM block, as everybody can read it.
pub struct SealedStream {
    pub id: StreamId,
    pub slot: u32,
    pub commitment: Vec<u8>,
    pub body_len: u32,
}

/// The blocks of a segment that say whose it is, in their order.
pub struct Tables {
    pub origin: Origin,
    pub id: SegmentId,
    pub entries: Vec<KeyEntry>,
    pub streams: Vec<SealedStream>,
}

impl Tables {
    /// Reads them from a segment, open or closed.
    pub fn read(path: &Path) -> Tables {
        let bytes = std::fs::read(path).expect("a segment can be read");
        let head = Head::read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut tables = Tables {
            origin: head.origin(),
            id: head.id,
            entries: Vec::new(),
            streams: Vec::new(),
        };
        let mut scanner = Scanner::new(&bytes, head.id);
        while let Some(item) = scanner.next_item().expect("bytes in memory can be read") {
            let Item::Block(block) = item else { continue };
            match block.header.block_type {
                BlockType::Key => {
                    let body = KeyBody::parse(block.body()).expect("the engine wrote it");
                    tables.entries.extend(body.entries);
                }
                BlockType::Stream => tables.streams.push(SealedStream {
                    id: block.header.stream_id,
                    slot: block.header.key_slot,
                    commitment: block.header.extension(block.bytes)[..32].to_vec(),
                    body_len: block.header.body_len,
                }),
                _ => {}
            }
        }
        tables
    }

    /// What the identity opens, and in which slot.
    pub fn opened_by(&self, identity: &Identity) -> Option<(u32, Unwrapped)> {
        let open = |entry: &KeyEntry| {
            let opened = unwrap(identity, entry, &self.origin.node_id, &self.id).ok()?;
            Some((entry.slot, opened))
        };
        self.entries.iter().find_map(open)
    }

    /// S and H of the identity, and K_st and K_enc of each of its streams.
    pub fn secrets_of(&self, identity: &Identity) -> Vec<Needle> {
        let Some((slot, opened)) = self.opened_by(identity) else {
            return Vec::new();
        };
        let Secret::Customer(secret) = &opened.secret else {
            panic!("nobody was granted anything");
        };
        let mut needles = vec![
            Needle::new(format!("S of {}", self.id), secret.as_bytes()),
            Needle::new(format!("H of {}", self.id), opened.hint.as_bytes()),
        ];
        for stream in self.streams.iter().filter(|stream| stream.slot == slot) {
            let keys = StreamKeys::derive(&self.id, secret, &stream.id);
            assert_eq!(
                keys.commitment()[..],
                stream.commitment,
                "the derivation is the engine's"
            );
            let k_st = keys.secret().as_bytes();
            let mut k_enc = [0; 32];
            Hkdf::<Sha256>::from_prk(k_st)
                .expect("32 bytes")
                .expand(b"harborseal/v1/aead", &mut k_enc)
                .expect("32 bytes");
            needles.push(Needle::new(format!("K_st of {} in {}", stream.id, self.id), k_st));
            needles.push(Needle::new(
                format!("K_enc of {} in {}", stream.id, self.id),
                &k_enc,
            ));
        }
        needles
    }
}

/// An identity, from its file.
pub fn identity(path: &Path) -> Identity {
    let text = std::fs::read_to_string(path).expect("the identity's file can be read");
    Identity::from_file_text(&text).expect("keygen made it")
}
