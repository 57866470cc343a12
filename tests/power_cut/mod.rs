//! Power cuts on a real kernel: a guest under QEMU records on a disk whose every write and flush is logged, and the
//! disk as it was at any moment of its life is built again from that log.
//!
//! ```text
//!   host                               guest (Debian's kernel, nothing but an initramfs)
//!   mkfs ─▶ disk.img ◀─ blklogwrites ◀─ /dev/vda: file system │ marks
//!                           │              engine writes ─────┘     │
//!                        log.img           what it called durable ──┘
//! ```
//! What the engine says is written behind the file system, on the same disk: so the log itself says what had been
//! called durable before each write, and no clock of two machines has to be compared.

pub mod guest;
pub mod initramfs;
pub mod replay;
pub mod writes;

use serde_json::Value;

/// Bytes of the disk that the file system may use. XFS wants 300 MiB at least.
pub const FS_BYTES: u64 = 320 << 20;
/// Where the marks begin: right behind it.
pub const MARKS_AT: u64 = FS_BYTES;
/// Bytes of one mark: JSON lines, padded with zeros. A direct write of the guest.
pub const MARK_BYTES: usize = 4096;
/// The whole disk.
pub const DISK_BYTES: u64 = FS_BYTES + (64 << 20);

/// The events in one mark.
pub fn events_of(mark: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(mark);
    let lines = text.trim_end_matches('\0').lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a mark holds JSON lines"))
        .collect()
}
