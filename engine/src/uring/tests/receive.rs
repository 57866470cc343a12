//! Datagrams: whole, in order, with the right batch size, under every kind of buffer ring.

use std::cell::{Cell, RefCell};

use super::*;

const MODES: [BufferMode; 2] = [BufferMode::Auto, BufferMode::Plain];

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

#[test]
fn single_datagrams_of_every_length_arrive_whole_and_in_order() {
    for mode in MODES {
        let (mut ring, _waker) = ring(mode);
        let sender = sender_to(listen(&mut ring));
        let from = sender.local_addr().unwrap();
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
        assert_eq!(*got.borrow(), sent, "{mode:?}");
        assert_eq!(ring.counters().malformed, 0);
    }
}

#[test]
fn a_wake_from_another_thread_is_an_event() {
    let (mut ring, waker) = ring(BufferMode::Auto);
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

#[test]
fn a_paused_ring_hands_over_nothing_and_loses_nothing() {
    for mode in MODES {
        let (mut ring, _waker) = ring(mode);
        let sender = sender_to(listen(&mut ring));
        let got = RefCell::new(Vec::new());
        let take = |event: Event<'_>| {
            let Event::Datagram(datagram) = event else {
                return Flow::Continue;
            };
            got.borrow_mut()
                .push(u32::from_be_bytes(datagram.data[..4].try_into().unwrap()));
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
            assert_eq!(got.borrow().len(), rounds * 100, "{mode:?}");
            ring.resume();
        }
        assert_eq!(*got.borrow(), (0..1000).collect::<Vec<u32>>());
    }
}
