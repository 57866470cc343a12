//! Who there is, and the key schedule of docs/FORMAT.md §5 by hand. Everything secret comes from a label: nothing is drawn.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{DhP256HkdfSha256, XWing};
use hpke::{Deserializable, Kem, OpModeS, Serializable};
use sha2::{Digest, Sha256};

use harborseal_segment::random::FixedBytes;

use super::wire::{Fields, Seg};

pub type Id = [u8; 16];

/// 32 bytes that depend on `label` alone.
pub fn secret(label: &str) -> [u8; 32] {
    Sha256::digest(["harborseal test vectors: ", label].concat()).into()
}

/// An id that depends on `label` alone.
pub fn id(label: &str) -> Id {
    *secret(label).first_chunk().expect("32 bytes hold 16")
}

/// Somebody with an identity, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Person {
    pub name: &'static str,
    p256: bool,
}

pub const ALICE: Person = person("alice", false);
pub const BOB: Person = person("bob", false);
/// Has a P-256 key.
pub const CAROL: Person = person("carol", true);
/// Is nobody's customer and in no segment.
pub const MALLORY: Person = person("mallory", false);
/// A customer's recovery key.
pub const RECOVERY: Person = person("recovery", false);
/// Holds standing grants.
pub const GRACE: Person = person("grace", false);

pub const PEOPLE: [Person; 6] = [ALICE, BOB, CAROL, GRACE, MALLORY, RECOVERY];

const fn person(name: &'static str, p256: bool) -> Person {
    Person { name, p256 }
}

impl Person {
    pub fn kem(&self) -> u16 {
        if self.p256 { 0x0010 } else { 0x647a }
    }

    /// The KEM's secret and public key.
    fn kem_pair(&self) -> ([u8; 32], Vec<u8>) {
        let seed = secret(&format!("{} KEM", self.name));
        if self.p256 {
            let (secret, public) = DhP256HkdfSha256::derive_keypair(&seed);
            (secret.to_bytes().into(), public.to_bytes().to_vec())
        } else {
            let secret = <XWing as Kem>::PrivateKey::from_bytes(&seed).expect("any 32 bytes are a seed");
            (seed, XWing::sk_to_pk(&secret).to_bytes().to_vec())
        }
    }

    fn kind(&self) -> Vec<u8> {
        Fields::default().u16(self.kem()).u16(1).0
    }

    /// `hss1…`
    pub fn secret_text(&self) -> String {
        let seed = secret(&format!("{} signing", self.name));
        text("hss1", &[&self.kind()[..], &self.kem_pair().0, &seed].concat())
    }

    /// `hsp1…`
    pub fn public_text(&self) -> String {
        let signing = SigningKey::from_bytes(&secret(&format!("{} signing", self.name)));
        let signed = [self.kind(), self.kem_pair().1].concat();
        let signature = signing.sign(&[b"harborseal/v1/public-key", &signed[..]].concat());
        let key = signing.verifying_key().to_bytes();
        text("hsp1", &[&signed[..], &key, &signature.to_bytes()].concat())
    }

    /// HPKE, base mode, single-shot: enc and ct.
    fn wrap(&self, info: &[u8], plain: &[u8], label: &str) -> (Vec<u8>, Vec<u8>) {
        let random = [secret(label), secret(&format!("{label}, more"))].concat();
        let public = self.kem_pair().1;
        match self.p256 {
            true => wrap::<DhP256HkdfSha256>(&public, info, plain, &random),
            false => wrap::<XWing>(&public, info, plain, &random),
        }
    }
}

fn wrap<K: Kem>(public: &[u8], info: &[u8], plain: &[u8], random: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let public = K::PublicKey::from_bytes(public).expect("it was derived as a public key");
    let mut rng = FixedBytes(random);
    let sealed = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(
        &OpModeS::Base,
        &public,
        info,
        plain,
        b"",
        &mut rng,
    );
    let (enc, ct) = sealed.expect("a valid public key can be sealed to");
    (enc.to_bytes().to_vec(), ct)
}

