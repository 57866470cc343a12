//! The blocks of a segment, walked by `docs/FORMAT.md` alone: what the engine's own reader says is not asked.

const MAGIC: &[u8] = b"\x89HS1";
/// SEGMENT and its copy stand before everything else.
const PREFIX_BYTES: usize = 8192;
const HEADER_BYTES: usize = 128;

/// Walks block after block from the start to `end`, checking each one's checksums and that no number is left out.
/// Returns the last block's number, `None` where there is no block but SEGMENT.
pub fn walk(file: &[u8], end: u64) -> Result<Option<u64>, String> {
    let end = usize::try_from(end).expect("a segment fits memory");
    let mut at = PREFIX_BYTES;
    let mut next_block_no = 1;
    while at < end {
        let header = file
            .get(at..at + HEADER_BYTES)
            .ok_or(format!("no header at {at}"))?;
        let u32_at =
            |place: usize| u32::from_le_bytes(header[place..place + 4].try_into().expect("four bytes"));
        if &header[..4] != MAGIC {
            return Err(format!("no block at {at}"));
        }
        if u32_at(124) != crc32c::crc32c(&header[..124]) {
            return Err(format!("the header at {at} is damaged"));
        }
        let header_bytes = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let (total, body) = (u32_at(8) as usize, u32_at(12) as usize);
        let stored = file
            .get(at + HEADER_BYTES..at + header_bytes + body)
            .ok_or(format!("no body at {at}"))?;
        if u32_at(112) != crc32c::crc32c(stored) {
            return Err(format!("the body at {at} is damaged"));
        }
        let block_no = u64::from_le_bytes(header[32..40].try_into().expect("eight bytes"));
        if block_no != next_block_no {
            return Err(format!(
                "block {block_no} stands at {at}, where {next_block_no} belongs"
            ));
        }
        next_block_no += 1;
        at += total;
    }
    if at != end {
        return Err(format!("the block before {end} ends at {at}"));
    }
    Ok((next_block_no > 1).then_some(next_block_no - 1))
}
