//! The clip: a short H.264 elementary stream (Annex B), cut into NAL units and frames.
//!
//! Invariants: every NAL unit belongs to exactly one frame, in the clip's order; the first frame is a key frame (IDR with
//! its parameter sets before it), so the clip can be looped and entered at any key frame.

use std::ops::Range;

/// The clip every camera sends: `assets/make-clip` made it and says how.
static BUILTIN: &[u8] = include_bytes!("../assets/clip.h264");
const BUILTIN_FPS: u32 = 25;

const NAL_SLICE: u8 = 1;
const NAL_IDR: u8 = 5;
pub(crate) const NAL_SEI: u8 = 6;
pub(crate) const NAL_SPS: u8 = 7;
pub(crate) const NAL_PPS: u8 = 8;
pub(crate) const NAL_AUD: u8 = 9;

/// An elementary stream in memory.
pub struct Clip {
    nals: Vec<Vec<u8>>,
    frames: Vec<Frame>,
    fps: u32,
}

/// One access unit (H.264 §3.1): the NAL units of one picture and what belongs before it.
pub struct Frame {
    nals: Range<usize>,
    /// Decoding can begin here.
    pub key: bool,
}

/// Why bytes are no clip a camera could send.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClipError {
    #[error("no NAL unit found: not an H.264 elementary stream (Annex B)")]
    Empty,
    #[error(
        "the first frame is no key frame with its parameter sets: nothing could be decoded from the start"
    )]
    NoKeyFrame,
}

impl Clip {
    /// Width and height of the built-in clip's pictures.
    pub const BUILTIN_SIZE: (u32, u32) = (640, 360);

    /// The clip that is part of the program: 3 s, 640×360, 25 frames/s, a key frame every second.
    pub fn builtin() -> Clip {
        Clip::parse(BUILTIN, BUILTIN_FPS).expect("the built-in clip parses: a test shows it")
    }

    /// Cuts an Annex B stream; `fps` is its nominal frame rate, which an elementary stream need not carry.
    pub fn parse(annex_b: &[u8], fps: u32) -> Result<Clip, ClipError> {
        let nals: Vec<Vec<u8>> = split_annex_b(annex_b).map(<[u8]>::to_vec).collect();
        if nals.is_empty() {
            return Err(ClipError::Empty);
        }
        let frames = group_frames(&nals);
        let first = &nals[frames[0].nals.clone()];
        let has = |kind| first.iter().any(|nal| nal_type(nal) == kind);
        if !(frames[0].key && has(NAL_SPS) && has(NAL_PPS)) {
            return Err(ClipError::NoKeyFrame);
        }
        Ok(Clip { nals, frames, fps })
    }

    /// Nominal frames per second.
    pub fn fps(&self) -> u32 {
        self.fps
    }

    /// The frames in decoding order (which is display order: the clip has no B-frames).
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The NAL units of a frame, without start codes.
    pub fn nals(&self, frame: &Frame) -> &[Vec<u8>] {
        &self.nals[frame.nals.clone()]
    }

    /// The first sequence and picture parameter sets, for the SDP.
    pub fn parameter_sets(&self) -> (&[u8], &[u8]) {
        let find = |kind| self.nals.iter().find(|nal| nal_type(nal) == kind);
        let both = find(NAL_SPS).zip(find(NAL_PPS));
        let (sps, pps) = both.expect("parse refuses a clip without parameter sets");
        (sps, pps)
    }
}

pub(crate) fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte & 0x1f)
}

/// NAL units between start codes (H.264 Annex B.1); the zero byte of a four-byte start code is not part of the NAL unit
/// before it, since none ends in a zero byte (§7.4.1).
fn split_annex_b(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let codes: Vec<usize> = bytes
        .windows(3)
        .enumerate()
        .filter_map(|(at, window)| (window == [0, 0, 1]).then_some(at))
        .collect();
    let ends: Vec<usize> = codes.iter().skip(1).copied().chain([bytes.len()]).collect();
    codes.into_iter().zip(ends).filter_map(|(code, end)| {
        let nal = &bytes[code + 3..end];
        let len = nal.iter().rposition(|&byte| byte != 0)? + 1;
        Some(&nal[..len])
    })
}

/// A frame ends where the next one's first NAL unit stands: a delimiter, parameter set or SEI after a slice, or a slice
/// whose `first_mb_in_slice` is 0 (Exp-Golomb: the first bit after the NAL header is 1; H.264 §7.4.1.2.4).
fn group_frames(nals: &[Vec<u8>]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut open = Frame {
        nals: 0..0,
        key: false,
    };
    let mut has_slice = false;
    for (at, nal) in nals.iter().enumerate() {
        let kind = nal_type(nal);
        let slice = (NAL_SLICE..=NAL_IDR).contains(&kind);
        let first_slice = slice && nal.get(1).is_some_and(|byte| byte & 0x80 != 0);
        let before_slices = matches!(kind, NAL_SEI | NAL_SPS | NAL_PPS | NAL_AUD);
        if has_slice && (first_slice || before_slices) {
            frames.push(std::mem::replace(
                &mut open,
                Frame {
                    nals: at..at,
                    key: false,
                },
            ));
            has_slice = false;
        }
        has_slice |= slice;
        open.key |= kind == NAL_IDR;
        open.nals.end = at + 1;
    }
    frames.push(open);
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_clip_has_a_key_frame_every_second() {
        let clip = Clip::builtin();
        let keys: Vec<usize> = (0..clip.frames().len())
            .filter(|&at| clip.frames()[at].key)
            .collect();
        assert_eq!(clip.frames().len(), 75);
        assert_eq!(keys, [0, 25, 50]);
        assert!(BUILTIN.len() <= 400_000);
    }

    #[test]
    fn every_byte_of_the_builtin_clip_is_in_a_frame_or_a_start_code() {
        let clip = Clip::builtin();
        let mut again = Vec::new();
        for frame in clip.frames() {
            for nal in clip.nals(frame) {
                let four = again.is_empty() || nal_type(nal) != NAL_IDR;
                again.extend_from_slice(if four { &[0, 0, 0, 1] } else { &[0, 0, 1] });
                again.extend_from_slice(nal);
            }
        }
        assert!(
            again == BUILTIN,
            "the clip put together again differs from the file"
        );
    }

    #[test]
    fn what_is_no_elementary_stream_is_refused() {
        assert_eq!(Clip::parse(b"not video", 25).err(), Some(ClipError::Empty));
        assert_eq!(
            Clip::parse(&[0, 0, 1, 0x41, 0x9a], 25).err(),
            Some(ClipError::NoKeyFrame)
        );
    }
}
