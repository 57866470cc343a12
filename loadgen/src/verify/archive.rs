//! The segments as one archive: which streams they hold for the identities given, and where each stream's chunks stand.
//!
//! All files are walked once, in the order of their chains, by their indices; what a stream holds is read later, stream by stream.
//! What is damaged is left out and told; that its packets are missing then shows like any other loss.
//!
//! Memory: about 60 bytes per chunk (64 KiB of packets) and 1.5 KiB per stream and segment. A minute of 4,000 cameras at
//! 2 Mb/s is 60 GB in a million chunks: 60 MB and, with two segments, 12 MB.

use harborseal_segment::body::ChunkRow;
use harborseal_segment::head::Head;
use harborseal_segment::identity::Identity;
use harborseal_segment::open::{Keyring, OpenStream, Packet};
use harborseal_segment::reader::{Segment, StreamError};
use harborseal_segment::source::Source;
use harborseal_segment::{SegmentId, StreamId};
use nix::unistd::{Whence, lseek};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const EXTENSION: &str = "hseal";

/// Why the segments could not be opened. Every text names the path.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("none of the segments can be read; the first: {0}")]
    Damaged(String),
    #[error("no segment (.hseal) in {0}: name the engine's data folder, or a segment file")]
    Nothing(String),
}

/// A segment file.
pub struct SegmentFile {
    file: File,
    len: u64,
}

impl Source for SegmentFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> u64 {
        // A writer reserves gigabytes ahead. The file position that this moves is never used: all reads are positioned.
        match lseek(&self.file, offset as i64, Whence::SeekData) {
            Ok(data) => (data as u64).clamp(offset, self.len.max(offset)),
            Err(nix::Error::ENXIO) => self.len.max(offset),
            Err(_) => offset, // a file system without SEEK_DATA: the zeros are read
        }
    }
}

/// One stream of one segment, opened.
pub struct StoredStream {
    /// Index of the identity that opened it.
    pub identity: usize,
    open: OpenStream,
    /// In the order of stream_seq, each once.
    chunks: Vec<ChunkAt>,
}

#[derive(Clone, Copy)]
struct ChunkAt {
    file: u32,
    row: ChunkRow,
}

impl StoredStream {
    pub fn camera(&self) -> &str {
        &self.open.info.camera_id
    }

    pub fn ssrc(&self) -> u32 {
        self.open.info.ssrc
    }
}

/// Everything the identities open.
pub struct Archive {
    files: Vec<(PathBuf, Segment<SegmentFile>)>,
    /// In the order of the files, and in each in the order of their begins.
    pub streams: Vec<StoredStream>,
    /// What is damaged, one line each.
    pub damage: Vec<String>,
    /// Streams of all customers that were seen, opened or not.
    pub streams_in_all: u64,
}

impl Archive {
    /// Opens all segments that `paths` name with all `identities`; `progress` is told files done and in all.
    pub fn open(
        paths: &[PathBuf],
        identities: Vec<Identity>,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Archive, ArchiveError> {
        let (files, damage) = open_files(&find(paths)?)?;
        let mut archive = Archive {
            files,
            streams: Vec::new(),
            damage,
            streams_in_all: 0,
        };
        let mut keyrings: Vec<Keyring> = identities.into_iter().map(Keyring::new).collect();
        let mut known = HashMap::new();
        let in_all = archive.files.len();
        for file in 0..in_all {
            progress(file, in_all);
            archive.index(file, &mut keyrings, &mut known);
        }
        for stream in &mut archive.streams {
            stream.chunks.sort_by_key(|chunk| chunk.row.stream_seq);
            // A chunk that was written again after a failed write is the same chunk (docs/FORMAT.md, ORIGIN).
            stream.chunks.dedup_by_key(|chunk| chunk.row.stream_seq);
        }
        Ok(archive)
    }

    /// How many files there are.
    pub fn segments(&self) -> usize {
        self.files.len()
    }

    /// Opens one file's streams with every identity and notes their chunks.
    fn index(
        &mut self,
        file: usize,
        keyrings: &mut [Keyring],
        known: &mut HashMap<(SegmentId, StreamId), usize>,
    ) {
        let (path, segment) = &mut self.files[file];
        let mut damage = |why: &dyn std::fmt::Display| self.damage.push(format!("{}: {why}", path.display()));
        let mut here: HashMap<StreamId, usize> = HashMap::new();
        for (identity, keyring) in keyrings.iter_mut().enumerate() {
            let opened = match segment.open_streams(keyring) {
                Ok(opened) => opened,
                Err(StreamError::NothingForIdentity) => continue,
                Err(why) => {
                    damage(&why);
                    continue;
                }
            };
            for stream in opened {
                let mut open = match stream {
                    Ok(open) => open,
                    Err(why) => {
                        damage(&why);
                        continue;
                    }
                };
                open.info.sdp = String::new(); // up to 16 KiB that nobody needs here
                let streams = &mut self.streams;
                let at = *known
                    .entry((open.origin, open.stream_id))
                    .or_insert(streams.len());
                here.insert(open.stream_id, at);
                if at == streams.len() {
                    streams.push(StoredStream {
                        identity,
                        open,
                        chunks: Vec::new(),
                    });
                }
            }
        }
        self.streams_in_all += segment.streams().len() as u64;
        let mut rows: HashMap<usize, Vec<ChunkRow>> = HashMap::new();
        let listed = segment.each_chunk(|stream, row| {
            if let Some(&at) = here.get(&stream.stream_id) {
                rows.entry(at).or_default().push(*row);
            }
        });
        if let Err(why) = listed {
            damage(&why);
        }
        let counted: HashMap<StreamId, u64> = segment
            .streams()
            .iter()
            .map(|row| (row.stream_id, row.chunks))
            .collect();
        for (&stream_id, &at) in &here {
            let mut listed = rows.remove(&at).unwrap_or_default();
            if !is_whole(&listed, counted.get(&stream_id).copied().unwrap_or(0)) {
                // The index is never believed where it lists less than it counts: a scan finds what is there.
                match segment.chunk_rows(&self.streams[at].open) {
                    Ok(found) => listed = found,
                    Err(why) => damage(&why),
                }
            }
            let file = file as u32;
            self.streams[at]
                .chunks
                .extend(listed.into_iter().map(|row| ChunkAt { file, row }));
        }
    }

    /// Every packet of a stream in its order. Chunks that begin after `to_s` or ended before `from_s` (seconds since 1970) are passed over.
    /// Returns what could not be read, one line each.
    pub fn read(
        &self,
        stream: &StoredStream,
        (from_s, to_s): (u64, u64),
        mut visit: impl FnMut(Packet<'_>),
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let mut next = None;
        for chunk in &stream.chunks {
            let ChunkAt { file, row } = chunk;
            let (path, segment) = &self.files[*file as usize];
            let missing = next.map_or(0, |next| row.stream_seq.saturating_sub(next));
            if missing > 0 {
                problems.push(format!(
                    "{}: {missing} chunks of camera {:?} are missing before stream_seq {}",
                    path.display(),
                    stream.camera(),
                    row.stream_seq
                ));
            }
            next = Some(row.stream_seq + 1);
            if row.last_s < from_s || row.first_s > to_s {
                continue;
            }
            match segment.read_chunk(&stream.open, row) {
                Ok(opened) => opened.packets().for_each(&mut visit),
                Err(why) => problems.push(format!("{}: {why}", path.display())),
            }
        }
        problems
    }
}

/// Whether the rows are as many as the stream's row counts, without a jump.
fn is_whole(rows: &[ChunkRow], counted: u64) -> bool {
    let mut numbers: Vec<u64> = rows.iter().map(|row| row.stream_seq).collect();
    numbers.sort_unstable();
    rows.len() as u64 == counted && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1])
}

