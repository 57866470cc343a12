//! The audit log against those who have a reason to change it, and against another implementation of its form.

use std::fs;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use harborseal_tests::harness::cli::Outcome;
use harborseal_tests::harness::engine::BOUND;
use harborseal_tests::harness::tools::text;
use harborseal_tests::harness::{Camera, Engine, Lab, Sender, Stream, harborseal};
use serde_json::Value;
use signed_note::{Signer, StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::{HashReader, Tile, TileHashReader, TileReader};

fn audit(arguments: &[&str]) -> Outcome {
    harborseal(["audit"].iter().chain(arguments))
}

/// Two enrolled customers, one camera each.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.section("segment", "max_age = \"1s\"\nmax_bytes = \"256MiB\"");
    lab.customer("alice");
    lab.customer("bob");
    lab.camera(Camera::new("front", "alice", 1));
    lab.camera(Camera::new("back", "bob", 2));
    lab
}

/// Sends a while, so that there are segments, and stops.
fn run(lab: &Lab) {
    let engine = lab.start();
    record(lab, 50);
    lab.settle_and_stop(engine);
}

fn record(lab: &Lab, packets: usize) {
    let mut sender = Sender::from("127.0.0.1", lab.address());
    sender.send_all(&Stream::new(1).packets(packets));
    sender.send_all(&Stream::new(2).packets(packets));
    harborseal_tests::harness::net::wait_until_taken(lab.port);
}

fn entries(lab: &Lab, more: &[&str]) -> Vec<Value> {
    let data = lab.data();
    let shown = audit(&[&["show", "--json"], more, &[text(&data)]].concat())
        .ok()
        .json();
    shown["entries"].as_array().expect("a list").clone()
}

fn of_kind<'a>(entries: &'a [Value], kind: &str) -> Vec<&'a Value> {
    entries
        .iter()
        .filter(|entry| entry["entry"]["kind"] == kind)
        .collect()
}

/// With the modes: folders of keys are nobody else's.
fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-aT")
        .args([from, to])
        .status();
    assert!(copied.expect("cp runs").success(), "{from:?} is not copied");
}

fn verify(lab: &Lab, more: &[&str]) -> Outcome {
    let data = lab.data();
    audit(&[&["verify"], more, &[text(&data)]].concat())
}

#[test]
fn what_a_node_did_is_in_its_log_and_a_customer_finds_its_own_part_and_no_more() {
    let lab = lab();
    run(&lab);
    let all = entries(&lab, &[]);
    assert_eq!(all[0]["entry"]["kind"], "node_start");
    assert_eq!(of_kind(&all, "enrolment").len(), 2);
    let sealed: Vec<&Value> = of_kind(&all, "segment_sealed")
        .into_iter()
        .map(|entry| &entry["entry"]["segment"])
        .collect();
    for path in lab.segments() {
        let id = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(
            sealed.contains(&&Value::from(id)),
            "{} is not in the log",
            path.display()
        );
    }
    // No name of anybody, nor anything else that two entries of one customer had in common.
    let written = serde_json::to_string(&all).expect("JSON");
    for word in ["alice", "bob", "front", "back"] {
        assert!(!written.contains(word), "{word} is in the log");
    }
    let pseudonyms: Vec<&Value> = all
        .iter()
        .flat_map(|entry| entry["entry"]["customers"].as_array().into_iter().flatten())
        .collect();
    let distinct: std::collections::HashSet<String> = pseudonyms.iter().map(|p| p.to_string()).collect();
    assert_eq!(distinct.len(), pseudonyms.len(), "a pseudonym stands twice");

    let identity = lab.identity("alice");
    let of_alice = entries(&lab, &["--identity", text(&identity)]);
    assert_eq!(of_kind(&of_alice, "enrolment").len(), 1);
    assert!(!of_kind(&of_alice, "segment_sealed").is_empty());
    assert!(of_kind(&of_alice, "node_start").is_empty());
    let enrolment = lab.path("alice.enrolment");
    assert_eq!(entries(&lab, &["--enrolment", text(&enrolment)]), of_alice);
    let stranger = lab.identity_made("stranger");
    drop(stranger);
    let stranger = lab.identity("stranger");
    let data = lab.data();
    let none = audit(&["show", "--json", "--identity", text(&stranger), text(&data)]).exits(3);
    assert_eq!(none.json()["entries"], serde_json::json!([]));
    verify(&lab, &[]).ok();
}

