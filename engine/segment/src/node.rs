//! The node: the recording machine, known by its Ed25519 signing key.

use crate::ids::NodeId;
use sha2::{Digest, Sha256};

/// The node's name: SHA-256("harborseal/v1/node" ‖ node_key), its first 16 bytes.
pub fn node_id(node_key: &[u8; 32]) -> NodeId {
    let hash = Sha256::new()
        .chain_update(b"harborseal/v1/node")
        .chain_update(node_key)
        .finalize();
    NodeId(hash[..16].try_into().expect("SHA-256 has 32 bytes"))
}
