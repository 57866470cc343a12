//! The statement by which a node lets somebody open erasable footage: E of named slots, sealed to one reader's key.
//!
//! ```text
//! harborseal/v1/release
//! node HEX                      the node's public key
//! made RFC 3339
//! to-key hsp1…                  whose identity opens it, beside what opens the footage itself
//! to TEXT                       who that is, in the operator's words
//! purpose TEXT                  why
//! segments N
//! enc BASE64URL                 HPKE's encapsulated key
//! sealed BASE64URL              of N × 52 bytes: segment_id[16] · slot u32 · E[32]
//! signature …                   by the node
//! ```
//!
//! HPKE's info is "harborseal/v1/release" ‖ SHA-256 of all lines before `enc`: what is sealed opens for nobody else and under no other words. EK is never in it, so
//! a release says nothing about any other segment. What was released cannot be taken back: erasing later closes what is in the segments, and
//! not what somebody was given.

use harborseal_segment::erase::{EraseSecret, Release};
use harborseal_segment::identity::{Opener, PublicKey};
use harborseal_segment::ids::SegmentId;
use harborseal_segment::node::{NodeKey, NodePublic};
use harborseal_segment::random::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::grant::UseError;
use super::{Draft, Lines, SIGNATURE, StatementError, hex, instant, parse_hex, parse_instant, parse_number};
use crate::text::OneLine;

const KIND: &str = "release";
const ROW_LEN: usize = 16 + 4 + 32;

/// What a release says before it is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseTerms {
    /// Whose identity opens it.
    pub to_key: PublicKey,
    /// Who that is.
    pub to: String,
    /// Why.
    pub purpose: String,
    /// When it was made, by the node's clock: whole seconds since 1970.
    pub made_s: u64,
}

/// A release whose signature holds. What is in it is still sealed.
pub struct SealedRelease {
    /// The node that made it.
    pub node: NodePublic,
    /// What it says of itself.
    pub terms: ReleaseTerms,
    /// Slots in it.
    pub segments: u64,
    info: Vec<u8>,
    enc: Vec<u8>,
    sealed: Vec<u8>,
}

impl ReleaseTerms {
    /// The text of a release of these slots.
    pub fn seal(&self, releases: &[Release], node: &NodeKey, mut rng: &mut dyn CryptoRng) -> String {
        let mut draft = Draft::new(KIND);
        draft.line("node", hex(&node.public().0));
        draft.line("made", instant(self.made_s));
        draft.line("to-key", self.to_key.to_text());
        draft.line("to", OneLine(self.to.trim()));
        draft.line("purpose", OneLine(self.purpose.trim()));
        draft.line("segments", releases.len());
        let mut rows = Zeroizing::new(Vec::with_capacity(releases.len() * ROW_LEN));
        for release in releases {
            rows.extend_from_slice(&release.segment_id.0);
            rows.extend_from_slice(&release.slot.to_le_bytes());
            rows.extend_from_slice(release.secret.as_bytes());
        }
        let (enc, sealed) = self.to_key.seal_to(&info(draft.text()), &rows, &mut rng);
        draft.line("enc", super::base64(&enc));
        draft.line("sealed", super::base64(&sealed));
        draft.signed_by_node(node)
    }
}

impl SealedRelease {
    /// Parses a release and checks that the node it names signed it.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let mut lines = Lines::of(KIND, text)?;
        let node = NodePublic(lines.parsed("node", parse_hex)?);
        let made_s = lines.parsed("made", parse_instant)?;
        let to_key = lines.key("to-key")?;
        let to = lines.value("to")?.to_owned();
        let purpose = lines.value("purpose")?.to_owned();
        let segments = lines.parsed("segments", parse_number)?;
        let info = info(lines.so_far());
        let enc = lines.parsed("enc", super::parse_base64)?;
        let sealed = lines.parsed("sealed", super::parse_base64)?;
        let signed = lines.so_far().to_owned();
        let signature = lines.parsed(SIGNATURE, super::parse_signature)?;
        lines.end()?;
        if !node.verify(signed.as_bytes(), &signature) {
            return Err(StatementError::Forged);
        }
        let terms = ReleaseTerms {
            to_key,
            to,
            purpose,
            made_s,
        };
        Ok(SealedRelease {
            node,
            terms,
            segments,
            info,
            enc,
            sealed,
        })
    }

    /// What was released.
    ///
    /// # Errors
    /// It was sealed to another key, or does not hold what it says. Where a key on a token could not be used, its
    /// [`Opener::failure`] says why.
    pub fn open(&self, reader: &impl AsRef<Opener>) -> Result<Vec<Release>, UseError> {
        let opened = reader.as_ref().open_sealed(&self.enc, &self.sealed, &self.info);
        let rows = opened.ok_or(UseError::Foreign)?;
        if rows.len() as u64 != self.segments.saturating_mul(ROW_LEN as u64) {
            return Err(UseError::Malformed);
        }
        Ok(rows.chunks_exact(ROW_LEN).map(release).collect())
    }
}