#[test]
fn a_customer_takes_its_entries_away_and_checks_them_elsewhere() {
    let lab = lab();
    run(&lab);
    let (data, out) = (lab.data(), lab.path("alice.audit"));
    let key = lab.path("noted.vkey");
    fs::copy(data.join("audit/log.vkey"), &key).expect("copied");
    let enrolment = lab.path("alice.enrolment");
    let export = [
        "export",
        "--enrolment",
        text(&enrolment),
        "-o",
        text(&out),
        text(&data),
    ];
    audit(&export).ok();
    audit(&export).exits(4).complains_about("never overwrites");
    let checked = audit(&["prove", "--check", text(&out), "--key", text(&key), "--json"])
        .ok()
        .json();
    let identity = lab.identity("alice");
    let shown = entries(&lab, &["--identity", text(&identity)]);
    let shown: Vec<&Value> = shown.iter().map(|entry| &entry["entry"]).collect();
    assert_eq!(
        checked["entries"]
            .as_array()
            .expect("a list")
            .iter()
            .collect::<Vec<_>>(),
        shown
    );
    // Nothing of bob's, nor of the node's own.
    let whole = fs::read_to_string(&out).expect("text");
    let exported: Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!(exported["proofs"].as_array().expect("a list").len(), shown.len());

    let forged = lab.path("forged.audit");
    let proof = exported["proofs"][0].as_str().expect("a proof");
    fs::write(&forged, whole.replace("index 1", "index 2")).expect("written");
    audit(&["prove", "--check", text(&forged), "--key", text(&key)])
        .exits(1)
        .complains_about("one of them was changed");
    let lone = lab.path("lone.proof");
    fs::write(&lone, proof).expect("written");
    audit(&["prove", "--check", text(&lone), "--key", text(&key)]).ok();
    fs::write(&lone, "nothing").expect("written");
    audit(&["prove", "--check", text(&lone), "--key", text(&key)])
        .exits(2)
        .complains_about("not a proof");
    audit(&["prove", "--check", text(&out), "--key", "nonsense"])
        .exits(2)
        .complains_about("--key");
    audit(&["prove", "--entry", "99999", text(&data)])
        .exits(3)
        .complains_about("99999");
    audit(&["verify", text(&lab.path("nowhere"))])
        .exits(4)
        .complains_about("nowhere");
}

#[test]
fn an_edited_and_a_cut_log_are_found_out_by_name() {
    let lab = lab();
    run(&lab);
    let kept = lab.path("kept");
    copy(&lab.data().join("audit"), &kept);
    let size = verify(&lab, &["--json"]).ok().json()["size"]
        .as_u64()
        .expect("a size");
    let partial = |of: &str| lab.data().join(format!("audit/tile/{of}/000.p/{size}"));
    let spoil = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let whole = fs::read(path).expect("a file");
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(path, bytes).expect("written");
        whole
    };
    // One letter of one entry: true becomes trua.
    let path = partial("entries");
    let whole = spoil(&path, &|bytes| {
        let at = bytes
            .windows(6)
            .position(|six| six == b"\"kind\"")
            .expect("an entry");
        bytes[at + 1] ^= 1;
    });
    verify(&lab, &[]).exits(1).complains_about("entry 0 was changed");
    fs::write(&path, whole).expect("written");
    // A hash beside it, so that it fits again.
    let path = partial("0");
    let whole = spoil(&path, &|bytes| bytes[40] ^= 1);
    verify(&lab, &[]).exits(1).complains_about("entry 1 was changed");
    fs::write(&path, &whole).expect("written");
    // Cut: the last entry gone with its hash, the checkpoint kept.
    fs::write(&path, &whole[..whole.len() - 32]).expect("written");
    verify(&lab, &[]).exits(1).complains_about("the log was cut");
    fs::remove_file(&path).expect("removed");
    verify(&lab, &[]).exits(1).complains_about("missing");
    fs::write(&path, &whole).expect("written");
    // A checkpoint by another key.
    let path = lab.data().join("audit/checkpoint");
    let whole = spoil(&path, &|bytes| {
        let text = String::from_utf8(bytes.clone()).expect("text");
        *bytes = text
            .replacen(&format!("\n{size}\n"), &format!("\n{}\n", size - 1), 1)
            .into_bytes();
    });
    verify(&lab, &[]).exits(1).complains_about("not signed by");
    fs::write(&path, whole).expect("written");
    verify(&lab, &["--since", text(&kept.join("checkpoint"))]).ok();

    // And the engine does not append to what it did not write.
    let path = partial("entries");
    let whole = spoil(&path, &|bytes| bytes[20] ^= 1);
    let refused = harborseal(["run", "--config", text(&lab.config())]).exits(4);
    refused
        .complains_about("was changed")
        .complains_about("does not record");
    fs::write(&path, whole).expect("written");
    run(&lab);
    verify(&lab, &["--since", text(&kept.join("checkpoint"))]).ok();
}

