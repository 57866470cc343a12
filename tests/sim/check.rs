//! What must hold of the files after a run: everything that was promised is there, and nothing that was never sent.
//!
//! Nothing of the engine's own books is believed here. What was stored is read back with the customers' identities and compared with what
//! the cameras sent; only then the books are compared with that.

use std::collections::{BTreeMap, HashMap, HashSet};

use harborseal::log::catalog::Note;
use harborseal_segment::block::BlockType;
use harborseal_segment::body::{ChainHead, CheckpointBody, DeletedSegment, TombstoneBody, TombstoneKind};
use harborseal_segment::head::Head;
use harborseal_segment::ids::SegmentId;
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::{Segment, State};
use harborseal_segment::scan::{Item, Scanner};
use harborseal_segment::verify::{Chains, Severity, verify};

use super::packets::{self, Name};
use super::plan::{S, identity};
use super::platter::{Content, FileId};
use super::recovery::recover;
use super::tally::Fired;
use super::world::World;

/// A chunk that was found, in the order of its stream.
struct FoundChunk {
    /// Place of its segment of origin in its chain, and its number there.
    place: (u64, u64),
    base_ns: u64,
    chunks_so_far: u64,
    durable: bool,
    packets: Vec<FoundPacket>,
}

struct FoundPacket {
    name: Name,
    arrival_ns: u64,
    rtcp: bool,
}

/// Everything that was read back: chunks by stream of the traffic.
#[derive(Default)]
struct Found {
    streams: BTreeMap<u32, Vec<FoundChunk>>,
    seen: HashMap<(SegmentId, u64), FileId>,
    copies: HashMap<(SegmentId, u64), HashSet<FileId>>,
    deleted: Vec<DeletedSegment>,
    heads: Vec<ChainHead>,
    sealed: usize,
}

/// After a crash: what was called durable is still there, and recovery closes everything.
pub fn after_crash(world: &mut World) {
    block_numbers_are_unique(world);
    let watermarks = watermarks(world);
    world.platter.borrow_mut().crash();
    durable_bytes_survived(world, &watermarks);
    let found = recover_and_read(world);
    everything_stored_is_found(world, &found);
    check_streams(world, &found, false);
    durable_tombstones_are_found(world, &found);
}

/// After a stop: the same, and nothing at all is missing.
pub fn after_stop(world: &mut World) {
    block_numbers_are_unique(world);
    let found = recover_and_read(world);
    everything_stored_is_found(world, &found);
    check_streams(world, &found, true);
    durable_tombstones_are_found(world, &found);
    for entry in world.tombstones.iter().flatten() {
        assert!(
            found.deleted.contains(entry),
            "a tombstone of {} was lost",
            entry.segment_id
        );
    }
    let late = world.mono_since_start_ns() > 5 * S;
    for head in world.heads.iter().filter(|_| late) {
        assert!(
            found.heads.contains(head),
            "the chain end {} was lost",
            head.segment_id
        );
    }
    let retired: usize = sum_of_books(world, |books| books.segments_retired) as usize;
    let begun = sum_of_books(world, |books| books.segments) as usize;
    let failed_to_close = world.shards.iter().flat_map(|shard| &shard.keeper.told);
    let failed_to_close = failed_to_close
        .filter(|note| matches!(note, Note::Abandoned(_)))
        .count();
    assert!(
        found.sealed + retired.max(failed_to_close) >= begun,
        "of {begun} segments {} were sealed and {retired} retired",
        found.sealed
    );
}

// ---- Bytes ------------------------------------------------------------------------------------------------------

/// What was promised of each file, and the bytes that it was promised of.
fn watermarks(world: &World) -> Vec<(FileId, Vec<u8>)> {
    let platter = world.platter.borrow();
    let in_use = platter.files().filter(|(_, file)| file.in_use);
    in_use
        .map(|(id, file)| (id, file.image[..file.watermark as usize].to_vec()))
        .collect()
}

