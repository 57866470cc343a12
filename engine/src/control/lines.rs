//! Lines to a reader that may be slow, or gone.
//!
//! A thread of its own writes; the queue to it is bounded. Nobody who says something waits: when the queue is full the
//! line is dropped and counted, and when the reader is gone everything is. A terminal that was stopped with ^S, a
//! supervisor that does not read and a closed pipe cost lines, never the engine.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, SendTimeoutError, Sender, TrySendError, bounded};

/// At 100 events a second, ten seconds of a reader that does not read.
const QUEUE_LINES: usize = 1024;

/// Where lines go in.
pub struct Lines {
    queue: Option<Sender<String>>,
    /// A statistic, read by whoever wants it: no other memory is ordered by it.
    lost: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Lines {
    /// Starts a thread that writes lines to `output`.
    pub fn to(output: impl Write + Send + 'static, thread_name: &str) -> std::io::Result<Lines> {
        let (queue, lines) = bounded(QUEUE_LINES);
        let writer = std::thread::Builder::new()
            .name(thread_name.to_owned())
            .spawn(move || write(output, &lines))?;
        Ok(Lines {
            queue: Some(queue),
            lost: Arc::new(AtomicU64::new(0)),
            writer: Some(writer),
        })
    }

    /// Says a line (without its line break), or drops it.
    pub fn say(&self, line: String) {
        match self.queue.as_ref().map(|queue| queue.try_send(line)) {
            Some(Err(TrySendError::Full(_))) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            // A reader that is gone lost nothing that it wanted.
            Some(Ok(()) | Err(TrySendError::Disconnected(_))) | None => {}
        }
    }

    /// Lines dropped because the reader was too slow.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Says the last lines and waits until everything said is written, at most for `patience`.
    pub fn end(mut self, last: impl IntoIterator<Item = String>, patience: Duration) {
        let deadline = Instant::now() + patience;
        if let Some(queue) = self.queue.take() {
            for line in last {
                if let Err(SendTimeoutError::Disconnected(_)) = queue.send_deadline(line, deadline) {
                    break;
                }
            }
        }
        // The writer ends once the queue, which has no sender any more, is empty.
        let Some(writer) = self.writer.take() else { return };
        while !writer.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if writer.is_finished() {
            writer.join().expect("the writer of lines does not panic");
        }
    }
}

fn write(mut output: impl Write, lines: &Receiver<String>) {
    for mut line in lines {
        line.push('\n');
        // Gone is gone: dropping the receiver makes every later line a no-op.
        if output
            .write_all(line.as_bytes())
            .and_then(|()| output.flush())
            .is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, BufRead, BufReader, PipeReader, Read};

    fn pipe() -> (PipeReader, Lines) {
        let (reader, writer) = io::pipe().expect("a pipe");
        (reader, Lines::to(writer, "lines-test").expect("a thread"))
    }

    #[test]
    fn lines_arrive_in_order() {
        let (mut reader, lines) = pipe();
        (0..5).for_each(|n| lines.say(n.to_string()));
        lines.end(["last".to_owned()], Duration::from_secs(10));
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(text, "0\n1\n2\n3\n4\nlast\n");
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_no_time() {
        let (reader, lines) = pipe();
        let began = Instant::now();
        (0..20_000).for_each(|n| lines.say(format!("{n:0100}")));
        assert!(lines.lost() > 10_000, "{}", lines.lost());
        let lost = lines.lost();
        lines.end(["last".to_owned()], Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(5));
        // What was not dropped is whole, and still comes once the reader reads.
        let first: Vec<_> = BufReader::new(reader)
            .lines()
            .take(500)
            .map(|line| line.expect("text"))
            .collect();
        assert!(
            first
                .iter()
                .enumerate()
                .all(|(n, line)| line.len() == 100 && line.ends_with(&n.to_string())),
            "{lost} lost"
        );
    }

    #[test]
    fn a_reader_that_is_gone_costs_nothing() {
        let (reader, lines) = pipe();
        drop(reader);
        (0..20_000).for_each(|n| lines.say(n.to_string()));
        std::thread::sleep(Duration::from_millis(50));
        lines.say("more".to_owned());
        lines.end(["last".to_owned()], Duration::from_secs(10));
    }
}
