//! The sent log: packet by packet, what really left, so that what was stored can be compared with it and with nothing else.
//!
//! Each stream has two lanes, RTP and RTCP: a 64-bit hash per packet, in sending order. The RTP lane is indexed by the
//! mark's sequence number; a packet that was due but could not be sent has the entry 0. The file (little-endian):
//!
//! ```text
//! header  48   magic "HSSENT1\n" · run u64 · start_ns u64 · streams u32 · block_entries u32 · reserved [16]
//! stream   8×  ssrc u32 · target u32 (index of the address it sent to)
//! block        stream u32 (0xFFFF_FFFF: the end) · lane u16 (0 RTP, 1 RTCP) · reserved u16 · first entry u64 ·
//!              entries u32 · reserved u32 · check u64 (XXH3 of the 24 bytes before and the entries) · entries × u64
//! ```
//!
//! Blocks of one lane follow each other without gaps; the end block says that the run was closed and nothing is missing.
//! Memory: 1 KiB per lane while writing (8 MiB at 4,000 cameras); one block while reading, and 24 bytes per block.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use twox_hash::XxHash3_64;

const MAGIC: [u8; 8] = *b"HSSENT1\n";
const HEADER_BYTES: usize = 48;
const STREAM_BYTES: usize = 8;
const BLOCK_HEADER_BYTES: usize = 32;
const END: u32 = u32::MAX;
/// Entries a lane gathers before they go to the file: at 100 packets/s and camera, a block each 1.3 s.
const BLOCK_ENTRIES: usize = 128;
/// Blocks on their way to the file's thread: 4,096 × 1 KiB, more than four seconds of 4,000 cameras. Only a disk that
/// stands still that long makes the sender wait, and then its lateness shows it.
const QUEUED_BLOCKS: usize = 4096;
/// The entry of a packet that was not sent.
const NOT_SENT: u64 = 0;

/// The hash of a packet as the log states it; never 0.
///
/// XXH3 (64 bit) as `twox-hash` has it: 27 ns for 1,200 bytes here, chosen by processor at run time; `xxhash-rust` took 38.
/// It guards against mistakes, not against forgers: two of 10^7 packets collide with a probability under 10^-5.
pub fn packet_hash(packet: &[u8]) -> u64 {
    XxHash3_64::oneshot(packet).max(1)
}

/// RTP or RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Rtp,
    Rtcp,
}

/// One stream of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedStream {
    pub ssrc: u32,
    /// Index of the target address it was sent to.
    pub target: u32,
}

/// Why a sent log could not be written or read. Every text names the file.
#[derive(Debug, thiserror::Error)]
pub enum SentLogError {
    #[error("sent log {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("sent log {path}: damaged at byte {offset}: {what}")]
    Damaged {
        path: PathBuf,
        offset: u64,
        what: &'static str,
    },
}

/// Writes a log; its file work is done by a thread of its own, so that a busy disk does not delay the next packet.
pub struct SentLogWriter {
    lanes: Vec<Vec<u64>>,
    written: Vec<u64>,
    blocks: SyncSender<Block>,
    spare: Receiver<Vec<u64>>,
    thread: JoinHandle<Result<(), SentLogError>>,
}

struct Block {
    stream: u32,
    lane: Lane,
    first: u64,
    entries: Vec<u64>,
}

impl SentLogWriter {
    /// Creates (or empties) the file and writes its header. `run` is the key of the marks, `start_ns` the real time of the
    /// schedule's 0.
    pub fn create(
        path: &Path,
        run: u64,
        start_ns: u64,
        streams: &[LoggedStream],
    ) -> Result<SentLogWriter, SentLogError> {
        let mut file = LogFile::create(path)?;
        file.write(&header(run, start_ns, streams))?;
        let (blocks, incoming) = sync_channel::<Block>(QUEUED_BLOCKS);
        let (give_back, spare) = sync_channel(QUEUED_BLOCKS);
        let thread = std::thread::Builder::new()
            .name("sent-log".into())
            .spawn(move || write_blocks(file, &incoming, &give_back))
            .map_err(|source| SentLogError::Io {
                path: path.to_owned(),
                source,
            })?;
        Ok(SentLogWriter {
            lanes: (0..2 * streams.len()).map(|_| Vec::new()).collect(),
            written: vec![0; 2 * streams.len()],
            blocks,
            spare,
            thread,
        })
    }

    /// Notes the stream's next packet of this lane: sent as these bytes.
    pub fn sent(&mut self, stream: u32, lane: Lane, packet: &[u8]) {
        self.push(stream, lane, packet_hash(packet));
    }

    /// Notes that the stream's next RTP packet could not be sent.
    pub fn not_sent(&mut self, stream: u32) {
        self.push(stream, Lane::Rtp, NOT_SENT);
    }

    fn push(&mut self, stream: u32, lane: Lane, entry: u64) {
        let at = lane_index(stream, lane);
        self.lanes[at].push(entry);
        if self.lanes[at].len() == BLOCK_ENTRIES {
            self.flush(stream, lane);
        }
    }

