//! Receiving: sockets, pausing, the multishot receives behind them, and what they bring.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{cqueue, opcode, types};

use super::{Event, Flow, Ring, SocketCounters};
use crate::uring::buffers::GROUP;
use crate::uring::core::Completion;
use crate::uring::datagram;
use crate::uring::event::Tag;
use crate::uring::receiver::Receiver;
use crate::uring::socket::socket_memory;

/// A completion of a receive that brought bytes.
#[derive(Clone, Copy)]
pub(super) struct Brought {
    socket: u16,
    /// The buffer the bytes are in, and how many.
    buffer: u16,
    len: u32,
    /// The kernel is done with the buffer.
    last: bool,
}

impl Brought {
    pub(super) fn of(socket: u16, completion: Completion) -> Option<Brought> {
        let buffer = cqueue::buffer_select(completion.flags)?;
        let len = u32::try_from(completion.result).unwrap_or(0);
        Some(Brought {
            socket,
            buffer,
            len,
            last: !cqueue::buffer_more(completion.flags),
        })
    }
}

impl Ring {
    /// Adds a socket to receive from; its index is what `Datagram::socket` says. Received from once resumed.
    ///
    /// # Panics
    /// With more than 65,535 sockets.
    pub fn add_socket(&mut self, socket: UdpSocket) -> u16 {
        let index = u16::try_from(self.receivers.len()).expect("a shard has one socket per listen address");
        self.receivers.push(Receiver::new(socket));
        self.unsettled = true;
        index
    }

    /// Starts receiving, or starts again after `pause`. What was put aside is handed over first.
    pub fn resume(&mut self) {
        self.paused = false;
        self.unsettled = true;
    }

