//! The pool: one region of locked memory, handed out in buffers of 4 to 64 KiB.
//!
//! The region is preallocated and never grown, so that what is on its way to the disk can never exceed what the configuration allows. It
//! is a row of slabs of 64 KiB; a slab is one buffer, or is halved as often as a smaller one needs, and becomes whole again as its parts
//! come back (buddy allocation, Knuth TAOCP 1, §2.5). A chunk lives no longer than its deadline and a commit, so slabs do become whole.
//!
//! ```text
//! node                     1                          64 KiB   order 4
//!              2                       3              32 KiB         3
//!        4           5           6           7        16 KiB         2
//!     8     9    10    11    12    13    14    15      8 KiB         1
//!   16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31    4 KiB         0
//! ```
//! What is free of a slab is one word: bit n is set where node n is free as a whole and no node above it is. The buddy of n is n ^ 1, the
//! node above n / 2.
//!
//! Invariants: a slab stands on the shelf of its largest free order, or on none; `free_bytes` is the sum of all free nodes; a
//! [`BufferId`] is the only right to its bytes, which belong to no free node.

use std::num::NonZeroU32;

use harborseal_segment::block::{BLOCK_ALIGN, CHUNK_LEN};

use crate::uring::memory::Region;

/// Size of the largest buffer and so of the largest chunk the engine writes, in bytes.
///
/// 64 KiB fill in half a second at 1 Mb/s, the deadline; the format allows up to 1 MiB.
pub const BUFFER_BYTES: usize = CHUNK_LEN;
/// Size of the smallest buffer, in bytes: a block is a multiple of it.
pub const LEAST_BUFFER_BYTES: usize = BLOCK_ALIGN;

/// Sizes there are: each is twice the one before it.
const ORDERS: usize = 5;
const _: () = assert!(LEAST_BUFFER_BYTES << (ORDERS - 1) == BUFFER_BYTES);

/// The right to one buffer of the pool: which page it begins at, and its order. It is neither `Clone` nor `Copy`: it moves from the open
/// chunk to the log and back to the pool, and while the kernel reads the buffer only the log holds it.
///
/// ```text
/// page u29 · order + 1 u3      2 TiB of pool; never 0, so that an Option of it costs nothing
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct BufferId(NonZeroU32);

impl BufferId {
    fn new(slab: u32, node: u32) -> BufferId {
        let order = order_of_node(node);
        let page = slab * SLAB_PAGES + ((node << order) - SLAB_PAGES);
        BufferId(NonZeroU32::new(page << 3 | (order + 1)).expect("order + 1 is not 0"))
    }

    /// Where the buffer begins in the pool's region, in bytes.
    #[inline]
    pub fn offset(&self) -> usize {
        (self.0.get() >> 3) as usize * LEAST_BUFFER_BYTES
    }

    /// Its size in bytes: a power of two from [`LEAST_BUFFER_BYTES`] to [`BUFFER_BYTES`].
    #[inline]
    #[allow(clippy::len_without_is_empty)] // no buffer is empty
    pub fn len(&self) -> usize {
        LEAST_BUFFER_BYTES << self.order()
    }

    #[inline]
    fn order(&self) -> u32 {
        (self.0.get() & 7) - 1
    }

    /// Its slab, and its node there.
    fn place(&self) -> (u32, u32) {
        let page = self.0.get() >> 3;
        (
            page / SLAB_PAGES,
            (page % SLAB_PAGES + SLAB_PAGES) >> self.order(),
        )
    }

    /// A second right to the same buffer: what must not be ([`crate::planted`]).
    #[cfg(feature = "planted-faults")]
    pub(crate) fn twin(&self) -> BufferId {
        BufferId(self.0)
    }
}

/// Smallest buffers in a slab; the number of its first leaf, too.
const SLAB_PAGES: u32 = (BUFFER_BYTES / LEAST_BUFFER_BYTES) as u32;
const _: () = assert!(SLAB_PAGES == 16, "the nodes of a slab fit one word");
/// A slab nothing of which is in use: node 1.
const WHOLE: u32 = 1 << 1;

