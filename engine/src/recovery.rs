//! Recovery beside recording: a thread that closes what a crash, or a failing disk, left open.
//!
//! At the start it looks at every segment that earlier runs left, at a bounded rate, and has the chain ends written down in the new run's
//! segments, so that a deleted segment shows. Later it looks at segments that this run had to abandon. What it has closed goes to
//! the janitor, for retention. It stops at once when asked to: closing is carried out so that it can be begun again at any point.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use harborseal_segment::body::ChainHead;
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::os_random;

use crate::archive::FileSource;
use crate::archive::closing::{Closing, Leftover, OldFile, Unused, close_leftover};
use crate::archive::find::{self, FindError, Found};
use crate::audit::entry::Bytes;
use crate::audit::{AuditLog, Entry, Fact, Nonce};
use crate::janitor::Notice;
use crate::log::catalog::Note;
use crate::uring::sys;

/// How often it looks for new work, and whether it should stop.
const ROUND: Duration = Duration::from_millis(200);
/// Wait before a segment that could not be closed is tried again; doubles up to an hour.
const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_LAST: Duration = Duration::from_secs(3600);

/// Where the files of earlier runs are, and the time of day: the file system here, the simulator's in `tests/sim`.
pub trait Attic {
    /// One of them.
    type File: OldFile;

    /// Their names.
    fn files(&self) -> Result<Found, FindError>;
    /// Opens one for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Seconds since 1970.
    fn now_s(&self) -> u64;
    /// Enters a segment in the audit log, before it gets its footer.
    fn announce(&self, segment: SegmentId, root: [u8; 32]) -> io::Result<()>;
}

/// `DATA/segments`, and the audit log.
pub struct Folder(pub PathBuf, pub Arc<AuditLog>);

impl Attic for Folder {
    type File = FileSource;

    fn files(&self) -> Result<Found, FindError> {
        find::segments(std::slice::from_ref(&self.0))
    }

    fn open(&self, path: &Path) -> io::Result<FileSource> {
        FileSource::open_writable(path)
    }

    fn now_s(&self) -> u64 {
        sys::realtime_ns() / 1_000_000_000
    }

    fn announce(&self, segment: SegmentId, root: [u8; 32]) -> io::Result<()> {
        let fact = Fact::SegmentSealed {
            segment,
            root: Bytes(root),
            part: 1,
            parts: 1,
            recovered: true,
        };
        let entry = Entry::new(self.now_s(), Nonce::generate(&mut os_random()), fact);
        self.1.append(&[entry]).map(|_| ()).map_err(io::Error::other)
    }
}

/// What recovery works with.
pub struct Recovery<A: Attic = Folder> {
    /// The files.
    pub attic: A,
    /// This run: its segments are no leftovers, unless it abandoned them.
    pub run_id: RunId,
    /// The node's signing key.
    pub node: Arc<NodeKey>,
    /// Most bytes read per second.
    pub bytes_per_s: u64,
    /// Segments that were abandoned.
    pub abandoned: Receiver<PathBuf>,
    /// To the janitor.
    pub notes: Sender<Note>,
    /// To people.
    pub notices: Sender<Notice>,
    /// Set when the engine ends.
    pub stopping: Arc<AtomicBool>,
}

/// A segment to be tried again.
pub struct Retry {
    path: PathBuf,
    due: Instant,
    wait: Duration,
}

impl<A: Attic> Recovery<A> {
    /// Works until the engine ends.
    pub fn run(self) {
        let mut retries = self.look_back(Instant::now());
        while !self.stopping.load(Ordering::Acquire) {
            // A time-out and a janitor that has gone both mean that nothing new was abandoned.
            if let Ok(path) = self.abandoned.recv_timeout(ROUND) {
                retries.push(Retry::first(path, Instant::now()));
            }
            self.try_again(&mut retries, Instant::now());
        }
    }

    /// Tries what is due.
    pub fn try_again(&self, retries: &mut Vec<Retry>, now: Instant) {
        let due: Vec<Retry> = retries.extract_if(.., |retry| retry.due <= now).collect();
        for Retry { path, wait, .. } in due {
            let closed = match self.close(&path, None) {
                // Its run goes on without it: others of its chain come after it.
                Ok(Some(Old::Unused(unused))) => self.settle_unused(*unused, true),
                Ok(Some(Old::Closed(closing))) => Ok(Some(*closing)),
                Ok(None) => Ok(None),
                Err(Later) => Err(Later),
            };
            match closed {
                Ok(closing) => closing.into_iter().for_each(|closing| self.found(closing)),
                Err(Later) => {
                    let wait = (wait * 2).min(RETRY_LAST);
                    retries.push(Retry {
                        path,
                        due: now + wait,
                        wait,
                    });
                }
            }
        }
    }

