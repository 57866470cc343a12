//! A disk writer who knows the format and a customer's public key, and neither the customer's secret nor the node's: what such a one
//! can make.

use harborseal_segment::block::{BlockType, HEADER_LEN, Header, encode_block, parse_block};
use harborseal_segment::body::{
    CheckpointBody, ChunkHead, KeyBody, KeyEntry, SegmentBody, StreamInfo, TombstoneBody,
};
use harborseal_segment::cipher::{Backend, SealKey, nonce};
use harborseal_segment::ids::{NodeId, SegmentId, StreamId};
use harborseal_segment::keys::{Hint, SegmentSecret, StreamKeys, Wrap, wrap};
use harborseal_segment::node::NodeKey;
use harborseal_segment::random::FixedBytes;
use harborseal_segment::record::push_record;
use harborseal_segment::writer::{FinishParams, SegmentWriter};

use crate::common::*;
use crate::lab::parts_of;

/// What the forged packets hold.
pub const LIE: &[u8] = b"nothing happened here";

/// The keys of one of Alice's streams under a secret of the forger's own.
pub fn keys_of(id: &SegmentId, stream: &StreamId) -> StreamKeys {
    StreamKeys::derive(id, &SegmentSecret::from_bytes([0xF0; 32]), stream)
}

/// A KEY block like `block`, in which the entry of Alice's slot wraps the forger's secret to her public key.
pub fn forged_key(block: &[u8], node_id: NodeId) -> Vec<u8> {
    let header = parse_block(block).expect("whole");
    let entries = KeyBody::parse(header.body(block)).expect("parses").entries;
    let entries: Vec<KeyEntry> = entries
        .into_iter()
        .map(|entry| match entry.slot {
            ALICE_SLOT => {
                let place = Wrap {
                    node_id,
                    segment_id: header.segment_id,
                    slot: entry.slot,
                    i: entry.i,
                    n: entry.n,
                    erase: None,
                };
                let secret = SegmentSecret::from_bytes([0xF0; 32]);
                let hint = Hint::from_bytes([0xF1; 32]);
                wrap(
                    alice().public(),
                    &place,
                    &hint,
                    &secret,
                    &mut FixedBytes(&[0xF2; 64]),
                )
            }
            _ => entry,
        })
        .collect();
    key_block(header, &entries)
}

/// A KEY block of other entries.
pub fn key_block(header: Header, entries: &[KeyEntry]) -> Vec<u8> {
    let (_, block) = SegmentWriter::adopting(header.segment_id).add_keys(entries, 0);
    let body = parse_block(&block).expect("whole").body(&block).to_vec();
    let body_len = body.len() as u32;
    encode_block(Header { body_len, ..header }, &body)
}

/// A STREAM block in the place of another one, under the forger's keys. It says what Alice expects of the camera.
pub fn forged_stream(header: Header, camera: usize) -> Vec<u8> {
    let info = StreamInfo {
        ssrc: 100 + camera as u32,
        media_index: 0,
        clock_rate: 90_000,
        opened_ns: BEGAN_S * 1_000_000_000,
        camera_id: CAMERAS[camera].into(),
        sdp: "v=0\r\n".into(),
    };
    let keys = keys_of(&header.segment_id, &header.stream_id);
    let body = info.encode();
    let mut header = Header {
        body_len: body.len() as u32,
        ..header
    };
    let mut block = vec![0; header.total_len as usize];
    let body_from = usize::from(header.header_len);
    block[HEADER_LEN..HEADER_LEN + 32].copy_from_slice(keys.commitment());
    block[body_from..][..body.len()].copy_from_slice(&body);
    keys.seal_key(Backend::AesGcm).seal_block(&mut header, &mut block);
    block
}

/// Another plaintext for the chunk of `header`, as long as its own: one packet that holds the lie, and bytes that nobody looks at.
fn lie(header: &Header, chunks_so_far: u64) -> Vec<u8> {
    let mut body = vec![0; header.body_len as usize];
    let head = ChunkHead {
        base_ns: header.first_arrival_s * 1_000_000_000,
        packet_count: 1,
        lost_before: 0,
        chunks_so_far,
    };
    head.encode_to(&mut body);
    let mut packet = vec![0; body.len() - ChunkHead::LEN - 8];
    let len = LIE.len().min(packet.len());
    packet[..len].copy_from_slice(&LIE[..len]);
    push_record(&mut body, ChunkHead::LEN, 0, 0, &packet);
    body
}

/// A CHUNK in the place of another one, under the forger's keys.
pub fn forged_chunk(header: Header, chunks_so_far: u64) -> Vec<u8> {
    let key = keys_of(&header.segment_id, &header.stream_id).seal_key(Backend::AesGcm);
    let mut header = header;
    let mut block = vec![0; header.total_len as usize];
    block[HEADER_LEN..header.body_end()].copy_from_slice(&lie(&header, chunks_so_far));
    key.seal_block(&mut header, &mut block);
    block
}

/// The same with the original's header to the last bit: the same tag and the same CRC, over another body.
///
/// Under a known key both are affine in the plaintext's bits, 160 equations; the last 64 bytes of the packet are 512 unknowns.
pub fn forged_twin(original: &[u8], chunks_so_far: u64) -> Vec<u8> {
    let header = parse_block(original).expect("whole");
    let key = keys_of(&header.segment_id, &header.stream_id).seal_key(Backend::AesGcm);
    let mut text = lie(&header, chunks_so_far);
    let free = text.len() - 64..text.len();
    let sums = |text: &[u8]| sums(&key, &header, &original[..96], text).0;
    let base = sums(&text);
    let mut wanted = [0; 20];
    wanted[..16].copy_from_slice(&header.tag);
    wanted[16..].copy_from_slice(&header.body_crc32c.to_le_bytes());
    let columns: Vec<[u8; 20]> = (0..512)
        .map(|bit| {
            let mut text = text.clone();
            text[free.start + bit / 8] ^= 1 << (bit % 8);
            xor(sums(&text), base)
        })
        .collect();
    for bit in solve(&columns, xor(wanted, base)) {
        text[free.start + bit / 8] ^= 1 << (bit % 8);
    }
    let (_, body) = self::sums(&key, &header, &original[..96], &text);
    let mut block = original.to_vec();
    block[HEADER_LEN..header.body_end()].copy_from_slice(&body);
    block
}

