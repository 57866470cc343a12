//! Datagrams onto the wire: sockets, calls, and an exact answer for each message whether it left.
//!
//! With `UDP_SEGMENT` (Linux 4.18) a message is a whole burst, which the kernel cuts into packets: a burst costs little more than one
//! packet. The size is a socket option here, not a control message: sockets are per segment size, and there is no control data to
//! build per message. One `sendmmsg`, or one submission to an io_uring, carries up to 32 messages and more.
//!
//! By way of `nix` 0.31: it is the one safe interface with both `sendmmsg` over reused headers and `UDP_SEGMENT`. `rustix` 1.1 has no
//! `sendmmsg`; `socket2` 0.6 no segmentation; `quinn-udp` sends one datagram batch per system call and retries and logs errors in
//! its own way, where this file must say for each message what became of it.

mod batch;
mod sockets;
mod uring;

pub use batch::{Batch, Kind, Message, Note, Way};
pub use sockets::{Ends, OpenError, Sockets, any_address};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use std::collections::BTreeMap;
use std::io::IoSlice;
use uring::{Outgoing, SendRing};

/// Messages of one `sendmmsg`.
const CALL_MESSAGES: usize = 64;
/// How often one message is tried again after errors that tell of earlier datagrams or of nothing.
const TRIES: usize = 3;

/// How messages reach the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Method {
    /// A burst in one message, which the kernel cuts (`UDP_SEGMENT`).
    #[default]
    Gso,
    /// Each packet a message of its own, many in one call.
    Sendmmsg,
    /// As `gso`, by way of an io_uring.
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
    pub failed: BTreeMap<String, u64>,
}

/// System calls made and messages given to them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    pub calls: u64,
    pub messages: u64,
}

/// Sends batches from its sockets.
pub struct Sender {
    pub sockets: Sockets,
    /// Whether a message may be a whole burst.
    gso: bool,
    ring: Option<SendRing>,
    headers: MultiHeaders<()>,
    /// Numbers of the batch's messages in the order in which they are sent.
    order: Vec<u32>,
    results: Vec<i32>,
    pub errors: SendErrors,
    pub calls: Calls,
    /// What was asked for and refused, and what was done instead.
    pub notes: Vec<String>,
}

/// Whether this kernel, and its policy, allow a ring that sends; the error says what does not.
pub fn ring_works() -> std::io::Result<()> {
    SendRing::new().map(drop)
}

impl Sender {
    /// A sender without sockets. What this system refuses of the method is noted, and the next best is taken.
    pub fn new(method: Method) -> Sender {
        let mut sender = Sender {
            sockets: Sockets::default(),
            gso: method != Method::Sendmmsg,
            ring: None,
            headers: MultiHeaders::preallocate(CALL_MESSAGES, None),
            order: Vec::new(),
            results: Vec::new(),
            errors: SendErrors::default(),
            calls: Calls::default(),
            notes: Vec::new(),
        };
        if sender.gso && !Sockets::can_segment() {
            sender.gso = false;
            let note = "this kernel refuses UDP_SEGMENT: each packet is a message of its own";
            sender.notes.push(note.to_owned());
        }
        if method == Method::IoUring {
            match SendRing::new() {
                Ok(ring) => sender.ring = Some(ring),
                Err(error) => sender.notes.push(format!(
                    "io_uring is refused here ({error}): sendmmsg sends instead"
                )),
            }
        }
        sender.sockets.segment(sender.gso);
        sender
    }

    /// What is in use: may be less than was asked for, see [`Sender::notes`].
    pub fn method(&self) -> Method {
        match (self.ring.is_some(), self.gso) {
            (true, _) => Method::IoUring,
            (false, true) => Method::Gso,
            (false, false) => Method::Sendmmsg,
        }
    }

    /// Whether a message may be a whole burst.
    pub fn gso(&self) -> bool {
        self.gso
    }

    /// Sends a batch, socket by socket and in order within each, and says in `left` for each message whether the kernel took
    /// it. A stream has one socket for its RTP at a time, so its order holds.
    pub fn send(&mut self, batch: &Batch, left: &mut Vec<bool>) {
        left.clear();
        left.resize(batch.messages().len(), false);
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        let there = |number: &u32| !batch.messages()[*number as usize].is_empty();
        order.extend((0..batch.messages().len() as u32).filter(there));
        let socket = |number: &u32| batch.messages()[*number as usize].socket;
        if !order.is_sorted_by_key(socket) {
            order.sort_unstable_by_key(|number| (socket(number), *number));
        }
        if self.ring.is_some() {
            self.send_by_ring(batch, &order, left);
        } else {
            for run in order.chunk_by(|a, b| socket(a) == socket(b)) {
                self.send_run(batch, run, left);
            }
        }
        self.order = order;
    }

