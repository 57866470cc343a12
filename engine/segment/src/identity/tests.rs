//! Identities and public keys: their texts, and what is refused.

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
    let later = edited(|bytes| bytes[..2].copy_from_slice(&0x0011u16.to_le_bytes()));
    let (kem, signing) = (0x0011, 1);
    assert_eq!(refused(&later), KeyError::Unsupported { kem, signing });
}

#[test]
fn a_shorter_key_of_a_later_kind_is_unsupported_rather_than_cut() {
    let bytes = [&KEM_P256.to_le_bytes()[..], &[2, 0], &[7; 65 + 65 + 64]].concat();
    let later = encode(PUBLIC_PREFIX, &bytes);
    let (kem, signing) = (KEM_P256, 2);
    assert_eq!(refused(&later), KeyError::Unsupported { kem, signing });
}

fn carol() -> Identity {
    Identity::generate_p256(&mut FixedBytes(&[4; 64]))
}

#[test]
fn a_p256_identity_reads_back_from_its_texts() {
    let text = carol().public().to_text();
    assert_eq!(text.len(), 4 + 226);
    let parsed: PublicKey = text.parse().expect("parses");
    assert_eq!((&parsed, parsed.kem_id()), (carol().public(), KEM_P256));
    assert_eq!(parsed.signing_key(), carol().public().signing_key());
    let read = Identity::from_file_text(&carol().to_file_text()).expect("reads");
    assert_eq!(read.public(), carol().public());
}

#[test]
fn a_damaged_p256_key_is_refused_for_what_is_wrong_with_it() {
    let text = carol().public().to_text();
    let (found, needed) = (200, 226);
    assert_eq!(refused(&text[..204]), KeyError::Length { found, needed });
    let flipped = if &text[100..101] == "A" { "B" } else { "A" };
    let flipped = format!("{}{flipped}{}", &text[..100], &text[101..]);
    assert_eq!(refused(&flipped), KeyError::Checksum);
    // Four spare bits stand in the last character: only one of its sixteen values is the key's.
    let last = format!("{}_", &text[..text.len() - 1]);
    assert_eq!(refused(&last), KeyError::Checksum);
    let mut bytes = carol().public.bytes.to_vec();
    bytes[4] = 2;
    assert_eq!(refused(&encode(PUBLIC_PREFIX, &bytes)), KeyError::KemKey);
}

