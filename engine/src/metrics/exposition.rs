//! The figures in the Prometheus text format, version 0.0.4.
//!
//! Counters are per shard; packets dropped also by reason, every reason from the start, so that a rate can be taken of
//! its first occurrence.

use std::fmt::Write;

use super::Process;
use crate::ledger::{Reason, Snapshot};

/// What the answer's Content-Type must be.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper ends of the latency histogram, in microseconds: around the 20 ms of a commit and the 500 ms of a chunk.
const LATENCY_BOUNDS_US: [u64; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 60_000_000,
];

/// A figure that every shard has: its name without the `harborseal_` in front, kind, help, and where it is.
type Figure = (&'static str, &'static str, &'static str, fn(&Snapshot) -> u64);

const FIGURES: [Figure; 20] = [
    (
        "streams",
        "gauge",
        "Streams with a packet in the last five seconds.",
        |s| s.streams,
    ),
    (
        "received_packets_total",
        "counter",
        "RTP and RTCP packets received.",
        |s| s.received,
    ),
    (
        "received_bytes_total",
        "counter",
        "UDP payload bytes received.",
        |s| s.received_bytes,
    ),
    (
        "stored_packets_total",
        "counter",
        "Packets durable on disk.",
        |s| s.stored,
    ),
    (
        "stored_bytes_total",
        "counter",
        "UDP payload bytes of the packets durable on disk.",
        |s| s.stored_bytes,
    ),
    (
        "lost_packets_total",
        "counter",
        "RTP packets that never arrived, told by gaps in the sequence.",
        |s| s.account.lost,
    ),
    (
        "duplicate_packets_total",
        "counter",
        "RTP packets that arrived again.",
        |s| s.account.duplicates,
    ),
    (
        "reordered_packets_total",
        "counter",
        "RTP packets that arrived after a later one.",
        |s| s.account.reordered,
    ),
    (
        "stream_restarts_total",
        "counter",
        "Times a stream's sequence began anew.",
        |s| s.account.restarts,
    ),
    (
        "rehomed_packets_total",
        "counter",
        "Packets handed to the shard that owns their stream.",
        |s| s.rehomed,
    ),
    (
        "kernel_drop_batches_total",
        "counter",
        "Socket drops as the kernel counts them, in batches: a hint that packets are lost before they are received.",
        |s| s.kernel_drop_batches,
    ),
    (
        "ring_enters_total",
        "counter",
        "System calls that the shard made on its ring.",
        |s| s.ring_enters,
    ),
    ("sealed_chunks_total", "counter", "Chunks sealed.", |s| s.chunks),
    (
        "written_bytes_total",
        "counter",
        "Bytes appended to segments, padding and keys included.",
        |s| s.written_bytes,
    ),
    ("segments_opened_total", "counter", "Segments opened.", |s| {
        s.segments
    }),
    (
        "segments_retired_total",
        "counter",
        "Segments given up after a failed write or fdatasync.",
        |s| s.segments_retired,
    ),
    (
        "pool_bytes",
        "gauge",
        "Memory for chunks, open and on their way to the disk.",
        |s| s.pool_bytes,
    ),
    ("pool_free_bytes", "gauge", "What of it is free.", |s| {
        s.pool_free_bytes
    }),
    (
        "receive_paused",
        "gauge",
        "1 while receiving waits for free chunk buffers.",
        |s| u64::from(s.paused),
    ),
    (
        "unaccounted_packets",
        "gauge",
        "Packets received that are neither stored nor dropped yet: open chunks and writes under way.",
        |s| s.received.saturating_sub(s.stored + s.dropped.total()),
    ),
];

/// The whole answer to `/metrics`.
pub fn render(shards: &[Snapshot], process: Process, ready: bool, lines_lost: u64) -> String {
    let mut text = String::with_capacity(16 << 10);
    render_into(&mut text, shards, process, ready, lines_lost).expect("writing to a String cannot fail");
    text
}

fn render_into(
    text: &mut String,
    shards: &[Snapshot],
    process: Process,
    ready: bool,
    lines_lost: u64,
) -> std::fmt::Result {
    head(
        text,
        "build_info",
        "gauge",
        "1, with the version that runs as a label.",
    )?;
    writeln!(
        text,
        "harborseal_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    )?;
    single(
        text,
        "ready",
        "gauge",
        "1 while packets are recorded.",
        u64::from(ready),
    )?;
    for (name, kind, help, of) in FIGURES {
        head(text, name, kind, help)?;
        for shard in shards {
            writeln!(
                text,
                "harborseal_{name}{{shard=\"{}\"}} {}",
                shard.shard,
                of(shard)
            )?;
        }
    }
    head(
        text,
        "dropped_packets_total",
        "counter",
        "Packets received and not stored, by reason.",
    )?;
    for shard in shards {
        for reason in Reason::ALL {
            let (number, name, packets) = (shard.shard, reason.name(), shard.dropped.get(reason));
            writeln!(
                text,
                "harborseal_dropped_packets_total{{shard=\"{number}\",reason=\"{name}\"}} {packets}"
            )?;
        }
    }
    head(
        text,
        "durable_latency_seconds",
        "histogram",
        "From the arrival of a chunk's first packet to the fdatasync that made the chunk durable.",
    )?;
    shards.iter().try_for_each(|shard| latency(text, shard))?;
    head(
        text,
        "cpu_seconds_total",
        "counter",
        "User and system time of the process, kernel workers included.",
    )?;
    writeln!(
        text,
        "harborseal_cpu_seconds_total {:.6}",
        process.cpu_ns as f64 / 1e9
    )?;
    let help = "Resident memory and huge pages of the process.";
    single(text, "memory_bytes", "gauge", help, process.memory_bytes)?;
    let help = "Lines of the log that were dropped because their reader was too slow.";
    single(text, "log_lines_lost_total", "counter", help, lines_lost)
}

/// Legal holds in force, behind the rest.
pub fn legal_holds(count: u64) -> String {
    let mut text = String::new();
    let help = "Customers under a legal hold: retention deletes none of their footage.";
    single(&mut text, "legal_holds", "gauge", help, count).expect("writing to a String cannot fail");
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(
        text,
        "# HELP harborseal_{name} {help}\n# TYPE harborseal_{name} {kind}"
    )
}

fn single(text: &mut String, name: &str, kind: &str, help: &str, value: u64) -> std::fmt::Result {
    head(text, name, kind, help)?;
    writeln!(text, "harborseal_{name} {value}")
}

fn latency(text: &mut String, shard: &Snapshot) -> std::fmt::Result {
    let (number, recorded) = (shard.shard, &shard.durable_latency_us);
    let mut below = [0u64; LATENCY_BOUNDS_US.len()];
    let mut sum_us = 0.0;
    for value in recorded.iter_recorded() {
        let (us, count) = (value.value_iterated_to(), value.count_at_value());
        sum_us += us as f64 * count as f64;
        let first = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        below[first..].iter_mut().for_each(|b| *b += count);
    }
    let series = "harborseal_durable_latency_seconds";
    for (bound, count) in LATENCY_BOUNDS_US.iter().zip(below) {
        let seconds = *bound as f64 / 1e6;
        writeln!(
            text,
            "{series}_bucket{{shard=\"{number}\",le=\"{seconds}\"}} {count}"
        )?;
    }
    writeln!(
        text,
        "{series}_bucket{{shard=\"{number}\",le=\"+Inf\"}} {}",
        recorded.len()
    )?;
    writeln!(text, "{series}_sum{{shard=\"{number}\"}} {:.6}", sum_us / 1e6)?;
    writeln!(text, "{series}_count{{shard=\"{number}\"}} {}", recorded.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn two_shards() -> Vec<Snapshot> {
        let mut one = Snapshot::new(0);
        one.received = 100;
        one.stored = 90;
        one.dropped.add(Reason::UnknownSsrc, 7);
        for us in [900, 1_000, 600_000, 599_000_000] {
            one.durable_latency_us.record(us).expect("within bounds");
        }
        vec![one, Snapshot::new(1)]
    }

    fn value(text: &str, series: &str) -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
            .parse()
            .expect("a number")
    }

    /// A reader of the format, as strict as its description: every sample after its HELP and TYPE, names and labels of
    /// legal characters, no series twice, the samples of a family together.
    #[test]
    fn the_text_is_well_formed() {
        let text = render(&two_shards(), Process::default(), true, 0);
        assert!(text.ends_with('\n'));
        let mut kinds = HashMap::new();
        let (mut helped, mut seen) = (HashSet::new(), HashSet::new());
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a text");
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a kind");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(
                    helped.contains(name) && kinds.insert(name.to_owned(), kind).is_none(),
                    "{line}"
                );
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                current = name.to_owned();
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            value.parse::<f64>().expect("a number");
            assert!(seen.insert(series.to_owned()), "twice: {series}");
            let (name, labels) = series
                .split_once('{')
                .map_or((series, ""), |(n, l)| (n, l.strip_suffix('}').expect("closed")));
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            let family = match kinds[&current] {
                "histogram" => name
                    .trim_end_matches("_bucket")
                    .trim_end_matches("_sum")
                    .trim_end_matches("_count"),
                _ => name,
            };
            assert_eq!(family, current, "{line}");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (key, quoted) = label.split_once('=').expect("key=\"value\"");
                assert!(key.bytes().all(|b| b.is_ascii_lowercase()), "{label}");
                let inner = quoted
                    .strip_prefix('"')
                    .and_then(|q| q.strip_suffix('"'))
                    .expect("quoted");
                assert!(!inner.contains(['"', '\\', '\n']), "{label}");
            }
        }
    }

    #[test]
    fn the_manual_explains_every_metric() {
        let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATING.md");
        let manual = std::fs::read_to_string(manual).expect("it is in the repository");
        for line in render(&two_shards(), Process::default(), true, 0).lines() {
            if let Some(rest) = line.strip_prefix("# TYPE harborseal_") {
                let name = rest.split(' ').next().expect("a name");
                assert!(
                    [format!("`{name}`"), format!("`{name}{{")]
                        .iter()
                        .any(|n| manual.contains(n)),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn figures_are_those_of_the_ledger() {
        let text = render(
            &two_shards(),
            Process {
                cpu_ns: 1_500_000_000,
                memory_bytes: 4096,
            },
            false,
            3,
        );
        assert_eq!(
            value(&text, "harborseal_received_packets_total{shard=\"0\"}"),
            100.0
        );
        assert_eq!(
            value(&text, "harborseal_received_packets_total{shard=\"1\"}"),
            0.0
        );
        let dropped = "harborseal_dropped_packets_total{shard=\"0\",reason=\"unknown_ssrc\"}";
        assert_eq!(value(&text, dropped), 7.0);
        assert_eq!(value(&text, "harborseal_unaccounted_packets{shard=\"0\"}"), 3.0);
        assert_eq!(value(&text, "harborseal_cpu_seconds_total"), 1.5);
        assert_eq!(value(&text, "harborseal_ready"), 0.0);
        assert_eq!(value(&text, "harborseal_log_lines_lost_total"), 3.0);
    }

    #[test]
    fn latency_buckets_are_cumulative() {
        let text = render(&two_shards(), Process::default(), true, 0);
        let bucket = |le: &str| {
            value(
                &text,
                &format!("harborseal_durable_latency_seconds_bucket{{shard=\"0\",le=\"{le}\"}}"),
            )
        };
        assert_eq!(
            (bucket("0.001"), bucket("0.5"), bucket("0.75"), bucket("60")),
            (2.0, 2.0, 3.0, 3.0)
        );
        assert_eq!(bucket("+Inf"), 4.0);
        assert_eq!(
            value(&text, "harborseal_durable_latency_seconds_count{shard=\"0\"}"),
            4.0
        );
        let sum = value(&text, "harborseal_durable_latency_seconds_sum{shard=\"0\"}");
        assert!((sum - 599.6019).abs() < 0.5, "{sum}");
    }
}
