//! The four 16-byte names of the format, and one of the key store. Each is its own type, so that none can stand where another belongs.
//!
//! Printed and parsed as 32 lower-case hex digits. All but [`NodeId`] and [`EraseKeyId`] are random; they tell nothing about a
//! customer or a camera.

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Text that is not 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 hex digits, found {found}")]
pub struct IdError {
    found: Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Len(usize),
    Char(char),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Len(len) => write!(f, "{len} bytes of text"),
            Found::Char(c) => write!(f, "{c:?}"),
        }
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// All zero: "none" wherever a field may be empty.
            pub const ZERO: Self = Self([0; 16]);

            /// Whether all 16 bytes are zero: no id at all.
            pub fn is_zero(&self) -> bool {
                self.0 == [0; 16]
            }

            /// The 16 bytes.
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl From<[u8; 16]> for $name {
            fn from(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id! {
    /// One segment file, random, never reused. Also its file's name.
    SegmentId
}
id! {
    /// One recording machine: [`NodeId::of_key`] of its signing key.
    NodeId
}
id! {
    /// One life of the recording process, random.
    RunId
}
id! {
    /// One stream within one segment: random per segment, so that segments cannot be linked by it.
    StreamId
}
id! {
    /// One erasure key, by what it comes to ([`EraseKey::id`](crate::erase::EraseKey::id)). It stands in no segment.
    EraseKeyId
}

impl NodeId {
    /// SHA-256("harborseal/v1/node" ‖ node_key), its first 16 bytes. `node_key` is the Ed25519 public key.
    pub fn of_key(node_key: &[u8; 32]) -> Self {
        let hash = Sha256::new()
            .chain_update(b"harborseal/v1/node")
            .chain_update(node_key)
            .finalize();
        NodeId(hash[..16].try_into().expect("SHA-256 has 32 bytes"))
    }
}

fn parse_hex(text: &str) -> Result<[u8; 16], IdError> {
    if text.len() != 32 {
        return Err(IdError {
            found: Found::Len(text.len()),
        });
    }
    let mut bytes = [0; 16];
    for (at, c) in text.chars().enumerate() {
        let digit = c.to_digit(16).ok_or(IdError {
            found: Found::Char(c),
        })? as u8;
        bytes[at / 2] = bytes[at / 2] << 4 | digit;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_and_parses_as_32_hex_digits() {
        let id = SegmentId(*b"\x00\x01\x7f\x80\xff\xabcdefghijkl");
        let text = id.to_string();
        assert_eq!(text, "00017f80ffab636465666768696a6b6c");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn other_text_is_refused_with_what_was_found() {
        let err = "00".parse::<RunId>().unwrap_err();
        assert_eq!(err.to_string(), "expected 32 hex digits, found 2 bytes of text");
        let err = "0123456789abcdef0123456789abcdeg".parse::<RunId>().unwrap_err();
        assert_eq!(err.to_string(), "expected 32 hex digits, found 'g'");
        // 32 bytes of text, fewer characters.
        assert!("éééééééééééééééé".parse::<RunId>().is_err());
    }
}
