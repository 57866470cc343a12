//! Bad days: what `verify` and `recover` do with torn, damaged, half-recovered and vanished segments, while an engine writes, when they
//! are killed themselves, and where there is no room.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harborseal_tests::harness::cli::binary;
use harborseal_tests::harness::engine::{BOUND, count};
use harborseal_tests::harness::rtp::Random;
use harborseal_tests::harness::tools::{text, tool};
use harborseal_tests::harness::{Camera, Lab, Outcome, Sender, Stream, harborseal, root};
use serde_json::Value;

const DAMAGE: i32 = 1;
const IO: i32 = 4;
const PAGE: u64 = 4096;

fn lab(streams: u32) -> Lab {
    let mut lab = Lab::new();
    lab.customer("alice");
    for ssrc in 1..=streams {
        lab.camera(Camera::new(&format!("camera-{ssrc}"), "alice", ssrc));
    }
    lab
}

/// A segment of `packets` packets, as a killed engine leaves it, or closed. They are sent in four parts, each durable before the next: so
/// that blocks state a floor with chunks below it.
fn recorded(lab: &Lab, packets: usize, killed: bool) -> PathBuf {
    let engine = lab.start();
    let mut stream = Stream::new(1);
    let mut sender = Sender::from("127.0.0.1", lab.address());
    for part in 1..=4 {
        sender.send_all(&stream.packets(packets / 4));
        engine.wait_for_stored((packets / 4 * part) as u64);
    }
    match killed {
        true => drop(engine.kill()),
        false => drop(lab.settle_and_stop(engine)),
    }
    let holds_chunks = |path: &PathBuf| count(&inspect(path), "chunks") > 0;
    let mut segments = lab.segments().into_iter().filter(holds_chunks);
    segments.next().expect("one segment holds what was sent")
}

fn inspect(path: &Path) -> Value {
    harborseal(["inspect", "--json", text(path)]).json()
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("a segment can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("inside the file");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("written");
}

/// The last chunk that `inspect --blocks` lists below `end`: its offset and length.
fn a_chunk_below(path: &Path, end: u64) -> (u64, u64) {
    let listed = harborseal(["inspect", "--blocks", text(path)]).stdout;
    let chunks = listed.lines().filter(|line| line.contains(" CHUNK "));
    let places = chunks.filter_map(|line| {
        let mut words = line
            .split_whitespace()
            .filter_map(|word| word.parse::<u64>().ok());
        Some((words.next()?, words.next()?))
    });
    let mut places: Vec<_> = places.collect();
    places.retain(|(offset, len)| offset + len <= end);
    places.pop().expect("a chunk below the floor")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("listed").file_name();
    entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect()
}

fn kinds(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("a list");
    let grave = findings.iter().filter(|finding| finding["severity"] != "note");
    grave
        .map(|finding| finding["kind"].as_str().expect("a word").to_owned())
        .collect()
}

#[test]
fn verify_beside_a_running_engine_never_errs_either_way() {
    let mut lab = lab(8);
    // Files are made, closed and followed by others all the time.
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"32MiB\"");
    let engine = lab.start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = Sender::from("127.0.0.1", lab.address()).regardless();
            let mut streams: Vec<Stream> = (1..=8).map(Stream::new).collect();
            while !stop.load(Ordering::Relaxed) {
                for stream in &mut streams {
                    sender.send(&stream.packet());
                }
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let stopped = scopeguard(&stop);
        engine.wait_for_stored(1000);
        let (began, mut rounds) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(6) || rounds < 5 {
            lab.verify("alice");
            rounds += 1;
        }
        println!("{rounds} rounds");
        // One bit below the floor of the segment that is being written now, until one is caught open.
        let (path, at) = (0..50)
            .find_map(|_| {
                std::thread::sleep(Duration::from_millis(20));
                let open = lab.segments().into_iter().find_map(|path| {
                    let seen = inspect(&path);
                    let floor = count(&seen, "floor");
                    (seen["being_written"] == true && floor > 64 * PAGE).then_some((path, floor))
                });
                let (path, floor) = open?;
                let (offset, _) = a_chunk_below(&path, floor);
                Some((path, offset))
            })
            .expect("a segment is being written");
        flip(&path, at + 200);
        for _ in 0..3 {
            let report = harborseal(["verify", "--json", text(&lab.data())])
                .exits(DAMAGE)
                .json();
            let hit = report["findings"]
                .as_array()
                .expect("a list")
                .iter()
                .any(|finding| {
                    finding["path"] == text(&path)
                        && finding["kind"] == "broken_block"
                        && count(finding, "offset") == at
                });
            assert!(hit, "{report:#}");
            assert_eq!(count(&report, "damaged"), 1, "{report:#}");
        }
        drop(stopped);
    });
    engine.stop();
}

