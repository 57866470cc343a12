//! Segments made from recipes: blocks in any order with any contents, as whole as the recipe wants them.
//!
//! All keys are fixed ([`super::customers`]), so that a recipe always makes the same file.

use harborseal_segment::block::{
    BLOCK_ALIGN, BlockType, HEADER_LEN, Header, SEGMENT_PREFIX_LEN, STREAM_HEADER_LEN, Stored, parse_block,
};
use harborseal_segment::body::{
    CheckpointBody, KeyBody, OriginBody, StreamInfo, TombstoneBody, TombstoneKind,
};
use harborseal_segment::cipher::Backend;
use harborseal_segment::erase::Release;
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::open::{Keyring, OpenStream};
use harborseal_segment::scan::Block;
use harborseal_segment::writer::{Features, FinishParams, SegmentParams, SegmentWriter};

use super::contents::{chain_head, chunk, deleted, erased, long_chunk};
use super::customers::{
    FOREIGN, NOW_S, OWN, erase_secret, identity, key_entries, node, stream_id, stream_keys,
};
use super::input::Input;
use super::recipe::{Step, ending, feature, flaw, op, wide};

/// Enough for every pair and triple of blocks to meet, and few enough for thousands of files a second.
const MAX_STEPS: usize = 40;
const MAX_FILE_LEN: usize = 2 << 20;

/// A file, and how it came to be.
pub struct Forged {
    pub file: Vec<u8>,
    pub ending: u8,
    features: u8,
}

impl Forged {
    /// Who reads it, if anybody does.
    pub fn reader(&self) -> Option<Keyring> {
        let carol = self.ending & ending::CAROL != 0;
        (self.ending & ending::NO_KEY == 0).then(|| {
            let slot = if carol { 2 } else { 0 };
            let mut keyring = Keyring::new(identity(slot));
            // What is of the foreign segment stays closed without its release.
            if self.features & feature::ERASABLE != 0 {
                keyring.add_release(Release {
                    segment_id: OWN,
                    slot: slot.into(),
                    secret: erase_secret(),
                });
            }
            keyring
        })
    }
}

/// Makes magic and checksums of the block right; the lengths stay what they are, so far as they fit.
pub fn mend(block: &mut [u8]) {
    if block.len() < HEADER_LEN {
        return;
    }
    block[..4].copy_from_slice(&harborseal_segment::block::MAGIC);
    let header_len = usize::from(u16::from_le_bytes([block[6], block[7]]));
    let body_len = u32::from_le_bytes([block[12], block[13], block[14], block[15]]) as usize;
    let end = header_len.saturating_add(body_len).clamp(HEADER_LEN, block.len());
    let crc = crc32c::crc32c(&block[HEADER_LEN..end]);
    block[112..116].copy_from_slice(&crc.to_le_bytes());
    mend_header(block);
}

fn mend_header(block: &mut [u8]) {
    let crc = crc32c::crc32c(&block[..124]);
    block[124..128].copy_from_slice(&crc.to_le_bytes());
}

/// A segment under construction. `writer` follows the blocks as recovery would, and so knows numbers, leaves and roots.
struct Forge {
    file: Vec<u8>,
    writer: SegmentWriter,
    origins: Vec<OriginBody>,
    /// Offset and length of every block after the head, as it was put there.
    blocks: Vec<(usize, usize)>,
    durable: usize,
    /// Leaves that the last CHECKPOINT covers.
    signed_leaf_count: u64,
    next_foreign_no: u64,
    /// The next stream_seq, by foreign and stream.
    seqs: [[u64; 256]; 2],
    ending: u8,
    features: u8,
}

/// The file of a recipe.
pub fn forge(input: &mut Input<'_>) -> Forged {
    let [ending, head_flaws, at, xor, features] = input.array();
    let mut forge = Forge::begin(ending, head_flaws, [at, xor], features);
    for _ in 0..MAX_STEPS {
        if input.is_empty() || forge.file.len() > MAX_FILE_LEN {
            break;
        }
        forge.step(&Step::take(input));
    }
    forge.end()
}

