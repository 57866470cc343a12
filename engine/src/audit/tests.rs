//! The log on a real folder: appended to, read back, shared, and played false.

mod crash;

use super::disk::OsDisk;
use super::entry::Bytes;
use super::note::{Checkpoint, Note, VerifierKey};
use super::read;
use super::*;
use harborseal_segment::merkle::MerkleTree;
use harborseal_segment::merkle::leaf_hash;
use std::fs;

fn node() -> Arc<NodeKey> {
    Arc::new(NodeKey::from_bytes(&[1; 32]))
}

fn entry(number: u64) -> Entry {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    let fact = Fact::ConfigurationChange {
        configuration: Bytes([number as u8; 32]),
        require_enrolment: true,
    };
    Entry::new(number, Nonce(nonce), fact)
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(entry).collect()
}

/// Reads everything, against a tree grown leaf by leaf.
fn assert_holds(data: &Path, expected: &[Entry]) {
    let folder = data.join("audit");
    let note = read::checkpoint(&OsDisk, &folder.join("checkpoint")).expect("a checkpoint");
    assert_eq!(note.checkpoint.size, expected.len() as u64);
    let mut tree = MerkleTree::new();
    let mut reader = Reader::new(&OsDisk, &folder, note.checkpoint.size);
    for (bundle, expected) in expected.chunks(256).enumerate() {
        let read = reader.entries(bundle as u64).expect("entries");
        assert_eq!(read.len(), expected.len());
        for (bytes, expected) in read.iter().zip(expected) {
            assert_eq!(&Entry::parse(bytes).expect("an entry"), expected);
            tree.push(leaf_hash(bytes));
        }
    }
    assert_eq!(tree.root(), note.checkpoint.root);
    assert_eq!(
        reader.root(note.checkpoint.size).expect("a root"),
        note.checkpoint.root
    );
}

#[test]
fn what_is_appended_is_read_back_across_tiles_and_processes() {
    let data = tempfile::tempdir().expect("a folder");
    let mut at = 0;
    for step in [1, 2, 252, 1, 1, 300, 211, 257] {
        let log = AuditLog::open(data.path(), node()).expect("a log");
        assert_eq!(log.append(&entries(at..at + step)).expect("appended"), at);
        at += step;
        assert_holds(data.path(), &entries(0..at));
    }
}

/// 65,536 entries: the first tile of level 2.
#[test]
fn a_log_may_have_three_levels() {
    let data = tempfile::tempdir().expect("a folder");
    let log = AuditLog::open(data.path(), node()).expect("a log");
    for batch in [65_530, 6, 1] {
        let size = log.checkpoint().expect("a head").checkpoint.size;
        log.append(&entries(size..size + batch)).expect("appended");
    }
    assert_holds(data.path(), &entries(0..65_537));
    assert!(data.path().join("audit/tile/2/000.p/1").exists());
}

#[test]
fn two_logs_on_one_folder_and_many_threads_never_lose_an_entry() {
    let data = tempfile::tempdir().expect("a folder");
    let logs = [(); 2].map(|()| AuditLog::open(data.path(), node()).expect("a log"));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let log = &logs[thread as usize % 2];
            scope.spawn(move || {
                for number in 0..25 {
                    log.append(&[entry(thread * 1000 + number)]).expect("appended");
                }
            });
        }
    });
    let head = logs[0].checkpoint().expect("a head").checkpoint;
    assert_eq!(head.size, 100);
    let folder = data.path().join("audit");
    let read = Reader::new(&OsDisk, &folder, 100).entries(0).expect("entries");
    let mut times: Vec<u64> = read
        .iter()
        .map(|entry| Entry::parse(entry).expect("an entry").time_s)
        .collect();
    times.sort_unstable();
    let expected: Vec<u64> = (0..4).flat_map(|t| (0..25).map(move |n| t * 1000 + n)).collect();
    assert_eq!(times, expected);
}

/// What an append finds after somebody had his way with the files.
fn after(spoil: impl FnOnce(&Path)) -> AuditError {
    let data = tempfile::tempdir().expect("a folder");
    let log = AuditLog::open(data.path(), node()).expect("a log");
    log.append(&entries(0..10)).expect("appended");
    fs::create_dir(data.path().join("old")).expect("a folder");
    fs::copy(
        data.path().join("audit/checkpoint"),
        data.path().join("old/checkpoint"),
    )
    .expect("copied");
    log.append(&entries(10..300)).expect("appended");
    drop(log);
    spoil(data.path());
    match AuditLog::open(data.path(), node()) {
        Err(error) => error,
        Ok(log) => log.append(&[entry(300)]).expect_err("it is not the log it was"),
    }
}

