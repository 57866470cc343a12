//! Which standing grants a segment is made with: those of whose time it is, and that stand in the audit log.
//!
//! The entry comes first and is durable before any segment has the key. A grant that cannot be entered is left out, and tried again with the next segment.

use std::path::Path;
use std::sync::Arc;

use harborseal_segment::node::NodeKey;
use harborseal_segment::random::CryptoRng;

use crate::audit::{AuditError, AuditLog, Entry, Fact, Nonce};
use crate::statement::StandingGrant;
use crate::stream::registry::{Granting, Registry};

const NS_PER_S: u64 = 1_000_000_000;

/// The standing grants of whose time a segment created now is. When their time begins or ends, the shard asks for a new one.
pub fn in_force(registry: &Registry, created_s: u64) -> impl Iterator<Item = &Granting> {
    let grants = registry.grants.iter();
    grants.filter(move |granting| granting.grant.covers(created_s))
}

/// Enters a grant in the audit log of the node whose data folder is `data`, once for a configuration, whichever shard comes first.
///
/// # Errors
/// The log was not written: then the grant must not take effect.
pub fn enter(
    granting: &Granting,
    (data, node): (&Path, &Arc<NodeKey>),
    now_s: u64,
    rng: &mut dyn CryptoRng,
) -> Result<(), AuditError> {
    let mut entered = granting
        .entered
        .lock()
        .expect("nobody panics while entering a grant");
    if !*entered {
        let log = AuditLog::open(data, Arc::clone(node))?;
        log.append(&[entry(&granting.grant, now_s, Nonce::generate(rng))])?;
        *entered = true;
    }
    Ok(())
}

fn entry(grant: &StandingGrant, now_s: u64, nonce: Nonce) -> Entry {
    let [from_ns, to_ns] = grant.turns_ns();
    let fact = Fact::StandingGrant {
        statement: nonce.commitment(&grant.audit_salt, grant.hash()),
        from_s: from_ns / NS_PER_S,
        to_s: to_ns / NS_PER_S,
    };
    Entry::concerning(now_s, nonce, fact, [&grant.audit_salt])
}
