//! The catalog of closed segments, and what retention does with it. Decisions only; the janitor carries them out.
//!
//! Oldest first, by the time a segment was closed, and within a second by its place in its chain: a segment's tombstone stands in a later one
//! of its chain, which must not go before the segments between them. An open segment is not in it, so it can never be chosen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use harborseal_segment::body::{ChainHead, DeletedSegment, DeletionReason};
use harborseal_segment::ids::{RunId, SegmentId};
use time::{Duration, OffsetDateTime};

/// A segment with its footer.
#[derive(Clone, Debug)]
pub struct ClosedSegment {
    /// Its id.
    pub id: SegmentId,
    /// Its file.
    pub path: PathBuf,
    /// The file's size.
    pub bytes: u64,
    /// The run that wrote it.
    pub run_id: RunId,
    /// The shard that wrote it.
    pub shard: u32,
    /// Its place in the chain of that run and shard.
    pub chain_seq: u64,
    /// When it was closed, seconds since 1970.
    pub closed_s: u64,
    /// Its final Merkle root.
    pub root: [u8; 32],
}

impl ClosedSegment {
    /// What a tombstone says of it.
    pub fn tombstone(&self, reason: DeletionReason) -> DeletedSegment {
        DeletedSegment {
            segment_id: self.id,
            run_id: self.run_id,
            shard: self.shard,
            reason,
            chain_seq: self.chain_seq,
            root: self.root,
        }
    }
}

/// What keepers tell the janitor.
pub enum Note {
    /// A segment was closed.
    Closed(ClosedSegment),
    /// A segment was left without a footer; recovery will have to look at it.
    Abandoned(PathBuf),
    /// A closed segment of an earlier run, or one that recovery has closed.
    Found(ClosedSegment),
    /// The chain ends of earlier runs, once all their segments were looked at.
    Heads(Vec<ChainHead>),
    /// The tombstones of this ticket are durable.
    TombstonesDurable(u64),
    /// The disk is full.
    NoSpace,
    /// Something a person should read.
    Trouble(String),
}

/// How long and how much is kept. `None`: without bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Oldest age of a closed segment, in seconds.
    pub max_age_s: Option<u64>,
    /// Most bytes of closed segments.
    pub max_bytes: Option<u64>,
    /// Free space to keep on the file system, in bytes.
    pub min_free_bytes: Option<u64>,
}

impl Retention {
    /// Whether anything is ever deleted.
    pub fn deletes(&self) -> bool {
        self.max_age_s.is_some() || self.max_bytes.is_some() || self.min_free_bytes.is_some()
    }
}

/// Most segments taken at once: their tombstone, 80 bytes each, fits one buffer of the shard that writes it.
const MAX_TAKEN: usize = 500;

/// The closed segments, oldest first. Told apart by their files: a repaired copy has its original's id.
#[derive(Debug, Default)]
pub struct Catalog {
    segments: BTreeMap<Age, ClosedSegment>,
    /// What a legal hold keeps: it counts, and is not looked at.
    aside: Vec<ClosedSegment>,
    bytes: u64,
}

/// When a segment was closed, its place in its chain, and its file.
type Age = (u64, u64, PathBuf);

impl Catalog {
    /// Adds a segment; one already there is replaced.
    pub fn add(&mut self, segment: ClosedSegment) {
        self.bytes += segment.bytes;
        let age = (segment.closed_s, segment.chain_seq, segment.path.clone());
        if let Some(old) = self.segments.insert(age, segment) {
            self.bytes -= old.bytes;
        }
    }

    /// Keeps a segment that was taken and must stay, until the next [`Catalog::refresh`].
    pub fn set_aside(&mut self, segment: ClosedSegment) {
        self.bytes += segment.bytes;
        self.aside.push(segment);
    }

