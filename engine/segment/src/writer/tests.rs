//! Segments written block by block and read back by a plain loop over the file's bytes.

use super::*;
use crate::block::{MAX_CHUNK_BODY_LEN, parse_block};
use crate::body::{ChunkRow, DeletionReason, FOOTER_SIGNED, HEAD_FOOTER, IndexRows};
use crate::cipher::Backend;
use crate::identity::Identity;
use crate::ids::NodeId;
use crate::keys::{Hint, Secret, SegmentSecret, StreamKeys, Wrap, unwrap, wrap};
use crate::random::FixedBytes;
use crate::record::{Records, push_record};

const SEGMENT: SegmentId = SegmentId([0x11; 16]);
const BEGAN_S: u64 = 1_795_000_000;

fn node() -> NodeKey {
    NodeKey::from_bytes(&[0x22; 32])
}

fn params(segment_id: SegmentId) -> SegmentParams {
    SegmentParams {
        segment_id,
        node: node().public(),
        run_id: RunId([0x33; 16]),
        shard: 1,
        prev: SegmentId([0x44; 16]),
        chain_seq: 5,
        created_s: BEGAN_S,
        features: Default::default(),
    }
}

fn info(camera_id: &str) -> StreamInfo {
    StreamInfo {
        ssrc: 1,
        media_index: 0,
        clock_rate: 90_000,
        opened_ns: BEGAN_S * 1_000_000_000,
        camera_id: camera_id.into(),
        sdp: String::new(),
    }
}

/// A file as its writer's caller keeps it: every block where it was placed.
struct File {
    writer: SegmentWriter,
    bytes: Vec<u8>,
    keys: Vec<StreamKeys>,
}

impl File {
    fn begin(segment_id: SegmentId) -> Self {
        let (writer, bytes) = SegmentWriter::new(params(segment_id));
        File {
            writer,
            bytes,
            keys: Vec::new(),
        }
    }

    fn put(&mut self, (placed, block): (Placed, Vec<u8>)) -> Placed {
        assert_eq!(placed.offset, self.bytes.len() as u64, "blocks are dense");
        assert_eq!(placed.total_len as usize, block.len());
        self.bytes.extend_from_slice(&block);
        placed
    }

    fn add_customer(&mut self, identity: &Identity, slot: u32) {
        let segment_id = self.writer.segment_id();
        let place = Wrap {
            node_id: node().public().id(),
            segment_id,
            slot,
            i: 0,
            n: 1,
            erase: None,
        };
        let (hint, secret) = (Hint::from_bytes([5; 32]), SegmentSecret::from_bytes([6; 32]));
        let entry = wrap(
            identity.public(),
            &place,
            &hint,
            &secret,
            &mut FixedBytes(&[7; 64]),
        );
        let written = self.writer.add_keys(&[entry], 0);
        self.put(written);
    }

    fn add_stream(&mut self, stream: u8, slot: u32) -> u32 {
        let stream_id = StreamId([stream; 16]);
        let keys = StreamKeys::derive(
            &self.writer.segment_id(),
            &SegmentSecret::from_bytes([6; 32]),
            &stream_id,
        );
        let key = keys.seal_key(Backend::ALL[0]);
        let (row, placed, block) =
            self.writer
                .add_stream(stream_id, slot, &key, keys.commitment(), &info("front-door"), 0);
        self.keys.push(keys);
        self.put((placed, block));
        row
    }

    fn add_chunk(&mut self, row: u32, packet: &[u8], at_s: u64, backend: Backend) -> Placed {
        let mut buf = vec![0xEE; 64 * 1024];
        let body = &mut buf[HEADER_LEN..];
        ChunkHead {
            base_ns: at_s * 1_000_000_000,
            packet_count: 1,
            ..Default::default()
        }
        .encode_to(body);
        let body_len = push_record(body, ChunkHead::LEN, 0, 0, packet);
        let plan = ChunkPlan {
            row,
            body_len,
            first_s: at_s,
            last_s: at_s + 1,
            durable_4k: 2,
        };
        let placed = self
            .writer
            .seal_chunk(plan, &self.keys[row as usize].seal_key(backend), &mut buf);
        buf.truncate(placed.total_len as usize);
        self.put((placed, buf))
    }

