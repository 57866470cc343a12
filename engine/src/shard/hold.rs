//! Packets that wait for their place in their stream's order.
//!
//! With GRO the kernel steers a whole batch by its first packet, so a batch of mixed SSRCs brings packets to a shard
//! that does not own them; it hands them over. Such a packet can reach its shard after a later one that came there
//! directly. So with more than one shard, a packet that is not the next of its stream waits here until every shard
//! has got past its arrival time; the one that was missing, if it exists, has been handed over by then.
//!
//! The bytes wait in a locked region of their own, bounded like the queue. Invariant: packets are released in order of
//! arrival, but for one that has become the next of its stream.

use std::io;

use crate::uring::memory::{Region, RegionOptions};

/// Longest a packet is held, in nanoseconds. A shard that takes longer than this to get past a time is stalled; order
/// is given up before the packet is.
pub const MAX_HOLD_NS: u64 = 100_000_000;
/// Size of one space. A packet lies within one.
const SPACE_BYTES: usize = 64 * 1024;
/// Spaces: 4 MiB in all, 3,400 packets of 1,200 bytes.
const SPACES: usize = 64;
/// Most packets held. Looking for the one to let go costs a pass over all of them.
const MAX_PACKETS: usize = 2048;
/// What the hold queue takes of the memory limit, in bytes.
pub const HOLD_BYTES: usize = SPACES * SPACE_BYTES;

/// A packet that waits: whose it is and since when.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Its stream.
    pub stream: u32,
    /// Its sequence number.
    pub sequence: u16,
    /// The socket it arrived at; the same index on every shard.
    pub socket: u16,
    /// Its arrival, realtime.
    pub arrival_ns: u64,
    /// When it was held, monotonic.
    pub since_ns: u64,
}

/// A waiting packet and where its bytes are.
#[derive(Debug)]
pub struct Held {
    /// Whose it is and since when.
    pub waiting: Waiting,
    /// Counts up: packets of one batch share their arrival, and keep their order by this.
    serial: u64,
    at: usize,
    len: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Space {
    packets: usize,
    used: usize,
}

/// The hold queue of one shard.
pub struct Hold {
    region: Region,
    spaces: Box<[Space]>,
    packets: Vec<Held>,
    next_serial: u64,
}

impl Hold {
    /// An empty queue with [`HOLD_BYTES`] of memory.
    pub fn new(lock: bool) -> io::Result<Hold> {
        Self::with_spaces(SPACES, lock)
    }

    /// One with so many spaces of 64 KiB; the engine has [`HOLD_BYTES`] of them.
    pub fn with_spaces(spaces: usize, lock: bool) -> io::Result<Hold> {
        let region = Region::new(RegionOptions {
            lock,
            ..RegionOptions::plaintext(spaces * SPACE_BYTES)
        })?;
        Ok(Hold {
            region,
            spaces: vec![Space::default(); spaces].into(),
            packets: Vec::with_capacity(MAX_PACKETS),
            next_serial: 0,
        })
    }

