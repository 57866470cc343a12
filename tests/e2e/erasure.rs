//! Erasable footage: opened on the record, closed in every copy, and kept while a court says so.

mod keys;
mod refusals;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harborseal_tests::harness::cli::{self, Outcome};
use harborseal_tests::harness::engine::{BOUND, count};
use harborseal_tests::harness::packets::{read_rtpdump, rtp_only};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, harborseal, net};
use serde_json::Value;

/// Alice, whose footage is erasable, and Bob, whose is not, one camera each.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"2s\"\nmax_bytes = \"32MiB\"");
    lab.customer_with("alice", &["--p256"]);
    lab.erasable("alice");
    lab.customer_with("bob", &["--p256"]);
    lab.camera(Camera::new("front", "alice", 1));
    lab.camera(Camera::new("yard", "bob", 2));
    lab
}

/// Who sends, and what was sent so far.
struct Sending {
    sender: Sender,
    front: Stream,
    yard: Stream,
    alice: Vec<Vec<u8>>,
    bob: Vec<Vec<u8>>,
}

impl Sending {
    fn to(lab: &Lab) -> Sending {
        Sending {
            sender: Sender::from("127.0.0.1", lab.address()),
            front: Stream::new(1).payload(1000),
            yard: Stream::new(2).payload(1000),
            alice: Vec::new(),
            bob: Vec::new(),
        }
    }

    /// Both send, until a segment that began after them is in use.
    fn both(&mut self, lab: &Lab, engine: &Engine) {
        let (front, yard) = (self.front.packets(150), self.yard.packets(150));
        self.sender.send_all(&front);
        self.sender.send_all(&yard);
        self.alice.extend(front);
        self.bob.extend(yard);
        net::wait_until_taken(lab.port);
        self.next_segment(engine);
    }

    /// Alice alone sends, in segments that are nobody else's.
    fn alice_alone(&mut self, engine: &Engine) {
        self.next_segment(engine);
        let front = self.front.packets(150);
        self.sender.send_all(&front);
        self.alice.extend(front);
        self.next_segment(engine);
    }

