//! What two runs have in common: nothing. And what an erasable customer's segment takes to open.

use std::collections::HashSet;

use harborseal_segment::block::BlockType;
use harborseal_segment::erase::Release;
use harborseal_segment::head::Head;
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::RunId;
use harborseal_segment::keys::wrap;
use harborseal_segment::open::{Keyring, OpenError};
use harborseal_segment::random::os_random;
use harborseal_segment::reader::{Segment, StreamError};
use harborseal_segment::scan::{Item, Scanner};

use super::*;
use crate::log::files::OsFiles;
use crate::log::prepare::{Chain, Order, StreamFacts};
use crate::stream::registry::{Camera, Media, Registry, Stream};

fn registry(customer: &Identity) -> Arc<Registry> {
    let media = Media::UNKNOWN;
    let camera = Camera {
        id: "front-door".into(),
        customer: 0,
        source: "10.0.0.1".parse().expect("a source"),
        streams: vec![Stream { ssrc: 7, media }],
        unlisted: media,
        sdp: None,
    };
    let customer = Customer {
        name: "alice".into(),
        public_key: customer.public().clone(),
        erasable: true,
        enrolment: None,
    };
    Arc::new(Registry::new(vec![customer], vec![camera]).unwrap_or_else(|_| panic!("one camera")))
}

/// The first segment of a run: its id, and the commitment to the key of its one stream.
fn first_segment(registry: &Arc<Registry>, run: u8) -> (SegmentId, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = KeeperSettings {
        folder: folder.path().to_owned(),
        chain: Chain {
            run_id: RunId([run; 16]),
            shard: 0,
        },
        backend: Backend::AesGcm,
        node: Arc::new(NodeKey::from_bytes(&[9; 32])),
        audit: None,
        wrap: |public, place, hint, secret, mut rng| wrap(public, place, hint, secret, &mut rng),
    };
    let (janitor, _notes) = crossbeam::channel::unbounded();
    let mut keeper = Keeper::new(settings, OsFiles, Box::new(os_random()), janitor);
    let facts = StreamFacts {
        stream: 0,
        camera: 0,
        ssrc: 7,
        media: Media::UNKNOWN,
        opened_ns: 0,
        camera_id: "front-door".into(),
        sdp: None,
    };
    let order = Order {
        prev: None,
        chain_seq: 0,
        registry: Arc::clone(registry),
        current: Arc::clone(registry),
        streams: vec![facts],
        alloc_bytes: 0,
    };
    let Some(Reply::Prepared(prepared, _)) = keeper.carry_out(Request::Prepare(order)) else {
        panic!("a segment");
    };
    let path = &keeper.files[&prepared.handle].path;
    let bytes = std::fs::read(path).expect("readable");
    let id = Head::read(&bytes).expect("a segment").id;
    let mut scanner = Scanner::new(&bytes, id);
    while let Some(item) = scanner.next_item().expect("readable") {
        if let Item::Block(block) = item
            && block.header.block_type == BlockType::Stream
        {
            return (id, block.header.extension(block.bytes).to_vec());
        }
    }
    panic!("its stream stands in it");
}

/// A nonce is a block number, and every run begins with the same ones: what keeps them apart is the key.
#[test]
fn no_run_draws_the_id_or_the_keys_of_another() {
    let registry = registry(&Identity::generate(&mut os_random()));
    let segments: Vec<_> = (0..8).map(|run| first_segment(&registry, run)).collect();
    let ids: HashSet<_> = segments.iter().map(|(id, _)| id).collect();
    let keys: HashSet<_> = segments.iter().map(|(_, commitment)| commitment).collect();
    assert_eq!((ids.len(), keys.len()), (8, 8));
}

/// Prepares segments of alice's one stream one after another, and returns each file's content.
fn erasable_segments(keeper: &mut Keeper<OsFiles>, customer: &Identity, count: u64) -> Vec<Vec<u8>> {
    let registry = registry(customer);
    let facts = StreamFacts {
        stream: 0,
        camera: 0,
        ssrc: 7,
        media: Media::UNKNOWN,
        opened_ns: 0,
        camera_id: "front-door".into(),
        sdp: None,
    };
    let prepare = |chain_seq| {
        let order = Order {
            prev: None,
            chain_seq,
            registry: Arc::clone(&registry),
            current: Arc::clone(&registry),
            streams: vec![facts.clone()],
            alloc_bytes: 0,
        };
        let Some(Reply::Prepared(prepared, _)) = keeper.carry_out(Request::Prepare(order)) else {
            panic!("a segment");
        };
        std::fs::read(&keeper.files[&prepared.handle].path).expect("readable")
    };
    (0..count).map(prepare).collect()
}

#[test]
fn an_erasable_segment_opens_with_the_identity_and_e_and_not_without() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = KeeperSettings {
        folder: folder.path().to_owned(),
        chain: Chain {
            run_id: RunId([1; 16]),
            shard: 0,
        },
        backend: Backend::AesGcm,
        node: Arc::new(NodeKey::from_bytes(&[9; 32])),
        audit: None,
        wrap: |public, place, hint, secret, mut rng| wrap(public, place, hint, secret, &mut rng),
    };
    let (janitor, _notes) = crossbeam::channel::unbounded();
    let store = Keystore::new(folder.path());
    let mut keeper =
        Keeper::new(settings, OsFiles, Box::new(os_random()), janitor).with_erase_keys(store.clone());
    let alice = Identity::generate(&mut os_random());
    let segments = erasable_segments(&mut keeper, &alice, 2);

    let locked = store.lock().expect("locked");
    let owner = locked.owner("alice");
    let keys = locked.keys_of(owner).expect("listed");
    assert_eq!(keys.len(), 1, "both segments are of one day");
    let key = keys[0].read().expect("a key");
    let places = locked.places_of(owner, keys[0].day).expect("noted");
    assert_eq!(places.len(), 2);
    let mut keyring = Keyring::new(alice);
    for (bytes, place) in segments.iter().zip(places) {
        let mut segment = Segment::open(bytes.clone()).expect("a segment");
        assert_eq!(segment.head().id, place.segment.segment_id);
        let streams = segment.open_streams(&mut keyring).expect("alice's");
        assert!(matches!(
            streams[..],
            [Err(StreamError::Open {
                why: OpenError::NeedsRelease,
                ..
            })]
        ));
        let segment_id = place.segment.segment_id;
        keyring.add_release(Release {
            segment_id,
            slot: place.slot,
            secret: key.secret(&segment_id, place.slot),
        });
        let streams = segment.open_streams(&mut keyring).expect("alice's");
        assert!(matches!(&streams[..], [Ok(stream)] if stream.info.camera_id == "front-door"));
    }
}
