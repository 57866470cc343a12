//! What a shard tells the control thread, through queues that never block it and never make it allocate.
//!
//! Snapshots travel in boxes that go round: the shard fills a spare one, control reads it and gives it back. There are
//! [`BOXES`] per shard: one that control keeps as the latest, and enough that the shard finds one at any pace of
//! the other. If control does not keep up, the newest snapshot replaces an older one that nobody read. Events are
//! dropped oldest first: a later `durable` says all that an earlier one of the same segment said.
//!
//! crossbeam's `ArrayQueue` orders what was written before a push before what is read after the pop, so a box's content
//! needs no further care.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use harborseal_segment::ids::SegmentId;

use crate::ledger::{Reason, Snapshot};

/// Boxes in circulation per shard: two filled, one kept by control, one in the shard's hand.
const BOXES: usize = 4;
/// At 50 commits a second, five seconds of a control thread that does not get to run.
const DURABLE_EVENTS: usize = 256;
/// Strays are counted in full by the ledger; the log shows samples.
const STRAYS: usize = 16;

/// All blocks of a segment below `offset` are durable. Sent only after the fdatasync that made it true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Index of the shard.
    pub shard: u16,
    /// The segment.
    pub segment: SegmentId,
    /// The watermark, in bytes from the start of the file.
    pub offset: u64,
    /// Number of the last block below it.
    pub block_no: u64,
}

/// A packet that was not admitted: a sample for the log, so that an operator can find who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Why.
    pub reason: Reason,
    /// The SSRC it carried.
    pub ssrc: u32,
    /// Where it came from.
    pub from: SocketAddr,
}

struct Queues {
    filled: ArrayQueue<Box<Snapshot>>,
    spare: ArrayQueue<Box<Snapshot>>,
    durable: ArrayQueue<Durable>,
    strays: ArrayQueue<Stray>,
}

/// A shard's end. Nothing in it blocks, allocates or makes a system call.
pub struct ShardPort {
    queues: Arc<Queues>,
}

/// The control thread's end.
pub struct Inbox {
    queues: Arc<Queues>,
    latest: Box<Snapshot>,
}

/// Makes the two ends for shard `shard`.
pub fn connect(shard: u16) -> (ShardPort, Inbox) {
    let queues = Queues {
        filled: ArrayQueue::new(2),
        spare: ArrayQueue::new(BOXES),
        durable: ArrayQueue::new(DURABLE_EVENTS),
        strays: ArrayQueue::new(STRAYS),
    };
    for _ in 1..BOXES {
        queues.give_back(Box::new(Snapshot::new(shard)));
    }
    let queues = Arc::new(queues);
    (
        ShardPort {
            queues: Arc::clone(&queues),
        },
        Inbox {
            queues,
            latest: Box::new(Snapshot::new(shard)),
        },
    )
}

impl Queues {
    fn give_back(&self, spare: Box<Snapshot>) {
        self.spare
            .push(spare)
            .expect("the spare queue has room for every box there is");
    }
}

impl ShardPort {
    /// Makes `snapshot` the latest. To be called several times a second, also when nothing arrives: a shard that is
    /// silent for seconds is reported as hung. Copies about 170 KiB, most of it the histogram.
    pub fn publish(&mut self, snapshot: &Snapshot) {
        // No spare: control is busy with one box and has not read the others, of which the oldest is the least use.
        let Some(mut carrier) = self.queues.spare.pop().or_else(|| self.queues.filled.pop()) else {
            return;
        };
        carrier.copy_from(snapshot);
        if let Some(unread) = self.queues.filled.force_push(carrier) {
            self.queues.give_back(unread);
        }
    }

    /// Reports a watermark.
    pub fn durable(&self, event: Durable) {
        // What is pushed out is older news.
        let _ = self.queues.durable.force_push(event);
    }

    /// Offers a sample of packets that were not admitted; the log is rate-limited, the ledger counts them all.
    pub fn stray(&self, stray: Stray) {
        // A full queue has samples enough.
        let _ = self.queues.strays.push(stray);
    }
}

impl Inbox {
    /// Takes in what arrived; true if there was a new snapshot.
    pub fn refresh(&mut self) -> bool {
        let mut fresh = false;
        while let Some(newer) = self.queues.filled.pop() {
            self.queues.give_back(std::mem::replace(&mut self.latest, newer));
            fresh = true;
        }
        fresh
    }

    /// The latest snapshot that [`Inbox::refresh`] took in; an empty one before the first.
    pub fn latest(&self) -> &Snapshot {
        &self.latest
    }

    /// The watermarks reported since the last call, oldest first.
    pub fn durable(&self) -> impl Iterator<Item = Durable> + '_ {
        std::iter::from_fn(|| self.queues.durable.pop())
    }

    /// The strays offered since the last call.
    pub fn strays(&self) -> impl Iterator<Item = Stray> + '_ {
        std::iter::from_fn(|| self.queues.strays.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(received: u64) -> Snapshot {
        let mut snapshot = Snapshot::new(3);
        snapshot.received = received;
        snapshot.dropped.add(Reason::Oversize, received);
        snapshot
            .durable_latency_us
            .record(received)
            .expect("within bounds");
        snapshot
    }

    #[test]
    fn the_latest_snapshot_arrives_whole_however_many_were_sent() {
        let (mut port, mut inbox) = connect(3);
        assert!(!inbox.refresh());
        assert_eq!((inbox.latest().shard, inbox.latest().received), (3, 0));
        for count in [1, 2, 3, 7, 100] {
            (1..=count).for_each(|n| port.publish(&snapshot(n)));
            assert!(inbox.refresh());
            let latest = inbox.latest();
            assert_eq!(
                (latest.received, latest.dropped.get(Reason::Oversize)),
                (count, count)
            );
            assert_eq!(
                (latest.durable_latency_us.len(), latest.durable_latency_us.max()),
                (1, count)
            );
            assert!(!inbox.refresh());
        }
    }

    #[test]
    fn snapshots_cross_threads_in_order_and_boxes_are_never_lost() {
        let (mut port, mut inbox) = connect(3);
        let last = 20_000;
        let shard = std::thread::spawn(move || {
            let mut figures = snapshot(1);
            for n in 1..=last {
                figures.received = n;
                figures.stored = n;
                port.publish(&figures);
            }
            port
        });
        let mut seen = 0;
        while !shard.is_finished() {
            inbox.refresh();
            assert_eq!(inbox.latest().received, inbox.latest().stored);
            assert!(inbox.latest().received >= seen);
            seen = inbox.latest().received;
        }
        let mut port = shard.join().expect("no panic");
        inbox.refresh();
        assert_eq!(inbox.queues.spare.len() + inbox.queues.filled.len(), BOXES - 1);
        port.publish(&snapshot(1));
        assert!(inbox.refresh());
    }

    #[test]
    fn events_beyond_the_queue_drop_the_oldest() {
        let (port, inbox) = connect(0);
        let event = |offset| Durable {
            shard: 0,
            segment: SegmentId::from([7; 16]),
            offset,
            block_no: offset,
        };
        (0..300).for_each(|offset| port.durable(event(offset)));
        let offsets: Vec<u64> = inbox.durable().map(|e| e.offset).collect();
        assert_eq!((offsets.len(), offsets[0], offsets[255]), (256, 44, 299));
        assert_eq!(inbox.durable().count(), 0);
    }
}
