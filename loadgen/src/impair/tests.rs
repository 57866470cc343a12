//! The impairments: what is counted is what came out, and the seed decides all of it.

use super::*;
use crate::plan::GilbertElliott;
use proptest::prelude::*;

const BYTES: usize = HEADER_BYTES + 100;

fn packet(sequence: u64) -> Packet {
    Packet {
        bytes: (0..BYTES).map(|at| (at as u64 + sequence) as u8).collect(),
        sequence,
        intended_ns: sequence * 1_000,
        flags: Flags::default(),
    }
}

/// Everything that comes out of `count` packets, and the counts.
fn through(rules: Impairments, seed: u64, count: u64) -> (Vec<Packet>, Impaired) {
    let mut impairer = Impairer::new(rules, seed, 3, 0);
    let mut all = Vec::new();
    for sequence in 0..count {
        impairer.packet(packet(sequence), |packet| all.push(packet));
    }
    impairer.end(|packet| all.push(packet));
    (all, impairer.done)
}

fn rules() -> impl Strategy<Value = Impairments> {
    let chance = || prop_oneof![Just(0.0), 0.0..0.3f64, Just(1.0)];
    let chain = (0.0..0.2f64, 0.01..0.5f64, 0.0..0.1f64, 0.0..1.0f64).prop_map(
        |(to_bad, to_good, loss_good, loss_bad)| GilbertElliott {
            to_bad,
            to_good,
            loss_good,
            loss_bad,
        },
    );
    let loss = (0.0..0.4f64, proptest::option::of(chain));
    (loss, chance(), 0..9u32, chance(), chance(), chance()).prop_map(
        |((loss, bursts), reorder, reorder_depth, duplicate, corrupt, truncate)| Impairments {
            loss,
            bursts,
            reorder,
            reorder_depth,
            duplicate,
            corrupt,
            truncate,
            ..Impairments::default()
        },
    )
}

fn count(all: &[Packet], flag: Flags) -> u64 {
    let first = all.iter().filter(|packet| !packet.flags.has(Flags::DUPLICATE));
    first.filter(|packet| packet.flags.has(flag)).count() as u64
}

