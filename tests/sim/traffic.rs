//! What cameras and strangers send, and what the network makes of it: the datagrams that arrive at the machine, in order.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::packets::{self, Name};
use super::plan::{CameraPlan, MS, NetworkFaults, Plan, S};
use super::tally::{Fired, Tally};

/// Index of the sockets for RTP.
pub const RTP_SOCKET: u16 = 0;
/// Index of the sockets for RTCP, one port above.
pub const RTCP_SOCKET: u16 = 1;
/// Sockets of each shard.
pub const SOCKETS: usize = 2;
/// Most packets and bytes that the kernel joins into one batch (UDP_GRO).
const BATCH_PACKETS: usize = 64;
const BATCH_BYTES: usize = 65_000;
/// Packets of one flow that arrive within this time may be joined, in nanoseconds.
const BATCH_NS: u64 = 200_000;

/// One stream: an SSRC of a camera.
pub struct SentStream {
    /// Index of its camera in the plan.
    pub camera: usize,
    /// Synchronisation source.
    pub ssrc: u32,
    /// The network neither reorders nor duplicates its packets.
    pub orderly: bool,
    /// After a restart it came to numbers that it had used before: nobody can tell whether such a packet is next or late.
    pub ambiguous: bool,
    /// Its packets as sent.
    pub packets: Vec<Rc<[u8]>>,
    numbers: HashSet<u16>,
}

/// One datagram, or several that the kernel joined.
#[derive(Clone)]
pub struct Arrival {
    /// When, monotonic.
    pub at_ns: u64,
    /// At which socket of a shard.
    pub socket: u16,
    /// From whom.
    pub from: SocketAddr,
    /// Size of each packet of a batch; 0 for one packet.
    pub gro_size: u16,
    /// UDP payload, packet by packet.
    pub packets: Vec<Rc<[u8]>>,
    /// What is in it, in order; nothing for a stranger's.
    pub names: Vec<Name>,
}

impl Arrival {
    /// Bytes of its payload.
    fn len(&self) -> usize {
        self.packets.iter().map(|packet| packet.len()).sum()
    }
}

/// Everything that arrives in one life.
pub struct Traffic {
    /// All streams.
    pub streams: Vec<SentStream>,
    /// The name of the first of them: no two lives share one.
    pub first_stream: u32,
    /// Datagrams, by time.
    pub arrivals: Vec<Arrival>,
}

struct Generator<'a> {
    rng: StdRng,
    first_stream: u32,
    start_ns: u64,
    faults: NetworkFaults,
    tally: &'a Tally,
    streams: Vec<SentStream>,
    arrivals: Vec<Arrival>,
}

impl Traffic {
    /// All that is sent until `end_ns`.
    pub fn new(plan: &Plan, end_ns: u64, first_stream: u32, seed: u64, tally: &Tally) -> Traffic {
        let mut generator = Generator {
            rng: StdRng::seed_from_u64(seed),
            first_stream,
            start_ns: plan.start_ns,
            faults: plan.network,
            tally,
            streams: Vec::new(),
            arrivals: Vec::new(),
        };
        for (at, camera) in plan.cameras.iter().enumerate() {
            generator.camera(at, camera, plan.quiet_ns, end_ns);
        }
        let Generator {
            mut rng,
            streams,
            mut arrivals,
            ..
        } = generator;
        arrivals.retain(|arrival| arrival.at_ns < end_ns);
        arrivals.sort_by_key(|arrival| arrival.at_ns);
        let mut arrivals = joined(arrivals, plan.network.batch, &mut rng, tally);
        let mut last_ns = 0;
        for arrival in &mut arrivals {
            arrival.at_ns = arrival.at_ns.max(last_ns + 1);
            last_ns = arrival.at_ns;
        }
        Traffic {
            streams,
            first_stream,
            arrivals,
        }
    }

    /// The stream of this name, if it is of this life.
    pub fn stream(&self, name: u32) -> Option<&SentStream> {
        self.streams.get(name.checked_sub(self.first_stream)? as usize)
    }
}

