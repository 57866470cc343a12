//! What is said of all runs of `line-rate`.

use std::collections::BTreeMap;
use std::fmt::Write;

use harborseal::config::Chunk;
use serde::Serialize;

use super::Options;
use crate::lab::Account;
use crate::load::{Description, Load};
use crate::machine::{Cpus, Machine};
use crate::runs::{DiscardRun, EngineRun};
use crate::sample::median;
use crate::syscalls::Counted;

const SCHEMA: &str = "harborseal-bench/line-rate/1";

/// What one run showed that only counted system calls.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Calls {
    pub per_1000_packets: Option<f64>,
    /// By thread, of the same 1,000 packets.
    pub per_1000_packets_by_thread: BTreeMap<String, f64>,
    /// Of the same run, by the engine's own count: what of it was on rings.
    pub ring_enters_per_1000_packets: Option<f64>,
    pub stored: u64,
    pub counted: Counted,
    pub not_counted_because: Option<String>,
}

impl Calls {
    pub fn not_counted(why: String) -> Calls {
        Calls {
            not_counted_because: Some(why),
            ..Calls::default()
        }
    }

    pub fn of(counted: Counted, account: &Account) -> anyhow::Result<Calls> {
        let stored = account.number("stored")?;
        let share = |calls: u64| calls as f64 * 1000.0 / stored.max(1) as f64;
        Ok(Calls {
            per_1000_packets: Some(share(counted.total)),
            per_1000_packets_by_thread: counted
                .by_thread
                .iter()
                .map(|(thread, &calls)| (thread.clone(), share(calls)))
                .collect(),
            ring_enters_per_1000_packets: Some(share(account.number("ring_enters")?)),
            stored,
            counted,
            not_counted_because: None,
        })
    }

    pub fn line(&self) -> String {
        match (self.per_1000_packets, &self.not_counted_because) {
            (Some(calls), _) => format!(
                "{calls:.2} for 1,000 packets, all threads; {:.2} of them on rings",
                self.ring_enters_per_1000_packets.unwrap_or_default()
            ),
            (None, why) => format!(
                "not counted: {}",
                why.as_deref().unwrap_or("no run for it was made")
            ),
        }
    }
}

/// All runs of a measurement.
#[derive(Debug, Default)]
pub struct Runs {
    pub engine: Vec<EngineRun>,
    pub discard: Vec<DiscardRun>,
    pub calls: Calls,
}

/// All of it. The counts are those of one run, the one with the median loss, so that they add up; the other figures are medians.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    machine: Machine,
    /// File system the segments were written to.
    disk: String,
    cpus: Cpus,
    command: Vec<String>,
    load: Description,
    shards: usize,
    memory_mib: u64,
    repeats: u32,
    pub sent: u64,
    pub received: u64,
    pub stored: u64,
    pub dropped: u64,
    pub lost_unexplained: i64,
    /// Sent less stored in that run, and in the worst of the valid ones.
    pub lost_after_sender: i64,
    pub lost_after_sender_worst: i64,
    pub gbps: f64,
    pub engine_cpu_ns_per_packet: f64,
    pub discard_cpu_ns_per_packet: f64,
    /// The median of the rounds' own ratios; so it may differ a little from the two figures' above. None where nothing was received.
    pub ratio: Option<f64>,
    pub ratios: Vec<f64>,
    pub engine_core_busy_percent: f64,
    pub discard_core_busy_percent: f64,
    pub durable_ms_p50: Option<f64>,
    pub durable_ms_p99: Option<f64>,
    /// `chunk.deadline`, at its default.
    pub chunk_deadline_ms: f64,
    pub durable_ms_p99_over_deadline: Option<f64>,
    pub rss_mib: f64,
    pub ring_enters_per_1000_packets: f64,
    pub discard_ring_enters_per_1000_packets: f64,
    pub system_calls: Calls,
    pub valid: bool,
    pub invalid_because: Vec<String>,
    engine_runs: Vec<EngineRun>,
    discard_runs: Vec<DiscardRun>,
}

