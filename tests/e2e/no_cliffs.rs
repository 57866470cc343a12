//! No cliffs: an engine that gets less of its core than the load needs, and a disk that is slow for a while, cost packets that are counted,
//! all of them, and only while it lasts; SIGTERM is obeyed meanwhile.
//!
//! Overload is made by stopping the engine for most of the time (SIGSTOP, SIGCONT), as a host does that has given its core away. Packets go one by
//! one: of single datagrams the kernel's drop counter counts packets, and sent = received + dropped by the kernel must hold to the packet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harborseal_tests::harness::disk::SmallDisk;
use harborseal_tests::harness::engine::{BOUND, assert_books_close, count, dropped, dropped_in_all};
use harborseal_tests::harness::net::{receive_queue, wait_until_taken};
use harborseal_tests::harness::slow::SlowDisk;
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, root};
use nix::sys::signal::Signal;

const SSRC: u32 = 0x0C11_FF00;
/// Of each tenth of a second the engine gets so much.
const RUNS: Duration = Duration::from_millis(5);
const STANDS: Duration = Duration::from_millis(95);
/// More than any receive buffer has room for, in packets.
const LOST_ENOUGH: u64 = 5_000;

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", SSRC));
    lab
}

/// Runs `work` while the engine gets a twentieth of its time.
fn starved<T>(engine: &Engine, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                engine.signal(Signal::SIGSTOP);
                std::thread::sleep(STANDS);
                engine.signal(Signal::SIGCONT);
                std::thread::sleep(RUNS);
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    })
}

/// Sends until the kernel has dropped enough that nobody could think of chance.
fn overload(lab: &Lab, sender: &mut Sender, stream: &mut Stream) {
    let until = Instant::now() + BOUND;
    let before = receive_queue(lab.port).1;
    while receive_queue(lab.port).1 < before + LOST_ENOUGH {
        assert!(Instant::now() < until, "this engine cannot be overloaded");
        sender.send_all(&stream.packets(500));
    }
}

#[test]
fn overload_costs_counted_packets_and_ends_with_its_cause() {
    let lab = lab();
    let engine = lab.start();
    let mut stream = Stream::new(SSRC);
    let mut camera = Sender::from("127.0.0.1", lab.address()).regardless();
    starved(&engine, || overload(&lab, &mut camera, &mut stream));
    // What was waiting is taken, and from then on nothing is lost any more.
    wait_until_taken(lab.port);
    let (_, dropped_by_kernel) = receive_queue(lab.port);
    let mut calm = Sender::from("127.0.0.1", lab.address());
    calm.send_all(&stream.packets(20_000));
    wait_until_taken(lab.port);
    assert_eq!(
        receive_queue(lab.port).1,
        dropped_by_kernel,
        "packets are lost after the load has fallen"
    );
    let sent = camera.sent + calm.sent;
    let last = lab.settle_and_stop(engine);
    assert_eq!(
        sent,
        count(&last, "received") + dropped_by_kernel,
        "sent = received + dropped by the kernel: {last}"
    );
    assert_eq!(count(&last, "kernel_drop_batches"), dropped_by_kernel, "{last}");
    let stored = lab.read_back("alice", "front-door").len() as u64;
    assert_eq!(stored, count(&last, "stored"));
    lab.verify("alice");
}

#[test]
fn sigterm_is_obeyed_in_the_middle_of_overload() {
    let lab = lab();
    let engine = lab.start();
    let mut stream = Stream::new(SSRC);
    let mut camera = Sender::from("127.0.0.1", lab.address()).regardless();
    starved(&engine, || overload(&lab, &mut camera, &mut stream));
    let over = AtomicBool::new(false);
    let last = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                camera.send_all(&stream.packets(500));
            }
        });
        // Asserts a clean end within a bound, and that the books close.
        let last = engine.stop();
        over.store(true, Ordering::Relaxed);
        last
    });
    let stored = lab.read_back("alice", "front-door").len() as u64;
    assert_eq!(stored, count(&last, "stored"), "{last}");
    assert!(stored > 0, "{last}");
    lab.verify("alice");
}

#[test]
fn a_slow_disk_costs_counted_packets_and_only_while_it_is_slow() {
    let name = "no_cliffs::a_slow_disk_costs_counted_packets_and_only_while_it_is_slow";
    if !root::have_root(name, "mounting and slowing a file system takes root") {
        return;
    }
    let mut lab = lab();
    let disk = SmallDisk::mounted_in(&lab, 1024);
    lab.data_dir(&disk.folder.join("data"));
    // Little memory, so that a slow disk is felt soon.
    lab.section("memory", "limit = \"80MiB\"\nallow_unlocked = true");
    let engine = lab.start();
    let slow = match SlowDisk::of(engine.pid(), &disk.folder) {
        Ok(slow) => slow,
        Err(why) => return root::not_run(name, &why),
    };
    let mut stream = Stream::new(SSRC).payload(4000);
    let mut camera = Sender::from("127.0.0.1", lab.address()).regardless();
    lab.send_until(&engine, &mut camera, &mut stream, "stored packets", |p| {
        count(p, "stored") > 2000
    });
    slow.limit(Some(64 << 10));
    lab.send_until(
        &engine,
        &mut camera,
        &mut stream,
        "packets dropped for the slow disk",
        |p| dropped(p, "pool_exhausted") > 100 || receive_queue(lab.port).1 > 100,
    );
    slow.limit(None);
    let before = engine.newest("stored");
    lab.send_until(&engine, &mut camera, &mut stream, "recording again", |p| {
        count(p, "stored") > before + 10_000
    });
    // By now the disk is what it was, and the queue is worked off: the same load costs nothing.
    wait_until_taken(lab.port);
    let (_, dropped_by_kernel) = receive_queue(lab.port);
    let seen = engine.events().len();
    let figures = engine.wait_from(seen, BOUND, "figures", |event| {
        (event["event"] == "progress").then(|| event.clone())
    });
    let dropped_so_far = dropped_in_all(&figures);
    let before = engine.newest("stored");
    lab.send_until(&engine, &mut camera, &mut stream, "recording on", |p| {
        count(p, "stored") > before + 5_000
    });
    let sent = camera.sent;
    wait_until_taken(lab.port);
    assert_eq!(
        receive_queue(lab.port).1,
        dropped_by_kernel,
        "lost after the disk was well"
    );
    let last = engine.stop();
    drop(slow);
    assert_books_close(&last);
    assert_eq!(
        dropped_in_all(&last),
        dropped_so_far,
        "dropped after the disk was well"
    );
    assert_eq!(sent, count(&last, "received") + dropped_by_kernel, "{last}");
    lab.verify("alice");
}
