//! Pack and seal: from packets to finished blocks, which then are thrown away.

use harborseal::chunk::{BUFFER_BYTES, OpenChunk, Pool, RecordKind};
use harborseal::uring::{Huge, Region, RegionOptions};
use harborseal_segment::body::KeyEntry;
use harborseal_segment::body::StreamInfo;
use harborseal_segment::cipher::{Backend, SealKey};
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::{RunId, SegmentId, StreamId};
use harborseal_segment::keys::{Hint, SegmentSecret, StreamKeys, Wrap, wrap};
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::FixedBytes;
use harborseal_segment::writer::{ChunkPlan, Features, SegmentParams, SegmentWriter};

use super::Admitted;
use super::seal_times::{SealRates, SealTimes};

/// A chunk is finished at this age at the latest, as the engine does by default. Nanoseconds.
const DEADLINE_NS: u64 = 500_000_000;
const BEGAN_S: u64 = 1_795_000_000;
const SLOT: u32 = 5;

fn node() -> NodeKey {
    NodeKey::from_bytes(&[0x22; 32])
}

/// A writer and a key for each stream, as a segment has them.
pub struct Sealing {
    writer: SegmentWriter,
    keys: Vec<(u32, SealKey)>,
    times: Option<SealTimes>,
}

impl Sealing {
    pub fn new(streams: u32, backend: Backend) -> Sealing {
        let segment_id = SegmentId([0x10; 16]);
        let (mut writer, _) = SegmentWriter::new(SegmentParams {
            segment_id,
            node: node().public(),
            run_id: RunId([0x33; 16]),
            shard: 0,
            prev: SegmentId::ZERO,
            chain_seq: 0,
            created_s: BEGAN_S,
            features: Features::default(),
        });
        writer.reserve(1 << 18, streams as usize);
        let secret = || SegmentSecret::from_bytes([0xA0; 32]);
        writer.add_keys(&[key_entry(segment_id, &secret())], 0);
        let keys = (0..streams).map(|stream| {
            let stream_id = StreamId(u128::from(stream + 1).to_be_bytes());
            let keys = StreamKeys::derive(&segment_id, &secret(), &stream_id);
            let info = StreamInfo {
                ssrc: stream,
                media_index: 0,
                clock_rate: 90_000,
                opened_ns: BEGAN_S * 1_000_000_000,
                camera_id: format!("camera-{stream:05}"),
                sdp: "v=0\r\n".into(),
            };
            let key = keys.seal_key(backend);
            let (row, _, _) = writer.add_stream(stream_id, SLOT, &key, keys.commitment(), &info, 0);
            (row, key)
        });
        let keys = keys.collect();
        Sealing {
            writer,
            keys,
            times: None,
        }
    }

    /// The same, with some of the chunks timed.
    pub fn timed(self, backend: Backend) -> Sealing {
        Sealing {
            times: Some(SealTimes::new(backend)),
            ..self
        }
    }

    /// Seals a chunk whose body stands in `bytes`; the block's length.
    pub fn seal(&mut self, stream: u32, body_len: usize, bytes: &mut [u8]) -> u32 {
        let Sealing { writer, keys, times } = self;
        let (row, key) = &keys[stream as usize];
        let plan = ChunkPlan {
            row: *row,
            body_len,
            first_s: BEGAN_S,
            last_s: BEGAN_S,
            durable_4k: 0,
        };
        let mut seal = |bytes: &mut [u8]| writer.seal_chunk(plan, key, bytes).total_len;
        match times {
            None => seal(bytes),
            Some(times) => times.watch(key, body_len, bytes, seal),
        }
    }
}

/// For whom it is sealed: one customer, in one slot.
fn key_entry(segment_id: SegmentId, secret: &SegmentSecret) -> KeyEntry {
    let place = Wrap {
        node_id: node().public().id(),
        segment_id,
        slot: SLOT,
        i: 0,
        n: 1,
        erase: None,
    };
    let identity = Identity::generate(&mut FixedBytes(&[1; 64]));
    let hint = Hint::from_bytes([7; 32]);
    wrap(
        identity.public(),
        &place,
        &hint,
        secret,
        &mut FixedBytes(&[9; 128]),
    )
}

