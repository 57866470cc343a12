//! What a run shows of itself while it runs: one [`LiveSecond`] a second, which nobody need take.
//!
//! The sending thread never waits for whoever looks: a second that finds the channel full is gone from view. It is not gone from
//! the result, which holds all of them.

use crate::result::Second;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Seconds that may wait to be looked at.
const SECONDS_QUEUED: usize = 16;

/// One second of a run, as it ends.
#[derive(Debug, Clone)]
pub struct LiveSecond {
    pub second: Second,
    /// Lateness of this second's packets, microseconds.
    pub lateness: Histogram<u64>,
    /// Packets lost or not sent in this second, by stream; `None` where no stream lost one.
    pub per_stream_lost: Option<Vec<u32>>,
}

/// The run's line to the outside: a stop, and how far it is. Relaxed order is enough: each value stands alone.
#[derive(Debug, Default)]
pub struct Control {
    /// Shared, so that a signal handler can hold it.
    pub stop: Arc<AtomicBool>,
    pub sent: AtomicU64,
    pub sent_bytes: AtomicU64,
    /// Lateness of the latest batch.
    pub late_ns: AtomicU64,
    live: Option<SyncSender<LiveSecond>>,
}

impl Control {
    /// A control, and where its run's seconds come out as they end.
    pub fn watched() -> (Control, Receiver<LiveSecond>) {
        let (live, seconds) = sync_channel(SECONDS_QUEUED);
        let control = Control {
            live: Some(live),
            ..Control::default()
        };
        (control, seconds)
    }

    /// Whether somebody asked to see the seconds.
    pub fn is_watched(&self) -> bool {
        self.live.is_some()
    }

    /// Gives a second to whoever looks.
    pub fn show(&self, second: LiveSecond) {
        if let Some(live) = &self.live {
            // Full: whoever looks is slow. Closed: nobody looks any more. Neither is the run's business.
            let _ = live.try_send(second);
        }
    }
}

/// Lateness as it is kept everywhere: microseconds, three digits, up to 1,000 s.
pub fn lateness_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("bounds the histogram allows")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at_s: f64) -> LiveSecond {
        LiveSecond {
            second: Second {
                at_s,
                ..Second::default()
            },
            lateness: lateness_histogram(),
            per_stream_lost: None,
        }
    }

    #[test]
    fn who_does_not_look_holds_up_nothing_and_sees_the_earliest_seconds() {
        let (control, seconds) = Control::watched();
        for at in 0..100 {
            control.show(second(f64::from(at)));
        }
        drop(control);
        let seen: Vec<f64> = seconds.iter().map(|live| live.second.at_s).collect();
        assert_eq!(
            seen,
            (0..SECONDS_QUEUED as u32).map(f64::from).collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_unwatched_or_abandoned_run_goes_on() {
        Control::default().show(second(0.0));
        let (control, seconds) = Control::watched();
        drop(seconds);
        control.show(second(0.0));
    }
}
