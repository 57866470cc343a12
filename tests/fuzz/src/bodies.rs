//! Blocks and bodies by themselves: headers, each kind of body, the records of an opened chunk.
//!
//! The property throughout: what parses can be written again and parses to the same. The bytes may differ only where the format says
//! that readers ignore them (docs/FORMAT.md §1, §4, §10).

use harborseal_segment::block::{HEADER_LEN, Header, Stored, encode_block, parse_block};
use harborseal_segment::body::{
    BodyError, CheckpointBody, ChunkHead, FooterBody, IndexBody, KeyBody, OriginBody, SegmentBody,
    StreamInfo, TombstoneBody,
};
use harborseal_segment::ids::SegmentId;
use harborseal_segment::record::{RECORD_RTCP, Records, push_record, record_len};

use super::customers::node;
use super::forge;
use super::input::Input;

/// A block: the first byte says which checksums are mended.
pub fn header(data: &[u8]) {
    let mut input = Input::new(data);
    let mend = input.u8();
    let mut block = input.rest().to_vec();
    if mend & 1 != 0 {
        // The recipe holds no padding; here it is.
        let len = block.len().max(HEADER_LEN).next_multiple_of(4096);
        block.resize(len, 0);
    }
    if mend & 2 != 0 {
        forge::mend(&mut block);
    }
    let Ok(header) = Header::parse(&block) else {
        assert!(
            parse_block(&block).is_err(),
            "a block is no better than its header"
        );
        return;
    };
    let bytes = header.encode();
    assert_eq!(Header::parse(&bytes), Ok(header), "written again, it is the same");
    let reserved = [60..64, 88..92, 116..124].into_iter().flatten();
    if reserved.clone().all(|at| block[at] == 0) {
        assert_eq!(bytes, block[..HEADER_LEN], "every field has its bytes");
    }
    if parse_block(&block).is_ok() {
        assert!(header.body_end() <= header.total_len as usize);
        assert_eq!(
            header.extension(&block).len() + header.body(&block).len() + HEADER_LEN,
            header.body_end()
        );
        // An erased body has lost what its checksum was over.
        let whole = header.check_body(&block) == Ok(Stored::Whole);
        if whole && usize::from(header.header_len) == HEADER_LEN {
            let again = encode_block(header, header.body(&block));
            assert_eq!(parse_block(&again), Ok(header));
            assert_eq!(again[HEADER_LEN..], block[HEADER_LEN..header.total_len as usize]);
        }
    }
}

/// Parses, writes, parses: the same. Returns what was written.
fn again<T: PartialEq + std::fmt::Debug>(
    body: &[u8],
    parse: impl Fn(&[u8]) -> Result<T, BodyError>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<Vec<u8>> {
    let parsed = parse(body).ok()?;
    let written = encode(&parsed);
    assert_eq!(
        parse(&written).as_ref(),
        Ok(&parsed),
        "written again, it is the same"
    );
    let longer = [body, &[0xEE; 9]].concat();
    assert_eq!(
        parse(&longer).as_ref(),
        Ok(&parsed),
        "bytes behind the known fields are ignored"
    );
    Some(written)
}

/// A body: the first byte says of which kind.
pub fn bodies(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let body = input.rest();
    let (node, segment_id) = (node().public(), SegmentId([8; 16]));
    match kind % 9 {
        0 => drop(again(body, SegmentBody::parse, SegmentBody::encode)),
        1 => drop(again(body, KeyBody::parse, KeyBody::encode)),
        2 => drop(again(body, StreamInfo::parse, StreamInfo::encode)),
        3 => drop(again(body, OriginBody::parse, OriginBody::encode)),
        4 => drop(again(body, IndexBody::parse, IndexBody::encode)),
        5 => {
            let parsed = again(body, FooterBody::parse, |footer| footer.encode()).is_some();
            assert!(parsed || !node.verify_footer(body, &segment_id));
        }
        6 => {
            let parsed = again(body, CheckpointBody::parse, CheckpointBody::encode).is_some();
            assert!(parsed || !node.verify_checkpoint(body, &segment_id));
        }
        7 => {
            let parsed = again(body, TombstoneBody::parse, TombstoneBody::encode).is_some();
            assert!(parsed || !node.verify_tombstone(body, &segment_id));
        }
        _ => {
            let encode = |head: &ChunkHead| {
                let mut bytes = vec![0; ChunkHead::LEN];
                head.encode_to(&mut bytes);
                bytes
            };
            drop(again(body, ChunkHead::parse, encode));
            every_record(body);
        }
    }
}

/// Reads all records of a plaintext; `None` if they do not fill it.
fn every_record(text: &[u8]) -> Option<usize> {
    let mut found = 0;
    let mut written = text.to_vec();
    let mut at = ChunkHead::LEN.min(text.len());
    for record in Records::new(text) {
        let record = record.ok()?;
        let end = at + record_len(record.packet.len());
        let flags = u16::from_le_bytes([text[at + 2], text[at + 3]]);
        assert_eq!(record.rtcp, flags & RECORD_RTCP != 0);
        let next = push_record(&mut written, at, flags, record.arrival_delta_us, record.packet);
        assert_eq!(next, end, "records are dense");
        at = end;
        found += 1;
    }
    assert_eq!(
        at,
        text.len(),
        "records that end without an error end with the body"
    );
    assert!(written == text, "written again, they are the same");
    Some(found)
}

/// An opened chunk: the input is the plaintext, sealed here under a known key, so that what a hostile writer could seal is parsed.
pub fn records(data: &[u8]) {
    let text = &data[..data.len().min(60_000)];
    let stream = forge::open_stream();
    let (header, block) = forge::sealed_chunk(text);
    let opened = stream.open_chunk(&header, block.clone().into());
    let head = ChunkHead::parse(text);
    let whole = every_record(text);
    let fits = matches!((&head, whole), (Ok(head), Some(found)) if head.packet_count as usize == found);
    assert_eq!(
        opened.is_ok(),
        fits,
        "it opens if it follows the format, and only then"
    );
    if let Ok(chunk) = opened {
        let mut bytes = ChunkHead::LEN;
        for packet in chunk.packets() {
            assert!(packet.arrival_ns >= chunk.head.base_ns);
            bytes += record_len(packet.bytes.len());
        }
        assert_eq!(bytes, text.len());
    }
    // One changed bit, anywhere in what is authenticated, and it does not open. Where, the input decides.
    let mut input = Input::new(data);
    let mut flipped = block;
    let at = input.u32() as usize % header.body_end();
    // The magic and the checksums are made right again below.
    let sealed_under = (4..112).contains(&at) || at >= HEADER_LEN;
    flipped[at] ^= 1 << (input.u8() % 8);
    if sealed_under {
        forge::mend(&mut flipped);
        if let Ok(header) = parse_block(&flipped) {
            assert!(
                stream.open_chunk(&header, flipped.into()).is_err(),
                "byte {at} was changed"
            );
        }
    }
}
