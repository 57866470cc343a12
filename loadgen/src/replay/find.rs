//! Finds the RTP streams of a capture, and the RTCP beside them.
//!
//! RTP has no magic number, so a stream is taken for one by its behaviour: version 2, one SSRC on one pair of addresses, and
//! sequence numbers that go up as RFC 3550 A.1 has it; on an even port (RFC 3550 §11) five such packets are enough, on an odd
//! one it takes fifty. Random bytes pass the first with a probability under 10^-5. RTCP is taken where its SSRC is that of a
//! stream from the same address.
//!
//! All of it is kept in memory, once: [`BYTES_MAX`] bounds it.

use super::capture::{Capture, CaptureError};
use super::link::{Datagram, Skipped, datagram};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Packets a stream needs, all but some of them one step after the other.
const PACKETS_MIN: usize = 5;
const PACKETS_MIN_ODD_PORT: usize = 50;
/// Below it are the ports of other protocols.
const PORT_MIN: u16 = 1024;
/// RFC 3550 A.1: a gap below MAX_DROPOUT is loss, and a step back within MAX_MISORDER is a late packet.
const DROPOUT_MAX: i16 = 3_000;
const MISORDER_MAX: i16 = -100;
/// Share of steps that must be such.
const STEADY: f64 = 0.9;
/// What a capture may hold of RTP: half of what a small machine has.
const BYTES_MAX: usize = 2 << 30;

const RTP_HEADER_BYTES: usize = 12;

/// One packet of a stream, as captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// From the earliest packet of all streams; never falls within a stream.
    pub at_ns: u64,
    pub rtcp: bool,
    bytes: Range<usize>,
}

/// One RTP stream and its RTCP.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    pub source: SocketAddr,
    pub target: SocketAddr,
    pub ssrc: u32,
    pub payload_types: BTreeSet<u8>,
    /// RTP and RTCP, in the order of their capture.
    pub packets: Vec<Packet>,
    pub rtp_packets: u64,
    pub rtp_bytes: u64,
    /// Sequence numbers from the first to the one after the last, gaps included.
    pub sequence_span: u64,
    /// Ticks of the RTP clock per second, as the stream itself ran; 0 where it is too short to say.
    pub clock: f64,
}

/// What was found, and what was left out.
pub struct Found {
    bytes: Vec<u8>,
    pub streams: Vec<Stream>,
    /// From the earliest to the latest packet of the streams.
    pub span_ns: u64,
    /// CLOCK_REALTIME of the earliest, nanoseconds.
    pub start_ns: u64,
    pub frames: u64,
    pub skipped: BTreeMap<Skipped, u64>,
    /// UDP datagrams that belong to no stream.
    pub other: u64,
    /// Packets above what Ethernet carries: batches, captured before the card cut them.
    pub oversize: u64,
    pub ended_within_a_record: bool,
}

/// Why nothing can be replayed.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("{0}")]
    Capture(#[from] CaptureError),
    #[error(
        "the capture holds more than {} MiB that could be RTP: take a part of it (editcap), or some ports (--port)",
        BYTES_MAX >> 20
    )]
    TooMuch,
}

impl Found {
    pub fn bytes(&self, packet: &Packet) -> &[u8] {
        &self.bytes[packet.bytes.clone()]
    }

    /// The name of a stream's camera in a clone: what sends from one address is one camera.
    pub fn camera(&self, clone: u32, stream: usize) -> String {
        let ip = self.streams[stream].source.ip();
        let mut ips: Vec<IpAddr> = Vec::new();
        for stream in &self.streams {
            if !ips.contains(&stream.source.ip()) {
                ips.push(stream.source.ip());
            }
        }
        let camera = ips.iter().position(|other| *other == ip).unwrap_or(0);
        match ips.len() {
            1 => format!("clone-{clone:05}"),
            _ => format!("clone-{clone:05}-camera-{camera}"),
        }
    }
}

/// What could be a stream.
#[derive(Default)]
struct Candidate {
    packets: Vec<Packet>,
    payload_types: BTreeSet<u8>,
    steady: usize,
    /// Extended: how often the number wrapped stands in its upper bits.
    first_sequence: i64,
    sequence: i64,
    highest: i64,
    /// Extended likewise, of the first packet and of the latest, with their times.
    first_time: (u64, i64),
    last_time: (u64, i64),
}

type Flow = (SocketAddr, SocketAddr, u32);

