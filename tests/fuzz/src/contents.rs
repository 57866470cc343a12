//! Plausible contents of blocks, for recipes that bring none.

use harborseal_segment::block::{BLOCK_ALIGN, MAX_BLOCK_LEN};
use harborseal_segment::body::{ChainHead, ChunkHead, DeletedSegment, DeletionReason, ErasedSlot};
use harborseal_segment::ids::{RunId, SegmentId};
use harborseal_segment::record::push_record;

use super::customers::NOW_S;

pub fn chain_head() -> ChainHead {
    ChainHead {
        run_id: RunId([0x35; 16]),
        shard: 0,
        flags: 1,
        chain_seq: 3,
        segment_id: SegmentId([0x36; 16]),
        durable_upto: 8192,
        leaf_count: 5,
        root: [0x37; 32],
    }
}

pub fn deleted() -> DeletedSegment {
    DeletedSegment {
        segment_id: SegmentId([0x36; 16]),
        run_id: RunId([0x35; 16]),
        shard: 0,
        reason: DeletionReason::MaxAge,
        chain_seq: 3,
        root: [0x37; 32],
    }
}

pub fn erased(slot: u8, segment_id: SegmentId) -> ErasedSlot {
    ErasedSlot {
        segment_id,
        run_id: RunId([0x33; 16]),
        shard: 0,
        slot: slot.into(),
        chain_seq: 0,
        root: [0; 32],
    }
}

/// A chunk's plaintext.
pub fn chunk(so_far: u64, packets: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![0; ChunkHead::LEN + packets.iter().map(|packet| 8 + packet.len()).sum::<usize>()];
    ChunkHead {
        base_ns: NOW_S * 1_000_000_000,
        packet_count: packets.len() as u32,
        lost_before: 0,
        chunks_so_far: so_far,
    }
    .encode_to(&mut body);
    let mut at = ChunkHead::LEN;
    for (delta_us, packet) in (0..).zip(packets) {
        at = push_record(&mut body, at, 0, delta_us, packet);
    }
    body
}

pub fn long_chunk(pages: usize, so_far: u64) -> Vec<u8> {
    // With room for the longest header, the records' heads and the head.
    let len = (pages * BLOCK_ALIGN + 1).min(MAX_BLOCK_LEN - 1024);
    let packets = vec![0x55; 60_000];
    let pieces: Vec<&[u8]> = (0..len / 60_000 + 1)
        .map(|i| &packets[..(len - i * 60_000).min(60_000)])
        .collect();
    chunk(so_far, &pieces)
}
