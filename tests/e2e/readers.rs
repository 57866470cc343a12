//! Readers that share no code must say the same: harborseal-segment, the Python reader and the Kaitai Struct description, over all test
//! vectors and over segments that the engine writes here, whole and damaged.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use harborseal_segment::identity::Identity;
use harborseal_segment::open::Keyring;
use harborseal_tests::harness::readers::Readers;
use harborseal_tests::harness::rtp::{Random, sender_report};
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, harborseal};
use harborseal_tests::vectors::check;
use serde_json::{Value, json};

const CUSTOMERS: [&str; 3] = ["alice", "bob", "carol"];

#[test]
fn python_reads_every_vector_as_it_is_stated() {
    let Some(readers) = Readers::or_skip("python_reads_every_vector_as_it_is_stated") else {
        return;
    };
    let said = readers
        .python("check-vectors", &[text(readers.vectors())], &[])
        .ok();
    assert!(said.stdout.ends_with(", 0 not\n"), "{}", said.stdout);
}

#[test]
fn kaitai_sees_the_structure_of_every_vector() {
    let Some(readers) = Readers::or_skip("kaitai_sees_the_structure_of_every_vector") else {
        return;
    };
    let said = readers
        .kaitai("vectors", &[text(readers.vectors()).to_owned()])
        .ok();
    assert!(said.stdout.ends_with(", 0 not\n"), "{}", said.stdout);
}

#[test]
fn three_readers_agree_on_what_the_engine_writes() {
    let Some(readers) = Readers::or_skip("three_readers_agree_on_what_the_engine_writes") else {
        return;
    };
    let lab = recorded();
    let names: Vec<String> = lab.segments().iter().map(|path| text(path).to_owned()).collect();
    let contents: Vec<Vec<u8>> = names.iter().map(|name| read(name)).collect();
    let structures: Vec<Value> = contents.iter().map(|bytes| structure(bytes)).collect();
    for state in ["sealed", "recovered"] {
        let any = structures.iter().any(|structure| structure["state"] == state);
        assert!(any, "no {state} segment came of it");
    }
    let by_kaitai = readers.kaitai_structure(&names);
    for (name, (ours, theirs)) in names.iter().zip(structures.iter().zip(&by_kaitai)) {
        assert_same_structure(name, ours, theirs);
    }
    for customer in CUSTOMERS {
        let identity = lab.identity(customer);
        let said = readers.python("agree", &["--whole", "--identity", text(&identity)], &names);
        let said = said.ok().json();
        assert_eq!(said["structure"], json!(structures));
        let opened = json!(check::opened_by(&contents, keyring(&identity)));
        assert_eq!(said["opened"], opened, "{customer}");
        let streams = opened["streams"].as_array().expect("a list").iter();
        let packets: u64 = streams.filter_map(|stream| stream["packets"].as_u64()).sum();
        assert!(packets > 0, "{customer} has no packets");
        let findings = json!(check::findings_of(&names, &contents, Some(keyring(&identity))));
        assert_eq!(sorted(&said["findings"]), sorted(&findings));
        // Each run begins its hints anew; those of all later segments of its chain are foretold.
        let runs: BTreeSet<_> = structures.iter().map(|s| s["run_id"].as_str()).collect();
        let count = |key: &str| said[key].as_u64().expect("a count") as usize;
        let (entries, hinted) = (count("entries"), count("hinted"));
        assert!(
            hinted > 0 && hinted + runs.len() >= entries,
            "{customer}: {hinted} of {entries}"
        );
    }
}

#[test]
fn two_readers_name_the_same_damage_in_what_the_engine_writes() {
    let Some(readers) = Readers::or_skip("two_readers_name_the_same_damage_in_what_the_engine_writes") else {
        return;
    };
    let lab = recorded();
    let folder = lab.path("damaged");
    fs::create_dir(&folder).expect("the folder can be written");
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let (mut names, mut contents) = (Vec::new(), Vec::new());
    for whole in lab.segments() {
        let whole = read(text(&whole));
        for _ in 0..4 {
            let mut bytes = whole.clone();
            damage(&mut bytes, &mut random);
            let path = folder.join(format!("{}.hseal", contents.len()));
            fs::write(&path, &bytes).expect("the folder can be written");
            names.push(text(&path).to_owned());
            contents.push(bytes);
        }
    }
    let theirs = readers.python("agree", &["--apart"], &names).ok().json();
    for (name, bytes) in names.iter().zip(contents) {
        let about = |finding: &&Value| finding["file"] == **name;
        let theirs = theirs["findings"].as_array().expect("a list").iter();
        let theirs: Value = theirs.filter(about).cloned().collect();
        let ours = json!(check::findings_of(std::slice::from_ref(name), &[bytes], None));
        assert_eq!(sorted(&theirs), sorted(&ours), "{name}, seed {seed}");
    }
}

