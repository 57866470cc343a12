//! RTP payloads of H.264 (RFC 6184, packetization-mode 1): single NAL units, STAP-A for what stands before the slices,
//! FU-A for what does not fit.
//!
//! Invariant: the fragments of a NAL unit are all as long as a packet may be, except the last. `UDP_SEGMENT` needs equal
//! packets with at most the last one shorter, so one frame is one or few batches.

use crate::clip::{NAL_AUD, NAL_PPS, NAL_SEI, NAL_SPS, nal_type};
use std::ops::Range;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;
/// Filler data (H.264 §7.3.2.7): decoders drop it, so any rate can be reached with a stream that still plays.
const FILLER: u8 = 12;

/// RTP payloads, one after the other in one buffer.
#[derive(Default)]
pub struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.range(at)]
    }

    /// Where a payload stands in [`Payloads::into_bytes`].
    pub fn range(&self, at: usize) -> Range<usize> {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        start..self.ends[at]
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn end_payload(&mut self) {
        self.ends.push(self.bytes.len());
    }
}

/// Appends the payloads of one frame, each at most `max_bytes` long, and returns which they are.
pub fn frame(nals: &[Vec<u8>], max_bytes: usize, out: &mut Payloads) -> Range<usize> {
    let first = out.len();
    let mut rest = nals;
    while let [nal, tail @ ..] = rest {
        let together = aggregable(rest, max_bytes);
        if together > 1 {
            stap_a(&rest[..together], out);
            rest = &rest[together..];
            continue;
        }
        single_or_fu_a(nal, max_bytes, out);
        rest = tail;
    }
    first..out.len()
}

/// Appends a filler data NAL unit that, sent in packets with `header_bytes` each, adds at most `wire_bytes` in all, and
/// less by one header at most; returns how many it really adds. No room for a header and two bytes: nothing is added.
pub fn filler(wire_bytes: usize, header_bytes: usize, max_bytes: usize, out: &mut Payloads) -> usize {
    if wire_bytes < header_bytes + 2 {
        return 0;
    }
    let packets = wire_bytes.div_ceil(header_bytes + max_bytes);
    let fragment_headers = if packets > 1 { 2 * packets - 1 } else { 0 };
    let nal_bytes = wire_bytes
        .saturating_sub(packets * header_bytes + fragment_headers)
        .max(2);
    let mut nal = vec![0xff; nal_bytes];
    nal[0] = FILLER;
    nal[nal_bytes - 1] = 0x80; // rbsp_trailing_bits
    let before = (out.len(), out.bytes.len());
    single_or_fu_a(&nal, max_bytes, out);
    (out.len() - before.0) * header_bytes + out.bytes.len() - before.1
}

/// How many NAL units from the start of `nals` go into one STAP-A: parameter sets and the like, as long as they fit.
fn aggregable(nals: &[Vec<u8>], max_bytes: usize) -> usize {
    let mut bytes = 1;
    nals.iter()
        .take_while(|nal| {
            bytes += 2 + nal.len();
            matches!(nal_type(nal), NAL_SEI | NAL_SPS | NAL_PPS | NAL_AUD) && bytes <= max_bytes
        })
        .count()
}

/// RFC 6184 §5.7.1: F is the OR, NRI the maximum of the aggregated units'.
fn stap_a(nals: &[Vec<u8>], out: &mut Payloads) {
    let forbidden = nals.iter().fold(0, |bits, nal| bits | nal[0] & 0x80);
    let importance = nals.iter().map(|nal| nal[0] & 0x60).max().unwrap_or(0);
    out.bytes.push(forbidden | importance | STAP_A);
    for nal in nals {
        let len = u16::try_from(nal.len()).expect("aggregable keeps a STAP-A within one packet");
        out.bytes.extend_from_slice(&len.to_be_bytes());
        out.bytes.extend_from_slice(nal);
    }
    out.end_payload();
}

/// RFC 6184 §5.6 and §5.8: the NAL unit as it is, or its body in fragments, its header rebuilt from indicator and FU header.
fn single_or_fu_a(nal: &[u8], max_bytes: usize, out: &mut Payloads) {
    if nal.len() <= max_bytes {
        out.bytes.extend_from_slice(nal);
        return out.end_payload();
    }
    let indicator = nal[0] & 0xe0 | FU_A;
    let mut fragments = nal[1..].chunks(max_bytes - 2).peekable();
    let mut position = FU_START;
    while let Some(fragment) = fragments.next() {
        if fragments.peek().is_none() {
            position = FU_END;
        }
        out.bytes
            .extend_from_slice(&[indicator, position | nal_type(nal)]);
        out.bytes.extend_from_slice(fragment);
        out.end_payload();
        position = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::Clip;

    /// The slow, obvious way back (RFC 6184 §5.6–5.8): the oracle of the packetiser.
    fn reassemble<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for payload in payloads {
            match payload[0] & 0x1f {
                STAP_A => {
                    let mut rest = &payload[1..];
                    while !rest.is_empty() {
                        let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                        nals.push(rest[2..2 + len].to_vec());
                        rest = &rest[2 + len..];
                    }
                }
                FU_A => {
                    if payload[1] & FU_START != 0 {
                        nals.push(vec![payload[0] & 0xe0 | payload[1] & 0x1f]);
                    }
                    nals.last_mut()
                        .expect("a fragment follows its first")
                        .extend_from_slice(&payload[2..]);
                }
                _ => nals.push(payload.to_vec()),
            }
        }
        nals
    }

    #[test]
    fn the_clips_payloads_reassemble_to_the_clip() {
        let clip = Clip::builtin();
        for max_bytes in [100, 1152, 65_000] {
            let mut out = Payloads::default();
            let (mut sent, mut largest) = (Vec::new(), 0);
            for one in clip.frames() {
                sent.extend_from_slice(clip.nals(one));
                let range = frame(clip.nals(one), max_bytes, &mut out);
                largest = range.map(|at| out.get(at).len()).max().unwrap_or(0).max(largest);
            }
            assert!(largest <= max_bytes);
            assert!(
                reassemble((0..out.len()).map(|at| out.get(at))) == sent,
                "at {max_bytes} bytes"
            );
        }
    }

    #[test]
    fn parameter_sets_travel_in_one_stap_a_and_slices_in_full_fragments() {
        let clip = Clip::builtin();
        let mut out = Payloads::default();
        let range = frame(clip.nals(&clip.frames()[0]), 1152, &mut out);
        assert_eq!(out.get(0)[0] & 0x1f, STAP_A);
        for at in 1..range.end - 1 {
            assert_eq!(out.get(at).len(), 1152);
        }
        assert!(out.get(range.end - 1).len() <= 1152);
    }

    #[test]
    fn filler_is_as_long_as_asked_to_within_a_header_and_a_valid_nal_unit() {
        for wire_bytes in [50, 60, 1199, 1200, 1201, 1202, 1250, 2400, 2401, 50_000] {
            let mut out = Payloads::default();
            let added = filler(wire_bytes, 48, 1152, &mut out);
            assert!(
                added <= wire_bytes && wire_bytes - added <= 52,
                "asked {wire_bytes}, added {added}"
            );
            let nals = reassemble((0..out.len()).map(|at| out.get(at)));
            let [nal] = nals.as_slice() else {
                panic!("one NAL unit, not {}", nals.len())
            };
            let (last, body) = nal[1..].split_last().expect("a filler NAL unit has a body");
            assert_eq!((nal[0], *last), (FILLER, 0x80));
            assert!(body.iter().all(|&byte| byte == 0xff));
        }
        assert_eq!(filler(49, 48, 1152, &mut Payloads::default()), 0);
    }
}
