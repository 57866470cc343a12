//! Giving back the space of erased slots: the statement first, then the bytes.
//!
//! ```text
//!   look at all files ─▶ TOMBSTONE(deleted), TOMBSTONE(erased) in a segment of a run of its own, durable ─▶ delete, punch ─▶ sync
//! ```
//!
//! So no crash leaves a body missing of which nobody says why. Done again it finishes what is left, also beside a running engine, which has nothing to do
//! with segments that are closed but to delete them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use harborseal_segment::block::{BLOCK_ALIGN, Header};
use harborseal_segment::body::{DeletedSegment, ErasedSlot};
use harborseal_segment::erase::erase_chunk;
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::os_random;
use harborseal_segment::writer::{Features, FinishParams, SegmentParams, SegmentWriter};
use rand::Rng;

use super::space::{Plan, Slots, plan};
use crate::archive::{FileSource, find};
use crate::keystore::Place;
use crate::log::catalog::segment_path;
use crate::text::Plain;
use crate::uring::sys;

/// Entries in one TOMBSTONE: 80 bytes each, far below the 1 MiB of a block.
const ENTRIES_PER_TOMBSTONE: usize = 10_000;

/// What was given back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Files deleted whole.
    pub deleted: usize,
    /// Files of which chunks were punched out.
    pub punched: usize,
    /// Bytes given back to the disk.
    pub bytes: u64,
    /// What could not be given back, and why. Running the erasure again takes it up.
    pub left: Vec<String>,
}

/// Gives back what the slots at `places` hold in the segments under `folder`.
pub fn give_back(folder: &Path, places: &[Place], node: &NodeKey, now_s: u64) -> io::Result<Freed> {
    let mut freed = Freed::default();
    let slots = Slots::new(places);
    let found = find::segments(&[folder.to_owned()]).map_err(|error| error.why)?;
    for problem in &found.problems {
        freed
            .left
            .push(format!("{}: {}", problem.path.display(), Plain(&problem.why)));
    }
    let mut deletions = Vec::new();
    let mut punches = Vec::new();
    for path in &found.segments {
        match plan(path, &slots) {
            Ok(Plan::Nothing) => {}
            Ok(Plan::Delete(deleted, bytes)) => deletions.push((path, deleted, bytes)),
            Ok(Plan::Punch(chunks)) => punches.push((path, chunks)),
            Ok(Plan::Later(why)) => freed.left.push(format!("{}: {why}", path.display())),
            // Deleted by retention since it was listed.
            Err(_) if !path.exists() => {}
            Err(why) => freed.left.push(format!("{}: {why}", path.display())),
        }
    }
    if deletions.is_empty() && punches.is_empty() {
        return Ok(freed);
    }
    let deleted: Vec<DeletedSegment> = deletions.iter().map(|(_, deleted, _)| *deleted).collect();
    let erased: Vec<ErasedSlot> = match punches.is_empty() {
        true => Vec::new(),
        false => places.iter().map(erased_slot).collect(),
    };
    state(folder, &deleted, &erased, node, now_s)?;
    for (path, _, bytes) in deletions {
        match delete(folder, path) {
            Ok(()) => {
                freed.deleted += 1;
                freed.bytes += bytes;
            }
            Err(why) => freed.left.push(format!("{}: {}", path.display(), Plain(&why))),
        }
    }
    for (path, chunks) in punches {
        match punch(path, &chunks) {
            Ok(bytes) => {
                freed.punched += 1;
                freed.bytes += bytes;
            }
            Err(why) => freed.left.push(format!("{}: {}", path.display(), Plain(&why))),
        }
    }
    Ok(freed)
}

fn erased_slot(place: &Place) -> ErasedSlot {
    let segment = &place.segment;
    ErasedSlot {
        segment_id: segment.segment_id,
        run_id: segment.run_id,
        shard: segment.shard,
        slot: place.slot,
        chain_seq: segment.chain_seq,
        root: [0; 32],
    }
}

