//! STREAM: what names a camera, sealed. This is the plaintext; the key commitment is in the header's extension.

use super::{BodyError, need_len};
use crate::block::{MAX_BLOCK_LEN, STREAM_HEADER_LEN};
use crate::layout::{layout, put, u16_in, u32_in, u64_in};

layout! {
    at: 32 =>
    0  4 SSRC,
    4  2 MEDIA_INDEX,
    6  2 CAMERA_ID_LEN,
    8  4 SDP_LEN,
    12 4 CLOCK_RATE,
    16 8 OPENED_NS,
    24 8 RESERVED,
}

/// `media_index` of a stream that no SDP describes.
pub const MEDIA_INDEX_UNKNOWN: u16 = 0xFFFF;

const BLOCK: &str = "STREAM";

/// The plaintext of a STREAM block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// RTP synchronisation source (RFC 3550 §3).
    pub ssrc: u32,
    /// Which m-line of the SDP this stream is, from 0, or [`MEDIA_INDEX_UNKNOWN`].
    pub media_index: u16,
    /// RTP timestamp units per second; 0 unknown.
    pub clock_rate: u32,
    /// Arrival of the stream's first packet in this run, nanoseconds since 1970; 0 if none had come yet.
    pub opened_ns: u64,
    /// The camera, as the configuration names it.
    pub camera_id: String,
    /// Empty when there is none.
    pub sdp: String,
}

impl StreamInfo {
    /// The longest `camera_id` and `sdp` together: 1 MiB − 160 (header) − 32 (this head).
    pub const MAX_TEXT_LEN: usize = MAX_BLOCK_LEN - STREAM_HEADER_LEN - at::SIZE;

    /// Whether it fits a STREAM block: the texts within [`StreamInfo::MAX_TEXT_LEN`], the id within 65,535 bytes.
    pub fn fits(&self) -> bool {
        self.camera_id.len() <= usize::from(u16::MAX)
            && self.camera_id.len().saturating_add(self.sdp.len()) <= Self::MAX_TEXT_LEN
    }

    /// How long a body of `len` bytes is sealed: a camera has the same texts in every segment, and their exact length, which everybody can
    /// read, would tell it among the others.
    pub fn padded_len(len: usize) -> usize {
        let most = Self::MAX_TEXT_LEN + at::SIZE;
        len.next_power_of_two().clamp(Self::LEAST_LEN, most).max(len)
    }

    /// Room for an id and the description of a camera with two streams, as most have it.
    const LEAST_LEN: usize = 1024;

    /// Panics unless [`StreamInfo::fits`].
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.fits(),
            "camera id and SDP are bounded when the configuration is read"
        );
        let mut body = vec![0; at::SIZE];
        put(&mut body, at::SSRC, &self.ssrc.to_le_bytes());
        put(&mut body, at::MEDIA_INDEX, &self.media_index.to_le_bytes());
        put(
            &mut body,
            at::CAMERA_ID_LEN,
            &(self.camera_id.len() as u16).to_le_bytes(),
        );
        put(&mut body, at::SDP_LEN, &(self.sdp.len() as u32).to_le_bytes());
        put(&mut body, at::CLOCK_RATE, &self.clock_rate.to_le_bytes());
        put(&mut body, at::OPENED_NS, &self.opened_ns.to_le_bytes());
        body.extend_from_slice(self.camera_id.as_bytes());
        body.extend_from_slice(self.sdp.as_bytes());
        body
    }

    /// Parses a body as stored; bytes behind the fields of this version are ignored (docs/FORMAT.md §4).
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        need_len(BLOCK, body, at::SIZE)?;
        let sdp_from = at::SIZE + usize::from(u16_in(body, at::CAMERA_ID_LEN));
        let sdp_end = sdp_from.saturating_add(u32_in(body, at::SDP_LEN) as usize);
        need_len(BLOCK, body, sdp_end)?;
        Ok(StreamInfo {
            ssrc: u32_in(body, at::SSRC),
            media_index: u16_in(body, at::MEDIA_INDEX),
            clock_rate: u32_in(body, at::CLOCK_RATE),
            opened_ns: u64_in(body, at::OPENED_NS),
            camera_id: text(body, at::SIZE, sdp_from)?,
            sdp: text(body, sdp_from, sdp_end)?,
        })
    }
}

fn text(body: &[u8], from: usize, to: usize) -> Result<String, BodyError> {
    let text = std::str::from_utf8(&body[from..to]);
    text.map(str::to_owned).map_err(|_| BodyError::Field {
        block: BLOCK,
        at: from,
        rule: "text must be UTF-8",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_has_one_of_few_lengths() {
        let lengths = [(32, 1024), (1024, 1024), (1025, 2048), (16_500, 32_768)];
        for (len, padded) in lengths {
            assert_eq!(StreamInfo::padded_len(len), padded);
        }
        let most = StreamInfo::MAX_TEXT_LEN + at::SIZE;
        assert_eq!(StreamInfo::padded_len(most - 1), most);
        assert_eq!(StreamInfo::padded_len(most), most);
    }

    fn info() -> StreamInfo {
        StreamInfo {
            ssrc: 0x1234_5678,
            media_index: 1,
            clock_rate: 90_000,
            opened_ns: 1_795_000_000_123_456_789,
            camera_id: "front-door".into(),
            sdp: "v=0\r\n".into(),
        }
    }

    #[test]
    fn stream_info_comes_back_as_written() {
        assert_eq!(StreamInfo::parse(&info().encode()), Ok(info()));
        let bare = StreamInfo {
            camera_id: String::new(),
            sdp: String::new(),
            ..info()
        };
        assert_eq!(StreamInfo::parse(&bare.encode()), Ok(bare));
    }

    #[test]
    fn every_cut_and_text_that_is_not_utf8_is_refused() {
        let whole = info().encode();
        for len in 0..whole.len() {
            assert!(StreamInfo::parse(&whole[..len]).is_err(), "{len} bytes");
        }
        let mut garbled = whole;
        garbled[at::SIZE] = 0xFF;
        assert!(matches!(
            StreamInfo::parse(&garbled),
            Err(BodyError::Field { at: 32, .. })
        ));
    }

    #[test]
    fn texts_that_exceed_a_block_do_not_fit() {
        assert!(info().fits());
        assert!(
            !StreamInfo {
                sdp: "x".repeat(StreamInfo::MAX_TEXT_LEN),
                ..info()
            }
            .fits()
        );
        assert!(
            !StreamInfo {
                camera_id: "x".repeat(65_536),
                ..info()
            }
            .fits()
        );
    }
}