#[test]
fn a_log_that_is_rolled_back_is_refused_by_its_node_and_by_whoever_kept_a_checkpoint() {
    let lab = lab();
    run(&lab);
    let monday = lab.path("monday");
    copy(&lab.data().join("audit"), &monday);
    run(&lab);
    let tuesday = lab.path("tuesday.checkpoint");
    fs::copy(lab.data().join("audit/checkpoint"), &tuesday).expect("copied");
    verify(
        &lab,
        &[
            "--since",
            text(&monday.join("checkpoint")),
            "--since",
            text(&tuesday),
        ],
    )
    .ok();
    // The log of Monday in the place of Tuesday's, as a backup would bring it back.
    fs::remove_dir_all(lab.data().join("audit")).expect("removed");
    copy(&monday, &lab.data().join("audit"));
    verify(&lab, &[]).ok();
    let refused = verify(&lab, &["--since", text(&tuesday)]).exits(1);
    refused.complains_about("rolled back");
    let refused = harborseal(["run", "--config", text(&lab.config())]).exits(4);
    refused.complains_about("rolled back");
    // Without the log at all.
    fs::remove_dir_all(lab.data().join("audit")).expect("removed");
    harborseal(["run", "--config", text(&lab.config())])
        .exits(4)
        .complains_about("missing");
}

/// Somebody who has the whole machine, its key too, shows the customer one log and the auditor another.
#[test]
fn two_logs_shown_to_two_people_are_found_out_when_they_compare() {
    let lab = lab();
    run(&lab);
    let fork = lab.path("fork");
    copy(&lab.data(), &fork);
    run(&lab);
    let shown_to_one = lab.path("one.checkpoint");
    fs::copy(lab.data().join("audit/checkpoint"), &shown_to_one).expect("copied");
    // The other history, signed by the same key.
    fs::remove_dir_all(lab.data()).expect("removed");
    copy(&fork, &lab.data());
    run(&lab);
    run(&lab);
    verify(&lab, &[]).ok();
    let refused = verify(&lab, &["--since", text(&shown_to_one)]).exits(1);
    refused
        .complains_about("rewritten")
        .complains_about("together they prove it");
    let data = lab.data();
    audit(&["prove", "--since", text(&shown_to_one), text(&data)])
        .exits(1)
        .complains_about("two logs");
}

/// What happened is recorded although the log cannot be written: the segment is durable, and is sealed once its entry is.
#[test]
fn without_its_log_a_node_records_and_seals_nothing_until_it_has_it_again() {
    let lab = lab();
    let engine = lab.start();
    // A folder where the checkpoint is to be written: it stops root too.
    let in_the_way = lab.data().join("audit/checkpoint.part");
    fs::create_dir(&in_the_way).expect("made");
    record(&lab, 40);
    warned(&engine, "checkpoint.part");
    let last = lab.settle_and_stop(engine);
    assert_eq!(last["stored"], 80, "{last}");
    let sealed = lab.segments().iter().filter(|path| has_footer(path)).count();
    assert_eq!(sealed, 0, "a segment was sealed without its entry");
    // Neither does it start.
    let refused = harborseal(["run", "--config", text(&lab.config())]).exits(4);
    refused.complains_about("checkpoint.part");
    fs::remove_dir(&in_the_way).expect("removed");
    let engine = lab.start();
    engine.wait_for("recovery", |event| {
        let said = event["message"].as_str().unwrap_or_default();
        said.contains("recovery is done").then_some(())
    });
    lab.settle_and_stop(engine);
    let all = entries(&lab, &[]);
    let recovered = of_kind(&all, "segment_sealed");
    assert!(recovered.iter().any(|entry| entry["entry"]["recovered"] == true));
    assert_eq!(lab.read_back("alice", "front").len(), 40);
    verify(&lab, &[]).ok();
}

#[track_caller]
fn warned(engine: &Engine, about: &str) {
    engine.wait_within(BOUND, about, |event| {
        let warning = event["event"] == "warning" && event.to_string().contains(about);
        warning.then_some(())
    });
}

fn has_footer(path: &Path) -> bool {
    let bytes = fs::read(path).expect("a segment");
    let tail = &bytes[bytes.len() - 4096..];
    // Magic, then the type of a block: docs/FORMAT.md §3.
    tail[..4] == bytes[..4] && tail[4] == 8
}

/// The files of a log, for the other implementation.
struct Files(PathBuf);

impl TileReader for Files {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &Tile| fs::read(self.0.join(tile.path().replace("tile/8/", "tile/")));
        let tiles: Result<_, _> = tiles.iter().map(read).collect();
        Ok(tiles.expect("every tile that is asked for is there"))
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// Entries of a bundle, after the text of C2SP tlog-tiles.
fn bundle(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let (entry, rest) = rest.split_at(usize::from(*high) << 8 | usize::from(*low));
        entries.push(entry.to_vec());
        bytes = rest;
    }
    entries
}