    /// Sends a packet of Alice's now and then until a new segment has some.
    fn next_segment(&mut self, engine: &Engine) {
        let segments = |engine: &Engine| {
            let events = engine.events().into_iter();
            let mut ids: Vec<String> = events
                .filter_map(|e| e["segment"].as_str().map(str::to_owned))
                .collect();
            ids.sort();
            ids.dedup();
            ids.len()
        };
        let (before, until) = (segments(engine), Instant::now() + BOUND);
        while segments(engine) <= before {
            assert!(Instant::now() < until, "no new segment");
            let front = self.front.packets(1);
            self.sender.send_all(&front);
            self.alice.extend(front);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A command of the node's operator about Alice.
fn operator(lab: &Lab, command: &str, more: &[&str]) -> Outcome {
    let config = lab.config();
    let arguments = [command, "--config", text(&config), "--customer", "alice"];
    harborseal(arguments.iter().chain(more))
}

fn release(lab: &Lab, out: &Path, more: &[&str]) -> Outcome {
    let said = [
        "--for",
        "Alice herself",
        "--purpose",
        "break-in of Monday",
        "-o",
        text(out),
    ];
    operator(lab, "release", &[&said[..], more].concat())
}

fn erase(lab: &Lab, more: &[&str]) -> Outcome {
    operator(lab, "erase", &[&["--yes"], more].concat())
}

fn list(lab: &Lab, data: &Path, more: &[&str]) -> Outcome {
    let alice = lab.identity("alice");
    let arguments = ["list", "--json", "--identity", text(&alice), text(data)];
    harborseal(arguments.iter().chain(more))
}

/// What opens of Alice's camera in `data`.
fn opened(lab: &Lab, data: &Path, more: &[&str]) -> Vec<Vec<u8>> {
    let (alice, out) = (lab.identity("alice"), lab.path("opened.rtpdump"));
    let arguments = [
        "export",
        "--identity",
        text(&alice),
        "--camera",
        "front",
        "-o",
        text(&out),
        text(data),
    ];
    harborseal(arguments.iter().chain(more)).ok();
    let packets = rtp_only(read_rtpdump(&out));
    fs::remove_file(&out).expect("just written");
    packets
}

/// The entries of the audit log, as its files hold them.
fn entries(lab: &Lab) -> Vec<Value> {
    let tiles = cli::files_under(&lab.data().join("audit/tile/entries"));
    let longest = tiles
        .iter()
        .max_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
    let bytes = longest.map_or(Vec::new(), |path| fs::read(path).expect("readable"));
    let mut rest = &bytes[..];
    let mut entries = Vec::new();
    while let Some((len, more)) = rest.split_first_chunk::<2>() {
        let (entry, more) = more.split_at(usize::from(u16::from_be_bytes(*len)));
        entries.push(serde_json::from_slice(entry).expect("JSON"));
        rest = more;
    }
    entries
}

fn entries_of(lab: &Lab, kind: &str) -> Vec<Value> {
    let mut entries = entries(lab);
    entries.retain(|entry| entry["kind"] == kind);
    entries
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", text(from), text(to)]).status();
    assert!(copied.expect("cp runs").success());
}

/// Puts a copy in the place of a folder.
fn put_back(copy_of: &Path, folder: &Path) {
    fs::remove_dir_all(folder).expect("removed");
    copy(copy_of, folder);
}

fn blocks(files: &[PathBuf]) -> u64 {
    files
        .iter()
        .map(|path| fs::metadata(path).expect("there").blocks())
        .sum()
}

fn key_files(lab: &Lab) -> Vec<PathBuf> {
    let files = cli::files_under(&lab.data().join("keys/erase"));
    let is_key = |path: &PathBuf| path.extension().is_some_and(|tag| tag.len() == 8);
    files.into_iter().filter(is_key).collect()
}

#[test]
fn erasable_footage_opens_with_a_release_only_and_after_an_erasure_in_no_copy() {
    let lab = lab();
    let engine = lab.start();
    let mut sending = Sending::to(&lab);
    sending.both(&lab, &engine);
    sending.alice_alone(&engine);
    lab.settle_and_stop(engine);
    let data = lab.data();

    // The identity alone finds what is its own, and opens nothing of it.
    list(&lab, &data, &[])
        .exits(3)
        .complains_about("only with a release");
    let out = lab.path("nothing.rtpdump");
    lab.export("alice", "front", &out, &[])
        .exits(3)
        .complains_about("release");
    assert!(!out.exists());
    assert_eq!(rtp_only(lab.read_back("bob", "yard")), sending.bob);

    let first = lab.path("first.release");
    let told = release(&lab, &first, &["--json"]).ok().json();
    let of_log = &entries_of(&lab, "release")[0];
    assert_eq!(
        (&of_log["to"], &of_log["purpose"]),
        (&"Alice herself".into(), &"break-in of Monday".into())
    );
    assert_eq!(
        of_log["segments"].as_array().map(Vec::len),
        told["segments"].as_u64().map(|n| n as usize)
    );
    assert!(
        !entries(&lab)
            .iter()
            .any(|entry| entry.to_string().contains("alice")),
        "by a pseudonym only"
    );
    let released = ["--release", text(&first)];
    assert_eq!(opened(&lab, &data, &released), sending.alice);
    // It is Alice's, and of these segments.
    let (bob, place) = (lab.identity("bob"), text(&data));
    harborseal(["list", "--identity", text(&bob), "--release", text(&first), place])
        .exits(3)
        .complains_about("another identity");
    let engine = lab.start();
    let seen = sending.alice.len();
    sending.both(&lab, &engine);
    sending.alice_alone(&engine);
    lab.settle_and_stop(engine);
    assert_eq!(opened(&lab, &data, &released), sending.alice[..seen]);
    let listed = list(&lab, &data, &released).ok().json();
    assert_ne!(
        listed["not_released"].as_array().map(Vec::len),
        Some(0),
        "{listed}"
    );

    // Copies of everything but the key store; then the erasure.
    let copies = lab.path("copies");
    copy(&data.join("segments"), &copies);
    let files = lab.segments();
    let before = blocks(&files);
    let receipt = lab.path("alice.receipt");
    let told = erase(&lab, &["--json", "-o", text(&receipt)]).ok().json();
    assert_eq!(key_files(&lab), Vec::<PathBuf>::new());
    assert!(
        told["files_deleted"].as_u64() > Some(0) && told["files_punched"].as_u64() > Some(0),
        "{told}"
    );
    let left: Vec<PathBuf> = files.iter().filter(|path| path.exists()).cloned().collect();
    assert!(left.len() < files.len(), "whole files of Alice's went");
    let given_back = 512 * (before - blocks(&left));
    assert!(
        given_back >= sending.alice.iter().map(|packet| packet.len() as u64).sum(),
        "{told}"
    );

    // No copy opens any more but what had been released; and that the receipt lists.
    list(&lab, &copies, &[]).exits(3);
    assert_eq!(opened(&lab, &copies, &released), sending.alice[..seen]);
    let stated = fs::read_to_string(&receipt).expect("text");
    let disclosed: Vec<&str> = stated
        .lines()
        .filter(|line| line.starts_with("disclosed "))
        .collect();
    assert!(
        matches!(disclosed[..], [one] if one.contains("to Alice herself, for break-in of Monday")),
        "{stated}"
    );
    release(&lab, &lab.path("late.release"), &[])
        .exits(3)
        .complains_about("no erasure key");
    let erasures = entries_of(&lab, "erasure");
    assert_eq!(
        (erasures.len(), erasures[0]["keys"].as_array().map(Vec::len)),
        (1, Some(1))
    );

    // Whoever has the receipt can check it, and its customer that it is the one of the log.
    let by = |enrolment: &str, receipt: &Path| {
        let enrolment = lab.path(enrolment);
        let arguments = ["audit", "receipt", "--json", "--enrolment", text(&enrolment)];
        harborseal(arguments.iter().chain(&[text(receipt), text(&data)]))
    };
    let told = by("alice.enrolment", &receipt).ok().json();
    assert_eq!(
        (&told["keys"], &told["commitment_checked"]),
        (&1.into(), &true.into()),
        "{told}"
    );
    harborseal(["audit", "receipt", text(&receipt), text(&data)]).ok();
    by("bob.enrolment", &receipt)
        .exits(1)
        .complains_about("another customer");
    let changed = lab.path("changed.receipt");
    fs::write(&changed, stated.replace("Alice herself", "Alice  herself")).expect("written");
    by("alice.enrolment", &changed)
        .exits(1)
        .complains_about("changed.receipt");
    let shown = harborseal(["audit", "show", text(&data)]).ok().stdout;
    assert!(shown.contains("to=\"Alice herself\""), "{shown}");

    // Bob's is whole, nothing is called damaged, and what is gone is said to be erased.
    assert_eq!(rtp_only(lab.read_back("bob", "yard")), sending.bob);
    let report = lab.verify("bob");
    assert_eq!(
        (&report["ok"], &report["missing"]),
        (&true.into(), &0.into()),
        "{report}"
    );
    let findings = report["findings"].as_array().expect("a list");
    assert!(
        findings.iter().any(|finding| finding["kind"] == "erased"),
        "{report}"
    );
}

#[test]
fn a_key_that_comes_back_from_a_stale_copy_is_refused() {
    let lab = lab();
    let engine = lab.start();
    let mut sending = Sending::to(&lab);
    sending.both(&lab, &engine);
    lab.settle_and_stop(engine);
    release(&lab, &lab.path("first.release"), &[]).ok();
    let (keys, copies) = (lab.data().join("keys"), lab.path("keys.copy"));
    let segments = lab.path("segments.copy");
    copy(&keys, &copies);
    copy(&lab.data().join("segments"), &segments);
    erase(&lab, &[]).ok();
    let out = lab.path("alice.release");
    // The folder of keys alone, and then with it the list of what was destroyed: the log remembers too.
    for (stale, place) in [(copies.join("erase"), keys.join("erase")), (copies, keys)] {
        put_back(&stale, &place);
        put_back(&segments, &lab.data().join("segments"));
        assert_eq!(key_files(&lab).len(), 1);
        // An engine takes a new key, and says so.
        let engine = lab.start();
        let mut sending = Sending::to(&lab);
        sending.both(&lab, &engine);
        assert!(
            engine.lines().iter().any(|line| line.contains("stale copy")),
            "{:#?}",
            engine.lines()
        );
        lab.settle_and_stop(engine);
        assert_eq!(key_files(&lab).len(), 2);
        release(&lab, &out, &[]).exits(1).complains_about("stale copy");
        assert!(!out.exists());
        let refused = entries_of(&lab, "access_refused");
        assert!(
            refused.last().is_some_and(|entry| entry["what"] == "release"),
            "{refused:?}"
        );
        // And erasing destroys both again.
        erase(&lab, &[]).ok();
        assert_eq!(key_files(&lab).len(), 0);
    }
    list(&lab, &segments, &[]).exits(3);
}

#[test]
fn a_hold_blocks_erasure_and_retention_until_it_is_lifted() {
    let mut lab = lab();
    lab.section("retention", "max_age = \"3s\"");
    let control = net::free_port_pair();
    lab.section("control", &format!("listen = \"127.0.0.1:{control}\""));
    let engine = lab.start();
    let held = operator(
        &lab,
        "hold",
        &["--reason", "order 17/2026", "--by", "judge Roe", "--json"],
    )
    .ok()
    .json();
    assert_eq!(held["holds"][0]["customer"], "alice", "{held}");
    engine.wait_for("word of the hold", |event| {
        event.to_string().contains("legal hold is in force").then_some(())
    });
    let mut sending = Sending::to(&lab);
    for _ in 0..4 {
        sending.both(&lab, &engine);
    }
    let (first, until) = (lab.segments(), Instant::now() + Duration::from_secs(6));
    while Instant::now() < until {
        sending.next_segment(&engine);
    }
    let there = first.iter().filter(|path| path.exists()).count();
    assert_eq!(
        there,
        first.len(),
        "twice as old as retention allows, and all there"
    );
    let (_, metrics) = net::http_get(control, "/metrics");
    assert!(metrics.contains("\nharborseal_legal_holds 1\n"), "{metrics}");
    erase(&lab, &[]).exits(1).complains_about("order 17/2026");
    assert_eq!(key_files(&lab).len(), 1);
    let config = lab.config();
    let listed = harborseal(["hold", "--config", text(&config)]).ok();
    assert!(listed.stdout.contains("alice  held since"), "{}", listed.stdout);
    let checked = harborseal(["check", "--json", "--config", text(&config)]);
    assert!(checked.stdout.contains("legal holds"), "{}", checked.stdout);

    operator(
        &lab,
        "hold",
        &["--reason", "order lifted", "--by", "judge Roe", "--lift"],
    )
    .ok();
    let until = Instant::now() + BOUND;
    while first.iter().any(|path| path.exists()) {
        assert!(Instant::now() < until, "retention does not go on");
        sending.next_segment(&engine);
    }
    erase(&lab, &[]).ok();
    lab.settle_and_stop(engine);
    let of_log = entries_of(&lab, "legal_hold");
    assert_eq!(
        (&of_log[0]["by"], &of_log[0]["held"]),
        (&"judge Roe".into(), &true.into())
    );
    assert_eq!(
        (&of_log[1]["reason"], &of_log[1]["held"]),
        (&"order lifted".into(), &false.into())
    );
    let data = lab.data();
    harborseal(["verify", text(&data)]).ok();
}

#[test]
fn an_erasure_beside_a_running_engine_begins_new_segments_and_loses_nothing_of_anybody_else() {
    let lab = lab();
    let engine = lab.start();
    let mut sending = Sending::to(&lab);
    sending.both(&lab, &engine);
    sending.both(&lab, &engine);
    erase(&lab, &[]).ok();
    engine.wait_for("word of it", |event| {
        event
            .to_string()
            .contains("erasure keys were destroyed")
            .then_some(())
    });
    sending.next_segment(&engine);
    sending.next_segment(&engine);
    let from = sending.alice.len();
    sending.both(&lab, &engine);
    let last = lab.settle_and_stop(engine);
    assert_eq!(
        count(&last, "stored"),
        (sending.alice.len() + sending.bob.len()) as u64,
        "{last}"
    );
    let after = lab.path("after.release");
    release(&lab, &after, &[]).ok();
    let opened = opened(&lab, &lab.data(), &["--release", text(&after)]);
    assert!(sending.alice.ends_with(&opened) && opened.len() >= sending.alice.len() - from);
    assert_eq!(rtp_only(lab.read_back("bob", "yard")), sending.bob);
    assert_eq!(lab.verify("bob")["ok"], true);
}

/// Killed after every few milliseconds of its life, it is finished by running it again.
#[test]
fn an_erasure_that_is_killed_at_any_time_is_finished_by_the_next() {
    let lab = lab();
    let engine = lab.start();
    let mut sending = Sending::to(&lab);
    for _ in 0..3 {
        sending.both(&lab, &engine);
        sending.alice_alone(&engine);
    }
    lab.settle_and_stop(engine);
    let (data, whole) = (lab.data(), lab.path("whole"));
    copy(&data, &whole);
    let (mut interrupted, mut finished) = (0, 0);
    for delay_us in (0..14_000).step_by(400) {
        put_back(&whole, &data);
        let mut command = Command::new(cli::binary());
        command
            .args(["erase", "--yes", "--customer", "alice", "--config"])
            .arg(lab.config());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        std::thread::sleep(Duration::from_micros(delay_us));
        child.kill().expect("ours");
        let ended = child.wait().expect("ends");
        interrupted += usize::from(!ended.success());
        let known = entries_of(&lab, "erasure").len();
        let told = erase(&lab, &["--json"]);
        // Killed at its very end, it had nothing left to do.
        if told.code == Some(3) {
            assert_eq!(known, 1, "{told:?}");
        } else {
            let told = told.ok().json();
            finished += usize::from(told["finished_an_earlier_one"] == true);
            assert_eq!(told["not_yet_freed"].as_array().map(Vec::len), Some(0), "{told}");
        }
        assert_eq!(key_files(&lab).len(), 0);
        assert_eq!(rtp_only(lab.read_back("bob", "yard")), sending.bob);
        let report = lab.verify("bob");
        assert_eq!(
            (&report["ok"], &report["missing"]),
            (&true.into(), &0.into()),
            "{report}"
        );
    }
    println!("{interrupted} killed, {finished} finished by the next");
    assert!(interrupted > 0);
}
