//! A disk that stops at any one request, and forgets of the names not synced whichever it likes.
//!
//! Names become durable by a sync of their folder; before that a crash keeps any subset of the changes. Content is durable when
//! `write` returned; a write in flight leaves half. After every crash the log must open, be the one before or the one after the append, hold
//! together, and take the append again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use harborseal_segment::merkle::{MerkleTree, leaf_hash};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::disk::Disk;
use super::super::log::Log;
use super::super::read::{self, Reader};
use super::{AuditError, node};

const DATA: &str = "/data";

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, Vec<u8>>,
    folders: BTreeSet<PathBuf>,
}

#[derive(Clone)]
enum Change {
    Folder(PathBuf),
    Put(PathBuf, Vec<u8>),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    RemoveFolder(PathBuf),
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Folder(path) => {
                self.folders.insert(path.clone());
            }
            Change::Put(path, bytes) => {
                self.files.insert(path.clone(), bytes.clone());
            }
            Change::Rename(from, to) => {
                if let Some(bytes) = self.files.remove(from) {
                    self.files.insert(to.clone(), bytes);
                }
            }
            Change::Remove(path) => {
                self.files.remove(path);
            }
            Change::RemoveFolder(path) => {
                self.folders.remove(path);
            }
        }
    }

    /// What has no folder is not there.
    fn without_orphans(mut self) -> Names {
        let mut rooted = BTreeSet::from([PathBuf::from(DATA)]);
        // In order of their paths: parents before children.
        for folder in &self.folders {
            if folder.parent().is_some_and(|parent| rooted.contains(parent)) {
                rooted.insert(folder.clone());
            }
        }
        self.files
            .retain(|path, _| path.parent().is_some_and(|parent| rooted.contains(parent)));
        self.folders = rooted;
        self
    }
}

#[derive(Clone, Default)]
struct State {
    now: Names,
    durable: Names,
    /// Changes not yet synced, each with the folder whose sync makes it durable.
    pending: Vec<(PathBuf, Change)>,
    /// Requests until one fails; `None`: never.
    left: Option<usize>,
    /// After the failed one all fail, as after a crash; else only that one.
    stays_down: bool,
}

#[derive(Clone, Default)]
struct FaultyDisk(Rc<RefCell<State>>);

