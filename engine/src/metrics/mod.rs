//! The figures of all shards, added up and made readable: for monitoring ([`exposition`]), for people and for
//! programs ([`events`]).
//!
//! Invariant: nothing here holds the name of a customer or camera, or an address. A stream is told by shard and SSRC.

pub mod events;
pub mod exposition;

use hdrhistogram::Histogram;

use crate::ledger::Snapshot;
use crate::uring::sys::{self, Usage};

/// The process beside its shards: what it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// User and system time of all threads, the kernel's io_uring workers for this process included, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory and huge pages, in bytes. The kernel counts the latter apart from VmRSS.
    pub memory_bytes: u64,
}

impl Process {
    /// What this process has cost so far.
    pub fn so_far() -> Process {
        // The kernel always has this file; without it, memory is the figure that is missing.
        let memory = sys::memory_use().unwrap_or_default();
        Process {
            cpu_ns: Usage::of_process().cpu_ns(),
            memory_bytes: memory.rss_bytes + memory.hugetlb_bytes,
        }
    }
}

/// The sum of all shards' snapshots at one moment, and what the process had cost by then.
#[derive(Clone, Debug)]
pub struct Totals {
    /// The sum; its `shard` means nothing.
    pub sum: Snapshot,
    /// Cost so far.
    pub process: Process,
    /// When, on the monotonic clock, in nanoseconds.
    pub at_ns: u64,
}

impl Totals {
    /// Adds up.
    pub fn new<'a>(snapshots: impl Iterator<Item = &'a Snapshot>, process: Process, at_ns: u64) -> Totals {
        let mut sum = Snapshot::new(0);
        snapshots.for_each(|snapshot| sum.merge(snapshot));
        Totals { sum, process, at_ns }
    }
}

/// What happened between two moments. Rates are `None` where nothing happened that they could be told by.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its length in nanoseconds.
    pub length_ns: u64,
    /// UDP payload bytes received, as a rate.
    pub gbps: f64,
    /// CPU time of the whole process per packet that became durable.
    pub cpu_ns_per_packet: Option<f64>,
    /// Durable latency: half of the chunks were faster.
    pub durable_ms_p50: Option<f64>,
    /// Durable latency: 99 of 100 chunks were faster.
    pub durable_ms_p99: Option<f64>,
}

impl Span {
    /// From `before` (the start of the run, if `None`) to `after`; rates are taken over `length_ns`.
    pub fn between(before: Option<&Totals>, after: &Totals, length_ns: u64) -> Span {
        let zero = (0, 0, 0);
        let (bytes, stored, cpu_ns) =
            before.map_or(zero, |b| (b.sum.received_bytes, b.sum.stored, b.process.cpu_ns));
        let bytes = after.sum.received_bytes.saturating_sub(bytes);
        let stored = after.sum.stored.saturating_sub(stored);
        let cpu_ns = after.process.cpu_ns.saturating_sub(cpu_ns);
        let latency = latency_between(before, after);
        let quantile = |q| (!latency.is_empty()).then(|| latency.value_at_quantile(q) as f64 / 1000.0);
        Span {
            length_ns,
            // Bits per nanosecond are gigabits per second.
            gbps: if length_ns == 0 {
                0.0
            } else {
                bytes as f64 * 8.0 / length_ns as f64
            },
            cpu_ns_per_packet: (stored > 0).then(|| cpu_ns as f64 / stored as f64),
            durable_ms_p50: quantile(0.50),
            durable_ms_p99: quantile(0.99),
        }
    }
}

fn latency_between(before: Option<&Totals>, after: &Totals) -> Histogram<u64> {
    let mut latency = after.sum.durable_latency_us.clone();
    if let Some(before) = before {
        // Counts only grow, so this cannot fail; if a shard ever began anew, its whole life is the better answer.
        let _ = latency.subtract(&before.sum.durable_latency_us);
    }
    latency
}

/// Turns totals, one after the other, into spans: since the last, and over the time there was traffic.
#[derive(Debug, Default)]
pub struct Meter {
    last: Option<Totals>,
    /// From the last look before the first packet to the last look that found new ones.
    traffic_ns: Option<(u64, u64)>,
    looked_ns: Option<u64>,
    received: u64,
}

