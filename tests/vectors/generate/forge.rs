//! A segment under construction: blocks go in one after the other, and what a reader must find is noted on the way.
//!
//! What is expected comes from what was put in, never from reading it back. A scenario may change any [`Draft`] before it goes in, and any
//! byte after; roots, signatures and tables that are made later fit what stands there by then.

use super::expect::{BlockSeen, Gap, Structure};
use super::keys::{Entry, Id, NODE, Slot, id, key_body, stream_keys};
use super::wire::*;

/// When the world of the vectors begins: 2026-11-18 11:06:40 UTC.
pub const BEGAN_S: u64 = 1_795_000_000;
pub const NS: u64 = 1_000_000_000;

/// The first segment of a run, for the scenario of that name.
pub fn seg(name: &str) -> Seg {
    Seg {
        label: format!("{name}/1"),
        id: id(&format!("{name}/1")),
        node: NODE,
        run_id: id(&format!("run of {name}")),
        shard: 0,
        prev: [0; 16],
        chain_seq: 0,
        created_s: BEGAN_S,
        major: 1,
        minor: 0,
        incompat: 0,
        ro_compat: 0,
        compat: 0,
    }
}

impl Seg {
    /// The segment that follows in the chain, a minute later.
    pub fn next(&self) -> Seg {
        let (name, _) = self.label.rsplit_once('/').expect("a label ends with a number");
        let label = format!("{name}/{}", self.chain_seq + 2);
        Seg {
            id: id(&label),
            label,
            prev: self.id,
            chain_seq: self.chain_seq + 1,
            created_s: self.created_s + 60,
            ..self.clone()
        }
    }

    /// The first segment of a later run, `hours` on.
    pub fn later_run(&self, hours: u64) -> Seg {
        let label = format!("{}, {hours} h on/1", self.label);
        Seg {
            id: id(&label),
            run_id: id(&format!("run of {label}")),
            label,
            prev: [0; 16],
            chain_seq: 0,
            created_s: self.created_s + 3600 * hours,
            ..self.clone()
        }
    }
}

/// A stream in one segment, and what went into it.
#[derive(Clone)]
pub struct Stream {
    pub origin: Id,
    pub id: Id,
    pub slot: u32,
    pub info: Info,
    pub k_st: [u8; 32],
    /// Its readers need E.
    pub erasable: bool,
    pub readers: Vec<&'static str>,
    pub next_seq: u64,
    pub so_far: u64,
    /// When the next chunk begins.
    pub clock_ns: u64,
    /// What a reader gets, by stream_seq.
    pub chunks: Vec<(u64, ChunkText)>,
}

impl Stream {
    pub fn new(seg: &Seg, slot: &Slot, camera: &str, ssrc: u32) -> Self {
        let stream_id = id(&format!(
            "stream {ssrc} of {camera} in {}, slot {}",
            seg.label, slot.number
        ));
        Stream {
            origin: seg.id,
            id: stream_id,
            slot: slot.number,
            info: Info {
                ssrc,
                media_index: 0,
                clock_rate: 90_000,
                opened_ns: seg.created_s * NS,
                camera_id: camera.into(),
                sdp: b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n".to_vec(),
            },
            k_st: slot.stream_key(&seg.id, &stream_id),
            erasable: slot.e.is_some(),
            readers: slot.recipients.iter().map(|person| person.name).collect(),
            next_seq: 0,
            so_far: 0,
            clock_ns: seg.created_s * NS + NS / 4,
            chunks: Vec::new(),
        }
    }

    /// The same camera's stream in the next segment of the run.
    pub fn goes_on(&self, seg: &Seg, slot: &Slot) -> Self {
        let camera = String::from_utf8(self.info.camera_id.clone()).expect("camera ids are UTF-8");
        let mut stream = Stream::new(seg, slot, &camera, self.info.ssrc);
        (stream.info, stream.so_far) = (self.info.clone(), self.so_far);
        stream.clock_ns = self.clock_ns.max(stream.clock_ns);
        stream
    }

