//! The statement by which a customer hands over one camera's footage of the past: the keys of its streams in some segments, sealed to one other identity.
//!
//! ```text
//! harborseal/v1/grant
//! customer hsp1…                whose footage it is, and whose signing key signs this
//! to-key hsp1…                  whom the keys are sealed to
//! camera "front-door"           JSON text, as are purposes
//! purpose "…"
//! asked T T                     from, to: what export trims to
//! disclosed T T                 what the keys open, in fact: the camera's footage in whole segments
//! open-segments N               of them; what is recorded in those until they are closed is disclosed too
//! made T
//! expires T                     when our own tools stop taking it
//! streams N
//! enc BASE64URL                 HPKE, info = "harborseal/v1/grant-keys" ‖ SHA-256(all lines before this one)
//! keys BASE64URL                its ciphertext, of N times segment id[16] ‖ stream id[16] ‖ slot u32 ‖ K_st[32]
//! signature …
//! ```
//!
//! What is signed binds everything, and the ciphertext is bound to what stands above it: keys cannot be moved under other words, nor opened by anybody but the
//! grantee. What no signature can do is take a key back. `asked` and `expires` are for our tools to keep to, and a grantee who writes his own
//! opens all that is `disclosed`, for as long as he has the file.

use harborseal_segment::identity::{Identity, Opener};
use harborseal_segment::keys::StreamSecret;
use harborseal_segment::open::Granted;
use harborseal_segment::random::CryptoRng;
use harborseal_segment::{SegmentId, StreamId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    Draft, Lines, SIGNATURE, StatementError, Terms, base64, parse_base64, parse_instant, parse_number,
    parse_signature, parse_span, span,
};

const KIND: &str = "grant";
/// Bytes of one stream's entry among the keys.
const ENTRY_LEN: usize = 16 + 16 + 4 + 32;
/// How far a statement's making may lie ahead of one's own clock, in seconds: five minutes, as Kerberos has it (RFC 4120 §5.2.1).
pub const CLOCK_SKEW_S: u64 = 300;

/// What a grant is about to say, for its customer to look at before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disclosure {
    /// What was asked for: nanoseconds since 1970, the end outside.
    pub asked_ns: (u64, u64),
    /// What the keys open: the end outside.
    pub disclosed_ns: (u64, u64),
    /// How many of the segments are still being written.
    pub open_segments: u64,
}

/// A grant whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who, to whom, which camera, why.
    pub terms: Terms,
    /// Of when.
    pub disclosure: Disclosure,
    /// When it was made, by the customer's clock: whole seconds since 1970.
    pub made_s: u64,
    /// When tools stop taking it.
    pub expires_s: u64,
    /// How many streams' keys it holds.
    pub streams: u64,
    enc: Vec<u8>,
    sealed: Vec<u8>,
    info: Vec<u8>,
    hash: [u8; 32],
}

/// Why a genuine grant gives nothing to whoever has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UseError {
    /// Another identity than the grantee's.
    #[error("it was made for another identity")]
    Foreign,
    /// Its keys are sealed to the grantee, but are not what it says.
    #[error("it opens, and does not hold the keys that it says")]
    Malformed,
}

/// Whether a statement may be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Past its end.
    #[error("it expired at {}", super::instant(*expired_s))]
    Expired {
        /// Seconds since 1970.
        expired_s: u64,
    },
    /// Made in the future.
    #[error(
        "it was made at {}, which is still to come by this machine's clock ({}): one of the two clocks is wrong",
        super::instant(*made_s), super::instant(*now_s)
    )]
    FromTheFuture {
        /// Seconds since 1970.
        made_s: u64,
        /// By the clock here.
        now_s: u64,
    },
}

