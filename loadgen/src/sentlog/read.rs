//! Reading the sent log: the blocks are found once, then each lane is read in its order.

use super::{
    About, BLOCK_ENTRIES, BLOCK_HEADER_BYTES, END, ENTRY_BYTES, Entry, HEADER_BYTES, LANES, Lane,
    LoggedStream, MAGIC, MAGIC_1, SentLogError, SsrcFrom, block_check, lane_index, u32_at, u64_at,
};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_64;

/// A log on disk, opened for reading.
pub struct SentLog {
    path: PathBuf,
    file: File,
    about: About,
    /// Per lane, its blocks in order.
    lanes: Vec<Vec<BlockAt>>,
    complete: bool,
}

#[derive(Clone, Copy)]
struct BlockAt {
    offset: u64,
    entries: u32,
}

impl SentLog {
    /// Opens a log and finds its blocks. A log cut short by a killed sender opens, with [`SentLog::complete`] false;
    /// a damaged one is refused.
    pub fn open(path: &Path) -> Result<SentLog, SentLogError> {
        let io_error = |source| SentLogError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(io_error)?;
        let len = file.metadata().map_err(io_error)?.len();
        let (about, begin) = read_about(&mut file, len).map_err(|(offset, what)| SentLogError::Damaged {
            path: path.to_owned(),
            offset,
            what,
        })?;
        let mut log = SentLog {
            path: path.to_owned(),
            lanes: vec![Vec::new(); LANES * about.streams.len()],
            about,
            complete: false,
            file,
        };
        log.find_blocks(begin, len)?;
        Ok(log)
    }

    fn find_blocks(&mut self, begin: u64, len: u64) -> Result<(), SentLogError> {
        let mut offset = begin;
        let mut next_entry = vec![0u64; self.lanes.len()];
        let mut reader = io::BufReader::with_capacity(1 << 20, &self.file);
        reader
            .seek(SeekFrom::Start(offset))
            .map_err(|source| self.io_error(source))?;
        while offset + BLOCK_HEADER_BYTES as u64 <= len && !self.complete {
            let mut head = [0u8; BLOCK_HEADER_BYTES];
            reader
                .read_exact(&mut head)
                .map_err(|source| self.io_error(source))?;
            let (stream, lane, entries) = (u32_at(&head, 0), usize::from(head[4]), u32_at(&head, 16));
            if stream == END {
                self.complete = true;
                break;
            }
            let at = LANES * stream as usize + lane;
            let in_order = lane < LANES && next_entry.get(at) == Some(&u64_at(&head, 8));
            if !in_order || entries == 0 || entries as usize > BLOCK_ENTRIES {
                return Err(self.damaged(offset, "no block of the stream's next entries"));
            }
            let entries_bytes = ENTRY_BYTES as u64 * u64::from(entries);
            let end = offset + BLOCK_HEADER_BYTES as u64 + entries_bytes;
            if end > len {
                break; // cut in the middle of a block: its sender was killed
            }
            self.lanes[at].push(BlockAt { offset, entries });
            next_entry[at] += u64::from(entries);
            reader
                .seek_relative(entries_bytes as i64)
                .map_err(|source| self.io_error(source))?;
            offset = end;
        }
        Ok(())
    }

    pub fn about(&self) -> &About {
        &self.about
    }

    /// The streams, by the number their marks carry.
    pub fn streams(&self) -> &[LoggedStream] {
        &self.about.streams
    }

    /// The key of the run's marks (see [`crate::mark::Mark::read`]).
    pub fn run(&self) -> u64 {
        self.about.run
    }

    /// CLOCK_REALTIME of the schedule's start, nanoseconds.
    pub fn start_ns(&self) -> u64 {
        self.about.start_ns
    }

    /// Whether the sender closed it: then it misses nothing.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// How many entries a lane has.
    pub fn entries(&self, stream: u32, lane: Lane) -> u64 {
        let blocks = self.lanes.get(lane_index(stream, lane)).into_iter().flatten();
        blocks.map(|block| u64::from(block.entries)).sum()
    }

