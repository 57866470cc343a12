//! What must hold of the files after a run: everything that was promised is there, and nothing that was never sent.
//!
//! Nothing of the engine's own books is believed here. What was stored is read back with the customers' identities and compared with what
//! the cameras sent; only then the books are compared with that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use harborseal::log::catalog::Note;
use harborseal_segment::block::BlockType;
use harborseal_segment::body::{ChainHead, CheckpointBody, DeletedSegment, TombstoneBody, TombstoneKind};
use harborseal_segment::head::Head;
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::{Segment, State};
use harborseal_segment::scan::{Item, Scanner};
use harborseal_segment::verify::{Chains, Report, Severity, verify};
use rand::RngExt;

use super::keys::{MAX_CUSTOMERS, identity, remembered_unlock};
use super::machine::{Machine, Past};
use super::packets::{self, Name};
use super::platter::{Content, FileId};
use super::recovery::{Chances, look_back};
use super::survivors::{self, Survivors};
use super::tally::Fired;

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
    sealed: HashMap<RunId, u64>,
}

/// One in so many seeds is read as a customer reads: with a keyring that tries and learns. It takes a millisecond per segment; in the others
/// what the entries hold is remembered from seeds that wrapped the same.
const KEYRING_SEEDS: u64 = 200;
/// In one of so many seeds every record of every segment is looked at, also where none is awaited.
const RECORD_SEEDS: u64 = 8;
/// Attempts at recovery that may be cut short by a crash.
const MAX_CRASHES: usize = 4;

/// After the last life: everything is closed, whatever it takes, and everything that was promised is found.
pub fn everything(machine: &mut Machine) {
    // After a stop, what the disk does not have yet may still be lost while recovery crashes.
    let settled = machine.pasts.last().is_some_and(|past| !past.whole);
    let followed = settled && machine.story.is_told_whole();
    let survivors = followed.then(|| Survivors::of(&machine.platter.borrow()));
    let files = recover(machine);
    let found = read_all(machine, files);
    if let Some(survivors) = survivors {
        survivors.check(&found.copies, &machine.platter.borrow());
    }
    if machine.liar_was_believed() {
        // What a lying disk lost is lost; that it shows, and that the rest is there, was checked.
        machine.tally.fire(Fired::LiarSurvived);
        check_streams(machine, &found);
        return;
    }
    everything_stored_is_found(machine, &found);
    check_streams(machine, &found);
    for past in &machine.pasts {
        durable_tombstones_are_found(past, &found);
        if past.whole {
            nothing_is_missing(past, &found);
        }
    }
}

/// After a stop nothing at all is missing.
fn nothing_is_missing(past: &Past, found: &Found) {
    for entry in past.tombstones.iter().flatten() {
        assert!(
            found.deleted.contains(entry),
            "a tombstone of {} was lost",
            entry.segment_id
        );
    }
    for head in past.heads.iter().filter(|_| past.long) {
        assert!(
            found.heads.contains(head),
            "the chain end {} was lost",
            head.segment_id
        );
    }
    let (begun, retired) = past.segments;
    let abandoned = past.told.iter().filter(|note| matches!(note, Note::Abandoned(_)));
    let sealed = found.sealed.get(&past.run_id).copied().unwrap_or(0);
    assert!(
        sealed + retired.max(abandoned.count() as u64) >= begun,
        "of {begun} segments {sealed} were sealed and {retired} retired",
    );
}

// ---- Recovering ---------------------------------------------------------------------------------------------------

/// Closes every file as the next start of the engine does, through crashes and errors, until all are closed. Returns the segments there are.
fn recover(machine: &mut Machine) -> Vec<(FileId, Report)> {
    for attempt in 0.. {
        let calm = attempt >= MAX_CRASHES;
        let chances = match calm {
            true => Chances {
                crash: 0.0,
                error: 0.0,
            },
            false => Chances {
                crash: 0.02,
                error: if machine.rng.random_bool(0.1) { 0.05 } else { 0.0 },
            },
        };
        let well = chances.error == 0.0;
        let (run_id, seed) = (RunId(machine.rng.random()), machine.rng.random());
        let look = look_back(
            &machine.platter,
            &machine.node,
            run_id,
            seed,
            chances,
            &machine.tally,
        );
        if look.cut_short {
            machine.crash();
            continue;
        }
        if look.later == 0 || well {
            break;
        }
    }
    let mut files = Vec::new();
    let ids: Vec<FileId> = machine.platter.borrow().files().map(|(id, _)| id).collect();
    for id in ids {
        files.extend(closed(machine, id));
    }
    files
}

/// The file to read instead of this one: itself, its repaired copy where a lying disk damaged it, none where there is nothing in it. And what
/// `verify` says of it.
fn closed(machine: &Machine, id: FileId) -> Option<(FileId, Report)> {
    let platter = machine.platter.borrow();
    let file = platter.file(id);
    let path = file.path.display();
    let source = file.source();
    if let Err(error) = Head::read(&source) {
        assert!(!file.in_use || file.lied, "{path} was in use: {error}");
        return None;
    }
    let report = verify(&source, None, |_| {}).unwrap_or_else(|error| panic!("{path}: {error}"));
    if report.state != State::Open && report.is_clean() {
        return Some((id, report));
    }
    if !file.lied {
        survivors::tell_blocks(&machine.tally, file);
        let findings: Vec<String> = report
            .findings
            .iter()
            .map(|finding| finding.to_string())
            .collect();
        panic!("{path}: a crash is taken for corruption: {}", findings.join("; "));
    }
    drop(platter);
    Some(survivors::repaired(machine, id))
}