fn durable_bytes_survived(world: &World, watermarks: &[(FileId, Vec<u8>)]) {
    let platter = world.platter.borrow();
    for (id, bytes) in watermarks {
        let file = platter.file(*id);
        let there = platter.find(&file.path) == Some(*id);
        assert!(there, "{} was in use and is gone", file.path.display());
        let len = bytes.len();
        let same = file.image.len() >= len && file.image[..len] == bytes[..];
        assert!(
            same,
            "{}: bytes below the watermark {len} changed",
            file.path.display()
        );
    }
}

/// A number is given once in each segment of origin: (key, nonce) never seals two texts.
fn block_numbers_are_unique(world: &World) {
    let platter = world.platter.borrow();
    let mut blocks: HashMap<(SegmentId, u64), Vec<u8>> = HashMap::new();
    let mut ids: HashMap<SegmentId, FileId> = HashMap::new();
    for (id, file) in platter.files().filter(|(_, file)| file.in_use) {
        let source = file.source();
        let head = Head::read(&source).expect("a segment in use has a head");
        let other = ids.insert(head.id, id);
        assert!(other.is_none(), "segment id {} stands in two files", head.id);
        let mut scanner = Scanner::new(source, head.id);
        while let Some(item) = scanner.next_item().expect("memory can be read") {
            let Item::Block(block) = item else { continue };
            let key = (block.header.segment_id, block.header.block_no);
            let known = blocks.entry(key).or_insert_with(|| block.bytes.to_vec());
            assert!(known == block.bytes, "block {} of {} has two texts", key.1, key.0);
        }
    }
}

// ---- Reading back -----------------------------------------------------------------------------------------------

fn recover_and_read(world: &mut World) -> Found {
    let mut files: Vec<FileId> = world.platter.borrow().files().map(|(id, _)| id).collect();
    files.retain(|id| recover(world, *id));
    let mut found = Found::default();
    let mut chains = Chains::default();
    let mut in_chain_order = Vec::new();
    for id in files {
        let platter = world.platter.borrow();
        let file = platter.file(id);
        let source = file.source();
        let report = verify(&source, None, |_| {}).expect("a recovered segment can be read");
        let damage = report
            .findings
            .iter()
            .find(|finding| finding.severity() != Severity::Note);
        assert!(
            damage.is_none(),
            "{}: {}",
            file.path.display(),
            damage.map_or(String::new(), |f| f.to_string())
        );
        in_chain_order.push((report.head.body.shard, report.head.body.chain_seq, id));
        found.sealed += usize::from(report.state == State::Sealed);
        chains.add(report.member);
        note_records(world, &source, &report.head, &mut found);
    }
    if world.heads.is_empty() && world.tombstones.is_empty() {
        let findings = chains.check(true, &|_| false);
        let damage = findings
            .iter()
            .find(|found| found.finding.severity() == Severity::Damage);
        assert!(damage.is_none(), "chain: {damage:?}");
    }
    in_chain_order.sort_unstable();
    for customer in 0..world.plan.customers {
        let mut keyring = Keyring::new(identity(customer));
        for (_, _, id) in &in_chain_order {
            read(world, *id, customer, &mut keyring, &mut found);
        }
    }
    for copies in found.copies.values() {
        world
            .tally
            .add(Fired::RelocatedTwice, u64::from(copies.len() > 2));
    }
    found
}

/// Tombstones and chain ends.
fn note_records(world: &World, source: &Content<'_>, head: &Head, found: &mut Found) {
    let mut chunks = 0;
    let mut scanner = Scanner::new(source, head.id);
    while let Some(item) = scanner.next_item().expect("memory can be read") {
        let Item::Block(block) = item else { continue };
        match block.header.block_type {
            BlockType::Chunk => chunks += 1,
            BlockType::Stream if chunks > 0 && block.header.segment_id == head.id => {
                world.tally.fire(Fired::LateStream);
            }
            BlockType::Tombstone => {
                let body = TombstoneBody::parse(block.body()).expect("verify passed");
                if let TombstoneKind::Deleted(entries) = body.kind {
                    found.deleted.extend(entries);
                }
            }
            BlockType::Checkpoint => {
                let body = CheckpointBody::parse(block.body()).expect("verify passed");
                found.heads.extend(body.heads);
            }
            _ => {}
        }
    }
}

