//! What grants and standing grants say alike: who lets whom see which camera, and why.

use harborseal_segment::identity::PublicKey;

use super::{Draft, Lines, StatementError, parse_text, quoted};

/// Longest purpose, in bytes: it is a sentence, and goes where people read it.
pub const PURPOSE_BYTES_MAX: usize = 1000;

/// Who lets whom see what, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whose footage it is.
    pub customer: PublicKey,
    /// Who may see it.
    pub grantee: PublicKey,
    /// The camera, as its operator named it.
    pub camera: String,
    /// Why, in the customer's words.
    pub purpose: String,
}

impl Terms {
    pub(super) fn write(&self, draft: &mut Draft) {
        draft.line("customer", self.customer.to_text());
        draft.line("to-key", self.grantee.to_text());
        draft.line("camera", quoted(&self.camera));
        draft.line("purpose", quoted(&self.purpose));
    }

    pub(super) fn parse(lines: &mut Lines) -> Result<Self, StatementError> {
        Ok(Terms {
            customer: lines.key("customer")?,
            grantee: lines.key("to-key")?,
            camera: lines.parsed("camera", parse_text)?,
            purpose: lines.parsed("purpose", parse_text)?,
        })
    }
}