    fn flush(&mut self, stream: u32, lane: Lane) {
        let at = lane_index(stream, lane);
        let empty = self.spare.try_recv().unwrap_or_default();
        let entries = std::mem::replace(&mut self.lanes[at], empty);
        let first = self.written[at];
        self.written[at] += entries.len() as u64;
        // A failed send means that the thread ended with an error: `finish` reports it, and that the log is incomplete.
        let _ = self.blocks.send(Block {
            stream,
            lane,
            first,
            entries,
        });
    }

    /// Writes what is still gathered and the end block, and waits until the file has it all (not for its durability: the
    /// log serves this machine, now).
    pub fn finish(mut self) -> Result<(), SentLogError> {
        for at in 0..self.lanes.len() {
            if !self.lanes[at].is_empty() {
                let lane = if at % 2 == 0 { Lane::Rtp } else { Lane::Rtcp };
                self.flush((at / 2) as u32, lane);
            }
        }
        drop(self.blocks);
        self.thread.join().expect("the sent log's thread does not panic")
    }
}

fn lane_index(stream: u32, lane: Lane) -> usize {
    2 * stream as usize + usize::from(lane == Lane::Rtcp)
}

fn header(run: u64, start_ns: u64, streams: &[LoggedStream]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + STREAM_BYTES * streams.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&run.to_le_bytes());
    bytes.extend_from_slice(&start_ns.to_le_bytes());
    bytes.extend_from_slice(&(streams.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(BLOCK_ENTRIES as u32).to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    for stream in streams {
        bytes.extend_from_slice(&stream.ssrc.to_le_bytes());
        bytes.extend_from_slice(&stream.target.to_le_bytes());
    }
    bytes
}

fn block_bytes(stream: u32, lane: Lane, first: u64, entries: &[u64], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&stream.to_le_bytes());
    out.extend_from_slice(&u16::from(lane == Lane::Rtcp).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.resize(BLOCK_HEADER_BYTES, 0);
    for entry in entries {
        out.extend_from_slice(&entry.to_le_bytes());
    }
    let check = block_check(out);
    out[24..32].copy_from_slice(&check.to_le_bytes());
}

fn block_check(block: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&block[..24]), &block[BLOCK_HEADER_BYTES..])
}

