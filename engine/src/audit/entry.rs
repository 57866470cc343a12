//! An entry of the audit log: when, what, and whom it concerns without saying who that is.
//!
//! An entry is one line of JSON (RFC 8259) whose keys stand in one order, so that an entry has one encoding and one leaf. It names a customer
//! by a pseudonym that only holders of the customer's audit salt can make or recognise:
//!
//! ```text
//!   pseudonym  = HMAC-SHA256(salt, "harborseal/v1/audit" ‖ nonce[16])[..16]
//!   commitment = HMAC-SHA256(salt, "harborseal/v1/audit-statement" ‖ nonce[16] ‖ hash[32])
//! ```
//!
//! The nonce is the entry's own, so two entries of one customer have nothing in common for anybody else. What would name the customer by
//! itself, such as the hash of a signed statement, is entered as a commitment. Where an entry concerns several customers their pseudonyms are
//! sorted, and say nothing of the order in the configuration.

use std::fmt;
use std::str::FromStr;

use harborseal_segment::ids::SegmentId;
use harborseal_segment::merkle::Hash;
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

use super::tiles::ENTRY_BYTES_MAX;

/// The version of what is written.
const VERSION: u32 = 1;

/// A customer's audit salt: of its enrolment statement, and derivable from its identity.
pub type Salt = [u8; 32];

/// Most pseudonyms in one entry: 35 bytes each, they leave an eighth of [`ENTRY_BYTES_MAX`] for the rest.
pub const CUSTOMERS_MAX: usize = ENTRY_BYTES_MAX / 8 * 7 / 35;

/// Most segment ids in one entry, for the same reason.
pub const SEGMENTS_MAX: usize = CUSTOMERS_MAX;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(rename = "v")]
    version: u32,
    /// When, in seconds since 1970, by the node's clock.
    pub time_s: u64,
    /// Random, of this entry alone.
    pub nonce: Bytes<16>,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
    /// Whom it concerns; empty where it concerns the node as a whole. Sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub customers: Vec<Bytes<16>>,
}

/// What happened. The names are those in the log: they never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// A node began to record.
    NodeStart {
        /// Version of the program.
        build: String,
        /// SHA-256 of its file.
        program: Bytes<32>,
        /// SHA-256 of the configuration file.
        configuration: Bytes<32>,
        /// Whether it seals only to enrolled keys.
        require_enrolment: bool,
    },
    /// A configuration was put in force while the node records.
    ConfigurationChange {
        /// SHA-256 of the configuration file.
        configuration: Bytes<32>,
        /// Whether it seals only to enrolled keys.
        require_enrolment: bool,
    },
    /// A customer's first enrolment was pinned.
    Enrolment {
        /// By what the node finds the enrolments of one customer: [`pin`].
        pin: Bytes<16>,
        /// Commitment to the statement's hash.
        statement: Bytes<32>,
        /// The statement's own number.
        seq: u64,
        /// Recovery recipients beside the customer's key.
        recovery: u32,
    },
    /// An enrolment took the place of another, signed by the key of that one.
    KeyRotation {
        /// As in an enrolment.
        pin: Bytes<16>,
        /// Commitment to the new statement's hash.
        statement: Bytes<32>,
        /// Commitment to the hash of the one replaced.
        replaces: Bytes<32>,
        /// The new statement's number.
        seq: u64,
        /// Recovery recipients beside the customer's key.
        recovery: u32,
    },
    /// From here on segments are sealed to this recovery recipient too.
    Recipient {
        /// Commitment to SHA-256 of the recipient's public key, as text.
        key: Bytes<32>,
        /// Which of the recipients, from 1: 0 is the customer's own key.
        i: u32,
        /// How many recipients in all.
        n: u32,
    },
    /// A segment is about to be sealed.
    SegmentSealed {
        /// Its id.
        #[serde(with = "text")]
        segment: SegmentId,
        /// The root over its blocks, which its footer will hold.
        root: Bytes<32>,
        /// This entry's part of the customers, from 1.
        part: u32,
        /// In how many entries the customers stand.
        parts: u32,
        /// Closed after a crash: whose keys were in it, nobody remembers.
        recovered: bool,
    },
    /// A customer's grant was used on this node.
    Grant {
        /// Commitment to the grant's hash.
        statement: Bytes<32>,
        /// First second disclosed.
        from_s: u64,
        /// First second no longer disclosed.
        to_s: u64,
    },
    /// A standing grant was put in force.
    StandingGrant {
        /// Commitment to the grant's hash.
        statement: Bytes<32>,
        /// First second of it.
        from_s: u64,
        /// First second after it.
        to_s: u64,
    },
    /// Keys of erasable footage are about to be released.
    Release {
        /// Of which segments.
        segments: Vec<Bytes<16>>,
        /// To whom, as the operator says.
        to: String,
        /// Commitment to the SHA-256 of the public key that it is sealed to.
        to_key: Bytes<32>,
        /// By whom, as the operator says.
        by: String,
        /// Why, as the operator says.
        purpose: String,
    },
    /// Erasure keys are about to be destroyed.
    Erasure {
        /// First UTC day erased, in days since 1970.
        from_day: u64,
        /// First UTC day that is not.
        to_day: u64,
        /// Commitment to the hash of the receipt.
        receipt: Bytes<32>,
        /// By whom, as the operator says.
        by: String,
        /// The ids of the keys: one that comes back from a stale copy is known by them. They name neither customer nor segment.
        keys: Vec<Bytes<16>>,
    },
    /// A legal hold was placed or lifted.
    LegalHold {
        /// Placed, or lifted.
        held: bool,
        /// By whom, as the operator says.
        by: String,
        /// Why, as the operator says.
        reason: String,
    },
    /// Something was asked for and refused.
    AccessRefused {
        /// What was asked.
        what: String,
        /// Why it was refused.
        why: String,
    },
}

