//! Which slot of which segment is whose: what no segment tells, and erasing and releasing have to know.
//!
//! Per day one file, one frame for each segment, appended before the segment exists:
//!
//! ```text
//!  0  4 magic "HSLS"   4  4 rows       8 16 segment_id   24 16 run_id    40  4 shard   44 8 chain_seq
//! 52  8 created_s     60 24 × rows: owner[16] · tag u32 · slot u32       then 8 bytes: SHA-256 of all before it, its first 8
//! ```
//!
//! A crash may tear the last frame; the next writer cuts it off. A thousand erasable customers cost 24 KB a segment.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use harborseal_segment::ids::{RunId, SegmentId};
use sha2::{Digest, Sha256};

use super::{Owner, StoreError, files};

/// The file in its day's folder.
pub(super) const NAME: &str = "slots";
const MAGIC: [u8; 4] = *b"HSLS";
const HEAD_LEN: usize = 60;
const ROW_LEN: usize = 24;
const SUM_LEN: usize = 8;

/// A segment that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSegment {
    /// The segment.
    pub segment_id: SegmentId,
    /// Its run, and with the shard its chain.
    pub run_id: RunId,
    /// Its shard.
    pub shard: u32,
    /// Its place in its chain.
    pub chain_seq: u64,
    /// When it was made, which decides its day.
    pub created_s: u64,
}

/// One owner's slot in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: NewSegment,
    /// The slot there.
    pub slot: u32,
    /// The tag of the key that its E comes from.
    pub tag: u32,
}

/// One row: whose, under which key, which slot.
pub(super) type Row = (Owner, u32, u32);

pub(super) fn encode(segment: &NewSegment, rows: &[Row]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD_LEN + rows.len() * ROW_LEN + SUM_LEN);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    frame.extend_from_slice(&segment.segment_id.0);
    frame.extend_from_slice(&segment.run_id.0);
    frame.extend_from_slice(&segment.shard.to_le_bytes());
    frame.extend_from_slice(&segment.chain_seq.to_le_bytes());
    frame.extend_from_slice(&segment.created_s.to_le_bytes());
    for (owner, tag, slot) in rows {
        frame.extend_from_slice(&owner.0);
        frame.extend_from_slice(&tag.to_le_bytes());
        frame.extend_from_slice(&slot.to_le_bytes());
    }
    let sum = Sha256::digest(&frame);
    frame.extend_from_slice(&sum[..SUM_LEN]);
    frame
}

/// The whole frames from the beginning on, and where they end.
fn frames(bytes: &[u8]) -> (Vec<(NewSegment, Vec<Row>)>, usize) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some((segment, rows, len)) = frame(&bytes[at..]) {
        found.push((segment, rows));
        at += len;
    }
    (found, at)
}