    /// Whether its memory is locked.
    pub fn is_locked(&self) -> bool {
        self.region.report().locked
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Packets waiting.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Copies a packet into the queue. False if there is no room: then it must not wait.
    pub fn push(&mut self, waiting: Waiting, packet: &[u8]) -> bool {
        let room = self
            .spaces
            .iter()
            .position(|space| space.used + packet.len() <= SPACE_BYTES);
        let Some(space) = room.filter(|_| self.packets.len() < self.packets.capacity()) else {
            return false;
        };
        let at = space * SPACE_BYTES + self.spaces[space].used;
        self.region.bytes_mut()[at..at + packet.len()].copy_from_slice(packet);
        self.spaces[space].used += packet.len();
        self.spaces[space].packets += 1;
        let serial = self.next_serial;
        self.next_serial += 1;
        self.packets.push(Held {
            waiting,
            serial,
            at,
            len: packet.len(),
        });
        true
    }

    /// Takes the packet with the earliest arrival for which `ready` holds, if any.
    pub fn take(&mut self, mut ready: impl FnMut(&Waiting) -> bool) -> Option<Held> {
        let (best, _) = (0..)
            .zip(&self.packets)
            .filter(|(_, held)| ready(&held.waiting))
            .min_by_key(|(_, held)| (held.waiting.arrival_ns, held.serial))?;
        Some(self.packets.swap_remove(best))
    }

    /// Where a packet was held for [`MAX_HOLD_NS`]: takes the earliest arrival of its stream, which may have been held later than it. For a
    /// packet handed over comes late, and must not be left behind those it belongs before.
    pub fn take_overdue(&mut self, mono_ns: u64) -> Option<Held> {
        let overdue = |held: &&Held| mono_ns.saturating_sub(held.waiting.since_ns) >= MAX_HOLD_NS;
        let stream = self.packets.iter().find(overdue)?.waiting.stream;
        self.take(|waiting| waiting.stream == stream)
    }

    /// The bytes of a taken packet.
    pub fn bytes(&self, held: &Held) -> &[u8] {
        &self.region.bytes()[held.at..held.at + held.len]
    }

    /// Frees the space of a taken packet. A space whose last packet went is wiped and used again.
    pub fn release(&mut self, held: Held) {
        let space = held.at / SPACE_BYTES;
        self.spaces[space].packets -= 1;
        if self.spaces[space].packets == 0 {
            let start = space * SPACE_BYTES;
            let used = self.spaces[space].used;
            crate::uring::memory::wipe(&mut self.region.bytes_mut()[start..start + used]);
            self.spaces[space].used = 0;
        }
    }

    /// When the longest-held packet was held, monotonic.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.packets.iter().map(|held| held.waiting.since_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(arrival_ns: u64) -> Waiting {
        Waiting {
            stream: 0,
            sequence: 0,
            socket: 0,
            arrival_ns,
            since_ns: 0,
        }
    }

    #[test]
    fn packets_come_out_in_order_of_arrival_and_leave_nothing_behind() {
        let mut hold = Hold::new(false).unwrap();
        for arrival_ns in [30, 10, 20, 10] {
            assert!(hold.push(waiting(arrival_ns), &[arrival_ns as u8; 1200]));
        }
        for expected in [10, 10, 20, 30] {
            let held = hold.take(|_| true).unwrap();
            assert_eq!(held.waiting.arrival_ns, expected);
            assert_eq!(hold.bytes(&held), [expected as u8; 1200]);
            hold.release(held);
        }
        assert!(hold.region.bytes().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_packet_held_too_long_is_not_let_go_before_one_that_arrived_earlier_and_was_held_later() {
        let mut hold = Hold::new(false).unwrap();
        let mut push = |stream, arrival_ns, since_ns| {
            let waiting = Waiting {
                stream,
                since_ns,
                ..waiting(arrival_ns)
            };
            assert!(hold.push(waiting, &[0; 12]));
        };
        push(1, 26, 1_000);
        push(1, 25, 1_011); // handed over by another shard
        push(1, 27, 1_020);
        push(2, 7, 1_030);
        let mut times = |mono_ns| {
            std::iter::from_fn(|| hold.take_overdue(mono_ns))
                .map(|held| held.waiting.arrival_ns)
                .collect::<Vec<_>>()
        };
        assert_eq!(times(999 + MAX_HOLD_NS), [0; 0]);
        assert_eq!(times(1_000 + MAX_HOLD_NS), [25, 26]);
        assert_eq!(times(1_020 + MAX_HOLD_NS), [27]);
        assert_eq!(times(1_030 + MAX_HOLD_NS), [7]);
    }

    #[test]
    fn a_full_queue_refuses_and_takes_again_once_emptied() {
        let mut hold = Hold::new(false).unwrap();
        let mut count = 0;
        while hold.push(waiting(count), &[7; 30_000]) {
            count += 1;
        }
        assert_eq!(count, 2 * SPACES as u64);
        while let Some(held) = hold.take(|_| true) {
            hold.release(held);
        }
        assert!(hold.push(waiting(0), &[7; 65_000]));
    }
}