/// Opens what is for one customer in one file.
fn read(world: &World, id: FileId, customer: usize, keyring: &mut Keyring, found: &mut Found) {
    let platter = world.platter.borrow();
    let file = platter.file(id);
    let path = file.path.display();
    let mut segment = Segment::open(file.source()).unwrap_or_else(|error| panic!("{path}: {error}"));
    let Ok(streams) = segment.open_streams(keyring) else {
        return; // nothing here is for this customer
    };
    for stream in streams {
        let stream = stream.unwrap_or_else(|error| panic!("{path}: {error}"));
        let origin = segment.origin_of(stream.origin).expect("its stream was opened");
        for row in segment
            .chunk_rows(&stream)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
        {
            let chunk = segment
                .read_chunk(&stream, &row)
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            let key = (stream.origin, chunk.block_no);
            world
                .tally
                .add(Fired::Relocated, u64::from(stream.origin != segment.head().id));
            found.copies.entry(key).or_default().insert(id);
            let durable = row.offset + u64::from(row.total_len) <= file.watermark;
            let packets: Vec<FoundPacket> = chunk
                .packets()
                .map(|packet| {
                    let name = packets::name(packet.bytes).filter(|name| is_sent(world, *name, packet.bytes));
                    let name = name.unwrap_or_else(|| panic!("{path}: a packet that was never sent"));
                    let sent = &world.traffic.streams[name.stream as usize];
                    let camera = &world.plan.cameras[sent.camera];
                    assert_eq!(camera.customer, customer, "{path}: a packet of another customer");
                    assert_eq!(
                        (&camera.id, sent.ssrc),
                        (&stream.info.camera_id, stream.info.ssrc),
                        "{path}"
                    );
                    FoundPacket {
                        name,
                        arrival_ns: packet.arrival_ns,
                        rtcp: packet.rtcp,
                    }
                })
                .collect();
            let stream_of_traffic = packets[0].name.stream;
            let chunks = found.streams.entry(stream_of_traffic).or_default();
            if found.seen.insert(key, id).is_some() {
                let place = (origin.chain_seq, chunk.block_no);
                let known = chunks.iter_mut().find(|known| known.place == place);
                known.expect("it was found before").durable |= durable;
                continue;
            }
            chunks.push(FoundChunk {
                place: (origin.chain_seq, chunk.block_no),
                base_ns: chunk.head.base_ns,
                chunks_so_far: chunk.head.chunks_so_far,
                durable,
                packets,
            });
        }
    }
}

fn is_sent(world: &World, name: Name, bytes: &[u8]) -> bool {
    let stream = world.traffic.streams.get(name.stream as usize);
    stream
        .and_then(|stream| stream.packets.get(name.index as usize))
        .is_some_and(|sent| sent == bytes)
}

// ---- Against what was sent --------------------------------------------------------------------------------------

/// The books say how many packets are durable, by SSRC; so many are found below the watermarks.
fn everything_stored_is_found(world: &mut World, found: &Found) {
    let mut stored: BTreeMap<u32, u64> = BTreeMap::new();
    for ledger in world.shards.iter().flat_map(|shard| shard.core.ledgers()) {
        *stored.entry(ledger.ssrc).or_default() += ledger.stored;
    }
    let mut below: BTreeMap<u32, u64> = BTreeMap::new();
    for (stream, chunks) in &found.streams {
        let ssrc = world.traffic.streams[*stream as usize].ssrc;
        let durable = chunks.iter().filter(|chunk| chunk.durable);
        *below.entry(ssrc).or_default() += durable.map(|chunk| chunk.packets.len() as u64).sum::<u64>();
    }
    // Streams whose slot went to another are summed up under no SSRC.
    let folded = stored.remove(&0).unwrap_or(0);
    stored.retain(|_, count| *count > 0);
    let total = |counts: &BTreeMap<u32, u64>| counts.values().sum::<u64>();
    assert_eq!(
        total(&below),
        total(&stored) + folded,
        "packets below the watermarks, and in the books as stored"
    );
    for (ssrc, count) in &stored {
        let there = below.get(ssrc).copied().unwrap_or(0);
        assert!(
            there >= *count,
            "SSRC {ssrc}: {count} packets stored, {there} found"
        );
    }
}