impl Generator<'_> {
    fn camera(&mut self, at: usize, plan: &CameraPlan, quiet_ns: u64, end_ns: u64) {
        for ssrc in &plan.ssrcs {
            self.stream(at, plan, *ssrc, self.start_ns, quiet_ns);
            if self.rng.random_bool(0.7) {
                // It goes on at a pace that any disk keeps up with.
                self.calm(at, plan, *ssrc, quiet_ns, end_ns);
            }
        }
        if plan.by_address && (quiet_ns - self.start_ns > 10 * S || self.rng.random_bool(0.4)) {
            // A camera that changes its SSRC: each is another stream. One that does so all the time has too many.
            let long = quiet_ns - self.start_ns > 10 * S;
            let restless = long || self.rng.random_bool(0.15);
            let (least, most) = if restless { (20, 40) } else { (1, 6) };
            for _ in 0..self.rng.random_range(least..most) {
                let from_ns = self.rng.random_range(self.start_ns..quiet_ns);
                let ssrc = self.rng.random();
                self.tally.fire(Fired::NewSsrc);
                self.stream(at, plan, ssrc, from_ns, quiet_ns.min(from_ns + S / 40));
            }
        }
    }

    fn begin(&mut self, camera: usize, ssrc: u32) -> u32 {
        let known = self
            .streams
            .iter()
            .position(|stream| (stream.camera, stream.ssrc) == (camera, ssrc));
        if let Some(at) = known {
            return at as u32;
        }
        let orderly = self.rng.random_bool(0.5);
        self.streams.push(SentStream {
            camera,
            ssrc,
            orderly,
            ambiguous: false,
            packets: Vec::new(),
            numbers: HashSet::new(),
        });
        self.streams.len() as u32 - 1
    }

    /// Frames of several packets each, from `from_ns` on.
    fn stream(&mut self, camera: usize, plan: &CameraPlan, ssrc: u32, from_ns: u64, until_ns: u64) {
        let stream = self.begin(camera, ssrc);
        let (mut sequence, mut timestamp): (u16, u32) = (self.rng.random(), self.rng.random());
        let full_len = *[120, 400, 400, 1200, 1200, 1200, 1400, 9000]
            .choose(&mut self.rng)
            .expect("not empty");
        let frames = self.rng.random_range(1..20);
        let between_ns = ((until_ns - from_ns) / frames).max(5 * MS);
        let mut at_ns = from_ns + self.rng.random_range(0..=between_ns);
        while at_ns < until_ns {
            let packets = self.rng.random_range(1..9);
            for _ in 1..packets {
                at_ns += self.rng.random_range(1_000..60_000);
                self.send(stream, plan, at_ns, sequence, timestamp, full_len);
                sequence = sequence.wrapping_add(1);
            }
            let last_len = self.rng.random_range(packets::RTP_MIN_BYTES..=full_len);
            self.send(stream, plan, at_ns + 500, sequence, timestamp, last_len);
            sequence = sequence.wrapping_add(1);
            timestamp = timestamp.wrapping_add(3600);
            if self.rng.random_bool(0.05) {
                self.send_rtcp(stream, plan, at_ns + 900, timestamp);
            }
            if self.rng.random_bool(self.faults.restart) {
                (sequence, timestamp) = (self.rng.random(), self.rng.random());
                self.tally.fire(Fired::SequenceJump);
            }
            at_ns += self.rng.random_range(between_ns / 2..=between_ns * 3 / 2).max(1);
        }
    }

    /// A packet a second or so.
    fn calm(&mut self, camera: usize, plan: &CameraPlan, ssrc: u32, from_ns: u64, until_ns: u64) {
        let stream = self.begin(camera, ssrc);
        let mut sequence: u16 = self.rng.random();
        let mut at_ns = from_ns + 50 * MS; // behind the last frame and what the network held back of it
        let faults = std::mem::take(&mut self.faults);
        while at_ns < until_ns {
            self.send(stream, plan, at_ns, sequence, 0, 200);
            sequence = sequence.wrapping_add(1);
            at_ns += self.rng.random_range(300 * MS..2 * S);
        }
        self.faults = faults;
    }

    fn send(
        &mut self,
        stream: u32,
        plan: &CameraPlan,
        at_ns: u64,
        sequence: u16,
        timestamp: u32,
        len: usize,
    ) {
        let SentStream {
            ssrc,
            orderly,
            ambiguous,
            packets,
            numbers,
            ..
        } = &mut self.streams[stream as usize];
        let name = Name {
            stream: self.first_stream + stream,
            index: packets.len() as u32,
        };
        *ambiguous |= !numbers.insert(sequence);
        let (ssrc, orderly) = (*ssrc, *orderly);
        let packet: Rc<[u8]> = packets::rtp(ssrc, sequence, timestamp, name, len).into();
        packets.push(Rc::clone(&packet));
        let arrival = |at_ns, packet| Arrival {
            at_ns,
            socket: RTP_SOCKET,
            from: plan.from,
            gro_size: 0,
            packets: vec![packet],
            names: vec![name],
        };
        if self.chance(self.faults.loss, Fired::PacketLost) {
            return;
        }
        let mut delay_ns = 0;
        if !orderly {
            if self.chance(self.faults.reorder, Fired::PacketReordered) {
                delay_ns = self.rng.random_range(0..30 * MS);
            }
            if self.chance(self.faults.duplicate, Fired::PacketDuplicated) {
                let again_ns = at_ns + self.rng.random_range(0..20 * MS);
                self.arrivals.push(arrival(again_ns, Rc::clone(&packet)));
            }
        }
        self.arrivals.push(arrival(at_ns + delay_ns, packet));
        if self.rng.random_bool(self.faults.hostile) {
            self.stranger(at_ns, ssrc, plan);
        }
    }

    fn send_rtcp(&mut self, stream: u32, plan: &CameraPlan, at_ns: u64, timestamp: u32) {
        let SentStream { ssrc, packets, .. } = &mut self.streams[stream as usize];
        let name = Name {
            stream: self.first_stream + stream,
            index: packets.len() as u32,
        };
        let packet: Rc<[u8]> = packets::rtcp(*ssrc, timestamp, name).into();
        packets.push(Rc::clone(&packet));
        let above = self.rng.random();
        self.tally.fire(Fired::Rtcp);
        self.arrivals.push(Arrival {
            at_ns,
            socket: if above { RTCP_SOCKET } else { RTP_SOCKET },
            from: SocketAddr::new(plan.from.ip(), plan.from.port() + u16::from(above)),
            gro_size: 0,
            packets: vec![packet],
            names: vec![name],
        });
    }

    /// Something that must not be stored.
    fn stranger(&mut self, at_ns: u64, ssrc: u32, plan: &CameraPlan) {
        let stranger: SocketAddr = ([192, 168, 0, 1], 4000).into();
        let unnamed = Name {
            stream: u32::MAX,
            index: 0,
        };
        let (what, from, data) = match self.rng.random_range(0..4) {
            0 => {
                let len = self.rng.random_range(0..100);
                (
                    Fired::Hostile,
                    stranger,
                    (0..len).map(|_| self.rng.random()).collect(),
                )
            }
            1 => (
                Fired::WrongSource,
                stranger,
                packets::rtp(ssrc, 1, 1, unnamed, 100),
            ),
            2 => (
                Fired::UnknownSsrc,
                stranger,
                packets::rtp(self.rng.random(), 1, 1, unnamed, 100),
            ),
            _ => (
                Fired::Oversize,
                plan.from,
                packets::rtp(ssrc, 1, 1, unnamed, 65_450),
            ),
        };
        self.tally.fire(what);
        self.arrivals.push(Arrival {
            at_ns,
            socket: RTP_SOCKET,
            from,
            gro_size: 0,
            packets: vec![data.into()],
            names: Vec::new(),
        });
    }

    fn chance(&mut self, probability: f64, fired: Fired) -> bool {
        let fires = self.rng.random_bool(probability);
        if fires {
            self.tally.fire(fired);
        }
        fires
    }
}

