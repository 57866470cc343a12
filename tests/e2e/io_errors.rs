//! The n-th request to the file system fails, for every n of a short run: creating, allocating, writing, syncing, looking up, deleting.
//! Through the real kernel: the engine's own file system is a FUSE server of the test's. Whatever fails, the engine lives on or ends with a clear
//! error, its books close, and what it called stored comes back.
//!
//! With `HARBORSEAL_IO_ERRORS=all` (`tests/io-errors`) every n fails in each of the ways; else each n in one of them, in turn.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use harborseal_tests::harness::engine::{assert_books_close, count, dropped_in_all};
use harborseal_tests::harness::faulty::{Fault, Faulty};
use harborseal_tests::harness::packets::rtp_only;
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, harborseal, root};
use nix::errno::Errno;

/// Enough for two segments of the smallest size there is.
const PACKETS: usize = 700;
const PAYLOAD_BYTES: usize = 4000;
/// Ways to fail: for how many requests in a row, and why.
const WAYS: [(u64, Errno); 3] = [(1, Errno::EIO), (1, Errno::ENOSPC), (12, Errno::EIO)];
/// Engines at a time. They mostly wait.
const AT_ONCE: u64 = 4;
/// A short run makes fewer requests than this.
const TOO_MANY: u64 = 2000;

#[test]
fn the_nth_request_to_the_file_system_fails_for_every_n() {
    let name = "io_errors::the_nth_request_to_the_file_system_fails_for_every_n";
    if !root::have_root(name, "mounting a file system takes root") {
        return;
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        return root::not_run(name, &format!("/dev/fuse: {error}"));
    }
    let all_ways = std::env::var("HARBORSEAL_IO_ERRORS").is_ok_and(|value| value == "all");
    let next = AtomicU64::new(1);
    // By what was asked: runs in which it failed, and the packets that this cost.
    let costs: Mutex<BTreeMap<String, (u64, u64)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut lab = lab();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    assert!(n < TOO_MANY, "a short run that never ends");
                    let ways = WAYS.iter().enumerate();
                    let ways = ways.filter(|(way, _)| all_ways || n % WAYS.len() as u64 == *way as u64);
                    let mut any = false;
                    for (_, &(count, errno)) in ways {
                        let fault = Fault {
                            first: n,
                            count,
                            errno,
                        };
                        let Some((asked, lost)) = run(&mut lab, fault) else {
                            continue;
                        };
                        any = true;
                        let mut costs = costs.lock().expect("no holder panics");
                        let cost = costs.entry(asked).or_default();
                        *cost = (cost.0 + 1, cost.1 + lost);
                    }
                    if !any {
                        break;
                    }
                }
            });
        }
    });
    let costs = costs.into_inner().expect("no holder panics");
    for (asked, (runs, lost)) in &costs {
        println!("{asked}: failed first in {runs} runs, {lost} packets dropped and counted");
    }
    let fired: u64 = costs.values().map(|(runs, _)| runs).sum();
    println!("{fired} runs with failing requests");
    assert!(fired > 60, "a run makes more requests than {fired}");
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    std::fs::create_dir(lab.path("disk")).expect("the laboratory's folder can be written");
    lab.data_dir(Path::new("disk/data"));
    lab.section("segment", "max_age = \"60s\"\nmax_bytes = \"2MiB\"");
    lab.section("chunk", "deadline = \"50ms\"");
    lab.section("memory", "limit = \"80MiB\"\nallow_unlocked = true");
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    lab
}

/// One short run with one fault: what was asked where it fired first, and the packets it cost; `None` if the run was over before the fault's turn came.
fn run(lab: &mut Lab, fault: Fault) -> Option<(String, u64)> {
    let disk = Faulty::mount(&lab.path("disk"), Some(fault));
    lab.write_config();
    let mut engine = Engine::spawn(&lab.config());
    let mut fired = None;
    if !engine.becomes_ready() {
        let code = engine.end();
        let said = engine.lines().join("\n");
        fired = disk.heal();
        let clear = code.is_some_and(|code| code != 0) && said.contains("harborseal: ");
        assert!(
            clear && !said.contains("panicked"),
            "{fault:?}, {fired:?}: exit {code:?}\n{said}"
        );
        engine = lab.start();
    }
    let mut told = Told(format!("{fault:?}"));
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let sent = Stream::new(1).payload(PAYLOAD_BYTES).packets(PACKETS);
    sender.send_all(&sent);
    let last = lab.settle_and_stop(engine);
    fired = fired.or(disk.heal());
    let at = format!("{fault:?} at {fired:?}: {last}");
    told.0.clone_from(&at);
    assert_books_close(&last);
    assert_eq!(count(&last, "received"), PACKETS as u64, "{at}");
    // The next start closes whatever a failure left open.
    lab.start().stop();
    harborseal(["recover", text(&lab.data())]).ok();
    lab.verify("alice");
    let back = rtp_only(lab.read_back("alice", "front-door"));
    assert!(
        back.len() as u64 >= count(&last, "stored"),
        "{at}: {} packets came back",
        back.len()
    );
    let mut rest = sent.iter();
    assert!(
        back.iter().all(|packet| rest.any(|sent| sent == packet)),
        "{at}: a packet that was not sent, or not in this place"
    );
    fired.map(|asked| (asked, dropped_in_all(&last)))
}

/// Says where a failure happened that something else reports.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was with {}", self.0);
        }
    }
}
