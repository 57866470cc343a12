//! The ledger says exactly what happened to a stream: nothing more, nothing less, and every packet that it calls
//! stored comes back as it was sent, in the order of arrival.

use harborseal_tests::harness::engine::{dropped, dropped_in_all};
use harborseal_tests::harness::packets::{assert_same, rtp_only};
use harborseal_tests::harness::rtp::{self, Random};
use harborseal_tests::harness::{Camera, Lab, Sender, Stream};
use serde_json::Value;

const SSRC: u32 = 0x1234_5678;

/// Sends these packets as one camera and returns the final event, after asking for exactly them back.
#[track_caller]
fn record(packets: &[Vec<u8>]) -> Value {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", SSRC));
    let engine = lab.start();
    Sender::from("127.0.0.1", lab.address()).send_all(packets);
    let last = lab.settle_and_stop(engine);

    assert_eq!(last["received"], packets.len());
    assert_eq!(last["stored"], packets.len(), "{last}");
    assert_same(packets, &rtp_only(lab.read_back("alice", "front-door")));
    lab.verify("alice");
    last
}

/// `lost`, `duplicates`, `reordered` and `restarts` of the final event.
fn account(last: &Value) -> [u64; 4] {
    ["lost", "duplicates", "reordered", "restarts"].map(|key| {
        last[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no account of `{key}` in {last}"))
    })
}

#[test]
fn every_packet_of_a_steady_stream_comes_back() {
    let last = record(&Stream::new(SSRC).packets(5000));
    assert_eq!(account(&last), [0, 0, 0, 0]);
}

#[test]
fn packets_of_every_size_come_back() {
    let mut packets = Vec::new();
    let mut stream = Stream::new(SSRC);
    for payload_bytes in [0, 1, 2, 3, 100, 1188, 1460, 8000, 9000, 40_000, 65_000, 4] {
        stream.payload_bytes = payload_bytes;
        packets.push(stream.packet());
    }
    let last = record(&packets);
    assert_eq!(account(&last), [0, 0, 0, 0]);
}

#[test]
fn a_sequence_wrap_is_no_loss() {
    let last = record(&Stream::new(SSRC).seq(65_000).packets(1200));
    assert_eq!(account(&last), [0, 0, 0, 0]);
}

#[test]
fn a_timestamp_wrap_is_nothing_special() {
    let mut stream = Stream::new(SSRC);
    stream.rtp_time = u32::MAX - 100 * stream.step;
    let last = record(&stream.packets(300));
    assert_eq!(account(&last), [0, 0, 0, 0]);
}

#[test]
fn packets_out_of_order_are_counted_and_stored_as_they_came() {
    let mut packets = Stream::new(SSRC).seq(65_300).packets(1000);
    // Forty exchanges of neighbours, some of them across the wrap: in each, the later packet comes first.
    for at in (10..970).step_by(24) {
        packets.swap(at, at + 1);
    }
    let last = record(&packets);
    assert_eq!(account(&last), [0, 0, 40, 0]);
}

#[test]
fn duplicates_are_counted_and_stored_as_they_came() {
    let mut packets = Vec::new();
    for (at, packet) in Stream::new(SSRC)
        .seq(65_400)
        .packets(1000)
        .into_iter()
        .enumerate()
    {
        packets.push(packet.clone());
        if at % 10 == 5 {
            packets.push(packet);
        }
    }
    let last = record(&packets);
    assert_eq!(account(&last), [0, 100, 0, 0]);
}

#[test]
fn thirty_percent_loss_is_told_to_the_packet() {
    let sent = Stream::new(SSRC).seq(60_000).packets(20_000);
    let mut random = Random::new(30);
    let final_one = sent.len() - 1;
    // Loss shows between packets: the first and the last arrive.
    let arrive = |at: usize, random: &mut Random| at == 0 || at == final_one || random.below(10) >= 3;
    let arrived: Vec<Vec<u8>> = sent
        .iter()
        .enumerate()
        .filter(|(at, _)| arrive(*at, &mut random))
        .map(|(_, p)| p.clone())
        .collect();
    let last = record(&arrived);
    assert_eq!(account(&last), [(sent.len() - arrived.len()) as u64, 0, 0, 0]);
}

#[test]
fn a_late_packet_takes_its_loss_back() {
    let mut packets = Stream::new(SSRC).packets(500);
    // Number 100 is lost until it comes after number 110.
    let late = packets.remove(100);
    packets.insert(110, late);
    let last = record(&packets);
    assert_eq!(account(&last), [0, 0, 1, 0]);
}

#[test]
fn a_restarted_sender_is_not_a_loss_of_half_the_numbers() {
    let mut packets = Stream::new(SSRC).seq(100).packets(400);
    packets.extend(Stream::new(SSRC).seq(40_000).packets(400));
    let last = record(&packets);
    assert_eq!(account(&last), [0, 0, 0, 1]);
}

#[test]
fn another_ssrc_is_dropped_where_the_camera_names_its_own() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", SSRC));
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let own = Stream::new(SSRC).packets(100);
    let foreign = Stream::new(SSRC + 1).packets(50);
    for (at, packet) in own.iter().enumerate() {
        sender.send(packet);
        if let Some(packet) = foreign.get(at) {
            sender.send(packet);
        }
    }
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["received"], 150);
    assert_eq!(last["stored"], 100, "{last}");
    assert_eq!(dropped(&last, "unknown_ssrc"), 50);
    assert_same(&own, &rtp_only(lab.read_back("alice", "front-door")));
}

