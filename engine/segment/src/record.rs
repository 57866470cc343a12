//! Records: the packets inside a CHUNK's plaintext, one after the other, dense and without alignment.
//!
//! ```text
//! record   0 len u16 · 2 flags u16 · 4 arrival_delta_us u32 · 8 packet[len]
//! ```
//!
//! They follow the 32-byte [`crate::body::ChunkHead`], whose `base_ns` the deltas count from, and fill the body
//! to its end.

use crate::block::{CHUNK_LEN, HEADER_LEN};
use crate::body::ChunkHead;
use crate::layout::{layout, put, u16_in, u32_in};

layout! {
    record_at: 8 =>
    0 2 LEN,
    2 2 FLAGS,
    4 4 DELTA_US,
}

/// Bytes that a record adds to its packet.
pub const RECORD_HEAD_LEN: usize = record_at::SIZE;

/// The longest packet that a 64 KiB chunk holds: 65,536 − 128 (header) − 32 (chunk head) − 8 (record head).
/// A UDP payload may be up to 65,507 bytes; what is longer than this cannot be stored.
pub const MAX_PACKET_LEN: usize = CHUNK_LEN - HEADER_LEN - ChunkHead::LEN - RECORD_HEAD_LEN;
const _: () = assert!(MAX_PACKET_LEN == 65_368);

/// Record flag: the packet is RTCP; without it, RTP. The other flag bits are 0 and ignored.
pub const RECORD_RTCP: u16 = 1;

/// Writes one record at `buf[at..]` and returns where the next one goes.
///
/// Panics if it does not fit; the caller compares [`record_len`] with what is left first.
#[inline]
pub fn push_record(buf: &mut [u8], at: usize, flags: u16, delta_us: u32, packet: &[u8]) -> usize {
    let len = u16::try_from(packet.len()).expect("a datagram is at most 65,507 bytes");
    let end = at + record_len(packet.len());
    let record = &mut buf[at..end];
    put(record, record_at::LEN, &len.to_le_bytes());
    put(record, record_at::FLAGS, &flags.to_le_bytes());
    put(record, record_at::DELTA_US, &delta_us.to_le_bytes());
    record[RECORD_HEAD_LEN..].copy_from_slice(packet);
    end
}

/// Makes the first of some records the one that deltas count from, as when a chunk begins with it. `records` are whole records and nothing
/// else. Returns by how much every delta became less, and the largest that is left.
///
/// A record that was stamped before the first one, by a clock that stepped, is stamped with it.
pub fn rebase(records: &mut [u8]) -> (u32, u32) {
    let (mut at, mut base_us, mut latest_us) = (0, 0, 0);
    while at < records.len() {
        let head = &mut records[at..at + RECORD_HEAD_LEN];
        let delta_us = u32_in(head, record_at::DELTA_US);
        if at == 0 {
            base_us = delta_us;
        }
        let rebased_us = delta_us.saturating_sub(base_us);
        put(head, record_at::DELTA_US, &rebased_us.to_le_bytes());
        latest_us = rebased_us.max(latest_us);
        at += record_len(usize::from(u16_in(head, record_at::LEN)));
    }
    (base_us, latest_us)
}

/// Bytes that a packet of `packet_len` bytes takes in a chunk.
pub const fn record_len(packet_len: usize) -> usize {
    RECORD_HEAD_LEN + packet_len
}

/// One record of a chunk: a packet and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// RTCP; else RTP.
    pub rtcp: bool,
    /// Arrival after the chunk's `base_ns`, in whole microseconds, rounded down.
    pub arrival_delta_us: u32,
    /// The packet as it was received.
    pub packet: &'a [u8],
}

/// A chunk whose records do not fill its body exactly. It was sealed so: the writer is at fault, not the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record at body byte {at} needs {needed} bytes, {left} are left")]
pub struct RecordError {
    /// The byte of the plaintext where the record begins.
    pub at: usize,
    /// Bytes that it asks for.
    pub needed: usize,
    /// Bytes that are left.
    pub left: usize,
}

/// Reads the records of an opened chunk. After an error it ends.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// `body` is the chunk's whole plaintext, head included.
    pub fn new(body: &'a [u8]) -> Self {
        Records {
            body,
            at: ChunkHead::LEN.min(body.len()),
        }
    }

    fn parse_next(&mut self) -> Result<Record<'a>, RecordError> {
        let at = self.at;
        let rest = &self.body[at..];
        let cut = |needed| RecordError {
            at,
            needed,
            left: rest.len(),
        };
        let head = rest.get(..RECORD_HEAD_LEN).ok_or(cut(RECORD_HEAD_LEN))?;
        let len = record_len(usize::from(u16_in(head, record_at::LEN)));
        let packet = rest.get(RECORD_HEAD_LEN..len).ok_or(cut(len))?;
        let flags = u16_in(head, record_at::FLAGS);
        self.at += len;
        let arrival_delta_us = u32_in(head, record_at::DELTA_US);
        Ok(Record {
            rtcp: flags & RECORD_RTCP != 0,
            arrival_delta_us,
            packet,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.body.len() {
            return None;
        }
        let record = self.parse_next();
        if record.is_err() {
            self.at = self.body.len();
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk_of(records: &[(bool, u32, Vec<u8>)]) -> Vec<u8> {
        let len = records.iter().map(|r| record_len(r.2.len())).sum::<usize>();
        let mut body = vec![0; ChunkHead::LEN + len];
        let mut at = ChunkHead::LEN;
        for (rtcp, delta_us, packet) in records {
            at = push_record(&mut body, at, u16::from(*rtcp), *delta_us, packet);
        }
        assert_eq!(at, body.len());
        body
    }

    proptest! {
        #[test]
        fn records_come_back_as_pushed(
            records in prop::collection::vec((any::<bool>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20)
        ) {
            let body = chunk_of(&records);
            let read: Vec<_> = Records::new(&body)
                .map(|r| r.map(|r| (r.rtcp, r.arrival_delta_us, r.packet.to_vec())))
                .collect::<Result<_, _>>()
                .expect("whole records");
            prop_assert_eq!(read, records);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_end(body in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(Records::new(&body).count() <= body.len() / RECORD_HEAD_LEN + 1);
        }
    }

    #[test]
    fn deltas_count_from_the_first_record_that_is_left() {
        let mut body = chunk_of(&[
            (false, 1, vec![1; 10]),
            (true, 700, vec![2; 20]),
            (false, 950, vec![]),
            (false, 0, vec![3; 5]),
        ]);
        let second = ChunkHead::LEN + record_len(10);
        assert_eq!(rebase(&mut body[second..]), (700, 250));
        let read = Records::new(&body).map(|r| r.map(|r| (r.rtcp, r.arrival_delta_us, r.packet.len())));
        let read: Vec<_> = read.collect::<Result<_, _>>().expect("whole records");
        assert_eq!(
            read,
            [(false, 1, 10), (true, 0, 20), (false, 250, 0), (false, 0, 5)]
        );
        assert_eq!(rebase(&mut []), (0, 0));
    }

    #[test]
    fn a_cut_record_is_an_error_once_and_then_the_end() {
        let mut body = chunk_of(&[(false, 0, vec![1; 10]), (true, 7, vec![2; 10])]);
        body.pop();
        let read: Vec<_> = Records::new(&body).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(
            read[1],
            Err(RecordError {
                at: 32 + 18,
                needed: 18,
                left: 17
            })
        );
    }
}
