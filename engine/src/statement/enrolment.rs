//! The statement by which a customer's key becomes the one that a node seals to.
//!
//! ```text
//! harborseal/v1/enrolment
//! public-key hsp1…              the KEM key to seal to, and the signing key that signs this
//! recovery hsp1…                any number: whom else the customer wants every segment to open for
//! audit-salt HEX                under which the node's audit log names the customer
//! seq N                         1 for the first, then one more each time
//! made RFC 3339
//! previous HEX                  from 2 on: SHA-256 of the statement that this one replaces
//! signature …                   by the signing key of public-key
//! previous-signature …          from 2 on: by the signing key of the statement that this one replaces
//! ```
//!
//! Whoever can write to a node's disk can put any file in the place of this one. What they cannot do is make one that follows the one in force: only the
//! key in force signs its successor. The first one is what people compare by its fingerprint.

use harborseal_segment::identity::{Identity, PublicKey};

use super::{Draft, Lines, SIGNATURE, StatementError, hex, instant, parse_hex, parse_instant, parse_number};

const KIND: &str = "enrolment";
const PREVIOUS_SIGNATURE: &str = "previous-signature";
/// Recipients of every segment, the customer included. Each costs a segment 1.3 KiB and its preparation 290 µs; more than a few are a mistake.
pub const RECIPIENTS_MAX: usize = 16;

/// An enrolment whose own signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The key to seal to, with the signing key that vouches for it.
    pub public: PublicKey,
    /// Who else every segment is sealed to, because the customer says so.
    pub recovery: Vec<PublicKey>,
    /// Under which the audit log names the customer.
    pub audit_salt: [u8; 32],
    /// Which of this customer's enrolments it is, from 1.
    pub seq: u64,
    /// When it was made, by the customer's clock: whole seconds since 1970.
    pub made_s: u64,
    /// SHA-256 of the statement that this one replaces.
    pub previous: Option<[u8; 32]>,
    /// By the key of the statement that this one replaces.
    previous_signature: Option<[u8; 64]>,
    signed: String,
    text: String,
    hash: [u8; 32],
}

/// Why one enrolment does not take the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// A first enrolment, where one is in force.
    #[error(
        "it is a first enrolment, and number {in_force} is in force: only the key in force can sign its own replacement (`harborseal enrol --replaces`)"
    )]
    First {
        /// The number in force.
        in_force: u64,
    },
    /// An older one.
    #[error("it is number {seq}, and number {in_force} is in force: an old statement, played again")]
    Replayed {
        /// Its number.
        seq: u64,
        /// The number in force.
        in_force: u64,
    },
    /// It follows another statement.
    #[error(
        "it is number {seq} and replaces another statement than number {in_force}, which is in force: each replacement has to be taken in turn"
    )]
    NotItsSuccessor {
        /// Its number.
        seq: u64,
        /// The number in force.
        in_force: u64,
    },
    /// It says what it replaces, and the key of that did not sign it.
    #[error("the key that is in force did not sign it: nobody but its owner can replace it")]
    NotSignedByPrevious,
}

impl Enrolment {
    /// The text of a first enrolment.
    ///
    /// `public` has the signing key of `signer`.
    pub fn first(public: &PublicKey, recovery: &[PublicKey], signer: &Identity, made_s: u64) -> String {
        Self::draft(public, recovery, signer, 1, made_s).signed(&[(SIGNATURE, signer)])
    }

    /// The text of the enrolment that follows `old`, whose signing key is `old_signer`'s.
    pub fn next(
        public: &PublicKey,
        recovery: &[PublicKey],
        signer: &Identity,
        made_s: u64,
        (old, old_signer): (&Enrolment, &Identity),
    ) -> String {
        let mut draft = Self::draft(public, recovery, signer, old.seq.saturating_add(1), made_s);
        draft.line("previous", hex(&old.hash));
        draft.signed(&[(SIGNATURE, signer), (PREVIOUS_SIGNATURE, old_signer)])
    }

    fn draft(public: &PublicKey, recovery: &[PublicKey], signer: &Identity, seq: u64, made_s: u64) -> Draft {
        let mut draft = Draft::new(KIND);
        draft.line("public-key", public.to_text());
        for key in recovery {
            draft.line("recovery", key.to_text());
        }
        draft.line("audit-salt", hex(&signer.audit_salt()));
        draft.line("seq", seq);
        draft.line("made", instant(made_s));
        draft
    }

