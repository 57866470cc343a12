//! Between shards: packets handed to the shard that owns their stream, and how far each shard has got.
//!
//! No locks: a bounded queue per shard (`crossbeam`), an eventfd to wake it, and one time per shard and socket. Packets
//! travel in slots of a locked arena, for they are plaintext.
//!
//! Ordering. `progress[s][k]` promises that shard `s` has processed every datagram that arrived at its socket `k` up to that time, and
//! has queued what it had to hand over. It is stored with Release after the queue's push and read with Acquire before the queue is emptied;
//! so whoever reads a time and then empties its queue has every handed-over packet that arrived before it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use super::core::{Datagram, Neighbours};
use crate::uring::slots::{Slot, SlotArena};
use crate::uring::sys::Waker;

/// Packets up to this size travel in small slots: any packet of a 1,500-byte network.
const SMALL_SLOT_BYTES: usize = 2048;
const SMALL_SLOTS: u32 = 1024;
/// Larger ones, up to the largest UDP payload.
const LARGE_SLOT_BYTES: usize = 64 * 1024;
const LARGE_SLOTS: u32 = 32;
/// What the arenas of one shard take of the memory limit: 4 MiB.
pub const ARENA_BYTES: usize =
    SMALL_SLOT_BYTES * SMALL_SLOTS as usize + LARGE_SLOT_BYTES * LARGE_SLOTS as usize;

/// A packet on its way to the shard that owns its stream.
pub struct Rehomed {
    slot: Slot,
    socket: u16,
    from: SocketAddr,
    arrival_ns: u64,
}

impl Rehomed {
    /// The packet, as the shard that received it saw it.
    pub fn datagram(&self) -> Datagram<'_> {
        let Rehomed {
            socket,
            from,
            arrival_ns,
            ..
        } = *self;
        Datagram {
            socket,
            from,
            arrival_ns,
            gro_size: 0,
            rxq_ovfl: 0,
            truncated: false,
            data: self.slot.bytes(),
        }
    }
}

/// One shard's end of the links.
struct Inbox {
    queue: ArrayQueue<Rehomed>,
    waker: Waker,
    /// This shard holds packets until the others get further, and wants to hear of it.
    waits: CachePadded<AtomicBool>,
    /// Per socket: all that arrived up to this time is processed.
    progress: Vec<CachePadded<AtomicU64>>,
}

/// What all shards share.
struct Shared {
    inboxes: Vec<Inbox>,
    /// Shards that may still receive, and so hand over.
    receiving: AtomicUsize,
}

/// The links as one shard uses them.
pub struct Links {
    shared: Arc<Shared>,
    me: usize,
    small: SlotArena,
    small_slots: usize,
    large: SlotArena,
    /// Shards to wake after this batch.
    to_wake: Vec<bool>,
    latest: Vec<u64>,
    /// This shard has not said yet that its receiving ended.
    receiving: bool,
    /// Per socket: all shards had got past this time when [`Links::look`] was last called.
    passed: Vec<u64>,
}

/// Slots of one shard's arenas.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// For packets up to 2 KiB.
    pub small: u32,
    /// For larger ones.
    pub large: u32,
}

impl Slots {
    /// What the engine runs with; the simulator has fewer.
    pub const USUAL: Slots = Slots {
        small: SMALL_SLOTS,
        large: LARGE_SLOTS,
    };
}

/// Links for a set of shards with these wakers, and `sockets` sockets each.
pub fn connect(wakers: &[Waker], sockets: usize, slots: Slots, lock: bool) -> io::Result<Vec<Links>> {
    let inboxes = wakers.iter().map(|waker| Inbox {
        queue: ArrayQueue::new((slots.small + slots.large) as usize * wakers.len()),
        waker: waker.clone(),
        waits: CachePadded::new(AtomicBool::new(false)),
        progress: (0..sockets)
            .map(|_| CachePadded::new(AtomicU64::new(0)))
            .collect(),
    });
    let receiving = AtomicUsize::new(wakers.len());
    let shared = Arc::new(Shared {
        inboxes: inboxes.collect(),
        receiving,
    });
    // A single shard never hands over; its arenas are as small as can be.
    let Slots { small, large } = match wakers.len() {
        1 => Slots { small: 1, large: 1 },
        _ => slots,
    };
    (0..wakers.len())
        .map(|me| {
            Ok(Links {
                shared: Arc::clone(&shared),
                me,
                small: SlotArena::new(small, SMALL_SLOT_BYTES, lock)?,
                small_slots: small as usize,
                large: SlotArena::new(large, LARGE_SLOT_BYTES, lock)?,
                to_wake: vec![false; wakers.len()],
                latest: vec![0; sockets],
                receiving: true,
                passed: vec![0; sockets],
            })
        })
        .collect()
}