/// Cuts, flips, clears, or exchanges pages.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let pages = bytes.len() as u64 / 4096;
    let page = |random: &mut Random| random.below(pages) as usize * 4096;
    match random.below(5) {
        0 => bytes.truncate(random.below(bytes.len() as u64) as usize),
        1 => {
            let at = page(random);
            bytes[at..at + 4096].fill(0);
        }
        2 => {
            // Not the FOOTER: what one means in the middle of a file, the vectors say.
            let from = random.below(pages.max(2) - 1) as usize * 4096;
            let to = page(random);
            bytes.copy_within(from..from + 4096, to);
        }
        3 => {
            // Where headers are most likely to stand.
            let at = page(random) + random.below(128) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        _ => {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
    }
}

/// Three customers, one with a P-256 key; three lives with rotations in them, the second ended by a kill.
fn recorded() -> Lab {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"2MiB\"");
    lab.customer("alice");
    lab.customer("bob");
    lab.customer_with("carol", &["--p256"]);
    for (ssrc, customer) in (1..=6).zip(CUSTOMERS.into_iter().cycle()) {
        lab.camera(Camera::new(&format!("camera-{ssrc}"), customer, ssrc));
    }
    let mut streams: Vec<Stream> = (1..=6).map(Stream::new).collect();
    for killed in [false, true, false] {
        let engine = lab.start();
        let mut sender = Sender::from("127.0.0.1", lab.address());
        let until = Instant::now() + Duration::from_millis(2300);
        while Instant::now() < until {
            for stream in &mut streams {
                sender.send(&stream.packet());
                if stream.seq % 50 == 0 {
                    sender.send(&sender_report(stream.ssrc, 1, 2, 3, 4));
                }
            }
            sleep(Duration::from_millis(3));
        }
        if killed {
            engine.kill();
        } else {
            lab.settle_and_stop(engine);
        }
    }
    // A start closes what a kill left beside recording; what it had no time for is closed now.
    harborseal(["recover", text(&lab.data())]).ok();
    lab
}

fn read(name: &str) -> Vec<u8> {
    fs::read(name).expect("a segment can be read")
}

fn structure(bytes: &[u8]) -> Value {
    json!(check::structure(bytes).expect("the engine writes segments"))
}

fn keyring(identity: &Path) -> Keyring {
    let text = fs::read_to_string(identity).expect("keygen wrote it");
    Keyring::new(Identity::from_file_text(&text).expect("keygen writes identities"))
}

/// A checksum is beyond a description: in a gap it may see blocks that others refuse. Nothing else may differ.
#[track_caller]
fn assert_same_structure(name: &str, ours: &Value, theirs: &Value) {
    let rows = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    for (key, value) in theirs.as_object().expect("an object") {
        assert!(
            key == "blocks" || *value == ours[key],
            "{name}: {key}: {value} and {}",
            ours[key]
        );
    }
    let in_gap = |block: &Value| {
        let number = |value: &Value| value.as_u64().expect("a number");
        let within = |gap: &Value| {
            (number(&gap["offset"])..number(&gap["offset"]) + number(&gap["len"]))
                .contains(&number(&block["offset"]))
        };
        rows(ours, "gaps").iter().any(within)
    };
    let seen: Vec<Value> = rows(theirs, "blocks")
        .into_iter()
        .filter(|block| !in_gap(block))
        .collect();
    assert_eq!(seen, rows(ours, "blocks"), "{name}");
}

/// Findings as a set: how often a reader says the same of one place is its own affair.
fn sorted(findings: &Value) -> BTreeSet<String> {
    let findings = findings.as_array().expect("a list").iter();
    let fields = ["file", "offset", "class", "cause", "severity"];
    findings
        .map(|finding| fields.map(|field| finding[field].to_string()).join(" "))
        .collect()
}
