//! What many segments hold for one identity: its cameras, their streams, and each stream's chunks in order.
//!
//! A stream of a camera runs through many segments. Each of them holds a [`Part`] of it, known by segment of origin: a part whose
//! chunks were relocated after a disk's fault stands in two files, and each of its chunks is taken once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use harborseal_segment::StreamId;
use harborseal_segment::body::ChunkRow;
use harborseal_segment::head::Head;
use harborseal_segment::identity::Identity;
use harborseal_segment::open::{Keyring, OpenChunk, OpenStream, Origin};
use harborseal_segment::reader::{Segment, StreamError};
use harborseal_segment::scan::ReadError;

use super::FileSource;

/// See [`Library::spans`].
pub type Spans = HashMap<StreamId, Vec<(u64, u64)>>;

/// What one identity can open of some segments.
#[derive(Default)]
pub struct Library {
    /// Its streams, ordered by camera, media and SSRC.
    pub tracks: Vec<Track>,
    /// Segments that were looked into, whether or not they hold anything for the identity.
    pub segments: usize,
    /// What could not be read or opened. The rest is there all the same.
    pub problems: Vec<Problem>,
}

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
}

/// What one segment of origin holds of a stream.
pub struct Part {
    /// The opened stream: camera, SDP, key.
    pub stream: OpenStream,
    /// Its chain and place in it: run, shard, chain_seq.
    pub chain: (harborseal_segment::RunId, u32, u64),
    /// Arrival of its first and last packet, whole seconds since 1970, by the unsealed headers; 0 without chunks.
    pub first_s: u64,
    /// See `first_s`.
    pub last_s: u64,
    /// Chunks, those of several copies counted once each.
    pub chunks: u64,
    /// The files that hold it.
    pub files: Vec<PathBuf>,
    created_s: u64,
    /// One of the files is the segment of origin, so chunks missing at the beginning are missing indeed.
    at_origin: bool,
}

/// A file, or a part of one, that does not open.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct Problem {
    /// The segment file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: StreamError,
}

impl Problem {
    fn new(path: &Path, why: impl Into<StreamError>) -> Self {
        Problem {
            path: path.to_owned(),
            why: why.into(),
        }
    }

    fn io(path: &Path, why: io::Error) -> Self {
        Self::new(path, ReadError::Io { offset: 0, why })
    }

    /// The file could not be read, which says nothing about what is in it.
    pub fn is_io(&self) -> bool {
        matches!(self.why, StreamError::Read(ReadError::Io { .. }))
    }
}

impl Library {
    /// Looks into every segment of `paths` with `identity`. `tick` is called after each, with its path.
    pub fn open(paths: &[PathBuf], identity: Identity, mut tick: impl FnMut(&Path)) -> Self {
        let mut library = Library::default();
        let mut keyring = Keyring::new(identity);
        let mut tracks = BTreeMap::new();
        for (path, origin, created_s) in in_chain_order(paths, &mut library.problems) {
            if let Err(why) = library.look_into(&path, (origin, created_s), &mut keyring, &mut tracks) {
                library.problems.push(Problem::new(&path, why));
            }
            tick(&path);
        }
        library.tracks = tracks.into_values().collect();
        for track in &mut library.tracks {
            track.parts.sort_by_key(Part::place_in_time);
        }
        library
    }

    fn look_into(
        &mut self,
        path: &Path,
        file: (Origin, u64),
        keyring: &mut Keyring,
        tracks: &mut BTreeMap<(String, u16, u32), Track>,
    ) -> Result<(), StreamError> {
        let mut segment = open_segment(path)?;
        self.segments += 1;
        let streams = match segment.open_streams(keyring) {
            Err(StreamError::NothingForIdentity) => return Ok(()),
            streams => streams?,
        };
        for stream in streams {
            let stream = match stream {
                Ok(stream) => stream,
                Err(why) => {
                    self.problems.push(Problem::new(path, why));
                    continue;
                }
            };
            let info = &stream.info;
            let key = (info.camera_id.clone(), info.media_index, info.ssrc);
            let track = tracks.entry(key).or_insert_with(|| Track {
                camera_id: info.camera_id.clone(),
                ssrc: info.ssrc,
                media_index: info.media_index,
                parts: Vec::new(),
            });
            track.add(stream, path, file, &mut segment)?;
        }
        Ok(())
    }

