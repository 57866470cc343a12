//! The chunks of streams: where the index or a scan says that they stand, and what stands there.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::ahead::{Ahead, ends};
use super::{Segment, StreamError};
use crate::block::{BLOCK_ALIGN, Header, MAX_BLOCK_LEN, Stored};
use crate::body::{ChunkRow, IndexRows, StreamRow};
use crate::ids::StreamId;
use crate::open::{OpenChunk, OpenError, OpenStream};
use crate::scan::ReadError;
use crate::source::Source;

/// Chunks that stand one behind the other are read together up to this many bytes.
const TOGETHER_LEN: u64 = MAX_BLOCK_LEN as u64;

impl<S: Source> Segment<S> {
    /// The chunks of a stream in this file, by stream_seq; duplicates are left out. If the index does not list them without a
    /// jump, the segment is scanned to see whether it is the index that lacks them.
    pub fn chunk_rows(&mut self, stream: &OpenStream) -> Result<Vec<ChunkRow>, ReadError> {
        let mut of_streams = self.chunk_rows_of(&[stream])?;
        Ok(of_streams.pop().expect("one answer for each stream"))
    }

    /// The same for several streams, in one pass over the index.
    pub fn chunk_rows_of(&mut self, streams: &[&OpenStream]) -> Result<Vec<Vec<ChunkRow>>, ReadError> {
        self.rows_that(streams, |row, rows| {
            rows.len() as u64 == row.chunks && is_dense(rows)
        })
    }

    /// The same where a chunk that is missing is no reason to look for it: jumps are left as they are, and the segment is scanned only if its tables
    /// contradict each other.
    pub fn listed_chunks_of(&mut self, streams: &[&OpenStream]) -> Result<Vec<Vec<ChunkRow>>, ReadError> {
        self.rows_that(streams, |row, rows| rows.len() as u64 == row.chunks)
    }

    /// The rows of each of `streams`, from a scan if the index has not such as are `wanted`.
    fn rows_that(
        &mut self,
        streams: &[&OpenStream],
        wanted: impl Fn(&StreamRow, &[ChunkRow]) -> bool,
    ) -> Result<Vec<Vec<ChunkRow>>, ReadError> {
        if !self.scanned {
            let place_of = self.place_of(streams);
            let all_wanted = |found: &Vec<Vec<ChunkRow>>| {
                let mut rows = self.tables.streams.iter().zip(&place_of);
                rows.all(|(row, place)| place.is_none_or(|at| wanted(row, &found[at])))
            };
            match self.rows_now(streams) {
                Ok(found) if all_wanted(&found) => return Ok(found),
                Err(error @ ReadError::Io { .. }) => return Err(error),
                _ => self.scan()?,
            }
        }
        self.rows_now(streams)
    }

    /// For each stream row, which of `streams` it is.
    fn place_of(&self, streams: &[&OpenStream]) -> Vec<Option<usize>> {
        let places: HashMap<StreamId, usize> = streams
            .iter()
            .enumerate()
            .map(|(at, stream)| (stream.stream_id, at))
            .collect();
        let rows = self.tables.streams.iter();
        rows.map(|row| places.get(&row.stream_id).copied()).collect()
    }

    /// The rows that the index, or the scan, has for each of `streams`.
    fn rows_now(&self, streams: &[&OpenStream]) -> Result<Vec<Vec<ChunkRow>>, ReadError> {
        let mut found = vec![Vec::new(); streams.len()];
        let place_of = self.place_of(streams);
        if place_of.iter().all(Option::is_none) {
            return Ok(found);
        }
        self.each_row(|row| {
            if let Some(Some(at)) = place_of.get(row.stream_row as usize) {
                found[*at].push(*row);
            }
        })?;
        for rows in &mut found {
            rows.sort_by_key(|row| row.stream_seq);
            rows.dedup_by_key(|row| row.block_no);
        }
        Ok(found)
    }

    /// Shows every chunk of the file with its stream, in one pass over the index, or over what a scan found. A copy of a chunk may
    /// come twice.
    pub fn each_chunk(&self, mut visit: impl FnMut(&StreamRow, &ChunkRow)) -> Result<(), ReadError> {
        let streams = &self.tables.streams;
        self.each_row(|row| {
            if let Some(stream) = streams.get(row.stream_row as usize) {
                visit(stream, row);
            }
        })
    }

    fn each_row(&self, mut visit: impl FnMut(&ChunkRow)) -> Result<(), ReadError> {
        match &self.footer {
            Some(footer) if !self.scanned => {
                self.index_rows(footer.chunks_offset, footer.chunks_len, |index| match index {
                    IndexRows::Chunks(rows) => {
                        rows.iter().for_each(&mut visit);
                        true
                    }
                    _ => false,
                })
            }
            _ => {
                self.tables.chunks.iter().for_each(visit);
                Ok(())
            }
        }
    }

    /// Reads and opens the chunk that `row` leads to.
    pub fn read_chunk(&self, stream: &OpenStream, row: &ChunkRow) -> Result<OpenChunk, StreamError> {
        open_chunk(&mut Ahead::new(&self.source), stream, row, end_of(row))
    }

