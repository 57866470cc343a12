//! The streams of one identity: its KEY entries first, then the STREAM blocks of its slots.

use std::collections::HashSet;

use super::ahead::{Ahead, SMALL_GAP, ends};
use super::{Segment, StreamError};
use crate::block::{BLOCK_ALIGN, BlockType, Stored};
use crate::body::{KeyBody, KeyEntry, StreamRow};
use crate::ids::SegmentId;
use crate::open::{Keyring, OpenStream, Origin, Unlocked};
use crate::scan::{Block, ReadError};
use crate::source::Source;

impl<S: Source> Segment<S> {
    /// KEY entries by their segment of origin.
    fn key_entries(&self) -> Result<Vec<(Origin, Vec<KeyEntry>)>, ReadError> {
        let mut groups: Vec<(Origin, Vec<KeyEntry>)> = Vec::new();
        let rows = &self.tables.keys;
        let places = rows.iter().map(|row| (row.offset, row.total_len.into()));
        let mut blocks = Ahead::new(&self.source);
        for (row, until) in rows.iter().zip(ends(places, SMALL_GAP)) {
            let offset = row.offset;
            let (header, _, bytes) = blocks.block(offset, until)?;
            let damaged = |what: &str| ReadError::Damaged {
                offset,
                what: what.into(),
            };
            if header.block_type != BlockType::Key {
                return Err(damaged("it is not a KEY block"));
            }
            let origin = self
                .origin_of(header.segment_id)
                .ok_or_else(|| damaged("no ORIGIN block names it"))?;
            let body =
                KeyBody::parse(header.body(bytes)).map_err(|error| ReadError::of_body(offset, &error))?;
            match groups.iter_mut().find(|(known, _)| *known == origin) {
                Some((_, entries)) => entries.extend(body.entries),
                None => groups.push((origin, body.entries)),
            }
        }
        Ok(groups)
    }

    /// The streams of `keyring`'s identity, opened. Those that do not open are errors of their own: the rest is still worth having.
    pub fn open_streams(
        &mut self,
        keyring: &mut Keyring,
    ) -> Result<Vec<Result<OpenStream, StreamError>>, StreamError> {
        self.open_streams_by(|origin, entries| keyring.unlock(origin, entries))
    }

    /// Likewise, where something else than a [`Keyring`] unlocks the KEY entries of one origin: a key service, or a memory of what they held.
    pub fn open_streams_by(
        &mut self,
        mut unlock: impl FnMut(&Origin, &[KeyEntry]) -> Vec<Unlocked>,
    ) -> Result<Vec<Result<OpenStream, StreamError>>, StreamError> {
        match self.try_open_streams(&mut unlock) {
            // An index that leads astray, or chunks of another origin, whose ORIGIN block only a scan finds.
            Err(StreamError::Read(error)) if !self.scanned && !matches!(error, ReadError::Io { .. }) => {
                self.scan()?;
                self.try_open_streams(&mut unlock)
            }
            done => done,
        }
    }

    fn try_open_streams(
        &self,
        mut unlock: impl FnMut(&Origin, &[KeyEntry]) -> Vec<Unlocked>,
    ) -> Result<Vec<Result<OpenStream, StreamError>>, StreamError> {
        let groups = self.key_entries()?;
        let unlock =
            |(origin, entries): &(Origin, Vec<KeyEntry>)| (origin.segment_id, unlock(origin, entries));
        let secrets: Vec<(SegmentId, Vec<Unlocked>)> = groups.iter().map(unlock).collect();
        if secrets.iter().all(|(_, secrets)| secrets.is_empty()) {
            return Err(StreamError::NothingForIdentity);
        }
        let unlocked = secrets.iter().flat_map(|(_, secrets)| secrets);
        let slots: HashSet<u32> = unlocked.map(|unlocked| unlocked.slot).collect();
        let rows = || self.tables.streams.iter().filter(|row| slots.contains(&row.slot));
        // How long a STREAM block is, it says itself: mostly it fits one page.
        let places = rows().map(|row| (row.offset, BLOCK_ALIGN as u64));
        let mut blocks = Ahead::new(&self.source);
        let mut opened = Vec::new();
        for (row, until) in rows().zip(ends(places, SMALL_GAP)) {
            opened.extend(self.open_stream(row, until, &mut blocks, &secrets)?);
        }
        Ok(opened)
    }

    /// Opens the STREAM block that `row` leads to; `None` if it is of another origin's equal slot, and so for somebody else.
    fn open_stream(
        &self,
        row: &StreamRow,
        until: u64,
        blocks: &mut Ahead<'_, S>,
        secrets: &[(SegmentId, Vec<Unlocked>)],
    ) -> Result<Option<Result<OpenStream, StreamError>>, ReadError> {
        let offset = row.offset;
        let (header, _, bytes) = blocks.block(offset, until)?;
        let known = self.origin_of(header.segment_id).is_some();
        if !known || (header.block_type, header.stream_id) != (BlockType::Stream, row.stream_id) {
            let what = "the index says it is another STREAM block".into();
            return Err(ReadError::Damaged { offset, what });
        }
        let block = Block {
            offset,
            header,
            bytes,
            stored: Stored::Whole,
        };
        let here = secrets.iter().filter(|(origin, _)| *origin == header.segment_id);
        let opened = here
            .flat_map(|(_, secrets)| OpenStream::open(&block, secrets))
            .next();
        Ok(opened.map(|opened| opened.map_err(|why| StreamError::Open { offset, why })))
    }
}
