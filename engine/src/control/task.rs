//! The control thread: one loop over signals, commands and a clock.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crossbeam::channel::Sender;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::alarms::Alarms;
use super::http::{self, Board, Phase, Shared};
use super::lines::Lines;
use super::{Command, Final, Log, Options, Ready, Reload, notify};
use crate::ledger::{Snapshot, StreamLedger};
use crate::metrics::{Meter, Process, Totals, events};
use crate::port::Inbox;
use crate::uring::sys;

/// How long the last lines wait for a reader that is slow. Everything is durable by then; waiting costs nothing else.
const LAST_LINES_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at the shards: soon enough that `durable` events are fresh, where somebody reads them.
const LOOK_JSON: Duration = Duration::from_millis(50);
const LOOK_TEXT: Duration = Duration::from_millis(250);

/// What the thread is started with.
pub(super) struct Task {
    pub options: Options,
    pub inboxes: Vec<Inbox>,
    pub told: UnboundedReceiver<Command>,
    pub stop: Sender<String>,
    pub reload: Reload,
}

impl Task {
    /// The thread's whole life. `started` hears whether it could begin.
    pub fn run(self, listener: Option<TcpListener>, started: mpsc::Sender<io::Result<()>>) {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        runtime.block_on(async {
            match Plane::new(self, listener) {
                Ok((mut plane, told)) => {
                    // The starter waits for this very message.
                    let _ = started.send(Ok(()));
                    plane.watch(told).await;
                    plane.voice.end();
                }
                Err(error) => drop(started.send(Err(error))),
            }
        });
        // A reload that hangs (a session description on a dead network share) must not keep the process.
        runtime.shutdown_background();
    }
}