fn text(prefix: &str, bytes: &[u8]) -> String {
    let checksum = Sha256::new().chain_update(prefix).chain_update(bytes).finalize();
    let whole = [bytes, &checksum[..4]].concat();
    format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(whole))
}

/// A node by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node(pub &'static str);

pub const NODE: Node = Node("node");
pub const OTHER_NODE: Node = Node("other-node");

impl Node {
    pub fn seed(&self) -> [u8; 32] {
        secret(&format!("{} seed", self.0))
    }

    fn signing(&self) -> SigningKey {
        SigningKey::from_bytes(&self.seed())
    }

    pub fn key(&self) -> [u8; 32] {
        self.signing().verifying_key().to_bytes()
    }

    pub fn id(&self) -> Id {
        let hash = Sha256::new()
            .chain_update("harborseal/v1/node")
            .chain_update(self.key())
            .finalize();
        *hash.first_chunk().expect("32 bytes hold 16")
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing().sign(message).to_bytes()
    }
}

fn expand(prk: &[u8; 32], info: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let prk = Hkdf::<Sha256>::from_prk(prk).expect("a PRK is as long as the hash");
    prk.expand(info, &mut out)
        .expect("32 bytes are within HKDF's bound");
    out
}

/// H of a slot's customer, in a segment.
#[derive(Clone, Copy)]
pub struct Ratchet(pub [u8; 32]);

impl Ratchet {
    /// H_0, turned `chain_seq` times.
    pub fn new(label: &str, chain_seq: u64) -> Self {
        (0..chain_seq).fold(Ratchet(secret(label)), |hint, _| hint.turned())
    }

    /// The next H.
    pub fn turned(&self) -> Self {
        Ratchet(expand(&self.0, b"harborseal/v1/hint"))
    }

    fn shown(&self, segment_id: &Id) -> Id {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(segment_id);
        *mac.finalize()
            .into_bytes()
            .first_chunk()
            .expect("32 bytes hold 16")
    }
}

/// A customer in a segment: its secret and who gets it.
#[derive(Clone)]
pub struct Slot {
    pub number: u32,
    pub secret: [u8; 32],
    pub hint: Ratchet,
    pub recipients: Vec<Person>,
    /// E, where the slot is erasable.
    pub e: Option<[u8; 32]>,
}

impl Slot {
    /// The first recipient is the customer.
    pub fn new(seg: &Seg, number: u32, recipients: &[Person]) -> Self {
        let run: String = seg.run_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let hint = format!("H of {} in run {run}, shard {}", recipients[0].name, seg.shard);
        Slot {
            number,
            secret: secret(&format!("S of {}, slot {number}", seg.label)),
            hint: Ratchet::new(&hint, seg.chain_seq),
            recipients: recipients.to_vec(),
            e: None,
        }
    }

    /// The same, erasable: EK is the customer's of the segment's day.
    pub fn erasable(seg: &Seg, number: u32, recipients: &[Person]) -> Self {
        let day = seg.created_s / 86_400;
        let ek = secret(&format!("EK of {} on day {day}", recipients[0].name));
        let info = Fields::default()
            .bytes(b"harborseal/v1/erase")
            .bytes(&seg.id)
            .u32(number)
            .0;
        Slot {
            e: Some(expand(&ek, &info)),
            ..Slot::new(seg, number, recipients)
        }
    }

    /// The entries of scope 0, one for each recipient.
    pub fn entries(&self, seg: &Seg) -> Vec<Entry> {
        let n = self.recipients.len() as u8;
        let entry = |(i, person): (usize, &Person)| {
            let mut entry = Entry::new(self, seg, person);
            (entry.i, entry.n) = (i as u8, n);
            entry.wrapped(seg, person, &self.hint.0, &self.secret)
        };
        self.recipients.iter().enumerate().map(entry).collect()
    }

    /// K_st of a stream.
    pub fn stream_key(&self, segment_id: &Id, stream_id: &Id) -> [u8; 32] {
        let ikm = [&self.secret[..], self.e.as_ref().map_or(&[], |e| &e[..])].concat();
        let (prk, _) = Hkdf::<Sha256>::extract(Some(segment_id), &ikm);
        expand(&prk.into(), &[b"harborseal/v1/stream", &stream_id[..]].concat())
    }

