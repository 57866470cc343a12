//! The log that QEMU's `blklogwrites` keeps of a disk, in the format of Linux' dm-log-writes
//! (`Documentation/admin-guide/device-mapper/log-writes.rst`, QEMU `block/blklogwrites.c`).
//!
//! ```text
//!   sector 0   {magic u64, version u64, nr_entries u64, sectorsize u32}
//!   then       {sector u64, nr_sectors u64, flags u64, data_len u64} padded to a sector, nr_sectors of data; …
//! ```
//! Little-endian. An entry is appended when its request has completed, a flush when the disk has done it: so every write
//! whose completion the guest had seen before it flushed stands before that flush. What stands between two flushes
//! was not asked to be durable, and a cut may keep any part of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x6a_7366_7773_6872;
const SECTOR_BYTES: u64 = 512;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// What the disk was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Write these bytes of the log file to this place of the disk. `fua`: it was durable when it completed.
    Write { to: u64, from: u64, len: u64, fua: bool },
    /// Everything completed before is durable.
    Flush,
}

/// A disk's log.
#[derive(Debug)]
pub struct Writes {
    file: File,
    pub requests: Vec<Request>,
}

impl Writes {
    /// Reads the requests; their data stays in the file.
    pub fn open(path: &Path) -> io::Result<Writes> {
        let file = File::open(path)?;
        let mut head = [0; 28];
        file.read_exact_at(&mut head, 0)?;
        let sector_bytes = u32::from_le_bytes(head[24..28].try_into().expect("four bytes"));
        if u64_at(&head, 0) != MAGIC || u64_at(&head, 8) != 1 || u64::from(sector_bytes) != SECTOR_BYTES {
            return Err(io::Error::other(format!("no log of writes begins {head:02x?}")));
        }
        let mut requests = Vec::new();
        let mut at = SECTOR_BYTES;
        for _ in 0..u64_at(&head, 16) {
            let mut entry = [0; 32];
            file.read_exact_at(&mut entry, at)?;
            let (to, len) = (u64_at(&entry, 0) * SECTOR_BYTES, u64_at(&entry, 8) * SECTOR_BYTES);
            let flags = u64_at(&entry, 16);
            at += SECTOR_BYTES;
            if flags & FLUSH != 0 {
                requests.push(Request::Flush);
            }
            if flags & DISCARD != 0 {
                return Err(io::Error::other("a discard, which nobody asked the guest for"));
            }
            if len > 0 {
                let fua = flags & FUA != 0;
                requests.push(Request::Write {
                    to,
                    from: at,
                    len,
                    fua,
                });
                at += len;
            }
        }
        Ok(Writes { file, requests })
    }

    /// The bytes of a write.
    pub fn data(&self, from: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
