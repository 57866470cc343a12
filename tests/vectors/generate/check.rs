//! The crate's reader against the vectors: what it finds must be what their JSON says, no less and no more.

use std::collections::BTreeMap;

use harborseal_segment::block::Header;
use harborseal_segment::body::StreamInfo;
use harborseal_segment::erase::{EraseSecret, Release};
use harborseal_segment::head::Head;
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::SegmentId;
use harborseal_segment::open::{Keyring, OpenError};
use harborseal_segment::reader::{Segment, StreamError};
use harborseal_segment::recover::{Plan, plan};
use harborseal_segment::scan::{Item, ReadError, Scanner};
use harborseal_segment::verify::{CLASSES, Chains, Severity, What, verify};

use super::expect::{BlockOut, Finding, Gap, Opened, PacketHash, StreamOut, Structure, Vector, Wrong, hex};
use super::keys::{PEOPLE, Person};

/// What the crate finds that the vector does not expect, or the other way round; empty if they agree.
pub fn check(vector: &Vector) -> Vec<String> {
    let mut told = Vec::new();
    let mut compare = |what: &str, expected: String, found: String| {
        if expected != found {
            told.push(format!(
                "{}: {what}\n  expected {expected}\n  found    {found}",
                vector.name
            ));
        }
    };
    for (at, expected) in vector.structure.iter().enumerate() {
        match structure(&vector.bytes[at]) {
            Err(error) => compare(&vector.files[at], "a segment".into(), error.to_string()),
            Ok(found) => {
                for (name, expected, found) in fields(expected, &found) {
                    compare(&format!("{}, {name}", vector.files[at]), expected, found);
                }
            }
        }
    }
    for (name, expected) in &vector.opened {
        let person = PEOPLE
            .into_iter()
            .find(|person| person.name == *name)
            .expect("everybody has a name");
        compare(
            &format!("opened by {name}"),
            show(expected),
            show(&opened(vector, person)),
        );
    }
    let found = findings(vector);
    if let Some(expected) = &vector.findings {
        compare("findings", show(expected), show(&found));
    }
    if let Some(expected) = &vector.error {
        compare(
            "error",
            show(&Some(expected)),
            show(&first_error(vector, &found).as_ref()),
        );
    }
    if let Some(expected) = vector.recover {
        compare("recover", expected.into(), recover(&vector.bytes[0]).into());
    }
    told
}

/// What recovery would do about a file.
fn recover(bytes: &[u8]) -> &'static str {
    match plan(&bytes, None, 0, |_| {}) {
        Ok(Plan::AlreadyClosed(_)) => "closed",
        Ok(Plan::CloseTail(_)) => "close",
        Ok(Plan::Unused(_)) => "unused",
        Ok(Plan::Corrupt(_)) => "repair",
        Err(ReadError::Unsupported { .. }) => "unsupported",
        Err(_) => "refused",
    }
}

