//! No allocation per packet after warm-up: the shard's decisions under a counting allocator, with a disk that takes
//! everything at once.
//!
//! What allocates by design is asked for rarely and off the packet's way: a segment (once a minute), a checkpoint (once a second),
//! and the tables of a segment, which grow with its chunks by doubling.

use harborseal_tests::alone::{Alone, Parts};

const STREAMS: u32 = 50;
const PACKETS: usize = 200_000;
/// 80,000 packets a second: 40 chunks of 64 KiB a second and stream are far beyond what a camera sends.
const BETWEEN_NS: u64 = 12_500;

/// Feeds `count` packets, 40 to a batch; the allocations of receiving, and of everything else.
fn feed(shard: &mut Alone, packet: &mut [u8], from: usize, count: usize) -> (u64, u64) {
    let (mut receiving, mut advancing) = (0, 0);
    for batch in (from..from + count).step_by(40) {
        receiving += allocation_counter::measure(|| {
            for at in batch..batch + 40 {
                let (ssrc, seq) = (at as u32 % STREAMS, (at as u32 / STREAMS) as u16);
                packet[2..4].copy_from_slice(&seq.to_be_bytes());
                packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
                shard.pass(BETWEEN_NS);
                shard.receive(packet);
            }
        })
        .count_total;
        advancing += allocation_counter::measure(|| shard.advance()).count_total;
    }
    (receiving, advancing)
}

#[test]
fn packets_cost_no_allocation_after_warm_up() {
    let mut shard = Alone::new(Parts {
        ssrcs: (0..STREAMS).collect(),
        pool_bytes: 64 << 20,
        chunk_deadline_ns: 500_000_000,
        commit_interval_ns: 20_000_000,
        segment_max_age_ns: 3600 * 1_000_000_000,
        disk_ns: 0,
    });
    let mut packet = vec![0; 1200];
    packet[0] = 0x80;
    packet[1] = 96;
    shard.advance();
    feed(&mut shard, &mut packet, 0, PACKETS / 4);
    let (receiving, advancing) = feed(&mut shard, &mut packet, PACKETS / 4, PACKETS);
    let books = shard.core.snapshot(shard.now).clone();
    let chunks = books.chunks;
    println!(
        "{PACKETS} packets in {chunks} chunks: {receiving} allocations receiving, {advancing} moving on"
    );
    assert_eq!(books.received, (PACKETS / 4 + PACKETS) as u64);
    assert_eq!(books.dropped.total(), 0);
    assert!(books.stored > PACKETS as u64, "they went all the way to the disk");
    // A full chunk is placed while its last packet is received, in tables that double a few times.
    assert!(
        receiving <= 16,
        "{receiving} allocations while receiving {PACKETS} packets"
    );
    // Commits and checkpoints, each a few: by the second, not by the packet.
    assert!(
        advancing * 200 < PACKETS as u64,
        "{advancing} allocations for {PACKETS} packets"
    );
}