impl Links {
    /// Notes how far every shard has got. To be called before the queue is emptied, and not again until it is: only then does
    /// [`Neighbours::all_past`] mean that what was handed over has been taken too.
    pub fn look(&mut self) {
        for (socket, passed) in self.passed.iter_mut().enumerate() {
            let of_shard = |inbox: &Inbox| inbox.progress[socket].load(Ordering::Acquire);
            *passed = self.shared.inboxes.iter().map(of_shard).min().unwrap_or(u64::MAX);
        }
    }

    /// Takes the next packet another shard handed over.
    pub fn next_rehomed(&self) -> Option<Rehomed> {
        self.shared.inboxes[self.me].queue.pop()
    }

    /// Notes that a datagram was taken from a socket.
    pub fn note_arrival(&mut self, socket: u16, arrival_ns: u64) {
        let latest = &mut self.latest[usize::from(socket)];
        *latest = (*latest).max(arrival_ns);
    }

    /// After a batch: says how far each socket has got (`empty_since_ns` where it brought nothing though asked), wakes shards that
    /// were handed packets, and those that wait for this one's progress.
    pub fn publish(&mut self, mut empty_since_ns: impl FnMut(u16) -> Option<u64>) {
        if self.shared.inboxes.len() == 1 {
            return;
        }
        let mine = &self.shared.inboxes[self.me];
        for (socket, (progress, latest)) in (0u16..).zip(mine.progress.iter().zip(&self.latest)) {
            let upto = empty_since_ns(socket).unwrap_or(0).max(*latest);
            progress.fetch_max(upto, Ordering::Release);
        }
        for (shard, inbox) in self.shared.inboxes.iter().enumerate() {
            let handed = std::mem::take(&mut self.to_wake[shard]);
            if shard != self.me && (handed || inbox.waits.swap(false, Ordering::AcqRel)) {
                inbox.waker.wake();
            }
        }
    }

    /// This shard holds packets: the others are woken to tell how far they are, and wake it in turn.
    pub fn ask_for_progress(&self) {
        self.shared.inboxes[self.me].waits.store(true, Ordering::Release);
        for (shard, inbox) in self.shared.inboxes.iter().enumerate() {
            if shard != self.me {
                inbox.waker.wake();
            }
        }
    }

    /// This shard takes nothing from its sockets any more.
    pub fn receiving_ended(&mut self) {
        if !std::mem::take(&mut self.receiving) {
            return;
        }
        for progress in &self.shared.inboxes[self.me].progress {
            progress.store(u64::MAX, Ordering::Release);
        }
        self.shared.receiving.fetch_sub(1, Ordering::AcqRel);
        self.shared.inboxes.iter().for_each(|inbox| inbox.waker.wake());
    }

    /// Whether the memory packets travel in is locked.
    pub fn are_locked(&self) -> bool {
        self.small.report().locked && self.large.report().locked
    }

    /// Whether no shard can hand anything over any more. What was handed over before may still be queued.
    pub fn all_ended(&self) -> bool {
        self.shared.receiving.load(Ordering::Acquire) == 0
    }
}

/// A shard that ends by a panic must not keep the others waiting for what it might hand over.
impl Drop for Links {
    fn drop(&mut self) {
        self.receiving_ended();
    }
}

impl Neighbours for Links {
    fn hand_over(&mut self, owner: usize, datagram: &Datagram<'_>, data: &[u8]) -> bool {
        let arena = if data.len() <= SMALL_SLOT_BYTES {
            &self.small
        } else {
            &self.large
        };
        let Some(slot) = arena.put(data) else {
            return false;
        };
        let Datagram {
            socket,
            from,
            arrival_ns,
            ..
        } = *datagram;
        let queued = self.shared.inboxes[owner]
            .queue
            .push(Rehomed {
                slot,
                socket,
                from,
                arrival_ns,
            })
            .is_ok();
        self.to_wake[owner] |= queued;
        if self.small.free() == self.small_slots / 2 {
            // A burst of mixed batches: the owner must begin to empty its queue before this one ends.
            self.shared.inboxes[owner].waker.wake();
        }
        queued
    }

    fn all_past(&self, socket: u16, arrival_ns: u64) -> bool {
        self.passed[usize::from(socket)] >= arrival_ns
    }
}
