//! Two shards: every stream stays on one of them and in order, also where one GSO batch carries packets of many.

use std::collections::{BTreeMap, BTreeSet};

use harborseal_tests::harness::packets::{assert_same, rtp_only};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, harborseal};
use serde_json::Value;

const STREAMS: u32 = 40;

fn camera_name(ssrc: u32) -> String {
    format!("camera-{ssrc}")
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.shards(2);
    lab.customer("alice");
    for ssrc in 1..=STREAMS {
        lab.camera(Camera::new(&camera_name(ssrc), "alice", ssrc));
    }
    lab
}

/// Everything sent comes back in the order in which its stream sent it, and no stream is in segments of two shards.
#[track_caller]
fn assert_whole_and_apart(lab: &Lab, last: &Value, sent: &BTreeMap<u32, Vec<Vec<u8>>>) {
    let packets: usize = sent.values().map(Vec::len).sum();
    assert_eq!(last["received"], packets);
    assert_eq!(last["stored"], packets, "{last}");
    for (ssrc, packets) in sent {
        assert_same(packets, &rtp_only(lab.read_back("alice", &camera_name(*ssrc))));
    }
    let identity = lab.identity("alice");
    let mut shards_of = BTreeMap::<String, BTreeSet<u64>>::new();
    for segment in lab.segments() {
        let structure = harborseal(["inspect", "--json", text(&segment)]).ok().json();
        let shard = structure["shard"]
            .as_u64()
            .unwrap_or_else(|| panic!("no shard in {structure}"));
        let listed = harborseal(["list", "--json", "--identity", text(&identity), text(&segment)]);
        if listed.code == Some(3) {
            continue;
        }
        for camera in listed.ok().json()["cameras"]
            .as_array()
            .expect("a list of cameras")
        {
            let id = camera["id"].as_str().expect("a camera has an id").to_owned();
            shards_of.entry(id).or_default().insert(shard);
        }
    }
    assert_eq!(shards_of.len(), sent.len(), "every stream is in some segment");
    for (camera, shards) in &shards_of {
        assert_eq!(shards.len(), 1, "{camera} is on shards {shards:?}");
    }
    let used: BTreeSet<u64> = shards_of.values().flatten().copied().collect();
    assert_eq!(used.len(), 2, "both shards have work");
    lab.verify("alice");
}

#[test]
fn streams_of_many_sockets_keep_their_shard_and_order() {
    let lab = lab();
    let engine = lab.start();
    let mut senders: Vec<Sender> = (0..5).map(|_| Sender::from("127.0.0.1", lab.address())).collect();
    let mut streams: Vec<Stream> = (1..=STREAMS).map(Stream::new).collect();
    let mut sent = BTreeMap::<u32, Vec<Vec<u8>>>::new();
    for _ in 0..200 {
        for (at, stream) in streams.iter_mut().enumerate() {
            let packet = stream.packet();
            senders[at % 5].send(&packet);
            sent.entry(stream.ssrc).or_default().push(packet);
        }
    }
    let last = lab.settle_and_stop(engine);
    assert_eq!(
        last["rehomed"], 0,
        "the filter steers single datagrams by itself: {last}"
    );
    assert_whole_and_apart(&lab, &last, &sent);
}

#[test]
fn batches_of_mixed_streams_are_taken_apart_in_order() {
    let lab = lab();
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let mut streams: Vec<Stream> = (1..=STREAMS)
        .map(|ssrc| Stream::new(ssrc).payload(1100))
        .collect();
    let mut sent = BTreeMap::<u32, Vec<Vec<u8>>>::new();
    for round in 0..200usize {
        // Neighbours of different shards in one batch, and each stream more than once.
        let batch: Vec<Vec<u8>> = (0..40)
            .map(|at| {
                let stream = &mut streams[(round * 7 + at / 2 * 3 + at % 2) % STREAMS as usize];
                let packet = stream.packet();
                sent.entry(stream.ssrc).or_default().push(packet.clone());
                packet
            })
            .collect();
        sender.send_batch(&batch);
        // Single datagrams between the batches: both ways meet in one stream.
        let stream = &mut streams[round % STREAMS as usize];
        let packet = stream.packet();
        sender.send(&packet);
        sent.entry(stream.ssrc).or_default().push(packet);
    }
    let last = lab.settle_and_stop(engine);
    assert!(last["rehomed"].as_u64() > Some(0), "batches cross shards: {last}");
    assert_whole_and_apart(&lab, &last, &sent);
}