// ---- Reading back -------------------------------------------------------------------------------------------------

fn read_all(machine: &Machine, files: Vec<(FileId, Report)>) -> Found {
    let platter = machine.platter.borrow();
    let mut found = Found::default();
    let mut chains = Chains::default();
    let mut in_chain_order = Vec::new();
    let told = |past: &Past| past.heads.is_empty() && past.tombstones.is_empty();
    let unrelated = machine.pasts.iter().all(told);
    let look_at_records = !unrelated || machine.story.seed.is_multiple_of(RECORD_SEEDS);
    for (id, report) in files {
        let source = platter.file(id).source();
        in_chain_order.push((report.head.body.shard, report.head.body.chain_seq, id));
        let sealed = found.sealed.entry(report.head.body.run_id).or_default();
        *sealed += u64::from(report.state == State::Sealed);
        if look_at_records {
            note_records(machine, &source, &report.head, &mut found);
        }
        chains.add(report.member);
    }
    if unrelated && !machine.liar_was_believed() {
        let findings = chains.check(true, &|_| false);
        let damage = findings
            .iter()
            .find(|found| found.finding.severity() == Severity::Damage);
        assert!(damage.is_none(), "chain: {damage:?}");
    }
    in_chain_order.sort_unstable();
    for customer in 0..MAX_CUSTOMERS {
        let as_customer = machine.story.seed.is_multiple_of(KEYRING_SEEDS);
        let mut keyring = as_customer.then(|| Keyring::new(identity(customer)));
        for (_, _, id) in &in_chain_order {
            read(machine, *id, customer, keyring.as_mut(), &mut found);
        }
    }
    for copies in found.copies.values() {
        let again = u64::from(copies.len() > 2);
        machine.tally.add(Fired::RelocatedTwice, again);
    }
    found
}

