//! pcapng (draft-ietf-opsawg-pcapng): section header, one interface, one enhanced packet block per packet.
//!
//! Segments hold UDP payloads only, so each gets IPv4 and UDP headers with addresses of the documentation range
//! (RFC 5737): 192.0.2.1 the camera, 192.0.2.2 the recorder. Ports tell the m-line: RTP at 5004 + 2 × index, RTCP
//! at the next. The camera's session description stands as a comment at the first packet of each stream.
//!
//! Three block types are written here directly, because `pcap-file` 2.0 offers no comment on a packet it has not
//! first copied, and more of it is not needed.

use std::collections::HashSet;
use std::io::{self, Write};

use super::{Packet, Stream};

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
/// Raw IP: the packet begins with the IPv4 header.
const LINKTYPE_RAW: u16 = 101;
const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_APPLICATION: u16 = 4;
const OPTION_TIME_RESOLUTION: u16 = 9;
/// 10⁻⁹ s.
const NANOSECONDS: u8 = 9;

const CAMERA: [u8; 4] = [192, 0, 2, 1];
const RECORDER: [u8; 4] = [192, 0, 2, 2];
const BASE_PORT: u16 = 5004;
const IP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const UDP: u8 = 17;

/// What has to be remembered between packets.
#[derive(Default)]
pub(super) struct Writer {
    begun: bool,
    ip_id: u16,
    described: HashSet<(u32, u16)>,
    block: Vec<u8>,
}

impl Writer {
    /// Appends one packet to `out`, with the file's head before the first.
    pub fn append(&mut self, out: &mut impl Write, stream: &Stream, packet: Packet<'_>) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            out.write_all(&head())?;
        }
        let comment = self
            .described
            .insert((stream.ssrc, stream.media_index))
            .then(|| describe(stream));
        let port = port_of(stream, packet.rtcp);
        self.ip_id = self.ip_id.wrapping_add(1);
        self.block.clear();
        let time = packet.arrival_ns;
        let total = (IP_HEADER_BYTES + UDP_HEADER_BYTES + packet.bytes.len()) as u32;
        self.block.extend(0u32.to_le_bytes());
        self.block.extend(((time >> 32) as u32).to_le_bytes());
        self.block.extend((time as u32).to_le_bytes());
        self.block.extend(total.to_le_bytes());
        self.block.extend(total.to_le_bytes());
        self.block.extend(ip_and_udp(packet.bytes, port, self.ip_id)?);
        self.block.extend(packet.bytes);
        pad(&mut self.block);
        if let Some(text) = comment {
            option(&mut self.block, OPTION_COMMENT, text.as_bytes());
            option(&mut self.block, OPTION_END, &[]);
        }
        write_block(out, ENHANCED_PACKET, &self.block)
    }
}

/// Section header and the one interface.
fn head() -> Vec<u8> {
    let mut section = Vec::new();
    section.extend(BYTE_ORDER_MAGIC.to_le_bytes());
    section.extend(1u16.to_le_bytes());
    section.extend(0u16.to_le_bytes());
    section.extend(u64::MAX.to_le_bytes()); // length of the section: not stated
    option(
        &mut section,
        OPTION_APPLICATION,
        concat!("harborseal ", env!("CARGO_PKG_VERSION")).as_bytes(),
    );
    let note = "IP addresses and ports are made up: 192.0.2.1 is the camera. Times are the recorder's arrival times.";
    option(&mut section, OPTION_COMMENT, note.as_bytes());
    option(&mut section, OPTION_END, &[]);

    let mut interface = Vec::new();
    interface.extend(LINKTYPE_RAW.to_le_bytes());
    interface.extend(0u16.to_le_bytes());
    interface.extend(0u32.to_le_bytes()); // no snap length
    option(&mut interface, OPTION_TIME_RESOLUTION, &[NANOSECONDS]);
    option(&mut interface, OPTION_END, &[]);

    let mut head = Vec::new();
    let whole = write_block(&mut head, SECTION_HEADER, &section)
        .and_then(|()| write_block(&mut head, INTERFACE, &interface));
    whole.expect("writing to a Vec does not fail");
    head
}

/// `type ‖ length ‖ body ‖ length`; the body is a multiple of 4 bytes.
fn write_block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&length)
}

/// `code ‖ length ‖ value`, padded to 4 bytes; a value that is too long is cut at 65,535 bytes.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The comment at a stream's first packet.
fn describe(stream: &Stream) -> String {
    let port = port_of(stream, false);
    let mut text = format!(
        "SSRC 0x{:08x}. If Wireshark shows UDP: Decode As, UDP port {port} = RTP, {} = RTCP.",
        stream.ssrc,
        port + 1
    );
    if !stream.sdp.is_empty() {
        text.push_str(" The camera's session description:\n");
        text.push_str(&stream.sdp);
    }
    text
}

