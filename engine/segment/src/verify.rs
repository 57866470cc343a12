//! Verifying segments: every check of docs/FORMAT.md §8, without a key, and with an identity everything that is for it.
//!
//! [`verify`] looks at one segment, in one pass, in bounded memory. [`Chains`] then looks at what many of them say of each other:
//! which are missing, which were deleted by policy, and whether one was changed after the next had named its root.
//!
//! A check never stops at the first fault. What it finds is typed ([`What`]) and has a place ([`Finding`]); only a source that
//! cannot be read, or a file that is no segment, is an error.

mod chain;
mod closing;
mod erasure;
mod finding;
mod index;
mod owner;
mod recipients;
pub(crate) mod survey;
mod what;

pub use chain::{ChainFinding, Chains, Member};
pub use erasure::Erasures;
pub use finding::{Finding, Findings, Severity};
pub use owner::OwnStream;
pub use survey::Counts;
pub use what::{CLASSES, What};

use crate::body::{FOOTER_SIGNED, FooterBody, StreamRow};
use crate::head::Head;
use crate::ids::NodeId;
use crate::merkle::Hash;
use crate::open::Keyring;
use crate::reader::State;
use crate::scan::ReadError;
use crate::source::Source;
use erasure::Erased;
use owner::Owner;
use survey::{Survey, survey};

/// What a check of one segment found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the SEGMENT block says.
    pub head: Head,
    /// How far the segment has got.
    pub state: State,
    /// Bytes of the file, reserved space included.
    pub file_len: u64,
    /// End of the last block that is not INDEX or FOOTER.
    pub data_end: u64,
    /// The highest watermark that a block of its own states: below it everything must hold.
    pub floor: u64,
    /// No chunk was ever appended: a segment made ready for use, and not used.
    pub unused: bool,
    /// The highest block number of its own.
    pub last_block_no: u64,
    /// Blocks by kind, bytes, times.
    pub counts: Counts,
    /// Its streams.
    pub streams: Vec<StreamRow>,
    /// Leaves of the Merkle tree.
    pub leaf_count: u64,
    /// The root over them.
    pub root: Hash,
    /// Leaf count and root of the last signed CHECKPOINT: what a chain head states of a segment without a footer.
    pub last_checkpoint: Option<(u64, Hash)>,
    /// The FOOTER of a closed segment.
    pub footer: Option<FooterBody>,
    /// What was opened for the given identity.
    pub own_streams: Vec<OwnStream>,
    /// The findings.
    pub findings: Findings,
    /// What it tells of other segments.
    pub member: Member,
    erased: Erased,
}

impl Report {
    /// Nothing worse than notes.
    pub fn is_clean(&self) -> bool {
        self.findings.are_clean()
    }

    /// Holds the segment against the node that is known, from elsewhere, to have recorded it.
    ///
    /// By itself a segment only tells that whoever has the key in its SEGMENT block signed it. Who can write the file can write another
    /// key there and sign everything with that; or leave the FOOTER unsigned, as recovery without the node's key does.
    pub fn expect_node(&mut self, expected: NodeId) {
        let signed = |footer: &FooterBody| footer.flags & FOOTER_SIGNED != 0;
        let what = match self.footer {
            _ if self.head.node_id != expected => What::NodeDiffers { expected },
            Some(footer) if !signed(&footer) => What::NotAttested {
                signed_leaf_count: footer.signed_leaf_count,
                leaf_count: self.leaf_count,
            },
            _ => return,
        };
        self.findings.push(Finding::new(0, 0, what));
    }

    /// Chunks whose bodies were erased.
    pub fn erased_chunks(&self) -> u64 {
        self.erased.slots.values().map(|slot| slot.chunks).sum()
    }

    /// Looks again at the erased chunks, with what other segments state: those of a slot that `stated` names are a note now, and no
    /// damage. [`verify`] itself has asked the segment's own tombstones only; [`Chains::erasures`] has those of many.
    pub fn settle(&mut self, stated: &Erasures) {
        for (&(origin, slot), chunks) in &mut self.erased.slots {
            if !chunks.stated && stated.is_stated(chunks.node_id, origin, slot) {
                chunks.stated = true;
                self.findings.settle_erased(origin, slot, chunks.chunks);
            }
        }
    }
}

/// Checks one segment; with `keyring` also opens everything of its identity. `progress` is told how many bytes are done, often.
pub fn verify<S: Source>(
    source: &S,
    keyring: Option<&mut Keyring>,
    mut progress: impl FnMut(u64),
) -> Result<Report, ReadError> {
    let survey = survey(source, keyring.map(Owner::new), &mut |reached, _| {
        progress(reached)
    })?;
    let stated = survey.erasures.clone();
    let mut report = survey.into_report();
    report.findings.add_erased(&report.erased);
    report.settle(&stated);
    Ok(report)
}

impl Survey<'_> {
    /// Erased chunks are no finding here: only who reads several segments can judge them.
    pub(crate) fn into_report(mut self) -> Report {
        let own_streams = self.owner.take().map_or_else(Vec::new, Owner::into_streams);
        let (leaf_count, root) = (self.tree.leaf_count(), self.tree.root());
        Report {
            state: self.state(),
            file_len: self.file_len(),
            data_end: self.tables.data_end,
            floor: self.floor,
            unused: self.is_unused(),
            last_block_no: self.next_no[&self.head.id] - 1,
            leaf_count,
            root,
            last_checkpoint: self.last_checkpoint,
            footer: self.footer.map(|(_, footer)| footer),
            member: Member::of(&self, own_streams.clone()),
            counts: self.counts,
            streams: self.tables.streams,
            own_streams,
            findings: self.findings,
            erased: self.erased,
            head: self.head,
        }
    }
}
