//! The streams of one shard: who they are and what was counted.
//!
//! A slot is never given to another stream while a chunk of the old one is on its way, so an index stays valid from a
//! packet's arrival to the fdatasync that covers it. Slots of streams that ended keep their ledger for the end of the
//! run, until a camera that opens stream after stream makes them be folded together.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::FixedState;

use super::account::SequenceAccount;
use super::registry::{MAX_STREAMS_PER_CAMERA, Media, Registry};
use crate::ledger::{Dropped, Reason, StreamLedger};

/// A stream silent for this long may give its slot to another of the same camera, in nanoseconds.
const IDLE_NS: u64 = 10_000_000_000;
/// A stream heard within this time counts as active, in nanoseconds.
pub const ACTIVE_NS: u64 = 5_000_000_000;

/// One SSRC of one camera.
pub struct Stream {
    /// Index of its camera in the registry in force; `None` once the configuration has dropped it.
    pub camera: Option<u32>,
    /// Synchronisation source.
    pub ssrc: u32,
    /// From where its RTP was admitted last.
    pub source: Option<SocketAddr>,
    /// What it carries.
    pub media: Media,
    /// Arrival of its first packet, realtime.
    pub opened_ns: u64,
    /// Its latest packet, monotonic.
    pub last_packet_ns: u64,
    /// The sequence account.
    pub account: SequenceAccount,
    /// Packets received.
    pub received: u64,
    /// Packets durable.
    pub stored: u64,
    /// Packets dropped.
    pub dropped: Dropped,
    /// Chunks sealed in this run.
    pub chunks_sealed: u64,
    /// Chunks of it that are open, waiting or on their way to the disk.
    pub chunks: u32,
    /// Loss already told in a chunk's `lost_before`.
    pub lost_told: u64,
    /// Packets of it in the hold queue.
    pub held: u32,
}

impl Stream {
    /// What a chunk says as its `lost_before`: the loss up to its end, `lost`, less what earlier ones told. Late packets may take back loss
    /// that was already told: then nothing is told until the sum is right again.
    pub fn take_lost(&mut self, lost: u64) -> u32 {
        let untold = u32::try_from(lost.saturating_sub(self.lost_told)).unwrap_or(u32::MAX);
        self.lost_told += u64::from(untold);
        untold
    }

    fn ledger(&self, shard: u16) -> StreamLedger {
        StreamLedger {
            shard,
            ssrc: self.ssrc,
            received: self.received,
            stored: self.stored,
            dropped: self.dropped,
            account: self.account.counts(),
            jitter_rtp: self.account.jitter_rtp(),
        }
    }

    fn is_evictable(&self, now_ns: u64) -> bool {
        self.chunks == 0 && self.held == 0 && now_ns.saturating_sub(self.last_packet_ns) >= IDLE_NS
    }
}

/// All streams of a shard.
#[derive(Default)]
pub struct Streams {
    slots: Vec<Stream>,
    by_name: HashMap<(u32, u32), u32, FixedState>,
    /// Slots per camera of the registry in force.
    per_camera: HashMap<u32, Vec<u32>, FixedState>,
    /// Streams whose slot went to another one, summed up.
    ended: Option<StreamLedger>,
}

impl Streams {
    /// The stream of `camera` with this SSRC.
    #[inline]
    pub fn find(&self, camera: u32, ssrc: u32) -> Option<u32> {
        self.by_name.get(&(camera, ssrc)).copied()
    }

    /// Opens a stream. `Err` when the camera has as many as it may and none of them is idle. `Ok((index, reused))`:
    /// a reused slot must be forgotten by whoever remembers its index.
    pub fn open(
        &mut self,
        camera: u32,
        ssrc: u32,
        media: Media,
        arrival_ns: u64,
        now_ns: u64,
    ) -> Result<(u32, bool), Reason> {
        let stream = Stream {
            camera: Some(camera),
            ssrc,
            source: None,
            media,
            opened_ns: arrival_ns,
            last_packet_ns: now_ns,
            account: SequenceAccount::new(media.clock_rate_hz),
            received: 0,
            stored: 0,
            dropped: Dropped::default(),
            chunks_sealed: 0,
            chunks: 0,
            lost_told: 0,
            held: 0,
        };
        let of_camera = self.per_camera.entry(camera).or_default();
        if of_camera.len() < MAX_STREAMS_PER_CAMERA {
            let index = self.slots.len() as u32;
            of_camera.push(index);
            self.slots.push(stream);
            self.by_name.insert((camera, ssrc), index);
            return Ok((index, false));
        }
        let slots = &self.slots;
        let idle = of_camera
            .iter()
            .copied()
            .filter(|i| slots[*i as usize].is_evictable(now_ns));
        let index = idle
            .min_by_key(|i| slots[*i as usize].last_packet_ns)
            .ok_or(Reason::TooManyStreams)?;
        let old = std::mem::replace(&mut self.slots[index as usize], stream);
        self.by_name.remove(&(camera, old.ssrc));
        self.by_name.insert((camera, ssrc), index);
        self.fold(&old);
        Ok((index, true))
    }