/// The log's thread: blocks to the file until the writer lets go of the channel.
fn write_blocks(
    mut file: LogFile,
    incoming: &Receiver<Block>,
    give_back: &SyncSender<Vec<u64>>,
) -> Result<(), SentLogError> {
    let mut bytes = Vec::new();
    while let Ok(mut block) = incoming.recv() {
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

/// A log on disk, opened for reading.
pub struct SentLog {
    path: PathBuf,
    file: File,
    run: u64,
    start_ns: u64,
    streams: Vec<LoggedStream>,
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
        let damaged = |offset, what| SentLogError::Damaged {
            path: path.to_owned(),
            offset,
            what,
        };
        let mut file = File::open(path).map_err(io_error)?;
        let len = file.metadata().map_err(io_error)?.len();
        let mut header = [0u8; HEADER_BYTES];
        file.read_exact(&mut header)
            .map_err(|_| damaged(0, "no whole header: not a sent log"))?;
        if header[..8] != MAGIC {
            return Err(damaged(0, "not a sent log"));
        }
        let streams = u64::from(u32_at(&header, 24));
        if HEADER_BYTES as u64 + streams * STREAM_BYTES as u64 > len {
            return Err(damaged(24, "the stream table is cut"));
        }
        let mut table = vec![0u8; STREAM_BYTES * streams as usize];
        file.read_exact(&mut table).map_err(io_error)?;
        let streams: Vec<LoggedStream> = table
            .chunks_exact(STREAM_BYTES)
            .map(|row| LoggedStream {
                ssrc: u32_at(row, 0),
                target: u32_at(row, 4),
            })
            .collect();
        let mut log = SentLog {
            path: path.to_owned(),
            run: u64_at(&header, 8),
            start_ns: u64_at(&header, 16),
            lanes: vec![Vec::new(); 2 * streams.len()],
            streams,
            complete: false,
            file,
        };
        log.find_blocks(len)?;
        Ok(log)
    }

    fn find_blocks(&mut self, len: u64) -> Result<(), SentLogError> {
        let mut offset = (HEADER_BYTES + STREAM_BYTES * self.streams.len()) as u64;
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
            let (stream, rtcp, entries) = (u32_at(&head, 0), head[4] == 1, u32_at(&head, 16));
            if stream == END {
                self.complete = true;
                break;
            }
            let lane = 2 * stream as usize + usize::from(rtcp);
            let in_order = next_entry.get(lane) == Some(&u64_at(&head, 8));
            if !in_order || entries == 0 || entries as usize > BLOCK_ENTRIES {
                return Err(self.damaged(offset, "no block of the stream's next entries"));
            }
            let end = offset + BLOCK_HEADER_BYTES as u64 + 8 * u64::from(entries);
            if end > len {
                break; // cut in the middle of a block: its sender was killed
            }
            self.lanes[lane].push(BlockAt { offset, entries });
            next_entry[lane] += u64::from(entries);
            reader
                .seek_relative(8 * i64::from(entries))
                .map_err(|source| self.io_error(source))?;
            offset = end;
        }
        Ok(())
    }

    /// The streams, by their index in the fleet.
    pub fn streams(&self) -> &[LoggedStream] {
        &self.streams
    }

    /// The key of the run's marks (see [`crate::mark::Mark::read`]).
    pub fn run(&self) -> u64 {
        self.run
    }

    /// CLOCK_REALTIME of the schedule's start, nanoseconds.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// Whether the sender closed it: then it misses nothing.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// A stream's packets in sending order: the hash ([`packet_hash`]) of each, `None` for one that was due and not sent.
    /// An unknown stream has none.
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

    fn read_block(&self, block: BlockAt, bytes: &mut Vec<u8>) -> Result<(), SentLogError> {
        bytes.resize(BLOCK_HEADER_BYTES + 8 * block.entries as usize, 0);
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
    type Item = Result<Option<u64>, SentLogError>;

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
        let entry = u64_at(&self.bytes, self.at);
        self.at += 8;
        Some(Ok((entry != NOT_SENT).then_some(entry)))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        *bytes[at..]
            .first_chunk()
            .expect("offsets are inside fixed-size rows"),
    )
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        *bytes[at..]
            .first_chunk()
            .expect("offsets are inside fixed-size rows"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAMS: [LoggedStream; 3] = [
        LoggedStream { ssrc: 10, target: 0 },
        LoggedStream { ssrc: 11, target: 1 },
        LoggedStream { ssrc: 12, target: 0 },
    ];

    fn log_of_300_packets(path: &Path) {
        let mut writer = SentLogWriter::create(path, 7, 99, &STREAMS).expect("a temporary file");
        for at in 0..300u32 {
            writer.sent(0, Lane::Rtp, &at.to_be_bytes());
            if at % 3 == 0 {
                writer.not_sent(2);
            } else {
                writer.sent(2, Lane::Rtp, b"same");
            }
        }
        writer.sent(2, Lane::Rtcp, b"report");
        writer.finish().expect("a temporary file");
    }

    fn entries(log: &SentLog, stream: u32, lane: Lane) -> Vec<Option<u64>> {
        log.packets(stream, lane)
            .collect::<Result<_, _>>()
            .expect("an undamaged log")
    }

    #[test]
    fn what_was_written_reads_back_per_stream_and_lane_in_order() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("sent");
        log_of_300_packets(&path);
        let log = SentLog::open(&path).expect("just written");
        assert!(log.complete());
        assert_eq!((log.run(), log.start_ns(), log.streams()), (7, 99, &STREAMS[..]));
        let first: Vec<_> = (0..300u32)
            .map(|at| Some(packet_hash(&at.to_be_bytes())))
            .collect();
        assert_eq!(entries(&log, 0, Lane::Rtp), first);
        assert_eq!(entries(&log, 1, Lane::Rtp), []);
        let third = entries(&log, 2, Lane::Rtp);
        assert_eq!(third.len(), 300);
        assert!((0..300).all(|at| third[at].is_none() == (at % 3 == 0)));
        assert_eq!(entries(&log, 2, Lane::Rtcp), [Some(packet_hash(b"report"))]);
        assert_eq!(entries(&log, 77, Lane::Rtp), []);
    }

    #[test]
    fn a_log_cut_anywhere_is_incomplete_and_never_invents_an_entry() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("sent");
        log_of_300_packets(&path);
        let whole = std::fs::read(&path).expect("just written");
        let good = SentLog::open(&path).expect("just written");
        let all = entries(&good, 0, Lane::Rtp);
        for len in (0..whole.len()).step_by(11) {
            let cut = dir.path().join("cut");
            std::fs::write(&cut, &whole[..len]).expect("a temporary file");
            if let Ok(log) = SentLog::open(&cut) {
                assert!(!log.complete(), "cut at {len}");
                assert!(all.starts_with(&entries(&log, 0, Lane::Rtp)));
            }
        }
    }

    #[test]
    fn a_changed_entry_is_found() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("sent");
        log_of_300_packets(&path);
        let mut bytes = std::fs::read(&path).expect("just written");
        bytes[HEADER_BYTES + 3 * STREAM_BYTES + BLOCK_HEADER_BYTES + 5] ^= 1;
        std::fs::write(&path, bytes).expect("a temporary file");
        let log = SentLog::open(&path).expect("the structure is whole");
        let damaged = (0..3)
            .flat_map(|stream| log.packets(stream, Lane::Rtp))
            .any(|entry| entry.is_err());
        assert!(damaged);
    }

    #[test]
    fn a_foreign_file_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("holiday.jpg");
        std::fs::write(&path, [0xff; 100]).expect("a temporary file");
        let error = SentLog::open(&path).err().expect("not a log").to_string();
        assert!(
            error.contains("holiday.jpg") && error.contains("not a sent log"),
            "{error}"
        );
    }
}
