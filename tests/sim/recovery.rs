//! Recovery of what a crash left, as shipped: [`harborseal::recovery`] looks back, and its steps fail, or are cut short by another crash.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam::channel::{Receiver, never, unbounded};
use harborseal::archive::closing::OldFile;
use harborseal::archive::find::{FindError, Found};
use harborseal::janitor::Notice;
use harborseal::log::catalog::Note;
use harborseal::recovery::{Attic, Recovery};
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::node::NodeKey;
use harborseal_segment::source::Source;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::platter::{FileId, Platter, SyncKind};
use super::tally::{Fired, Tally};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What can happen at each step of it.
pub struct Chances {
    /// Power fails.
    pub crash: f64,
    /// The step fails.
    pub error: f64,
}

/// What looking back came to.
pub struct Look {
    /// What it told the janitor.
    pub notes: Vec<Note>,
    /// What it told people.
    pub warnings: Vec<String>,
    /// Power failed.
    pub cut_short: bool,
    /// Files that it would try again.
    pub later: usize,
}

/// Power, and the health of the disk, while recovery works.
struct Weather {
    chances: Chances,
    rng: RefCell<StdRng>,
    cut_short: Cell<bool>,
    stopping: Arc<AtomicBool>,
    tally: Tally,
}

/// The files as recovery sees them.
struct SimAttic {
    platter: Rc<RefCell<Platter>>,
    weather: Rc<Weather>,
}

/// One of them.
struct SimOld {
    platter: Rc<RefCell<Platter>>,
    weather: Rc<Weather>,
    id: FileId,
    path: PathBuf,
    len: u64,
}

/// Looks at all files of runs other than `present`, once.
pub fn look_back(
    platter: &Rc<RefCell<Platter>>,
    node: &Arc<NodeKey>,
    present: RunId,
    seed: u64,
    chances: Chances,
    tally: &Tally,
) -> Look {
    let stopping = Arc::new(AtomicBool::new(false));
    let weather = Rc::new(Weather {
        chances,
        rng: RefCell::new(StdRng::seed_from_u64(seed)),
        cut_short: Cell::new(false),
        stopping: Arc::clone(&stopping),
        tally: tally.clone(),
    });
    let (notes, of_janitor) = unbounded();
    let (notices, of_people) = unbounded();
    let recovery = Recovery {
        attic: SimAttic {
            platter: Rc::clone(platter),
            weather: Rc::clone(&weather),
        },
        run_id: present,
        node: Arc::clone(node),
        bytes_per_s: u64::MAX,
        abandoned: never(),
        notes,
        notices,
        stopping,
    };
    let later = recovery.look_back(Instant::now()).len();
    let warnings = told(&of_people, tally);
    Look {
        notes: of_janitor.try_iter().collect(),
        warnings,
        cut_short: weather.cut_short.get(),
        later,
    }
}

fn told(notices: &Receiver<Notice>, tally: &Tally) -> Vec<String> {
    let mut warnings = Vec::new();
    for notice in notices.try_iter() {
        match notice {
            Notice::Recovered { .. } => tally.fire(Fired::TailClosed),
            Notice::Warning(warning) => warnings.push(warning),
            Notice::RecoveryDone { .. } | Notice::ShardEnded(_) | Notice::KeysErased | Notice::Holds(_) => {}
        }
    }
    warnings
}

impl Weather {
    /// Before each step: may it be done?
    fn step(&self) -> io::Result<()> {
        let mut rng = self.rng.borrow_mut();
        if !self.cut_short.get() && rng.random_bool(self.chances.crash) {
            self.tally.fire(Fired::CrashedRecovering);
            self.cut_short.set(true);
            self.stopping.store(true, Ordering::Release);
        }
        if self.cut_short.get() {
            return Err(io::Error::other("power failed"));
        }
        if rng.random_bool(self.chances.error) {
            self.tally.fire(Fired::RecoveryFailed);
            let errno = if rng.random() { EIO } else { ENOSPC };
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(())
    }
}

impl Attic for SimAttic {
    type File = SimOld;

    fn files(&self) -> Result<Found, FindError> {
        let platter = self.platter.borrow();
        let mut segments: Vec<PathBuf> = platter.files().map(|(_, file)| file.path.clone()).collect();
        segments.sort();
        Ok(Found {
            segments,
            ..Found::default()
        })
    }

    fn open(&self, path: &Path) -> io::Result<SimOld> {
        self.weather.step()?;
        let platter = self.platter.borrow();
        let id = platter.find(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(SimOld {
            platter: Rc::clone(&self.platter),
            weather: Rc::clone(&self.weather),
            id,
            path: path.to_owned(),
            len: platter.file(id).len,
        })
    }

    fn now_s(&self) -> u64 {
        self.platter.borrow().now_s
    }

    fn announce(&self, _: SegmentId, _: [u8; 32]) -> io::Result<()> {
        Ok(())
    }
}

impl Source for SimOld {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.platter.borrow().file(self.id).source().read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> u64 {
        self.platter.borrow().file(self.id).source().next_data(offset)
    }
}

impl SimOld {
    fn must_not_touch(&self, from: u64) {
        let platter = self.platter.borrow();
        let file = platter.file(self.id);
        assert!(
            file.lied || from >= file.watermark,
            "{}: recovery changes what is below the watermark",
            self.path.display()
        );
    }

    fn sync(&self, kind: SyncKind) -> io::Result<()> {
        self.weather.step()?;
        let mut platter = self.platter.borrow_mut();
        let sync = platter.begin_sync(self.id, kind);
        platter.end_sync(&sync);
        Ok(())
    }
}

impl SimOld {
    fn tell(&self, what: &str) {
        let path = self.path.display();
        self.weather.tally.tell(0, || format!("recovery: {path}: {what}"));
    }
}

impl OldFile for SimOld {
    fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> io::Result<bool> {
        Ok(true) // whoever had it has ended
    }

    fn modified_s(&self) -> io::Result<u64> {
        Ok(self.platter.borrow().file(self.id).modified_s)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.must_not_touch(len);
        self.weather.step()?;
        self.platter.borrow_mut().set_len(self.id, len);
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.must_not_touch(offset);
        self.tell("writes its tail");
        let may = self.weather.step();
        let mut platter = self.platter.borrow_mut();
        let write = platter.begin_write(self.id, offset, &bytes.into());
        match may {
            Ok(()) => platter.land(write, bytes.len()),
            // Some of it may have been written, and may be on the disk.
            Err(_) if self.weather.cut_short.get() => {}
            Err(_) => {
                let part = self.weather.rng.borrow_mut().random_range(0..=bytes.len());
                platter.land(write, part);
            }
        }
        may
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(SyncKind::Data)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(SyncKind::All)
    }

    fn again(mut self) -> io::Result<Self> {
        self.weather.step()?;
        self.len = self.platter.borrow().file(self.id).len;
        Ok(self)
    }

    fn delete(&self) -> io::Result<()> {
        self.weather.step()?;
        let mut platter = self.platter.borrow_mut();
        platter.remove(self.id);
        self.tell("deletes it");
        // If a shard had used it, what it stored will be missed.
        platter.file_mut(self.id).in_use = false;
        self.weather.tally.fire(Fired::UnusedFound);
        drop(platter);
        self.weather.step()?;
        if let Some(day) = self.path.parent() {
            self.platter.borrow_mut().sync_folder(day);
        }
        Ok(())
    }
}