fn release(row: &[u8]) -> Release {
    let part = "a row is cut to its length";
    let (segment_id, rest) = row.split_first_chunk::<16>().expect(part);
    let (slot, secret) = rest.split_first_chunk::<4>().expect(part);
    Release {
        segment_id: SegmentId(*segment_id),
        slot: u32::from_le_bytes(*slot),
        secret: EraseSecret::from_bytes(*secret.first_chunk().expect(part)),
    }
}

fn info(before: &str) -> Vec<u8> {
    [&b"harborseal/v1/release"[..], &Sha256::digest(before)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use harborseal_segment::identity::Identity;
    use harborseal_segment::random::os_random;

    fn made(to: &Identity) -> (String, Vec<Release>, NodeKey) {
        let release = |n: u8| Release {
            segment_id: SegmentId([n; 16]),
            slot: u32::from(n),
            secret: EraseSecret::from_bytes([n + 1; 32]),
        };
        let releases: Vec<Release> = (0..3).map(release).collect();
        let terms = ReleaseTerms {
            to_key: to.public().clone(),
            to: "Bob, of the insurance".to_owned(),
            purpose: "claim 17".to_owned(),
            made_s: 1_795_491_127,
        };
        let node = NodeKey::from_bytes(&[5; 32]);
        (terms.seal(&releases, &node, &mut os_random()), releases, node)
    }

    #[test]
    fn a_release_opens_for_whom_it_was_made_and_for_nobody_else() {
        for bob in [
            Identity::generate(&mut os_random()),
            Identity::generate_p256(&mut os_random()),
        ] {
            let (text, releases, node) = made(&bob);
            let sealed = SealedRelease::parse(&text).expect("whole");
            assert_eq!(sealed.node, node.public());
            assert_eq!((sealed.terms.purpose.as_str(), sealed.segments), ("claim 17", 3));
            let opened = sealed.open(&bob).expect("his");
            let facts = |release: &Release| (release.segment_id, release.slot, *release.secret.as_bytes());
            let expected: Vec<_> = releases.iter().map(facts).collect();
            assert_eq!(opened.iter().map(facts).collect::<Vec<_>>(), expected);
            let other = Identity::generate(&mut os_random());
            assert!(matches!(sealed.open(&other), Err(UseError::Foreign)));
        }
    }

    #[test]
    fn a_changed_release_is_refused_and_one_signed_anew_does_not_open() {
        let bob = Identity::generate(&mut os_random());
        let (text, ..) = made(&bob);
        let changed = text.replace("claim 17", "claim 18");
        assert!(matches!(
            SealedRelease::parse(&changed),
            Err(StatementError::Forged)
        ));
        for cut in text.lines().map(str::len).scan(0, |at, len| {
            *at += len + 1;
            Some(*at)
        }) {
            if cut < text.len() {
                assert!(SealedRelease::parse(&text[..cut]).is_err());
            }
        }
        // Another node puts its name to it: the words are part of what is sealed.
        let other = NodeKey::from_bytes(&[6; 32]);
        let lines: Vec<&str> = changed.lines().collect();
        let body = lines[..lines.len() - 1].join("\n") + "\n";
        let body = body.replace(lines[1], &format!("node {}", hex(&other.public().0)));
        let signature = super::super::base64(&other.sign(body.as_bytes()));
        let forged = SealedRelease::parse(&format!("{body}signature {signature}\n")).expect("it is signed");
        assert!(matches!(forged.open(&bob), Err(UseError::Foreign)));
    }
}
