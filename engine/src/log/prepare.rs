//! Preparing a segment: everything about the next one that can be done ahead, off the shard and without I/O.
//!
//! Random ids and secrets are drawn, every customer's secret is wrapped, and the blocks the segment begins with are built: SEGMENT twice,
//! KEY for the customers and STREAM for the streams that are active now. The keeper writes and syncs them before the shard hears of the segment, so
//! rotating costs the shard nothing.
//!
//! Slots and the order of KEY entries and STREAM blocks are shuffled anew for each segment (design §5): their order says nothing about who is who.

use std::collections::HashMap;
use std::sync::Arc;

use harborseal_segment::block::{BLOCK_ALIGN, Header};
use harborseal_segment::body::{KeyEntry, OriginBody, StreamInfo};
use harborseal_segment::cipher::Backend;
use harborseal_segment::erase::{EraseKey, EraseSecret};
use harborseal_segment::identity::PublicKey;
use harborseal_segment::ids::{RunId, SegmentId, StreamId};
use harborseal_segment::keys::{Hint, SegmentSecret, StreamKeys, Wrap, wrap_stream};
use harborseal_segment::random::CryptoRng;
use harborseal_segment::writer::{Features, Placed, SegmentParams, SegmentWriter};
use rand::seq::SliceRandom;

use super::keeper::KeeperSettings;
use super::{Handle, StreamSeal};
use crate::stream::registry::{Camera, Customer, Media, Registry};
use crate::uring::{Locked, scrub_stack};

/// What the shard asks for.
pub struct Order {
    /// The segment before it in the chain.
    pub prev: Option<SegmentId>,
    /// Its place in the chain.
    pub chain_seq: u64,
    /// The customers and cameras it is for.
    pub registry: Arc<Registry>,
    /// The registry the streams below count their cameras by.
    pub current: Arc<Registry>,
    /// Streams active now.
    pub streams: Vec<StreamFacts>,
    /// Space to allocate at once, in bytes.
    pub alloc_bytes: u64,
}

/// What a STREAM block says of a stream.
#[derive(Clone)]
pub struct StreamFacts {
    /// Index in the shard's table.
    pub stream: u32,
    /// Index of its camera in the order's current registry.
    pub camera: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Its m-line and clock.
    pub media: Media,
    /// Arrival of its first packet in this run, realtime.
    pub opened_ns: u64,
    /// The camera's id; stored only sealed.
    pub camera_id: Box<str>,
    /// The camera's media description; stored only sealed.
    pub sdp: Option<Arc<str>>,
}

/// How one customer is sealed to in one segment.
pub struct CustomerKeys {
    /// Its slot.
    pub slot: u32,
    /// S.
    pub secret: Locked<SegmentSecret>,
    /// E, where the slot is erasable.
    pub erase: Option<Locked<EraseSecret>>,
    /// S and H, wrapped to the customer's key, and to whom it names beside itself.
    pub entries: Vec<KeyEntry>,
    /// Whether its KEY block stands in the segment.
    pub written: bool,
}

/// Who opens one camera of a segment by a standing grant.
pub struct Grantee {
    /// Index of the camera in the segment's registry.
    pub camera: u32,
    /// What K_st of its streams is wrapped to.
    pub key: PublicKey,
    /// H of this grant alone, at the segment's place in the chain.
    pub hint: Locked<Hint>,
}

/// A segment ready to be appended to.
pub struct Prepared {
    /// Its file.
    pub handle: Handle,
    /// Who it is; the block range is filled in where it becomes an origin.
    pub origin: OriginBody,
    /// Its writer, behind the blocks already written.
    pub writer: Box<SegmentWriter>,
    /// Per customer of `registry`.
    pub customers: Vec<CustomerKeys>,
    /// Standing grants that are in force for it.
    pub grantees: Vec<Grantee>,
    /// Per stream of the shard, where its STREAM block is already written.
    pub streams: Vec<Option<StreamSeal>>,
    /// KEY and STREAM blocks in the order of the file, without padding.
    pub kept: Vec<Box<[u8]>>,
    /// Allocated end of the file, in bytes.
    pub alloc_end: u64,
    /// The customers and cameras it is for.
    pub registry: Arc<Registry>,
    /// New index of each camera of the registry before it.
    pub remap: Arc<[Option<u32>]>,
}

