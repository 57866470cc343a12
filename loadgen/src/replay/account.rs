//! What a replay came to: counts, lateness, seconds, and the gate.

use super::play::Options;
use super::post::{Message, PostErrors};
use super::score::Score;
use crate::fleet::{Control, LiveSecond, lateness_histogram};
use crate::report::{LATENESS_BUDGET_MS, STRETCH_BUDGET_PERCENT, StreamCount};
use crate::result::{Load, Percentiles, RunResult, SCHEMA, Second, Sending};
use hdrhistogram::Histogram;
use std::ops::Range;
use std::sync::atomic::Ordering;

const SECOND_NS: u64 = 1_000_000_000;

/// What a replay came to.
pub struct Played {
    pub result: RunResult,
    /// CLOCK_REALTIME of the start, nanoseconds.
    pub start_ns: u64,
    /// By the number in the sent log.
    pub streams: Vec<StreamCount>,
    /// Lateness by second, microseconds.
    pub lateness: Vec<(Second, Histogram<u64>)>,
    /// Nobody listened at the target.
    pub unreachable: bool,
}

/// How it ended.
pub struct End {
    /// CPU time of the sending thread.
    pub cpu_ns: u64,
    /// CLOCK_REALTIME of the start, nanoseconds.
    pub start_ns: u64,
    pub stopped: bool,
}

/// Counts of a replay, as it goes.
pub struct Account<'a> {
    pub control: &'a Control,
    streams: Vec<StreamCount>,
    lateness: Histogram<u64>,
    second: Second,
    second_lateness: Histogram<u64>,
    second_lost: Vec<u32>,
    seconds: Vec<(Second, Histogram<u64>)>,
    /// Packets by the second in which they came due.
    due: Vec<u64>,
    sent: u64,
    sent_bytes: u64,
    not_sent: u64,
    rtcp_sent: u64,
    rtcp_not_sent: u64,
    calls: u64,
    messages: u64,
    last_due_ns: u64,
    last_sent_ns: u64,
    /// When all clones are on, and (first and last moment, packets, bytes) sent then.
    steady: Range<u64>,
    steady_sent: Option<(u64, u64)>,
    steady_packets: u64,
    steady_bytes: u64,
}

