//! One simulated shard: the shipped core between simulated sockets, disk and keeper. [`SimShard::turn`] is what `Shard::run` does in one
//! round of its loop, call for call.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::rc::Rc;

use harborseal::ledger::{Reason, Snapshot};
use harborseal::log::Now;
use harborseal::log::keeper::{Reply, is_no_space};
use harborseal::shard::core::{Core, Datagram};
use harborseal::shard::links::{Links, Rehomed};
use harborseal::uring::Waker;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::canary::Canary;
use super::disk::{Completion, SimDisk};
use super::keeper::SimKeeper;
use super::plan::MS;
use super::platter::FileId;
use super::tally::{Fired, Tally};
use super::traffic::{Arrival, SOCKETS};

/// Longest sleep of a shard that has nothing to do.
const PUBLISH_NS: u64 = 200 * MS;
/// Rounds at one moment that change nothing, before they count as a busy loop.
const MAX_SPINS: u32 = 20;

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    Draining,
    Waiting,
    Settling,
    Ended,
}

/// One shard and what surrounds it.
pub struct SimShard {
    /// The decisions under test.
    pub core: Core,
    /// Its way to its files.
    pub disk: SimDisk,
    /// Its keeper.
    pub keeper: SimKeeper,
    /// When it wants to run next, monotonic.
    pub turn_ns: u64,
    /// Packets given to [`Core::receive`].
    pub given: u64,
    /// Packets taken from other shards.
    pub taken_over: u64,
    /// Packets of strangers among [`SimShard::given`].
    pub strangers: u64,
    links: Links,
    late: Vec<Rehomed>,
    waker: Waker,
    sockets: VecDeque<Rc<Arrival>>,
    socket_datagrams: usize,
    drain: usize,
    no_buffers: f64,
    quiet_ns: u64,
    payload: Vec<u8>,
    completions: Vec<Completion>,
    replies: VecDeque<Reply<FileId>>,
    arrival_real_ns: VecDeque<u64>,
    asked_real_ns: u64,
    paused: bool,
    stop: Stop,
    stalled_until_ns: u64,
    spins: u32,
    worked: bool,
    published_ns: u64,
    canary: Option<Canary>,
    rng: StdRng,
    tally: Tally,
}

/// What a shard is made of.
pub struct ShardParts {
    pub core: Core,
    pub disk: SimDisk,
    pub keeper: SimKeeper,
    pub links: Links,
    pub waker: Waker,
    pub socket_datagrams: usize,
    pub drain: usize,
    pub no_buffers: f64,
    pub quiet_ns: u64,
    pub canary: Option<Canary>,
    pub seed: u64,
    pub tally: Tally,
}

impl SimShard {
    /// A shard that runs for the first time at `start_ns`.
    pub fn new(parts: ShardParts, start_ns: u64) -> Self {
        let ShardParts {
            core,
            disk,
            keeper,
            links,
            waker,
            socket_datagrams,
            drain,
            no_buffers,
            quiet_ns,
            canary,
            seed,
            tally,
        } = parts;
        SimShard {
            core,
            disk,
            keeper,
            turn_ns: start_ns,
            given: 0,
            taken_over: 0,
            strangers: 0,
            links,
            late: Vec::new(),
            waker,
            sockets: VecDeque::new(),
            socket_datagrams,
            drain,
            no_buffers,
            quiet_ns,
            payload: Vec::new(),
            completions: Vec::new(),
            replies: VecDeque::new(),
            arrival_real_ns: VecDeque::new(),
            asked_real_ns: 0,
            paused: false,
            stop: Stop::No,
            stalled_until_ns: 0,
            spins: 0,
            worked: false,
            published_ns: 0,
            canary,
            rng: StdRng::seed_from_u64(seed),
            tally,
        }
    }

    // ---- From outside ---------------------------------------------------------------------------------------

    /// A datagram reaches its socket. The kernel drops it if nobody has emptied the buffer. False then.
    pub fn arrive(&mut self, arrival: &Rc<Arrival>, now: Now) -> bool {
        if self.sockets.len() >= self.socket_datagrams || self.stop != Stop::No {
            self.tally.fire(Fired::KernelDrop);
            return false;
        }
        self.sockets.push_back(Rc::clone(arrival));
        self.arrival_real_ns.push_back(now.real_ns);
        if !self.paused {
            self.wake_within(now, 500_000);
        }
        true
    }

    /// The disk reports what completed.
    pub fn complete(&mut self, now: Now) {
        self.disk.set_now(now.mono_ns);
        let done = self.disk.complete(self.core.pool().region());
        if !done.is_empty() {
            self.completions.extend(done);
            self.wake_within(now, 100_000);
        }
    }

    /// The keeper goes on.
    pub fn keep(&mut self, now: Now) {
        let replies = self.keeper.work(now.mono_ns, now.real_ns);
        if !replies.is_empty() {
            self.replies.extend(replies);
            self.wake_within(now, 100_000);
        }
    }

    /// The thread does not get to run for a while.
    pub fn stall(&mut self, now: Now, stall_ns: u64) {
        self.tally.fire(Fired::Stall);
        self.stalled_until_ns = now.mono_ns + stall_ns;
        self.turn_ns = self.turn_ns.max(self.stalled_until_ns);
    }