/// Each packet is found as often as it arrived at most, with its arrival, and in order.
fn check_streams(world: &mut World, found: &Found, whole: bool) {
    let mut arrivals: HashMap<Name, Vec<u64>> = HashMap::new();
    let mut order: HashMap<u32, Vec<Name>> = HashMap::new();
    for (arrival, real_ns) in &world.arrived {
        for name in &world.traffic.arrivals[*arrival].names {
            arrivals.entry(*name).or_default().push(*real_ns);
            order.entry(name.stream).or_default().push(*name);
        }
    }
    for (stream, chunks) in &found.streams {
        let mut chunks: Vec<&FoundChunk> = chunks.iter().collect();
        chunks.sort_by_key(|chunk| chunk.place);
        let mut names = Vec::new();
        for chunk in &chunks {
            for packet in &chunk.packets {
                assert_eq!(
                    packet.name.stream, *stream,
                    "a chunk holds packets of two streams"
                );
                let sent = &world.traffic.streams[*stream as usize].packets[packet.name.index as usize];
                assert_eq!(packet.rtcp, packets::is_rtcp(sent), "RTCP is told from RTP");
                let times = arrivals.get_mut(&packet.name);
                let at = times
                    .as_ref()
                    .and_then(|times| times.iter().position(|t| is_at(*t, packet, chunk)));
                let at = at.unwrap_or_else(|| {
                    panic!(
                        "{:?} was found with arrival {}, or more often than it arrived",
                        packet.name, packet.arrival_ns
                    )
                });
                times.expect("it has that time").swap_remove(at);
                names.push(packet.name);
            }
        }
        check_order(world, *stream, &names, &order[stream]);
        if whole && world.plan.events.is_empty() {
            let dense = chunks
                .windows(2)
                .all(|pair| pair[0].chunks_so_far < pair[1].chunks_so_far);
            assert!(dense, "stream {stream}: chunks_so_far does not rise");
        }
    }
}

/// Arrivals are kept to the microsecond, counted from the chunk's first. A clock that went back within a chunk is stamped with that.
fn is_at(real_ns: u64, packet: &FoundPacket, chunk: &FoundChunk) -> bool {
    if real_ns < chunk.base_ns {
        return packet.arrival_ns == chunk.base_ns;
    }
    packet.arrival_ns == chunk.base_ns + (real_ns - chunk.base_ns) / 1000 * 1000
}

/// On one shard packets are stored as they arrived. Between two, a stream that the network leaves in order stays so; RTCP, which has no
/// sequence, may take another place.
fn check_order(world: &World, stream: u32, found: &[Name], arrived: &[Name]) {
    if world.shards.len() == 1 {
        let mut rest = arrived.iter();
        let kept = found.iter().all(|name| rest.any(|other| other == name));
        assert!(kept, "stream {stream} is not in order of arrival");
        return;
    }
    let sent = &world.traffic.streams[stream as usize];
    if !sent.orderly || !world.order_is_strict {
        return;
    }
    let rtp = found
        .iter()
        .filter(|name| !packets::is_rtcp(&sent.packets[name.index as usize]));
    let rtp: Vec<u32> = rtp.map(|name| name.index).collect();
    let wrong = rtp.windows(2).find(|pair| pair[0] >= pair[1]);
    assert!(
        wrong.is_none(),
        "stream {stream}: packet {} stands before {}",
        wrong.map_or(0, |p| p[0]),
        wrong.map_or(0, |p| p[1])
    );
}

// ---- Other records ----------------------------------------------------------------------------------------------

fn durable_tombstones_are_found(world: &World, found: &Found) {
    for note in world.shards.iter().flat_map(|shard| &shard.keeper.told) {
        let Note::TombstonesDurable(ticket) = note else {
            continue;
        };
        for entry in &world.tombstones[*ticket as usize] {
            assert!(
                found.deleted.contains(entry),
                "ticket {ticket} was called durable, and its tombstone is lost"
            );
        }
    }
}

fn sum_of_books(world: &mut World, of: impl Fn(&harborseal::ledger::Snapshot) -> u64) -> u64 {
    let now = world.now();
    world.shards.iter_mut().map(|shard| of(&shard.books(now))).sum()
}