/// The file of a recipe whose flaws are left out: what the writer could have made.
pub fn forge_whole(input: &mut Input<'_>, steps: usize) -> Forged {
    // What only recovery writes is for recovery to write: its footers, and those without a signature.
    let ending = input.u8() & !(ending::RECOVERED | ending::UNSIGNED);
    let features = input.u8() & (feature::ERASABLE | feature::STRONG_LEAF);
    let mut forge = Forge::begin(ending, 0, [0; 2], features);
    let whole = [3, 4, 4, 4, 5, 6, 9, op::SYNC, op::LONG_CHUNK, 0x80, 4];
    // Keys, which nobody has twice, and one stream of each customer come first, as they must.
    let first = [(2, 0), (3, 0), (3, 1), (3, 2)]
        .into_iter()
        .map(|(kind, slot)| [kind, slot, slot, 0]);
    let mut known = [0, 1, 2].map(|slot| vec![slot]);
    let mut begun = first;
    for _ in 0..steps + 4 {
        let [kind, slot, stream, seq] = begun.next().unwrap_or_else(|| {
            let [kind, slot, stream, seq]: [u8; 4] = input.array();
            [
                whole[usize::from(kind) % whole.len()],
                slot % 3,
                stream % 8,
                seq % 32,
            ]
        });
        // A stream is one customer's, and has one STREAM block.
        let streams = &mut known[usize::from(slot)];
        let stream = match kind {
            3 => 3 * (stream / 3) + slot,
            4 | op::LONG_CHUNK => streams[usize::from(stream) % streams.len()],
            _ => 0,
        };
        if kind == 3 && forge.blocks.len() > 3 {
            if streams.contains(&stream) {
                continue;
            }
            streams.push(stream);
        }
        // Only a long chunk takes its length from `seq`; elsewhere what is stated would be a jump. And no writer writes TOMBSTONE(lost).
        forge.step(&Step {
            kind,
            flaws: 0,
            slot: if kind == 9 { 0 } else { slot },
            stream,
            seq: if kind == op::LONG_CHUNK { seq } else { 0 },
            durable: 0,
            xor: [0; 2],
            body: &[],
        });
    }
    forge.end()
}

impl Forge {
    fn begin(ending: u8, head_flaws: u8, [at, xor]: [u8; 2], features: u8) -> Self {
        let params = SegmentParams {
            segment_id: OWN,
            node: node().public(),
            run_id: RunId([0x33; 16]),
            shard: 0,
            prev: SegmentId::ZERO,
            chain_seq: 0,
            created_s: NOW_S,
            features: Features::default(),
        };
        let (_, mut file) = SegmentWriter::new(params);
        // Bits 0 and 1: which copy is changed; 2: its checksums stay right; 3: in the body, not the header.
        for copy in [0, 1] {
            let block = &mut file[copy * BLOCK_ALIGN..][..BLOCK_ALIGN];
            if head_flaws & (1 << copy) != 0 {
                block[usize::from(at) % 128 + if head_flaws & 8 != 0 { 128 } else { 0 }] ^= xor;
            }
            block[HEADER_LEN + 8] ^= features & 0x0F;
            block[HEADER_LEN + 16] ^= features >> 4;
            if features != 0 || head_flaws & 4 != 0 {
                mend(block);
            }
        }
        let mut writer = SegmentWriter::adopting(OWN);
        let whole = file
            .chunks(BLOCK_ALIGN)
            .find_map(|block| Some((parse_block(block).ok()?, block)));
        if let Some((header, block)) = whole.filter(|(header, _)| header.block_type == BlockType::Segment) {
            writer.adopt(0, &header, block);
        }
        Forge {
            file,
            writer,
            origins: Vec::new(),
            blocks: Vec::new(),
            durable: 0,
            signed_leaf_count: 0,
            next_foreign_no: 1,
            seqs: [[0; 256]; 2],
            ending,
            features,
        }
    }

    fn step(&mut self, step: &Step<'_>) {
        match step.kind {
            op::ZEROS => self
                .file
                .resize(self.file.len() + BLOCK_ALIGN * usize::from(step.slot % 16), 0),
            op::GARBAGE => {
                let page: Vec<u8> = step
                    .body
                    .iter()
                    .copied()
                    .chain([0xA5])
                    .cycle()
                    .take(BLOCK_ALIGN)
                    .collect();
                self.file.extend_from_slice(&page);
            }
            op::REPEAT => {
                if let Some(&(offset, len)) = self.blocks.get(usize::from(step.slot)) {
                    let block = self.file[offset..offset + len].to_vec();
                    self.put(block);
                }
            }
            op::SYNC => self.durable = self.file.len(),
            op::SWAP => self.swap(),
            op::CUT => {
                let len = self.file.len().saturating_sub(16 * usize::from(step.slot));
                self.file.truncate(len.max(SEGMENT_PREFIX_LEN));
                self.blocks
                    .retain(|(offset, block_len)| offset + block_len <= len);
                self.file.resize(self.file.len().next_multiple_of(BLOCK_ALIGN), 0);
            }
            op::CLOSE => self.close(step.flaws),
            op::ERASE => self.erase(step.slot),
            _ => {
                let block = self.block(step);
                self.put(block);
            }
        }
    }

