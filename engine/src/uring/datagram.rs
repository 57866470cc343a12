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
fn gro_size(body: &[u8], data_len: usize) -> u16 {
    match u32_at(body, 0).and_then(|size| u16::try_from(size).ok()) {
        Some(size) if usize::from(size) < data_len => size,
        _ => 0,
    }
}

fn timestamp_ns(body: &[u8]) -> Option<u64> {
    let seconds = u64_at(body, 0)?;
    let nanos = u64_at(body, 8)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

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

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
