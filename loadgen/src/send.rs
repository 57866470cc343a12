//! Datagrams onto the wire: batches, sockets, and an exact answer for each message whether it left.
//!
//! One `sendmmsg` carries up to 32 messages, and with `UDP_SEGMENT` (Linux 4.18) each message is a whole burst that the
//! kernel cuts into packets of [`PACKET_BYTES`]: a burst costs little more than one packet. The size is a socket option
//! here, not a control message, because every burst has the same one: no control data to build per message.
//!
//! By way of `nix` 0.31: it is the one safe interface with both `sendmmsg` over reused headers and `UDP_SEGMENT`.
//! `rustix` 1.1 has no `sendmmsg`; `socket2` 0.6 no segmentation; `quinn-udp` sends one datagram batch per system call
//! and retries and logs errors in its own way, where this file must say for each message what became of it.

use crate::program::PACKET_BYTES;
use nix::errno::Errno;
use nix::sys::socket::sockopt::UdpGsoSegment;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg, setsockopt};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Messages of one batch, and of one system call: at 1 Gb/s about 1 ms of bursts, so no packet waits long for the last.
const MESSAGES_MAX: usize = 32;
/// Bytes of one batch: the second-level cache keeps them from writing to hashing.
const BATCH_BYTES: usize = 256 * 1024;
/// How often one message is tried again after errors that tell of earlier datagrams or of nothing.
const TRIES: usize = 3;
/// Ephemeral pairs tried for an RTCP source port next to the RTP port (RFC 3550 §11).
const PORT_PAIRS: usize = 16;

/// What a message is, so that the sender of the batch knows what to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rtp,
    Rtcp,
}

/// One datagram, or with `UDP_SEGMENT` one burst.
pub struct Message {
    pub camera: u32,
    pub kind: Kind,
    pub due_ns: u64,
    socket: usize,
    bytes: Range<usize>,
}

/// Messages on their way to the kernel; their bytes stand in one buffer that never grows.
pub struct Batch {
    bytes: Box<[u8]>,
    used: usize,
    messages: Vec<Message>,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch {
            bytes: vec![0; BATCH_BYTES].into_boxed_slice(),
            used: 0,
            messages: Vec::with_capacity(MESSAGES_MAX),
        }
    }
}

impl Batch {
    pub fn clear(&mut self) {
        self.used = 0;
        self.messages.clear();
    }

    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Whether `messages` more messages of `bytes` in all fit.
    pub fn has_room(&self, messages: usize, bytes: usize) -> bool {
        self.messages.len() + messages <= MESSAGES_MAX && self.used + bytes <= self.bytes.len()
    }

    /// Room for the next message's bytes; it is part of the batch from here on.
    pub fn add(&mut self, camera: u32, kind: Kind, socket: usize, due_ns: u64, len: usize) -> &mut [u8] {
        let bytes = self.used..self.used + len;
        self.used = bytes.end;
        self.messages.push(Message {
            camera,
            kind,
            due_ns,
            socket,
            bytes: bytes.clone(),
        });
        &mut self.bytes[bytes]
    }

    pub fn bytes(&self, message: &Message) -> &[u8] {
        &self.bytes[message.bytes.clone()]
    }

    /// The packets of a message: segments of [`PACKET_BYTES`], the last one what is left.
    pub fn packets(&self, message: &Message) -> impl Iterator<Item = &[u8]> {
        self.bytes(message).chunks(PACKET_BYTES)
    }
}

/// How messages reach the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Method {
    /// A burst in one message, which the kernel cuts (`UDP_SEGMENT`).
    #[default]
    Gso,
    /// Each packet a message of its own, many in one call.
    Sendmmsg,
    /// As `Gso`, by way of an io_uring.
    #[value(name = "io_uring")]
    IoUring,
}

impl Method {
    /// As `--send` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Gso => "gso",
            Method::Sendmmsg => "sendmmsg",
            Method::IoUring => "io_uring",
        }
    }
}

