//! The keeper of one shard, as shipped, over the simulated file system.
//!
//! What it asks of its files is noted while it works, with what will come of it, and happens one step after the other in virtual time:
//! a crash can fall between any two.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use crossbeam::channel::{Receiver, unbounded};
use harborseal::log::Request;
use harborseal::log::catalog::Note;
use harborseal::log::files::Files;
use harborseal::log::keeper::{Keeper, KeeperSettings, Reply};
use harborseal::log::prepare::Chain;
use harborseal_segment::cipher::Backend;
use harborseal_segment::node::NodeKey;
use rand::rngs::StdRng;
use rand::{CryptoRng, RngExt, SeedableRng};

use super::canary::Canary;
use super::keys::{Shared, remembered_wrap};
use super::plan::{KeeperFaults, S};
use super::platter::{FileId, Platter, SyncKind};
use super::tally::{Fired, Tally};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Where segments are.
pub const FOLDER: &str = "segments";

/// Requests that may wait for a keeper: a segment to prepare and one to extend, and those that ended while it worked, two each.
const MAX_REQUESTS: usize = 24;

/// What the keeper is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Nothing that takes time.
    Other,
    /// Making a segment ready.
    Prepare,
    /// Allocating more space.
    Extend,
    /// Writing index and footer.
    Close,
}

/// One step, to happen later.
enum Step {
    SyncFolder(PathBuf),
    Create(FileId, PathBuf),
    Allocate(FileId, u64),
    Truncate(FileId, u64),
    Write(FileId, u64, Rc<[u8]>),
    Sync(FileId, SyncKind),
    Remove(FileId),
}

/// What the keeper's files share with who carries the steps out.
struct Bench {
    platter: Rc<RefCell<Platter>>,
    names: HashMap<PathBuf, FileId>,
    /// While the disk is nearly full: how much may be allocated in all.
    full_at: Option<u64>,
    steps: VecDeque<(u64, Step)>,
    job: Job,
    now_ns: u64,
    real_ns: u64,
    quiet_ns: u64,
    faults: KeeperFaults,
    canary: Option<Canary>,
    rng: StdRng,
    tally: Tally,
}

/// The simulated file system as the keeper sees it.
struct SimFiles(Rc<RefCell<Bench>>);

/// A keeper and what it has still to do.
pub struct SimKeeper {
    keeper: Keeper<SimFiles>,
    bench: Rc<RefCell<Bench>>,
    notes: Receiver<Note>,
    queue: VecDeque<Request>,
    /// The answer to be given when all steps are done.
    reply: Option<Option<Reply<FileId>>>,
    /// What the keeper told the janitor.
    pub told: Vec<Note>,
    random: Arc<Mutex<StdRng>>,
    generator: Box<dyn Fn(u64) -> StdRng>,
    attempts: u64,
}

/// What a keeper is made of.
pub struct KeeperParts {
    /// This run and shard.
    pub chain: Chain,
    /// Sealing library.
    pub backend: Backend,
    /// The node's key.
    pub node: Arc<NodeKey>,
    /// Where the files are.
    pub platter: Rc<RefCell<Platter>>,
    /// What fails.
    pub faults: KeeperFaults,
    /// Until when, monotonic.
    pub quiet_ns: u64,
    /// Its faults are drawn from this.
    pub seed: u64,
    /// What its segments are drawn from, at each attempt.
    pub generator: Box<dyn Fn(u64) -> StdRng>,
    /// A planted fault.
    pub canary: Option<Canary>,
    /// Where to count.
    pub tally: Tally,
}

impl SimKeeper {
    /// A keeper that has nothing to do.
    pub fn new(parts: KeeperParts) -> Self {
        let KeeperParts {
            chain,
            backend,
            node,
            platter,
            faults,
            quiet_ns,
            seed,
            generator,
            canary,
            tally,
        } = parts;
        let bench = Bench {
            platter,
            names: HashMap::new(),
            full_at: None,
            steps: VecDeque::new(),
            job: Job::Other,
            now_ns: 0,
            real_ns: 0,
            quiet_ns,
            faults,
            canary,
            rng: StdRng::seed_from_u64(seed),
            tally,
        };
        let bench = Rc::new(RefCell::new(bench));
        let settings = KeeperSettings {
            folder: FOLDER.into(),
            chain,
            backend,
            node,
            audit: None,
            wrap: remembered_wrap,
        };
        let shared = Arc::new(Mutex::new(generator(0)));
        let random: Box<dyn CryptoRng + Send> = match canary {
            Some(Canary::RandomnessRepeats) => Box::new(Repeats),
            _ => Box::new(Shared(Arc::clone(&shared))),
        };
        let (janitor, notes) = unbounded();
        SimKeeper {
            keeper: Keeper::new(settings, SimFiles(Rc::clone(&bench)), random, janitor),
            bench,
            notes,
            queue: VecDeque::new(),
            reply: None,
            told: Vec::new(),
            random: shared,
            generator,
            attempts: 0,
        }
    }

