//! The statement by which a node says what it erased, what that closed, and what it could not reach.
//!
//! ```text
//! harborseal/v1/erasure-receipt
//! node HEX                      the node's public key
//! made RFC 3339
//! customer HEX                  SHA-256 of the customer's public key as text
//! days YYYY-MM-DD YYYY-MM-DD    the first UTC day erased, and the first that is not
//! generation N                  of the key store: counts erasures
//! key HEX                       for each key destroyed: its id
//! segment HEX slot N            for each segment that no longer opens, in any copy
//! disclosed RFC 3339 TEXT       for each release and grant that the audit log has of this customer, and that may reach these days
//! signature …                   by the node
//! ```
//!
//! Its hash is in the audit log, in an entry that was durable before the first key was destroyed.

use harborseal_segment::ids::{EraseKeyId, SegmentId};
use harborseal_segment::node::{NodeKey, NodePublic};

use super::{Draft, Lines, SIGNATURE, StatementError, hex, instant, parse_hex, parse_instant, parse_number};
use crate::text::OneLine;

const KIND: &str = "erasure-receipt";

/// What was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// When, by the node's clock: whole seconds since 1970.
    pub made_s: u64,
    /// SHA-256 of the customer's public key as text.
    pub customer: [u8; 32],
    /// The first day erased, and the first that is not, as they are printed.
    pub days: (String, String),
    /// Which erasure of this node's key store it is.
    pub generation: u64,
    /// The keys destroyed.
    pub keys: Vec<EraseKeyId>,
    /// What no longer opens.
    pub segments: Vec<(SegmentId, u32)>,
    /// What had left the node before: when, and what, in one line each.
    pub disclosed: Vec<(u64, String)>,
}

impl Receipt {
    /// The text, signed.
    pub fn sign(&self, node: &NodeKey) -> String {
        let mut draft = Draft::new(KIND);
        draft.line("node", hex(&node.public().0));
        draft.line("made", instant(self.made_s));
        draft.line("customer", hex(&self.customer));
        draft.line("days", format_args!("{} {}", self.days.0, self.days.1));
        draft.line("generation", self.generation);
        for key in &self.keys {
            draft.line("key", key);
        }
        for (segment, slot) in &self.segments {
            draft.line("segment", format_args!("{segment} slot {slot}"));
        }
        for (when_s, what) in &self.disclosed {
            draft.line(
                "disclosed",
                format_args!("{} {}", instant(*when_s), OneLine(what.trim())),
            );
        }
        draft.signed_by_node(node)
    }

    /// Parses a receipt and checks that the node it names signed it. Returns that node, and the hash that the audit log has.
    pub fn parse(text: &str) -> Result<(Receipt, NodePublic, [u8; 32]), StatementError> {
        let mut lines = Lines::of(KIND, text)?;
        let node = NodePublic(lines.parsed("node", parse_hex)?);
        let made_s = lines.parsed("made", parse_instant)?;
        let customer = lines.parsed("customer", parse_hex)?;
        let days = lines.parsed("days", |text| {
            let (first, end) = text.split_once(' ')?;
            Some((first.to_owned(), end.to_owned()))
        })?;
        let generation = lines.parsed("generation", parse_number)?;
        let keys = lines.all("key", |text| text.parse().ok())?;
        let segments = lines.all("segment", |text| {
            let (segment, slot) = text.split_once(" slot ")?;
            Some((segment.parse().ok()?, slot.parse().ok()?))
        })?;
        let disclosed = lines.all("disclosed", |text| {
            let (when, what) = text.split_once(' ')?;
            Some((parse_instant(when)?, what.to_owned()))
        })?;
        let signed = lines.so_far().to_owned();
        let signature = lines.parsed(SIGNATURE, super::parse_signature)?;
        lines.end()?;
        if !node.verify(signed.as_bytes(), &signature) {
            return Err(StatementError::Forged);
        }
        let receipt = Receipt {
            made_s,
            customer,
            days,
            generation,
            keys,
            segments,
            disclosed,
        };
        Ok((receipt, node, lines.hash()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_comes_back_and_a_changed_one_is_refused() {
        let receipt = Receipt {
            made_s: 1_795_491_127,
            customer: [7; 32],
            days: ("2026-11-20".to_owned(), "2026-11-24".to_owned()),
            generation: 3,
            keys: vec![EraseKeyId([1; 16]), EraseKeyId([2; 16])],
            segments: vec![(SegmentId([3; 16]), 0), (SegmentId([4; 16]), 17)],
            disclosed: vec![(1_795_000_000, "release, entry 4, to Bob: claim 17".to_owned())],
        };
        let node = NodeKey::from_bytes(&[5; 32]);
        let text = receipt.sign(&node);
        let (parsed, by, _) = Receipt::parse(&text).expect("whole");
        assert_eq!((parsed, by), (receipt.clone(), node.public()));
        for (from, to) in [
            ("slot 17", "slot 18"),
            ("Bob", "Eve"),
            ("2026-11-24", "2026-11-25"),
        ] {
            let changed = text.replace(from, to);
            assert!(
                matches!(Receipt::parse(&changed), Err(StatementError::Forged)),
                "{from}"
            );
        }
        let left_out: String = text
            .lines()
            .filter(|line| !line.starts_with("disclosed"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert!(matches!(Receipt::parse(&left_out), Err(StatementError::Forged)));
        let nothing = Receipt {
            keys: Vec::new(),
            segments: Vec::new(),
            disclosed: Vec::new(),
            ..receipt
        };
        assert_eq!(Receipt::parse(&nothing.sign(&node)).expect("whole").0, nothing);
    }
}