    fn finish(mut self, params: FinishParams) -> (Vec<u8>, Finished) {
        let tail_len = self.writer.tail_len();
        let finished = self.writer.finish(Some(&node()), params);
        assert_eq!(
            (finished.offset, finished.bytes.len() as u64),
            (self.bytes.len() as u64, tail_len)
        );
        self.bytes.extend_from_slice(&finished.bytes);
        (self.bytes, finished)
    }
}

/// Every block but the SEGMENT copy, parsed and checked.
fn blocks(file: &[u8]) -> Vec<(u64, Header, &[u8])> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let header = parse_block(&file[at..]).expect("a whole block");
        let end = at + header.total_len as usize;
        blocks.push((at as u64, header, &file[at..end]));
        at = if at == 0 { SEGMENT_PREFIX_LEN } else { end };
    }
    blocks
}

fn whole_file() -> (Vec<u8>, Finished) {
    let mut file = File::begin(SEGMENT);
    file.add_customer(&Identity::generate(&mut FixedBytes(&[1; 64])), 9);
    file.add_customer(&Identity::generate(&mut FixedBytes(&[2; 64])), 4);
    let (a, b) = (file.add_stream(0xA0, 9), file.add_stream(0xB0, 4));
    file.add_chunk(a, &[1; 1200], BEGAN_S + 3, Backend::AesGcm);
    file.add_chunk(b, &[2; 5000], BEGAN_S + 2, Backend::AesGcm);
    let head = ChainHead {
        run_id: RunId([8; 16]),
        shard: 0,
        flags: HEAD_FOOTER,
        chain_seq: 7,
        segment_id: SegmentId([9; 16]),
        durable_upto: 4096,
        leaf_count: 3,
        root: [1; 32],
    };
    let written = file
        .writer
        .checkpoint(&node(), 8192, Some([3; 32]), BEGAN_S + 4, &[head]);
    file.put(written);
    let deleted = DeletedSegment {
        segment_id: SegmentId([9; 16]),
        run_id: RunId([8; 16]),
        shard: 0,
        reason: DeletionReason::MaxAge,
        chain_seq: 7,
        root: [1; 32],
    };
    let written = file.writer.tombstone(&node(), &[deleted], BEGAN_S + 4);
    file.put(written);
    file.add_chunk(a, &[3; 10], BEGAN_S + 9, Backend::AesGcm);
    file.finish(FinishParams::sealed(Some([3; 32]), 8192, BEGAN_S + 10))
}