    /// Numbers of the last batch's messages in the order in which they were handed over.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Messages of one socket. `sendmmsg` stops at the first that fails and tells why on the next call.
    fn send_run(&mut self, batch: &Batch, numbers: &[u32], left: &mut [bool]) {
        let message = |number: u32| &batch.messages()[number as usize];
        let fd = self.sockets.fd(message(numbers[0]).socket);
        let (mut at, mut tries) = (0, 0);
        while at < numbers.len() {
            let rest = &numbers[at..numbers.len().min(at + CALL_MESSAGES)];
            if !self.gso && message(rest[0]).is_segmented() {
                left[rest[0] as usize] = self.send_apart(batch, message(rest[0]));
                at += 1;
                continue;
            }
            let mut slices = [[IoSlice::new(&[])]; CALL_MESSAGES];
            for (slice, number) in slices.iter_mut().zip(rest) {
                slice[0] = IoSlice::new(batch.bytes(message(*number)));
            }
            let result = sendmmsg(
                fd,
                &mut self.headers,
                &slices[..rest.len()],
                [None::<()>; CALL_MESSAGES],
                [],
                MsgFlags::empty(),
            );
            self.calls.calls += 1;
            match result.map(Iterator::count) {
                Ok(sent) => {
                    self.calls.messages += sent as u64;
                    rest[..sent]
                        .iter()
                        .for_each(|number| left[*number as usize] = true);
                    at += sent;
                    tries = 0;
                }
                Err(errno) => {
                    tries += 1;
                    if !self.try_again(errno, message(rest[0])) || tries == TRIES {
                        self.failed(errno);
                        at += 1;
                        tries = 0;
                    }
                }
            }
        }
    }

    /// All messages as one submission, or as few as there are rings' lengths. Those of one socket are linked; what a failed one
    /// cancelled is sent again.
    fn send_by_ring(&mut self, batch: &Batch, order: &[u32], left: &mut [bool]) {
        let mut todo: Vec<u32> = order.to_vec();
        // How often the first of `todo` was tried.
        let mut tries = 0;
        while !todo.is_empty() {
            let now = &todo[..todo.len().min(SendRing::room())];
            let message = |number: u32| &batch.messages()[number as usize];
            let mut outgoing = Vec::with_capacity(now.len());
            for (at, number) in now.iter().enumerate() {
                let next = now.get(at + 1).map(|next| message(*next).socket);
                outgoing.push(Outgoing {
                    socket: self.sockets.borrow(message(*number).socket),
                    bytes: batch.bytes(message(*number)),
                    linked: next == Some(message(*number).socket),
                });
            }
            let ring = self.ring.as_mut().expect("only called with a ring");
            let mut results = std::mem::take(&mut self.results);
            ring.send(&outgoing, &mut results);
            self.calls.calls += 1;
            let (count, first) = (now.len(), now[0]);
            let done: Vec<u32> = todo.drain(..count).collect();
            let mut again = Vec::new();
            tries += 1;
            for (number, result) in done.into_iter().zip(&results) {
                let errno = Errno::from_raw(-result);
                if *result >= 0 {
                    self.calls.messages += 1;
                    left[number as usize] = true;
                } else if errno == Errno::ECANCELED {
                    again.push(number);
                } else if self.try_again(errno, message(number)) && (number != first || tries < TRIES) {
                    if !self.gso && message(number).is_segmented() {
                        left[number as usize] = self.send_apart(batch, message(number));
                    } else {
                        again.push(number);
                    }
                } else {
                    self.failed(errno);
                }
            }
            self.results = results;
            todo.splice(0..0, again);
            if todo.first() != Some(&first) {
                tries = 0;
            }
        }
    }

    /// Sends a burst packet by packet, where the kernel will not cut it. It left if all of them did.
    fn send_apart(&mut self, batch: &Batch, message: &Message) -> bool {
        let mut all = true;
        for datagram in batch.datagrams(message) {
            self.calls.calls += 1;
            self.calls.messages += 1;
            let mut tries = 0;
            while let Err(errno) = self.sockets.send(message.socket, datagram) {
                tries += 1;
                if !self.try_again(errno, message) || tries == TRIES {
                    self.failed(errno);
                    all = false;
                    break;
                }
            }
        }
        all
    }

    fn failed(&mut self, errno: Errno) {
        *self
            .errors
            .failed
            .entry(errno_name(errno).to_owned())
            .or_default() += 1;
    }

    /// Whether the message that met this error should be sent again.
    fn try_again(&mut self, errno: Errno, message: &Message) -> bool {
        match errno {
            // Told instead of sending, but about an earlier datagram (udp(7)).
            Errno::ECONNREFUSED => {
                self.errors.refused += 1;
                true
            }
            Errno::EINTR => true,
            // The route's device has no checksum offload, or its MTU is below our packets: the kernel refuses to segment.
            Errno::EIO | Errno::EINVAL if self.gso && message.is_segmented() => {
                self.gso = false;
                self.sockets.segment(false);
                let why = errno.desc();
                self.notes.push(format!(
                    "the route refuses UDP_SEGMENT ({why}): each packet is a message of its own"
                ));
                true
            }
            _ => false,
        }
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
        Errno::EINVAL => "EINVAL",
        Errno::EIO => "EIO",
        _ => errno.desc(),
    }
}

#[cfg(test)]
mod tests;
