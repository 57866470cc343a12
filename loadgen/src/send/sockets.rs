//! The sockets a fleet sends from, by number. Each is connected to one target: a connected socket needs no address per message, and
//! is told of refusals.

use nix::errno::Errno;
use nix::sys::socket::sockopt::UdpGsoSegment;
use nix::sys::socket::{MsgFlags, setsockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Ephemeral pairs tried for an RTCP source port next to the RTP port (RFC 3550 §11).
const PORT_PAIRS: usize = 16;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot send from {from}: {source}")]
    Bind { from: SocketAddr, source: io::Error },
    #[error("cannot send to {to}: {source}")]
    Connect { to: SocketAddr, source: io::Error },
    #[error("there is no port above {0} for RTCP")]
    NoPortAbove(SocketAddr),
}

/// Where a socket sends from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ends {
    pub from: SocketAddr,
    pub to: SocketAddr,
}

struct Open {
    socket: UdpSocket,
    /// Bytes of a message's packets but its last; `None`: it takes single packets only.
    segment: Option<u16>,
}

/// Sockets by number; a number that was closed is given out again.
#[derive(Default)]
pub struct Sockets {
    open: Vec<Option<Open>>,
    segmenting: bool,
}

impl Sockets {
    /// Whether this kernel cuts messages. (A route may still refuse to.)
    pub fn can_segment() -> bool {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        socket.is_ok_and(|socket| setsockopt(&socket, UdpGsoSegment, &1200).is_ok())
    }

    /// Whether messages are cut from here on, for all sockets.
    pub fn segment(&mut self, on: bool) {
        self.segmenting = on;
        for open in self.open.iter().flatten() {
            set_segment(open, on);
        }
    }

    /// Opens a socket from `from` (port 0: any) to `to`.
    pub fn open(&mut self, ends: Ends, segment: Option<u16>) -> Result<u32, OpenError> {
        let socket = bind(ends.from)?;
        self.add(socket, ends.to, segment)
    }

    /// A pair for RTP and for RTCP on the next port, from a pair of ports too if one can be had: receivers may know a camera's RTCP
    /// by that.
    pub fn open_pair(&mut self, ends: Ends, segment: Option<u16>) -> Result<(u32, u32), OpenError> {
        let Ends { from, to } = ends;
        let to_next = next_port(to)?;
        let mut pair = None;
        for _ in 0..PORT_PAIRS {
            let rtp = bind(from)?;
            let next = rtp.local_addr().ok().and_then(|at| next_port(at).ok());
            match next.map(bind) {
                Some(Ok(rtcp)) => {
                    pair = Some((rtp, rtcp));
                    break;
                }
                _ if from.port() != 0 => break,
                _ => {}
            }
        }
        let (rtp, rtcp) = match pair {
            Some(pair) => pair,
            None if from.port() != 0 => (bind(from)?, bind(next_port(from)?)?),
            None => (bind(from)?, bind(from)?),
        };
        Ok((self.add(rtp, to, segment)?, self.add(rtcp, to_next, None)?))
    }

    /// A second socket to where this one sends, from another port.
    pub fn open_beside(&mut self, number: u32) -> Result<u32, OpenError> {
        let old = self.get(number);
        let error = |source| OpenError::Bind {
            from: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            source,
        };
        let mut from = old.socket.local_addr().map_err(error)?;
        let to = old.socket.peer_addr().map_err(error)?;
        from.set_port(0);
        let segment = old.segment;
        self.open(Ends { from, to }, segment)
    }

    pub fn close(&mut self, number: u32) {
        self.open[number as usize] = None;
    }

    /// What a message on this socket may have: the length of its packets but the last.
    pub fn segment_bytes(&self, number: u32) -> Option<usize> {
        self.get(number).segment.map(usize::from)
    }

    fn add(&mut self, socket: UdpSocket, to: SocketAddr, segment: Option<u16>) -> Result<u32, OpenError> {
        socket
            .connect(to)
            .map_err(|source| OpenError::Connect { to, source })?;
        let open = Open { socket, segment };
        set_segment(&open, self.segmenting);
        let free = self
            .open
            .iter()
            .position(Option::is_none)
            .filter(|_| self.open.len() > 64);
        let number = free.unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[number] = Some(open);
        Ok(number as u32)
    }

    fn get(&self, number: u32) -> &Open {
        let open = self.open.get(number as usize).and_then(Option::as_ref);
        open.expect("socket numbers come from open and are not used behind close")
    }

    pub(super) fn fd(&self, number: u32) -> RawFd {
        self.get(number).socket.as_raw_fd()
    }

    pub(super) fn borrow(&self, number: u32) -> BorrowedFd<'_> {
        self.get(number).socket.as_fd()
    }

    pub(super) fn send(&self, number: u32, bytes: &[u8]) -> Result<(), Errno> {
        nix::sys::socket::send(self.fd(number), bytes, MsgFlags::empty()).map(|_| ())
    }
}

/// Where to send from if nobody says: any address of the target's family.
pub fn any_address(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn set_segment(open: &Open, on: bool) {
    let bytes = i32::from(open.segment.unwrap_or(0));
    // The kernel was asked before whether it can; should this socket refuse, its first burst is refused too, and told.
    let _ = setsockopt(&open.socket, UdpGsoSegment, &if on { bytes } else { 0 });
}

fn bind(from: SocketAddr) -> Result<UdpSocket, OpenError> {
    UdpSocket::bind(from).map_err(|source| OpenError::Bind { from, source })
}

pub(super) fn next_port(address: SocketAddr) -> Result<SocketAddr, OpenError> {
    let port = address.port().checked_add(1);
    let port = port.ok_or(OpenError::NoPortAbove(address))?;
    Ok(SocketAddr::new(address.ip(), port))
}
