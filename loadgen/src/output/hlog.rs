//! HdrHistogram V2 interval logs, as `HistogramLogReader` and its relatives read them: a header, then a line per interval
//! with its begin, length, largest value and the histogram (V2, deflated, base64).
//!
//! ```text
//! #[Histogram log format version 1.3]
//! #[StartTime: 1795467600.250 (seconds since epoch)]
//! #[BaseTime: 1795467600.250 (seconds since epoch)]
//! "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
//! 0.000,1.000,12.303,HISTFAAAA…
//! ```
//!
//! Values are microseconds; the line's largest value is in milliseconds, as the format's divisor allows. A line is written
//! whole and flushed: a run that is killed leaves a log with one interval less, and the reader leaves a last line without
//! an end aside.

use super::folder::OutputError;
use crate::result::Percentiles;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry, LogIteratorError};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// From values to what people read: µs to ms.
const DIVISOR: f64 = 1000.0;

/// An empty histogram of microseconds: three digits, up to 1,000 s.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("bounds the histogram allows")
}

/// Writes an interval log.
pub struct HlogWriter<W: Write> {
    out: W,
    serializer: V2DeflateSerializer,
    encoded: Vec<u8>,
}

impl<W: Write> HlogWriter<W> {
    pub fn begin(mut out: W, start: SystemTime) -> io::Result<HlogWriter<W>> {
        let start = start.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        writeln!(out, "#[Histogram log format version 1.3]")?;
        writeln!(out, "#[StartTime: {start:.3} (seconds since epoch)]")?;
        writeln!(out, "#[BaseTime: {start:.3} (seconds since epoch)]")?;
        writeln!(out, "#[MaxValueDivisor: {DIVISOR:.3}]")?;
        writeln!(
            out,
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
        )?;
        Ok(HlogWriter {
            out,
            serializer: V2DeflateSerializer::new(),
            encoded: Vec::new(),
        })
    }

    /// Adds an interval; times in seconds from the start.
    pub fn add(&mut self, at_s: f64, length_s: f64, values: &Histogram<u64>) -> io::Result<()> {
        self.encoded.clear();
        self.serializer
            .serialize(values, &mut self.encoded)
            .map_err(|error| io::Error::other(format!("a histogram that cannot be written: {error:?}")))?;
        let (max, encoded) = (values.max() as f64 / DIVISOR, STANDARD.encode(&self.encoded));
        writeln!(self.out, "{at_s:.3},{length_s:.3},{max:.3},{encoded}")?;
        self.out.flush()
    }
}

/// One interval of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// Its begin, from the start of the run.
    pub at_s: f64,
    pub length_s: f64,
    pub values: Histogram<u64>,
}

/// Reads a whole log.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Interval>, OutputError> {
    let whole = bytes
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |end| end + 1);
    let malformed = |line: usize, what: String| OutputError::Malformed {
        path: path.to_owned(),
        line,
        column: 1,
        what,
    };
    let line_of = |offset: usize| 1 + bytes[..offset].iter().filter(|&&byte| byte == b'\n').count();
    let mut intervals = Vec::new();
    let mut deserializer = Deserializer::new();
    for entry in IntervalLogIterator::new(&bytes[..whole]) {
        let interval = match entry {
            Ok(LogEntry::Interval(interval)) => interval,
            Ok(LogEntry::StartTime(_) | LogEntry::BaseTime(_)) => continue,
            Err(LogIteratorError::ParseError { offset }) => {
                return Err(malformed(
                    line_of(offset),
                    "no line of an interval log".to_owned(),
                ));
            }
        };
        let number = intervals.len() + 1;
        let values = STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                deserializer
                    .deserialize(&mut bytes.as_slice())
                    .map_err(|error| format!("{error:?}"))
            })
            .map_err(|error| {
                malformed(
                    line_of_interval(&bytes[..whole], number),
                    format!("no V2 histogram: {error}"),
                )
            })?;
        intervals.push(Interval {
            at_s: interval.start_timestamp().as_secs_f64(),
            length_s: interval.duration().as_secs_f64(),
            values,
        });
    }
    Ok(intervals)
}

