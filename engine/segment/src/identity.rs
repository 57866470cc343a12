//! A customer's identity: a KEM key that opens, and a signing key that vouches for it.
//!
//! Both texts are a prefix and base64url without padding (RFC 4648 §5) of these bytes, little-endian:
//!
//! ```text
//! hsp1…   public   0 kem u16 · 2 signing u16 · 4 KEM key · Ed25519 key[32] · signature[64] · checksum[4]
//! hss1…   secret   0 kem u16 · 2 signing u16 · 4 KEM secret[32] · Ed25519 seed[32] · checksum[4]
//!
//! kem        HPKE KEM id (RFC 9180 §7.1): 0x647a X-Wing, its key 1,216 bytes and its secret the 32-byte seed;
//!            0x0010 P-256, its key 65 bytes (SEC 1 §2.3.3, uncompressed) and its secret the 32-byte big-endian scalar
//! signing    1 Ed25519; 2 ECDSA P-256 reserved
//! signature  over "harborseal/v1/public-key" ‖ kem u16 ‖ signing u16 ‖ KEM key
//! checksum   SHA-256(prefix ‖ all before it), its first 4 bytes
//! ```
//!
//! An identity file is text: comment lines that begin with `#`, and one line with the secret.

mod opener;
#[cfg(test)]
mod tests;

use crate::kem::{KemId, KemPublic, KemSecret};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use crate::kem::{Agreement, KEM_P256, KEM_X_WING};
pub use opener::Opener;

const SIGNING_ED25519: u16 = 1;
const PUBLIC_PREFIX: &str = "hsp1";
const SECRET_PREFIX: &str = "hss1";
const CHECKSUM_LEN: usize = 4;
/// Both secrets are 32 bytes, whatever the KEM.
const SECRET_LEN: usize = 4 + 32 + 32 + CHECKSUM_LEN;

/// Bytes of a public key with everything, before it becomes text.
const fn public_len(kem: KemId) -> usize {
    4 + kem.public_len() + 32 + 64 + CHECKSUM_LEN
}

const _: () = assert!(public_len(KemId::XWing) == 1320 && public_len(KemId::P256) == 169);
const _: () = assert!(SECRET_LEN == 72);

/// Why a text is not a key. No variant repeats any of the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No `hsp1` text.
    #[error("not a public key: it must begin with hsp1, as `harborseal keygen` prints it")]
    NotPublic,
    /// A secret where a public key was asked for.
    #[error("this is a secret identity where a public key belongs: replace it, and keep it secret")]
    SecretForPublic,
    /// No `hss1` line.
    #[error("not an identity file: it has no line that begins with hss1")]
    NotIdentity,
    /// A public key where a secret was asked for.
    #[error("this is a public key, not an identity: the file that `harborseal keygen -o` wrote is needed")]
    PublicForIdentity,
    /// More than one `hss1` line.
    #[error("the identity file has more than one secret line")]
    ManySecrets,
    /// A line that is neither a comment nor a key.
    #[error("line {line} of the identity file is neither a comment nor a secret line")]
    StrangeLine {
        /// Its number, from 1.
        line: usize,
    },
    /// Not as long as its kind of key.
    #[error("the key is cut or has extra text: {found} characters after the prefix, {needed} expected")]
    Length {
        /// Bytes there are.
        found: usize,
        /// Bytes of such a key.
        needed: usize,
    },
    /// A character that base64url does not have.
    #[error("the key is garbled: character {at} does not belong in it")]
    Character {
        /// Its place in the text, from 0.
        at: usize,
    },
    /// A mistyped or cut text.
    #[error("the key is garbled: its checksum does not match, copy it again")]
    Checksum,
    /// Of a later version.
    #[error("the key is of kind {kem:#06x}/{signing}, which this version does not support")]
    Unsupported {
        /// HPKE KEM id.
        kem: u16,
        /// Kind of signing key.
        signing: u16,
    },
    /// The bytes are no key of their KEM.
    #[error("the key is not valid: its KEM key is malformed")]
    KemKey,
    /// The signing key did not sign this KEM key: the text was put together from two.
    #[error("the public key is not genuine: its signature does not match its KEM key")]
    Signature,
}

/// What a customer hands out: enough to seal for them, and to check what they sign.
///
/// It identifies a person, so it has no `Display` of its own and its `Debug` tells nothing: writing it out is a
/// deliberate [`PublicKey::to_text`].
#[derive(Clone)]
pub struct PublicKey {
    kem: KemPublic,
    /// Everything but the checksum.
    bytes: Box<[u8]>,
}

impl PublicKey {
    /// `hsp1…`: 1,764 characters with X-Wing, 230 with P-256.
    pub fn to_text(&self) -> String {
        encode(PUBLIC_PREFIX, &self.bytes).to_string()
    }

    /// The HPKE id of the KEM that this key is for.
    pub fn kem_id(&self) -> u16 {
        self.kem.id().as_u16()
    }