/// A checkpoint as the other implementation reads it: its signature checked, size and root.
fn read_checkpoint(folder: &Path, file: &Path) -> tlog_tiles::Checkpoint {
    let vkey = fs::read_to_string(folder.join("log.vkey")).expect("a key");
    let verifier = StandardVerifier::new(vkey.trim()).expect("a verifier key");
    let note = signed_note::Note::from_bytes(&fs::read(file).expect("a checkpoint")).expect("a note");
    note.verify(&VerifierList::new(vec![Box::new(verifier)]))
        .expect("signed by the node");
    tlog_tiles::Checkpoint::from_bytes(note.text()).expect("a checkpoint")
}

#[test]
fn another_implementation_reads_and_proves_what_the_engine_wrote() {
    let lab = lab();
    run(&lab);
    let folder = lab.data().join("audit");
    let old = lab.path("old.checkpoint");
    fs::copy(folder.join("checkpoint"), &old).expect("copied");
    run(&lab);
    let old = read_checkpoint(&folder, &old);
    let head = read_checkpoint(&folder, &folder.join("checkpoint"));
    assert!(old.size() < head.size());
    let files = Files(folder.clone());
    let tree = TileHashReader::new(head.size(), *head.hash(), &files);
    assert_eq!(
        tlog_tiles::tree_hash(head.size(), &tree).expect("a root"),
        *head.hash()
    );
    let proof = tlog_tiles::prove_tree(head.size(), old.size(), &tree).expect("a proof");
    tlog_tiles::check_tree(&proof, head.size(), *head.hash(), old.size(), *old.hash())
        .expect("the log goes on from the old checkpoint");
    let path = folder.join(format!("tile/entries/000.p/{}", head.size()));
    let entries = bundle(&fs::read(path).expect("a bundle"));
    assert_eq!(entries.len() as u64, head.size());
    for (index, entry) in (0..).zip(&entries) {
        let proof = tlog_tiles::prove_record(head.size(), index, &tree).expect("a proof");
        let leaf = tlog_tiles::record_hash(entry);
        tlog_tiles::check_record(&proof, head.size(), *head.hash(), index, leaf)
            .unwrap_or_else(|error| panic!("entry {index}: {error:?}"));
        let read: Value = serde_json::from_slice(entry).expect("an entry is JSON");
        assert_eq!(read["v"], 1);
    }
    // And the proof that `prove` makes, checked by it.
    let data = lab.data();
    let made = audit(&["prove", "--entry", "1", text(&data)]).ok().stdout;
    let hashes: Vec<tlog_tiles::Hash> = made
        .lines()
        .skip(3)
        .take_while(|line| !line.is_empty())
        .map(|line| tlog_tiles::Hash::parse_hash(line).expect("a hash"))
        .collect();
    let leaf = tlog_tiles::record_hash(&entries[1]);
    tlog_tiles::check_record(&hashes, head.size(), *head.hash(), 1, leaf).expect("it holds");
    assert!(tree.read_hashes(&[0]).is_ok());
}

/// A witness's keys, as signed-note writes them: to sign with, and to verify with.
fn witness(name: &str, seed: u8) -> (String, String) {
    let secret = [seed; 32];
    let public = ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key();
    let public = [&[1], &public.to_bytes()[..]].concat();
    let id = signed_note::key_id(name, &public);
    let key = |bytes: &[u8]| format!("{name}+{id:08x}+{}", BASE64_STANDARD.encode(bytes));
    let secret = [&[1], &secret[..]].concat();
    (format!("PRIVATE+KEY+{}", key(&secret)), key(&public))
}

#[test]
fn a_witness_can_sign_and_is_asked_for() {
    let lab = lab();
    run(&lab);
    let (skey, vkey) = witness("witness.example/w1", 1);
    verify(&lab, &["--witness", &vkey])
        .exits(1)
        .complains_about("witness.example/w1");
    let path = lab.data().join("audit/checkpoint");
    let mut note = signed_note::Note::from_bytes(&fs::read(&path).expect("a checkpoint")).expect("a note");
    let signer = StandardSigner::new(&skey).expect("a key");
    let signers: [&dyn Signer; 1] = [&signer];
    note.add_sigs(&signers).expect("signed");
    fs::write(&path, note.to_bytes()).expect("written");
    let size = verify(&lab, &["--witness", &vkey, "--json"]).ok().json()["witnesses"][0]["size"].clone();
    // The node goes on, and the witness's word stays with it.
    run(&lab);
    let later = verify(&lab, &["--witness", &vkey, "--json"]).ok().json();
    assert_eq!(later["witnesses"][0]["size"], size);
    assert!(later["size"].as_u64() > size.as_u64());
    let (_, other) = witness("witness.example/w2", 2);
    verify(&lab, &["--witness", &other])
        .exits(1)
        .complains_about("w2");
}
