//! What the janitor does with one file of an earlier run: reads its footer, or closes it if a crash left it open.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harborseal_segment::body::{ChainHead, FOOTER_RECOVERED, FooterBody, HEAD_FOOTER, HEAD_RECOVERED};
use harborseal_segment::head::Head;
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::node::NodeKey;
use harborseal_segment::reader::read_footer;
use harborseal_segment::recover::{CloseTail, Plan, plan};
use harborseal_segment::source::Source;
use harborseal_segment::verify::Report;

use super::FileSource;
use super::find::{self, FindError};
use crate::log::catalog::ClosedSegment;
use crate::uring::sys;

/// Age at which a file without a single block is taken for the remains of a crash.
const EMPTY_AGE: Duration = Duration::from_secs(60);

/// What became of a leftover.
pub enum Leftover {
    /// It is being written: by the present run, or by another process.
    Written,
    /// It was prepared and never used, and is deleted now.
    Deleted,
    /// Nothing came to be durable in it, but a later segment names it as the one before: without it, that one would miss it.
    Empty(ClosedSegment),
    /// It has its footer.
    Closed(Closing),
    /// What was durable in it is damaged. It is left as it is; `harborseal recover` makes a repaired copy.
    Corrupt(Closing),
}

/// A segment that nobody will write to any more.
pub struct Closing {
    /// For retention.
    pub segment: ClosedSegment,
    /// For the new run's chain ends.
    pub head: ChainHead,
    /// It was open until now.
    pub just_now: bool,
}

/// Looks at one file and closes it if a crash left it open. `progress` hears how many bytes were read, often, and may wait.
pub fn close_leftover(
    path: &Path,
    present: Option<RunId>,
    node: &NodeKey,
    progress: impl FnMut(u64),
) -> io::Result<Leftover> {
    let source = FileSource::open_writable(path)?;
    let head = match Head::read(&source) {
        Ok(head) => head,
        // Created and allocated, but the crash came before its first block was durable: there is nothing in it. A young one may be
        // a segment of this run that its keeper has not locked yet.
        Err(_) if source.next_data(0) >= source.len() => {
            let old = fs::metadata(path)?
                .modified()?
                .elapsed()
                .is_ok_and(|age| age >= EMPTY_AGE);
            return if old && source.lock()? {
                delete(path)
            } else {
                Ok(Leftover::Written)
            };
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    if present == Some(head.body.run_id) || !source.lock()? {
        return Ok(Leftover::Written);
    }
    if let Some(closing) = read_closed(path, &source)? {
        return Ok(Leftover::Closed(closing));
    }
    let now_s = sys::realtime_ns() / 1_000_000_000;
    match plan(&source, Some(node), now_s, progress).map_err(io::Error::other)? {
        Plan::Unused(report) if is_named(path, report.head.id)? => {
            Ok(Leftover::Empty(closing_of(path, &report, false)?.segment))
        }
        Plan::Unused(_) => delete(path),
        Plan::AlreadyClosed(report) => Ok(Leftover::Closed(closing_of(path, &report, false)?)),
        Plan::CloseTail(tail) => {
            carry_out(&source, &tail)?;
            drop(source);
            let again = FileSource::open(path)?;
            let closing = read_closed(path, &again)?.map(|closing| Closing {
                just_now: true,
                ..closing
            });
            closing
                .map(Leftover::Closed)
                .ok_or_else(|| io::Error::other("it has no footer after it was closed"))
        }
        Plan::Corrupt(repair) => Ok(Leftover::Corrupt(closing_of(path, &repair.report, false)?)),
    }
}

/// Writes the tail in the order that a second crash survives: room, bytes, then the cut.
fn carry_out(source: &FileSource, tail: &CloseTail) -> io::Result<()> {
    let file = source.file();
    if !tail.bytes.is_empty() {
        file.set_len(tail.offset)?;
        file.set_len(tail.room())?;
        file.sync_all()?;
        file.write_all_at(&tail.bytes, tail.offset)?;
        file.sync_data()?;
    }
    file.set_len(tail.end())?;
    file.sync_all()
}

/// A segment with a footer at its end: two reads, whatever its size.
fn read_closed(path: &Path, source: &FileSource) -> io::Result<Option<Closing>> {
    let head = Head::read(source).map_err(io::Error::other)?;
    let Some(footer) = read_footer(source, &head).map_err(io::Error::other)? else {
        return Ok(None);
    };
    Ok(Some(Closing {
        segment: closed_segment(path, &head, footer.closed_s, footer.root)?,
        head: chain_head(&head, &footer),
        just_now: false,
    }))
}

fn closed_segment(path: &Path, head: &Head, closed_s: u64, root: [u8; 32]) -> io::Result<ClosedSegment> {
    let Head { id, body, .. } = head;
    Ok(ClosedSegment {
        id: *id,
        path: path.to_owned(),
        bytes: fs::metadata(path)?.len(),
        run_id: body.run_id,
        shard: body.shard,
        chain_seq: body.chain_seq,
        closed_s,
        root,
    })
}

fn chain_head(head: &Head, footer: &FooterBody) -> ChainHead {
    let recovered = footer.flags & FOOTER_RECOVERED != 0;
    let Head { id, body, .. } = head;
    ChainHead {
        run_id: body.run_id,
        shard: body.shard,
        flags: HEAD_FOOTER | if recovered { HEAD_RECOVERED } else { 0 },
        chain_seq: body.chain_seq,
        segment_id: *id,
        durable_upto: footer.durable_upto,
        leaf_count: footer.leaf_count,
        root: footer.root,
    }
}

/// What is known without a footer that could be trusted: it counts as closed when it was last written to.
fn closing_of(path: &Path, report: &Report, just_now: bool) -> io::Result<Closing> {
    let written = fs::metadata(path)?.modified()?;
    let written_s = written
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |age| age.as_secs());
    let Head { id, body, .. } = &report.head;
    let (leaf_count, root) = report.last_checkpoint.unwrap_or((0, [0; 32]));
    Ok(Closing {
        segment: closed_segment(path, &report.head, written_s, report.root)?,
        head: ChainHead {
            run_id: body.run_id,
            shard: body.shard,
            flags: 0,
            chain_seq: body.chain_seq,
            segment_id: *id,
            durable_upto: report.floor,
            leaf_count,
            root,
        },
        just_now,
    })
}

/// Whether another segment of the data folder says that `id` came before it. An unused segment is one of two: prepared as the next one
/// and not needed; or taken into use, when the disk failed it or the power went, with its successor already there.
fn is_named(path: &Path, id: SegmentId) -> io::Result<bool> {
    let Some(segments) = path.ancestors().nth(2) else {
        return Ok(false);
    };
    let found = find::segments(&[segments.to_owned()]).map_err(|FindError { path, why }| {
        io::Error::new(why.kind(), format!("cannot list {}: {why}", path.display()))
    })?;
    let names_it = |other: &PathBuf| {
        // One that cannot be read says nothing, and is for others to complain of.
        let head = FileSource::open(other)
            .ok()
            .and_then(|source| Head::read(&source).ok());
        head.is_some_and(|head| head.body.prev_segment_id == id)
    };
    Ok(found.segments.iter().any(names_it))
}

fn delete(path: &Path) -> io::Result<Leftover> {
    fs::remove_file(path)?;
    path.parent().map_or(Ok(()), sys::sync_directory)?;
    Ok(Leftover::Deleted)
}
