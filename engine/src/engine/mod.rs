//! The engine: puts a configuration to work and takes it apart again.
//!
//! ```text
//!   sockets ─▶ shard 0 ── requests ─▶ keeper 0 ─┐                 threads: one shard per CPU (pinned), one keeper per
//!              ⇅ links                          ├─ notes ─▶ janitor         shard, one janitor; control runs elsewhere
//!   sockets ─▶ shard 1 ── requests ─▶ keeper 1 ─┘                 and talks through ports and commands
//! ```
//!
//! A stop is ordered: shards make everything durable and hang up, their keepers close the segments and hang up, then recovery and the janitor end.

mod enrolment;
mod home;
mod levers;
pub mod memory;
mod opened;
mod sockets;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use harborseal_segment::cipher::Backend;
use harborseal_segment::ids::RunId;
use harborseal_segment::keys::wrap;
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::os_random;

use crate::audit::AuditLog;
use crate::chunk::Pool;
use crate::config::{Config, SealBackend};
use crate::erasure::watch::Watch;
use crate::erasure::{ErasureError, learn_erased};
use crate::janitor::{self, Janitor, Notice};
use crate::keystore::Keystore;
use crate::ledger::{Snapshot, StreamLedger};
use crate::log::catalog::{Note, Retention};
use crate::log::files::OsFiles;
use crate::log::keeper::{Keeper, KeeperSettings, Reply};
use crate::log::prepare::Chain;
use crate::log::{Limits, Log, Request};
use crate::port::ShardPort;
use crate::recovery::{Folder, Recovery};
use crate::shard::core::{Core, Settings};
use crate::shard::hold::Hold;
use crate::shard::links::{self, Links, Slots};
use crate::shard::{Command, Ended, Reports, Shard};
use crate::stream::registry::Registry;
use crate::uring::memory::{Region, RegionOptions};
use crate::uring::sys::{self, Waker};
use crate::uring::{Ring, RingOptions, probe};
use enrolment::{Enroller, at_start, no_audit};
pub use enrolment::{Standing, enrolment_of, preview};
use home::Home;
pub use home::node_key_of;
pub use levers::{Levers, Reloaded};
use memory::Plan;
pub use opened::{Opened, open};

/// Why the engine did not start, what mends it, and whether it is the configuration's fault.
#[derive(Debug)]
pub struct StartError {
    /// What went wrong.
    pub message: String,
    /// What mends it; may be empty.
    pub remedy: String,
    /// The configuration asks for something that cannot be, rather than reading or writing having failed.
    pub configuration: bool,
}

impl StartError {
    fn io(what: impl std::fmt::Display, error: &io::Error, remedy: &str) -> StartError {
        StartError {
            message: format!("{what}: {error}"),
            remedy: remedy.to_owned(),
            configuration: false,
        }
    }
}

/// An engine that records.
pub struct Running {
    shards: Vec<RunningShard>,
    keepers: Vec<JoinHandle<()>>,
    janitor: JoinHandle<()>,
    recovery: JoinHandle<()>,
    /// Tells recovery to end.
    stopping: Arc<AtomicBool>,
    /// What the janitor has to say.
    pub notices: Receiver<Notice>,
    /// Where packets are taken.
    pub listen: Vec<SocketAddr>,
    /// What an operator should know of this start. One line each.
    pub notes: Vec<String>,
    retention: Arc<Mutex<Retention>>,
    registry: Arc<Mutex<Arc<Registry>>>,
    home: Home,
    enroller: Arc<Enroller>,
}

struct RunningShard {
    commands: Sender<Command>,
    waker: Waker,
    thread: JoinHandle<Ended>,
}

/// The books of a run that ended.
pub struct Books {
    /// Each shard's last figures.
    pub snapshots: Vec<Snapshot>,
    /// Every stream's ledger.
    pub streams: Vec<StreamLedger>,
    /// What ended a shard before it was told to.
    pub failures: Vec<String>,
}

/// What every shard's thread is given to start with.
struct Plans {
    settings: Settings,
    limits: Limits,
    plan: Plan,
    cpu: usize,
    lock: bool,
    backend: Backend,
    node: Arc<NodeKey>,
    registry: Arc<Registry>,
}

