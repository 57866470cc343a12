//! A customer's identity: a KEM key that opens, and a signing key that vouches for it.
//!
//! Both texts are a prefix and base64url without padding (RFC 4648 §5) of these bytes, little-endian:
//!
//! ```text
//! hsp1…   public   0 kem u16 · 2 signing u16 · 4 KEM key · Ed25519 key[32] · signature[64] · checksum[4]
//! hss1…   secret   0 kem u16 · 2 signing u16 · 4 KEM seed[32] · Ed25519 seed[32] · checksum[4]
//!
//! kem        HPKE KEM id (RFC 9180 §7.1): 0x647a X-Wing, its key 1216 bytes; 0x0010 P-256 reserved
//! signing    1 Ed25519; 2 ECDSA P-256 reserved
//! signature  over "harborseal/v1/public-key" ‖ kem u16 ‖ signing u16 ‖ KEM key
//! checksum   SHA-256(prefix ‖ all before it), its first 4 bytes
//! ```
//!
//! An identity file is text: comment lines that begin with `#`, and one line with the secret.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, Serializable};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// HPKE's id of X-Wing (ML-KEM-768 + X25519).
pub const KEM_X_WING: u16 = 0x647a;
/// HPKE's id of DHKEM(P-256, HKDF-SHA256), for cards, HSMs and key services. Reserved.
pub const KEM_P256: u16 = 0x0010;

const SIGNING_ED25519: u16 = 1;
const PUBLIC_PREFIX: &str = "hsp1";
const SECRET_PREFIX: &str = "hss1";
const X_WING_PUBLIC_LEN: usize = 1216;
const CHECKSUM_LEN: usize = 4;
const PUBLIC_LEN: usize = 4 + X_WING_PUBLIC_LEN + 32 + 64 + CHECKSUM_LEN;
const SECRET_LEN: usize = 4 + 32 + 32 + CHECKSUM_LEN;

// Both are multiples of 3, so that base64 leaves no spare bits and each key has one text.
const _: () = assert!(PUBLIC_LEN == 1320 && PUBLIC_LEN.is_multiple_of(3));
const _: () = assert!(SECRET_LEN == 72 && SECRET_LEN.is_multiple_of(3));

/// Why a text is not a key. No variant repeats any of the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("not a public key: it must begin with hsp1, as `harborseal keygen` prints it")]
    NotPublic,
    #[error("this is a secret identity where a public key belongs: replace it, and keep it secret")]
    SecretForPublic,
    #[error("not an identity file: it has no line that begins with hss1")]
    NotIdentity,
    #[error("this is a public key, not an identity: the file that `harborseal keygen -o` wrote is needed")]
    PublicForIdentity,
    #[error("the identity file has more than one secret line")]
    ManySecrets,
    #[error("line {line} of the identity file is neither a comment nor a secret line")]
    StrangeLine { line: usize },
    #[error("the key is cut or has extra text: {found} characters after the prefix, {needed} expected")]
    Length { found: usize, needed: usize },
    #[error("the key is garbled: character {at} does not belong in it")]
    Character { at: usize },
    #[error("the key is garbled: its checksum does not match, copy it again")]
    Checksum,
    #[error("the key is of kind {kem:#06x}/{signing}, which this version does not support")]
    Unsupported { kem: u16, signing: u16 },
    #[error("the public key is not valid: its KEM key is malformed")]
    KemKey,
    #[error("the public key is not genuine: its signature does not match its KEM key")]
    Signature,
}

/// What a customer hands out: enough to seal for them, and to check what they sign.
///
/// It identifies a person, so it has no `Display` of its own and its `Debug` tells nothing: writing it out is a
/// deliberate [`PublicKey::to_text`].
#[derive(Clone)]
pub struct PublicKey {
    kem: <XWing as Kem>::PublicKey,
    bytes: Box<[u8; PUBLIC_LEN - CHECKSUM_LEN]>,
}

impl PublicKey {
    /// `hsp1…`, 1,764 characters.
    pub fn to_text(&self) -> String {
        encode(PUBLIC_PREFIX, &self.bytes[..]).to_string()
    }

    /// The HPKE id of the KEM that this key is for.
    pub fn kem_id(&self) -> u16 {
        u16::from_le_bytes([self.bytes[0], self.bytes[1]])
    }

    pub fn signing_key(&self) -> &[u8; 32] {
        self.bytes[4 + X_WING_PUBLIC_LEN..]
            .first_chunk()
            .expect("an Ed25519 key has 32 bytes")
    }