    /// Somebody woke it through its eventfd.
    pub fn look_for_wake(&mut self, now: Now) {
        let mut count = [0; 8];
        if nix::unistd::read(self.waker.as_fd(), &mut count).is_ok() {
            self.wake_within(now, 50_000);
        }
    }

    /// It has something to do.
    pub fn wake_within(&mut self, now: Now, within_ns: u64) {
        let at_ns = now.mono_ns + self.rng.random_range(0..=within_ns);
        self.turn_ns = self.turn_ns.min(at_ns).max(self.stalled_until_ns);
        self.worked = true;
    }

    /// It is told to stop receiving, make everything durable and end.
    pub fn stop(&mut self, now: Now) {
        self.stop = Stop::Draining;
        self.wake_within(now, 0);
    }

    /// How long the oldest datagram in its sockets has waited, in nanoseconds.
    pub fn oldest_wait_ns(&self, now: Now) -> u64 {
        self.sockets
            .front()
            .map_or(0, |arrival| now.mono_ns.saturating_sub(arrival.at_ns))
    }

    /// Whether a stop has been carried out.
    pub fn has_ended(&self) -> bool {
        self.stop == Stop::Ended
    }

    // ---- One round of the loop ------------------------------------------------------------------------------

    /// One round of the shard's loop.
    pub fn turn(&mut self, now: Now) {
        self.disk.set_now(now.mono_ns);
        self.take_datagrams(now);
        self.take_rehomed(now);
        self.take_completions(now);
        self.take_replies(now);
        self.core.advance(&mut self.disk, &self.links, now);
        self.steer_receiving(now);
        self.move_stop(now);
        self.hand_on_requests();
        self.note_books(now);
        self.sleep(now);
    }

    fn take_datagrams(&mut self, now: Now) {
        let mut fresh = [false; SOCKETS];
        let mut seen = 0;
        let resumed = !self.paused || self.stop == Stop::Draining;
        let mut most = self.drain;
        let mut listened = true;
        if !self.sockets.is_empty() && now.mono_ns < self.quiet_ns && self.rng.random_bool(self.no_buffers) {
            // The ring has no buffer left: its receives end, and are armed again by the next wait.
            most = most.min(self.rng.random_range(0..4));
            listened = false;
            self.tally.fire(Fired::NoBuffers);
        }
        while resumed && seen < most {
            let (Some(arrival), Some(arrival_ns)) =
                (self.sockets.pop_front(), self.arrival_real_ns.pop_front())
            else {
                break;
            };
            seen += 1;
            fresh[usize::from(arrival.socket)] = true;
            let names = &arrival.names;
            self.tally.tell(now.mono_ns, || {
                format!("shard takes a datagram of {arrival_ns}: {names:?}")
            });
            self.links.note_arrival(arrival.socket, arrival_ns);
            self.give(&arrival, arrival_ns, now);
        }
        let all_seen = seen < self.drain && resumed;
        let asked_ns = self.asked_real_ns;
        self.links
            .publish(|socket| (all_seen && listened && !fresh[usize::from(socket)]).then_some(asked_ns));
    }

    fn give(&mut self, arrival: &Arrival, arrival_ns: u64, now: Now) {
        let mut data = std::mem::take(&mut self.payload);
        data.clear();
        arrival
            .packets
            .iter()
            .for_each(|packet| data.extend_from_slice(packet));
        if self.canary == Some(Canary::PacketChanged) && self.rng.random_bool(0.02) && data.len() > 20 {
            *data.last_mut().expect("it is not empty") ^= 1;
        }
        let invented = self.canary == Some(Canary::PacketInvented) && self.rng.random_bool(0.02);
        for time in 0..1 + u64::from(invented) {
            let datagram = Datagram {
                socket: arrival.socket,
                from: arrival.from,
                arrival_ns,
                gro_size: arrival.gro_size,
                rxq_ovfl: 0,
                truncated: false,
                data: &data,
            };
            self.core.receive(&datagram, &mut self.links, now);
            if time == 0 {
                self.given += arrival.packets.len() as u64;
                self.strangers += u64::from(arrival.names.is_empty());
            }
        }
        self.payload = data;
    }

    fn take_rehomed(&mut self, now: Now) {
        self.links.look();
        let mut taken = std::mem::take(&mut self.late);
        while let Some(rehomed) = self.links.next_rehomed() {
            taken.push(rehomed);
        }
        for rehomed in taken {
            if self.canary == Some(Canary::HandOverLate) && self.rng.random_bool(0.8) {
                self.late.push(rehomed);
                continue;
            }
            if self.canary == Some(Canary::HandOverLost) && self.rng.random_bool(0.1) {
                continue;
            }
            self.taken_over += 1;
            self.core.receive_rehomed(&rehomed.datagram(), now);
        }
    }

    fn take_completions(&mut self, now: Now) {
        for completion in self.completions.drain(..) {
            let (log, pool) = self.core.log_and_pool();
            match completion {
                Completion::Written(token, result) => log.written(token, result, now),
                Completion::Synced(handle, result) => log.synced(handle, result, pool, &mut self.disk),
            }
        }
    }

