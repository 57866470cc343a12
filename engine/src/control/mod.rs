//! The control plane: signals, metrics, progress. It runs on one thread beside the shards and never in their way: what it
//! knows comes through [`crate::port`], what it says goes through bounded queues.
//!
//! The life of a `run`, as its command sees it:
//!
//! ```text
//! let (control, ports) = Control::start(options, listener, reload)?;    one port per shard; signals are caught from here on
//! control.ready(facts);                                       sockets bound, rings armed: the ready line, sd_notify
//! let reason = control.wait();                                until SIGTERM, SIGINT or Handle::stop
//! let books = control.finish(snapshots, streams);             after the shards ended: the ledger, the last line
//! ```

mod alarms;
mod http;
mod lines;
mod notify;
mod task;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::ledger::{Snapshot, StreamLedger};
pub use crate::metrics::events::{Final, Ready};
pub use crate::port::{Durable, Inbox, ShardPort, Stray, connect};

/// What goes to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Log {
    /// Nothing but the ready line, and that only where stdout is no terminal; people read stderr
    #[default]
    Text,
    /// One JSON object per line for every event; people still read stderr
    Json,
}

/// How the control plane is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many shards there are.
    pub shards: u16,
    /// What goes to stdout.
    pub log: Log,
    /// Time between two lines of progress.
    pub progress_every: Duration,
}

/// Re-reads the configuration and gives it to the shards. Called on a thread of its own, one call at a time; returns what
/// changed or why nothing did, in one line without names of customers or cameras.
pub type Reload = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What the control thread is told.
enum Command {
    Ready(Ready),
    Note(String),
    Warn(String),
    Stop(String),
    Holds(u64),
    Finish(Vec<Snapshot>, Vec<StreamLedger>, mpsc::Sender<Final>),
    Abandon,
}

/// The running control plane.
pub struct Control {
    handle: Handle,
    stops: Receiver<String>,
    address: Option<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

/// A way to the control thread for any other thread that is not a shard.
#[derive(Clone)]
pub struct Handle {
    commands: UnboundedSender<Command>,
}

impl Handle {
    /// Says something good to know, in one line.
    pub fn note(&self, message: impl Into<String>) {
        self.send(Command::Note(message.into()));
    }

    /// Says something an operator should act on, in one line.
    pub fn warn(&self, message: impl Into<String>) {
        self.send(Command::Warn(message.into()));
    }

    /// Says how many legal holds are in force: a metric, and a warning while there are any.
    pub fn holds(&self, count: u64) {
        self.send(Command::Holds(count));
    }

    /// Asks for an orderly end, as SIGTERM does; `reason` stands in the final event.
    pub fn stop(&self, reason: impl Into<String>) {
        self.send(Command::Stop(reason.into()));
    }

    fn send(&self, command: Command) {
        // A control thread that has ended already has nobody to tell.
        let _ = self.commands.send(command);
    }
}

impl Control {
    /// Starts the control thread, to serve HTTP on `listener`, if anywhere.
    pub fn start(
        options: Options,
        listener: Option<TcpListener>,
        reload: Reload,
    ) -> std::io::Result<(Control, Vec<ShardPort>)> {
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let (ports, inboxes) = (0..options.shards).map(connect).unzip();
        let (commands, told) = unbounded_channel();
        let (stop, stops) = bounded(1);
        let (started, starting) = mpsc::channel();
        let task = task::Task {
            options,
            inboxes,
            told,
            stop,
            reload,
        };
        let thread = std::thread::Builder::new()
            .name("harborseal-ctl".to_owned())
            .spawn(move || task.run(listener, started))?;
        match starting.recv() {
            Ok(result) => result?,
            Err(mpsc::RecvError) => return Err(std::io::Error::other("the control thread did not start")),
        }
        Ok((
            Control {
                handle: Handle { commands },
                stops,
                address,
                thread: Some(thread),
            },
            ports,
        ))
    }

    /// Where HTTP is served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// A way to the control thread for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Says that recording has begun. A SIGHUP that came before takes effect now.
    pub fn ready(&self, ready: Ready) {
        self.handle.send(Command::Ready(ready));
    }

    /// Waits until somebody asks for an end; the reason.
    pub fn wait(&self) -> String {
        self.stops
            .recv()
            .unwrap_or_else(|_| "the control thread ended".to_owned())
    }

    /// Whether somebody has asked for an end, and why: for a start that takes long.
    pub fn asked_to_stop(&self) -> Option<String> {
        self.stops.try_recv().ok()
    }

    /// Prints the ledger and ends. To be called once no shard runs any more, with each one's last snapshot and streams.
    pub fn finish(mut self, snapshots: Vec<Snapshot>, streams: Vec<StreamLedger>) -> Final {
        let (reply, books) = mpsc::channel();
        self.handle.send(Command::Finish(snapshots, streams, reply));
        let books = books.recv().expect("the control thread answers before it ends");
        self.join();
        books
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the control thread does not panic");
        }
    }
}

impl Drop for Control {
    /// A start that failed half-way: nothing more is said.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.send(Command::Abandon);
            // If it panicked, its message has been printed; a second panic here would hide it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
