//! What a check found. Each finding names its place, its kind ([`What`]) and, where they are known, the streams it concerns.

use std::fmt;

use super::erasure::Erased;
use super::what::What;
use crate::ids::{SegmentId, StreamId};

/// Findings kept per segment. What is beyond is counted: a disk full of garbage must not fill the memory too.
const KEPT: usize = 1000;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// This version cannot judge it. Not damage, but not verified either.
    Unsupported,
    /// Bytes that were durable are gone or changed, or something is not as the format demands.
    Damage,
}

impl Severity {
    /// The word for it in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Unsupported => "unsupported",
            Severity::Damage => "damage",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// First byte in the file.
    pub offset: u64,
    /// Bytes concerned; 0 if it is not about bytes.
    pub len: u64,
    /// The streams concerned, where something still names them.
    pub streams: Vec<StreamId>,
    /// What it is.
    pub what: What,
}

impl Finding {
    /// A finding about `len` bytes at `offset`, and no stream in particular.
    pub fn new(offset: u64, len: u64, what: What) -> Self {
        Finding {
            offset,
            len,
            streams: Vec::new(),
            what,
        }
    }

    /// The same, about one stream.
    pub fn of_stream(self, stream: StreamId) -> Self {
        Finding {
            streams: vec![stream],
            ..self
        }
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        self.what.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len > 0 {
            write!(f, "bytes {}..{}: ", self.offset, self.offset + self.len)?;
        } else {
            write!(f, "offset {}: ", self.offset)?;
        }
        self.what.fmt(f)?;
        match &self.streams[..] {
            [] => Ok(()),
            [one] => write!(f, " (stream {one})"),
            [first, rest @ ..] => write!(f, " (stream {first} and {} more)", rest.len()),
        }
    }
}

/// The findings of one segment.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    /// Findings by severity, those not kept too.
    counts: [u64; 3],
}

fn severity_of_erased(stated: bool) -> Severity {
    match stated {
        true => Severity::Note,
        false => Severity::Damage,
    }
}

impl Findings {
    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        self.counts[finding.severity() as usize] += 1;
        if self.kept.len() < KEPT {
            self.kept.push(finding);
        }
    }

    /// Adds those of another list.
    pub(super) fn absorb(&mut self, other: Findings) {
        let left_out = other.left_out();
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        debug_assert_eq!(left_out, 0, "one block has few findings");
        let room = KEPT - self.kept.len();
        self.kept.extend(other.kept.into_iter().take(room));
    }

    /// Takes chunks that were found erased, with what is known of each slot.
    pub(super) fn add_erased(&mut self, erased: &Erased) {
        for chunks in erased.slots.values() {
            self.counts[severity_of_erased(chunks.stated) as usize] += chunks.chunks;
        }
        for &(offset, len, stream, (origin, slot)) in &erased.places {
            let stated = erased.slots[&(origin, slot)].stated;
            let what = match stated {
                true => What::Erased { origin, slot },
                false => What::ErasedUnstated { origin, slot },
            };
            if self.kept.len() < KEPT {
                self.kept.push(Finding::new(offset, len, what).of_stream(stream));
            }
        }
        self.sort();
    }

    /// Believes that `slot` of `origin` was erased on purpose: so many findings of damage are notes.
    pub(super) fn settle_erased(&mut self, origin: SegmentId, slot: u32, chunks: u64) {
        self.counts[severity_of_erased(false) as usize] -= chunks;
        self.counts[severity_of_erased(true) as usize] += chunks;
        for finding in &mut self.kept {
            if finding.what == (What::ErasedUnstated { origin, slot }) {
                finding.what = What::Erased { origin, slot };
            }
        }
        self.sort();
    }

    /// Puts them in the order of offsets, and at one offset in that of docs/FORMAT.md §13.
    pub(super) fn sort(&mut self) {
        self.kept
            .sort_by_key(|finding| (finding.offset, finding.what.rank()));
    }

    /// The first thousand that were found, by offset.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.kept.iter()
    }

    /// How many there are of `severity`, kept or not.
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts[severity as usize]
    }

    /// How many are not kept.
    pub fn left_out(&self) -> u64 {
        self.counts.iter().sum::<u64>() - self.kept.len() as u64
    }

    /// Nothing worse than notes.
    pub fn are_clean(&self) -> bool {
        self.count(Severity::Damage) == 0 && self.count(Severity::Unsupported) == 0
    }
}
