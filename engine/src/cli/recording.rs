//! A grant on the record: entered in the audit log of the node whose footage it opens, before anybody has it.
//!
//! The entry names the customer by its pseudonym and holds a commitment to the grant: who has neither learns that footage of somebody was
//! granted, of which seconds, and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harborseal_segment::node::NodeKey;
use harborseal_segment::random::os_random;

use super::audit::cli_error;
use super::error::CliError;
use crate::audit::{AuditLog, Entry, Fact, Nonce, Salt};
use crate::engine::{self, StartError};
use crate::statement::Grant;

const NS_PER_S: u64 = 1_000_000_000;
/// How far above a segment its node's data folder is: DATA/segments/DAY/SEGMENT.
const FOLDERS_UP: usize = 4;

/// The data folders of the nodes to which these paths belong: those that have an audit log and the key that signs it. Copies of
/// segments belong to none.
pub fn nodes_of(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let node_of = |path: &PathBuf| {
        let path = path.canonicalize().ok()?;
        let mut folders = path.ancestors().take(FOLDERS_UP);
        let is_node = |folder: &&Path| {
            folder.join("audit/checkpoint").exists() && folder.join("keys/node.key").exists()
        };
        folders.find(is_node).map(Path::to_owned)
    };
    paths.iter().filter_map(node_of).collect()
}

/// The key of the node whose data folder this is.
pub fn node_key(data: &Path) -> Result<Arc<NodeKey>, CliError> {
    let failed = |error: StartError| {
        let remedy = match error.remedy.as_str() {
            "" => "run this as the engine's own user, or as root".to_owned(),
            remedy => remedy.to_owned(),
        };
        CliError::io(error.message).remedy(remedy)
    };
    engine::node_key_of(data).map(Arc::new).map_err(failed)
}

/// What a grant became in a log.
pub enum Entered {
    /// This entry.
    Now(u64),
    /// An entry that was there already.
    Before(u64),
}

impl Entered {
    /// The entry's index.
    pub fn index(&self) -> u64 {
        match self {
            Entered::Now(index) | Entered::Before(index) => *index,
        }
    }
}

/// Enters a grant of the customer with this audit salt, unless it is in the log. Durable when this returns.
///
/// # Errors
/// The log was not read or written: then nobody may be given the grant.
pub fn enter(
    data: &Path,
    node: Arc<NodeKey>,
    grant: &Grant,
    salt: &Salt,
    now_s: u64,
) -> Result<Entered, CliError> {
    let log = AuditLog::open(data, node).map_err(cli_error)?;
    let mut before = None;
    let mut look = |index, bytes: &[u8]| {
        if Entry::parse(bytes).is_ok_and(|entry| is_of(&entry, grant, salt)) {
            before = Some(index);
        }
    };
    log.read(|log, root| log.all_entries(root, &mut look))
        .map_err(cli_error)?;
    if let Some(index) = before {
        return Ok(Entered::Before(index));
    }
    let nonce = Nonce::generate(&mut os_random());
    let (from_ns, to_ns) = grant.disclosure.disclosed_ns;
    let fact = Fact::Grant {
        statement: nonce.commitment(salt, grant.hash()),
        from_s: from_ns / NS_PER_S,
        to_s: to_ns.div_ceil(NS_PER_S),
    };
    let entry = Entry::concerning(now_s, nonce, fact, [salt]);
    log.append(&[entry]).map(Entered::Now).map_err(cli_error)
}

fn is_of(entry: &Entry, grant: &Grant, salt: &Salt) -> bool {
    match &entry.fact {
        Fact::Grant { statement, .. } => *statement == entry.nonce().commitment(salt, grant.hash()),
        _ => false,
    }
}
