//! What cameras cost on disk and in memory: the shard's decisions under a virtual clock, fed by the load generator's own cameras.
//!
//! Not a timing: the same packets at the same times make the same files, to the byte, on any machine.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use harborseal::chunk::{BUFFER_BYTES, LEAST_BUFFER_BYTES};
use harborseal_loadgen::camera::{RunClock, Stream};
use harborseal_loadgen::plan::{Impairments, Plan};
use harborseal_loadgen::profile::Profile;
use harborseal_tests::alone::{Alone, Files, Parts};

const MS: u64 = 1_000_000;
const DEADLINE_NS: u64 = 500 * MS;
const COMMIT_NS: u64 = 20 * MS;
const DISK_NS: u64 = 4 * MS;

/// What came of some cameras.
struct Run {
    files: Files,
    rtp_bytes: u64,
    /// Of files, in percent of the RTP in them.
    overhead_percent: f64,
    chunks: u64,
    peak_bytes: usize,
    worst_latency_ms: u64,
}

/// Runs a profile's cameras on a pool of so many bytes; nothing may be dropped.
fn run(profile: &Profile, pool_bytes: usize) -> Run {
    let plan =
        Plan::from_profile(profile, vec!["127.0.0.1:5004".parse().expect("an address")]).expect("a plan");
    let mut shard = Alone::new(Parts {
        ssrcs: plan.streams.iter().map(|stream| stream.ssrc).collect(),
        pool_bytes,
        chunk_deadline_ns: DEADLINE_NS,
        commit_interval_ns: COMMIT_NS,
        segment_max_age_ns: 60_000 * MS,
        disk_ns: DISK_NS,
    });
    shard.advance();
    send(&plan, &mut shard);
    let peak_bytes = shard.peak_bytes;
    let (books, files) = shard.stop();
    assert_eq!(books.dropped.total(), 0, "nothing is dropped");
    assert_eq!(books.received, books.stored, "and all is durable");
    Run {
        files,
        rtp_bytes: books.stored_bytes,
        overhead_percent: (files.bytes as f64 / books.stored_bytes as f64 - 1.0) * 100.0,
        chunks: books.chunks,
        peak_bytes,
        worst_latency_ms: books.durable_latency_us.max() / 1000,
    }
}

/// Sends every burst of the plan at its time.
fn send(plan: &Plan, shard: &mut Alone) {
    let clock = RunClock {
        run: 1,
        start_ns: shard.now.real_ns,
    };
    let began_ns = shard.now.mono_ns;
    let mut streams: Vec<Option<Stream>> = (0u32..)
        .zip(&plan.streams)
        .map(|(number, stream)| Stream::new(number, stream, &plan.programs, &Impairments::default()))
        .collect();
    let due = |at: usize, stream: &Stream| Some(Reverse((stream.next_burst()?.0, at)));
    let mut next: BinaryHeap<_> = streams
        .iter()
        .enumerate()
        .filter_map(|(at, stream)| due(at, stream.as_ref()?))
        .collect();
    let mut packet = vec![0; 2000];
    while let Some(Reverse((due_ns, at))) = next.pop() {
        shard.advance_to(began_ns + due_ns);
        let Some(stream) = &mut streams[at] else { continue };
        let Some((_, burst)) = stream.next_burst() else {
            continue;
        };
        if burst.starts_frame {
            stream.begin_frame();
        }
        for number in burst.packets.clone() {
            let len = stream.program().packet_bytes(number);
            stream.write_packet(number, due_ns, clock, &mut packet[..len]);
            shard.receive(&packet[..len]);
        }
        shard.advance();
        stream.advance();
        next.extend(due(at, stream));
    }
}

fn told(what: &str, run: &Run, cameras: usize) {
    println!(
        "{what}: {:.2} % over {} bytes of RTP in {} files, {:.1} KiB a chunk, peak {:.1} KiB of pool a camera, {} ms at most",
        run.overhead_percent,
        run.rtp_bytes,
        run.files.count,
        run.rtp_bytes as f64 / run.chunks as f64 / 1024.0,
        run.peak_bytes as f64 / cameras as f64 / 1024.0,
        run.worst_latency_ms,
    );
}

