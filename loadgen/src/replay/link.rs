//! From a captured frame to the UDP datagram in it: link header, IP header, UDP header.
//!
//! Lengths are the headers' own, each checked against what was captured; whatever is not a whole UDP datagram comes back as
//! the reason, so that a replay can say what it left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A whole UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub source: SocketAddr,
    pub target: SocketAddr,
    pub payload: &'a [u8],
}

/// Why a frame gives no datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skipped {
    /// A kind of link that is not read here.
    Link(u16),
    /// No IP, or no UDP in it.
    NotUdp,
    /// A fragment of an IP packet. They are not put together: cameras keep their packets below the MTU.
    Fragment,
    /// The capture kept only its beginning (snapshot length).
    Cut,
    /// Lengths that contradict each other.
    Malformed,
    /// The capture does not say when it came.
    NoTime,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Skipped::Link(kind) => write!(f, "on a link of kind {kind}, which is not read"),
            Skipped::NotUdp => f.write_str("not UDP"),
            Skipped::Fragment => f.write_str("IP fragments, which are not put together"),
            Skipped::Cut => f.write_str("cut by the capture's snapshot length"),
            Skipped::Malformed => f.write_str("malformed"),
            Skipped::NoTime => f.write_str("without a time"),
        }
    }
}

const ETHERNET: u16 = 1;
const NULL: u16 = 0;
const LOOPBACK: u16 = 108;
/// 12 and 14 are what some systems wrote before LINKTYPE_RAW was 101.
const RAW: [u16; 3] = [12, 14, 101];
const LINUX_COOKED: u16 = 113;
const LINUX_COOKED_2: u16 = 276;
const IPV4: u16 = 228;
const IPV6: u16 = 229;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and what came before that was agreed.
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// AF_INET is 2 everywhere; AF_INET6 is whatever the capturing system has: Linux 10, NetBSD 24, FreeBSD 28, macOS 30.
const FAMILY_IPV4: u32 = 2;
const FAMILIES_IPV6: [u32; 4] = [10, 24, 28, 30];
const PROTOCOL_UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;

/// The datagram of a frame.
pub fn datagram(link: u16, frame: &[u8]) -> Result<Datagram<'_>, Skipped> {
    match link {
        ETHERNET => by_ethertype(frame, 12),
        LINUX_COOKED => by_ethertype(frame, 14),
        LINUX_COOKED_2 => {
            let kind = u16_at(frame, 0)?;
            ip_of(kind, frame.get(20..).ok_or(Skipped::Cut)?)
        }
        NULL | LOOPBACK => {
            let family: [u8; 4] = *frame.first_chunk().ok_or(Skipped::Cut)?;
            let packet = &frame[4..];
            // In the byte order of the machine that captured.
            let is = |wanted: u32| family == wanted.to_be_bytes() || family == wanted.to_le_bytes();
            match () {
                () if is(FAMILY_IPV4) => ipv4(packet),
                () if FAMILIES_IPV6.into_iter().any(is) => ipv6(packet),
                () => Err(Skipped::NotUdp),
            }
        }
        IPV4 => ipv4(frame),
        IPV6 => ipv6(frame),
        raw if RAW.contains(&raw) => match frame.first().ok_or(Skipped::Cut)? >> 4 {
            4 => ipv4(frame),
            6 => ipv6(frame),
            _ => Err(Skipped::NotUdp),
        },
        other => Err(Skipped::Link(other)),
    }
}

/// An Ethernet type at `at`, VLAN tags behind it, then the packet.
fn by_ethertype(frame: &[u8], mut at: usize) -> Result<Datagram<'_>, Skipped> {
    let mut kind = u16_at(frame, at)?;
    while ETHERTYPES_VLAN.contains(&kind) {
        at += 4;
        kind = u16_at(frame, at)?;
    }
    ip_of(kind, frame.get(at + 2..).ok_or(Skipped::Cut)?)
}

fn ip_of(ethertype: u16, packet: &[u8]) -> Result<Datagram<'_>, Skipped> {
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet),
        ETHERTYPE_IPV6 => ipv6(packet),
        _ => Err(Skipped::NotUdp),
    }
}

