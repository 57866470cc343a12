//! Segments to measure with: chunks full to the brim with packets of 1,200 bytes, as an engine under load writes them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use harborseal_segment::body::{ChunkHead, StreamInfo};
use harborseal_segment::cipher::{Backend, SealKey};
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::{RunId, SegmentId, StreamId};
use harborseal_segment::keys::{Hint, SegmentSecret, StreamKeys, Wrap, wrap};
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::FixedBytes;
use harborseal_segment::record::push_record;
use harborseal_segment::writer::{ChunkPlan, Features, FinishParams, Placed, SegmentParams, SegmentWriter};

pub const BEGAN_S: u64 = 1_795_000_000;
const CHUNK_LEN: usize = 64 * 1024;
const PACKET_LEN: usize = 1200;
const CAMERAS: u32 = 16;
const SLOT: u32 = 5;
/// Chunks between two commits, each with a checkpoint: 16 MiB.
const COMMIT_EVERY: u64 = 256;
/// Chunks behind the last commit of a torn segment.
const TAIL_CHUNKS: u64 = 8;

pub fn node() -> NodeKey {
    NodeKey::from_bytes(&[0x22; 32])
}

/// Whom the chunks are for.
pub fn identity() -> Identity {
    Identity::generate(&mut FixedBytes(&[1; 64]))
}

/// What the `n`-th camera is called.
pub fn camera_id(n: u32) -> String {
    format!("camera-{n}")
}

/// S of the customer in the `n`-th segment.
pub fn secret(n: u8) -> [u8; 32] {
    [0xA0 ^ n; 32]
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its footer.
    Sealed,
    /// As a crash leaves it: some chunks beyond the floor, no footer.
    Torn,
}

/// What a segment is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Its number in its chain.
    pub n: u8,
    /// About how long it is to be.
    pub bytes: u64,
    /// All of one customer, a chunk of each in turn.
    pub cameras: u32,
    /// Bytes of a chunk's block, at most 64 KiB.
    pub chunk_len: usize,
    /// When its first chunks begin; each round of chunks is a second.
    pub first_s: u64,
    pub end: End,
    pub features: Features,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Where the first chunk stands: before it are SEGMENT, KEY and STREAM blocks.
    pub chunks_at: u64,
    /// Bytes of the first camera's chunks.
    pub first_camera_bytes: u64,
    /// When the first chunk of a segment behind it would begin.
    pub next_s: u64,
    /// Where its blocks end. In a sealed segment INDEX and FOOTER follow.
    pub blocks_end: u64,
}

/// Writes the `n`-th segment of a chain, of about `bytes`, to `path`. Returns where its blocks end.
pub fn write(path: &Path, n: u8, bytes: u64, end: End, features: Features) -> anyhow::Result<u64> {
    let plan = Plan {
        n,
        bytes,
        cameras: CAMERAS,
        chunk_len: CHUNK_LEN,
        first_s: BEGAN_S + 1,
        end,
        features,
    };
    Ok(write_plan(path, &plan)?.blocks_end)
}

/// Writes one.
pub fn write_plan(path: &Path, plan: &Plan) -> anyhow::Result<Written> {
    let (writer, head) = SegmentWriter::new(params(plan.n, plan.features));
    let mut file = Growing {
        file: BufWriter::with_capacity(4 << 20, File::create(path)?),
        len: 0,
        durable: 0,
    };
    file.file.write_all(&head)?;
    file.len = head.len() as u64;
    let mut segment = Segment { writer, file };
    let streams = segment.begin(plan.n, plan.cameras)?;
    let chunks_at = segment.file.len;
    let mut buffer = vec![0; plan.chunk_len];
    let (mut chunks, mut rounds) = (0, 0);
    while segment.file.len < plan.bytes {
        for stream in &streams {
            segment.chunk(stream, (rounds, plan.first_s + rounds), &mut buffer)?;
            chunks += 1;
            if chunks % COMMIT_EVERY == 0 {
                segment.commit()?;
            }
        }
        rounds += 1;
    }
    segment.commit()?;
    let mut written = Written {
        chunks_at,
        first_camera_bytes: rounds * plan.chunk_len as u64,
        next_s: plan.first_s + rounds,
        blocks_end: segment.file.len,
    };
    if plan.end == End::Torn {
        for so_far in 0..TAIL_CHUNKS {
            segment.chunk(&streams[0], (rounds + so_far, plan.first_s + rounds), &mut buffer)?;
        }
        segment.file.file.flush()?;
        written.blocks_end = segment.file.len;
        return Ok(written);
    }
    let last = FinishParams::sealed(None, segment.file.durable, BEGAN_S + 60);
    let finished = segment.writer.finish(Some(&node()), last);
    segment.file.file.write_all(&finished.bytes)?;
    segment.file.file.flush()?;
    Ok(written)
}

