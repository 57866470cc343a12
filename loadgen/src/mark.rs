//! The mark: a header extension on every RTP packet that says which packet of which run it is and when it was due, so that
//! a stored packet can be matched exactly with what was sent, and latency counted from the intended time.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1      RFC 8285 §4.3, two-byte form: the element is
//! +-------------------------------+-------------------------------+     longer than the 16 bytes of the one-byte form
//! |  0x1000: two-byte elements    |  length = 8 (32-bit words)    |
//! +---------------+---------------+-------------------------------+
//! |  id = 1       |  length = 28  |  magic "HSLG", first half     |
//! +---------------+---------------+-------------------------------+
//! |  magic, second half           |  stream index, upper half …   |     then, big-endian: stream u32, sequence u64,
//! +-------------------------------+-------------------------------+     intended_ns u64, check u32, two bytes padding
//! ```

use twox_hash::XxHash3_64;

/// Size of the whole extension in a packet, with its four-byte extension header.
pub const MARK_BYTES: usize = 36;
/// RFC 8285 local identifier of the element; the SDP names it with [`MARK_URI`].
pub const MARK_ID: u8 = 1;
pub const MARK_URI: &str = "urn:x-harborseal:loadgen:mark:1";

const RTP_HEADER_BYTES: usize = 12;
const TWO_BYTE_FORM: u16 = 0x1000;
const ELEMENT_BYTES: usize = 28;
const MAGIC: [u8; 4] = *b"HSLG";
const WORDS: u16 = ((MARK_BYTES - 4) / 4) as u16;
const _: () = assert!(4 + 2 + ELEMENT_BYTES + 2 == MARK_BYTES && MARK_BYTES.is_multiple_of(4));

/// Which packet this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The stream's index in its fleet, from 0.
    pub stream: u32,
    /// The packet's number in its stream, from 0, never wrapping; a packet that could not be sent leaves a hole.
    pub sequence: u64,
    /// When the schedule wanted it sent: CLOCK_REALTIME, nanoseconds since 1970.
    pub intended_ns: u64,
}

impl Mark {
    /// The extension as it stands behind the fixed RTP header. `run` keys the check, so that packets of another run (or
    /// of a camera that happens to use the same bytes) are not taken for ours.
    pub fn write(&self, run: u64, out: &mut [u8; MARK_BYTES]) {
        out[0..2].copy_from_slice(&TWO_BYTE_FORM.to_be_bytes());
        out[2..4].copy_from_slice(&WORDS.to_be_bytes());
        out[4..6].copy_from_slice(&[MARK_ID, ELEMENT_BYTES as u8]);
        out[6..10].copy_from_slice(&MAGIC);
        out[10..14].copy_from_slice(&self.stream.to_be_bytes());
        out[14..22].copy_from_slice(&self.sequence.to_be_bytes());
        out[22..30].copy_from_slice(&self.intended_ns.to_be_bytes());
        let check = check(run, &out[6..30]);
        out[30..34].copy_from_slice(&check);
        out[34..36].fill(0);
    }

    /// The mark of an RTP packet of run `run`; `None` where there is none, or its check fails.
    pub fn read(packet: &[u8], run: u64) -> Option<Mark> {
        let sources = usize::from(packet.first()? & 0x0f);
        let at = RTP_HEADER_BYTES + 4 * sources;
        let mark: &[u8; MARK_BYTES] = packet.get(at..)?.first_chunk()?;
        let has_extension = packet[0] & 0x10 != 0;
        let ours = mark[0..2] == TWO_BYTE_FORM.to_be_bytes() && mark[6..10] == MAGIC;
        if !(has_extension && ours && mark[30..34] == check(run, &mark[6..30])) {
            return None;
        }
        let u64_at = |at: usize| u64::from_be_bytes(*mark[at..].first_chunk().expect("inside the mark"));
        Some(Mark {
            stream: u32::from_be_bytes(*mark[10..].first_chunk().expect("inside the mark")),
            sequence: u64_at(14),
            intended_ns: u64_at(22),
        })
    }
}

fn check(run: u64, bytes: &[u8]) -> [u8; 4] {
    (XxHash3_64::oneshot_with_seed(run, bytes) as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        stream: 70_000,
        sequence: 1 << 40,
        intended_ns: 1_790_000_000_123_456_789,
    };

    fn packet() -> Vec<u8> {
        let mut packet = vec![0u8; RTP_HEADER_BYTES + MARK_BYTES + 3];
        packet[0] = 0x90;
        let mark = packet[RTP_HEADER_BYTES..]
            .first_chunk_mut()
            .expect("room for the mark");
        MARK.write(9, mark);
        packet
    }

    #[test]
    fn a_mark_reads_back() {
        assert_eq!(Mark::read(&packet(), 9), Some(MARK));
    }

    #[test]
    fn any_changed_bit_another_run_or_a_short_packet_is_no_mark() {
        let good = packet();
        assert_eq!(Mark::read(&good, 8), None);
        assert_eq!(Mark::read(&good[..RTP_HEADER_BYTES + MARK_BYTES - 1], 9), None);
        assert_eq!(Mark::read(&[], 9), None);
        for bit in (RTP_HEADER_BYTES + 6) * 8..(RTP_HEADER_BYTES + 34) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::read(&bad, 9), None, "bit {bit}");
        }
    }
}
