//! The janitor: a thread that looks after segments nobody writes any more.
//!
//! At the start it finds what earlier runs left, closes what a crash left open (at a bounded rate, beside recording), and has the chain
//! ends written down in the new run's first segment, so that a deleted segment shows. From then on it deletes what retention says,
//! oldest first, never an open segment.
//!
//! ```text
//!   expired ─▶ tombstone to shard 0 ─▶ durable (or 2 s, or no space to write it) ─▶ unlink ─▶ fsync folder
//! ```
//! The tombstone goes first, so that no crash leaves a segment missing without one. Only when the disk is too full to take it does
//! the deletion come first: then the tombstone follows as soon as there is room.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use harborseal_segment::body::{ChainHead, DeletedSegment};
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::node::NodeKey;

use crate::archive::closing::{self, Closing, close_leftover};
use crate::archive::find::FindError;
use crate::log::catalog::{Catalog, ClosedSegment, Note, Retention};
use crate::shard::Command;
use crate::uring::sys::{self, Waker};

/// How often retention looks.
const ROUND: Duration = Duration::from_secs(1);
/// Longest wait for a tombstone before its segment is deleted all the same.
const TOMBSTONE_PATIENCE: Duration = Duration::from_secs(2);
/// Wait before a segment that could not be closed is tried again; doubles up to an hour.
const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_LAST: Duration = Duration::from_secs(3600);

/// What the janitor works with.
pub struct Settings {
    /// `DATA/segments`.
    pub folder: PathBuf,
    /// This run: its segments are not leftovers.
    pub run_id: RunId,
    /// The node's signing key.
    pub node: Arc<NodeKey>,
    /// What to keep; a reload may change it.
    pub retention: Arc<Mutex<Retention>>,
    /// Most bytes read per second while old segments are recovered; `None`: no bound.
    pub recovery_bytes_per_s: Option<u64>,
}

/// What the janitor has to say to people and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A leftover segment was closed.
    Recovered {
        /// Its id.
        segment: SegmentId,
    },
    /// All leftovers were looked at.
    RecoveryDone {
        /// Closed segments found, and segments closed just now.
        segments: usize,
        /// Of these, how many were closed just now.
        recovered: usize,
    },
    /// Something to look into.
    Warning(String),
    /// A shard ended before it was told to: the engine cannot go on as it was configured.
    ShardEnded(String),
}

/// A leftover to be tried again.
struct Leftover {
    path: PathBuf,
    due: Instant,
    wait: Duration,
}

/// Segments on their way out.
struct Deletion {
    segments: Vec<ClosedSegment>,
    since: Instant,
}

/// The janitor.
pub struct Janitor {
    settings: Settings,
    notes: Receiver<Note>,
    shard: (Sender<Command>, Waker),
    notices: Sender<Notice>,
    catalog: Catalog,
    leftovers: Vec<Leftover>,
    deletions: HashMap<u64, Deletion>,
    next_ticket: u64,
    no_space: bool,
}

impl Janitor {
    /// A janitor that has tombstones and chain ends written by shard 0.
    pub fn new(
        settings: Settings,
        notes: Receiver<Note>,
        shard: (Sender<Command>, Waker),
        notices: Sender<Notice>,
    ) -> Janitor {
        Janitor {
            settings,
            notes,
            shard,
            notices,
            catalog: Catalog::default(),
            leftovers: Vec::new(),
            deletions: HashMap::new(),
            next_ticket: 0,
            no_space: false,
        }
    }

    /// Works until every keeper and shard has hung up.
    pub fn run(mut self) {
        self.look_back();
        loop {
            match self.notes.recv_timeout(ROUND) {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(note) = self.notes.try_recv() {
                self.take(note);
            }
            self.retry_leftovers();
            self.expire();
            self.delete_due();
        }
        // Nobody writes tombstones any more, and those that were asked for are durable or lost with the run.
        self.deletions
            .retain(|_, deletion| deletion.since.elapsed() >= TOMBSTONE_PATIENCE);
        self.delete_due();
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Closed(segment) => self.catalog.add(segment),
            Note::Abandoned { path, .. } => {
                self.leftovers.push(Leftover {
                    path,
                    due: Instant::now() + RETRY_FIRST,
                    wait: RETRY_FIRST,
                });
            }
            Note::TombstonesDurable(ticket) => {
                if let Some(deletion) = self.deletions.remove(&ticket) {
                    self.delete(&deletion.segments);
                }
            }
            Note::NoSpace => self.no_space = true,
            Note::Trouble(message) => self.warn(message),
        }
    }

    // ---- The past -------------------------------------------------------------------------------------------

    fn look_back(&mut self) {
        let mut heads: HashMap<(RunId, u32), ChainHead> = HashMap::new();
        let mut recovered = 0;
        for path in self.old_files() {
            while let Ok(note) = self.notes.try_recv() {
                self.take(note);
            }
            let Some(closing) = self.close(&path) else {
                continue;
            };
            recovered += usize::from(closing.just_now);
            let chain = (closing.head.run_id, closing.head.shard);
            if heads
                .get(&chain)
                .is_none_or(|known| known.chain_seq < closing.head.chain_seq)
            {
                heads.insert(chain, closing.head);
            }
            self.catalog.add(closing.segment);
        }
        if !heads.is_empty() {
            self.tell_shard(Command::Heads(heads.into_values().collect()));
        }
        self.say(Notice::RecoveryDone {
            segments: self.catalog.len(),
            recovered,
        });
    }

    /// Segment files there now, oldest folder first. Those of this run are locked by their keeper and left alone later.
    fn old_files(&mut self) -> Vec<PathBuf> {
        match crate::archive::find::segments(std::slice::from_ref(&self.settings.folder)) {
            Ok(found) => found.segments,
            Err(FindError { path, why }) => {
                self.warn(format!("cannot list old segments in {}: {why}", path.display()));
                Vec::new()
            }
        }
    }

