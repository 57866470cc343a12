//! What segments say of each other. A chain is the segments of one shard in one run; each names the one before it, and each run
//! names the chain ends it found.
//!
//! What nobody names cannot be missed: the newest segments of the newest run can be taken away unseen, unless a checkpoint of them
//! is kept elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::erasure::Erasures;
use super::finding::{Finding, Severity};
use super::owner::OwnStream;
use super::survey::Survey;
use super::what::What;
use crate::body::{ChainHead, DeletedSegment, FOOTER_SIGNED, HEAD_FOOTER};
use crate::ids::{NodeId, RunId, SegmentId, StreamId};
use crate::merkle::Hash;
use crate::open::Origin;
use crate::reader::State;

/// What one segment tells of itself and of others. Small: a check of a hundred thousand segments keeps one of each.
#[derive(Clone, Debug)]
pub struct Member {
    origin: Origin,
    prev: SegmentId,
    state: State,
    signed: bool,
    /// It was gathered from others: its streams begin where theirs did.
    compacted: bool,
    /// It never took part in its chain: made ready and not used, or closed by recovery after a crash while it was made ready.
    unused: bool,
    /// Nothing worse than notes was found in it.
    clean: bool,
    /// A crash, a repair or damage left it with less than was written.
    has_holes: bool,
    root: Option<Hash>,
    last_checkpoint: Option<(u64, Hash)>,
    prev_root: Option<Hash>,
    heads: Vec<ChainHead>,
    deleted: Vec<DeletedSegment>,
    erasures: Erasures,
    /// Chunks of relocated streams, and of its own if it was not sealed: origin, stream, first stream_seq and the one after the last.
    spans: Vec<(SegmentId, StreamId, u64, u64)>,
    own_streams: Vec<OwnStream>,
}

impl Member {
    pub(super) fn of(survey: &Survey<'_>, own_streams: Vec<OwnStream>) -> Self {
        let head = &survey.head;
        let state = survey.state();
        let footer = survey.footer.as_ref().map(|(_, footer)| footer);
        let span = |(stream_id, track): (&StreamId, &super::survey::StreamTrack)| {
            let told = track.origin != head.id || state != State::Sealed;
            let first = track.first_seq.filter(|_| told)?;
            Some((track.origin, *stream_id, first, track.next_seq))
        };
        let holds_nothing = state == State::Recovered && survey.floor == 0 && survey.counts.chunks == 0;
        Member {
            origin: head.origin(),
            prev: head.body.prev_segment_id,
            state,
            signed: footer.is_some_and(|footer| footer.flags & FOOTER_SIGNED != 0),
            compacted: head.body.is_compacted(),
            unused: survey.is_unused() || holds_nothing,
            clean: survey.findings.are_clean(),
            has_holes: !survey.holes.is_empty() || !survey.lost.is_empty(),
            root: footer.map(|footer| footer.root),
            last_checkpoint: survey.last_checkpoint,
            prev_root: survey.prev_root,
            heads: survey.heads.clone(),
            deleted: survey.deleted.clone(),
            erasures: survey.erasures.clone(),
            spans: survey.streams.iter().filter_map(span).collect(),
            own_streams,
        }
    }

    /// The segment.
    pub fn segment_id(&self) -> SegmentId {
        self.origin.segment_id
    }

    /// The node that wrote it.
    pub fn node_id(&self) -> NodeId {
        self.origin.node_id
    }

    fn chain_id(&self) -> ChainId {
        (self.origin.run_id, self.origin.shard)
    }
}

/// A finding that concerns a segment as a member of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFinding {
    /// In which segment it shows.
    pub segment_id: SegmentId,
    /// What it is.
    pub finding: Finding,
}

/// Many segments, to be looked at together.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    members: BTreeMap<SegmentId, Member>,
}

type ChainId = (RunId, u32);

