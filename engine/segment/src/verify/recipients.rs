//! Who can open a slot: how many recipients its KEY entries name, and whether all of them are there (docs/FORMAT.md §4.2).
//!
//! Whoever holds the file counts them: a recipient that was added shows by `n`, and one that was taken away is missed.

use std::collections::HashMap;

use crate::body::{KeyEntry, SCOPE_CUSTOMER, SCOPE_STREAM};
use crate::ids::{SegmentId, StreamId};

/// The entries seen so far, by slot of an origin.
#[derive(Default)]
pub(super) struct Recipients {
    secrets: HashMap<Secret, Seen>,
    /// Whether each slot is erasable, by its first entry.
    erasable: HashMap<(SegmentId, u32), bool>,
}

/// One wrapped secret: S of a slot, or K_st of a stream of it.
type Secret = (SegmentId, u32, Option<StreamId>);

struct Seen {
    n: u8,
    /// Bit i: recipient i has been seen.
    recipients: [u64; 4],
}

/// How many of a slot's customer entries there are.
pub(super) enum Presence {
    Missing,
    Incomplete,
    Complete,
}

impl Recipients {
    /// Notes an entry of `origin`, and says which rule it breaks beside those before it. An entry of a suite that is not known here is
    /// a recipient like any other; one of an unknown scope is left out.
    pub(super) fn add(&mut self, origin: SegmentId, entry: &KeyEntry) -> Result<(), &'static str> {
        let stream = match entry.scope {
            SCOPE_CUSTOMER => None,
            SCOPE_STREAM => Some(entry.stream_id),
            _ => return Ok(()),
        };
        let erasable = *self
            .erasable
            .entry((origin, entry.slot))
            .or_insert(entry.erasable);
        let seen = self.secrets.entry((origin, entry.slot, stream)).or_insert(Seen {
            n: entry.n,
            recipients: [0; 4],
        });
        let (word, bit) = (usize::from(entry.i / 64), 1 << (entry.i % 64));
        let repeated = seen.recipients[word] & bit != 0;
        if entry.i < seen.n {
            seen.recipients[word] |= bit;
        }
        if entry.n != seen.n {
            Err("they disagree in how many there are")
        } else if entry.i >= entry.n {
            Err("one has a number that is not below how many there are")
        } else if repeated {
            Err("one stands there twice")
        } else if entry.erasable != erasable {
            Err("they disagree in whether the slot is erasable")
        } else {
            Ok(())
        }
    }

    /// Whether a slot's S has come to all its recipients.
    pub(super) fn of_slot(&self, origin: SegmentId, slot: u32) -> Presence {
        let Some(seen) = self.secrets.get(&(origin, slot, None)) else {
            return Presence::Missing;
        };
        let found: u32 = seen.recipients.iter().map(|word| word.count_ones()).sum();
        match found == u32::from(seen.n) {
            true => Presence::Complete,
            false => Presence::Incomplete,
        }
    }
}
