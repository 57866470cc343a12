//! Processes that are measured, or that load what is measured: started pinned, listened to, and ended in every case.
//!
//! Each is started through this program's own `pinned` command, which binds itself to the wanted CPU, asks the kernel to be
//! ended with its parent, and becomes the wanted program. So every thread it will ever start is bound, and nothing stays even
//! if the bench is killed. Each is in a process group of its own: Ctrl-C reaches the bench alone, which then ends them.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use crate::account::{self, Cpu};

/// How often waiting is interrupted for a look at whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Ctrl-C or SIGTERM: noticed at every wait, so that children end and files go.
#[derive(Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn listen() -> anyhow::Result<Stop> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&asked)).context("listening for signals")?;
        }
        Ok(Stop(asked))
    }

    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.asked(), "stopped before its end; its files are removed");
        Ok(())
    }

    pub fn sleep(&self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.check()?;
            std::thread::sleep(left.min(LOOK));
        }
        self.check()
    }
}

/// The hidden command that every child begins as.
#[derive(Args, Debug)]
pub struct Pinned {
    /// Run on these CPUs only; anywhere, if none is named
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the command.
pub fn run_pinned(options: &Pinned) -> anyhow::Result<()> {
    if !options.cpus.is_empty() {
        let set = account::cpu_set(&options.cpus);
        rustix::thread::sched_setaffinity(None, &set)
            .with_context(|| format!("cannot run on CPU {:?}", options.cpus))?;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).context("prctl")?;
    let [program, arguments @ ..] = &options.command[..] else {
        bail!("no command");
    };
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}

/// Arguments that start this very program again.
pub fn myself(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> anyhow::Result<Vec<OsString>> {
    let program = std::env::current_exe().context("finding this program")?;
    Ok([program.into_os_string()]
        .into_iter()
        .chain(arguments.into_iter().map(Into::into))
        .collect())
}

/// A child. Dropped, it is ended: gently, then not.
pub struct Process {
    name: &'static str,
    child: Child,
    /// Lines of both its outputs; closed when it has ended.
    lines: Receiver<String>,
    /// The latest line of stderr that was no JSON: what it last complained about.
    complaint: String,
}

impl Process {
    pub fn start(name: &'static str, cpus: &[usize], command: &[OsString]) -> anyhow::Result<Process> {
        let mut arguments: Vec<OsString> = vec!["pinned".into()];
        arguments.extend(cpus.iter().map(|cpu| format!("--cpus={cpu}").into()));
        arguments.push("--".into());
        arguments.extend(command.iter().cloned());
        let arguments = myself(arguments)?;
        let mut child = Command::new(&arguments[0])
            .args(&arguments[1..])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the {name}"))?;
        let (sender, lines) = channel();
        let pipes: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("piped")),
            Box::new(child.stderr.take().expect("piped")),
        ];
        for pipe in pipes {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    // Nobody listens once the child is given up; its pipe is emptied all the same.
                    let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        Ok(Process {
            name,
            child,
            lines,
            complaint: String::new(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line, or `None` if there is none within `bound`. An error if it has ended.
    pub fn line(&mut self, bound: Duration, stop: &Stop) -> anyhow::Result<Option<String>> {
        let until = Instant::now() + bound;
        loop {
            stop.check()?;
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(LOOK)) {
                Ok(line) => {
                    self.note(&line);
                    return Ok(Some(line));
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the {} ended: {}", self.name, self.complaint),
            }
        }
    }

    /// Its first line for which `wanted` has an answer.
    pub fn wait_for<T>(
        &mut self,
        bound: Duration,
        stop: &Stop,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + bound;
        while let Some(line) = self.line(until.saturating_duration_since(Instant::now()), stop)? {
            if let Some(found) = wanted(&line) {
                return Ok(found);
            }
        }
        bail!(
            "the {} said nothing of it within {} s",
            self.name,
            bound.as_secs()
        )
    }

    /// Lines that are there already, so that its pipe does not fill.
    pub fn drain(&mut self, mut take: impl FnMut(String)) {
        while let Ok(line) = self.lines.try_recv() {
            self.note(&line);
            take(line);
        }
    }

    fn note(&mut self, line: &str) {
        if !line.trim().is_empty() && !line.starts_with('{') {
            line.trim_end().clone_into(&mut self.complaint);
        }
    }

    /// It may have ended and still hold its account.
    pub fn has_ended(&self) -> bool {
        account::has_ended(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended already; then there is nobody to tell.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Everything it has still to say, until it has ended; what its whole life cost, and whether it ended well.
    pub fn finish(
        mut self,
        bound: Duration,
        stop: &Stop,
        mut take: impl FnMut(String),
    ) -> anyhow::Result<(Cpu, bool)> {
        let until = Instant::now() + bound;
        loop {
            stop.check()?;
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => {
                    self.note(&line);
                    take(line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if Instant::now() > until => {
                    bail!("the {} did not end within {} s", self.name, bound.as_secs());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        let cpu = account::cpu_of_whole_life(&mut self.child)?;
        let well = self.child.wait().is_ok_and(|status| status.success());
        Ok((cpu, well))
    }

    /// What it last complained about.
    pub fn complaint(&self) -> &str {
        &self.complaint
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return; // its process id may be another's by now
        }
        self.signal(Signal::TERM);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The first object of these lines, if it is one.
pub fn object(line: &str) -> Option<serde_json::Value> {
    serde_json::from_str(line)
        .ok()
        .filter(serde_json::Value::is_object)
}

/// `NAME=PATH`, whatever bytes the path has.
pub fn option(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    text
}
