//! What a reader must find in a vector, and the JSON that says so (tests/vectors/README.md describes it).

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::forge::{Forge, Stream};
use super::kaitai;
use super::keys::{Id, PEOPLE, Person, Slot};
use super::wire::{FOOTER, INDEX, Seg, u32_at};

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One vector: files, and what is expected of them.
#[derive(Clone, Serialize)]
pub struct Vector {
    pub name: String,
    pub about: &'static str,
    pub musts: Vec<String>,
    pub files: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_by: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_identity: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub releases: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub structure: Vec<Structure>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub opened: BTreeMap<&'static str, Opened>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<Finding>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Wrong>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover: Option<&'static str>,
    #[serde(skip)]
    pub bytes: Vec<Vec<u8>>,
    /// What keys.json has for it.
    #[serde(skip)]
    pub given: Vec<Release>,
    #[serde(skip)]
    pub good: bool,
}

/// What stands in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Structure {
    pub segment_id: String,
    pub node_id: String,
    pub run_id: String,
    pub shard: u32,
    pub chain_seq: u64,
    pub prev_segment_id: String,
    pub created_s: u64,
    pub incompat: u64,
    pub ro_compat: u64,
    pub compat: u64,
    pub state: String,
    pub file_len: u64,
    pub data_end: u64,
    pub floor: u64,
    pub leaf_count: u64,
    pub root: String,
    pub blocks: Vec<BlockOut>,
    pub gaps: Vec<Gap>,
}

/// An accepted block, with what the forge needs of it again.
#[derive(Clone)]
pub struct BlockSeen {
    pub offset: u64,
    pub kind: u8,
    pub flags: u8,
    pub block_no: u64,
    pub total_len: u32,
    pub body_len: u32,
    pub segment_id: Id,
    pub stream_id: Id,
    pub slot: u32,
    pub stream_seq: u64,
    pub first_s: u64,
    pub last_s: u64,
    pub erased: bool,
}

impl BlockSeen {
    /// Of a block that was just made.
    pub fn of(offset: u64, block: &[u8]) -> Self {
        let id_at = |at: usize| block[at..at + 16].try_into().expect("sixteen bytes");
        let u64_at = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"));
        BlockSeen {
            offset,
            kind: block[4],
            flags: block[5],
            block_no: u64_at(32),
            total_len: u32_at(block, 8),
            body_len: u32_at(block, 12),
            segment_id: id_at(16),
            stream_id: id_at(40),
            slot: u32_at(block, 56),
            stream_seq: u64_at(80),
            first_s: u64_at(64),
            last_s: u64_at(72),
            erased: false,
        }
    }
}

/// An accepted block, as the JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockOut {
    pub offset: u64,
    #[serde(rename = "type")]
    pub kind: u8,
    pub flags: u8,
    pub block_no: u64,
    pub total_len: u32,
    pub body_len: u32,
    pub segment_id: String,
    pub stream_id: String,
    pub stream_seq: u64,
    pub erased: bool,
}

/// A stretch without an accepted block, also behind the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub offset: u64,
    pub len: u64,
}

impl Structure {
    pub fn new(forge: &Forge, gaps: Vec<Gap>) -> Self {
        let seg = &forge.seg;
        let mut data = forge
            .blocks
            .iter()
            .filter(|block| block.kind != INDEX && block.kind != FOOTER);
        let head = BlockSeen::of(forge.head_at as u64, &forge.bytes[forge.head_at..]);
        let out = |block: &BlockSeen| BlockOut {
            offset: block.offset,
            kind: block.kind,
            flags: block.flags,
            block_no: block.block_no,
            total_len: block.total_len,
            body_len: block.body_len,
            segment_id: hex(&block.segment_id),
            stream_id: hex(&block.stream_id),
            stream_seq: block.stream_seq,
            erased: block.erased,
        };
        Structure {
            segment_id: hex(&seg.id),
            node_id: hex(&seg.node.id()),
            run_id: hex(&seg.run_id),
            shard: seg.shard,
            chain_seq: seg.chain_seq,
            prev_segment_id: hex(&seg.prev),
            created_s: seg.created_s,
            incompat: seg.incompat,
            ro_compat: seg.ro_compat,
            compat: seg.compat,
            state: forge.state.into(),
            file_len: forge.end(),
            data_end: data
                .next_back()
                .map_or(8192, |block| block.offset + u64::from(block.total_len)),
            floor: forge.floor,
            leaf_count: forge.leaves().len() as u64,
            root: hex(&forge.root()),
            blocks: std::iter::once(&head).chain(&forge.blocks).map(out).collect(),
            gaps,
        }
    }
}

