//! Puts the packets of one SSRC back into the order in which they were sent (RFC 3550 §5.1, A.1).
//!
//! Packets come in arrival order and leave in sequence order, each once; duplicates are dropped, the first wins.
//! Every packet that leaves says how it follows the one before it. Invariant: `held` has only packets whose
//! extended number is above `next`, and at most [`WINDOW`] of them, so memory is bounded whatever arrives.
//!
//! The order is settled anew ([`Follows::Anew`]) at the start, when the sender restarted, and after an outage that
//! the 16-bit number cannot measure.

use std::collections::BTreeMap;

use rtp_rs::RtpReader;

/// Packets held back for a missing one before it is given up. At 1,000 packets/s two seconds: far more than
/// networks reorder by, and less than [`MAX_DROPOUT`].
const WINDOW: usize = 2048;
/// The same bound in bytes, for large packets.
const WINDOW_BYTES: usize = 16 << 20;
/// A jump ahead by more than this is believed only when a second packet confirms it (RFC 3550 A.1).
const MAX_DROPOUT: i64 = 3000;
/// How near the second packet must be to the first to confirm a jump.
const CONFIRM: u16 = 16;
/// After this long without a packet a jump needs no second witness.
const QUIET_NS: u64 = 2_000_000_000;
/// While settling: how many packets, or for how long, until the lowest number is taken as the first. Nobody waits
/// for an export packet by packet, so this may be long; it stays below [`QUIET_NS`].
const SETTLE_PACKETS: usize = 256;
/// See [`SETTLE_PACKETS`].
const SETTLE_NS: u64 = 1_000_000_000;
/// Numbers remembered to tell a duplicate from a latecomer. A power of two.
const HISTORY: usize = 4096;

/// How a packet follows the one that left before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// With the next number: nothing is missing in between.
    Directly,
    /// So many packets are missing in between.
    Lost(u64),
    /// The numbering began anew: what is missing cannot be said.
    Anew,
}

/// One RTP packet in sequence order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ordered<'a> {
    pub arrival_ns: u64,
    pub rtp_time: u32,
    pub marker: bool,
    pub payload_type: u8,
    pub payload: &'a [u8],
    pub follows: Follows,
}

/// What was seen, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Dropped because their number had been seen with the same timestamp.
    pub duplicates: u64,
    /// Dropped because their place had been given up.
    pub late: u64,
    /// Dropped because their number fits nothing around them.
    pub stray: u64,
    /// Missing.
    pub lost: u64,
    /// Places where packets are missing, restarts included.
    pub gaps: u64,
}

