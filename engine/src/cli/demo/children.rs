//! The demo's processes: engine and fleet, started from this same binary, listened to, and ended in every case.
//!
//! Each is in a process group of its own, so that Ctrl-C reaches the demo alone, which then ends them in order; and each asks the
//! kernel to be ended with its parent, so that nothing stays even if the demo is killed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harborseal_loadgen::FleetSpec;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::super::error::{CliError, Plain};
use super::super::output::people;
use super::Stop;
use super::lab::Lab;
use super::progress::Live;
use crate::config::units::format_bytes;
use crate::text::Grouped;
use crate::uring::sys;

/// Ten thousand cameras load in under a second; a machine that needs longer than this is in trouble.
const READY_BOUND: Duration = Duration::from_secs(30);
/// Stopping seals, syncs and writes footers. Beyond this something hangs, and the demo has to say so within its minute.
const STOP_BOUND: Duration = Duration::from_secs(20);
/// How often what the children say is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Asks the kernel to send this process SIGTERM when its parent ends (prctl(2), PR_SET_PDEATHSIG).
pub fn end_with_parent() -> Result<(), CliError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|errno| CliError::io(format_args!("cannot tie the process to its parent: {errno}")))
}

fn spawn(arguments: &[OsString]) -> Result<Child, CliError> {
    let binary = std::env::current_exe();
    let spawned = binary.and_then(|binary| {
        let mut command = Command::new(binary);
        command.arg("demo-child").args(arguments).process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn()
    });
    spawned.map_err(|why| CliError::io(format_args!("cannot start a process: {}", Plain(&why))))
}

/// `NAME=PATH`, whatever bytes the path has.
fn option(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(path);
    text
}

fn terminate(child: &Child) {
    // It may have ended already; then there is nobody to tell.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
}

/// Waits up to `bound`; its exit status, or `None` if it is still there.
fn wait(child: &mut Child, bound: Duration) -> Option<i32> {
    let until = Instant::now() + bound;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status.code().unwrap_or(-1));
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a child that is being given up: gently, then not.
fn end(child: &mut Child) {
    if let Ok(Some(_)) = child.try_wait() {
        return; // its process id may be another's by now
    }
    terminate(child);
    if wait(child, Duration::from_secs(3)).is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The engine.
pub struct Engine {
    child: Child,
    /// Lines of both its outputs; closed when it has ended.
    lines: Receiver<String>,
    log: File,
    progress: Option<Value>,
    last: Option<Value>,
    last_text: String,
}

impl Engine {
    /// Starts it and waits until it can receive.
    pub fn start(lab: &Lab, stop: &Stop) -> Result<Engine, CliError> {
        let path = lab.engine_log();
        let log = File::create(&path).map_err(|why| CliError::file("write", &path, &why))?;
        let mut child = spawn(&[
            "engine".into(),
            option("--config", &lab.config()),
            "--log=json".into(),
        ])?;
        let (sender, lines) = channel();
        for pipe in [
            Box::new(child.stdout.take().expect("piped")) as Box<dyn Read + Send>,
            Box::new(child.stderr.take().expect("piped")),
        ] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in lines_of(pipe) {
                    // Nobody listens once the engine is given up; its pipe is emptied all the same.
                    let _ = sender.send(line);
                }
            });
        }
        drop(sender); // the readers' own are the last: when they end, the engine has
        let mut engine = Engine {
            child,
            lines,
            log,
            progress: None,
            last: None,
            last_text: String::new(),
        };
        engine.wait_until_ready(stop)?;
        Ok(engine)
    }

    fn wait_until_ready(&mut self, stop: &Stop) -> Result<(), CliError> {
        let until = Instant::now() + READY_BOUND;
        while Instant::now() < until {
            stop.check()?;
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => match self.take(line) {
                    Some(event) if event["event"] == "ready" => {
                        say_what_is_missing(&event);
                        return Ok(());
                    }
                    _ => {}
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(CliError::io(format_args!(
                        "the engine did not start: {}",
                        self.last_text
                    )));
                }
            }
        }
        Err(CliError::io(format_args!(
            "the engine was not ready within {} s",
            READY_BOUND.as_secs()
        )))
    }

    /// Notes a line; events are kept as far as they are needed.
    fn take(&mut self, line: String) -> Option<Value> {
        let event = serde_json::from_str::<Value>(&line)
            .ok()
            .filter(|value| value["event"].is_string());
        match event
            .as_ref()
            .map(|event| event["event"].as_str().unwrap_or_default())
        {
            // Tens a second, and of no use to a reader of the log.
            Some("durable") => return event,
            Some("progress") => self.progress = event.clone(),
            Some("final") => self.last = event.clone(),
            None if !line.trim().is_empty() => {
                let text = line.strip_prefix("harborseal: ").unwrap_or(&line);
                text.clone_into(&mut self.last_text);
            }
            _ => {}
        }
        // The log is a convenience: a full disk shows elsewhere.
        let _ = writeln!(self.log, "{line}");
        event
    }

    /// What it says of itself by now, for the live line.
    pub fn figures(&mut self) -> String {
        while let Ok(line) = self.lines.try_recv() {
            self.take(line);
        }
        let Some(progress) = &self.progress else {
            return String::new();
        };
        let dropped = progress["dropped"].as_object();
        let dropped: u64 = dropped
            .into_iter()
            .flat_map(|reasons| reasons.values())
            .filter_map(Value::as_u64)
            .sum();
        let stored = progress["stored"].as_u64().unwrap_or(0);
        format!("stored {}, dropped {}", Grouped(stored), Grouped(dropped))
    }

    fn alive(&mut self) -> Result<(), CliError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(self.died("ended by itself")),
        }
    }

    fn died(&mut self, how: &str) -> CliError {
        self.figures();
        CliError::io(format_args!("the engine {how}: {}", self.last_text))
    }

    /// SIGTERM, as an operator would stop it; its last account.
    pub fn stop(mut self) -> Result<Value, CliError> {
        terminate(&self.child);
        let Some(status) = wait(&mut self.child, STOP_BOUND) else {
            return Err(self.died("did not stop in time"));
        };
        // The readers end with the pipes; until then lines may still come.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.take(line);
        }
        match self.last.take() {
            Some(last) if status == 0 => Ok(last),
            _ => Err(self.died(&format!("ended with status {status}"))),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// What the engine does without here, and how to raise it.
fn say_what_is_missing(ready: &Value) {
    for note in ready["notes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if note.contains("could not be locked") {
            let limit = sys::memlock_limit()
                .soft
                .map_or_else(|| "refused".to_owned(), format_bytes);
            people(format_args!(
                "without locked memory (the memlock limit is {limit}): packets not yet sealed could reach swap. Raise it with \
                 `ulimit -l unlimited`, or LimitMEMLOCK=infinity in a unit"
            ));
        } else {
            people(format_args!("engine: {note}"));
        }
    }
}

