//! How far verify and recover have got: a bar on a terminal, a line now and then elsewhere; and the brake on their reading.
//!
//! A file may be gone through several times (read, copied, checked; or looked at again because an engine writes it): the total grows
//! then, and what is shown as done never falls.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar};

use super::output::people;
use super::paths;
use crate::archive::verify::len_of;
use crate::config::units;

/// Without a terminal a line comes this often. Seldom enough for a log, often enough to see that it lives.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A step longer than a block was no reading: reserved space, which the file system skips.
const LONGEST_READ: u64 = 1 << 20;

/// The options of commands that read for minutes.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Pace {
    /// Show no progress: only what was found, and the result
    #[arg(short, long)]
    quiet: bool,

    /// Read at most this much per second, such as 50MiB/s, so that an engine on the same disk keeps it
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate_limit: Option<u64>,
}

fn rate(text: &str) -> Result<u64, String> {
    match units::parse_bytes_per_s(text)? {
        0 => Err("it must be above 0".into()),
        bytes_per_s => Ok(bytes_per_s),
    }
}

/// What is shown, and how fast it may go.
pub struct Progress {
    doing: &'static str,
    tally: Tally,
    bar: ProgressBar,
    began: Instant,
    /// When the next line is due; `None` if lines are not wanted.
    next_line: Option<Instant>,
    rate_limit: Option<u64>,
    /// Time that reading should have taken by the limit.
    owed: Duration,
}

impl Progress {
    /// Over the segments `paths`; `doing` is a word such as "verifying".
    pub fn new(doing: &'static str, paths: &[PathBuf], pace: Pace) -> Self {
        let tally = Tally::new(paths);
        let terminal = std::io::stderr().is_terminal();
        let bar = match pace.quiet {
            true => ProgressBar::hidden(),
            false => paths::progress_segments(doing, tally.total),
        };
        let began = Instant::now();
        Progress {
            doing,
            tally,
            bar,
            began,
            next_line: (!terminal && !pace.quiet).then(|| began + LINE_EVERY),
            rate_limit: pace.rate_limit,
            owed: Duration::ZERO,
        }
    }

    /// `done` bytes of the file `path` are done, in the present going through it.
    pub fn reached(&mut self, path: &Path, done: u64) {
        let step = self.tally.reached(path, done);
        self.bar.set_length(self.tally.total);
        self.bar.set_position(self.tally.done());
        if step.new_file {
            self.bar.set_message(self.tally.files());
        }
        let now = Instant::now();
        if self.next_line.is_some_and(|due| due <= now) {
            self.next_line = Some(now + LINE_EVERY);
            people(self.tally.line(self.doing, now - self.began));
        }
        if let Some(bytes_per_s) = self.rate_limit {
            let read = step.bytes.min(LONGEST_READ);
            self.owed += Duration::from_secs_f64(read as f64 / bytes_per_s as f64);
            std::thread::sleep(self.owed.saturating_sub(now - self.began));
        }
    }

    /// Says what is being done from now on.
    pub fn now(&mut self, doing: &'static str) {
        if self.doing != doing {
            self.doing = doing;
            self.bar.set_prefix(doing);
        }
    }

    /// Takes the bar away while `print` prints.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Takes the bar away for good.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// The arithmetic of it.
struct Tally {
    lens: HashMap<PathBuf, u64>,
    total: u64,
    /// Of all goings-through but the present one.
    before: u64,
    current: PathBuf,
    /// Of the present one.
    here: u64,
    begun: usize,
}

struct Step {
    bytes: u64,
    new_file: bool,
}

impl Tally {
    fn new(paths: &[PathBuf]) -> Self {
        let lens: HashMap<_, _> = paths.iter().map(|path| (path.clone(), len_of(path))).collect();
        Tally {
            total: lens.values().sum(),
            lens,
            before: 0,
            current: PathBuf::new(),
            here: 0,
            begun: 0,
        }
    }

    fn done(&self) -> u64 {
        self.before + self.here
    }

    fn reached(&mut self, path: &Path, done: u64) -> Step {
        let new_file = self.current != path;
        let again = !new_file && done < self.here;
        if new_file || again {
            self.before += self.here;
            self.here = 0;
        }
        let len = self.lens.get(path).copied().unwrap_or(0);
        if new_file {
            self.current = path.to_owned();
            self.begun = (self.begun + 1).min(self.lens.len());
        } else if again || (self.here <= len && done > len) {
            self.total += len;
        }
        let bytes = done - self.here;
        self.here = done;
        self.total = self.total.max(self.done());
        Step { bytes, new_file }
    }

    fn files(&self) -> String {
        format!("segment {} of {}", self.begun, self.lens.len())
    }

    fn line(&self, doing: &str, elapsed: Duration) -> String {
        let per_s = self.done() as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = Duration::from_secs_f64((self.total - self.done()) as f64 / per_s.max(1.0));
        format!(
            "harborseal: {doing}: {}, {} of {}, {}/s, {} left",
            self.files(),
            HumanBytes(self.done()),
            HumanBytes(self.total),
            HumanBytes(per_s as u64),
            HumanDuration(left)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lens: &[(&str, u64)]) -> Tally {
        let lens: HashMap<_, _> = lens
            .iter()
            .map(|(path, len)| (PathBuf::from(path), *len))
            .collect();
        Tally {
            total: lens.values().sum(),
            lens,
            ..Tally::new(&[])
        }
    }

    #[test]
    fn what_is_done_only_grows_and_never_beyond_the_total() {
        let mut tally = tally(&[("a", 1000), ("b", 500)]);
        for (path, done, whole, total) in [
            ("a", 400, 400, 1500),
            ("a", 1000, 1000, 1500),
            // Gone through again: it is copied, or was being written.
            ("a", 100, 1100, 2500),
            ("a", 1000, 2000, 2500),
            ("b", 500, 2500, 2500),
            // Read a second time, by one count: a damaged one is.
            ("b", 600, 2600, 3000),
            ("b", 1000, 3000, 3000),
            // It appeared meanwhile.
            ("c", 70, 3070, 3070),
        ] {
            tally.reached(Path::new(path), done);
            assert_eq!((tally.done(), tally.total), (whole, total), "{path} {done}");
        }
        assert_eq!(tally.files(), "segment 2 of 2");
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let mut tally = tally(&[("a", 4 << 30), ("b", 4 << 30)]);
        tally.reached(Path::new("a"), 2 << 30);
        assert_eq!(
            tally.line("verifying", Duration::from_secs(10)),
            "harborseal: verifying: segment 1 of 2, 2.00 GiB of 8.00 GiB, 204.80 MiB/s, 30 seconds left"
        );
    }
}