/// Wraps a customer's secret to its key: [`harborseal_segment::keys::wrap`].
pub type Wrapping = fn(&PublicKey, &Wrap<'_>, &Hint, &SegmentSecret, &mut dyn CryptoRng) -> KeyEntry;

/// The identity of a run on a shard: the same for all its segments.
#[derive(Clone, Copy)]
pub struct Chain {
    /// This life of the process.
    pub run_id: RunId,
    /// Index of the shard.
    pub shard: u32,
}

/// A stream's STREAM block, sealed and placed.
pub struct SealedStream {
    /// The KEY block before it, where standing grants open the stream: where, and the whole block.
    pub grants: Option<(Placed, Vec<u8>)>,
    /// Where.
    pub placed: Placed,
    /// The whole block.
    pub block: Vec<u8>,
    /// How its chunks are sealed.
    pub seal: StreamSeal,
}

/// What the keeper brings to a segment from outside.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// H of each customer of the order's registry, already ratcheted to its `chain_seq`.
    pub hints: &'a [&'a Hint],
    /// Standing grants that are in force for it.
    pub grantees: &'a [Grantee],
    /// EK of each customer, for those that are erasable. May be empty where nobody is.
    pub erase_keys: &'a [Option<Locked<EraseKey>>],
    /// Whether the segment may come to hold erasable entries: its own, or relocated ones of an earlier segment.
    pub erasable: bool,
    /// Seconds since 1970. The erase keys are those of its day.
    pub created_s: u64,
}

/// Draws secrets, wraps them and builds the first blocks. Returns the segment (with no file yet) and its SEGMENT block, twice: the file begins with that and goes on with what is
/// [kept](Prepared::kept). Ten thousand STREAM blocks are 40 MB with their padding, so they are never in memory all at once.
pub fn prepare(
    order: &Order,
    settings: &KeeperSettings,
    given: Given<'_>,
    mut rng: &mut dyn CryptoRng,
) -> (Prepared, Vec<u8>) {
    let KeeperSettings {
        chain, backend, node, ..
    } = settings;
    let segment_id = SegmentId(random_id(rng));
    let params = SegmentParams {
        segment_id,
        node: node.public(),
        run_id: chain.run_id,
        shard: chain.shard,
        prev: order.prev.unwrap_or(SegmentId::ZERO),
        chain_seq: order.chain_seq,
        created_s: given.created_s,
        features: Features {
            erasable: given.erasable,
            ..Features::default()
        },
    };
    let (mut writer, head) = SegmentWriter::new(params);
    writer.reserve(RESERVED_CHUNKS, order.streams.len() + RESERVED_STREAMS);
    let remap = remap(&order.current, &order.registry);
    let mut customers = wrap_all(&order.registry, settings, segment_id, given, rng);

    let mut streams: Vec<&StreamFacts> = order
        .streams
        .iter()
        .filter(|facts| remap[facts.camera as usize].is_some())
        .collect();
    streams.shuffle(&mut rng);
    let owner = |facts: &StreamFacts| {
        let camera = remap[facts.camera as usize].expect("streams without a camera were left out");
        order.registry.cameras[camera as usize].customer as usize
    };
    let mut kept = Vec::with_capacity(streams.len() + 1);
    let mut active: Vec<usize> = streams.iter().map(|facts| owner(facts)).collect();
    active.sort_unstable();
    active.dedup();
    let mut entries = Vec::with_capacity(active.len());
    for customer in active {
        customers[customer].written = true;
        entries.extend_from_slice(&customers[customer].entries);
    }
    entries.shuffle(&mut rng);
    for batch in entries.chunks(ENTRIES_PER_BLOCK) {
        let (_, block) = writer.add_keys(batch, 0);
        kept.push(without_padding(&block));
    }
    let origin = OriginBody {
        segment_id,
        node_id: node.public().id(),
        run_id: chain.run_id,
        shard: chain.shard,
        chain_seq: order.chain_seq,
        first_block_no: 0,
        last_block_no: 0,
    };
    let slots = streams
        .iter()
        .map(|facts| facts.stream as usize + 1)
        .max()
        .unwrap_or(0);
    let mut seals: Vec<Option<StreamSeal>> = (0..slots).map(|_| None).collect();
    for facts in streams {
        let place = StreamPlace {
            origin: &origin,
            customer: &customers[owner(facts)],
            camera: remap[facts.camera as usize].expect("streams without a camera were left out"),
            grantees: given.grantees,
            backend: *backend,
            durable_4k: 0,
        };
        let sealed = seal_stream(&mut writer, place, facts, rng);
        kept.extend(sealed.grants.map(|(_, block)| without_padding(&block)));
        kept.push(without_padding(&sealed.block));
        seals[facts.stream as usize] = Some(sealed.seal);
    }
    let prepared = Prepared {
        handle: Handle(0),
        origin,
        alloc_end: writer.next_offset(),
        writer: Box::new(writer),
        customers,
        grantees: Vec::new(),
        streams: seals,
        kept,
        registry: Arc::clone(&order.registry),
        remap,
    };
    (prepared, head)
}