/// Node 1 is of order 4, nodes 16 to 31 are of order 0.
fn order_of_node(node: u32) -> u32 {
    ORDERS as u32 - 1 - node.ilog2()
}

/// The bits of all nodes of `order`.
fn nodes_of(order: usize) -> u32 {
    let (first, count) = (SLAB_PAGES >> order, SLAB_PAGES >> order);
    (u32::MAX >> (32 - count)) << first
}

/// The largest order free in a slab. Lower nodes are larger.
fn largest(free: u32) -> Option<usize> {
    (free != 0).then(|| order_of_node(free.trailing_zeros()) as usize)
}

/// The least order of at least `len` bytes; the largest for more than fits.
fn order_for(len: usize) -> usize {
    let pages = len.div_ceil(LEAST_BUFFER_BYTES).max(1).next_power_of_two();
    (pages.ilog2() as usize).min(ORDERS - 1)
}

/// The bounded pool of chunk buffers.
pub struct Pool {
    region: Region,
    /// What is free of each slab: a bit for each node.
    free: Vec<u32>,
    /// Slabs by their largest free order.
    shelves: [Vec<u32>; ORDERS],
    /// Where each slab stands on its shelf.
    places: Vec<u32>,
    free_bytes: usize,
}

impl Pool {
    /// Divides `region` into slabs. What does not fill a slab at its end is left unused.
    pub fn new(region: Region) -> Self {
        let slabs = (region.bytes().len() / BUFFER_BYTES) as u32;
        let mut shelves: [Vec<u32>; ORDERS] = Default::default();
        // Handed out from the lowest address, so that a lightly loaded engine touches little memory.
        shelves[ORDERS - 1] = (0..slabs).rev().collect();
        Pool {
            region,
            free: vec![WHOLE; slabs as usize],
            shelves,
            places: (0..slabs).rev().collect(),
            free_bytes: slabs as usize * BUFFER_BYTES,
        }
    }

    /// Takes a buffer of at least `len` bytes, [`BUFFER_BYTES`] at most; its content is whatever was left in it.
    pub fn take(&mut self, len: usize) -> Option<BufferId> {
        let order = order_for(len);
        let shelf = (order..ORDERS).find(|shelf| !self.shelves[*shelf].is_empty())?;
        Some(self.take_from(shelf, order))
    }

    /// Takes a buffer of at least `len` bytes, or where there is none the largest there is.
    pub fn take_most(&mut self, len: usize) -> Option<BufferId> {
        self.take(len).or_else(|| {
            let shelf = (0..order_for(len))
                .rev()
                .find(|shelf| !self.shelves[*shelf].is_empty())?;
            Some(self.take_from(shelf, shelf))
        })
    }

    /// Takes a buffer of `order` from the last slab of `shelf`, which has one at least as large.
    fn take_from(&mut self, shelf: usize, order: usize) -> BufferId {
        let slab = *self.shelves[shelf].last().expect("the caller saw a slab there");
        let was = self.free[slab as usize];
        // The smallest part that is large enough: what is still whole stays whole.
        let fitting = (order..ORDERS)
            .map(|order| was & nodes_of(order))
            .find(|nodes| *nodes != 0)
            .expect("a slab stands on the shelf of its largest free order");
        let mut node = fitting.trailing_zeros();
        let mut free = was & !(1 << node);
        while order_of_node(node) as usize > order {
            node *= 2;
            free |= 1 << (node + 1);
        }
        self.put(slab, was, free);
        let buffer = BufferId::new(slab, node);
        self.free_bytes -= buffer.len();
        buffer
    }