    fn put(&mut self, block: Vec<u8>) {
        let offset = self.file.len();
        self.adopt(offset, &block);
        self.file.extend_from_slice(&block);
        self.blocks.push((offset, block.len()));
    }

    /// What a reader accepts has a leaf, a number and a row.
    fn adopt(&mut self, offset: usize, block: &[u8]) {
        let Ok(header) = parse_block(block) else { return };
        let named = |origin: &OriginBody| origin.covers(&header.segment_id, header.block_no);
        let accepted = match header.block_type {
            BlockType::Segment | BlockType::Footer => false,
            _ => header.segment_id == OWN || self.origins.iter().any(named),
        };
        if accepted && offset as u64 >= self.writer.next_offset() {
            self.writer.adopt(offset as u64, &header, block);
        }
        if let (true, Ok(checkpoint)) = (
            header.block_type == BlockType::Checkpoint,
            CheckpointBody::parse(header.body(block)),
        ) {
            self.signed_leaf_count = checkpoint.leaf_count;
        }
        if header.block_type == BlockType::Origin && accepted {
            self.origins.extend(OriginBody::parse(header.body(block)));
        }
    }

    fn swap(&mut self) {
        if let [.., (a, a_len), (b, b_len)] = self.blocks[..]
            && a + a_len == b
            && b + b_len == self.file.len()
        {
            self.file[a..].rotate_left(a_len);
            self.blocks.truncate(self.blocks.len() - 2);
            self.blocks.extend([(a, b_len), (a + b_len, a_len)]);
        }
    }

    fn erase(&mut self, block: u8) {
        let Some(&(offset, len)) = self.blocks.get(usize::from(block)) else {
            return;
        };
        let block = &mut self.file[offset..offset + len];
        if let Ok(header) = Header::parse(block) {
            block[usize::from(header.header_len)..].fill(0);
        }
    }

    fn erasable(&self) -> bool {
        self.features & feature::ERASABLE != 0
    }

    /// INDEX and FOOTER over what is there; `flaws` as in [`ending`], shifted.
    fn close(&mut self, ending: u8) {
        let writer = std::mem::replace(&mut self.writer, SegmentWriter::adopting(OWN));
        let durable = self.durable as u64;
        let params = match ending & ending::RECOVERED {
            0 => FinishParams::sealed(None, durable, NOW_S + 9),
            _ => FinishParams::recovered(None, durable, NOW_S + 9, self.signed_leaf_count),
        };
        let finished = writer.finish((ending & ending::UNSIGNED == 0).then(node), params);
        let at = self.file.len() as u64;
        if finished.offset <= at && finished.offset >= SEGMENT_PREFIX_LEN as u64 {
            self.file.truncate(finished.offset as usize);
            self.file.extend_from_slice(&finished.bytes);
        }
        self.writer = writer_behind(&self.file);
    }

    fn end(mut self) -> Forged {
        if self.ending & (ending::SEALED | ending::RECOVERED) != 0 {
            self.close(self.ending);
        }
        let pages = usize::from(self.ending >> ending::PAGES_SHIFT & 7);
        self.file.resize(self.file.len() + pages * BLOCK_ALIGN, 0);
        Forged {
            file: self.file,
            ending: self.ending,
            features: self.features,
        }
    }