/// Index rows there is room for before the writer allocates on the shard: a minute at 280 Mb/s. 48 bytes each.
const RESERVED_CHUNKS: usize = 32 * 1024;
/// Streams that may begin in the middle of a segment, likewise. 64 bytes each.
const RESERVED_STREAMS: usize = 4096;

/// KEY entries in one block: 256 X-Wing entries are 321,544 bytes, below the format's 1 MiB.
const ENTRIES_PER_BLOCK: usize = 256;

/// Wraps a fresh secret for every customer, whether it has an active stream or not: a camera may begin to send at any time.
fn wrap_all(
    registry: &Registry,
    settings: &KeeperSettings,
    segment_id: SegmentId,
    given: Given<'_>,
    mut rng: &mut dyn CryptoRng,
) -> Vec<CustomerKeys> {
    let mut slots: Vec<u32> = (0..registry.customers.len() as u32).collect();
    slots.shuffle(&mut rng);
    let of_customer = |(at, (customer, slot)): (usize, (&Customer, u32))| {
        let secret = Locked::made_by(|| SegmentSecret::generate(&mut rng));
        let key = given.erase_keys.get(at).and_then(Option::as_ref);
        let erase = key.map(|key| Locked::made_by(|| key.secret(&segment_id, slot)));
        let recipients: Vec<&PublicKey> = customer.recipients().collect();
        let n = u8::try_from(recipients.len()).expect("an enrolment names few recipients");
        let wrapped = (0..n).zip(recipients).map(|(i, public)| {
            let context = Wrap {
                node_id: settings.node.public().id(),
                segment_id,
                slot,
                i,
                n,
                erase: erase.as_deref(),
            };
            (settings.wrap)(public, &context, given.hints[at], &secret, &mut *rng)
        });
        let entries = wrapped.collect();
        CustomerKeys {
            slot,
            secret,
            erase,
            entries,
            written: false,
        }
    };
    let customers = registry.customers.iter().zip(slots).enumerate();
    let keys = customers.map(of_customer).collect();
    // What HPKE worked with lay there, S and H among it.
    scrub_stack();
    keys
}

/// Drawn at once: `random()` draws an array byte by byte, and each draw is a system call. At 4,000 streams that was 64,000 of them in a row on
/// the shard's own thread.
fn random_id(rng: &mut (impl CryptoRng + ?Sized)) -> [u8; 16] {
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    id
}

/// What sealing a stream takes of its segment.
#[derive(Clone, Copy)]
pub struct StreamPlace<'a> {
    /// The segment.
    pub origin: &'a OriginBody,
    /// Whose stream it is.
    pub customer: &'a CustomerKeys,
    /// Index of its camera in the segment's registry.
    pub camera: u32,
    /// Those of the segment; those of other cameras are left out.
    pub grantees: &'a [Grantee],
    /// Sealing library.
    pub backend: Backend,
    /// The watermark, as the block states it.
    pub durable_4k: u32,
}