    /// The chunks of a stream in this file, opened, in order. What is missing or damaged comes as an error in its place, and
    /// the next chunk after it.
    pub fn chunks<'a>(&'a mut self, stream: &'a OpenStream) -> Result<Chunks<'a, S>, ReadError> {
        let rows = self.chunk_rows(stream)?;
        let next_seq = match stream.origin == self.head.id {
            true => 0,
            false => rows.first().map_or(0, |row| row.stream_seq),
        };
        Ok(Chunks {
            segment: self,
            stream,
            rows: rows.into_iter().peekable(),
            next_seq,
        })
    }
}

fn is_dense(rows: &[ChunkRow]) -> bool {
    rows.windows(2)
        .all(|pair| pair[0].stream_seq.checked_add(1) == Some(pair[1].stream_seq))
}

fn end_of(row: &ChunkRow) -> u64 {
    row.offset.saturating_add(row.total_len.into())
}

/// How many of `rows`, from the first on, stand one behind the other and are worth one read.
pub fn together(rows: &[ChunkRow]) -> usize {
    let Some(first) = rows.first() else { return 0 };
    let adjacent = rows.windows(2).take_while(|pair| {
        end_of(&pair[0]) == pair[1].offset && end_of(&pair[1]).saturating_sub(first.offset) <= TOGETHER_LEN
    });
    1 + adjacent.count()
}

/// Reads and opens the chunks that `rows` lead to, those that stand one behind the other in one read (see [`together`]).
pub fn open_chunks<S: Source>(
    source: &S,
    stream: &OpenStream,
    rows: &[ChunkRow],
) -> Vec<Result<OpenChunk, StreamError>> {
    let places = rows.iter().map(|row| (row.offset, row.total_len.into()));
    let mut blocks = Ahead::new(source);
    rows.iter()
        .zip(ends(places, 0))
        .map(|(row, until)| open_chunk(&mut blocks, stream, row, until))
        .collect()
}

fn open_chunk<S: Source>(
    blocks: &mut Ahead<'_, S>,
    stream: &OpenStream,
    row: &ChunkRow,
    until: u64,
) -> Result<OpenChunk, StreamError> {
    let offset = row.offset;
    let (header, stored, _) = blocks.block(offset, until)?;
    if !is_it(&header, stream, row) {
        let what = "the index says it is another CHUNK block".into();
        return Err(ReadError::Damaged { offset, what }.into());
    }
    let opened = match stored {
        Stored::Whole => stream.open_chunk(&header, Zeroizing::new(blocks.take(offset, &header))),
        Stored::Erased => Err(OpenError::Erased),
    };
    opened.map_err(|why| StreamError::Open { offset, why })
}

fn is_it(header: &Header, stream: &OpenStream, row: &ChunkRow) -> bool {
    stream.owns(header) && header.stream_seq == row.stream_seq && header.block_no == row.block_no
}

/// Whether the header of this very chunk stands where `row` leads. Then what else is wrong there is damage, and looking elsewhere
/// for the chunk is in vain.
pub fn leads_to<S: Source>(source: &S, stream: &OpenStream, row: &ChunkRow) -> bool {
    let inside = row
        .offset
        .checked_add(BLOCK_ALIGN as u64)
        .is_some_and(|end| end <= source.len());
    let mut page = vec![0; BLOCK_ALIGN];
    inside
        && source.read_at(row.offset, &mut page).is_ok()
        && Header::parse(&page).is_ok_and(|header| is_it(&header, stream, row))
}

/// See [`Segment::chunks`].
pub struct Chunks<'a, S> {
    segment: &'a mut Segment<S>,
    stream: &'a OpenStream,
    rows: std::iter::Peekable<std::vec::IntoIter<ChunkRow>>,
    next_seq: u64,
}

impl<S: Source> Iterator for Chunks<'_, S> {
    type Item = Result<OpenChunk, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = *self.rows.peek()?;
        let first = std::mem::replace(&mut self.next_seq, row.stream_seq);
        if row.stream_seq > first {
            let count = row.stream_seq - first;
            return Some(Err(StreamError::ChunksMissing { first, count }));
        }
        self.next_seq = row.stream_seq.saturating_add(1);
        self.rows.next();
        Some(match self.segment.read_chunk(self.stream, &row) {
            Err(StreamError::Read(error)) if self.is_misled(&row, &error) => self.scan_for(&row, error),
            read => read,
        })
    }
}

impl<S: Source> Chunks<'_, S> {
    fn is_misled(&self, row: &ChunkRow, error: &ReadError) -> bool {
        !self.segment.scanned
            && !matches!(error, ReadError::Io { .. })
            && !leads_to(&self.segment.source, self.stream, row)
    }

    /// The index led astray: from here on the chunks are those that a scan finds. `error` stands if the one of `row` is not among them.
    fn scan_for(&mut self, row: &ChunkRow, error: ReadError) -> Result<OpenChunk, StreamError> {
        self.segment.scan()?;
        let mut rows = self.segment.chunk_rows(self.stream)?;
        rows.retain(|found| found.stream_seq >= row.stream_seq);
        let mut rows = rows.into_iter().peekable();
        let found = rows.next_if(|found| found.stream_seq == row.stream_seq);
        self.rows = rows;
        match found {
            Some(found) => self.segment.read_chunk(self.stream, &found),
            None => Err(error.into()),
        }
    }
}
