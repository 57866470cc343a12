//! The key schedule of a segment: from the secret drawn for it to the key of each stream, and how that secret
//! reaches its customer.
//!
//! ```text
//! KEY entry = HPKE-seal(public key, info, aad = "", plaintext = H_n ‖ S)        S: this segment's secret
//!       info = "harborseal/v1/key" ‖ kem,kdf,aead u16 ‖ node_id[16] ‖ segment_id[16] ‖ slot u32
//!              ‖ scope ‖ i ‖ n ‖ stream_id[16] ‖ hint[16]
//!
//! PRK    = HKDF-Extract(salt = segment_id, IKM = S)                             erasable: IKM = S ‖ E, see crate::erase
//! K_st   = HKDF-Expand(PRK, "harborseal/v1/stream" ‖ stream_id, 32)             opens one stream of one segment
//! K_enc  = HKDF-Expand(K_st, "harborseal/v1/aead", 32)
//! C      = HKDF-Expand(K_st, "harborseal/v1/commit", 32)                        stored, checked before opening
//!
//! hint   = HMAC(H_n, segment_id)[..16]        H_{n+1} = HKDF-Expand(H_n, "harborseal/v1/hint", 32)
//! ```
//!
//! HKDF is RFC 5869 and HMAC RFC 2104, both with SHA-256; HPKE is RFC 9180, base mode. Every type here that
//! holds a secret is wiped when dropped and cannot be printed.

#[cfg(test)]
mod tests;

use crate::body::{KeyEntry, SCOPE_CUSTOMER, SCOPE_STREAM};
use crate::cipher::{Backend, OpenKey, SealKey};
use crate::erase::EraseSecret;
use crate::identity::{Opener, PublicKey};
use crate::ids::{NodeId, SegmentId, StreamId};
use crate::kem::{AEAD_AES_256_GCM, KDF_HKDF_SHA256, KemId};
use crate::planted::{Planted, planted};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use rand_core::CryptoRng;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// S: with E where the slot is erasable, what opens all of one customer's streams in one segment.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SegmentSecret([u8; 32]);

impl SegmentSecret {
    /// `bytes` must be random and used for this customer and segment only.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        SegmentSecret(bytes)
    }

    /// Draws 32 bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secret = SegmentSecret([0; 32]);
        rng.fill_bytes(&mut secret.0);
        secret
    }

    /// The bytes, for whoever looks whether they were left somewhere.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// K_st: what opens one stream in one segment. A grant hands it over.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StreamSecret([u8; 32]);

impl StreamSecret {
    /// As a grant or an entry of scope 1 gives it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        StreamSecret(bytes)
    }

    /// The bytes, to be handed over.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(
        segment_id: &SegmentId,
        secret: &SegmentSecret,
        erase: Option<&EraseSecret>,
        stream_id: &StreamId,
    ) -> Self {
        let mut ikm = Zeroizing::new([0; 64]);
        ikm[..32].copy_from_slice(&secret.0);
        let ikm = match erase {
            None => &ikm[..32],
            Some(erase) => {
                ikm[32..].copy_from_slice(erase.as_bytes());
                &ikm[..]
            }
        };
        let prk = Hkdf::<Sha256>::new(Some(&segment_id.0), ikm);
        let mut stream_secret = StreamSecret([0; 32]);
        prk.expand_multi_info(&[b"harborseal/v1/stream", &stream_id.0], &mut stream_secret.0)
            .expect("32 bytes are within HKDF's bound");
        stream_secret
    }

    /// What a scope 1 entry of an erasable slot holds, or, of that, what it stands for.
    pub(crate) fn masked(mut self, erase: &EraseSecret, stream_id: &StreamId) -> Self {
        erase.mask(stream_id, &mut self.0);
        self
    }
}

/// H_n: by which a customer finds their entry in the n-th segment of a run and shard without trying them all,
/// and by which nobody else learns that two entries are of one customer.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Hint([u8; 32]);

impl Hint {
    /// H_0: `bytes` must be random and used for this customer, shard and run only.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Hint(bytes)
    }

    /// Draws 32 bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut hint = Hint([0; 32]);
        rng.fill_bytes(&mut hint.0);
        hint
    }

    /// The bytes, for whoever looks whether they were left somewhere.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the customer's KEY entry shows in `segment_id`.
    pub fn for_segment(&self, segment_id: &SegmentId) -> [u8; 16] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(&segment_id.0);
        *mac.finalize()
            .into_bytes()
            .first_chunk()
            .expect("HMAC-SHA-256 has 32 bytes")
    }

    /// H_n becomes H_{n+1}; the way back is lost. Once per step of `chain_seq`, for every customer of the
    /// registry, whether present in the segment or not: so a reader can count.
    pub fn ratchet(&mut self) {
        if planted(Planted::HintNotRatcheted) {
            return;
        }
        let prk = Hkdf::<Sha256>::from_prk(&self.0).expect("H is as long as the hash");
        prk.expand(b"harborseal/v1/hint", &mut self.0)
            .expect("32 bytes are within HKDF's bound");
    }
}