/// SEC 2 §2.4.2: the order of P-256's group. A scalar is below it and not 0.
#[test]
fn a_scalar_outside_the_group_is_no_secret_and_is_not_drawn() {
    let order = b"\xFF\xFF\xFF\xFF\0\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\
        \xBC\xE6\xFA\xAD\xA7\x17\x9E\x84\xF3\xB9\xCA\xC2\xFC\x63\x25\x51";
    for scalar in [&[0; 32], order, &[0xFF; 32]] {
        let bytes = [&KEM_P256.to_le_bytes()[..], &[1, 0], scalar, &[4; 32]].concat();
        let refused = Identity::from_file_text(&encode(SECRET_PREFIX, &bytes)).err();
        assert_eq!(refused, Some(KeyError::KemKey));
    }
    let drawn = [&order[..], &[0; 32], &[4; 64]].concat();
    assert_eq!(
        Identity::generate_p256(&mut FixedBytes(&drawn)).public(),
        carol().public()
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

#[test]
fn what_an_identity_signs_verifies_for_it_alone() {
    let bob = Identity::generate(&mut FixedBytes(&[2; 64]));
    let signature = alice().sign(b"harborseal/v1/test");
    assert!(alice().public().verifies(b"harborseal/v1/test", &signature));
    assert!(!alice().public().verifies(b"harborseal/v1/tent", &signature));
    assert!(!bob.public().verifies(b"harborseal/v1/test", &signature));
}

#[test]
fn fingerprints_and_audit_salts_follow_from_the_signing_key_alone() {
    // The same signing seed behind another KEM.
    let (first, second) = (alice(), Identity::generate_p256(&mut FixedBytes(&[1; 64])));
    assert_eq!(first.public().fingerprint(), second.public().fingerprint());
    assert_eq!(first.audit_salt(), second.audit_salt());
    assert_eq!(first.public().fingerprint().len(), 8 * 4 + 7);
    assert_ne!(first.public().fingerprint(), carol().public().fingerprint());
    assert_ne!(first.audit_salt(), carol().audit_salt());
}

/// A key agreement like a card's, with Carol's scalar.
fn card() -> Agreement {
    use p256::elliptic_curve::ecdh::diffie_hellman;
    Box::new(|peer| {
        let secret = p256::SecretKey::from_slice(&[4; 32]).map_err(|why| why.to_string())?;
        let peer = p256::PublicKey::from_sec1_bytes(peer).map_err(|why| why.to_string())?;
        let shared = diffie_hellman(&secret.to_nonzero_scalar(), peer.as_affine());
        Ok(Zeroizing::new((*shared.raw_secret_bytes()).into()))
    })
}

#[test]
fn a_key_in_a_card_opens_what_its_public_half_was_sealed_to() {
    let carol = carol();
    let public = carol
        .public()
        .kem_key_bytes()
        .try_into()
        .expect("an uncompressed point");
    let opener = Opener::p256_elsewhere(public, card()).expect("on the curve");
    assert_eq!(opener.kem_key_bytes(), carol.public().kem_key_bytes());
    let info = b"harborseal/v1/test";
    let (enc, ct) = carol.public().seal_to(info, b"text", &mut FixedBytes(&[7; 32]));
    let opened = opener.open_sealed(&enc, &ct, info).expect("hers");
    assert_eq!(opened[..], b"text"[..]);
    // Whatever is changed, both refuse.
    let mut changed = vec![(enc.clone(), ct.clone(), &info[..17])];
    for at in 0..ct.len() {
        let mut ct = ct.clone();
        ct[at] ^= 1;
        changed.push((enc.clone(), ct, info));
    }
    for at in 0..enc.len() {
        let mut enc = enc.clone();
        enc[at] ^= 1;
        changed.push((enc, ct.clone(), info));
    }
    changed.push((enc[..64].to_vec(), ct.clone(), info));
    changed.push((enc.clone(), Vec::new(), info));
    for (enc, ct, info) in changed {
        assert!(opener.open_sealed(&enc, &ct, info).is_none());
        assert!(carol.opener().open_sealed(&enc, &ct, info).is_none());
    }
    assert_eq!(opener.failure(), None);
}

#[test]
fn a_card_that_cannot_be_used_is_not_an_answer() {
    let carol = carol();
    let public = carol
        .public()
        .kem_key_bytes()
        .try_into()
        .expect("an uncompressed point");
    let broken: Agreement = Box::new(|_| Err("the card was pulled".to_owned()));
    let opener = Opener::p256_elsewhere(public, broken).expect("on the curve");
    let (enc, ct) = carol
        .public()
        .seal_to(b"harborseal/v1/test", b"text", &mut FixedBytes(&[7; 32]));
    assert!(opener.open_sealed(&enc, &ct, b"harborseal/v1/test").is_none());
    assert_eq!(opener.failure(), Some("the card was pulled"));
    let not_a_point = Opener::p256_elsewhere(&[4; 65], Box::new(|_| Err(String::new())));
    assert_eq!(not_a_point.err(), Some(KeyError::KemKey));
}

#[test]
fn an_identity_vouches_for_a_key_that_is_not_its_own() {
    let public = alice()
        .vouch_for(KEM_P256, carol().public().kem_key_bytes())
        .expect("a point");
    assert_eq!(public.signing_key(), alice().public().signing_key());
    assert_eq!(public.kem_key_bytes(), carol().public().kem_key_bytes());
    let read: PublicKey = public.to_text().parse().expect("genuine");
    assert_eq!(read, public);
    assert_eq!(alice().vouch_for(KEM_P256, &[4; 65]), Err(KeyError::KemKey));
    let (kem, signing) = (0x0011, 1);
    assert_eq!(
        alice().vouch_for(kem, &[4; 65]),
        Err(KeyError::Unsupported { kem, signing })
    );
}
