//! SIGHUP: a good configuration takes effect and costs nobody a packet; a bad one is refused whole, by file and line,
//! and the old one stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harborseal_tests::harness::engine::{BOUND, dropped};
use harborseal_tests::harness::packets::{assert_same, rtp_only};
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Signals, and waits for the engine's word about it.
#[track_caller]
fn reload(engine: &Engine) -> Value {
    let seen = engine.events().len();
    engine.signal(Signal::SIGHUP);
    engine.wait_from(seen, BOUND, "word of the reload", |event| {
        (event["event"] == "reload").then(|| event.clone())
    })
}

#[test]
fn cameras_and_customers_come_and_go_and_the_others_lose_nothing() {
    let mut lab = Lab::new();
    lab.shards(2);
    lab.customer("alice");
    lab.camera(Camera::new("stays", "alice", 1));
    lab.camera(Camera::new("goes", "alice", 2));
    let engine = lab.start();
    let stop = AtomicBool::new(false);
    let address = lab.address();
    let (steady, [before, new, after]) = std::thread::scope(|scope| {
        let steady = scope.spawn(|| {
            let (mut sender, mut stream, mut sent) =
                (Sender::from("127.0.0.1", address), Stream::new(1), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let packet = stream.packet();
                sender.send(&packet);
                sent.push(packet);
                std::thread::sleep(Duration::from_micros(300));
            }
            sent
        });
        let mut sender = Sender::from("127.0.0.1", address);
        let (mut goes, mut comes) = (Stream::new(2), Stream::new(3));
        let before = goes.packets(200);
        sender.send_all(&before);
        sender.send_all(&comes.packets(11));
        harborseal_tests::harness::net::wait_until_taken(lab.port);

        lab.customer("bob");
        lab.camera(Camera::new("comes", "bob", 3));
        lab.remove_camera("goes");
        lab.write_config();
        let word = reload(&engine);
        assert_eq!(word["ok"], true, "{word}");
        let new = comes.packets(200);
        sender.send_all(&new);
        let after = goes.packets(13);
        sender.send_all(&after);
        stop.store(true, Ordering::Relaxed);
        (
            steady.join().expect("the sender does not panic"),
            [before, new, after],
        )
    });
    let last = lab.settle_and_stop(engine);
    assert_eq!(dropped(&last, "unknown_ssrc"), 11 + after.len() as u64, "{last}");
    assert_same(&steady, &rtp_only(lab.read_back("alice", "stays")));
    assert_same(&before, &rtp_only(lab.read_back("alice", "goes")));
    assert_same(&new, &rtp_only(lab.read_back("bob", "comes")));
    lab.verify("alice");
    lab.verify("bob");
}

#[test]
fn a_bad_configuration_is_refused_by_its_line_and_the_old_one_stays() {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("one", "alice", 1));
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let (mut one, mut two) = (Stream::new(1), Stream::new(2));
    let mut sent = one.packets(100);
    sender.send_all(&sent);

    let good = lab.config_text();
    let with_two = |line: &str| {
        format!(
            "{good}[[camera]]\nid = \"two\"\ncustomer = \"alice\"\nsource = \"127.0.0.1\"\nssrc = 2\n{line}\n"
        )
    };
    let bad_line = with_two("").lines().count();
    for (line, word) in [
        ("sdq = \"x.sdp\"", "sdp"),
        ("sdp = \"not-there.sdp\"", "not-there.sdp"),
        ("= nonsense", ""),
    ] {
        std::fs::write(lab.config(), with_two(line)).expect("the folder can be written");
        let said = reload(&engine);
        assert_eq!(said["ok"], false, "{line:?}: {said}");
        let message = said["message"].as_str().expect("a message");
        assert!(
            message.contains(&format!("engine.toml:{bad_line}")),
            "no line {bad_line} in {message:?}"
        );
        assert!(message.contains(word), "nothing about {word:?} in {message:?}");
        let more = one.packets(100);
        sender.send_all(&more);
        sent.extend(more);
        sender.send_all(&two.packets(10));
        harborseal_tests::harness::net::wait_until_taken(lab.port);
    }
    let last = lab.settle_and_stop(engine);
    assert_eq!(
        dropped(&last, "unknown_ssrc"),
        30,
        "camera two never came to be: {last}"
    );
    assert_same(&sent, &rtp_only(lab.read_back("alice", "one")));
}
