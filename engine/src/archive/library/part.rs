//! Streams of one camera over all segments, and what each segment of origin holds of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harborseal_segment::body::{ChunkRow, StreamInfo, StreamRow};
use harborseal_segment::open::{OpenStream, Origin};
use harborseal_segment::scan::ReadError;
use harborseal_segment::source::Tally;
use harborseal_segment::{RunId, SegmentId, StreamId};

use super::chunks::Chunks;
use super::open_segment;

/// One stream of one camera, over all segments.
pub struct Track {
    /// The camera, as its operator named it.
    pub camera_id: String,
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// Which m-line of the SDP it is; 0xFFFF unknown.
    pub media_index: u16,
    /// Its parts in the order of time.
    pub parts: Vec<Part>,
    /// Which part is which, while they are gathered.
    known: HashMap<(SegmentId, StreamId), usize>,
    tally: Arc<Tally>,
}

/// What one segment of origin holds of a stream.
pub struct Part {
    /// The opened stream: camera, SDP, key.
    pub stream: OpenStream,
    /// Its chain and place in it: run, shard, chain_seq.
    pub chain: (RunId, u32, u64),
    /// Arrival of its first and last packet, whole seconds since 1970, by the unsealed headers; 0 without chunks.
    pub first_s: u64,
    /// See `first_s`.
    pub last_s: u64,
    /// Chunks. Where their times were asked for, those of several copies count once each; else as many as the fullest file has.
    pub chunks: u64,
    /// From when to when it has chunks, if that was asked for: their spans by the unsealed headers, neighbours joined.
    pub times: Vec<(u64, u64)>,
    /// The stream_seq of the chunks counted, in spans like `times`.
    numbers: Vec<(u64, u64)>,
    pub(super) files: Vec<Held>,
    created_s: u64,
    /// One of the files has no footer: more may be recorded in it.
    pub open: bool,
    /// One of the files is the segment of origin, so chunks missing at the beginning are missing indeed.
    pub(super) at_origin: bool,
}

/// A file with chunks of a part.
pub(super) struct Held {
    pub(super) path: PathBuf,
    rows: RefCell<Option<Rows>>,
}

/// Where the chunks of a part stand in one file.
#[derive(Clone)]
pub(super) struct Rows {
    pub(super) rows: Vec<ChunkRow>,
    /// By a scan, so that looking further is in vain.
    pub(super) scanned: bool,
}

impl Track {
    pub(super) fn new(info: &StreamInfo, tally: &Arc<Tally>) -> Track {
        Track {
            camera_id: info.camera_id.clone(),
            ssrc: info.ssrc,
            media_index: info.media_index,
            parts: Vec::new(),
            known: HashMap::new(),
            tally: Arc::clone(tally),
        }
    }

    /// The part that `stream` is; a new one, if no file before had it.
    pub(super) fn part(&mut self, stream: OpenStream, origin: Origin, created_s: u64) -> &mut Part {
        let next = self.parts.len();
        let at = *self
            .known
            .entry((stream.origin, stream.stream_id))
            .or_insert(next);
        if at == next {
            self.parts.push(Part {
                stream,
                chain: (origin.run_id, origin.shard, origin.chain_seq),
                first_s: 0,
                last_s: 0,
                chunks: 0,
                times: Vec::new(),
                numbers: Vec::new(),
                files: Vec::new(),
                created_s,
                open: false,
                at_origin: false,
            });
        }
        &mut self.parts[at]
    }

    /// Once all are there.
    pub(super) fn sort(&mut self) {
        self.known = HashMap::new();
        self.parts.sort_by_key(Part::place_in_time);
    }

    /// Its chunks that may hold packets of the seconds `from_s` to `to_s`, both inclusive, opened, in order. Missing and
    /// damaged ones come as problems in their place.
    pub fn chunks(&self, from_s: u64, to_s: u64) -> Chunks<'_> {
        let parts = self.parts.iter().filter(|part| part.is_within(from_s, to_s));
        Chunks::new(parts.collect(), (from_s, to_s), &self.tally)
    }

    /// Whether a packet is known to have arrived in the seconds `from_s` to `to_s`, both inclusive, without opening a chunk: the first
    /// and the last of each arrived in the seconds that its header says.
    pub fn has_within(&self, from_s: u64, to_s: u64) -> bool {
        let inside = |s: u64| (from_s..=to_s).contains(&s);
        let mut parts = self.parts.iter().filter(|part| part.is_within(from_s, to_s));
        // What cannot be read is told by whoever reads it.
        let mut rows = parts
            .by_ref()
            .filter_map(|part| part.rows(&self.tally).ok())
            .flatten();
        rows.any(|(_, row)| inside(row.first_s) || inside(row.last_s))
    }
}