/// Where RTCP goes (RFC 3550 §11, RFC 5761).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Rtcp {
    /// To the RTP port.
    Same,
    /// To the port above it.
    Next,
    /// No sender reports.
    Off,
}

/// What went wrong on the way, by errno, in messages; and refusals, which are no failures of the message they are told on.
#[derive(Debug, Default, Clone)]
pub struct SendErrors {
    /// ICMP port unreachable came back: nobody listened at the time.
    pub refused: u64,
    /// Messages that did not leave, by the kernel's reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// The route does not take segmentation offload; it was switched off.
    pub gso_refused: bool,
}

/// The fleet's sockets, each connected to one target.
pub struct Sender {
    rtp: Vec<UdpSocket>,
    rtcp: Vec<UdpSocket>,
    gso: bool,
    headers: MultiHeaders<()>,
    pub errors: SendErrors,
}

impl Sender {
    /// Opens a socket per target (and one for RTCP where it goes to the next port).
    pub fn open(targets: &[SocketAddr], source: Option<IpAddr>, rtcp: Rtcp, gso: bool) -> io::Result<Sender> {
        let mut sender = Sender {
            rtp: Vec::new(),
            rtcp: Vec::new(),
            gso,
            headers: MultiHeaders::preallocate(MESSAGES_MAX, None),
            errors: SendErrors::default(),
        };
        for &target in targets {
            let (rtp, next) = open_pair(target, source, rtcp)?;
            rtp.connect(target)?;
            sender.rtp.push(rtp);
            if let Some(next) = next {
                next.connect(next_port(target)?)?;
                sender.rtcp.push(next);
            }
        }
        sender.gso = gso && sender.set_segment_size(PACKET_BYTES as i32).is_ok();
        Ok(sender)
    }

    /// Whether a message may be a whole burst.
    pub fn gso(&self) -> bool {
        self.gso
    }

    /// The socket for a kind of packet to a target.
    pub fn socket(&self, target: usize, kind: Kind) -> usize {
        match kind {
            Kind::Rtcp if !self.rtcp.is_empty() => self.rtp.len() + target,
            _ => target,
        }
    }

    /// Sends a batch, socket by socket and in order within each, and says in `left` for each message whether the kernel took
    /// it. A stream has one socket for its RTP, so its order holds.
    pub fn send(&mut self, batch: &Batch, left: &mut Vec<bool>) {
        left.clear();
        left.resize(batch.messages.len(), false);
        let mut numbers = [0; MESSAGES_MAX];
        for socket in 0..self.rtp.len() + self.rtcp.len() {
            let mut count = 0;
            for (number, message) in batch.messages.iter().enumerate() {
                if message.socket == socket {
                    numbers[count] = number;
                    count += 1;
                }
            }
            self.send_from(socket, batch, &numbers[..count], left);
        }
    }

    /// The messages of these numbers. `sendmmsg` stops at the first that fails and tells why on the next call.
    fn send_from(&mut self, socket: usize, batch: &Batch, numbers: &[usize], left: &mut [bool]) {
        let fd = self.fd(socket);
        let (mut at, mut tries) = (0, 0);
        while at < numbers.len() {
            let rest = &numbers[at..];
            let mut slices = [[IoSlice::new(&[])]; MESSAGES_MAX];
            for (slice, number) in slices.iter_mut().zip(rest) {
                slice[0] = IoSlice::new(batch.bytes(&batch.messages[*number]));
            }
            let result = sendmmsg(
                fd,
                &mut self.headers,
                &slices[..rest.len()],
                [None::<()>; MESSAGES_MAX],
                [],
                MsgFlags::empty(),
            );
            match result.map(Iterator::count) {
                Ok(sent) => {
                    rest[..sent].iter().for_each(|number| left[*number] = true);
                    at += sent;
                    tries = 0;
                }
                Err(errno) => {
                    tries += 1;
                    if !self.try_again(errno, slices[0][0].len()) || tries == TRIES {
                        *self.errors.failed.entry(errno_name(errno)).or_default() += 1;
                        at += 1;
                        tries = 0;
                    }
                }
            }
        }
    }

