//! Payloads that cost nothing to make: every frame of filler is cut from one buffer that all streams of a kind share, small
//! enough to stay in the processor's cache.
//!
//! Video is one filler data NAL unit per frame (H.264 §7.3.2.7, H.265 §7.3.2.8), whole or in fragments (RFC 6184 §5.6 and
//! §5.8, RFC 7798 §4.4.1 and §4.4.3): valid RTP that depacketises without a fault and that decoders drop. Audio is 20 ms of
//! a 400 Hz tone in µ-law.
//!
//! ```text
//! [ first fragment ][ middle fragment ] [ last fragment, 32 bytes ][ whole, 32 ] [ last, 64 ][ whole, 64 ] … up to the longest
//! ```
//!
//! Invariants: all fragments but the last are as long as a payload may be; a last fragment or a whole unit has a length in
//! steps of [`STEP`] (or the longest), so that a slice with its own beginning and end stands ready for every one.

use crate::plan::Media;
use crate::rtp::HEADER_BYTES;
use std::f64::consts::TAU;
use std::ops::Range;
use std::sync::Arc;

/// Steps of payload lengths. 32: with payloads of 1,152 bytes the whole buffer is 45 KiB.
pub const STEP: usize = 32;
/// The smallest packet of filler video.
pub const PACKET_BYTES_MIN: usize = HEADER_BYTES + STEP;
/// 20 ms at 8 kHz (RFC 3551 §4.5.14).
pub const PCMU_BYTES: usize = 160;

const H264_FILLER: u8 = 12;
const H264_FU_A: u8 = 28;
const H265_FILLER: u8 = 38;
const H265_FU: u8 = 49;
/// H.265 headers end with nuh_temporal_id_plus1 = 1.
const H265_TID: u8 = 1;
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;
/// ff_byte, and rbsp_trailing_bits behind the last of them.
const FF: u8 = 0xff;
const TRAILING: u8 = 0x80;

/// The shared buffer of one kind of stream.
pub struct Filler {
    media: Media,
    /// The longest payload.
    longest: usize,
    bytes: Arc<[u8]>,
}

impl Filler {
    /// For packets of at most `packet_bytes`, headers included.
    pub fn new(media: Media, packet_bytes: usize) -> Filler {
        let longest = packet_bytes - HEADER_BYTES;
        let mut bytes = Vec::new();
        match media {
            Media::Pcmu => bytes.extend((0..PCMU_BYTES).map(|at| mu_law(tone(at)))),
            Media::H264 | Media::H265 => {
                for part in [FU_START, 0] {
                    video(media, Some(part), longest, &mut bytes);
                }
                for len in (STEP..longest).step_by(STEP).chain([longest]) {
                    video(media, Some(FU_END), len, &mut bytes);
                    video(media, None, len, &mut bytes);
                }
            }
        }
        Filler {
            media,
            longest,
            bytes: bytes.into(),
        }
    }

    pub fn bytes(&self) -> Arc<[u8]> {
        Arc::clone(&self.bytes)
    }

    /// Appends the payloads of one frame that takes about `wire_bytes` with all headers; returns how many it takes.
    pub fn frame(&self, wire_bytes: f64, out: &mut Vec<Range<usize>>) -> usize {
        let before = out.len();
        if self.media == Media::Pcmu {
            out.push(0..PCMU_BYTES);
        } else {
            let packet_bytes = HEADER_BYTES + self.longest;
            let full = (wire_bytes / packet_bytes as f64) as usize;
            let rest = wire_bytes - (full * packet_bytes) as f64 - HEADER_BYTES as f64;
            // The rest to the nearest length there is, or left to the frames that follow if it is less than half of the least.
            let steps = (rest / STEP as f64).round();
            let (full, last) = match steps >= 1.0 {
                true => (full, (steps as usize * STEP).min(self.longest)),
                false if full > 0 => (full - 1, self.longest),
                false => (0, STEP),
            };
            for at in 0..full {
                let start = self.longest * usize::from(at > 0);
                out.push(start..start + self.longest);
            }
            out.push(self.ending(last, full == 0));
        }
        out[before..]
            .iter()
            .map(|payload| HEADER_BYTES + payload.len())
            .sum()
    }

    /// Where a last fragment, or a whole unit, of this length stands.
    fn ending(&self, len: usize, whole: bool) -> Range<usize> {
        // Before it stand the two long fragments and twice every shorter length: 2 × STEP × (1 + 2 + … + n).
        let shorter = (len - 1) / STEP;
        let at = 2 * self.longest + STEP * shorter * (shorter + 1) + len * usize::from(whole);
        at..at + len
    }
}

