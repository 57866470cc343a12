//! Segments for tests, written by the crate's own writer with fixed keys and times.
//!
//! Two customers, Alice and Bob, three cameras. Every byte is the same in every run, so that a test can say where what stands.

#![allow(dead_code)] // each test file uses its own part

use harborseal_segment::body::{ChainHead, ChunkHead, DeletedSegment, StreamInfo};
use harborseal_segment::cipher::{Backend, SealKey};
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::{RunId, SegmentId, StreamId};
use harborseal_segment::keys::{Hint, SegmentSecret, StreamKeys, Wrap, wrap};
use harborseal_segment::merkle::Hash;
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::FixedBytes;
use harborseal_segment::record::push_record;
use harborseal_segment::writer::{ChunkPlan, FinishParams, Finished, Placed, SegmentParams, SegmentWriter};

pub const BEGAN_S: u64 = 1_795_000_000;
pub const ALICE_SLOT: u32 = 7;
pub const BOB_SLOT: u32 = 3;

pub fn node() -> NodeKey {
    NodeKey::from_bytes(&[0x22; 32])
}

pub fn alice() -> Identity {
    Identity::generate(&mut FixedBytes(&[1; 64]))
}

pub fn bob() -> Identity {
    Identity::generate(&mut FixedBytes(&[2; 64]))
}

/// Somebody for whom nothing is stored.
pub fn eve() -> Identity {
    Identity::generate(&mut FixedBytes(&[3; 64]))
}

/// The id of the n-th segment of the tests' chain.
pub fn segment_id(n: u8) -> SegmentId {
    SegmentId([0x10 + n; 16])
}

pub fn run() -> RunId {
    RunId([0x33; 16])
}

/// H of a customer at the n-th segment.
fn hint(seed: u8, n: u64) -> Hint {
    let mut hint = Hint::from_bytes([seed; 32]);
    (0..n).for_each(|_| hint.ratchet());
    hint
}

/// A segment as it grows: what the file holds, and what it holds for certain.
pub struct Recording {
    pub writer: SegmentWriter,
    pub bytes: Vec<u8>,
    /// The watermark that blocks state from now on.
    pub durable: u64,
    /// Chunks so far in the run, by camera.
    pub so_far: [u64; 3],
    n: u8,
    keys: Vec<SealKey>,
    rows: [u32; 3],
}

/// The tests' cameras: 0 and 1 are Alice's, 2 is Bob's.
pub const CAMERAS: [&str; 3] = ["front-door", "garden", "bobs-garage"];

impl Recording {
    /// Begins the n-th segment of the chain: keys and streams of all three cameras stand in it.
    pub fn begin(n: u8) -> Self {
        Self::begin_with(params(n), n)
    }

    pub fn begin_with(params: SegmentParams, n: u8) -> Self {
        let mut recording = Self::bare(params, n);
        recording.add_keys();
        recording.add_streams();
        recording
    }

    /// A segment with nothing in it yet.
    pub fn bare(params: SegmentParams, n: u8) -> Self {
        let (writer, bytes) = SegmentWriter::new(params);
        Recording {
            writer,
            bytes,
            durable: 0,
            so_far: [0; 3],
            n,
            keys: Vec::new(),
            rows: [0; 3],
        }
    }

    pub fn add_keys(&mut self) {
        let customers = [(&bob(), BOB_SLOT, 0xB0), (&alice(), ALICE_SLOT, 0xA0)];
        let entries = customers.map(|(identity, slot, seed)| {
            let place = Wrap {
                node_id: node().public().id(),
                segment_id: self.writer.segment_id(),
                slot,
                i: 0,
                n: 1,
                erase: None,
            };
            let secret = SegmentSecret::from_bytes([seed ^ self.n; 32]);
            let random = [seed; 64];
            wrap(
                identity.public(),
                &place,
                &hint(seed, self.n.into()),
                &secret,
                &mut FixedBytes(&random),
            )
        });
        let written = self.writer.add_keys(&entries, self.durable_4k());
        self.put(written);
    }

    pub fn add_streams(&mut self) {
        for (camera, name) in CAMERAS.iter().enumerate() {
            self.add_stream(camera, name);
        }
    }

    pub fn add_stream(&mut self, camera: usize, name: &str) {
        let (slot, seed) = if camera == 2 {
            (BOB_SLOT, 0xB0)
        } else {
            (ALICE_SLOT, 0xA0)
        };
        let secret = SegmentSecret::from_bytes([seed ^ self.n; 32]);
        let stream_id = StreamId([self.n << 4 | camera as u8 | 0x80; 16]);
        let keys = StreamKeys::derive(&self.writer.segment_id(), &secret, &stream_id);
        self.add_stream_of(camera, name, stream_id, slot, &keys);
    }

