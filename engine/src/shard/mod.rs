//! The shard: one pinned thread that takes packets from its sockets and makes them durable.
//!
//! This file ties the decisions of [`core`] to the kernel: [`Shard::run`] is the whole path in one screen. Owns the ring, the
//! links to the other shards, and the channel to its keeper.

pub mod core;
pub mod hold;
pub mod links;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender};
use harborseal_segment::body::{ChainHead, DeletedSegment};
use harborseal_segment::ids::SegmentId;

use crate::ledger::{Snapshot, StreamLedger};
use crate::log::catalog::Note;
use crate::log::keeper::{Reply, is_no_space};
use crate::log::{Disk, DurablePlace, Handle, Now, Outside, Request};
use crate::port::{Durable, ShardPort};
use crate::stream::registry::Registry;
use crate::uring::sys;
use crate::uring::{Event, Flow, Region, Ring, Span};
use core::Core;
use links::Links;

/// Longest sleep without anything due: figures are published this often, in nanoseconds.
pub const PUBLISH_NS: u64 = 200_000_000;
/// Waiting for company after the first completion, in microseconds: batches wake-ups under load. A packet waits this much longer at the most.
pub const MIN_WAIT_US: u32 = 500;
/// Events handled before writes are submitted again.
pub const DRAIN_LIMIT: usize = 512;
/// A stopping shard gives up when nothing has become durable for this long, in nanoseconds.
const STOP_STALL_NS: u64 = 10_000_000_000;
/// Time between two looks at what the receive buffers still hold of handled datagrams, in nanoseconds.
const WIPE_EVERY_NS: u64 = 1_000_000_000;

/// What others ask of a shard.
pub enum Command {
    /// Another set of customers and cameras. The sender is dropped once it is in force, or overtaken by another.
    Reload(Arc<Registry>, Sender<()>),
    /// Segments that retention is about to delete; the keeper's janitor hears when the tombstones are durable.
    Tombstones(u64, Vec<DeletedSegment>),
    /// Chain ends found at the start.
    Heads(Vec<ChainHead>),
    /// Stop receiving, make durable, end.
    Stop,
}

/// What is left of a shard after its run.
pub struct Ended {
    /// Its last figures.
    pub snapshot: Snapshot,
    /// Every stream's ledger.
    pub streams: Vec<StreamLedger>,
    /// What went wrong with the ring, if that ended the run.
    pub failure: Option<io::Error>,
}

/// A shard and everything it touches.
pub struct Shard {
    core: Core,
    ring: Ring,
    links: Links,
    outside: Exits,
    replies: Receiver<Reply>,
    commands: Receiver<Command>,
    completions: Vec<Completion>,
    sockets: u16,
    reload: Option<(Arc<Registry>, Sender<()>)>,
    stop: Stop,
    woken: bool,
    published_ns: u64,
    checked_ns: u64,
    wiped: bool,
    /// When that was last looked at, and how many bytes had been received by then.
    wiped_ns: u64,
    wiped_bytes: u64,
    /// What the receive buffers hold.
    receive_bytes: u64,
}

/// The ring's completions of one batch, put aside until the datagrams are handled.
enum Completion {
    Written(u64, i32),
    Synced(u64, i32),
}

/// How far a stop has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// What the kernel already gave us is still taken.
    Draining,
    /// Nothing comes from our sockets any more; other shards may still hand over.
    Waiting,
    /// Everything is being made durable. When that last made progress, and how far it was.
    Settling {
        since_ns: u64,
        durable_bytes: u64,
    },
}

/// Where a shard reports to.
pub struct Reports {
    /// Its index.
    pub shard: u16,
    /// Work for its keeper.
    pub keeper: Sender<Request>,
    /// Figures and watermarks for the control thread.
    pub port: ShardPort,
    /// What a person should read.
    pub janitor: Sender<Note>,
}

/// The world as the log's decisions reach it: everything but the ring.
struct Exits {
    keeper: Sender<Request>,
    port: ShardPort,
    janitor: Sender<Note>,
    shard: u16,
    files: HashMap<Handle, OpenFile>,
}

/// A segment's file, for direct writes.
struct OpenFile {
    id: SegmentId,
    file: Arc<File>,
}

