//! Which stream is next, and when: a heap of due times. Pure: time is an argument.
//!
//! A heap rather than a timing wheel: at 4,000 cameras its twelve levels cost about 0.1 µs per burst, a few percent of
//! sending one, and cameras of any rate mix in it without slots to choose.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The stream's next burst.
    Burst(u32),
    /// The stream's next sender report.
    Report(u32),
    /// A group's next datagram of junk.
    Junk(u32),
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
/// Only what is late by the sender's own doing is bounded. A schedule may ask for more than can leave at once (all cameras' key
/// frames in one moment); that leaves as fast as it goes, so a shadow sender of [`CatchUp::line_bytes_per_ns`] says when a packet could have
/// left at the earliest, and lateness counts from there. (In the report it counts from the due time, always.)
///
/// The load stays open-loop: a packet held back keeps its intended time.
pub struct CatchUp {
    bytes_per_ns: f64,
    burst_bytes: f64,
    tokens: f64,
    refilled_ns: u64,
    line_bytes_per_ns: f64,
    /// When the shadow sender is done with what was sent so far.
    shadow_ns: f64,
}

const CATCH_UP: f64 = 2.0;
/// A sleep on Linux overshoots by about 0.1 ms, and 0.4 ms of 1 Gb/s are 50 kB: a quarter of what the default receive
/// buffer (208 KiB) can take.
const BURST_NS: f64 = 400_000.0;
/// Room for the largest single burst, at any rate.
const BURST_BYTES_MIN: f64 = 65_536.0;
/// What the shadow sender sends at least, bytes per nanosecond: 4 Gb/s, which one core of any machine with segmentation surpasses.
const LINE_MIN: f64 = 0.5;

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
            line_bytes_per_ns: (bytes_per_ns * CATCH_UP).max(LINE_MIN),
            shadow_ns: 0.0,
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

    /// Counts what was due at `due_ns` and has left by now.
    pub fn sent(&mut self, bytes: usize, due_ns: u64, now_ns: u64) {
        self.shadow_ns = self.shadow_ns.max(due_ns as f64) + bytes as f64 / self.line_bytes_per_ns;
        if now_ns as f64 - self.shadow_ns > BURST_NS {
            self.tokens -= bytes as f64;
        }
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

    const GIGABIT: f64 = 125e6;

    /// Sends these (due, bytes), a microsecond each, and says when each left.
    fn send(bound: &mut CatchUp, mut now_ns: u64, due: impl Iterator<Item = (u64, usize)>) -> Vec<u64> {
        let mut left = Vec::new();
        for (due_ns, bytes) in due {
            now_ns = now_ns.max(due_ns);
            while let Err(wait_ns) = bound.may_send(now_ns) {
                now_ns += wait_ns;
            }
            now_ns += 1_000;
            bound.sent(bytes, due_ns, now_ns);
            left.push(now_ns);
        }
        left
    }

    #[test]
    fn after_a_delay_the_backlog_leaves_at_twice_the_rate_and_no_faster() {
        let mut bound = CatchUp::new(GIGABIT);
        // 5,000 bytes every 40 µs; the sender begins 50 ms late.
        let left = send(&mut bound, 50_000_000, (0..4_000).map(|at| (at * 40_000, 5_000)));
        let (from, to) = (100, 2_000);
        let ratio = (to - from) as f64 * 5_000.0 / ((left[to] - left[from]) as f64 / 1e9) / GIGABIT;
        assert!((1.9..2.1).contains(&ratio), "caught up at {ratio} times the rate");
        let late = left[3_999] - 3_999 * 40_000;
        assert!(late < 1_000_000, "it did catch up: {late} ns late at the end");
    }

    #[test]
    fn on_time_nothing_is_held_back() {
        let mut bound = CatchUp::new(GIGABIT);
        let left = send(&mut bound, 0, (0..10_000).map(|at| (at * 40_000, 5_000)));
        assert!(
            left.iter()
                .zip(0..)
                .all(|(left, at)| *left == at * 40_000 + 1_000)
        );
    }

    #[test]
    fn what_the_schedule_wants_at_once_leaves_at_once() {
        // 100 cameras of 1 Mb/s, whose key frames of 20 kB are all due in the same moment: 2 MB.
        let mut bound = CatchUp::new(GIGABIT / 10.0);
        let left = send(
            &mut bound,
            0,
            (0..1_000).map(|at| (at / 100 * 1_000_000_000, 20_000)),
        );
        assert!(left.chunks(100).all(|moment| moment[99] - moment[0] < 100_000));
    }
}
