//! `harborseal run`: the daemon.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam::channel::Receiver;

use super::error::{CliError, ExitStatus};
use crate::config::{Config, ConfigError};
use crate::control::{Control, Handle, Log, Options, Ready, Reload};
use crate::engine::{self, Levers, Running, StartError};
use crate::janitor::Notice;
use crate::process::confine::Reach;
use crate::process::{self, Protection};
use crate::text::{Plain, counted};
use crate::uring::memory::keep_heap_in_small_pages;

/// Record what the cameras of a configuration send, until SIGTERM or SIGINT: the daemon.
///
/// Receives RTP, seals every packet for the customer who owns it, and appends it durably to segments below data_dir. A line that
/// begins with "ready" says that all sockets are bound and packets are being taken. SIGHUP reads the configuration again: cameras and
/// customers come and go without a restart. At the end the loss ledger is printed: received = stored + dropped, by reason.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, as config/engine.toml explains it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What goes to stdout: nothing but "ready", or every event as a JSON object per line
    #[arg(long, value_enum, default_value_t = Log::Text)]
    log: Log,
}

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// How long a reload may take until it is reported as late; it goes on all the same.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    keep_heap_in_small_pages();
    process::make_files_private();
    let mut protections = process::begin();
    let config = Arc::new(Config::load(&args.config)?);
    let listener = listen(config.settings.control.listen)?;
    let opened = engine::open(&config).map_err(start_error)?;
    // The first thread starts below: what a thread is kept from, its children are.
    protections.extend(process::confine(&reach(&config)));
    all_in_force(&protections, &config)?;
    let levers = Arc::new(OnceLock::new());
    let options = Options {
        shards: config.settings.shards.cpus.len() as u16,
        log: args.log,
        progress_every: PROGRESS,
    };
    let reload = reload(Arc::clone(&config), Arc::clone(&levers));
    let (control, ports) = Control::start(options, listener, reload)
        .map_err(|error| CliError::io(format!("cannot start the control plane: {error}")))?;
    let running = engine::start(&config, opened, ports).map_err(start_error)?;
    protections.push(process::settle());
    if let Err(error) = all_in_force(&protections, &config) {
        running.levers().stop();
        running.join();
        return Err(error);
    }
    // Set once, here; the closure above reads it.
    let _ = levers.set(running.levers());
    control.ready(Ready {
        listen: running.listen.clone(),
        control: control.address(),
        shards: config.settings.shards.cpus.len(),
        cameras: config.registry.cameras.len(),
        customers: config.registry.customers.len(),
        notes: notes(&running, &protections),
    });
    let crier = cry(running.notices.clone(), control.handle(), running.levers())?;
    control.wait();
    running.levers().stop();
    let books = running.join();
    crier
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let failed = !books.failures.is_empty();
    let last = control.finish(books.snapshots, books.streams);
    if failed || !last.balances() {
        return Err(CliError::io("the run did not end as it should; see above"));
    }
    Ok(ExitStatus::Ok)
}

/// Binds where figures are served, if anywhere.
fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, CliError> {
    let Some(address) = address else { return Ok(None) };
    let refused = |error| {
        CliError::io(format!("cannot start the control plane on {address}: {error}"))
            .remedy("see control.listen")
    };
    TcpListener::bind(address).map(Some).map_err(refused)
}

/// What it reads and writes from now on.
pub(super) fn reach(config: &Config) -> Reach {
    Reach::of_engine(
        &config.path,
        &config.data_dir,
        &config.folders,
        &config.settings.process.read,
    )
}

/// Where the configuration insists on the sandbox, what is lacking of it is an error.
fn all_in_force(protections: &[Protection], config: &Config) -> Result<(), CliError> {
    let lacking = protections.iter().find(|protection| !protection.in_force);
    match lacking.filter(|_| config.settings.process.require_sandbox) {
        None => Ok(()),
        Some(lacking) => Err(CliError::usage(format!(
            "process.require_sandbox is set, and {} is not in force: {}",
            lacking.name, lacking.detail
        ))
        .remedy(&lacking.remedy)),
    }
}

/// What an operator should know of this start.
fn notes(running: &Running, protections: &[Protection]) -> Vec<String> {
    let lacking = protections.iter().filter(|protection| !protection.in_force);
    let told = lacking.map(
        |Protection {
             name, detail, remedy, ..
         }| { format!("not fully protected: {name}: {detail}; {remedy}") },
    );
    running.notes.iter().cloned().chain(told).collect()
}

fn start_error(error: StartError) -> CliError {
    let StartError {
        message,
        remedy,
        configuration,
    } = error;
    let error = if configuration {
        CliError::usage(message)
    } else {
        CliError::io(message)
    };
    if remedy.is_empty() {
        error
    } else {
        error.remedy(remedy)
    }
}

/// SIGHUP: the whole file is read and checked before anything changes. What only a restart can change is named.
fn reload(running: Arc<Config>, levers: Arc<OnceLock<Levers>>) -> Reload {
    Arc::new(move || {
        let new = Config::load(&running.path).map_err(|error| refused(&error))?;
        let levers = levers
            .get()
            .ok_or_else(|| "the engine is still starting".to_owned())?;
        let reloaded = levers.reload(&new, RELOAD_PATIENCE)?;
        let noted = |text: String| [vec![text], reloaded.notes.clone()].concat().join("; ");
        if !reloaded.in_force {
            return Ok(noted(
                "accepted; it takes effect with the next segment, which the disk does not take yet"
                    .to_owned(),
            ));
        }
        let cameras = counted(new.registry.cameras.len(), "camera");
        let customers = counted(new.registry.customers.len(), "customer");
        let waiting = new.sections_needing_restart(&running);
        Ok(noted(match waiting.is_empty() {
            true => format!("{cameras} of {customers}"),
            false => format!(
                "{cameras} of {customers}; changes of {} take a restart",
                waiting.join(", ")
            ),
        }))
    })
}

/// Why a configuration is refused. What this process has kept itself from reading, another start could read.
fn refused(error: &ConfigError) -> String {
    let denied = Plain(&std::io::Error::from(std::io::ErrorKind::PermissionDenied)).to_string();
    match error.message.contains(&denied) {
        false => error.to_string(),
        true => format!(
            "{error} (is the file readable for the engine's user? And once it runs it reads only the folders of the files that were named \
             at its start: for another one, name it in process.read, and start it again)"
        ),
    }
}

/// Passes on what the janitor and failing shards have to say, until both have ended.
fn cry(
    notices: Receiver<Notice>,
    control: Handle,
    levers: Levers,
) -> Result<thread::JoinHandle<()>, CliError> {
    let body = move || {
        for notice in notices {
            match notice {
                Notice::Recovered { segment } => control.note(format!("recovered segment {segment}")),
                Notice::RecoveryDone { recovered: 0, .. } => {}
                Notice::RecoveryDone { segments, recovered } => {
                    control.note(format!(
                        "recovery is done: {recovered} of {segments} older segments had to be closed"
                    ));
                }
                Notice::Warning(message) => control.warn(message),
                Notice::KeysErased => {
                    control.note("erasure keys were destroyed: new segments begin under new ones");
                    levers.renew_keys();
                }
                Notice::Holds(count) => control.holds(count),
                Notice::ShardEnded(message) => {
                    control.warn(message.clone());
                    control.stop(message);
                }
            }
        }
    };
    thread::Builder::new()
        .name("crier".to_owned())
        .spawn(body)
        .map_err(|error| CliError::io(format!("cannot start a thread: {error}")))
}
