//! No plaintext of a payload reaches a file: neither the data folder nor anything else that the process has open or
//! wrote holds it, while it runs, after it is killed, and after a clean end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use harborseal_tests::harness::cli::files_under;
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, net, rtp};

const SSRC: u32 = 0x5EA1_ED00;

/// Once in every payload, and nowhere else in the world.
const PATTERN: &[u8] = b"<<this is what only alice may read: 7c1f0e9d>>";

/// Names that segments must not hold either, in any file but the configuration.
const CAMERA: &str = "camera-behind-the-old-mill";
const CUSTOMER: &str = "alice-of-the-old-mill";
const SDP_LINE: &str = "s=view-of-the-old-mill";

fn patterned_packets(stream: &mut Stream, count: usize) -> Vec<Vec<u8>> {
    let packets = (0..count).map(|_| {
        let payload = PATTERN.repeat(20);
        let packet = rtp::packet(stream.ssrc, stream.seq, stream.rtp_time, false, &payload);
        stream.packet();
        packet
    });
    packets.collect()
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"2s\"\nmax_bytes = \"64MiB\"");
    lab.customer(CUSTOMER);
    let sdp = format!(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\n{SDP_LINE}\nt=0 0\nm=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    );
    lab.camera(Camera::new(CAMERA, CUSTOMER, SSRC).sdp(sdp));
    lab
}

/// Sends until `rounds` durable events have come: what was sent is on disk for the most part, sealed or not.
fn send_under_way(lab: &Lab, engine: &Engine, stream: &mut Stream, rounds: usize) {
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let durable = |engine: &Engine| engine.events().iter().filter(|e| e["event"] == "durable").count();
    let before = durable(engine);
    let until = std::time::Instant::now() + harborseal_tests::harness::engine::BOUND;
    while durable(engine) < before + rounds {
        assert!(
            std::time::Instant::now() < until,
            "no durable events: {:?}",
            engine.lines()
        );
        sender.send_all(&patterned_packets(stream, 100));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    net::wait_until_taken(lab.port);
}

/// Every regular file the process has open, whatever its name now is, and everything in the laboratory's folder.
fn files_of(lab: &Lab, engine: Option<&Engine>) -> BTreeSet<PathBuf> {
    let folder = lab
        .config()
        .parent()
        .expect("the configuration is in the folder")
        .to_owned();
    let mut files: BTreeSet<PathBuf> = files_under(&folder).into_iter().collect();
    if let Some(engine) = engine {
        let descriptors = format!("/proc/{}/fd", engine.pid());
        // An engine lets nobody but root look at what it has open.
        let open = std::fs::read_dir(descriptors).into_iter().flatten();
        for entry in open.flatten() {
            // Through /proc also a deleted file can be read.
            if entry.path().metadata().is_ok_and(|about| about.is_file()) {
                files.insert(entry.path());
            }
        }
    }
    files
}

/// Where `needle` stands in a file.
fn find(path: &Path, needle: &[u8]) -> Option<usize> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let first = needle[0];
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|b| *b == first) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[track_caller]
fn assert_nothing_readable(lab: &Lab, engine: Option<&Engine>) {
    let files = files_of(lab, engine);
    assert!(
        files.iter().any(|f| f.extension().is_some_and(|e| e == "hseal")),
        "there are segments to look into"
    );
    for file in &files {
        // A part of the pattern is plaintext too.
        assert_eq!(find(file, &PATTERN[..24]), None, "payload in {}", file.display());
        if *file != lab.config() {
            for name in [CAMERA, CUSTOMER, SDP_LINE] {
                assert_eq!(
                    find(file, name.as_bytes()),
                    None,
                    "{name:?} in {}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn no_plaintext_touches_the_disk_while_it_records_and_after_a_kill() {
    let lab = lab();
    let engine = lab.start();
    let mut stream = Stream::new(SSRC);
    send_under_way(&lab, &engine, &mut stream, 10);
    assert_nothing_readable(&lab, Some(&engine));
    send_under_way(&lab, &engine, &mut stream, 30);
    assert_nothing_readable(&lab, Some(&engine));
    engine.kill();
    assert_nothing_readable(&lab, None);

    // The next run recovers what the killed one left, and that must not read it either.
    let engine = lab.start();
    send_under_way(&lab, &engine, &mut stream, 10);
    let last = lab.settle_and_stop(engine);
    assert!(last["stored"].as_u64() > Some(0));
    assert_nothing_readable(&lab, None);
    // The scan is able to find something: the owner's export holds the pattern.
    let out = lab.path("out.rtpdump");
    lab.export(CUSTOMER, CAMERA, &out, &[]).ok();
    assert!(find(&out, PATTERN).is_some());
}

#[test]
fn what_it_logs_and_measures_names_nobody() {
    let mut lab = lab();
    lab.section("control", &format!("listen = \"127.0.0.1:{}\"", lab.port));
    let engine = lab.start();
    send_under_way(&lab, &engine, &mut Stream::new(SSRC), 5);
    let metrics = harborseal_tests::harness::net::http_get(lab.port, "/metrics").1;
    let mut lines = engine.lines();
    lab.settle_and_stop(engine);
    lines.push(metrics);
    for name in [CAMERA, CUSTOMER, SDP_LINE] {
        let found = lines.iter().find(|line| line.contains(name));
        assert_eq!(found, None, "{name:?}");
    }
    for segment in lab.segments() {
        let path = segment
            .strip_prefix(lab.data())
            .expect("inside the data folder")
            .to_owned();
        assert!(!path.to_string_lossy().contains("mill"), "{}", path.display());
    }
}