/// Appends a filler data NAL unit of `len` bytes, or as `part` one fragment of a longer one.
fn video(media: Media, part: Option<u8>, len: usize, out: &mut Vec<u8>) {
    let start = out.len();
    match (media, part) {
        (Media::H265, None) => out.extend([H265_FILLER << 1, H265_TID]),
        (Media::H265, Some(part)) => out.extend([H265_FU << 1, H265_TID, part | H265_FILLER]),
        (_, None) => out.push(H264_FILLER),
        (_, Some(part)) => out.extend([H264_FU_A, part | H264_FILLER]),
    }
    out.resize(start + len, FF);
    if part.is_none_or(|part| part == FU_END) {
        out[start + len - 1] = TRAILING;
    }
}

/// Eight periods of 400 Hz in 160 samples, so that packets join without a click; a quarter of full scale.
fn tone(at: usize) -> i32 {
    ((at as f64 * 400.0 / 8000.0 * TAU).sin() * 8192.0) as i32
}

/// ITU-T G.711, µ-law, of a 16-bit sample: sign, the segment its size falls into, four bits within it, all inverted.
fn mu_law(sample: i32) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let size = (sample.abs() + 132).min(0x7fff);
    let segment = (size >> 7).ilog2() as u8;
    let step = (size >> (segment + 3)) as u8 & 0x0f;
    !(sign | segment << 4 | step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slow, obvious way back: one NAL unit of its fragments.
    fn reassemble(media: Media, payloads: &[&[u8]]) -> Vec<u8> {
        let (unit, fu) = match media {
            Media::H265 => (2, 49),
            _ => (1, 28),
        };
        let kind = |payload: &[u8]| match media {
            Media::H265 => payload[0] >> 1,
            _ => payload[0] & 0x1f,
        };
        let mut nal = Vec::new();
        for (at, payload) in payloads.iter().enumerate() {
            if kind(payload) != fu {
                assert_eq!(payloads.len(), 1, "a whole unit stands alone");
                return payload.to_vec();
            }
            let header = payload[unit];
            assert_eq!(header & 0x80 != 0, at == 0, "the first one begins");
            assert_eq!(header & 0x40 != 0, at + 1 == payloads.len(), "the last one ends");
            if at == 0 {
                nal = match media {
                    Media::H265 => vec![(header & 0x3f) << 1, payload[1]],
                    _ => vec![payload[0] & 0xe0 | header & 0x1f],
                };
            }
            nal.extend_from_slice(&payload[unit + 1..]);
        }
        nal
    }

    #[test]
    fn a_frame_of_any_size_is_one_filler_unit_of_about_that_size() {
        for (media, first) in [(Media::H264, &[12][..]), (Media::H265, &[76, 1])] {
            for packet_bytes in [128, 1200, 1201, 1472] {
                let filler = Filler::new(media, packet_bytes);
                let bytes = filler.bytes();
                for wire in 80..6_000 {
                    let mut out = Vec::new();
                    let really = filler.frame(f64::from(wire), &mut out);
                    let off = (really as f64 - f64::from(wire)).abs();
                    assert!(
                        off <= 64.0,
                        "{media:?}, {packet_bytes}: asked {wire}, made {really}"
                    );
                    let payloads: Vec<&[u8]> = out.iter().map(|at| &bytes[at.clone()]).collect();
                    let (last, full) = payloads.split_last().expect("a frame has packets");
                    assert!(
                        full.iter()
                            .all(|payload| payload.len() == packet_bytes - HEADER_BYTES)
                    );
                    assert!(last.len() <= packet_bytes - HEADER_BYTES);
                    let nal = reassemble(media, &payloads);
                    let body = nal.strip_prefix(first).expect("a filler unit's header");
                    let (trailing, body) = body.split_last().expect("and its end");
                    assert_eq!(*trailing, 0x80);
                    assert!(body.iter().all(|&byte| byte == 0xff));
                }
            }
        }
    }

    #[test]
    fn the_buffer_is_small_enough_for_the_cache() {
        assert!(Filler::new(Media::H264, 1200).bytes().len() < 48 * 1024);
    }

    #[test]
    fn audio_is_160_bytes_of_tone() {
        let filler = Filler::new(Media::Pcmu, 1200);
        let mut out = Vec::new();
        assert_eq!(filler.frame(0.0, &mut out), HEADER_BYTES + 160);
        let bytes = filler.bytes();
        assert_eq!(bytes[0], 0xff, "G.711: zero is 0xff");
        let distinct: std::collections::BTreeSet<u8> = bytes.iter().copied().collect();
        assert!(distinct.len() > 8, "it is no silence");
    }

    #[test]
    fn mu_law_is_that_of_g_711() {
        // Table 2b of the recommendation, decision values scaled to 16 bits.
        for (sample, code) in [
            (0, 0xff),
            (32767, 0x80),
            (-32768, 0x00),
            (132, 0xef),
            (-132, 0x6f),
        ] {
            assert_eq!(mu_law(sample), code, "{sample}");
        }
    }
}