fn show(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

fn fields(expected: &Structure, found: &Structure) -> Vec<(&'static str, String, String)> {
    let but_lists = |structure: &Structure| Structure {
        blocks: Vec::new(),
        gaps: Vec::new(),
        ..structure.clone()
    };
    vec![
        ("figures", show(&but_lists(expected)), show(&but_lists(found))),
        ("blocks", show(&expected.blocks), show(&found.blocks)),
        ("gaps", show(&expected.gaps), show(&found.gaps)),
    ]
}

/// The structure that the crate sees.
pub fn structure(bytes: &[u8]) -> Result<Structure, ReadError> {
    let source = bytes.to_vec();
    let report = verify(&source, None, |_| {})?;
    let head = Head::read(&source)?;
    let at = head.copies[0].as_ref().map_or(0, |_| 4096);
    let header = Header::parse(&head.block).expect("the head was read from a whole block");
    let (mut blocks, mut gaps) = (vec![block_out(at, &header, false)], Vec::new());
    let mut scanner = Scanner::new(&source, head.id);
    while let Some(item) = scanner.next_item()? {
        match item {
            Item::Gap(gap) => gaps.push(Gap {
                offset: gap.offset,
                len: gap.len,
            }),
            Item::Block(block) => blocks.push(block_out(block.offset, &block.header, block.is_erased())),
        }
    }
    Ok(Structure {
        segment_id: hex(&head.id.0),
        node_id: hex(&head.node_id.0),
        run_id: hex(&head.body.run_id.0),
        shard: head.body.shard,
        chain_seq: head.body.chain_seq,
        prev_segment_id: hex(&head.body.prev_segment_id.0),
        created_s: head.body.created_s,
        incompat: head.body.incompat,
        ro_compat: head.body.ro_compat,
        compat: head.body.compat,
        state: report.state.name().into(),
        file_len: report.file_len,
        data_end: report.data_end,
        floor: report.floor,
        leaf_count: report.leaf_count,
        root: hex(&report.root),
        blocks,
        gaps,
    })
}

fn block_out(offset: u64, header: &Header, erased: bool) -> BlockOut {
    BlockOut {
        offset,
        kind: header.block_type.as_u8(),
        flags: header.flags,
        block_no: header.block_no,
        total_len: header.total_len,
        body_len: header.body_len,
        segment_id: hex(&header.segment_id.0),
        stream_id: hex(&header.stream_id.0),
        stream_seq: header.stream_seq,
        erased,
    }
}

fn keyring(person: Person, vector: &Vector) -> Keyring {
    let identity = Identity::from_file_text(&person.secret_text());
    let mut keyring = Keyring::new(identity.expect("a vector's identity parses"));
    for given in &vector.given {
        keyring.add_release(Release {
            segment_id: SegmentId(unhex(&given.segment_id)),
            slot: given.slot,
            secret: EraseSecret::from_bytes(unhex(&given.e)),
        });
    }
    keyring
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex was written here");
    std::array::from_fn(byte)
}

/// Chunks of one stream by stream_seq, each with its packets.
type Chunks = BTreeMap<u64, Vec<(u64, bool, Vec<u8>)>>;

/// What `person` gets of all files together; a chunk that is met twice counts once.
pub fn opened(vector: &Vector, person: Person) -> Opened {
    opened_by(&vector.bytes, keyring(person, vector))
}

/// What one identity gets of all files together.
pub fn opened_by(files: &[Vec<u8>], mut keyring: Keyring) -> Opened {
    let mut needs_release = false;
    let mut streams: BTreeMap<(String, String), (u32, StreamInfo, Chunks)> = BTreeMap::new();
    for bytes in files {
        let Ok(mut segment) = Segment::open(bytes) else {
            continue;
        };
        let Ok(open) = segment.open_streams(&mut keyring) else {
            continue;
        };
        for stream in open {
            let stream = match stream {
                Ok(stream) => stream,
                Err(StreamError::Open {
                    why: OpenError::NeedsRelease,
                    ..
                }) => {
                    needs_release = true;
                    continue;
                }
                Err(_) => continue,
            };
            let key = (hex(&stream.origin.0), hex(&stream.stream_id.0));
            let entry = streams.entry(key);
            let (_, _, chunks) = entry.or_insert_with(|| (stream.slot, stream.info.clone(), Chunks::new()));
            let Ok(read) = segment.chunks(&stream) else {
                continue;
            };
            for chunk in read.flatten() {
                let packets = chunk
                    .packets()
                    .map(|packet| (packet.arrival_ns, packet.rtcp, packet.bytes.to_vec()));
                chunks.insert(chunk.stream_seq, packets.collect());
            }
        }
    }
    let out = |((origin, stream_id), (slot, info, chunks)): (_, (u32, StreamInfo, Chunks))| {
        let mut hash = PacketHash::default();
        for (arrival_ns, rtcp, bytes) in chunks.values().flatten() {
            hash.add(*arrival_ns, *rtcp, bytes);
        }
        StreamOut {
            origin,
            stream_id,
            slot,
            camera_id: info.camera_id,
            ssrc: info.ssrc,
            media_index: info.media_index,
            clock_rate: info.clock_rate,
            sdp: info.sdp,
            chunks: chunks.len() as u64,
            packets: hash.packets,
            sha256: hash.end(),
        }
    };
    Opened {
        streams: streams.into_iter().map(out).collect(),
        needs_release,
    }
}

/// All findings in all files, and those about their chains.
pub fn findings(vector: &Vector) -> Vec<Finding> {
    let person = PEOPLE
        .into_iter()
        .find(|person| Some(person.name) == vector.with_identity);
    let keyring = person.map(|person| keyring(person, vector));
    findings_of(&vector.files, &vector.bytes, keyring)
}

/// All findings in these files, which are called so, and, of several, those about their chains.
pub fn findings_of(names: &[String], files: &[Vec<u8>], mut keyring: Option<Keyring>) -> Vec<Finding> {
    let (mut found, mut reports) = (Vec::new(), Vec::new());
    let mut chains = Chains::default();
    let mut file_of = BTreeMap::new();
    for (file, bytes) in names.iter().zip(files) {
        match verify(bytes, keyring.as_mut(), |_| {}) {
            Err(error) => found.push(refusal(file, &error)),
            Ok(report) => {
                file_of.entry(report.member.segment_id()).or_insert(file);
                chains.add(report.member.clone());
                reports.push((file, report));
            }
        }
    }
    let erasures = chains.erasures();
    for (file, mut report) in reports {
        report.settle(&erasures);
        let of_file = report.findings.iter();
        found.extend(of_file.map(|finding| told(file, finding.offset, &finding.what)));
    }
    if files.len() > 1 {
        for told_of in chains.check(true, &|_| false) {
            found.push(told(
                file_of[&told_of.segment_id],
                told_of.finding.offset,
                &told_of.finding.what,
            ));
        }
    }
    found.sort();
    found
}

fn told(file: &str, offset: u64, what: &What) -> Finding {
    Finding {
        file: file.into(),
        offset,
        class: what.name().into(),
        cause: what.cause().map(str::to_string),
        severity: match what.severity() {
            Severity::Damage => "damage",
            Severity::Unsupported => "unsupported",
            Severity::Note => "note",
        }
        .into(),
    }
}

fn refusal(file: &str, error: &ReadError) -> Finding {
    let severity = match error {
        ReadError::NeverBegun => "note",
        ReadError::Unsupported { .. } => "unsupported",
        _ => "damage",
    };
    Finding {
        file: file.into(),
        offset: error.offset(),
        class: error.class().into(),
        cause: None,
        severity: severity.into(),
    }
}

fn first_error(vector: &Vector, findings: &[Finding]) -> Option<Wrong> {
    let place = |finding: &&Finding| {
        let file = vector.files.iter().position(|file| *file == finding.file);
        (
            file,
            finding.offset,
            CLASSES.iter().position(|class| *class == finding.class),
        )
    };
    let errors = findings.iter().filter(|finding| finding.severity != "note");
    let first = errors.min_by_key(place)?;
    Some(Wrong {
        file: first.file.clone(),
        class: first.class.clone(),
        cause: first.cause.clone(),
        offset: first.offset,
    })
}
