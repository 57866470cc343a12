//! MP4 writing: samples go to the file as they come; only one table row per sample stays in memory.
//!
//! ```text
//! ftyp · mdat (64-bit size, set at the end) · moov (written last, when all times are known)
//! ```
//!
//! Boxes are those of `shiguredo_mp4`; its own muxer is not used, because it knows neither edit lists nor times
//! that are settled after the last sample.

mod boxes;
mod entry;
mod timeline;

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::sync::Arc;

use super::Error;
use super::codec::sets::Snapshot;
use super::target::Target;
use entry::VideoEntry;
pub(super) use timeline::TICKS_HZ;
use timeline::{Moment, Timeline};

/// One write of this many bytes at a time.
const BUFFER_BYTES: usize = 1 << 20;
/// Samples are found by chunk; a player reads at least one whole.
const MAX_CHUNK_BYTES: u64 = 1 << 20;
/// See [`MAX_CHUNK_BYTES`]; two seconds at 25 frames/s.
const MAX_CHUNK_SAMPLES: u32 = 50;
/// A camera that announces this many different parameter sets is broken.
const MAX_ENTRIES: usize = 1_000;

/// A sample's place in time and its nature.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Index of the stretch of time it belongs to.
    pub epoch: u32,
    /// Presentation time since the epoch's first frame, ticks of [`TICKS_HZ`].
    pub ticks: i64,
    /// Decoding can begin here: IDR or IRAP.
    pub key: bool,
    /// Decoding can begin here if there is no key frame: recovery point or intra picture.
    pub point: bool,
    /// To be shown; else only decoded.
    pub wanted: bool,
    pub in_order: bool,
}

struct Row {
    sample: Sample,
    size: u32,
}

/// Samples that stand together in the file and share a sample entry.
struct Chunk {
    offset: u64,
    bytes: u64,
    samples: u32,
    entry: u32,
}

/// One video track.
#[derive(Default)]
struct Track {
    entries: Vec<(Arc<Snapshot>, VideoEntry)>,
    rows: Vec<Row>,
    chunks: Vec<Chunk>,
}

/// An MP4 file being written.
pub(super) struct Writer {
    target: Target,
    out: BufWriter<File>,
    /// Where the mdat box begins.
    mdat: u64,
    /// Where the next sample goes.
    position: u64,
    tracks: Vec<Track>,
}

