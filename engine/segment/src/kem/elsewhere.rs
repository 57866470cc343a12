//! HPKE with a P-256 key that is elsewhere: a card or an HSM does the key agreement, and the rest is done here.
//!
//! RFC 9180 §4.1 (DHKEM), §5.1 (key schedule, base mode), §5.2 (the first message), with DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM. The `hpke` crate
//! wants the private key itself, so this is written anew, and checked against it.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce, Tag};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{AEAD_AES_256_GCM, KDF_HKDF_SHA256, KEM_P256};

/// Opens `ct` with the secret `dh` that was agreed between the encapsulated key `enc` and the recipient's key `public`: `None` if it does not authenticate.
pub fn open(
    dh: &[u8; 32],
    enc: &[u8; 65],
    public: &[u8; 65],
    info: &[u8],
    ct: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let kem = Suite(&[b"KEM", &KEM_P256.to_be_bytes()[..]].concat()).shared_secret(dh, enc, public);
    let ids = [KEM_P256, KDF_HKDF_SHA256, AEAD_AES_256_GCM].map(u16::to_be_bytes);
    let suite = [&b"HPKE"[..], ids.as_flattened()].concat();
    let (key, nonce) = Suite(&suite).key_and_nonce(&kem, info);
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key));
    let (text, tag) = ct.split_last_chunk::<16>()?;
    let mut text = Zeroizing::new(text.to_vec());
    let nonce = Nonce::from(*nonce);
    let opened = cipher.decrypt_inout_detached(&nonce, b"", text.as_mut_slice().into(), &Tag::from(*tag));
    opened.ok().map(|()| text)
}

/// What every label of a suite is bound to (RFC 9180 §4).
struct Suite<'a>(&'a [u8]);

impl Suite<'_> {
    /// ExtractAndExpand of §4.1.
    fn shared_secret(&self, dh: &[u8; 32], enc: &[u8; 65], public: &[u8; 65]) -> Zeroizing<[u8; 32]> {
        let prk = self.extract(b"", b"eae_prk", dh);
        let mut secret = Zeroizing::new([0; 32]);
        self.expand(
            &prk,
            b"shared_secret",
            &[&enc[..], public].concat(),
            &mut secret[..],
        );
        secret
    }

    /// KeySchedule of §5.1 in base mode: no pre-shared key.
    fn key_and_nonce(&self, shared: &[u8; 32], info: &[u8]) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 12]>) {
        let psk_id_hash = self.extract(b"", b"psk_id_hash", b"");
        let info_hash = self.extract(b"", b"info_hash", info);
        let context = [&[0][..], &psk_id_hash[..], &info_hash[..]].concat();
        let secret = self.extract(shared, b"secret", b"");
        let (mut key, mut nonce) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 12]));
        self.expand(&secret, b"key", &context, &mut key[..]);
        self.expand(&secret, b"base_nonce", &context, &mut nonce[..]);
        (key, nonce)
    }

    /// LabeledExtract: HKDF-Extract, which is one HMAC (RFC 5869 §2.2).
    fn extract(&self, salt: &[u8], label: &[u8], ikm: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("HMAC takes a key of any length");
        for part in [b"HPKE-v1", self.0, label, ikm] {
            mac.update(part);
        }
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    /// LabeledExpand.
    fn expand(&self, prk: &[u8; 32], label: &[u8], info: &[u8], out: &mut [u8]) {
        let len = (out.len() as u16).to_be_bytes();
        let prk = Hkdf::<Sha256>::from_prk(prk).expect("PRK is as long as the hash");
        prk.expand_multi_info(&[&len, b"HPKE-v1", self.0, label, info], out)
            .expect("32 bytes are within HKDF's bound");
    }
}
