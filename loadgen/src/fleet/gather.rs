//! From an event of the schedule to messages of the batch: a stream's burst, through its impairments if it has any; its sender
//! report; a group's junk.

use super::FleetError;
use super::outlets;
use super::sending::Fleet;
use crate::camera::{Stream, mix};
use crate::impair::{Change, Impairer, Packet, Random};
use crate::plan::{Junk, Plan};
use crate::program::Burst;
use crate::schedule::Event;
use crate::send::{Batch, Ends, Kind, Note, Sender, Way};
use crate::sentlog::{Flags, SsrcFrom};

/// Odd: so that the next number tried is any other one in the end.
const SSRC_STEP: u32 = 0x9e37_79b9;
/// Buffers kept for impaired packets.
const SPARE_MAX: usize = 256;

impl Fleet<'_> {
    pub(super) fn add_burst(&mut self, number: u32) {
        let at = number as usize;
        let next = self.streams[at].as_ref().and_then(Stream::next_burst);
        if let Some((due_ns, _)) = next {
            let impairer = self.impairers[at].as_mut();
            let leaves_ns = impairer.map_or(due_ns, |impairer| impairer.leaves_ns(due_ns));
            self.schedule.add(leaves_ns, Event::Burst(number));
        }
    }

    pub(super) fn add_report(&mut self, number: u32) {
        let stream = self.streams[number as usize].as_ref();
        if let Some(due_ns) = stream.and_then(Stream::next_report_ns) {
            self.schedule.add(due_ns, Event::Report(number));
        }
    }

    /// The stream's next burst, and those behind it that leave at the same time.
    pub(super) fn gather_burst(&mut self, number: u32, leaves_ns: u64, batch: &mut Batch) {
        let at = number as usize;
        loop {
            let stream = self.streams[at]
                .as_ref()
                .expect("only streams that send are scheduled");
            let (due_ns, burst) = stream.next_burst().expect("its time is not over");
            if burst.starts_frame {
                self.begin_frame(number, due_ns);
            }
            let way = self.way(number, Kind::Rtp, leaves_ns);
            match self.impairers[at].take() {
                None => self.gather_plain(burst, &way, due_ns, batch),
                Some(mut impairer) => {
                    self.gather_impaired(burst, &way, due_ns, &mut impairer, batch);
                    self.impairers[at] = Some(impairer);
                }
            }
            self.tally.came_due(number, due_ns, burst.packets.len() as u64);
            let stream = self.streams[at].as_mut().expect("as above");
            stream.advance();
            let again = stream.next_burst().is_some_and(|(next_ns, _)| next_ns == due_ns);
            if !(again && self.impairers[at].is_none()) || batch.is_full() {
                break;
            }
        }
        let over = self.streams[at].as_ref().and_then(Stream::next_burst).is_none();
        if over {
            self.gather_held_of(number, leaves_ns, batch);
        }
        self.add_burst(number);
    }

    fn begin_frame(&mut self, number: u32, due_ns: u64) {
        let at = number as usize;
        if let Some(mut impairer) = self.impairers[at].take() {
            impairer.changes(due_ns, |change| self.change(number, due_ns, change));
            self.impairers[at] = Some(impairer);
        }
        if let Some(stream) = &mut self.streams[at] {
            stream.begin_frame();
        }
    }

    /// Another identity for the stream, and what it means for whoever knows it by the old one.
    fn change(&mut self, number: u32, due_ns: u64, mut change: Change) {
        let at = number as usize;
        let camera = &self.plan.cameras[self.plan.streams[at].camera as usize];
        let by_address = self.plan.groups[camera.group as usize].by_address;
        match &mut change {
            Change::Restart { ssrc, .. } => {
                while self.taken.contains(ssrc) {
                    *ssrc = ssrc.wrapping_add(SSRC_STEP);
                }
                self.stranger[at] |= !by_address;
                let sequence = self.streams[at].as_ref().map_or(0, Stream::sequence);
                let from = SsrcFrom {
                    ssrc: *ssrc,
                    sequence,
                    at_ns: due_ns,
                };
                if let Some(log) = &mut self.log {
                    log.note_ssrc(number, from);
                }
            }
            Change::Rebind => {
                self.stranger[at] |= by_address;
                self.rebind(at);
            }
            _ => {}
        }
        if let Some(stream) = &mut self.streams[at] {
            stream.change(change);
        }
    }

    /// From here on the stream sends from a port of its own. If no socket is to be had, it stays where it is and the run is told.
    fn rebind(&mut self, at: usize) {
        let old = self.outlets[at];
        match self.sender.sockets.open_beside(old.rtp) {
            Ok(socket) => {
                let shared = old.rtcp == old.rtp;
                self.outlets[at].rtp = socket;
                self.outlets[at].rtcp = if shared { socket } else { old.rtcp };
                if std::mem::replace(&mut self.outlets[at].own, true) {
                    self.retired.push(old.rtp);
                }
            }
            Err(error) => {
                let errors = &mut self.sender.errors.failed;
                *errors.entry(format!("rebind: {error}")).or_default() += 1;
            }
        }
    }

    fn way(&self, number: u32, kind: Kind, due_ns: u64) -> Way {
        let outlet = self.outlets[number as usize];
        let socket = match kind {
            Kind::Rtcp => outlet.rtcp,
            _ => outlet.rtp,
        };
        let segment = self.sender.sockets.segment_bytes(socket);
        let whole = self.sender.gso() && kind == Kind::Rtp;
        Way {
            stream: number,
            kind,
            socket,
            due_ns,
            packets: if whole { self.plan.burst_packets } else { 1 },
            segment: segment.unwrap_or(0),
        }
    }

    fn flags(&self, number: u32) -> Flags {
        match self.stranger[number as usize] {
            true => Flags::STRANGER,
            false => Flags::default(),
        }
    }

    /// What a packet is that was held and leaves now: from a port that is not the camera's any more, a stranger's, whatever it was.
    fn moved(&self, number: u32) -> Flags {
        let camera = self.plan.streams[number as usize].camera;
        let group = self.plan.cameras[camera as usize].group;
        match self.plan.groups[group as usize].by_address {
            true => self.flags(number),
            false => Flags::default(),
        }
    }

    fn gather_plain(&mut self, burst: &Burst, way: &Way, due_ns: u64, batch: &mut Batch) {
        let flags = self.flags(way.stream);
        let stream = self.streams[way.stream as usize].as_mut().expect("it is sending");
        let program = stream.program();
        for packet in burst.packets.clone() {
            let note = Note {
                sequence: stream.sequence(),
                intended_ns: due_ns,
                flags,
                len: program.packet_bytes(packet) as u16,
            };
            stream.write_packet(packet, due_ns, self.clock, batch.add(way, note));
        }
    }

    fn gather_impaired(
        &mut self,
        burst: &Burst,
        way: &Way,
        due_ns: u64,
        impairer: &mut Impairer,
        batch: &mut Batch,
    ) {
        let (flags, moved) = (self.flags(way.stream), self.moved(way.stream));
        let stream = self.streams[way.stream as usize].as_mut().expect("it is sending");
        let program = stream.program();
        for number in burst.packets.clone() {
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.resize(program.packet_bytes(number), 0);
            let sequence = stream.sequence();
            stream.write_packet(number, due_ns, self.clock, &mut bytes);
            let packet = Packet {
                bytes,
                sequence,
                intended_ns: due_ns,
                flags,
            };
            impairer.packet(packet, |packet| {
                add_packet(packet, way, moved, &mut self.spare, batch)
            });
        }
    }

    /// What a stream's impairments still hold, when it ends.
    fn gather_held_of(&mut self, number: u32, leaves_ns: u64, batch: &mut Batch) {
        if let Some(mut impairer) = self.impairers[number as usize].take() {
            let way = self.way(number, Kind::Rtp, leaves_ns);
            let moved = self.moved(number);
            impairer.end(|packet| add_packet(packet, &way, moved, &mut self.spare, batch));
            self.impairers[number as usize] = Some(impairer);
        }
    }

    pub(super) fn gather_report(&mut self, number: u32, due_ns: u64, batch: &mut Batch) {
        let flags = self.flags(number);
        let stream = self.streams[number as usize]
            .as_mut()
            .expect("only streams that send report");
        if let Some((sequence, report)) = stream.take_report(self.plan.report_ns, self.clock) {
            let mut bytes = Vec::with_capacity(64);
            let camera = self.plan.streams[number as usize].camera;
            report.write(&self.plan.cameras[camera as usize].id, &mut bytes);
            let note = Note {
                sequence,
                intended_ns: due_ns,
                flags,
                len: bytes.len() as u16,
            };
            let way = self.way(number, Kind::Rtcp, due_ns);
            batch.add(&way, note).copy_from_slice(&bytes);
        }
        self.add_report(number);
    }

    pub(super) fn gather_junk(&mut self, number: u32, due_ns: u64, batch: &mut Batch) {
        let junker = &mut self.junkers[number as usize];
        junker.gather(due_ns, batch);
        if let Some(due_ns) = junker.next_due_ns() {
            self.schedule.add(due_ns, Event::Junk(number));
        }
    }
}