/// What one identity gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Opened {
    pub streams: Vec<StreamOut>,
    pub needs_release: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StreamOut {
    pub origin: String,
    pub stream_id: String,
    pub slot: u32,
    pub camera_id: String,
    pub ssrc: u32,
    pub media_index: u16,
    pub clock_rate: u32,
    pub sdp: String,
    /// Chunks that open.
    pub chunks: u64,
    pub packets: u64,
    pub sha256: String,
}

/// SHA-256 over packets, as every reader forms it.
#[derive(Default)]
pub struct PacketHash {
    hash: Sha256,
    pub packets: u64,
}

impl PacketHash {
    pub fn add(&mut self, arrival_ns: u64, rtcp: bool, packet: &[u8]) {
        self.packets += 1;
        self.hash.update(arrival_ns.to_le_bytes());
        self.hash.update([u8::from(rtcp)]);
        self.hash.update((packet.len() as u32).to_le_bytes());
        self.hash.update(packet);
    }

    pub fn end(self) -> String {
        hex(&self.hash.finalize())
    }
}

impl From<&Stream> for StreamOut {
    fn from(stream: &Stream) -> Self {
        let mut hash = PacketHash::default();
        let mut chunks: Vec<_> = stream.chunks.iter().collect();
        chunks.sort_by_key(|(seq, _)| *seq);
        for (_, text) in &chunks {
            for packet in &text.packets {
                let arrival_ns = text.base_ns + 1000 * u64::from(packet.delta_us);
                hash.add(arrival_ns, packet.flags & 1 != 0, &packet.bytes);
            }
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a good stream's text is UTF-8");
        StreamOut {
            origin: hex(&stream.origin),
            stream_id: hex(&stream.id),
            slot: stream.slot,
            camera_id: text(&stream.info.camera_id),
            ssrc: stream.info.ssrc,
            media_index: stream.info.media_index,
            clock_rate: stream.info.clock_rate,
            sdp: text(&stream.info.sdp),
            chunks: chunks.len() as u64,
            packets: hash.packets,
            sha256: hash.end(),
        }
    }
}

/// What opens an erasable slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Release {
    pub segment_id: String,
    pub slot: u32,
    pub e: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub file: String,
    pub offset: u64,
    pub class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    pub severity: String,
}

/// The first error by §13.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wrong {
    pub file: String,
    pub class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    pub offset: u64,
}

impl Vector {
    fn new(good: bool, name: &str, about: &'static str, musts: &[u32]) -> Self {
        Vector {
            name: format!("{}/{name}", if good { "good" } else { "bad" }),
            about,
            musts: musts.iter().map(|number| format!("M{number}")).collect(),
            files: Vec::new(),
            refused_by: Vec::new(),
            with_identity: None,
            releases: false,
            structure: Vec::new(),
            opened: BTreeMap::new(),
            findings: good.then(Vec::new),
            error: None,
            recover: None,
            bytes: Vec::new(),
            given: Vec::new(),
            good,
        }
    }

    /// Readers accept it. What they find in it is noted with [`Vector::note`].
    pub fn good(name: &str, about: &'static str, musts: &[u32]) -> Self {
        Vector::new(true, name, about, musts)
    }