impl Fact {
    /// The kind's name in the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Fact::NodeStart { .. } => "node_start",
            Fact::ConfigurationChange { .. } => "configuration_change",
            Fact::Enrolment { .. } => "enrolment",
            Fact::KeyRotation { .. } => "key_rotation",
            Fact::Recipient { .. } => "recipient",
            Fact::SegmentSealed { .. } => "segment_sealed",
            Fact::Grant { .. } => "grant",
            Fact::StandingGrant { .. } => "standing_grant",
            Fact::Release { .. } => "release",
            Fact::Erasure { .. } => "erasure",
            Fact::LegalHold { .. } => "legal_hold",
            Fact::AccessRefused { .. } => "access_refused",
        }
    }
}

/// Why bytes are no entry that this program knows.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Not an entry, or of a kind or version this program does not know.
    #[error("not an entry this program knows: {0}")]
    Unknown(serde_json::Error),
    /// An entry, but not in the one encoding that entries have.
    #[error("an entry in another encoding than its own")]
    NotCanonical,
    /// A later version.
    #[error("an entry of version {0}; this program knows version {VERSION}")]
    Version(u32),
}

impl Entry {
    /// An entry that concerns the node as a whole, made now.
    pub fn new(time_s: u64, nonce: Nonce, fact: Fact) -> Entry {
        Entry {
            version: VERSION,
            time_s,
            nonce: Bytes(nonce.0),
            fact,
            customers: Vec::new(),
        }
    }

    /// An entry that concerns the customers with these salts: [`CUSTOMERS_MAX`] at most.
    pub fn concerning<'a>(
        time_s: u64,
        nonce: Nonce,
        fact: Fact,
        salts: impl IntoIterator<Item = &'a Salt>,
    ) -> Entry {
        let mut entry = Entry::new(time_s, nonce, fact);
        entry.customers = salts
            .into_iter()
            .map(|salt| Bytes(nonce.pseudonym(salt)))
            .collect();
        entry.customers.sort_unstable();
        entry
    }

    /// Whether it concerns the customer with this salt.
    pub fn concerns(&self, salt: &Salt) -> bool {
        self.customers
            .contains(&Bytes(Nonce(self.nonce.0).pseudonym(salt)))
    }

    /// Its nonce, with which its commitments can be checked.
    pub fn nonce(&self) -> Nonce {
        Nonce(self.nonce.0)
    }

    /// The one encoding: what its leaf is the hash of.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("our own types have string keys and no failing serialiser")
    }

    /// Reads an entry.
    pub fn parse(bytes: &[u8]) -> Result<Entry, EntryError> {
        let entry: Entry = serde_json::from_slice(bytes).map_err(EntryError::Unknown)?;
        match entry.version {
            VERSION if entry.to_bytes() == bytes => Ok(entry),
            VERSION => Err(EntryError::NotCanonical),
            other => Err(EntryError::Version(other)),
        }
    }
}

/// What makes the pseudonyms and commitments of one entry its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// A fresh one.
    pub fn generate(rng: &mut (impl Rng + ?Sized)) -> Nonce {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        Nonce(nonce)
    }

    /// How this entry names the customer with this salt.
    pub fn pseudonym(&self, salt: &Salt) -> [u8; 16] {
        let mac = mac(salt, b"harborseal/v1/audit", &[&self.0]);
        *mac.first_chunk().expect("SHA-256 has 32 bytes")
    }

    /// How this entry refers to a statement of that customer, or to something else whose hash would name it.
    pub fn commitment(&self, salt: &Salt, hash: &Hash) -> Bytes<32> {
        Bytes(mac(salt, b"harborseal/v1/audit-statement", &[&self.0, hash]))
    }
}