    /// A standing grant for one stream, recipient `i` of `n`.
    pub fn grant(&self, seg: &Seg, stream_id: &Id, person: &Person, i: u8, n: u8) -> Entry {
        let mut given = self.stream_key(&seg.id, stream_id);
        if let Some(e) = &self.e {
            let mask = expand(e, &[b"harborseal/v1/erase-grant", &stream_id[..]].concat());
            given.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        let hint = Ratchet(secret(&format!(
            "H of the grant for {} in {}",
            person.name, seg.label
        )));
        let mut entry = Entry::new(self, seg, person);
        (entry.scope, entry.i, entry.n, entry.stream_id) = (1, i, n, *stream_id);
        entry.hint = hint.shown(&seg.id);
        entry.wrapped(seg, person, &hint.0, &given)
    }
}

/// K_enc and C of a stream.
pub fn stream_keys(k_st: &[u8; 32]) -> ([u8; 32], [u8; 32]) {
    (
        expand(k_st, b"harborseal/v1/aead"),
        expand(k_st, b"harborseal/v1/commit"),
    )
}

/// A KEY entry, §4.2.
#[derive(Clone)]
pub struct Entry {
    /// As long as it needs to be, unless set.
    pub entry_len: Option<u16>,
    pub kem: u16,
    pub kdf: u16,
    pub aead: u16,
    pub slot: u32,
    pub scope: u8,
    pub i: u8,
    pub n: u8,
    pub flags: u8,
    pub stream_id: Id,
    pub hint: Id,
    pub reserved: u32,
    pub enc: Vec<u8>,
    pub ct: Vec<u8>,
}

impl Entry {
    fn new(slot: &Slot, seg: &Seg, person: &Person) -> Self {
        Entry {
            entry_len: None,
            kem: person.kem(),
            kdf: 1,
            aead: 2,
            slot: slot.number,
            scope: 0,
            i: 0,
            n: 1,
            flags: u8::from(slot.e.is_some()),
            stream_id: [0; 16],
            hint: slot.hint.shown(&seg.id),
            reserved: 0,
            enc: Vec::new(),
            ct: Vec::new(),
        }
    }

    /// Seals `hint ‖ given` to `person` under what the entry says of itself.
    pub fn wrapped(mut self, seg: &Seg, person: &Person, hint: &[u8; 32], given: &[u8]) -> Self {
        let suite = Fields::default()
            .bytes(b"harborseal/v1/key")
            .u16(self.kem)
            .u16(self.kdf)
            .u16(self.aead);
        let place = suite.bytes(&seg.node.id()).bytes(&seg.id).u32(self.slot);
        let info = place
            .bytes(&[self.scope, self.i, self.n])
            .bytes(&self.stream_id)
            .bytes(&self.hint)
            .0;
        let label = format!(
            "HPKE for {} in {}, slot {}, scope {}, recipient {}, stream {:?}",
            person.name, seg.label, self.slot, self.scope, self.i, self.stream_id
        );
        (self.enc, self.ct) = person.wrap(&info, &[hint, given].concat(), &label);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let needed = (56 + self.enc.len() + self.ct.len()).next_multiple_of(8);
        let len = self.entry_len.unwrap_or(needed as u16);
        let head = Fields::default()
            .u16(len)
            .u16(self.kem)
            .u16(self.kdf)
            .u16(self.aead)
            .u32(self.slot);
        let head = head
            .bytes(&[self.scope, self.i, self.n, self.flags])
            .bytes(&self.stream_id);
        let lens = head
            .bytes(&self.hint)
            .u16(self.enc.len() as u16)
            .u16(self.ct.len() as u16);
        let mut bytes = lens.u32(self.reserved).bytes(&self.enc).bytes(&self.ct).0;
        bytes.resize(needed.max(usize::from(len)), 0);
        bytes
    }
}

/// KEY, §4.2.
pub fn key_body(entries: &[Entry]) -> Vec<u8> {
    let head = Fields::default().u32(entries.len() as u32).u32(0);
    entries
        .iter()
        .fold(head, |body, entry| body.bytes(&entry.bytes()))
        .0
}
