//! Whole runs over loopback: what was said to be sent was sent, what was done on purpose is what the log says, and a generator that
//! cannot keep up says so.

use super::sending::Fleet;
use super::*;
use crate::camera::Stream;
use crate::mark::Mark;
use crate::plan::{CameraPlan, GilbertElliott, Group, Impairments, Junk};
use crate::sentlog::{Entry, Flags, Lane, SentLog, packet_hash};
use nix::sched::sched_getaffinity;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A socket that keeps up with a small fleet, and where it is.
fn sink() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    // As large as the system allows, or beyond as root: too small shows as a difference and not as a false success.
    let _ =
        setsockopt(&socket, RcvBuf, &(4 << 20)).and_then(|()| setsockopt(&socket, RcvBufForce, &(4 << 20)));
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a timeout above zero");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

/// Runs a plan and returns what came, each with the port it came from.
fn run_against(socket: &UdpSocket, plan: &Plan, options: &RunOptions) -> (RunResult, Vec<(u16, Vec<u8>)>) {
    std::thread::scope(|scope| {
        let control = Control::default();
        let sending = scope.spawn(move || run_plan(plan, options, &control).expect("the fleet runs"));
        let mut packets = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => packets.push((from.port(), buffer[..len].to_vec())),
                Err(_) if sending.is_finished() => break,
                Err(_) => {}
            }
        }
        (sending.join().expect("no panic"), packets)
    })
}

fn entries(log: &SentLog, lane: Lane) -> Vec<(u32, Entry)> {
    let streams = 0..log.streams().len() as u32;
    let of = |stream| {
        log.packets(stream, lane)
            .map(move |entry| (stream, entry.expect("whole")))
    };
    streams.flat_map(of).collect()
}

fn count(entries: &[(u32, Entry)], flags: Flags) -> u64 {
    entries.iter().filter(|(_, entry)| entry.flags.has(flags)).count() as u64
}

/// How often each packet (by its hash) left, and how often it came.
fn assert_same_packets(sent: &[(u32, Entry)], reports: &[(u32, Entry)], came: &[(u16, Vec<u8>)], junk: u64) {
    let mut balance: HashMap<u64, i64> = HashMap::new();
    for (_, entry) in sent.iter().chain(reports) {
        if entry.flags.has(Flags::SENT) {
            *balance.entry(entry.hash).or_default() += 1;
        }
    }
    for (_, packet) in came {
        *balance.entry(packet_hash(packet)).or_default() -= 1;
    }
    let missing: i64 = balance.values().filter(|count| **count > 0).sum();
    let strange: i64 = balance.values().filter(|count| **count < 0).sum();
    assert_eq!((missing, strange), (0, -(junk as i64)));
}

#[test]
fn a_late_sender_skips_nothing_and_says_how_late_it_was() {
    let (_sink, target) = sink();
    let plan = FleetSpec::new(2, 1.0, 0.6, vec![target]).plan();
    let planned: usize = (0..2).map(|number| packets_of(&plan, number)).sum();
    let control = Control::default();
    let mut fleet = Fleet::new(&plan, &RunOptions::default(), &control).expect("loopback");
    fleet.start = Instant::now()
        .checked_sub(Duration::from_millis(500))
        .expect("up for half a second");

    let result = fleet.run().expect("no log, no error");
    assert_eq!((result.load.sent, result.load.not_sent), (planned as u64, 0));
    let late = result.sending.lateness_ms;
    assert!(
        (400.0..5000.0).contains(&late.max) && late.p99 > 400.0,
        "{late:?}"
    );
    assert!(
        !result.valid && result.invalid_because[0].contains("late"),
        "{result:?}"
    );
    assert_eq!(control.sent.load(Ordering::Relaxed), result.load.sent);
}

fn packets_of(plan: &Plan, number: u32) -> usize {
    let of = &plan.streams[number as usize];
    let mut stream = Stream::new(number, of, &plan.programs, &Impairments::default()).expect("it is on");
    let mut count = 0;
    while let Some((_, burst)) = stream.next_burst() {
        count += burst.packets.len();
        stream.advance();
    }
    count
}

