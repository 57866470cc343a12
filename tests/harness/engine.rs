//! A running engine: started, listened to, and stopped in each way a process can stop.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::cli;

/// How long anything may take that the engine owes: far beyond what it needs, so that only a wedge meets it.
pub const BOUND: Duration = Duration::from_secs(60);

/// What the process has said so far.
#[derive(Default)]
struct Said {
    events: Vec<Value>,
    lines: Vec<String>,
    streams_open: usize,
}

#[derive(Default)]
struct Ear {
    said: Mutex<Said>,
    changed: Condvar,
}

impl Ear {
    /// What was said so far. A test may fail while it looks: its neighbours, and its own last words, still want to read.
    fn hear(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `harborseal run`, killed when dropped.
pub struct Engine {
    child: Child,
    ear: Arc<Ear>,
}

impl Engine {
    /// Starts `harborseal run --config CONFIG --log json` and waits until it is ready.
    #[track_caller]
    pub fn start(config: &Path) -> Engine {
        let engine = Engine::spawn(config);
        engine.wait_for("ready", |event| (event["event"] == "ready").then_some(()));
        engine
    }

    /// Starts it without waiting.
    #[track_caller]
    pub fn spawn(config: &Path) -> Engine {
        let mut command = Command::new(cli::binary());
        command.args(["run", "--log", "json", "--config"]).arg(config);
        Engine::spawn_command(command)
    }

    /// Starts a command that runs an engine.
    #[track_caller]
    pub fn spawn_command(mut command: Command) -> Engine {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the engine can be started");
        let ear = Arc::new(Ear::default());
        ear.hear().streams_open = 2;
        listen(child.stdout.take().expect("piped"), Arc::clone(&ear));
        listen(child.stderr.take().expect("piped"), Arc::clone(&ear));
        Engine { child, ear }
    }

    /// Waits until it is ready, or has ended instead: then false.
    #[track_caller]
    pub fn becomes_ready(&self) -> bool {
        let until = Instant::now() + BOUND;
        let mut said = self.ear.hear();
        loop {
            if said.events.iter().any(|event| event["event"] == "ready") {
                return true;
            }
            if said.streams_open == 0 {
                return false;
            }
            assert!(Instant::now() < until, "neither ready nor ended");
            let soon = Duration::from_millis(100);
            said = self
                .ear
                .changed
                .wait_timeout(said, soon)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<Value> {
        self.ear.hear().events.clone()
    }

    /// Everything it wrote to stdout and stderr so far, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.ear.hear().lines.clone()
    }

    /// Waits for the first event that `wanted` takes, those already seen included.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, wanted: impl FnMut(&Value) -> Option<T>) -> T {
        self.wait_within(BOUND, what, wanted)
    }

    /// Waits for the first event that `wanted` takes, at most for `bound`.
    #[track_caller]
    pub fn wait_within<T>(&self, bound: Duration, what: &str, wanted: impl FnMut(&Value) -> Option<T>) -> T {
        self.wait_from(0, bound, what, wanted)
    }

    /// The same among events after the first `seen`.
    #[track_caller]
    pub fn wait_from<T>(
        &self,
        seen: usize,
        bound: Duration,
        what: &str,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> T {
        let until = Instant::now() + bound;
        let mut looked_at = seen;
        let mut said = self.ear.hear();
        loop {
            while let Some(event) = said.events.get(looked_at) {
                looked_at += 1;
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || said.streams_open == 0 {
                let lines = said.lines.join("\n");
                // A poisoned lock would hide this message behind another.
                drop(said);
                let reason = if left.is_zero() {
                    "in time"
                } else {
                    "before the engine ended"
                };
                panic!("no {what} {reason}. The engine said:\n{lines}");
            }
            said = self
                .ear
                .changed
                .wait_timeout(said, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until the newest figures fulfil a condition. Figures come with `progress`, several seconds apart.
    #[track_caller]
    pub fn wait_for_progress(&self, what: &str, mut enough: impl FnMut(&Value) -> bool) -> Value {
        self.wait_for(what, |event| {
            (event["event"] == "progress" && enough(event)).then(|| event.clone())
        })
    }

    /// Waits until `packets` are received (stored or dropped), by what the engine says.
    #[track_caller]
    pub fn wait_for_stored(&self, packets: u64) {
        self.wait_for_progress(&format!("{packets} stored packets"), |p| {
            count(p, "stored") >= packets
        });
    }

    /// A count of the newest figures.
    pub fn newest(&self, key: &str) -> u64 {
        let events = self.events();
        let progress = events.iter().rfind(|event| event["event"] == "progress");
        progress.map_or(0, |event| count(event, key))
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the engine is ours to signal");
    }

    /// SIGTERM; asserts a clean end and returns the `final` event, whose books must close.
    #[track_caller]
    pub fn stop(mut self) -> Value {
        self.signal(Signal::SIGTERM);
        let code = self.end();
        let lines = self.lines().join("\n");
        assert_eq!(code, Some(0), "the engine did not end well. It said:\n{lines}");
        let last = self.events().into_iter().rfind(|event| event["event"] == "final");
        let last = last.unwrap_or_else(|| panic!("no final event. The engine said:\n{lines}"));
        assert_books_close(&last);
        last
    }

    /// Kills it as a power cut would end it (as far as a process can tell): SIGKILL, then waits.
    pub fn kill(mut self) -> Vec<Value> {
        self.signal(Signal::SIGKILL);
        self.end();
        self.events()
    }

    /// Waits for the process to be ended by a signal; which.
    pub fn killed_by(&mut self) -> Option<Signal> {
        use std::os::unix::process::ExitStatusExt;
        let status = cli::wait(&mut self.child, BOUND)?;
        Signal::try_from(status.signal()?).ok()
    }

    /// Waits for the process to end by itself; its exit status, `None` if a signal or the bound ended it.
    pub fn end(&mut self) -> Option<i32> {
        let status = cli::wait(&mut self.child, BOUND);
        let mut said = self.ear.hear();
        while said.streams_open > 0 {
            said = self
                .ear
                .changed
                .wait(said)
                .unwrap_or_else(PoisonError::into_inner);
        }
        status.and_then(|s| s.code())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Either it has ended already, or a test failed and nobody else will end it.
        if self.child.try_wait().ok().flatten().is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            let lines = self.lines();
            let from = lines.len().saturating_sub(60);
            eprintln!("The engine's last words:\n{}", lines[from..].join("\n"));
        }
    }
}

fn listen(pipe: impl Read + Send + 'static, ear: Arc<Ear>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            let event = serde_json::from_str::<Value>(&line)
                .ok()
                .filter(|value| value.get("event").is_some());
            let mut said = ear.hear();
            said.events.extend(event);
            said.lines.push(line);
            ear.changed.notify_all();
        }
        ear.hear().streams_open -= 1;
        ear.changed.notify_all();
    });
}

/// A count of an event; a missing key is zero, for reasons that never occurred are not listed.
pub fn count(event: &Value, key: &str) -> u64 {
    event[key].as_u64().unwrap_or(0)
}

/// Packets dropped for `reason`.
pub fn dropped(event: &Value, reason: &str) -> u64 {
    event["dropped"][reason].as_u64().unwrap_or(0)
}

/// Packets dropped for any reason.
pub fn dropped_in_all(event: &Value) -> u64 {
    let reasons = event["dropped"]
        .as_object()
        .unwrap_or_else(|| panic!("no `dropped` in {event}"));
    reasons
        .values()
        .map(|count| count.as_u64().expect("a count"))
        .sum()
}

/// received = stored + Σ dropped(reason).
#[track_caller]
pub fn assert_books_close(event: &Value) {
    let received = event["received"]
        .as_u64()
        .unwrap_or_else(|| panic!("no `received` in {event}"));
    let stored = event["stored"]
        .as_u64()
        .unwrap_or_else(|| panic!("no `stored` in {event}"));
    assert_eq!(
        received,
        stored + dropped_in_all(event),
        "the books do not close: {event}"
    );
}
