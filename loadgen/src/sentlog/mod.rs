//! The sent log: packet by packet, what became of everything that was due, so that what was stored can be compared with it and
//! with nothing else. A folder with a log needs neither profile nor seed to be verified: whose streams these are stands in it.
//!
//! Each stream has three lanes, each in the order of what happened: RTP packets as they were handed to the kernel (lost ones
//! where they would have been), RTCP packets, and the SSRCs a stream took later. The file (little-endian):
//!
//! ```text
//! header  24   magic "HSSENT2\n" · about_bytes u32 · block_entries u32 · check u64 (XXH3 of `about`)
//! about        JSON, about_bytes long: [`About`]
//! block   32   stream u32 (0xFFFF_FFFF: the end) · lane u16 · reserved u16 · first entry u64 · entries u32 · reserved u32 ·
//!              check u64 (XXH3 of the 24 bytes before and the entries)
//! entry   24×  hash u64 · sequence u48, flags u16 · intended u48 (µs from the start), length u16
//! ```
//!
//! Blocks of one lane follow each other without gaps; the end block says that the run was closed and nothing is missing.
//! Memory: 3 KiB per lane in use while writing (12 MiB at 4,000 streams); one block while reading, and 16 bytes per block.

mod read;
mod write;

pub use read::{Entries, SentLog};
pub use write::SentLogWriter;

use crate::plan::Media;
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::{BitOr, BitOrAssign};
use std::path::PathBuf;
use twox_hash::XxHash3_64;

const MAGIC: [u8; 8] = *b"HSSENT2\n";
const MAGIC_1: [u8; 8] = *b"HSSENT1\n";
const HEADER_BYTES: usize = 24;
const BLOCK_HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 24;
const END: u32 = u32::MAX;
/// Entries a lane gathers before they go to the file: at 100 packets/s and camera, a block each 1.3 s.
const BLOCK_ENTRIES: usize = 128;
const U48_MAX: u64 = (1 << 48) - 1;

/// The hash of a packet as the log states it; never 0.
///
/// XXH3 (64 bit) as `twox-hash` has it: 27 ns for 1,200 bytes here, chosen by processor at run time; `xxhash-rust` took 38.
/// It guards against mistakes, not against forgers: two of 10^7 packets collide with a probability under 10^-5.
pub fn packet_hash(packet: &[u8]) -> u64 {
    XxHash3_64::oneshot(packet).max(1)
}

/// What a log's entries are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Rtp,
    Rtcp,
    /// SSRCs that a stream took after its first one: see [`SentLog::ssrcs`].
    Ssrc,
}

const LANES: usize = 3;

/// Whose log it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub plan: String,
    pub seed: u64,
    /// The key of the run's marks (see [`crate::mark::Mark::read`]).
    pub run: u64,
    /// CLOCK_REALTIME of the schedule's 0, nanoseconds.
    pub start_ns: u64,
    pub targets: Vec<String>,
    /// By the number their marks carry.
    pub streams: Vec<LoggedStream>,
}

/// One stream of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedStream {
    pub camera: String,
    pub customer: String,
    pub group: String,
    pub media: Media,
    /// The first one; a restart takes another.
    pub ssrc: u32,
    /// Index into [`About::targets`].
    pub target: u32,
    /// Whether the engine is told of it. What the others send must be refused.
    pub known: bool,
}

/// An SSRC of a stream, and from where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SsrcFrom {
    pub ssrc: u32,
    /// The mark's sequence number of the first packet with it.
    pub sequence: u64,
    pub at_ns: u64,
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// [`packet_hash`] of the bytes that left; 0 where none did.
    pub hash: u64,
    /// The mark's sequence number; in the RTCP lane the report's number. 48 bits: at 10^6 packets/s nine years.
    pub sequence: u64,
    pub flags: Flags,
    /// When it was due, from the start, to the microsecond.
    pub intended_ns: u64,
    /// Bytes that left, or would have.
    pub len: u16,
}

/// What is said of a packet; several may hold.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// The kernel took it.
    pub const SENT: Flags = Flags(1);
    /// The kernel refused it: the generator's own loss.
    pub const FAILED: Flags = Flags(1 << 1);
    /// Lost on purpose: never handed to the kernel.
    pub const LOST: Flags = Flags(1 << 2);
    /// A second copy; the first has an entry of its own.
    pub const DUPLICATE: Flags = Flags(1 << 3);
    /// Bits of its payload were flipped.
    pub const CORRUPT: Flags = Flags(1 << 4);
    /// Cut, within its payload: still RTP.
    pub const TRUNCATED: Flags = Flags(1 << 5);
    /// Cut before its payload: no receiver may take it for RTP of ours.
    pub const RUNT: Flags = Flags(1 << 6);
    /// Took a place behind packets that were due after it.
    pub const DELAYED: Flags = Flags(1 << 7);
    /// Of nobody the engine knows (an unknown group, a new SSRC, a new source port): it must be refused.
    pub const STRANGER: Flags = Flags(1 << 8);

    const NAMES: [&'static str; 9] = [
        "SENT",
        "FAILED",
        "LOST",
        "DUPLICATE",
        "CORRUPT",
        "TRUNCATED",
        "RUNT",
        "DELAYED",
        "STRANGER",
    ];

    /// Whether all of these are set.
    pub fn has(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether the packet left and a receiver that knows its cameras must take it.
    pub fn fit_to_store(self) -> bool {
        self.has(Flags::SENT) && self.0 & (Flags::RUNT.0 | Flags::STRANGER.0) == 0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = (0..Flags::NAMES.len()).filter(|bit| self.0 >> bit & 1 == 1);
        let names: Vec<&str> = set.map(|bit| Flags::NAMES[bit]).collect();
        f.write_str(&names.join("|"))
    }
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let words = [
            self.hash,
            self.sequence & U48_MAX | u64::from(self.flags.0) << 48,
            (self.intended_ns / 1000).min(U48_MAX) | u64::from(self.len) << 48,
        ];
        let mut bytes = [0; ENTRY_BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let [hash, numbers, time] = [0, 8, 16].map(|at| u64_at(bytes, at));
        Entry {
            hash,
            sequence: numbers & U48_MAX,
            flags: Flags((numbers >> 48) as u16),
            intended_ns: (time & U48_MAX) * 1000,
            len: (time >> 48) as u16,
        }
    }
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

fn lane_index(stream: u32, lane: Lane) -> usize {
    LANES * stream as usize + lane as usize
}

fn block_check(block: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&block[..24]), &block[BLOCK_HEADER_BYTES..])
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
pub(crate) mod tests;