/// The line on which the `number`th interval stands, from 1: neither comments nor the legend are intervals.
fn line_of_interval(bytes: &[u8], number: usize) -> usize {
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let mut intervals = lines.filter(|(_, line)| !line.starts_with(b"#") && !line.starts_with(b"\""));
    intervals.nth(number - 1).map_or(1, |(line, _)| line + 1)
}

/// All values of several histograms as one: the only way to the percentiles of a longer time.
pub fn merge<'a>(parts: impl IntoIterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut whole = histogram();
    whole.auto(true); // a log of another tool may reach further
    for part in parts {
        whole
            .add(part)
            .expect("a histogram that resizes takes every value");
    }
    whole
}

/// The percentiles every report names, in milliseconds; all 0 of an empty histogram.
pub fn percentiles_ms(values: &Histogram<u64>) -> Percentiles {
    let ms = |percentile| values.value_at_percentile(percentile) as f64 / DIVISOR;
    Percentiles {
        p50: ms(50.0),
        p90: ms(90.0),
        p99: ms(99.0),
        p999: ms(99.9),
        max: values.max() as f64 / DIVISOR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn values(from: u64, count: u64) -> Histogram<u64> {
        let mut values = histogram();
        (from..from + count).for_each(|value| values.record(value).expect("within bounds"));
        values
    }

    fn log(parts: &[Histogram<u64>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let start = UNIX_EPOCH + Duration::from_millis(1_795_467_600_250);
        let mut writer = HlogWriter::begin(&mut bytes, start).expect("a Vec takes everything");
        for (second, part) in parts.iter().enumerate() {
            writer
                .add(second as f64, 1.0, part)
                .expect("a Vec takes everything");
        }
        bytes
    }

    #[test]
    fn a_log_comes_back_value_by_value() {
        let parts = [values(1, 1000), values(50_000, 10), histogram()];
        let bytes = log(&parts);
        assert!(
            bytes.starts_with(b"#[Histogram log format version 1.3]\n#[StartTime: 1795467600.250 (seconds")
        );
        let back = parse(Path::new("lateness.hlog"), &bytes).expect("a log");
        assert_eq!(back.len(), 3);
        for (second, (back, part)) in back.iter().zip(&parts).enumerate() {
            assert_eq!((back.at_s, back.length_s), (second as f64, 1.0));
            assert_eq!(&back.values, part);
        }
    }

    /// Two seconds, one with ten packets at 1 ms and one with a thousand at 100 ms: their p50s average to about 50 ms,
    /// which no packet had.
    #[test]
    fn percentiles_of_a_longer_time_come_from_the_merged_histogram() {
        let (mut calm, mut busy) = (histogram(), histogram());
        calm.record_n(1_000, 10).expect("within bounds");
        busy.record_n(100_000, 1000).expect("within bounds");
        let p50 = percentiles_ms(&merge([&calm, &busy])).p50;
        assert!((99.9..100.2).contains(&p50), "{p50}");
    }

    #[test]
    fn a_log_cut_by_a_kill_gives_what_is_whole() {
        let bytes = log(&[values(1, 10), values(1, 20)]);
        for cut in 0..bytes.len() {
            let back = parse(Path::new("lateness.hlog"), &bytes[..cut]).expect("whole lines");
            assert!(back.len() < 2);
        }
    }

    #[test]
    fn a_damaged_line_is_named() {
        let mut text = String::from_utf8(log(&[values(1, 10)])).expect("text");
        text.push_str("1.000,1.000,0.1,HISTFAAAA\n");
        let error = parse(Path::new("x.hlog"), text.as_bytes()).expect_err("no histogram");
        assert!(error.to_string().starts_with("x.hlog:7:"), "{error}");
        let error = parse(Path::new("x.hlog"), b"what is this\n").expect_err("no log");
        assert!(error.to_string().starts_with("x.hlog:1:"), "{error}");
    }

    #[test]
    fn an_empty_histogram_has_zeros_and_no_panic() {
        assert_eq!(percentiles_ms(&histogram()), Percentiles::default());
        assert_eq!(merge([]).len(), 0);
    }
}
