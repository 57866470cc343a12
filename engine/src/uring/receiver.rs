//! What the ring knows of one socket: whether its multishot receive is armed, and what it brought.

use std::net::UdpSocket;

use super::datagram::{CONTROL_BYTES, Datagram, NAME_BYTES, Parsed};
use super::sys;

/// What one socket brought since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Datagrams, a GRO batch counted once.
    pub datagrams: u64,
    pub payload_bytes: u64,
    /// Last value of the kernel's drop counter (batches, with GRO). Drops after the last datagram are not in it:
    /// `socket::socket_memory` asks the kernel.
    pub rxq_ovfl: u32,
    pub armed: bool,
}

pub(super) struct Receiver {
    pub socket: UdpSocket,
    /// A multishot receive is in the kernel, and its last completion was not seen yet.
    pub armed: bool,
    /// A cancellation of it is in the kernel.
    pub cancelling: bool,
    /// Ended with an error that trying at once would only repeat.
    pub failed: bool,
    /// A cancellation did not find it.
    pub lost: bool,
    /// Number of the current receive, so that a late completion of an earlier one is told apart.
    pub generation: u32,
    /// Its socket may hold more than was handed over: it brought something since the last wait, or has not listened ever since.
    pub behind: bool,
    checked: u64,
    counters: SocketCounters,
}

impl Receiver {
    pub(super) fn new(socket: UdpSocket) -> Receiver {
        Receiver {
            socket,
            armed: false,
            cancelling: false,
            failed: false,
            lost: false,
            generation: 0,
            behind: true,
            checked: 0,
            counters: SocketCounters::default(),
        }
    }

    pub(super) fn counters(&self) -> SocketCounters {
        SocketCounters {
            armed: self.armed,
            ..self.counters
        }
    }

    /// Counts a parsed datagram and completes it with what the socket knows.
    #[inline(always)]
    pub(super) fn datagram<'a>(&mut self, socket: u16, parsed: &Parsed<'a>) -> Datagram<'a> {
        self.behind = true;
        self.counters.datagrams += 1;
        self.counters.payload_bytes += parsed.data.len() as u64;
        // The kernel sends the counter only when it is not zero.
        self.counters.rxq_ovfl = parsed.drops.unwrap_or(self.counters.rxq_ovfl);
        Datagram {
            socket,
            from: parsed.from,
            // Stamps were asked for; a packet without one has just arrived.
            arrival_ns: parsed.arrival_ns.unwrap_or_else(sys::realtime_ns),
            gro_size: parsed.gro_size,
            rxq_ovfl: self.counters.rxq_ovfl,
            truncated: parsed.truncated,
            data: parsed.data,
        }
    }

    /// A completion without F_MORE came; `false` if it belongs to a receive given up before.
    pub(super) fn ended(&mut self, generation: u32) -> bool {
        if generation != self.generation {
            return false;
        }
        self.armed = false;
        self.lost = false;
        self.behind = true;
        true
    }

    /// The cancellation's own completion: 0, or −errno if there was nothing to cancel.
    pub(super) fn cancelled(&mut self, result: i32) {
        self.cancelling = false;
        // Usually it ended by itself, and that completion is in or about to be. If none comes, it is lost.
        self.lost = self.armed && result == -libc::ENOENT;
    }

    /// Gives up a receive that the kernel no longer knows.
    pub(super) fn revive(&mut self) {
        self.armed = false;
        self.lost = false;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Whether nothing came since the last time this was asked.
    pub(super) fn silent_since_check(&mut self) -> bool {
        let silent = self.checked == self.counters.datagrams;
        self.checked = self.counters.datagrams;
        silent
    }
}

/// The `msghdr` of every receive: only the lengths of name and control messages count.
pub(super) struct RecvHeader(Box<libc::msghdr>);

impl RecvHeader {
    pub(super) fn new() -> RecvHeader {
        // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_namelen = NAME_BYTES as libc::socklen_t;
        header.msg_controllen = CONTROL_BYTES as _;
        RecvHeader(Box::new(header))
    }

    pub(super) fn as_ptr(&self) -> *const libc::msghdr {
        &raw const *self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed() -> Receiver {
        let mut receiver = Receiver::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        receiver.armed = true;
        receiver.generation = 7;
        receiver
    }

    #[test]
    fn a_cancelled_receive_ends_with_its_own_completion() {
        let mut receiver = armed();
        receiver.cancelled(0);
        assert!(receiver.armed && !receiver.lost);
        assert!(receiver.ended(7));
        assert!(!receiver.armed);
    }

    #[test]
    fn a_receive_that_no_cancellation_finds_is_lost_and_given_up() {
        let mut receiver = armed();
        receiver.cancelled(-libc::ENOENT);
        assert!(receiver.lost);
        receiver.revive();
        assert!(!receiver.armed && !receiver.lost);
        // Should its end come after all, it is not taken for the end of the next one.
        receiver.armed = true;
        assert!(!receiver.ended(7));
        assert!(receiver.armed);
    }

    #[test]
    fn an_end_that_comes_late_is_no_loss() {
        let mut receiver = armed();
        receiver.cancelled(-libc::ENOENT);
        assert!(receiver.ended(7));
        assert!(!receiver.armed && !receiver.lost);
    }
}