/// Open chunks in a pool. A finished one is sealed, if there is something to seal with, and its buffer given back.
pub struct Packing {
    pool: Pool,
    open: Vec<Option<OpenChunk>>,
    sealing: Option<Sealing>,
    next_serial: u64,
    /// Chunks finished, and bytes of blocks sealed.
    pub chunks: u64,
    pub sealed_bytes: u64,
}

impl Packing {
    /// `pool_bytes` hold a chunk for every stream at least.
    pub fn new(
        streams: u32,
        pool_bytes: usize,
        lock: bool,
        sealing: Option<Sealing>,
    ) -> std::io::Result<Packing> {
        let region = RegionOptions {
            lock,
            ..RegionOptions::plaintext(pool_bytes)
        };
        Ok(Packing {
            pool: Pool::new(Region::new(region)?),
            open: (0..streams).map(|_| None).collect(),
            sealing,
            next_serial: 0,
            chunks: 0,
            sealed_bytes: 0,
        })
    }

    /// How fast chunks were sealed, where they were timed.
    pub fn seal_rates(&mut self) -> Option<SealRates> {
        Some(self.sealing.as_mut()?.times.as_mut()?.rates())
    }

    /// Packs a packet into its stream's chunk.
    #[inline]
    pub fn pack(&mut self, admitted: Admitted, data: &[u8], arrival_ns: u64) {
        let Admitted { stream, rtcp } = admitted;
        let ends = |chunk: &mut OpenChunk| {
            !chunk.fits(data.len(), arrival_ns) || arrival_ns.saturating_sub(chunk.opened_ns) >= DEADLINE_NS
        };
        if let Some(chunk) = self.open[stream as usize].take_if(ends) {
            self.finish(stream, chunk);
        }
        let open = &mut self.open[stream as usize];
        if open.is_none() {
            let Some(buffer) = self.pool.take(BUFFER_BYTES) else {
                return;
            };
            *open = Some(OpenChunk::new(buffer, self.next_serial, arrival_ns, arrival_ns));
            self.next_serial += 1;
        }
        if let Some(chunk) = open {
            let kind = if rtcp { RecordKind::Rtcp } else { RecordKind::Rtp };
            chunk.push(self.pool.bytes_mut(&chunk.buffer), kind, arrival_ns, data);
        }
    }

    fn finish(&mut self, stream: u32, chunk: OpenChunk) {
        let bytes = self.pool.bytes_mut(&chunk.buffer);
        let body_len = chunk.finish(bytes, 0, self.chunks);
        self.chunks += 1;
        if let Some(sealing) = &mut self.sealing {
            self.sealed_bytes += u64::from(sealing.seal(stream, body_len, bytes));
        }
        self.pool.give(chunk.buffer);
    }
}

/// What a pool without anything special is made of.
pub(super) fn ordinary_memory(bytes: usize) -> RegionOptions {
    RegionOptions {
        bytes,
        lock: false,
        huge: Huge::None,
        wipe_on_drop: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{Packets, Shape};

    #[test]
    fn full_chunks_are_sealed_and_their_buffers_come_back() {
        let shape = Shape {
            streams: 2,
            burst: 10,
            bytes: 1200,
        };
        let sealing = Sealing::new(2, Backend::Ring);
        let mut packing = Packing::new(2, 2 << 20, false, Some(sealing)).expect("2 MiB");
        let mut packets = Packets::new(shape);
        for burst in 0..60 {
            let admitted = Admitted {
                stream: burst % 2,
                rtcp: false,
            };
            for packet in packets.next_burst().chunks(1200) {
                packing.pack(admitted, packet, 1000);
            }
        }
        // 54 packets of 1,200 bytes fill a chunk; 300 of each of two streams fill five and leave 30.
        assert_eq!(packing.chunks, 10);
        assert_eq!(packing.sealed_bytes, 10 * 65_536);
        assert_eq!(
            packing.pool.free_bytes(),
            packing.pool.total_bytes() - 2 * BUFFER_BYTES
        );
    }
}