    /// More work. A keeper that fell ever further behind would take ever more memory.
    pub fn push(&mut self, request: Request) {
        self.queue.push_back(request);
        assert!(
            self.queue.len() <= MAX_REQUESTS,
            "{} requests wait for a keeper",
            self.queue.len()
        );
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.reply.is_none()
    }

    /// What it is at.
    pub fn job(&self) -> Job {
        if self.reply.is_some() {
            self.bench.borrow().job
        } else {
            Job::Other
        }
    }

    /// Faults are over.
    pub fn end_of_faults(&mut self, now_ns: u64) {
        let quiet_ns = &mut self.bench.borrow_mut().quiet_ns;
        *quiet_ns = now_ns.min(*quiet_ns);
    }

    /// When it goes on.
    pub fn next_due_ns(&self) -> Option<u64> {
        match self.reply {
            Some(_) => self
                .bench
                .borrow()
                .steps
                .front()
                .map(|(due_ns, _)| *due_ns)
                .or(Some(0)),
            None => (!self.queue.is_empty()).then_some(0),
        }
    }

    /// Does the steps that are due, and begins what is next; returns what the shard hears.
    pub fn work(&mut self, now_ns: u64, real_ns: u64) -> Vec<Reply<FileId>> {
        let mut replies = Vec::new();
        loop {
            self.bench.borrow_mut().carry_out_due(now_ns);
            if !self.bench.borrow().steps.is_empty() {
                return replies;
            }
            if let Some(reply) = self.reply.take() {
                if let Some(reply) = &reply {
                    let tally = &self.bench.borrow().tally;
                    tally.tell(now_ns, || format!("keeper: {}", outcome(reply)));
                }
                replies.extend(reply);
                self.told.extend(self.notes.try_iter());
            }
            let Some(request) = self.queue.pop_front() else {
                return replies;
            };
            self.bench.borrow_mut().begin(&request, now_ns, real_ns);
            if matches!(request, Request::Prepare(_)) {
                *self.random.lock().expect("one thread uses it") = (self.generator)(self.attempts);
                self.attempts += 1;
            }
            self.reply = Some(self.keeper.carry_out(request));
        }
    }
}

impl Bench {
    fn begin(&mut self, request: &Request, now_ns: u64, real_ns: u64) {
        (self.now_ns, self.real_ns) = (now_ns, real_ns);
        self.tally.tell(now_ns, || format!("keeper: {}", words(request)));
        self.job = match request {
            Request::Prepare(_) => Job::Prepare,
            Request::Extend { .. } => Job::Extend,
            Request::Close { .. } => Job::Close,
            _ => Job::Other,
        };
    }

