//! The view in a pseudo-terminal: however it ends, the terminal is as it was before. The test program starts itself again
//! there, with only [`the_child`] to run.

use super::*;
use crate::output::live::tests::under_way;
use crate::output::watch::stop_on_signals;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

const MODE: &str = "HARBORSEAL_TEST_VIEW";
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// Far beyond what any of it takes.
const BOUND: Duration = Duration::from_secs(30);

/// What the started-again test program does; on its own it does nothing.
#[test]
fn the_child() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let (control, seconds) = Control::watched();
    stop_on_signals(&control.stop).expect("signals can be handled");
    let begun = Instant::now();
    show(under_way(30), &control, &seconds, || {
        let stopped = control.stop.load(Ordering::Relaxed);
        match mode.as_str() {
            "end" => begun.elapsed() > Duration::from_millis(300),
            "panic" if begun.elapsed() > Duration::from_millis(300) => panic!("planted"),
            "key" => stopped,
            _ => begun.elapsed() > BOUND,
        }
    });
}

/// A view in a terminal of its own.
struct Session {
    child: Child,
    terminal: File,
    /// What it wrote, as it comes.
    written: Receiver<Vec<u8>>,
    slave: OwnedFd,
    before: LocalFlags,
    seen: String,
}

impl Session {
    fn start(mode: &str) -> Session {
        let size = Winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("a pseudo-terminal");
        let end = || pty.slave.try_clone().expect("a descriptor");
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "output::tui::in_a_terminal::the_child", "--nocapture"])
            .env(MODE, mode)
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the test program starts");
        let before = tcgetattr(&pty.slave).expect("a terminal").local_flags;
        let terminal = File::from(pty.master);
        let written = reader(terminal.try_clone().expect("a descriptor"));
        Session {
            child,
            terminal,
            written,
            slave: pty.slave,
            before,
            seen: String::new(),
        }
    }

    /// Reads until the text was seen.
    fn wait_for(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.written.recv_timeout(BOUND) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{text:?} did not come ({error}): {:?}", self.seen),
            }
        }
    }

    fn signal(&self) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("the child is there");
    }

    /// Waits for its end; what it wrote until then.
    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("our own child");
        let after = tcgetattr(&self.slave).expect("a terminal").local_flags;
        assert_eq!(after, self.before, "echo and line editing are as before");
        drop(self.slave);
        for bytes in self.written {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        (status, self.seen)
    }
}

/// Reads the terminal on a thread of its own. With the last descriptor of the other end gone, reading ends with EIO (pty(7)).
fn reader(mut terminal: File) -> Receiver<Vec<u8>> {
    let (pass_on, written) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = terminal.read(&mut bytes) {
            if pass_on.send(bytes[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    written
}

fn assert_given_back(seen: &str) {
    let entered = seen.find(ENTER).expect("it took the screen");
    let left = seen.rfind(LEAVE).expect("it gave the screen back");
    assert!(left > entered && seen[left..].contains(SHOW_CURSOR), "{seen:?}");
    assert_eq!(seen.matches(LEAVE).count(), 1, "once");
}

#[test]
fn at_the_end_the_terminal_is_given_back() {
    let (status, seen) = Session::start("end").end_after_reading("steady");
    assert!(status.success(), "{seen:?}");
    assert_given_back(&seen);
}

#[test]
fn a_panic_is_told_on_a_terminal_that_was_given_back() {
    let (status, seen) = Session::start("panic").end_after_reading("steady");
    assert!(!status.success());
    assert_given_back(&seen);
    assert!(
        seen.find(LEAVE) < seen.find("planted"),
        "the message is not on the screen that goes away"
    );
}

#[test]
fn ctrl_c_is_a_key_that_asks_the_run_to_stop() {
    let mut session = Session::start("key");
    session.wait_for("steady");
    session.terminal.write_all(b"\x03").expect("typed");
    let (status, seen) = session.end();
    assert!(status.success(), "{seen:?}");
    assert_given_back(&seen);
}

#[test]
fn the_second_signal_ends_it_at_once_and_gives_the_terminal_back() {
    let mut session = Session::start("signal");
    session.wait_for("steady");
    session.signal();
    session.wait_for("stopping");
    session.signal();
    let (status, seen) = session.end();
    assert_eq!(status.code(), Some(130), "{seen:?}");
    assert_given_back(&seen);
}

impl Session {
    fn end_after_reading(mut self, text: &str) -> (ExitStatus, String) {
        self.wait_for(text);
        self.end()
    }
}
