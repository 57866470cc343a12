//! Blocks as docs/FORMAT.md §3 to §4 describe them, made by hand: this shares no code with the crate that it checks.
//!
//! A [`Draft`] is a block before its bytes; every field of it can be set to what the format forbids. CRCs, tag and padding come last and
//! are right, whatever was set: so a bad vector breaks the one rule that it is about. Other faults are [`recrc`] after an edit.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use sha2::{Digest, Sha256};

use super::keys::{Id, Node};

pub const SEGMENT: u8 = 1;
pub const KEY: u8 = 2;
pub const STREAM: u8 = 3;
pub const CHUNK: u8 = 4;
pub const CHECKPOINT: u8 = 5;
pub const ORIGIN: u8 = 6;
pub const INDEX: u8 = 7;
pub const FOOTER: u8 = 8;
pub const TOMBSTONE: u8 = 9;

/// Incompat bits.
pub const ERASABLE: u64 = 1;
pub const STRONG_LEAF: u64 = 2;

pub const CRITICAL: u8 = 1;
pub const HASHED: u8 = 2;

/// A block before its bytes.
#[derive(Clone)]
pub struct Draft {
    pub magic: [u8; 4],
    pub kind: u8,
    pub flags: u8,
    /// 128 and the extension, unless set.
    pub header_len: Option<u16>,
    /// As short as the block can be, unless set.
    pub total_len: Option<u32>,
    /// The body's, unless set.
    pub body_len: Option<u32>,
    pub segment_id: Id,
    pub block_no: u64,
    pub stream_id: Id,
    pub slot: u32,
    pub reserved_60: u32,
    pub first_s: u64,
    pub last_s: u64,
    pub stream_seq: u64,
    pub reserved_88: u32,
    pub durable_4k: u32,
    pub reserved_116: u64,
    pub extension: Vec<u8>,
    /// Plaintext, if there is a key.
    pub body: Vec<u8>,
    /// K_enc of a sealed block.
    pub key: Option<[u8; 32]>,
}

impl Draft {
    pub fn new(kind: u8, segment_id: Id, block_no: u64, body: Vec<u8>) -> Self {
        let critical = matches!(kind, SEGMENT | KEY | STREAM | CHUNK | ORIGIN);
        Draft {
            magic: *b"\x89HS1",
            kind,
            flags: u8::from(critical),
            header_len: None,
            total_len: None,
            body_len: None,
            segment_id,
            block_no,
            stream_id: [0; 16],
            slot: 0,
            reserved_60: 0,
            first_s: 0,
            last_s: 0,
            stream_seq: 0,
            reserved_88: 0,
            durable_4k: 0,
            reserved_116: 0,
            extension: Vec::new(),
            body,
            key: None,
        }
    }

    pub fn header_len(&self) -> usize {
        let own = 128 + self.extension.len() + if self.flags & HASHED != 0 { 32 } else { 0 };
        self.header_len.map_or(own, usize::from)
    }

    pub fn body_len(&self) -> usize {
        self.body_len.map_or(self.body.len(), |len| len as usize)
    }

    pub fn total_len(&self) -> usize {
        let needed = (self.header_len() + self.body.len()).next_multiple_of(4096);
        self.total_len.map_or(needed, |len| len as usize)
    }

    /// The whole block. A hashed one brings its hash itself; what it has in `extension` comes behind that.
    pub fn bytes(&self) -> Vec<u8> {
        let hashed = self.flags & HASHED != 0;
        let mut head = Vec::with_capacity(128);
        head.extend(self.magic);
        head.extend([self.kind, self.flags]);
        head.extend((self.header_len() as u16).to_le_bytes());
        head.extend((self.total_len() as u32).to_le_bytes());
        head.extend((self.body_len() as u32).to_le_bytes());
        head.extend(self.segment_id);
        head.extend(self.block_no.to_le_bytes());
        head.extend(self.stream_id);
        head.extend(self.slot.to_le_bytes());
        head.extend(self.reserved_60.to_le_bytes());
        for word in [self.first_s, self.last_s, self.stream_seq] {
            head.extend(word.to_le_bytes());
        }
        head.extend(self.reserved_88.to_le_bytes());
        head.extend(self.durable_4k.to_le_bytes());
        let mut body = self.body.clone();
        let tag = match &self.key {
            Some(key) => seal(
                key,
                self.kind,
                self.block_no,
                &[&head[..], &self.extension].concat(),
                &mut body,
            ),
            None => [0; 16],
        };
        head.extend(tag);
        head.extend([0; 4]);
        head.extend(self.reserved_116.to_le_bytes());
        head.extend([0; 4]);
        if hashed {
            head.extend(Sha256::digest(&body));
        }
        head.extend(&self.extension);
        head.extend(&body);
        let len = self.total_len().max(head.len()).next_multiple_of(4096);
        head.resize(len, 0);
        recrc(&mut head);
        head
    }
}

