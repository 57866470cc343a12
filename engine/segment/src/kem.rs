//! The two ways in which a secret reaches a public key: HPKE (RFC 9180), base mode, with X-Wing or with P-256.
//!
//! X-Wing (ML-KEM-768 and X25519 together) is what `keygen` makes: footage copied today stays closed to a quantum computer of
//! tomorrow. P-256 is for keys that live in a card, an HSM or a key service, which have nothing else yet; it gives that up.
//!
//! This is the only place that knows the KEMs apart. With both, the key schedule's KDF is HKDF-SHA256 and the AEAD AES-256-GCM.

mod elsewhere;

use hpke::aead::{Aead, AesGcm256};
use hpke::kdf::{HkdfSha256, Kdf};
use hpke::kem::{DhP256HkdfSha256, XWing};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

pub use crate::body::{KEM_P256, KEM_X_WING};

pub(crate) const KDF_HKDF_SHA256: u16 = 0x0001;
pub(crate) const AEAD_AES_256_GCM: u16 = 0x0002;

const _: () = assert!(<XWing as Kem>::KEM_ID == KEM_X_WING);
const _: () = assert!(<DhP256HkdfSha256 as Kem>::KEM_ID == KEM_P256);
const _: () = assert!(<HkdfSha256 as Kdf>::KDF_ID == KDF_HKDF_SHA256);
const _: () = assert!(<AesGcm256 as Aead>::AEAD_ID == AEAD_AES_256_GCM);

/// A KEM that this crate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KemId {
    XWing,
    P256,
}

impl KemId {
    pub(crate) fn from_u16(id: u16) -> Option<Self> {
        match id {
            KEM_X_WING => Some(KemId::XWing),
            KEM_P256 => Some(KemId::P256),
            _ => None,
        }
    }

    pub(crate) fn as_u16(self) -> u16 {
        match self {
            KemId::XWing => KEM_X_WING,
            KemId::P256 => KEM_P256,
        }
    }

    /// Bytes of a public key.
    pub(crate) const fn public_len(self) -> usize {
        match self {
            KemId::XWing => 1216,
            KemId::P256 => 65,
        }
    }
}

/// Bytes that are not a key of their KEM: not a point, or 0 or beyond the group's order.
#[derive(Debug)]
pub(crate) struct BadKey;

/// A public key that was found to be one.
#[derive(Clone)]
pub(crate) enum KemPublic {
    XWing(Box<<XWing as Kem>::PublicKey>),
    P256(<DhP256HkdfSha256 as Kem>::PublicKey),
}

impl KemPublic {
    pub(crate) fn parse(id: KemId, bytes: &[u8]) -> Result<Self, BadKey> {
        Ok(match id {
            KemId::XWing => KemPublic::XWing(Box::new(parse(bytes)?)),
            KemId::P256 => KemPublic::P256(parse(bytes)?),
        })
    }

    pub(crate) fn id(&self) -> KemId {
        match self {
            KemPublic::XWing(_) => KemId::XWing,
            KemPublic::P256(_) => KemId::P256,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            KemPublic::XWing(key) => key.to_bytes().to_vec(),
            KemPublic::P256(key) => key.to_bytes().to_vec(),
        }
    }

    /// Seals `text`; returns the encapsulated key and the ciphertext. Draws 64 bytes from `rng` with X-Wing, 32 with P-256.
    pub(crate) fn seal(&self, info: &[u8], text: &[u8], rng: &mut impl CryptoRng) -> (Vec<u8>, Vec<u8>) {
        match self {
            KemPublic::XWing(key) => seal::<XWing>(key, info, text, rng),
            KemPublic::P256(key) => seal::<DhP256HkdfSha256>(key, info, text, rng),
        }
    }
}