/// Joins packets as UDP_GRO does: of one flow, of one size, but for the last, which may be shorter.
fn joined(arrivals: Vec<Arrival>, probability: f64, rng: &mut StdRng, tally: &Tally) -> Vec<Arrival> {
    let mut batches: Vec<Arrival> = Vec::with_capacity(arrivals.len());
    for arrival in arrivals {
        // The flow's batch that is still open, if any: the latest of this flow.
        let of_flow = |batch: &&mut Arrival| (batch.socket, batch.from) == (arrival.socket, arrival.from);
        let open = batches
            .iter_mut()
            .rev()
            .take(64)
            .find(of_flow)
            .filter(|batch| fits(batch, &arrival));
        match open {
            Some(batch) if rng.random_bool(probability) => {
                if batch.gro_size == 0 {
                    batch.gro_size = batch.len() as u16;
                }
                batch.packets.extend(arrival.packets);
                batch.names.extend_from_slice(&arrival.names);
                // The batch is handed up when its last packet has come.
                batch.at_ns = arrival.at_ns;
            }
            _ => batches.push(arrival),
        }
    }
    for batch in batches.iter().filter(|batch| batch.gro_size > 0) {
        tally.fire(Fired::Batch);
        let mixed = batch
            .names
            .iter()
            .any(|name| name.stream != batch.names[0].stream);
        tally.add(Fired::MixedBatch, u64::from(mixed));
    }
    batches.sort_by_key(|batch| batch.at_ns);
    batches
}

fn fits(batch: &Arrival, next: &Arrival) -> bool {
    let size = match batch.gro_size {
        0 => batch.len(),
        size => usize::from(size),
    };
    let last = batch.packets.last().map_or(0, |packet| packet.len());
    let ours = !batch.names.is_empty() && !next.names.is_empty();
    size > 0
        && last == size
        && ours
        && (1..=size).contains(&next.len())
        && next.at_ns - batch.at_ns <= BATCH_NS
        && batch.names.len() < BATCH_PACKETS
        && batch.len() + next.len() <= BATCH_BYTES
}