    fn carry_out_due(&mut self, now_ns: u64) {
        while let Some((_, step)) = self.steps.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            let mut platter = self.platter.borrow_mut();
            match step {
                Step::SyncFolder(folder) => platter.sync_folder(&folder),
                Step::Create(id, path) => platter.create(id, &path),
                Step::Allocate(id, end) => {
                    let len = platter.file(id).len;
                    platter.set_len(id, end.max(len));
                }
                Step::Truncate(id, len) => platter.set_len(id, len),
                Step::Write(id, offset, bytes) => {
                    let write = platter.begin_write(id, offset, &bytes);
                    platter.land(write, bytes.len());
                }
                Step::Sync(id, kind) => {
                    let sync = platter.begin_sync(id, kind);
                    match self.rng.random_bool(self.faults.lie) {
                        true => platter.lie_sync(&sync),
                        false => platter.end_sync(&sync),
                    }
                }
                Step::Remove(id) => platter.remove(id),
            }
        }
    }

    fn later(&mut self, step: Step) {
        let last_ns = self.steps.back().map_or(self.now_ns, |(due_ns, _)| *due_ns);
        let mut takes_ns = self.rng.random_range(20_000..1_500_000);
        if self.now_ns < self.quiet_ns && self.faults.slowness > 1 {
            takes_ns = (takes_ns * self.faults.slowness).min(S / 20);
            self.tally.fire(Fired::SlowKeeper);
        }
        self.steps.push_back((last_ns + takes_ns, step));
    }

    /// An error, if one is due in what the keeper is at.
    fn fault(&mut self) -> io::Result<()> {
        let (probability, fired) = match self.job {
            Job::Prepare => (self.faults.prepare, Fired::PrepareFailed),
            Job::Extend => (self.faults.extend, Fired::ExtendFailed),
            Job::Close => (self.faults.close, Fired::CloseFailed),
            Job::Other => return Ok(()),
        };
        if self.now_ns < self.quiet_ns && self.rng.random_bool(probability) {
            self.tally.fire(fired);
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn skips_sync(&self) -> bool {
        self.canary == Some(Canary::PrepareWithoutSync) && self.job == Job::Prepare
    }
}

impl SimFiles {
    fn sync(&mut self, path: &Path, kind: SyncKind) -> io::Result<()> {
        let mut bench = self.0.borrow_mut();
        let id = bench.id(path)?;
        bench.fault()?;
        if !bench.skips_sync() {
            bench.later(Step::Sync(id, kind));
        }
        Ok(())
    }
}

impl Files for SimFiles {
    type File = FileId;

    fn now_s(&self) -> u64 {
        self.0.borrow().real_ns / S
    }

    fn create_folder(&mut self, folder: &Path) -> io::Result<()> {
        let mut bench = self.0.borrow_mut();
        bench.fault()?;
        bench.platter.borrow_mut().create_folder(folder);
        Ok(())
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        let mut bench = self.0.borrow_mut();
        bench.fault()?;
        if bench.canary != Some(Canary::NameNotSynced) {
            bench.later(Step::SyncFolder(folder.to_owned()));
        }
        Ok(())
    }

    fn create(&mut self, path: &Path) -> io::Result<FileId> {
        let mut bench = self.0.borrow_mut();
        bench.fault()?;
        if bench.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = bench.platter.borrow_mut().reserve();
        bench.names.insert(path.to_owned(), id);
        bench.later(Step::Create(id, path.to_owned()));
        Ok(id)
    }

    fn allocate(&mut self, file: &FileId, end: u64) -> io::Result<()> {
        let mut bench = self.0.borrow_mut();
        bench.fault()?;
        let (from_ns, to_ns) = bench.faults.full_ns;
        let full = (from_ns..to_ns).contains(&bench.now_ns) && bench.now_ns < bench.quiet_ns;
        let (has, used) = bench.platter.borrow().used(*file);
        if !full {
            bench.full_at = None;
        }
        let left_bytes = bench.faults.left_bytes;
        let most = *bench.full_at.get_or_insert(used + left_bytes);
        if full && used + end.saturating_sub(has) > most {
            let fired = if bench.job == Job::Prepare {
                Fired::PrepareNoSpace
            } else {
                Fired::ExtendNoSpace
            };
            bench.tally.fire(fired);
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        bench.later(Step::Allocate(*file, end));
        Ok(())
    }

    fn write(&mut self, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut bench = self.0.borrow_mut();
        let id = bench.id(path)?;
        if bench.job == Job::Close {
            let (len, _) = bench.platter.borrow().used(id);
            let end = offset + bytes.len() as u64;
            assert!(
                end < len,
                "a tail up to {end} in a file of {len}: a footer could be its end before all of it is durable"
            );
        }
        if let Err(error) = bench.fault() {
            // Some of it may have been written.
            let part = bench.rng.random_range(0..=bytes.len());
            bench.later(Step::Write(id, offset, bytes[..part].into()));
            return Err(error);
        }
        bench.later(Step::Write(id, offset, bytes.into()));
        Ok(())
    }

    fn sync_data(&mut self, path: &Path) -> io::Result<()> {
        self.sync(path, SyncKind::Data)
    }

    fn sync_all(&mut self, path: &Path) -> io::Result<()> {
        self.sync(path, SyncKind::All)
    }

    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()> {
        let mut bench = self.0.borrow_mut();
        let id = bench.id(path)?;
        bench.fault()?;
        bench.later(Step::Truncate(id, len));
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let mut bench = self.0.borrow_mut();
        let id = bench.id(path)?;
        bench.later(Step::Remove(id));
        Ok(())
    }
}

fn words(request: &Request) -> String {
    match request {
        Request::Prepare(order) => format!(
            "prepare number {}, {} streams",
            order.chain_seq,
            order.streams.len()
        ),
        Request::Extend { segment, from, bytes } => format!("extend {segment:?} from {from} by {bytes}"),
        Request::Close { segment, .. } => format!("close {segment:?}"),
        Request::Abandon(segment) => format!("abandon {segment:?}"),
        Request::Discard(segment) => format!("discard {segment:?}"),
        Request::TombstonesDurable(ticket) => format!("tombstones {ticket} are durable"),
        Request::NoSpace => "no space".to_owned(),
    }
}

fn outcome(reply: &Reply<FileId>) -> String {
    match reply {
        Reply::Prepared(prepared, _) => {
            let (handle, id, end) = (prepared.handle, prepared.origin.segment_id, prepared.alloc_end);
            format!("{handle:?} is prepared: {id}, {end} bytes")
        }
        Reply::PrepareFailed(error) => format!("nothing is prepared: {error}"),
        Reply::Extended(handle, result) => format!("{handle:?} is extended: {result:?}"),
        Reply::Closed(handle, ..) => format!("{handle:?} is closed"),
        Reply::Released(handle) => format!("{handle:?} is released"),
    }
}

/// Randomness that is none.
struct Repeats;

impl rand::TryRng for Repeats {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0x1234_5678)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0x1234_5678_9abc_def0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(0x42);
        Ok(())
    }
}

impl rand::TryCryptoRng for Repeats {}