/// Starts the engine. Returns once all rings are armed: packets are being taken. `ports` are the shards' ways to the control thread, one
/// for each CPU of the configuration.
pub fn start(config: &Config, opened: Opened, ports: Vec<ShardPort>) -> Result<Running, StartError> {
    let Opened {
        home,
        sockets,
        mut notes,
        program,
    } = opened;
    let watch = Watch::begin(home.keystore());
    let node = Arc::new(home.node_key()?);
    let audit = Arc::new(AuditLog::open(&config.data_dir, Arc::clone(&node)).map_err(no_audit)?);
    if config.registry.customers.iter().any(|customer| customer.erasable) {
        let learnt = learn_erased(&home.keystore(), &audit, &config.data_dir.join("audit"));
        learnt.map_err(no_keystore)?;
    }
    let enroller = Arc::new(Enroller::new(&config.data_dir, &node, Arc::clone(&audit)));
    let standing = at_start(&enroller, config, program)?;
    let settings = &config.settings;
    let cpus = &settings.shards.cpus;
    let backend = match settings.seal.backend {
        SealBackend::Auto => Backend::fastest(sys::monotonic_ns),
        #[cfg(feature = "aws-lc")]
        SealBackend::AwsLc => Backend::AwsLc,
        SealBackend::Ring => Backend::Ring,
        SealBackend::AesGcm => Backend::AesGcm,
    };
    notes.insert(0, format!("sealing with {}", backend.name()));
    notes.extend(standing.notes());
    notes.extend(opened::memory_for_keys(settings.memory.allow_unlocked)?);
    let listen = sockets.addresses;

    let plan = Plan::new(settings.memory.limit_bytes, cpus.len());
    let wakers: Vec<Waker> = (0..cpus.len())
        .map(|_| Waker::new())
        .collect::<io::Result<_>>()
        .map_err(|error| StartError::io("cannot make an eventfd", &error, "raise `ulimit -n`"))?;
    let lock = true;
    let links = links::connect(&wakers, listen.len(), Slots::USUAL, lock).map_err(|error| {
        StartError::io(
            "cannot allocate memory between shards",
            &error,
            "lower memory.limit",
        )
    })?;

    let run_id = RunId(rand::random());
    let (janitor_notes, notes_of_all) = unbounded();
    let (ready, ready_of_all) = bounded(cpus.len());
    let mut shards = Vec::new();
    let mut keepers = Vec::new();
    let (notices, notices_of_all) = unbounded();
    let per_shard = links.into_iter().zip(sockets.by_shard).zip(&wakers).zip(ports);
    for (index, (((links, sockets), waker), port)) in per_shard.enumerate() {
        let shard = index as u16;
        let plans = Plans {
            settings: shard_settings(config, shard),
            limits: limits(config),
            plan,
            cpu: cpus[index],
            lock,
            backend,
            node: Arc::clone(&node),
            registry: Arc::clone(&standing.registry),
        };
        let (requests, requests_of_shard) = unbounded();
        let (replies, replies_of_keeper) = unbounded();
        let (commands, commands_of_all) = unbounded();
        let reports = Reports {
            shard,
            keeper: requests,
            port,
            janitor: janitor_notes.clone(),
        };
        let keeper = KeeperSettings {
            folder: home.segments.clone(),
            chain: Chain {
                run_id,
                shard: u32::from(shard),
            },
            backend,
            node: Arc::clone(&node),
            audit: Some(Arc::clone(&audit)),
            wrap: |public, place, hint, secret, mut rng| wrap(public, place, hint, secret, &mut rng),
        };
        keepers.push(spawn_keeper(
            keeper,
            index,
            replies,
            waker,
            &janitor_notes,
            requests_of_shard,
            (home.keystore(), &notices),
        )?);
        let body = {
            let (waker, ready) = (waker.clone(), ready.clone());
            let alarm = Alarm {
                thread: format!("shard-{index}"),
                notices: notices.clone(),
            };
            move || {
                let ended = run_shard(
                    plans,
                    links,
                    sockets,
                    &waker,
                    reports,
                    replies_of_keeper,
                    commands_of_all,
                    &ready,
                );
                alarm.hear(&ended);
                ended
            }
        };
        let thread = spawn(&format!("shard-{index}"), body)?;
        shards.push(RunningShard {
            commands,
            waker: waker.clone(),
            thread,
        });
    }
    drop(ready);
    let shard_notes = await_ready(&ready_of_all, &shards, settings.memory.allow_unlocked)?;
    notes.extend(shard_notes);

    let retention = Arc::new(Mutex::new(retention_of(config)));
    let (abandoned, abandoned_of_run) = unbounded();
    let stopping = Arc::new(AtomicBool::new(false));
    let recovery = Recovery {
        attic: Folder(home.segments.clone(), audit),
        run_id,
        node,
        bytes_per_s: settings.recovery.rate_limit_bytes_per_s,
        abandoned: abandoned_of_run,
        notes: janitor_notes,
        notices: notices.clone(),
        stopping: Arc::clone(&stopping),
    };
    let recovery = spawn("recovery", move || recovery.run())?;
    let janitor_settings = janitor::Settings {
        folder: home.segments.clone(),
        retention: Arc::clone(&retention),
        abandoned,
        watch,
    };
    let to_first = (shards[0].commands.clone(), shards[0].waker.clone());
    let janitor = Janitor::new(janitor_settings, notes_of_all, to_first, notices);
    let janitor = spawn("janitor", move || janitor.run())?;
    Ok(Running {
        shards,
        keepers,
        janitor,
        recovery,
        stopping,
        notices: notices_of_all,
        listen,
        notes,
        home,
        retention,
        enroller,
        registry: Arc::new(Mutex::new(Arc::clone(&standing.registry))),
    })
}

