//! A fleet over loopback: a receiver gets, byte for byte, what the sent log says was sent.

use harborseal_loadgen::compare::{StreamCheck, Verdict};
use harborseal_loadgen::program::Pacing;
use harborseal_loadgen::send::Rtcp;
use harborseal_loadgen::{Control, FleetReport, FleetSpec, SentLog, run};
use std::collections::HashMap;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

struct Received {
    packets: Vec<Vec<u8>>,
}

/// Runs the fleet against a socket of our own and gathers all that comes.
fn send_and_receive(mut spec: FleetSpec, log: &Path) -> (FleetSpec, FleetReport, Received) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout above zero");
    spec.targets = vec![socket.local_addr().expect("bound")];
    spec.sent_log = Some(log.to_owned());
    let control = Control::default();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| run(&spec, &control).expect("the fleet runs"));
        let mut packets = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            match socket.recv(&mut buffer) {
                Ok(len) => packets.push(buffer[..len].to_vec()),
                Err(_) if sending.is_finished() => break,
                Err(_) => {}
            }
        }
        (
            spec.clone(),
            sending.join().expect("no panic"),
            Received { packets },
        )
    })
}

fn is_rtcp(packet: &[u8]) -> bool {
    (192..=223).contains(&packet[1])
}

fn ssrc(packet: &[u8]) -> u32 {
    let at = if is_rtcp(packet) { 4 } else { 8 };
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

fn compare(spec: &FleetSpec, received: &Received, log: &Path) -> Verdict {
    let log = SentLog::open(log).expect("the fleet closed it");
    assert!(log.complete());
    let stream_of: HashMap<u32, u32> = (0..spec.cameras)
        .map(|camera| (spec.ssrc(camera), camera))
        .collect();
    let mut checks: Vec<StreamCheck> = (0..spec.cameras)
        .map(|stream| StreamCheck::new(&log, stream).expect("an undamaged log"))
        .collect();
    for packet in &received.packets {
        checks[stream_of[&ssrc(packet)] as usize].packet(is_rtcp(packet), packet);
    }
    let mut all = Verdict::default();
    checks.into_iter().for_each(|check| all += check.finish());
    all
}

#[test]
fn the_receiver_gets_exactly_what_the_sent_log_says_with_and_without_segmentation() {
    for gso in [true, false] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = dir.path().join("sent");
        let spec = FleetSpec {
            gso,
            ..FleetSpec::new(20, 1.0, 1.5, Vec::new())
        };
        let (spec, report, received) = send_and_receive(spec, &log);
        let verdict = compare(&spec, &received, &log);
        assert!(verdict.complete(), "{verdict:?}\n{report:?}");
        assert_eq!((verdict.sent, verdict.rtcp_sent), (report.sent, report.rtcp_sent));
        assert_eq!(report.rtcp_sent, 20, "each camera's first report");
        let per_stream: u64 = report.streams.iter().map(|stream| stream.sent).sum();
        assert_eq!(per_stream, report.sent);
        assert_eq!(received.packets.len() as u64, report.sent + report.rtcp_sent);
    }
}

#[test]
fn filler_in_frame_bursts_arrives_as_logged_at_its_rate_and_without_rtcp_none_comes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = dir.path().join("sent");
    let spec = FleetSpec {
        pacing: Pacing::Frame,
        rtcp: Rtcp::Off,
        ssrc_base: Some(500),
        ..FleetSpec::new(3, 4.0, 1.0, Vec::new())
    };
    let (spec, report, received) = send_and_receive(spec, &log);
    let verdict = compare(&spec, &received, &log);
    assert!(verdict.complete(), "{verdict:?}\n{report:?}");
    assert_eq!(report.rtcp_sent, 0);
    let megabits = received.packets.iter().map(Vec::len).sum::<usize>() as f64 * 8e-6;
    assert!(
        (megabits - 12.0).abs() < 1.0,
        "3 cameras × 4 Mb/s × 1 s, not {megabits} Mb"
    );
}

#[test]
fn a_stop_ends_the_run_with_what_was_sent() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = dir.path().join("sent");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let target = socket.local_addr().expect("bound");
    let spec = FleetSpec {
        sent_log: Some(log.clone()),
        ..FleetSpec::new(5, 1.0, 600.0, vec![target])
    };
    let control = Control::default();
    let report = std::thread::scope(|scope| {
        let sending = scope.spawn(|| run(&spec, &control).expect("the fleet runs"));
        while control.sent.load(std::sync::atomic::Ordering::Relaxed) < 100 {
            std::thread::sleep(Duration::from_millis(5));
        }
        control.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        sending.join().expect("no panic")
    });
    assert!(report.stopped && report.sent >= 100);
    let log = SentLog::open(&log).expect("closed by the stop");
    let logged: usize = (0..5)
        .map(|stream| log.packets(stream, harborseal_loadgen::Lane::Rtp).count())
        .sum();
    assert_eq!((log.complete(), logged as u64), (true, report.sent));
}
