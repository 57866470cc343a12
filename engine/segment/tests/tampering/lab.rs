//! The segment that is tampered with, its neighbours, and what a check says of them.
//!
//! The chain: 0 is whole; the disk failed 1, and recovery closed it; 2 is the victim, which holds the chunks that were copied out of 1;
//! 3 names the root of 2. So the victim has every type of block that this version writes.

use std::collections::BTreeSet;
use std::fmt::Display;

use harborseal_segment::SegmentId;
use harborseal_segment::block::{BlockType, Header, parse_block};
use harborseal_segment::body::{DeletedSegment, DeletionReason, OriginBody};
use harborseal_segment::identity::Identity;
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::State;
use harborseal_segment::scan::ReadError;
use harborseal_segment::verify::{Chains, Member, OwnStream, Severity, What, verify};
use harborseal_segment::writer::{FinishParams, SegmentWriter};

use crate::common::*;

/// The victim's place in the chain.
pub const VICTIM: u8 = 2;

/// A block of the victim.
#[derive(Clone, Copy)]
pub struct Part {
    pub at: usize,
    pub len: usize,
    pub header: Header,
}

impl Part {
    pub fn range(&self) -> std::ops::Range<usize> {
        self.at..self.at + self.len
    }

    pub fn is(&self, kind: BlockType) -> bool {
        self.header.block_type == kind
    }
}

pub struct Lab {
    pub file: Vec<u8>,
    /// All blocks of the victim, SEGMENT twice.
    pub parts: Vec<Part>,
    /// The segments before it and the one after it.
    pub before: [Vec<u8>; 2],
    pub after: Vec<u8>,
    neighbours: Vec<Member>,
}

impl Lab {
    pub fn new() -> Lab {
        let mut first = Recording::begin(0);
        chunks(&mut first, &[0, 1, 2]);
        let mut failed = Recording::begin(1);
        failed.so_far = first.so_far;
        chunks(&mut failed, &[0, 1, 2, 0]);
        let first = first.finish(None);

        let mut victim = Recording::begin(VICTIM);
        let moved = relocate(&failed, &mut victim);
        victim.so_far = failed.so_far;
        chunks(&mut victim, &[0, 1, 2, 0, 1, 2]);
        victim.sync();
        victim.checkpoint(None, &[]);
        victim.chunk(1, &vec![vec![0x55; 1000]; 12]);
        victim.chunk(0, &vec![vec![0x56; 1000]; 12]);
        victim.tombstone(&[deleted(200)]);
        victim.sync();
        chunks(&mut victim, &[2, 0]);
        victim.checkpoint(None, &[]);
        chunks(&mut victim, &[0, 1, 2]);
        assert!(
            moved > 4,
            "chunks of the failed segment with their KEY and STREAM blocks"
        );

        let mut after = Recording::begin(VICTIM + 1);
        after.so_far = victim.so_far;
        let (file, finished) = victim.finish(None);
        chunks(&mut after, &[0, 1, 2]);
        after.checkpoint(Some(finished.root), &[]);
        let after = after.finish(Some(finished.root)).0;
        let failed = refinished(&failed.bytes);
        let mut lab = Lab {
            parts: parts_of(&file),
            neighbours: Vec::new(),
            before: [first.0, failed],
            file,
            after,
        };
        let neighbours = lab.before.iter().chain([&lab.after]);
        lab.neighbours = neighbours.map(|file| member(file)).collect();
        lab
    }

    pub fn of(&self, kind: BlockType) -> impl Iterator<Item = Part> + '_ {
        self.parts.iter().copied().filter(move |part| part.is(kind))
    }

    /// The one fault in place of a block. If that was the index of chunks, no chunk is to blame for it.
    pub fn damage(&self, part: &Part, what: What) -> Expected {
        Expected::Damage(vec![(part.at as u64, self.extent(part), what)])
    }

    /// Bytes that hold no block any more once this one is none: those that an ORIGIN vouches for go with it.
    fn extent(&self, part: &Part) -> u64 {
        let own =
            |other: &&Part| other.at > part.at && other.header.segment_id == self.parts[0].header.segment_id;
        let next = self.parts.iter().find(own).filter(|_| part.is(BlockType::Origin));
        next.map_or(part.len, |next| next.at - part.at) as u64
    }

    /// The first and the last block of each type.
    pub fn of_each_kind(&self) -> Vec<Part> {
        let alone =
            |part: &&Part, others: &[Part]| others.iter().all(|other| !other.is(part.header.block_type));
        let parts = self.parts.iter().enumerate();
        let parts =
            parts.filter(|(n, part)| alone(part, &self.parts[..*n]) || alone(part, &self.parts[n + 1..]));
        parts.map(|(_, part)| *part).collect()
    }

    /// The victim with one byte changed.
    pub fn flipped(&self, byte: usize, bits: u8) -> Vec<u8> {
        let mut file = self.file.clone();
        file[byte] ^= bits;
        file
    }

    /// Checks a file in the victim's place, without a key.
    pub fn look(&self, file: &[u8]) -> Seen {
        Seen::of(verify(&file, None, |_| ()), |member| {
            let mut chains = Chains::default();
            self.neighbours.iter().for_each(|other| chains.add(other.clone()));
            chains.add(member);
            chains
        })
    }

    /// The same, without a segment after it.
    pub fn look_at_the_end(&self, file: &[u8]) -> Seen {
        Seen::of(verify(&file, None, |_| ()), |member| {
            let mut chains = Chains::default();
            let before = self.neighbours.iter().take(2);
            before.for_each(|other| chains.add(other.clone()));
            chains.add(member);
            chains
        })
    }

    /// CHECKPOINTs and FOOTER behind `at`: what the root of each says of a change there.
    pub fn roots_after(&self, at: usize) -> Vec<Found> {
        let states_a_root = |part: &&Part| part.is(BlockType::Checkpoint) || part.is(BlockType::Footer);
        let behind = self
            .parts
            .iter()
            .filter(|part| part.at > at)
            .filter(states_a_root);
        let root = |part: &Part| {
            (
                part.at as u64,
                4096,
                What::Root {
                    by: part.header.block_type,
                },
            )
        };
        behind.map(root).collect()
    }
}