fn frame(bytes: &[u8]) -> Option<(NewSegment, Vec<Row>, usize)> {
    let head = bytes.get(..HEAD_LEN)?;
    (head[..4] == MAGIC).then_some(())?;
    let count = u32_at(head, 4) as usize;
    let body_end = HEAD_LEN.checked_add(count.checked_mul(ROW_LEN)?)?;
    let sum = bytes.get(body_end..body_end + SUM_LEN)?;
    (Sha256::digest(&bytes[..body_end])[..SUM_LEN] == *sum).then_some(())?;
    let segment = NewSegment {
        segment_id: SegmentId(array_at(head, 8)),
        run_id: RunId(array_at(head, 24)),
        shard: u32_at(head, 40),
        chain_seq: u64::from_le_bytes(array_at(head, 44)),
        created_s: u64::from_le_bytes(array_at(head, 52)),
    };
    let rows = bytes[HEAD_LEN..body_end].chunks_exact(ROW_LEN);
    let row = |row: &[u8]| (Owner(array_at(row, 0)), u32_at(row, 16), u32_at(row, 20));
    Some((segment, rows.map(row).collect(), body_end + SUM_LEN))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// Appends a frame durably, behind the last whole one.
pub(super) fn append(path: &Path, frame: &[u8]) -> Result<(), StoreError> {
    let append = || {
        let bytes = read_or_empty(path)?;
        let new = bytes.is_empty();
        let mut file = files::open_private(path)?;
        let (_, end) = frames(&bytes);
        file.set_len(end as u64)?;
        file.seek(SeekFrom::Start(end as u64))?;
        file.write_all(frame)?;
        file.sync_all()?;
        match path.parent().filter(|_| new) {
            Some(folder) => crate::uring::sys::sync_directory(folder),
            None => Ok(()),
        }
    };
    append().map_err(StoreError::io("write", path))
}

/// The places of one owner.
pub(super) fn read(path: &Path, owner: Owner) -> Result<Vec<Place>, StoreError> {
    let bytes = read_or_empty(path).map_err(StoreError::io("read", path))?;
    let (frames, _) = frames(&bytes);
    let mut places = Vec::new();
    for (segment, rows) in frames {
        let own = rows.into_iter().filter(|(whose, ..)| *whose == owner);
        places.extend(own.map(|(_, tag, slot)| Place { segment, slot, tag }));
    }
    Ok(places)
}

/// Whether there is no row in it any more.
pub(super) fn is_empty(path: &Path) -> Result<bool, StoreError> {
    let bytes = read_or_empty(path).map_err(StoreError::io("read", path))?;
    Ok(frames(&bytes).0.iter().all(|(_, rows)| rows.is_empty()))
}

/// Takes out what was an owner's under these keys.
pub(super) fn forget(path: &Path, owner: Owner, tags: &[u32]) -> Result<(), StoreError> {
    let bytes = read_or_empty(path).map_err(StoreError::io("read", path))?;
    if bytes.is_empty() {
        return Ok(());
    }
    let mut left = Vec::new();
    for (segment, mut rows) in frames(&bytes).0 {
        rows.retain(|(whose, tag, _)| *whose != owner || !tags.contains(tag));
        if !rows.is_empty() {
            left.extend_from_slice(&encode(&segment, &rows));
        }
    }
    files::replace(path, &left)
}

fn read_or_empty(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        bytes => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(n: u8) -> NewSegment {
        NewSegment {
            segment_id: SegmentId([n; 16]),
            run_id: RunId([9; 16]),
            shard: 3,
            chain_seq: 7,
            created_s: 1_795_491_127,
        }
    }

    const ALICE: Owner = Owner([1; 16]);
    const BOB: Owner = Owner([2; 16]);

    #[test]
    fn places_come_back_and_a_torn_frame_is_cut_off_by_the_next() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(NAME);
        let first = encode(&segment(1), &[(ALICE, 5, 0), (BOB, 6, 1)]);
        append(&path, &first).expect("appended");
        for cut in 1..first.len() {
            let mut torn = first.clone();
            torn.extend_from_slice(&first[..cut]);
            std::fs::write(&path, &torn).expect("written");
            append(&path, &encode(&segment(2), &[(ALICE, 5, 4)])).expect("appended");
            let places = read(&path, ALICE).expect("read");
            let of = |n, slot| Place {
                segment: segment(n),
                slot,
                tag: 5,
            };
            assert_eq!(places, [of(1, 0), of(2, 4)], "torn after {cut} bytes");
        }
    }

    #[test]
    fn what_is_forgotten_is_one_owners_under_the_keys_that_are_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(NAME);
        append(&path, &encode(&segment(1), &[(ALICE, 5, 0), (BOB, 6, 1)])).expect("appended");
        append(&path, &encode(&segment(2), &[(ALICE, 8, 2)])).expect("appended");
        forget(&path, ALICE, &[5]).expect("forgotten");
        assert_eq!(read(&path, BOB).expect("read").len(), 1);
        let left = read(&path, ALICE).expect("read");
        assert_eq!((left.len(), left[0].tag), (1, 8));
        forget(&path, BOB, &[6]).expect("forgotten");
        forget(&path, ALICE, &[8]).expect("forgotten");
        assert!(is_empty(&path).expect("read"));
    }
}