/// Receives the packets, in order.
pub(super) type Out<'o> = &'o mut dyn FnMut(Ordered<'_>);

impl Counts {
    /// Each count of both, combined by `with`.
    fn combine(self, other: Counts, with: impl Fn(u64, u64) -> u64) -> Counts {
        Counts {
            duplicates: with(self.duplicates, other.duplicates),
            late: with(self.late, other.late),
            stray: with(self.stray, other.stray),
            lost: with(self.lost, other.lost),
            gaps: with(self.gaps, other.gaps),
        }
    }

    /// The sum of two senders' counts.
    pub fn plus(self, other: Counts) -> Counts {
        self.combine(other, |a, b| a + b)
    }

    /// What came since `earlier`.
    pub fn since(self, earlier: Counts) -> Counts {
        self.combine(earlier, u64::saturating_sub)
    }
}

/// A packet kept back, or the parsed form of one.
struct Held {
    arrival_ns: u64,
    rtp_time: u32,
    marker: bool,
    payload_type: u8,
    payload: Box<[u8]>,
}

/// Where the order stands.
enum State {
    /// Collecting the first packets after a (re)start; `reference` is the extended number of the first of them.
    Settling { reference: u64, since_ns: u64 },
    /// `next` is the number that should leave next.
    Running { next: u64 },
}

/// The order of one SSRC.
pub(super) struct Order {
    state: Option<State>,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// Extended number and timestamp of the packets that left, by number modulo [`HISTORY`].
    history: Vec<(u64, u32)>,
    /// A packet far from all others, waiting for a second witness.
    stray: Option<(u16, Held)>,
    last_arrival_ns: u64,
    /// Set while the next packet to leave follows something else than its predecessor.
    anew: bool,
    /// A packet has left.
    began: bool,
    pub counts: Counts,
}

impl Order {
    pub fn new() -> Order {
        Order {
            state: None,
            held: BTreeMap::new(),
            held_bytes: 0,
            history: vec![(0, 0); HISTORY],
            stray: None,
            last_arrival_ns: 0,
            anew: true,
            began: false,
            counts: Counts::default(),
        }
    }

    /// Takes the next packet by arrival and gives to `out` what is in order now.
    /// What is not RTP is ignored: admission refused it already.
    pub fn push(&mut self, arrival_ns: u64, bytes: &[u8], out: Out<'_>) {
        let Ok(rtp) = RtpReader::new(bytes) else {
            return;
        };
        let number = u16::from(rtp.sequence_number());
        let packet = Packet {
            arrival_ns,
            number,
            rtp,
        };
        let quiet = arrival_ns.saturating_sub(self.last_arrival_ns) > QUIET_NS;
        let Some(distance) = self.distance(number) else {
            return self.settle(packet.held(), number, out);
        };
        let extended = self.reference().wrapping_add_signed(distance);
        if distance > MAX_DROPOUT || distance < -(HISTORY as i64) || (distance < 0 && quiet) {
            return self.far(packet, quiet, out);
        }
        match self.state {
            Some(State::Settling { .. }) => self.hold(extended, packet.held()),
            _ if distance < 0 => return self.behind(extended, packet, out),
            _ if distance == 0 => {
                self.last_arrival_ns = self.last_arrival_ns.max(arrival_ns);
                self.emit(extended, &packet.borrowed(), out);
            }
            _ => self.hold(extended, packet.held()),
        }
        self.last_arrival_ns = self.last_arrival_ns.max(arrival_ns);
        self.release(arrival_ns, out)
    }

    /// Gives out everything that is still held: the stream ends here, or pauses.
    pub fn flush(&mut self, out: Out<'_>) {
        while let Some((extended, held)) = self.pop() {
            self.emit(extended, &held.borrowed(), out);
        }
    }

    /// The number everything is measured against.
    fn reference(&self) -> u64 {
        match self.state {
            Some(State::Settling { reference, .. }) => reference,
            Some(State::Running { next }) => next,
            None => 0,
        }
    }

    /// Signed distance of `number` from the reference, the short way round; `None` before the first packet.
    fn distance(&self, number: u16) -> Option<i64> {
        self.state.as_ref()?;
        Some(i64::from(number.wrapping_sub(self.reference() as u16) as i16))
    }

    /// Begins a new numbering with `held`.
    fn settle(&mut self, held: Held, number: u16, out: Out<'_>) {
        self.flush(out);
        // Two cycles up: nothing of the new numbering can meet the history of the old.
        let cycle = (self.reference() >> 16) + 2;
        let reference = (cycle << 16) | u64::from(number);
        self.state = Some(State::Settling {
            reference,
            since_ns: held.arrival_ns,
        });
        self.last_arrival_ns = held.arrival_ns;
        self.anew = true;
        self.hold(reference, held);
    }

    /// A packet whose number is far from all others: an outage, a restarted sender, or a stray.
    fn far(&mut self, packet: Packet<'_>, quiet: bool, out: Out<'_>) {
        let number = packet.number;
        if quiet {
            self.counts.stray += u64::from(self.stray.take().is_some());
            return self.settle(packet.held(), number, out);
        }
        match self.stray.take() {
            Some((first, held)) if number != first && near(number, first) => {
                self.settle(held, first, out);
                let extended = self
                    .reference()
                    .wrapping_add_signed(i64::from(number.wrapping_sub(first) as i16));
                self.hold(extended, packet.held());
            }
            before => {
                self.counts.stray += u64::from(before.is_some());
                self.stray = Some((number, packet.held()));
            }
        }
    }

    /// A packet whose place has already left: a duplicate, a latecomer, or a sender that restarted nearby.
    fn behind(&mut self, extended: u64, packet: Packet<'_>, out: Out<'_>) {
        let (seen, rtp_time) = self.history[extended as usize % HISTORY];
        if seen == extended && rtp_time == packet.rtp.timestamp() {
            self.counts.duplicates += 1;
        } else if seen == extended {
            self.far(packet, false, out);
        } else {
            self.counts.late += 1;
        }
    }

    fn hold(&mut self, extended: u64, held: Held) {
        match self.held.entry(extended) {
            std::collections::btree_map::Entry::Occupied(_) => self.counts.duplicates += 1,
            std::collections::btree_map::Entry::Vacant(place) => {
                self.held_bytes += held.payload.len();
                place.insert(held);
            }
        }
    }

    fn pop(&mut self) -> Option<(u64, Held)> {
        let (extended, held) = self.held.pop_first()?;
        self.held_bytes -= held.payload.len();
        Some((extended, held))
    }

    /// Gives out what became contiguous, and what waited too long.
    fn release(&mut self, now_ns: u64, out: Out<'_>) {
        if let Some(State::Settling { since_ns, .. }) = self.state
            && self.held.len() < SETTLE_PACKETS
            && now_ns.saturating_sub(since_ns) < SETTLE_NS
        {
            return;
        }
        while let Some((&lowest, _)) = self.held.first_key_value() {
            let due = match self.state {
                Some(State::Running { next }) => lowest == next,
                _ => true,
            };
            if !due && self.held.len() <= WINDOW && self.held_bytes <= WINDOW_BYTES {
                break;
            }
            if let Some((extended, held)) = self.pop() {
                self.emit(extended, &held.borrowed(), out);
            }
        }
    }

    /// Lets one packet leave.
    fn emit(&mut self, extended: u64, packet: &Ordered<'_>, out: Out<'_>) {
        let follows = match self.state {
            Some(State::Running { next }) if !self.anew && next == extended => Follows::Directly,
            Some(State::Running { next }) if !self.anew => Follows::Lost(extended - next),
            _ => Follows::Anew,
        };
        if let Follows::Lost(packets) = follows {
            self.counts.lost += packets;
        }
        // The very first packet follows nothing, so nothing is missing before it.
        self.counts.gaps += u64::from(follows != Follows::Directly && self.began);
        self.began = true;
        self.anew = false;
        self.state = Some(State::Running { next: extended + 1 });
        self.history[extended as usize % HISTORY] = (extended, packet.rtp_time);
        out(Ordered { follows, ..*packet })
    }
}

/// A packet as it came, with its number.
struct Packet<'a> {
    arrival_ns: u64,
    number: u16,
    rtp: RtpReader<'a>,
}

