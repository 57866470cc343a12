//! A full disk, for real: a small ext4 on a loop device. The engine lives, counts what it could not keep, and records
//! again when there is room: when a stranger's file goes, and by itself when retention has made some.

use std::path::{Path, PathBuf};

use harborseal_tests::harness::engine::{BOUND, assert_books_close, count, dropped, dropped_in_all};
use harborseal_tests::harness::tools::{text, tool};
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, root};

const MIB: u64 = 1 << 20;

/// A mounted file system of its own; unmounted when dropped.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    fn mounted_in(lab: &Lab, mib: u64) -> SmallDisk {
        let (image, folder) = (lab.path("disk.img"), lab.path("disk"));
        let file = std::fs::File::create(&image).expect("the laboratory's folder can be written");
        file.set_len(mib * MIB).expect("a sparse file");
        // No blocks reserved for root: the engine must meet the end of the disk, not root's share.
        tool("mkfs.ext4", &["-q", "-m", "0", text(&image)]);
        std::fs::create_dir(&folder).expect("a mount point");
        tool("mount", &["-o", "loop", text(&image), text(&folder)]);
        SmallDisk { folder }
    }

    /// Fills what is free with a file that is none of ours, while the engine takes its own share beside it.
    fn fill(&self) -> PathBuf {
        use nix::fcntl::{FallocateFlags, fallocate};
        let ballast = self.folder.join("ballast");
        let file = std::fs::File::create(&ballast).expect("the disk can be written");
        let (mut end, mut piece) = (0, free_bytes(&self.folder) as i64);
        while piece >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), end, piece) {
                Ok(()) => end += piece,
                Err(_) => piece /= 2,
            }
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may still hold files open, and its folder must go all the same.
        std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.folder)
            .status()
            .ok();
    }
}

fn free_bytes(folder: &Path) -> u64 {
    let about = nix::sys::statvfs::statvfs(folder).expect("a mounted file system");
    about.blocks_available() * about.fragment_size()
}

/// Sends until the engine's figures satisfy `enough`, at 8 MB/s and more: the disk fills within seconds, whatever the
/// machine.
#[track_caller]
fn send_until(
    lab: &Lab,
    engine: &Engine,
    stream: &mut Stream,
    what: &str,
    enough: impl Fn(&serde_json::Value) -> bool,
) {
    let mut sender = Sender::from("127.0.0.1", lab.address()).regardless();
    let until = std::time::Instant::now() + BOUND;
    let seen = engine.events().len();
    while !engine.events()[seen..]
        .iter()
        .any(|event| event["event"] == "progress" && enough(event))
    {
        assert!(
            std::time::Instant::now() < until,
            "no {what}: {:#?}",
            engine.events().last()
        );
        sender.send_all(&stream.packets(40));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn newest(engine: &Engine, key: &str) -> u64 {
    let events = engine.events();
    events
        .iter()
        .rfind(|event| event["event"] == "progress")
        .map_or(0, |event| count(event, key))
}

fn lab_on_small_disk(retention: &str) -> (SmallDisk, Lab) {
    let mut lab = Lab::new();
    let disk = SmallDisk::mounted_in(&lab, 96);
    lab.data_dir(&disk.folder.join("data"));
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"8MiB\"");
    lab.section("retention", retention);
    lab.customer("alice");
    lab.camera(Camera::new("front-door", "alice", 1));
    (disk, lab)
}

#[test]
fn a_full_disk_costs_counted_packets_and_recording_resumes_with_room() {
    let name = "disk_full::a_full_disk_costs_counted_packets_and_recording_resumes_with_room";
    if !root::have_root(name, "mounting a file system takes root") {
        return;
    }
    let (disk, lab) = lab_on_small_disk("");
    let engine = lab.start();
    let mut stream = Stream::new(1);
    send_until(&lab, &engine, &mut stream, "stored packets", |p| {
        count(p, "stored") > 500
    });
    let ballast = disk.fill();
    send_until(
        &lab,
        &engine,
        &mut stream,
        "packets dropped for the full disk",
        |p| dropped(p, "disk_full") > 100,
    );
    std::fs::remove_file(ballast).expect("the ballast is there");
    let before = newest(&engine, "stored");
    send_until(&lab, &engine, &mut stream, "recording again", |p| {
        count(p, "stored") > before + 500
    });
    let last = lab.settle_and_stop(engine);
    assert_books_close(&last);
    assert_eq!(
        lab.read_back("alice", "front-door").len() as u64,
        count(&last, "stored")
    );
    lab.verify("alice");
}

#[test]
fn retention_alone_brings_a_full_disk_back_to_recording() {
    let name = "disk_full::retention_alone_brings_a_full_disk_back_to_recording";
    if !root::have_root(name, "mounting a file system takes root") {
        return;
    }
    // Segments live six seconds, then their room is free again; a foreign file has taken the rest. Little memory: what
    // the pool can hold must be full before.
    let (disk, mut lab) = lab_on_small_disk("max_age = \"6s\"");
    lab.section("memory", "limit = \"80MiB\"\nallow_unlocked = true");
    let engine = lab.start();
    let mut stream = Stream::new(1).payload(4000);
    send_until(&lab, &engine, &mut stream, "stored packets", |p| {
        count(p, "stored") > 2000
    });
    disk.fill();
    send_until(
        &lab,
        &engine,
        &mut stream,
        "packets dropped for the full disk",
        |p| dropped(p, "disk_full") > 0 && dropped_in_all(p) > 100,
    );
    let before = newest(&engine, "stored");
    send_until(&lab, &engine, &mut stream, "recording again", |p| {
        count(p, "stored") > before + 500
    });
    let last = lab.settle_and_stop(engine);
    assert_books_close(&last);
    lab.verify("alice");
}

#[test]
fn min_free_keeps_a_small_disk_from_ever_being_full() {
    let name = "disk_full::min_free_keeps_a_small_disk_from_ever_being_full";
    if !root::have_root(name, "mounting a file system takes root") {
        return;
    }
    let (disk, lab) = lab_on_small_disk("min_free = \"32MiB\"");
    let engine = lab.start();
    let mut stream = Stream::new(1).payload(4000);
    // Twice what the disk can hold.
    send_until(&lab, &engine, &mut stream, "200 MB", |p| {
        count(p, "stored") > 48_000
    });
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["received"], last["stored"], "{last}");
    assert!(free_bytes(&disk.folder) > 0);
    let report = lab.verify("alice");
    assert_eq!(
        report["missing"].as_u64().unwrap_or(0),
        0,
        "deleted by policy is not missing: {report}"
    );
}