    /// Adopts another registry: `remap[old camera]` is the camera's new index, or `None` if it is gone.
    pub fn remap(&mut self, remap: &[Option<u32>]) {
        self.by_name.clear();
        self.per_camera.clear();
        for (index, stream) in (0u32..).zip(&mut self.slots) {
            stream.camera = stream
                .camera
                .and_then(|camera| remap.get(camera as usize).copied().flatten());
            if let Some(camera) = stream.camera {
                self.by_name.insert((camera, stream.ssrc), index);
                self.per_camera.entry(camera).or_default().push(index);
            }
        }
    }

    /// What each stream carries, as the registry now in force has it: a session description may have changed.
    pub fn renew_media(&mut self, registry: &Registry) {
        for stream in &mut self.slots {
            let Some(camera) = stream.camera.map(|camera| &registry.cameras[camera as usize]) else {
                continue;
            };
            let listed = camera.streams.iter().find(|listed| listed.ssrc == stream.ssrc);
            stream.media = listed.map_or(camera.unlisted, |listed| listed.media);
        }
    }

    /// The ledger of every stream there was.
    pub fn ledgers(&self, shard: u16) -> Vec<StreamLedger> {
        let ended = self.ended.clone().map(|ended| StreamLedger { shard, ..ended });
        self.slots
            .iter()
            .map(|stream| stream.ledger(shard))
            .chain(ended)
            .collect()
    }

    /// Streams, with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Stream)> {
        (0u32..).zip(&self.slots)
    }

    /// Loss and the like of streams that have no slot any more.
    pub fn ended(&self) -> Option<&StreamLedger> {
        self.ended.as_ref()
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no stream was ever opened.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn fold(&mut self, old: &Stream) {
        let ledger = old.ledger(0);
        let sum = self.ended.get_or_insert_with(StreamLedger::default);
        sum.received += ledger.received;
        sum.stored += ledger.stored;
        sum.dropped.merge(&ledger.dropped);
        sum.account.lost += ledger.account.lost;
        sum.account.duplicates += ledger.account.duplicates;
        sum.account.reordered += ledger.account.reordered;
        sum.account.restarts += ledger.account.restarts;
    }
}

impl std::ops::Index<u32> for Streams {
    type Output = Stream;
    fn index(&self, index: u32) -> &Stream {
        &self.slots[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Streams {
    fn index_mut(&mut self, index: u32) -> &mut Stream {
        &mut self.slots[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_that_changes_its_ssrc_for_ever_is_bounded_and_its_ledger_kept() {
        let mut streams = Streams::default();
        let mut now_ns = 0;
        for ssrc in 0..100 {
            now_ns += IDLE_NS;
            let (index, reused) = streams
                .open(0, ssrc, Media::UNKNOWN, 1, now_ns)
                .expect("an idle slot is free");
            assert_eq!(reused, ssrc >= MAX_STREAMS_PER_CAMERA as u32);
            streams[index].received = 1;
        }
        assert_eq!(streams.len(), MAX_STREAMS_PER_CAMERA);
        assert_eq!(
            streams
                .ledgers(0)
                .iter()
                .map(|ledger| ledger.received)
                .sum::<u64>(),
            100
        );
        assert_eq!(
            streams.open(0, 1000, Media::UNKNOWN, 1, now_ns).map(|_| ()),
            Ok(())
        );
        for ssrc in 2000..2000 + MAX_STREAMS_PER_CAMERA as u32 {
            let _ = streams.open(1, ssrc, Media::UNKNOWN, 1, now_ns);
        }
        let refused = streams.open(1, 3000, Media::UNKNOWN, 1, now_ns + 1);
        assert_eq!(
            refused.map(|_| ()),
            Err(Reason::TooManyStreams),
            "none of its streams is idle"
        );
    }
}