    /// Whether the message that met this error should be sent again.
    fn try_again(&mut self, errno: Errno, len: usize) -> bool {
        match errno {
            // Told instead of sending, but about an earlier datagram (udp(7)).
            Errno::ECONNREFUSED => {
                self.errors.refused += 1;
                true
            }
            Errno::EINTR => true,
            // The route's device has no checksum offload, or its MTU is below our packets: the kernel refuses to segment.
            Errno::EIO | Errno::EINVAL if self.gso && len > PACKET_BYTES => {
                self.gso = false;
                self.errors.gso_refused = true;
                false
            }
            _ => false,
        }
    }

    fn fd(&self, socket: usize) -> i32 {
        let socket = self.rtp.iter().chain(&self.rtcp).nth(socket);
        socket
            .expect("socket numbers come from Sender::socket")
            .as_raw_fd()
    }

    fn set_segment_size(&self, bytes: i32) -> nix::Result<()> {
        self.rtp
            .iter()
            .try_for_each(|socket| setsockopt(socket, UdpGsoSegment, &bytes))
    }
}

fn errno_name(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOBUFS => "ENOBUFS",
        Errno::EAGAIN => "EAGAIN",
        Errno::EPERM => "EPERM",
        Errno::EACCES => "EACCES",
        Errno::EMSGSIZE => "EMSGSIZE",
        Errno::ENETUNREACH => "ENETUNREACH",
        Errno::EHOSTUNREACH => "EHOSTUNREACH",
        Errno::ECONNREFUSED => "ECONNREFUSED",
        Errno::EIO | Errno::EINVAL => "segmentation refused",
        _ => errno.desc(),
    }
}

fn next_port(target: SocketAddr) -> io::Result<SocketAddr> {
    let port = target.port().checked_add(1);
    let port = port.ok_or_else(|| io::Error::other(format!("there is no port above {target} for RTCP")))?;
    Ok(SocketAddr::new(target.ip(), port))
}

