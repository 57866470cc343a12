//! Signed statements: what a customer decides, and what a node answers for, as small text files that people can read and machines can refuse.
//!
//! ```text
//! harborseal/v1/KIND            the label: what kind of statement it is, and what keeps its signature from being one of another kind
//! word value                    one fact per line, in a fixed order
//! …
//! signature BASE64URL           Ed25519, over all lines before the first signature, each with its line feed
//! ```
//!
//! There is no other syntax: no comments, which nothing would sign, and no line that may be left out unless it is said so. Line ends and spaces at the end of
//! lines, which mail changes, are taken as a single line feed. Who parses gets a statement whose own signature holds, or why not; what it is worth (whether its
//! signer is the right one, whether it is in force) is for each kind to say. No clock and no files in here.

mod enrolment;
mod grant;
mod receipt;
mod release;
mod standing;
mod terms;

pub use enrolment::{Enrolment, RECIPIENTS_MAX, ReplaceError};
pub use grant::{CLOCK_SKEW_S, Disclosure, Grant, TimeError, UseError};
pub use receipt::Receipt;
pub use release::{ReleaseTerms, SealedRelease};
pub use standing::{LONGEST_S, StandingGrant};
pub use terms::{PURPOSE_BYTES_MAX, Terms};

use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use harborseal_segment::identity::{Identity, KeyError, PublicKey};
use harborseal_segment::node::NodeKey;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What every label begins with.
const LABELS: &str = "harborseal/v1/";
/// The word of the line with which the signatures begin.
const SIGNATURE: &str = "signature";

/// Why a text is not the statement that it is taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Its first line is no label.
    #[error("not a statement: its first line must be {LABELS}{wanted}")]
    NotAStatement {
        /// The kind that was asked for.
        wanted: &'static str,
    },
    /// A statement about something else.
    #[error("it is a statement of another kind: its first line says {found}, and {LABELS}{wanted} is needed")]
    OtherKind {
        /// Its first line.
        found: String,
        /// The kind that was asked for.
        wanted: &'static str,
    },
    /// It ends too early.
    #[error("it is cut: the line '{missing} …' is missing at its end")]
    Cut {
        /// The first word of the line that should come next.
        missing: &'static str,
    },
    /// A line that does not belong there.
    #[error("line {line} is not the one that belongs there: {expected}")]
    Line {
        /// From 1.
        line: usize,
        /// What a whole one has there.
        expected: &'static str,
    },
    /// A key in it is none.
    #[error("line {line}: {why}")]
    Key {
        /// From 1.
        line: usize,
        /// What is wrong with the key.
        why: KeyError,
    },
    /// A fact in it contradicts another.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
    /// The signature does not hold.
    #[error(
        "it is not genuine: it was changed after it was signed, or another key than the one it names signed it"
    )]
    Forged,
}

/// A statement under way: its lines so far.
struct Draft(String);

impl Draft {
    fn new(kind: &str) -> Self {
        Draft(format!("{LABELS}{kind}\n"))
    }

    fn line(&mut self, word: &str, value: impl std::fmt::Display) {
        use std::fmt::Write;
        writeln!(self.0, "{word} {value}").expect("a string takes any text");
    }

    /// Ends it: everything so far under each signer's signature, in the order of their words.
    fn signed(mut self, signers: &[(&str, &Identity)]) -> String {
        let signatures: Vec<_> = signers
            .iter()
            .map(|(word, signer)| (*word, signer.sign(self.0.as_bytes())))
            .collect();
        for (word, signature) in signatures {
            self.line(word, BASE64_URL_SAFE_NO_PAD.encode(signature));
        }
        self.0
    }
}

/// What only statements of nodes do.
impl Draft {
    fn text(&self) -> &str {
        &self.0
    }

    fn signed_by_node(mut self, node: &NodeKey) -> String {
        let signature = node.sign(self.0.as_bytes());
        self.line(SIGNATURE, base64(&signature));
        self.0
    }
}

/// A statement's lines, taken one by one.
struct Lines {
    /// Each line with one line feed, whatever it came with.
    text: String,
    /// Where the next line begins.
    at: usize,
    /// Lines taken.
    taken: usize,
}

impl Lines {
    /// Checks the label.
    fn of(kind: &'static str, text: &str) -> Result<Self, StatementError> {
        let mut whole = String::with_capacity(text.len() + 1);
        for line in text.trim_end().lines() {
            whole.push_str(line.trim_end());
            whole.push('\n');
        }
        let label = whole.lines().next().unwrap_or_default();
        match label.strip_prefix(LABELS) {
            Some(found) if found == kind => {}
            Some(_) => {
                let found = label.chars().take(80).collect();
                return Err(StatementError::OtherKind { found, wanted: kind });
            }
            None => return Err(StatementError::NotAStatement { wanted: kind }),
        }
        let at = label.len() + 1;
        Ok(Lines {
            text: whole,
            at,
            taken: 1,
        })
    }

