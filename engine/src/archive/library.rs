//! What many segments hold for one identity: its cameras, their streams, and each stream's chunks in order.
//!
//! A stream of a camera runs through many segments. Each of them holds a [`Part`] of it, known by segment of origin: a part whose
//! chunks were relocated after a disk's fault stands in two files, and each of its chunks is taken once.
//!
//! Each file is gone through once, and of it is read: head, footer, tables, the identity's KEY and STREAM blocks, and the chunk
//! table if any chunk is wanted. What a segment without a footer costs, which is all of it, it costs once.

mod chunks;
mod part;
mod recipients;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harborseal_segment::StreamId;
use harborseal_segment::body::{ChunkRow, KeyEntry, StreamRow};
use harborseal_segment::head::Head;
use harborseal_segment::open::{Keyring, OpenError, OpenStream, Origin};
use harborseal_segment::reader::{Segment, State, StreamError};
use harborseal_segment::scan::ReadError;
use harborseal_segment::source::{Access, Counted, Source, Tally};

use super::FileSource;
pub use chunks::Chunks;
pub use part::{Part, Track};
pub use recipients::Recipients;

/// What one identity can open of some segments.
#[derive(Default)]
pub struct Library {
    /// Its streams, ordered by camera, media and SSRC.
    pub tracks: Vec<Track>,
    /// Segments that were looked into, whether or not they hold anything for the identity.
    pub segments: usize,
    /// Bytes of those.
    pub segment_bytes: u64,
    /// Whom the identity's slots are sealed to, by file.
    pub recipients: Vec<Recipients>,
    /// Segments that hold erasable footage of the identity whose release was not given: nothing is wrong with them.
    pub not_released: Vec<PathBuf>,
    /// What could not be read or opened. The rest is there all the same.
    pub problems: Vec<Problem>,
    tally: Arc<Tally>,
}

/// What is wanted of the chunks.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// Nothing of them.
    Nothing,
    /// When those of all streams began and ended.
    Times,
    /// Where those of one camera stand that may hold packets of these seconds, both inclusive; of others once they are asked for.
    Chunks {
        /// As its operator named it.
        camera_id: &'a str,
        /// The first second.
        from_s: u64,
        /// The last second.
        to_s: u64,
    },
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

/// A file that is looked into.
struct File {
    path: PathBuf,
    origin: Origin,
    created_s: u64,
}

/// Streams as they are found: by camera, media, SSRC.
type Found = BTreeMap<(String, u16, u32), Track>;

impl Library {
    /// Looks into every segment of `paths` with what `keyring` opens. `tick` is called after each, with its path.
    pub fn open(
        paths: &[PathBuf],
        keyring: &mut Keyring,
        wanted: Wanted<'_>,
        mut tick: impl FnMut(&Path),
    ) -> Self {
        let mut library = Library::default();
        let mut found = Found::new();
        for file in library.in_chain_order(paths) {
            if let Err(why) = library.look_into(&file, wanted, keyring, &mut found) {
                library.problems.push(Problem::new(&file.path, why));
            }
            tick(&file.path);
        }
        library.tracks = found.into_values().collect();
        library.tracks.iter_mut().for_each(Track::sort);
        library
    }