    /// Looks anew at what every segment takes of the disk; those of which that is nothing any more are forgotten. What was set aside is
    /// there again.
    pub fn refresh(&mut self, on_disk: impl Fn(&Path) -> Option<u64>) {
        let known = std::mem::take(self);
        for segment in known.segments.into_values().chain(known.aside) {
            if let Some(bytes) = on_disk(&segment.path) {
                self.add(ClosedSegment { bytes, ..segment });
            }
        }
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Removes and returns what has to go, oldest first and up to 500, each with the rule that says so. `free_bytes` is what the
    /// file system has now.
    pub fn take_expired(
        &mut self,
        keep: Retention,
        now_s: u64,
        free_bytes: u64,
    ) -> Vec<(ClosedSegment, DeletionReason)> {
        let mut free = free_bytes;
        let mut taken = Vec::new();
        while taken.len() < MAX_TAKEN {
            let Some(oldest) = self.segments.first_entry() else {
                break;
            };
            let segment = oldest.get();
            let too_old = |max_age_s| now_s.saturating_sub(segment.closed_s) > max_age_s;
            let reason = if keep.max_age_s.is_some_and(too_old) {
                DeletionReason::MaxAge
            } else if keep.max_bytes.is_some_and(|max_bytes| self.bytes > max_bytes) {
                DeletionReason::MaxBytes
            } else if keep
                .min_free_bytes
                .is_some_and(|min_free_bytes| free < min_free_bytes)
            {
                DeletionReason::MinFree
            } else {
                break;
            };
            let segment = oldest.remove();
            self.bytes -= segment.bytes;
            free += segment.bytes;
            taken.push((segment, reason));
        }
        taken
    }

    /// Removes and returns the oldest segment: the disk is full, and the newest footage is worth more than the oldest.
    pub fn take_oldest(&mut self) -> Option<(ClosedSegment, DeletionReason)> {
        let (_, segment) = self.segments.pop_first()?;
        self.bytes -= segment.bytes;
        Some((segment, DeletionReason::MinFree))
    }
}

/// `DATA/segments/<yyyymmdd>/<segment id>.hseal`, by the UTC day of creation.
pub fn segment_path(folder: &Path, id: &SegmentId, created_s: u64) -> PathBuf {
    let created = OffsetDateTime::UNIX_EPOCH + Duration::seconds(created_s.min(MAX_CREATED_S) as i64);
    let (year, month, day) = created.to_calendar_date();
    folder
        .join(format!("{year:04}{:02}{day:02}", u8::from(month)))
        .join(format!("{id}.hseal"))
}

/// The last second of the year 9999: a clock beyond it is wrong, and a path must be made all the same.
const MAX_CREATED_S: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(n: u8, closed_s: u64, bytes: u64) -> ClosedSegment {
        ClosedSegment {
            id: SegmentId([n; 16]),
            path: PathBuf::from(n.to_string()),
            bytes,
            run_id: RunId([0; 16]),
            shard: 0,
            chain_seq: u64::from(n),
            closed_s,
            root: [0; 32],
        }
    }

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for (n, closed_s) in [(3, 300), (1, 100), (2, 200)] {
            catalog.add(closed(n, closed_s, 10));
        }
        catalog
    }

    fn ids(taken: Vec<(ClosedSegment, DeletionReason)>) -> Vec<(u8, DeletionReason)> {
        taken
            .into_iter()
            .map(|(segment, reason)| (segment.id.0[0], reason))
            .collect()
    }

    #[test]
    fn what_is_held_counts_and_stays_until_somebody_looks_again() {
        let mut catalog = catalog();
        let keep = Retention {
            max_bytes: Some(15),
            ..Retention::default()
        };
        let (held, _) = catalog.take_oldest().expect("the first");
        catalog.set_aside(held);
        assert_eq!(catalog.bytes(), 30);
        let taken = ids(catalog.take_expired(keep, 0, 0));
        assert_eq!(
            taken,
            [(2, DeletionReason::MaxBytes), (3, DeletionReason::MaxBytes)]
        );
        // The hold was lifted, and the one that is left has lost half its size.
        catalog.refresh(|_| Some(5));
        assert_eq!((catalog.len(), catalog.bytes()), (1, 5));
        catalog.refresh(|_| None);
        assert!(catalog.is_empty() && catalog.bytes() == 0);
    }

    #[test]
    fn each_rule_takes_the_oldest_and_no_more_than_it_must() {
        let keep = |max_age_s, max_bytes, min_free_bytes| Retention {
            max_age_s,
            max_bytes,
            min_free_bytes,
        };
        assert_eq!(ids(catalog().take_expired(keep(None, None, None), 1000, 0)), []);
        assert_eq!(
            ids(catalog().take_expired(keep(Some(50), None, None), 251, 0)),
            [(1, DeletionReason::MaxAge), (2, DeletionReason::MaxAge)]
        );
        assert_eq!(
            ids(catalog().take_expired(keep(None, Some(20), None), 0, 0)),
            [(1, DeletionReason::MaxBytes)]
        );
        assert_eq!(
            ids(catalog().take_expired(keep(None, None, Some(15)), 0, 0)),
            [(1, DeletionReason::MinFree), (2, DeletionReason::MinFree)]
        );
    }

    #[test]
    fn of_one_second_the_earlier_of_a_chain_goes_first() {
        let mut catalog = Catalog::default();
        for (n, path) in [(3, "a"), (1, "b"), (2, "c")] {
            let path = PathBuf::from(path);
            catalog.add(ClosedSegment {
                path,
                ..closed(n, 100, 10)
            });
        }
        let oldest = std::iter::from_fn(|| catalog.take_oldest());
        assert_eq!(
            ids(oldest.collect()).iter().map(|(n, _)| *n).collect::<Vec<_>>(),
            [1, 2, 3]
        );
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let folder = |s| {
            segment_path(Path::new("d"), &SegmentId([0; 16]), s)
                .parent()
                .unwrap()
                .to_owned()
        };
        assert_eq!(folder(0), Path::new("d/19700101"));
        assert_eq!(folder(951_782_400), Path::new("d/20000229"));
        assert_eq!(folder(1_795_392_000), Path::new("d/20261123"));
    }
}