    /// Gives a buffer back.
    pub fn give(&mut self, buffer: BufferId) {
        self.free_bytes += buffer.len();
        let (slab, mut node) = buffer.place();
        let was = self.free[slab as usize];
        let mut free = was;
        debug_assert!(
            (0..ORDERS as u32).all(|up| free >> (node >> up) & 1 == 0 || node >> up == 0),
            "a buffer was given back twice"
        );
        while node > 1 && free >> (node ^ 1) & 1 == 1 {
            free &= !(1 << (node ^ 1));
            node /= 2;
        }
        free |= 1 << node;
        self.put(slab, was, free);
    }

    /// Notes what is free of a slab, and moves it to the shelf where it belongs now.
    fn put(&mut self, slab: u32, was: u32, free: u32) {
        self.free[slab as usize] = free;
        let (from, to) = (largest(was), largest(free));
        if from == to {
            return;
        }
        if let Some(from) = from {
            let place = self.places[slab as usize];
            let shelf = &mut self.shelves[from];
            shelf.swap_remove(place as usize);
            if let Some(moved) = shelf.get(place as usize) {
                self.places[*moved as usize] = place;
            }
        }
        if let Some(to) = to {
            self.places[slab as usize] = self.shelves[to].len() as u32;
            self.shelves[to].push(slab);
        }
    }

    /// The bytes of one buffer.
    #[inline]
    pub fn bytes_mut(&mut self, buffer: &BufferId) -> &mut [u8] {
        let at = buffer.offset();
        &mut self.region.bytes_mut()[at..at + buffer.len()]
    }

    /// The bytes of one buffer, to read.
    #[inline]
    pub fn bytes(&self, buffer: &BufferId) -> &[u8] {
        let at = buffer.offset();
        &self.region.bytes()[at..at + buffer.len()]
    }

    /// Copies `len` bytes from one buffer into another, and wipes them where they were: plaintext stands in one place.
    pub fn transfer(&mut self, from: (&BufferId, usize), to: (&BufferId, usize), len: usize) {
        let (source, target) = (&self.bytes(from.0)[from.1..][..len], from.0.offset() + from.1);
        debug_assert_eq!(source.len(), len);
        let at = to.0.offset() + to.1;
        assert!(to.1 + len <= to.0.len(), "it fits where it goes");
        let bytes = self.region.bytes_mut();
        bytes.copy_within(target..target + len, at);
        crate::uring::memory::wipe(&mut bytes[target..target + len]);
    }

    /// The memory behind the pool, for the ring to write from.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Bytes free now, in buffers of whatever size.
    #[inline]
    pub fn free_bytes(&self) -> usize {
        self.free_bytes
    }