/// Reads a capture to its end. With `ports`, only datagrams to these are looked at, whatever their parity.
pub fn find<R: Read>(mut capture: Capture<R>, ports: &[u16]) -> Result<Found, FindError> {
    let mut gathering = Gathering::default();
    while let Some(frame) = capture.next_frame()? {
        gathering.frames += 1;
        let found = match (frame.at_ns, datagram(frame.link, frame.bytes)) {
            (Some(at_ns), Ok(datagram)) => Ok((at_ns, datagram)),
            (None, Ok(_)) => Err(Skipped::NoTime),
            (_, Err(reason)) => Err(reason),
        };
        match found {
            Err(reason) => *gathering.skipped.entry(reason).or_default() += 1,
            Ok((at_ns, datagram)) => gathering.add(at_ns, &datagram, ports)?,
        }
    }
    let ended_within_a_record = capture.ended_within_a_record();
    Ok(gathering.finish(ports, ended_within_a_record))
}

#[derive(Default)]
struct Gathering {
    bytes: Vec<u8>,
    /// In the order of their first packet: a capture read twice gives the same streams in the same order.
    candidates: Vec<(Flow, Candidate)>,
    by_flow: HashMap<Flow, usize>,
    rtcp: Vec<(Flow, Packet)>,
    frames: u64,
    udp: u64,
    skipped: BTreeMap<Skipped, u64>,
}

impl Gathering {
    fn add(&mut self, at_ns: u64, datagram: &Datagram<'_>, ports: &[u16]) -> Result<(), FindError> {
        self.udp += 1;
        let (port, payload) = (datagram.target.port(), datagram.payload);
        let rtcp = is_rtcp(payload);
        let asked = |port| ports.contains(&port);
        let wanted = match ports {
            [] => port >= PORT_MIN,
            _ => asked(port) || rtcp && port > 0 && asked(port - 1),
        };
        if !wanted || !rtcp && !is_rtp(payload) {
            return Ok(());
        }
        let begin = self.bytes.len();
        if begin + payload.len() > BYTES_MAX {
            return Err(FindError::TooMuch);
        }
        self.bytes.extend_from_slice(payload);
        let packet = Packet {
            at_ns,
            rtcp,
            bytes: begin..self.bytes.len(),
        };
        let ssrc = u32_at(payload, if rtcp { 4 } else { 8 });
        let flow = (datagram.source, datagram.target, ssrc);
        if rtcp {
            self.rtcp.push((flow, packet));
            return Ok(());
        }
        let index = *self.by_flow.entry(flow).or_insert_with(|| {
            self.candidates.push((flow, Candidate::default()));
            self.candidates.len() - 1
        });
        self.candidates[index].1.add(packet, payload);
        Ok(())
    }

    fn finish(self, ports: &[u16], ended_within_a_record: bool) -> Found {
        let mut streams: Vec<Stream> = self
            .candidates
            .into_iter()
            .filter(|(flow, candidate)| candidate.is_rtp(!ports.is_empty() || flow.1.port() % 2 == 0))
            .map(|(flow, candidate)| candidate.stream(flow))
            .collect();
        for (flow, packet) in self.rtcp {
            if let Some(stream) = owner(&mut streams, flow) {
                stream.packets.push(packet);
            }
        }
        let times = || {
            streams
                .iter()
                .flat_map(|stream| &stream.packets)
                .map(|packet| packet.at_ns)
        };
        let (start_ns, end_ns) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        let mut taken = 0;
        for stream in &mut streams {
            taken += stream.packets.len() as u64;
            // Captures of several interfaces are not always in order of time; a stable sort keeps what came together.
            stream.packets.sort_by_key(|packet| packet.at_ns);
            stream
                .packets
                .iter_mut()
                .for_each(|packet| packet.at_ns -= start_ns);
        }
        let oversize = |stream: &Stream| {
            let long = |packet: &&Packet| packet.bytes.len() > 1_500;
            stream.packets.iter().filter(long).count() as u64
        };
        Found {
            bytes: self.bytes,
            span_ns: end_ns - start_ns,
            start_ns,
            frames: self.frames,
            skipped: self.skipped,
            other: self.udp - taken,
            oversize: streams.iter().map(oversize).sum(),
            streams,
            ended_within_a_record,
        }
    }
}

/// The stream a report is about: of that SSRC and address, to the same port or the one below (RFC 3550 §11).
fn owner(streams: &mut [Stream], (source, target, ssrc): Flow) -> Option<&mut Stream> {
    let of_source = |stream: &&mut Stream| {
        let same_hosts: [IpAddr; 2] = [stream.source.ip(), stream.target.ip()];
        stream.ssrc == ssrc && same_hosts == [source.ip(), target.ip()]
    };
    let port = target.port();
    streams
        .iter_mut()
        .filter(of_source)
        .find(|stream| stream.target.port() == port || stream.target.port().checked_add(1) == Some(port))
}

