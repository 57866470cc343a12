//! Fixed-size slots of locked memory that two shards pass between each other as owned tokens.
//!
//! A packet whose stream lives on another shard is copied into a slot, the slot goes through a queue, the
//! other shard reads it and drops it. At every moment a slot's bytes are reachable through one [`Slot`] at
//! most: its index is either in the free queue or inside exactly one token.

use std::io;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::memory::{Mapping, MemoryReport, RegionOptions, wipe_raw};

struct Shared {
    map: Mapping,
    slot_bytes: usize,
    free: ArrayQueue<u32>,
}

/// The arena; cloning shares it.
#[derive(Clone)]
pub struct SlotArena {
    shared: Arc<Shared>,
    report: MemoryReport,
}

/// Exclusive, owned access to one slot. Wiped and returned to the arena when dropped.
pub struct Slot {
    shared: Arc<Shared>,
    index: u32,
    /// Bytes in use, from the slot's start.
    len: usize,
}

impl SlotArena {
    /// `slots` slots of `slot_bytes` each (rounded up to 64, a cache line, so that no two shards share one).
    pub fn new(slots: u32, slot_bytes: usize, lock: bool) -> io::Result<SlotArena> {
        let slot_bytes = slot_bytes.max(1).next_multiple_of(64);
        let bytes = slot_bytes * slots.max(1) as usize;
        let (map, report) = Mapping::new(&RegionOptions {
            lock,
            ..RegionOptions::plaintext(bytes)
        })?;
        let free = ArrayQueue::new(slots.max(1) as usize);
        for index in 0..slots.max(1) {
            free.push(index)
                .expect("the queue holds exactly one entry per slot");
        }
        Ok(SlotArena {
            shared: Arc::new(Shared {
                map,
                slot_bytes,
                free,
            }),
            report,
        })
    }

    pub fn report(&self) -> MemoryReport {
        self.report
    }

    pub fn slot_bytes(&self) -> usize {
        self.shared.slot_bytes
    }

    /// Slots free at this moment; another thread may take one right after.
    pub fn free(&self) -> usize {
        self.shared.free.len()
    }

    /// Takes a free slot and copies `bytes` into it; `None` when all are taken or `bytes` does not fit.
    pub fn put(&self, bytes: &[u8]) -> Option<Slot> {
        if bytes.len() > self.shared.slot_bytes {
            return None;
        }
        let mut slot = self.take()?;
        slot.len = bytes.len();
        slot.bytes_mut().copy_from_slice(bytes);
        Some(slot)
    }

    /// Takes a free slot, empty; `None` when all are taken.
    pub fn take(&self) -> Option<Slot> {
        let index = self.shared.free.pop()?;
        Some(Slot {
            shared: Arc::clone(&self.shared),
            index,
            len: 0,
        })
    }
}

impl Slot {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: index < slots and len ≤ slot_bytes, so the range lies in the mapping, which `shared` keeps
        // alive. This token is the only one with this index, and `&self` allows only reads.
        unsafe { std::slice::from_raw_parts(self.base(), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` on the only token is exclusive access. The queue's release/acquire
        // pair orders the previous holder's last access before this one's first.
        unsafe { std::slice::from_raw_parts_mut(self.base(), self.len) }
    }

    /// Sets the length in use; the new bytes are zero. `false`, and nothing done, if it exceeds the slot.
    pub fn set_len(&mut self, len: usize) -> bool {
        if len > self.shared.slot_bytes {
            return false;
        }
        if len < self.len {
            let old = self.len;
            super::memory::wipe(&mut self.bytes_mut()[len..old]);
        }
        self.len = len;
        true
    }

    fn base(&self) -> *mut u8 {
        let offset = self.index as usize * self.shared.slot_bytes;
        // SAFETY: index came from the free queue, which only ever holds 0..slots, so the offset lies inside
        // the mapping of slots × slot_bytes.
        unsafe { self.shared.map.base().add(offset) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the range is this token's own slot, and the token is going away.
        unsafe { wipe_raw(self.base(), self.len) };
        self.shared
            .free
            .push(self.index)
            .expect("a slot is returned once, and the queue has room for every slot");
    }
}
