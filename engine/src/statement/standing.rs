//! The statement by which a customer lets somebody else see one camera from now on, until a day: the node adds a key for them to each segment of that time.
//!
//! ```text
//! harborseal/v1/standing-grant
//! customer hsp1…                whose footage it is, and whose signing key signs this
//! to-key hsp1…                  whom the node wraps K_st of the camera's streams to
//! camera "front-door"           JSON text, as are purposes
//! purpose "…"
//! granted T T                   from, to: segments made in this time get the key
//! audit-salt HEX                under which the node's audit log names the customer: that of its enrolment
//! made T
//! signature …
//! ```
//!
//! It holds no key: what it permits, the node does, and enters in its audit log before. A node that did it without permission would show in the segments, by an entry
//! that the customer does not expect.

use harborseal_segment::identity::Identity;

use super::grant::{TimeError, in_time};
use super::{
    Draft, Lines, SIGNATURE, StatementError, Terms, hex, instant, parse_hex, parse_instant, parse_signature,
    parse_span, span,
};

const KIND: &str = "standing-grant";
const NS_PER_S: u64 = 1_000_000_000;
/// The longest that one lasts: a year and a day. Longer is not a grant but a second owner, and wants to be said anew.
pub const LONGEST_S: u64 = 366 * 86_400;

/// A standing grant whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingGrant {
    /// Who, to whom, which camera, why.
    pub terms: Terms,
    /// Of when: nanoseconds since 1970, the end outside.
    pub granted_ns: (u64, u64),
    /// Under which the audit log names the customer.
    pub audit_salt: [u8; 32],
    /// When it was made, by the customer's clock: whole seconds since 1970.
    pub made_s: u64,
    hash: [u8; 32],
}

impl StandingGrant {
    /// The text of a standing grant, signed by `customer`.
    pub fn make(terms: &Terms, granted_ns: (u64, u64), made_s: u64, customer: &Identity) -> String {
        let mut draft = Draft::new(KIND);
        terms.write(&mut draft);
        draft.line("granted", span(granted_ns));
        draft.line("audit-salt", hex(&customer.audit_salt()));
        draft.line("made", instant(made_s));
        draft.signed(&[(SIGNATURE, customer)])
    }

    /// Parses a standing grant and checks that the customer whom it names signed it.
    ///
    /// # Errors
    /// What is wrong with it. Whether that customer is the right one is for who has its enrolment to say.
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        let mut lines = Lines::of(KIND, text)?;
        let terms = Terms::parse(&mut lines)?;
        let granted_ns = lines.parsed("granted", parse_span)?;
        let audit_salt = lines.parsed("audit-salt", parse_hex)?;
        let made_s = lines.parsed("made", parse_instant)?;
        let signed = lines.so_far().to_owned();
        let signature = lines.parsed(SIGNATURE, parse_signature)?;
        lines.end()?;
        if !terms.customer.verifies(signed.as_bytes(), &signature) {
            return Err(StatementError::Forged);
        }
        if (granted_ns.1 - granted_ns.0) / NS_PER_S > LONGEST_S {
            return Err(StatementError::Contradiction(
                "it lasts longer than a year and a day",
            ));
        }
        Ok(StandingGrant {
            terms,
            granted_ns,
            audit_salt,
            made_s,
            hash: lines.hash(),
        })
    }

    /// Whether a segment that is created at `created_s` is of its time. Whole seconds count: its beginning and its end are taken as the next full ones.
    pub fn covers(&self, created_s: u64) -> bool {
        let [from_ns, to_ns] = self.turns_ns();
        (from_ns / NS_PER_S..to_ns / NS_PER_S).contains(&created_s)
    }

    /// When it begins and ends, as nodes take it: full seconds, in nanoseconds since 1970.
    pub fn turns_ns(&self) -> [u64; 2] {
        let (from_ns, to_ns) = self.granted_ns;
        [from_ns, to_ns].map(|at_ns| at_ns.div_ceil(NS_PER_S).saturating_mul(NS_PER_S))
    }

    /// Whether a node may put it in force at `now_s`.
    ///
    /// # Errors
    /// It is over, or was made in the future.
    pub fn in_time(&self, now_s: u64) -> Result<(), TimeError> {
        in_time(self.made_s, self.granted_ns.1.div_ceil(NS_PER_S), now_s)
    }

    /// SHA-256 of the statement: of its file as it was written.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
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

    fn made(seconds: u64) -> String {
        let terms = Terms {
            customer: identity(1).public().clone(),
            grantee: identity(2).public().clone(),
            camera: "front-door".to_owned(),
            purpose: "the guard service".to_owned(),
        };
        let granted_ns = (MADE_S * NS_PER_S, (MADE_S + seconds) * NS_PER_S);
        StandingGrant::make(&terms, granted_ns, MADE_S, &identity(1))
    }

    #[test]
    fn a_standing_grant_reads_back_and_every_changed_character_is_refused() {
        let text = made(600);
        let read = StandingGrant::parse(&text).expect("whole");
        assert_eq!((read.terms.camera.as_str(), read.made_s), ("front-door", MADE_S));
        for at in 0..text.trim_end().len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(StandingGrant::parse(&changed).is_err(), "at {at}: {changed}");
        }
    }

    #[test]
    fn it_covers_the_segments_of_its_time_and_no_other() {
        let grant = StandingGrant::parse(&made(600)).expect("whole");
        assert_eq!(grant.turns_ns(), [MADE_S * NS_PER_S, (MADE_S + 600) * NS_PER_S]);
        for (created_s, covered) in [
            (MADE_S - 1, false),
            (MADE_S, true),
            (MADE_S + 599, true),
            (MADE_S + 600, false),
        ] {
            assert_eq!(grant.covers(created_s), covered, "{created_s}");
        }
    }

    #[test]
    fn it_ends_and_may_not_last_longer_than_a_year() {
        let grant = StandingGrant::parse(&made(600)).expect("whole");
        assert_eq!(grant.in_time(MADE_S + 599), Ok(()));
        let expired_s = MADE_S + 600;
        assert_eq!(grant.in_time(expired_s), Err(TimeError::Expired { expired_s }));
        assert!(StandingGrant::parse(&made(LONGEST_S)).is_ok());
        let long = StandingGrant::parse(&made(LONGEST_S + 1));
        assert!(matches!(long, Err(StatementError::Contradiction(_))));
    }
}