impl Shard {
    /// Ties a core to its ring and neighbours. `sockets` are this shard's, in the order of the listen addresses.
    pub fn new(
        core: Core,
        mut ring: Ring,
        links: Links,
        sockets: Vec<UdpSocket>,
        reports: Reports,
        replies: Receiver<Reply>,
        commands: Receiver<Command>,
    ) -> Shard {
        let count = sockets.len() as u16;
        for socket in sockets {
            ring.add_socket(socket);
        }
        let Reports {
            shard,
            keeper,
            port,
            janitor,
        } = reports;
        let receive_bytes = ring.report().buffers.memory.bytes as u64;
        Shard {
            core,
            ring,
            links,
            outside: Exits {
                keeper,
                port,
                janitor,
                shard,
                files: HashMap::new(),
            },
            replies,
            commands,
            completions: Vec::with_capacity(DRAIN_LIMIT),
            sockets: count,
            reload: None,
            stop: Stop::No,
            woken: false,
            published_ns: 0,
            checked_ns: 0,
            wiped: true,
            wiped_ns: 0,
            wiped_bytes: 0,
            receive_bytes,
        }
    }

    /// Arms the ring: from here on packets are taken. To be called on the shard's own thread, before it says that it is ready.
    pub fn arm(&mut self) -> io::Result<()> {
        self.ring.resume();
        self.ring.submit()
    }

    /// Receives, seals and stores until told to stop.
    pub fn run(mut self) -> Ended {
        let failure = loop {
            let asked_ns = sys::realtime_ns();
            if let Err(error) = self.wait() {
                break Some(error);
            }
            let now = now();
            if let Err(error) = self.take_datagrams(now, asked_ns) {
                break Some(error);
            }
            self.take_rehomed(now);
            self.take_completions(now);
            self.take_replies(now);
            self.take_commands();
            let mut disk = RingDisk {
                ring: &mut self.ring,
                outside: &mut self.outside,
            };
            self.core.advance(&mut disk, &self.links, now);
            self.steer_receiving(now);
            self.publish_if_due(now);
            if self.ended(now) {
                break None;
            }
        };
        self.end(failure)
    }

    fn wait(&mut self) -> io::Result<()> {
        let mono_ns = sys::monotonic_ns();
        let due_ns = self
            .core
            .next_deadline_ns()
            .unwrap_or(u64::MAX)
            .min(self.published_ns + PUBLISH_NS);
        let mut timeout_us = due_ns.saturating_sub(mono_ns) / 1000;
        if std::mem::take(&mut self.woken) || !matches!(self.stop, Stop::No) {
            timeout_us = timeout_us.min(if self.stop == Stop::No { 0 } else { 1000 });
        }
        self.ring.wait(MIN_WAIT_US.min(timeout_us as u32), timeout_us)
    }

    fn take_datagrams(&mut self, now: Now, asked_ns: u64) -> io::Result<()> {
        let Shard {
            core,
            ring,
            links,
            completions,
            woken,
            wiped,
            ..
        } = self;
        let seen = ring.drain(DRAIN_LIMIT, |event| {
            match event {
                Event::Datagram(ref d) => {
                    links.note_arrival(d.socket, d.arrival_ns);
                    *wiped = false;
                    match d.truncated {
                        true => core.receive_cut(d.data),
                        false => core.receive(d, links, now),
                    }
                }
                Event::Written { token, result } => completions.push(Completion::Written(token, result)),
                Event::Synced { token, result } => completions.push(Completion::Synced(token, result)),
                Event::Woken => *woken = true,
                // The ring tries a failed socket again at its next liveness check; what it misses shows as loss.
                Event::ReceiveFailed { .. } => {}
            }
            Flow::Continue
        })?;
        let all_seen = seen < DRAIN_LIMIT && !ring.is_paused();
        links.publish(|socket| (all_seen && ring.is_caught_up(socket)).then_some(asked_ns));
        Ok(())
    }

    fn take_rehomed(&mut self, now: Now) {
        self.links.look();
        while let Some(rehomed) = self.links.next_rehomed() {
            self.core.receive_rehomed(&rehomed.datagram(), now);
        }
    }

