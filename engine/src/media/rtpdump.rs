//! rtpdump, the file format of rtptools: a text line, a file header, then one header per packet. Big-endian.
//!
//! ```text
//! "#!rtpplay1.0 192.0.2.1/5004\n"
//! file:   start seconds u32 · start microseconds u32 · source address [4] · port u16 · 0 u16
//! packet: length with this header u16 · RTP length u16 (0 = RTCP) · milliseconds since start u32 · packet
//! ```

use std::io::{self, Write};

use super::Packet;

const LINE: &[u8] = b"#!rtpplay1.0 192.0.2.1/5004\n";
/// Made up, as in the pcapng output (RFC 5737).
const SOURCE: [u8; 4] = [192, 0, 2, 1];
const PORT: u16 = 5004;
const PACKET_HEADER_BYTES: usize = 8;

/// What has to be remembered between packets.
#[derive(Default)]
pub(super) struct Writer {
    start_ns: Option<u64>,
}

impl Writer {
    /// Appends one packet to `out`, with the file's head before the first.
    pub fn append(&mut self, out: &mut impl Write, packet: Packet<'_>) -> io::Result<()> {
        let start_ns = match self.start_ns {
            Some(start_ns) => start_ns,
            None => {
                out.write_all(&head(packet.arrival_ns))?;
                *self.start_ns.insert(packet.arrival_ns)
            }
        };
        let too_far = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let length = u16::try_from(PACKET_HEADER_BYTES + packet.bytes.len())
            .map_err(|_| too_far("a packet is longer than rtpdump allows"))?;
        let rtp_length = if packet.rtcp { 0 } else { packet.bytes.len() as u16 };
        let offset_ms = u32::try_from(packet.arrival_ns.saturating_sub(start_ns) / 1_000_000)
            .map_err(|_| too_far("rtpdump cannot span more than 49 days; choose a shorter range"))?;
        out.write_all(&length.to_be_bytes())?;
        out.write_all(&rtp_length.to_be_bytes())?;
        out.write_all(&offset_ms.to_be_bytes())?;
        out.write_all(packet.bytes)
    }
}

fn head(start_ns: u64) -> Vec<u8> {
    let mut head = LINE.to_vec();
    // 32 bits of seconds last until 2106.
    head.extend(((start_ns / 1_000_000_000) as u32).to_be_bytes());
    head.extend(((start_ns % 1_000_000_000 / 1_000) as u32).to_be_bytes());
    head.extend(SOURCE);
    head.extend(PORT.to_be_bytes());
    head.extend([0, 0]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_as_rtptools_documents_them() {
        let mut out = Vec::new();
        let mut writer = Writer::default();
        let start_ns = 1_700_000_000_123_456_789;
        writer
            .append(
                &mut out,
                Packet {
                    arrival_ns: start_ns,
                    rtcp: false,
                    bytes: &[0x80; 12],
                },
            )
            .unwrap();
        writer
            .append(
                &mut out,
                Packet {
                    arrival_ns: start_ns + 40_000_000,
                    rtcp: true,
                    bytes: &[0x81; 8],
                },
            )
            .unwrap();
        let mut want = LINE.to_vec();
        want.extend(1_700_000_000u32.to_be_bytes());
        want.extend(123_456u32.to_be_bytes());
        want.extend([192, 0, 2, 1, 0x13, 0x8C, 0, 0]);
        want.extend([0, 20, 0, 12, 0, 0, 0, 0]);
        want.extend([0x80; 12]);
        want.extend([0, 16, 0, 0, 0, 0, 0, 40]);
        want.extend([0x81; 8]);
        assert_eq!(out, want);
    }
}