    /// The plaintext of its next chunk.
    pub fn text(&mut self, packets: Vec<Packet>) -> ChunkText {
        let text = ChunkText {
            base_ns: self.clock_ns,
            packet_count: packets.len() as u32,
            lost_before: 0,
            chunks_so_far: self.so_far,
            packets,
        };
        self.clock_ns += NS;
        text
    }

    pub fn keys(&self) -> ([u8; 32], [u8; 32]) {
        stream_keys(&self.k_st)
    }

    /// A reader gets nothing of it by this.
    pub fn without(mut self, stream_seq: u64) -> Self {
        self.chunks.retain(|(seq, _)| *seq != stream_seq);
        self
    }
}

/// `count` small RTP packets, 20 ms apart.
pub fn rtp(count: u32) -> Vec<Packet> {
    (0..count).map(|n| packet(n, 0, &rtp_bytes(n, 40))).collect()
}

pub fn packet(n: u32, flags: u16, bytes: &[u8]) -> Packet {
    Packet {
        delta_us: n * 20_000,
        flags,
        bytes: bytes.to_vec(),
    }
}

/// An RTP packet of `len` bytes.
pub fn rtp_bytes(n: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x80, 96];
    bytes.extend((n as u16).to_be_bytes());
    bytes.extend((n * 1800).to_be_bytes());
    bytes.extend(0x5eed_u32.to_be_bytes());
    bytes.extend((bytes.len()..len).map(|at| (at as u32 * 31 + n * 7) as u8));
    bytes
}

/// See the module.
#[derive(Clone)]
pub struct Forge {
    pub seg: Seg,
    pub bytes: Vec<u8>,
    pub next_no: u64,
    /// The watermark that the next blocks state, in bytes.
    pub durable: u64,
    pub floor: u64,
    pub state: &'static str,
    /// The SEGMENT block that counts: 0, or 4096 where the first is broken.
    pub head_at: usize,
    pub blocks: Vec<BlockSeen>,
}

impl Forge {
    pub fn new(seg: Seg) -> Self {
        let head = Draft::new(SEGMENT, seg.id, 0, seg.body()).bytes();
        Forge {
            seg,
            bytes: [&head[..], &head].concat(),
            next_no: 1,
            durable: 0,
            floor: 0,
            state: "open",
            head_at: 0,
            blocks: Vec::new(),
        }
    }

    /// A draft of the file's own next block.
    pub fn draft(&self, kind: u8, body: Vec<u8>) -> Draft {
        Draft {
            durable_4k: (self.durable / 4096) as u32,
            ..Draft::new(kind, self.seg.id, self.next_no, body)
        }
    }

    pub fn push(&mut self, draft: Draft) -> u64 {
        self.push_bytes(&draft.bytes())
    }

    /// Puts a whole block in and notes it as one that is accepted.
    pub fn push_bytes(&mut self, block: &[u8]) -> u64 {
        let offset = self.end();
        let seen = BlockSeen::of(offset, block);
        self.bytes.extend(block);
        if seen.segment_id == self.seg.id {
            self.next_no = seen.block_no + 1;
            self.state_watermark(offset, u64::from(u32_at(block, 92)) * 4096);
        }
        self.blocks.push(seen);
        offset
    }

    pub fn state_watermark(&mut self, offset: u64, stated: u64) {
        if stated <= offset {
            self.floor = self.floor.max(stated);
        }
    }

