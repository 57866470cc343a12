//! The key schedule against one computed by hand, and entries opened by whom they are for and by nobody else.

use super::*;
use crate::identity::Identity;
use crate::random::FixedBytes;

const SEGMENT: SegmentId = SegmentId([0x51; 16]);
const STREAM: StreamId = StreamId([0x52; 16]);
const WRAP: Wrap<'_> = Wrap {
    node_id: NodeId([0x53; 16]),
    segment_id: SEGMENT,
    slot: 7,
    i: 0,
    n: 1,
    erase: None,
};

fn identity(seed: u8) -> Identity {
    Identity::generate(&mut FixedBytes(&[seed; 64]))
}

fn entry_for(identity: &Identity) -> KeyEntry {
    let (hint, secret) = (Hint::from_bytes([1; 32]), SegmentSecret::from_bytes([2; 32]));
    wrap(
        identity.public(),
        &WRAP,
        &hint,
        &secret,
        &mut FixedBytes(&[3; 64]),
    )
}

fn refusal(identity: &Identity, entry: &KeyEntry) -> UnwrapError {
    unwrap(identity, entry, &WRAP.node_id, &SEGMENT)
        .err()
        .expect("refused")
}

#[test]
fn a_wrapped_secret_opens_for_its_identity() {
    let alice = identity(1);
    let entry = entry_for(&alice);
    assert_eq!(
        (entry.enc.len(), entry.ct.len(), entry.encoded_len()),
        (1120, 80, 1256)
    );
    let opened = unwrap(&alice, &entry, &WRAP.node_id, &SEGMENT).expect("opens");
    assert_eq!(opened.hint.0, [1; 32]);
    assert!(matches!(&opened.secret, Secret::Customer(secret) if secret.0 == [2; 32]));
}

#[test]
fn a_secret_wrapped_for_p256_opens_for_its_identity_and_no_other() {
    let carol = Identity::generate_p256(&mut FixedBytes(&[4; 64]));
    let (hint, secret) = (Hint::from_bytes([1; 32]), SegmentSecret::from_bytes([2; 32]));
    let rng = &mut FixedBytes(&[3; 32]);
    let entry = wrap(carol.public(), &WRAP, &hint, &secret, rng);
    assert_eq!(
        (entry.kem, entry.enc.len(), entry.ct.len(), entry.encoded_len()),
        (0x0010, 65, 80, 208)
    );
    let opened = unwrap(&carol, &entry, &WRAP.node_id, &SEGMENT).expect("opens");
    assert!(matches!(&opened.secret, Secret::Customer(secret) if secret.0 == [2; 32]));
    let dave = Identity::generate_p256(&mut FixedBytes(&[5; 64]));
    for other in [dave, identity(1)] {
        assert_eq!(refusal(&other, &entry), UnwrapError::NotForThisIdentity);
    }
    // A point that is not on the curve opens for nobody, so whose it was cannot be said.
    let mut entry = entry;
    entry.enc[40] ^= 1;
    assert_eq!(refusal(&carol, &entry), UnwrapError::NotForThisIdentity);
}

#[test]
fn the_secret_of_one_stream_opens_for_its_grantee() {
    let bob = identity(2);
    let keys = StreamKeys::derive(&SEGMENT, &SegmentSecret::from_bytes([2; 32]), &STREAM);
    let hint = Hint::from_bytes([9; 32]);
    let entry = wrap_stream(
        bob.public(),
        &WRAP,
        STREAM,
        &hint,
        keys.secret(),
        &mut FixedBytes(&[3; 64]),
    );
    match unwrap(&bob, &entry, &WRAP.node_id, &SEGMENT)
        .expect("opens")
        .secret
    {
        Secret::Stream(stream_id, secret) => {
            assert_eq!(stream_id, STREAM);
            assert!(StreamKeys::from_secret(secret).matches(keys.commitment()));
        }
        Secret::Customer(_) => panic!("a grant must not open the whole slot"),
    }
}

#[test]
fn every_recipient_of_a_slot_opens_the_same_secret() {
    let (alice, carol) = (identity(1), Identity::generate_p256(&mut FixedBytes(&[4; 64])));
    let (hint, secret) = (Hint::from_bytes([1; 32]), SegmentSecret::from_bytes([2; 32]));
    let rng = &mut FixedBytes(&[3; 96]);
    let entries = wrap_all(&[alice.public(), carol.public()], &WRAP, &hint, &secret, rng);
    for (i, (identity, entry)) in [&alice, &carol].into_iter().zip(&entries).enumerate() {
        assert_eq!(
            (usize::from(entry.i), entry.n, entry.hint),
            (i, 2, entries[0].hint)
        );
        let opened = unwrap(identity, entry, &WRAP.node_id, &SEGMENT).expect("opens");
        assert!(matches!(&opened.secret, Secret::Customer(secret) if secret.0 == [2; 32]));
    }
    assert_eq!(refusal(&carol, &entries[0]), UnwrapError::NotForThisIdentity);
}

