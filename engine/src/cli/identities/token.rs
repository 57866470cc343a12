//! P-256 keys on cards and in HSMs, through PKCS#11: the key agreement happens there, and the key never leaves.
//!
//! Which key it is says a URI (RFC 7512): `pkcs11:token=LABEL;object=LABEL?module-path=LIBRARY`. Understood of the path are `token`, `serial`, `object` and `id`; of
//! the query `module-path`, which is needed, and `pin-source` (`file:PATH`). A PIN in the URI itself is refused: it would lie open in a file, or on the command line.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use harborseal_segment::identity::Opener;
use zeroize::Zeroizing;

use super::Unlock;
use crate::cli::CliError;

/// How the URI begins.
pub const SCHEME: &str = "pkcs11:";
/// CKA_EC_PARAMS of P-256: the OID 1.2.840.10045.3.1.7 in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// What a URI names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Uri {
    token: Option<String>,
    serial: Option<String>,
    object: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
    module: PathBuf,
    pin_file: Option<PathBuf>,
}

impl Uri {
    fn parse(text: &str) -> Result<Uri, String> {
        let rest = text
            .trim()
            .strip_prefix(SCHEME)
            .ok_or("a token's URI begins with pkcs11:")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Uri::default();
        let mut module = None;
        for (name, value) in attributes(path, ';').chain(attributes(query, '&')) {
            let bytes =
                decoded(value).ok_or_else(|| format!("{name}: a % must be followed by two hex digits"))?;
            let words = || String::from_utf8(bytes.clone()).map_err(|_| format!("{name} is not UTF-8"));
            match name {
                "token" => uri.token = Some(words()?),
                "serial" => uri.serial = Some(words()?),
                "object" => uri.object = Some(bytes),
                "id" => uri.id = Some(bytes),
                "type" if bytes == b"private" => {}
                "module-path" => module = Some(PathBuf::from(words()?)),
                "pin-source" => {
                    let source = words()?;
                    uri.pin_file = Some(source.strip_prefix("file:").unwrap_or(&source).into());
                }
                "pin-value" => {
                    return Err(
                        "a PIN does not belong into a URI: use pin-source=file:PATH, or be asked".into(),
                    );
                }
                _ => return Err(format!("{name} is not understood here")),
            }
        }
        uri.module = module.ok_or("module-path is missing: the PKCS#11 library of the token's maker")?;
        Ok(uri)
    }

    fn is_token(&self, pkcs11: &Pkcs11, slot: Slot) -> bool {
        let Ok(info) = pkcs11.get_token_info(slot) else {
            return false;
        };
        let same = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found.trim_end())
        };
        same(&self.token, info.label()) && same(&self.serial, info.serial_number())
    }

    fn template(&self, class: ObjectClass) -> Vec<Attribute> {
        let mut template = vec![Attribute::Class(class), Attribute::KeyType(KeyType::EC)];
        template.extend(self.object.clone().map(Attribute::Label));
        template.extend(self.id.clone().map(Attribute::Id));
        template
    }
}

fn attributes(text: &str, separator: char) -> impl Iterator<Item = (&str, &str)> {
    let parts = text.split(separator).filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Percent-decoding (RFC 3986 §2.1).
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
        }
    }
    Some(bytes)
}

/// The key on the token that `text` names, ready to open.
pub fn opener(text: &str, unlock: &Unlock) -> Result<Arc<Opener>, CliError> {
    let uri = Uri::parse(text).map_err(|why| CliError::usage(format_args!("the token's URI: {why}")))?;
    let failed =
        |doing: &str, error: &Error| CliError::io(format_args!("the token: {doing}: {}", plain(error)));
    let pkcs11 = load(&uri.module)?;
    let slots = pkcs11
        .get_slots_with_token()
        .map_err(|error| failed("listing the tokens", &error))?;
    let slots: Vec<Slot> = slots
        .into_iter()
        .filter(|slot| uri.is_token(&pkcs11, *slot))
        .collect();
    let [slot] = slots[..] else {
        return Err(CliError::io(format_args!(
            "{} tokens are there that the URI may mean",
            slots.len()
        ))
        .remedy("name one with token=LABEL or serial=NUMBER; `pkcs11-tool --list-slots` shows them"));
    };
    let session = pkcs11
        .open_ro_session(slot)
        .map_err(|error| failed("opening a session", &error))?;
    log_in(&session, &uri, unlock)?;
    let private = only(&session, &uri, ObjectClass::PRIVATE_KEY)?;
    let public = public_point(&session, only(&session, &uri, ObjectClass::PUBLIC_KEY)?)?;
    // One thread uses it; the lock is for the compiler, to which a session is not to be shared.
    let session = Mutex::new(session);
    let agree = move |peer: &[u8; 65]| {
        let session = session
            .lock()
            .map_err(|_| "the token's session broke".to_owned())?;
        agree(&session, private, peer).map_err(|error| format!("the token: key agreement: {}", plain(&error)))
    };
    let opener = Opener::p256_elsewhere(&public, Box::new(agree));
    opener
        .map(Arc::new)
        .map_err(|why| CliError::usage(format_args!("the token's key: {why}")))
}

fn load(module: &Path) -> Result<Pkcs11, CliError> {
    let failed = |error: &dyn std::fmt::Display| {
        CliError::io(format_args!(
            "cannot use the PKCS#11 library {}: {error}",
            module.display()
        ))
        .remedy("module-path names the library of the token's maker, such as /usr/lib/softhsm/libsofthsm2.so")
    };
    let pkcs11 = Pkcs11::new(module).map_err(|error| failed(&plain(&error)))?;
    match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Once in a process: a second identity on the same token finds it so.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(pkcs11),
        Err(error) => Err(failed(&plain(&error))),
    }
}