    /// Bytes in all.
    #[inline]
    pub fn total_bytes(&self) -> usize {
        self.free.len() * BUFFER_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uring::memory::{Huge, RegionOptions};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn pool(slabs: usize) -> Pool {
        let region = Region::new(RegionOptions {
            bytes: slabs * BUFFER_BYTES,
            lock: false,
            huge: Huge::None,
            wipe_on_drop: false,
        });
        Pool::new(region.expect("a little memory"))
    }

    /// What the words say, counted the slow way.
    fn check(pool: &Pool, out: &[BufferId]) {
        let mut used = vec![false; pool.total_bytes() / LEAST_BUFFER_BYTES];
        for buffer in out {
            let pages = buffer.offset() / LEAST_BUFFER_BYTES;
            assert_eq!(buffer.offset() % buffer.len(), 0, "aligned to its own size");
            for page in &mut used[pages..pages + buffer.len() / LEAST_BUFFER_BYTES] {
                assert!(!std::mem::replace(page, true), "two buffers share a page");
            }
        }
        let taken: usize = out.iter().map(BufferId::len).sum();
        assert_eq!(pool.free_bytes(), pool.total_bytes() - taken);
        for (slab, free) in (0u32..).zip(&pool.free) {
            let pages = (1..32).filter(|node| free >> node & 1 == 1).flat_map(|node| {
                let first = (node << order_of_node(node)) - SLAB_PAGES;
                (first..first + (1 << order_of_node(node))).map(move |page| slab * SLAB_PAGES + page)
            });
            for page in pages {
                assert!(
                    !std::mem::replace(&mut used[page as usize], true),
                    "free and in use"
                );
            }
            let buddies = (2..32)
                .step_by(2)
                .any(|node| free >> node & 1 == 1 && free >> (node + 1) & 1 == 1);
            assert!(!buddies, "two free halves are one free whole");
            if let Some(order) = largest(*free) {
                assert_eq!(
                    pool.shelves[order][pool.places[slab as usize] as usize], slab,
                    "on its shelf"
                );
            }
        }
        assert!(used.into_iter().all(|page| page), "every page is in use or free");
    }

    #[test]
    fn a_buffer_is_as_large_as_asked_for_and_no_larger_than_needed() {
        let mut pool = pool(2);
        for (asked, given) in [
            (1, 4096),
            (4096, 4096),
            (4097, 8192),
            (12_288, 16_384),
            (65_536, 65_536),
        ] {
            let buffer = pool.take(asked).expect("there is room");
            assert_eq!(pool.bytes(&buffer).len(), given);
            pool.give(buffer);
        }
        assert_eq!(pool.free, [WHOLE, WHOLE]);
    }

    #[test]
    fn small_buffers_share_a_slab_and_leave_the_others_whole() {
        let mut pool = pool(2);
        let small: Vec<_> = (0..16)
            .map(|_| pool.take(1).expect("one slab is 16 of them"))
            .collect();
        assert!(pool.take(BUFFER_BYTES).is_some(), "the other is whole");
        assert_eq!(pool.take(1), None);
        assert_eq!(pool.take_most(BUFFER_BYTES), None);
        small.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.free_bytes(), BUFFER_BYTES);
        assert!(pool.take(BUFFER_BYTES).is_some(), "it became whole again");
    }

    #[test]
    fn where_nothing_large_is_left_the_largest_is_given() {
        let mut pool = pool(1);
        let _small = pool.take(1).expect("a whole slab");
        assert_eq!(pool.take(BUFFER_BYTES), None);
        assert_eq!(
            pool.take_most(BUFFER_BYTES).map(|buffer| buffer.len()),
            Some(32_768)
        );
        assert_eq!(
            pool.take_most(BUFFER_BYTES).map(|buffer| buffer.len()),
            Some(16_384)
        );
    }

    #[test]
    fn what_moves_is_wiped_where_it_was() {
        let mut pool = pool(1);
        let (small, large) = (pool.take(4096).expect("room"), pool.take(8192).expect("room"));
        pool.bytes_mut(&small).fill(7);
        pool.bytes_mut(&large).fill(0);
        pool.transfer((&small, 96), (&large, 128), 4000);
        assert!(pool.bytes(&small)[..96].iter().all(|byte| *byte == 7));
        assert!(pool.bytes(&small)[96..].iter().all(|byte| *byte == 0));
        assert!(pool.bytes(&large)[128..4128].iter().all(|byte| *byte == 7));
        assert!(pool.bytes(&large)[4128..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn whatever_comes_and_goes_no_page_is_lost_or_given_twice() {
        let mut rng = StdRng::seed_from_u64(5);
        let mut pool = pool(9);
        let mut out: Vec<BufferId> = Vec::new();
        for _ in 0..20_000 {
            if rng.random_bool(0.5) {
                let len = 1 << rng.random_range(8..=16);
                let most = rng.random_bool(0.3);
                out.extend(if most { pool.take_most(len) } else { pool.take(len) });
            } else if !out.is_empty() {
                pool.give(out.swap_remove(rng.random_range(0..out.len())));
            }
            check(&pool, &out);
        }
        out.drain(..).for_each(|buffer| pool.give(buffer));
        assert!(pool.free.iter().all(|free| *free == WHOLE));
    }
}
