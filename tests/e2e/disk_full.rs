//! A full disk, for real: a small ext4 on a loop device. The engine lives, counts what it could not keep, and records
//! again when there is room: when a stranger's file goes, and by itself when retention has made some.

use harborseal_tests::harness::disk::SmallDisk;
use harborseal_tests::harness::engine::{assert_books_close, count, dropped, dropped_in_all};
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, root};

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
    let mut sender = Sender::from("127.0.0.1", lab.address()).regardless();
    lab.send_until(&engine, &mut sender, &mut stream, "stored packets", |p| {
        count(p, "stored") > 500
    });
    let ballast = disk.fill();
    lab.send_until(
        &engine,
        &mut sender,
        &mut stream,
        "packets dropped for the full disk",
        |p| dropped(p, "disk_full") > 100,
    );
    std::fs::remove_file(ballast).expect("the ballast is there");
    let before = engine.newest("stored");
    lab.send_until(&engine, &mut sender, &mut stream, "recording again", |p| {
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
    let mut sender = Sender::from("127.0.0.1", lab.address()).regardless();
    lab.send_until(&engine, &mut sender, &mut stream, "stored packets", |p| {
        count(p, "stored") > 2000
    });
    disk.fill();
    lab.send_until(
        &engine,
        &mut sender,
        &mut stream,
        "packets dropped for the full disk",
        |p| dropped(p, "disk_full") > 0 && dropped_in_all(p) > 100,
    );
    let before = engine.newest("stored");
    lab.send_until(&engine, &mut sender, &mut stream, "recording again", |p| {
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
    let mut sender = Sender::from("127.0.0.1", lab.address()).regardless();
    // Twice what the disk can hold.
    lab.send_until(&engine, &mut sender, &mut stream, "200 MB", |p| {
        count(p, "stored") > 48_000
    });
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["received"], last["stored"], "{last}");
    assert!(disk.free_bytes() > 0);
    let report = lab.verify("alice");
    assert_eq!(
        report["missing"].as_u64().unwrap_or(0),
        0,
        "deleted by policy is not missing: {report}"
    );
}