/// Three groups: ordinary cameras, unknown ones, and some with addresses of their own; each with everything that can be done to packets.
fn everything(target: SocketAddr, seed: u64) -> Plan {
    let spec = FleetSpec {
        seed,
        ..FleetSpec::new(12, 2.0, 2.0, vec![target])
    };
    let mut plan = spec.plan();
    let impair = Impairments {
        loss: 0.02,
        bursts: Some(GilbertElliott {
            to_bad: 0.01,
            to_good: 0.3,
            loss_good: 0.0,
            loss_bad: 0.8,
        }),
        reorder: 0.05,
        reorder_depth: 4,
        duplicate: 0.03,
        jitter_ns: 3_000_000,
        corrupt: 0.04,
        truncate: 0.03,
        clock_ppm: 100.0,
        restart_every_ns: 700_000_000,
        sequence_jump_every_ns: 500_000_000,
        timestamp_jump_every_ns: 400_000_000,
        payload_type_every_ns: 600_000_000,
        rebind_every_ns: 800_000_000,
    };
    let group = |name: &str, unknown, by_address, junk| Group {
        name: name.to_owned(),
        unknown,
        by_address,
        impair,
        junk,
    };
    let junk = Junk {
        per_second: 200.0,
        bytes: (1, 1500),
    };
    plan.groups = vec![
        group("ordinary", false, false, None),
        group("unknown", true, false, Some(junk)),
        group("own", false, true, None),
    ];
    for (at, camera) in (0..).zip(&mut plan.cameras) {
        *camera = CameraPlan {
            group: at % 3,
            address: (at % 3 == 2).then(|| free_address(at)),
            ..camera.clone()
        };
    }
    plan
}

fn free_address(at: u32) -> SocketAddr {
    let socket = UdpSocket::bind((format!("127.0.0.{}", 10 + at).as_str(), 0)).expect("loopback");
    socket.local_addr().expect("bound")
}

#[test]
fn what_is_done_on_purpose_is_what_the_log_says_and_what_arrives_by_every_method() {
    for method in [Method::Gso, Method::Sendmmsg, Method::IoUring] {
        let (socket, target) = sink();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("sent.log");
        let plan = everything(target, 5);
        let options = RunOptions {
            method,
            sent_log: Some(path.clone()),
            ..RunOptions::default()
        };
        let (result, came) = run_against(&socket, &plan, &options);
        let log = SentLog::open(&path).expect("just written");
        assert!(log.complete());
        let (sent, reports) = (entries(&log, Lane::Rtp), entries(&log, Lane::Rtcp));
        let done = &result.impaired;
        assert!(done.junk > 300, "{method:?} {done:?}");
        assert_eq!(
            (result.load.not_sent, &result.sending.errors),
            (0, &BTreeMap::new())
        );
        assert_same_packets(&sent, &reports, &came, done.junk);

        let first = |flag| count(&sent, flag) - count(&sent, flag | Flags::DUPLICATE);
        for (flag, counted) in [
            (Flags::LOST, done.lost),
            (Flags::CORRUPT, done.corrupted),
            (Flags::TRUNCATED, done.truncated),
            (Flags::RUNT, done.runts),
            (Flags::DELAYED, done.reordered),
        ] {
            assert!(counted > 0, "{flag:?}");
            assert_eq!(first(flag), counted, "{method:?} {flag:?}");
        }
        assert_eq!(count(&sent, Flags::DUPLICATE), done.duplicated);
        let changed: usize = (0..12)
            .map(|stream| log.ssrcs(stream).expect("whole").len() - 1)
            .sum();
        assert_eq!(changed as u64, done.restarts);
        assert!(done.restarts > 12 && done.rebinds > 12 && done.sequence_jumps > 12);

        // Whom the engine must refuse: all of the unknown, the ordinary once they have a new SSRC, those known by address once they
        // have a new port.
        let of = |group: u32| sent.iter().filter(move |(stream, _)| stream % 3 == group);
        assert!(of(1).all(|(_, entry)| entry.flags.has(Flags::STRANGER)));
        let unknown = of(1).filter(|(_, entry)| entry.flags.has(Flags::SENT)).count();
        assert_eq!(unknown as u64, done.unknown);
        for (stream, entry) in of(0) {
            let ssrcs = log.ssrcs(*stream).expect("whole");
            let restarted = ssrcs.get(1).is_some_and(|next| entry.sequence >= next.sequence);
            assert_eq!(entry.flags.has(Flags::STRANGER), restarted);
        }
        assert_own_ports(&plan, &sent, &came);

        let known = |(stream, _): &&(u32, Entry)| stream % 3 != 1;
        let load = &result.load;
        let known_sent = sent
            .iter()
            .filter(known)
            .filter(|(_, entry)| entry.flags.has(Flags::SENT));
        assert_eq!(known_sent.count() as u64, load.sent);
        let per_stream: u64 = result.streams.iter().map(|stream| stream.sent).sum();
        assert_eq!(per_stream, load.sent + done.unknown);
        let second = |of: fn(&crate::result::Second) -> u64| result.seconds.iter().map(of).sum::<u64>();
        assert_eq!(second(|second| second.sent), load.sent);
        assert_eq!(second(|second| second.due.unwrap_or(0)), load.intended);
    }
}

