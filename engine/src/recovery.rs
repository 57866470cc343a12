//! Recovery beside recording: a thread that closes what a crash, or a failing disk, left open.
//!
//! At the start it looks at every segment that earlier runs left, at a bounded rate, and has the chain ends written down in the new run's
//! segments, so that a deleted segment shows. Later it looks at segments that this run had to abandon. What it has closed goes to
//! the janitor, for retention. It stops at once when asked to: closing is carried out so that it can be begun again at any point.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use harborseal_segment::body::ChainHead;
use harborseal_segment::ids::RunId;
use harborseal_segment::node::NodeKey;

use crate::archive::closing::{Closing, Leftover, close_leftover};
use crate::archive::find::{self, FindError};
use crate::janitor::Notice;
use crate::log::catalog::Note;

/// How often it looks for new work, and whether it should stop.
const ROUND: Duration = Duration::from_millis(200);
/// Wait before a segment that could not be closed is tried again; doubles up to an hour.
const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_LAST: Duration = Duration::from_secs(3600);

/// What recovery works with.
pub struct Recovery {
    /// `DATA/segments`.
    pub folder: PathBuf,
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
struct Retry {
    path: PathBuf,
    due: Instant,
    wait: Duration,
}

impl Recovery {
    /// Works until the engine ends.
    pub fn run(self) {
        let mut retries = self.look_back();
        while !self.stopping.load(Ordering::Acquire) {
            // A time-out and a janitor that has gone both mean that nothing new was abandoned.
            if let Ok(path) = self.abandoned.recv_timeout(ROUND) {
                retries.push(Retry {
                    path,
                    due: Instant::now() + RETRY_FIRST,
                    wait: RETRY_FIRST,
                });
            }
            let now = Instant::now();
            for Retry { path, wait, .. } in retries
                .extract_if(.., |retry| retry.due <= now)
                .collect::<Vec<_>>()
            {
                match self.close(&path, None) {
                    Ok(Some(closing)) => self.found(closing),
                    Ok(None) => {}
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
    }

    /// Looks at what earlier runs left. Returns what has to be tried again.
    fn look_back(&self) -> Vec<Retry> {
        let mut heads: HashMap<(RunId, u32), ChainHead> = HashMap::new();
        let (mut segments, mut recovered, mut retries) = (0, 0, Vec::new());
        for path in self.old_files() {
            if self.stopping.load(Ordering::Acquire) {
                return retries;
            }
            match self.close(&path, Some(self.run_id)) {
                Ok(Some(closing)) => {
                    segments += 1;
                    recovered += usize::from(closing.just_now);
                    let chain = (closing.head.run_id, closing.head.shard);
                    if heads
                        .get(&chain)
                        .is_none_or(|known| known.chain_seq < closing.head.chain_seq)
                    {
                        heads.insert(chain, closing.head);
                    }
                    self.found(closing);
                }
                Ok(None) => {}
                Err(Later) => {
                    retries.push(Retry {
                        path,
                        due: Instant::now() + RETRY_FIRST,
                        wait: RETRY_FIRST,
                    });
                }
            }
        }
        self.tell(Note::Heads(heads.into_values().collect()));
        self.say(Notice::RecoveryDone { segments, recovered });
        retries
    }

    fn old_files(&self) -> Vec<PathBuf> {
        let warn = |FindError { path, why }: &FindError| {
            self.say(Notice::Warning(format!(
                "cannot look for old segments in {}: {why}",
                path.display()
            )));
        };
        match find::segments(std::slice::from_ref(&self.folder)) {
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
    fn close(&self, path: &Path, present: Option<RunId>) -> Result<Option<Closing>, Later> {
        let began = Instant::now();
        let pace = |read_bytes: u64| {
            let owed = Duration::from_secs_f64(read_bytes as f64 / self.bytes_per_s.max(1) as f64);
            if !self.stopping.load(Ordering::Acquire) {
                std::thread::sleep(owed.saturating_sub(began.elapsed()).min(ROUND));
            }
        };
        match close_leftover(path, present, &self.node, pace) {
            Ok(Leftover::Written) if present.is_none() => Err(Later), // abandoned, and its file not let go yet
            Ok(Leftover::Written | Leftover::Deleted) => Ok(None),
            Ok(Leftover::Empty(segment)) => {
                // Retention will delete it in its turn, with a tombstone; a chain's end it is not.
                self.tell(Note::Found(segment));
                Ok(None)
            }
            Ok(Leftover::Closed(closing)) => {
                if closing.just_now {
                    self.say(Notice::Recovered {
                        segment: closing.segment.id,
                    });
                }
                Ok(Some(closing))
            }
            Ok(Leftover::Corrupt(closing)) => {
                let (shown, remedy) = (path.display(), "`harborseal recover` makes a repaired copy");
                let what = "what was durable in it is damaged; it is left as it is";
                self.say(Notice::Warning(format!("{shown}: {what}, {remedy}")));
                Ok(Some(closing))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                self.say(Notice::Warning(format!(
                    "cannot recover {}: {error}; it is tried again",
                    path.display()
                )));
                Err(Later)
            }
        }
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

/// It could not be closed now.
struct Later;