/// Seals a STREAM block under a fresh random stream id and expands the key of its chunks. Wraps that for those who hold a standing grant, at 290 µs each:
/// the only KEY entries that are not prepared ahead where a stream begins in the middle of a segment.
pub fn seal_stream(
    writer: &mut SegmentWriter,
    place: StreamPlace<'_>,
    facts: &StreamFacts,
    rng: &mut (impl CryptoRng + ?Sized),
) -> SealedStream {
    let StreamPlace { origin, customer, .. } = place;
    let segment_id = origin.segment_id;
    let stream_id = StreamId(random_id(rng));
    let (mut commitment, mut entries) = ([0; 32], Vec::new());
    let key = Locked::made_by(|| {
        let keys = match &customer.erase {
            None => StreamKeys::derive(&segment_id, &customer.secret, &stream_id),
            Some(erase) => StreamKeys::derive_erasable(&segment_id, &customer.secret, erase, &stream_id),
        };
        commitment = *keys.commitment();
        entries = wrap_for_grantees(place, stream_id, &keys, rng);
        keys.seal_key(place.backend)
    });
    let grants = (!entries.is_empty()).then(|| writer.add_keys(&entries, place.durable_4k));
    let info = StreamInfo {
        ssrc: facts.ssrc,
        media_index: facts.media.media_index,
        clock_rate: facts.media.clock_rate_hz,
        opened_ns: facts.opened_ns,
        camera_id: facts.camera_id.to_string(),
        sdp: facts.sdp.as_deref().unwrap_or_default().to_owned(),
    };
    let (row, placed, block) = writer.add_stream(
        stream_id,
        customer.slot,
        &key,
        &commitment,
        &info,
        place.durable_4k,
    );
    SealedStream {
        grants,
        placed,
        block,
        seal: StreamSeal { row, key },
    }
}

/// KEY entries of scope 1 for a stream whose keys are `keys`; none, if nobody has a standing grant for its camera.
fn wrap_for_grantees(
    place: StreamPlace<'_>,
    stream_id: StreamId,
    keys: &StreamKeys,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<KeyEntry> {
    let of_camera = || {
        place
            .grantees
            .iter()
            .filter(|grantee| grantee.camera == place.camera)
    };
    let n = u8::try_from(of_camera().count()).expect("the configuration bounds the grants of a camera");
    let mut entries = Vec::new();
    for (i, grantee) in (0..n).zip(of_camera()) {
        let wrap = Wrap {
            node_id: place.origin.node_id,
            segment_id: place.origin.segment_id,
            slot: place.customer.slot,
            i,
            n,
            erase: place.customer.erase.as_deref(),
        };
        entries.push(wrap_stream(
            &grantee.key,
            &wrap,
            stream_id,
            &grantee.hint,
            keys.secret(),
            &mut &mut *rng,
        ));
    }
    if n > 0 {
        // What HPKE worked with lay there, K_st and H among it.
        scrub_stack();
    }
    entries
}

/// Where each camera of `old` stands in `new`: the same id of the same customer is the same camera, also under a new key that its
/// old one signed for.
fn remap(old: &Arc<Registry>, new: &Arc<Registry>) -> Arc<[Option<u32>]> {
    if Arc::ptr_eq(old, new) {
        return (0..old.cameras.len() as u32).map(Some).collect();
    }
    let customers = same_customers(old, new);
    let places: HashMap<(u32, &str), u32> = (0..)
        .zip(&new.cameras)
        .map(|(at, camera)| ((camera.customer, &*camera.id), at))
        .collect();
    let place = |camera: &Camera| {
        let customer = customers[camera.customer as usize]?;
        places.get(&(customer, &*camera.id)).copied()
    };
    old.cameras.iter().map(place).collect()
}

/// Where each customer of `old` stands in `new`.
fn same_customers(old: &Registry, new: &Registry) -> Vec<Option<u32>> {
    let (mut by_key, mut by_replaced) = (HashMap::new(), HashMap::new());
    for (at, customer) in (0u32..).zip(&new.customers) {
        by_key.insert(customer.public_key.to_text(), at);
        if let Some(replaced) = customer
            .enrolment
            .as_ref()
            .and_then(|enrolment| enrolment.previous)
        {
            by_replaced.insert(replaced, at);
        }
    }
    let place = |customer: &Customer| {
        let by_key = by_key.get(&customer.public_key.to_text());
        let enrolment = customer.enrolment.as_ref();
        let found = by_key.or_else(|| by_replaced.get(enrolment?.hash())).copied();
        found.filter(|at| customer.goes_on_as(&new.customers[*at as usize]))
    };
    old.customers.iter().map(place).collect()
}

/// A block without the zeros behind its body, to be kept in memory.
pub fn without_padding(block: &[u8]) -> Box<[u8]> {
    let header = super::header_of(block);
    block[..header.body_end()].into()
}

/// The whole block again.
pub fn with_padding(kept: &[u8]) -> (Header, Vec<u8>) {
    let header = super::header_of(kept);
    let mut block = kept.to_vec();
    block.resize(header.total_len as usize, 0);
    debug_assert!(
        block.len().is_multiple_of(BLOCK_ALIGN),
        "total_len is a multiple of the block size"
    );
    (header, block)
}