/// The fleet.
pub struct Fleet {
    child: Child,
    line: Arc<Mutex<String>>,
    ears: Vec<JoinHandle<()>>,
    report: Arc<Mutex<String>>,
    /// From the first packet to the last, if it is on time.
    seconds: f64,
}

impl Fleet {
    /// Starts it; it sends at once.
    pub fn start(lab: &Lab, spec: &FleetSpec, cpu: usize) -> Result<Fleet, CliError> {
        let mut arguments: Vec<OsString> = vec![
            "fleet".into(),
            format!("--cameras={}", spec.cameras).into(),
            format!("--mbps={}", spec.mbps).into(),
            format!("--seconds={}", spec.seconds).into(),
            format!("--seed={}", spec.seed).into(),
            format!("--cpu={cpu}").into(),
            option("--sent-log", &lab.sent_log()),
            "--progress-ms=500".into(),
        ];
        arguments.extend(
            spec.targets
                .iter()
                .map(|target| format!("--target={target}").into()),
        );
        let mut child = spawn(&arguments)?;
        let (line, report) = (
            Arc::new(Mutex::new(String::new())),
            Arc::new(Mutex::new(String::new())),
        );
        let ears = vec![
            keep_last_line(child.stdout.take().expect("piped"), Arc::clone(&report)),
            keep_last_line(child.stderr.take().expect("piped"), Arc::clone(&line)),
        ];
        Ok(Fleet {
            child,
            line,
            ears,
            report,
            seconds: spec.duration_s(),
        })
    }

    /// Waits for its end, showing what goes on; its report.
    pub fn finish(mut self, engine: &mut Engine, stop: &Stop) -> Result<Value, CliError> {
        let mut live = Live::new(format!("sending for {:.0} s:", self.seconds));
        while let Ok(None) = self.child.try_wait() {
            stop.check()?;
            engine.alive()?;
            let line = self.line.lock().expect("the reader does not panic").clone();
            live.show(&[line.trim(), &engine.figures()]);
            std::thread::sleep(LOOK);
        }
        live.done();
        for ear in self.ears.drain(..) {
            ear.join().expect("the reader does not panic");
        }
        let report = self.report.lock().expect("the reader does not panic").clone();
        serde_json::from_str(&report).map_err(|_| {
            let line = self.line.lock().expect("the reader does not panic").clone();
            CliError::io(format_args!("the fleet did not send: {line}"))
        })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Lines until the pipe ends, whatever bytes are in them.
fn lines_of(pipe: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(pipe).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).into_owned())
}

fn keep_last_line(pipe: impl Read + Send + 'static, last: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in lines_of(pipe) {
            *last.lock().expect("no holder panics") = line;
        }
    })
}