#[test]
fn a_log_that_is_not_what_it_was_is_appended_to_no_more() {
    let rolled_back = after(|data| {
        fs::copy(data.join("old/checkpoint"), data.join("audit/checkpoint")).expect("copied");
    });
    assert!(matches!(
        rolled_back,
        AuditError::RolledBack {
            known: 300,
            size: 10,
            ..
        }
    ));
    let foreign = after(|data| {
        let checkpoint = Checkpoint {
            origin: note::origin(&node().public().id()),
            size: 400,
            root: [0; 32],
        };
        let forged = Note::signed(checkpoint, &NodeKey::from_bytes(&[2; 32]));
        fs::write(data.join("audit/checkpoint"), forged.to_text()).expect("written");
    });
    assert!(matches!(foreign, AuditError::NotSigned { .. }), "{foreign}");
    // By the node's own key: somebody got hold of it, and signs another past.
    let rewritten = after(|data| {
        let checkpoint = Checkpoint {
            origin: note::origin(&node().public().id()),
            size: 300,
            root: [0; 32],
        };
        let forged = Note::signed(checkpoint, &node());
        fs::write(data.join("audit/checkpoint"), forged.to_text()).expect("written");
    });
    assert!(
        matches!(rewritten, AuditError::Rewritten { known: 300, .. }),
        "{rewritten}"
    );
    let edited = after(|data| {
        let path = data.join("audit/tile/entries/001.p/44");
        let text = fs::read(&path).expect("a bundle");
        let at = text
            .windows(4)
            .position(|four| four == b"true")
            .expect("an entry");
        let mut text = text;
        text[at..at + 4].copy_from_slice(b"fals");
        fs::write(&path, text).expect("written");
    });
    assert!(
        matches!(edited, AuditError::EditedEntry { index: 256, .. }),
        "{edited}"
    );
    let cut = after(|data| {
        fs::remove_file(data.join("audit/tile/0/001.p/44")).expect("removed");
    });
    assert!(matches!(cut, AuditError::MissingTile { .. }), "{cut}");
    let headless = after(|data| fs::remove_file(data.join("audit/checkpoint")).expect("removed"));
    assert!(
        matches!(headless, AuditError::NoCheckpoint { size: 300, .. }),
        "{headless}"
    );
    let gone = after(|data| fs::remove_dir_all(data.join("audit")).expect("removed"));
    assert!(
        matches!(gone, AuditError::NoCheckpoint { size: 300, .. }),
        "{gone}"
    );
    let forgotten = after(|data| fs::remove_file(data.join("keys/audit.head")).expect("removed"));
    assert!(matches!(forgotten, AuditError::NoMemory { .. }), "{forgotten}");
}

#[test]
fn an_entry_that_cannot_be_written_is_refused_and_the_next_one_is_not() {
    let data = tempfile::tempdir().expect("a folder");
    let log = AuditLog::open(data.path(), node()).expect("a log");
    log.append(&entries(0..3)).expect("appended");
    // A folder where the file goes: it stops root too.
    let in_the_way = data.path().join("audit/checkpoint.part");
    fs::create_dir(&in_the_way).expect("made");
    let error = log.append(&[entry(3)]).expect_err("it cannot be written");
    assert!(
        error.is_io() && error.to_string().contains("checkpoint.part"),
        "{error}"
    );
    fs::remove_dir(&in_the_way).expect("removed");
    assert_eq!(log.append(&[entry(3)]).expect("appended"), 3);
    assert_holds(data.path(), &entries(0..4));
}

#[test]
fn an_entry_that_fits_no_bundle_is_refused_before_anything_is_written() {
    let data = tempfile::tempdir().expect("a folder");
    let log = AuditLog::open(data.path(), node()).expect("a log");
    let fact = Fact::AccessRefused {
        what: "x".repeat(70_000),
        why: String::new(),
    };
    let long = Entry::new(1, Nonce([0; 16]), fact);
    let error = log.append(&[entry(0), long]).expect_err("too long");
    assert!(matches!(error, AuditError::EntryTooLong { .. }), "{error}");
    assert_holds(data.path(), &[]);
}

#[test]
fn a_witness_that_signed_a_head_is_not_forgotten_with_the_next() {
    let data = tempfile::tempdir().expect("a folder");
    let log = AuditLog::open(data.path(), node()).expect("a log");
    log.append(&entries(0..5)).expect("appended");
    let path = data.path().join("audit/checkpoint");
    let line = "— witness.example/w1 AAAAAAAAAAAAAAAA\n";
    let cosigned = fs::read_to_string(&path).expect("a checkpoint") + line;
    fs::write(&path, &cosigned).expect("written");
    log.append(&[entry(5)]).expect("appended");
    assert!(!fs::read_to_string(&path).expect("a checkpoint").contains(line));
    let kept = fs::read_to_string(data.path().join("audit/cosigned")).expect("kept");
    assert_eq!(kept, cosigned);
}

#[test]
fn the_key_beside_the_log_is_the_nodes() {
    let data = tempfile::tempdir().expect("a folder");
    AuditLog::open(data.path(), node()).expect("a log");
    let text = fs::read_to_string(data.path().join("audit/log.vkey")).expect("a key");
    let key = VerifierKey::parse(&text).expect("a key");
    assert_eq!(key, VerifierKey::of_node(&node().public()));
    let note = read::checkpoint(&OsDisk, &data.path().join("audit/checkpoint")).expect("a head");
    assert!(note.signed_by(&key).is_some());
}