    /// Hands over no more datagrams until `resume`: they stay in the receive buffers, then in the sockets' buffers,
    /// then the kernel drops them. Other events go on.
    pub fn pause(&mut self) {
        self.paused = true;
        self.unsettled = true;
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Takes nothing more from the sockets, for good. What was taken already is still handed over: go on with `wait`
    /// and `drain` (and `resume`, if paused) until `is_receiving` is false.
    pub fn stop_receiving(&mut self) {
        self.stopping = true;
        self.unsettled = true;
    }

    /// Whether datagrams may still come: a receive is armed, or some are put aside.
    pub fn is_receiving(&self) -> bool {
        !self.held.is_empty() || self.receivers.iter().any(|r| r.armed) || !(self.stopping || self.paused)
    }

    /// Whether the last `wait` and its `drain` listened to this socket all the time and brought nothing: then nothing that had arrived before
    /// is still in it. Without a buffer to receive into (`ENOBUFS`) a socket is silent too, and not empty.
    pub fn is_caught_up(&self, socket: u16) -> bool {
        self.receivers
            .get(usize::from(socket))
            .is_some_and(|receiver| !receiver.behind)
    }

    /// The kernel's drop counter of a socket as it stands now: `rxq_ovfl` comes only with a later datagram. Batches, with GRO.
    pub fn kernel_drops(&self, socket: u16) -> u64 {
        let receiver = self.receivers.get(usize::from(socket));
        let memory = receiver.map(|receiver| socket_memory(receiver.socket.as_fd()));
        memory
            .and_then(Result::ok)
            .map_or(0, |memory| u64::from(memory.drops))
    }

    pub fn socket_counters(&self, socket: u16) -> SocketCounters {
        self.receivers
            .get(usize::from(socket))
            .map(|receiver| receiver.counters())
            .unwrap_or_default()
    }

    /// Asks the cache for the heads of the datagrams that a batch of completions brought, before the first of them is looked at.
    pub(super) fn prefetch(&self, batch: &[Completion]) {
        let mut next = None;
        for &completion in batch {
            let Tag::Receive { socket, .. } = Tag::unpack(completion.user_data) else {
                continue;
            };
            let Some(brought) = Brought::of(socket, completion) else {
                continue;
            };
            let start = match next {
                Some((buffer, start)) if buffer == brought.buffer => start,
                _ => self.buffers.head(brought.buffer),
            };
            self.buffers.prefetch(brought.buffer, start);
            next = Some((brought.buffer, start + brought.len));
        }
    }

    /// Hands over what one completion brought, and gives its buffer back when it was the last.
    #[inline]
    pub(super) fn hand_over(&mut self, brought: Brought, on: &mut impl FnMut(Event<'_>) -> Flow) -> Flow {
        let Brought {
            socket,
            buffer,
            len,
            last,
        } = brought;
        let len = len as usize;
        let receiver = &mut self.receivers[usize::from(socket)];
        let start = self.buffers.consumed(buffer, len);
        let parsed = start.and_then(|start| datagram::parse(self.buffers.slice(buffer, start, len)));
        let flow = match parsed {
            Some(parsed) => on(Event::Datagram(receiver.datagram(socket, &parsed))),
            None => {
                self.counters.malformed += 1;
                Flow::Continue
            }
        };
        if last {
            if !self.deferred {
                // The kernel may write at any time: this is the last moment to wipe safely.
                self.buffers.wipe_one(buffer);
            }
            self.buffers.recycle(buffer);
        }
        flow
    }

    /// A receive ended: by itself (no buffer, no room for completions), by cancellation, or by an error.
    pub(super) fn ended(
        &mut self,
        socket: u16,
        generation: u32,
        result: i32,
        on: &mut impl FnMut(Event<'_>) -> Flow,
    ) {
        let receiver = &mut self.receivers[usize::from(socket)];
        if !receiver.ended(generation) {
            return;
        }
        self.unsettled = true;
        match -result {
            libc::ENOBUFS => self.counters.out_of_buffers += 1,
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            errno if errno > 0 => {
                receiver.failed = true;
                on(Event::ReceiveFailed { socket, errno });
            }
            _ => {}
        }
    }

    pub(super) fn arm(&mut self, index: usize) -> io::Result<bool> {
        let receiver = &mut self.receivers[index];
        let generation = receiver.generation.wrapping_add(1);
        let tag = Tag::Receive {
            socket: index as u16,
            generation,
        };
        let fd = types::Fd(receiver.socket.as_raw_fd());
        let entry = opcode::RecvMsgMulti::new(fd, self.header.as_ptr(), GROUP);
        // SAFETY: the header is boxed and kept, or leaked, with the ring; the socket is owned by the receiver,
        // which is dropped after the ring has quiesced. The buffers the kernel picks belong to `buffers`.
        let pushed = unsafe { self.core.push(&entry.build().user_data(tag.pack())) }?;
        if pushed {
            receiver.generation = generation;
            receiver.armed = true;
            self.counters.armed += 1;
        }
        Ok(pushed)
    }

    pub(super) fn cancel(&mut self, index: usize) -> io::Result<bool> {
        let socket = index as u16;
        let receiver = &mut self.receivers[index];
        let target = Tag::Receive {
            socket,
            generation: receiver.generation,
        }
        .pack();
        let entry = opcode::AsyncCancel::new(target)
            .build()
            .user_data(Tag::Cancel { socket }.pack());
        // SAFETY: a cancellation points to nothing.
        let pushed = unsafe { self.core.push(&entry) }?;
        if pushed {
            receiver.cancelling = true;
            self.cancels += 1;
        }
        Ok(pushed)
    }

    /// To be called about once a second: tries failed sockets again, and revives a receive that the kernel
    /// has lost (armed, silent since the last call, though its socket holds data).
    pub fn check_liveness(&mut self) -> io::Result<()> {
        for index in 0..self.receivers.len() {
            let receiver = &mut self.receivers[index];
            receiver.failed = false;
            let silent = receiver.silent_since_check();
            if receiver.armed && receiver.lost {
                // Cancelled without being found, and no end came since: there is no such operation any more.
                receiver.revive();
                self.counters.revived += 1;
            } else if receiver.armed && silent && !receiver.cancelling && !self.paused {
                let waiting =
                    socket_memory(receiver.socket.as_fd()).is_ok_and(|memory| memory.queued_bytes > 0);
                if waiting {
                    self.cancel(index)?;
                }
            }
        }
        self.unsettled = true;
        self.settle()
    }

    /// Overwrites received data that was handed over and is no longer needed, wherever the kernel is certainly not
    /// writing. Meant for a shard that has been idle for a second, and for the end. `true` if none is left;
    /// `false` if some may be, because completions wait to be drained or resumed: try again later.
    pub fn wipe_idle(&mut self) -> bool {
        let still = self.deferred || !self.receivers.iter().any(|receiver| receiver.armed);
        let taken = self.core.ready() == 0 && !self.core.overflowed() && self.held.is_empty();
        // SAFETY: `still` and `taken` are the two facts that `wipe` asks for.
        unsafe { self.buffers.wipe(still && taken) };
        // Without DEFER_TASKRUN buffers are wiped as they are given back, so what lay below the heads was all.
        taken
    }
}
