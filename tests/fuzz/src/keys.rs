//! Keys as text, and what a public key that parses is good for.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use harborseal_segment::identity::{Identity, PublicKey};
use harborseal_segment::ids::{NodeId, SegmentId};
use harborseal_segment::keys::{Hint, SegmentSecret, Wrap, unwrap, wrap};
use harborseal_segment::random::FixedBytes;
use sha2::{Digest, Sha256};

use super::customers::{identity, node};
use super::input::Input;

/// A key: the first byte says whether the rest is its text, or bytes to be made one with checksum and signature.
pub fn keys(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => text(&String::from_utf8_lossy(input.rest())),
        1 => text(&encode("hss1", input.rest())),
        2 => text(&encode("hsp1", input.rest())),
        _ => text(&encode("hsp1", &signed_public(&mut input))),
    }
}

fn text(text: &str) {
    if let Ok(public) = text.parse::<PublicKey>() {
        assert_eq!(public.to_text(), text.trim(), "a key has one text");
        assert!(
            Identity::from_file_text(text).is_err(),
            "a public key is no identity"
        );
        seal_for(&public);
    }
    if let Ok(identity) = Identity::from_file_text(text) {
        assert!(text.parse::<PublicKey>().is_err(), "an identity is no public key");
        let file = identity.to_file_text();
        let again = Identity::from_file_text(&file).expect("it was just written");
        assert!(again.public() == identity.public());
        assert!(
            identity
                .public()
                .to_text()
                .parse::<PublicKey>()
                .is_ok_and(|key| key == *identity.public())
        );
    }
}

fn encode(prefix: &str, bytes: &[u8]) -> String {
    let hash = Sha256::new().chain_update(prefix).chain_update(bytes).finalize();
    prefix.to_owned() + &BASE64_URL_SAFE_NO_PAD.encode([bytes, &hash[..4]].concat())
}

/// What is before the KEM key in a public key, and behind it: kinds; Ed25519 key, signature and checksum.
const KINDS_LEN: usize = 4;
const VOUCHER_LEN: usize = 32 + 64 + 4;

fn bytes_of(public: &PublicKey) -> Vec<u8> {
    let text = public.to_text();
    BASE64_URL_SAFE_NO_PAD
        .decode(&text[4..])
        .expect("it was just encoded")
}

/// Kinds and KEM key.
fn kem_of(public: &PublicKey) -> Vec<u8> {
    let mut bytes = bytes_of(public);
    bytes.truncate(bytes.len() - VOUCHER_LEN);
    bytes
}

/// A customer's public key with changes to its KEM key, signed anew by somebody.
fn signed_public(input: &mut Input<'_>) -> Vec<u8> {
    let choice = input.u8();
    let mut bytes = kem_of(identity(choice & 2).public());
    // The last 32 bytes whole: points of low order and the like, that no mutation finds one by one.
    if choice & 1 != 0 {
        let at = bytes.len() - 32;
        bytes[at..].copy_from_slice(&input.array::<32>());
    }
    while !input.is_empty() {
        let (at, value) = (usize::from(input.u16()), input.u8());
        let at = KINDS_LEN + at % (bytes.len() - KINDS_LEN);
        bytes[at] = value;
    }
    let signature = node().sign(&[b"harborseal/v1/public-key", &bytes[..]].concat());
    [&bytes[..], &node().public().0, &signature].concat()
}

/// Who has a public key can seal for it, whatever key it is; and only its identity opens that.
fn seal_for(public: &PublicKey) {
    let place = Wrap {
        node_id: NodeId([1; 16]),
        segment_id: SegmentId([2; 16]),
        slot: 3,
        i: 0,
        n: 1,
        erase: None,
    };
    let hint = Hint::from_bytes([4; 32]);
    let secret = SegmentSecret::from_bytes([5; 32]);
    let entry = wrap(public, &place, &hint, &secret, &mut FixedBytes(&[6; 64]));
    for customer in [identity(0), identity(2)] {
        let opened = unwrap(&customer, &entry, &place.node_id, &place.segment_id);
        assert_eq!(opened.is_ok(), kem_of(customer.public()) == kem_of(public));
    }
}