    /// Looks at what earlier runs left. Returns what has to be tried again.
    pub fn look_back(&self, now: Instant) -> Vec<Retry> {
        let mut heads: BTreeMap<(RunId, u32), ChainHead> = BTreeMap::new();
        let mut note = |closing: Closing| {
            let chain = (closing.head.run_id, closing.head.shard);
            let known = heads.entry(chain).or_insert(closing.head);
            if known.chain_seq < closing.head.chain_seq {
                *known = closing.head;
            }
            self.found(closing);
        };
        let (mut segments, mut recovered) = (0, 0);
        let (mut unused, mut retries) = (Vec::new(), Vec::new());
        let mut latest: BTreeMap<(RunId, u32), u64> = BTreeMap::new();
        for path in self.old_files() {
            if self.stopping.load(Ordering::Acquire) {
                return retries;
            }
            match self.close(&path, Some(self.run_id)) {
                Ok(Some(Old::Closed(closing))) => {
                    segments += 1;
                    recovered += usize::from(closing.just_now);
                    let place = latest.entry((closing.head.run_id, closing.head.shard));
                    let last = place.or_default();
                    *last = closing.head.chain_seq.max(*last);
                    note(*closing);
                }
                Ok(Some(Old::Unused(left))) => unused.push(left),
                Ok(None) => {}
                Err(Later) => retries.push(Retry::first(path, now)),
            }
        }
        // From the end of each chain: a crash between two must not leave the later one.
        unused.sort_by_key(|left| left.place());
        for left in unused.into_iter().rev() {
            let (chain, place) = left.place();
            // A file that could not be looked at may be of any chain.
            let followed = !retries.is_empty() || latest.get(&chain).is_some_and(|last| place < *last);
            let path = left.path().to_owned();
            match self.settle_unused(*left, followed) {
                Ok(closing) => closing.into_iter().for_each(&mut note),
                Err(Later) => retries.push(Retry::first(path, now)),
            }
        }
        self.tell(Note::Heads(heads.into_values().collect()));
        self.say(Notice::RecoveryDone { segments, recovered });
        retries
    }

    /// A segment that holds nothing is deleted, unless it would be missed in its chain.
    fn settle_unused(&self, unused: Unused<A::File>, followed: bool) -> Result<Option<Closing>, Later> {
        let path = unused.path().to_owned();
        let settled = match followed {
            true => unused.close(&self.announce()).map(Some),
            false => unused.delete().map(|()| None),
        };
        settled.map_err(|error| self.cannot(&path, &error))
    }

    fn old_files(&self) -> Vec<PathBuf> {
        let warn = |FindError { path, why }: &FindError| {
            self.say(Notice::Warning(format!(
                "cannot look for old segments in {}: {why}",
                path.display()
            )));
        };
        match self.attic.files() {
            Ok(found) => {
                found.problems.iter().for_each(warn);
                found.segments
            }
            Err(error) => {
                warn(&error);
                Vec::new()
            }
        }
    }

    /// Closes one segment at a bounded rate, so that recording keeps the disk, or reads what is to be known of a closed one.
    /// `present`: segments of this run are being written, and left alone.
    fn close(&self, path: &Path, present: Option<RunId>) -> Result<Option<Old<A::File>>, Later> {
        let began = Instant::now();
        let pace = |read_bytes: u64| {
            let owed = Duration::from_secs_f64(read_bytes as f64 / self.bytes_per_s.max(1) as f64);
            if !self.stopping.load(Ordering::Acquire) {
                std::thread::sleep(owed.saturating_sub(began.elapsed()).min(ROUND));
            }
        };
        let now_s = self.attic.now_s();
        let closed = self
            .attic
            .open(path)
            .and_then(|file| close_leftover(file, present, &self.node, now_s, &self.announce(), pace));
        match closed {
            Ok(Leftover::Written) if present.is_none() => Err(Later), // abandoned, and its file not let go yet
            Ok(Leftover::Written | Leftover::Deleted) => Ok(None),
            Ok(Leftover::Closed(closing)) => {
                if closing.just_now {
                    self.say(Notice::Recovered {
                        segment: closing.segment.id,
                    });
                }
                Ok(Some(Old::Closed(Box::new(closing))))
            }
            Ok(Leftover::Unused(unused)) => Ok(Some(Old::Unused(unused))),
            Ok(Leftover::Corrupt(closing)) => {
                let (shown, remedy) = (path.display(), "`harborseal recover` makes a repaired copy");
                let what = "what was durable in it is damaged; it is left as it is";
                self.say(Notice::Warning(format!("{shown}: {what}, {remedy}")));
                Ok(Some(Old::Closed(Box::new(closing))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.cannot(path, &error)),
        }
    }

    fn cannot(&self, path: &Path, error: &io::Error) -> Later {
        let path = path.display();
        self.say(Notice::Warning(format!(
            "cannot recover {path}: {error}; it is tried again"
        )));
        Later
    }

    fn announce(&self) -> impl Fn(SegmentId, [u8; 32]) -> io::Result<()> {
        |segment, root| self.attic.announce(segment, root)
    }

    fn found(&self, closing: Closing) {
        self.tell(Note::Found(closing.segment));
    }

    fn tell(&self, note: Note) {
        // Without a janitor nothing is deleted, and nothing is lost.
        let _ = self.notes.send(note);
    }

    fn say(&self, notice: Notice) {
        // Without a control thread nobody listens; the work goes on.
        let _ = self.notices.send(notice);
    }
}

impl Retry {
    fn first(path: PathBuf, now: Instant) -> Self {
        Retry {
            path,
            due: now + RETRY_FIRST,
            wait: RETRY_FIRST,
        }
    }
}

/// A file that nobody writes any more.
enum Old<F> {
    Closed(Box<Closing>),
    Unused(Box<Unused<F>>),
}

/// It could not be closed now.
struct Later;

#[cfg(test)]
mod tests;