    /// The Ed25519 key with which the customer signs.
    pub fn signing_key(&self) -> &[u8; 32] {
        self.bytes[4 + self.kem.id().public_len()..]
            .first_chunk()
            .expect("an Ed25519 key has 32 bytes")
    }

    /// Whether `signature` is this key's over `message`, of which what it is begins it: a label.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let key = VerifyingKey::from_bytes(self.signing_key());
        key.is_ok_and(|key| {
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        })
    }

    /// The signing key in a form that two people can compare over the telephone: 128 bits of its SHA-256, in eight groups of four hex digits.
    /// To make a key of one's own with a given fingerprint takes 2^128 attempts.
    pub fn fingerprint(&self) -> String {
        let hash = Sha256::new()
            .chain_update(b"harborseal/v1/signing-key")
            .chain_update(self.signing_key());
        let hash = hash.finalize();
        let groups = hash[..16]
            .chunks_exact(2)
            .map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]));
        groups.collect::<Vec<_>>().join(" ")
    }

    /// Seals `text` to this key by HPKE, under `info`, which begins with a label of its own: the encapsulated key, and the ciphertext.
    pub fn seal_to(&self, info: &[u8], text: &[u8], rng: &mut impl CryptoRng) -> (Vec<u8>, Vec<u8>) {
        debug_assert!(info.starts_with(b"harborseal/v1/"));
        self.kem.seal(info, text, rng)
    }

    /// The KEM key alone, as it goes into HPKE: two public keys with the same one are the same recipient.
    pub fn kem_key_bytes(&self) -> &[u8] {
        &self.bytes[4..4 + self.kem.id().public_len()]
    }

    pub(crate) fn kem_key(&self) -> &KemPublic {
        &self.kem
    }

    /// `bytes` are as many as a key of this KEM has.
    fn parse(kem: KemId, bytes: &[u8]) -> Result<Self, KeyError> {
        let (signed, rest) = bytes.split_at(4 + kem.public_len());
        let (signing_key, signature) = rest
            .split_first_chunk::<32>()
            .expect("an Ed25519 key has 32 bytes");
        let kem = KemPublic::parse(kem, &signed[4..]).map_err(|_| KeyError::KemKey)?;
        let signature = Signature::from_slice(signature).map_err(|_| KeyError::Signature)?;
        VerifyingKey::from_bytes(signing_key)
            .and_then(|key| key.verify_strict(&signed_message(signed), &signature))
            .map_err(|_| KeyError::Signature)?;
        Ok(PublicKey {
            kem,
            bytes: bytes.into(),
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
        let (kem, bytes) = decode(PUBLIC_PREFIX, encoded, public_len)?;
        PublicKey::parse(kem, &bytes)
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
    opener: Arc<Opener>,
    public: PublicKey,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Seeds {
    kem: [u8; 32],
    signing: [u8; 32],
}

impl Seeds {
    fn empty() -> Self {
        Seeds {
            kem: [0; 32],
            signing: [0; 32],
        }
    }
}

impl Identity {
    /// An identity with X-Wing, as `harborseal keygen` makes it. Draws 32 bytes for its seed, then 32 for Ed25519.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::generate_with(KemId::XWing, rng)
    }

    /// An identity with P-256, for those whose keys must live where X-Wing cannot yet. Draws 32 bytes for its scalar, again where
    /// they are none (one time in 2^32), then 32 for Ed25519.
    pub fn generate_p256(rng: &mut impl CryptoRng) -> Self {
        Self::generate_with(KemId::P256, rng)
    }

    fn generate_with(id: KemId, rng: &mut impl CryptoRng) -> Self {
        let mut seeds = Seeds::empty();
        let kem = loop {
            rng.fill_bytes(&mut seeds.kem);
            if let Ok(kem) = KemSecret::parse(id, &seeds.kem) {
                break kem;
            }
        };
        rng.fill_bytes(&mut seeds.signing);
        Self::from_seeds(seeds, kem)
    }

    fn from_seeds(seeds: Seeds, kem: KemSecret) -> Self {
        let public = vouch(&SigningKey::from_bytes(&seeds.signing), kem.public());
        Identity {
            seeds,
            opener: Arc::new(Opener::new(kem)),
            public,
        }
    }

    /// The public key that has this identity's signing key and another KEM key: one in a card, or one of another program's.
    ///
    /// # Errors
    /// `key` is no public key of the KEM with the HPKE id `kem`, or that is none of ours.
    pub fn vouch_for(&self, kem: u16, key: &[u8]) -> Result<PublicKey, KeyError> {
        let id = KemId::from_u16(kem).ok_or(KeyError::Unsupported {
            kem,
            signing: SIGNING_ED25519,
        })?;
        let key = KemPublic::parse(id, key).map_err(|_| KeyError::KemKey)?;
        Ok(vouch(&SigningKey::from_bytes(&self.seeds.signing), key))
    }

    /// The public half, to be handed out.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// What opens with it.
    pub fn opener(&self) -> &Arc<Opener> {
        &self.opener
    }

    /// Opens what [`PublicKey::seal_to`] sealed: `None` if it was for another key, or under another `info`.
    pub fn open_sealed(&self, enc: &[u8], ct: &[u8], info: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.opener.open_sealed(enc, ct, info)
    }

    /// Signs `message`, which begins with a label of its own, so that it can be taken for nothing else that this key signs.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        debug_assert!(message.starts_with(b"harborseal/v1/"));
        SigningKey::from_bytes(&self.seeds.signing)
            .sign(message)
            .to_bytes()
    }

    /// What a node's audit log names this customer by: HMAC under it, another one in every entry. It follows from the signing seed, so that a customer finds
    /// its entries with nothing but its identity, and is told to the node in the enrolment.
    pub fn audit_salt(&self) -> [u8; 32] {
        let mut salt = [0; 32];
        Hkdf::<Sha256>::new(None, &self.seeds.signing)
            .expand(b"harborseal/v1/audit-salt", &mut salt)
            .expect("32 bytes are within HKDF's bound");
        salt
    }

    /// The whole identity file: who may see it, the public key as a comment, the secret line.
    pub fn to_file_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; SECRET_LEN - CHECKSUM_LEN]);
        bytes[..4].copy_from_slice(&kind_bytes(self.opener.id()));
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
        let (id, bytes) = decode(SECRET_PREFIX, encoded, |_| SECRET_LEN)?;
        let mut seeds = Seeds::empty();
        seeds.kem.copy_from_slice(&bytes[4..36]);
        seeds.signing.copy_from_slice(&bytes[36..68]);
        let kem = KemSecret::parse(id, &seeds.kem).map_err(|_| KeyError::KemKey)?;
        Ok(Self::from_seeds(seeds, kem))
    }
}