impl<'a> Packet<'a> {
    fn borrowed(&self) -> Ordered<'a> {
        Ordered {
            arrival_ns: self.arrival_ns,
            rtp_time: self.rtp.timestamp(),
            marker: self.rtp.mark(),
            payload_type: self.rtp.payload_type(),
            payload: self.rtp.payload(),
            follows: Follows::Directly,
        }
    }

    fn held(&self) -> Held {
        let Ordered {
            arrival_ns,
            rtp_time,
            marker,
            payload_type,
            payload,
            ..
        } = self.borrowed();
        Held {
            arrival_ns,
            rtp_time,
            marker,
            payload_type,
            payload: payload.into(),
        }
    }
}

impl Held {
    fn borrowed(&self) -> Ordered<'_> {
        Ordered {
            arrival_ns: self.arrival_ns,
            rtp_time: self.rtp_time,
            marker: self.marker,
            payload_type: self.payload_type,
            payload: &self.payload,
            follows: Follows::Directly,
        }
    }
}

/// Whether two numbers are within [`CONFIRM`] of each other, the short way round.
fn near(a: u16, b: u16) -> bool {
    a.wrapping_sub(b).min(b.wrapping_sub(a)) <= CONFIRM
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 12 bytes of header and the number again as payload.
    fn rtp(number: u16, rtp_time: u32) -> Vec<u8> {
        let mut bytes = vec![0x80, 96];
        bytes.extend(number.to_be_bytes());
        bytes.extend(rtp_time.to_be_bytes());
        bytes.extend(7u32.to_be_bytes());
        bytes.extend(number.to_be_bytes());
        bytes
    }

    const MS: u64 = 1_000_000;

    /// Pushes (number, timestamp, arrival in ms) and returns what left, in order.
    fn run(packets: impl IntoIterator<Item = (u16, u32, u64)>) -> (Vec<(u16, Follows)>, Counts) {
        let mut order = Order::new();
        let mut left = Vec::new();
        let mut out = |p: Ordered<'_>| {
            left.push((u16::from_be_bytes([p.payload[0], p.payload[1]]), p.follows));
        };
        for (number, rtp_time, arrival_ms) in packets {
            order.push(arrival_ms * MS, &rtp(number, rtp_time), &mut out);
        }
        order.flush(&mut out);
        (left, order.counts)
    }

    fn numbers(left: &[(u16, Follows)]) -> Vec<u16> {
        left.iter().map(|l| l.0).collect()
    }

    #[test]
    fn reordered_packets_leave_in_order_across_the_wrap() {
        let sent: Vec<u16> = (0..200u16).map(|i| i.wrapping_sub(100)).collect();
        let mut arrived = sent.clone();
        for pair in arrived.chunks_mut(7) {
            pair.reverse();
        }
        let (left, counts) = run(arrived.iter().map(|&n| (n, 5, 0)));
        assert_eq!(numbers(&left), sent);
        assert!(left[1..].iter().all(|l| l.1 == Follows::Directly));
        assert_eq!(counts, Counts::default());
    }

    #[test]
    fn the_first_packet_of_a_stream_may_arrive_second() {
        let (left, _) = run([(11, 0, 0), (10, 0, 0), (12, 0, 1)]);
        assert_eq!(numbers(&left), [10, 11, 12]);
    }

    #[test]
    fn of_duplicates_the_first_wins_before_and_after_it_left() {
        let (left, counts) = run((0..100).flat_map(|n| [(n, 9, 0), (n, 9, 0), (n.max(3) - 3, 9, 0)]));
        assert_eq!(numbers(&left), (0..100).collect::<Vec<_>>());
        assert_eq!((counts.duplicates, counts.lost), (200, 0));
    }

    #[test]
    fn a_hole_is_told_with_its_size() {
        let (left, counts) = run((0..50).filter(|n| !(20..23).contains(n)).map(|n| (n, 0, 0)));
        assert_eq!(left[20], (23, Follows::Lost(3)));
        assert_eq!((counts.lost, counts.gaps), (3, 1));
    }

    #[test]
    fn a_packet_later_than_the_window_is_dropped() {
        let late = (0..3000)
            .filter(|&n| n != 100)
            .map(|n| (n, 0, 0))
            .chain([(100, 0, 0)]);
        let (left, counts) = run(late);
        assert_eq!(left.len(), 2999);
        assert_eq!((counts.lost, counts.late), (1, 1));
    }

    #[test]
    fn a_restarted_sender_is_followed_wherever_its_numbers_begin() {
        for start in [0u16, 500, 990, 7_000, 40_000, 60_000] {
            let first = (0..1000).map(|n| (n, u32::from(n), 0));
            let second = (0..100).map(|n| (start.wrapping_add(n), 800_000_000 + u32::from(n), 1));
            let (left, counts) = run(first.chain(second));
            assert_eq!(left.len(), 1100, "start {start}");
            assert_eq!(left[1000], (start, Follows::Anew), "start {start}");
            assert_eq!(counts.gaps, 1);
        }
    }

    #[test]
    fn one_stray_packet_changes_nothing() {
        let (left, counts) =
            run((0..100).flat_map(|n| [(n, 0, 0)].into_iter().chain((n == 50).then_some((30_000, 0, 0)))));
        assert_eq!(numbers(&left), (0..100).collect::<Vec<_>>());
        assert_eq!(counts.gaps, 0);
    }

    #[test]
    fn after_an_outage_one_packet_is_enough() {
        let first = (0..100).map(|n| (n, 0, 0));
        let second = (0..100u16).map(|n| (50_000u16.wrapping_add(n), 9, 60_000));
        let (left, _) = run(first.chain(second));
        assert_eq!(left[100], (50_000, Follows::Anew));
        assert_eq!(left.len(), 200);
    }

    #[test]
    fn what_is_held_stays_bounded_under_heavy_loss() {
        let mut order = Order::new();
        let mut left = 0u64;
        for n in 0..200_000u32 {
            if n % 10 < 3 {
                continue;
            }
            let bytes = rtp(n as u16, n);
            order.push(u64::from(n) * MS, &bytes, &mut |_| left += 1);
            assert!(order.held.len() <= WINDOW + 1);
        }
        assert_eq!(left + order.held.len() as u64, 140_000);
    }
}