/// Where a KEY entry belongs, and which recipient of its slot it is for. HPKE binds all of it but `erase`.
#[derive(Clone, Copy)]
pub struct Wrap<'a> {
    /// The node that writes the segment.
    pub node_id: NodeId,
    /// The segment.
    pub segment_id: SegmentId,
    /// The customer's slot in it.
    pub slot: u32,
    /// Recipient `i`, from 0, of `n`: of the slot's secret, or of one stream's.
    pub i: u8,
    /// How many recipients there are. All entries of one secret must state the same.
    pub n: u8,
    /// E, if the slot is erasable. All entries of a slot must agree in that.
    pub erase: Option<&'a EraseSecret>,
}

/// Wraps the customer's secret: the entry opens every stream of the slot. Draws 64 bytes from `rng` for an X-Wing key, 32 for a
/// P-256 key.
pub fn wrap(
    public: &PublicKey,
    wrap: &Wrap<'_>,
    hint: &Hint,
    secret: &SegmentSecret,
    rng: &mut impl CryptoRng,
) -> KeyEntry {
    wrap_scoped(public, wrap, SCOPE_CUSTOMER, StreamId::ZERO, hint, &secret.0, rng)
}

/// Wraps the customer's secret for the customer and whom the customer named beside itself. The recipients share H: whose entry is whose
/// does not show. `i` and `n` of `place` are not looked at; they follow from `publics`.
///
/// The entries may stand in any order and in several KEY blocks, but all of them before the slot's first STREAM. Panics if there are
/// more than 255 recipients, or none.
pub fn wrap_all(
    publics: &[&PublicKey],
    place: &Wrap<'_>,
    hint: &Hint,
    secret: &SegmentSecret,
    rng: &mut impl CryptoRng,
) -> Vec<KeyEntry> {
    let n = u8::try_from(publics.len()).expect("a slot has at most 255 recipients");
    assert!(n > 0, "a slot has a recipient");
    let entry = |(i, public): (u8, &&PublicKey)| {
        let place = Wrap { i, n, ..*place };
        wrap(public, &place, hint, secret, rng)
    };
    (0..n).zip(publics).map(entry).collect()
}

/// Wraps the secret of one stream, for the holder of a standing grant. `hint` is the grantee's own, and so are `i` and `n`: they count
/// the grantees of this stream. Where the slot is erasable, what is wrapped is masked with E.
pub fn wrap_stream(
    public: &PublicKey,
    wrap: &Wrap<'_>,
    stream_id: StreamId,
    hint: &Hint,
    secret: &StreamSecret,
    rng: &mut impl CryptoRng,
) -> KeyEntry {
    let secret = match wrap.erase {
        None => secret.clone(),
        Some(erase) => secret.clone().masked(erase, &stream_id),
    };
    wrap_scoped(public, wrap, SCOPE_STREAM, stream_id, hint, &secret.0, rng)
}

fn wrap_scoped(
    public: &PublicKey,
    wrap: &Wrap<'_>,
    scope: u8,
    stream_id: StreamId,
    hint: &Hint,
    secret: &[u8; 32],
    rng: &mut impl CryptoRng,
) -> KeyEntry {
    let mut entry = KeyEntry {
        kem: public.kem_id(),
        kdf: KDF_HKDF_SHA256,
        aead: AEAD_AES_256_GCM,
        slot: wrap.slot,
        scope,
        i: wrap.i,
        n: wrap.n,
        erasable: wrap.erase.is_some(),
        stream_id,
        hint: hint.for_segment(&wrap.segment_id),
        enc: Vec::new(),
        ct: Vec::new(),
    };
    let mut text = Zeroizing::new([0; 64]);
    text[..32].copy_from_slice(&hint.0);
    text[32..].copy_from_slice(secret);
    let info = info(&entry, &wrap.node_id, &wrap.segment_id);
    (entry.enc, entry.ct) = public.kem_key().seal(&info, &text[..], rng);
    entry
}

/// What an entry held.
pub enum Secret {
    /// S: it opens every stream of the slot.
    Customer(SegmentSecret),
    /// K_st of one stream. In an erasable slot it is still masked with E.
    Stream(StreamId, StreamSecret),
}

/// An opened entry.
pub struct Unwrapped {
    /// H of this segment. Ratcheted, it finds the entry in each later segment of the same run and shard.
    pub hint: Hint,
    /// S or K_st.
    pub secret: Secret,
    /// The slot is erasable: the secret needs E beside it.
    pub erasable: bool,
}

/// Why an entry gives no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// The usual answer: most entries are for others.
    #[error("this key entry is for another identity")]
    NotForThisIdentity,
    #[error(
        "key entry of suite {kem:#06x}/{kdf:#06x}/{aead:#06x}, scope {scope}: not supported by this version"
    )]
    /// Of a later version.
    Unsupported {
        /// HPKE KEM id.
        kem: u16,
        /// HPKE KDF id.
        kdf: u16,
        /// HPKE AEAD id.
        aead: u16,
        /// The entry's scope.
        scope: u8,
    },
    /// It opened, so whoever made it had the public key and broke the format.
    #[error("the key entry opens but does not hold what the format says")]
    Malformed,
}

