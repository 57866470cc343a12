//! A capture replayed over loopback: a receiver gets, byte for byte, what the sent log says was sent, of every clone; and
//! captures that are no good end in a text.

use harborseal_loadgen::sentlog::packet_hash;
use harborseal_loadgen::{Lane, SentLog};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// An IPv4 packet with a UDP datagram, without checksums.
fn packet(port: u16, payload: &[u8]) -> Vec<u8> {
    let total = 28 + payload.len() as u16;
    let mut bytes = vec![0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    for word in [40_000, port, total - 20, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

fn rtp(n: u16, ssrc: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 96];
    bytes.extend(n.wrapping_sub(5).to_be_bytes());
    bytes.extend((u32::from(n) * 900).to_be_bytes());
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend([0x41, 1, 2, n as u8]);
    bytes
}

/// Two streams of 50 packets, 10 ms apart, in a capture of raw IPv4; each record is `snapshot` bytes at most.
fn capture(snapshot: usize) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0, 0, 0, 65_536, 228] {
        file.extend(word.to_le_bytes());
    }
    for n in 0..50u16 {
        for (port, ssrc) in [(5004, 7), (5006, 8)] {
            let packet = packet(port, &rtp(n, ssrc));
            let kept = packet.len().min(snapshot);
            for word in [1_000, u32::from(n) * 10_000, kept as u32, packet.len() as u32] {
                file.extend(word.to_le_bytes());
            }
            file.extend(&packet[..kept]);
        }
    }
    file
}

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_harborseal-loadgen"))
        .args(arguments)
        .output()
        .expect("the binary is built with the tests")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

#[test]
fn every_clone_of_every_stream_arrives_as_the_log_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, run) = (folder.path().join("two.pcap"), folder.path().join("run"));
    std::fs::write(&file, capture(usize::MAX)).expect("a file");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let target = socket.local_addr().expect("bound").to_string();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout above zero");
    let receiving = std::thread::spawn(move || {
        let mut packets = Vec::new();
        let mut buffer = [0; 2048];
        while packets.len() < 1_000 {
            match socket.recv(&mut buffer) {
                Ok(len) => packets.push(buffer[..len].to_vec()),
                Err(_) if packets.is_empty() => {}
                Err(_) => break,
            }
        }
        packets
    });
    let arguments = [
        "replay",
        text(&file),
        "--clone",
        "5",
        "--loop",
        "2",
        "--spread",
        "0.2",
        "--target",
        &target,
        "-o",
        text(&run),
        "--json",
    ];
    let output = loadgen(&arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("RTP streams: 2"), "{stderr}");
    let result: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(result["load"]["sent"], 1_000);
    let on_disk = std::fs::read(run.join("run.json")).expect("written");
    assert_eq!(serde_json::from_slice::<Value>(&on_disk).expect("JSON"), result);

    let log = SentLog::open(&run.join("sent.log")).expect("a log");
    assert!(log.complete() && log.streams().len() == 10);
    let mut logged = HashMap::new();
    let mut intended = BTreeSet::new();
    for stream in 0..10 {
        for entry in log.packets(stream, Lane::Rtp) {
            let entry = entry.expect("undamaged");
            intended.insert(entry.intended_ns / 1_000_000);
            logged.insert(entry.hash, log.streams()[stream as usize].ssrc);
        }
    }
    assert_eq!(logged.len(), 1_000, "no two packets are equal");
    assert!(
        intended.len() > 100,
        "clones are spread over milliseconds: {}",
        intended.len()
    );
    let packets = receiving.join().expect("no panic");
    assert_eq!(packets.len(), 1_000);
    for packet in packets {
        let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
        assert_eq!(logged.remove(&packet_hash(&packet)), Some(ssrc));
    }

    // The folder is taken now.
    let output = loadgen(&arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--force"));
}

#[test]
fn hostile_captures_end_in_a_text_and_status_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = capture(usize::MAX);
    let mut absurd = whole.clone();
    absurd[24 + 8..24 + 12].copy_from_slice(&0xffff_ff00u32.to_le_bytes());
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("empty", Vec::new(), "not even four bytes"),
        (
            "picture",
            b"\x89PNG\r\n\x1a\n".to_vec(),
            "neither pcap nor pcapng",
        ),
        ("absurd", absurd, "damaged at byte 24"),
        ("snapped", capture(34), "100 cut by the capture's snapshot length"),
        ("header", whole[..24].to_vec(), "no RTP was found"),
    ];
    for (name, bytes, wanted) in cases {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).expect("a file");
        let output = loadgen(&["replay", text(&file), "--target", "127.0.0.1:9"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert!(
            stderr.contains(wanted) && stderr.contains(name),
            "{name}: {stderr}"
        );
    }
    let output = loadgen(&["replay", "nowhere.pcap"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_capture_cut_in_its_last_record_is_replayed_up_to_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cut.pcap");
    let whole = capture(usize::MAX);
    std::fs::write(&file, &whole[..whole.len() - 3]).expect("a file");
    let output = loadgen(&["replay", text(&file), "--dry-run"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("99 frames") && stderr.contains("ends within a record"),
        "{stderr}"
    );
}
