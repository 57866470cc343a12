//! What runs in the guest: starts the engine, sends to it, and writes what the engine says onto the disk, behind the
//! file system, the moment it is said. The host reads it there.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harborseal_tests::harness::{Engine, Sender, Stream, net};
use harborseal_tests::power_cut::{MARK_BYTES, MARKS_AT};
use serde_json::{Value, json};

/// The disk's part behind the file system, written past every cache, never flushed from here: a flush of ours would make
/// the engine's writes durable before the engine asked for it.
struct Marks {
    disk: File,
    at: u64,
    /// Twice a mark: somewhere in it a mark is aligned, as direct writes must be.
    buffer: Vec<u8>,
}

impl Marks {
    fn open() -> Marks {
        let direct = nix::fcntl::OFlag::O_DIRECT.bits();
        let disk = File::options()
            .write(true)
            .custom_flags(direct)
            .open("/dev/vda")
            .expect("the guest has a disk");
        Marks {
            disk,
            at: MARKS_AT,
            buffer: vec![0; 2 * MARK_BYTES],
        }
    }

    /// Writes as many of the events as one mark holds; returns how many those were.
    fn write(&mut self, events: &[Value]) -> usize {
        let start = self.buffer.as_ptr().align_offset(MARK_BYTES);
        let mark = &mut self.buffer[start..start + MARK_BYTES];
        mark.fill(0);
        let (mut len, mut taken) = (0, 0);
        for event in events {
            let line = format!("{event}\n");
            // Figures with all their streams do not fit, and are not what is claimed of the disk.
            if line.len() <= MARK_BYTES {
                if len + line.len() > MARK_BYTES {
                    break;
                }
                mark[len..len + line.len()].copy_from_slice(line.as_bytes());
                len += line.len();
            }
            taken += 1;
        }
        self.disk
            .write_all_at(mark, self.at)
            .expect("the disk takes a mark");
        self.at += MARK_BYTES as u64;
        taken
    }

    /// Writes all that the engine said after its first `seen` events; returns how many it has said.
    fn relay(&mut self, engine: &Engine, mut seen: usize) -> usize {
        let events = engine.events();
        while seen < events.len() {
            seen += self.write(&events[seen..]);
        }
        seen
    }
}

fn main() {
    let plan = std::fs::read("/etc/plan.json").expect("the host put the plan there");
    let plan: Value = serde_json::from_slice(&plan).expect("the plan is JSON");
    let number = |value: &Value| value.as_u64().expect("a number");
    let port = number(&plan["port"]) as u16;
    let mut streams: Vec<Stream> = (1..=number(&plan["streams"]) as u32).map(Stream::new).collect();
    let mut marks = Marks::open();
    for life in plan["lives"].as_array().expect("a list") {
        let sent = live(
            &mut marks,
            &mut streams,
            port,
            Duration::from_millis(number(&life[0])),
            life[1] == true,
        );
        marks.write(&[json!({ "event": "sent", "packets": sent })]);
    }
}

/// Commits a life has at least.
const LEAST_COMMITS: usize = 8;

fn commits(engine: &Engine) -> usize {
    let events = engine.events();
    events.iter().filter(|event| event["event"] == "durable").count()
}

/// One life of the engine, under load. Returns how many packets of each stream were sent.
fn live(
    marks: &mut Marks,
    streams: &mut [Stream],
    port: u16,
    lasting: Duration,
    killed: bool,
) -> BTreeMap<u32, u64> {
    let mut command = Command::new("/bin/harborseal");
    command.args(["run", "--log", "json", "--config", "/etc/engine.toml"]);
    let engine = Engine::spawn_command(command);
    engine.wait_for("ready", |event| (event["event"] == "ready").then_some(()));
    let until = Instant::now() + lasting;
    let stop = AtomicBool::new(false);
    let mut seen = 0;
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_until(&stop, port, streams));
        // However slow the guest is: a life without commits would show nothing.
        while Instant::now() < until || commits(&engine) < LEAST_COMMITS {
            seen = marks.relay(&engine, seen);
            engine.wait_from(
                seen,
                Duration::from_secs(60),
                "word from the engine",
                |_| Some(()),
            );
        }
        stop.store(true, Ordering::Relaxed);
        sending.join().expect("the sender does not panic")
    });
    if killed {
        let events = engine.kill();
        marks.write(&events[seen..]);
    } else {
        net::wait_until_taken(port);
        let last = engine.stop();
        println!("final: received {}, stored {}", last["received"], last["stored"]);
    }
    sent
}

fn send_until(stop: &AtomicBool, port: u16, streams: &mut [Stream]) -> BTreeMap<u32, u64> {
    let mut sender = Sender::from("127.0.0.1", ([127, 0, 0, 1], port).into());
    let mut sent = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for stream in streams.iter_mut() {
            sender.send(&stream.packet());
            *sent.entry(stream.ssrc).or_default() += 1;
        }
        std::thread::sleep(Duration::from_millis(4));
    }
    sent
}