    fn block(&mut self, step: &Step<'_>) -> Vec<u8> {
        let segment_id = if step.has(flaw::FOREIGN) { FOREIGN } else { OWN };
        let kind = match step.kind {
            op::LONG_CHUNK => BlockType::Chunk,
            other => BlockType::from_u8(other).unwrap_or(BlockType::Private(0x80)),
        };
        let body = self.body(step, kind, segment_id);
        let number = match segment_id {
            FOREIGN => self.next_foreign_no,
            _ => self.writer.next_block_no(),
        };
        let off = if step.has(flaw::NUMBER) {
            i64::from(step.seq) - 128
        } else {
            0
        };
        let durable_4k = match step.durable {
            0 => (self.durable / BLOCK_ALIGN) as u32,
            stated => wide(stated) as u32,
        };
        let number = number.wrapping_add_signed(off);
        let plain = match kind {
            BlockType::Chunk if self.features & feature::STRONG_LEAF != 0 => {
                Header::hashed_chunk(segment_id, number, body.len())
            }
            _ => Header::new(kind, segment_id, number, body.len()),
        };
        let mut header = Header {
            flags: plain.flags ^ u8::from(step.has(flaw::CRITICAL)),
            durable_4k,
            ..plain
        };
        if step.has(flaw::PADDED) {
            header.total_len += BLOCK_ALIGN as u32;
        }
        self.next_foreign_no += u64::from(segment_id == FOREIGN);
        let mut block = vec![0; header.total_len as usize];
        block[usize::from(header.header_len)..header.body_end()].copy_from_slice(&body);
        if kind.is_sealed() {
            self.seal(step, &mut header, &mut block);
        }
        block[..HEADER_LEN].copy_from_slice(&header.encode());
        self.spoil(step, &mut block);
        block
    }

    fn seal(&mut self, step: &Step<'_>, header: &mut Header, block: &mut [u8]) {
        let foreign = usize::from(header.segment_id == FOREIGN);
        header.key_slot = wide(step.slot) as u32;
        header.stream_id = stream_id(step.stream);
        if header.block_type == BlockType::Chunk {
            let next = &mut self.seqs[foreign][usize::from(step.stream)];
            header.stream_seq = match step.seq {
                // The seq of a long chunk is its length.
                0 => *next,
                _ if step.kind == op::LONG_CHUNK || step.has(flaw::NUMBER) => *next,
                stated => wide(stated),
            };
            *next = header.stream_seq.wrapping_add(1);
            (header.first_arrival_s, header.last_arrival_s) = (NOW_S, NOW_S + u64::from(step.durable));
        }
        let keys = stream_keys(step.slot, step.stream, header.segment_id, self.erasable());
        if header.block_type == BlockType::Stream {
            block[HEADER_LEN..STREAM_HEADER_LEN].copy_from_slice(keys.commitment());
        }
        if !step.has(flaw::UNSEALED) {
            keys.seal_key(Backend::Ring).seal_block(header, block);
        }
    }

    /// Takes away what the flaws say, and mends the checksums that are not among them.
    fn spoil(&mut self, step: &Step<'_>, block: &mut [u8]) {
        if step.flaws == 0 {
            return mend(block);
        }
        let [at, xor] = step.xor;
        let at = usize::from(at) % HEADER_LEN;
        // The lengths of the block that is really there stay: what follows it must be found.
        block[at] ^= xor;
        match step.has(flaw::BODY_CRC) {
            true if step.has(flaw::PADDED) => *block.last_mut().expect("a block has bytes") = step.seq | 1,
            true => block[112] ^= 1,
            false => mend(block),
        }
        match step.has(flaw::HEADER_CRC) {
            true => block[124] ^= 1,
            false => mend_header(block),
        }
    }

    fn body(&self, step: &Step<'_>, kind: BlockType, segment_id: SegmentId) -> Vec<u8> {
        let given = !step.body.is_empty();
        if step.kind == op::LONG_CHUNK {
            return long_chunk(usize::from(step.seq), self.so_far(step.stream, segment_id));
        }
        let body = if given {
            step.body.to_vec()
        } else {
            self.plausible(step, kind, segment_id)
        };
        match kind {
            BlockType::Checkpoint if !step.has(flaw::UNSEALED) => self.signed_checkpoint(&body, segment_id),
            BlockType::Tombstone if !step.has(flaw::UNSEALED) => signed_tombstone(&body, segment_id),
            _ => body,
        }
    }

    fn so_far(&self, stream: u8, segment_id: SegmentId) -> u64 {
        self.seqs[usize::from(segment_id == FOREIGN)][usize::from(stream)]
    }