/// By what the holder of `key`, the node, finds the enrolment of a name, its first replacement (`ordinal` 1) and so on. To everybody else
/// no two of them have anything in common.
pub fn pin(key: &[u8; 32], name: &str, ordinal: u64) -> Bytes<16> {
    let mac = mac(
        key,
        b"harborseal/v1/pin",
        &[&ordinal.to_be_bytes(), name.as_bytes()],
    );
    Bytes(*mac.first_chunk().expect("SHA-256 has 32 bytes"))
}

fn mac(salt: &Salt, label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("HMAC takes a key of any length");
    mac.update(label);
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Bytes that are hex digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Display for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Bytes<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected {} hex digits", 2 * N);
        if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; N];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Bytes(bytes))
    }
}

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::deserialize(deserializer)
    }
}

/// Anything that is a string in JSON.
mod text {
    use super::*;

    pub fn serialize<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Fact {
        Fact::SegmentSealed {
            segment: SegmentId([1; 16]),
            root: Bytes([2; 32]),
            part: 1,
            parts: 1,
            recovered: false,
        }
    }

    #[test]
    fn an_entry_has_one_encoding_and_reads_back() {
        let entry = Entry::concerning(1_795_000_000, Nonce([3; 16]), sealed(), [&[4; 32]]);
        let text = String::from_utf8(entry.to_bytes()).expect("JSON is UTF-8");
        assert_eq!(
            text,
            format!(
                r#"{{"v":1,"time_s":1795000000,"nonce":"{}","kind":"segment_sealed","segment":"{}","root":"{}","part":1,"parts":1,"recovered":false,"customers":["{}"]}}"#,
                "03".repeat(16),
                "01".repeat(16),
                "02".repeat(32),
                entry.customers[0],
            )
        );
        assert_eq!(Entry::parse(text.as_bytes()).expect("an entry"), entry);
        for other in [
            text.replace(r#""v":1,"#, r#""v":1, "#),
            text.clone() + " ",
            text.replace(&"02".repeat(32), &"0A".repeat(32)),
        ] {
            assert!(Entry::parse(other.as_bytes()).is_err(), "{other}");
        }
        let later = text.replace(r#""v":1"#, r#""v":2"#);
        assert!(matches!(
            Entry::parse(later.as_bytes()),
            Err(EntryError::Version(2))
        ));
    }

    /// A vector of its own, computed with Python's hmac module.
    #[test]
    fn pseudonyms_are_hmacs() {
        let nonce = Nonce(*b"0123456789abcdef");
        assert_eq!(
            Bytes(nonce.pseudonym(&[7; 32])).to_string(),
            "071011327c115ae81f052e18ff00cbb4"
        );
        assert_eq!(
            nonce.commitment(&[7; 32], &[9; 32]).to_string(),
            "16c337df8ee4ceeb2eb6962aa7560827466ac23b78a7280eeae2e59bdb5010c4"
        );
    }

    #[test]
    fn a_customer_knows_its_entries_and_nobody_elses_and_they_have_nothing_in_common() {
        let (alice, bob) = ([1; 32], [2; 32]);
        let first = Entry::concerning(1, Nonce([1; 16]), sealed(), [&alice, &bob]);
        let second = Entry::concerning(1, Nonce([2; 16]), sealed(), [&alice]);
        assert!(first.concerns(&alice) && first.concerns(&bob) && second.concerns(&alice));
        assert!(!second.concerns(&bob));
        assert!(!first.customers.contains(&second.customers[0]));
        let turned = Entry::concerning(1, Nonce([1; 16]), sealed(), [&bob, &alice]);
        assert_eq!(first, turned, "the order says nothing");
    }

    #[test]
    fn the_largest_entry_fits_a_bundle() {
        let salts: Vec<Salt> = (0..CUSTOMERS_MAX as u32)
            .map(|n| {
                let mut salt = [0; 32];
                salt[..4].copy_from_slice(&n.to_le_bytes());
                salt
            })
            .collect();
        let entry = Entry::concerning(u64::MAX, Nonce([1; 16]), sealed(), &salts);
        assert!(entry.to_bytes().len() <= ENTRY_BYTES_MAX);
        let release = Fact::Release {
            segments: vec![Bytes([1; 16]); SEGMENTS_MAX],
            to: "x".repeat(500),
            to_key: Bytes([2; 32]),
            by: "z".repeat(500),
            purpose: "y".repeat(500),
        };
        let entry = Entry::concerning(u64::MAX, Nonce([1; 16]), release, [&[1; 32]]);
        assert!(entry.to_bytes().len() <= ENTRY_BYTES_MAX);
    }

    #[test]
    fn the_kind_in_the_log_is_the_facts_name() {
        let entry = Entry::new(1, Nonce([0; 16]), sealed());
        let text = String::from_utf8(entry.to_bytes()).expect("JSON is UTF-8");
        assert!(
            text.contains(&format!(r#""kind":"{}""#, entry.fact.kind())),
            "{text}"
        );
    }
}