#[test]
fn a_file_is_dense_in_offsets_and_block_numbers_and_begins_twice() {
    let (file, _) = whole_file();
    assert_eq!(file[..BLOCK_ALIGN], file[BLOCK_ALIGN..SEGMENT_PREFIX_LEN]);
    let blocks = blocks(&file);
    for (no, (_, header, _)) in blocks.iter().enumerate() {
        assert_eq!((header.block_no, header.segment_id), (no as u64, SEGMENT));
    }
    use BlockType::*;
    let kinds: Vec<_> = blocks.iter().map(|(_, header, _)| header.block_type).collect();
    let expected = [
        Segment, Key, Key, Stream, Stream, Chunk, Chunk, Checkpoint, Tombstone, Chunk, Index, Index, Index,
        Footer,
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn the_footer_and_checkpoint_hold_the_roots_of_the_leaves_before_them_signed() {
    let (file, finished) = whole_file();
    let mut tree = MerkleTree::new();
    for (_, header, block) in blocks(&file) {
        if header.block_type == BlockType::Checkpoint {
            let body = CheckpointBody::parse(header.body(block)).expect("parses");
            assert_eq!((body.leaf_count, body.root), (tree.leaf_count(), tree.root()));
            assert!(node().public().verify_checkpoint(header.body(block), &SEGMENT));
        }
        if header.block_type == BlockType::Tombstone {
            assert!(node().public().verify_tombstone(header.body(block), &SEGMENT));
        }
        if header.block_type == BlockType::Footer {
            let body = FooterBody::parse(header.body(block)).expect("parses");
            assert_eq!(body, finished.footer);
            assert_eq!((body.leaf_count, body.root), (tree.leaf_count(), tree.root()));
            assert_eq!(
                (finished.leaf_count, finished.root),
                (tree.leaf_count(), tree.root())
            );
            assert_eq!(body.flags, FOOTER_SEALED | FOOTER_SIGNED);
            assert_eq!(
                (body.chunk_count, body.first_s, body.last_s),
                (3, BEGAN_S + 2, BEGAN_S + 10)
            );
            assert!(node().public().verify_footer(header.body(block), &SEGMENT));
        }
        tree.push(leaf_of_block(&header, block));
    }
}

#[test]
fn every_index_row_describes_the_block_it_names() {
    let (file, finished) = whole_file();
    let blocks = blocks(&file);
    let at = |offset: u64| {
        blocks
            .iter()
            .find(|(at, _, _)| *at == offset)
            .expect("a block there")
            .1
    };
    let table = |offset: u64| {
        let (_, header, block) = blocks
            .iter()
            .find(|(at, _, _)| *at == offset)
            .expect("an INDEX block");
        IndexBody::parse(header.body(block)).expect("parses").rows
    };
    let IndexRows::Streams(streams) = table(finished.footer.streams_offset) else {
        panic!("streams")
    };
    let IndexRows::Chunks(chunks) = table(finished.footer.chunks_offset) else {
        panic!("chunks")
    };
    let IndexRows::Keys(keys) = table(finished.footer.keys_offset) else {
        panic!("keys")
    };
    assert_eq!((chunks.len(), streams.len(), keys.len()), (3, 2, 2));
    for row in chunks {
        let (header, stream) = (at(row.offset), &streams[row.stream_row as usize]);
        assert_eq!(
            (header.block_no, header.stream_seq),
            (row.block_no, row.stream_seq)
        );
        assert_eq!(
            (header.total_len, header.stream_id),
            (row.total_len, stream.stream_id)
        );
        assert_eq!(
            (header.first_arrival_s, header.last_arrival_s),
            (row.first_s, row.last_s)
        );
    }
    assert!(
        streams
            .iter()
            .all(|row| at(row.offset).stream_id == row.stream_id)
    );
    assert_eq!((streams[0].chunks, streams[0].bytes), (2, 8192));
    assert_eq!(
        (streams[0].first_s, streams[0].last_s),
        (BEGAN_S + 3, BEGAN_S + 10)
    );
    assert!(
        keys.iter()
            .all(|row| at(row.offset).block_type == BlockType::Key && row.entry_count == 1)
    );
}

#[test]
fn a_customer_opens_their_streams_from_the_file_alone() {
    let (file, _) = whole_file();
    let blocks = blocks(&file);
    let alice = Identity::generate(&mut FixedBytes(&[1; 64]));
    let node_id: NodeId = SegmentBody::parse(blocks[0].1.body(blocks[0].2))
        .expect("parses")
        .node_id();
    let entries = blocks
        .iter()
        .filter(|(_, header, _)| header.block_type == BlockType::Key);
    let entries =
        entries.flat_map(|(_, header, block)| KeyBody::parse(header.body(block)).expect("parses").entries);
    let opened: Vec<_> = entries
        .filter_map(|entry| Some((entry.slot, unwrap(&alice, &entry, &node_id, &SEGMENT).ok()?)))
        .collect();
    let [(slot, unwrapped)] = &opened[..] else {
        panic!("one entry is hers")
    };
    let Secret::Customer(secret) = &unwrapped.secret else {
        panic!("a customer's secret")
    };

    let mut packets = Vec::new();
    for (_, header, block) in blocks.iter().filter(|(_, header, _)| header.key_slot == *slot) {
        let keys = StreamKeys::derive(&SEGMENT, secret, &header.stream_id);
        let mut block = block.to_vec();
        match header.block_type {
            BlockType::Stream => {
                assert!(keys.matches(header.extension(&block)));
                let body = keys.open_key().open_block(header, &mut block).expect("opens");
                assert_eq!(StreamInfo::parse(body), Ok(info("front-door")));
            }
            BlockType::Chunk => {
                let body = keys.open_key().open_block(header, &mut block).expect("opens");
                packets.extend(Records::new(body).map(|record| record.expect("whole").packet.to_vec()));
            }
            _ => {}
        }
    }
    assert_eq!(packets, [vec![1; 1200], vec![3; 10]]);
}

#[test]
fn backends_write_the_same_file() {
    let files: Vec<_> = Backend::ALL
        .iter()
        .map(|backend| {
            let mut file = File::begin(SEGMENT);
            file.add_customer(&Identity::generate(&mut FixedBytes(&[1; 64])), 0);
            let row = file.add_stream(1, 0);
            file.add_chunk(row, &[1; 60_000], BEGAN_S, *backend);
            file.bytes
        })
        .collect();
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_full_buffer_is_one_chunk_without_padding() {
    let mut file = File::begin(SEGMENT);
    file.add_customer(&Identity::generate(&mut FixedBytes(&[1; 64])), 0);
    let row = file.add_stream(1, 0);
    let packet = vec![7; crate::record::MAX_PACKET_LEN];
    let placed = file.add_chunk(row, &packet, BEGAN_S, Backend::AesGcm);
    assert_eq!(placed.total_len as usize, HEADER_LEN + MAX_CHUNK_BODY_LEN);
}

#[test]
fn sealing_stays_within_what_was_reserved() {
    let mut file = File::begin(SEGMENT);
    file.add_customer(&Identity::generate(&mut FixedBytes(&[1; 64])), 0);
    let row = file.add_stream(1, 0);
    file.writer.reserve(100, 1);
    let capacity = file.writer.tables.chunks.capacity();
    for seq in 0..100 {
        let placed = file.add_chunk(row, &[7; 100], BEGAN_S, Backend::AesGcm);
        assert_eq!(placed.stream_seq, seq);
    }
    assert_eq!(file.writer.tables.chunks.capacity(), capacity);
}

#[test]
#[should_panic(expected = "the KEY entries of a slot")]
fn a_stream_without_its_key_entry_is_refused() {
    File::begin(SEGMENT).add_stream(1, 0);
}

#[test]
fn relocated_blocks_keep_their_number_and_open_in_their_new_file() {
    let mut old = File::begin(SEGMENT);
    old.add_customer(&Identity::generate(&mut FixedBytes(&[1; 64])), 0);
    let row = old.add_stream(1, 0);
    old.add_chunk(row, &[7; 100], BEGAN_S, Backend::AesGcm);
    let moved = blocks(&old.bytes);

    let mut new = File::begin(SegmentId([0x99; 16]));
    let origin = OriginBody {
        segment_id: SEGMENT,
        node_id: node().public().id(),
        run_id: RunId([0x33; 16]),
        shard: 1,
        chain_seq: 5,
        first_block_no: 1,
        last_block_no: 3,
    };
    let written = new.writer.origin(&origin);
    assert_eq!(new.put(written).block_no, 1);
    for (_, header, block) in &moved[1..] {
        let placed = new.writer.place_copy(header, block);
        assert_eq!(new.put((placed, block.to_vec())).block_no, header.block_no);
    }
    let (file, finished) = new.finish(FinishParams::sealed(None, 0, BEGAN_S));
    let blocks = blocks(&file);
    let own = blocks
        .iter()
        .filter(|(_, header, _)| header.segment_id != SEGMENT);
    let numbers: Vec<_> = own.map(|(_, header, _)| header.block_no).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "copies take no number of their host");
    assert_eq!((finished.footer.chunk_count, finished.leaf_count), (1, 8));
    let (_, header, block) = blocks
        .iter()
        .find(|(_, header, _)| header.block_type == BlockType::Chunk)
        .expect("it");
    assert!(
        old.keys[0]
            .open_key()
            .open_block(header, &mut block.to_vec())
            .is_ok()
    );
}

#[test]
fn recovery_comes_to_the_end_that_the_writer_would_have_written() {
    let (file, sealed) = whole_file();
    let mut writer = SegmentWriter::adopting(SEGMENT);
    for (offset, header, block) in blocks(&file) {
        if offset < sealed.offset {
            writer.adopt(offset, &header, block);
        }
    }
    let recovered = writer.finish(
        Some(&node()),
        FinishParams::recovered(Some([3; 32]), 8192, BEGAN_S + 10, 7),
    );
    assert_eq!(
        (recovered.offset, recovered.bytes.len()),
        (sealed.offset, sealed.bytes.len())
    );
    assert_eq!(
        (recovered.leaf_count, recovered.root),
        (sealed.leaf_count, sealed.root)
    );
    let as_sealed = FooterBody {
        flags: sealed.footer.flags,
        signed_leaf_count: sealed.footer.signed_leaf_count,
        signature: sealed.footer.signature,
        ..recovered.footer
    };
    assert_eq!(as_sealed, sealed.footer);
    assert_eq!(
        (recovered.footer.flags, recovered.footer.signed_leaf_count),
        (FOOTER_RECOVERED | FOOTER_SIGNED, 7)
    );
}

#[test]
fn a_chunk_whose_stream_block_is_lost_keeps_its_row() {
    let (file, sealed) = whole_file();
    let mut writer = SegmentWriter::adopting(SEGMENT);
    for (offset, header, block) in blocks(&file) {
        if offset < sealed.offset && header.block_type != BlockType::Stream {
            writer.adopt(offset, &header, block);
        }
    }
    assert!(
        writer
            .tables
            .chunks
            .iter()
            .all(|row| row.stream_row == NO_STREAM_ROW)
    );
    let finished = writer.finish(None, FinishParams::recovered(None, 0, BEGAN_S, 0));
    assert_eq!((finished.footer.chunk_count, finished.footer.streams_len), (3, 0));
    assert_eq!(
        (finished.footer.flags, finished.footer.signature),
        (FOOTER_RECOVERED, [0; 64])
    );
}

#[test]
fn an_index_longer_than_a_block_is_cut_into_parts() {
    let mut file = File::begin(SEGMENT);
    let row = ChunkRow {
        offset: 0,
        total_len: 4096,
        stream_row: 0,
        first_s: 1,
        last_s: 2,
        block_no: 3,
        stream_seq: 4,
    };
    let per_block = IndexBody::rows_per_block(48);
    assert_eq!(per_block, 21_842);
    file.writer.tables.chunks = vec![row; 2 * per_block + 1];
    let (bytes, finished) = file.finish(FinishParams::sealed(None, 0, BEGAN_S));
    let mut parts = Vec::new();
    for (_, header, block) in blocks(&bytes) {
        if header.block_type == BlockType::Index {
            let IndexBody {
                part,
                rows: IndexRows::Chunks(rows),
            } = IndexBody::parse(header.body(block)).expect("parses")
            else {
                panic!("chunks only")
            };
            parts.push((part, rows.len()));
        }
    }
    assert_eq!(parts, [(0, per_block), (1, per_block), (2, 1)]);
    assert_eq!(finished.footer.chunks_len, 2 * (1 << 20) + 4096);
}