    pub(crate) fn kem_key(&self) -> &<XWing as Kem>::PublicKey {
        &self.kem
    }

    fn parse(bytes: &[u8; PUBLIC_LEN - CHECKSUM_LEN]) -> Result<Self, KeyError> {
        check_kind(bytes)?;
        let (signed, rest) = bytes.split_at(4 + X_WING_PUBLIC_LEN);
        let (signing_key, signature) = rest
            .split_first_chunk::<32>()
            .expect("an Ed25519 key has 32 bytes");
        let kem = <XWing as Kem>::PublicKey::from_bytes(&signed[4..]).map_err(|_| KeyError::KemKey)?;
        let signature = Signature::from_slice(signature).map_err(|_| KeyError::Signature)?;
        VerifyingKey::from_bytes(signing_key)
            .and_then(|key| key.verify_strict(&signed_message(signed), &signature))
            .map_err(|_| KeyError::Signature)?;
        Ok(PublicKey {
            kem,
            bytes: Box::new(*bytes),
        })
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.starts_with(SECRET_PREFIX) {
            return Err(KeyError::SecretForPublic);
        }
        let encoded = text.strip_prefix(PUBLIC_PREFIX).ok_or(KeyError::NotPublic)?;
        let bytes = decode::<PUBLIC_LEN>(PUBLIC_PREFIX, encoded)?;
        PublicKey::parse(bytes.first_chunk().expect("a key is longer than its body"))
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for PublicKey {}

impl std::hash::Hash for PublicKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(..)")
    }
}

/// A customer's private keys. Wiped when dropped; there is no way to print it but [`Identity::to_file_text`].
pub struct Identity {
    seeds: Seeds,
    kem: <XWing as Kem>::PrivateKey,
    public: PublicKey,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Seeds {
    kem: [u8; 32],
    signing: [u8; 32],
}

impl Identity {
    /// 32 random bytes for X-Wing (its decapsulation key is a seed), then 32 for Ed25519.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seeds = Seeds {
            kem: [0; 32],
            signing: [0; 32],
        };
        rng.fill_bytes(&mut seeds.kem);
        rng.fill_bytes(&mut seeds.signing);
        Self::from_seeds(seeds)
    }

    fn from_seeds(seeds: Seeds) -> Self {
        let kem = <XWing as Kem>::PrivateKey::from_bytes(&seeds.kem).expect("an X-Wing seed has 32 bytes");
        let kem_public = XWing::sk_to_pk(&kem);
        let signing = SigningKey::from_bytes(&seeds.signing);
        let mut bytes = kind_bytes().to_vec();
        bytes.extend_from_slice(&kem_public.to_bytes());
        let signature = signing.sign(&signed_message(&bytes));
        bytes.extend_from_slice(signing.verifying_key().as_bytes());
        bytes.extend_from_slice(&signature.to_bytes());
        let bytes: Box<[u8]> = bytes.into();
        let bytes = bytes
            .try_into()
            .expect("kind, KEM key, Ed25519 key and signature are fixed-width");
        Identity {
            seeds,
            kem,
            public: PublicKey {
                kem: kem_public,
                bytes,
            },
        }
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn kem_key(&self) -> &<XWing as Kem>::PrivateKey {
        &self.kem
    }

    /// The whole identity file: who may see it, the public key as a comment, the secret line.
    pub fn to_file_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; SECRET_LEN - CHECKSUM_LEN]);
        bytes[..4].copy_from_slice(&kind_bytes());
        bytes[4..36].copy_from_slice(&self.seeds.kem);
        bytes[36..].copy_from_slice(&self.seeds.signing);
        let secret = encode(SECRET_PREFIX, &bytes[..]);
        let head = format!(
            "# Harborseal identity. Whoever has this file can watch: keep it secret, and keep a copy.\n\
             # public key: {}\n",
            self.public.to_text()
        );
        let mut text = Zeroizing::new(String::with_capacity(head.len() + secret.len() + 1));
        for part in [&head, &secret[..], "\n"] {
            text.push_str(part);
        }
        text
    }

    /// Parses an identity file's text.
    pub fn from_file_text(text: &str) -> Result<Self, KeyError> {
        let lines = text.lines().map(str::trim).zip(1..);
        let mut lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        let (secret, _) = lines.next().ok_or(KeyError::NotIdentity)?;
        if secret.starts_with(PUBLIC_PREFIX) {
            return Err(KeyError::PublicForIdentity);
        }
        let encoded = secret.strip_prefix(SECRET_PREFIX).ok_or(KeyError::NotIdentity)?;
        match lines.next() {
            Some((more, _)) if more.starts_with(SECRET_PREFIX) => return Err(KeyError::ManySecrets),
            Some((_, line)) => return Err(KeyError::StrangeLine { line }),
            None => {}
        }
        let bytes = decode::<SECRET_LEN>(SECRET_PREFIX, encoded)?;
        check_kind(&bytes[..])?;
        let mut seeds = Seeds {
            kem: [0; 32],
            signing: [0; 32],
        };
        seeds.kem.copy_from_slice(&bytes[4..36]);
        seeds.signing.copy_from_slice(&bytes[36..68]);
        Ok(Self::from_seeds(seeds))
    }
}