impl Chains {
    /// Adds a segment. Of two files of one segment, such as a damaged one and its repaired copy, the better counts.
    pub fn add(&mut self, member: Member) {
        let rank = |member: &Member| (member.clean, member.state != State::Open);
        let id = member.segment_id();
        if self
            .members
            .get(&id)
            .is_none_or(|known| rank(known) < rank(&member))
        {
            self.members.insert(id, member);
        }
    }

    /// Adds a segment that was checked again, in place of what was known of it.
    pub fn replace(&mut self, member: Member) {
        self.members.insert(member.segment_id(), member);
    }

    /// How many segments there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The nodes that wrote them.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.members.values().map(Member::node_id).collect()
    }

    /// Segments that signed tombstones name and that are gone.
    pub fn deleted(&self) -> BTreeSet<SegmentId> {
        let named = self.members.values().flat_map(|member| &member.deleted);
        let gone = named
            .map(|entry| entry.segment_id)
            .filter(|id| !self.members.contains_key(id));
        gone.collect()
    }

    /// What their nodes say was erased, for [`Report::settle`](super::Report::settle).
    pub fn erasures(&self) -> Erasures {
        let mut erasures = Erasures::default();
        for member in self.members.values() {
            erasures.extend(&member.erasures);
        }
        erasures
    }

    /// Checks all chains. `complete`: the given segments claim to be all there are, so that a missing beginning is missed;
    /// `elsewhere`: whether a segment that was not given is known to exist.
    pub fn check(&self, complete: bool, elsewhere: &dyn Fn(SegmentId) -> bool) -> Vec<ChainFinding> {
        let mut check = Check {
            members: &self.members,
            complete,
            elsewhere,
            deleted: HashSet::new(),
            deleted_seqs: HashMap::new(),
            found: Vec::new(),
        };
        check.note_deletions();
        let mut chains: BTreeMap<ChainId, Vec<&Member>> = BTreeMap::new();
        for member in self.members.values() {
            chains.entry(member.chain_id()).or_default().push(member);
        }
        for chain in chains.values_mut() {
            // An unused segment was prepared for its place and not taken: it stands behind whatever took the place.
            chain.sort_by_key(|member| (member.origin.chain_seq, member.unused, member.segment_id()));
            chain.dedup_by(|later, first| later.unused && later.origin.chain_seq == first.origin.chain_seq);
            check.nodes(chain);
            check.chain(chain);
            check.own_streams(chain);
        }
        check.heads();
        check.relocated();
        check.found
    }
}

struct Check<'a> {
    members: &'a BTreeMap<SegmentId, Member>,
    complete: bool,
    elsewhere: &'a dyn Fn(SegmentId) -> bool,
    /// Segments that tombstones name, each with the node that signed it.
    deleted: HashSet<(NodeId, SegmentId)>,
    deleted_seqs: HashMap<(NodeId, ChainId), HashSet<u64>>,
    found: Vec<ChainFinding>,
}

impl<'a> Check<'a> {
    fn find(&mut self, member: &Member, what: What) {
        let segment_id = member.segment_id();
        let finding = Finding::new(0, 0, what);
        let found = ChainFinding { segment_id, finding };
        if !self.found.contains(&found) {
            self.found.push(found);
        }
    }

    fn note_deletions(&mut self) {
        for member in self.members.values() {
            let node = member.origin.node_id;
            for entry in &member.deleted {
                self.deleted.insert((node, entry.segment_id));
                let chain = (node, (entry.run_id, entry.shard));
                self.deleted_seqs
                    .entry(chain)
                    .or_default()
                    .insert(entry.chain_seq);
            }
        }
    }