impl Candidate {
    fn add(&mut self, packet: Packet, payload: &[u8]) {
        let (sequence, time) = (i64::from(u16_at(payload, 2)), i64::from(u32_at(payload, 4)));
        self.payload_types.insert(payload[1] & 0x7f);
        if self.packets.is_empty() {
            (self.first_sequence, self.sequence, self.highest) = (sequence, sequence, sequence);
            self.first_time = (packet.at_ns, time);
            self.last_time = self.first_time;
        } else {
            let step = (sequence - self.sequence) as i16;
            if step != 0 && (MISORDER_MAX..DROPOUT_MAX).contains(&step) {
                self.steady += 1;
            }
            self.sequence += i64::from(step);
            self.highest = self.highest.max(self.sequence);
            let ticks = (time - self.last_time.1) as i32;
            self.last_time = (packet.at_ns, self.last_time.1 + i64::from(ticks));
        }
        self.packets.push(packet);
    }

    fn is_rtp(&self, even_port: bool) -> bool {
        let packets_min = if even_port {
            PACKETS_MIN
        } else {
            PACKETS_MIN_ODD_PORT
        };
        let steps = self.packets.len() - 1;
        self.packets.len() >= packets_min && self.steady as f64 >= STEADY * steps as f64
    }

    fn stream(self, (source, target, ssrc): Flow) -> Stream {
        let seconds = self.last_time.0.saturating_sub(self.first_time.0) as f64 / 1e9;
        let ticks = (self.last_time.1 - self.first_time.1).max(0) as f64;
        let lens = self.packets.iter().map(|packet| packet.bytes.len() as u64);
        Stream {
            source,
            target,
            ssrc,
            payload_types: self.payload_types,
            rtp_packets: self.packets.len() as u64,
            rtp_bytes: lens.sum(),
            sequence_span: (self.highest - self.first_sequence).max(0) as u64 + 1,
            clock: if seconds > 0.0 { ticks / seconds } else { 0.0 },
            packets: self.packets,
        }
    }
}

/// Whether these bytes could be RTP: version, and everything the header says is there (RFC 3550 §5.1).
fn is_rtp(bytes: &[u8]) -> bool {
    if bytes.len() < RTP_HEADER_BYTES || bytes[0] >> 6 != 2 {
        return false;
    }
    let mut header = RTP_HEADER_BYTES + 4 * usize::from(bytes[0] & 0x0f);
    if bytes[0] & 0x10 != 0 {
        let Some(words) = bytes.get(header + 2..header + 4) else {
            return false;
        };
        header += 4 + 4 * usize::from(u16_at(words, 0));
    }
    let padding = if bytes[0] & 0x20 != 0 {
        usize::from(bytes[bytes.len() - 1]).max(1)
    } else {
        0
    };
    header + padding <= bytes.len()
}