    /// The same under given keys.
    pub fn add_stream_of(
        &mut self,
        camera: usize,
        name: &str,
        stream_id: StreamId,
        slot: u32,
        keys: &StreamKeys,
    ) {
        let info = StreamInfo {
            ssrc: 100 + camera as u32,
            media_index: 0,
            clock_rate: 90_000,
            opened_ns: BEGAN_S * 1_000_000_000,
            camera_id: name.into(),
            sdp: "v=0\r\n".into(),
        };
        let seal = keys.seal_key(Backend::AesGcm);
        let durable_4k = self.durable_4k();
        let (row, placed, bytes) =
            self.writer
                .add_stream(stream_id, slot, &seal, keys.commitment(), &info, durable_4k);
        self.rows[camera] = row;
        self.keys.push(seal);
        self.put((placed, bytes));
    }

    /// Seals one chunk of `camera` with `packets`; consecutive packets are a millisecond apart.
    pub fn chunk(&mut self, camera: usize, packets: &[Vec<u8>]) -> Placed {
        let mut buf = vec![0xEE; 64 * 1024];
        let at_s = BEGAN_S + 60 * u64::from(self.n) + self.so_far[camera];
        let body = &mut buf[self.writer.chunk_body_at()..];
        ChunkHead {
            base_ns: at_s * 1_000_000_000,
            packet_count: packets.len() as u32,
            lost_before: 0,
            chunks_so_far: self.so_far[camera],
        }
        .encode_to(body);
        let mut end = ChunkHead::LEN;
        for (i, packet) in packets.iter().enumerate() {
            end = push_record(body, end, 0, 1000 * i as u32, packet);
        }
        let plan = ChunkPlan {
            row: self.rows[camera],
            body_len: end,
            first_s: at_s,
            last_s: at_s,
            durable_4k: self.durable_4k(),
        };
        let placed = self.writer.seal_chunk(plan, &self.keys[camera], &mut buf);
        self.so_far[camera] += 1;
        buf.truncate(placed.total_len as usize);
        self.put((placed, buf))
    }

    /// One chunk of a few packets, told apart by their first bytes.
    pub fn small_chunk(&mut self, camera: usize) -> Placed {
        let no = self.so_far[camera] as u8;
        self.chunk(camera, &[vec![camera as u8, no, 0], vec![camera as u8, no, 1]])
    }

    /// Everything so far is durable.
    pub fn sync(&mut self) {
        self.durable = self.bytes.len() as u64;
    }

    pub fn checkpoint(&mut self, prev_root: Option<Hash>, heads: &[ChainHead]) -> Placed {
        let written = self
            .writer
            .checkpoint(&node(), self.durable, prev_root, BEGAN_S + 1, heads);
        self.put(written)
    }

    pub fn tombstone(&mut self, deleted: &[DeletedSegment]) -> Placed {
        let written = self.writer.tombstone(&node(), deleted, BEGAN_S + 1);
        self.put(written)
    }

    pub fn put(&mut self, (placed, block): (Placed, Vec<u8>)) -> Placed {
        assert_eq!(placed.offset, self.bytes.len() as u64, "blocks are dense");
        self.bytes.extend_from_slice(&block);
        placed
    }

    /// Closes it; `prev_root` as in its footer.
    pub fn finish(mut self, prev_root: Option<Hash>) -> (Vec<u8>, Finished) {
        let params = FinishParams::sealed(prev_root, self.durable, BEGAN_S + 99);
        let finished = self.writer.finish(Some(&node()), params);
        self.bytes.extend_from_slice(&finished.bytes);
        (self.bytes, finished)
    }

    fn durable_4k(&self) -> u32 {
        (self.durable / 4096) as u32
    }
}

pub fn params(n: u8) -> SegmentParams {
    SegmentParams {
        segment_id: segment_id(n),
        node: node().public(),
        run_id: run(),
        shard: 0,
        prev: if n == 0 {
            SegmentId::ZERO
        } else {
            segment_id(n - 1)
        },
        chain_seq: n.into(),
        created_s: BEGAN_S + 60 * u64::from(n),
        features: Default::default(),
    }
}

/// A segment with chunks of all cameras, a larger one among them, a checkpoint, and everything durable but the last chunk.
pub fn open_segment(n: u8) -> Recording {
    let mut recording = Recording::begin(n);
    for camera in [0, 1, 2, 0] {
        recording.small_chunk(camera);
    }
    recording.sync();
    recording.chunk(1, &vec![vec![0x55; 1000]; 12]);
    recording.checkpoint(None, &[]);
    recording.sync();
    recording.small_chunk(2);
    recording.small_chunk(0);
    recording
}

pub fn closed_segment(n: u8) -> Vec<u8> {
    open_segment(n).finish(None).0
}
