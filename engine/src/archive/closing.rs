//! What the janitor does with one file of an earlier run: reads its footer, or closes it if a crash left it open.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use harborseal_segment::body::{ChainHead, FOOTER_RECOVERED, FooterBody, HEAD_FOOTER, HEAD_RECOVERED};
use harborseal_segment::head::Head;
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::node::NodeKey;
use harborseal_segment::reader::read_footer;
use harborseal_segment::recover::{CloseTail, Plan, plan};
use harborseal_segment::source::Source;
use harborseal_segment::verify::Report;

use super::FileSource;
use crate::log::catalog::ClosedSegment;
use crate::uring::sys;

/// Age at which a file without a single block is taken for the remains of a crash, in seconds.
const EMPTY_AGE_S: u64 = 60;

/// Hears of a segment and its root before it gets its footer, which it does not where that fails.
pub type Announce<'a> = dyn Fn(SegmentId, [u8; 32]) -> io::Result<()> + 'a;

/// What became of a leftover.
pub enum Leftover<F> {
    /// It is being written: by the present run, or by another process.
    Written,
    /// There was nothing at all in it, and it is deleted now.
    Deleted,
    /// It was prepared and never used. It goes if nothing of its chain comes after it, else it would be missed, and is closed.
    Unused(Box<Unused<F>>),
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

/// A file of an earlier run: the file system's here, the simulator's in `tests/sim`. Each method is one system call or nearly so; in which
/// order they come, and so what a crash between two of them leaves, is decided here alone.
pub trait OldFile: Source + Sized {
    /// Its name.
    fn path(&self) -> &Path;
    /// Takes the writer's lock; false if another process has it.
    fn lock(&self) -> io::Result<bool>;
    /// When it was last written to, in seconds since 1970.
    fn modified_s(&self) -> io::Result<u64>;
    /// Gives it this length; what lay beyond is gone for good.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Writes all of `bytes`.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the content durable, and of the length what is needed to reach it.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync_all(&self) -> io::Result<()>;
    /// The same file as it is now.
    fn again(self) -> io::Result<Self>;
    /// Deletes it, for good.
    fn delete(&self) -> io::Result<()>;
}

/// A segment that was prepared and never used: by a run that ended before, or on a disk that failed.
pub struct Unused<F> {
    file: F,
    head: Head,
    tail: CloseTail,
}

impl<F: OldFile> Unused<F> {
    /// Its chain, and its place there.
    pub fn place(&self) -> ((RunId, u32), u64) {
        let body = &self.head.body;
        ((body.run_id, body.shard), body.chain_seq)
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Deletes it.
    pub fn delete(self) -> io::Result<()> {
        self.file.delete()
    }

    /// Closes it. `announce` hears of it before.
    pub fn close(self, announce: &Announce<'_>) -> io::Result<Closing> {
        close(self.file, &self.tail, announce)
    }
}

/// Looks at one file and closes it if a crash left it open; `announce` hears of that before. `progress` hears how many bytes were read, often, and may wait.
pub fn close_leftover<F: OldFile>(
    source: F,
    present: Option<RunId>,
    node: &NodeKey,
    now_s: u64,
    announce: &Announce<'_>,
    progress: impl FnMut(u64),
) -> io::Result<Leftover<F>> {
    let head = match Head::read(&source) {
        Ok(head) => head,
        // Created and allocated, but the crash came before its first block was durable: there is nothing in it. A young one may be
        // a segment of this run that its keeper has not locked yet.
        Err(_) if source.next_data(0) >= source.len() => {
            let old = now_s.saturating_sub(source.modified_s()?) >= EMPTY_AGE_S;
            return if old && source.lock()? {
                source.delete().map(|()| Leftover::Deleted)
            } else {
                Ok(Leftover::Written)
            };
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    if present == Some(head.body.run_id) || !source.lock()? {
        return Ok(Leftover::Written);
    }
    if let Some(closing) = read_closed(&source)? {
        return Ok(Leftover::Closed(closing));
    }
    match plan(&source, Some(node), now_s, progress).map_err(io::Error::other)? {
        Plan::Unused(tail) => Ok(Leftover::Unused(Box::new(Unused {
            file: source,
            head,
            tail,
        }))),
        Plan::AlreadyClosed(report) => Ok(Leftover::Closed(closing_of(&source, &report)?)),
        Plan::CloseTail(tail) => close(source, &tail, announce).map(Leftover::Closed),
        Plan::Corrupt(repair) => Ok(Leftover::Corrupt(closing_of(&source, &repair.report)?)),
    }
}

fn close(file: impl OldFile, tail: &CloseTail, announce: &Announce<'_>) -> io::Result<Closing> {
    // Where only the cut is missing, it was announced before the footer that is there.
    if !tail.bytes.is_empty() {
        announce(tail.report.head.id, tail.report.root)?;
    }
    carry_out(&file, tail)?;
    let closing = read_closed(&file.again()?)?.map(|closing| Closing {
        just_now: true,
        ..closing
    });
    closing.ok_or_else(|| io::Error::other("it has no footer after it was closed"))
}

/// Writes the tail in the order that a second crash survives: room, bytes, then the cut.
fn carry_out(file: &impl OldFile, tail: &CloseTail) -> io::Result<()> {
    if !tail.bytes.is_empty() {
        file.set_len(tail.offset)?;
        file.set_len(tail.room())?;
        file.sync_all()?;
        file.write(&tail.bytes, tail.offset)?;
    }
    // Also where only the cut is missing: that the tail can be read does not prove that a disk has it.
    file.sync_data()?;
    file.set_len(tail.end())?;
    file.sync_all()
}

impl OldFile for FileSource {
    fn path(&self) -> &Path {
        self.path()
    }

    fn lock(&self) -> io::Result<bool> {
        self.lock()
    }

    fn modified_s(&self) -> io::Result<u64> {
        let modified = self.file().metadata()?.modified()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH);
        Ok(since.map_or(0, |age| age.as_secs()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file().set_len(len)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file().write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file().sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file().sync_all()
    }

    fn again(mut self) -> io::Result<Self> {
        self.refresh()?;
        Ok(self)
    }

    fn delete(&self) -> io::Result<()> {
        fs::remove_file(self.path())?;
        self.path().parent().map_or(Ok(()), sys::sync_directory)
    }
}

/// A segment with a footer at its end: two reads, whatever its size.
fn read_closed(source: &impl OldFile) -> io::Result<Option<Closing>> {
    let head = Head::read(source).map_err(io::Error::other)?;
    let Some(footer) = read_footer(source, &head).map_err(io::Error::other)? else {
        return Ok(None);
    };
    Ok(Some(Closing {
        segment: closed_segment(source, &head, footer.closed_s, footer.root),
        head: chain_head(&head, &footer),
        just_now: false,
    }))
}

fn closed_segment(source: &impl OldFile, head: &Head, closed_s: u64, root: [u8; 32]) -> ClosedSegment {
    let Head { id, body, .. } = head;
    ClosedSegment {
        id: *id,
        path: source.path().to_owned(),
        bytes: source.len(),
        run_id: body.run_id,
        shard: body.shard,
        chain_seq: body.chain_seq,
        closed_s,
        root,
    }
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
fn closing_of(source: &impl OldFile, report: &Report) -> io::Result<Closing> {
    let Head { id, body, .. } = &report.head;
    let (leaf_count, root) = report.last_checkpoint.unwrap_or((0, [0; 32]));
    Ok(Closing {
        segment: closed_segment(source, &report.head, source.modified_s()?, report.root),
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
        just_now: false,
    })
}