/// Nothing erasable is recorded under keys of which nobody knows whether they were destroyed.
fn no_keystore(error: ErasureError) -> StartError {
    StartError {
        message: error.to_string(),
        remedy:
            "restore DATA/keys/erase as docs/OPERATING.md says, or take `erasable` out of the configuration"
                .to_owned(),
        configuration: false,
    }
}

/// Tells people when a thread the engine cannot do without ends before it was told to, by an error or a panic.
struct Alarm {
    thread: String,
    notices: Sender<Notice>,
}

impl Alarm {
    fn hear(&self, ended: &Ended) {
        if let Some(error) = &ended.failure {
            self.sound(&error.to_string());
        }
    }

    fn sound(&self, why: &str) {
        // Nobody may be listening any more, at the end of a run.
        let _ = self
            .notices
            .send(Notice::ShardEnded(format!("{} ended: {why}", self.thread)));
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.sound("it panicked");
        }
    }
}

impl Running {
    /// The ways to ask something of it.
    pub fn levers(&self) -> Levers {
        let of_shard = |shard: &RunningShard| (shard.commands.clone(), shard.waker.clone());
        Levers {
            shards: self.shards.iter().map(of_shard).collect(),
            retention: Arc::clone(&self.retention),
            enroller: Arc::clone(&self.enroller),
            registry: Arc::clone(&self.registry),
        }
    }

    /// Waits for everything to end, in order, and returns the books.
    ///
    /// # Panics
    /// Passes on the panic of a thread that had one.
    pub fn join(self) -> Books {
        let mut books = Books {
            snapshots: Vec::new(),
            streams: Vec::new(),
            failures: Vec::new(),
        };
        for (index, shard) in self.shards.into_iter().enumerate() {
            drop(shard.commands);
            let Ended {
                snapshot,
                streams,
                failure,
            } = joined(shard.thread);
            books.snapshots.push(snapshot);
            books.streams.extend(streams);
            books
                .failures
                .extend(failure.map(|error| format!("shard {index} ended: {error}")));
        }
        self.keepers.into_iter().for_each(joined);
        self.stopping.store(true, Ordering::Release);
        joined(self.recovery);
        joined(self.janitor);
        drop(self.home);
        books
    }
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| StartError::io(format!("cannot start thread {name}"), &error, "raise `ulimit -u`"))
}

fn spawn_keeper(
    settings: KeeperSettings,
    index: usize,
    replies: Sender<Reply>,
    waker: &Waker,
    janitor: &Sender<Note>,
    requests: Receiver<Request>,
    (keystore, notices): (Keystore, &Sender<Notice>),
) -> Result<JoinHandle<()>, StartError> {
    let alarm = Alarm {
        thread: format!("keeper-{index}"),
        notices: notices.clone(),
    };
    let keeper =
        Keeper::new(settings, OsFiles, Box::new(os_random()), janitor.clone()).with_erase_keys(keystore);
    let waker = waker.clone();
    spawn(&format!("keeper-{index}"), move || {
        let _alarm = alarm; // sounds when a panic drops it
        keeper.run(&requests, &replies, &waker);
    })
}

fn shard_settings(config: &Config, shard: u16) -> Settings {
    let settings = &config.settings;
    Settings {
        shard,
        shards: settings.shards.cpus.len() as u16,
        chunk_deadline_ns: settings.chunk.deadline.as_nanos() as u64,
        segment_max_age_ns: settings.segment.max_age.as_nanos() as u64,
        segment_max_bytes: settings.segment.max_bytes,
    }
}

fn retention_of(config: &Config) -> Retention {
    let retention = &config.settings.retention;
    Retention {
        max_age_s: retention.max_age.map(|age| age.as_secs()),
        max_bytes: retention.max_bytes,
        min_free_bytes: retention.min_free_bytes,
    }
}

fn limits(config: &Config) -> Limits {
    let settings = &config.settings;
    Limits {
        segment_max_age_ns: settings.segment.max_age.as_nanos() as u64,
        segment_max_bytes: settings.segment.max_bytes,
        commit_interval_ns: settings.commit.interval.as_nanos() as u64,
    }
}

