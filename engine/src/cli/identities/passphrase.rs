//! Identities under a passphrase.
//!
//! ```text
//! hsx1…   base64url without padding of
//!         0 kdf u16 · 2 memory_kib u32 · 6 passes u32 · 10 lanes u32 · 14 salt[16] · 30 ciphertext, tag[16] · checksum[4]
//!
//! kdf         1: Argon2id (RFC 9106), version 0x13, with the three numbers beside it, gives 32 bytes
//! ciphertext  AES-256-GCM of the identity's line under them; nonce 0, for the salt makes every key new; AAD = all before it
//! checksum    SHA-256("hsx1" ‖ all before it), its first 4 bytes: it tells a garbled file from a wrong passphrase
//! ```
//!
//! A passphrase comes from the terminal, without echo, or from a file or descriptor that is named. Never from the command line, which every process can read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce, Tag};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use harborseal_segment::random::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cli::CliError;

const PREFIX: &str = "hsx1";
const KDF_ARGON2ID: u16 = 1;
const HEAD_LEN: usize = 30;
const TAG_LEN: usize = 16;
const CHECKSUM_LEN: usize = 4;
/// Longest passphrase read: a passphrase is typed.
const PASSPHRASE_BYTES_MAX: u64 = 4096;

/// What a guess costs: 256 MiB and about half a second, between the two recommendations of RFC 9106 §4 (2 GiB; 64 MiB).
const COST: Cost = Cost {
    memory_kib: 256 << 10,
    passes: 3,
    lanes: 4,
};

/// The most that a file may ask for: beyond it, opening somebody's file would be an attack on this machine.
const COST_MAX: Cost = Cost {
    memory_kib: 4 << 20,
    passes: 64,
    lanes: 64,
};

#[derive(Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Where passphrases and PINs come from.
#[derive(Debug, Default, clap::Args)]
pub struct Unlock {
    /// Read the passphrase of the identity, or the PIN of its token, from the first line of FILE, such as a credential of systemd;
    /// without it, the terminal is asked
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// Read it from file descriptor N, which the caller has opened
    #[arg(long, value_name = "N", conflicts_with = "passphrase_file")]
    passphrase_fd: Option<u32>,

    #[arg(skip)]
    known: Known,
}

/// What was read once: a descriptor gives it only once. Cannot be printed.
#[derive(Clone, Default)]
struct Known(Arc<OnceLock<Zeroizing<String>>>);

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Known(..)")
    }
}

impl Unlock {
    /// The passphrase for `what`: "the passphrase of alice.identity".
    pub(super) fn ask(&self, what: &str) -> Result<Zeroizing<String>, CliError> {
        if let Some(known) = self.known.0.get() {
            return Ok(known.clone());
        }
        match self.source() {
            None => ask_terminal(what),
            Some(path) => {
                let text = first_line(&path)?;
                Ok(self.known.0.get_or_init(|| text).clone())
            }
        }
    }

    fn source(&self) -> Option<PathBuf> {
        let fd = self
            .passphrase_fd
            .map(|fd| PathBuf::from(format!("/dev/fd/{fd}")));
        self.passphrase_file.clone().or(fd)
    }
}

/// A passphrase for a new identity: from the terminal twice, so that a slip does not lock its owner out.
pub fn new_passphrase(unlock: &Unlock) -> Result<Zeroizing<String>, CliError> {
    let text = match unlock.source() {
        Some(path) => first_line(&path)?,
        None => {
            let first = ask_terminal("a passphrase for the new identity")?;
            if ask_terminal("it once more")? != first {
                return Err(CliError::usage("the two passphrases differ: nothing was made"));
            }
            first
        }
    };
    match text.is_empty() {
        true => Err(CliError::usage("the passphrase is empty: nothing was made")),
        false => Ok(text),
    }
}

fn ask_terminal(what: &str) -> Result<Zeroizing<String>, CliError> {
    let asked = rpassword::prompt_password(format!("harborseal: {what}: "));
    asked.map(Zeroizing::new).map_err(|_| {
        CliError::usage(format_args!("there is no terminal to ask for {what}"))
            .remedy("name a file with --passphrase-file FILE, or a descriptor with --passphrase-fd N")
    })
}

