//! Sending by io_uring: a batch's messages as one submission, whatever their sockets. This crate's only room with `unsafe`
//! ([decision 22](../../../docs/decisions/0022-unsafe-in-the-load-generator.md)).
//!
//! Invariants: [`SendRing::send`] does not return while the kernel may still read a byte it was given; the messages of one
//! socket leave in their order, because each is linked to the next (IOSQE_IO_LINK: it begins when the one before it is done,
//! and is cancelled if that failed).

#![allow(unsafe_code)]

use io_uring::{IoUring, Probe, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Messages of one submission.
const ENTRIES: u32 = 64;

/// A message and its connected socket.
pub struct Outgoing<'a> {
    pub socket: BorrowedFd<'a>,
    pub bytes: &'a [u8],
    /// Whether the next message is of the same socket and must not overtake this one.
    pub linked: bool,
}

/// A ring that only sends.
pub struct SendRing {
    ring: IoUring,
}

impl SendRing {
    /// Makes a ring for the calling thread; the error says why this kernel, or its policy, does not allow one that sends.
    pub fn new() -> io::Result<SendRing> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_submit_all();
        // Flags of Linux 5.18 to 6.0; without them it is slower and not wrong.
        let ring = builder.build(ENTRIES).or_else(|_| IoUring::new(ENTRIES))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Send::CODE) {
            return Err(io::Error::other("this kernel's io_uring cannot send (Linux 5.6)"));
        }
        Ok(SendRing { ring })
    }

    /// How many messages one call may take.
    pub fn room() -> usize {
        ENTRIES as usize
    }

    /// Sends the messages, [`SendRing::room`] at most, and sets each one's result: bytes sent, or the negative errno
    /// (`-ECANCELED` behind one of its socket that failed).
    pub fn send(&mut self, messages: &[Outgoing<'_>], results: &mut Vec<i32>) {
        let messages = &messages[..messages.len().min(SendRing::room())];
        results.clear();
        results.resize(messages.len(), -libc_ecanceled());
        let mut queue = self.ring.submission();
        for (message, number) in messages.iter().zip(0..) {
            let socket = types::Fd(message.socket.as_raw_fd());
            let len = u32::try_from(message.bytes.len()).unwrap_or(u32::MAX);
            let mut entry = opcode::Send::new(socket, message.bytes.as_ptr(), len)
                .build()
                .user_data(number);
            if message.linked {
                entry = entry.flags(squeue::Flags::IO_LINK);
            }
            // SAFETY: `bytes` and `socket` are borrowed for all of this function, and it does not return before the loop
            // below has met as many completions as entries were pushed here: until then the kernel may read the bytes, and
            // nobody can write to or free them. `len` is the slice's length, or less.
            let pushed = unsafe { queue.push(&entry) };
            pushed.expect("the queue is empty between calls and takes ENTRIES messages");
        }
        drop(queue);
        let mut outstanding = messages.len();
        while outstanding > 0 {
            match self.ring.submit_and_wait(outstanding) {
                Ok(_) => {}
                Err(error) if error.raw_os_error().is_some_and(passing) => {}
                // Nothing is known of the messages, and returning would free bytes that the kernel may still read.
                Err(error) => {
                    eprintln!("io_uring cannot wait for what it sends: {error}");
                    std::process::abort();
                }
            }
            for completion in self.ring.completion() {
                if let Some(result) = results.get_mut(completion.user_data() as usize) {
                    *result = completion.result();
                }
                outstanding -= 1;
            }
        }
    }
}

/// Errors of waiting after which waiting again is right: EINTR, EAGAIN, EBUSY.
fn passing(errno: i32) -> bool {
    use nix::errno::Errno;
    matches!(
        Errno::from_raw(errno),
        Errno::EINTR | Errno::EAGAIN | Errno::EBUSY
    )
}

fn libc_ecanceled() -> i32 {
    nix::errno::Errno::ECANCELED as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    fn pair() -> (UdpSocket, UdpSocket) {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout above zero");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        sender
            .connect(receiver.local_addr().expect("bound"))
            .expect("loopback");
        (sender, receiver)
    }

    #[test]
    fn messages_of_many_sockets_arrive_in_their_order_and_a_failed_one_cancels_only_what_follows_it() {
        let Ok(mut ring) = SendRing::new() else {
            eprintln!("skipped: no io_uring here");
            return;
        };
        let pairs = [pair(), pair()];
        let too_long = vec![0u8; 70_000];
        let bodies: Vec<Vec<u8>> = (0..20u8).map(|number| vec![number; 10]).collect();
        for _ in 0..50 {
            let mut messages = Vec::new();
            for (socket, _) in &pairs {
                for (number, body) in bodies.iter().enumerate() {
                    let fails = number == 15 && messages.len() < 20;
                    messages.push(Outgoing {
                        socket: socket.as_fd(),
                        bytes: if fails { &too_long } else { body },
                        linked: number + 1 < bodies.len(),
                    });
                }
            }
            let mut results = Vec::new();
            ring.send(&messages, &mut results);
            let left = |range: std::ops::Range<usize>| results[range].iter().all(|&result| result == 10);
            assert!(left(0..15) && left(20..40), "{results:?}");
            assert_eq!(results[15], -(nix::errno::Errno::EMSGSIZE as i32));
            assert!(results[16..20].iter().all(|&result| result == -libc_ecanceled()));
            for (at, (_, receiver)) in pairs.iter().enumerate() {
                for number in 0..if at == 0 { 15 } else { 20 } {
                    let mut bytes = [0; 100];
                    assert_eq!(receiver.recv(&mut bytes).expect("sent"), 10);
                    assert_eq!(bytes[0], number);
                }
            }
        }
    }
}