impl Grant {
    /// The text of a grant, signed by `customer`.
    pub fn make(
        terms: &Terms,
        disclosure: &Disclosure,
        (made_s, expires_s): (u64, u64),
        keys: &[Granted],
        customer: &Identity,
        rng: &mut impl CryptoRng,
    ) -> String {
        let mut draft = Draft::new(KIND);
        terms.write(&mut draft);
        draft.line("asked", span(disclosure.asked_ns));
        draft.line("disclosed", span(disclosure.disclosed_ns));
        draft.line("open-segments", disclosure.open_segments);
        draft.line("made", super::instant(made_s));
        draft.line("expires", super::instant(expires_s));
        draft.line("streams", keys.len());
        let mut text = Zeroizing::new(Vec::with_capacity(keys.len() * ENTRY_LEN));
        for granted in keys {
            text.extend_from_slice(&granted.segment_id.0);
            text.extend_from_slice(&granted.stream_id.0);
            text.extend_from_slice(&granted.slot.to_le_bytes());
            text.extend_from_slice(granted.secret.as_bytes());
        }
        let (enc, sealed) = terms.grantee.seal_to(&info(&draft.0), &text, rng);
        draft.line("enc", base64(&enc));
        draft.line("keys", base64(&sealed));
        draft.signed(&[(SIGNATURE, customer)])
    }

    /// Parses a grant and checks that the customer whom it names signed it.
    ///
    /// # Errors
    /// What is wrong with it. Whether that customer is the right one is for who knows its fingerprint to say.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let mut lines = Lines::of(KIND, text)?;
        let terms = Terms::parse(&mut lines)?;
        let asked_ns = lines.parsed("asked", parse_span)?;
        let disclosed_ns = lines.parsed("disclosed", parse_span)?;
        let open_segments = lines.parsed("open-segments", parse_number)?;
        let made_s = lines.parsed("made", parse_instant)?;
        let expires_s = lines.parsed("expires", parse_instant)?;
        let streams = lines.parsed("streams", parse_number)?;
        let info = info(lines.so_far());
        let enc = lines.parsed("enc", parse_base64)?;
        let sealed = lines.parsed("keys", parse_base64)?;
        let signed = lines.so_far().to_owned();
        let signature = lines.parsed(SIGNATURE, parse_signature)?;
        lines.end()?;
        if !terms.customer.verifies(signed.as_bytes(), &signature) {
            return Err(StatementError::Forged);
        }
        Ok(Grant {
            terms,
            disclosure: Disclosure {
                asked_ns,
                disclosed_ns,
                open_segments,
            },
            made_s,
            expires_s,
            streams,
            enc,
            sealed,
            info,
            hash: lines.hash(),
        })
    }

    /// The keys, which open for the grantee alone.
    ///
    /// # Errors
    /// It is for somebody else, or does not hold what it says.
    pub fn open(&self, grantee: &impl AsRef<Opener>) -> Result<Vec<Granted>, UseError> {
        let opened = grantee.as_ref().open_sealed(&self.enc, &self.sealed, &self.info);
        let text = opened.ok_or(UseError::Foreign)?;
        if text.len() as u64 != self.streams.saturating_mul(ENTRY_LEN as u64) {
            return Err(UseError::Malformed);
        }
        Ok(text.chunks_exact(ENTRY_LEN).map(entry).collect())
    }

    /// Whether it may be used at `now_s`.
    ///
    /// # Errors
    /// It expired, or was made in the future.
    pub fn in_time(&self, now_s: u64) -> Result<(), TimeError> {
        in_time(self.made_s, self.expires_s, now_s)
    }

    /// SHA-256 of the statement: of its file as it was written.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

/// `expires_s` is the first second in which it is too late.
pub(super) fn in_time(made_s: u64, expires_s: u64, now_s: u64) -> Result<(), TimeError> {
    if made_s > now_s.saturating_add(CLOCK_SKEW_S) {
        return Err(TimeError::FromTheFuture { made_s, now_s });
    }
    match now_s >= expires_s {
        true => Err(TimeError::Expired { expired_s: expires_s }),
        false => Ok(()),
    }
}

fn info(lines_before: &str) -> Vec<u8> {
    [&b"harborseal/v1/grant-keys"[..], &Sha256::digest(lines_before)].concat()
}