pub(super) fn first_line(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let failed = |error: std::io::Error| CliError::file("read the passphrase from", path, &error);
    let mut text = Zeroizing::new(String::with_capacity(PASSPHRASE_BYTES_MAX as usize));
    let file = File::open(path).map_err(failed)?;
    file.take(PASSPHRASE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

/// Whether a line is an identity under a passphrase.
pub fn is_sealed(line: &str) -> bool {
    line.starts_with(PREFIX)
}

/// The identity of a file of text `text` under `passphrase`, as the text of a new file.
pub fn protect(text: &str, passphrase: &str, rng: &mut impl CryptoRng) -> Zeroizing<String> {
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    let secret = super::secret_line(text).expect("an identity file has a secret line");
    let sealed = seal(secret, passphrase, COST, &salt);
    let comments: String = text
        .lines()
        .filter(|line| line.starts_with("# public key"))
        .map(|line| format!("{line}\n"))
        .collect();
    Zeroizing::new(format!(
        "# Harborseal identity, under a passphrase. Whoever has both can watch: keep a copy, and the passphrase elsewhere.\n\
         {comments}{sealed}\n"
    ))
}

fn seal(secret: &str, passphrase: &str, cost: Cost, salt: &[u8; 16]) -> String {
    let mut bytes = KDF_ARGON2ID.to_le_bytes().to_vec();
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(salt);
    let key = derive(passphrase, cost, salt).expect("our own cost is within Argon2's bounds");
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key));
    let mut text = Zeroizing::new(secret.as_bytes().to_vec());
    let tag = cipher.encrypt_inout_detached(&Nonce::default(), &bytes, text.as_mut_slice().into());
    let tag = tag.expect("a line is far below AES-GCM's bound");
    bytes.extend_from_slice(&text);
    bytes.extend_from_slice(&tag);
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum);
    format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = Sha256::new().chain_update(PREFIX).chain_update(bytes).finalize();
    *hash.first_chunk().expect("SHA-256 has 32 bytes")
}

fn derive(passphrase: &str, cost: Cost, salt: &[u8; 16]) -> Option<Zeroizing<[u8; 32]>> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon
        .hash_password_into(passphrase.as_bytes(), salt, &mut key[..])
        .ok()?;
    Some(key)
}

/// What a sealed line says before its passphrase is asked for.
struct Sealed {
    bytes: Vec<u8>,
    cost: Cost,
    salt: [u8; 16],
}

impl Sealed {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let garbled = "the identity is garbled or cut: its checksum does not match, copy it again";
        let encoded = line.strip_prefix(PREFIX).ok_or(garbled)?;
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| garbled)?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(garbled)?;
        if checksum(body) != *sum || body.len() < HEAD_LEN + TAG_LEN {
            return Err(garbled);
        }
        if body[..2] != KDF_ARGON2ID.to_le_bytes() {
            return Err("the identity is under a passphrase in a way that this version does not support");
        }
        let number =
            |at: usize| u32::from_le_bytes(*body[at..].first_chunk().expect("the head has 30 bytes"));
        let cost = Cost {
            memory_kib: number(2),
            passes: number(6),
            lanes: number(10),
        };
        let most = COST_MAX;
        if cost.memory_kib > most.memory_kib || cost.passes > most.passes || cost.lanes > most.lanes {
            return Err("the identity's passphrase asks for more memory or time than any of ours");
        }
        let salt = *body[14..].first_chunk().expect("the head has 30 bytes");
        bytes.truncate(bytes.len() - CHECKSUM_LEN);
        Ok(Sealed { bytes, cost, salt })
    }

    fn open(&self, passphrase: &str) -> Option<Zeroizing<String>> {
        let key = derive(passphrase, self.cost, &self.salt)?;
        let (head, sealed) = self.bytes.split_at(HEAD_LEN);
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
        let mut text = Zeroizing::new(text.to_vec());
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key));
        let nonce = Nonce::default();
        cipher
            .decrypt_inout_detached(&nonce, head, text.as_mut_slice().into(), &Tag::from(*tag))
            .ok()?;
        std::str::from_utf8(&text)
            .ok()
            .map(|text| Zeroizing::new(text.to_owned()))
    }
}

/// Opens a sealed line of the file at `path`.
pub fn open(line: &str, path: &Path, unlock: &Unlock) -> Result<Zeroizing<String>, CliError> {
    let sealed = Sealed::parse(line).map_err(|why| super::named(path, why))?;
    let passphrase = unlock.ask(&format!("the passphrase of {}", path.display()))?;
    let wrong = || super::named(path, "wrong passphrase");
    sealed.open(&passphrase).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
    };

    #[test]
    fn a_passphrase_opens_what_it_sealed_and_no_other_does() {
        let line = seal("hss1secret", "correct horse", CHEAP, &[7; 16]);
        assert!(is_sealed(&line) && !line.contains("secret"));
        let sealed = Sealed::parse(&line).expect("whole");
        assert_eq!(
            sealed.open("correct horse").expect("opens").as_str(),
            "hss1secret"
        );
        for wrong in ["", "correct", "correct horse ", "Correct horse"] {
            assert!(sealed.open(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_garbled_line_is_told_from_a_wrong_passphrase_and_a_greedy_one_is_refused() {
        let line = seal("hss1secret", "x", CHEAP, &[7; 16]);
        for at in PREFIX.len()..line.len() {
            let flipped = if &line[at..=at] == "A" { "B" } else { "A" };
            let garbled = format!("{}{flipped}{}", &line[..at], &line[at + 1..]);
            assert!(Sealed::parse(&garbled).is_err(), "{at}");
            assert!(Sealed::parse(&line[..at]).is_err(), "{at}");
        }
        let mut bytes = BASE64_URL_SAFE_NO_PAD
            .decode(&line[PREFIX.len()..])
            .expect("base64");
        bytes.truncate(bytes.len() - CHECKSUM_LEN);
        bytes[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let greedy = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        assert!(Sealed::parse(&greedy).is_err_and(|why| why.contains("memory")));
    }
}