/// Tombstones and chain ends.
fn note_records(machine: &Machine, source: &Content<'_>, head: &Head, found: &mut Found) {
    let mut chunks = 0;
    let mut scanner = Scanner::new(source, head.id);
    while let Some(item) = scanner.next_item().expect("memory can be read") {
        let Item::Block(block) = item else { continue };
        match block.header.block_type {
            BlockType::Chunk => chunks += 1,
            BlockType::Stream if chunks > 0 && block.header.segment_id == head.id => {
                machine.tally.fire(Fired::LateStream);
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
fn read(machine: &Machine, id: FileId, customer: usize, keyring: Option<&mut Keyring>, found: &mut Found) {
    let platter = machine.platter.borrow();
    let file = platter.file(id);
    let path = file.path.display();
    let mut segment = Segment::open(file.source()).unwrap_or_else(|error| panic!("{path}: {error}"));
    let streams = match keyring {
        Some(keyring) => segment.open_streams(keyring),
        None => segment.open_streams_by(|origin, entries| remembered_unlock(customer, origin, entries)),
    };
    let Ok(streams) = streams else {
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
            let relocated = u64::from(stream.origin != segment.head().id);
            machine.tally.add(Fired::Relocated, relocated);
            found.copies.entry(key).or_default().insert(id);
            let durable = row.offset + u64::from(row.total_len) <= file.watermark;
            let packets: Vec<FoundPacket> = chunk
                .packets()
                .map(|packet| {
                    let name = packets::name(packet.bytes);
                    let name = name.filter(|name| is_sent(machine, *name, packet.bytes));
                    let name = name.unwrap_or_else(|| panic!("{path}: a packet that was never sent"));
                    let past = machine.past_of(name.stream);
                    let sent = past.traffic.stream(name.stream).expect("it was sent");
                    let camera = &past.plan.cameras[sent.camera];
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

fn is_sent(machine: &Machine, name: Name, bytes: &[u8]) -> bool {
    let mut pasts = machine.pasts.iter();
    let stream = pasts.find_map(|past| past.traffic.stream(name.stream));
    stream
        .and_then(|stream| stream.packets.get(name.index as usize))
        .is_some_and(|sent| sent[..] == *bytes)
}

// ---- Against what was sent --------------------------------------------------------------------------------------

/// The books say how many packets are durable, by SSRC; so many are found below the watermarks.
fn everything_stored_is_found(machine: &Machine, found: &Found) {
    for past in &machine.pasts {
        let mut stored: BTreeMap<u32, u64> = BTreeMap::new();
        for ledger in &past.ledgers {
            *stored.entry(ledger.ssrc).or_default() += ledger.stored;
        }
        let mut below: BTreeMap<u32, u64> = BTreeMap::new();
        for (name, chunks) in &found.streams {
            let Some(stream) = past.traffic.stream(*name) else {
                continue;
            };
            let durable = chunks.iter().filter(|chunk| chunk.durable);
            let packets = durable.map(|chunk| chunk.packets.len() as u64);
            *below.entry(stream.ssrc).or_default() += packets.sum::<u64>();
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
}

/// Each packet is found as often as it arrived at most, with its arrival, and in order.
fn check_streams(machine: &Machine, found: &Found) {
    for past in &machine.pasts {
        let mut arrivals: HashMap<Name, Vec<u64>> = HashMap::new();
        let mut order: HashMap<u32, Vec<Name>> = HashMap::new();
        for (arrival, real_ns) in &past.arrived {
            for name in &past.traffic.arrivals[*arrival].names {
                arrivals.entry(*name).or_default().push(*real_ns);
                order.entry(name.stream).or_default().push(*name);
            }
        }
        for (stream, chunks) in &found.streams {
            if past.traffic.stream(*stream).is_some() {
                check_stream(past, *stream, chunks, &arrivals, &order[stream]);
            }
        }
    }
}

fn check_stream(
    past: &Past,
    stream: u32,
    chunks: &[FoundChunk],
    arrivals: &HashMap<Name, Vec<u64>>,
    order: &[Name],
) {
    let mut chunks: Vec<&FoundChunk> = chunks.iter().collect();
    chunks.sort_by_key(|chunk| chunk.place);
    let mut names = Vec::new();
    let mut copies: HashMap<Name, Vec<(&FoundPacket, &FoundChunk)>> = HashMap::new();
    for chunk in &chunks {
        for packet in &chunk.packets {
            assert_eq!(packet.name.stream, stream, "a chunk holds packets of two streams");
            let sent = packet_of(past, packet.name);
            assert_eq!(packet.rtcp, packets::is_rtcp(sent), "RTCP is told from RTP");
            copies.entry(packet.name).or_default().push((packet, chunk));
            names.push(packet.name);
        }
    }
    for (name, copies) in &copies {
        let times = arrivals.get(name).map_or(&[][..], |times| &times[..]);
        if let Some((packet, _)) = unmatched(times, copies) {
            let arrival = packet.arrival_ns;
            panic!("{name:?} was found with arrival {arrival}, or more often than it arrived");
        }
    }
    check_order(past, stream, &names, order);
    if past.whole && past.plan.events.is_empty() {
        let dense = chunks
            .windows(2)
            .all(|pair| pair[0].chunks_so_far < pair[1].chunks_so_far);
        assert!(dense, "stream {stream}: chunks_so_far does not rise");
    }
}

fn packet_of(past: &Past, name: Name) -> &Rc<[u8]> {
    let stream = past.traffic.stream(name.stream).expect("it is of this life");
    &stream.packets[name.index as usize]
}

/// A found copy for which no arrival is left, each arrival being one copy's at most. A copy that was stamped with its chunk's base, because
/// the clock had gone back, fits several arrivals: which of them is its own, only all copies together tell (augmenting paths, Kuhn 1955).
fn unmatched<'a>(
    times: &[u64],
    copies: &[(&'a FoundPacket, &'a FoundChunk)],
) -> Option<(&'a FoundPacket, &'a FoundChunk)> {
    let mut taken_by: Vec<Option<usize>> = vec![None; times.len()];
    let lost = (0..copies.len()).find(|copy| {
        let mut tried = vec![false; times.len()];
        !finds_time(*copy, times, copies, &mut taken_by, &mut tried)
    });
    lost.map(|copy| copies[copy])
}

/// Gives `copy` an arrival, moving others to other arrivals of theirs where that takes it.
fn finds_time(
    copy: usize,
    times: &[u64],
    copies: &[(&FoundPacket, &FoundChunk)],
    taken_by: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    let (packet, chunk) = copies[copy];
    (0..times.len()).any(|at| {
        if tried[at] || !is_at(times[at], packet, chunk) {
            return false;
        }
        tried[at] = true;
        let free = taken_by[at].is_none_or(|other| finds_time(other, times, copies, taken_by, tried));
        if free {
            taken_by[at] = Some(copy);
        }
        free
    })
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
fn check_order(past: &Past, stream: u32, found: &[Name], arrived: &[Name]) {
    if past.plan.shards == 1 {
        let mut rest = arrived.iter();
        let kept = found.iter().all(|name| rest.any(|other| other == name));
        assert!(kept, "stream {stream} is not in order of arrival");
        return;
    }
    let sent = past.traffic.stream(stream).expect("it is of this life");
    if !sent.orderly || sent.ambiguous || !past.order_is_strict {
        return;
    }
    let rtp = found
        .iter()
        .filter(|name| !packets::is_rtcp(packet_of(past, **name)));
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

fn durable_tombstones_are_found(past: &Past, found: &Found) {
    for note in &past.told {
        let Note::TombstonesDurable(ticket) = note else {
            continue;
        };
        for entry in &past.tombstones[*ticket as usize] {
            assert!(
                found.deleted.contains(entry),
                "ticket {ticket} was called durable, and its tombstone is lost"
            );
        }
    }
}
