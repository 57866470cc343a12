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

#[test]
fn file_and_memory_outlive_their_owners_while_a_write_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let file = Arc::new(sys::create_direct(&path).unwrap().file);
    let mut region = Region::new(RegionOptions {
        lock: false,
        ..RegionOptions::plaintext(64 << 10)
    })
    .unwrap();
    region.bytes_mut().fill(0x5A);
    let (mut ring, _waker) = ring(BufferMode::Auto);
    ring.write(
        &file,
        0,
        &region,
        [Span {
            offset: 0,
            len: 64 << 10,
        }],
        1,
    )
    .unwrap();
    drop((file, region));
    drop(ring);
    assert_eq!(std::fs::read(&path).unwrap(), [0x5A; 64 << 10]);
}

#[test]
fn more_operations_than_fit_are_refused_and_fit_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = Arc::new(sys::create_direct(&folder.path().join("log")).unwrap().file);
    let region = Region::new(RegionOptions {
        lock: false,
        ..RegionOptions::plaintext(4096)
    })
    .unwrap();
    let waker = Waker::new().unwrap();
    // More flights than submission entries: the ring submits by itself when its queue is full.
    let mut ring = Ring::new(
        &RingOptions {
            entries: 2,
            flights: 8,
            ..options(BufferMode::Auto)
        },
        &waker,
    )
    .unwrap();
    for token in 0..8 {
        ring.write(
            &file,
            token * 4096,
            &region,
            [Span { offset: 0, len: 4096 }],
            token,
        )
        .unwrap();
    }
    assert!(!ring.has_room() && ring.in_flight() == 8);
    assert_eq!(ring.sync(&file, 9), Err(Busy));
    let written = std::cell::Cell::new(0);
    turn(
        &mut ring,
        |event| {
            written.set(written.get() + i32::from(matches!(event, Event::Written { result: 4096, .. })));
            Flow::Continue
        },
        || written.get() == 8,
    );
    assert!(ring.has_room() && ring.sync(&file, 9).is_ok());
}

#[test]
fn a_failed_write_tells_its_errno() {
    let file = Arc::new(std::fs::File::open("/dev/null").unwrap());
    let region = Region::new(RegionOptions {
        lock: false,
        ..RegionOptions::plaintext(4096)
    })
    .unwrap();
    let (mut ring, _waker) = ring(BufferMode::Auto);
    ring.write(&file, 0, &region, [Span { offset: 0, len: 4096 }], 5)
        .unwrap();
    let result = std::cell::Cell::new(0);
    turn(
        &mut ring,
        |event| {
            if let Event::Written {
                token: 5,
                result: got,
            } = event
            {
                result.set(got);
            }
            Flow::Continue
        },
        || result.get() != 0,
    );
    assert_eq!(result.get(), -libc::EBADF);
}

#[test]
#[should_panic(expected = "lies outside a region")]
fn a_span_outside_its_region_is_a_bug() {
    let folder = tempfile::tempdir().unwrap();
    let file = Arc::new(sys::create_direct(&folder.path().join("log")).unwrap().file);
    let region = Region::new(RegionOptions {
        lock: false,
        ..RegionOptions::plaintext(4096)
    })
    .unwrap();
    let (mut ring, _waker) = ring(BufferMode::Auto);
    let _refused = ring.write(
        &file,
        0,
        &region,
        [Span {
            offset: usize::MAX,
            len: 2,
        }],
        1,
    );
}

#[test]
fn direct_files_are_private_new_and_preallocated() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("segment");
    let opened = sys::create_direct(&path).unwrap();
    sys::preallocate(&opened.file, 1 << 20).unwrap();
    sys::sync_directory(folder.path()).unwrap();
    let meta = opened.file.metadata().unwrap();
    assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (1 << 20, 0o600));
    let again = sys::create_direct(&path).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    assert!(sys::open_direct(&path).is_ok());
    let (free, total) = sys::free_space(folder.path()).unwrap();
    assert!(free > 0 && free <= total);
}
