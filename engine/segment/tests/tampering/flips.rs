//! Changed bits, and files cut short.

use harborseal_segment::block::{BlockError, BlockType, HEADER_LEN, MAGIC};
use harborseal_segment::head::CopyFault;
use harborseal_segment::scan::GapReason;
use harborseal_segment::verify::What;

use crate::common::segment_id;
use crate::lab::{Expected, Lab, Part, Row};

/// What a block is found to be once `file` differs from it at one byte.
fn fault_of(file: &[u8], part: &Part, byte: usize) -> BlockError {
    let block = &file[part.range()];
    let word = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes"));
    if byte < MAGIC.len() {
        BlockError::NoMagic
    } else if byte < HEADER_LEN {
        let computed = crc32c::crc32c(&block[..124]);
        BlockError::HeaderCrc {
            stored: word(124),
            computed,
        }
    } else if byte < part.header.body_end() {
        let computed = crc32c::crc32c(&block[HEADER_LEN..part.header.body_end()]);
        BlockError::BodyCrc {
            stored: word(112),
            computed,
        }
    } else {
        BlockError::Padding { at: byte }
    }
}

fn expected(lab: &Lab, file: &[u8], part: &Part, byte: usize) -> Expected {
    let fault = fault_of(file, part, byte);
    let place = |what| lab.damage(part, what);
    match part.header.block_type {
        BlockType::Segment => place(What::SegmentCopy(CopyFault::Broken(fault.to_string()))),
        BlockType::Footer => Expected::Unclosed,
        _ => place(What::Gap(GapReason::Broken(fault))),
    }
}

fn flip(lab: &Lab, row: &mut Row, part: &Part, byte: usize, bits: u8) {
    let file = lab.flipped(part.at + byte, bits);
    let place = format_args!(
        "{} at {}, byte {byte} ^ {bits:#04x}",
        part.header.block_type.name(),
        part.at
    )
    .to_string();
    row.expect(place, lab.look(&file), expected(lab, &file, part, byte));
}

#[test]
fn every_flipped_byte_of_a_header_is_found() {
    let lab = Lab::new();
    let mut row = Row::new("a bit of a header flipped: every bit, in the first and last block of each type");
    for part in &lab.of_each_kind() {
        for bit in 0..HEADER_LEN * 8 {
            flip(&lab, &mut row, part, bit / 8, 1 << (bit % 8));
        }
    }
    row.end();
    let mut row = Row::new("a byte of a header replaced by its complement: every byte of every block");
    for part in &lab.parts {
        (0..HEADER_LEN).for_each(|byte| flip(&lab, &mut row, part, byte, 0xFF));
    }
    row.end();
}

#[test]
fn flipped_bytes_of_bodies_and_padding_are_found() {
    let lab = Lab::new();
    let mut row = Row::new("a bit of a body flipped: first, last and every 61st byte of every block");
    for part in &lab.parts {
        let (from, end) = (HEADER_LEN, part.header.body_end());
        for byte in (from..end).step_by(61).chain([end - 1]) {
            flip(&lab, &mut row, part, byte, 1 << (byte % 8));
        }
    }
    row.end();
    let mut row = Row::new("a bit of padding set: first, last and every 251st byte of every block");
    for part in lab.parts.iter().filter(|part| part.header.body_end() < part.len) {
        let (from, end) = (part.header.body_end(), part.len);
        for byte in (from..end).step_by(251).chain([end - 1]) {
            flip(&lab, &mut row, part, byte, 1 << (byte % 8));
        }
    }
    row.end();
}

#[test]
fn a_block_made_zeros_is_found() {
    let lab = Lab::new();
    let mut row = Row::new("a block overwritten with zeros");
    for part in &lab.parts {
        let mut file = lab.file.clone();
        file[part.range()].fill(0);
        let expected = match part.header.block_type {
            BlockType::Segment => {
                let fault = CopyFault::Broken(BlockError::NoMagic.to_string());
                lab.damage(part, What::SegmentCopy(fault))
            }
            BlockType::Footer => Expected::Unclosed,
            // What follows it is no block of this file any more, and says so.
            BlockType::Origin => lab.damage(part, What::Gap(GapReason::Foreign(segment_id(1)))),
            _ => lab.damage(part, What::Gap(GapReason::Zero)),
        };
        row.expect(part.at, lab.look(&file), expected);
    }
    row.end();
}

#[test]
fn a_cut_leaves_a_segment_that_is_not_sealed_any_more() {
    let lab = Lab::new();
    let cut = |len: usize| match len {
        0 => Expected::Refused("never_begun", 0),
        _ => Expected::Unclosed,
    };
    let mut row = Row::new("cut at every 4 KiB");
    for len in (0..lab.file.len()).step_by(4096) {
        row.expect(len, lab.look(&lab.file[..len]), cut(len));
    }
    row.end();
    let mut row = Row::new("cut at every 4 KiB, one byte before and one behind");
    for len in (4096..lab.file.len())
        .step_by(4096)
        .flat_map(|len| [len - 1, len + 1])
    {
        let expected = if len < 4096 {
            Expected::Refused("never_begun", 0)
        } else {
            cut(len)
        };
        row.expect(len, lab.look(&lab.file[..len]), expected);
    }
    row.end();
    let mut row = Row::new("cut at every 4 KiB, and filled up with zeros");
    for len in (8192..lab.file.len()).step_by(4096) {
        let mut file = lab.file.clone();
        file[len..].fill(0);
        row.expect(len, lab.look(&file), cut(len));
    }
    row.end();
}

/// A body of zeros is what erasure leaves. Nobody's word for it, and it is damage.
#[test]
fn a_chunk_wiped_without_a_statement_of_its_node_is_found() {
    let lab = Lab::new();
    let mut row = Row::new("the body of a CHUNK wiped, as if it had been erased");
    for part in lab.of(BlockType::Chunk) {
        let mut file = lab.file.clone();
        file[part.at + HEADER_LEN..part.at + part.header.body_end()].fill(0);
        let unstated = (part.at as u64, "erased_unstated");
        row.expect(part.at, lab.look(&file), Expected::Among(vec![unstated]));
    }
    row.end();
}