/// A source socket, and where RTCP has its own, one on the next port if a pair can be had: receivers may know a camera's
/// RTCP by that.
fn open_pair(
    target: SocketAddr,
    source: Option<IpAddr>,
    rtcp: Rtcp,
) -> io::Result<(UdpSocket, Option<UdpSocket>)> {
    let any = if target.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let source = source.unwrap_or(any);
    if rtcp != Rtcp::Next {
        return Ok((UdpSocket::bind((source, 0))?, None));
    }
    for _ in 0..PORT_PAIRS {
        let rtp = UdpSocket::bind((source, 0))?;
        let next = rtp.local_addr()?.port().checked_add(1);
        if let Some(Ok(rtcp)) = next.map(|port| UdpSocket::bind((source, port))) {
            return Ok((rtp, Some(rtcp)));
        }
    }
    Ok((UdpSocket::bind((source, 0))?, Some(UdpSocket::bind((source, 0))?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn receiver() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout above zero");
        socket
    }

    fn receive(socket: &UdpSocket) -> Vec<u8> {
        let mut bytes = [0; 2048];
        let len = socket.recv(&mut bytes).expect("a datagram within five seconds");
        bytes[..len].to_vec()
    }

    #[test]
    fn a_burst_arrives_as_its_packets_with_and_without_segmentation() {
        for gso in [true, false] {
            let socket = receiver();
            let target = socket.local_addr().expect("bound");
            let mut sender = Sender::open(&[target], None, Rtcp::Same, gso).expect("loopback");
            let mut batch = Batch::default();
            let body: Vec<u8> = (0..2 * PACKET_BYTES + 100).map(|at| (at / 7) as u8).collect();
            let packets: Vec<&[u8]> = body.chunks(PACKET_BYTES).collect();
            if sender.gso() {
                batch.add(0, Kind::Rtp, 0, 0, body.len()).copy_from_slice(&body);
            } else {
                for packet in &packets {
                    batch
                        .add(0, Kind::Rtp, 0, 0, packet.len())
                        .copy_from_slice(packet);
                }
            }
            let mut left = Vec::new();
            sender.send(&batch, &mut left);
            assert!(left.iter().all(|&left| left), "{:?}", sender.errors);
            for packet in packets {
                assert!(receive(&socket) == packet);
            }
        }
    }

    #[test]
    fn rtcp_on_the_next_port_arrives_there() {
        let (rtp, rtcp) = loop {
            let rtp = receiver();
            let next = next_port(rtp.local_addr().expect("bound")).expect("not the last port");
            if let Ok(rtcp) = UdpSocket::bind(next) {
                rtcp.set_read_timeout(Some(Duration::from_secs(5)))
                    .expect("a timeout above zero");
                break (rtp, rtcp);
            }
        };
        let target = rtp.local_addr().expect("bound");
        let mut sender = Sender::open(&[target], None, Rtcp::Next, true).expect("loopback");
        let mut batch = Batch::default();
        for (kind, text) in [(Kind::Rtp, b"media"), (Kind::Rtcp, b"clock")] {
            let socket = sender.socket(0, kind);
            batch.add(0, kind, socket, 0, 5).copy_from_slice(text);
        }
        sender.send(&batch, &mut Vec::new());
        assert_eq!(receive(&rtp), b"media");
        assert_eq!(receive(&rtcp), b"clock");
    }

    #[test]
    fn targets_take_turns_in_a_batch_and_each_message_gets_its_own_answer() {
        let sockets = [receiver(), receiver()];
        let targets = sockets
            .each_ref()
            .map(|socket| socket.local_addr().expect("bound"));
        let mut sender = Sender::open(&targets, None, Rtcp::Same, false).expect("loopback");
        let mut batch = Batch::default();
        for number in 0..6u8 {
            let len = if number == 3 { 65_600 } else { 4 }; // one is more than UDP can carry
            let socket = sender.socket(usize::from(number) % 2, Kind::Rtp);
            batch.add(0, Kind::Rtp, socket, 0, len).fill(number);
        }
        let mut left = Vec::new();
        sender.send(&batch, &mut left);
        assert_eq!(left, [true, true, true, false, true, true]);
        let first: Vec<u8> = (0..3).map(|_| receive(&sockets[0])[0]).collect();
        let second: Vec<u8> = (0..2).map(|_| receive(&sockets[1])[0]).collect();
        assert_eq!((first, second), (vec![0, 2, 4], vec![1, 5]));
    }

    #[test]
    fn a_refusal_is_counted_and_costs_no_message() {
        let closed = receiver().local_addr().expect("bound"); // the socket is gone when the statement ends
        let mut sender = Sender::open(&[closed], None, Rtcp::Same, true).expect("loopback");
        let mut batch = Batch::default();
        for _ in 0..4 {
            batch.add(0, Kind::Rtp, 0, 0, 8).fill(1);
        }
        let mut left = Vec::new();
        for _ in 0..3 {
            sender.send(&batch, &mut left);
            assert_eq!(left, [true; 4]);
        }
        assert!(sender.errors.refused > 0);
        assert!(sender.errors.failed.is_empty());
    }

    #[test]
    fn a_message_the_kernel_does_not_take_is_said_not_to_have_left() {
        let socket = receiver();
        let target = socket.local_addr().expect("bound");
        let mut sender = Sender::open(&[target], None, Rtcp::Same, false).expect("loopback");
        let mut batch = Batch::default();
        batch.add(0, Kind::Rtp, 0, 0, 4).fill(1);
        batch.add(0, Kind::Rtp, 0, 0, 65_600).fill(2); // more than UDP can carry
        batch.add(0, Kind::Rtp, 0, 0, 4).fill(3);
        let mut left = Vec::new();
        sender.send(&batch, &mut left);
        assert_eq!(left, [true, false, true]);
        assert_eq!(sender.errors.failed.get("EMSGSIZE"), Some(&1));
        assert_eq!((receive(&socket), receive(&socket)), (vec![1; 4], vec![3; 4]));
    }
}