impl<'a> Account<'a> {
    pub fn new(score: &Score<'_>, control: &'a Control) -> Account<'a> {
        let parts = 0..score.parts();
        let count = |part| StreamCount {
            ssrc: score.part(part).0,
            ..StreamCount::default()
        };
        Account {
            control,
            streams: parts.map(count).collect(),
            lateness: lateness_histogram(),
            second: Second::default(),
            second_lateness: lateness_histogram(),
            second_lost: vec![0; score.parts() as usize],
            seconds: Vec::new(),
            due: Vec::new(),
            sent: 0,
            sent_bytes: 0,
            not_sent: 0,
            rtcp_sent: 0,
            rtcp_not_sent: 0,
            calls: 0,
            messages: 0,
            last_due_ns: 0,
            last_sent_ns: 0,
            steady: score.steady_ns(),
            steady_sent: None,
            steady_packets: 0,
            steady_bytes: 0,
        }
    }

    /// One message and what became of it.
    pub fn count(&mut self, message: &Message, bytes: u64, left: bool, now_ns: u64) {
        self.messages += 1;
        let (part, due_ns) = (message.part as usize, message.due_ns);
        let stream = &mut self.streams[part];
        if message.rtcp {
            stream.rtcp_sent += u64::from(left);
            self.rtcp_sent += u64::from(left);
            self.rtcp_not_sent += u64::from(!left);
            return;
        }
        let second = (due_ns / SECOND_NS) as usize;
        self.due.resize(self.due.len().max(second + 1), 0);
        self.due[second] += 1;
        if !left {
            stream.not_sent += 1;
            self.not_sent += 1;
            self.second.not_sent += 1;
            self.second_lost[part] += 1;
            return;
        }
        stream.sent += 1;
        stream.sent_bytes += bytes;
        self.sent += 1;
        self.sent_bytes += bytes;
        self.second.sent += 1;
        self.second.sent_bytes += bytes;
        let late_us = now_ns.saturating_sub(due_ns) / 1_000;
        self.lateness.saturating_record(late_us);
        self.second_lateness.saturating_record(late_us);
        self.last_due_ns = self.last_due_ns.max(due_ns);
        self.last_sent_ns = now_ns;
        if self.steady.contains(&due_ns) {
            self.steady_sent = Some((self.steady_sent.map_or(now_ns, |(from, _)| from), now_ns));
            self.steady_packets += 1;
            self.steady_bytes += bytes;
        }
    }

    /// A batch is out: whoever looks may see it, and a second may have ended.
    pub fn batch_done(&mut self, now_ns: u64) {
        self.calls += 1;
        self.control.sent.store(self.sent, Ordering::Relaxed);
        self.control.sent_bytes.store(self.sent_bytes, Ordering::Relaxed);
        let late_ns = now_ns.saturating_sub(self.last_due_ns);
        self.control.late_ns.store(late_ns, Ordering::Relaxed);
        while now_ns >= (self.seconds.len() as u64 + 1) * SECOND_NS {
            self.end_second();
        }
    }

    fn end_second(&mut self) {
        let mut second = std::mem::take(&mut self.second);
        second.at_s = self.seconds.len() as f64;
        second.due = self.due.get(self.seconds.len()).copied();
        second.lateness_ms = percentiles_ms(&self.second_lateness);
        let lateness = std::mem::replace(&mut self.second_lateness, lateness_histogram());
        let lost = self.second_lost.iter().any(|&lost| lost > 0);
        self.control.show(LiveSecond {
            second: second.clone(),
            lateness: lateness.clone(),
            per_stream_lost: lost.then(|| self.second_lost.clone()),
        });
        if lost {
            self.second_lost.fill(0);
        }
        self.seconds.push((second, lateness));
    }

    pub fn finish(mut self, options: &Options, score: &Score<'_>, errors: &PostErrors, end: End) -> Played {
        if self.second.sent + self.second.not_sent > 0 {
            self.end_second();
        }
        let late_at_end_ns = self.last_sent_ns.saturating_sub(self.last_due_ns);
        let (from, to) = self.steady_sent.unwrap_or_default();
        let (packets, bytes, ns) = if to > from {
            (self.steady_packets, self.steady_bytes, to - from)
        } else {
            (self.sent, self.sent_bytes, self.last_sent_ns)
        };
        let load = Load {
            cameras: u64::from(options.times.clones),
            streams: self.streams.len() as u64,
            customers: 1,
            mbps_offered: score.bytes_per_second() * 8e-6,
            seconds: score.duration_s(),
            intended: self.sent + self.not_sent,
            sent: self.sent,
            not_sent: self.not_sent,
            sent_bytes: self.sent_bytes,
            rtcp_sent: self.rtcp_sent,
            rtcp_not_sent: self.rtcp_not_sent,
            gbps: ratio(bytes * 8, ns),
            packets_per_second: ratio(packets, ns) * 1e9,
            duration_s: self.last_sent_ns as f64 / 1e9,
            stretch_percent: 100.0 * ratio(late_at_end_ns, self.last_due_ns),
            ..Load::default()
        };
        let sending = Sending {
            method: "sendmmsg".to_owned(),
            lateness_ms: percentiles_ms(&self.lateness),
            packets_per_message: 1.0,
            packets_per_message_max: 1,
            messages_per_call: ratio(self.messages, self.calls),
            cpu_ns_per_packet: ratio(end.cpu_ns, self.sent),
            cpu_percent: 100.0 * ratio(end.cpu_ns, self.last_sent_ns),
            refused: errors.refused,
            errors: errors
                .failed
                .iter()
                .map(|(name, count)| (name.to_string(), *count))
                .collect(),
            ..Sending::default()
        };
        let invalid_because = gate(&load, &sending);
        let result = RunResult {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: options.name.clone(),
            seed: options.times.seed,
            targets: options.targets.iter().map(ToString::to_string).collect(),
            valid: invalid_because.is_empty(),
            invalid_because,
            stopped: end.stopped,
            load,
            sending,
            seconds: self.seconds.iter().map(|(second, _)| second.clone()).collect(),
            ..RunResult::default()
        };
        Played {
            unreachable: self.sent > 0 && errors.refused * 4 > self.calls,
            result,
            start_ns: end.start_ns,
            streams: self.streams,
            lateness: self.seconds,
        }
    }
}

/// The gate: a replay limited by the generator says so.
fn gate(load: &Load, sending: &Sending) -> Vec<String> {
    let mut because = Vec::new();
    let p99 = sending.lateness_ms.p99;
    if p99 > LATENESS_BUDGET_MS {
        because.push(format!(
            "packets left late: p99 {p99:.1} ms, the budget is {LATENESS_BUDGET_MS} ms"
        ));
    }
    let stretch = load.stretch_percent;
    if stretch > STRETCH_BUDGET_PERCENT {
        because.push(format!("the replay took {stretch:.1} % longer than its schedule"));
    }
    if load.not_sent > 0 {
        because.push(format!(
            "{} packets could not be sent: {:?}",
            load.not_sent, sending.errors
        ));
    }
    because
}

fn percentiles_ms(histogram: &Histogram<u64>) -> Percentiles {
    let at = |percentile| histogram.value_at_percentile(percentile) as f64 / 1e3;
    Percentiles {
        p50: at(50.0),
        p90: at(90.0),
        p99: at(99.0),
        p999: at(99.9),
        max: histogram.max() as f64 / 1e3,
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