/// What all streams' impairments still hold, when the run is stopped.
pub fn gather_held(fleet: &mut Fleet<'_>, now_ns: u64, batch: &mut Batch) {
    batch.clear();
    for number in 0..fleet.streams.len() as u32 {
        fleet.gather_held_of(number, now_ns, batch);
    }
}

fn add_packet(packet: Packet, way: &Way, moved: Flags, spare: &mut Vec<Vec<u8>>, batch: &mut Batch) {
    let note = Note {
        sequence: packet.sequence,
        intended_ns: packet.intended_ns,
        flags: packet.flags | moved,
        len: packet.bytes.len() as u16,
    };
    if packet.flags.has(Flags::LOST) {
        batch.add_lost(way, note);
    } else {
        batch.add(way, note).copy_from_slice(&packet.bytes);
    }
    if spare.len() < SPARE_MAX {
        spare.push(packet.bytes);
    }
}

/// A group's junk: datagrams of random bytes that can be nobody's RTP, because their version is not 2; evenly in time, by turns to
/// each target, from sockets of the group's that nothing else uses (their lengths are all different: none can be a segment).
pub struct Junker {
    junk: Junk,
    /// One per target.
    sockets: Vec<u32>,
    random: Random,
    sent: u64,
    ends_ns: u64,
}

