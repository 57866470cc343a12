//! From placed to durable: gathered writes, their retries, and the fdatasync that makes bytes durable.

use super::entry::What;
use super::segment::Stage;
use super::{
    Disk, DurablePlace, EAGAIN, EINTR, ENOSPC, GATHER_NS, Handle, Log, Now, Outcome, Outside, RETRY_NS,
    Request,
};
use crate::chunk::Pool;
use crate::planted::{Planted, planted};

/// Bytes gathered before a write is submitted without waiting: what one write may take less a full chunk, which might not fit any more.
const GATHER_BYTES: usize = MAX_WRITE_BYTES - 64 * 1024;
/// Most bytes in one write.
const MAX_WRITE_BYTES: usize = 1024 * 1024;
/// Most buffers in one write: a write of full chunks reaches [`MAX_WRITE_BYTES`] first.
const MAX_WRITE_BUFFERS: usize = 64;

/// A write the disk has not finished.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) segment: Handle,
    pub(super) first: u64,
    pub(super) count: usize,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) done: u64,
    pub(super) failed_once: bool,
    /// Waiting to be submitted (again) at this time.
    pub(super) resubmit_ns: Option<u64>,
}

impl Log {
    pub(super) fn submit_writes(&mut self, pool: &Pool, disk: &mut impl Disk, now: Now, flush: bool) {
        for token in 0..self.writes.len() {
            self.resubmit(token, pool, disk, now);
        }
        for at in 0..self.segments.len() {
            let draining = at + 1 < self.segments.len();
            while self.submit_one(at, pool, disk, now, flush || draining) {}
        }
    }

    fn resubmit(&mut self, token: usize, pool: &Pool, disk: &mut impl Disk, now: Now) {
        let Some(write) = self.writes[token]
            .as_ref()
            .filter(|w| w.resubmit_ns.is_some_and(|t| t <= now.mono_ns))
        else {
            return;
        };
        let Some(segment) = self
            .segments
            .iter()
            .find(|segment| segment.handle == write.segment)
        else {
            return;
        };
        if segment.failed() {
            self.fail_write(token as u32);
            return;
        }
        let mut ranges = [(0, 0); MAX_WRITE_BUFFERS];
        let mut count = 0;
        let mut skip = write.done as usize;
        for entry in segment.entries.range(write.first, write.count) {
            let len = entry.len as usize;
            if skip < len {
                ranges[count] = (entry.buffer.offset() + skip, len - skip);
                count += 1;
            }
            skip = skip.saturating_sub(len);
        }
        let offset = write.offset + write.done;
        if disk.write(
            token as u32,
            segment.handle,
            offset,
            pool.region(),
            &ranges[..count],
        ) && let Some(write) = self.writes[token].as_mut()
        {
            write.resubmit_ns = None;
        }
    }

    /// Submits one gathered write of segment `at`, if one is due and a slot is free.
    fn submit_one(&mut self, at: usize, pool: &Pool, disk: &mut impl Disk, now: Now, flush: bool) -> bool {
        let segment = &mut self.segments[at];
        let Some(token) = self.writes.iter().position(Option::is_none) else {
            return false;
        };
        if segment.stage == Stage::Failed {
            return false;
        }
        let mut ranges = [(0, 0); MAX_WRITE_BUFFERS];
        let (mut count, mut len, mut offset) = (0, 0, 0);
        for entry in segment.entries.pending() {
            if count == MAX_WRITE_BUFFERS || len + entry.len as usize > MAX_WRITE_BYTES {
                break;
            }
            if count == 0 {
                offset = entry.offset;
            }
            ranges[count] = (entry.buffer.offset(), entry.len as usize);
            count += 1;
            len += entry.len as usize;
        }
        // Of small chunks a write takes so many and no more: without this they would leave at one write in each GATHER_NS.
        let whole = len >= GATHER_BYTES || count == MAX_WRITE_BUFFERS;
        let ripe = flush || whole || now.mono_ns >= segment.pending_since_ns + GATHER_NS;
        if count == 0
            || !ripe
            || !disk.write(
                token as u32,
                segment.handle,
                offset,
                pool.region(),
                &ranges[..count],
            )
        {
            return false;
        }
        let first = segment.entries.submit(count);
        segment.writes_in_flight += 1;
        segment.pending_since_ns = now.mono_ns;
        self.writes[token] = Some(Write {
            segment: segment.handle,
            first,
            count,
            offset,
            len: len as u64,
            done: 0,
            failed_once: false,
            resubmit_ns: None,
        });
        true
    }

