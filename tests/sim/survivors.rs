//! What outlived the crashes, block by block, as the simulated disk knows it and no code of the engine's: recovery must keep all of it, and
//! must tell when something is missing that was called durable.

use std::collections::{HashMap, HashSet};

use harborseal_segment::block::{BlockType, SEGMENT_PREFIX_LEN, parse_block};
use harborseal_segment::head::Head;
use harborseal_segment::ids::{SegmentId, StreamId};
use harborseal_segment::recover::{Piece, Plan, plan};
use harborseal_segment::scan::{Item, Scanner};
use harborseal_segment::verify::{Report, Severity, verify};

use super::machine::Machine;
use super::platter::{FileId, Platter, SimFile, SyncKind};
use super::tally::{Fired, Tally};

/// Chunks that are whole, with all that it takes to open them.
pub struct Survivors {
    chunks: Vec<((SegmentId, u64), FileId)>,
    /// Files that miss something which a whole block of theirs calls durable.
    damaged: HashSet<FileId>,
}

/// Whether a block that was written is there as it was.
fn is_whole(file: &SimFile, offset: u64) -> bool {
    let written = &file.blocks[&offset].header;
    let end = offset as usize + written.total_len as usize;
    let bytes = file.image.get(offset as usize..end.min(file.image.len()));
    let inside = offset + u64::from(written.total_len) <= file.len;
    inside
        && bytes.is_some_and(|bytes| {
            let mut block = bytes.to_vec();
            block.resize(written.total_len as usize, 0);
            parse_block(&block).is_ok_and(|header| header == *written)
        })
}

impl Survivors {
    /// What there is before anything is recovered.
    pub fn of(platter: &Platter) -> Self {
        let mut survivors = Survivors {
            chunks: Vec::new(),
            damaged: HashSet::new(),
        };
        for (id, file) in platter.files() {
            survivors.look_at(id, file);
        }
        survivors
    }

    fn look_at(&mut self, id: FileId, file: &SimFile) {
        let Ok(head) = Head::read(&file.source()) else {
            return; // without a SEGMENT block nothing of it can be told
        };
        let mut streams: HashSet<StreamId> = HashSet::new();
        let mut keys_are_whole = true;
        let (mut floor, mut first_hole) = (0, None);
        let mut chunks = Vec::new();
        for (offset, block) in file.blocks.range(SEGMENT_PREFIX_LEN as u64..) {
            let header = &block.header;
            if matches!(header.block_type, BlockType::Index | BlockType::Footer) {
                continue; // made again at each attempt to close it
            }
            let whole = is_whole(file, *offset);
            if !whole {
                first_hole = first_hole.or(Some(*offset));
            }
            if header.segment_id != head.id {
                continue; // relocated: its origin's ORIGIN, KEY and STREAM stand before it
            }
            match header.block_type {
                BlockType::Key => keys_are_whole &= whole,
                BlockType::Stream if whole => drop(streams.insert(header.stream_id)),
                BlockType::Chunk if whole && streams.contains(&header.stream_id) => {
                    chunks.push(((head.id, header.block_no), id));
                }
                _ => {}
            }
            if whole {
                floor = floor.max(u64::from(header.durable_4k) * 4096);
            }
        }
        if first_hole.is_some_and(|hole| hole < floor) {
            self.damaged.insert(id);
        }
        if keys_are_whole {
            self.chunks.extend(chunks);
        }
    }

    /// All of them were found; and what damage there was has left a repaired copy behind.
    pub fn check(&self, found: &HashMap<(SegmentId, u64), HashSet<FileId>>, platter: &Platter) {
        for ((segment, block_no), id) in &self.chunks {
            assert!(
                found.contains_key(&(*segment, *block_no)),
                "{}: chunk {block_no} outlived the crash and is lost",
                platter.file(*id).path.display()
            );
        }
        for id in &self.damaged {
            let file = platter.file(*id);
            let path = file.path.display();
            let copy = platter.find(&file.path.with_extension("recovered.hseal"));
            assert!(
                file.lied,
                "{path}: what was called durable is damaged, and no disk lied"
            );
            assert!(
                copy.is_some(),
                "{path}: what was called durable is damaged, and nobody says so"
            );
        }
    }
}

/// Makes the repaired copy of a file that a lying disk damaged, as `harborseal recover` does.
pub fn repaired(machine: &Machine, id: FileId) -> (FileId, Report) {
    let mut platter = machine.platter.borrow_mut();
    let file = platter.file(id);
    let path = file.path.with_extension("recovered.hseal");
    let shown = file.path.display().to_string();
    let made = plan(&file.source(), Some(&machine.node), platter.now_s, |_| {});
    let Ok(Plan::Corrupt(repair)) = made else {
        panic!("{shown} is neither closed nor clean nor corrupt")
    };
    let damage = repair.report.findings.count(Severity::Damage);
    assert!(damage > 0, "{shown} is called corrupt, and nothing is damaged");
    let mut bytes = Vec::new();
    for piece in &repair.pieces {
        let (offset, len) = match piece {
            Piece::Write {
                offset,
                bytes: new,
                len,
            } => {
                bytes.resize((*offset).max(bytes.len() as u64) as usize, 0);
                bytes.extend_from_slice(new);
                (*offset, *len)
            }
            Piece::Copy { offset, len } => {
                bytes.resize((*offset).max(bytes.len() as u64) as usize, 0);
                let end = (offset + len) as usize;
                bytes.extend_from_slice(&file.image[*offset as usize..end.min(file.image.len())]);
                (*offset, *len)
            }
        };
        bytes.resize((offset + len) as usize, 0);
    }
    tell_blocks(&machine.tally, file);
    let watermark = file.watermark;
    machine.tally.fire(Fired::Repaired);
    let copy = platter.reserve();
    platter.create(copy, &path);
    let write = platter.begin_write(copy, 0, &bytes.as_slice().into());
    platter.land(write, bytes.len());
    let sync = platter.begin_sync(copy, SyncKind::All);
    platter.end_sync(&sync);
    let file = platter.file_mut(copy);
    (file.lied, file.watermark) = (true, watermark);
    let report = verify(&file.source(), None, |_| {}).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let worst = report.findings.iter().find(|f| f.severity() > Severity::Note);
    if worst.is_some() {
        tell_blocks(&machine.tally, file);
    }
    assert!(
        worst.is_none(),
        "the repaired copy of {shown} is not clean: {}",
        worst.map_or(String::new(), |finding| finding.to_string())
    );
    (copy, report)
}

/// What stands in a file, for the story of a failure.
pub fn tell_blocks(tally: &Tally, file: &SimFile) {
    tally.tell(0, || {
        let (path, len, watermark) = (file.path.display(), file.len, file.watermark);
        format!("{path}, {len} bytes, durable up to {watermark}")
    });
    let Ok(head) = Head::read(&file.source()) else {
        return;
    };
    let mut scanner = Scanner::new(file.source(), head.id);
    while let Ok(Some(item)) = scanner.next_item() {
        tally.tell(0, || match item {
            Item::Gap(gap) => format!("{:>9} +{:<7} {}", gap.offset, gap.len, gap.reason),
            Item::Block(block) => {
                let (kind, no) = (block.header.block_type, block.header.block_no);
                let origin = block.header.segment_id;
                let floor = u64::from(block.header.durable_4k) * 4096;
                let (offset, len) = (block.offset, block.header.total_len);
                format!("{offset:>9} +{len:<7} {kind:?} {no} of {origin}, floor {floor}")
            }
        });
    }
}