impl Meter {
    /// Looks at the figures without ending a span: how exactly the time of traffic is known hangs on how often.
    pub fn look(&mut self, received: u64, at_ns: u64) {
        if received > self.received {
            self.received = received;
            let since_ns = self.looked_ns.unwrap_or(at_ns);
            let first_ns = self.traffic_ns.map_or(since_ns, |(first, _)| first);
            self.traffic_ns = Some((first_ns, at_ns));
        }
        self.looked_ns = Some(at_ns);
    }

    /// The span since the last call (or since `began_ns`), which ends here.
    pub fn lap(&mut self, now: Totals, began_ns: u64) -> Span {
        self.look(now.sum.received, now.at_ns);
        let since_ns = self.last.as_ref().map_or(began_ns, |last| last.at_ns);
        let span = Span::between(self.last.as_ref(), &now, now.at_ns.saturating_sub(since_ns));
        self.last = Some(now);
        span
    }

    /// The span from the start of the run to `now`; its rate is over the time from the first packet to the last.
    pub fn whole(&mut self, now: &Totals) -> Span {
        self.look(now.sum.received, now.at_ns);
        let length_ns = self.traffic_ns.map_or(0, |(first, last)| last - first);
        Span::between(None, now, length_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Reason;

    /// Totals at `second` with this many packets of 1,000 bytes received, all durable 1 ms later each.
    fn totals(second: u64, packets: u64) -> Totals {
        let mut snapshot = Snapshot::new(0);
        snapshot.received = packets;
        snapshot.received_bytes = packets * 1000;
        snapshot.stored = packets;
        for n in 1..=packets {
            snapshot
                .durable_latency_us
                .record(n * 1000)
                .expect("within bounds");
        }
        let process = Process {
            cpu_ns: packets * 2000,
            memory_bytes: 0,
        };
        Totals::new([&snapshot].into_iter(), process, second * 1_000_000_000)
    }

    #[test]
    fn this_process_costs_something() {
        let cost = Process::so_far();
        assert!(cost.cpu_ns > 0 && cost.memory_bytes > 100_000, "{cost:?}");
    }

    #[test]
    fn shards_add_up() {
        let mut one = Snapshot::new(0);
        one.received = 5;
        one.dropped.add(Reason::Oversize, 2);
        let mut two = one.clone();
        two.shard = 1;
        two.dropped.add(Reason::DiskFull, 1);
        two.account.lost = 7;
        let sum = Totals::new([&one, &two].into_iter(), Process::default(), 0).sum;
        assert_eq!((sum.received, sum.dropped.total(), sum.account.lost), (10, 5, 7));
    }

    #[test]
    fn a_lap_tells_what_happened_since_the_last_one() {
        let mut meter = Meter::default();
        let first = meter.lap(totals(2, 10), 1_000_000_000);
        assert_eq!(first.length_ns, 1_000_000_000);
        assert!((first.gbps - 8e-5).abs() < 1e-12, "{}", first.gbps);
        assert_eq!(first.cpu_ns_per_packet, Some(2000.0));
        assert!(first.durable_ms_p50.is_some_and(|ms| (ms - 5.0).abs() < 0.01));
        // Packets 11 to 20 take 11 to 20 ms.
        let second = meter.lap(totals(4, 20), 1_000_000_000);
        assert!((second.gbps - 4e-5).abs() < 1e-12, "{}", second.gbps);
        assert!(second.durable_ms_p50.is_some_and(|ms| (ms - 15.0).abs() < 0.01));
        assert!(second.durable_ms_p99.is_some_and(|ms| (ms - 20.0).abs() < 0.02));
        let idle = meter.lap(totals(5, 20), 1_000_000_000);
        assert_eq!(
            (idle.gbps, idle.cpu_ns_per_packet, idle.durable_ms_p50),
            (0.0, None, None)
        );
    }

    #[test]
    fn the_whole_runs_rate_leaves_out_the_quiet_before_and_after() {
        let mut meter = Meter::default();
        meter.look(0, 0);
        meter.look(0, 10_000_000_000);
        meter.look(10, 10_500_000_000);
        meter.look(110, 12_000_000_000);
        meter.look(110, 99_000_000_000);
        let whole = meter.whole(&totals(100, 110));
        assert_eq!(whole.length_ns, 2_000_000_000);
        assert!((whole.gbps - 110.0 * 8000.0 / 2e9).abs() < 1e-9, "{}", whole.gbps);
    }
}
