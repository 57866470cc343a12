//! What opens: the secret half of a KEM key, in memory, or elsewhere and lent by the operation.

use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use super::{Identity, KeyError};
use crate::kem::{Agreement, KemId, KemSecret};

/// A KEM key that opens. An [`Identity`] has one; it may also come without a signing key.
pub struct Opener {
    kem: KemSecret,
    failure: OnceLock<String>,
}

impl Opener {
    pub(crate) fn new(kem: KemSecret) -> Self {
        let failure = OnceLock::new();
        Opener { kem, failure }
    }

    /// From the 32-byte seed of an X-Wing key.
    pub fn x_wing(seed: &[u8; 32]) -> Self {
        let parsed = KemSecret::parse(KemId::XWing, seed);
        Self::new(parsed.unwrap_or_else(|_| unreachable!("any 32 bytes are a seed of X-Wing")))
    }

    /// A P-256 key that stays where it is: `public` is its public half (SEC 1 §2.3.3, uncompressed), and `agree` the key agreement with it.
    ///
    /// # Errors
    /// `public` is not a point of the curve.
    pub fn p256_elsewhere(public: &[u8; 65], agree: Agreement) -> Result<Self, KeyError> {
        let kem = KemSecret::elsewhere(public, agree).map_err(|_| KeyError::KemKey)?;
        Ok(Self::new(kem))
    }

    pub(crate) fn id(&self) -> KemId {
        self.kem.id()
    }

    /// The HPKE id of its KEM.
    pub fn kem_id(&self) -> u16 {
        self.kem.id().as_u16()
    }

    /// Its public half, as it goes into HPKE.
    pub fn kem_key_bytes(&self) -> Vec<u8> {
        self.kem.public().to_bytes()
    }

    /// Opens what was sealed to it by HPKE under `info`: `None` if it was for another key, or under another `info`, or if the key is elsewhere and could not be
    /// used; [`Opener::failure`] tells the last.
    pub fn open_sealed(&self, enc: &[u8], ct: &[u8], info: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self.kem.open(enc, ct, info) {
            Ok(opened) => opened,
            Err(why) => {
                // The first failure is the cause of the rest.
                let _ = self.failure.set(why);
                None
            }
        }
    }

    /// Why the key could not be used, where it is elsewhere: then that nothing opened says nothing.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

impl AsRef<Opener> for Opener {
    fn as_ref(&self) -> &Opener {
        self
    }
}

impl AsRef<Opener> for Identity {
    fn as_ref(&self) -> &Opener {
        self.opener()
    }
}

impl From<Identity> for Arc<Opener> {
    fn from(identity: Identity) -> Self {
        Arc::clone(identity.opener())
    }
}