    /// When chunks began and ended, by their unsealed headers in whole seconds since 1970: for each stream of an origin, in order.
    /// Every file is read once, and of it the tables only.
    pub fn spans(&self, mut tick: impl FnMut(&Path)) -> (Spans, Vec<Problem>) {
        let parts = || self.tracks.iter().flat_map(|track| &track.parts);
        let mut spans: Spans = parts().map(|part| (part.stream.stream_id, Vec::new())).collect();
        let mut problems = Vec::new();
        let files: BTreeSet<&PathBuf> = parts().flat_map(|part| &part.files).collect();
        for path in files {
            let shown = open_segment(path).and_then(|segment| {
                segment.each_chunk(|stream, row| {
                    if let Some(spans) = spans.get_mut(&stream.stream_id) {
                        spans.push((row.first_s, row.last_s));
                    }
                })
            });
            problems.extend(shown.err().map(|why| Problem::new(path, why)));
            tick(path);
        }
        (spans, problems)
    }

    /// The cameras, each once.
    pub fn cameras(&self) -> Vec<&str> {
        let mut cameras: Vec<_> = self.tracks.iter().map(|track| track.camera_id.as_str()).collect();
        cameras.dedup();
        cameras
    }

    /// The streams of one camera.
    pub fn tracks_of<'a>(&'a self, camera_id: &'a str) -> impl Iterator<Item = &'a Track> {
        self.tracks
            .iter()
            .filter(move |track| track.camera_id == camera_id)
    }
}

impl Track {
    fn add(
        &mut self,
        stream: OpenStream,
        path: &Path,
        (file, created_s): (Origin, u64),
        segment: &mut Segment<FileSource>,
    ) -> Result<(), ReadError> {
        let row = segment
            .streams()
            .iter()
            .find(|row| row.stream_id == stream.stream_id);
        let row = *row.expect("the stream was opened from its row");
        let known = self
            .parts
            .iter_mut()
            .find(|part| (part.stream.origin, part.stream.stream_id) == (stream.origin, stream.stream_id));
        let at_origin = file.segment_id == stream.origin;
        let Some(part) = known else {
            let origin = segment.origin_of(stream.origin).unwrap_or(file);
            self.parts.push(Part {
                stream,
                chain: (origin.run_id, origin.shard, origin.chain_seq),
                first_s: row.first_s,
                last_s: row.last_s,
                chunks: row.chunks,
                files: vec![path.to_owned()],
                created_s,
                at_origin,
            });
            return Ok(());
        };
        part.files.push(path.to_owned());
        part.at_origin |= at_origin;
        if row.chunks > 0 {
            part.first_s = if part.chunks == 0 {
                row.first_s
            } else {
                part.first_s.min(row.first_s)
            };
            part.last_s = part.last_s.max(row.last_s);
            part.chunks = part.open()?.rows.len() as u64;
        }
        Ok(())
    }

    /// Its chunks that may hold packets of the seconds `from_s` to `to_s`, both inclusive, opened, in order. Missing and
    /// damaged ones come as problems in their place.
    pub fn chunks(&self, from_s: u64, to_s: u64) -> Chunks<'_> {
        let inside = |part: &&Part| part.chunks > 0 && part.first_s <= to_s && part.last_s >= from_s;
        Chunks {
            parts: self.parts.iter().filter(inside).collect::<Vec<_>>().into_iter(),
            open: None,
            from_s,
            to_s,
        }
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

    /// Opens its files and finds its chunks in them, each once, by stream_seq.
    fn open(&self) -> Result<OpenPart<'_>, ReadError> {
        let mut segments = Vec::new();
        let mut rows = Vec::new();
        for path in &self.files {
            let mut segment = open_segment(path)?;
            let found = segment.chunk_rows(&self.stream)?;
            rows.extend(found.into_iter().map(|row| (segments.len(), row)));
            segments.push(segment);
        }
        rows.sort_by_key(|(_, row)| row.stream_seq);
        rows.dedup_by_key(|(_, row)| row.block_no);
        let next_seq = if self.at_origin {
            0
        } else {
            rows.first().map_or(0, |(_, row)| row.stream_seq)
        };
        Ok(OpenPart {
            part: self,
            segments,
            rows,
            at: 0,
            next_seq,
        })
    }
}

/// The chunks of a track. See [`Track::chunks`].
pub struct Chunks<'a> {
    parts: std::vec::IntoIter<&'a Part>,
    open: Option<OpenPart<'a>>,
    from_s: u64,
    to_s: u64,
}

struct OpenPart<'a> {
    part: &'a Part,
    segments: Vec<Segment<FileSource>>,
    /// Which file, and where in it.
    rows: Vec<(usize, ChunkRow)>,
    at: usize,
    next_seq: u64,
}

impl<'a> Chunks<'a> {
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
                match open.next(self.from_s, self.to_s) {
                    Some(item) => return Some(item),
                    None => self.open = None,
                }
            }
            let part = self.parts.next()?;
            match part.open() {
                Ok(open) => self.open = Some(open),
                Err(why) => return Some(Err(Problem::new(&part.files[0], why))),
            }
        }
    }
}

