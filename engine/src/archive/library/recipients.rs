//! Whom a customer's segments are sealed to, as far as they show: how many keys open a slot, and how many more open one stream of it.
//!
//! Whose keys they are nobody can tell from a segment, only that they are there: KEY entries are counted in the clear.

use std::collections::BTreeMap;
use std::path::PathBuf;

use harborseal_segment::body::{KeyEntry, SCOPE_CUSTOMER, SCOPE_STREAM};
use harborseal_segment::keys::Secret;
use harborseal_segment::open::Unlocked;
use harborseal_segment::{SegmentId, StreamId};

/// The recipients of one customer's slot in one segment of origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipients {
    /// The file it was found in.
    pub path: PathBuf,
    /// When that file was created: seconds since 1970.
    pub created_s: u64,
    /// The segment of origin.
    pub origin: SegmentId,
    /// How many keys open the slot, the customer's included.
    pub keys: usize,
    /// How many standing grants open each stream that has any.
    pub granted: BTreeMap<StreamId, usize>,
}

/// Counts the entries of the slots that opened as a customer's. What opened by a grant is somebody else's slot.
pub(super) fn count(
    entries: &[KeyEntry],
    unlocked: &[Unlocked],
) -> impl Iterator<Item = (usize, BTreeMap<StreamId, usize>)> {
    let own = unlocked
        .iter()
        .filter(|unlocked| matches!(unlocked.secret, Secret::Customer(_)));
    own.map(|unlocked| {
        let of_slot = || entries.iter().filter(|entry| entry.slot == unlocked.slot);
        let keys = of_slot().filter(|entry| entry.scope == SCOPE_CUSTOMER).count();
        let mut granted = BTreeMap::new();
        for entry in of_slot().filter(|entry| entry.scope == SCOPE_STREAM) {
            *granted.entry(entry.stream_id).or_default() += 1;
        }
        (keys, granted)
    })
}