    fn take_completions(&mut self, now: Now) {
        let Shard {
            core,
            outside,
            completions,
            ..
        } = self;
        for completion in completions.drain(..) {
            let (log, pool) = core.log_and_pool();
            match completion {
                Completion::Written(token, result) => log.written(token as u32, result, now),
                Completion::Synced(handle, result) => {
                    let handle = Handle(handle as u32);
                    log.synced(handle, outside.still_named(handle, result), pool, outside);
                }
            }
        }
    }

    fn take_replies(&mut self, now: Now) {
        while let Ok(reply) = self.replies.try_recv() {
            match reply {
                Reply::Prepared(prepared, file) => {
                    let id = prepared.origin.segment_id;
                    self.outside.files.insert(prepared.handle, OpenFile { id, file });
                    self.core.prepared(prepared, &mut self.outside);
                }
                Reply::PrepareFailed(error) => self.core.prepare_failed(is_no_space(&error), now),
                Reply::Extended(handle, result) => {
                    self.core
                        .log_and_pool()
                        .0
                        .extended(handle, result, &mut self.outside, now);
                }
                Reply::Closed(handle, id, root) => {
                    self.outside.files.remove(&handle);
                    self.core.log_and_pool().0.closed(id, root);
                }
                Reply::Released(handle) => {
                    self.outside.files.remove(&handle);
                }
            }
        }
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Reload(registry, in_force) => {
                    self.core.reload(Arc::clone(&registry), &mut self.outside);
                    self.reload = Some((registry, in_force));
                }
                Command::Tombstones(ticket, entries) => {
                    self.core.log_and_pool().0.add_tombstones(ticket, entries);
                }
                Command::Heads(heads) => self.core.log_and_pool().0.add_heads(heads),
                Command::Stop if self.stop == Stop::No => {
                    self.ring.resume();
                    self.ring.stop_receiving();
                    self.stop = Stop::Draining;
                }
                Command::Stop => {}
            }
        }
    }

    /// Pauses receiving while the pool is low, checks the ring's health, wipes what it no longer needs.
    fn steer_receiving(&mut self, now: Now) {
        if self.stop == Stop::No {
            match (self.core.wants_packets(now), self.ring.is_paused()) {
                (true, true) => self.ring.resume(),
                (false, false) => self.ring.pause(),
                _ => {}
            }
        }
        if self.core.holds_packets() {
            self.links.ask_for_progress();
        }
        if now.mono_ns.saturating_sub(self.checked_ns) >= 1_000_000_000 {
            self.checked_ns = now.mono_ns;
            self.note_kernel_drops();
            if let Err(error) = self.ring.check_liveness() {
                self.outside
                    .trouble(format!("shard {}: {error}", self.outside.shard));
            }
        }
        if !self.wiped && now.mono_ns.saturating_sub(self.wiped_ns) >= WIPE_EVERY_NS {
            self.wipe_received(now);
        }
    }

    /// Wipes what the receive buffers hold of datagrams that were handled, so that nothing stays in them for longer than two such looks.
    /// Where more than half of them was written since the last, the kernel does that by itself, and wiping would cost as much memory traffic
    /// again: at a gigabit per second it does not run.
    fn wipe_received(&mut self, now: Now) {
        let received = self.core.received_bytes();
        let came = received.saturating_sub(self.wiped_bytes);
        (self.wiped_ns, self.wiped_bytes) = (now.mono_ns, received);
        if came < self.receive_bytes / 2 {
            self.wiped = self.ring.wipe_idle();
        }
    }

    fn note_kernel_drops(&mut self) {
        let drops = (0..self.sockets)
            .map(|socket| self.ring.kernel_drops(socket))
            .sum();
        self.core.note_kernel_drops(drops);
    }

    fn publish_if_due(&mut self, now: Now) {
        if let Some(stray) = self.core.take_stray() {
            self.outside.port.stray(stray);
        }
        self.reload
            .take_if(|(registry, _)| self.core.is_in_force(registry));
        if now.mono_ns.saturating_sub(self.published_ns) >= PUBLISH_NS {
            self.published_ns = now.mono_ns;
            self.core.note_ring_enters(self.ring.counters().enters);
            self.outside.port.publish(self.core.snapshot(now));
        }
    }

    /// Moves a stop along; true once everything is durable, or nothing more will be.
    fn ended(&mut self, now: Now) -> bool {
        match self.stop {
            Stop::No => {}
            Stop::Draining if !self.ring.is_receiving() => {
                self.links.receiving_ended();
                self.stop = Stop::Waiting;
            }
            Stop::Waiting if self.links.all_ended() => {
                self.take_rehomed(now);
                self.core.stop();
                self.stop = Stop::Settling {
                    since_ns: now.mono_ns,
                    durable_bytes: self.core.durable_bytes(),
                };
            }
            Stop::Settling {
                since_ns,
                durable_bytes,
            } => {
                if self.core.is_settled() {
                    return true;
                }
                let durable_now = self.core.durable_bytes();
                if durable_now != durable_bytes {
                    self.stop = Stop::Settling {
                        since_ns: now.mono_ns,
                        durable_bytes: durable_now,
                    };
                } else if now.mono_ns.saturating_sub(since_ns) >= STOP_STALL_NS {
                    return true;
                }
            }
            Stop::Draining | Stop::Waiting => {}
        }
        false
    }

    fn end(mut self, failure: Option<io::Error>) -> Ended {
        self.links.receiving_ended();
        self.note_kernel_drops();
        self.core.finish(&mut self.outside);
        self.ring.wipe_idle();
        self.core.note_ring_enters(self.ring.counters().enters);
        let snapshot = self.core.snapshot(now()).clone();
        self.outside.port.publish(&snapshot);
        Ended {
            snapshot,
            streams: self.core.ledgers(),
            failure,
        }
    }
}

