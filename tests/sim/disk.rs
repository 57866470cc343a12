//! The disk as one shard's log sees it: writes and fsyncs that take their time, fail, and complete in any order.
//!
//! Besides carrying them out it watches what the log does: bytes in flight never change, nothing is written beyond the allocated end or
//! changed once written, and nothing is called durable that is not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use harborseal::log::{Disk, DurablePlace, Handle, Outside, Request};
use harborseal::uring::Region;
use harborseal_segment::block::{Header, SEGMENT_PREFIX_LEN};
use harborseal_segment::ids::SegmentId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::canary::Canary;
use super::plan::{DiskFaults, MS};
use super::platter::{FileId, Platter, SyncId, SyncKind, WriteId};
use super::tally::{Fired, Tally};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
/// Operations in flight that the ring has room for.
const RING_ENTRIES: usize = 24;
/// The longest that an operation takes, in nanoseconds; an fdatasync takes four times as long.
const MAX_DELAY_NS: u64 = 300 * MS;
/// What O_DIRECT asks of offsets and lengths, in bytes.
const DIRECT_ALIGN: u64 = 512;

/// A completion, as the ring reports it.
#[derive(Clone, Copy, Debug)]
pub enum Completion {
    /// Of a write: its token and result.
    Written(u32, i32),
    /// Of an fdatasync.
    Synced(Handle, i32),
}

enum What {
    Write {
        token: u32,
        write: WriteId,
        bytes: Rc<[u8]>,
        ranges: Vec<(usize, usize)>,
    },
    Sync {
        handle: Handle,
        sync: SyncId,
        lies: bool,
    },
}

struct Operation {
    serial: u64,
    due_ns: u64,
    result: i32,
    what: What,
}

/// One shard's way to its files.
pub struct SimDisk {
    platter: Rc<RefCell<Platter>>,
    files: HashMap<Handle, FileId>,
    ids: HashMap<SegmentId, FileId>,
    in_flight: Vec<Operation>,
    /// For the keeper, in order.
    pub requests: Vec<Request>,
    /// Something was refused for lack of room since this was last taken.
    pub refused: bool,
    faults: DiskFaults,
    /// Files that fail for good.
    broken: Vec<FileId>,
    next_serial: u64,
    now_ns: u64,
    /// Faults end here, monotonic.
    quiet_ns: u64,
    canary: Option<Canary>,
    rng: StdRng,
    tally: Tally,
}

impl SimDisk {
    /// A disk without an open file.
    pub fn new(
        platter: Rc<RefCell<Platter>>,
        faults: DiskFaults,
        quiet_ns: u64,
        seed: u64,
        canary: Option<Canary>,
        tally: Tally,
    ) -> Self {
        SimDisk {
            platter,
            files: HashMap::new(),
            ids: HashMap::new(),
            in_flight: Vec::new(),
            requests: Vec::new(),
            refused: false,
            faults,
            broken: Vec::new(),
            next_serial: 0,
            now_ns: 0,
            quiet_ns,
            canary,
            rng: StdRng::seed_from_u64(seed),
            tally,
        }
    }

    /// The file behind a handle is ready.
    pub fn opened(&mut self, handle: Handle, segment: SegmentId, file: FileId) {
        self.platter.borrow_mut().file_mut(file).in_use = true;
        self.files.insert(handle, file);
        let other = self.ids.insert(segment, file);
        assert!(other.is_none(), "segment id {segment} was drawn twice");
    }

    /// The keeper has the file back.
    pub fn released(&mut self, handle: Handle) {
        self.files.remove(&handle);
    }

    /// Faults are over, but for what they broke.
    pub fn end_of_faults(&mut self, now_ns: u64) {
        self.quiet_ns = self.quiet_ns.min(now_ns);
    }

    /// The process ends: the kernel finishes what it was given before the files are closed, and nobody hears of it.
    pub fn close(&mut self) {
        let mut platter = self.platter.borrow_mut();
        for operation in self.in_flight.drain(..) {
            if let What::Write { write, .. } = operation.what {
                platter.land(write, operation.result.max(0) as usize);
            }
        }
    }

    /// What time it is.
    pub fn set_now(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// When the next operation completes.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.in_flight.iter().map(|operation| operation.due_ns).min()
    }