    /// A write completed: `result` is the number of bytes, or a negative errno.
    pub fn written(&mut self, token: u32, result: i32, now: Now) {
        let Some(handle) = self.writes[token as usize].as_ref().map(|write| write.segment) else {
            return;
        };
        let failed = self.segment_mut(handle).is_none_or(|segment| segment.failed());
        let Some(write) = self.writes[token as usize].as_mut() else {
            return;
        };
        if failed {
            self.fail_write(token); // whatever it wrote, its bytes go to another segment
            return;
        }
        if result > 0 {
            write.done += result as u64;
            if write.done < write.len && !planted(Planted::ShortWriteTakenForWhole) {
                write.resubmit_ns = Some(now.mono_ns); // a short write: the rest of the same bytes
                return;
            }
        } else {
            match -result {
                EINTR | EAGAIN => write.resubmit_ns = Some(now.mono_ns),
                ENOSPC => {
                    self.disk_full = true;
                    write.resubmit_ns = Some(now.mono_ns + RETRY_NS);
                }
                _ if !write.failed_once => {
                    write.failed_once = true;
                    write.resubmit_ns = Some(now.mono_ns);
                }
                _ => self.fail_write(token),
            }
            return;
        }
        let write = self.writes[token as usize]
            .take()
            .expect("it was there a moment ago");
        if let Some(segment) = self.segment_mut(write.segment) {
            segment.writes_in_flight -= 1;
            segment.entries.complete(write.first, write.count);
        }
    }

    fn fail_write(&mut self, token: u32) {
        let Some(write) = self.writes[token as usize].take() else {
            return;
        };
        if let Some(segment) = self.segment_mut(write.segment) {
            segment.writes_in_flight -= 1;
            segment.stage = Stage::Failed;
        }
    }

    pub(super) fn submit_syncs(&mut self, disk: &mut impl Disk, now: Now) {
        for segment in &mut self.segments {
            let due = now.mono_ns.saturating_sub(segment.last_sync_ns) >= self.limits.commit_interval_ns;
            let wanted = segment.stage == Stage::Good && segment.syncing_upto.is_none();
            let unsynced = segment.entries.has_unsynced() || planted(Planted::WatermarkAtWrite);
            let left_out = planted(Planted::FdatasyncLeftOut);
            if due && wanted && unsynced && (left_out || disk.sync(segment.handle)) {
                segment.syncing_upto = Some(segment.entries.written_upto());
                segment.last_sync_ns = now.mono_ns;
            }
        }
    }

    /// An fdatasync returned. Here, and nowhere else, written bytes become durable and their buffers free.
    pub fn synced(&mut self, handle: Handle, result: i32, pool: &mut Pool, outside: &mut impl Outside) {
        let Some(at) = self.segments.iter().position(|segment| segment.handle == handle) else {
            return;
        };
        let segment = &mut self.segments[at];
        let Some(asked_for) = segment.syncing_upto.take() else {
            return;
        };
        let upto = match planted(Planted::SyncCoversLaterWrites) {
            false => asked_for,
            true => segment.entries.written_upto(),
        };
        if result < 0 && planted(Planted::FailedSyncRetried) {
            return;
        }
        if result < 0 {
            segment.stage = Stage::Failed; // what the kernel has now is unknown: never ask it again
            return;
        }
        while let Some(entry) = segment.entries.pop_durable(upto) {
            if let Some(block_no) = entry.block_no {
                segment.watermark = entry.offset + u64::from(entry.len);
                segment.watermark_block_no = block_no;
            }
            self.durable_bytes += u64::from(entry.len);
            if !planted(Planted::BufferFreedEarly) {
                pool.give(entry.buffer);
            }
            if let What::Chunk(chunk) = entry.what {
                self.outcomes.push(Outcome {
                    chunk,
                    stored_len: entry.len,
                });
            }
        }
        let watermark = segment.watermark;
        segment.tombstones.retain(|(end, ticket, _)| {
            let durable = *end <= watermark;
            if durable {
                outside.request(Request::TombstonesDurable(*ticket));
            }
            !durable
        });
        segment.heads.retain(|(end, _)| *end > watermark);
        outside.durable(DurablePlace {
            segment: segment.id,
            offset: watermark,
            block_no: segment.watermark_block_no,
        });
    }

    /// Takes the chunks that became durable since the last call, in log order.
    pub fn drain_durable(&mut self) -> std::vec::Drain<'_, Outcome> {
        self.outcomes.drain(..)
    }
}
