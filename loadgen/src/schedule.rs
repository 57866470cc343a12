//! Which camera is next, and when: a heap of due times. Pure: time is an argument.
//!
//! A heap rather than a timing wheel: at 4,000 cameras its twelve levels cost about 0.1 µs per burst, a few percent of
//! sending one, and cameras of any rate mix in it without slots to choose.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The camera's next burst.
    Burst(u32),
    /// The camera's next sender report.
    Report(u32),
}

/// Events by due time; equal times in the order of the events themselves, so that a run can be repeated.
#[derive(Default)]
pub struct Schedule {
    heap: BinaryHeap<Reverse<(u64, Event)>>,
}

impl Schedule {
    pub fn add(&mut self, due_ns: u64, event: Event) {
        self.heap.push(Reverse((due_ns, event)));
    }

    /// When the next event is due; `None` when all is done.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// Takes the next event if it is due by `now_ns`.
    pub fn take_due(&mut self, now_ns: u64) -> Option<(u64, Event)> {
        let Reverse(first) = self.heap.peek()?;
        let first = (first.0 <= now_ns).then_some(*first)?;
        self.heap.pop();
        Some(first)
    }
}

/// Bounds how fast a sender that fell behind may catch up, so that its own delay does not become the receiver's overload:
/// the fleet's rate times [`CATCH_UP`], and bursts of at most [`BURST_NS`] of it.
///
/// The load stays open-loop: a packet held back keeps its intended time, and its lateness is counted from there.
pub struct CatchUp {
    bytes_per_ns: f64,
    burst_bytes: f64,
    tokens: f64,
    refilled_ns: u64,
}

const CATCH_UP: f64 = 2.0;
/// A sleep on Linux overshoots by about 0.1 ms, and 0.4 ms of 1 Gb/s are 50 kB: a quarter of what the default receive
/// buffer (208 KiB) can take.
const BURST_NS: f64 = 400_000.0;
/// Room for the largest single burst, at any rate.
const BURST_BYTES_MIN: f64 = 65_536.0;

impl CatchUp {
    /// For a fleet whose nominal rate is `bytes_per_s`.
    pub fn new(bytes_per_s: f64) -> CatchUp {
        let bytes_per_ns = bytes_per_s / 1e9;
        let burst_bytes = (bytes_per_ns * BURST_NS).max(BURST_BYTES_MIN);
        CatchUp {
            bytes_per_ns: bytes_per_ns * CATCH_UP,
            burst_bytes,
            tokens: burst_bytes,
            refilled_ns: 0,
        }
    }

    /// Whether something may be sent now; else how long to wait, in nanoseconds.
    pub fn may_send(&mut self, now_ns: u64) -> Result<(), u64> {
        let since_ns = now_ns.saturating_sub(self.refilled_ns);
        self.refilled_ns = now_ns.max(self.refilled_ns);
        self.tokens = (self.tokens + since_ns as f64 * self.bytes_per_ns).min(self.burst_bytes);
        if self.tokens > 0.0 {
            return Ok(());
        }
        // Until a quarter of the bucket is back: single bursts with a sleep between each would cost more than they smooth.
        Err(((self.burst_bytes / 4.0 - self.tokens) / self.bytes_per_ns) as u64)
    }

    pub fn sent(&mut self, bytes: usize) {
        self.tokens -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_due_order_and_not_before_their_time() {
        let mut schedule = Schedule::default();
        schedule.add(30, Event::Burst(1));
        schedule.add(10, Event::Report(2));
        schedule.add(10, Event::Burst(2));
        assert_eq!(schedule.take_due(9), None);
        assert_eq!(schedule.take_due(10), Some((10, Event::Burst(2))));
        assert_eq!(schedule.take_due(10), Some((10, Event::Report(2))));
        assert_eq!(schedule.take_due(10), None);
        assert_eq!(schedule.next_due_ns(), Some(30));
    }

    #[test]
    fn after_a_delay_the_backlog_leaves_at_twice_the_rate_and_no_faster() {
        let bytes_per_s = 125e6; // 1 Gb/s
        let mut bound = CatchUp::new(bytes_per_s);
        let (mut now_ns, mut sent) = (50_000_000, 0);
        let start_ns = now_ns;
        while now_ns < start_ns + 100_000_000 {
            match bound.may_send(now_ns) {
                Ok(()) => {
                    bound.sent(5_000);
                    sent += 5_000;
                    now_ns += 1_000;
                }
                Err(wait_ns) => now_ns += wait_ns,
            }
        }
        let ratio = f64::from(sent) / (bytes_per_s * 0.1);
        assert!((1.9..2.1).contains(&ratio), "caught up at {ratio} times the rate");
    }

    #[test]
    fn on_time_nothing_is_held_back() {
        let mut bound = CatchUp::new(125e6);
        for step in 0..10_000 {
            assert_eq!(bound.may_send(step * 40_000), Ok(()));
            bound.sent(5_000);
        }
    }
}
