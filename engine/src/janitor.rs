//! The janitor: a thread that deletes what retention says, oldest first, never an open segment.
//!
//! ```text
//!   expired ─▶ tombstone to shard 0 ─▶ durable (or 2 s, or no space to write it) ─▶ unlink ─▶ fsync folder
//! ```
//! The tombstone goes first, so that no crash leaves a segment missing without one. Only when the disk is too full to take it does
//! the deletion come first: then the tombstone follows as soon as there is room.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use harborseal_segment::body::{DeletedSegment, DeletionReason};
use harborseal_segment::ids::SegmentId;

use crate::erasure::watch::Watch;
use crate::log::catalog::{Catalog, ClosedSegment, Note, Retention};
use crate::shard::Command;
use crate::uring::sys::{self, Waker};

/// How often retention looks.
const ROUND: Duration = Duration::from_secs(1);
/// Longest wait for a tombstone before its segment is deleted all the same.
const TOMBSTONE_PATIENCE: Duration = Duration::from_secs(2);

/// What the janitor works with.
pub struct Settings {
    /// `DATA/segments`.
    pub folder: PathBuf,
    /// What to keep; a reload may change it.
    pub retention: Arc<Mutex<Retention>>,
    /// To the recovery thread: segments that were abandoned.
    pub abandoned: Sender<PathBuf>,
    /// What the command line does to keys and segments meanwhile.
    pub watch: Watch,
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
    /// Erasure keys were destroyed: new segments must begin.
    KeysErased,
    /// So many legal holds are in force.
    Holds(u64),
    /// A shard ended before it was told to: the engine cannot go on as it was configured.
    ShardEnded(String),
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
            deletions: HashMap::new(),
            next_ticket: 0,
            no_space: false,
        }
    }

    /// Works until every keeper and shard has hung up.
    pub fn run(mut self) {
        loop {
            match self.notes.recv_timeout(ROUND) {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(note) = self.notes.try_recv() {
                self.take(note);
            }
            self.watch();
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
            Note::Closed(segment) | Note::Found(segment) => {
                let bytes = on_disk(&segment.path).unwrap_or(segment.bytes).min(segment.bytes);
                self.catalog.add(ClosedSegment { bytes, ..segment });
            }
            Note::Abandoned(path) => {
                // Recovery ends with the engine; then the next start finds the file.
                let _ = self.settings.abandoned.send(path);
            }
            Note::Heads(heads) if heads.is_empty() => {}
            Note::Heads(heads) => self.tell_shard(Command::Heads(heads)),
            Note::TombstonesDurable(ticket) => {
                if let Some(deletion) = self.deletions.remove(&ticket) {
                    self.delete(deletion.segments);
                }
            }
            Note::NoSpace => self.no_space = true,
            Note::Trouble(message) => self.warn(message),
        }
    }

    /// Takes notice of what the command line did.
    fn watch(&mut self) {
        let news = self.settings.watch.look();
        if news.keys_erased {
            self.say(Notice::KeysErased);
        }
        if news.catalog_changed {
            self.catalog.refresh(on_disk);
            self.say(Notice::Holds(self.settings.watch.holds()));
        }
        if let Some(trouble) = news.trouble {
            self.warn(trouble);
        }
    }

    /// What a legal hold keeps stays, and is not asked for again until something changes.
    fn not_held(
        &mut self,
        segments: Vec<(ClosedSegment, DeletionReason)>,
    ) -> Vec<(ClosedSegment, DeletionReason)> {
        let mut free = Vec::with_capacity(segments.len());
        for (segment, reason) in segments {
            match self.settings.watch.keeps(&segment.id, &segment.path) {
                true => self.catalog.set_aside(segment),
                false => free.push((segment, reason)),
            }
        }
        free
    }

    fn expire(&mut self) {
        let no_space = std::mem::take(&mut self.no_space);
        let retention = *self
            .settings
            .retention
            .lock()
            .expect("nobody panics while holding a copy's lock");
        if !retention.deletes() || self.catalog.is_empty() {
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
        let taken = self.catalog.take_expired(retention, now_s, free_bytes + leaving);
        let mut expired = self.not_held(taken);
        while no_space && expired.is_empty() && self.deletions.is_empty() {
            let Some(oldest) = self.catalog.take_oldest() else {
                break;
            };
            expired = self.not_held(vec![oldest]);
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
                self.delete(deletion.segments);
            }
        }
    }

    /// Unlinks files. One that cannot be unlinked stays in the books and is tried again.
    fn delete(&mut self, segments: Vec<ClosedSegment>) {
        let mut days: Vec<PathBuf> = segments
            .iter()
            .filter_map(|s| s.path.parent())
            .map(Path::to_owned)
            .collect();
        days.dedup();
        for segment in segments {
            match fs::remove_file(&segment.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    self.warn(format!("cannot delete {}: {error}", segment.path.display()));
                    self.catalog.add(segment);
                }
                _ => {}
            }
        }
        for day in &days {
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

/// What a file takes of the disk: less than its length where chunks were punched out. `None` where there is no file.
fn on_disk(path: &Path) -> Option<u64> {
    let meta = fs::metadata(path).ok()?;
    Some(meta.len().min(meta.blocks() * 512))
}
