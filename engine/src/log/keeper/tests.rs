//! What two runs have in common: nothing.

use std::collections::HashSet;

use harborseal_segment::block::BlockType;
use harborseal_segment::head::Head;
use harborseal_segment::identity::Identity;
use harborseal_segment::ids::RunId;
use harborseal_segment::keys::wrap;
use harborseal_segment::random::os_random;
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