#[test]
fn a_changed_ssrc_opens_a_new_stream_where_the_camera_names_none() {
    let mut lab = Lab::new();
    lab.customer("alice");
    let address = lab.address();
    let mut sender = Sender::from("127.0.0.7", address);
    lab.camera(
        Camera::new("front-door", "alice", 0)
            .ssrcs(&[])
            .source(sender.address()),
    );
    let engine = lab.start();
    let mut sent = Vec::new();
    for ssrc in [7001, 7002, 7003] {
        sent.extend(Stream::new(ssrc).packets(200));
    }
    sender.send_all(&sent);
    // The same numbers from elsewhere are nobody's.
    Sender::from("127.0.0.8", address).send_all(&Stream::new(7001).packets(20));
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["received"], 620);
    assert_eq!(last["stored"], 600, "{last}");
    assert_eq!(dropped_in_all(&last), 20);
    let mut back = rtp_only(lab.read_back("alice", "front-door"));
    // Streams of one camera may be given back one after the other or as they came: here that is the same.
    back.sort_by_key(|packet| (rtp::ssrc_of(packet), rtp::seq_of(packet)));
    assert_same(&sent, &back);
}

#[test]
fn two_cameras_may_use_one_ssrc_from_different_places() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.customer("bob");
    lab.camera(Camera::new("one", "alice", SSRC).source("127.0.0.2"));
    lab.camera(Camera::new("two", "bob", SSRC).source("127.0.1.0/24"));
    let engine = lab.start();
    let one = Stream::new(SSRC).packets(300);
    let two = Stream::new(SSRC).seq(9).payload(700).packets(300);
    let three = Stream::new(SSRC).packets(30);
    let mut senders = ["127.0.0.2", "127.0.1.77", "127.0.2.1"].map(|from| Sender::from(from, lab.address()));
    for at in 0..300 {
        senders[0].send(&one[at]);
        senders[1].send(&two[at]);
        if let Some(packet) = three.get(at) {
            senders[2].send(packet);
        }
    }
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["stored"], 600, "{last}");
    assert_eq!(dropped(&last, "wrong_source"), 30);
    assert_same(&one, &rtp_only(lab.read_back("alice", "one")));
    assert_same(&two, &rtp_only(lab.read_back("bob", "two")));
}

#[test]
fn rtcp_is_kept_from_the_same_port_and_the_next() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", SSRC));
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let mut beside = lab.address();
    beside.set_port(lab.port + 1);
    let mut stream = Stream::new(SSRC);
    let mut reports = Vec::new();
    for at in 0..100u32 {
        sender.send(&stream.packet());
        let report = rtp::sender_report(
            SSRC,
            0xE000_0000_0000_0000 + u64::from(at),
            stream.rtp_time,
            at,
            at * 1000,
        );
        let to = if at % 2 == 0 { lab.address() } else { beside };
        sender.send_to(&report, to);
        reports.push(report);
    }
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["received"], 200);
    assert_eq!(last["stored"], 200, "{last}");
    let back = lab.read_back("alice", "front-door");
    let mut kept: Vec<Vec<u8>> = back.iter().filter(|p| p.rtcp).map(|p| p.bytes.clone()).collect();
    // Two sockets have no common order.
    kept.sort();
    reports.sort();
    assert_same(&reports, &kept);
    assert_eq!(back.len(), 200);
}
