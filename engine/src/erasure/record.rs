//! What the audit log is told of releases and erasures, and what it remembers of them.

use std::collections::HashSet;
use std::path::Path;

use harborseal_segment::ids::{EraseKeyId, SegmentId};
use harborseal_segment::merkle::Hash;
use harborseal_segment::random::os_random;
use sha2::{Digest, Sha256};

use crate::audit::disk::OsDisk;
use crate::audit::entry::{Bytes, SEGMENTS_MAX};
use crate::audit::read::Reader;
use crate::audit::tiles::TILE_WIDTH;
use crate::audit::{AuditError, AuditLog, Entry, Fact, Nonce, Salt};
use crate::keystore::{Day, Place};

use super::Said;

/// Longest text of an operator in an entry, in bytes; the rest is cut.
const TEXT_BYTES_MAX: usize = 500;

/// An erasure, as the log is told of it.
pub(super) struct Recorded {
    pub(super) from_day: u64,
    pub(super) to_day: u64,
    pub(super) receipt: Hash,
    pub(super) keys: Vec<EraseKeyId>,
    pub(super) by: String,
}

/// Enters facts about one customer, all or none.
pub(super) fn enter(log: &AuditLog, facts: Vec<Fact>, salt: &Salt, now_s: u64) -> Result<u64, AuditError> {
    let entry = |fact| Entry::concerning(now_s, Nonce::generate(&mut os_random()), fact, [salt]);
    log.append(&facts.into_iter().map(entry).collect::<Vec<_>>())
}

/// Enters an erasure; of very many keys in several entries, all with the same receipt.
pub(super) fn enter_erasure(
    log: &AuditLog,
    recorded: &Recorded,
    salt: &Salt,
    now_s: u64,
) -> Result<u64, AuditError> {
    let entry = |keys: &[EraseKeyId]| {
        let nonce = Nonce::generate(&mut os_random());
        let fact = Fact::Erasure {
            from_day: recorded.from_day,
            to_day: recorded.to_day,
            receipt: nonce.commitment(salt, &recorded.receipt),
            by: cut(&recorded.by).to_owned(),
            keys: keys.iter().map(|id| Bytes(id.0)).collect(),
        };
        Entry::concerning(now_s, nonce, fact, [salt])
    };
    let entries: Vec<Entry> = match recorded.keys.is_empty() {
        true => vec![entry(&[])],
        false => recorded.keys.chunks(SEGMENTS_MAX).map(entry).collect(),
    };
    log.append(&entries)
}

/// Enters a release, in as many entries as its segments need.
pub(super) fn enter_release(
    log: &AuditLog,
    segments: &[SegmentId],
    said: &Said<'_>,
    salt: &Salt,
    now_s: u64,
) -> Result<u64, AuditError> {
    let entry = |segments: &[SegmentId]| {
        let nonce = Nonce::generate(&mut os_random());
        let fact = Fact::Release {
            segments: segments.iter().map(|id| Bytes(id.0)).collect(),
            to: cut(said.to).to_owned(),
            to_key: nonce.commitment(salt, &Sha256::digest(said.to_key.to_text()).into()),
            by: cut(said.by).to_owned(),
            purpose: cut(said.purpose).to_owned(),
        };
        Entry::concerning(now_s, nonce, fact, [salt])
    };
    log.append(&segments.chunks(SEGMENTS_MAX).map(entry).collect::<Vec<_>>())
}

fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    &text[..end]
}

/// The keys that the log says were destroyed, from its entry `from` on, and how many entries it has.
pub(super) fn erased_since(
    log: &AuditLog,
    folder: &Path,
    from: u64,
) -> Result<(Vec<EraseKeyId>, u64), AuditError> {
    let mut ids = Vec::new();
    // A log that is shorter than the store remembers was made anew: all of it is looked at.
    let size = each_entry(log, folder, from, |_, entry| {
        if let Fact::Erasure { keys, .. } = entry.fact {
            ids.extend(keys.iter().map(|id| EraseKeyId(id.0)));
        }
    })?;
    Ok((ids, size))
}

/// What left the node of a customer's footage in these places, before: by the log, which names the customer under any of `salts`.
pub(super) fn disclosed(
    log: &AuditLog,
    folder: &Path,
    salts: &[Salt],
    places: &[Place],
) -> Result<Vec<(u64, String)>, AuditError> {
    let segments: HashSet<[u8; 16]> = places.iter().map(|place| place.segment.segment_id.0).collect();
    let first_s = places
        .iter()
        .map(|place| place.segment.created_s)
        .min()
        .unwrap_or(0);
    let end_s = places
        .iter()
        .map(|place| place.segment.created_s)
        .max()
        .unwrap_or(0);
    let end_s = Day::of(end_s).next().begins_s();
    let mut found = Vec::new();
    each_entry(log, folder, 0, |index, entry| {
        if !salts.iter().any(|salt| entry.concerns(salt)) {
            return;
        }
        let overlaps = |from_s: u64, to_s: u64| from_s < end_s && to_s > first_s;
        let what = match &entry.fact {
            Fact::Release {
                segments: of,
                to,
                purpose,
                ..
            } => {
                let count = of.iter().filter(|id| segments.contains(&id.0)).count();
                (count > 0).then(|| {
                    format!("released, entry {index}: {count} of these segments to {to}, for {purpose}")
                })
            }
            Fact::Grant { from_s, to_s, .. } if overlaps(*from_s, *to_s) => {
                Some(format!("granted by the customer, entry {index}"))
            }
            Fact::StandingGrant { from_s, to_s, .. } if overlaps(*from_s, *to_s) => Some(format!(
                "granted by the customer as a standing grant, entry {index}; it opened nothing without a release"
            )),
            _ => None,
        };
        found.extend(what.map(|what| (entry.time_s, what)));
    })?;
    Ok(found)
}

/// Shows every entry from `from` on that this version knows; returns how many the log has.
pub(super) fn each_entry(
    log: &AuditLog,
    folder: &Path,
    from: u64,
    mut visit: impl FnMut(u64, Entry),
) -> Result<u64, AuditError> {
    let size = log.checkpoint()?.checkpoint.size;
    let from = if from > size { 0 } else { from };
    let mut reader = Reader::new(&OsDisk, folder, size);
    let mut index = from / TILE_WIDTH * TILE_WIDTH;
    while index < size {
        for bytes in reader.entries(index / TILE_WIDTH)? {
            if index >= from
                && let Ok(entry) = Entry::parse(&bytes)
            {
                visit(index, entry);
            }
            index += 1;
        }
    }
    Ok(size)
}
