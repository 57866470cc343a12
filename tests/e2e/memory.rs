//! Memory stays within `memory.limit` and 64 MiB, with more streams than the pool has buffers.

use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream};

const STREAMS: u32 = 2500;
const ROUNDS: u64 = 25;

/// The most the process has had in memory, in MiB: `VmHWM` leaves huge pages out.
fn peak_mib(engine: &Engine) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).expect("the engine runs");
    let kib = |key: &str| -> u64 {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .expect("the kernel says so");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    (kib("VmHWM:") + kib("HugetlbPages:")).div_ceil(1024)
}

#[test]
fn memory_stays_within_its_bound_with_more_streams_than_buffers() {
    let mut lab = Lab::new();
    let limit_mib = 128;
    lab.section(
        "memory",
        &format!("limit = \"{limit_mib}MiB\"\nallow_unlocked = true"),
    );
    lab.section("segment", "max_age = \"2s\"\nmax_bytes = \"64MiB\"");
    lab.customer("alice");
    for ssrc in 1..=STREAMS {
        lab.camera(Camera::new(&format!("camera-{ssrc}"), "alice", ssrc));
    }
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let mut streams: Vec<Stream> = (1..=STREAMS).map(Stream::new).collect();
    let mut peak = 0;
    for _ in 0..ROUNDS {
        for stream in &mut streams {
            sender.send(&stream.packet());
        }
        peak = peak.max(peak_mib(&engine));
    }
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["received"], u64::from(STREAMS) * ROUNDS);
    println!("peak {peak} MiB of {limit_mib} + 64: {last}");
    assert!(
        peak <= limit_mib + 64,
        "{peak} MiB with a limit of {limit_mib} MiB"
    );
}