fn flipped_bits(packet: &Packet) -> u32 {
    let was = self::packet(packet.sequence);
    let pairs = packet.bytes.iter().zip(&was.bytes);
    pairs.map(|(is, was)| (is ^ was).count_ones()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn every_packet_comes_out_once_and_the_counts_are_of_what_came_out(rules in rules(), seed: u64) {
        let (all, done) = through(rules, seed, 400);
        let mut first: Vec<u64> = all.iter()
            .filter(|packet| !packet.flags.has(Flags::DUPLICATE))
            .map(|packet| packet.sequence)
            .collect();
        first.sort_unstable();
        prop_assert_eq!(first, (0..400).collect::<Vec<u64>>());
        let second = all.iter().filter(|packet| packet.flags.has(Flags::DUPLICATE));
        prop_assert_eq!(second.count() as u64, done.duplicated);
        for (flag, counted) in [
            (Flags::LOST, done.lost),
            (Flags::CORRUPT, done.corrupted),
            (Flags::TRUNCATED, done.truncated),
            (Flags::RUNT, done.runts),
            (Flags::DELAYED, done.reordered),
        ] {
            prop_assert_eq!(count(&all, flag), counted, "{:?}", flag);
        }
        for packet in &all {
            let flags = packet.flags;
            let len = packet.bytes.len();
            prop_assert_eq!(flags.has(Flags::RUNT), len < HEADER_BYTES);
            prop_assert_eq!(flags.has(Flags::TRUNCATED), (HEADER_BYTES..BYTES).contains(&len));
            prop_assert!(len >= 1);
            let bits = flipped_bits(packet);
            prop_assert_eq!(bits > 0, flags.has(Flags::CORRUPT));
            prop_assert!(bits <= 3);
        }
    }

    #[test]
    fn what_is_delayed_left_behind_a_later_packet_and_nothing_else_did(rules in rules(), seed: u64) {
        let (all, _) = through(rules, seed, 300);
        let left: Vec<&Packet> = all.iter().filter(|packet| !packet.flags.has(Flags::LOST)).collect();
        let mut highest = None;
        for packet in left {
            let behind = highest > Some(packet.sequence);
            // One that was held and overtaken only by others that were held longer left in its order after all.
            prop_assert!(!behind || packet.flags.has(Flags::DELAYED), "{}", packet.sequence);
            highest = highest.max(Some(packet.sequence));
        }
    }

    #[test]
    fn a_packet_is_overtaken_by_as_many_as_the_depth_allows(depth in 1..9u32, seed: u64) {
        let rules = Impairments { reorder: 0.1, reorder_depth: depth, ..Impairments::default() };
        let (all, _) = through(rules, seed, 500);
        for (at, packet) in all.iter().enumerate() {
            let later = all[..at].iter().filter(|before| before.sequence > packet.sequence);
            let overtaking = later.filter(|before| !before.flags.has(Flags::DELAYED));
            prop_assert!(overtaking.count() <= depth as usize);
        }
    }

    #[test]
    fn the_seed_decides_all(rules in rules(), seed: u64) {
        prop_assert_eq!(through(rules, seed, 200), through(rules, seed, 200));
    }
}

#[test]
fn another_seed_or_stream_does_other_things() {
    let rules = Impairments {
        loss: 0.5,
        ..Impairments::default()
    };
    assert_ne!(through(rules, 1, 100), through(rules, 2, 100));
    let lost = |stream| {
        let mut impairer = Impairer::new(rules, 1, stream, 0);
        let mut lost = Vec::new();
        for sequence in 0..100 {
            impairer.packet(packet(sequence), |packet| {
                lost.push(packet.flags.has(Flags::LOST))
            });
        }
        lost
    };
    assert_ne!(lost(0), lost(1));
}

#[test]
fn the_loss_chain_loses_its_stationary_share_in_bursts_of_its_mean_length() {
    let chain = GilbertElliott {
        to_bad: 0.01,
        to_good: 0.2,
        loss_good: 0.001,
        loss_bad: 0.9,
    };
    let rules = Impairments {
        bursts: Some(chain),
        ..Impairments::default()
    };
    let (all, done) = through(rules, 11, 400_000);
    let share = done.lost as f64 / all.len() as f64;
    // 0.0476 × 0.9 + 0.9524 × 0.001 = 0.0438. The states hold for 100 and 5 packets: 400,000 packets see some 3,800 bad spells, whose
    // count and length spread by a fortieth together; six times that is not chance.
    assert!((share / chain.loss() - 1.0).abs() < 0.15, "{share}");
    assert!((chain.loss() - 0.04381).abs() < 1e-4);
    let after = all.windows(2).filter(|pair| pair[0].flags.has(Flags::LOST));
    let again = after
        .clone()
        .filter(|pair| pair[1].flags.has(Flags::LOST))
        .count() as f64;
    let again = again / after.count() as f64;
    assert!(
        (0.65..0.78).contains(&again),
        "behind a loss the next is lost with 0.8 × 0.9 or so, not {again}"
    );
}

#[test]
fn independent_loss_has_its_share() {
    let rules = Impairments {
        loss: 0.02,
        ..Impairments::default()
    };
    let (_, done) = through(rules, 5, 200_000);
    // 4,000 ± 63: six standard deviations.
    assert!(done.lost.abs_diff(4_000) < 380, "{}", done.lost);
}

#[test]
fn jitter_is_bounded_and_keeps_the_order() {
    let rules = Impairments {
        jitter_ns: 30_000,
        ..Impairments::default()
    };
    let mut impairer = Impairer::new(rules, 1, 0, 0);
    let left: Vec<u64> = (0..1_000).map(|at| impairer.leaves_ns(at * 10_000)).collect();
    assert!(left.is_sorted());
    let late: Vec<u64> = left
        .iter()
        .zip(0..)
        .map(|(left, at)| left - at * 10_000)
        .collect();
    assert!(late.iter().all(|late| *late <= 30_000));
    assert!(late.iter().any(|late| *late > 20_000) && late.iter().any(|late| *late < 10_000));
}

#[test]
fn changes_come_as_often_as_asked_each_at_its_own_moment() {
    let rules = Impairments {
        restart_every_ns: 1_000,
        sequence_jump_every_ns: 500,
        timestamp_jump_every_ns: 700,
        payload_type_every_ns: 300,
        rebind_every_ns: 900,
        ..Impairments::default()
    };
    let mut impairer = Impairer::new(rules, 9, 4, 50);
    let mut changes = Vec::new();
    for at in 0..1_000 {
        impairer.changes(at * 100, |change| changes.push((at, change)));
    }
    let done = &impairer.done;
    for (count, every) in [
        (done.restarts, 1_000),
        (done.sequence_jumps, 500),
        (done.timestamp_jumps, 700),
        (done.payload_type_changes, 300),
        (done.rebinds, 900),
    ] {
        assert!(count.abs_diff(100_000 / every) <= 1, "{count} every {every}");
    }
    let restarts = changes
        .iter()
        .filter(|(_, change)| matches!(change, Change::Restart { .. }));
    assert_eq!(restarts.count() as u64, done.restarts);
    // While it was off, many moments passed: each kind happens once.
    let before = changes.len();
    impairer.changes(10_000_000, |change| changes.push((0, change)));
    assert_eq!(changes.len() - before, 5);
}