    /// The value of the next line if its word is this.
    fn optional(&mut self, word: &str) -> Option<&str> {
        let rest = &self.text[self.at..];
        let line = rest.lines().next()?;
        let value_at = line.strip_prefix(word)?.strip_prefix(' ')?;
        let start = self.at + line.len() - value_at.len();
        self.at += line.len() + 1;
        self.taken += 1;
        Some(&self.text[start..self.at - 1])
    }

    /// The value of the next line, whose word must be this.
    fn value(&mut self, word: &'static str) -> Result<&str, StatementError> {
        if self.at >= self.text.len() {
            return Err(StatementError::Cut { missing: word });
        }
        let line = self.taken + 1;
        self.optional(word)
            .ok_or(StatementError::Line { line, expected: word })
    }

    /// The same, parsed.
    fn parsed<T>(
        &mut self,
        word: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, StatementError> {
        let parsed = parse(self.value(word)?);
        parsed.ok_or(StatementError::Line {
            line: self.taken,
            expected: word,
        })
    }

    /// The values of all lines from here on that have this word.
    fn all<T>(
        &mut self,
        word: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, StatementError> {
        let mut found = Vec::new();
        while let Some(parsed) = self.optional(word).map(&parse) {
            let line = self.taken;
            found.push(parsed.ok_or(StatementError::Line { line, expected: word })?);
        }
        Ok(found)
    }

    fn key(&mut self, word: &'static str) -> Result<PublicKey, StatementError> {
        let key = PublicKey::from_str(self.value(word)?);
        let line = self.taken;
        key.map_err(|why| StatementError::Key { line, why })
    }

    /// What a signature is over: all lines taken so far.
    fn so_far(&self) -> &str {
        &self.text[..self.at]
    }

    /// Nothing may follow: it would be unsigned.
    fn end(&self) -> Result<(), StatementError> {
        match self.at < self.text.len() {
            true => Err(StatementError::Line {
                line: self.taken + 1,
                expected: "nothing, for the statement ends before it",
            }),
            false => Ok(()),
        }
    }

    /// SHA-256 of the whole text: of the file as it was written, so `sha256sum` says the same.
    fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.text).into()
    }
}

fn parse_signature(text: &str) -> Option<[u8; 64]> {
    parse_base64(text)?.try_into().ok()
}

fn base64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn parse_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

/// 64 lower-case hex digits.
pub fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || text.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

/// Digits without a leading zero, so that a number has one form.
fn parse_number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    canonical.then(|| text.parse().ok()).flatten()
}

/// Text on one line, whatever is in it: as JSON has it (RFC 8259 §7).
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always has a JSON form")
}

fn parse_text(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

/// Two instants of nanoseconds since 1970, the second later.
fn span((from_ns, to_ns): (u64, u64)) -> String {
    let shown = |unix_ns: u64| {
        let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ns));
        let instant = instant.expect("2^64 ns after 1970 is the year 2554, which the type holds");
        instant
            .format(&Rfc3339)
            .expect("years up to 9999 have an RFC 3339 form")
    };
    format!("{} {}", shown(from_ns), shown(to_ns))
}

fn parse_span(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once(' ')?;
    let parse = |text: &str| {
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(instant.unix_timestamp_nanos()).ok()
    };
    let (from_ns, to_ns) = (parse(from)?, parse(to)?);
    (from_ns < to_ns).then_some((from_ns, to_ns))
}

/// Whole seconds since 1970 as RFC 3339 in UTC.
fn instant(unix_s: u64) -> String {
    let seconds = i64::try_from(unix_s).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|instant| instant.format(&Rfc3339).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
}

fn parse_instant(text: &str) -> Option<u64> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(instant.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_texts_come_back_and_an_empty_span_is_none() {
        let (from_ns, to_ns) = (1_795_000_000_250_000_000, 1_795_000_060_000_000_000);
        assert_eq!(
            span((from_ns, to_ns)),
            "2026-11-18T11:06:40.25Z 2026-11-18T11:07:40Z"
        );
        assert_eq!(parse_span(&span((from_ns, to_ns))), Some((from_ns, to_ns)));
        assert_eq!(parse_span(&span((to_ns, from_ns))), None);
        let text = "two\nlines, \"quoted\", é";
        assert_eq!(parse_text(&quoted(text)).as_deref(), Some(text));
        assert!(!quoted(text).contains('\n'));
    }

    #[test]
    fn instants_and_numbers_have_one_form_and_come_back() {
        assert_eq!(instant(1_795_000_000), "2026-11-18T11:06:40Z");
        assert_eq!(parse_instant("2026-11-18T11:06:40Z"), Some(1_795_000_000));
        assert_eq!(parse_instant("1969-12-31T23:59:59Z"), None);
        assert_eq!(instant(u64::MAX), "9999-12-31T23:59:59Z");
        for text in ["", "01", "+1", "-1", "1 ", "18446744073709551616"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
        assert_eq!(parse_number("18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_hex(&hex(&[0xA5; 32])), Some([0xA5; 32]));
        assert_eq!(parse_hex(&hex(&[0xA5; 32]).to_uppercase()), None);
    }
}