    /// A stream's entries of one lane, in their order. An unknown stream has none.
    pub fn packets(&self, stream: u32, lane: Lane) -> Entries<'_> {
        let blocks = self
            .lanes
            .get(lane_index(stream, lane))
            .map_or(&[][..], Vec::as_slice);
        Entries {
            log: self,
            blocks,
            lane: (stream, lane),
            bytes: Vec::new(),
            at: 0,
        }
    }

    /// The entries of a lane's last block alone: how far it goes, for one read.
    pub fn last_block(&self, stream: u32, lane: Lane) -> Result<Vec<Entry>, SentLogError> {
        let blocks = self.lanes.get(lane_index(stream, lane));
        let last = blocks.map_or(&[][..], |blocks| &blocks[blocks.len().saturating_sub(1)..]);
        let entries = Entries {
            log: self,
            blocks: last,
            lane: (stream, lane),
            bytes: Vec::new(),
            at: 0,
        };
        entries.collect()
    }

    /// The SSRCs of a stream, in their order; an unknown stream has none.
    pub fn ssrcs(&self, stream: u32) -> Result<Vec<SsrcFrom>, SentLogError> {
        let first = self.streams().get(stream as usize).map(|logged| SsrcFrom {
            ssrc: logged.ssrc,
            sequence: 0,
            at_ns: 0,
        });
        let later = self.packets(stream, Lane::Ssrc).map(|entry| {
            entry.map(|entry| SsrcFrom {
                ssrc: entry.hash as u32,
                sequence: entry.sequence,
                at_ns: entry.intended_ns,
            })
        });
        first.into_iter().map(Ok).chain(later).collect()
    }

    fn read_block(&self, block: BlockAt, bytes: &mut Vec<u8>) -> Result<(), SentLogError> {
        bytes.resize(BLOCK_HEADER_BYTES + ENTRY_BYTES * block.entries as usize, 0);
        self.file
            .read_exact_at(bytes, block.offset)
            .map_err(|source| self.io_error(source))?;
        if block_check(bytes) != u64_at(bytes, 24) {
            return Err(self.damaged(block.offset, "a block's check does not fit its entries"));
        }
        Ok(())
    }

    fn io_error(&self, source: io::Error) -> SentLogError {
        SentLogError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn damaged(&self, offset: u64, what: &'static str) -> SentLogError {
        SentLogError::Damaged {
            path: self.path.clone(),
            offset,
            what,
        }
    }
}

/// The header and where the blocks begin; else the place of the damage, and what it is.
fn read_about(file: &mut File, len: u64) -> Result<(About, u64), (u64, &'static str)> {
    let mut header = [0u8; HEADER_BYTES];
    file.read_exact(&mut header)
        .map_err(|_| (0, "no whole header: not a sent log"))?;
    if header[..8] == MAGIC_1 {
        return Err((0, "a sent log of version 1; this program reads version 2"));
    }
    if header[..8] != MAGIC {
        return Err((0, "not a sent log"));
    }
    let begin = HEADER_BYTES as u64 + u64::from(u32_at(&header, 8));
    if begin > len {
        return Err((8, "the list of streams is cut"));
    }
    let mut about = vec![0; begin as usize - HEADER_BYTES];
    file.read_exact(&mut about)
        .map_err(|_| (HEADER_BYTES as u64, "the list of streams cannot be read"))?;
    if XxHash3_64::oneshot(&about) != u64_at(&header, 16) {
        return Err((16, "the check of the list of streams does not fit it"));
    }
    let about = serde_json::from_slice(&about)
        .map_err(|_| (HEADER_BYTES as u64, "the list of streams is not understood"))?;
    Ok((about, begin))
}

/// The entries of one lane. After an error it ends.
pub struct Entries<'a> {
    log: &'a SentLog,
    blocks: &'a [BlockAt],
    lane: (u32, Lane),
    bytes: Vec<u8>,
    at: usize,
}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entries of stream {} ({:?})", self.lane.0, self.lane.1)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, SentLogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.bytes.len() {
            let (block, rest) = self.blocks.split_first()?;
            self.blocks = rest;
            if let Err(error) = self.log.read_block(*block, &mut self.bytes) {
                self.blocks = &[];
                self.at = self.bytes.len();
                return Some(Err(error));
            }
            self.at = BLOCK_HEADER_BYTES;
        }
        let bytes = self.bytes[self.at..].first_chunk();
        let entry = Entry::from_bytes(bytes.expect("blocks hold whole entries"));
        self.at += ENTRY_BYTES;
        Some(Ok(entry))
    }
}
