//! Blocks out of a source, in as few reads as they take: what is asked for next is mostly what stands next.
//!
//! No offset and no length that comes in here is believed. What goes out is a valid block, or an error that names its place; and
//! a page that cannot be read costs the block it is in, not those that would have been read with it.

use crate::block::{BLOCK_ALIGN, Header, MAX_BLOCK_LEN, Stored};
use crate::scan::{ReadError, read_naming_the_page};
use crate::source::Source;

const ALIGN: u64 = BLOCK_ALIGN as u64;

/// Blocks so far apart are read in one go with what lies between: a read from a disk costs as much as this does from it.
pub(super) const SMALL_GAP: u64 = 4 * ALIGN;

/// A stretch of the source in memory, no longer than the longest block.
pub(super) struct Ahead<'a, S> {
    source: &'a S,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, S: Source> Ahead<'a, S> {
    pub(super) fn new(source: &'a S) -> Self {
        Ahead {
            source,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// The valid block at `offset`. `until` is how far reading pays, because more will be asked for up to there.
    pub(super) fn block(&mut self, offset: u64, until: u64) -> Result<(Header, Stored, &[u8]), ReadError> {
        let wrong = |what: String| ReadError::Damaged { offset, what };
        if !offset.is_multiple_of(ALIGN) || !self.is_inside(offset, ALIGN) {
            return Err(wrong("the index leads outside the segment".into()));
        }
        if !self.holds(offset, ALIGN) {
            self.fill(offset, ALIGN, until)?;
        }
        let header = Header::parse(self.at(offset)).map_err(|error| wrong(error.to_string()))?;
        let total_len = u64::from(header.total_len);
        if !self.holds(offset, total_len) {
            if !self.is_inside(offset, total_len) {
                return Err(wrong("the block is cut".into()));
            }
            self.fill(offset, total_len, until)?;
        }
        let bytes = &self.at(offset)[..total_len as usize];
        let stored = header.check_body(bytes);
        Ok((header, stored.map_err(|error| wrong(error.to_string()))?, bytes))
    }

    /// The bytes of the block that was given out for `offset`, without a copy if nothing else is in memory.
    pub(super) fn take(&mut self, offset: u64, header: &Header) -> Vec<u8> {
        let total_len = header.total_len as usize;
        match self.start == offset && self.bytes.len() == total_len {
            true => std::mem::take(&mut self.bytes),
            false => self.at(offset)[..total_len].to_vec(),
        }
    }

    fn is_inside(&self, offset: u64, len: u64) -> bool {
        offset
            .checked_add(len)
            .is_some_and(|end| end <= self.source.len())
    }

    fn holds(&self, offset: u64, len: u64) -> bool {
        self.start <= offset && offset - self.start + len <= self.bytes.len() as u64
    }

    /// What is in memory from `offset` on, which is.
    fn at(&self, offset: u64) -> &[u8] {
        &self.bytes[(offset - self.start) as usize..]
    }

    /// Reads from `offset` up to `until`, but at least `least` bytes, which are inside the source. What is there already is kept and
    /// not read again.
    fn fill(&mut self, offset: u64, least: u64, until: u64) -> Result<(), ReadError> {
        let kept = match self.holds(offset, 1) {
            true => self.bytes.split_off((offset - self.start) as usize),
            false => Vec::new(),
        };
        let until = until.min(self.source.len()).min(offset + MAX_BLOCK_LEN as u64);
        let len = until.saturating_sub(offset).max(least) as usize;
        let from = kept.len();
        (self.start, self.bytes) = (offset, kept);
        self.bytes.resize(len, 0);
        let at = offset + from as u64;
        if self.source.read_at(at, &mut self.bytes[from..]).is_ok() {
            return Ok(());
        }
        // One page of all these fails, perhaps of a block that is not asked for yet.
        self.bytes.truncate(least as usize);
        let read = read_naming_the_page(&self.source, at, &mut self.bytes[from..]);
        if read.is_err() {
            self.bytes.clear();
        }
        read
    }
}

/// For each of these places, in the order of their offsets, the end of what is worth reading with it: places that follow within `gap`
/// bytes belong together. A place that does not follow ends what came before it.
pub(super) fn ends(places: impl DoubleEndedIterator<Item = (u64, u64)>, gap: u64) -> Vec<u64> {
    let mut ends = Vec::new();
    let mut next: Option<(u64, u64)> = None;
    for (offset, len) in places.rev() {
        let own_end = offset.saturating_add(len);
        let end = match next {
            Some((follows, end)) if follows >= own_end && follows - own_end <= gap => end,
            _ => own_end,
        };
        next = Some((offset, end));
        ends.push(end);
    }
    ends.reverse();
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_belong_together_while_the_gaps_are_small() {
        let places = [(0, 10), (10, 10), (25, 5), (40, 10), (5, 1), (u64::MAX, 9)];
        assert_eq!(ends(places.into_iter(), 0), [20, 20, 30, 50, 6, u64::MAX]);
        assert_eq!(ends(places.into_iter(), 5), [30, 30, 30, 50, 6, u64::MAX]);
        assert!(ends([].into_iter(), 5).is_empty());
    }
}