/// Says durably what is about to go, in a small closed segment that begins and ends a run of its own: whether an engine runs, and what
/// becomes of its present segment, makes no difference.
fn state(
    folder: &Path,
    deleted: &[DeletedSegment],
    erased: &[ErasedSlot],
    node: &NodeKey,
    now_s: u64,
) -> io::Result<()> {
    let mut id = [0; 32];
    os_random().fill_bytes(&mut id);
    let (segment_id, run_id) = id.split_at(16);
    let segment_id = SegmentId(segment_id.try_into().expect("a half of 32 bytes"));
    let (mut writer, mut bytes) = SegmentWriter::new(SegmentParams {
        segment_id,
        node: node.public(),
        run_id: RunId(run_id.try_into().expect("a half of 32 bytes")),
        shard: 0,
        prev: SegmentId::ZERO,
        chain_seq: 0,
        created_s: now_s,
        features: Features::default(),
    });
    for entries in deleted.chunks(ENTRIES_PER_TOMBSTONE) {
        bytes.extend_from_slice(&writer.tombstone(node, entries, now_s).1);
    }
    for entries in erased.chunks(ENTRIES_PER_TOMBSTONE) {
        bytes.extend_from_slice(&writer.erasure(node, entries, now_s).1);
    }
    let end = writer.next_offset();
    let finished = writer.finish(Some(node), FinishParams::sealed(None, end, now_s));
    bytes.extend_from_slice(&finished.bytes);

    let path = segment_path(folder, &segment_id, now_s);
    let day = path.parent().unwrap_or(folder);
    fs::DirBuilder::new().recursive(true).mode(0o750).create(day)?;
    // Under another name until it is whole: a reader or the engine's recovery would take a part of it for a crash's remains.
    let part = path.with_extension("part");
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(&part)?;
    io::Write::write_all(&mut file, &bytes)?;
    file.sync_all()?;
    fs::rename(&part, &path)?;
    sys::sync_directory(day)?;
    sys::sync_directory(folder)
}

fn delete(folder: &Path, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()), // retention was faster
        removed => removed?,
    }
    let day = path.parent().unwrap_or(folder);
    match fs::remove_dir(day) {
        Ok(()) => sys::sync_directory(folder),
        Err(_) => sys::sync_directory(day), // others are in it
    }
}

/// Punches the bodies of chunks out of a file, and returns how many bytes that gave back.
fn punch(path: &Path, chunks: &[(u64, u32)]) -> io::Result<u64> {
    let source = FileSource::open_writable(path)?;
    if !source.lock()? {
        return Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "another process works on it",
        ));
    }
    let mut bytes = 0;
    for (offset, total_len) in chunks {
        let mut block = vec![0; BLOCK_ALIGN];
        source.file().read_exact_at(&mut block, *offset)?;
        let header = Header::parse(&block).map_err(io::Error::other)?;
        let first = usize::from(header.header_len).next_multiple_of(BLOCK_ALIGN);
        block.resize(*total_len as usize, 0);
        if first > BLOCK_ALIGN {
            source
                .file()
                .read_exact_at(&mut block[..first.min(*total_len as usize)], *offset)?;
        }
        let ranges = erase_chunk(&header, &mut block);
        if !ranges.punch.is_empty() {
            let at = offset + ranges.punch.start as u64;
            sys::punch_hole(source.file(), at, ranges.punch.len() as u64)?;
            bytes += ranges.punch.len() as u64;
        }
        source
            .file()
            .write_all_at(&block[ranges.write.clone()], offset + ranges.write.start as u64)?;
    }
    source.file().sync_all()?;
    Ok(bytes)
}

/// The file of a segment, if it is here.
pub fn file_of(folder: &Path, place: &Place) -> Option<PathBuf> {
    let path = segment_path(folder, &place.segment.segment_id, place.segment.created_s);
    path.is_file().then_some(path)
}