impl OpenPart<'_> {
    fn next(&mut self, from_s: u64, to_s: u64) -> Option<Result<OpenChunk, Problem>> {
        while let Some((file, row)) = self.rows.get(self.at) {
            let wanted = row.first_s <= to_s && row.last_s >= from_s;
            let first = std::mem::replace(&mut self.next_seq, row.stream_seq);
            if wanted && row.stream_seq > first {
                let missing = StreamError::ChunksMissing {
                    first,
                    count: row.stream_seq - first,
                };
                return Some(Err(Problem::new(&self.part.files[*file], missing)));
            }
            self.at += 1;
            self.next_seq = row.stream_seq.saturating_add(1);
            if wanted {
                let chunk = self.segments[*file].read_chunk(&self.part.stream, row);
                return Some(chunk.map_err(|why| Problem::new(&self.part.files[*file], why)));
            }
        }
        None
    }
}

fn open_segment(path: &Path) -> Result<Segment<FileSource>, ReadError> {
    let source = FileSource::open(path).map_err(|why| ReadError::Io { offset: 0, why })?;
    Segment::open(source)
}

/// The segments' heads, in the order in which hints lead from one to the next. A file that was reserved and never begun holds
/// nothing, and is no problem; neither is one that a running engine has deleted since it was listed.
fn in_chain_order(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<(PathBuf, Origin, u64)> {
    let mut heads = Vec::new();
    for path in paths {
        match FileSource::open(path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => problems.push(Problem::io(path, why)),
            Ok(source) => match Head::read(&source) {
                Ok(head) => heads.push((path.clone(), head.origin(), head.body.created_s)),
                Err(ReadError::NeverBegun) => {}
                Err(why) => problems.push(Problem::new(path, why)),
            },
        }
    }
    heads.sort_by_key(|(_, origin, _)| (origin.run_id, origin.shard, origin.chain_seq));
    heads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::fixtures::{self, BEGAN_S};

    fn written(files: &[Vec<u8>]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let paths = (0..files.len())
            .map(|n| dir.path().join(format!("{n}.hseal")))
            .collect::<Vec<_>>();
        for (path, bytes) in paths.iter().zip(files) {
            std::fs::write(path, bytes).expect("write");
        }
        (dir, paths)
    }

    fn chunk_numbers(library: &Library, camera: &str, from_s: u64, to_s: u64) -> Vec<(u64, u64)> {
        let tracks = library.tracks_of(camera);
        let chunks = tracks.flat_map(|track| track.chunks(from_s, to_s));
        let chunks = chunks.map(|chunk| chunk.expect("opens"));
        chunks
            .map(|chunk| (chunk.head.base_ns / 1_000_000_000, chunk.stream_seq))
            .collect()
    }

    #[test]
    fn a_track_runs_through_segments_in_the_order_of_time_whatever_the_order_of_files() {
        let (_dir, paths) = written(&[2, 0, 1].map(fixtures::closed_segment));
        let library = Library::open(&paths, fixtures::alice(), |_| ());
        assert!(library.problems.is_empty());
        assert_eq!(
            (library.segments, library.cameras()),
            (3, vec!["front-door", "garden"])
        );
        let times = chunk_numbers(&library, "front-door", 0, u64::MAX);
        let expected = [0, 60, 120]
            .map(|at| [0, 1, 2].map(|seq| (BEGAN_S + at + seq, seq)))
            .concat();
        assert_eq!(times, expected);
        let some = chunk_numbers(&library, "front-door", BEGAN_S + 2, BEGAN_S + 60);
        assert_eq!(some, [(BEGAN_S + 2, 2), (BEGAN_S + 60, 0)]);
    }

    #[test]
    fn a_copy_of_a_segment_adds_nothing() {
        let segment = fixtures::closed_segment(0);
        let (_dir, paths) = written(&[segment.clone(), segment]);
        let library = Library::open(&paths, fixtures::alice(), |_| ());
        assert_eq!(chunk_numbers(&library, "front-door", 0, u64::MAX).len(), 3);
        assert_eq!(library.tracks[0].parts[0].chunks, 3);
    }

    #[test]
    fn one_bad_file_does_not_hide_the_others() {
        let (_dir, mut paths) = written(&[fixtures::closed_segment(0), b"hello".to_vec(), vec![]]);
        paths.push("gone.hseal".into());
        let library = Library::open(&paths, fixtures::alice(), |_| ());
        assert_eq!(library.segments, 1);
        let [problem] = &library.problems[..] else {
            panic!("one problem, and neither the empty file nor the one that is gone");
        };
        assert_eq!(problem.path, paths[1]);
        assert!(!problem.is_io());
    }

    #[test]
    fn nothing_is_found_for_a_stranger() {
        let (_dir, paths) = written(&[fixtures::closed_segment(0)]);
        let library = Library::open(&paths, fixtures::eve(), |_| ());
        assert_eq!((library.segments, library.tracks.len()), (1, 0));
        assert!(library.problems.is_empty());
    }
}
