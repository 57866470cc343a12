//! Tampering with segments that the engine itself has just written: found by `harborseal verify`, named, at the right place. What a
//! forger with keys of his own can do is in the segment crate's tests of the same name; here the segments are real.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harborseal_segment::block::{BlockType, Header, parse_block};
use harborseal_segment::head::Head;
use harborseal_segment::reader::State;
use harborseal_segment::verify::{Report, Severity, verify};
use harborseal_tests::harness::cli::binary;
use harborseal_tests::harness::engine::BOUND;
use harborseal_tests::harness::{Camera, Lab, Sender, Stream, harborseal};

/// Three segments of one chain, sealed, of two customers and three cameras: theirs and the middle one's path.
fn recorded() -> (Lab, Vec<PathBuf>) {
    let mut lab = Lab::new();
    lab.shards(1);
    lab.section("segment", "max_age = \"2s\"\nmax_bytes = \"64MiB\"");
    ["alice", "bob"].iter().for_each(|name| lab.customer(name));
    lab.camera(Camera::new("front-door", "alice", 1));
    lab.camera(Camera::new("garden", "alice", 2));
    lab.camera(Camera::new("garage", "bob", 3));
    let engine = lab.start();
    let mut sender = Sender::from("127.0.0.1", lab.address());
    let mut streams = [1, 2, 3].map(Stream::new);
    let until = Instant::now() + BOUND;
    let rotated = || {
        let events = engine.events();
        let durable = events.iter().filter(|event| event["event"] == "durable");
        let ids: std::collections::BTreeSet<_> = durable.map(|event| event["segment"].to_string()).collect();
        ids.len() > 2
    };
    while !rotated() {
        assert!(Instant::now() < until, "three segments: {:?}", engine.lines());
        for stream in &mut streams {
            sender.send_all(&stream.packets(10));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.settle_and_stop(engine);
    let place = |path: &PathBuf| {
        let bytes = std::fs::read(path).expect("readable");
        Head::read(&bytes).expect("a segment").body.chain_seq
    };
    let mut segments = lab.segments();
    segments.sort_by_key(place);
    assert!(segments.len() > 2, "{segments:?}");
    (lab, segments)
}

struct Part {
    at: usize,
    len: usize,
    header: Header,
}

fn parts_of(file: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let header = parse_block(&file[at..]).expect("a whole block");
        let len = header.total_len as usize;
        parts.push(Part { at, len, header });
        at += len;
    }
    parts
}

/// Place and kind of everything that is damage.
fn damage(report: &Report) -> Vec<(u64, &'static str)> {
    let worse = report
        .findings
        .iter()
        .filter(|found| found.severity() > Severity::Note);
    worse.map(|found| (found.offset, found.what.name())).collect()
}

/// What is seen of a block that is none any more.
fn assert_gone(file: &[u8], part: &Part, kind: &str, story: &str) {
    let report = match verify(&file, None, |_| ()) {
        Ok(report) => report,
        Err(error) => {
            let version =
                part.header.block_type == BlockType::Segment && error.to_string().contains("version");
            return assert!(version, "{story}: {error}");
        }
    };
    let found = damage(&report);
    let place = part.at as u64;
    match part.header.block_type {
        BlockType::Footer => assert!(
            report.state == State::Open && found.is_empty(),
            "{story}: {found:?}"
        ),
        BlockType::Segment => assert_eq!(found, [(place, "segment_copy")], "{story}"),
        // Without its index the first chunk misses its row, before the index itself is missed.
        BlockType::Index => assert_eq!(found.last(), Some(&(place, kind)), "{story}"),
        _ => assert_eq!(found, [(place, kind)], "{story}"),
    }
}

#[test]
fn what_is_changed_in_a_segment_of_the_engine_is_found_where_it_is() {
    let (_lab, segments) = recorded();
    let file = std::fs::read(&segments[1]).expect("readable");
    let parts = parts_of(&file);
    let mut tried = [0; 3];
    let mut seen = Vec::new();
    for part in &parts {
        let name = part.header.block_type.name();
        let first = !seen.contains(&part.header.block_type);
        seen.push(part.header.block_type);
        // Every byte of the header of one block of each type; of all blocks a few bytes anywhere.
        let header = (0..if first { 128 } else { 0 }).map(|byte| (byte, 0xFF));
        let body_end = part.header.body_end();
        let body = [128, (128 + body_end) / 2, body_end - 1]
            .into_iter()
            .filter(|byte| *byte < body_end);
        let padding = [body_end, part.len - 1]
            .into_iter()
            .filter(|byte| (body_end..part.len).contains(byte));
        for (byte, bits) in header.chain(body.chain(padding).map(|byte| (byte, 1))) {
            let mut file = file.clone();
            file[part.at + byte] ^= bits;
            assert_gone(
                &file,
                part,
                "broken_block",
                &format!("{name} at {}, byte {byte}", part.at),
            );
            tried[0] += 1;
        }
    }
    for kind in [
        BlockType::Key,
        BlockType::Stream,
        BlockType::Chunk,
        BlockType::Checkpoint,
    ] {
        assert!(seen.contains(&kind), "the engine wrote a {}", kind.name());
    }
    for len in (8192..file.len()).step_by(4096) {
        let report = verify(&&file[..len], None, |_| ()).expect("readable");
        assert!(
            report.state == State::Open && damage(&report).is_empty(),
            "cut at {len}"
        );
        tried[1] += 1;
    }
    let footer = parts.last().expect("closed").at as u64;
    for pair in parts[2..]
        .windows(2)
        .filter(|pair| pair[0].len == pair[1].len && pair[1].at < footer as usize)
    {
        let mut file = file.clone();
        let (a, b) = (pair[0].at, pair[1].at);
        let block = file[a..b].to_vec();
        file.copy_within(b..b + pair[1].len, a);
        file[b..b + block.len()].copy_from_slice(&block);
        let report = verify(&&file[..], None, |_| ()).expect("readable");
        let found = damage(&report);
        for wanted in [(a as u64, "block_number"), (footer, "root")] {
            assert!(found.contains(&wanted), "{a} and {b} exchanged: {found:?}");
        }
        tried[2] += 1;
    }
    println!("{tried:?} of {tried:?} changed bytes, cuts and exchanges found");
    assert!(tried.iter().all(|tried| *tried > 3), "{tried:?}");
}

/// `harborseal verify` of the data folder must fail and say this.
fn assert_verify_says(lab: &Lab, more: &[&str], kind: &str, in_file: &Path) {
    let data = lab.data();
    let arguments = ["verify", "--json"].into_iter().chain(more.iter().copied());
    let arguments = arguments.map(std::ffi::OsStr::new).chain([data.as_os_str()]);
    let said = harborseal(arguments).exits(1).json();
    let findings = said["findings"].as_array().expect("a list");
    let name = in_file.file_name().expect("a name").to_str().expect("UTF-8");
    let found = findings.iter().any(|finding| {
        let path = finding["path"].as_str().unwrap_or_default();
        finding["kind"] == kind && finding["severity"] == "damage" && path.ends_with(name)
    });
    assert!(found, "{kind} in {name}: {findings:?}");
}

#[test]
fn what_somebody_does_to_the_files_of_an_engine_is_said_by_verify() {
    let (lab, segments) = recorded();
    let [first, middle, last] = [0, 1, 2].map(|n| segments[n].clone());
    let whole = std::fs::read(&middle).expect("readable");
    let put = |bytes: &[u8]| std::fs::write(&middle, bytes).expect("writable");
    lab.verify("alice");

    put(&whole[..whole.len() - 4096]);
    assert_verify_says(&lab, &[], "unclosed", &middle);
    assert_verify_says(&lab, &[], "root_since", &middle);
    // Its footer is that of its neighbour.
    let neighbour = std::fs::read(&first).expect("readable");
    let mut exchanged = whole.clone();
    exchanged.splice(
        whole.len() - 4096..,
        neighbour[neighbour.len() - 4096..].iter().copied(),
    );
    put(&exchanged);
    assert_verify_says(&lab, &[], "unclosed", &middle);
    // A chunk of its neighbour in the place of one of its own.
    let chunk = |file: &[u8]| {
        parts_of(file)
            .into_iter()
            .filter(|part| part.header.block_type == BlockType::Chunk)
            .collect::<Vec<_>>()
    };
    let (ours, theirs) = (chunk(&whole), chunk(&neighbour));
    let fits = |our: &Part| {
        theirs
            .iter()
            .find(|their| their.len == our.len)
            .map(|their| (our.at, their.at, our.len))
    };
    if let Some((to, from, len)) = ours.iter().find_map(fits) {
        let mut spliced = whole.clone();
        spliced[to..to + len].copy_from_slice(&neighbour[from..from + len]);
        put(&spliced);
        assert_verify_says(&lab, &[], "foreign_block", &middle);
    }
    // Gone, and a copy of its neighbour in its place.
    std::fs::remove_file(&middle).expect("removable");
    assert_verify_says(&lab, &[], "segments_missing", &last);
    put(&neighbour);
    assert_verify_says(&lab, &[], "segments_missing", &last);
    put(&whole);
    lab.verify("bob");

    // Whole, but not of the node that it is held against.
    let node = Head::read(&whole).expect("a segment").node_id.to_string();
    let other = node.chars().rev().collect::<String>();
    let data = lab.data();
    harborseal([
        std::ffi::OsStr::new("verify"),
        "--node".as_ref(),
        node.as_ref(),
        data.as_ref(),
    ])
    .ok();
    assert_verify_says(&lab, &["--node", &other], "node_differs", &middle);
}

#[test]
fn what_ships_holds_no_planted_fault() {
    let switch = b"HARBORSEAL_PLANT";
    let bytes = std::fs::read(binary()).expect("readable");
    assert!(!bytes.windows(switch.len()).any(|window| window == switch));
}
