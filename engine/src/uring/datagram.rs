//! What a completed multishot `recvmsg` left in its buffer, parsed without trusting any of it.
//!
//! ```text
//! 0            16                48                      128              res
//! ├─ out header ┼─ source address ─┼─ control messages ─────┼─ payload ──────┤
//! │ 4 × u32     │ NAME_BYTES       │ CONTROL_BYTES          │                │
//! ```
//! The two middle fields have a fixed size, whatever was filled in. Under an incremental buffer ring the whole
//! may begin at any address, so everything is read bytewise.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Room for the source: `sockaddr_in6` is 28 bytes.
pub(super) const NAME_BYTES: usize = 32;
/// Room for the control messages asked for, each padded to 8: UDP_GRO 24, timestamp 32, drop counter 24.
pub(super) const CONTROL_BYTES: usize = 80;
const OUT_BYTES: usize = 16;
/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = OUT_BYTES + NAME_BYTES + CONTROL_BYTES;
/// The largest UDP payload a socket can return, GRO batches included: both are bounded by the 16-bit
/// lengths of IP and UDP (`GRO_LEGACY_MAX_SIZE`).
pub(super) const PAYLOAD_MAX_BYTES: usize = 65_536;

const _: () = assert!(HEADER_BYTES == 128);
const _: () = assert!(NAME_BYTES >= size_of::<libc::sockaddr_in6>());

/// One datagram, or one GRO batch of equally long datagrams (the last may be shorter) of one sender.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Index of the socket, as given by `Ring::add_socket`.
    pub socket: u16,
    /// The sender; an IPv4-mapped IPv6 address is given as IPv4.
    pub from: SocketAddr,
    /// CLOCK_REALTIME when the kernel took it from the device; of a batch, its first packet.
    pub arrival_ns: u64,
    /// Payload bytes of each packet in a GRO batch; 0 when `data` is a single datagram.
    pub gro_size: u16,
    /// The kernel's drop counter of this socket when this arrived. Counts batches, not packets.
    pub rxq_ovfl: u32,
    /// The kernel cut payload or control messages: do not trust the tail of it, nor `gro_size`.
    pub truncated: bool,
    pub data: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The packets of it, in order; a single empty one for an empty datagram.
    pub fn packets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let data = self.data;
        let size = if self.gro_size == 0 {
            data.len().max(1)
        } else {
            self.gro_size as usize
        };
        let empty = data.is_empty().then_some(data);
        empty.into_iter().chain(data.chunks(size))
    }
}

/// The parts of a received buffer; what depends on the socket is added by the ring.
pub(super) struct Parsed<'a> {
    pub from: SocketAddr,
    pub arrival_ns: Option<u64>,
    pub gro_size: u16,
    pub drops: Option<u32>,
    pub truncated: bool,
    pub data: &'a [u8],
}

/// Parses one completion's bytes; `None` if they are not what this kernel interface writes.
#[inline(always)]
pub(super) fn parse(raw: &[u8]) -> Option<Parsed<'_>> {
    let (header, data) = raw.split_at_checked(HEADER_BYTES)?;
    let name_len = u32_at(header, 0)? as usize;
    let control_len = (u32_at(header, 4)? as usize).min(CONTROL_BYTES);
    let flags = u32_at(header, 12)? as i32;
    let name = &header[OUT_BYTES..][..name_len.min(NAME_BYTES)];
    let control = &header[OUT_BYTES + NAME_BYTES..][..control_len];

    let mut parsed = Parsed {
        from: source(name)?,
        arrival_ns: None,
        gro_size: 0,
        drops: None,
        truncated: flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        data,
    };
    for (level, kind, body) in ControlMessages(control) {
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => parsed.gro_size = gro_size(body, data.len()),
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => parsed.arrival_ns = timestamp_ns(body),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => parsed.drops = u32_at(body, 0),
            _ => {}
        }
    }
    Some(parsed)
}

/// A batch of one is a single datagram: 0.
#[inline(always)]
fn gro_size(body: &[u8], data_len: usize) -> u16 {
    match u32_at(body, 0).and_then(|size| u16::try_from(size).ok()) {
        Some(size) if usize::from(size) < data_len => size,
        _ => 0,
    }
}

#[inline(always)]
fn timestamp_ns(body: &[u8]) -> Option<u64> {
    let seconds = u64_at(body, 0)?;
    let nanos = u64_at(body, 8)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[inline(always)]
fn source(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(name.get(0..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => {
            let octets: [u8; 4] = name.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::from(octets), port))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = name.get(8..24)?.try_into().ok()?;
            let address = Ipv6Addr::from(octets);
            Some(match address.to_ipv4_mapped() {
                Some(v4) => SocketAddr::new(v4.into(), port),
                None => std::net::SocketAddrV6::new(address, port, 0, u32_at(name, 24)?).into(),
            })
        }
        _ => None,
    }
}

/// Walks `cmsghdr`s (`{len usize, level i32, type i32}`, data, padding to 8) and stops at anything odd.
struct ControlMessages<'a>(&'a [u8]);

