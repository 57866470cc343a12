//! Keys of age (<https://age-encryption.org>), of its post-quantum kind: the same X-Wing key as ours, in other letters.
//!
//! ```text
//! age1pq1…                 Bech32 (BIP 173) of the 1,216-byte public key, with "age1pq" before the separator
//! AGE-SECRET-KEY-PQ-1…     Bech32 of its 32-byte seed, in capitals
//! ```
//!
//! A text of 1,216 bytes is longer than Bech32's checksum was made for: as in age it tells a slip of the pen, and whether the key is right tells the fingerprint.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Checksum, Fe32, Fe1024};
use zeroize::Zeroizing;

const PUBLIC: &str = "age1pq";
const SECRET: &str = "age-secret-key-pq-";
const PUBLIC_LEN: usize = 1216;

/// Bech32 without its bound on length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum LongBech32 {}

/// BIP 173's numbers, but for the length: those of `bech32::Bech32`.
impl Checksum for LongBech32 {
    type MidstateRepr = u32;
    type CorrectionField = Fe1024;
    const ROOT_GENERATOR: Self::CorrectionField = Fe1024::new([Fe32::P, Fe32::X]);
    const ROOT_EXPONENTS: core::ops::RangeInclusive<usize> = 24..=26;
    const CHECKSUM_LENGTH: usize = 6;
    const CODE_LENGTH: usize = 4096;
    const GENERATOR_SH: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    const TARGET_RESIDUE: u32 = 1;
}

/// Whether a line is a secret key of age's, of any kind.
pub fn is_secret(line: &str) -> bool {
    let start = line.as_bytes().get(..SECRET.len() - 3);
    start.is_some_and(|start| start.eq_ignore_ascii_case(&SECRET.as_bytes()[..SECRET.len() - 3]))
}

/// The public key of an `age1pq…` text.
pub fn recipient(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    if !text.to_ascii_lowercase().starts_with("age1pq1") {
        return Err(
            "not a post-quantum key of age: it must begin with age1pq1 (age-keygen -pq makes one)".into(),
        );
    }
    let bytes = decode(text, PUBLIC).ok_or("the age1pq key is garbled: copy it again")?;
    match bytes.len() == PUBLIC_LEN {
        true => Ok(bytes.to_vec()),
        false => Err(format!(
            "the age1pq key has {} bytes, not {PUBLIC_LEN}",
            bytes.len()
        )),
    }
}

/// The seed of an `AGE-SECRET-KEY-PQ-1…` line. No error repeats any of it.
pub fn secret(line: &str) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    if !line.to_ascii_lowercase().starts_with("age-secret-key-pq-1") {
        return Err(
            "a key of age without post-quantum protection: only AGE-SECRET-KEY-PQ-1... keys open here",
        );
    }
    let bytes = decode(line, SECRET).ok_or("the secret key of age is garbled: copy it again")?;
    let seed = <[u8; 32]>::try_from(&bytes[..]).map_err(|_| "the secret key of age has not 32 bytes")?;
    Ok(Zeroizing::new(seed))
}

fn decode(text: &str, hrp: &str) -> Option<Zeroizing<Vec<u8>>> {
    let checked = CheckedHrpstring::new::<LongBech32>(text).ok()?;
    let named = checked.hrp().as_str().eq_ignore_ascii_case(hrp);
    named.then(|| Zeroizing::new(checked.byte_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bech32::Hrp;
    use harborseal_segment::identity::Opener;

    fn encoded(hrp: &str, bytes: &[u8]) -> String {
        bech32::encode::<LongBech32>(Hrp::parse(hrp).expect("a name"), bytes).expect("short enough")
    }

    #[test]
    fn an_age_key_is_its_seed_and_its_public_key() {
        let opener = Opener::x_wing(&[7; 32]);
        let text = encoded(PUBLIC, &opener.kem_key_bytes());
        assert_eq!(recipient(&text), Ok(opener.kem_key_bytes()));
        let line = encoded(SECRET, &[7; 32]).to_ascii_uppercase();
        assert!(is_secret(&line) && line.starts_with("AGE-SECRET-KEY-PQ-1"));
        assert_eq!(*secret(&line).expect("a seed"), [7; 32]);
    }

    #[test]
    fn other_keys_and_slips_of_the_pen_are_refused() {
        let text = encoded(PUBLIC, &[5; PUBLIC_LEN]);
        let slip = text.replacen(&text[50..51], if &text[50..51] == "q" { "p" } else { "q" }, 1);
        for text in [
            &slip,
            &text[..100],
            &encoded(PUBLIC, &[5; 32]),
            "age1pq1",
            "age1xyz",
        ] {
            assert!(recipient(text).is_err(), "{text}");
        }
        let classic = encoded("age-secret-key-", &[7; 32]).to_ascii_uppercase();
        assert!(is_secret(&classic));
        let refused = secret(&classic).expect_err("X25519 alone");
        assert!(refused.contains("PQ"), "{refused}");
        assert!(!is_secret("hss1") && !is_secret(""));
    }
}
