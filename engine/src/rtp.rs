//! Validation: what every datagram must satisfy before anything else looks at it.
//!
//! Owns the line between bytes of a stranger and a [`Packet`]. Whatever comes in, the answer is a packet or a
//! [`Reason`]; nothing here panics, allocates or remembers. RTP headers are parsed by `rtp-rs`; RTCP compound
//! packets are walked here (RFC 3550 A.2), because nothing but their shape and their sender matters to us.

use rtp_rs::{RtpReader, RtpReaderError};

use crate::ledger::Reason;

/// Shortest RTP packet: the fixed header (RFC 3550 §5.1), in bytes.
pub const RTP_MIN_BYTES: usize = 12;
/// Shortest RTCP packet we take: common header and sender SSRC (RFC 3550 §6.4), in bytes.
pub const RTCP_MIN_BYTES: usize = 8;

/// A well-formed packet: the facts the rest of the path needs, not the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// RTP (RFC 3550 §5.1).
    Rtp {
        /// Synchronisation source.
        ssrc: u32,
        /// Sequence number, 16 bits as sent.
        sequence: u16,
        /// Media timestamp in units of the payload's clock.
        timestamp: u32,
    },
    /// An RTCP compound packet (RFC 3550 §6.1).
    Rtcp {
        /// SSRC of the sender of its first packet.
        ssrc: u32,
    },
}

impl Packet {
    /// The stream this packet names.
    #[inline]
    pub fn ssrc(&self) -> u32 {
        match *self {
            Packet::Rtp { ssrc, .. } | Packet::Rtcp { ssrc } => ssrc,
        }
    }

    /// Parses one UDP payload.
    ///
    /// RTP and RTCP share ports; packet types 192–223 in the second byte mean RTCP (RFC 5761 §4). The steering
    /// filter in the kernel uses the same rule.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Packet, Reason> {
        match datagram.get(1) {
            Some(192..=223) => parse_rtcp(datagram),
            _ => parse_rtp(datagram),
        }
    }
}

#[inline]
fn parse_rtp(datagram: &[u8]) -> Result<Packet, Reason> {
    let reader = RtpReader::new(datagram).map_err(|error| match error {
        RtpReaderError::BufferTooShort(_) => Reason::Truncated,
        RtpReaderError::UnsupportedVersion(_) => Reason::BadVersion,
        RtpReaderError::PaddingLengthInvalid(_) => Reason::BadPadding,
        RtpReaderError::HeadersTruncated {
            header_len,
            buffer_len,
        } => {
            // `rtp-rs` says the same of a cut CSRC list, a cut extension and padding without a byte to count it.
            if header_len > buffer_len && buffer_len < datagram.len() {
                Reason::BadPadding
            } else if RTP_MIN_BYTES + 4 * usize::from(datagram[0] & 0x0F) > datagram.len() {
                Reason::Truncated
            } else {
                Reason::BadExtension
            }
        }
    })?;
    Ok(Packet::Rtp {
        ssrc: reader.ssrc(),
        sequence: reader.sequence_number().into(),
        timestamp: reader.timestamp(),
    })
}

/// Walks a compound packet: every part has version 2 and fits, only the last may be padded (RFC 3550 A.2).
///
/// Reduced-size RTCP (RFC 5506) may start with any type, so the first packet's type is not held against it.
fn parse_rtcp(datagram: &[u8]) -> Result<Packet, Reason> {
    if datagram.len() < RTCP_MIN_BYTES {
        return Err(Reason::Truncated);
    }
    let mut rest = datagram;
    while !rest.is_empty() {
        let [first, _, high, low, ..] = *rest else {
            return Err(Reason::BadRtcp);
        };
        if first >> 6 != 2 {
            return Err(Reason::BadVersion);
        }
        let part_bytes = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        if part_bytes > rest.len() {
            return Err(Reason::BadRtcp);
        }
        let padded = first & 0x20 != 0;
        if padded && (part_bytes < rest.len() || bad_rtcp_padding(&rest[..part_bytes])) {
            return Err(Reason::BadRtcp);
        }
        rest = &rest[part_bytes..];
    }
    Ok(Packet::Rtcp {
        ssrc: u32::from_be_bytes([datagram[4], datagram[5], datagram[6], datagram[7]]),
    })
}