/// The four bytes that say which algorithms a key is for.
fn kind_bytes() -> [u8; 4] {
    let [kem, signing] = [KEM_X_WING.to_le_bytes(), SIGNING_ED25519.to_le_bytes()];
    [kem[0], kem[1], signing[0], signing[1]]
}

fn check_kind(bytes: &[u8]) -> Result<(), KeyError> {
    if bytes[..4] == kind_bytes() {
        return Ok(());
    }
    let [kem, signing] = [
        u16::from_le_bytes([bytes[0], bytes[1]]),
        u16::from_le_bytes([bytes[2], bytes[3]]),
    ];
    Err(KeyError::Unsupported { kem, signing })
}

fn signed_message(kind_and_kem_key: &[u8]) -> Vec<u8> {
    [b"harborseal/v1/public-key", kind_and_kem_key].concat()
}

fn checksum(prefix: &str, bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = Sha256::new().chain_update(prefix).chain_update(bytes).finalize();
    *hash.first_chunk().expect("SHA-256 has 32 bytes")
}

fn encode(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    let mut checked = Zeroizing::new(Vec::with_capacity(bytes.len() + CHECKSUM_LEN));
    checked.extend_from_slice(bytes);
    checked.extend_from_slice(&checksum(prefix, bytes));
    // At full size from the start: a growing string would leave copies of a secret behind.
    let mut text = Zeroizing::new(String::with_capacity(
        prefix.len() + checked.len().div_ceil(3) * 4,
    ));
    text.push_str(prefix);
    BASE64_URL_SAFE_NO_PAD.encode_string(&checked[..], &mut text);
    text
}