impl Report {
    pub fn new(
        options: &Options,
        load: &Load,
        machine: Machine,
        cpus: Cpus,
        disk: String,
        runs: Runs,
    ) -> Report {
        let rounds: Vec<_> = runs.engine.iter().zip(&runs.discard).collect();
        let good: Vec<_> = rounds
            .iter()
            .copied()
            .filter(|(e, d)| e.valid && d.valid)
            .collect();
        let invalid_because = judge(good.len(), rounds.len(), &rounds);
        // Without one valid round there are figures all the same, and they are called what they are.
        let used = if good.is_empty() { &rounds } else { &good };
        let engine = |value: fn(&EngineRun) -> f64| median(used.iter().map(|(run, _)| value(run)).collect());
        let discard =
            |value: fn(&DiscardRun) -> f64| median(used.iter().map(|(_, run)| value(run)).collect());
        let of_all = |value: fn(&EngineRun) -> Option<f64>| {
            let values: Vec<f64> = used.iter().filter_map(|(run, _)| value(run)).collect();
            (!values.is_empty()).then(|| median(values))
        };
        let ratios: Vec<f64> = used
            .iter()
            .filter(|(_, discard)| discard.cpu_ns_per_packet > 0.0)
            .map(|(engine, discard)| engine.cpu_ns_per_packet / discard.cpu_ns_per_packet)
            .collect();
        let typical = median_loss(used.iter().map(|(run, _)| *run));
        let worst = used.iter().map(|(run, _)| run.lost_after_sender).max();
        let durable_ms_p99 = of_all(|run| run.durable_ms_p99);
        let chunk_deadline_ms = Chunk::default().deadline.as_secs_f64() * 1e3;
        Report {
            schema: SCHEMA,
            machine,
            disk,
            cpus,
            command: std::env::args().collect(),
            load: load.describe(),
            shards: options.shards,
            memory_mib: options.engine.memory_mib,
            repeats: options.repeats,
            sent: typical.sent,
            received: typical.received,
            stored: typical.stored,
            dropped: typical.dropped,
            lost_unexplained: typical.lost_unexplained,
            lost_after_sender: typical.lost_after_sender,
            lost_after_sender_worst: worst.unwrap_or(typical.lost_after_sender),
            gbps: engine(|run| run.gbps),
            engine_cpu_ns_per_packet: engine(|run| run.cpu_ns_per_packet),
            discard_cpu_ns_per_packet: discard(|run| run.cpu_ns_per_packet),
            ratio: (!ratios.is_empty()).then(|| median(ratios.clone())),
            ratios,
            engine_core_busy_percent: engine(|run| run.core_busy_percent),
            discard_core_busy_percent: discard(|run| run.core_busy_percent),
            durable_ms_p50: of_all(|run| run.durable_ms_p50),
            durable_ms_p99,
            chunk_deadline_ms,
            durable_ms_p99_over_deadline: durable_ms_p99.map(|ms| ms - chunk_deadline_ms),
            rss_mib: engine(|run| run.rss_mib),
            ring_enters_per_1000_packets: engine(|run| run.ring_enters_per_1000_packets),
            discard_ring_enters_per_1000_packets: discard(|run| run.ring_enters_per_1000_packets),
            system_calls: runs.calls,
            valid: invalid_because.is_empty(),
            invalid_because,
            engine_runs: runs.engine,
            discard_runs: runs.discard,
        }
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut line =
            |what: &str, value: String| writeln!(text, "{what:24} {value}").expect("a String takes all");
        line("load", format!("{}; {} rounds", self.load, self.repeats));
        line("sent", self.sent.to_string());
        line("received", self.received.to_string());
        line("stored", self.stored.to_string());
        line("dropped by the engine", self.dropped.to_string());
        line("lost, unexplained", self.lost_unexplained.to_string());
        line(
            "lost after the sender",
            format!(
                "{} (worst round: {})",
                self.lost_after_sender, self.lost_after_sender_worst
            ),
        );
        line("rate stored", format!("{:.3} Gb/s", self.gbps));
        let spread = |values: Vec<f64>| crate::sample::spread_percent(&values);
        let costs = self.engine_runs.iter().map(|run| run.cpu_ns_per_packet).collect();
        line(
            "engine",
            format!(
                "{:.0} ns CPU per packet (spread {:.0} %), core {:.0} % busy",
                self.engine_cpu_ns_per_packet,
                spread(costs),
                self.engine_core_busy_percent
            ),
        );
        let costs = self
            .discard_runs
            .iter()
            .map(|run| run.cpu_ns_per_packet)
            .collect();
        line(
            "receive and discard",
            format!(
                "{:.0} ns CPU per packet (spread {:.0} %), core {:.0} % busy",
                self.discard_cpu_ns_per_packet,
                spread(costs),
                self.discard_core_busy_percent
            ),
        );
        let ratio = self
            .ratio
            .map_or_else(|| "none".to_owned(), |ratio| format!("{ratio:.2}"));
        line("ratio", ratio);
        let latency = |value: Option<f64>| value.map_or("none".to_owned(), |ms| format!("{ms:.0} ms"));
        line(
            "durable after",
            format!(
                "{} (p50), {} (p99)",
                latency(self.durable_ms_p50),
                latency(self.durable_ms_p99)
            ),
        );
        let over = |ms: f64| format!("{ms:+.0} ms");
        line(
            "p99 over the deadline",
            self.durable_ms_p99_over_deadline.map_or("none".to_owned(), over),
        );
        line(
            "ring system calls",
            format!(
                "{:.2} for 1,000 packets (receive and discard: {:.2})",
                self.ring_enters_per_1000_packets, self.discard_ring_enters_per_1000_packets
            ),
        );
        line("all system calls", self.system_calls.line());
        line("memory", format!("{:.0} MiB", self.rss_mib));
        match self.valid {
            true => line("valid", "yes".to_owned()),
            false => line("valid", format!("NO: {}", self.invalid_because.join("; "))),
        }
        text
    }
}

/// A result stands on more than half of its rounds. The first of the others says why; each has its own reasons in its own run.
fn judge(good: usize, all: usize, rounds: &[(&EngineRun, &DiscardRun)]) -> Vec<String> {
    if good * 2 > all {
        return Vec::new();
    }
    let mut reasons = rounds
        .iter()
        .flat_map(|(engine, discard)| engine.invalid_because.iter().chain(&discard.invalid_because));
    let first = reasons.next().map_or("", String::as_str);
    vec![format!("{good} of {all} rounds are valid; {first}")]
}

/// The run with the median loss; of two in the middle, the one that lost more.
fn median_loss<'a>(runs: impl Iterator<Item = &'a EngineRun>) -> &'a EngineRun {
    let mut runs: Vec<_> = runs.collect();
    runs.sort_by_key(|run| run.lost_after_sender);
    runs[runs.len() / 2]
}