impl Junker {
    pub fn open_all(plan: &Plan, sender: &mut Sender) -> Result<Vec<Junker>, FleetError> {
        let ends_ns = plan
            .streams
            .iter()
            .filter_map(|stream| stream.on.last())
            .map(|time| time.end);
        let ends_ns = ends_ns.max().unwrap_or(0);
        let mut junkers = Vec::new();
        for (at, group) in (0u64..).zip(&plan.groups) {
            let Some(junk) = group.junk.filter(|junk| junk.per_second > 0.0) else {
                continue;
            };
            let of_group = |camera: u32| u64::from(plan.cameras[camera as usize].group) == at;
            let first = plan.streams.iter().find(|stream| of_group(stream.camera));
            let mut sockets = Vec::new();
            for (target, to) in (0..).zip(&plan.targets) {
                let stream = first.map(|stream| crate::plan::StreamPlan {
                    target,
                    ..stream.clone()
                });
                let mut from = stream.map_or_else(
                    || std::net::SocketAddr::new(crate::send::any_address(*to), 0),
                    |stream| outlets::ends(plan, &stream).from,
                );
                from.set_port(0);
                sockets.push(sender.sockets.open(Ends { from, to: *to }, None)?);
            }
            junkers.push(Junker {
                junk,
                sockets,
                random: Random(mix(plan.seed ^ 0x6a75_6e6b) ^ at),
                sent: 0,
                ends_ns,
            });
        }
        Ok(junkers)
    }

    pub fn next_due_ns(&self) -> Option<u64> {
        let due_ns = (self.sent as f64 * 1e9 / self.junk.per_second) as u64;
        (due_ns < self.ends_ns).then_some(due_ns)
    }

    fn gather(&mut self, due_ns: u64, batch: &mut Batch) {
        let (least, most) = self.junk.bytes;
        let len = u64::from(least.max(1))
            + self
                .random
                .below(u64::from(most.saturating_sub(least.max(1))) + 1);
        let way = Way {
            stream: 0,
            kind: Kind::Junk,
            socket: self.sockets[self.sent as usize % self.sockets.len()],
            due_ns,
            packets: 1,
            segment: 0,
        };
        let note = Note {
            sequence: self.sent,
            intended_ns: due_ns,
            flags: Flags::STRANGER,
            len: len as u16,
        };
        let bytes = batch.add(&way, note);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.random.next().to_le_bytes()[..chunk.len()]);
        }
        if bytes[0] >> 6 == 2 {
            bytes[0] ^= 0x80;
        }
        self.sent += 1;
    }
}