/// Decodes a key of `N` bytes and checks its checksum; the kind is looked at later, by who knows what it may be.
fn decode<const N: usize>(prefix: &str, encoded: &str) -> Result<Zeroizing<[u8; N]>, KeyError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if let Some(at) = encoded.chars().position(|c| !allowed(c)) {
        let at = prefix.len() + at + 1;
        return Err(KeyError::Character { at });
    }
    let (found, needed) = (encoded.len(), N / 3 * 4);
    let cut = KeyError::Length { found, needed };
    let bytes = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| cut)?);
    let (body, stored) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(cut)?;
    let whole = checksum(prefix, body) == *stored;
    match <[u8; N]>::try_from(&bytes[..]) {
        Ok(bytes) if whole => Ok(Zeroizing::new(bytes)),
        Ok(_) => Err(KeyError::Checksum),
        // Whole, but of another length: a kind that this version does not have.
        Err(_) if whole && body.len() >= 4 => Err(check_kind(body).err().unwrap_or(cut)),
        Err(_) => Err(cut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::FixedBytes;

    fn alice() -> Identity {
        Identity::generate(&mut FixedBytes(&[1; 64]))
    }

    /// The same key with its bytes edited, and a checksum that fits.
    fn edited(edit: impl FnOnce(&mut [u8])) -> String {
        let mut bytes = alice().public.bytes.to_vec();
        edit(&mut bytes);
        encode(PUBLIC_PREFIX, &bytes).to_string()
    }

    fn refused(text: &str) -> KeyError {
        text.parse::<PublicKey>().expect_err("refused")
    }

    #[test]
    fn a_public_key_prints_and_parses_as_one_word() {
        let text = alice().public().to_text();
        assert_eq!(text.len(), 4 + 1760);
        assert!(
            text.starts_with("hsp1")
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        );
        let parsed: PublicKey = format!(" {text}\n").parse().expect("parses");
        assert_eq!(parsed, *alice().public());
        assert_eq!(parsed.kem_id(), KEM_X_WING);
    }

    #[test]
    fn an_identity_file_parses_back_and_shows_its_public_key() {
        let file = alice().to_file_text();
        assert!(file.contains(&alice().public().to_text()));
        assert!(Identity::from_file_text(&file).is_ok_and(|read| read.public() == alice().public()));
        let windows = file.replace('\n', "\r\n");
        assert!(Identity::from_file_text(&windows).is_ok());
    }

    #[test]
    fn identities_from_different_randomness_differ() {
        let bob = Identity::generate(&mut FixedBytes(&[2; 64]));
        assert_ne!(alice().public(), bob.public());
    }

    #[test]
    fn a_damaged_public_key_is_refused_for_what_is_wrong_with_it() {
        let text = alice().public().to_text();
        assert_eq!(refused(""), KeyError::NotPublic);
        assert_eq!(refused("age1xyz"), KeyError::NotPublic);
        assert_eq!(
            refused(&text[..1000]),
            KeyError::Length {
                found: 996,
                needed: 1760
            }
        );
        assert_eq!(
            refused(&format!("{text}A")),
            KeyError::Length {
                found: 1761,
                needed: 1760
            }
        );
        assert_eq!(
            refused(&text.replacen(&text[9..10], "=", 1)),
            KeyError::Character {
                at: text.find(&text[9..10]).unwrap() + 1
            }
        );
        let flipped = if &text[100..101] == "A" { "B" } else { "A" };
        assert_eq!(
            refused(&format!("{}{flipped}{}", &text[..100], &text[101..])),
            KeyError::Checksum
        );
        let secret = alice().to_file_text();
        let secret = secret.lines().last().expect("a secret line");
        assert_eq!(refused(secret), KeyError::SecretForPublic);
    }

    #[test]
    fn a_kem_key_that_another_identity_signed_is_refused() {
        let bob = Identity::generate(&mut FixedBytes(&[2; 64]));
        let stolen = edited(|bytes| bytes[4..1220].copy_from_slice(&bob.public().bytes[4..1220]));
        assert_eq!(refused(&stolen), KeyError::Signature);
        let resigned = edited(|bytes| bytes[1220..1252].copy_from_slice(bob.public().signing_key()));
        assert_eq!(refused(&resigned), KeyError::Signature);
    }

    #[test]
    fn a_key_of_a_later_kind_is_unsupported_rather_than_garbled() {
        let later = edited(|bytes| bytes[..2].copy_from_slice(&KEM_P256.to_le_bytes()));
        assert_eq!(
            refused(&later),
            KeyError::Unsupported {
                kem: 0x0010,
                signing: 1
            }
        );
    }

    #[test]
    fn a_shorter_key_of_a_later_kind_is_unsupported_rather_than_cut() {
        let bytes = [&KEM_P256.to_le_bytes()[..], &[2, 0], &[7; 65 + 65 + 64]].concat();
        let later = encode(PUBLIC_PREFIX, &bytes);
        assert_eq!(
            refused(&later),
            KeyError::Unsupported {
                kem: 0x0010,
                signing: 2
            }
        );
    }

    #[test]
    fn a_file_that_is_no_identity_is_refused_for_what_it_is() {
        let refused = |text: &str| Identity::from_file_text(text).err().expect("refused");
        let file = alice().to_file_text();
        let secret = file.lines().last().expect("a secret line");
        assert_eq!(refused(""), KeyError::NotIdentity);
        assert_eq!(refused("# only a comment\n"), KeyError::NotIdentity);
        assert_eq!(refused("v=0\r\n"), KeyError::NotIdentity);
        assert_eq!(refused(&alice().public().to_text()), KeyError::PublicForIdentity);
        assert_eq!(refused(&format!("{secret}\n{secret}\n")), KeyError::ManySecrets);
        assert_eq!(
            refused(&format!("\n{secret}\nmore")),
            KeyError::StrangeLine { line: 3 }
        );
        assert_eq!(
            refused(&secret[..50]),
            KeyError::Length {
                found: 46,
                needed: 96
            }
        );
        let swapped = secret.chars().rev().take(96).collect::<String>();
        assert_eq!(refused(&format!("hss1{swapped}")), KeyError::Checksum);
    }

    #[test]
    fn debug_shows_nothing_of_a_public_key() {
        assert_eq!(format!("{:?}", alice().public()), "PublicKey(..)");
    }
}