impl<'a> Iterator for ControlMessages<'a> {
    type Item = (i32, i32, &'a [u8]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        const CMSG_HEADER_BYTES: usize = 16;
        let len = usize::try_from(u64_at(self.0, 0)?).ok()?;
        let level = u32_at(self.0, 8)? as i32;
        let kind = u32_at(self.0, 12)? as i32;
        let body = self.0.get(CMSG_HEADER_BYTES..len)?;
        self.0 = self.0.get(len.checked_next_multiple_of(8)?..).unwrap_or(&[]);
        Some((level, kind, body))
    }
}

// cmsghdr's length is a size_t; this room reads it as eight bytes.
const _: () = assert!(size_of::<libc::cmsghdr>() == 16 && size_of::<usize>() == 8);

#[inline(always)]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[inline(always)]
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(level: i32, kind: i32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + body.len() as u64).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn raw(name: &[u8], control: &[u8], flags: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((name.len() as u32).to_ne_bytes());
        bytes.extend((control.len() as u32).to_ne_bytes());
        bytes.extend((data.len() as u32).to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(name);
        bytes.resize(OUT_BYTES + NAME_BYTES, 0);
        bytes.extend(control);
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(data);
        bytes
    }

    fn v4_name() -> Vec<u8> {
        let mut name = (libc::AF_INET as u16).to_ne_bytes().to_vec();
        name.extend(5004u16.to_be_bytes());
        name.extend([192, 0, 2, 7]);
        name.resize(16, 0);
        name
    }

    fn v6_name(address: Ipv6Addr, scope: u32) -> Vec<u8> {
        let mut name = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
        name.extend(5004u16.to_be_bytes());
        name.extend([0; 4]);
        name.extend(address.octets());
        name.extend(scope.to_ne_bytes());
        name
    }

    #[test]
    fn a_batch_with_all_control_messages_is_understood() {
        let mut messages = control(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9u32.to_ne_bytes());
        let stamp = [3u64.to_ne_bytes(), 5u64.to_ne_bytes()].concat();
        messages.extend(control(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &stamp));
        messages.extend(control(libc::SOL_UDP, libc::UDP_GRO, &4i32.to_ne_bytes()));
        assert_eq!(messages.len(), CONTROL_BYTES);
        let bytes = raw(&v4_name(), &messages, 0, b"aaaabbbbcc");
        let parsed = parse(&bytes).unwrap();
        assert_eq!(parsed.from, "192.0.2.7:5004".parse().unwrap());
        assert_eq!((parsed.arrival_ns, parsed.drops), (Some(3_000_000_005), Some(9)));
        assert_eq!(
            (parsed.gro_size, parsed.truncated, parsed.data),
            (4, false, &b"aaaabbbbcc"[..])
        );
    }

    #[test]
    fn addresses_of_both_families_are_understood() {
        let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
        let bytes = raw(&v6_name(link_local, 2), &[], 0, b"");
        assert_eq!(
            parse(&bytes).unwrap().from,
            std::net::SocketAddrV6::new(link_local, 5004, 0, 2).into()
        );
        let bytes = raw(&v6_name("::ffff:192.0.2.7".parse().unwrap(), 0), &[], 0, b"");
        assert_eq!(parse(&bytes).unwrap().from, "192.0.2.7:5004".parse().unwrap());
        assert!(parse(&raw(&[], &[], 0, b"x")).is_none());
        assert!(parse(&raw(&v4_name()[..7], &[], 0, b"x")).is_none());
    }

    #[test]
    fn truncation_of_payload_or_control_is_told() {
        for flag in [libc::MSG_TRUNC, libc::MSG_CTRUNC] {
            assert!(parse(&raw(&v4_name(), &[], flag, b"x")).unwrap().truncated);
        }
    }

    #[test]
    fn a_batch_size_that_cannot_be_is_a_single_datagram() {
        for size in [0i32, -1, 1, 2, 70_000, i32::MAX, i32::MIN] {
            let messages = control(libc::SOL_UDP, libc::UDP_GRO, &size.to_ne_bytes());
            let bytes = raw(&v4_name(), &messages, 0, b"x");
            assert_eq!(parse(&bytes).unwrap().gro_size, 0, "{size}");
        }
    }

    #[test]
    fn no_bytes_whatsoever_make_it_panic() {
        // xorshift: the same bytes every time, and a failure names the round.
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut bytes = vec![0u8; 300];
        for round in 0..20_000 {
            for byte in &mut bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Mostly small values: lengths that nearly fit are the interesting ones.
                *byte = if state & 3 == 0 {
                    (state >> 8) as u8
                } else {
                    (state >> 60) as u8
                };
            }
            let len = round % bytes.len();
            if let Some(parsed) = parse(&bytes[..len]) {
                let datagram = Datagram {
                    socket: 0,
                    from: parsed.from,
                    arrival_ns: 0,
                    gro_size: parsed.gro_size,
                    rxq_ovfl: 0,
                    truncated: parsed.truncated,
                    data: parsed.data,
                };
                assert_eq!(
                    datagram.packets().flatten().count(),
                    parsed.data.len(),
                    "round {round}"
                );
            }
        }
    }
}