fn params(n: u8, features: Features) -> SegmentParams {
    SegmentParams {
        segment_id: SegmentId([0x10 + n; 16]),
        node: node().public(),
        run_id: RunId([0x33; 16]),
        shard: 0,
        prev: match n {
            0 => SegmentId::ZERO,
            _ => SegmentId([0x10 + n - 1; 16]),
        },
        chain_seq: n.into(),
        created_s: BEGAN_S,
        features,
    }
}

struct Growing {
    file: BufWriter<File>,
    len: u64,
    /// What the blocks state as durable. Nothing here is synced: the figures are of reading.
    durable: u64,
}

impl Growing {
    fn put(&mut self, placed: &Placed, bytes: &[u8]) -> anyhow::Result<()> {
        anyhow::ensure!(placed.offset == self.len, "blocks are dense");
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn durable_4k(&self) -> u32 {
        (self.durable / 4096) as u32
    }
}

struct Segment {
    writer: SegmentWriter,
    file: Growing,
}

struct Stream {
    row: u32,
    key: SealKey,
}

impl Segment {
    /// The customer's key and all streams.
    fn begin(&mut self, n: u8, cameras: u32) -> anyhow::Result<Vec<Stream>> {
        let segment_id = self.writer.segment_id();
        let place = Wrap {
            node_id: node().public().id(),
            segment_id,
            slot: SLOT,
            i: 0,
            n: 1,
            erase: None,
        };
        let secret = || SegmentSecret::from_bytes(secret(n));
        let mut hint = Hint::from_bytes([7; 32]);
        (0..n).for_each(|_| hint.ratchet());
        let identity = identity();
        let entry = wrap(
            identity.public(),
            &place,
            &hint,
            &secret(),
            &mut FixedBytes(&[9; 128]),
        );
        let (placed, bytes) = self.writer.add_keys(&[entry], 0);
        self.file.put(&placed, &bytes)?;
        let mut streams = Vec::new();
        for camera in 0..cameras {
            let mut stream_id = StreamId([n ^ 0x80; 16]);
            stream_id.0[..4].copy_from_slice(&camera.to_le_bytes());
            let keys = StreamKeys::derive(&segment_id, &secret(), &stream_id);
            let info = StreamInfo {
                ssrc: camera,
                media_index: 0,
                clock_rate: 90_000,
                opened_ns: BEGAN_S * 1_000_000_000,
                camera_id: camera_id(camera),
                sdp: "v=0\r\n".into(),
            };
            let key = keys.seal_key(Backend::ALL[0]);
            let (row, placed, bytes) =
                self.writer
                    .add_stream(stream_id, SLOT, &key, keys.commitment(), &info, 0);
            self.file.put(&placed, &bytes)?;
            streams.push(Stream { row, key });
        }
        Ok(streams)
    }

    /// A chunk of one stream as full as it gets, the `so_far`-th, of the second `at_s`.
    fn chunk(
        &mut self,
        stream: &Stream,
        (so_far, at_s): (u64, u64),
        buffer: &mut [u8],
    ) -> anyhow::Result<()> {
        let packet = [0x80; PACKET_LEN];
        let body_at = self.writer.chunk_body_at();
        let packets = (buffer.len() - body_at - ChunkHead::LEN) / (PACKET_LEN + 8);
        let body = &mut buffer[body_at..];
        ChunkHead {
            base_ns: at_s * 1_000_000_000,
            packet_count: packets as u32,
            lost_before: 0,
            chunks_so_far: so_far,
        }
        .encode_to(body);
        let mut body_len = ChunkHead::LEN;
        for packet_no in 0..packets {
            body_len = push_record(body, body_len, 0, packet_no as u32, &packet);
        }
        let plan = ChunkPlan {
            row: stream.row,
            body_len,
            first_s: at_s,
            last_s: at_s,
            durable_4k: self.file.durable_4k(),
        };
        let placed = self.writer.seal_chunk(plan, &stream.key, buffer);
        self.file.put(&placed, &buffer[..placed.total_len as usize])
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        self.file.durable = self.file.len;
        let (placed, bytes) = self
            .writer
            .checkpoint(&node(), self.file.durable, None, BEGAN_S + 1, &[]);
        self.file.put(&placed, &bytes)
    }
}