/// Sets the flag when dropped, also by a failed assertion: the sender's thread must end for the test to end.
fn scopeguard(stop: &AtomicBool) -> impl Drop + '_ {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    Stop(stop)
}

#[test]
fn a_torn_tail_is_closed_in_place_and_only_damage_is_copied() {
    let lab = lab(1);
    let path = recorded(&lab, 3000, true);
    let before = std::fs::read(&path).expect("a segment");
    let seen = inspect(&path);
    let (floor, data_end) = (count(&seen, "floor"), count(&seen, "data_end"));
    let (inode, names_before) = (path.metadata().expect("there").ino(), names(&lab.data()));
    harborseal(["recover", text(&path)]).ok();
    let after = std::fs::read(&path).expect("a segment");
    assert_eq!(path.metadata().expect("there").ino(), inode, "it was not copied");
    assert!(
        after[..data_end as usize] == before[..data_end as usize],
        "no byte of a block changed"
    );
    assert_eq!(names(&lab.data()), names_before);
    assert_eq!(inspect(&path)["state"], "recovered");
    harborseal(["recover", text(&path)]).ok();
    assert!(
        std::fs::read(&path).expect("there") == after,
        "twice is the same as once"
    );

    // The same with a bit flipped below the floor.
    std::fs::write(&path, &before).expect("put back");
    let (offset, len) = a_chunk_below(&path, floor);
    flip(&path, offset + 200);
    let damaged = std::fs::read(&path).expect("a segment");
    let report = harborseal(["recover", "--json", text(&path)])
        .exits(DAMAGE)
        .json();
    let file = &report["files"][0];
    assert_eq!(file["outcome"], "repaired");
    let found = &file["findings"][0];
    assert_eq!(
        (count(found, "offset"), count(found, "len")),
        (offset, len),
        "{report:#}"
    );
    assert_eq!(found["streams"].as_array().map(Vec::len), Some(1), "{report:#}");
    assert!(
        std::fs::read(&path).expect("there") == damaged,
        "the original is kept"
    );
    let copy = PathBuf::from(file["copy"].as_str().expect("a path"));
    harborseal(["verify", text(&copy)]).ok();
    let first = std::fs::read(&copy).expect("a copy");
    harborseal(["recover", text(&path)]).exits(DAMAGE);
    assert!(
        std::fs::read(&copy).expect("there") == first,
        "the copy is made once"
    );
    // A copy that went bad is no reason to say that all is well, nor to write over what somebody may need.
    flip(&copy, offset / 2);
    harborseal(["recover", text(&path)])
        .exits(DAMAGE)
        .complains_about("move that away");
}

