//! Datagrams: whole, in order, with the right batch size, whatever the ring is made of.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Payload number `n` of `len` bytes: its number, then bytes that depend on it.
fn payload(n: u32, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len)
        .map(|i| (i as u32).wrapping_mul(31).wrapping_add(n) as u8)
        .collect();
    let number = n.to_be_bytes();
    let head = len.min(4);
    bytes[..head].copy_from_slice(&number[..head]);
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

#[test]
fn single_datagrams_of_every_length_arrive_whole_and_in_order() {
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        let from = sender.local_addr().unwrap();
        // The first is empty, and so is every 1500th byte count after it.
        let sent: Vec<Vec<u8>> = (0..600u32).map(|n| payload(n, (n as usize * 7) % 1500)).collect();
        let got = RefCell::new(Vec::new());
        for chunk in sent.chunks(50) {
            let target = got.borrow().len() + chunk.len();
            for bytes in chunk {
                sender.send(bytes).unwrap();
            }
            let before = sys::realtime_ns();
            turn(
                &mut ring,
                |event| {
                    let Event::Datagram(datagram) = event else {
                        return Flow::Continue;
                    };
                    assert_eq!(datagram.from, from);
                    assert_eq!((datagram.gro_size, datagram.truncated), (0, false));
                    assert_eq!(datagram.packets().collect::<Vec<_>>(), [datagram.data]);
                    assert!(
                        datagram.arrival_ns.abs_diff(before) < 5_000_000_000,
                        "{}",
                        datagram.arrival_ns
                    );
                    got.borrow_mut().push(datagram.data.to_vec());
                    Flow::Continue
                },
                || got.borrow().len() >= target,
            );
        }
        assert_eq!(*got.borrow(), sent, "{name}");
        assert_eq!(ring.counters().malformed, 0);
    }
}

#[test]
fn batches_arrive_whole_with_their_packet_size() {
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        let mut next = 0;
        let got = RefCell::new(Vec::new());
        // Packet size, packets, bytes of the last: short tails, full tails, and nearly the largest batch a device
        // passes on (gso_max_size, 65,536 with all headers; a larger one it cuts), in no more pieces than the
        // oldest kernel we run on cuts (64).
        for (size, packets, last) in [
            (1200, 10, 1200),
            (1200, 40, 7),
            (500, 64, 500),
            (1100, 60, 580),
            (1400, 2, 1),
        ] {
            socket::set_segment_bytes(&sender, size).unwrap();
            let mut batch = Vec::new();
            for i in 0..packets {
                batch.extend(payload(
                    next,
                    if i + 1 == packets { last } else { usize::from(size) },
                ));
                next += 1;
            }
            sender.send(&batch).unwrap();
            let before = got.borrow().len();
            turn(
                &mut ring,
                |event| {
                    let Event::Datagram(datagram) = event else {
                        return Flow::Continue;
                    };
                    assert_eq!((datagram.gro_size, datagram.truncated), (size, false), "{name}");
                    assert_eq!(datagram.data, batch, "{name}: {size} × {packets}");
                    let sizes: Vec<usize> = datagram.packets().map(<[u8]>::len).collect();
                    assert_eq!(sizes.len(), packets as usize);
                    assert!(
                        sizes[..packets as usize - 1]
                            .iter()
                            .all(|&len| len == usize::from(size))
                    );
                    assert_eq!(sizes.last(), Some(&last));
                    got.borrow_mut().push(datagram.data.len());
                    Flow::Continue
                },
                || got.borrow().len() > before,
            );
        }
        assert_eq!(got.borrow().len(), 5);
        assert_eq!(ring.counters().malformed, 0);
    }
}