/// Offset, length, and what was found.
pub type Found = (u64, u64, What);

/// What a check says.
#[derive(Clone, Debug)]
pub enum Seen {
    /// It is not read at all: the word for why, and where.
    Refused(&'static str, u64),
    Judged {
        state: State,
        damage: Vec<Found>,
        notes: Vec<Found>,
        /// What shows between it and its neighbours.
        between: Vec<(SegmentId, What)>,
    },
}

impl Seen {
    /// A closed segment in which this was found.
    pub fn sealed(damage: Vec<Found>) -> Seen {
        Seen::Judged {
            state: State::Sealed,
            damage,
            notes: Vec::new(),
            between: Vec::new(),
        }
    }

    /// Nothing was looked for but what segments say of each other.
    pub fn between(between: Vec<(SegmentId, What)>) -> Seen {
        Seen::Judged {
            state: State::Sealed,
            damage: Vec::new(),
            notes: Vec::new(),
            between,
        }
    }

    fn of(
        looked: Result<harborseal_segment::verify::Report, ReadError>,
        chains: impl FnOnce(Member) -> Chains,
    ) -> Seen {
        let report = match looked {
            Ok(report) => report,
            Err(ReadError::Unsupported { offset, .. }) => return Seen::Refused("unsupported", offset),
            Err(ReadError::NeverBegun) => return Seen::Refused("never_begun", 0),
            Err(ReadError::HeadLost { .. }) => return Seen::Refused("head_lost", 0),
            Err(error) => panic!("{error}"),
        };
        let (damage, notes) = report
            .findings
            .iter()
            .partition::<Vec<_>, _>(|found| found.severity() > Severity::Note);
        let plain =
            |found: &harborseal_segment::verify::Finding| (found.offset, found.len, found.what.clone());
        let between = chains(report.member).check(true, &|_| false);
        let between = between
            .into_iter()
            .filter(|found| found.severity() > Severity::Note);
        Seen::Judged {
            state: report.state,
            damage: damage.into_iter().map(plain).collect(),
            notes: notes.into_iter().map(plain).collect(),
            between: between
                .map(|found| (found.segment_id, found.finding.what))
                .collect(),
        }
    }
}

/// What must be found.
pub enum Expected {
    /// The segment is closed, this damage is in it and no other, and its neighbours have nothing to say.
    Damage(Vec<Found>),
    /// The same, and it may be more: places and kinds of what must be among it.
    Among(Vec<(u64, &'static str)>),
    /// It is not closed (by itself that is what a crash leaves, and `harborseal verify` says `unclosed`), and the next segment
    /// names a root that it had once.
    Unclosed,
    /// This damage, and this is what its neighbours say beside it.
    Both(Vec<Found>, Vec<(SegmentId, What)>),
    /// By itself nothing but notes; this is what its neighbours say.
    Betrayed(Vec<(SegmentId, What)>),
    /// It is not read at all.
    Refused(&'static str, u64),
}

/// The next segment states another root of the victim.
pub fn root_since() -> (SegmentId, What) {
    let stated_by = segment_id(VICTIM + 1);
    (segment_id(VICTIM), What::RootSince { stated_by })
}

impl Expected {
    /// The words of what was seen, if it is what was expected.
    fn judge(&self, seen: &Seen) -> Option<Vec<&'static str>> {
        let judged = match seen {
            Seen::Refused(word, offset) => {
                let same = matches!(self, Expected::Refused(w, o) if w == word && o == offset);
                return same.then(|| vec![*word]);
            }
            Seen::Judged {
                state,
                damage,
                between,
                ..
            } => (*state, damage, between),
        };
        let (state, damage, between) = judged;
        let words = |found: &[Found]| found.iter().map(|(_, _, what)| what.name()).collect::<Vec<_>>();
        match self {
            Expected::Refused(..) => None,
            Expected::Damage(expected) => {
                let same = state != State::Open && damage == expected && between.is_empty();
                (same && !expected.is_empty()).then(|| words(damage))
            }
            Expected::Among(expected) => {
                let has = |(at, word): &(u64, &str)| {
                    damage
                        .iter()
                        .any(|(offset, _, what)| offset == at && what.name() == *word)
                };
                let all = !expected.is_empty() && expected.iter().all(has);
                all.then(|| expected.iter().map(|(_, word)| *word).collect())
            }
            Expected::Unclosed => {
                let same = state == State::Open && damage.is_empty() && between == &[root_since()];
                same.then(|| vec!["unclosed", "root_since"])
            }
            Expected::Both(expected, theirs) => {
                let same = damage == expected && between == theirs;
                same.then(|| words(damage))
            }
            Expected::Betrayed(expected) => {
                let same = damage.is_empty() && between == expected;
                same.then(|| between.iter().map(|(_, what)| what.name()).collect())
            }
        }
    }
}

/// One manipulation, at many places: a line of the table.
pub struct Row {
    manipulation: &'static str,
    tried: usize,
    words: BTreeSet<&'static str>,
    missed: Vec<String>,
}

impl Row {
    pub fn new(manipulation: &'static str) -> Row {
        Row {
            manipulation,
            tried: 0,
            words: BTreeSet::new(),
            missed: Vec::new(),
        }
    }

    pub fn expect(&mut self, place: impl Display, seen: Seen, expected: Expected) {
        self.tried += 1;
        match expected.judge(&seen) {
            Some(words) => self.words.extend(words),
            None => self.missed.push(format!("{place}: {seen:?}")),
        }
    }

    /// Prints the line. Panics if one was not found, or not as what it is.
    pub fn end(self) {
        let Row {
            manipulation,
            tried,
            words,
            missed,
        } = self;
        let named: Vec<_> = words.into_iter().collect();
        let found = tried - missed.len();
        println!("| {manipulation} | {tried} | {found} | {} |", named.join(", "));
        assert!(
            tried > 0 && missed.is_empty(),
            "{manipulation}: {found} of {tried}; first: {}",
            missed[0]
        );
    }
}

fn member(file: &[u8]) -> Member {
    let report = verify(&file, None, |_| ()).expect("readable");
    assert!(report.is_clean(), "the neighbours are whole");
    report.member
}

/// What is opened of a file for `identity`, and the damage that it sees.
pub fn look_as(identity: Identity, file: &[u8]) -> (Vec<OwnStream>, Vec<Found>) {
    let mut keyring = Keyring::new(identity);
    let report = verify(&file, Some(&mut keyring), |_| ()).expect("readable");
    let damage = report
        .findings
        .iter()
        .filter(|found| found.severity() > Severity::Note);
    let damage = damage
        .map(|found| (found.offset, found.len, found.what.clone()))
        .collect();
    (report.own_streams, damage)
}

/// One chunk of each of `cameras`, in turn.
pub fn chunks(recording: &mut Recording, cameras: &[usize]) {
    for camera in cameras {
        recording.small_chunk(*camera);
    }
}

pub fn parts_of(file: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let header = parse_block(&file[at..]).expect("a whole block");
        let len = header.total_len as usize;
        parts.push(Part { at, len, header });
        at += len;
    }
    parts
}

pub fn deleted(n: u8) -> DeletedSegment {
    DeletedSegment {
        segment_id: SegmentId([n; 16]),
        run_id: run(),
        shard: 0,
        reason: DeletionReason::MaxAge,
        chain_seq: u64::from(n),
        root: [0; 32],
    }
}

/// Copies KEY and STREAM blocks and all chunks of `old` behind an ORIGIN; returns how many blocks.
fn relocate(old: &Recording, new: &mut Recording) -> usize {
    let blocks: Vec<Part> = parts_of(&old.bytes).split_off(2);
    let origin = OriginBody {
        segment_id: old.writer.segment_id(),
        node_id: node().public().id(),
        run_id: run(),
        shard: 0,
        chain_seq: 1,
        first_block_no: 1,
        last_block_no: blocks.last().expect("blocks").header.block_no,
    };
    let written = new.writer.origin(&origin);
    new.put(written);
    for part in &blocks {
        let block = old.bytes[part.range()].to_vec();
        let placed = new.writer.place_copy(&part.header, &block);
        new.put((placed, block));
    }
    blocks.len()
}

/// A file without its end, closed by somebody who has not the node's key, and who says what can be said without it.
pub fn refinished(file: &[u8]) -> Vec<u8> {
    let mut writer = SegmentWriter::adopting(parse_block(file).expect("SEGMENT").segment_id);
    let (mut end, mut signed) = (0, 0);
    for (n, part) in parts_of(file).into_iter().enumerate() {
        if n == 1 || part.is(BlockType::Index) || part.is(BlockType::Footer) {
            continue;
        }
        if part.is(BlockType::Checkpoint) {
            signed = writer.leaf_count();
        }
        writer.adopt(part.at as u64, &part.header, &file[part.range()]);
        end = part.range().end.max(8192);
    }
    let finished = writer.finish(None, FinishParams::recovered(None, 0, BEGAN_S, signed));
    [&file[..end], &finished.bytes].concat()
}
