//! Packets in memory: streams in turn, some of each back to back, as cameras send them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use harborseal_loadgen::FleetSpec;

/// Where they come from.
pub const SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);
/// Payload type of dynamic media (RFC 3551 §6).
const PAYLOAD_TYPE: u8 = 96;

/// What they look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub streams: u32,
    /// Packets of one stream back to back.
    pub burst: u32,
    /// Of each packet, RTP header included.
    pub bytes: usize,
}

impl Shape {
    /// Video of 4,000 cameras.
    pub const VIDEO: Shape = Shape {
        streams: 4000,
        burst: 8,
        bytes: 1200,
    };
    /// Audio of 4,000 cameras: 20 ms of PCMU (RFC 3551 §4.5.14).
    pub const AUDIO: Shape = Shape {
        streams: 4000,
        burst: 1,
        bytes: 172,
    };

    /// The SSRCs: spread as the load generator spreads them.
    pub fn ssrcs(self) -> Vec<u32> {
        let spec = FleetSpec::new(self.streams, 1.0, 1.0, vec![SOURCE]);
        (0..self.streams).map(|camera| spec.ssrc(camera)).collect()
    }
}

/// A source of packets without an end; sequence numbers and timestamps go on as they should.
pub struct Packets {
    shape: Shape,
    ssrcs: Vec<u32>,
    /// One burst, rewritten for each stream.
    burst: Vec<u8>,
    stream: usize,
    rounds: u32,
}

impl Packets {
    pub fn new(shape: Shape) -> Packets {
        let mut burst = vec![0xA5; shape.bytes * shape.burst as usize];
        for packet in burst.chunks_mut(shape.bytes) {
            packet[0] = 0x80;
            packet[1] = PAYLOAD_TYPE;
        }
        Packets {
            shape,
            ssrcs: shape.ssrcs(),
            burst,
            stream: 0,
            rounds: 0,
        }
    }

    /// The next stream's burst, as the kernel would deliver it with GRO: packets of equal length, one behind the other.
    pub fn next_burst(&mut self) -> &[u8] {
        let ssrc = self.ssrcs[self.stream];
        let first = self.rounds.wrapping_mul(self.shape.burst);
        for (packet, n) in self.burst.chunks_mut(self.shape.bytes).zip(first..) {
            packet[2..4].copy_from_slice(&(n as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&self.rounds.wrapping_mul(3000).to_be_bytes());
            packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        }
        self.stream += 1;
        if self.stream == self.ssrcs.len() {
            self.stream = 0;
            self.rounds = self.rounds.wrapping_add(1);
        }
        &self.burst
    }

    pub fn packet_bytes(&self) -> usize {
        self.shape.bytes
    }
}