/// Where a stream's packets seem to go. An unknown m-line stands behind all others that are likely.
fn port_of(stream: &Stream, rtcp: bool) -> u16 {
    let index = if stream.media_index == Stream::UNKNOWN_MEDIA {
        100
    } else {
        stream.media_index.min(10_000)
    };
    BASE_PORT + 2 * index + u16::from(rtcp)
}

/// IPv4 and UDP headers, with checksums, for `payload`.
fn ip_and_udp(payload: &[u8], port: u16, ip_id: u16) -> io::Result<[u8; IP_HEADER_BYTES + UDP_HEADER_BYTES]> {
    let too_long = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "a packet is longer than UDP over IPv4 allows",
        )
    };
    let udp_bytes = u16::try_from(UDP_HEADER_BYTES + payload.len()).map_err(|_| too_long())?;
    let ip_bytes = udp_bytes
        .checked_add(IP_HEADER_BYTES as u16)
        .ok_or_else(too_long)?;
    let mut head = [0u8; IP_HEADER_BYTES + UDP_HEADER_BYTES];
    head[0] = 0x45; // version 4, five words
    head[2..4].copy_from_slice(&ip_bytes.to_be_bytes());
    head[4..6].copy_from_slice(&ip_id.to_be_bytes());
    head[6] = 0x40; // don't fragment
    head[8] = 64; // hops
    head[9] = UDP;
    head[12..16].copy_from_slice(&CAMERA);
    head[16..20].copy_from_slice(&RECORDER);
    let ip_sum = fold(sum(&head[..IP_HEADER_BYTES]));
    head[10..12].copy_from_slice(&ip_sum.to_be_bytes());

    head[20..22].copy_from_slice(&port.to_be_bytes());
    head[22..24].copy_from_slice(&port.to_be_bytes());
    head[24..26].copy_from_slice(&udp_bytes.to_be_bytes());
    // Pseudo header (RFC 768): addresses, protocol, length. A sum of zero is sent as all ones.
    let pseudo = sum(&CAMERA) + sum(&RECORDER) + u64::from(UDP) + u64::from(udp_bytes);
    let udp_sum = match fold(pseudo + sum(&head[20..]) + sum(payload)) {
        0 => 0xFFFF,
        nonzero => nonzero,
    };
    head[26..28].copy_from_slice(&udp_sum.to_be_bytes());
    Ok(head)
}

/// Sum of 16-bit words, an odd last byte standing high (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |&b| u64::from(b) << 8);
    odd + words
        .map(|w| u64::from(u16::from_be_bytes([w[0], w[1]])))
        .sum::<u64>()
}

/// One's complement of the folded sum.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn capture(packets: &[Packet<'_>]) -> Vec<u8> {
        let stream = Stream {
            ssrc: 7,
            media_index: 1,
            sdp: Arc::from("v=0\r\n"),
        };
        let mut out = Vec::new();
        let mut writer = Writer::default();
        for packet in packets {
            writer.append(&mut out, &stream, *packet).unwrap();
        }
        out
    }

    /// Type and body of each block; panics unless both lengths of each agree and fill the file.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = word(file, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(file, length - 4) as usize, length);
            blocks.push((word(file, 0), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn a_capture_is_section_interface_and_one_block_per_packet() {
        let time = 1_700_000_000_123_456_789u64;
        let file = capture(&[
            Packet {
                arrival_ns: time,
                rtcp: false,
                bytes: &[0x80; 13],
            },
            Packet {
                arrival_ns: time + 1,
                rtcp: true,
                bytes: &[0x81; 8],
            },
        ]);
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|b| b.0).collect();
        assert_eq!(
            kinds,
            [SECTION_HEADER, INTERFACE, ENHANCED_PACKET, ENHANCED_PACKET]
        );
        let body = &blocks[2].1;
        assert_eq!(body[4..8], ((time >> 32) as u32).to_le_bytes());
        assert_eq!(body[8..12], (time as u32).to_le_bytes());
        let ip = &body[20..20 + 28 + 13];
        assert_eq!(&ip[28..], [0x80; 13]);
        assert_eq!(ip[22..24], 5006u16.to_be_bytes());
        assert!(String::from_utf8_lossy(body).contains("v=0\r\n"));
        let rtcp = &blocks[3].1[20..];
        assert_eq!(rtcp[22..24], 5007u16.to_be_bytes());
        assert!(!String::from_utf8_lossy(&blocks[3].1).contains("v=0"));
    }

    #[test]
    fn checksums_verify() {
        for length in [8, 9, 1200, 1201] {
            let payload: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let head = ip_and_udp(&payload, 5004, 1).unwrap();
            assert_eq!(fold(sum(&head[..20])), 0);
            let pseudo = sum(&CAMERA) + sum(&RECORDER) + 17 + (8 + length);
            assert_eq!(fold(pseudo + sum(&head[20..]) + sum(&payload)), 0);
        }
    }

    #[test]
    fn a_packet_that_udp_cannot_carry_is_an_error() {
        assert!(ip_and_udp(&vec![0; 65_508], 5004, 1).is_err());
        assert!(ip_and_udp(&vec![0; 65_507], 5004, 1).is_ok());
    }
}
