//! A shard's ring: receives datagrams, writes and syncs files, and is woken by other threads.
//!
//! The loop of a shard:
//! ```text
//! loop { ring.wait(min_wait_us, timeout_us)?;  ring.drain(limit, |event| …);  ring.write(…)…;  ring.sync(…) }
//! ```
//! Invariants:
//! - one thread makes, uses and drops a ring (it is `!Send`);
//! - every operation in flight owns what it names: its file, its memory, its iovecs. Drop cancels and waits;
//!   what has not completed by then is leaked, never freed under the kernel;
//! - received bytes are lent for the duration of one event; the buffer returns to the kernel after the last of
//!   them was handed over;
//! - while paused no datagram is handed over, and at most the receive buffers' content waits here.

mod receiving;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{cqueue, opcode, types};

use super::buffers::Buffers;
pub use super::buffers::{BufferMode, BuffersReport};
pub use super::core::CoreReport;
use super::core::{BATCH, Completion, Core, CoreOptions, DEFER_TASKRUN};
use super::event::Tag;
pub use super::event::{Event, Flow};
use super::flights::Flights;
pub use super::flights::{Busy, SPANS_MAX, Span};
use super::memory::Region;
pub use super::options::{RingCounters, RingOptions, RingReport};
pub use super::receiver::SocketCounters;
use super::receiver::{Receiver, RecvHeader};
use super::sys::Waker;
use receiving::Brought;

/// See the module's text.
pub struct Ring {
    // The four that the kernel may still be using when this is dropped: see Drop.
    core: ManuallyDrop<Core>,
    buffers: ManuallyDrop<Buffers>,
    flights: ManuallyDrop<Flights>,
    header: ManuallyDrop<RecvHeader>,
    wake: ManuallyDrop<Box<WakeWord>>,
    waker: Waker,
    wake_armed: bool,
    receivers: Vec<Receiver>,
    /// The kernel works for this ring only inside our own system calls (DEFER_TASKRUN).
    deferred: bool,
    /// Completions of receives put aside while paused, in order.
    held: VecDeque<Brought>,
    paused: bool,
    stopping: bool,
    /// Some receiver may be in another state than it should be.
    unsettled: bool,
    /// Cancellations whose completion is not in yet.
    cancels: u32,
    counters: RingCounters,
}

/// Where the kernel puts the eventfd's counter. Nothing reads it.
struct WakeWord(std::cell::UnsafeCell<u64>);

impl Ring {
    /// Makes the ring on the calling thread, which must be the shard's. Receiving begins with `resume`.
    pub fn new(options: &RingOptions, waker: &Waker) -> io::Result<Ring> {
        let core_options = CoreOptions {
            entries: options.entries,
            completions: options.completions,
            workers: options.workers,
            worker_cpus: options.worker_cpus.clone(),
            restrict: options.restrict,
            plain_flags: options.plain_flags,
        };
        let mut core = Core::new(&core_options)?;
        let buffers = Buffers::new(
            core.raw_fd(),
            options.buffers,
            options.receive_bytes,
            options.lock,
        )?;
        core.enable(&core_options)?;
        let most_held = buffers.most_datagrams();
        let mut ring = Ring {
            deferred: core.report.has(DEFER_TASKRUN),
            core: ManuallyDrop::new(core),
            buffers: ManuallyDrop::new(buffers),
            flights: ManuallyDrop::new(Flights::new(options.flights)),
            header: ManuallyDrop::new(RecvHeader::new()),
            wake: ManuallyDrop::new(Box::new(WakeWord(std::cell::UnsafeCell::new(0)))),
            waker: waker.clone(),
            wake_armed: false,
            receivers: Vec::new(),
            held: VecDeque::with_capacity(most_held),
            paused: true,
            stopping: false,
            unsettled: true,
            cancels: 0,
            counters: RingCounters::default(),
        };
        ring.settle()?;
        Ok(ring)
    }

    pub fn report(&self) -> RingReport {
        RingReport {
            core: self.core.report.clone(),
            buffers: self.buffers.report(),
        }
    }

    pub fn counters(&self) -> RingCounters {
        RingCounters {
            enters: self.core.enters,
            ..self.counters
        }
    }