impl FaultyDisk {
    /// Counts a request; an error if it is the one that fails.
    fn request(&self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let stays_down = state.stays_down;
        match &mut state.left {
            Some(0) => {
                if !stays_down {
                    state.left = None;
                }
                Err(io::Error::from_raw_os_error(5))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&self, folder: &Path, change: Change) {
        let mut state = self.0.borrow_mut();
        state.now.apply(&change);
        state.pending.push((folder.to_owned(), change));
    }

    /// The disk after a crash: what is durable, and of the rest what chance keeps.
    fn after_crash(&self, rng: &mut StdRng) -> FaultyDisk {
        let state = self.0.borrow();
        let mut names = state.durable.clone();
        for (_, change) in &state.pending {
            if rng.random_bool(0.5) {
                names.apply(change);
            }
        }
        let names = names.without_orphans();
        FaultyDisk(Rc::new(RefCell::new(State {
            now: names.clone(),
            durable: names,
            ..State::default()
        })))
    }

    fn copy(&self) -> FaultyDisk {
        FaultyDisk(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    fn fail_at(&self, request: usize, stays_down: bool) {
        let mut state = self.0.borrow_mut();
        state.left = Some(request);
        state.stays_down = stays_down;
    }

    fn heal(&self) {
        self.0.borrow_mut().left = None;
    }
}

impl Disk for FaultyDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.0.borrow();
        state
            .now
            .files
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.0.borrow();
        let inside = state
            .now
            .files
            .keys()
            .filter(|path| path.parent() == Some(folder));
        let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        Ok(inside.map(name).collect())
    }

    fn make_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.request()?;
        if !self.0.borrow().now.folders.contains(folder) {
            self.change(
                folder.parent().expect("a parent"),
                Change::Folder(folder.to_owned()),
            );
        }
        Ok(())
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.request()?;
        let mut state = self.0.borrow_mut();
        let (synced, pending) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|(of, _)| of == folder);
        let synced: Vec<(PathBuf, Change)> = synced;
        synced.iter().for_each(|(_, change)| state.durable.apply(change));
        state.pending = pending;
        Ok(())
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().expect("a folder").to_owned();
        assert!(
            self.0.borrow().now.folders.contains(&folder) || folder == Path::new(DATA),
            "{} has no folder",
            path.display()
        );
        let result = self.request();
        let written = match result {
            Ok(()) => bytes,
            Err(_) => &bytes[..bytes.len() / 2],
        };
        self.change(&folder, Change::Put(path.to_owned(), written.to_vec()));
        result
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.request()?;
        self.change(
            to.parent().expect("a folder"),
            Change::Rename(from.to_owned(), to.to_owned()),
        );
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.request()?;
        self.change(path.parent().expect("a folder"), Change::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.request()?;
        self.change(
            folder.parent().expect("a parent"),
            Change::RemoveFolder(folder.to_owned()),
        );
        Ok(())
    }
}

fn open(disk: &FaultyDisk) -> Result<Log<FaultyDisk>, AuditError> {
    Log::open(disk.clone(), Path::new(DATA), node())
}

fn entries(from: u64, count: u64) -> Vec<Vec<u8>> {
    (from..from + count)
        .map(|n| format!("entry {n}").into_bytes())
        .collect()
}

/// Everything in the log, which must be the first so many entries.
fn assert_whole(disk: &FaultyDisk, context: &str) -> u64 {
    let folder = Path::new(DATA).join("audit");
    let note = read::checkpoint(disk, &folder.join("checkpoint")).expect(context);
    let size = note.checkpoint.size;
    let mut tree = MerkleTree::new();
    let mut reader = Reader::new(disk, &folder, size);
    for bundle in 0..size.div_ceil(256) {
        for entry in reader.entries(bundle).expect(context) {
            assert_eq!(
                entry,
                format!("entry {}", tree.leaf_count()).into_bytes(),
                "{context}"
            );
            tree.push(leaf_hash(&entry));
        }
    }
    assert_eq!(tree.root(), note.checkpoint.root, "{context}");
    assert_eq!(reader.root(size).expect(context), tree.root(), "{context}");
    size
}

/// Batches that begin, fill and pass tiles.
const BATCHES: [u64; 7] = [1, 3, 251, 1, 1, 260, 1];

#[test]
fn a_crash_at_any_request_leaves_the_old_log_or_the_new_one() {
    let seed = 6962;
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = FaultyDisk::default();
    let mut size = 0;
    let mut crashes = 0;
    for batch in BATCHES {
        let wanted = entries(size, batch);
        for request in 0.. {
            // Opening is part of it: the first one begins the log.
            let crashing = disk.copy();
            crashing.fail_at(request, true);
            let result = open(&crashing).and_then(|mut log| log.append(&wanted));
            // What is only deleted after the fact may fail, and does not matter.
            let done = crashing.0.borrow().left != Some(0);
            for _ in 0..4 {
                let context = format!("seed {seed}, batch at {size}, request {request}");
                let after = crashing.after_crash(&mut rng);
                let mut log = open(&after).unwrap_or_else(|error| panic!("{context}: {error}"));
                let found = assert_whole(&after, &context);
                assert!(found == size || found == size + batch, "{context}: {found}");
                assert!(
                    result.is_err() || found == size + batch,
                    "{context}: durable, and gone"
                );
                log.append(&entries(found, 2)).expect(&context);
                assert_eq!(assert_whole(&after, &context), found + 2);
                crashes += 1;
            }
            if done {
                break;
            }
        }
        let mut log = open(&disk).expect("a log");
        log.append(&wanted).expect("appended");
        size += batch;
    }
    assert!(crashes > 500, "only {crashes} crashes");
}

#[test]
fn after_a_request_that_failed_the_log_goes_on_or_says_why_not() {
    let (mut went_on, mut refused) = (0, 0);
    for request in 0..60 {
        let disk = FaultyDisk::default();
        let mut log = open(&disk).expect("a log");
        log.append(&entries(0, 255)).expect("appended");
        disk.fail_at(request, false);
        let result = log.append(&entries(255, 2));
        disk.heal();
        let size = assert_whole(&disk, "after a failed request");
        assert!(result.is_err() || size == 257);
        match log.append(&entries(size, 1)) {
            Ok(first) => {
                assert_eq!(first, size);
                assert_eq!(assert_whole(&disk, "going on"), size + 1);
                went_on += 1;
            }
            Err(AuditError::Poisoned { .. }) => {
                let mut log = open(&disk).expect("another process");
                log.append(&entries(size, 1)).expect("appended");
                assert_whole(&disk, "another process");
                refused += 1;
            }
            Err(error) => panic!("request {request}: {error}"),
        }
    }
    assert!(
        went_on > 10 && refused > 3,
        "{went_on} went on, {refused} refused"
    );
}

/// The canary: a log that does not sync its folders is caught by the crashes above.
#[test]
fn the_faulty_disk_forgets_names_that_were_not_synced() {
    let mut disk = FaultyDisk::default();
    let path = Path::new(DATA).join("x");
    disk.write(&path, b"x").expect("written");
    let mut rng = StdRng::seed_from_u64(1);
    let kept = (0..64)
        .filter(|_| disk.after_crash(&mut rng).read(&path).is_ok())
        .count();
    assert!((1..63).contains(&kept), "{kept} of 64");
    disk.sync_folder(Path::new(DATA)).expect("synced");
    assert!((0..64).all(|_| disk.after_crash(&mut rng).read(&path).is_ok()));
}