/// The bounds of docs/PROMISES.md, for frames at line rate and evenly spaced ones.
#[test]
fn files_are_little_larger_than_the_packets_in_them() {
    for (mbps, most_percent) in [(0.2, 10.0), (1.0, 3.0), (2.0, 3.0), (4.0, 3.0)] {
        for pacing in ["line-rate", "smooth"] {
            let settings = [
                "seconds=61".to_owned(),
                "cameras=50".to_owned(),
                format!("mbps={mbps}"),
                format!("pacing={pacing}"),
            ];
            let profile = Profile::load("city", &settings).expect("a profile");
            let came = run(&profile, 64 << 20);
            told(&format!("{mbps} Mb/s, {pacing}"), &came, 50);
            assert!(
                came.overhead_percent < most_percent,
                "{mbps} Mb/s, {pacing}: {:.2} %",
                came.overhead_percent
            );
            // The deadline, a wait for company, a write, a commit and its fdatasync.
            let most_ms = (DEADLINE_NS + 5 * MS + 2 * COMMIT_NS + 2 * DISK_NS) / MS;
            assert!(came.worst_latency_ms <= most_ms, "{} ms", came.worst_latency_ms);
        }
    }
}

/// What docs/OPERATING.md says that cameras of one rate need of the pool, in bytes.
fn pool_by_the_manual(cameras: usize, bits_per_s: usize) -> usize {
    let bytes_per_s = bits_per_s / 8;
    let in_a_deadline = (bytes_per_s as u64 * DEADLINE_NS / (1000 * MS)) as usize;
    let buffer = (in_a_deadline / 8 * 7)
        .next_power_of_two()
        .clamp(LEAST_BUFFER_BYTES, BUFFER_BYTES);
    let on_the_way = bytes_per_s * 60 / 1000;
    cameras * (buffer + on_the_way) / 4 * 5
}

#[test]
fn cameras_need_no_more_memory_than_the_manual_says() {
    for (kbps, cameras) in [
        (100_u32, 10_000),
        (200, 4000),
        (300, 1000),
        (500, 500),
        (1000, 400),
        (2000, 200),
        (8000, 60),
        (20_000, 40),
    ] {
        let settings = [
            "seconds=5".to_owned(),
            format!("cameras={cameras}"),
            format!("mbps={}", f64::from(kbps) / 1000.0),
        ];
        let profile = Profile::load("city", &settings).expect("a profile");
        let manual = pool_by_the_manual(cameras, kbps as usize * 1000);
        let came = run(&profile, 2 * manual);
        told(&format!("{kbps} kb/s, {cameras} cameras"), &came, cameras);
        assert!(
            came.peak_bytes <= manual,
            "{kbps} kb/s: {} bytes, and {manual} by the manual",
            came.peak_bytes
        );
    }
}

/// Slow and fast cameras share one pool that is no larger than the manual says, and none of them loses a packet.
#[test]
fn slow_and_fast_cameras_share_a_pool() {
    let text = r#"
name = "side-by-side"
seconds = 10
customers = 1
pacing = "line-rate"
phase = "random"

[[group]]
name = "slow"
count = 1000
mbps = 0.1

[[group]]
name = "fast"
count = 30
mbps = 20
"#;
    let profile = Profile::parse("side-by-side", text, &[]).expect("a profile");
    let pool_bytes = pool_by_the_manual(1000, 100_000) + pool_by_the_manual(30, 20_000_000);
    let came = run(&profile, pool_bytes.next_multiple_of(BUFFER_BYTES));
    told("100 kb/s and 20 Mb/s", &came, 1030);
    assert!(
        came.peak_bytes <= pool_bytes / 8 * 7,
        "no chunk is sealed under pressure"
    );
}