fn log_in(session: &Session, uri: &Uri, unlock: &Unlock) -> Result<(), CliError> {
    let pin = match &uri.pin_file {
        Some(path) => super::passphrase::first_line(path)?,
        None => unlock.ask(&format!(
            "the PIN of token {}",
            uri.token.as_deref().unwrap_or("")
        ))?,
    };
    match session.login(UserType::User, Some(&AuthPin::from(pin.as_str()))) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _)) => {
            Err(CliError::usage("the token: wrong PIN").remedy("mind the token's limit of wrong ones"))
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(CliError::usage(
            "the token: its PIN is locked after too many wrong ones",
        )),
        Err(error) => Err(CliError::io(format_args!(
            "the token: logging in: {}",
            plain(&error)
        ))),
    }
}

/// The one key of this kind that the URI names.
fn only(session: &Session, uri: &Uri, class: ObjectClass) -> Result<ObjectHandle, CliError> {
    let which = if class == ObjectClass::PUBLIC_KEY {
        "public"
    } else {
        "private"
    };
    let found = session.find_objects(&uri.template(class));
    let found = found
        .map_err(|error| CliError::io(format_args!("the token: looking for the key: {}", plain(&error))))?;
    match found[..] {
        [one] => Ok(one),
        [] => Err(
            CliError::nothing_here(format_args!("the token has no {which} EC key that the URI names"))
                .remedy("name it with object=LABEL or id=%01; `pkcs11-tool --list-objects` shows them"),
        ),
        _ => Err(CliError::usage(format_args!(
            "the token has {} {which} EC keys that the URI may mean",
            found.len()
        ))
        .remedy("name one with object=LABEL or id=%01")),
    }
}

/// CKA_EC_POINT is the point in a DER OCTET STRING (PKCS#11 §2.3.3); some tokens give the point itself.
fn public_point(session: &Session, key: ObjectHandle) -> Result<[u8; 65], CliError> {
    let asked = [AttributeType::EcParams, AttributeType::EcPoint];
    let found = session.get_attributes(key, &asked);
    let found = found.map_err(|error| {
        CliError::io(format_args!(
            "the token: reading its public key: {}",
            plain(&error)
        ))
    })?;
    let mut point = None;
    for attribute in found {
        match attribute {
            Attribute::EcParams(params) if params != P256 => {
                return Err(CliError::usage("the token's key is not of P-256"));
            }
            Attribute::EcPoint(bytes) => {
                let bare = bytes.strip_prefix(&[0x04, 0x41]).unwrap_or(&bytes);
                point = <[u8; 65]>::try_from(bare).ok();
            }
            _ => {}
        }
    }
    point.ok_or_else(|| CliError::usage("the token's public key is not an uncompressed point"))
}

fn agree(session: &Session, private: ObjectHandle, peer: &[u8; 65]) -> Result<Zeroizing<[u8; 32]>, Error> {
    let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), peer));
    // Of this session, readable, gone at the end: the agreed secret of one KEY entry, and nothing of the key.
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::ValueLen(32.into()),
        Attribute::Token(false),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    let agreed = session.derive_key(&mechanism, private, &template)?;
    let value = session.get_attributes(agreed, &[AttributeType::Value]);
    session.destroy_object(agreed)?;
    let value = value?.into_iter().find_map(|attribute| match attribute {
        Attribute::Value(bytes) => Some(Zeroizing::new(bytes)),
        _ => None,
    });
    let secret = value.and_then(|bytes| <[u8; 32]>::try_from(&bytes[..]).ok());
    secret.map(Zeroizing::new).ok_or(Error::InvalidValue)
}

/// The standard's explanations are paragraphs: the first sentence says it.
fn plain(error: &Error) -> String {
    let text = error.to_string();
    text.split_once(".  ")
        .map_or(text.clone(), |(first, _)| first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_key_and_a_library() {
        let text = "pkcs11:token=My%20card;object=harborseal;id=%01%ff;type=private?module-path=/lib/p11.so&pin-source=file:/run/pin";
        let uri = Uri::parse(text).expect("whole");
        let expected = Uri {
            token: Some("My card".into()),
            serial: None,
            object: Some(b"harborseal".to_vec()),
            id: Some(vec![1, 0xFF]),
            module: "/lib/p11.so".into(),
            pin_file: Some("/run/pin".into()),
        };
        assert_eq!(uri, expected);
    }

    #[test]
    fn a_uri_with_a_pin_without_a_library_or_garbled_is_refused() {
        for (text, about) in [
            ("pkcs11:token=a", "module-path is missing"),
            ("pkcs11:token=a?module-path=/x&pin-value=1234", "does not belong"),
            ("pkcs11:tokne=a?module-path=/x", "tokne is not understood"),
            ("pkcs11:token=%4?module-path=/x", "two hex digits"),
            ("pkcs11:token=%ff?module-path=/x", "not UTF-8"),
            ("hss1", "begins with pkcs11:"),
        ] {
            let refused = Uri::parse(text).expect_err(text);
            assert!(refused.contains(about) && !refused.contains("1234"), "{refused}");
        }
    }

    #[test]
    fn a_library_that_is_none_is_named() {
        let text = "pkcs11:token=a?module-path=/no/such/library.so";
        let refused = opener(text, &Unlock::default())
            .err()
            .expect("no library")
            .to_string();
        assert!(refused.contains("/no/such/library.so"), "{refused}");
    }
}