    /// Closes a leftover at a bounded rate, so that recording keeps the disk, or reads what is to be known of a closed one.
    fn close(&mut self, path: &Path) -> Option<Closing> {
        let Settings {
            run_id,
            node,
            recovery_bytes_per_s,
            ..
        } = &self.settings;
        let (began, rate) = (Instant::now(), *recovery_bytes_per_s);
        let pace = |read_bytes: u64| {
            if let Some(rate) = rate {
                let owed = Duration::from_secs_f64(read_bytes as f64 / rate.max(1) as f64);
                std::thread::sleep(owed.saturating_sub(began.elapsed()));
            }
        };
        match close_leftover(path, *run_id, node, pace) {
            Ok(closing::Leftover::NotOurs | closing::Leftover::Deleted) => None,
            Ok(closing::Leftover::Closed(closing)) => {
                if closing.just_now {
                    self.say(Notice::Recovered {
                        segment: closing.segment.id,
                    });
                }
                Some(closing)
            }
            Ok(closing::Leftover::Corrupt(closing)) => {
                let (shown, remedy) = (path.display(), "`harborseal recover` makes a repaired copy");
                self.warn(format!(
                    "{shown}: what was durable in it is damaged; it is left as it is, {remedy}"
                ));
                Some(closing)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.warn(format!(
                    "cannot recover {}: {error}; it is tried again",
                    path.display()
                ));
                self.leftovers.push(Leftover {
                    path: path.to_owned(),
                    due: Instant::now() + RETRY_FIRST,
                    wait: RETRY_FIRST,
                });
                None
            }
        }
    }

    fn retry_leftovers(&mut self) {
        let now = Instant::now();
        let due: Vec<Leftover> = self
            .leftovers
            .extract_if(.., |leftover| leftover.due <= now)
            .collect();
        for Leftover { path, wait, .. } in due {
            if !path.exists() {
                continue;
            }
            let before = self.leftovers.len();
            if let Some(closing) = self.close(&path) {
                self.catalog.add(closing.segment);
            }
            let wait = (wait * 2).min(RETRY_LAST);
            for leftover in &mut self.leftovers[before..] {
                *leftover = Leftover {
                    path: path.clone(),
                    due: now + wait,
                    wait,
                };
            }
        }
    }

    // ---- Retention ------------------------------------------------------------------------------------------

    fn expire(&mut self) {
        let retention = *self
            .settings
            .retention
            .lock()
            .expect("nobody panics while holding a copy's lock");
        if !retention.deletes() || (self.catalog.is_empty() && self.deletions.is_empty()) {
            return;
        }
        let free_bytes = match sys::free_space(&self.settings.folder) {
            Ok((free_bytes, _)) => free_bytes,
            Err(error) => {
                self.warn(format!(
                    "cannot tell the free space of {}: {error}",
                    self.settings.folder.display()
                ));
                return;
            }
        };
        // What is on its way out counts as gone.
        let leaving: u64 = self
            .deletions
            .values()
            .flat_map(|d| &d.segments)
            .map(|segment| segment.bytes)
            .sum();
        let now_s = sys::realtime_ns() / 1_000_000_000;
        let mut expired = self.catalog.take_expired(retention, now_s, free_bytes + leaving);
        if std::mem::take(&mut self.no_space) && expired.is_empty() && self.deletions.is_empty() {
            // The disk is full below the bounds: the rules would rather lose the oldest than the newest.
            let one_more = Retention {
                max_bytes: Some(self.catalog.bytes().saturating_sub(1)),
                ..retention
            };
            expired = self.catalog.take_expired(one_more, now_s, free_bytes);
        }
        if expired.is_empty() {
            return;
        }
        let entries: Vec<DeletedSegment> = expired
            .iter()
            .map(|(segment, reason)| segment.tombstone(*reason))
            .collect();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tell_shard(Command::Tombstones(ticket, entries));
        let segments = expired.into_iter().map(|(segment, _)| segment).collect();
        self.deletions.insert(
            ticket,
            Deletion {
                segments,
                since: Instant::now(),
            },
        );
    }

    fn delete_due(&mut self) {
        let overdue = |deletion: &Deletion| deletion.since.elapsed() >= TOMBSTONE_PATIENCE;
        let tickets: Vec<u64> = self
            .deletions
            .iter()
            .filter(|(_, d)| overdue(d))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in tickets {
            if let Some(deletion) = self.deletions.remove(&ticket) {
                self.delete(&deletion.segments);
            }
        }
    }

    fn delete(&self, segments: &[ClosedSegment]) {
        for segment in segments {
            match fs::remove_file(&segment.path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => self.warn(format!("cannot delete {}: {error}", segment.path.display())),
            }
        }
        let mut days: Vec<&Path> = segments
            .iter()
            .filter_map(|segment| segment.path.parent())
            .collect();
        days.dedup();
        for day in days {
            // An empty day goes too; one that is not empty refuses, and today's is made again when needed.
            let gone = fs::remove_dir(day).is_ok();
            let folder = if gone { &self.settings.folder } else { day };
            if let Err(error) = sys::sync_directory(folder) {
                self.warn(format!("cannot sync {}: {error}", folder.display()));
            }
        }
    }

    fn tell_shard(&self, command: Command) {
        // A shard that has ended writes no more; the next run finds what is left.
        let _ = self.shard.0.send(command);
        self.shard.1.wake();
    }

    fn warn(&self, message: String) {
        self.say(Notice::Warning(message));
    }

    fn say(&self, notice: Notice) {
        // Without a control thread nobody listens; the work goes on.
        let _ = self.notices.send(notice);
    }
}