/// What a shard says when it takes packets.
struct ShardReady {
    locked: bool,
    lock_errno: Option<i32>,
    notes: Vec<String>,
}

type Readiness = Result<ShardReady, StartError>;

#[allow(clippy::too_many_arguments)] // everything a thread owns, handed over once
fn run_shard(
    plans: Plans,
    links: Links,
    sockets: Vec<UdpSocket>,
    waker: &Waker,
    reports: Reports,
    replies: Receiver<Reply>,
    commands: Receiver<Command>,
    ready: &Sender<Readiness>,
) -> Ended {
    let shard = reports.shard;
    let armed = build(&plans, waker).and_then(|(core, ring, mut report)| {
        report.locked &= links.are_locked();
        let mut shard = Shard::new(core, ring, links, sockets, reports, replies, commands);
        let remedy = "see `harborseal check`";
        shard
            .arm()
            .map_err(|error| StartError::io("cannot arm the ring", &error, remedy))?;
        Ok((shard, report))
    });
    match armed {
        Ok((shard, report)) => {
            // Whoever started us has given up if it does not listen; then the next command is a stop.
            let _ = ready.send(Ok(report));
            shard.run()
        }
        Err(error) => {
            let failure = io::Error::other(error.message.clone());
            let _ = ready.send(Err(error));
            Ended {
                snapshot: Snapshot::new(shard),
                streams: Vec::new(),
                failure: Some(failure),
            }
        }
    }
}

/// Allocates a shard's memory and makes its ring, on its own CPU so that both are near.
fn build(plans: &Plans, waker: &Waker) -> Result<(Core, Ring, ShardReady), StartError> {
    let Plans {
        settings,
        limits,
        plan,
        cpu,
        lock,
        backend,
        node,
        registry,
    } = plans;
    sys::pin_to_cpu(*cpu)
        .map_err(|error| StartError::io(format!("cannot run on CPU {cpu}"), &error, "see shards.cpus"))?;
    let no_memory =
        |error: io::Error| StartError::io("cannot allocate the chunk pool", &error, "lower memory.limit");
    let region = Region::new(RegionOptions {
        lock: *lock,
        ..RegionOptions::plaintext(plan.pool_bytes)
    })
    .map_err(no_memory)?;
    let hold = if settings.shards > 1 {
        Some(Hold::new(*lock).map_err(no_memory)?)
    } else {
        None
    };
    let options = RingOptions {
        receive_bytes: plan.receive_bytes,
        lock: *lock,
        ..RingOptions::default()
    };
    let ring = Ring::new(&options, waker)
        .map_err(|error| StartError::io("cannot make an io_uring", &error, &probe::ring_remedy(&error)))?;
    let hold_is_locked = hold.as_ref().is_none_or(Hold::is_locked);
    let (pool_report, ring_report) = (region.report(), ring.report());
    let of_ring = ring_report.buffers.memory;
    let mut notes = Vec::new();
    if !ring_report.buffers.incremental {
        notes.push(
            "receive buffers are not incremental: this kernel lacks min_left; more memory per datagram"
                .to_owned(),
        );
    }
    let report = ShardReady {
        locked: pool_report.locked && of_ring.locked && hold_is_locked,
        lock_errno: pool_report.lock_errno.or(of_ring.lock_errno),
        notes,
    };
    let log = Log::new(*limits, Arc::clone(node), *backend, Box::new(os_random()));
    let core = Core::new(*settings, Arc::clone(registry), Pool::new(region), log, hold);
    Ok((core, ring, report))
}

/// Waits for every shard; if one fails, or memory is not locked though it must be, all are stopped.
fn await_ready(
    ready: &Receiver<Readiness>,
    shards: &[RunningShard],
    allow_unlocked: bool,
) -> Result<Vec<String>, StartError> {
    let stop_all = |error: StartError| {
        for shard in shards {
            // One that has ended already needs no telling.
            let _ = shard.commands.send(Command::Stop);
            shard.waker.wake();
        }
        error
    };
    let mut notes = Vec::new();
    for _ in shards {
        let gone = |_| StartError {
            message: "a shard ended while starting".into(),
            remedy: String::new(),
            configuration: false,
        };
        let ready = ready
            .recv()
            .map_err(gone)
            .and_then(|ready| ready)
            .map_err(stop_all)?;
        if !ready.locked {
            let unlocked = memory::unlocked(ready.lock_errno);
            if !allow_unlocked {
                return Err(stop_all(unlocked));
            }
            notes.push(format!("{}; {}", unlocked.message, unlocked.remedy));
        }
        notes.extend(ready.notes);
    }
    notes.sort();
    notes.dedup();
    Ok(notes)
}