/// Runs `recover` on `path` and kills it after `delay`, if it still runs then.
fn recover_killed_after(path: &Path, delay: Duration) {
    let mut command = Command::new(binary());
    command.args(["recover", text(path)]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    std::thread::sleep(delay);
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().expect("it ends");
}

#[test]
fn a_recovery_killed_anywhere_is_done_by_the_next_one() {
    let lab = lab(1);
    let path = recorded(&lab, 12_000, true);
    let torn = std::fs::read(&path).expect("a segment");
    let seen = inspect(&path);
    let (floor, data_end) = (count(&seen, "floor"), count(&seen, "data_end") as usize);
    let (offset, _) = a_chunk_below(&path, floor / 2);
    let folder = path.parent().expect("a day's folder").to_owned();
    let mut random = Random::new(5);
    for damaged in [false, true] {
        let put_back = || {
            std::fs::write(&path, &torn).expect("put back");
            if damaged {
                flip(&path, offset + 200);
            }
        };
        put_back();
        let began = Instant::now();
        harborseal(["recover", text(&path)]);
        let whole_us = began.elapsed().as_micros() as u64;
        let expected = names(&folder);
        for _ in 0..15 {
            put_back();
            for name in names(&folder).iter().filter(|name| name.contains("recovered")) {
                std::fs::remove_file(folder.join(name)).expect("of the round before");
            }
            let original = std::fs::read(&path).expect("there");
            recover_killed_after(&path, Duration::from_micros(random.below(whole_us)));
            let status = if damaged { DAMAGE } else { 0 };
            harborseal(["recover", text(&path)]).exits(status);
            let after = std::fs::read(&path).expect("there");
            assert!(
                after[..data_end] == original[..data_end],
                "blocks stay as they were"
            );
            assert!(
                !damaged || after == original,
                "a damaged original stays as it was"
            );
            assert_eq!(names(&folder), expected, "nothing half-made is left");
            let last = expected.iter().find(|name| name.contains("recovered"));
            let result = last.map_or(path.clone(), |name| folder.join(name));
            harborseal(["verify", text(&result)]).ok();
        }
    }
}

#[test]
fn recovery_without_room_or_leave_to_write_says_so_and_leaves_nothing() {
    let test = "recovery_without_room_or_leave_to_write_says_so_and_leaves_nothing";
    if !root::have_root(test, "it mounts a small file system") {
        return;
    }
    let lab = lab(1);
    let recorded = recorded(&lab, 6000, true);
    let data_end = count(&inspect(&recorded), "data_end");
    let folder = lab.path("small");
    std::fs::create_dir(&folder).expect("a mount point");
    // Room for the segment and a half.
    let size = format!("size={}", data_end * 3 / 2);
    tool("mount", &["-t", "tmpfs", "-o", &size, "small", text(&folder)]);
    let mounted = Mounted(folder.clone());
    let path = folder.join("a.hseal");
    let bytes = std::fs::read(&recorded).expect("a segment");
    std::fs::write(&path, &bytes[..data_end as usize]).expect("it fits");
    let (offset, _) = a_chunk_below(&path, data_end / 2);
    flip(&path, offset + 200);
    harborseal(["recover", text(&path)])
        .exits(DAMAGE)
        .complains_about("no room")
        .complains_about(&format!("bytes {offset}.."));
    assert_eq!(names(&folder), BTreeSet::from(["a.hseal".to_owned()]));

    flip(&path, offset + 200);
    let before = std::fs::read(&path).expect("there");
    tool("mount", &["-o", "remount,ro", text(&folder)]);
    harborseal(["recover", text(&path)])
        .exits(IO)
        .complains_about("read-only");
    harborseal(["verify", text(&path)])
        .exits(DAMAGE)
        .complains_about("recover` closes it");
    assert!(std::fs::read(&path).expect("there") == before);
    drop(mounted);
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn what_is_no_segment_neither_stops_nor_blocks_the_check_of_the_rest() {
    let lab = lab(1);
    let segment = recorded(&lab, 500, false);
    let folder = lab.path("mixed");
    std::fs::create_dir_all(folder.join("folder.hseal")).expect("a fresh folder");
    std::fs::copy(&segment, folder.join("z.hseal")).expect("copied");
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).expect("a link");
    link(text(&segment), "again.hseal");
    link("nowhere", "dangling.hseal");
    link("circle.hseal", "circle.hseal");
    tool("mkfifo", &[text(&folder.join("pipe.hseal"))]);
    std::fs::write(folder.join("empty.hseal"), b"").expect("written");
    let sparse = std::fs::File::create(folder.join("sparse.hseal")).expect("made");
    sparse.set_len(8 << 40).expect("a hole of eight tebibytes");
    let before = names(&folder);
    let began = Instant::now();
    for command in ["verify", "recover"] {
        let outcome = harborseal([command, "--json", text(&folder)])
            .exits(IO)
            .complains_about("dangling.hseal")
            .complains_about("circle.hseal");
        let report = outcome.json();
        let checked = match command {
            "verify" => count(&report, "sealed"),
            _ => count(&report, "whole"),
        };
        assert_eq!(checked, 2, "{report:#}");
    }
    assert!(began.elapsed() < BOUND, "holes are skipped, not read");
    assert_eq!(names(&folder), before);
    // Named, a pipe is refused and not waited for.
    harborseal(["verify", text(&folder.join("pipe.hseal"))])
        .exits(IO)
        .complains_about("not a regular file");
}

#[test]
fn who_signs_anew_with_a_key_of_his_own_is_told_by_the_node_that_was_expected() {
    let (mine, other) = (lab(1), lab(1));
    let (genuine, forged) = (recorded(&mine, 300, false), recorded(&other, 300, false));
    let seen = inspect(&genuine);
    for known in ["node", "node_key"] {
        let known = seen[known].as_str().expect("hex digits");
        harborseal(["verify", "--node", known, text(&genuine)]).ok();
        let report: Outcome = harborseal(["verify", "--json", "--node", known, text(&forged)]);
        let report = report.exits(DAMAGE).json();
        assert_eq!(kinds(&report), ["node_differs"], "{report:#}");
    }
    harborseal(["verify", "--node", "beef", text(&genuine)])
        .exits(2)
        .complains_about("32 hex digits");
}