/// AES-256-GCM in place, with the nonce of §5.5; returns the tag.
pub fn seal(key: &[u8; 32], kind: u8, block_no: u64, aad: &[u8], body: &mut [u8]) -> [u8; 16] {
    let mut nonce = [0; 12];
    nonce[0] = kind;
    nonce[4..].copy_from_slice(&block_no.to_be_bytes());
    let cipher = Aes256Gcm::new_from_slice(key).expect("a key has 32 bytes");
    let tag = cipher.encrypt_inout_detached(&Nonce::from(nonce), aad, body.into());
    tag.expect("a body is far below 64 GiB").into()
}

/// Makes both CRCs of a block fit its bytes. A body that does not fit the block counts as far as there is any.
pub fn recrc(block: &mut [u8]) {
    let header_len = u16::from_le_bytes([block[6], block[7]]) as usize;
    let body_len = u32_at(block, 12) as usize;
    let end = (header_len + body_len).clamp(128, block.len());
    let body = crc32c::crc32c(&block[128..end]);
    put(block, 112, &body.to_le_bytes());
    recrc_header(block);
}

/// Makes the header's CRC fit, and leaves the body's.
pub fn recrc_header(block: &mut [u8]) {
    let header = crc32c::crc32c(&block[..124]);
    put(block, 124, &header.to_le_bytes());
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Fields one behind the other.
#[derive(Default)]
pub struct Fields(pub Vec<u8>);

impl Fields {
    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }
}

/// SEGMENT, §4.1.
#[derive(Clone)]
pub struct Seg {
    /// Names everything that is drawn for it.
    pub label: String,
    pub id: Id,
    pub node: Node,
    pub run_id: Id,
    pub shard: u32,
    pub prev: Id,
    pub chain_seq: u64,
    pub created_s: u64,
    pub major: u16,
    pub minor: u16,
    pub incompat: u64,
    pub ro_compat: u64,
    pub compat: u64,
}

impl Seg {
    pub fn body(&self) -> Vec<u8> {
        let head = Fields::default().u16(self.major).u16(self.minor).u32(self.shard);
        let masks = head.u64(self.incompat).u64(self.ro_compat).u64(self.compat);
        let ids = masks.bytes(&self.node.id()).bytes(&self.run_id).bytes(&self.prev);
        let times = ids.u64(self.chain_seq).u64(self.created_s);
        times.bytes(&self.node.key()).0
    }
}

/// STREAM plaintext, §4.3.
#[derive(Clone)]
pub struct Info {
    pub ssrc: u32,
    pub media_index: u16,
    pub clock_rate: u32,
    pub opened_ns: u64,
    pub camera_id: Vec<u8>,
    pub sdp: Vec<u8>,
}

impl Info {
    pub fn body(&self) -> Vec<u8> {
        let lens = Fields::default().u32(self.ssrc).u16(self.media_index);
        let lens = lens.u16(self.camera_id.len() as u16).u32(self.sdp.len() as u32);
        let times = lens.u32(self.clock_rate).u64(self.opened_ns).u64(0);
        times.bytes(&self.camera_id).bytes(&self.sdp).0
    }
}

/// A packet inside a chunk.
#[derive(Clone)]
pub struct Packet {
    pub delta_us: u32,
    pub flags: u16,
    pub bytes: Vec<u8>,
}

/// CHUNK plaintext, §4.4.
#[derive(Clone)]
pub struct ChunkText {
    pub base_ns: u64,
    pub packet_count: u32,
    pub lost_before: u32,
    pub chunks_so_far: u64,
    pub packets: Vec<Packet>,
}

impl ChunkText {
    pub fn body(&self) -> Vec<u8> {
        let head = Fields::default()
            .u64(self.base_ns)
            .u32(self.packet_count)
            .u32(self.lost_before);
        let mut body = head.u64(self.chunks_so_far).u64(0);
        for packet in &self.packets {
            body = body.u16(packet.bytes.len() as u16).u16(packet.flags);
            body = body.u32(packet.delta_us).bytes(&packet.bytes);
        }
        body.0
    }
}

/// A head in a CHECKPOINT, §4.5.
#[derive(Clone)]
pub struct Head {
    pub run_id: Id,
    pub shard: u32,
    pub flags: u32,
    pub chain_seq: u64,
    pub segment_id: Id,
    pub durable_upto: u64,
    pub leaf_count: u64,
    pub root: [u8; 32],
}

/// CHECKPOINT, §4.5.
pub struct Checkpoint {
    pub durable_upto: u64,
    pub leaf_count: u64,
    pub root: [u8; 32],
    pub prev_root: Option<[u8; 32]>,
    pub time_s: u64,
    pub heads: Vec<Head>,
}