#[test]
fn a_hundred_thousand_datagrams_of_mixed_sizes_lose_nothing() {
    const TOTAL: u32 = 100_000;
    /// The receiver's socket buffer holds more than this many even at a plain user's limits.
    const AHEAD: u32 = 500;
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        let received = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&received);
        // Paced by what has arrived: loopback has no flow control.
        let thread = std::thread::spawn(move || {
            let deadline = Instant::now() + Duration::from_secs(30);
            for n in 0..TOTAL {
                while n >= seen.load(Ordering::Relaxed) + AHEAD {
                    assert!(Instant::now() < deadline, "the receiver stalled at {n}");
                    std::thread::yield_now();
                }
                sender.send(&payload(n, 4 + (n as usize * 13) % 1400)).unwrap();
            }
        });
        let mut next = 0;
        let deadline = Instant::now() + Duration::from_secs(30);
        while next < TOTAL {
            assert!(Instant::now() < deadline, "{name}: only {next} arrived in 30 s");
            ring.wait(0, 10_000).unwrap();
            ring.drain(256, |event| {
                let Event::Datagram(datagram) = event else {
                    return Flow::Continue;
                };
                for packet in datagram.packets() {
                    assert_eq!(number(packet), next, "{name}");
                    assert_eq!(packet, payload(next, 4 + (next as usize * 13) % 1400), "{name}");
                    next += 1;
                }
                Flow::Continue
            })
            .unwrap();
            received.store(next, Ordering::Relaxed);
        }
        thread.join().unwrap();
        assert_eq!(ring.counters().malformed, 0, "{name}");
    }
}

/// A shard that takes a socket for empty tells the others that everything from it was handed over. While a receive that had ended for lack
/// of buffers was not armed again, silence was taken for that.
#[test]
fn a_socket_that_is_not_listened_to_is_not_taken_for_empty() {
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        for n in 0..60u32 {
            sender.send(&payload(n, 60_000)).unwrap();
        }
        let mut count = 0;
        let deadline = Instant::now() + Duration::from_secs(30);
        while count < 60 {
            assert!(Instant::now() < deadline, "{name}: only {count} arrived in 30 s");
            ring.wait(0, 1000).unwrap();
            ring.drain(8, |event| {
                count += u32::from(matches!(event, Event::Datagram(_)));
                Flow::Continue
            })
            .unwrap();
            assert!(count == 60 || !ring.is_caught_up(0), "{name}: {count} of 60");
        }
        assert!(ring.counters().out_of_buffers > 0, "{name}");
    }
}

#[test]
fn running_out_of_buffers_ends_in_rearming_not_in_loss() {
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        // 60 × 60,000 bytes: more than the receive buffers hold, less than a plain user's socket buffer.
        for n in 0..60u32 {
            sender.send(&payload(n, 60_000)).unwrap();
        }
        let next = Cell::new(0);
        turn(
            &mut ring,
            |event| {
                let Event::Datagram(datagram) = event else {
                    return Flow::Continue;
                };
                assert_eq!(datagram.data, payload(next.get(), 60_000), "{name}");
                next.set(next.get() + 1);
                Flow::Continue
            },
            || next.get() == 60,
        );
        let counters = ring.counters();
        assert!(
            counters.out_of_buffers > 0 && counters.armed > 1,
            "{name}: {counters:?}"
        );
    }
}

#[test]
fn a_full_completion_queue_ends_in_rearming_not_in_loss() {
    for buffers in [BufferMode::Auto, BufferMode::Plain] {
        let waker = Waker::new().unwrap();
        let options = RingOptions {
            entries: 4,
            completions: 8,
            ..options(buffers)
        };
        let mut ring = Ring::new(&options, &waker).unwrap();
        // Two sockets fill the same buffers in turn: a completion out of order would show as a wrong payload.
        let senders = [0, 1].map(|_| sender_to(listen(&mut ring)));
        for n in 0..2000u32 {
            senders[n as usize % 2]
                .send(&payload(n, 4 + (n as usize * 11) % 900))
                .unwrap();
        }
        let next = Cell::new([0u32, 1]);
        turn(
            &mut ring,
            |event| {
                let Event::Datagram(datagram) = event else {
                    return Flow::Continue;
                };
                let mut expected = next.get();
                let n = &mut expected[usize::from(datagram.socket)];
                assert_eq!(
                    datagram.data,
                    payload(*n, 4 + (*n as usize * 11) % 900),
                    "{buffers:?}"
                );
                *n += 2;
                next.set(expected);
                Flow::Continue
            },
            || next.get() == [2000, 2001],
        );
        assert_eq!(ring.counters().malformed, 0);
    }
}