/// Tag and CRC32C of a plaintext, and what it is sealed to.
fn sums(key: &SealKey, header: &Header, aad: &[u8], text: &[u8]) -> ([u8; 20], Vec<u8>) {
    let mut body = text.to_vec();
    let tag = key.seal_in_place(&nonce(BlockType::Chunk, header.block_no), aad, &mut body);
    let mut sums = [0; 20];
    sums[..16].copy_from_slice(&tag);
    sums[16..].copy_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    (sums, body)
}

fn xor(mut a: [u8; 20], b: [u8; 20]) -> [u8; 20] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

/// Which columns add up to `wanted`, over GF(2), by Gaussian elimination.
fn solve(columns: &[[u8; 20]], wanted: [u8; 20]) -> Vec<usize> {
    let bit = |sum: &[u8; 20], row: usize| sum[row / 8] >> (row % 8) & 1 == 1;
    // Each with the set of columns it is the sum of.
    let mut pivots: Vec<(usize, [u8; 20], Vec<bool>)> = Vec::new();
    let reduce = |pivots: &[(usize, [u8; 20], Vec<bool>)], mut sum: [u8; 20], mut of: Vec<bool>| {
        for (row, pivot, parts) in pivots {
            if bit(&sum, *row) {
                sum = xor(sum, *pivot);
                of.iter_mut().zip(parts).for_each(|(a, b)| *a ^= b);
            }
        }
        (sum, of)
    };
    for (n, column) in columns.iter().enumerate() {
        let mut of = vec![false; columns.len()];
        of[n] = true;
        let (sum, of) = reduce(&pivots, *column, of);
        if let Some(row) = (0..160).find(|row| bit(&sum, *row)) {
            pivots.push((row, sum, of));
        }
    }
    let (rest, of) = reduce(&pivots, wanted, vec![false; columns.len()]);
    assert_eq!(rest, [0; 20], "512 unknowns are enough for 160 equations");
    of.iter()
        .enumerate()
        .filter(|(_, taken)| **taken)
        .map(|(n, _)| n)
        .collect()
}

/// How a forger ends a file.
pub enum Ending<'a> {
    /// Roots and figures are those of the forged blocks; the signatures are what stood there before.
    OldSignatures,
    /// Everything is signed with a key of the forger's; SEGMENT still names the node.
    Signed(&'a NodeKey),
    /// SEGMENT names the forger's key too, twice.
    AsNode(&'a NodeKey),
}

/// Closes forged blocks anew: every CHECKPOINT, the INDEX and the FOOTER fit them.
pub fn rebuilt(file: &[u8], ending: &Ending<'_>) -> Vec<u8> {
    let id = parse_block(file).expect("SEGMENT").segment_id;
    let key = match ending {
        Ending::OldSignatures => None,
        Ending::Signed(key) | Ending::AsNode(key) => Some(*key),
    };
    let mut writer = SegmentWriter::adopting(id);
    let mut out = Vec::new();
    for (n, part) in parts_of(file).into_iter().enumerate() {
        let block = &file[part.range()];
        let body = part.header.body(block);
        let again = match part.header.block_type {
            BlockType::Index | BlockType::Footer => continue,
            BlockType::Segment => match ending {
                Ending::AsNode(key) => {
                    let mut body = SegmentBody::parse(body).expect("parses");
                    body.node_key = key.public().0;
                    encode_block(part.header, &body.encode())
                }
                _ => block.to_vec(),
            },
            BlockType::Checkpoint => {
                let mut body = CheckpointBody::parse(body).expect("parses");
                (body.leaf_count, body.root) = (writer.leaf_count(), writer.root());
                if let Some(key) = key {
                    key.sign_checkpoint(&mut body, &id);
                }
                encode_block(part.header, &body.encode())
            }
            BlockType::Tombstone => {
                let mut body = TombstoneBody::parse(body).expect("parses");
                if let Some(key) = key {
                    key.sign_tombstone(&mut body, &id);
                }
                encode_block(part.header, &body.encode())
            }
            _ => block.to_vec(),
        };
        if n != 1 {
            writer.adopt(part.at as u64, &part.header, &again);
        }
        out.extend_from_slice(&again);
    }
    let old = &file[file.len() - 4096..];
    let footer = parse_block(old).expect("FOOTER");
    let durable = harborseal_segment::body::FooterBody::parse(footer.body(old))
        .expect("parses")
        .durable_upto;
    let finished = writer.finish(key, FinishParams::sealed(None, durable, BEGAN_S + 99));
    out.extend_from_slice(&finished.bytes);
    if key.is_none() {
        // The old signature over another footer.
        let at = out.len() - 4096;
        let header = parse_block(&out[at..]).expect("FOOTER");
        let mut body = finished.footer;
        body.flags |= harborseal_segment::body::FOOTER_SIGNED;
        body.signature = harborseal_segment::body::FooterBody::parse(footer.body(old))
            .expect("parses")
            .signature;
        out.splice(at.., encode_block(header, &body.encode()));
    }
    out
}
