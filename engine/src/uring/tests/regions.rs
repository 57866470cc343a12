//! Regions and slots.

use super::memory::Pages;
use super::*;

#[test]
fn a_region_is_aligned_zeroed_writable_and_wiped() {
    for (huge, align) in [(Huge::Auto, 2 << 20), (Huge::None, 4096)] {
        let options = RegionOptions {
            bytes: (3 << 20) + 5,
            lock: false,
            huge,
            wipe_on_drop: true,
        };
        let mut region = Region::new(options).unwrap();
        assert!(region.len() >= options.bytes && region.len().is_multiple_of(4096));
        assert_eq!(region.bytes().as_ptr().addr() % align, 0);
        assert!(region.bytes().iter().all(|&byte| byte == 0));
        region.bytes_mut().fill(0xEE);
        region.wipe();
        assert!(region.bytes().iter().all(|&byte| byte == 0));
        let report = region.report();
        assert!(report.undumpable && !report.locked && report.lock_errno.is_none());
        assert_eq!(report.pages == Pages::Small, huge == Huge::None);
    }
}

#[test]
fn a_region_says_whether_it_is_locked() {
    let locked_before = sys::memory_use().unwrap().locked_bytes;
    let region = Region::new(RegionOptions {
        huge: Huge::None,
        ..RegionOptions::plaintext(1 << 20)
    })
    .unwrap();
    let report = region.report();
    // 1 MiB fits the default limit of 8 MiB, unless other tests hold it.
    if report.locked {
        assert!(sys::memory_use().unwrap().locked_bytes > 0, "{locked_before}");
    } else {
        assert!(report.lock_errno.is_some());
    }
}

#[test]
fn wiping_clears_every_byte_and_no_other() {
    for (start, len) in [(0, 0), (1, 1), (3, 5), (7, 9), (1, 64), (5, 100), (8, 16)] {
        let mut bytes = [0xFF; 128];
        memory::wipe(&mut bytes[start..start + len]);
        for (i, byte) in bytes.iter().enumerate() {
            assert_eq!(
                *byte == 0,
                (start..start + len).contains(&i),
                "{start}+{len} at {i}"
            );
        }
    }
}

#[test]
fn slots_run_out_come_back_and_come_back_wiped() {
    let arena = SlotArena::new(3, 100, false).unwrap();
    assert_eq!((arena.slot_bytes(), arena.free()), (128, 3));
    let slots: Vec<Slot> = (0..3u8).map(|n| arena.put(&[n; 100]).unwrap()).collect();
    assert!(arena.take().is_none());
    for (n, slot) in slots.iter().enumerate() {
        assert_eq!(slot.bytes(), [n as u8; 100]);
    }
    drop(slots);
    assert!(arena.put(&[0; 129]).is_none());
    assert_eq!(arena.free(), 3);
    for _ in 0..3 {
        let mut slot = arena.take().unwrap();
        assert!(slot.set_len(128) && !slot.set_len(129));
        assert_eq!(slot.bytes(), [0; 128]);
    }
}

#[test]
fn slots_carry_packets_between_threads_without_mixing_them() {
    const PACKETS: u32 = 50_000;
    let arena = SlotArena::new(64, 256, false).unwrap();
    let queue = std::sync::Arc::new(crossbeam::queue::ArrayQueue::<Slot>::new(64));
    let (giver, taker) = (arena.clone(), std::sync::Arc::clone(&queue));
    let deadline = Instant::now() + Duration::from_secs(20);
    let thread = std::thread::spawn(move || {
        for n in 0..PACKETS {
            let mut slot = loop {
                assert!(Instant::now() < deadline);
                match giver.put(&[n as u8; 200][..1 + n as usize % 200]) {
                    Some(slot) => break slot,
                    None => std::thread::yield_now(),
                }
            };
            while let Err(back) = queue.push(slot) {
                slot = back;
                std::thread::yield_now();
            }
        }
    });
    for n in 0..PACKETS {
        let slot = loop {
            assert!(Instant::now() < deadline);
            match taker.pop() {
                Some(slot) => break slot,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(slot.bytes(), &[n as u8; 200][..1 + n as usize % 200]);
    }
    thread.join().unwrap();
    assert_eq!(arena.free(), 64);
}