    /// Submits what is queued and waits for completions: up to `min_wait_us` for a good batch of them, then for a
    /// single one; returns after `timeout_us` at the latest, or at a signal. Does not wait if some are ready.
    ///
    /// Waiting longer at first makes moderate load cheap, and delays every event by as much.
    pub fn wait(&mut self, min_wait_us: u32, timeout_us: u64) -> io::Result<()> {
        self.settle()?;
        for receiver in &mut self.receivers {
            receiver.behind = !receiver.armed;
        }
        let deliverable = !self.held.is_empty() && !self.paused;
        if self.core.ready() > 0 || deliverable {
            return if self.core.needs_enter() {
                self.core.submit()
            } else {
                Ok(())
            };
        }
        self.core.wait(BATCH, min_wait_us, timeout_us)
    }

    /// Submits what is queued, without waiting.
    pub fn submit(&mut self) -> io::Result<()> {
        self.settle()?;
        self.core.submit()
    }

    /// Hands over what completed, in the kernel's order, until nothing is ready or about `limit` events were
    /// handed over (a started batch of 64 is finished). Returns how many completions were looked at.
    pub fn drain(&mut self, limit: usize, mut on: impl FnMut(Event<'_>) -> Flow) -> io::Result<usize> {
        let mut seen = 0;
        while !self.paused && seen < limit {
            let Some(held) = self.held.pop_front() else { break };
            if self.hand_over(held, &mut on) == Flow::Pause {
                self.pause();
            }
            seen += 1;
        }
        let mut batch = [Completion::default(); BATCH];
        while seen < limit {
            let taken = self.core.take(&mut batch);
            if taken == 0 {
                break;
            }
            self.prefetch(&batch[..taken]);
            for &completion in &batch[..taken] {
                self.dispatch(completion, &mut on);
            }
            seen += taken;
        }
        self.settle()?;
        Ok(seen)
    }

    #[inline]
    fn dispatch(&mut self, completion: Completion, on: &mut impl FnMut(Event<'_>) -> Flow) {
        let flow = match Tag::unpack(completion.user_data) {
            Tag::Receive { socket, generation } => {
                let flow = match Brought::of(socket, completion) {
                    Some(brought) if self.paused => {
                        self.held.push_back(brought);
                        Flow::Continue
                    }
                    Some(brought) => self.hand_over(brought, on),
                    None => Flow::Continue,
                };
                if !cqueue::more(completion.flags) {
                    self.ended(socket, generation, completion.result, on);
                }
                flow
            }
            Tag::Flight { index } => {
                let Some(event) = self.flights.complete(index, completion.result) else {
                    return;
                };
                on(event)
            }
            Tag::Wake => {
                self.wake_armed = false;
                self.unsettled = true;
                on(Event::Woken)
            }
            Tag::Cancel { socket } => {
                self.cancels -= 1;
                if let Some(receiver) = self.receivers.get_mut(usize::from(socket)) {
                    receiver.cancelled(completion.result);
                }
                self.unsettled = true;
                return;
            }
            Tag::CancelAll => return,
        };
        if flow == Flow::Pause {
            self.pause();
        }
    }

    /// Brings every receiver, and the wake-up read, into the state it should be in.
    fn settle(&mut self) -> io::Result<()> {
        if !self.unsettled {
            return Ok(());
        }
        self.unsettled = false;
        self.arm_wake()?;
        let wanted = !self.paused && !self.stopping;
        for index in 0..self.receivers.len() {
            let receiver = &self.receivers[index];
            let (armed, cancelling, failed) = (receiver.armed, receiver.cancelling, receiver.failed);
            let done = match (wanted, armed) {
                (true, false) if !failed => self.arm(index)?,
                (false, true) if !cancelling => self.cancel(index)?,
                _ => true,
            };
            self.unsettled |= !done;
        }
        Ok(())
    }

    fn arm_wake(&mut self) -> io::Result<()> {
        if self.wake_armed {
            return Ok(());
        }
        let fd = types::Fd(self.waker.fd().as_raw_fd());
        let entry = opcode::Read::new(fd, self.wake.0.get().cast(), size_of::<u64>() as u32).offset(u64::MAX);
        // SAFETY: the word is boxed and kept, or leaked, with the ring, and never read or lent; the descriptor is
        // kept open by our clone of the waker.
        self.wake_armed = unsafe { self.core.push(&entry.build().user_data(Tag::Wake.pack())) }?;
        self.unsettled |= !self.wake_armed;
        Ok(())
    }

    /// Room for one more write or sync.
    pub fn has_room(&self) -> bool {
        self.flights.has_room()
    }

    /// Writes and syncs in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.in_flight()
    }

    /// Queues one gathered write of `spans` of `region`, in order, to `file` at `offset`; ends with
    /// `Event::Written`. For O_DIRECT all offsets and lengths are multiples of 4096. Submitted by the next `wait`.
    ///
    /// The ring keeps file and memory alive; the caller keeps the spans' bytes unchanged until the event.
    ///
    /// # Panics
    /// If a span lies outside the region, or there are none or more than `SPANS_MAX`.
    pub fn write(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        region: &Region,
        spans: impl IntoIterator<Item = Span>,
        token: u64,
    ) -> Result<(), Busy> {
        let flight = self.flights.write(file, region, spans, token)?;
        let fd = types::Fd(file.as_raw_fd());
        let entry = opcode::Writev::new(fd, flight.iovecs, flight.iovec_count).offset(offset);
        let entry = entry
            .build()
            .user_data(Tag::Flight { index: flight.index }.pack());
        // SAFETY: the flight owns iovecs, memory and file until `complete`, or is leaked with the ring.
        let pushed = unsafe { self.core.push(&entry) };
        self.flights.settle(flight.index, pushed)
    }

    /// Queues an fdatasync; ends with `Event::Synced`. It covers the writes whose `Event::Written` came before
    /// this call, and no others.
    pub fn sync(&mut self, file: &Arc<File>, token: u64) -> Result<(), Busy> {
        let index = self.flights.sync(file, token)?;
        let fd = types::Fd(file.as_raw_fd());
        let entry = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC);
        let entry = entry.build().user_data(Tag::Flight { index }.pack());
        // SAFETY: the flight owns the file until `complete`, or is leaked with the ring.
        let pushed = unsafe { self.core.push(&entry) };
        self.flights.settle(index, pushed)
    }