    /// Readers that check for it refuse it with [`Vector::error`].
    pub fn bad(name: &str, about: &'static str, musts: &[u32]) -> Self {
        Vector {
            refused_by: vec!["segment", "python"],
            ..Vector::new(false, name, about, musts)
        }
    }

    pub fn file(self, forge: Forge) -> Self {
        let (bytes, structure) = forge.finish();
        let mut vector = self.raw(bytes);
        vector.structure.extend(vector.good.then_some(structure));
        vector
    }

    /// A file that is no segment, or whose structure nobody needs to agree on.
    pub fn raw(mut self, bytes: Vec<u8>) -> Self {
        self.bytes.push(bytes);
        self
    }

    /// The streams in it: who may read them gets them, everybody else nothing. Call it last but for findings.
    pub fn streams(mut self, streams: &[&Stream]) -> Self {
        for Person { name, .. } in PEOPLE {
            let mut opened = Opened::default();
            for stream in streams.iter().filter(|stream| stream.readers.contains(&name)) {
                match stream.erasable && !self.releases {
                    true => opened.needs_release = true,
                    false => opened.streams.push(StreamOut::from(*stream)),
                }
            }
            opened.streams.sort();
            self.opened.insert(name, opened);
        }
        self
    }

    pub fn identity(mut self, person: Person) -> Self {
        self.with_identity = Some(person.name);
        self
    }

    /// Its readers have E of this slot.
    pub fn release(mut self, seg: &Seg, slot: &Slot) -> Self {
        self.releases = true;
        self.given.push(Release {
            segment_id: hex(&seg.id),
            slot: slot.number,
            e: hex(&slot.e.expect("only an erasable slot is released")),
        });
        self
    }

    /// What recovery does about it.
    pub fn recover(mut self, outcome: &'static str) -> Self {
        self.recover = Some(outcome);
        self
    }

    pub fn note(self, class: &str, offset: u64) -> Self {
        self.finding(1, class, None, offset, "note")
    }

    pub fn note_in(self, file: usize, class: &str, offset: u64) -> Self {
        self.finding(file, class, None, offset, "note")
    }

    pub fn finding(
        mut self,
        file: usize,
        class: &str,
        cause: Option<&str>,
        offset: u64,
        severity: &str,
    ) -> Self {
        let finding = Finding {
            file: file.to_string(),
            offset,
            class: class.into(),
            cause: cause.map(String::from),
            severity: severity.into(),
        };
        self.findings.get_or_insert_default().push(finding);
        self
    }

    pub fn error(self, class: &str, offset: u64) -> Self {
        self.error_in(1, class, None, offset)
    }

    /// `broken_block` for this cause.
    pub fn broken(self, cause: &str, offset: u64) -> Self {
        self.error_in(1, "broken_block", Some(cause), offset)
    }

    pub fn error_in(mut self, file: usize, class: &str, cause: Option<&str>, offset: u64) -> Self {
        self.error = Some(Wrong {
            file: file.to_string(),
            class: class.into(),
            cause: cause.map(String::from),
            offset,
        });
        self
    }

    /// Names the files, now that it is known how many there are.
    pub fn named(mut self) -> Self {
        let (_, base) = self.name.split_once('/').expect("a name says good or bad");
        if !self.good && kaitai::REFUSED.contains(&base) {
            self.refused_by.push("kaitai");
        }
        self.files = match self.bytes.len() {
            1 => vec![format!("{base}.hseal")],
            count => (1..=count).map(|n| format!("{base}/{n}.hseal")).collect(),
        };
        let file = |number: &str| {
            self.files[number.parse::<usize>().expect("files are numbered from 1") - 1].clone()
        };
        for finding in self.findings.iter_mut().flatten() {
            finding.file = file(&finding.file);
        }
        if let Some(error) = &mut self.error {
            error.file = file(&error.file);
        }
        if let Some(findings) = &mut self.findings {
            findings.sort();
        }
        self
    }
}