fn vouch(signing: &SigningKey, kem: KemPublic) -> PublicKey {
    let mut bytes = kind_bytes(kem.id()).to_vec();
    bytes.extend_from_slice(&kem.to_bytes());
    let signature = signing.sign(&signed_message(&bytes));
    bytes.extend_from_slice(signing.verifying_key().as_bytes());
    bytes.extend_from_slice(&signature.to_bytes());
    let bytes = bytes.into();
    PublicKey { kem, bytes }
}

/// The four bytes that say which algorithms a key is for.
fn kind_bytes(kem: KemId) -> [u8; 4] {
    let [kem, signing] = [kem.as_u16().to_le_bytes(), SIGNING_ED25519.to_le_bytes()];
    [kem[0], kem[1], signing[0], signing[1]]
}

fn parse_kind(bytes: [u8; 4]) -> Result<KemId, KeyError> {
    let [kem, signing] = [
        u16::from_le_bytes([bytes[0], bytes[1]]),
        u16::from_le_bytes([bytes[2], bytes[3]]),
    ];
    match KemId::from_u16(kem) {
        Some(id) if signing == SIGNING_ED25519 => Ok(id),
        _ => Err(KeyError::Unsupported { kem, signing }),
    }
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

/// Decodes a key to everything but its checksum, which is checked, and says for which KEM it is. `len` gives the bytes that a key
/// of a KEM has, checksum and all.
fn decode(
    prefix: &str,
    encoded: &str,
    len: impl Fn(KemId) -> usize,
) -> Result<(KemId, Zeroizing<Vec<u8>>), KeyError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if let Some(at) = encoded.chars().position(|c| !allowed(c)) {
        let at = prefix.len() + at + 1;
        return Err(KeyError::Character { at });
    }
    let chars = |kem| (len(kem) * 4).div_ceil(3);
    let (found, needed) = (encoded.len(), chars(told_kem(encoded)));
    let garbled = match found == needed {
        true => KeyError::Checksum,
        false => KeyError::Length { found, needed },
    };
    let mut bytes = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| garbled)?);
    let (body, stored) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(garbled)?;
    let kind = *body.first_chunk::<4>().ok_or(garbled)?;
    if checksum(prefix, body) != *stored {
        return Err(garbled);
    }
    // Whole: so if it is not of a kind that this version has, it is of a later one.
    let kem = parse_kind(kind)?;
    if bytes.len() != len(kem) {
        return Err(garbled);
    }
    let body_len = body.len();
    bytes.truncate(body_len);
    Ok((kem, bytes))
}

/// The KEM that a text's first characters tell, before it is known whether they are right; X-Wing if they tell none, as most are.
fn told_kem(encoded: &str) -> KemId {
    let first = encoded
        .get(..4)
        .and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
    let id = first.and_then(|bytes| KemId::from_u16(u16::from_le_bytes([bytes[0], bytes[1]])));
    id.unwrap_or(KemId::XWing)
}
