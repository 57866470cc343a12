//! Faults that the simulator found once, each told again by the few files and steps it takes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crossbeam::channel::{never, unbounded};
use harborseal_segment::head::Head;
use harborseal_segment::ids::SegmentId;
use harborseal_segment::source::Source;
use harborseal_segment::verify::{Chains, Severity, verify};
use harborseal_segment::writer::Features;
use harborseal_segment::writer::{FinishParams, SegmentParams, SegmentWriter};

use super::*;

const BEGAN_S: u64 = 1_795_000_000;
/// What a prepared segment has reserved.
const RESERVED: usize = 64 * 1024;

/// A folder in memory, and every step that changed or synced a file in it.
#[derive(Clone, Default)]
struct Memory {
    files: Rc<RefCell<BTreeMap<PathBuf, Vec<u8>>>>,
    steps: Rc<RefCell<Vec<&'static str>>>,
}

struct MemoryFile {
    folder: Memory,
    path: PathBuf,
}

impl MemoryFile {
    fn change(&self, step: &'static str, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.folder.steps.borrow_mut().push(step);
        let mut files = self.folder.files.borrow_mut();
        change(files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}

impl Source for MemoryFile {
    fn len(&self) -> u64 {
        self.folder.files.borrow()[&self.path].len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.folder.files.borrow()[&self.path][..].read_at(offset, buf)
    }
}

impl OldFile for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn modified_s(&self) -> io::Result<u64> {
        Ok(BEGAN_S)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change("set_len", |bytes| bytes.resize(len as usize, 0))
    }

    fn write(&self, new: &[u8], offset: u64) -> io::Result<()> {
        self.change("write", |bytes| {
            bytes[offset as usize..][..new.len()].copy_from_slice(new);
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change("sync_data", |_| {})
    }

    fn sync_all(&self) -> io::Result<()> {
        self.change("sync_all", |_| {})
    }

    fn again(self) -> io::Result<Self> {
        Ok(self)
    }

    fn delete(&self) -> io::Result<()> {
        self.folder.steps.borrow_mut().push("delete");
        self.folder.files.borrow_mut().remove(&self.path);
        Ok(())
    }
}

impl Attic for Memory {
    type File = MemoryFile;

    fn files(&self) -> Result<Found, FindError> {
        Ok(Found {
            segments: self.files.borrow().keys().cloned().collect(),
            ..Found::default()
        })
    }

    fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        Ok(MemoryFile {
            folder: self.clone(),
            path: path.to_owned(),
        })
    }

    fn now_s(&self) -> u64 {
        BEGAN_S + 1000
    }

    fn announce(&self, _: SegmentId, _: [u8; 32]) -> io::Result<()> {
        Ok(())
    }
}

fn node() -> Arc<NodeKey> {
    Arc::new(NodeKey::from_bytes(&[0x22; 32]))
}

/// The head of the n-th segment of a chain, and what has still to be written to close it.
fn begun(n: u8) -> (SegmentWriter, Vec<u8>) {
    let id = |n: u8| SegmentId([0x10 + n; 16]);
    SegmentWriter::new(SegmentParams {
        segment_id: id(n),
        node: node().public(),
        run_id: RunId([0x33; 16]),
        shard: 0,
        prev: if n == 0 { SegmentId::ZERO } else { id(n - 1) },
        chain_seq: n.into(),
        created_s: BEGAN_S,
        features: Features::default(),
    })
}

/// Prepared, and never written to.
fn prepared(n: u8) -> Vec<u8> {
    let mut bytes = begun(n).1;
    bytes.resize(bytes.len() + RESERVED, 0);
    bytes
}

fn sealed(n: u8) -> Vec<u8> {
    let (writer, mut bytes) = begun(n);
    let durable = bytes.len() as u64;
    let finished = writer.finish(Some(&node()), FinishParams::sealed(None, durable, BEGAN_S + 60));
    bytes.extend_from_slice(&finished.bytes);
    bytes
}

/// Looks back at these files of a chain once, and returns the folder as it is then.
fn look_back(files: [Vec<u8>; 3]) -> Memory {
    let memory = Memory::default();
    for (n, file) in files.into_iter().enumerate() {
        let name = PathBuf::from(format!("{n}.hseal"));
        memory.files.borrow_mut().insert(name, file);
    }
    let (notes, _notes) = unbounded();
    let (notices, _notices) = unbounded();
    let recovery = Recovery {
        attic: memory.clone(),
        run_id: RunId([0x44; 16]),
        node: node(),
        bytes_per_s: u64::MAX,
        abandoned: never(),
        notes,
        notices,
        stopping: Arc::default(),
    };
    assert!(recovery.look_back(Instant::now()).is_empty(), "all were settled");
    memory
}

fn places(memory: &Memory) -> Vec<u64> {
    let files = memory.files.borrow();
    let place = |file: &Vec<u8>| Head::read(&file[..]).expect("a segment").body.chain_seq;
    files.values().map(place).collect()
}

fn assert_no_gap(memory: &Memory) {
    let mut chains = Chains::default();
    for file in memory.files.borrow().values() {
        let report = verify(&&file[..], None, |_| {}).expect("readable");
        assert!(report.is_clean());
        chains.add(report.member);
    }
    let findings = chains.check(true, &|_| false);
    let damage = findings
        .iter()
        .find(|found| found.finding.severity() == Severity::Damage);
    assert!(damage.is_none(), "{damage:?}");
}

/// A segment that was prepared and skipped, for its disk failed at the time, was deleted at the next start; the one after it then named
/// a predecessor that nobody had, and verify said that a segment was missing.
#[test]
fn an_unused_segment_stays_if_its_chain_goes_on_behind_it() {
    let memory = look_back([sealed(0), prepared(1), sealed(2)]);
    assert_eq!(places(&memory), [0, 1, 2]);
    assert_no_gap(&memory);
}

/// One at the end of its chain is missed by nobody.
#[test]
fn unused_segments_at_the_end_of_a_chain_go() {
    let memory = look_back([sealed(0), prepared(1), prepared(2)]);
    assert_eq!(places(&memory), [0]);
    assert_no_gap(&memory);
}

/// The file was cut to its new end before its tail was on the disk: a crash between the two left a FOOTER whose INDEX was lost, and recovery
/// called it corrupt. Room first, then the tail, and the cut when the tail is durable.
#[test]
fn a_tail_is_durable_before_the_file_is_cut_behind_it() {
    let memory = look_back([sealed(0), prepared(1), sealed(2)]);
    let closing = [
        "set_len",
        "set_len",
        "sync_all",
        "write",
        "sync_data",
        "set_len",
        "sync_all",
    ];
    assert_eq!(*memory.steps.borrow(), closing);
}