fn now() -> Now {
    Now {
        mono_ns: sys::monotonic_ns(),
        real_ns: sys::realtime_ns(),
    }
}

impl Exits {
    fn trouble(&self, message: String) {
        // Without a janitor nobody could read it; the shard records on.
        let _ = self.janitor.send(Note::Trouble(message));
    }
}

impl Exits {
    /// The result of an fdatasync, and a failure where the file has lost its name meanwhile: the kernel keeps a deleted file going, but
    /// what is only in it nobody will ever read, and so it is not durable. One fstat for each commit.
    fn still_named(&self, handle: Handle, result: i32) -> i32 {
        let open = self.files.get(&handle);
        let Some(deleted) = open.filter(|open| open.file.metadata().is_ok_and(|about| about.nlink() == 0))
        else {
            return result;
        };
        self.trouble(format!(
            "segment {} was deleted while it was being written; what was durable in it is gone, recording goes on in a new one",
            deleted.id
        ));
        -rustix::io::Errno::NOENT.raw_os_error()
    }
}

impl Outside for Exits {
    fn request(&mut self, request: Request) {
        // The keeper ends only after its shard; should it have died, the run ends with what is durable.
        if self.keeper.send(request).is_err() {
            self.trouble(format!("shard {}: its keeper is gone", self.shard));
        }
    }

    fn durable(&mut self, place: DurablePlace) {
        let DurablePlace {
            segment,
            offset,
            block_no,
        } = place;
        self.port.durable(Durable {
            shard: self.shard,
            segment,
            offset,
            block_no,
        });
    }
}

/// The log's disk: writes and syncs go to the ring, the rest out of the shard.
struct RingDisk<'a> {
    ring: &'a mut Ring,
    outside: &'a mut Exits,
}

impl Outside for RingDisk<'_> {
    fn request(&mut self, request: Request) {
        self.outside.request(request);
    }

    fn durable(&mut self, place: DurablePlace) {
        self.outside.durable(place);
    }
}

impl Disk for RingDisk<'_> {
    fn write(
        &mut self,
        token: u32,
        segment: Handle,
        offset: u64,
        region: &Region,
        ranges: &[(usize, usize)],
    ) -> bool {
        let Some(OpenFile { file, .. }) = self.outside.files.get(&segment) else {
            return false;
        };
        let spans = ranges.iter().map(|&(offset, len)| Span { offset, len });
        self.ring
            .write(file, offset, region, spans, u64::from(token))
            .is_ok()
    }

    fn sync(&mut self, segment: Handle) -> bool {
        let Some(OpenFile { file, .. }) = self.outside.files.get(&segment) else {
            return false;
        };
        self.ring.sync(file, u64::from(segment.0)).is_ok()
    }
}
