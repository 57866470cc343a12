//! `harborseal run`: the daemon.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam::channel::Receiver;

use super::error::{CliError, ExitStatus};
use crate::config::Config;
use crate::control::{Control, Handle, Log, Options, Ready, Reload};
use crate::engine::{self, Levers, StartError};
use crate::janitor::Notice;
use crate::text::counted;
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
    let config = Arc::new(Config::load(&args.config)?);
    let levers = Arc::new(OnceLock::new());
    let options = Options {
        shards: config.settings.shards.cpus.len() as u16,
        listen: config.settings.control.listen,
        log: args.log,
        progress_every: PROGRESS,
    };
    let (control, ports) = Control::start(options, reload(Arc::clone(&config), Arc::clone(&levers)))
        .map_err(|error| {
            let at = config
                .settings
                .control
                .listen
                .map_or_else(String::new, |address| format!(" on {address}"));
            CliError::io(format!("cannot start the control plane{at}: {error}")).remedy("see control.listen")
        })?;
    let running = engine::start(&config, ports).map_err(start_error)?;
    // Set once, here; the closure above reads it.
    let _ = levers.set(running.levers());
    control.ready(Ready {
        listen: running.listen.clone(),
        control: control.address(),
        shards: config.settings.shards.cpus.len(),
        cameras: config.registry.cameras.len(),
        customers: config.registry.customers.len(),
        notes: running.notes.clone(),
    });
    let crier = cry(running.notices.clone(), control.handle())?;
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
        let new = Config::load(&running.path).map_err(|error| error.to_string())?;
        let levers = levers
            .get()
            .ok_or_else(|| "the engine is still starting".to_owned())?;
        if !levers.reload(&new, RELOAD_PATIENCE) {
            return Ok(
                "accepted; it takes effect with the next segment, which the disk does not take yet"
                    .to_owned(),
            );
        }
        let cameras = counted(new.registry.cameras.len(), "camera");
        let customers = counted(new.registry.customers.len(), "customer");
        let waiting = new.sections_needing_restart(&running);
        Ok(match waiting.is_empty() {
            true => format!("{cameras} of {customers}"),
            false => format!(
                "{cameras} of {customers}; changes of {} take a restart",
                waiting.join(", ")
            ),
        })
    })
}

/// Passes on what the janitor and failing shards have to say, until both have ended.
fn cry(notices: Receiver<Notice>, control: Handle) -> Result<thread::JoinHandle<()>, CliError> {
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
