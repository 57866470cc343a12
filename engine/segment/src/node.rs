//! The node: the recording machine, known by its Ed25519 key, and what it signs.
//!
//! Every signed message begins with a label of its own and names node and segment, so that a signature made for
//! one place says nothing in another.

use crate::body::{CheckpointBody, FOOTER_SIGNED, FooterBody, TombstoneBody, TombstoneKind};
use crate::ids::{NodeId, SegmentId};
use crate::planted::{Planted, planted};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::ops::Deref;

/// Where a signing key is kept: a box, or memory that the caller has for secrets.
pub type Keep = Box<dyn Deref<Target = SigningKey> + Send + Sync>;

/// The node's signing key. Wiped when dropped; there is no way to print it.
pub struct NodeKey(Keep);

impl NodeKey {
    /// From the 32-byte seed of RFC 8032.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        NodeKey::kept_by(seed, |make| Box::new(Box::new(make())))
    }

    /// The same, in memory of the caller's choice.
    pub fn kept_by(seed: &[u8; 32], keep: impl FnOnce(&dyn Fn() -> SigningKey) -> Keep) -> Self {
        NodeKey(keep(&|| SigningKey::from_bytes(seed)))
    }

    /// What verifies its signatures, and what SEGMENT shows.
    pub fn public(&self) -> NodePublic {
        NodePublic(self.0.verifying_key().to_bytes())
    }

    /// Ed25519 over `message`, which must begin with a label of its own use.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// Fills in the signature of a checkpoint of `segment_id`.
    pub fn sign_checkpoint(&self, checkpoint: &mut CheckpointBody, segment_id: &SegmentId) {
        let message = CheckpointBody::signed_message(&checkpoint.encode(), &self.public().id(), segment_id);
        checkpoint.signature = self.sign(&message);
    }

    /// Sets the SIGNED flag too, which the signature covers.
    pub fn sign_footer(&self, footer: &mut FooterBody, segment_id: &SegmentId) {
        footer.flags |= FOOTER_SIGNED;
        let message = FooterBody::signed_message(&footer.encode(), &self.public().id(), segment_id);
        footer.signature = self.sign(&message);
    }

    /// `host_id` is the segment in which the tombstone stands.
    pub fn sign_tombstone(&self, tombstone: &mut TombstoneBody, host_id: &SegmentId) {
        let message = TombstoneBody::signed_message(&tombstone.encode(), &self.public().id(), host_id);
        tombstone.signature = self.sign(&message);
    }
}

/// The node's public key, as its SEGMENT blocks hold it. Not known to be a valid point until it verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodePublic(pub [u8; 32]);

impl NodePublic {
    /// SHA-256("harborseal/v1/node" ‖ key), its first 16 bytes.
    pub fn id(&self) -> NodeId {
        NodeId::of_key(&self.0)
    }

    /// Strict: of a signature and key, exactly one encoding passes, and no key passes for every message.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| {
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        })
    }

    /// Whether `body`, as stored in `segment_id`, is a checkpoint that this node signed. Likewise the next two.
    pub fn verify_checkpoint(&self, body: &[u8], segment_id: &SegmentId) -> bool {
        CheckpointBody::parse(body).is_ok_and(|checkpoint| {
            let message = CheckpointBody::signed_message(body, &self.id(), segment_id);
            self.verify(&message, &checkpoint.signature)
        })
    }

    /// False for a footer without the SIGNED flag.
    pub fn verify_footer(&self, body: &[u8], segment_id: &SegmentId) -> bool {
        FooterBody::parse(body).is_ok_and(|footer| {
            let message = FooterBody::signed_message(body, &self.id(), segment_id);
            let signed = self.verify(&message, &footer.signature);
            footer.flags & FOOTER_SIGNED != 0 && (signed || planted(Planted::FooterSignatureUnchecked))
        })
    }

    /// False for lost blocks, which nobody signs.
    pub fn verify_tombstone(&self, body: &[u8], host_id: &SegmentId) -> bool {
        TombstoneBody::parse(body).is_ok_and(|tombstone| {
            tombstone.kind != TombstoneKind::Lost && {
                let message = TombstoneBody::signed_message(body, &self.id(), host_id);
                self.verify(&message, &tombstone.signature)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> CheckpointBody {
        CheckpointBody {
            durable_upto: 8192,
            leaf_count: 3,
            root: [7; 32],
            prev_root: None,
            time_s: 1_795_000_000,
            signature: [0; 64],
            heads: vec![],
        }
    }

    #[test]
    fn a_checkpoint_verifies_for_its_node_and_segment_only() {
        let (key, other) = (NodeKey::from_bytes(&[1; 32]), NodeKey::from_bytes(&[2; 32]));
        let segment_id = SegmentId([3; 16]);
        let mut signed = checkpoint();
        key.sign_checkpoint(&mut signed, &segment_id);
        assert!(key.public().verify_checkpoint(&signed.encode(), &segment_id));
        assert!(!other.public().verify_checkpoint(&signed.encode(), &segment_id));
        assert!(
            !key.public()
                .verify_checkpoint(&signed.encode(), &SegmentId([4; 16]))
        );
        let moved = CheckpointBody {
            durable_upto: 4096,
            ..signed
        };
        assert!(!key.public().verify_checkpoint(&moved.encode(), &segment_id));
    }

    #[test]
    fn a_tombstone_moved_to_another_segment_does_not_verify() {
        let key = NodeKey::from_bytes(&[1; 32]);
        let mut tombstone = TombstoneBody {
            kind: TombstoneKind::Deleted(vec![]),
            time_s: 5,
            signature: [0; 64],
        };
        key.sign_tombstone(&mut tombstone, &SegmentId([3; 16]));
        assert!(
            key.public()
                .verify_tombstone(&tombstone.encode(), &SegmentId([3; 16]))
        );
        assert!(
            !key.public()
                .verify_tombstone(&tombstone.encode(), &SegmentId([4; 16]))
        );
    }

    #[test]
    fn a_key_that_is_no_point_verifies_nothing() {
        assert!(!NodePublic([0xFF; 32]).verify(b"", &[0; 64]));
        // The neutral element would verify anything, were the check not strict.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!NodePublic(neutral).verify(b"anything", &signature));
    }
}
