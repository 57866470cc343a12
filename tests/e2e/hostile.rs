//! Hostile datagrams, a million of them, beside two honest cameras: each is counted by its reason, none is stored,
//! and the cameras lose nothing.

use harborseal_tests::harness::engine::{dropped, dropped_in_all};
use harborseal_tests::harness::packets::{assert_same, rtp_only};
use harborseal_tests::harness::rtp::{self, Random, distinct_bytes};
use harborseal_tests::harness::{Camera, Lab, Sender, Stream};

const ALICE_SSRC: u32 = 0x0A11_CE00;
const BOB_SSRC: u32 = 0x0B0B_0000;
const HOSTILE: usize = 1_000_000;

/// What a stranger may send, and the reason under which it must appear; `None` where several would be right.
fn hostile(kind: usize, random: &mut Random) -> (Vec<u8>, Option<&'static str>) {
    let length = random.below(300) as usize;
    let mut bytes = distinct_bytes(random.next(), length.max(16));
    match kind {
        // Random bytes of any length, the empty datagram among them.
        0 => {
            bytes.truncate(length);
            (bytes, None)
        }
        // A good packet cut within its header.
        1 => {
            let mut packet = rtp::packet(ALICE_SSRC, 7, 7, false, &bytes);
            packet.truncate(random.below(12) as usize);
            (packet, Some("truncated"))
        }
        // Version 0, 1 or 3 of a packet that is otherwise good.
        2 => {
            let mut packet = rtp::packet(ALICE_SSRC, 7, 7, false, &bytes);
            packet[0] = [0x00, 0x40, 0xC0][random.below(3) as usize];
            (packet, Some("bad_version"))
        }
        // An extension that claims 65,535 words.
        3 => {
            let mut packet = rtp::packet(ALICE_SSRC, 7, 7, false, &[0xBE, 0xDE, 0xFF, 0xFF, 1, 2, 3, 4]);
            packet[0] |= 0x10;
            (packet, Some("bad_extension"))
        }
        // Padding of 255 bytes in a packet that has 20.
        4 => {
            let mut packet = rtp::packet(ALICE_SSRC, 7, 7, false, &[1, 2, 3, 4, 5, 6, 7, 255]);
            packet[0] |= 0x20;
            (packet, Some("bad_padding"))
        }
        // Fifteen contributing sources where there is room for one.
        5 => {
            let mut packet = rtp::packet(ALICE_SSRC, 7, 7, false, &[0; 4]);
            packet[0] |= 0x0F;
            (packet, Some("truncated"))
        }
        // A stream that nobody registered.
        6 => (
            rtp::packet(0xDEAD_0000 | random.below(0xFFFF) as u32, 7, 7, false, &bytes),
            Some("unknown_ssrc"),
        ),
        // A sender report whose length leads beyond its end.
        7 => {
            let mut report = rtp::sender_report(ALICE_SSRC, 1, 2, 3, 4);
            report[3] = 200;
            (report, Some("bad_rtcp"))
        }
        // A registered stream from an address that is not its camera's: the caller sends it from there.
        _ => (
            rtp::packet(BOB_SSRC, random.next() as u16, 7, false, &bytes),
            Some("wrong_source"),
        ),
    }
}

#[test]
fn a_million_hostile_datagrams_are_counted_and_harm_nobody() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.customer("bob");
    lab.camera(Camera::new("alices", "alice", ALICE_SSRC).source("127.0.0.1"));
    lab.camera(Camera::new("bobs", "bob", BOB_SSRC).source("127.0.0.2"));
    let engine = lab.start();
    let mut alice = (
        Stream::new(ALICE_SSRC),
        Sender::from("127.0.0.1", lab.address()),
        Vec::new(),
    );
    let mut bob = (
        Stream::new(BOB_SSRC),
        Sender::from("127.0.0.2", lab.address()),
        Vec::new(),
    );
    // The worst place to be attacked from is the one a camera sends from.
    let mut beside_alice = Sender::from("127.0.0.1", lab.address());
    let mut stranger = Sender::from("127.66.6.6", lab.address());
    let mut random = Random::new(666);
    let mut expected = std::collections::BTreeMap::<&str, u64>::new();
    for at in 0..HOSTILE {
        let kind = at % 9;
        let (datagram, reason) = hostile(kind, &mut random);
        let sender = if kind == 8 || at % 2 == 0 {
            &mut stranger
        } else {
            &mut beside_alice
        };
        // What reaches the registry from a stranger's address is refused for the address where the stream is known;
        // the kinds above are refused before that, by their form.
        sender.send(&datagram);
        if let Some(reason) = reason {
            *expected.entry(reason).or_default() += 1;
        }
        if at % 200 == 0 {
            for (stream, sender, sent) in [&mut alice, &mut bob] {
                let packet = stream.packet();
                sender.send(&packet);
                sent.push(packet);
            }
        }
    }
    let last = lab.settle_and_stop(engine);
    let good = (alice.2.len() + bob.2.len()) as u64;
    assert_eq!(last["received"], good + HOSTILE as u64);
    assert_eq!(last["stored"], good, "{last}");
    assert_eq!(dropped_in_all(&last), HOSTILE as u64);
    for (reason, count) in expected {
        // Random bytes fall under any reason, on top of what was made for it.
        let random_kind = (HOSTILE / 9) as u64 + 1;
        let counted = dropped(&last, reason);
        assert!(
            (count..=count + random_kind).contains(&counted),
            "{reason}: {counted}, sent {count}: {last}"
        );
    }
    assert_same(&alice.2, &rtp_only(lab.read_back("alice", "alices")));
    assert_same(&bob.2, &rtp_only(lab.read_back("bob", "bobs")));
}