/// Whether these bytes are RTCP: whole packets of its types to the very end (RFC 3550 A.2; RFC 5761 §4 for telling it from
/// RTP on one port).
fn is_rtcp(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [first, kind, high, low, ..] = rest {
        let len = 4 * (usize::from(u16::from_be_bytes([*high, *low])) + 1);
        if first >> 6 != 2 || !(192..=223).contains(kind) || len > rest.len() {
            return false;
        }
        rest = &rest[len..];
    }
    rest.is_empty() && bytes.len() >= 8
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(*bytes[at..].first_chunk().expect("the caller checked the length"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(*bytes[at..].first_chunk().expect("the caller checked the length"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::link::tests::ipv4_packet;
    use super::*;
    use std::path::Path;

    /// A capture of raw IPv4 packets at these times.
    pub fn capture_of(packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_3c4du32, 0, 0, 0, 65_536, 228] {
            file.extend(word.to_le_bytes());
        }
        for (at_ns, packet) in packets {
            let (seconds, rest) = (at_ns / 1_000_000_000, at_ns % 1_000_000_000);
            for word in [
                seconds as u32,
                rest as u32,
                packet.len() as u32,
                packet.len() as u32,
            ] {
                file.extend(word.to_le_bytes());
            }
            file.extend(packet);
        }
        file
    }

    pub fn found(packets: &[(u64, Vec<u8>)], ports: &[u16]) -> Found {
        let file = capture_of(packets);
        let capture = Capture::new(Path::new("test.pcap"), &file[..]).expect("a capture");
        find(capture, ports).expect("nothing wrong in it")
    }

    pub fn rtp(sequence: u16, time: u32, ssrc: u32) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend(sequence.to_be_bytes());
        packet.extend(time.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend([0x65, 1, 2, 3]);
        packet
    }

    pub fn sender_report(ssrc: u32, time: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let report = crate::rtp::SenderReport {
            ssrc,
            time_ns: 1_000_000_000,
            timestamp: time,
            packets: 1,
            octets: 2,
        };
        report.write("camera", &mut bytes);
        bytes
    }

    /// `count` packets every 10 ms from `start_ns`, numbers and clock running.
    fn stream(port: u16, ssrc: u32, first: u16, count: u16, start_ns: u64) -> Vec<(u64, Vec<u8>)> {
        let packet = |n: u16| {
            let payload = rtp(
                first.wrapping_add(n),
                u32::MAX.wrapping_add(u32::from(n) * 900),
                ssrc,
            );
            (start_ns + u64::from(n) * 10_000_000, ipv4_packet(port, &payload))
        };
        (0..count).map(packet).collect()
    }

    #[test]
    fn steady_streams_are_found_with_their_clock_span_and_reports() {
        let second = 1_000_000_000;
        let mut packets = stream(5004, 7, 65_530, 101, second);
        packets.remove(50);
        packets.extend(stream(5006, 9, 10, 20, second));
        packets.push((second + 5, ipv4_packet(5005, &sender_report(7, 1))));
        packets.push((second + 6, ipv4_packet(5004, &sender_report(7, 1))));
        packets.push((second + 7, ipv4_packet(5005, &sender_report(1234, 1))));
        let found = found(&packets, &[]);
        assert_eq!(found.streams.len(), 2);
        let first = &found.streams[0];
        assert_eq!(
            (first.ssrc, first.rtp_packets, first.sequence_span),
            (7, 100, 101)
        );
        assert!((first.clock - 90_000.0).abs() < 1.0, "{}", first.clock);
        assert_eq!(first.packets.iter().filter(|packet| packet.rtcp).count(), 2);
        assert_eq!((found.span_ns, found.start_ns, found.other), (second, second, 1));
        assert!(first.packets.is_sorted_by_key(|packet| packet.at_ns));
        assert_eq!(found.bytes(&first.packets[0])[..2], [0x80, 96]);
    }

    #[test]
    fn what_only_looks_like_rtp_is_not_taken() {
        // Version 2 by chance, numbers that jump; a name server's port; an odd port with few packets; too few.
        let wild = |n: u16| {
            (
                u64::from(n),
                ipv4_packet(6000, &rtp(n.wrapping_mul(40_503), 0, 5)),
            )
        };
        let mut packets: Vec<_> = (0..200).map(wild).collect();
        packets.extend(stream(53, 6, 0, 200, 0));
        packets.extend(stream(5005, 7, 0, 40, 0));
        packets.extend(stream(5004, 8, 0, 4, 0));
        let short = vec![0x80, 96, 0];
        packets.push((1, ipv4_packet(5004, &short)));
        let found = found(&packets, &[]);
        assert!(found.streams.is_empty(), "{:?}", found.streams);
        assert_eq!(found.other, 445);
    }

    #[test]
    fn a_port_that_is_asked_for_may_be_odd_and_its_neighbours_are_left_out() {
        let mut packets = stream(5005, 7, 0, 40, 0);
        packets.extend(stream(5008, 8, 0, 40, 0));
        packets.push((3, ipv4_packet(5006, &sender_report(7, 1))));
        let found = found(&packets, &[5005]);
        let ssrcs: Vec<u32> = found.streams.iter().map(|stream| stream.ssrc).collect();
        assert_eq!((ssrcs, found.streams[0].packets.len()), (vec![7], 41));
    }

    #[test]
    fn headers_that_promise_more_than_there_is_are_no_rtp() {
        let mut packet = rtp(1, 2, 3);
        assert!(is_rtp(&packet));
        packet[0] = 0x8f; // 15 sources of 4 bytes
        assert!(!is_rtp(&packet));
        packet[0] = 0x90; // an extension whose length is 0x0203 words
        assert!(!is_rtp(&packet));
        packet[0] = 0xa0;
        *packet.last_mut().expect("not empty") = 200; // padding
        assert!(!is_rtp(&packet));
        assert!(!is_rtp(&packet[..11]) && !is_rtp(&[]));
        assert!(is_rtcp(&sender_report(1, 2)) && !is_rtcp(&sender_report(1, 2)[..30]) && !is_rtcp(&[]));
    }
}
