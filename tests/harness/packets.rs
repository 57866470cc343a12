//! Packets as the engine gives them back, and comparison with what was sent.

use std::path::Path;

/// One packet of an export.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Packet {
    pub rtcp: bool,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.rtcp { "RTCP" } else { "RTP" };
        let head: Vec<String> = self.bytes.iter().take(12).map(|b| format!("{b:02x}")).collect();
        write!(f, "{kind}[{} bytes {}…]", self.bytes.len(), head.concat())
    }
}

/// Reads an rtpdump file (the format of `rtptools`, rtpdump.h): a line of text, a 16-byte header, then per packet
/// `{length u16, plen u16, offset_ms u32}` in network order. RTCP has plen 0.
#[track_caller]
pub fn read_rtpdump(path: &Path) -> Vec<Packet> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let line_end = bytes.iter().position(|b| *b == b'\n').expect("a first line");
    let line = std::str::from_utf8(&bytes[..line_end]).expect("a first line of text");
    assert!(
        line.starts_with("#!rtpplay1.0 "),
        "no rtpdump file begins {line:?}"
    );
    let mut rest = &bytes[line_end + 1 + 16..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let packet_length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let rtcp = packet_length == 0;
        assert!(
            rtcp || packet_length == length - 8,
            "a whole packet of {packet_length} bytes in {length}"
        );
        packets.push(Packet {
            rtcp,
            bytes: rest[8..length].to_vec(),
        });
        rest = &rest[length..];
    }
    packets
}

/// Only the RTP packets' bytes.
pub fn rtp_only(packets: Vec<Packet>) -> Vec<Vec<u8>> {
    packets.into_iter().filter(|p| !p.rtcp).map(|p| p.bytes).collect()
}

/// Asserts that what came back is what was sent: every packet, byte by byte, in the order sent, nothing else.
#[track_caller]
pub fn assert_same(sent: &[Vec<u8>], back: &[Vec<u8>]) {
    if sent == back {
        return;
    }
    let at = sent
        .iter()
        .zip(back)
        .position(|(s, b)| s != b)
        .unwrap_or_else(|| sent.len().min(back.len()));
    let head = |packets: &[Vec<u8>]| {
        packets.get(at).map_or("nothing".to_owned(), |p| {
            format!("{} bytes {:02x?}…", p.len(), &p[..p.len().min(16)])
        })
    };
    panic!(
        "sent {} packets, got {} back; they part at index {at}: sent {}, got {}",
        sent.len(),
        back.len(),
        head(sent),
        head(back)
    );
}
