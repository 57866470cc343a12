//! Which segments a legal hold keeps from retention.
//!
//! Where the store knows the held customer's slot in a segment, the segment's own table says whether there is footage in it. Where it does not, because
//! the customer is not erasable or was not then, nobody here can tell, and the segment stays.

use std::collections::HashMap;
use std::path::Path;

use harborseal_segment::ids::SegmentId;
use harborseal_segment::reader::Segment;

use crate::archive::FileSource;
use crate::keystore::{Keystore, Owner, StoreError};

/// The holds in force, and what is known of their customers' slots.
#[derive(Debug, Default)]
pub struct Held {
    owners: Vec<Owner>,
    slots: HashMap<SegmentId, Vec<(Owner, u32)>>,
}

impl Held {
    /// Reads the holds, and the slots of whom they are for. Without holds that is one look at an empty folder.
    pub fn read(store: &Keystore) -> Result<Held, StoreError> {
        let owners: Vec<Owner> = store.holds()?.into_iter().map(|hold| hold.owner).collect();
        let mut held = Held {
            owners,
            slots: HashMap::new(),
        };
        if held.owners.is_empty() {
            return Ok(held);
        }
        let store = store.lock()?;
        for owner in held.owners.clone() {
            for day in store.days()? {
                for place in store.places_of(owner, day)? {
                    let slots = held.slots.entry(place.segment.segment_id).or_default();
                    slots.push((owner, place.slot));
                }
            }
        }
        Ok(held)
    }

    /// How many holds are in force.
    pub fn count(&self) -> usize {
        self.owners.len()
    }

    /// Whether a closed segment must stay.
    pub fn keeps(&self, segment_id: &SegmentId, path: &Path) -> bool {
        if self.owners.is_empty() {
            return false;
        }
        let none = Vec::new();
        let known = self.slots.get(segment_id).unwrap_or(&none);
        let all_known = self
            .owners
            .iter()
            .all(|owner| known.iter().any(|(of, _)| of == owner));
        !all_known || holds_any(path, known)
    }
}

/// Whether any of these slots has chunks in the file; true where that cannot be read.
fn holds_any(path: &Path, slots: &[(Owner, u32)]) -> bool {
    let Ok(source) = FileSource::open(path) else {
        return false; // there is nothing to keep
    };
    let Ok(segment) = Segment::open(source) else {
        return true;
    };
    let mut rows = segment.streams().iter().filter(|row| row.chunks > 0);
    // A slot's number alone is enough: of a relocated stream it may be another's, and then the segment stays all the same.
    rows.any(|row| slots.iter().any(|(_, slot)| *slot == row.slot))
}
