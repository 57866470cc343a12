//! Writes and syncs through the ring, on a real file with O_DIRECT.

use std::cell::RefCell;
use std::sync::Arc;

use super::*;

#[test]
fn gathered_writes_and_a_sync_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let opened = sys::create_direct(&path).unwrap();
    sys::preallocate(&opened.file, 1 << 20).unwrap();
    let file = Arc::new(opened.file);
    let mut region = Region::new(RegionOptions {
        lock: false,
        ..RegionOptions::plaintext(1 << 20)
    })
    .unwrap();
    for (block, bytes) in region.bytes_mut().chunks_mut(4096).enumerate() {
        bytes.fill((block as u8).wrapping_add(1));
    }
    let (mut ring, _waker) = ring(BufferMode::Auto);
    let span = |block: usize, blocks: usize| Span {
        offset: block * 4096,
        len: blocks * 4096,
    };
    ring.write(&file, 0, &region, [span(9, 1), span(3, 2), span(0, 1)], 77)
        .unwrap();
    ring.write(&file, 4 * 4096, &region, [span(100, 16)], 78).unwrap();
    let events = RefCell::new(Vec::new());
    let note = |event: Event<'_>| {
        match event {
            Event::Written { token, result } | Event::Synced { token, result } => {
                events.borrow_mut().push((token, result))
            }
            _ => {}
        }
        Flow::Continue
    };
    turn(&mut ring, note, || events.borrow().len() == 2);
    ring.sync(&file, 79).unwrap();
    turn(&mut ring, note, || events.borrow().len() == 3);
    let mut seen = events.borrow().clone();
    assert_eq!(seen.pop(), Some((79, 0)));
    seen.sort();
    assert_eq!(seen, [(77, 4 * 4096), (78, 16 * 4096)]);

    let back = std::fs::read(&path).unwrap();
    assert_eq!(back.len(), 1 << 20);
    let firsts: Vec<u8> = back.chunks(4096).take(6).map(|block| block[0]).collect();
    assert_eq!(firsts, [10, 4, 5, 1, 101, 102]);
    assert!(
        back.chunks(4096)
            .take(20)
            .all(|block| block.iter().all(|&byte| byte == block[0]))
    );
    assert!(back[20 * 4096..].iter().all(|&byte| byte == 0));
}