    /// Whether a received payload can still be found in the receive buffers.
    #[cfg(test)]
    pub(super) fn still_holds(&self, needle: &[u8]) -> bool {
        self.buffers.still_holds(needle)
    }

    /// Cancels everything and takes completions until none is missing. `false` if some still are after 5 s, which
    /// is longer than any disk that still answers takes.
    fn quiesce(&mut self) -> bool {
        self.stop_receiving();
        self.resume();
        while let Some(held) = self.held.pop_front() {
            self.hand_over(held, &mut |_| Flow::Continue);
        }
        let mut cancelled_wake = false;
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.settle().is_err() {
                return false;
            }
            if self.wake_armed && !cancelled_wake {
                let entry = opcode::AsyncCancel::new(Tag::Wake.pack())
                    .build()
                    .user_data(Tag::CancelAll.pack());
                // SAFETY: a cancellation points to nothing.
                cancelled_wake = unsafe { self.core.push(&entry) }.unwrap_or(false);
            }
            if self.core.wait(1, 0, 20_000).is_err() {
                return false;
            }
            let mut batch = [Completion::default(); BATCH];
            loop {
                let taken = self.core.take(&mut batch);
                for &completion in &batch[..taken] {
                    match Tag::unpack(completion.user_data) {
                        Tag::Wake => self.wake_armed = false,
                        _ => self.dispatch(completion, &mut |_| Flow::Continue),
                    }
                }
                if taken == 0 {
                    break;
                }
            }
            let receiving = self.receivers.iter().any(|receiver| receiver.armed);
            if !receiving && !self.wake_armed && self.flights.in_flight() == 0 && self.cancels == 0 {
                return true;
            }
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.quiesce() {
            // The kernel may still read or write what these own. They stay mapped for the life of the process.
            std::mem::forget(std::mem::take(&mut self.receivers));
            std::mem::forget(self.waker.clone());
            return;
        }
        // SAFETY: each is dropped once, here, and not used after. The core first: closing the ring ends the kernel's
        // use of the buffer ring's entries.
        unsafe {
            ManuallyDrop::drop(&mut self.core);
            ManuallyDrop::drop(&mut self.buffers);
            ManuallyDrop::drop(&mut self.flights);
            ManuallyDrop::drop(&mut self.header);
            ManuallyDrop::drop(&mut self.wake);
        }
    }
}
