//! What a header and a block must be to be taken for one.

use super::*;

fn chunk_header() -> Header {
    Header {
        stream_id: StreamId([7; 16]),
        key_slot: 3,
        first_arrival_s: 1_795_000_000,
        last_arrival_s: 1_795_000_001,
        stream_seq: 9,
        durable_4k: 77,
        tag: [5; 16],
        ..Header::new(BlockType::Chunk, SegmentId([1; 16]), 42, 5000)
    }
}

#[test]
fn a_header_comes_back_as_written() {
    let header = chunk_header();
    assert_eq!(Header::parse(&header.encode()), Ok(header));
    assert_eq!(header.total_len, 8192);
}

#[test]
fn every_bit_flip_in_a_header_is_refused() {
    let bytes = chunk_header().encode();
    for bit in 0..HEADER_LEN * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::parse(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn every_byte_flip_in_a_block_is_refused() {
    let header = Header::new(BlockType::Checkpoint, SegmentId([1; 16]), 4, 160);
    let block = encode_block(header, &[9; 160]);
    assert!(parse_block(&block).is_ok());
    for at in 0..block.len() {
        let mut flipped = block.clone();
        flipped[at] ^= 0x40;
        assert!(parse_block(&flipped).is_err(), "byte {at}");
    }
}

#[test]
fn every_cut_of_a_block_is_refused() {
    let block = encode_block(
        Header::new(BlockType::Index, SegmentId([1; 16]), 4, 160),
        &[9; 160],
    );
    for len in 0..block.len() {
        assert!(parse_block(&block[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn a_valid_crc_does_not_excuse_a_broken_rule() {
    let good = chunk_header();
    let refused = |name, header: Header| {
        let err = Header::parse(&header.encode()).unwrap_err();
        assert!(matches!(err, BlockError::Field { .. }), "{name}: {err}");
    };
    refused(
        "total_len off the grid",
        Header {
            total_len: 8193,
            ..good
        },
    );
    refused(
        "total_len 0",
        Header {
            total_len: 0,
            body_len: 0,
            ..good
        },
    );
    refused(
        "total_len over 1 MiB",
        Header {
            total_len: (MAX_BLOCK_LEN + BLOCK_ALIGN) as u32,
            ..good
        },
    );
    refused(
        "body beyond the block",
        Header {
            body_len: 8192 - 127,
            ..good
        },
    );
    refused(
        "body_len that would wrap",
        Header {
            body_len: u32::MAX,
            ..good
        },
    );
    refused(
        "short header",
        Header {
            header_len: 127,
            ..good
        },
    );
    let hashed = Header::hashed_chunk(SegmentId([1; 16]), 3, 16);
    assert!(Header::parse(&hashed.encode()).is_ok());
    refused(
        "hashed CHUNK without its hash",
        Header {
            header_len: 128,
            ..hashed
        },
    );
    let stream = Header::new(BlockType::Stream, SegmentId([1; 16]), 3, 16);
    refused(
        "STREAM without its commitment",
        Header {
            header_len: 128,
            ..stream
        },
    );
    let footer = Header::new(BlockType::Footer, SegmentId([1; 16]), 3, 248);
    refused(
        "FOOTER of two pages",
        Header {
            total_len: 8192,
            ..footer
        },
    );
}

#[test]
fn what_a_later_version_adds_is_ignored() {
    let later = Header {
        header_len: 200,
        flags: 0x83,
        ..chunk_header()
    };
    let mut bytes = later.encode();
    bytes[header_at::RESERVED_60].fill(0xFF);
    let crc = crc32c::crc32c(&bytes[..header_at::HEADER_CRC32C.start]);
    put(&mut bytes, header_at::HEADER_CRC32C, &crc.to_le_bytes());
    assert_eq!(Header::parse(&bytes), Ok(later));
    assert!(later.is_critical());
}

#[test]
fn a_chunk_without_its_body_is_erased_and_any_other_block_is_broken() {
    let body = [9; 5000];
    for header_len in [128, 160] {
        let chunk = Header {
            header_len,
            ..chunk_header()
        };
        let mut block = vec![0; 8192];
        block[usize::from(header_len)..][..5000].copy_from_slice(&body);
        let chunk = Header {
            body_crc32c: crc32c::crc32c(&block[HEADER_LEN..chunk.body_end()]),
            ..chunk
        };
        block[..HEADER_LEN].copy_from_slice(&chunk.encode());
        assert_eq!(chunk.check_body(&block), Ok(Stored::Whole));
        block[usize::from(header_len)..].fill(0);
        assert_eq!(chunk.check_body(&block), Ok(Stored::Erased));
        assert!(parse_block(&block).is_err());
        for at in [usize::from(header_len), 8191] {
            let mut scribbled = block.clone();
            scribbled[at] = 1;
            assert!(matches!(
                chunk.check_body(&scribbled),
                Err(BlockError::BodyCrc { .. })
            ));
        }
    }
    let header = Header::new(BlockType::Checkpoint, SegmentId([1; 16]), 4, 160);
    let mut block = encode_block(header, &[9; 160]);
    block[HEADER_LEN..].fill(0);
    assert!(matches!(parse_block(&block), Err(BlockError::BodyCrc { .. })));
}

#[test]
fn an_unknown_type_parses_so_that_it_can_be_skipped() {
    for value in [10, 0x7F, 0x80, 0xFF] {
        let block_type = BlockType::from_u8(value).expect("not 0");
        let header = Header {
            header_len: 200,
            ..Header::new(block_type, SegmentId([1; 16]), 3, 16)
        };
        assert_eq!(Header::parse(&header.encode()), Ok(header));
        assert!(!block_type.is_known());
    }
    assert_eq!(BlockType::from_u8(0), None);
}