    fn look_into(
        &mut self,
        file: &File,
        wanted: Wanted<'_>,
        keyring: &mut Keyring,
        found: &mut Found,
    ) -> Result<(), StreamError> {
        let mut segment = open_segment(&file.path, &self.tally)?;
        self.segments += 1;
        self.segment_bytes += segment.source().len();
        let mut recipients = Vec::new();
        let unlock = |origin: &Origin, entries: &[KeyEntry]| {
            let unlocked = keyring.unlock(origin, entries);
            // A segment whose index led astray is gone through twice.
            recipients.retain(|known: &Recipients| known.origin != origin.segment_id);
            let counted = recipients::count(entries, &unlocked);
            recipients.extend(counted.map(|(keys, granted)| Recipients {
                path: file.path.clone(),
                created_s: file.created_s,
                origin: origin.segment_id,
                keys,
                granted,
            }));
            unlocked
        };
        let streams = match segment.open_streams_by(unlock) {
            Err(StreamError::NothingForIdentity) => return Ok(()),
            streams => streams?,
        };
        self.recipients.append(&mut recipients);
        let (mut opened, mut needs_release) = (Vec::new(), false);
        for stream in streams {
            match stream {
                Ok(stream) => opened.push(stream),
                Err(StreamError::Open {
                    why: OpenError::NeedsRelease,
                    ..
                }) => needs_release = true,
                Err(why) => self.problems.push(Problem::new(&file.path, why)),
            }
        }
        self.not_released.extend(needs_release.then(|| file.path.clone()));
        let chunks = wanted_chunks(&mut segment, &opened, wanted).unwrap_or_else(|why| {
            self.problems.push(Problem::new(&file.path, why));
            HashMap::new()
        });
        self.note(file, &segment, opened, (wanted, chunks), found);
        Ok(())
    }