    fn plausible(&self, step: &Step<'_>, kind: BlockType, segment_id: SegmentId) -> Vec<u8> {
        match kind {
            BlockType::Key => KeyBody {
                entries: key_entries(segment_id, self.erasable()).to_vec(),
            }
            .encode(),
            BlockType::Stream => StreamInfo {
                ssrc: step.stream.into(),
                media_index: 0,
                clock_rate: 90_000,
                opened_ns: NOW_S * 1_000_000_000,
                camera_id: "front-door".into(),
                sdp: String::new(),
            }
            .encode(),
            BlockType::Chunk => {
                let so_far = self.so_far(step.stream, segment_id);
                chunk(so_far, &[&[step.stream, 0], &[step.stream, 1]])
            }
            BlockType::Checkpoint => CheckpointBody {
                durable_upto: self.durable as u64,
                leaf_count: self.writer.leaf_count(),
                root: self.writer.root(),
                prev_root: (step.slot & 1 != 0).then_some([7; 32]),
                time_s: NOW_S,
                signature: [0; 64],
                heads: vec![chain_head(); usize::from(step.seq % 3)],
            }
            .encode(),
            BlockType::Origin => OriginBody {
                segment_id: FOREIGN,
                node_id: node().public().id(),
                run_id: RunId([0x34; 16]),
                shard: 1,
                chain_seq: wide(step.slot),
                first_block_no: 0,
                last_block_no: u64::from(step.seq) + 1000,
            }
            .encode(),
            BlockType::Tombstone => TombstoneBody {
                kind: match step.slot % 3 {
                    0 => TombstoneKind::Deleted(vec![deleted(); usize::from(step.seq % 3)]),
                    1 => TombstoneKind::Lost,
                    _ => TombstoneKind::Erased(vec![erased(step.stream, segment_id)]),
                },
                time_s: NOW_S,
                signature: [0; 64],
            }
            .encode(),
            _ => vec![step.seq; 16],
        }
    }

    /// Leaf count and root as they are, if the recipe's body begins with zeros there, and the node's signature.
    fn signed_checkpoint(&self, body: &[u8], segment_id: SegmentId) -> Vec<u8> {
        let Ok(mut checkpoint) = CheckpointBody::parse(body) else {
            return body.to_vec();
        };
        if checkpoint.leaf_count == 0 {
            (checkpoint.leaf_count, checkpoint.root) = (self.writer.leaf_count(), self.writer.root());
        }
        node().sign_checkpoint(&mut checkpoint, &segment_id);
        checkpoint.encode()
    }
}

fn signed_tombstone(body: &[u8], segment_id: SegmentId) -> Vec<u8> {
    let Ok(mut tombstone) = TombstoneBody::parse(body) else {
        return body.to_vec();
    };
    if !matches!(tombstone.kind, TombstoneKind::Lost) {
        node().sign_tombstone(&mut tombstone, &segment_id);
    }
    tombstone.encode()
}

/// A writer for blocks behind a FOOTER, where none belongs: it knows where the file ends, and nothing of what is in it.
fn writer_behind(file: &[u8]) -> SegmentWriter {
    let mut writer = SegmentWriter::adopting(OWN);
    let header = Header::new(BlockType::Private(0x80), FOREIGN, 0, 0);
    let page = &file[..BLOCK_ALIGN];
    writer.adopt((file.len() - BLOCK_ALIGN) as u64, &header, page);
    writer
}

/// A stream of Alice's, opened.
pub fn open_stream() -> OpenStream {
    let mut forge = Forge::begin(0, 0, [0; 2], 0);
    let mut recipe = Input::new(&[3, 0, 0, 0, 0, 0, 0, 0]);
    let block = forge.block(&Step::take(&mut recipe));
    let header = parse_block(&block).expect("it was made without a flaw");
    let whole = Block {
        offset: 0,
        header,
        bytes: &block,
        stored: Stored::Whole,
    };
    OpenStream::open_with(&whole, stream_keys(0, 0, OWN, false)).expect("it was sealed under these keys")
}

/// A CHUNK of that stream with any plaintext.
pub fn sealed_chunk(text: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header {
        stream_id: stream_id(0),
        ..Header::new(BlockType::Chunk, OWN, 9, text.len())
    };
    let mut block = vec![0; header.total_len as usize];
    block[HEADER_LEN..header.body_end()].copy_from_slice(text);
    stream_keys(0, 0, OWN, false)
        .seal_key(Backend::Ring)
        .seal_block(&mut header, &mut block);
    (header, block)
}