fn ipv4(packet: &[u8]) -> Result<Datagram<'_>, Skipped> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(Skipped::Cut)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_bytes < 20 {
        return Err(Skipped::Malformed);
    }
    if header[9] != PROTOCOL_UDP {
        return Err(Skipped::NotUdp);
    }
    let more_fragments_or_offset = 0x3fff;
    if u16_at(packet, 6)? & more_fragments_or_offset != 0 {
        return Err(Skipped::Fragment);
    }
    // 0: a captured batch that the card would have cut (segmentation offload); then all that is there counts.
    let body_bytes = match usize::from(u16_at(packet, 2)?) {
        0 => packet.len().saturating_sub(header_bytes),
        total => total.checked_sub(header_bytes).ok_or(Skipped::Malformed)?,
    };
    let address = |at: usize| {
        let bytes: [u8; 4] = *header[at..].first_chunk().expect("within 20 bytes");
        IpAddr::from(Ipv4Addr::from(bytes))
    };
    let body = packet.get(header_bytes..).ok_or(Skipped::Cut)?;
    udp(address(12), address(16), body, body_bytes)
}

fn ipv6(packet: &[u8]) -> Result<Datagram<'_>, Skipped> {
    let header: &[u8; 40] = packet.first_chunk().ok_or(Skipped::Cut)?;
    if header[0] >> 4 != 6 {
        return Err(Skipped::Malformed);
    }
    let (mut next, mut body) = (header[6], &packet[40..]);
    let mut body_bytes = match usize::from(u16_at(packet, 4)?) {
        0 => body.len(), // a jumbogram or a batch, as with IPv4
        total => total,
    };
    loop {
        let skip = match next {
            PROTOCOL_UDP => break,
            // Hop by hop, routing, destination options (RFC 8200 §4).
            0 | 43 | 60 => 8 * (usize::from(*body.get(1).ok_or(Skipped::Cut)?) + 1),
            44 => {
                let offset_or_more = 0xfff9;
                if u16_at(body, 2)? & offset_or_more != 0 {
                    return Err(Skipped::Fragment);
                }
                8
            }
            _ => return Err(Skipped::NotUdp),
        };
        next = body[0];
        body = body.get(skip..).ok_or(Skipped::Cut)?;
        body_bytes = body_bytes.checked_sub(skip).ok_or(Skipped::Malformed)?;
    }
    let address = |at: usize| {
        let bytes: [u8; 16] = *header[at..].first_chunk().expect("within 40 bytes");
        IpAddr::from(Ipv6Addr::from(bytes))
    };
    udp(address(8), address(24), body, body_bytes)
}