#[test]
fn a_wake_from_another_thread_is_an_event() {
    for (_, waker, mut ring) in [ring(BufferMode::Auto), old_kernel()].map(|(ring, waker)| ((), waker, ring))
    {
        let woken = Cell::new(0);
        for round in 1..=3 {
            let waker = waker.clone();
            let thread = std::thread::spawn(move || waker.wake());
            turn(
                &mut ring,
                |event| {
                    woken.set(woken.get() + i32::from(matches!(event, Event::Woken)));
                    Flow::Continue
                },
                || woken.get() >= round,
            );
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_paused_ring_hands_over_nothing_and_loses_nothing() {
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        let got = RefCell::new(Vec::new());
        let take = |event: Event<'_>| {
            let Event::Datagram(datagram) = event else {
                return Flow::Continue;
            };
            got.borrow_mut().push(number(datagram.data));
            // Every hundredth asks for a pause from within: nothing may follow it.
            if got.borrow().len() % 100 == 0 {
                Flow::Pause
            } else {
                Flow::Continue
            }
        };
        for n in 0..1000u32 {
            sender.send(&payload(n, 600)).unwrap();
        }
        for rounds in 1..=10 {
            turn(&mut ring, take, || got.borrow().len() >= rounds * 100);
            assert!(ring.is_paused());
            turn_for(&mut ring, Duration::from_millis(20), take);
            assert_eq!(got.borrow().len(), rounds * 100, "{name}");
            ring.resume();
        }
        assert_eq!(*got.borrow(), (0..1000).collect::<Vec<u32>>());
    }
}

#[test]
fn stopping_hands_over_what_was_taken_and_takes_no_more() {
    for (name, mut ring) in every_ring() {
        let address = listen(&mut ring);
        let sender = sender_to(address);
        let got = Cell::new(0u32);
        let count = |event: Event<'_>| {
            got.set(got.get() + u32::from(matches!(event, Event::Datagram(_))));
            Flow::Continue
        };
        for n in 0..100u32 {
            sender.send(&payload(n, 100)).unwrap();
        }
        ring.wait(0, 1000).unwrap();
        ring.stop_receiving();
        let deadline = Instant::now() + Duration::from_secs(5);
        while ring.is_receiving() {
            assert!(Instant::now() < deadline);
            ring.wait(0, 1000).unwrap();
            ring.drain(usize::MAX, count).unwrap();
        }
        let at_stop = got.get();
        sender.send(b"too late").unwrap();
        turn_for(&mut ring, Duration::from_millis(20), count);
        assert_eq!(got.get(), at_stop, "{name}");
    }
}

#[test]
fn progress_is_told_per_socket_and_per_wait() {
    let (mut ring, _waker) = ring(BufferMode::Auto);
    let quiet = listen(&mut ring);
    let busy = listen(&mut ring);
    assert_ne!(quiet, busy);
    sender_to(busy).send(&[7; 100]).unwrap();
    let got = Cell::new(false);
    turn(
        &mut ring,
        |event| {
            got.set(got.get() || matches!(event, Event::Datagram(_)));
            Flow::Continue
        },
        || got.get(),
    );
    assert!(!ring.is_caught_up(1) && ring.is_caught_up(0) && !ring.is_caught_up(9));
    ring.wait(0, 1000).unwrap();
    assert!(ring.is_caught_up(1));
    let counters = ring.socket_counters(1);
    assert_eq!(
        (counters.datagrams, counters.payload_bytes, counters.armed),
        (1, 100, true)
    );
}

#[test]
fn a_wait_is_bounded_and_batches() {
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        let start = Instant::now();
        ring.wait(1_000, 30_000).unwrap();
        ring.drain(usize::MAX, |_| Flow::Continue).unwrap();
        let idle = start.elapsed();
        assert!(
            idle >= Duration::from_millis(25) && idle < Duration::from_secs(2),
            "{name}: idle for {idle:?}"
        );
        sender.send(&[1; 10]).unwrap();
        let start = Instant::now();
        ring.wait(2_000, 5_000_000).unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{name}: one datagram ends a wait after min_wait"
        );
    }
}

#[test]
fn received_data_is_wiped_when_asked_and_receiving_goes_on() {
    const SECRET: &[u8] = b"plaintext that must not stay behind";
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        let got = Cell::new(0u32);
        for round in 1..=40 {
            for n in 0..5u32 {
                let mut bytes = payload(n, 1000);
                bytes[300..300 + SECRET.len()].copy_from_slice(SECRET);
                sender.send(&bytes).unwrap();
            }
            turn(
                &mut ring,
                |event| {
                    let Event::Datagram(datagram) = event else {
                        return Flow::Continue;
                    };
                    assert_eq!(&datagram.data[300..300 + SECRET.len()], SECRET, "{name}");
                    got.set(got.get() + 1);
                    Flow::Continue
                },
                || got.get() == round * 5,
            );
            if round % 10 == 0 {
                assert!(ring.wipe_idle() && !ring.still_holds(SECRET), "{name}");
            }
        }
    }
}