/// Everything the loop works with.
struct Plane {
    inboxes: Vec<Inbox>,
    alarms: Vec<Alarms>,
    board: Shared,
    voice: Voice,
    stop: Sender<String>,
    stop_reason: Option<String>,
    reload: Reload,
    reloading: Option<JoinHandle<Result<String, String>>>,
    /// A SIGHUP that came before `ready`, or during a reload.
    reload_again: bool,
    meter: Meter,
    began_ns: u64,
    signals: Signals,
    look: Interval,
    progress: Interval,
    watchdog: Option<Interval>,
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Plane {
    /// Must be called inside the runtime.
    fn new(task: Task, listener: Option<TcpListener>) -> io::Result<(Plane, UnboundedReceiver<Command>)> {
        let Task {
            options,
            inboxes,
            told,
            stop,
            reload,
        } = task;
        let now_ns = sys::monotonic_ns();
        let board = Arc::new(Mutex::new(Board {
            phase: Phase::Starting,
            shards: inboxes.iter().map(|inbox| inbox.latest().clone()).collect(),
            heard_ns: vec![now_ns; inboxes.len()],
            lines_lost: 0,
            legal_holds: 0,
        }));
        if let Some(listener) = listener {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let server = axum::serve(listener, http::routes(Arc::clone(&board)));
            // Lives as long as the runtime; its accept loop never ends by itself.
            tokio::spawn(async move { server.await });
        }
        let every = |time| {
            let mut interval = interval(time);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let kind = |kind| signal(kind);
        let plane = Plane {
            alarms: inboxes.iter().map(|_| Alarms::default()).collect(),
            inboxes,
            board,
            voice: Voice::new(options.log)?,
            stop,
            stop_reason: None,
            reload,
            reloading: None,
            reload_again: false,
            meter: Meter::default(),
            began_ns: now_ns,
            signals: Signals {
                term: kind(SignalKind::terminate())?,
                int: kind(SignalKind::interrupt())?,
                hup: kind(SignalKind::hangup())?,
            },
            look: every(if options.log == Log::Json {
                LOOK_JSON
            } else {
                LOOK_TEXT
            }),
            progress: every(options.progress_every),
            // Twice as often as asked for, as sd_watchdog_enabled(3) advises.
            watchdog: notify::watchdog_interval().map(|time| every(time / 2)),
        };
        Ok((plane, told))
    }

    async fn watch(&mut self, mut told: UnboundedReceiver<Command>) {
        loop {
            tokio::select! {
                _ = self.signals.term.recv() => self.asked_to_stop("SIGTERM"),
                _ = self.signals.int.recv() => self.asked_to_stop("SIGINT"),
                _ = self.signals.hup.recv() => self.begin_reload(),
                outcome = reloaded(&mut self.reloading) => self.end_reload(outcome),
                _ = self.look.tick() => self.look(),
                _ = self.progress.tick() => self.report_progress(),
                () = ticked(&mut self.watchdog) => self.pat_watchdog(),
                command = told.recv() => match command {
                    Some(Command::Ready(ready)) => self.begin(&ready),
                    Some(Command::Note(message)) => self.voice.noted(&message),
                    Some(Command::Warn(message)) => self.voice.warn(&message),
                    Some(Command::Holds(count)) => self.note_holds(count),
                    Some(Command::Stop(reason)) => self.asked_to_stop(&reason),
                    Some(Command::Finish(snapshots, streams, reply)) => {
                        return self.finish(&snapshots, streams, &reply);
                    }
                    Some(Command::Abandon) | None => return,
                },
            }
        }
    }

    fn phase(&self) -> Phase {
        http::lock(&self.board).phase
    }

    fn begin(&mut self, ready: &Ready) {
        let now_ns = sys::monotonic_ns();
        self.began_ns = now_ns;
        self.progress.reset();
        {
            let mut board = http::lock(&self.board);
            board.heard_ns.fill(now_ns);
            // A stop that was asked for during the start is not taken back.
            if board.phase == Phase::Starting {
                board.phase = Phase::Ready;
            }
        }
        let text = self.voice.ready(ready);
        notify::ready(&text);
        if std::mem::take(&mut self.reload_again) {
            self.begin_reload();
        }
    }

    fn note_holds(&mut self, count: u64) {
        let before = std::mem::replace(&mut http::lock(&self.board).legal_holds, count);
        if count != before {
            let text = match count {
                0 => "no legal hold is in force any more".to_owned(),
                1 => "a legal hold is in force: retention leaves what it covers".to_owned(),
                _ => format!("{count} legal holds are in force: retention leaves what they cover"),
            };
            self.voice.warn(&text);
        }
    }

    fn asked_to_stop(&mut self, reason: &str) {
        if let Some(first) = &self.stop_reason {
            return self.voice.note(&format!(
                "{reason}: stopping already ({first}); what is open is being made durable"
            ));
        }
        self.stop_reason = Some(reason.to_owned());
        http::lock(&self.board).phase = Phase::Stopping;
        notify::stopping();
        self.voice
            .note(&format!("{reason}: stopping, sealing what is open"));
        // There is room for one, and this is the only one.
        let _ = self.stop.try_send(reason.to_owned());
    }

    fn begin_reload(&mut self) {
        match self.phase() {
            Phase::Ready if self.reloading.is_none() => {
                notify::reloading();
                let reload = Arc::clone(&self.reload);
                self.reloading = Some(tokio::task::spawn_blocking(move || reload()));
            }
            Phase::Ready | Phase::Starting => self.reload_again = true,
            Phase::Stopping => {}
        }
    }

    fn end_reload(&mut self, outcome: Result<String, String>) {
        self.reloading = None;
        let text = self.voice.reloaded(&outcome);
        notify::ready(&text);
        if std::mem::take(&mut self.reload_again) {
            self.begin_reload();
        }
    }

    /// Takes in what the shards said.
    fn look(&mut self) {
        let now_ns = sys::monotonic_ns();
        let mut board = http::lock(&self.board);
        board.lines_lost = self.voice.lost();
        for (shard, inbox) in self.inboxes.iter_mut().enumerate() {
            if inbox.refresh() {
                board.shards[shard].copy_from(inbox.latest());
                board.heard_ns[shard] = now_ns;
                let alarms = self.alarms[shard].look(inbox.latest(), now_ns);
                alarms.iter().for_each(|message| self.voice.warn(message));
            }
            inbox
                .durable()
                .for_each(|durable| self.voice.event(|| events::durable_json(&durable)));
            for stray in inbox.strays() {
                if let Some(message) = self.alarms[shard].stray(&stray, now_ns) {
                    self.voice.warn(&message);
                }
            }
        }
        self.meter
            .look(board.shards.iter().map(|shard| shard.received).sum(), now_ns);
    }

    fn report_progress(&mut self) {
        if self.phase() == Phase::Starting {
            return;
        }
        self.look();
        let totals = self.totals();
        let span = self.meter.lap(totals.clone(), self.began_ns);
        let text = events::progress_text(&totals, &span);
        notify::status(&text);
        self.voice.note(&text);
        self.voice.event(|| events::progress_json(&totals, &span));
    }

    fn totals(&self) -> Totals {
        let board = http::lock(&self.board);
        Totals::new(board.shards.iter(), Process::so_far(), sys::monotonic_ns())
    }

    fn pat_watchdog(&self) {
        if http::lock(&self.board)
            .silent_shard(sys::monotonic_ns())
            .is_none()
        {
            notify::watchdog();
        }
    }

    fn finish(&mut self, snapshots: &[Snapshot], streams: Vec<StreamLedger>, reply: &mpsc::Sender<Final>) {
        // Watermarks that the shards reported on their way out.
        self.look();
        let totals = Totals::new(snapshots.iter(), Process::so_far(), sys::monotonic_ns());
        let span = self.meter.whole(&totals);
        let reason = self
            .stop_reason
            .clone()
            .unwrap_or_else(|| "ended by itself".to_owned());
        let books = Final {
            reason,
            totals,
            span,
            streams,
        };
        self.voice.last(&books);
        // finish() waits for this.
        let _ = reply.send(books);
    }
}

async fn reloaded(reloading: &mut Option<JoinHandle<Result<String, String>>>) -> Result<String, String> {
    match reloading {
        Some(task) => task
            .await
            .unwrap_or_else(|error| Err(format!("reading the configuration failed: {error}"))),
        None => std::future::pending().await,
    }
}

async fn ticked(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// Says things twice: to people on stderr, to programs on stdout.
struct Voice {
    log: Log,
    people: Lines,
    /// `None` where stdout is a terminal and the log is text: the person there reads stderr.
    programs: Option<Lines>,
    last: (Vec<String>, Vec<String>),
}

impl Voice {
    fn new(log: Log) -> io::Result<Voice> {
        // Duplicates of the descriptors: a writer that is stuck must not hold the locks of std's own handles.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let wanted = log == Log::Json || !stdout.is_terminal();
        let programs = if wanted {
            Some(Lines::to(stdout, "harborseal-out")?)
        } else {
            None
        };
        Ok(Voice {
            log,
            people: Lines::to(stderr, "harborseal-err")?,
            programs,
            last: Default::default(),
        })
    }

    fn note(&self, text: &str) {
        self.people.say(text.to_owned());
    }

    fn event(&self, object: impl FnOnce() -> Value) {
        if let (Log::Json, Some(programs)) = (self.log, &self.programs) {
            programs.say(object().to_string());
        }
    }

    fn noted(&self, message: &str) {
        self.note(&format!("note: {message}"));
        self.event(|| events::note_json(message));
    }

    fn warn(&self, message: &str) {
        self.note(&format!("warning: {message}"));
        self.event(|| events::warning_json(message));
    }

    fn ready(&self, ready: &Ready) -> String {
        let text = events::ready_text(ready);
        for note in &ready.notes {
            self.note(&format!("note: {note}"));
        }
        self.note(&text);
        self.event(|| events::ready_json(ready));
        // A supervisor that waits for the line reads it here.
        if let (Log::Text, Some(programs)) = (self.log, &self.programs) {
            programs.say(text.clone());
        }
        text
    }

    fn reloaded(&self, outcome: &Result<String, String>) -> String {
        let text = match outcome {
            Ok(message) => format!("configuration reloaded: {message}"),
            Err(message) => format!("configuration refused, the old one stays: {message}"),
        };
        self.note(&text);
        self.event(|| events::reload_json(outcome));
        text
    }

    fn last(&mut self, books: &Final) {
        self.last.0 = books.text();
        if self.log == Log::Json {
            self.last.1.push(events::final_json(books).to_string());
        }
    }

    fn lost(&self) -> u64 {
        self.people.lost() + self.programs.as_ref().map_or(0, Lines::lost)
    }

    /// Waits for what was said to be written; programs first, for theirs is the line that must not be missed.
    fn end(self) {
        let Voice {
            people,
            programs,
            last: (for_people, for_programs),
            ..
        } = self;
        if let Some(programs) = programs {
            programs.end(for_programs, LAST_LINES_PATIENCE);
        }
        people.end(for_people, LAST_LINES_PATIENCE);
    }
}
