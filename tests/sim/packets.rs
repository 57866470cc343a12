//! The packets that simulated cameras send: real RTP and RTCP, each telling which one it is.

use std::sync::LazyLock;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Shortest RTP packet that can be told apart: header and two numbers, in bytes.
pub const RTP_MIN_BYTES: usize = 20;
const RTP_NAME_AT: usize = 12;
/// In a sender report, where its NTP time would stand (RFC 3550 §6.4.1).
const RTCP_NAME_AT: usize = 8;

/// Which packet of the whole run it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Index of its stream in the traffic.
    pub stream: u32,
    /// Index in its stream, as sent.
    pub index: u32,
}

/// Payloads are cut from this: noise, as sealed video is. Which packet it is stands before it.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut noise = vec![0; 96 << 10];
    StdRng::seed_from_u64(0).fill(&mut noise[..]);
    noise
});

/// An RTP packet of `len` bytes, at most 80 KiB.
pub fn rtp(ssrc: u32, sequence: u16, timestamp: u32, name: Name, len: usize) -> Vec<u8> {
    let mut packet = Vec::with_capacity(len.max(RTP_MIN_BYTES));
    packet.extend_from_slice(&[0x80, 96]);
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&name.stream.to_be_bytes());
    packet.extend_from_slice(&name.index.to_be_bytes());
    let at =
        (name.stream.wrapping_mul(0x9E37_79B9) ^ name.index.wrapping_mul(0x85EB_CA6B)) as usize % (16 << 10);
    packet.extend_from_slice(&NOISE[at..at + len.saturating_sub(RTP_MIN_BYTES)]);
    packet
}

/// An RTCP sender report of 28 bytes.
pub fn rtcp(ssrc: u32, timestamp: u32, name: Name) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&name.stream.to_be_bytes());
    packet.extend_from_slice(&name.index.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&[0; 8]);
    packet
}

/// Whether it is RTCP (RFC 5761 §4).
pub fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet.get(1), Some(192..=223))
}

/// Which packet it says it is.
pub fn name(packet: &[u8]) -> Option<Name> {
    let at = if is_rtcp(packet) {
        RTCP_NAME_AT
    } else {
        RTP_NAME_AT
    };
    let number = |at: usize| Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?));
    Some(Name {
        stream: number(at)?,
        index: number(at + 4)?,
    })
}