fn entry(bytes: &[u8]) -> Granted {
    let (segment_id, rest) = bytes
        .split_first_chunk()
        .expect("an entry begins with a segment's id");
    let (stream_id, rest) = rest.split_first_chunk().expect("then its stream's");
    let (slot, secret) = rest.split_first_chunk().expect("then its slot");
    Granted {
        segment_id: SegmentId(*segment_id),
        stream_id: StreamId(*stream_id),
        slot: u32::from_le_bytes(*slot),
        secret: StreamSecret::from_bytes(*secret.first_chunk().expect("then K_st, of 32 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harborseal_segment::random::FixedBytes;

    const S: u64 = 1_000_000_000;
    const MADE_S: u64 = 1_795_000_000;

    fn identity(seed: u8) -> Identity {
        Identity::generate_p256(&mut FixedBytes(&[seed; 64]))
    }

    fn terms() -> Terms {
        Terms {
            customer: identity(1).public().clone(),
            grantee: identity(2).public().clone(),
            camera: "front \"door\"\n".to_owned(),
            purpose: "Theft of 23 November".to_owned(),
        }
    }

    fn keys() -> Vec<Granted> {
        let key = |n: u8| Granted {
            segment_id: SegmentId([n; 16]),
            stream_id: StreamId([n + 100; 16]),
            slot: n.into(),
            secret: StreamSecret::from_bytes([n + 50; 32]),
        };
        vec![key(1), key(2)]
    }

    fn made() -> String {
        let disclosure = Disclosure {
            asked_ns: (MADE_S * S + 250_000_000, (MADE_S + 10) * S),
            disclosed_ns: ((MADE_S - 50) * S, (MADE_S + 60) * S),
            open_segments: 1,
        };
        let (times, mut rng) = ((MADE_S, MADE_S + 100), FixedBytes(&[7; 32]));
        Grant::make(&terms(), &disclosure, times, &keys(), &identity(1), &mut rng)
    }

    #[test]
    fn a_grant_reads_back_and_opens_for_its_grantee_alone() {
        let grant = Grant::parse(&made()).expect("whole");
        assert_eq!((&grant.terms, grant.streams), (&terms(), 2));
        assert_eq!(
            grant.disclosure.asked_ns,
            (MADE_S * S + 250_000_000, (MADE_S + 10) * S)
        );
        let opened = grant.open(&identity(2)).expect("his");
        for (granted, key) in opened.iter().zip(keys()) {
            assert_eq!(
                (granted.segment_id, granted.stream_id, granted.slot),
                (key.segment_id, key.stream_id, key.slot)
            );
            assert!(granted.secret.as_bytes() == key.secret.as_bytes());
        }
        for other in [1, 3] {
            assert_eq!(grant.open(&identity(other)).err(), Some(UseError::Foreign));
        }
        let x_wing = Identity::generate(&mut FixedBytes(&[2; 64]));
        assert_eq!(grant.open(&x_wing).err(), Some(UseError::Foreign));
    }

    #[test]
    fn every_changed_character_of_a_grant_is_refused() {
        let text = made();
        for at in 0..text.trim_end().len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(Grant::parse(&changed).is_err(), "at {at}: {changed}");
        }
    }

    #[test]
    fn keys_do_not_open_under_other_words_even_if_the_customer_signs_them() {
        let text = made();
        let (body, _) = text.split_once("signature").expect("signed");
        let moved = Draft(body.replace("front", "other")).signed(&[(SIGNATURE, &identity(1))]);
        let grant = Grant::parse(&moved).expect("the customer signed it");
        assert_eq!(grant.open(&identity(2)).err(), Some(UseError::Foreign));
    }

    #[test]
    fn a_grant_is_used_between_its_making_and_its_end_and_clocks_may_differ_a_little() {
        let grant = Grant::parse(&made()).expect("whole");
        let expired_s = MADE_S + 100;
        assert_eq!(grant.in_time(MADE_S - 300), Ok(()));
        assert_eq!(grant.in_time(expired_s - 1), Ok(()));
        assert_eq!(grant.in_time(expired_s), Err(TimeError::Expired { expired_s }));
        let now_s = MADE_S - 301;
        let refused = grant.in_time(now_s).expect_err("the future");
        assert_eq!(
            refused,
            TimeError::FromTheFuture {
                made_s: MADE_S,
                now_s
            }
        );
        assert!(refused.to_string().contains("clock"), "{refused}");
    }
}