/// What came from a camera's own port is not a stranger's, and what came of it from another is.
fn assert_own_ports(plan: &Plan, sent: &[(u32, Entry)], came: &[(u16, Vec<u8>)]) {
    let own = |stream: u32| {
        plan.cameras[stream as usize]
            .address
            .map(|address| address.port())
    };
    let stranger: HashMap<(u32, u64, u64), bool> = sent
        .iter()
        .map(|(stream, entry)| {
            (
                (*stream, entry.sequence, entry.hash),
                entry.flags.has(Flags::STRANGER),
            )
        })
        .collect();
    let mut seen = [0, 0];
    for (port, packet) in came {
        let Some(mark) = Mark::read(packet, plan.run).filter(|mark| mark.stream % 3 == 2) else {
            continue;
        };
        let stranger = stranger[&(mark.stream, mark.sequence, packet_hash(packet))];
        assert_eq!(Some(*port) != own(mark.stream), stranger);
        seen[usize::from(stranger)] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn the_same_seed_does_the_same_to_the_same_packets() {
    let mut runs = Vec::new();
    for seed in [5, 5, 6] {
        let (socket, target) = sink();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("sent.log");
        let options = RunOptions {
            sent_log: Some(path.clone()),
            ..RunOptions::default()
        };
        let (result, _) = run_against(&socket, &everything(target, seed), &options);
        let log = SentLog::open(&path).expect("just written");
        let of = |(stream, entry): (u32, Entry)| {
            (stream, entry.sequence, entry.flags, entry.len, entry.intended_ns)
        };
        runs.push((
            result.impaired,
            entries(&log, Lane::Rtp).into_iter().map(of).collect::<Vec<_>>(),
        ));
    }
    assert!(runs[0].1 == runs[1].1 && runs[0].0 == runs[1].0);
    assert!(runs[0].1 != runs[2].1);
}

#[test]
fn warm_up_is_left_out_of_the_figures_and_not_of_the_counts() {
    let (socket, target) = sink();
    let mut plan = FleetSpec::new(10, 1.0, 3.0, vec![target]).plan();
    plan.warm_up_ns = 1_000_000_000;
    let (result, came) = run_against(&socket, &plan, &RunOptions::default());
    let reports = result.load.rtcp_sent;
    assert_eq!(came.len() as u64, result.load.sent + reports);
    assert_eq!(result.load.intended, result.load.sent);
    let warm: Vec<bool> = result.seconds.iter().map(|second| second.warm_up).collect();
    assert!(
        warm.len() >= 4 && warm[0] && !warm[1..].contains(&true),
        "{warm:?}"
    );
    let bursts: u64 = result
        .sending
        .bursts
        .iter()
        .map(|(size, count)| size * count)
        .sum();
    assert!(bursts < result.load.sent && bursts > 0, "{bursts}");
    assert!((result.load.gbps - 0.01).abs() < 0.001, "{}", result.load.gbps);
}

#[test]
fn an_unpaced_run_sends_the_same_packets_in_less_time() {
    let (socket, target) = sink();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("sent.log");
    let options = RunOptions {
        sent_log: Some(path.clone()),
        paced: false,
        ..RunOptions::default()
    };
    let plan = FleetSpec::new(3, 1.0, 5.0, vec![target]).plan();
    let planned: usize = (0..3).map(|number| packets_of(&plan, number)).sum();
    let (result, came) = run_against(&socket, &plan, &options);
    assert_eq!(result.load.sent, planned as u64);
    assert!(
        result.sending.unpaced && result.load.duration_s < 4.0,
        "{}",
        result.load.duration_s
    );
    // As fast as it goes is faster than a small receive buffer bears: what came is what the log says, and some of it may lack.
    let log = SentLog::open(&path).expect("just written");
    let sent: Vec<(u32, Entry)> = [Lane::Rtp, Lane::Rtcp]
        .iter()
        .flat_map(|lane| entries(&log, *lane))
        .collect();
    assert_eq!(
        count(&sent, Flags::SENT),
        result.load.sent + result.load.rtcp_sent
    );
    let hashes: HashSet<u64> = sent.iter().map(|(_, entry)| entry.hash).collect();
    assert!(
        !came.is_empty()
            && came
                .iter()
                .all(|(_, packet)| hashes.contains(&packet_hash(packet)))
    );
}

#[test]
fn a_generator_starved_of_its_cpu_says_that_the_run_is_invalid() {
    let (_sink, target) = sink();
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("Linux tells");
    let cpu = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let cpu = cpu.expect("this thread runs somewhere");
    // More than a fiftieth of a core can send.
    let spec = FleetSpec {
        gso: false,
        cpu: Some(cpu),
        ..FleetSpec::new(200, 4.0, 60.0, vec![target])
    };
    let over = AtomicBool::new(false);
    let control = Control::default();
    let result = std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                pin(cpu).expect("the fleet may use it, so may we");
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let sending = scope.spawn(|| run(&spec, &control).expect("the fleet runs"));
        std::thread::sleep(Duration::from_millis(2_500));
        control.stop.store(true, Ordering::Relaxed);
        let report = sending.join().expect("no panic");
        over.store(true, Ordering::Relaxed);
        report
    });
    assert!(result.stopped && !result.valid, "{result}");
    assert!(
        result.invalid_because[0].contains("late"),
        "{:?}",
        result.invalid_because
    );
    assert!(result.lateness_ms_p99 > 20.0, "{result}");
}