#[test]
fn a_ring_dropped_at_work_leaves_at_once() {
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        for n in 0..100u32 {
            sender.send(&payload(n, 1000)).unwrap();
        }
        ring.wait(0, 1000).unwrap();
        let start = Instant::now();
        drop(ring);
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{name}: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_live_but_quiet_socket_is_left_alone_by_the_liveness_check() {
    let (mut ring, _waker) = ring(BufferMode::Auto);
    let sender = sender_to(listen(&mut ring));
    let got = Cell::new(0u32);
    let count = |event: Event<'_>| {
        got.set(got.get() + u32::from(matches!(event, Event::Datagram(_))));
        Flow::Continue
    };
    for round in 1..=5 {
        // Data waits in the socket while the ring is not entered: the check cancels, and the receive starts anew.
        sender.send(&payload(round, 100)).unwrap();
        ring.check_liveness().unwrap();
        ring.check_liveness().unwrap();
        turn(&mut ring, count, || got.get() == round);
    }
    assert_eq!(ring.counters().malformed, 0);
}

#[test]
fn two_shards_on_two_threads_each_get_their_own_streams_in_order() {
    const PER_STREAM: u32 = 1000;
    const STREAMS: u32 = 16;
    let group = bind_group(([127, 0, 0, 1], 0).into(), 2, &SocketOptions::default()).unwrap();
    let sender = sender_to(group.local);
    let received = Arc::new(AtomicU32::new(0));
    let shards: Vec<_> = group
        .sockets
        .into_iter()
        .enumerate()
        .map(|(shard, socket)| {
            let received = Arc::clone(&received);
            std::thread::spawn(move || {
                let (mut ring, _waker) = ring(BufferMode::Auto);
                ring.add_socket(socket);
                ring.resume();
                let mut next = [0u32; STREAMS as usize];
                let take = |event: Event<'_>| {
                    let Event::Datagram(datagram) = event else {
                        return Flow::Continue;
                    };
                    for packet in datagram.packets() {
                        let ssrc = steer::ssrc_of(packet).unwrap();
                        assert_eq!(steer::steer(ssrc, 2), shard);
                        assert_eq!(number(&packet[12..]), next[ssrc as usize], "stream {ssrc}");
                        next[ssrc as usize] += 1;
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                    Flow::Continue
                };
                turn(&mut ring, take, || {
                    received.load(Ordering::Relaxed) == PER_STREAM * STREAMS
                });
            })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut sent = 0;
    for n in 0..PER_STREAM {
        for ssrc in 0..STREAMS {
            while sent >= received.load(Ordering::Relaxed) + 500 {
                assert!(Instant::now() < deadline);
                std::thread::yield_now();
            }
            let mut packet = vec![0x80, 96, 0, 0, 0, 0, 0, 0];
            packet.extend(ssrc.to_be_bytes());
            packet.extend(n.to_be_bytes());
            sender.send(&packet).unwrap();
            sent += 1;
        }
    }
    for shard in shards {
        shard.join().unwrap();
    }
}

#[test]
fn what_still_waits_is_not_wiped_and_said_to_be_left() {
    for (name, mut ring) in every_ring() {
        let sender = sender_to(listen(&mut ring));
        for n in 0..20u32 {
            sender.send(&payload(n, 500)).unwrap();
        }
        ring.wait(0, 1000).unwrap();
        ring.pause();
        turn_for(&mut ring, Duration::from_millis(10), |_| Flow::Continue);
        assert!(!ring.wipe_idle(), "{name}");
        ring.resume();
        let next = Cell::new(0);
        let take = |event: Event<'_>| {
            if let Event::Datagram(datagram) = event {
                assert_eq!(datagram.data, payload(next.get(), 500), "{name}");
                next.set(next.get() + 1);
            }
            Flow::Continue
        };
        turn(&mut ring, take, || next.get() == 20);
        assert!(ring.wipe_idle(), "{name}");
    }
}