    /// Parses a statement and checks that the key it enrols signed it.
    ///
    /// # Errors
    /// What is wrong with it. Whether it may take another's place is for [`Enrolment::replaces`] to say.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let mut lines = Lines::of(KIND, text)?;
        let public = lines.key("public-key")?;
        let mut recovery = Vec::new();
        while let Some(key) = lines.optional("recovery").map(str::parse) {
            let line = lines.taken;
            recovery.push(key.map_err(|why| StatementError::Key { line, why })?);
        }
        let audit_salt = lines.parsed("audit-salt", parse_hex)?;
        let seq = lines.parsed("seq", parse_number)?;
        let made_s = lines.parsed("made", parse_instant)?;
        let previous = match seq {
            0 | 1 => None,
            _ => Some(lines.parsed("previous", parse_hex)?),
        };
        let signed = lines.so_far().to_owned();
        let signature = lines.parsed(SIGNATURE, super::parse_signature)?;
        let previous_signature = match previous {
            None => None,
            Some(_) => Some(lines.parsed(PREVIOUS_SIGNATURE, super::parse_signature)?),
        };
        lines.end()?;
        if !public.verifies(signed.as_bytes(), &signature) {
            return Err(StatementError::Forged);
        }
        let enrolment = Enrolment {
            public,
            recovery,
            audit_salt,
            seq,
            made_s,
            previous,
            previous_signature,
            signed,
            hash: lines.hash(),
            text: lines.text,
        };
        enrolment.consistent()
    }

    fn consistent(self) -> Result<Self, StatementError> {
        let recipients: Vec<_> = self.recipients().collect();
        let kem_keys: std::collections::HashSet<_> =
            recipients.iter().map(|key| key.kem_key_bytes()).collect();
        let wrong = match () {
            () if self.seq == 0 => "statements are numbered from 1",
            () if recipients.len() > RECIPIENTS_MAX => "it names more than 15 recovery keys",
            () if kem_keys.len() < recipients.len() => "it names one recipient twice",
            () => return Ok(self),
        };
        Err(StatementError::Contradiction(wrong))
    }

    /// Whom a segment is to be sealed to: the customer, then the recovery recipients.
    pub fn recipients(&self) -> impl Iterator<Item = &PublicKey> {
        std::iter::once(&self.public).chain(&self.recovery)
    }

    /// The whole statement, as it was written.
    pub fn to_text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the statement: of its file as it was written.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The signing key in a form to compare out of band.
    pub fn fingerprint(&self) -> String {
        self.public.fingerprint()
    }

    /// Whether this one may take the place of `old`: it names it, comes right after it, and `old`'s own signing key signed it.
    ///
    /// # Errors
    /// Why not.
    pub fn replaces(&self, old: &Enrolment) -> Result<(), ReplaceError> {
        let (seq, in_force) = (self.seq, old.seq);
        let Some((previous, signature)) = self.previous.as_ref().zip(self.previous_signature.as_ref()) else {
            return Err(ReplaceError::First { in_force });
        };
        if seq <= in_force {
            return Err(ReplaceError::Replayed { seq, in_force });
        }
        if seq != in_force + 1 || *previous != old.hash {
            return Err(ReplaceError::NotItsSuccessor { seq, in_force });
        }
        match old.public.verifies(self.signed.as_bytes(), signature) {
            true => Ok(()),
            false => Err(ReplaceError::NotSignedByPrevious),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harborseal_segment::random::FixedBytes;

    const MADE_S: u64 = 1_795_000_000;

    fn identity(seed: u8) -> Identity {
        Identity::generate_p256(&mut FixedBytes(&[seed; 64]))
    }

    fn first(seed: u8, recovery: &[PublicKey]) -> String {
        let signer = identity(seed);
        Enrolment::first(signer.public(), recovery, &signer, MADE_S)
    }

    fn next(seed: u8, old: &Enrolment, old_seed: u8) -> String {
        let signer = identity(seed);
        let old = (old, &identity(old_seed));
        Enrolment::next(signer.public(), &[], &signer, MADE_S, old)
    }

    fn parsed(text: &str) -> Enrolment {
        Enrolment::parse(text).expect("a whole statement")
    }

    #[test]
    fn an_enrolment_reads_back_whatever_mail_did_to_its_line_ends() {
        let text = first(1, &[identity(9).public().clone()]);
        let read = parsed(&text);
        assert_eq!((&read.public, read.recovery.len()), (identity(1).public(), 1));
        assert_eq!((read.seq, read.made_s, read.previous), (1, MADE_S, None));
        assert_eq!(read.audit_salt, identity(1).audit_salt());
        assert_eq!(parsed(&text.replace('\n', " \r\n")), read);
        assert_eq!(parsed(text.trim_end()), read);
        use sha2::{Digest, Sha256};
        assert_eq!(read.hash()[..], Sha256::digest(&text)[..], "the file's own hash");
    }

    #[test]
    fn every_changed_character_is_refused() {
        let text = first(1, &[identity(9).public().clone()]);
        for at in 0..text.trim_end().len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(Enrolment::parse(&changed).is_err(), "at {at}: {changed}");
        }
    }

    #[test]
    fn a_cut_statement_says_what_is_missing() {
        let text = first(1, &[]);
        let lines: Vec<&str> = text.lines().collect();
        let words = ["public-key", "audit-salt", "seq", "made", "signature"];
        for (kept, missing) in (1..).zip(words) {
            let cut = lines[..kept].join("\n");
            assert_eq!(Enrolment::parse(&cut), Err(StatementError::Cut { missing }));
        }
        let wanted = "enrolment";
        assert_eq!(
            Enrolment::parse(""),
            Err(StatementError::NotAStatement { wanted })
        );
        let line = lines.len() + 1;
        let refused = Enrolment::parse(&format!("{text}more")).expect_err("unsigned");
        assert!(matches!(refused, StatementError::Line { line: at, .. } if at == line));
    }

    #[test]
    fn a_swapped_key_or_recovery_recipient_is_forged() {
        let text = first(1, &[identity(9).public().clone()]);
        let swapped = text.replace(&identity(1).public().to_text(), &identity(2).public().to_text());
        assert_eq!(Enrolment::parse(&swapped), Err(StatementError::Forged));
        let added = text.replace(&identity(9).public().to_text(), &identity(2).public().to_text());
        assert_eq!(Enrolment::parse(&added), Err(StatementError::Forged));
        let without: String = text
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("recovery"))
            .collect();
        assert_eq!(Enrolment::parse(&without), Err(StatementError::Forged));
    }

    #[test]
    fn a_statement_of_another_kind_is_not_an_enrolment() {
        let other = first(1, &[]).replace("v1/enrolment", "v1/grant");
        let refused = Enrolment::parse(&other).expect_err("a grant");
        assert!(matches!(refused, StatementError::OtherKind { .. }), "{refused}");
    }

    #[test]
    fn a_recipient_named_twice_or_too_many_are_refused() {
        let twice = first(1, &[identity(1).public().clone()]);
        assert!(matches!(
            Enrolment::parse(&twice),
            Err(StatementError::Contradiction(_))
        ));
        let many: Vec<PublicKey> = (2..18).map(|seed| identity(seed).public().clone()).collect();
        assert!(matches!(
            Enrolment::parse(&first(1, &many)),
            Err(StatementError::Contradiction(_))
        ));
        assert!(Enrolment::parse(&first(1, &many[1..])).is_ok());
    }

    #[test]
    fn only_the_key_in_force_signs_its_replacement() {
        let old = parsed(&first(1, &[]));
        let new = parsed(&next(2, &old, 1));
        assert_eq!((new.seq, new.replaces(&old)), (2, Ok(())));
        // The same key again, with another recovery recipient, say.
        assert_eq!(parsed(&next(1, &old, 1)).replaces(&old), Ok(()));
        let mallory = parsed(&next(3, &old, 3));
        assert_eq!(mallory.replaces(&old), Err(ReplaceError::NotSignedByPrevious));
        let in_force = 1;
        assert_eq!(
            parsed(&first(3, &[])).replaces(&old),
            Err(ReplaceError::First { in_force })
        );
    }

    #[test]
    fn an_old_statement_does_not_come_back() {
        let one = parsed(&first(1, &[]));
        let two = parsed(&next(2, &one, 1));
        let three = parsed(&next(3, &two, 2));
        let (seq, in_force) = (2, 3);
        assert_eq!(
            two.replaces(&three),
            Err(ReplaceError::Replayed { seq, in_force })
        );
        assert_eq!(
            two.replaces(&two),
            Err(ReplaceError::Replayed { seq, in_force: 2 })
        );
        let (seq, in_force) = (3, 1);
        assert_eq!(
            three.replaces(&one),
            Err(ReplaceError::NotItsSuccessor { seq, in_force })
        );
        // Two replacements of one statement: whichever came first stays.
        let rival = parsed(&next(4, &one, 1));
        let (seq, in_force) = (3, 2);
        assert_eq!(
            three.replaces(&rival),
            Err(ReplaceError::NotItsSuccessor { seq, in_force })
        );
    }
}
