//! The chunks of a track, opened: part after part, and those that stand one behind the other in one read.

use std::collections::VecDeque;
use std::sync::Arc;

use harborseal_segment::body::ChunkRow;
use harborseal_segment::open::OpenChunk;
use harborseal_segment::reader::{StreamError, leads_to, open_chunks, together};
use harborseal_segment::scan::ReadError;
use harborseal_segment::source::{Counted, Tally};

use super::part::{Part, Rows};
use super::{FileSource, Problem, open_file, open_segment};

/// Chunks that one read may have, at most: as many of the shortest as make its longest, 1 MiB of 4 KiB each.
const IN_ONE_READ: usize = 256;

/// The chunks of a track. See [`super::Track::chunks`].
pub struct Chunks<'a> {
    parts: std::vec::IntoIter<&'a Part>,
    open: Option<OpenPart<'a>>,
    /// First and last second that are wanted.
    wanted_s: (u64, u64),
    tally: &'a Arc<Tally>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(parts: Vec<&'a Part>, wanted_s: (u64, u64), tally: &'a Arc<Tally>) -> Self {
        Chunks {
            parts: parts.into_iter(),
            open: None,
            wanted_s,
            tally,
        }
    }

    /// The part that holds the chunk given out last.
    pub fn part(&self) -> Option<&'a Part> {
        self.open.as_ref().map(|open| open.part)
    }
}

impl Iterator for Chunks<'_> {
    type Item = Result<OpenChunk, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(open) = &mut self.open {
                match open.next() {
                    Some(item) => return Some(item),
                    None => self.open = None,
                }
            }
            let part = self.parts.next()?;
            match OpenPart::new(part, self.wanted_s, self.tally) {
                Ok(open) => self.open = Some(open),
                Err(why) => return Some(Err(Problem::new(&part.files[0].path, why))),
            }
        }
    }
}

struct OpenPart<'a> {
    part: &'a Part,
    wanted_s: (u64, u64),
    tally: &'a Arc<Tally>,
    sources: Vec<Counted<FileSource>>,
    /// Which file, and where in it.
    rows: Vec<(usize, ChunkRow)>,
    at: usize,
    next_seq: u64,
    /// Read with the one given out last.
    ready: VecDeque<Result<OpenChunk, Problem>>,
}

impl<'a> OpenPart<'a> {
    /// Opens its files and finds its chunks in them, each once, by stream_seq.
    fn new(part: &'a Part, wanted_s: (u64, u64), tally: &'a Arc<Tally>) -> Result<Self, ReadError> {
        let rows = part.rows(tally)?;
        let opened = part.files.iter().map(|file| open_file(&file.path, tally));
        let sources = opened.collect::<Result<_, _>>();
        let next_seq = match part.at_origin {
            true => 0,
            false => rows.first().map_or(0, |(_, row)| row.stream_seq),
        };
        Ok(OpenPart {
            part,
            wanted_s,
            tally,
            sources: sources.map_err(|why| ReadError::Io { offset: 0, why })?,
            rows,
            at: 0,
            next_seq,
            ready: VecDeque::new(),
        })
    }

    fn next(&mut self) -> Option<Result<OpenChunk, Problem>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let &(file, row) = self.rows.get(self.at)?;
            let first = std::mem::replace(&mut self.next_seq, row.stream_seq);
            let is_wanted = self.is_wanted(&row);
            if is_wanted && row.stream_seq > first {
                let count = row.stream_seq - first;
                return Some(Err(
                    self.problem(file, StreamError::ChunksMissing { first, count })
                ));
            }
            if is_wanted {
                self.read(file);
            } else {
                self.step_over(&row);
            }
        }
    }

    fn is_wanted(&self, row: &ChunkRow) -> bool {
        let (from_s, to_s) = self.wanted_s;
        row.first_s <= to_s && row.last_s >= from_s
    }

    fn step_over(&mut self, row: &ChunkRow) {
        self.at += 1;
        self.next_seq = row.stream_seq.saturating_add(1);
    }

    /// Makes ready the chunk at hand, which is in `file`, and those that stand behind it there and are wanted next.
    fn read(&mut self, file: usize) {
        let follows = |n: usize, row: &ChunkRow| row.stream_seq - self.next_seq == n as u64;
        let next: Vec<ChunkRow> = self.rows[self.at..]
            .iter()
            .take(IN_ONE_READ)
            .enumerate()
            .take_while(|(n, (at, row))| *at == file && follows(*n, row) && self.is_wanted(row))
            .map(|(_, (_, row))| *row)
            .collect();
        let rows = &next[..together(&next)];
        let opened = open_chunks(&self.sources[file], &self.part.stream, rows);
        for (row, opened) in rows.iter().zip(opened) {
            match opened {
                Err(StreamError::Read(why)) if self.is_misled(file, row, &why) => {
                    return self.look_again(file, row, why);
                }
                opened => {
                    let item = opened.map_err(|why| self.problem(file, why));
                    self.ready.push_back(item);
                    self.step_over(row);
                }
            }
        }
    }

    /// Whether it is the index that is wrong, as far as one can tell without looking everywhere.
    fn is_misled(&self, file: usize, row: &ChunkRow, why: &ReadError) -> bool {
        !matches!(why, ReadError::Io { .. })
            && !self.part.files[file].is_scanned()
            && !leads_to(&self.sources[file], &self.part.stream, row)
    }

    /// The index led astray: from `row` on, the chunks of `file` are those that a scan finds. `why` stands if that one is not among
    /// them.
    fn look_again(&mut self, file: usize, row: &ChunkRow, why: ReadError) {
        if let Err(failed) = self.scan(file) {
            self.ready.push_back(Err(self.problem(file, failed)));
            return self.step_over(row);
        }
        match self.part.rows(self.tally) {
            Ok(rows) => {
                self.at = rows.partition_point(|(_, found)| found.stream_seq < row.stream_seq);
                self.rows = rows;
            }
            Err(failed) => {
                self.ready.push_back(Err(self.problem(file, failed)));
                return self.step_over(row);
            }
        }
        if self
            .rows
            .get(self.at)
            .is_none_or(|(_, found)| found.stream_seq != row.stream_seq)
        {
            self.ready.push_back(Err(self.problem(file, why)));
            self.next_seq = row.stream_seq.saturating_add(1);
        }
    }

    fn scan(&self, file: usize) -> Result<(), ReadError> {
        let held = &self.part.files[file];
        let mut segment = open_segment(&held.path, self.tally)?;
        segment.scan()?;
        let rows = segment.chunk_rows(&self.part.stream)?;
        held.keep(Rows { rows, scanned: true });
        Ok(())
    }

    fn problem(&self, file: usize, why: impl Into<StreamError>) -> Problem {
        Problem::new(&self.part.files[file].path, why)
    }
}