/// The key agreement with a P-256 key that is elsewhere: takes the other side's point (SEC 1 §2.3.3, uncompressed, on the curve), gives the x-coordinate of the
/// product (SEC 1 §3.3.1), or says why it could not.
pub type Agreement = Box<dyn Fn(&[u8; 65]) -> Result<Zeroizing<[u8; 32]>, String> + Send + Sync>;

/// A secret key. Its types wipe themselves when dropped.
pub(crate) enum KemSecret {
    XWing(Box<<XWing as Kem>::PrivateKey>),
    P256(<DhP256HkdfSha256 as Kem>::PrivateKey),
    /// Of P-256, in a card or an HSM, which this is the public half of.
    Elsewhere(<DhP256HkdfSha256 as Kem>::PublicKey, Agreement),
}

impl KemSecret {
    /// X-Wing: any 32 bytes, its seed. P-256: a big-endian scalar that is neither 0 nor beyond the group's order.
    pub(crate) fn parse(id: KemId, bytes: &[u8; 32]) -> Result<Self, BadKey> {
        Ok(match id {
            KemId::XWing => KemSecret::XWing(Box::new(parse(bytes)?)),
            KemId::P256 => KemSecret::P256(parse(bytes)?),
        })
    }

    pub(crate) fn elsewhere(public: &[u8; 65], agree: Agreement) -> Result<Self, BadKey> {
        Ok(KemSecret::Elsewhere(parse(public)?, agree))
    }

    pub(crate) fn id(&self) -> KemId {
        match self {
            KemSecret::XWing(_) => KemId::XWing,
            KemSecret::P256(_) | KemSecret::Elsewhere(..) => KemId::P256,
        }
    }

    pub(crate) fn public(&self) -> KemPublic {
        match self {
            KemSecret::XWing(key) => KemPublic::XWing(Box::new(XWing::sk_to_pk(key))),
            KemSecret::P256(key) => KemPublic::P256(DhP256HkdfSha256::sk_to_pk(key)),
            KemSecret::Elsewhere(public, _) => KemPublic::P256(public.clone()),
        }
    }

    /// Opens what was sealed to this key under `info`: `None` if it was not. The error is of a key that is elsewhere and could not be used.
    pub(crate) fn open(
        &self,
        enc: &[u8],
        ct: &[u8],
        info: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        Ok(match self {
            KemSecret::XWing(key) => open::<XWing>(key, enc, ct, info),
            KemSecret::P256(key) => open::<DhP256HkdfSha256>(key, enc, ct, info),
            KemSecret::Elsewhere(public, agree) => {
                // What is no point of the curve is not for a card to look at.
                let point: Result<<DhP256HkdfSha256 as Kem>::EncappedKey, BadKey> = parse(enc);
                let (Ok(_), Some(enc)) = (point, enc.first_chunk()) else {
                    return Ok(None);
                };
                let public = public.to_bytes();
                let public = public.first_chunk().expect("an uncompressed point has 65 bytes");
                elsewhere::open(&*agree(enc)?, enc, public, info, ct)
            }
        })
    }
}

fn parse<T: Deserializable>(bytes: &[u8]) -> Result<T, BadKey> {
    T::from_bytes(bytes).map_err(|_| BadKey)
}

fn seal<K: Kem>(
    key: &K::PublicKey,
    info: &[u8],
    text: &[u8],
    rng: &mut impl CryptoRng,
) -> (Vec<u8>, Vec<u8>) {
    let mode = OpModeS::Base;
    let sealed =
        hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(&mode, key, info, text, b"", rng);
    let (enc, ct) = sealed.expect("a public key was checked when it was parsed");
    (enc.to_bytes().to_vec(), ct)
}

fn open<K: Kem>(key: &K::PrivateKey, enc: &[u8], ct: &[u8], info: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let enc = parse::<K::EncappedKey>(enc).ok()?;
    let mode = OpModeR::Base;
    let text = hpke::single_shot_open::<AesGcm256, HkdfSha256, K>(&mode, key, &enc, info, ct, b"");
    text.ok().map(Zeroizing::new)
}
