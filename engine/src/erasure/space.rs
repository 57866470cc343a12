//! Giving disk space back: which bytes of which files belong to erased slots, and what becomes of them. Looks only; [`super::giveback`]
//! carries it out.
//!
//! A chunk may stand in the segment it was first written to, in a later one of its chain (relocated after a disk's fault), or in a
//! repaired copy. The index is followed and not believed: a block is touched only if its own header names an erased slot.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use harborseal_segment::block::{BLOCK_ALIGN, BlockType, Header, MAX_BLOCK_LEN, SEGMENT_PREFIX_LEN};
use harborseal_segment::body::{CheckpointBody, DeletedSegment, DeletionReason};
use harborseal_segment::head::Head;
use harborseal_segment::ids::{RunId, SegmentId, StreamId};
use harborseal_segment::reader::Segment;
use harborseal_segment::scan::ReadError;
use harborseal_segment::source::Source;

use crate::archive::FileSource;
use crate::keystore::Place;

const ALIGN: u64 = BLOCK_ALIGN as u64;
/// A chunk that a failing disk sent on stands in the next segment, or after more failures in one of the next few.
const RELOCATED_WITHIN: u64 = 16;

/// Erased slots, by the segment their chunks were first written to.
#[derive(Debug, Default)]
pub struct Slots {
    by_segment: HashMap<SegmentId, HashSet<u32>>,
    by_chain: HashMap<(RunId, u32), Vec<(u64, u32)>>,
}

impl Slots {
    /// The slots at these places.
    pub fn new(places: &[Place]) -> Slots {
        let mut slots = Slots::default();
        for Place { segment, slot, .. } in places {
            slots
                .by_segment
                .entry(segment.segment_id)
                .or_default()
                .insert(*slot);
            let chain = slots.by_chain.entry((segment.run_id, segment.shard)).or_default();
            chain.push((segment.chain_seq, *slot));
        }
        slots
    }

    fn contains(&self, segment_id: &SegmentId, slot: u32) -> bool {
        let slots = self.by_segment.get(segment_id);
        slots.is_some_and(|slots| slots.contains(&slot))
    }

    /// The slot numbers that chunks of erased slots may have in this file; empty if it cannot hold any.
    fn numbers_in(&self, head: &Head) -> HashSet<u32> {
        let mut numbers = self.by_segment.get(&head.id).cloned().unwrap_or_default();
        let chain = self.by_chain.get(&(head.body.run_id, head.body.shard));
        let before = chain.into_iter().flatten().filter(|(chain_seq, _)| {
            let after = head.body.chain_seq.checked_sub(*chain_seq);
            after.is_some_and(|after| (1..=RELOCATED_WITHIN).contains(&after))
        });
        numbers.extend(before.map(|(_, slot)| *slot));
        numbers
    }
}

/// What one file has to give.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: it holds no chunk of an erased slot whose body is still there.
    Nothing,
    /// The whole file: nothing else is kept in it.
    Delete(DeletedSegment, u64),
    /// The bodies of these chunks, by offset and length.
    Punch(Vec<(u64, u32)>),
    /// Something, and not now.
    Later(&'static str),
}

/// Looks into one file.
pub fn plan(path: &Path, slots: &Slots) -> Result<Plan, ReadError> {
    let source = FileSource::open(path).map_err(|why| ReadError::Io { offset: 0, why })?;
    let head = match Head::read(&source) {
        Err(ReadError::NeverBegun) => return Ok(Plan::Nothing),
        head => head?,
    };
    let numbers = slots.numbers_in(&head);
    if numbers.is_empty() {
        return Ok(Plan::Nothing);
    }
    let being_written = source.is_being_written();
    let being_written = being_written.map_err(|why| ReadError::Io { offset: 0, why })?;
    let mut segment = Segment::open_with(source, head)?;
    let mut found = chunks(&segment, slots, &numbers)?;
    if found.misled {
        segment.scan()?;
        found = chunks(&segment, slots, &numbers)?;
    }
    if found.erased.is_empty() {
        return Ok(Plan::Nothing);
    }
    let Some(footer) = segment.footer() else {
        return Ok(Plan::Later(match being_written {
            true => "it is still being written",
            false => "it has no end: start the engine, or `harborseal recover` it",
        }));
    };
    if !found.others && !is_repaired_copy(path) && states_nothing(segment.source(), &found.erased) {
        let Head { id, body, .. } = segment.head();
        let deleted = DeletedSegment {
            segment_id: *id,
            run_id: body.run_id,
            shard: body.shard,
            reason: DeletionReason::Erased,
            chain_seq: body.chain_seq,
            root: footer.root,
        };
        return Ok(Plan::Delete(deleted, segment.source().len()));
    }
    let source = segment.source();
    let mut left = Vec::new();
    for chunk in found.erased {
        if !is_erased(source, chunk)? {
            left.push(chunk);
        }
    }
    Ok(match left.is_empty() {
        true => Plan::Nothing,
        false => Plan::Punch(left),
    })
}