#[test]
fn in_an_erasable_slot_neither_secret_nor_grant_opens_a_stream_without_e() {
    let erase = EraseSecret::from_bytes([8; 32]);
    let secret = SegmentSecret::from_bytes([2; 32]);
    let keys = StreamKeys::derive_erasable(&SEGMENT, &secret, &erase, &STREAM);
    assert!(!StreamKeys::derive(&SEGMENT, &secret, &STREAM).matches(keys.commitment()));
    let place = Wrap {
        erase: Some(&erase),
        ..WRAP
    };
    let (bob, hint) = (identity(2), Hint::from_bytes([9; 32]));
    let rng = &mut FixedBytes(&[3; 64]);
    let entry = wrap_stream(bob.public(), &place, STREAM, &hint, keys.secret(), rng);
    let opened = unwrap(&bob, &entry, &WRAP.node_id, &SEGMENT).expect("opens");
    assert!(opened.erasable);
    let Secret::Stream(stream_id, masked) = opened.secret else {
        panic!("a grant");
    };
    assert!(!StreamKeys::from_secret(masked.clone()).matches(keys.commitment()));
    let unmasked = masked.masked(&erase, &stream_id);
    assert!(StreamKeys::from_secret(unmasked).matches(keys.commitment()));
}

#[test]
fn an_entry_opens_for_no_other_identity_and_in_no_other_place() {
    let alice = identity(1);
    let entry = entry_for(&alice);
    let other = Err(UnwrapError::NotForThisIdentity);
    assert_eq!(refusal(&identity(2), &entry), UnwrapError::NotForThisIdentity);
    assert_eq!(
        unwrap(&alice, &entry, &NodeId([0; 16]), &SEGMENT).map(|_| ()),
        other
    );
    assert_eq!(
        unwrap(&alice, &entry, &WRAP.node_id, &SegmentId([0; 16])).map(|_| ()),
        other
    );
    let moved = |edit: fn(&mut KeyEntry)| {
        let mut moved = entry.clone();
        edit(&mut moved);
        assert_eq!(refusal(&alice, &moved), UnwrapError::NotForThisIdentity);
    };
    moved(|entry| entry.slot = 8);
    moved(|entry| entry.n = 2);
    moved(|entry| entry.scope = SCOPE_STREAM);
    moved(|entry| entry.stream_id = STREAM);
    moved(|entry| entry.hint[0] ^= 1);
    moved(|entry| entry.enc[0] ^= 1);
    moved(|entry| entry.ct[0] ^= 1);
}

#[test]
fn an_entry_of_another_suite_is_unsupported() {
    let alice = identity(1);
    let later = KeyEntry {
        kem: 0x0011,
        ..entry_for(&alice)
    };
    assert!(matches!(
        refusal(&alice, &later),
        UnwrapError::Unsupported { kem: 0x0011, .. }
    ));
    let later = KeyEntry {
        scope: 2,
        ..entry_for(&alice)
    };
    assert!(matches!(
        refusal(&alice, &later),
        UnwrapError::Unsupported { scope: 2, .. }
    ));
}

#[test]
fn a_ratcheted_hint_finds_the_next_segment_and_never_the_one_before() {
    let mut writer = Hint::from_bytes([1; 32]);
    let segments: Vec<SegmentId> = (0..4).map(|n| SegmentId([n; 16])).collect();
    let shown: Vec<_> = segments
        .iter()
        .map(|id| {
            let shown = writer.for_segment(id);
            writer.ratchet();
            shown
        })
        .collect();
    let mut reader = Hint::from_bytes([1; 32]);
    for (id, shown) in segments.iter().zip(&shown) {
        assert_eq!(reader.for_segment(id), *shown);
        reader.ratchet();
        assert_ne!(reader.for_segment(id), *shown);
    }
}

#[test]
fn keys_differ_by_segment_stream_and_secret() {
    let keys = |segment: u8, secret: u8, stream: u8| {
        let secret = SegmentSecret::from_bytes([secret; 32]);
        StreamKeys::derive(&SegmentId([segment; 16]), &secret, &StreamId([stream; 16]))
    };
    let all = [keys(1, 1, 1), keys(2, 1, 1), keys(1, 2, 1), keys(1, 1, 2)];
    for (a, this) in all.iter().enumerate() {
        for (b, that) in all.iter().enumerate() {
            assert_eq!(this.matches(that.commitment()), a == b);
            assert_eq!(*this.enc == *that.enc, a == b);
        }
        assert_ne!(*this.enc, *this.commitment());
        assert!(!this.matches(&[]));
    }
}

#[test]
fn the_key_schedule_is_that_of_the_format() {
    // Computed by hand from RFC 5869 with HMAC alone, as a second team would.
    fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
    let prk = hmac(&SEGMENT.0, &[&[2; 32]]);
    let k_st = hmac(&prk, &[b"harborseal/v1/stream", &STREAM.0, &[1]]);
    let keys = StreamKeys::derive(&SEGMENT, &SegmentSecret::from_bytes([2; 32]), &STREAM);
    assert_eq!(keys.secret.0, k_st);
    let erase = EraseSecret::from_bytes([8; 32]);
    let prk = hmac(&SEGMENT.0, &[&[2; 32], &[8; 32]]);
    let erasable =
        StreamKeys::derive_erasable(&SEGMENT, &SegmentSecret::from_bytes([2; 32]), &erase, &STREAM);
    assert_eq!(
        erasable.secret.0,
        hmac(&prk, &[b"harborseal/v1/stream", &STREAM.0, &[1]])
    );
    assert_eq!(*keys.enc, hmac(&k_st, &[b"harborseal/v1/aead", &[1]]));
    assert_eq!(keys.commitment, hmac(&k_st, &[b"harborseal/v1/commit", &[1]]));
    let mut hint = Hint::from_bytes([1; 32]);
    assert_eq!(hint.for_segment(&SEGMENT), hmac(&[1; 32], &[&SEGMENT.0])[..16]);
    hint.ratchet();
    assert_eq!(hint.0, hmac(&[1; 32], &[b"harborseal/v1/hint", &[1]]));
}