impl Checkpoint {
    pub fn body(&self, node: &Node, segment_id: &Id) -> Vec<u8> {
        let head = Fields::default()
            .u64(self.durable_upto)
            .u64(self.leaf_count)
            .bytes(&self.root);
        let signed = head.bytes(&self.prev_root.unwrap_or_default()).u64(self.time_s).0;
        let message = [b"harborseal/v1/checkpoint", &node.id()[..], segment_id, &signed].concat();
        let counts = Fields(signed)
            .u32(u32::from(self.prev_root.is_some()))
            .u32(self.heads.len() as u32);
        let mut body = counts.bytes(&node.sign(&message));
        for head in &self.heads {
            body = body
                .bytes(&head.run_id)
                .u32(head.shard)
                .u32(head.flags)
                .u64(head.chain_seq);
            body = body
                .bytes(&head.segment_id)
                .u64(head.durable_upto)
                .u64(head.leaf_count);
            body = body.bytes(&head.root);
        }
        body.0
    }
}

/// ORIGIN, §4.6.
pub fn origin_body(origin: &Seg, first_block_no: u64, last_block_no: u64) -> Vec<u8> {
    let ids = Fields::default()
        .bytes(&origin.id)
        .bytes(&origin.node.id())
        .bytes(&origin.run_id);
    let place = ids.u32(origin.shard).u32(0).u64(origin.chain_seq);
    place.u64(first_block_no).u64(last_block_no).0
}

/// INDEX, §4.7. `rows` are all of one length.
pub fn index_body(kind: u32, row_len: u32, part: u32, rows: &[Vec<u8>]) -> Vec<u8> {
    let head = Fields::default()
        .u32(kind)
        .u32(row_len)
        .u32(rows.len() as u32)
        .u32(part);
    head.bytes(&rows.concat()).0
}

/// Where INDEX blocks of a kind stand: first offset and bytes.
pub type Span = (u64, u64);

/// FOOTER, §4.8.
#[derive(Clone)]
pub struct Footer {
    pub flags: u32,
    pub reserved: u32,
    pub chunks: Span,
    pub streams: Span,
    pub keys: Span,
    pub leaf_count: u64,
    pub root: [u8; 32],
    pub prev_root: [u8; 32],
    pub durable_upto: u64,
    pub data_end: u64,
    pub chunk_count: u64,
    pub first_s: u64,
    pub last_s: u64,
    pub signed_leaf_count: u64,
    pub closed_s: u64,
}

pub const SEALED: u32 = 1;
pub const RECOVERED: u32 = 2;
pub const SIGNED: u32 = 4;

impl Footer {
    pub fn body(&self, node: &Node, segment_id: &Id) -> Vec<u8> {
        let mut fields = Fields::default().u32(self.flags).u32(self.reserved);
        for (offset, len) in [self.chunks, self.streams, self.keys] {
            fields = fields.u64(offset).u64(len);
        }
        fields = fields
            .u64(self.leaf_count)
            .bytes(&self.root)
            .bytes(&self.prev_root);
        fields = fields
            .u64(self.durable_upto)
            .u64(self.data_end)
            .u64(self.chunk_count);
        fields = fields.u64(self.first_s).u64(self.last_s);
        let signed = fields.u64(self.signed_leaf_count).u64(self.closed_s).0;
        let message = [b"harborseal/v1/footer", &node.id()[..], segment_id, &signed].concat();
        let signature = match self.flags & SIGNED {
            0 => [0; 64],
            _ => node.sign(&message),
        };
        [&signed[..], &signature].concat()
    }
}

/// An entry of a TOMBSTONE, §4.9. `what` is the reason of a deletion or the slot of an erasure.
#[derive(Clone)]
pub struct Grave {
    pub segment_id: Id,
    pub run_id: Id,
    pub shard: u32,
    pub what: u32,
    pub chain_seq: u64,
    pub root: [u8; 32],
}

pub const DELETED: u32 = 1;
pub const LOST: u32 = 2;
pub const ERASED: u32 = 3;

/// TOMBSTONE, §4.9.
pub fn tombstone_body(kind: u32, time_s: u64, graves: &[Grave], node: &Node, host: &Id) -> Vec<u8> {
    let head = Fields::default().u32(kind).u32(graves.len() as u32).u64(time_s).0;
    let mut entries = Fields::default();
    for grave in graves {
        entries = entries
            .bytes(&grave.segment_id)
            .bytes(&grave.run_id)
            .u32(grave.shard);
        entries = entries.u32(grave.what).u64(grave.chain_seq).bytes(&grave.root);
    }
    let message = [
        b"harborseal/v1/tombstone",
        &node.id()[..],
        host,
        &head,
        &entries.0,
    ]
    .concat();
    let signature = match kind {
        LOST => [0; 64],
        _ => node.sign(&message),
    };
    [&head[..], &signature, &entries.0].concat()
}

/// The root of §6, by its definition.
pub fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => Sha256::digest(b"").into(),
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            let both = [&[1][..], &root(left), &root(right)].concat();
            Sha256::digest(both).into()
        }
    }
}

pub fn leaf(data: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update([0])
        .chain_update(data)
        .finalize()
        .into()
}