    /// Notes the streams of one file, and of them the chunks that were looked up.
    fn note(
        &self,
        file: &File,
        segment: &Segment<Counted<FileSource>>,
        opened: Vec<OpenStream>,
        (wanted, mut chunks): (Wanted<'_>, HashMap<StreamId, Vec<ChunkRow>>),
        found: &mut Found,
    ) {
        let rows = rows_by_stream(segment);
        for stream in opened {
            let row = rows.get(&stream.stream_id).copied();
            let info = &stream.info;
            let key = (info.camera_id.clone(), info.media_index, info.ssrc);
            let track = found.entry(key).or_insert_with(|| Track::new(info, &self.tally));
            let (origin, created_s) = (segment.origin_of(stream.origin), file.created_s);
            let chunks = chunks.remove(&stream.stream_id);
            let part = track.part(stream, origin.unwrap_or(file.origin), created_s);
            part.add_file(&file.path, file.origin.segment_id, row);
            part.open |= segment.state() == State::Open;
            match (wanted, chunks) {
                (Wanted::Times, Some(chunks)) => part.add_times(&chunks),
                (Wanted::Chunks { .. }, Some(chunks)) => part.add_chunks(chunks, segment.is_scanned()),
                (Wanted::Nothing, _) | (_, None) => {}
            }
        }
    }

    /// The segments' heads, in the order in which hints lead from one to the next. A file that was reserved and never begun holds
    /// nothing, and is no problem; neither is one that a running engine has deleted since it was listed.
    fn in_chain_order(&mut self, paths: &[PathBuf]) -> Vec<File> {
        let mut files = Vec::new();
        for path in paths {
            match open_file(path, &self.tally) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) => self.problems.push(Problem::io(path, why)),
                Ok(source) => match Head::read(&source) {
                    Ok(head) => files.push(File {
                        path: path.clone(),
                        origin: head.origin(),
                        created_s: head.body.created_s,
                    }),
                    Err(ReadError::NeverBegun) => {}
                    Err(why) => self.problems.push(Problem::new(path, why)),
                },
            }
        }
        files.sort_by_key(|file| (file.origin.run_id, file.origin.shard, file.origin.chain_seq));
        files
    }

    /// Bytes read of all segments so far.
    pub fn bytes_read(&self) -> u64 {
        self.tally.bytes()
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

/// The chunks of those of `opened` of which they are wanted. The chunk table is not read if there are none.
fn wanted_chunks(
    segment: &mut Segment<Counted<FileSource>>,
    opened: &[OpenStream],
    wanted: Wanted<'_>,
) -> Result<HashMap<StreamId, Vec<ChunkRow>>, ReadError> {
    let rows = rows_by_stream(segment);
    let is_wanted = |stream: &&OpenStream| {
        let row = rows[&stream.stream_id]; // it was opened from there
        row.chunks > 0
            && match wanted {
                Wanted::Nothing => false,
                Wanted::Times => true,
                Wanted::Chunks {
                    camera_id,
                    from_s,
                    to_s,
                } => {
                    // After a scan its chunks are known already, and would cost as much again.
                    let inside = row.first_s <= to_s && row.last_s >= from_s;
                    stream.info.camera_id == camera_id && (inside || segment.is_scanned())
                }
            }
    };
    let streams: Vec<&OpenStream> = opened.iter().filter(is_wanted).collect();
    if streams.is_empty() {
        return Ok(HashMap::new());
    }
    let chunks = match wanted {
        Wanted::Nothing | Wanted::Times => segment.listed_chunks_of(&streams)?,
        Wanted::Chunks { .. } => segment.chunk_rows_of(&streams)?,
    };
    let ids = streams.iter().map(|stream| stream.stream_id);
    Ok(ids.zip(chunks).collect())
}

fn rows_by_stream<S: Source>(segment: &Segment<S>) -> HashMap<StreamId, &StreamRow> {
    let rows = segment.streams().iter();
    rows.map(|row| (row.stream_id, row)).collect()
}

/// Opens a segment file for reading here and there.
fn open_file(path: &Path, tally: &Arc<Tally>) -> io::Result<Counted<FileSource>> {
    let source = FileSource::open(path)?;
    source.expect(Access::Scattered);
    Ok(Counted::new(source, tally))
}

fn open_segment(path: &Path, tally: &Arc<Tally>) -> Result<Segment<Counted<FileSource>>, ReadError> {
    let source = open_file(path, tally).map_err(|why| ReadError::Io { offset: 0, why })?;
    Segment::open(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::fixtures::{self, BEGAN_S};
    use harborseal_segment::block::{Header, encode_block};

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
        let library = Library::open(
            &paths,
            &mut Keyring::new(fixtures::alice()),
            Wanted::Times,
            |_| (),
        );
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
        let library = Library::open(
            &paths,
            &mut Keyring::new(fixtures::alice()),
            Wanted::Times,
            |_| (),
        );
        assert_eq!(chunk_numbers(&library, "front-door", 0, u64::MAX).len(), 3);
        assert_eq!(library.tracks[0].parts[0].chunks, 3);
    }

    #[test]
    fn one_bad_file_does_not_hide_the_others() {
        let (_dir, mut paths) = written(&[fixtures::closed_segment(0), b"hello".to_vec(), vec![]]);
        paths.push("gone.hseal".into());
        let library = Library::open(
            &paths,
            &mut Keyring::new(fixtures::alice()),
            Wanted::Times,
            |_| (),
        );
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
        let library = Library::open(&paths, &mut Keyring::new(fixtures::eve()), Wanted::Times, |_| ());
        assert_eq!((library.segments, library.tracks.len()), (1, 0));
        assert!(library.problems.is_empty());
    }

    fn wanted(camera_id: &str) -> Wanted<'_> {
        Wanted::Chunks {
            camera_id,
            from_s: 0,
            to_s: u64::MAX,
        }
    }

    /// A segment with chunks of 60 KiB of all three cameras in turn, and what must be read of it for its tables.
    fn full_segment(n: u8, chunks: usize) -> (Vec<u8>, u64) {
        let mut recording = fixtures::Recording::begin(n);
        for at in 0..chunks {
            recording.chunk(at % 3, &vec![vec![1; 1200]; 50]);
        }
        let blocks = recording.bytes.len() as u64;
        let (file, _) = recording.finish(None);
        // Two SEGMENT blocks (once for the chain's order, once for the segment), one KEY block, Alice's two STREAM blocks.
        let tables = 2 * 8192 + 3 * 4096 + file.len() as u64 - blocks;
        (file, tables)
    }

    #[test]
    fn of_one_camera_its_own_chunks_are_read_and_of_the_rest_the_tables() {
        let segments = [0, 1, 2].map(|n| full_segment(n, 30));
        let tables: u64 = segments.iter().map(|(_, tables)| tables).sum();
        let (_dir, paths) = written(&segments.map(|(file, _)| file));
        let library = Library::open(
            &paths,
            &mut Keyring::new(fixtures::alice()),
            wanted("garden"),
            |_| (),
        );
        assert_eq!(library.bytes_read(), tables);
        let track = library.tracks_of("garden").next().expect("hers");
        assert!(track.has_within(BEGAN_S, BEGAN_S + 1) && !track.has_within(BEGAN_S + 20, BEGAN_S + 30));
        assert_eq!(track.chunks(0, u64::MAX).filter(Result::is_ok).count(), 30);
        let own = 30 * 61_440; // 50 × 1,208 B and the heads, in pages
        assert_eq!(library.bytes_read(), tables + own);
    }

    #[test]
    fn a_segment_without_a_footer_is_read_to_its_end_once_and_costs_no_other() {
        let (closed, tables) = full_segment(0, 30);
        let (whole, _) = full_segment(1, 30);
        let open = whole[..whole.len() - 4096].to_vec();
        let open_len = open.len() as u64;
        let (_dir, paths) = written(&[closed, open]);
        let library = Library::open(
            &paths,
            &mut Keyring::new(fixtures::alice()),
            Wanted::Times,
            |_| (),
        );
        let chunks: Vec<u64> = library
            .tracks
            .iter()
            .flat_map(|track| &track.parts)
            .map(|part| part.chunks)
            .collect();
        assert_eq!(chunks, [10; 4]);
        // Its head twice, its last page in search of a footer, everything behind its head once, Alice's KEY and STREAM blocks.
        assert_eq!(
            library.bytes_read(),
            tables + 2 * 8192 + 4096 + open_len - 8192 + 3 * 4096
        );

        let library = Library::open(
            &paths,
            &mut Keyring::new(fixtures::alice()),
            wanted("garden"),
            |_| (),
        );
        let before = library.bytes_read();
        let track = library.tracks_of("garden").next().expect("hers");
        assert_eq!(track.chunks(0, u64::MAX).filter(Result::is_ok).count(), 20);
        assert_eq!(
            library.bytes_read() - before,
            20 * 61_440,
            "where they stand is known"
        );
    }

    #[test]
    fn where_the_index_leads_astray_the_chunks_are_found_by_a_scan() {
        let (mut file, _) = full_segment(0, 30);
        let footer_at = file.len() - 4096;
        let chunks_at =
            u64::from_le_bytes(file[footer_at + 136..][..8].try_into().expect("eight bytes")) as usize;
        // The second row: the first chunk of the garden. Its offset becomes the next one's, which is another's.
        let row = chunks_at + 144 + 48;
        file.copy_within(row + 48..row + 56, row);
        let header = Header::parse(&file[chunks_at..]).expect("an INDEX block");
        let lying = encode_block(header, header.body(&file[chunks_at..]));
        file[chunks_at..][..lying.len()].copy_from_slice(&lying);
        let (_dir, paths) = written(&[file]);
        let library = Library::open(
            &paths,
            &mut Keyring::new(fixtures::alice()),
            wanted("garden"),
            |_| (),
        );
        let numbers = chunk_numbers(&library, "garden", 0, u64::MAX);
        assert_eq!(
            numbers,
            (0..10).map(|seq| (BEGAN_S + seq, seq)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_damaged_chunk_is_told_and_sends_nobody_through_the_whole_segment() {
        let (mut file, tables) = full_segment(0, 30);
        let garden_at = 8192 + 4096 + 3 * 4096 + 61_440;
        file[garden_at + 5000] ^= 1;
        let (_dir, paths) = written(&[file]);
        let library = Library::open(
            &paths,
            &mut Keyring::new(fixtures::alice()),
            wanted("garden"),
            |_| (),
        );
        let track = library.tracks_of("garden").next().expect("hers");
        let chunks: Vec<bool> = track.chunks(0, u64::MAX).map(|chunk| chunk.is_ok()).collect();
        assert_eq!(chunks, [&[false][..], &[true; 9]].concat());
        assert_eq!(
            library.bytes_read(),
            tables + 10 * 61_440 + 4096,
            "its header is looked at once more"
        );
    }
}
