//! The kinds of finding, how much each matters, and what docs/FORMAT.md §13 calls it.

use std::fmt;

use super::finding::Severity;
use crate::block::BlockType;
use crate::body::BodyError;
use crate::head::CopyFault;
use crate::ids::{NodeId, SegmentId};
use crate::open::OpenError;
use crate::scan::GapReason;

/// The kinds of finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// One of the two SEGMENT blocks is broken, or they differ.
    SegmentCopy(CopyFault),
    /// No block where there must be one.
    Gap(GapReason),
    /// A hole of a repaired copy: what was here is lost, and a TOMBSTONE says so.
    Lost,
    /// A hole above the floor, left by a crash.
    Hole,
    /// Above the floor of an open segment: on its way to the disk, or never to come.
    Unfinished,
    /// Something of a later version of the format.
    Unsupported(String),
    /// Something of a later version that may be left out: skipped.
    Skipped(BodyError),
    /// A whole block whose body breaks the format.
    Body(BodyError),
    /// Block numbers that do not go on, without a hole that would explain it.
    BlockNo {
        /// The next number.
        expected: u64,
        /// What stands there.
        found: u64,
    },
    /// A STREAM whose slot has no KEY entry for its customer before it.
    KeyMissing {
        /// The slot.
        slot: u32,
    },
    /// The entries of a slot do not fit each other, or not all are there where a STREAM needs them.
    Recipients {
        /// The slot.
        slot: u32,
        /// What does not fit.
        why: &'static str,
    },
    /// A block uses a feature that the file does not state, or the other way round.
    FeatureUnstated {
        /// Which.
        what: &'static str,
    },
    /// The body of a hashed CHUNK is not the one whose hash its extension holds.
    BodyHash,
    /// An erased CHUNK, of which no TOMBSTONE that was read speaks: nobody can tell whether it was allowed.
    ErasedUnstated {
        /// The segment that it was first written to.
        origin: SegmentId,
        /// The slot there.
        slot: u32,
    },
    /// An erased CHUNK, whose node says that it erased the slot.
    Erased {
        /// The segment that it was first written to.
        origin: SegmentId,
        /// The slot there.
        slot: u32,
    },
    /// A STREAM or CHUNK of its own in a file that was gathered from others.
    NotGathered,
    /// A CHUNK whose stream has no STREAM block before it.
    StreamMissing,
    /// A second STREAM block for a stream.
    StreamRepeated,
    /// A CHUNK in another slot than its stream.
    SlotDiffers {
        /// The stream's.
        expected: u32,
        /// The chunk's.
        found: u32,
    },
    /// Chunks of a stream that are not here, without a hole that would explain it.
    ChunksMissing {
        /// The first missing stream_seq.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Chunks of a stream that went with a hole that is no damage.
    ChunksLost {
        /// The first missing stream_seq.
        first: u64,
        /// How many.
        count: u64,
    },
    /// What another finding would be, were it not for a hole before the block.
    WentWithHole(&'static str),
    /// A chunk number that came before, or comes again.
    SeqRepeated {
        /// The next number.
        expected: u64,
        /// What stands there.
        found: u64,
    },
    /// A block states a watermark beyond itself.
    WatermarkAhead {
        /// What it states, in bytes.
        stated: u64,
    },
    /// A CHECKPOINT or FOOTER counts other leaves than there are before it.
    LeafCount {
        /// Which block states it.
        by: BlockType,
        /// What it states.
        stated: u64,
        /// Leaves before it.
        found: u64,
    },
    /// The blocks before a CHECKPOINT or FOOTER do not hash to its root: one of them was changed, moved or exchanged.
    Root {
        /// Which block states it.
        by: BlockType,
    },
    /// A signature is not the node's.
    Signature {
        /// On which block.
        on: BlockType,
    },
    /// The footer is not signed: recovery ran without the node's key.
    Unsigned {
        /// Leaves that the last signed CHECKPOINT covers.
        signed_leaf_count: u64,
    },
    /// A figure of the FOOTER is not what the scan found.
    Footer {
        /// Which.
        field: &'static str,
        /// What the FOOTER states.
        stated: u64,
        /// What was found.
        found: u64,
    },
    /// The INDEX does not say what the scan found.
    Index {
        /// Which table.
        table: &'static str,
    },
    /// Blocks behind the FOOTER.
    AfterFooter,
    /// The file was not cut after its FOOTER: a crash came between.
    NotTruncated,
    /// It has no FOOTER, and no process writes it: a crash left it so, or somebody cut it. Found by who knows about processes.
    Unclosed,
    /// Something of the given identity does not open.
    Open(OpenError),
    /// Chunks of a stream are missing, told by the sealed count that runs through all segments of a run.
    ChunksSoFar {
        /// The next count.
        expected: u64,
        /// What the chunk says.
        found: u64,
    },
    /// Segments of a chain that are not here, and that no TOMBSTONE names.
    SegmentsMissing {
        /// The first missing chain_seq.
        first: u64,
        /// How many.
        count: u64,
        /// The last of them, where the next segment names it.
        last: Option<SegmentId>,
    },
    /// The same, where nothing claimed that all were given.
    SegmentsNotGiven {
        /// The predecessor that was not given.
        last: SegmentId,
    },
    /// Segments that the node itself deleted by its retention rules.
    SegmentsDeleted {
        /// The first deleted chain_seq that matters here.
        first: u64,
        /// How many.
        count: u64,
    },
    /// A segment follows another one than stands before it in the chain.
    PrevDiffers {
        /// Which stands before it.
        expected: SegmentId,
        /// Which it names.
        found: SegmentId,
    },
    /// Two segments claim the same place in a chain.
    SamePlace {
        /// The other one.
        other: SegmentId,
    },
    /// The next segment, or a later run, states another final root: this one was changed or cut since it was closed.
    RootSince {
        /// The segment that states it.
        stated_by: SegmentId,
    },
    /// The same, but the node itself closed it anew, by recovery, and signed that.
    RepairedSince {
        /// The segment that states the older root.
        stated_by: SegmentId,
    },
    /// The last segment of an earlier chain, as a later run found it, is not here, and no TOMBSTONE names it.
    HeadMissing {
        /// The segment.
        segment_id: SegmentId,
    },
    /// It is not the node that was expected: by who asks, or by the rest of its chain.
    NodeDiffers {
        /// The expected node.
        expected: NodeId,
    },
    /// The expected node did not sign it to its end: recovery closed it without the node's key, or somebody passed for recovery.
    NotAttested {
        /// Leaves that the node's last signature covers.
        signed_leaf_count: u64,
        /// All of them.
        leaf_count: u64,
    },
}

/// The classes of docs/FORMAT.md §13, in the order of its table.
pub const CLASSES: &[&str] = &[
    "not_a_segment",
    "never_begun",
    "head_lost",
    "damaged",
    "unsupported",
    "segment_copy",
    "zeros",
    "broken_block",
    "foreign_block",
    "misplaced_block",
    "malformed_body",
    "block_number",
    "watermark_ahead",
    "key_missing",
    "recipients",
    "feature_unstated",
    "stream_missing",
    "stream_repeated",
    "slot_differs",
    "chunks_missing",
    "stream_seq_repeated",
    "body_hash",
    "erased_unstated",
    "leaf_count",
    "root",
    "signature",
    "footer",
    "index",
    "after_footer",
    "unclosed",
    "commitment",
    "not_authentic",
    "malformed_plaintext",
    "chunks_so_far",
    "needs_release",
    "erased",
    "skipped",
    "lost",
    "hole",
    "unfinished",
    "chunks_lost",
    "went_with_hole",
    "unsigned",
    "not_truncated",
    "node_differs",
    "not_attested",
    "segments_missing",
    "previous_differs",
    "same_place",
    "root_since",
    "head_missing",
    "segments_deleted",
    "segments_not_given",
    "repaired_since",
];

impl What {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            What::Unsupported(_) | What::Body(BodyError::Unsupported { .. }) => Severity::Unsupported,
            What::Lost
            | What::Erased { .. }
            | What::Hole
            | What::Unfinished
            | What::Skipped(_)
            | What::ChunksLost { .. }
            | What::WentWithHole(_)
            | What::Unsigned { .. }
            | What::NotTruncated
            | What::SegmentsNotGiven { .. }
            | What::SegmentsDeleted { .. }
            | What::RepairedSince { .. }
            | What::Open(OpenError::NeedsRelease) => Severity::Note,
            _ => Severity::Damage,
        }
    }

    /// What docs/FORMAT.md §13 names beside the class: why a stretch that does not hold a block holds none.
    pub fn cause(&self) -> Option<&'static str> {
        match self {
            What::Gap(GapReason::Broken(error)) => Some(error.name()),
            _ => None,
        }
    }

    /// Its place in [`CLASSES`]: of several findings at one offset, the first comes first.
    pub(super) fn rank(&self) -> usize {
        let place = CLASSES.iter().position(|class| *class == self.name());
        place.expect("every kind has its class in the table")
    }

    /// The class of docs/FORMAT.md §13, and the kind in JSON. Stable: scripts tell findings apart by it.
    pub fn name(&self) -> &'static str {
        match self {
            What::SegmentCopy(_) => "segment_copy",
            What::Gap(GapReason::Zero) => "zeros",
            What::Gap(GapReason::Broken(_)) => "broken_block",
            What::Gap(GapReason::Foreign(_)) => "foreign_block",
            What::Gap(GapReason::Misplaced(_)) => "misplaced_block",
            What::Lost => "lost",
            What::Hole => "hole",
            What::Unfinished => "unfinished",
            What::Unsupported(_) | What::Body(BodyError::Unsupported { .. }) => "unsupported",
            What::Skipped(_) => "skipped",
            What::Body(_) => "malformed_body",
            What::BlockNo { .. } => "block_number",
            What::KeyMissing { .. } => "key_missing",
            What::Recipients { .. } => "recipients",
            What::FeatureUnstated { .. } => "feature_unstated",
            What::BodyHash => "body_hash",
            What::ErasedUnstated { .. } => "erased_unstated",
            What::Erased { .. } => "erased",
            What::NotGathered => "misplaced_block",
            What::StreamMissing => "stream_missing",
            What::StreamRepeated => "stream_repeated",
            What::SlotDiffers { .. } => "slot_differs",
            What::ChunksMissing { .. } => "chunks_missing",
            What::ChunksLost { .. } => "chunks_lost",
            What::WentWithHole(_) => "went_with_hole",
            What::SeqRepeated { .. } => "stream_seq_repeated",
            What::WatermarkAhead { .. } => "watermark_ahead",
            What::LeafCount { .. } => "leaf_count",
            What::Root { .. } => "root",
            What::Signature { .. } => "signature",
            What::Unsigned { .. } => "unsigned",
            What::Footer { .. } => "footer",
            What::Index { .. } => "index",
            What::AfterFooter => "after_footer",
            What::NotTruncated => "not_truncated",
            What::Unclosed => "unclosed",
            What::Open(OpenError::NeedsRelease) => "needs_release",
            What::Open(OpenError::Commitment) => "commitment",
            What::Open(OpenError::NotAuthentic(_)) => "not_authentic",
            What::Open(OpenError::BodyHash) => "body_hash",
            What::Open(OpenError::Erased) => "erased",
            What::Open(_) => "malformed_plaintext",
            What::ChunksSoFar { .. } => "chunks_so_far",
            What::SegmentsMissing { .. } => "segments_missing",
            What::SegmentsNotGiven { .. } => "segments_not_given",
            What::SegmentsDeleted { .. } => "segments_deleted",
            What::PrevDiffers { .. } => "previous_differs",
            What::SamePlace { .. } => "same_place",
            What::RootSince { .. } => "root_since",
            What::RepairedSince { .. } => "repaired_since",
            What::HeadMissing { .. } => "head_missing",
            What::NodeDiffers { .. } => "node_differs",
            What::NotAttested { .. } => "not_attested",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::SegmentCopy(fault) => write!(f, "SEGMENT: {fault}"),
            What::Gap(reason) => reason.fmt(f),
            What::Lost => f.write_str("lost: recovery found no whole block here"),
            What::Hole => f.write_str("a hole that the crash left, nothing in it was durable"),
            What::Unfinished => f.write_str("unfinished, nothing in it was durable yet"),
            What::Unsupported(what) => write!(f, "unsupported: {what}"),
            What::Skipped(error) | What::Body(error) => error.fmt(f),
            What::BlockNo { expected, found } => {
                write!(f, "block number {found} where {expected} should stand")
            }
            What::KeyMissing { slot } => {
                write!(f, "no KEY entry for the customer of slot {slot} stands before it")
            }
            What::Recipients { slot, why } => write!(f, "recipients of slot {slot}: {why}"),
            What::FeatureUnstated { what } => f.write_str(what),
            What::BodyHash => f.write_str("the CHUNK's body is not the one whose hash it carries"),
            What::ErasedUnstated { origin, slot } => write!(
                f,
                "erased, and no TOMBSTONE says that slot {slot} of segment {origin} was"
            ),
            What::Erased { origin, slot } => {
                write!(
                    f,
                    "erased by its node, with all of slot {slot} of segment {origin}"
                )
            }
            What::NotGathered => f.write_str("a block of its own, in a file that was gathered from others"),
            What::StreamMissing => f.write_str("a CHUNK without a STREAM block before it"),
            What::StreamRepeated => f.write_str("a second STREAM block of one stream"),
            What::SlotDiffers { expected, found } => {
                write!(f, "slot {found} in a CHUNK of slot {expected}'s stream")
            }
            What::ChunksMissing { first, count } => {
                let chunks = Count(*count, "chunk");
                write!(f, "missing of the stream: {chunks}, from stream_seq {first} on")
            }
            What::ChunksLost { first, count } => {
                let chunks = Count(*count, "chunk");
                write!(
                    f,
                    "lost of the stream with a hole: {chunks}, from stream_seq {first} on"
                )
            }
            What::WentWithHole(what) => write!(f, "{what}, because of a hole before it"),
            What::SeqRepeated { expected, found } => {
                write!(f, "stream_seq {found} where {expected} should stand")
            }
            What::WatermarkAhead { stated } => write!(f, "states the watermark {stated}, beyond itself"),
            What::LeafCount { by, stated, found } => {
                write!(
                    f,
                    "the {} counts {stated} leaves before it, and there are {found}",
                    by.name()
                )
            }
            What::Root { by } => write!(
                f,
                "the blocks before the {} do not hash to its root: one was changed, moved or exchanged",
                by.name()
            ),
            What::Signature { on } => write!(f, "the {}'s signature is not the node's", on.name()),
            What::Unsigned { signed_leaf_count } => write!(
                f,
                "closed by recovery without the node's key: its signatures cover the first {signed_leaf_count} blocks"
            ),
            What::Footer { field, stated, found } => {
                write!(f, "the FOOTER states {field} {stated}, found {found}")
            }
            What::Index { table } => write!(f, "the index of {table} is not what the blocks say"),
            What::AfterFooter => f.write_str("a block behind the FOOTER"),
            What::NotTruncated => f.write_str("the file was not cut after its FOOTER"),
            What::Unclosed => f.write_str(
                "it is not closed and nobody writes it: a crash left it open, or its end was cut off",
            ),
            What::Open(error) => error.fmt(f),
            What::ChunksSoFar { expected, found } => write!(
                f,
                "the chunk is number {found} of its stream in this run, and number {expected} was due"
            ),
            What::SegmentsMissing { first, count, last } => {
                let segments = Count(*count, "segment");
                write!(
                    f,
                    "missing before it: {segments}, from number {first} of the chain on"
                )?;
                match last {
                    Some(id) => write!(f, "; the last is {id}"),
                    None => Ok(()),
                }
            }
            What::SegmentsNotGiven { last } => write!(f, "the segment before it, {last}, was not given"),
            What::SegmentsDeleted { first, count } => {
                let segments = Count(*count, "segment");
                write!(
                    f,
                    "deleted by policy before it: {segments}, from number {first} of the chain on"
                )
            }
            What::PrevDiffers { expected, found } => {
                write!(
                    f,
                    "names {found} as the segment before it, where {expected} stands"
                )
            }
            What::SamePlace { other } => write!(f, "claims the same place in the chain as {other}"),
            What::RootSince { stated_by } => write!(
                f,
                "it was changed or cut since it was closed: segment {stated_by} states another root"
            ),
            What::RepairedSince { stated_by } => write!(
                f,
                "the node repaired it after damage: segment {stated_by} states the root before"
            ),
            What::HeadMissing { segment_id } => write!(
                f,
                "segment {segment_id}, the last of an earlier chain, is missing, and no TOMBSTONE names it"
            ),
            What::NodeDiffers { expected } => write!(f, "not written by the expected node {expected}"),
            What::NotAttested {
                signed_leaf_count,
                leaf_count,
            } => write!(
                f,
                "of its {leaf_count} blocks the expected node signed the first {signed_leaf_count}"
            ),
        }
    }
}

/// A number of things, in English.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}