/// Chunks of one file.
#[derive(Default)]
struct Chunks {
    /// Of erased slots.
    erased: Vec<(u64, u32)>,
    /// There are others.
    others: bool,
    /// The index led to something else than it says.
    misled: bool,
}

fn chunks(segment: &Segment<FileSource>, slots: &Slots, numbers: &HashSet<u32>) -> Result<Chunks, ReadError> {
    let source = segment.source();
    let mut found = Chunks::default();
    let mut erased_streams: HashSet<StreamId> = HashSet::new();
    for row in segment.streams().iter().filter(|row| row.chunks > 0) {
        // A chunk whose STREAM block is lost still names its slot; it counts as somebody else's, and stays.
        let header = header_at(source, row.offset)?;
        let header = header
            .filter(|header| header.block_type == BlockType::Stream && header.stream_id == row.stream_id);
        match header {
            Some(header)
                if numbers.contains(&row.slot) && slots.contains(&header.segment_id, header.key_slot) =>
            {
                erased_streams.insert(row.stream_id);
            }
            Some(_) => found.others = true,
            None => (found.others, found.misled) = (true, !segment.is_scanned()),
        }
    }
    segment.each_chunk(|stream, row| {
        if erased_streams.contains(&stream.stream_id) {
            found.erased.push((row.offset, row.total_len));
        }
    })?;
    let mut kept = Vec::with_capacity(found.erased.len());
    for (offset, total_len) in found.erased.drain(..) {
        let header = header_at(source, offset)?;
        let is_it = |header: &Header| {
            header.block_type == BlockType::Chunk
                && header.total_len == total_len
                && slots.contains(&header.segment_id, header.key_slot)
        };
        match header.filter(is_it) {
            Some(_) => kept.push((offset, total_len)),
            None => found.misled = !segment.is_scanned(),
        }
    }
    kept.sort_unstable();
    kept.dedup();
    found.erased = kept;
    Ok(found)
}

fn header_at(source: &FileSource, offset: u64) -> Result<Option<Header>, ReadError> {
    let mut page = vec![0; BLOCK_ALIGN];
    match source.read_at(offset, &mut page) {
        Ok(()) => Ok(Header::parse(&page).ok()),
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(why) => Err(ReadError::Io { offset, why }),
    }
}

/// Whether nothing of a chunk's body is left on the disk.
fn is_erased(source: &FileSource, (offset, total_len): (u64, u32)) -> Result<bool, ReadError> {
    let mut page = vec![0; BLOCK_ALIGN];
    source
        .read_at(offset, &mut page)
        .map_err(|why| ReadError::Io { offset, why })?;
    let Ok(header) = Header::parse(&page) else {
        return Ok(false);
    };
    let body = usize::from(header.header_len).min(BLOCK_ALIGN);
    let behind = offset + ALIGN >= offset + u64::from(total_len)
        || source.next_data(offset + ALIGN) >= offset + u64::from(total_len);
    Ok(behind && page[body..].iter().all(|byte| *byte == 0))
}

/// Whether the file says nothing about other segments: who deletes it deletes its statements too, and what they account for would be
/// missed. Reads what lies between the erased chunks.
fn states_nothing(source: &FileSource, erased: &[(u64, u32)]) -> bool {
    let skip: HashMap<u64, u32> = erased.iter().copied().collect();
    let mut at = SEGMENT_PREFIX_LEN as u64;
    while at < source.len() {
        if let Some(total_len) = skip.get(&at) {
            at += u64::from(*total_len);
            continue;
        }
        let Ok(Some(header)) = header_at(source, at) else {
            return false;
        };
        let total_len = header.total_len as usize;
        let plain = match header.block_type {
            BlockType::Key | BlockType::Stream | BlockType::Index | BlockType::Footer => true,
            BlockType::Checkpoint => names_no_heads(source, at, &header),
            _ => false,
        };
        if !plain || total_len < BLOCK_ALIGN {
            return false;
        }
        at += total_len as u64;
    }
    true
}

fn names_no_heads(source: &FileSource, at: u64, header: &Header) -> bool {
    let mut block = vec![0; (header.total_len as usize).min(MAX_BLOCK_LEN)];
    source.read_at(at, &mut block).is_ok()
        && CheckpointBody::parse(header.body(&block)).is_ok_and(|checkpoint| checkpoint.heads.is_empty())
}

/// A copy that recovery made stands beside its original under another name, and is punched like it.
fn is_repaired_copy(path: &Path) -> bool {
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    name.to_string_lossy().contains(".recovered.")
}