/// `body` was captured of a body of `body_bytes`.
fn udp(source: IpAddr, target: IpAddr, body: &[u8], body_bytes: usize) -> Result<Datagram<'_>, Skipped> {
    let (source_port, target_port) = (u16_at(body, 0)?, u16_at(body, 2)?);
    let len = match usize::from(u16_at(body, 4)?) {
        0 => body_bytes,
        len => len,
    };
    if len < UDP_HEADER_BYTES || len > body_bytes {
        return Err(Skipped::Malformed);
    }
    Ok(Datagram {
        source: SocketAddr::new(source, source_port),
        target: SocketAddr::new(target, target_port),
        payload: body.get(UDP_HEADER_BYTES..len).ok_or(Skipped::Cut)?,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Skipped> {
    let two = bytes.get(at..).and_then(<[u8]>::first_chunk);
    two.map(|two| u16::from_be_bytes(*two)).ok_or(Skipped::Cut)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A UDP datagram from port 40,000 in an IPv4 packet.
    pub fn ipv4_packet(target_port: u16, payload: &[u8]) -> Vec<u8> {
        let total = 28 + payload.len() as u16;
        let mut packet = vec![
            0x45,
            0,
            0,
            0,
            0,
            0,
            0x40,
            0,
            64,
            PROTOCOL_UDP,
            0,
            0,
            10,
            0,
            0,
            1,
            10,
            0,
            0,
            2,
        ];
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet.extend(udp_bytes(target_port, payload));
        packet
    }

    fn udp_bytes(target_port: u16, payload: &[u8]) -> Vec<u8> {
        let words = [40_000, target_port, 8 + payload.len() as u16, 0];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend(payload);
        bytes
    }

    fn ipv6_packet(next: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
        packet.extend([0; 15].iter().chain(&[1]));
        packet.extend([0; 15].iter().chain(&[2]));
        packet.extend(body);
        packet
    }

    #[test]
    fn every_kind_of_link_gives_the_datagram() {
        let v4 = ipv4_packet(5004, b"media");
        let v6 = ipv6_packet(PROTOCOL_UDP, &udp_bytes(5004, b"media"));
        let behind = |head: &[u8], packet: &[u8]| [head, packet].concat();
        let ethernet = |tags: &[u8], packet| behind(&[&[0; 12], tags].concat(), packet);
        let cooked = |kind: &[u8]| [&[0; 14], kind].concat();
        let cooked_2 = |kind: &[u8]| [kind, &[0; 18]].concat();
        let frames = [
            (ETHERNET, ethernet(&[8, 0], &v4)),
            (ETHERNET, ethernet(&[0x86, 0xdd], &v6)),
            (ETHERNET, ethernet(&[0x81, 0, 0, 7, 8, 0], &v4)),
            (
                ETHERNET,
                ethernet(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 0x86, 0xdd], &v6),
            ),
            (LINUX_COOKED, behind(&cooked(&[8, 0]), &v4)),
            (LINUX_COOKED, behind(&cooked(&[0x86, 0xdd]), &v6)),
            (LINUX_COOKED_2, behind(&cooked_2(&[8, 0]), &v4)),
            (LINUX_COOKED_2, behind(&cooked_2(&[0x86, 0xdd]), &v6)),
            (NULL, behind(&[2, 0, 0, 0], &v4)),
            (NULL, behind(&[0, 0, 0, 2], &v4)),
            (NULL, behind(&[30, 0, 0, 0], &v6)),
            (LOOPBACK, behind(&[0, 0, 0, 24], &v6)),
            (101, v4.clone()),
            (101, v6.clone()),
            (IPV4, v4.clone()),
            (IPV6, v6.clone()),
        ];
        for (link, mut frame) in frames {
            // Frames below 60 bytes are padded on the wire.
            frame.extend([0; 6]);
            let found = datagram(link, &frame);
            assert_eq!(found.map(|found| found.payload), Ok(&b"media"[..]), "link {link}");
            assert_eq!(found.map(|found| found.target.port()), Ok(5004), "link {link}");
            for end in 0..frame.len() - 6 {
                assert!(
                    datagram(link, &frame[..end]).is_err(),
                    "link {link} cut to {end} bytes"
                );
            }
        }
        let found = datagram(IPV6, &v6).expect("a datagram");
        assert_eq!(
            (found.source.to_string(), found.target.to_string()),
            ("[::1]:40000".into(), "[::2]:5004".into())
        );
    }

    #[test]
    fn headers_between_ipv6_and_udp_are_gone_through() {
        let options = [&[PROTOCOL_UDP, 1][..], &[0; 14], &udp_bytes(6000, b"x")].concat();
        let found = datagram(IPV6, &ipv6_packet(60, &options)).map(|found| found.target.port());
        assert_eq!(found, Ok(6000));
        let whole = [&[PROTOCOL_UDP, 0, 0, 0, 0, 0, 0, 9][..], &udp_bytes(6000, b"x")].concat();
        let mut part = whole.clone();
        assert!(datagram(IPV6, &ipv6_packet(44, &whole)).is_ok());
        part[3] = 1; // more fragments
        assert_eq!(datagram(IPV6, &ipv6_packet(44, &part)), Err(Skipped::Fragment));
    }

    #[test]
    fn what_is_no_whole_datagram_says_why() {
        let good = ipv4_packet(5004, b"media");
        let with = |at: usize, value: u8| {
            let mut bad = good.clone();
            bad[at] = value;
            datagram(IPV4, &bad).map(|found| found.payload.len())
        };
        assert_eq!(with(9, 6), Err(Skipped::NotUdp));
        assert_eq!(with(6, 0x20), Err(Skipped::Fragment));
        assert_eq!(with(7, 1), Err(Skipped::Fragment));
        assert_eq!(with(0, 0x44), Err(Skipped::Malformed));
        assert_eq!(with(0, 0x65), Err(Skipped::Malformed));
        assert_eq!(
            with(25, 200),
            Err(Skipped::Malformed),
            "a UDP length beyond the packet's"
        );
        assert_eq!(
            with(25, 7),
            Err(Skipped::Malformed),
            "a UDP length below its header's"
        );
        assert_eq!(
            with(3, 0),
            Ok(5),
            "segmentation offload leaves the total length empty"
        );
        assert_eq!(datagram(IPV4, &good[..30]), Err(Skipped::Cut));
        assert_eq!(datagram(105, &good), Err(Skipped::Link(105)));
        assert_eq!(
            datagram(ETHERNET, &[&[0; 12][..], &[8, 6], &good].concat()),
            Err(Skipped::NotUdp)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_frame_panics(
            link in prop_oneof![0u16..300, Just(1), Just(113), Just(276), Just(101)],
            mut frame in proptest::collection::vec(any::<u8>(), 0..120), start in 0usize..4,
        ) {
            let head: &[u8] = match start {
                0 => &[0x45],
                1 => &[0x60, 0, 0, 0, 0, 60, 60, 1],
                2 => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 1, 8, 0, 0x46],
                _ => &[],
            };
            frame.splice(0..0, head.iter().copied());
            let _ = datagram(link, &frame); // a datagram or a reason, and no panic
        }
    }
}