#[test]
fn a_watched_run_shows_each_second_and_who_lost_what_in_it() {
    let (socket, target) = sink();
    let mut plan = FleetSpec::new(4, 1.0, 2.2, vec![target]).plan();
    plan.groups[0].impair.loss = 0.2;
    let (control, seconds) = Control::watched();
    let result = std::thread::scope(|scope| {
        let sending =
            scope.spawn(|| run_plan(&plan, &RunOptions::default(), &control).expect("the fleet runs"));
        let mut buffer = [0; 2048];
        while !sending.is_finished() {
            let _ = socket.recv(&mut buffer);
        }
        sending.join().expect("no panic")
    });
    drop(control);
    let seen: Vec<LiveSecond> = seconds.iter().collect();
    assert_eq!(seen.len(), result.seconds.len());
    let lost: u64 = seen
        .iter()
        .flat_map(|live| &live.per_stream_lost)
        .flatten()
        .map(|lost| u64::from(*lost))
        .sum();
    assert_eq!(lost, result.impaired.lost);
    assert!(lost > 0);
    let late: u64 = seen.iter().map(|live| live.lateness.len()).sum();
    assert_eq!(late, result.load.sent);
}

#[test]
fn a_plan_that_never_sends_is_refused() {
    let mut plan = FleetSpec::new(2, 1.0, 1.0, vec!["127.0.0.1:9".parse().expect("an address")]).plan();
    plan.streams.iter_mut().for_each(|stream| stream.on.clear());
    let refused = run_plan(&plan, &RunOptions::default(), &Control::default());
    assert!(matches!(refused, Err(FleetError::Empty)));
}
