//! RTP and RTCP packets, byte by byte (RFC 3550 §5.1, §6.4.1). Written anew here, so that a fault of the engine's
//! parser is not also the tests'.

/// An RTP packet of version 2 without padding, extension or contributing sources.
pub fn packet(ssrc: u32, seq: u16, rtp_time: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + payload.len());
    bytes.push(0x80);
    bytes.push(96 | (u8::from(marker) << 7));
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&rtp_time.to_be_bytes());
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// An RTCP sender report without report blocks.
pub fn sender_report(ssrc: u32, ntp: u64, rtp_time: u32, packets: u32, octets: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 200, 0, 6];
    bytes.extend_from_slice(&ssrc.to_be_bytes());
    bytes.extend_from_slice(&ntp.to_be_bytes());
    bytes.extend_from_slice(&rtp_time.to_be_bytes());
    bytes.extend_from_slice(&packets.to_be_bytes());
    bytes.extend_from_slice(&octets.to_be_bytes());
    bytes
}

/// The sequence number of an RTP packet.
pub fn seq_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

/// The SSRC of an RTP packet.
pub fn ssrc_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]])
}

/// One sending stream: numbers its packets and fills them with bytes that no other packet has.
#[derive(Clone, Debug)]
pub struct Stream {
    pub ssrc: u32,
    /// The next packet's sequence number.
    pub seq: u16,
    /// The next packet's RTP time.
    pub rtp_time: u32,
    /// How far RTP time moves from packet to packet.
    pub step: u32,
    /// Payload bytes of a packet.
    pub payload_bytes: usize,
    made: u64,
}

impl Stream {
    pub fn new(ssrc: u32) -> Stream {
        Stream {
            ssrc,
            seq: 1000,
            rtp_time: 90_000,
            step: 3000,
            payload_bytes: 1000,
            made: 0,
        }
    }

    /// Sets the first sequence number.
    pub fn seq(mut self, seq: u16) -> Stream {
        self.seq = seq;
        self
    }

    /// Sets the payload's size in bytes.
    pub fn payload(mut self, bytes: usize) -> Stream {
        self.payload_bytes = bytes;
        self
    }

    /// The next packet.
    pub fn packet(&mut self) -> Vec<u8> {
        let payload = distinct_bytes((u64::from(self.ssrc) << 32) ^ self.made, self.payload_bytes);
        let bytes = packet(self.ssrc, self.seq, self.rtp_time, self.made % 4 == 3, &payload);
        self.made += 1;
        self.seq = self.seq.wrapping_add(1);
        self.rtp_time = self.rtp_time.wrapping_add(self.step);
        bytes
    }

    /// The next `count` packets.
    pub fn packets(&mut self, count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.packet()).collect()
    }
}

/// Bytes that look random and depend on `seed` alone (splitmix64; Steele, Lea and Flood 2014).
pub fn distinct_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A stream of random numbers that depends on its seed alone, so that a failing test can be run again.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in 0..`bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