type Opened = (Vec<(PathBuf, Segment<SegmentFile>)>, Vec<String>);

/// Opens the files, in the order of their runs and chains: a keyring that sees a chain in its order is quick, and a stream's parts
/// come in their order.
fn open_files(paths: &[PathBuf]) -> Result<Opened, ArchiveError> {
    let (mut files, mut damage) = (Vec::new(), Vec::new());
    for path in paths {
        let error = |source| ArchiveError::Io {
            path: path.clone(),
            source,
        };
        let file = match File::open(path) {
            // A running engine deletes by its retention rules.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(error)?,
        };
        let len = file.metadata().map_err(error)?.len();
        let source = SegmentFile { file, len };
        match Head::read(&source).and_then(|head| Ok((order(&head), Segment::open(source)?))) {
            Ok((order, segment)) => files.push((order, path.clone(), segment)),
            Err(why) => damage.push(format!("{}: {why}", path.display())),
        }
    }
    if let (true, Some(first)) = (files.is_empty(), damage.first()) {
        return Err(ArchiveError::Damaged(first.clone()));
    }
    files.sort_by_key(|(order, ..)| *order);
    let files = files.into_iter().map(|(_, path, segment)| (path, segment));
    Ok((files.collect(), damage))
}

fn order(head: &Head) -> (u64, [u8; 16], u32, u64) {
    let body = &head.body;
    (body.created_s, body.run_id.0, body.shard, body.chain_seq)
}

/// The segment files that the paths name, each once: a file stands for itself, a folder for every `.hseal` below it.
fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ArchiveError> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for path in paths {
        walk(path, true, &mut seen, &mut found)?;
    }
    if found.is_empty() {
        let folders: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(ArchiveError::Nothing(folders.join(", ")));
    }
    Ok(found)
}

fn walk(
    path: &Path,
    named: bool,
    seen: &mut HashSet<(u64, u64)>,
    found: &mut Vec<PathBuf>,
) -> Result<(), ArchiveError> {
    let error = |source| ArchiveError::Io {
        path: path.to_owned(),
        source,
    };
    let meta = match std::fs::metadata(path) {
        // Deleted by its engine meanwhile.
        Err(gone) if gone.kind() == io::ErrorKind::NotFound && !named => return Ok(()),
        meta => meta.map_err(error)?,
    };
    if meta.is_dir() {
        let entries = std::fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut entries = entries.map_err(error)?;
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            // A link to a folder could lead in circles.
            let link_to_folder = entry.path().is_symlink() && entry.path().is_dir();
            if !link_to_folder {
                walk(&entry.path(), false, seen, found)?;
            }
        }
    } else if (named || path.extension().is_some_and(|e| e == EXTENSION))
        && seen.insert((meta.dev(), meta.ino()))
    {
        found.push(path.to_owned());
    }
    Ok(())
}
