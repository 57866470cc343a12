//! Identity files, of whatever kind: what opens, and what can sign too.
//!
//! An identity file is text: comment lines that begin with `#`, and one line that is the identity.
//!
//! ```text
//! hss1…                     a KEM key and a signing key, as keygen makes them
//! hsx1…                     one of the other lines under a passphrase
//! AGE-SECRET-KEY-PQ-1…      a KEM key of age's, with no signing key
//! pkcs11:…                  where on a card or in an HSM a P-256 key is, with no signing key
//! ```
//!
//! What has no signing key opens, and somebody else's signing key vouches for it: that of the identity which `--signing-identity` names.

mod age;
mod passphrase;
mod token;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harborseal_segment::identity::{Identity, KEM_X_WING, Opener, PublicKey};
use zeroize::Zeroizing;

use super::CliError;
pub use passphrase::{Unlock, new_passphrase, protect};

/// Longest identity file read; ours have about 2 KiB, the rest is comments.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Reads an identity that can sign.
pub fn whole(path: &Path, unlock: &Unlock) -> Result<Identity, CliError> {
    match read(path, unlock)? {
        Kind::Whole(identity) => Ok(*identity),
        Kind::Opens(_) => Err(named(path, "this identity opens, and has no signing key")
            .remedy("name the identity that signs with --signing-identity FILE")),
    }
}

/// Reads an identity that opens.
pub fn opener(path: &Path, unlock: &Unlock) -> Result<Arc<Opener>, CliError> {
    Ok(match read(path, unlock)? {
        Kind::Whole(identity) => Arc::clone(identity.opener()),
        Kind::Opens(opener) => opener,
    })
}

/// What opens, and who signs for it: one identity, or two.
pub struct Signer {
    /// What opens.
    pub opener: Arc<Opener>,
    /// Who signs.
    pub identity: Identity,
    /// The public key of both.
    pub public: PublicKey,
}

/// Reads the identity at `path`, and the one that signs for it if it cannot itself.
pub fn signer(path: &Path, signing: Option<&Path>, unlock: &Unlock) -> Result<Signer, CliError> {
    let Some(signing) = signing else {
        let identity = whole(path, unlock)?;
        return Ok(Signer {
            opener: Arc::clone(identity.opener()),
            public: identity.public().clone(),
            identity,
        });
    };
    let (opener, identity) = (opener(path, unlock)?, whole(signing, unlock)?);
    let public = identity.vouch_for(opener.kem_id(), &opener.kem_key_bytes());
    let public = public.map_err(|why| named(path, why))?;
    Ok(Signer {
        opener,
        identity,
        public,
    })
}

/// The public key that `signing` vouches for: an `age1pq…` key, a `pkcs11:` URI, or an identity file.
pub fn vouched(key: &str, signing: &Path, unlock: &Unlock) -> Result<(Identity, PublicKey), CliError> {
    if key.starts_with("age1") {
        let identity = whole(signing, unlock)?;
        let public = age_key(key, &identity, "--kem-key")?;
        return Ok((identity, public));
    }
    let opener = match key.starts_with(token::SCHEME) {
        true => token::opener(key, unlock)?,
        false => opener(&PathBuf::from(key), unlock)?,
    };
    let identity = whole(signing, unlock)?;
    let public = identity.vouch_for(opener.kem_id(), &opener.kem_key_bytes());
    let public = public.map_err(|why| CliError::usage(format_args!("--kem-key: {why}")))?;
    Ok((identity, public))
}

/// The public key of an `age1pq…` text, for which `customer` vouches; `option` is what it was given to.
pub fn age_key(text: &str, customer: &Identity, option: &str) -> Result<PublicKey, CliError> {
    let vouched = |bytes: Vec<u8>| {
        let public = customer.vouch_for(KEM_X_WING, &bytes);
        public.map_err(|why| why.to_string())
    };
    let public = age::recipient(text).and_then(vouched);
    public.map_err(|why| CliError::usage(format_args!("{option}: {why}")))
}

enum Kind {
    Whole(Box<Identity>),
    Opens(Arc<Opener>),
}

fn named(path: &Path, why: impl std::fmt::Display) -> CliError {
    CliError::usage(format_args!("{}: {why}", path.display()))
}

fn read(path: &Path, unlock: &Unlock) -> Result<Kind, CliError> {
    let text = file_text(path)?;
    let sealed = secret_line(&text).filter(|line| passphrase::is_sealed(line));
    let text = match sealed {
        None => text,
        Some(line) => passphrase::open(line, path, unlock)?,
    };
    match secret_line(&text) {
        Some(line) if line.starts_with(token::SCHEME) => Ok(Kind::Opens(token::opener(line, unlock)?)),
        Some(line) if age::is_secret(line) => {
            let seed = age::secret(line).map_err(|why| named(path, why))?;
            Ok(Kind::Opens(Arc::new(Opener::x_wing(&seed))))
        }
        Some(line) if line.starts_with("age-encryption.org/") || line.contains("AGE ENCRYPTED FILE") => {
            let refused = named(path, "an identity that age has encrypted");
            Err(refused.remedy("decrypt it first: age -d FILE > identity"))
        }
        _ => {
            let identity = Identity::from_file_text(&text).map_err(|why| named(path, why))?;
            Ok(Kind::Whole(Box::new(identity)))
        }
    }
}

/// The first line that is no comment.
fn secret_line(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| !line.is_empty() && !line.starts_with('#'))
}

fn file_text(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let failed = |error: io::Error| CliError::file("read", path, &error);
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let whole = bytes.len() as u64 <= FILE_BYTES_MAX;
    match std::str::from_utf8(&bytes) {
        Ok(text) if whole => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(named(path, "not an identity file")),
    }
}
