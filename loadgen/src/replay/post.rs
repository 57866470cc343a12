//! Single datagrams of any length onto the wire, many to a system call, with an exact answer for each whether it left.
//!
//! A fleet's batches are bursts of equal packets; a replay's are not, so that there is nothing to segment.

use crate::send::Rtcp;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

const MESSAGES_MAX: usize = 32;
const BATCH_BYTES: usize = 256 * 1024;
/// How often one message is tried again after errors that tell of earlier datagrams or of nothing.
const TRIES: usize = 3;

/// One datagram of a batch.
#[derive(Debug, Clone)]
pub struct Message {
    /// The part of the score, and the packet's number in its lane.
    pub part: u32,
    pub number: u64,
    pub rtcp: bool,
    pub due_ns: u64,
    socket: usize,
    bytes: Range<usize>,
}

/// What went wrong, in messages; and refusals, which are no failures of the message they are told on.
#[derive(Debug, Default, Clone)]
pub struct PostErrors {
    /// ICMP port unreachable came back: nobody listened at the time.
    pub refused: u64,
    /// Messages that did not leave, by the kernel's reason.
    pub failed: BTreeMap<&'static str, u64>,
}

/// Datagrams on their way to the kernel, and the sockets they leave from, each connected to one target.
pub struct Post {
    rtp: Vec<UdpSocket>,
    rtcp: Vec<UdpSocket>,
    headers: MultiHeaders<()>,
    bytes: Vec<u8>,
    messages: Vec<Message>,
    left: Vec<bool>,
    pub errors: PostErrors,
}

impl Post {
    /// Opens a socket per target, and where RTCP goes to the next port another.
    pub fn open(targets: &[SocketAddr], source: Option<IpAddr>, rtcp: Rtcp) -> io::Result<Post> {
        let open = |target: SocketAddr| {
            let any = match target {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let socket = UdpSocket::bind((source.unwrap_or(any), 0))?;
            socket.connect(target)?;
            Ok(socket)
        };
        let next = |target: &SocketAddr| match target.port().checked_add(1) {
            Some(port) => open(SocketAddr::new(target.ip(), port)),
            None => Err(io::Error::other(format!(
                "there is no port above {target} for RTCP"
            ))),
        };
        let reports = if rtcp == Rtcp::Next { targets } else { &[] };
        Ok(Post {
            rtp: targets.iter().copied().map(open).collect::<io::Result<_>>()?,
            rtcp: reports.iter().map(next).collect::<io::Result<_>>()?,
            headers: MultiHeaders::preallocate(MESSAGES_MAX, None),
            bytes: Vec::with_capacity(BATCH_BYTES),
            messages: Vec::with_capacity(MESSAGES_MAX),
            left: Vec::with_capacity(MESSAGES_MAX),
            errors: PostErrors::default(),
        })
    }

    pub fn has_room(&self) -> bool {
        self.messages.len() < MESSAGES_MAX && self.bytes.len() < BATCH_BYTES
    }

    /// Puts a datagram to a target into the batch.
    pub fn add(&mut self, part: u32, number: u64, rtcp: bool, due_ns: u64, target: usize, bytes: &[u8]) {
        let beside = rtcp && !self.rtcp.is_empty();
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.messages.push(Message {
            part,
            number,
            rtcp,
            due_ns,
            socket: if beside { self.rtp.len() + target } else { target },
            bytes: begin..self.bytes.len(),
        });
    }

    /// Sends the batch, socket by socket and in order within each.
    pub fn send(&mut self) {
        self.left.clear();
        self.left.resize(self.messages.len(), false);
        for socket in 0..self.rtp.len() + self.rtcp.len() {
            let numbers = (0..self.messages.len()).filter(|&at| self.messages[at].socket == socket);
            let numbers: Vec<usize> = numbers.collect();
            self.send_from(socket, &numbers);
        }
    }

    /// The messages of the batch that was sent, their bytes, and whether the kernel took them.
    pub fn answers(&self) -> impl Iterator<Item = (&Message, &[u8], bool)> {
        let bytes = |message: &Message| &self.bytes[message.bytes.clone()];
        let messages = self.messages.iter().zip(&self.left);
        messages.map(move |(message, &left)| (message, bytes(message), left))
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
        self.left.clear();
    }

    /// `sendmmsg` stops at the first message that fails and tells why on the next call.
    fn send_from(&mut self, socket: usize, numbers: &[usize]) {
        let fd = self.rtp.iter().chain(&self.rtcp).nth(socket);
        let fd = fd.expect("messages name sockets that there are").as_raw_fd();
        let (mut at, mut tries) = (0, 0);
        while at < numbers.len() {
            let rest = &numbers[at..];
            let mut slices = [[IoSlice::new(&[])]; MESSAGES_MAX];
            for (slice, number) in slices.iter_mut().zip(rest) {
                slice[0] = IoSlice::new(&self.bytes[self.messages[*number].bytes.clone()]);
            }
            let slices = &slices[..rest.len()];
            let sent = sendmmsg(
                fd,
                &mut self.headers,
                slices,
                [None::<()>; MESSAGES_MAX],
                [],
                MsgFlags::empty(),
            );
            match sent.map(Iterator::count) {
                Ok(sent) => {
                    rest[..sent].iter().for_each(|number| self.left[*number] = true);
                    at += sent;
                    tries = 0;
                }
                Err(errno) => {
                    tries += 1;
                    // A refusal is about an earlier datagram (udp(7)).
                    self.errors.refused += u64::from(errno == Errno::ECONNREFUSED);
                    let again = matches!(errno, Errno::ECONNREFUSED | Errno::EINTR);
                    if !again || tries == TRIES {
                        *self.errors.failed.entry(errno.desc()).or_default() += 1;
                        at += 1;
                        tries = 0;
                    }
                }
            }
        }
    }
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

    #[test]
    fn targets_take_turns_in_a_batch_and_each_message_gets_its_own_answer() {
        let sockets = [receiver(), receiver()];
        let targets = sockets
            .each_ref()
            .map(|socket| socket.local_addr().expect("bound"));
        let mut post = Post::open(&targets, None, Rtcp::Same).expect("loopback");
        for number in 0..6u8 {
            let len = if number == 3 { 65_600 } else { 4 }; // one is more than UDP can carry
            post.add(
                0,
                u64::from(number),
                false,
                0,
                usize::from(number) % 2,
                &vec![number; len],
            );
        }
        post.send();
        let left: Vec<bool> = post.answers().map(|(_, _, left)| left).collect();
        assert_eq!(left, [true, true, true, false, true, true]);
        assert_eq!(post.errors.failed.values().sum::<u64>(), 1);
        let receive = |socket: &UdpSocket| {
            let mut bytes = [0; 16];
            socket.recv(&mut bytes).expect("a datagram within five seconds");
            bytes[0]
        };
        let first: Vec<u8> = (0..3).map(|_| receive(&sockets[0])).collect();
        let second: Vec<u8> = (0..2).map(|_| receive(&sockets[1])).collect();
        assert_eq!((first, second), (vec![0, 2, 4], vec![1, 5]));
    }

    #[test]
    fn a_refusal_is_counted_and_costs_no_message() {
        let closed = receiver().local_addr().expect("bound"); // the socket is gone when the statement ends
        let mut post = Post::open(&[closed], None, Rtcp::Same).expect("loopback");
        for _ in 0..3 {
            post.clear();
            (0..4).for_each(|number| post.add(0, number, false, 0, 0, b"rtp"));
            post.send();
            assert!(post.answers().all(|(_, _, left)| left));
        }
        assert!(post.errors.refused > 0);
    }
}
