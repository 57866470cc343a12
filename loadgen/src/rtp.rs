//! The bytes of one RTP packet and of one RTCP report, as a camera sends them (RFC 3550 §5.1, §6.4.1, §6.5).

use crate::mark::{MARK_BYTES, Mark};

/// Everything before the payload: fixed header and mark.
pub const HEADER_BYTES: usize = 12 + MARK_BYTES;
/// Dynamic payload type, bound to H.264 by the SDP (RFC 3551 §3).
pub const PAYLOAD_TYPE: u8 = 96;
/// H.264 in RTP counts in 90 kHz (RFC 6184 §5.1).
pub const CLOCK_RATE: u32 = 90_000;

const VERSION_2: u8 = 0x80;
const EXTENSION: u8 = 0x10;
const MARKER: u8 = 0x80;
const RTCP_SENDER_REPORT: u8 = 200;
const RTCP_SOURCE_DESCRIPTION: u8 = 202;
const SDES_CNAME: u8 = 1;
/// Seconds from 1900 (NTP) to 1970 (Unix).
const NTP_EPOCH_S: u64 = 2_208_988_800;

/// The fixed header's fields that differ from packet to packet.
pub struct Header {
    /// Last packet of its frame (RFC 6184 §5.1).
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl Header {
    /// Writes the packet into `out`, whose length must be header and payload together.
    pub fn write(&self, mark: &Mark, run: u64, payload: &[u8], out: &mut [u8]) {
        let (head, body) = out.split_at_mut(HEADER_BYTES);
        head[0] = VERSION_2 | EXTENSION;
        head[1] = self.payload_type | if self.marker { MARKER } else { 0 };
        head[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        head[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        head[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        mark.write(
            run,
            head[12..].first_chunk_mut().expect("HEADER_BYTES holds a mark"),
        );
        body.copy_from_slice(payload);
    }
}

/// What a sender report says about its stream.
pub struct SenderReport {
    pub ssrc: u32,
    /// When the report is sent: CLOCK_REALTIME, nanoseconds since 1970, and the same instant on the stream's RTP clock.
    pub time_ns: u64,
    pub timestamp: u32,
    /// RTP packets and payload bytes sent so far, wrapping (RFC 3550 §6.4.1).
    pub packets: u32,
    pub octets: u32,
}

impl SenderReport {
    /// Appends a compound packet: the report, and the CNAME that RFC 3550 §6.1 asks of every compound. Returns its size.
    pub fn write(&self, cname: &str, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let seconds = self.time_ns / 1_000_000_000 + NTP_EPOCH_S;
        let fraction = ((self.time_ns % 1_000_000_000) << 32) / 1_000_000_000;
        out.extend_from_slice(&[VERSION_2, RTCP_SENDER_REPORT, 0, 6]);
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(&(seconds as u32).to_be_bytes());
        out.extend_from_slice(&(fraction as u32).to_be_bytes());
        for word in [self.timestamp, self.packets, self.octets] {
            out.extend_from_slice(&word.to_be_bytes());
        }

        // One chunk: SSRC, CNAME item, then one to four zero bytes to the next 32-bit boundary (RFC 3550 §6.5).
        let cname = &cname.as_bytes()[..cname.len().min(255)];
        let chunk_bytes = (4 + 2 + cname.len() + 1).next_multiple_of(4);
        let words = u16::try_from(chunk_bytes / 4).expect("a CNAME has at most 255 bytes");
        out.extend_from_slice(&[VERSION_2 | 1, RTCP_SOURCE_DESCRIPTION]);
        out.extend_from_slice(&words.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(&[SDES_CNAME, cname.len() as u8]);
        out.extend_from_slice(cname);
        out.resize(out.len() + chunk_bytes - (6 + cname.len()), 0);
        out.len() - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_fields_where_rfc_3550_puts_them() {
        let header = Header {
            marker: true,
            payload_type: PAYLOAD_TYPE,
            sequence: 0x0102,
            timestamp: 0x03040506,
            ssrc: 0x0708090a,
        };
        let mark = Mark {
            stream: 0,
            sequence: 0,
            intended_ns: 0,
        };
        let mut out = vec![0; HEADER_BYTES + 2];
        header.write(&mark, 0, &[0xaa, 0xbb], &mut out);
        assert_eq!(out[..12], [0x90, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(out[HEADER_BYTES..], [0xaa, 0xbb]);
    }

    #[test]
    fn a_compound_report_is_made_of_whole_packets_of_the_lengths_they_state() {
        for cname in ["", "a", "ab", "abc", "abcd", "camera-00017"] {
            let report = SenderReport {
                ssrc: 7,
                time_ns: 1_500_000_000,
                timestamp: 1,
                packets: 2,
                octets: 3,
            };
            let mut out = Vec::new();
            let bytes = report.write(cname, &mut out);
            assert_eq!(bytes, out.len());
            let mut kinds = Vec::new();
            let mut rest = out.as_slice();
            while !rest.is_empty() {
                let len = (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1) * 4;
                kinds.push(rest[1]);
                rest = &rest[len..];
            }
            assert_eq!(kinds, [RTCP_SENDER_REPORT, RTCP_SOURCE_DESCRIPTION], "{cname}");
            assert_eq!(
                out[8..16],
                [0x83, 0xaa, 0x7e, 0x81, 0x80, 0, 0, 0],
                "1900 + 70 years + 1.5 s"
            );
            assert_eq!(out.last(), Some(&0));
        }
    }
}
