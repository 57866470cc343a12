//! The store's state: a salt, and counters.
//!
//! ```text
//! harborseal erase-store 1
//! salt 64 hex digits      made once
//! generation N            counts destructions: an engine that sees it change begins new segments under new keys
//! changes N               counts space given back and legal holds: an engine that sees it change looks at its catalog anew
//! logged N                entries of the audit log that were looked through for destroyed keys
//! ```

use std::fmt;
use std::str::FromStr;

use harborseal_segment::random::os_random;
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha2::Sha256;

const FIRST_LINE: &str = "harborseal erase-store 1";

/// A customer in this store: HMAC-SHA256(salt, "harborseal/v1/keystore" ‖ name), its first 16 bytes. Who has the store and guesses a name
/// can check the guess; who has anything else of the node cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub [u8; 16]);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Owner {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if digits => Ok(Owner(number.to_be_bytes())),
            _ => Err(()),
        }
    }
}

/// What the file `state` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    salt: [u8; 32],
    /// How often keys were destroyed.
    pub generation: u64,
    /// How often space was given back, or a legal hold changed.
    pub changes: u64,
    /// How many entries of the audit log are known here.
    pub logged: u64,
}

impl State {
    pub(super) fn new() -> State {
        let mut salt = [0; 32];
        os_random().fill_bytes(&mut salt);
        State {
            salt,
            generation: 0,
            changes: 0,
            logged: 0,
        }
    }

    pub(super) fn owner(&self, name: &str) -> Owner {
        let hash = self.mac(b"harborseal/v1/keystore", name);
        Owner(*hash.first_chunk().expect("HMAC-SHA-256 has 32 bytes"))
    }

    /// Under which the audit log names a customer that has not enrolled, and so brought no salt of its own.
    pub fn audit_salt(&self, name: &str) -> [u8; 32] {
        self.mac(b"harborseal/v1/keystore-audit-salt", name)
    }

    fn mac(&self, label: &[u8], name: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.salt).expect("HMAC takes a key of any length");
        mac.update(label);
        mac.update(name.as_bytes());
        mac.finalize().into_bytes().into()
    }

    pub(super) fn to_text(&self) -> String {
        let salt: String = self.salt.iter().map(|byte| format!("{byte:02x}")).collect();
        let State {
            generation,
            changes,
            logged,
            ..
        } = self;
        format!("{FIRST_LINE}\nsalt {salt}\ngeneration {generation}\nchanges {changes}\nlogged {logged}\n")
    }

    pub(super) fn parse(text: &str) -> Result<State, String> {
        let wrong = "it is no state of a key store of this version; restore it from a backup";
        State::read(&mut text.lines()).ok_or_else(|| wrong.to_owned())
    }

    fn read<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<State> {
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        (value("harborseal")? == "erase-store 1").then_some(())?;
        let digits = value("salt")?;
        let mut salt = [0; 32];
        for (at, byte) in salt.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        let mut number = |name| value(name)?.parse::<u64>().ok();
        Some(State {
            salt,
            generation: number("generation")?,
            changes: number("changes")?,
            logged: number("logged")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_as_written_and_nothing_else_is_taken_for_one() {
        let state = State {
            generation: 3,
            changes: 2,
            logged: 77,
            ..State::new()
        };
        let text = state.to_text();
        assert_eq!(State::parse(&text), Ok(state));
        for (at, _) in text
            .char_indices()
            .filter(|(at, _)| *at < text.rfind(' ').unwrap_or(0))
        {
            assert!(State::parse(&text[..at]).is_err(), "cut at {at}");
        }
        assert!(State::parse(&text.replace("store 1", "store 2")).is_err());
        assert!(State::parse(&text.replace("changes 2", "changes two")).is_err());
    }

    #[test]
    fn an_owner_is_known_in_its_own_store_only() {
        let (one, other) = (State::new(), State::new());
        assert_eq!(one.owner("alice"), one.owner("alice"));
        assert_ne!(one.owner("alice"), one.owner("bob"));
        assert_ne!(one.owner("alice"), other.owner("alice"));
        let owner = one.owner("alice");
        assert_eq!(owner.to_string().parse(), Ok(owner));
        assert!("state".parse::<Owner>().is_err());
    }
}