/// The last byte counts the padding, itself included: a multiple of four that leaves the header alone.
fn bad_rtcp_padding(part: &[u8]) -> bool {
    let count = usize::from(part[part.len() - 1]);
    count == 0 || count % 4 != 0 || count > part.len() - 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rtp(first: u8, tail: &[u8]) -> Vec<u8> {
        let mut packet = vec![first, 96, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5];
        packet.extend_from_slice(tail);
        packet
    }

    #[test]
    fn a_plain_packet_yields_its_header_fields() {
        assert_eq!(
            Packet::parse(&rtp(0x80, &[1, 2, 3])),
            Ok(Packet::Rtp {
                ssrc: 5,
                sequence: 7,
                timestamp: 9
            })
        );
        assert_eq!(
            Packet::parse(&rtp(0x80, &[])),
            Ok(Packet::Rtp {
                ssrc: 5,
                sequence: 7,
                timestamp: 9
            })
        );
    }

    #[test]
    fn each_malformed_header_has_its_own_reason() {
        assert_eq!(Packet::parse(&[]), Err(Reason::Truncated));
        assert_eq!(Packet::parse(&rtp(0x80, &[])[..11]), Err(Reason::Truncated));
        assert_eq!(Packet::parse(&rtp(0x40, &[0; 20])), Err(Reason::BadVersion));
        assert_eq!(
            Packet::parse(&rtp(0x82, &[0; 4])),
            Err(Reason::Truncated),
            "two CSRCs promised, one there"
        );
        assert_eq!(
            Packet::parse(&rtp(0x90, &[0, 0, 0, 9])),
            Err(Reason::BadExtension),
            "9 words promised"
        );
        assert_eq!(Packet::parse(&rtp(0x90, &[0, 0])), Err(Reason::BadExtension));
        assert_eq!(
            Packet::parse(&rtp(0xA0, &[1, 0])),
            Err(Reason::BadPadding),
            "padding of zero bytes"
        );
        assert_eq!(
            Packet::parse(&rtp(0xA0, &[1, 3])),
            Err(Reason::BadPadding),
            "padding into the header"
        );
        assert_eq!(
            Packet::parse(&rtp(0xA0, &[])),
            Err(Reason::BadPadding),
            "no byte to count the padding"
        );
    }

    #[test]
    fn rtcp_is_walked_to_its_end() {
        let sender_report = [0x80, 200, 0, 1, 0, 0, 0, 42];
        assert_eq!(Packet::parse(&sender_report), Ok(Packet::Rtcp { ssrc: 42 }));
        let compound = [sender_report, [0x81, 202, 0, 1, 0, 0, 0, 42]].concat();
        assert_eq!(Packet::parse(&compound), Ok(Packet::Rtcp { ssrc: 42 }));
        assert_eq!(Packet::parse(&compound[..15]), Err(Reason::BadRtcp));
        assert_eq!(Packet::parse(&sender_report[..7]), Err(Reason::Truncated));
        let version_one = [0x40, 200, 0, 1, 0, 0, 0, 42];
        assert_eq!(Packet::parse(&version_one), Err(Reason::BadVersion));
        let padded_first = [[0xA0, 200, 0, 1, 0, 0, 0, 4], sender_report].concat();
        assert_eq!(
            Packet::parse(&padded_first),
            Err(Reason::BadRtcp),
            "only the last part may be padded"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_passes_is_long_enough(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let at = match packet { Packet::Rtp { .. } => 8, Packet::Rtcp { .. } => 4 };
                prop_assert_eq!(packet.ssrc().to_be_bytes(), <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
            }
        }
    }
}
