//! Writing the sent log. The sending thread only appends to a lane; full blocks go to a thread of the log's own.

use super::{
    About, BLOCK_ENTRIES, BLOCK_HEADER_BYTES, END, ENTRY_BYTES, Entry, Flags, HEADER_BYTES, LANES, Lane,
    MAGIC, SentLogError, SsrcFrom, block_check, lane_index,
};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use twox_hash::XxHash3_64;

/// Blocks on their way to the file's thread: 4,096 × 3 KiB, half a second of 10^6 packets/s. Only a disk that stands still that
/// long makes the sender wait, and then its lateness shows it.
const QUEUED_BLOCKS: usize = 4096;
/// A sender that is killed leaves a log that is no older than this, and what its lanes still gathered.
const FLUSH_EVERY: Duration = Duration::from_millis(250);

/// Writes a log; its file work is done by a thread of its own, so that a busy disk does not delay the next packet.
pub struct SentLogWriter {
    lanes: Vec<Vec<Entry>>,
    written: Vec<u64>,
    blocks: SyncSender<Block>,
    spare: Receiver<Vec<Entry>>,
    thread: JoinHandle<Result<(), SentLogError>>,
}

struct Block {
    stream: u32,
    lane: Lane,
    first: u64,
    entries: Vec<Entry>,
}

impl SentLogWriter {
    /// Creates (or empties) the file and writes its header.
    pub fn create(path: &Path, about: &About) -> Result<SentLogWriter, SentLogError> {
        let mut file = LogFile::create(path)?;
        file.write(&header(about))?;
        let (blocks, incoming) = sync_channel::<Block>(QUEUED_BLOCKS);
        let (give_back, spare) = sync_channel(QUEUED_BLOCKS);
        let thread = std::thread::Builder::new()
            .name("sent-log".into())
            .spawn(move || write_blocks(file, &incoming, &give_back))
            .map_err(|source| SentLogError::Io {
                path: path.to_owned(),
                source,
            })?;
        let lanes = LANES * about.streams.len();
        Ok(SentLogWriter {
            lanes: (0..lanes).map(|_| Vec::new()).collect(),
            written: vec![0; lanes],
            blocks,
            spare,
            thread,
        })
    }

    /// Notes what became of the stream's next packet of this lane.
    pub fn note(&mut self, stream: u32, lane: Lane, entry: Entry) {
        let at = lane_index(stream, lane);
        self.lanes[at].push(entry);
        if self.lanes[at].len() == BLOCK_ENTRIES {
            self.flush(at);
        }
    }

    /// Notes that a stream has another SSRC from here on.
    pub fn note_ssrc(&mut self, stream: u32, from: SsrcFrom) {
        let entry = Entry {
            hash: u64::from(from.ssrc),
            sequence: from.sequence,
            flags: Flags::default(),
            intended_ns: from.at_ns,
            len: 0,
        };
        self.note(stream, Lane::Ssrc, entry);
    }

    fn flush(&mut self, at: usize) {
        let empty = self.spare.try_recv().unwrap_or_default();
        let entries = std::mem::replace(&mut self.lanes[at], empty);
        let first = self.written[at];
        self.written[at] += entries.len() as u64;
        // A failed send means that the thread ended with an error: `finish` reports it, and that the log is incomplete.
        let _ = self.blocks.send(Block {
            stream: (at / LANES) as u32,
            lane: [Lane::Rtp, Lane::Rtcp, Lane::Ssrc][at % LANES],
            first,
            entries,
        });
    }

    /// Writes what is still gathered and the end block, and waits until the file has it all (not for its durability: the
    /// log serves this machine, now).
    pub fn finish(mut self) -> Result<(), SentLogError> {
        for at in 0..self.lanes.len() {
            if !self.lanes[at].is_empty() {
                self.flush(at);
            }
        }
        drop(self.blocks);
        self.thread.join().expect("the sent log's thread does not panic")
    }
}

fn header(about: &About) -> Vec<u8> {
    let about = serde_json::to_vec(about).expect("texts and numbers are always JSON");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + about.len());
    bytes.extend_from_slice(&MAGIC);
    let about_bytes = u32::try_from(about.len()).expect("a million streams of 200 bytes are below 4 GiB");
    bytes.extend_from_slice(&about_bytes.to_le_bytes());
    bytes.extend_from_slice(&(BLOCK_ENTRIES as u32).to_le_bytes());
    bytes.extend_from_slice(&XxHash3_64::oneshot(&about).to_le_bytes());
    bytes.extend_from_slice(&about);
    bytes
}

fn block_bytes(stream: u32, lane: Lane, first: u64, entries: &[Entry], out: &mut Vec<u8>) {
    out.clear();
    out.reserve(BLOCK_HEADER_BYTES + ENTRY_BYTES * entries.len());
    out.extend_from_slice(&stream.to_le_bytes());
    out.extend_from_slice(&(lane as u16).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.resize(BLOCK_HEADER_BYTES, 0);
    for entry in entries {
        out.extend_from_slice(&entry.to_bytes());
    }
    let check = block_check(out);
    out[24..32].copy_from_slice(&check.to_le_bytes());
}

/// The log's thread: blocks to the file until the writer lets go of the channel.
fn write_blocks(
    mut file: LogFile,
    incoming: &Receiver<Block>,
    give_back: &SyncSender<Vec<Entry>>,
) -> Result<(), SentLogError> {
    let mut bytes = Vec::new();
    let mut flushed = Instant::now();
    // Whose log it is stands in the file before the first packet leaves.
    file.flush()?;
    loop {
        if flushed.elapsed() >= FLUSH_EVERY {
            file.flush()?;
            flushed = Instant::now();
        }
        let mut block = match incoming.recv_timeout(FLUSH_EVERY) {
            Ok(block) => block,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        block_bytes(block.stream, block.lane, block.first, &block.entries, &mut bytes);
        file.write(&bytes)?;
        block.entries.clear();
        // A full channel has spares enough; this one is simply freed.
        let _ = give_back.try_send(block.entries);
    }
    block_bytes(END, Lane::Rtp, 0, &[], &mut bytes);
    file.write(&bytes)?;
    file.flush()
}

struct LogFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl LogFile {
    fn create(path: &Path) -> Result<LogFile, SentLogError> {
        let error = |source| SentLogError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::create(path).map_err(error)?;
        Ok(LogFile {
            path: path.to_owned(),
            file: BufWriter::with_capacity(256 * 1024, file),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SentLogError> {
        self.file.write_all(bytes).map_err(|source| self.error(source))
    }

    fn flush(&mut self) -> Result<(), SentLogError> {
        self.file.flush().map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> SentLogError {
        SentLogError::Io {
            path: self.path.clone(),
            source,
        }
    }
}