    fn take_replies(&mut self, now: Now) {
        while let Some(reply) = self.replies.pop_front() {
            match reply {
                Reply::Prepared(prepared, file) => {
                    self.disk
                        .opened(prepared.handle, prepared.origin.segment_id, file);
                    self.core.prepared(prepared, &mut self.disk);
                }
                Reply::PrepareFailed(error) => self.core.prepare_failed(is_no_space(&error), now),
                Reply::Extended(handle, result) => {
                    let (log, _) = self.core.log_and_pool();
                    log.extended(handle, result, &mut self.disk, now);
                }
                Reply::Closed(handle, id, root) => {
                    self.disk.released(handle);
                    self.core.log_and_pool().0.closed(id, root);
                }
                Reply::Released(handle) => self.disk.released(handle),
            }
        }
    }

    fn steer_receiving(&mut self, now: Now) {
        if self.stop == Stop::No {
            let wanted = self.core.wants_packets(now);
            if self.paused && wanted {
                self.wake_within(now, 0);
            }
            self.paused = !wanted;
        }
        if self.core.holds_packets() {
            self.tally.fire(Fired::Held);
            self.links.ask_for_progress();
        }
    }

    fn move_stop(&mut self, now: Now) {
        match self.stop {
            Stop::Draining if self.sockets.is_empty() => {
                self.links.receiving_ended();
                self.stop = Stop::Waiting;
                self.wake_within(now, 0);
            }
            Stop::Waiting if self.links.all_ended() => {
                self.take_rehomed(now);
                self.core.stop();
                self.stop = Stop::Settling;
                self.wake_within(now, 0);
            }
            Stop::Settling if self.core.is_settled() => {
                self.core.finish(&mut self.disk);
                self.stop = Stop::Ended;
            }
            _ => {}
        }
    }

    fn hand_on_requests(&mut self) {
        for request in self.disk.requests.drain(..) {
            self.keeper.push(request);
        }
    }

    /// The books must balance at any moment, and the pool is never larger than it was made.
    fn note_books(&mut self, now: Now) {
        let in_flight = self.core.in_flight();
        let books = self.core.snapshot(now);
        let Snapshot {
            received,
            stored,
            dropped,
            ..
        } = books;
        assert_eq!(
            *received,
            stored + dropped.total() + in_flight,
            "received = stored + dropped + in flight ({stored} + {} + {in_flight})",
            dropped.total()
        );
        assert!(
            books.pool_free_bytes <= books.pool_bytes,
            "more free memory than there is"
        );
        self.tally.add(Fired::Paused, u64::from(books.paused));
    }

    /// Sets when it runs next, and finds out if it does so for nothing.
    fn sleep(&mut self, now: Now) {
        let due_ns = self.core.next_deadline_ns().unwrap_or(u64::MAX);
        let spins = due_ns <= now.mono_ns && !std::mem::take(&mut self.worked) && !self.disk.refused;
        self.disk.refused = false;
        self.spins = if spins { self.spins + 1 } else { 0 };
        assert!(
            self.spins < MAX_SPINS,
            "a busy loop: due at {due_ns}, nothing happens at {}",
            now.mono_ns
        );
        if now.mono_ns >= self.published_ns + PUBLISH_NS {
            self.published_ns = now.mono_ns;
        }
        let more = !self.sockets.is_empty() && !self.paused;
        let wait_ns = if more {
            0
        } else {
            due_ns
                .min(self.published_ns + PUBLISH_NS)
                .saturating_sub(now.mono_ns)
        };
        // However eager, a round of the loop takes a few microseconds.
        self.turn_ns = (now.mono_ns + wait_ns.max(5_000)).max(self.stalled_until_ns);
        self.asked_real_ns = now.real_ns;
    }

    // ---- Figures --------------------------------------------------------------------------------------------

    /// The figures as they stand.
    pub fn books(&mut self, now: Now) -> Snapshot {
        self.core.snapshot(now).clone()
    }

    /// Counts what became of the run.
    pub fn tally_books(&mut self, now: Now) {
        let books = self.books(now);
        let dropped = |reason| books.dropped.get(reason);
        for (fired, times) in [
            (Fired::Rehomed, books.rehomed),
            (Fired::Retired, books.segments_retired),
            (Fired::Rotated, books.segments.saturating_sub(1)),
            (Fired::PoolExhausted, dropped(Reason::PoolExhausted)),
            (Fired::DiskFull, dropped(Reason::DiskFull)),
            (Fired::TooManyStreams, dropped(Reason::TooManyStreams)),
        ] {
            self.tally.add(fired, times);
        }
        let folded = self.core.ledgers().iter().any(|ledger| ledger.ssrc == 0);
        self.tally.add(Fired::StreamReplaced, u64::from(folded));
        self.tally.packets(books.received, books.stored);
    }

    /// Bytes of buffers that are not free.
    pub fn bytes_out(&self) -> usize {
        self.core.pool().total_bytes() - self.core.pool().free_bytes()
    }
}