    /// What has completed by now, in the order in which the ring reports it. `pool` is the memory that writes are made from.
    pub fn complete(&mut self, pool: &Region) -> Vec<Completion> {
        let (mut due, rest): (Vec<_>, Vec<_>) = self
            .in_flight
            .drain(..)
            .partition(|operation| operation.due_ns <= self.now_ns);
        self.in_flight = rest;
        due.sort_by_key(|operation| operation.due_ns);
        let oldest = self.in_flight.iter().map(|operation| operation.serial).min();
        let overtaking = due
            .iter()
            .filter(|operation| oldest.is_some_and(|oldest| operation.serial > oldest));
        self.tally
            .add(Fired::ReorderedCompletion, overtaking.count() as u64);
        due.into_iter()
            .filter_map(|operation| self.finish(operation, pool))
            .collect()
    }

    fn finish(&mut self, operation: Operation, pool: &Region) -> Option<Completion> {
        let Operation { result, what, .. } = operation;
        let mut platter = self.platter.borrow_mut();
        let now_ns = self.now_ns;
        let completion = match what {
            What::Write {
                token,
                write,
                bytes,
                ranges,
            } => {
                let mut at = 0;
                for (offset, len) in ranges {
                    let now = &pool.bytes()[offset..offset + len];
                    assert!(
                        now == &bytes[at..at + len],
                        "bytes of a write in flight were changed"
                    );
                    at += len;
                }
                let early = self.canary == Some(Canary::WriteCompletesEarly) && self.rng.random_bool(0.3);
                platter.land(write, if early { 0 } else { result.max(0) as usize });
                if result != bytes.len() as i32 {
                    self.tally.tell(now_ns, || {
                        format!("disk: write {token} of {} bytes: {result}", bytes.len())
                    });
                }
                Completion::Written(token, result)
            }
            What::Sync { handle, sync, lies } => {
                match result {
                    0 if self.canary == Some(Canary::SyncLies) => {}
                    0 if lies => platter.lie_sync(&sync),
                    0 => platter.end_sync(&sync),
                    _ => platter.fail_sync(&sync),
                }
                if result != 0 {
                    self.tally
                        .tell(now_ns, || format!("disk: fdatasync of {handle:?}: {result}"));
                }
                Completion::Synced(handle, result)
            }
        };
        let lost = self.canary == Some(Canary::CompletionLost) && self.rng.random_bool(0.2);
        (!lost).then_some(completion)
    }

    fn submit(&mut self, due_ns: u64, result: i32, what: What) {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.in_flight.push(Operation {
            serial,
            due_ns,
            result,
            what,
        });
    }

    fn active(&self) -> bool {
        self.now_ns < self.quiet_ns
    }

    fn chance(&mut self, probability: f64, fired: Fired) -> bool {
        let fires = self.active() && self.rng.random_bool(probability);
        if fires {
            self.tally.fire(fired);
        }
        fires
    }

    fn delay_ns(&mut self) -> u64 {
        let late = self.active() && self.rng.random_bool(self.faults.late);
        let usual = self.rng.random_range(30_000..400_000) * if late { 50 } else { 1 };
        let (from, to) = self.faults.slow_ns;
        if (from..to).contains(&self.now_ns) && self.active() {
            self.tally.fire(Fired::SlowDisk);
            return (usual * self.rng.random_range(10..1000)).min(MAX_DELAY_NS);
        }
        usual
    }

    /// What a write of `len` bytes will come to.
    fn write_result(&mut self, file: FileId, len: usize) -> i32 {
        if self.broken.contains(&file) {
            return -EIO;
        }
        if self.chance(self.faults.sticky, Fired::EioSticky) {
            self.broken.push(file);
            return -EIO;
        }
        if self.chance(self.faults.once, Fired::EioOnce) {
            return -EIO;
        }
        if self.chance(self.faults.interrupted, Fired::Interrupted) {
            return if self.rng.random() { -EINTR } else { -EAGAIN };
        }
        if self.chance(self.faults.no_space, Fired::WriteNoSpace) {
            return -ENOSPC;
        }
        if self.chance(self.faults.short, Fired::ShortWrite) {
            let part = self.rng.random_range(0..len) as u64;
            return (part / DIRECT_ALIGN * DIRECT_ALIGN) as i32;
        }
        len as i32
    }
}

impl Outside for SimDisk {
    fn request(&mut self, request: Request) {
        self.requests.push(request);
    }