impl Part {
    /// Where it stands among the parts of its track. Headers know whole seconds, and a run that ends and the next one may meet in one:
    /// when the stream began in its run, sealed to the nanosecond, tells them apart.
    fn place_in_time(&self) -> (u64, u64, u64, u64) {
        (
            self.first_s,
            self.stream.info.opened_ns,
            self.created_s,
            self.chain.2,
        )
    }

    /// Whether it may hold packets of the seconds `from_s` to `to_s`, both inclusive.
    pub fn is_within(&self, from_s: u64, to_s: u64) -> bool {
        self.chunks > 0 && self.first_s <= to_s && self.last_s >= from_s
    }

    /// Its chunks by stream_seq, each once: which of its files has it, and where.
    pub(super) fn rows(&self, tally: &Arc<Tally>) -> Result<Vec<(usize, ChunkRow)>, ReadError> {
        let mut all = Vec::new();
        for (at, file) in self.files.iter().enumerate() {
            let rows = file.rows(&self.stream, tally)?;
            all.extend(rows.rows.into_iter().map(|row| (at, row)));
        }
        all.sort_by_key(|(_, row)| row.stream_seq);
        all.dedup_by_key(|(_, row)| row.block_no);
        Ok(all)
    }

    /// Notes another file that holds it, by the stream's row there. It has none if the index alone spoke of the stream.
    pub(super) fn add_file(&mut self, path: &Path, segment_id: SegmentId, row: Option<&StreamRow>) {
        self.files.push(Held {
            path: path.to_owned(),
            rows: RefCell::default(),
        });
        self.at_origin |= segment_id == self.stream.origin;
        if let Some(row) = row.filter(|row| row.chunks > 0) {
            self.first_s = match self.chunks {
                0 => row.first_s,
                _ => self.first_s.min(row.first_s),
            };
            self.last_s = self.last_s.max(row.last_s);
            self.chunks = self.chunks.max(row.chunks);
        }
    }

    /// Notes when the chunks of the file that was added last began and ended.
    pub(super) fn add_times(&mut self, rows: &[ChunkRow]) {
        self.times
            .extend(joined(rows.iter().map(|row| (row.first_s, row.last_s))));
        self.numbers
            .extend(joined(rows.iter().map(|row| (row.stream_seq, row.stream_seq))));
        if self.files.len() > 1 {
            self.chunks = distinct(&mut self.numbers);
        }
    }

    /// Notes where the chunks stand in the file that was added last.
    pub(super) fn add_chunks(&mut self, rows: Vec<ChunkRow>, scanned: bool) {
        let file = self.files.last().expect("a file is added before its chunks");
        file.keep(Rows { rows, scanned });
    }
}

impl Held {
    /// Whether its rows are from a scan.
    pub(super) fn is_scanned(&self) -> bool {
        self.rows.borrow().as_ref().is_some_and(|rows| rows.scanned)
    }

    pub(super) fn keep(&self, rows: Rows) {
        *self.rows.borrow_mut() = Some(rows);
    }

    /// Where the chunks of `stream` stand, looked up if it is not known yet.
    pub(super) fn rows(&self, stream: &OpenStream, tally: &Arc<Tally>) -> Result<Rows, ReadError> {
        if let Some(rows) = &*self.rows.borrow() {
            return Ok(rows.clone());
        }
        let mut segment = open_segment(&self.path, tally)?;
        let rows = Rows {
            rows: segment.chunk_rows(stream)?,
            scanned: segment.is_scanned(),
        };
        self.keep(rows.clone());
        Ok(rows)
    }
}

/// The same spans with those joined that overlap or follow within a second, as far as they come in order.
fn joined(spans: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in spans {
        match joined.last_mut() {
            Some((begun, ended)) if first >= *begun && first <= ended.saturating_add(1) => {
                *ended = last.max(*ended);
            }
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// How many numbers are in one span or more.
fn distinct(spans: &mut [(u64, u64)]) -> u64 {
    spans.sort_unstable();
    let joined = joined(spans.iter().copied());
    joined.iter().map(|(first, last)| last - first + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_joined_where_nothing_is_missing_between_them() {
        let spans = [
            (1, 3),
            (2, 2),
            (4, 5),
            (7, 7),
            (6, 9),
            (u64::MAX, u64::MAX),
            (u64::MAX, u64::MAX),
        ];
        let found = joined(spans.into_iter());
        assert_eq!(found, [(1, 5), (7, 7), (6, 9), (u64::MAX, u64::MAX)]);
    }

    #[test]
    fn what_is_in_two_spans_counts_once() {
        assert_eq!(distinct(&mut [(5, 9), (0, 2), (2, 3), (7, 7)]), 9);
        assert_eq!(distinct(&mut []), 0);
    }
}
