//! The engine's own account of a run: its JSON lines (`harborseal run --log json`), read from a file that it is writing to or
//! from stdin, and what they come to between the begin and the end of the run.
//!
//! [`Books`] decides and does no I/O; [`EngineLines`] reads. Lines of others are passed over and counted. Counters are the engine's
//! since it began, so that the run is what they say at its end less what they said before.

mod books;

pub use books::Books;

use crate::result::{EngineFigures, Second};
use books::BEGIN_MARK;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How often a file is looked at for more.
const LOOK: Duration = Duration::from_millis(20);
/// A final line of ten thousand streams is about 2 MB; what is longer is not the engine's.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Why the lines cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    #[error("cannot read the engine's lines from {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// The books of a file that was kept: all of it, or what stands behind the mark of the run's begin.
pub fn read_whole(path: &Path) -> Result<Books, StatsError> {
    let bytes = std::fs::read(path).map_err(|source| StatsError::Io {
        path: path.to_owned(),
        source,
    })?;
    let mut books = Books::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        books.take(&String::from_utf8_lossy(line), None);
    }
    books.of_whole_life();
    Ok(books)
}

/// What a reader and those who ask share.
#[derive(Default)]
struct Shared {
    said: Mutex<Said>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct Said {
    books: Books,
    /// As they came, but for the many that only tell a watermark.
    lines: String,
    /// There will be no more.
    ended: bool,
    error: Option<io::Error>,
}

/// The engine's lines as they come.
pub struct EngineLines {
    shared: Arc<Shared>,
}

impl EngineLines {
    /// Begins to read: `-` is stdin; a file is read from its begin, and then whatever is added to it.
    pub fn open(source: &Path) -> Result<EngineLines, StatsError> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let error = |source_error| StatsError::Io {
            path: source.to_owned(),
            source: source_error,
        };
        let reader: Box<dyn FnOnce() + Send> = if source == Path::new("-") {
            Box::new(move || read_lines(io::stdin(), false, &theirs))
        } else {
            let file = File::open(source).map_err(error)?;
            if file.metadata().map_err(error)?.is_dir() {
                return Err(error(io::ErrorKind::IsADirectory.into()));
            }
            Box::new(move || read_lines(file, true, &theirs))
        };
        let thread = std::thread::Builder::new().name("engine-lines".into());
        thread.spawn(reader).map_err(error)?;
        Ok(EngineLines { shared })
    }

    /// Waits until the engine has said anything, so that there is a baseline; false if it has not within `bound`.
    pub fn wait_until_heard(&self, bound: Duration) -> bool {
        self.wait(bound, |said| said.books.heard)
    }

    /// The run begins now.
    pub fn begin(&self) {
        let mut said = self.lock();
        said.books.begin();
        said.lines.push_str(BEGIN_MARK);
        said.lines.push('\n');
    }

    /// Waits until the engine has taken all it will take. What is left undone is told.
    pub fn settle(&self, bound: Duration, sent: Option<u64>) -> Result<(), String> {
        let since = Instant::now();
        if self.wait(bound, |said| said.books.is_settled(since, sent)) {
            return Ok(());
        }
        let said = self.lock();
        Err(match (&said.error, said.ended, said.books.in_flight()) {
            (Some(error), ..) => format!("the engine's lines cannot be read any more: {error}"),
            (None, true, Some(0)) => "the engine's lines ended without its last word".to_owned(),
            (None, _, Some(in_flight)) => format!(
                "the engine did not come to rest within {} s: {in_flight} packets are in flight",
                bound.as_secs()
            ),
            (None, _, None) => "the engine said nothing since the run began".to_owned(),
        })
    }

    /// See [`Books::figures`].
    pub fn figures(&self, sent: u64) -> Option<EngineFigures> {
        self.lock().books.figures(sent)
    }

    /// See [`Books::fill`].
    pub fn fill(&self, seconds: &mut [Second], start: Instant) {
        self.lock().books.fill(seconds, start);
    }

    /// See [`Books::dropped_of`].
    pub fn dropped_of(&self) -> Option<HashMap<u32, u64>> {
        self.lock().books.dropped_of().cloned()
    }

    /// `engine.jsonl`: the lines as they came, with a mark where the run began; without those that only tell a watermark.
    pub fn text(&self) -> String {
        self.lock().lines.clone()
    }

    /// Lines that were not the engine's.
    pub fn foreign(&self) -> u64 {
        self.lock().books.foreign()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Said> {
        self.shared.said.lock().expect("the reader does not panic")
    }

    fn wait(&self, bound: Duration, enough: impl Fn(&Said) -> bool) -> bool {
        let until = Instant::now() + bound;
        let mut said = self.lock();
        while !enough(&said) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || said.ended {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(said, left);
            said = waited.expect("the reader does not panic").0;
        }
        true
    }
}

impl Drop for EngineLines {
    fn drop(&mut self) {
        // A reader of stdin may stand in a read for ever; it holds nothing that anybody waits for.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// Reads until the end; with `tail`, until nobody wants more.
fn read_lines(mut from: impl Read, tail: bool, shared: &Shared) {
    let mut rest: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let ended = loop {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        match from.read(&mut buffer) {
            Ok(0) if tail => std::thread::sleep(LOOK),
            Ok(0) => break None,
            Ok(len) => {
                rest.extend_from_slice(&buffer[..len]);
                take_lines(&mut rest, shared);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(error),
        }
    };
    let mut said = shared.said.lock().expect("no one who asks panics");
    said.ended = true;
    said.error = ended;
    shared.changed.notify_all();
}

fn take_lines(rest: &mut Vec<u8>, shared: &Shared) {
    let now = Instant::now();
    let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
        if rest.len() > LINE_BYTES_MAX {
            rest.clear();
        }
        return;
    };
    let mut said = shared.said.lock().expect("no one who asks panics");
    for line in rest[..end].split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        if said.books.take(&line, Some(now)) && !line.contains(r#""event":"durable""#) {
            said.lines.push_str(&line);
            said.lines.push('\n');
        }
    }
    rest.drain(..=end);
    shared.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(event: &str, packets: u64) -> String {
        format!(
            r#"{{"event":"{event}","received":{packets},"stored":{packets},"dropped":{{}},"in_flight":0}}"#
        )
    }

    #[test]
    fn a_file_is_followed_as_it_grows_and_read_again_from_the_mark() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("engine.jsonl");
        let mut file = File::create(&path).expect("a temporary file");
        let mut say = |text: &str| file.write_all(text.as_bytes()).expect("a temporary file");
        say(&format!("{}\n", line("progress", 10)));
        let lines = EngineLines::open(&path).expect("it is there");
        assert!(lines.wait_until_heard(Duration::from_secs(10)));
        lines.begin();
        let last = line("final", 30);
        let (half, rest) = last.split_at(40);
        say(half);
        say(&format!("{rest}\n"));
        lines
            .settle(Duration::from_secs(10), None)
            .expect("its last word came");
        assert_eq!(lines.figures(20).expect("a line").received, 20);

        let kept = dir.path().join("kept.jsonl");
        std::fs::write(&kept, lines.text()).expect("a temporary file");
        let figures = |path| read_whole(path).expect("it is there").figures(20).expect("lines");
        assert_eq!(figures(&kept).received, 20, "behind the mark");
        assert_eq!(
            figures(&path).received,
            30,
            "without a mark the whole life counts"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = EngineLines::open(Path::new("no/such/lines"))
            .err()
            .expect("not there");
        assert!(error.to_string().contains("no/such/lines"));
    }
}