    fn durable(&mut self, place: DurablePlace) {
        let DurablePlace {
            segment,
            offset,
            block_no,
        } = place;
        let id = self.ids[&segment];
        let mut platter = self.platter.borrow_mut();
        let file = platter.file(id);
        assert!(
            file.lied || platter.is_durable(id, file.watermark, offset),
            "segment {segment} was called durable up to {offset} (block {block_no}) before it was"
        );
        let file = platter.file_mut(id);
        assert!(offset >= file.watermark, "the watermark of {segment} went back");
        let last = last_block(&file.image, file.watermark, offset, segment);
        let last =
            last.unwrap_or_else(|why| panic!("the watermark {offset} of {segment} stands amiss: {why}"));
        assert!(
            last.is_none_or(|last| last == block_no),
            "the last block below {offset} is not {block_no}, but {last:?}"
        );
        file.watermark = offset;
        if self.canary == Some(Canary::BitFlipped) && self.rng.random_bool(0.1) {
            platter.flip_bit(id, offset);
        }
    }
}

impl Disk for SimDisk {
    fn write(
        &mut self,
        token: u32,
        segment: Handle,
        offset: u64,
        region: &Region,
        ranges: &[(usize, usize)],
    ) -> bool {
        if self.in_flight.len() >= RING_ENTRIES || self.chance(self.faults.ring_full, Fired::RingFull) {
            self.refused = true;
            return false;
        }
        let id = self.files[&segment];
        let used =
            |operation: &Operation| matches!(operation.what, What::Write { token: t, .. } if t == token);
        assert!(
            !self.in_flight.iter().any(used),
            "token {token} is in flight twice"
        );
        let parts: Vec<&[u8]> = ranges
            .iter()
            .map(|(at, len)| &region.bytes()[*at..at + len])
            .collect();
        let bytes: Rc<[u8]> = parts.concat().into();
        let aligned = |(at, len): &(usize, usize)| (*at as u64 | *len as u64).is_multiple_of(DIRECT_ALIGN);
        let direct = offset.is_multiple_of(DIRECT_ALIGN) && ranges.iter().all(aligned);
        let result = if direct {
            self.write_result(id, bytes.len())
        } else {
            -EINVAL
        };
        let offset = match self.canary {
            Some(Canary::WriteMisplaced) if self.rng.random_bool(0.1) => offset - 4096,
            _ => offset,
        };
        let write = {
            let mut platter = self.platter.borrow_mut();
            let file = platter.file(id);
            let end = offset + bytes.len() as u64;
            assert!(
                end <= file.len,
                "a write up to {end} in a file of {} bytes",
                file.len
            );
            let known = file.image.get(offset as usize..).unwrap_or_default();
            let over = known
                .iter()
                .zip(&bytes[..])
                .all(|(old, new)| *old == 0 || old == new);
            assert!(
                over || self.canary.is_some(),
                "bytes at {offset} were written again and differ"
            );
            platter.begin_write(id, offset, &bytes)
        };
        let due_ns = self.now_ns + self.delay_ns();
        let what = What::Write {
            token,
            write,
            bytes,
            ranges: ranges.to_vec(),
        };
        self.submit(due_ns, result, what);
        true
    }

    fn sync(&mut self, segment: Handle) -> bool {
        if self.in_flight.len() >= RING_ENTRIES || self.chance(self.faults.ring_full, Fired::RingFull) {
            self.refused = true;
            return false;
        }
        let id = self.files[&segment];
        let failed = self.broken.contains(&id) || self.chance(self.faults.sync, Fired::SyncFailed);
        // A disk that lies does so whenever it likes, to the last.
        let lies = !failed && self.rng.random_bool(self.faults.lie);
        let sync = self.platter.borrow().begin_sync(id, SyncKind::Data);
        let due_ns = self.now_ns + 4 * self.delay_ns();
        let result = if failed { -EIO } else { 0 };
        let what = What::Sync {
            handle: segment,
            sync,
            lies,
        };
        self.submit(due_ns, result, what);
        true
    }
}

/// The number of the last block of `segment`'s own between two watermarks, if there is one; where it is not between blocks, what stands there.
fn last_block(image: &[u8], from: u64, to: u64, segment: SegmentId) -> Result<Option<u64>, String> {
    let mut at = from.max(SEGMENT_PREFIX_LEN as u64);
    let mut last = None;
    while at < to {
        let bytes = image.get(at as usize..).unwrap_or_default();
        let header = Header::parse(bytes).map_err(|error| format!("no block at {at}: {error}"))?;
        if header.segment_id == segment {
            last = Some(header.block_no);
        }
        at += u64::from(header.total_len);
    }
    if at == to {
        Ok(last)
    } else {
        Err(format!("a block ends at {at}"))
    }
}