impl Writer {
    /// Begins the file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn new(target: Target) -> Result<Writer, Error> {
        let file = target
            .file
            .try_clone()
            .map_err(target.error("cannot be written"))?;
        let mut writer = Writer {
            target,
            out: BufWriter::with_capacity(BUFFER_BYTES, file),
            mdat: 0,
            position: 0,
            tracks: Vec::new(),
        };
        let head = boxes::file_type();
        writer.mdat = head.len() as u64;
        writer.write(&head)?;
        writer.write(&boxes::media_data_header(0))?;
        Ok(writer)
    }

    /// Adds an empty track and gives its number.
    pub fn add_track(&mut self) -> usize {
        self.tracks.push(Track::default());
        self.tracks.len() - 1
    }

    /// Samples so far, over all tracks.
    pub fn samples(&self) -> usize {
        self.tracks.iter().map(|t| t.rows.len()).sum()
    }

    /// Appends a sample to `track`.
    ///
    /// # Errors
    /// Those of the file; pictures or numbers that an MP4 cannot hold.
    pub fn append(
        &mut self,
        track: usize,
        sets: &Arc<Snapshot>,
        sample: Sample,
        data: &[u8],
    ) -> Result<(), Error> {
        let offset = self.position;
        let track = &mut self.tracks[track];
        let entry = track.entry(sets)?;
        let size = u32::try_from(data.len()).map_err(|_| Error::Unsupported("a frame of 4 GiB".into()))?;
        if track.rows.len() >= u32::MAX as usize {
            return Err(Error::Unsupported(
                "more frames than an MP4 can hold; choose a shorter range".into(),
            ));
        }
        track.rows.push(Row { sample, size });
        match track.chunks.last_mut() {
            Some(chunk)
                if chunk.entry == entry
                    && chunk.offset + chunk.bytes == offset
                    && chunk.bytes < MAX_CHUNK_BYTES
                    && chunk.samples < MAX_CHUNK_SAMPLES =>
            {
                chunk.samples += 1;
                chunk.bytes += u64::from(size);
            }
            _ => track.chunks.push(Chunk {
                offset,
                bytes: u64::from(size),
                samples: 1,
                entry,
            }),
        }
        self.write(data)
    }

    /// Forgets all samples: a later key frame is the better beginning.
    ///
    /// # Errors
    /// Those of the file.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.tracks.clear();
        self.position = self.mdat + boxes::MEDIA_DATA_HEADER_BYTES;
        let position = self.position;
        let cut = |out: &mut BufWriter<File>| -> io::Result<()> {
            out.seek(SeekFrom::Start(position))?;
            out.get_ref().set_len(position)
        };
        cut(&mut self.out).map_err(self.target.error("cannot be written"))
    }

    /// Completes the file. `epochs_ns`: wall time of each epoch's first frame, in order, nanoseconds since 1970.
    /// Gives the number of frames shown and the file's size.
    ///
    /// # Errors
    /// Those of the file; [`Error::NothingInRange`] if no sample is wanted.
    pub fn finish(mut self, epochs_ns: &[i64]) -> Result<(u64, u64), Error> {
        let base_ns = epochs_ns.first().copied().unwrap_or(0);
        let starts = self.epoch_starts(epochs_ns, base_ns);
        let mut tracks = Vec::new();
        for track in &self.tracks {
            if let Some(timeline) = track.timeline(&starts) {
                tracks.push((track, timeline));
            }
        }
        let shown = tracks
            .iter()
            .flat_map(|(t, _)| &t.rows)
            .filter(|row| row.sample.wanted)
            .count() as u64;
        if tracks.is_empty() {
            return Err(Error::NothingInRange(
                "no frame of this camera in the range can be decoded".into(),
            ));
        }
        let movie = boxes::movie(&tracks, base_ns)?;
        let mdat_bytes = self.position - self.mdat;
        self.write(&movie)?;
        let header = boxes::media_data_header(mdat_bytes);
        let mdat = self.mdat;
        let patch = |out: &mut BufWriter<File>| -> io::Result<()> {
            out.seek(SeekFrom::Start(mdat))?;
            out.write_all(&header)?;
            out.flush()
        };
        patch(&mut self.out).map_err(self.target.error("cannot be written"))?;
        self.target.commit()?;
        Ok((shown, self.position))
    }

    /// Start of each epoch in ticks since the first. Clocks are not exact: an epoch that would begin before the one
    /// before it ended is moved behind it.
    fn epoch_starts(&self, epochs_ns: &[i64], base_ns: i64) -> Vec<i64> {
        let mut spans: Vec<Option<(i64, i64)>> = vec![None; epochs_ns.len()];
        for row in self.tracks.iter().flat_map(|t| &t.rows) {
            let span = &mut spans[row.sample.epoch as usize];
            let (low, high) = span.unwrap_or((row.sample.ticks, row.sample.ticks));
            *span = Some((low.min(row.sample.ticks), high.max(row.sample.ticks)));
        }
        let mut end = i64::MIN;
        let mut starts = Vec::with_capacity(epochs_ns.len());
        for (&epoch_ns, span) in epochs_ns.iter().zip(spans) {
            let mut start =
                ((i128::from(epoch_ns) - i128::from(base_ns)) * i128::from(TICKS_HZ) / 1_000_000_000) as i64;
            if let Some((low, high)) = span {
                start = start.max(end.saturating_sub(low));
                end = start + high + 1;
            }
            starts.push(start);
        }
        starts
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.position += bytes.len() as u64;
        self.out
            .write_all(bytes)
            .map_err(self.target.error("cannot be written"))
    }
}

impl Track {
    /// Number of the sample entry for `sets`, from 0; a new one if there is none yet.
    fn entry(&mut self, sets: &Arc<Snapshot>) -> Result<u32, Error> {
        if let Some(chunk) = self.chunks.last()
            && Arc::ptr_eq(&self.entries[chunk.entry as usize].0, sets)
        {
            return Ok(chunk.entry);
        }
        if let Some(known) = self.entries.iter().position(|(other, _)| other == sets) {
            return Ok(known as u32);
        }
        if self.entries.len() >= MAX_ENTRIES {
            let why = format!("the camera announces more than {MAX_ENTRIES} different parameter sets");
            return Err(Error::Unsupported(why));
        }
        self.entries.push((Arc::clone(sets), VideoEntry::new(sets)?));
        Ok(self.entries.len() as u32 - 1)
    }

    fn timeline(&self, epoch_starts: &[i64]) -> Option<Timeline> {
        let moments = self.rows.iter().map(|row| Moment {
            shown: epoch_starts[row.sample.epoch as usize] + row.sample.ticks,
            in_order: row.sample.in_order,
            wanted: row.sample.wanted,
        });
        Timeline::new(moments.collect())
    }
}