    /// A run is one life of one node. A segment signed with another key in the middle of a chain was put there.
    fn nodes(&mut self, chain: &[&'a Member]) {
        let Some(expected) = chain.first().map(|first| first.origin.node_id) else {
            return;
        };
        for member in chain.iter().filter(|member| member.origin.node_id != expected) {
            self.find(member, What::NodeDiffers { expected });
        }
    }

    /// Links of one chain, in order.
    fn chain(&mut self, chain: &[&'a Member]) {
        let mut before: Option<&Member> = None;
        for &member in chain {
            let seq = member.origin.chain_seq;
            match before {
                Some(before) if before.origin.chain_seq == seq => {
                    let other = before.segment_id();
                    self.find(member, What::SamePlace { other });
                }
                Some(before) if before.origin.chain_seq.checked_add(1) == Some(seq) => {
                    self.link(before, member)
                }
                Some(before) => self.jump(member, before.origin.chain_seq + 1),
                None if seq > 0 => self.beginning(member),
                None if !member.prev.is_zero() => {
                    let (expected, found) = (SegmentId::ZERO, member.prev);
                    self.find(member, What::PrevDiffers { expected, found });
                }
                None => {}
            }
            before = Some(member);
        }
    }

    fn link(&mut self, before: &Member, member: &Member) {
        if member.prev != before.segment_id() {
            let (expected, found) = (before.segment_id(), member.prev);
            self.find(member, What::PrevDiffers { expected, found });
        }
        if let Some(root) = member.prev_root {
            self.compare_root(before, root, member.segment_id());
        }
    }

    /// `target` was closed with `root` once, as `stated_by` says under a signature.
    fn compare_root(&mut self, target: &Member, root: Hash, stated_by: SegmentId) {
        if target.root == Some(root) {
            return;
        }
        let repaired = target.state == State::Recovered && target.signed;
        self.find(
            target,
            match repaired {
                true => What::RepairedSince { stated_by },
                false => What::RootSince { stated_by },
            },
        );
    }

    /// Segments between two that are here.
    fn jump(&mut self, member: &Member, first: u64) {
        let end = member.origin.chain_seq;
        let none = HashSet::new();
        let chain = (member.origin.node_id, (member.origin.run_id, member.origin.shard));
        let seqs = self.deleted_seqs.get(&chain).unwrap_or(&none);
        let deleted = seqs.iter().filter(|seq| (first..end).contains(seq)).count() as u64;
        let missing = end - first - deleted;
        // Found soon: each step passes a deleted one.
        let first_missing = (first..end).find(|seq| !seqs.contains(seq));
        if deleted > 0 {
            self.find(
                member,
                What::SegmentsDeleted {
                    first,
                    count: deleted,
                },
            );
        }
        let Some(first) = first_missing else { return };
        if (self.elsewhere)(member.prev) {
            return;
        }
        let last = Some(member.prev).filter(|_| !seqs_contains(self, chain, end - 1));
        let count = missing;
        self.find(member, What::SegmentsMissing { first, count, last });
    }

    /// What stands before the first segment of a chain that is here. Only its direct predecessor must be accounted for: the
    /// tombstones of older ones went with the segments that held them.
    fn beginning(&mut self, member: &Member) {
        let first = member.origin.chain_seq - 1;
        let (last, count) = (member.prev, 1);
        if self.deleted.contains(&(member.origin.node_id, last)) {
            self.find(member, What::SegmentsDeleted { first, count });
        } else if (self.elsewhere)(last) || !self.complete {
            self.find(member, What::SegmentsNotGiven { last });
        } else {
            let last = Some(last);
            self.find(member, What::SegmentsMissing { first, count, last });
        }
    }

    /// The chain ends that runs found when they began.
    fn heads(&mut self) {
        for member in self.members.values() {
            for head in &member.heads {
                let segment_id = head.segment_id;
                if let Some(target) = self.members.get(&segment_id) {
                    self.compare_head(target, head, member.segment_id());
                } else if self.complete
                    && !self.deleted.contains(&(member.origin.node_id, segment_id))
                    && !(self.elsewhere)(segment_id)
                {
                    self.find(member, What::HeadMissing { segment_id });
                }
            }
        }
    }

    fn compare_head(&mut self, target: &Member, head: &ChainHead, stated_by: SegmentId) {
        if head.flags & HEAD_FOOTER != 0 {
            return self.compare_root(target, head.root, stated_by);
        }
        // Without a footer then, the head is a checkpoint that the segment must still hold, or have gone beyond.
        let held = match target.last_checkpoint {
            Some((count, root)) => count > head.leaf_count || (count == head.leaf_count && root == head.root),
            None => head.leaf_count == 0,
        };
        if !held {
            self.find(target, What::RootSince { stated_by });
        }
    }

    /// A stream whose chunks were relocated must be whole over its segment of origin and all copies.
    fn relocated(&mut self) {
        type Span<'a> = (u64, u64, &'a Member);
        let mut streams: BTreeMap<(SegmentId, StreamId), Vec<Span<'a>>> = BTreeMap::new();
        for member in self.members.values() {
            for (origin, stream, first, end) in &member.spans {
                streams
                    .entry((*origin, *stream))
                    .or_default()
                    .push((*first, *end, member));
            }
        }
        for ((origin, stream), mut spans) in streams {
            let known = self.members.contains_key(&origin) && spans.len() > 1;
            if !known || spans.iter().any(|(_, _, member)| member.has_holes) {
                continue;
            }
            spans.sort_by_key(|(first, end, _)| (*first, *end));
            let mut due = 0;
            for (first, end, member) in spans {
                if first > due {
                    let count = first - due;
                    let finding = Finding::new(0, 0, What::ChunksMissing { first: due, count });
                    let (segment_id, finding) = (member.segment_id(), finding.of_stream(stream));
                    self.found.push(ChainFinding { segment_id, finding });
                }
                due = due.max(end);
            }
        }
    }

    /// chunks_so_far runs through all segments of a chain.
    fn own_streams(&mut self, chain: &[&'a Member]) {
        let mut due: HashMap<(&str, u16, u32), u64> = HashMap::new();
        let mut before: Option<&Member> = None;
        for &member in chain {
            let jumped = before
                .is_none_or(|before| before.origin.chain_seq.checked_add(1) != Some(member.origin.chain_seq));
            let mut streams: Vec<_> = member
                .own_streams
                .iter()
                .filter(|own| own.so_far.is_some() && !own.granted && !member.compacted)
                .collect();
            streams.sort_by_key(|own| own.so_far);
            for own in streams {
                let (first, end) = own.so_far.expect("filtered");
                let key = (own.camera_id.as_str(), own.media_index, own.ssrc);
                // Unknown where it stood: it began here, or in a segment that is not here.
                let known = due.get(&key).copied();
                let expected = known.unwrap_or(if jumped && member.origin.chain_seq > 0 {
                    first
                } else {
                    0
                });
                // A stream that ends and comes back begins at 0 again.
                let restarted = first == 0;
                if first > expected && !(jumped && before.is_some()) {
                    let holes = member.has_holes || before.is_some_and(|before| before.has_holes);
                    let what = match holes {
                        true => What::ChunksLost {
                            first: expected,
                            count: first - expected,
                        },
                        false => What::ChunksSoFar {
                            expected,
                            found: first,
                        },
                    };
                    let finding = Finding::new(own.first_offset, 0, what).of_stream(own.stream_id);
                    self.found.push(ChainFinding {
                        segment_id: member.segment_id(),
                        finding,
                    });
                }
                due.insert(key, if restarted { end } else { end.max(expected) });
            }
            before = Some(member);
        }
    }
}

fn seqs_contains(check: &Check<'_>, chain: (NodeId, ChainId), seq: u64) -> bool {
    check
        .deleted_seqs
        .get(&chain)
        .is_some_and(|seqs| seqs.contains(&seq))
}

impl ChainFinding {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        self.finding.severity()
    }
}