/// Opens an entry of `segment_id`, a segment of `node_id`. Costs a decapsulation, whether it succeeds or not: find
/// the right entry by its hint where that is possible.
pub fn unwrap(
    opener: &impl AsRef<Opener>,
    entry: &KeyEntry,
    node_id: &NodeId,
    segment_id: &SegmentId,
) -> Result<Unwrapped, UnwrapError> {
    let &KeyEntry {
        kem,
        kdf,
        aead,
        scope,
        ..
    } = entry;
    let known = KemId::from_u16(kem).filter(|_| (kdf, aead) == (KDF_HKDF_SHA256, AEAD_AES_256_GCM));
    let Some(known) = known.filter(|_| scope <= SCOPE_STREAM) else {
        return Err(UnwrapError::Unsupported {
            kem,
            kdf,
            aead,
            scope,
        });
    };
    let opener = opener.as_ref();
    if known != opener.id() {
        return Err(UnwrapError::NotForThisIdentity);
    }
    // An encapsulated key that is no point of the curve opens for nobody, so nobody can say that it is theirs.
    let text = opener.open_sealed(&entry.enc, &entry.ct, &info(entry, node_id, segment_id));
    let text = text.ok_or(UnwrapError::NotForThisIdentity)?;
    let text: &[u8; 64] = text[..].try_into().map_err(|_| UnwrapError::Malformed)?;
    let hint = Hint(*text.first_chunk().expect("64 bytes hold two of 32"));
    let secret = text.last_chunk().expect("64 bytes hold two of 32");
    if hint.for_segment(segment_id) != entry.hint {
        return Err(UnwrapError::Malformed);
    }
    let secret = match scope {
        SCOPE_CUSTOMER => Secret::Customer(SegmentSecret(*secret)),
        _ => Secret::Stream(entry.stream_id, StreamSecret(*secret)),
    };
    let erasable = entry.erasable;
    Ok(Unwrapped {
        hint,
        secret,
        erasable,
    })
}

fn info(entry: &KeyEntry, node_id: &NodeId, segment_id: &SegmentId) -> Vec<u8> {
    let mut info = b"harborseal/v1/key".to_vec();
    info.extend_from_slice(&entry.kem.to_le_bytes());
    info.extend_from_slice(&entry.kdf.to_le_bytes());
    info.extend_from_slice(&entry.aead.to_le_bytes());
    info.extend_from_slice(&node_id.0);
    info.extend_from_slice(&segment_id.0);
    info.extend_from_slice(&entry.slot.to_le_bytes());
    info.extend_from_slice(&[entry.scope, entry.i, entry.n]);
    info.extend_from_slice(&entry.stream_id.0);
    info.extend_from_slice(&entry.hint);
    info
}

/// The keys of one stream in one segment.
pub struct StreamKeys {
    enc: Zeroizing<[u8; 32]>,
    commitment: [u8; 32],
    secret: StreamSecret,
}

impl StreamKeys {
    /// From the customer's secret.
    pub fn derive(segment_id: &SegmentId, secret: &SegmentSecret, stream_id: &StreamId) -> Self {
        Self::from_secret(StreamSecret::derive(segment_id, secret, None, stream_id))
    }

    /// From the customer's secret and E, in an erasable slot.
    pub fn derive_erasable(
        segment_id: &SegmentId,
        secret: &SegmentSecret,
        erase: &EraseSecret,
        stream_id: &StreamId,
    ) -> Self {
        Self::from_secret(StreamSecret::derive(segment_id, secret, Some(erase), stream_id))
    }

    /// From the one stream's secret, as a grant gives it.
    pub fn from_secret(secret: StreamSecret) -> Self {
        let prk = Hkdf::<Sha256>::from_prk(&secret.0).expect("K_st is as long as the hash");
        let mut keys = StreamKeys {
            enc: Zeroizing::new([0; 32]),
            commitment: [0; 32],
            secret,
        };
        let bound = "32 bytes are within HKDF's bound";
        prk.expand(b"harborseal/v1/aead", &mut keys.enc[..]).expect(bound);
        prk.expand(b"harborseal/v1/commit", &mut keys.commitment)
            .expect(bound);
        keys
    }

    /// K_st, for a grant.
    pub fn secret(&self) -> &StreamSecret {
        &self.secret
    }

    /// C, which the STREAM block shows.
    pub fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// Whether these are the keys that a STREAM block's extension commits to. Ask before opening anything: GCM
    /// itself would accept a ciphertext made to open under two keys. Takes the same time whatever the answer.
    pub fn matches(&self, extension: &[u8]) -> bool {
        // A later version may extend the header further: the commitment stays first.
        extension
            .first_chunk::<32>()
            .is_some_and(|stored| self.commitment.ct_eq(stored).into())
    }

    /// K_enc, to seal with `backend`.
    pub fn seal_key(&self, backend: Backend) -> SealKey {
        SealKey::new(backend, &self.enc)
    }

    /// K_enc, made ready to open.
    pub fn open_key(&self) -> OpenKey {
        OpenKey::new(&self.enc)
    }
}