    pub fn end(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// All so far is durable, and the next blocks say so.
    pub fn sync(&mut self) {
        self.durable = self.end();
    }

    pub fn key(&mut self, entries: &[Entry]) -> u64 {
        self.push(self.draft(KEY, key_body(entries)))
    }

    /// A KEY block with the entries of some slots.
    pub fn slots(&mut self, slots: &[&Slot]) -> u64 {
        let entries: Vec<Entry> = slots.iter().flat_map(|slot| slot.entries(&self.seg)).collect();
        self.key(&entries)
    }

    pub fn stream_draft(&self, stream: &Stream) -> Draft {
        let (enc, commitment) = stream.keys();
        Draft {
            stream_id: stream.id,
            slot: stream.slot,
            extension: commitment.to_vec(),
            key: Some(enc),
            ..self.draft(STREAM, stream.info.body())
        }
    }

    pub fn stream(&mut self, stream: &Stream) -> u64 {
        self.push(self.stream_draft(stream))
    }

    pub fn chunk_draft(&self, stream: &Stream, text: &ChunkText) -> Draft {
        let last = text.packets.last().map_or(0, |packet| packet.delta_us);
        let strong = self.seg.incompat & STRONG_LEAF != 0;
        Draft {
            flags: CRITICAL | if strong { HASHED } else { 0 },
            stream_id: stream.id,
            slot: stream.slot,
            first_s: text.base_ns / NS,
            last_s: (text.base_ns + 1000 * u64::from(last)) / NS,
            stream_seq: stream.next_seq,
            key: Some(stream.keys().0),
            ..self.draft(CHUNK, text.body())
        }
    }

    /// A chunk of the stream, which counts it.
    pub fn chunk(&mut self, stream: &mut Stream, packets: Vec<Packet>) -> u64 {
        let text = stream.text(packets);
        let draft = self.chunk_draft(stream, &text);
        self.push_chunk(stream, text, draft)
    }

    /// The same, with a draft that was changed.
    pub fn push_chunk(&mut self, stream: &mut Stream, text: ChunkText, draft: Draft) -> u64 {
        stream.chunks.push((draft.stream_seq, text));
        stream.next_seq = draft.stream_seq + 1;
        stream.so_far += 1;
        self.push(draft)
    }

    /// Leaves of the tree so far.
    pub fn leaves(&self) -> Vec<[u8; 32]> {
        let head = leaf(&self.bytes[self.head_at..self.head_at + 4096]);
        let blocks = self.blocks.iter().filter(|block| block.kind != FOOTER);
        let leaves = blocks.map(|block| {
            let at = block.offset as usize;
            let len = match block.kind {
                CHUNK => u16::from_le_bytes([self.bytes[at + 6], self.bytes[at + 7]]) as usize,
                _ => block.total_len as usize,
            };
            leaf(&self.bytes[at..at + len])
        });
        std::iter::once(head).chain(leaves).collect()
    }

    pub fn root(&self) -> [u8; 32] {
        root(&self.leaves())
    }

    pub fn checkpoint_body(&self) -> Checkpoint {
        Checkpoint {
            durable_upto: self.durable,
            leaf_count: self.leaves().len() as u64,
            root: self.root(),
            prev_root: None,
            time_s: self.seg.created_s + 5,
            heads: Vec::new(),
        }
    }

    pub fn checkpoint(&mut self, change: impl FnOnce(&mut Checkpoint)) -> u64 {
        let mut body = self.checkpoint_body();
        change(&mut body);
        let offset = self.end();
        self.state_watermark(offset, body.durable_upto);
        self.push(self.draft(CHECKPOINT, body.body(&self.seg.node, &self.seg.id)))
    }

    pub fn tombstone(&mut self, kind: u32, graves: &[Grave]) -> u64 {
        let body = tombstone_body(kind, self.seg.created_s + 9, graves, &self.seg.node, &self.seg.id);
        self.push(self.draft(TOMBSTONE, body))
    }

    /// What a tombstone or a head says of this segment, closed.
    pub fn grave(&self, what: u32) -> Grave {
        Grave {
            segment_id: self.seg.id,
            run_id: self.seg.run_id,
            shard: self.seg.shard,
            what,
            chain_seq: self.seg.chain_seq,
            root: self.root(),
        }
    }

    pub fn head(&self) -> Head {
        let grave = self.grave(0);
        Head {
            run_id: grave.run_id,
            shard: grave.shard,
            flags: 1,
            chain_seq: grave.chain_seq,
            segment_id: grave.segment_id,
            durable_upto: self.durable,
            leaf_count: self.leaves().len() as u64,
            root: grave.root,
        }
    }

    /// ORIGIN, then these blocks of the other file, verbatim.
    pub fn relocate(&mut self, from: &Forge, offsets: &[u64]) {
        let find = |offset: &u64| from.blocks.iter().find(|block| block.offset == *offset);
        let numbers = offsets.iter().filter_map(find).map(|block| block.block_no);
        let (first, last) = (numbers.clone().min(), numbers.max());
        let body = origin_body(&from.seg, first.unwrap_or(0), last.unwrap_or(0));
        self.push(self.draft(ORIGIN, body));
        for offset in offsets {
            let block = from.block(*offset).to_vec();
            self.push_bytes(&block);
        }
    }

    /// Copies a KEY, STREAM and CHUNKs of one stream.
    pub fn block(&self, offset: u64) -> &[u8] {
        let seen = self.blocks.iter().find(|block| block.offset == offset);
        let len = seen.expect("a block stands there").total_len as usize;
        &self.bytes[offset as usize..offset as usize + len]
    }

    /// Changes the bytes of a block that stands there; its CRCs are made to fit again.
    pub fn edit(&mut self, offset: u64, change: impl FnOnce(&mut [u8])) {
        let len = self.block(offset).len();
        let block = &mut self.bytes[offset as usize..offset as usize + len];
        change(block);
        recrc(block);
        self.note_again(offset);
    }

    /// The same, and the CRCs stay what they were.
    pub fn damage(&mut self, offset: u64, change: impl FnOnce(&mut [u8])) {
        let len = self.block(offset).len();
        change(&mut self.bytes[offset as usize..offset as usize + len]);
    }

    fn note_again(&mut self, offset: u64) {
        let at = self
            .blocks
            .iter()
            .position(|block| block.offset == offset)
            .expect("a block stands there");
        self.blocks[at] = BlockSeen::of(offset, &self.bytes[offset as usize..]);
    }

    /// Takes a block away and leaves zeros.
    pub fn zero(&mut self, offset: u64) {
        let len = self.block(offset).len();
        self.bytes[offset as usize..offset as usize + len].fill(0);
        self.blocks.retain(|block| block.offset != offset);
    }

    /// A reader does not take it for a block any more.
    pub fn forget(&mut self, offset: u64) {
        self.blocks.retain(|block| block.offset != offset);
    }

    /// Erases the body of a CHUNK: header and extension stay.
    pub fn erase(&mut self, offset: u64, stream: &mut Stream) {
        let block = self.block(offset);
        let header_len = u16::from_le_bytes([block[6], block[7]]) as usize;
        self.damage(offset, |block| block[header_len..].fill(0));
        self.note_again(offset);
        let seen = self.blocks.iter_mut().find(|block| block.offset == offset);
        let seen = seen.expect("a block stands there");
        seen.erased = true;
        stream.chunks.retain(|(seq, _)| *seq != seen.stream_seq);
    }

    /// `len` bytes of reserved space.
    pub fn reserve(&mut self, len: usize) {
        self.bytes.resize(self.bytes.len() + len, 0);
    }

    /// The file and what stands in it.
    pub fn finish(self) -> (Vec<u8>, Structure) {
        let mut gaps = Vec::new();
        let mut at = 8192;
        for block in &self.blocks {
            if block.offset > at {
                gaps.push(Gap {
                    offset: at,
                    len: block.offset - at,
                });
            }
            at = block.offset + u64::from(block.total_len);
        }
        if self.end() > at {
            gaps.push(Gap {
                offset: at,
                len: self.end() - at,
            });
        }
        let structure = Structure::new(&self, gaps);
        (self.bytes, structure)
    }
}
