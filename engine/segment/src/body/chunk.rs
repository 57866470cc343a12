//! CHUNK: the 32 bytes at the start of its plaintext; [`crate::record`]s follow to the end.

use super::{BodyError, need_len};
use crate::layout::{layout, put, u32_in, u64_in};

layout! {
    at: 32 =>
    0  8 BASE_NS,
    8  4 PACKET_COUNT,
    12 4 LOST_BEFORE,
    16 8 CHUNKS_SO_FAR,
    24 8 RESERVED,
}

/// The first 32 bytes of a CHUNK's plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChunkHead {
    /// Arrival of the first packet, nanoseconds since 1970.
    pub base_ns: u64,
    /// Records in this chunk.
    pub packet_count: u32,
    /// RTP packets missing by sequence number between the stream's previous chunk and the end of this one.
    pub lost_before: u32,
    /// Chunks of this stream sealed before this one in this run. It goes on over segments, where `stream_seq`
    /// starts anew, so that a segment cut off at its end or deleted shows in the next.
    pub chunks_so_far: u64,
}

impl ChunkHead {
    /// Bytes of the fixed part.
    pub const LEN: usize = at::SIZE;

    /// Writes the head over `body[..32]`.
    pub fn encode_to(&self, body: &mut [u8]) {
        put(body, at::BASE_NS, &self.base_ns.to_le_bytes());
        put(body, at::PACKET_COUNT, &self.packet_count.to_le_bytes());
        put(body, at::LOST_BEFORE, &self.lost_before.to_le_bytes());
        put(body, at::CHUNKS_SO_FAR, &self.chunks_so_far.to_le_bytes());
        body[at::RESERVED].fill(0);
    }

    /// Parses the head of a chunk's whole plaintext.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        need_len("CHUNK", body, at::SIZE)?;
        Ok(ChunkHead {
            base_ns: u64_in(body, at::BASE_NS),
            packet_count: u32_in(body, at::PACKET_COUNT),
            lost_before: u32_in(body, at::LOST_BEFORE),
            chunks_so_far: u64_in(body, at::CHUNKS_SO_FAR),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_head_comes_back_as_written_over_any_bytes() {
        let head = ChunkHead {
            base_ns: 1 << 60,
            packet_count: 50,
            lost_before: 3,
            chunks_so_far: 1 << 40,
        };
        let mut body = [0xAA; 40];
        head.encode_to(&mut body);
        assert_eq!(ChunkHead::parse(&body), Ok(head));
        assert_eq!(body[32..], [0xAA; 8]);
    }

    #[test]
    fn a_chunk_shorter_than_its_head_is_refused() {
        assert!(ChunkHead::parse(&[0; 31]).is_err());
    }
}
