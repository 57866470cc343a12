//! Watching a run: in the terminal view, as a plain log, or not at all; and stopping it by signals.
//!
//! The watching thread only looks: the sending one never waits for it. The first SIGINT or SIGTERM asks the run to stop with
//! what it has; the second ends the process at once, with the terminal as it was before.

use super::live::{About, Live};
use crate::fleet::{Control, LiveSecond};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Exit status of a process ended by a second signal: 128 + SIGINT.
const EXIT_AT_ONCE: i32 = 130;
/// The plain log's lines come this often at first, so that a short run has some …
const LINE_EVERY_S: f64 = 1.0;
/// … and after ten of them this often, so that a long run's log can be read.
const LINE_EVERY_LATER_S: f64 = 10.0;
/// How soon the end of a run is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How a run is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The whole terminal.
    Tui,
    /// A line now and then, on stderr.
    Plain,
    Quiet,
}

impl View {
    /// What was asked for, or what suits: the terminal view where there is a terminal. Without one even who asked for the view
    /// gets a plain log: there is nothing to draw on.
    pub fn choose(plain: bool, quiet: bool) -> View {
        let terminal = io::stderr().is_terminal() && io::stdin().is_terminal();
        View::for_terminal(plain, quiet, terminal && cfg!(feature = "tui"))
    }

    fn for_terminal(plain: bool, quiet: bool, terminal: bool) -> View {
        match (quiet, plain, terminal) {
            (true, ..) => View::Quiet,
            (_, true, _) => View::Plain,
            (_, _, true) => View::Tui,
            (_, _, false) => View::Plain,
        }
    }
}

/// Lets SIGINT and SIGTERM set `stop`; the second of them ends the process.
pub fn stop_on_signals(stop: &Arc<AtomicBool>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let stop = Arc::clone(stop);
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                if stop.swap(true, Ordering::Relaxed) {
                    restore_terminal();
                    std::process::exit(EXIT_AT_ONCE);
                }
            }
        })?;
    Ok(())
}

/// Puts the terminal back, if the view holds it.
pub fn restore_terminal() {
    #[cfg(feature = "tui")]
    super::tui::restore();
}

/// Shows a run until `finished`; `seconds` is what [`Control::watched`] gave.
pub fn watch(
    view: View,
    about: About,
    control: &Control,
    seconds: &Receiver<LiveSecond>,
    finished: impl Fn() -> bool,
) {
    let live = Live::new(about);
    match view {
        View::Quiet => {}
        View::Plain => log(live, control, seconds, finished),
        #[cfg(feature = "tui")]
        View::Tui => super::tui::show(live, control, seconds, finished),
        #[cfg(not(feature = "tui"))]
        View::Tui => log(live, control, seconds, finished),
    }
}

/// The plain log, on stderr.
pub fn log(mut live: Live, control: &Control, seconds: &Receiver<LiveSecond>, finished: impl Fn() -> bool) {
    let (mut next_s, mut lines) = (LINE_EVERY_S, 0);
    while !finished() {
        if !next(&mut live, control, seconds, LOOK_EVERY) || live.at_s() < next_s {
            continue;
        }
        // That nobody reads the log is no reason to end a run.
        let _ = writeln!(io::stderr(), "{}", live.line());
        lines += 1;
        next_s = live.at_s()
            + if lines < 10 {
                LINE_EVERY_S
            } else {
                LINE_EVERY_LATER_S
            };
    }
}

/// Takes the next second into the state, if one comes in time.
pub fn next(live: &mut Live, control: &Control, seconds: &Receiver<LiveSecond>, wait: Duration) -> bool {
    live.stopping = control.stop.load(Ordering::Relaxed);
    let until = Instant::now() + wait;
    match seconds.recv_timeout(wait) {
        Ok(second) => {
            live.take(second);
            true
        }
        Err(RecvTimeoutError::Timeout) => false,
        // The run is over; whoever waits for its end looks again soon, and not all the time.
        Err(RecvTimeoutError::Disconnected) => {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_there_is_a_log_and_quiet_wins() {
        assert_eq!(View::for_terminal(false, false, false), View::Plain);
        assert_eq!(View::for_terminal(false, false, true), View::Tui);
        assert_eq!(View::for_terminal(true, false, true), View::Plain);
        assert_eq!(View::for_terminal(true, true, true), View::Quiet);
    }
}
