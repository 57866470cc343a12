//! A segment as a reader sees it: its tables, and through them the streams and chunks of one identity.
//!
//! A closed segment is read through its footer: one read of the tail, the stream and key tables, then only the blocks that are asked
//! for. The index is never believed, only followed: every block it leads to is checked like any other, and where it leads astray,
//! or where there is no footer, the blocks are found by scanning.

use zeroize::Zeroizing;

use crate::block::{BLOCK_ALIGN, BlockType, Header, MAX_BLOCK_LEN, SEGMENT_PREFIX_LEN, Stored, parse_block};
use crate::body::{
    ChunkRow, FOOTER_RECOVERED, FooterBody, IndexBody, IndexRows, KeyBody, KeyEntry, OriginBody, StreamRow,
};
use crate::head::Head;
use crate::ids::SegmentId;
use crate::open::{Keyring, OpenChunk, OpenError, OpenStream, Origin, Unlocked};
use crate::scan::{Block, Gap, Item, ReadError, Scanner, read_naming_the_page};
use crate::source::Source;
use crate::writer::Tables;

const ALIGN: u64 = BLOCK_ALIGN as u64;

/// How far a segment has got in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No footer: being written, or left by a crash.
    Open,
    /// Closed by its writer.
    Sealed,
    /// Closed by recovery.
    Recovered,
}

impl State {
    /// The word for it in listings and JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Sealed => "sealed",
            State::Recovered => "recovered",
        }
    }
}

/// A segment, its head and its tables.
pub struct Segment<S> {
    source: S,
    head: Head,
    footer: Option<FooterBody>,
    /// Streams and keys; chunks only if the segment was scanned.
    tables: Tables,
    origins: Vec<Origin>,
    scanned: bool,
    gaps: Vec<Gap>,
}

/// Why an identity gets nothing, or not all, of a segment.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The segment could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No KEY entry opens with this identity.
    #[error("nothing here is for this identity")]
    NothingForIdentity,
    /// Chunks of the stream that are not in this file, told by a jump of stream_seq.
    #[error("{count} chunks of the stream are missing, from stream_seq {first} on")]
    ChunksMissing {
        /// The first missing stream_seq.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Something of this identity's was changed.
    #[error("at offset {offset}: {why}")]
    Open {
        /// Of the STREAM or CHUNK block.
        offset: u64,
        /// What does not hold.
        why: OpenError,
    },
}

/// The last 4096 bytes, if they are a whole FOOTER of this segment. Its claims are not checked here.
pub fn read_footer<S: Source + ?Sized>(source: &S, head: &Head) -> Result<Option<FooterBody>, ReadError> {
    let len = source.len();
    if len < SEGMENT_PREFIX_LEN as u64 + ALIGN || !len.is_multiple_of(ALIGN) {
        return Ok(None);
    }
    let mut tail = vec![0; BLOCK_ALIGN];
    read_naming_the_page(&source, len - ALIGN, &mut tail)?;
    Ok(parse_block(&tail)
        .ok()
        .filter(|header| header.block_type == BlockType::Footer && header.segment_id == head.id)
        .and_then(|header| FooterBody::parse(header.body(&tail)).ok()))
}

impl<S: Source> Segment<S> {
    /// Reads head, footer and tables; scans if there is no footer or its tables cannot be read.
    pub fn open(source: S) -> Result<Self, ReadError> {
        let head = Head::read(&source)?;
        let footer = read_footer(&source, &head)?;
        let mut segment = Segment {
            source,
            head,
            footer,
            tables: Tables::default(),
            origins: Vec::new(),
            scanned: false,
            gaps: Vec::new(),
        };
        match footer {
            Some(footer) if segment.load_tables(&footer).is_ok() => {}
            _ => segment.scan()?,
        }
        Ok(segment)
    }

    /// What the SEGMENT block says.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What the FOOTER says, in a closed segment.
    pub fn footer(&self) -> Option<&FooterBody> {
        self.footer.as_ref()
    }

    /// How far it has got.
    pub fn state(&self) -> State {
        match &self.footer {
            None => State::Open,
            Some(footer) if footer.flags & FOOTER_RECOVERED != 0 => State::Recovered,
            Some(_) => State::Sealed,
        }
    }

    /// The source it is read from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Its streams, in the order of their STREAM blocks.
    pub fn streams(&self) -> &[StreamRow] {
        &self.tables.streams
    }

    /// What a scan found between and behind the blocks; empty if the index was followed.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// Stream and key tables from the index. An error of any kind means: scan.
    fn load_tables(&mut self, footer: &FooterBody) -> Result<(), ReadError> {
        let mut tables = Tables::default();
        self.index_rows(footer.streams_offset, footer.streams_len, |rows| match rows {
            IndexRows::Streams(rows) => {
                tables.streams.extend(rows);
                true
            }
            _ => false,
        })?;
        self.index_rows(footer.keys_offset, footer.keys_len, |rows| match rows {
            IndexRows::Keys(rows) => {
                tables.keys.extend(rows);
                true
            }
            _ => false,
        })?;
        self.tables = tables;
        Ok(())
    }

    /// Feeds the tables in `len` bytes of INDEX blocks at `offset` to `take`, which refuses those of another kind.
    fn index_rows(
        &self,
        offset: u64,
        len: u64,
        mut take: impl FnMut(IndexRows) -> bool,
    ) -> Result<(), ReadError> {
        let wrong = |offset, what: &str| ReadError::Damaged {
            offset,
            what: what.into(),
        };
        let end = offset
            .checked_add(len)
            .ok_or_else(|| wrong(offset, "the index is out of bounds"))?;
        let mut at = offset;
        while at < end {
            let (header, bytes) = self.own_block(at, None)?;
            if header.block_type != BlockType::Index {
                return Err(wrong(at, "it is not an INDEX block"));
            }
            let body =
                IndexBody::parse(header.body(&bytes)).map_err(|error| ReadError::of_body(at, &error))?;
            if !take(body.rows) {
                return Err(wrong(at, "it indexes something else"));
            }
            at += u64::from(header.total_len);
        }
        Ok(())
    }

    /// Finds streams, keys and chunks by walking the whole segment.
    fn scan(&mut self) -> Result<(), ReadError> {
        let (mut tables, mut origins, mut gaps) = (Tables::default(), Vec::new(), Vec::new());
        let mut scanner = Scanner::new(&self.source, self.head.id);
        while let Some(item) = scanner.next_item()? {
            match item {
                Item::Block(block) => {
                    block.refuse_unknown_critical()?;
                    tables.note(block.offset, &block.header, block.bytes);
                    if block.header.block_type == BlockType::Origin {
                        let origin = OriginBody::parse(block.body());
                        origins.extend(origin.map(|origin| Origin::from(&origin)));
                    }
                }
                Item::Gap(gap) => gaps.push(gap),
            }
        }
        self.tables = tables;
        self.origins = origins;
        self.gaps = gaps;
        self.scanned = true;
        Ok(())
    }

    /// A valid block at `offset`, with room for nothing else, which is whole unless it is a CHUNK. `len` if it is known.
    fn own_block(&self, offset: u64, len: Option<u32>) -> Result<(Header, Zeroizing<Vec<u8>>), ReadError> {
        let (header, stored, bytes) = self.valid_block(offset, len)?;
        match stored {
            Stored::Whole => Ok((header, bytes)),
            Stored::Erased => Err(ReadError::Damaged {
                offset,
                what: "it is an erased CHUNK".into(),
            }),
        }
    }

    fn valid_block(
        &self,
        offset: u64,
        len: Option<u32>,
    ) -> Result<(Header, Stored, Zeroizing<Vec<u8>>), ReadError> {
        let wrong = |what: String| ReadError::Damaged { offset, what };
        let len = len.map_or(ALIGN, u64::from).clamp(ALIGN, MAX_BLOCK_LEN as u64);
        let inside = |len: u64| {
            offset.is_multiple_of(ALIGN)
                && offset
                    .checked_add(len)
                    .is_some_and(|end| end <= self.source.len())
        };
        if !inside(len) {
            return Err(wrong("the index leads outside the segment".into()));
        }
        let mut bytes = Zeroizing::new(vec![0; len as usize]);
        read_naming_the_page(&self.source, offset, &mut bytes)?;
        let header = Header::parse(&bytes).map_err(|error| wrong(error.to_string()))?;
        let total_len = u64::from(header.total_len);
        if total_len > len {
            if !inside(total_len) {
                return Err(wrong("the block is cut".into()));
            }
            bytes = Zeroizing::new(vec![0; total_len as usize]);
            read_naming_the_page(&self.source, offset, &mut bytes)?;
        }
        let stored = header
            .check_body(&bytes)
            .map_err(|error| wrong(error.to_string()))?;
        bytes.truncate(total_len as usize);
        Ok((header, stored, bytes))
    }

    /// KEY entries by their segment of origin.
    fn key_entries(&self) -> Result<Vec<(Origin, Vec<KeyEntry>)>, ReadError> {
        let mut groups: Vec<(Origin, Vec<KeyEntry>)> = Vec::new();
        for row in &self.tables.keys {
            let offset = row.offset;
            let (header, bytes) = self.own_block(offset, Some(row.total_len))?;
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
                KeyBody::parse(header.body(&bytes)).map_err(|error| ReadError::of_body(offset, &error))?;
            match groups.iter_mut().find(|(known, _)| *known == origin) {
                Some((_, entries)) => entries.extend(body.entries),
                None => groups.push((origin, body.entries)),
            }
        }
        Ok(groups)
    }

    /// What is known of a segment whose blocks stand in this file: itself, or one that an ORIGIN block names.
    pub fn origin_of(&self, segment_id: SegmentId) -> Option<Origin> {
        if segment_id == self.head.id {
            return Some(self.head.origin());
        }
        let origins = self.origins.iter();
        origins.copied().find(|origin| origin.segment_id == segment_id)
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
        let slots = || {
            secrets
                .iter()
                .flat_map(|(_, secrets)| secrets)
                .map(|unlocked| unlocked.slot)
        };
        let mut opened = Vec::new();
        for row in &self.tables.streams {
            if slots().any(|slot| slot == row.slot) {
                opened.extend(self.open_stream(row, &secrets)?);
            }
        }
        Ok(opened)
    }

    /// Opens the STREAM block that `row` leads to; `None` if it is of another origin's equal slot, and so for somebody else.
    fn open_stream(
        &self,
        row: &StreamRow,
        secrets: &[(SegmentId, Vec<Unlocked>)],
    ) -> Result<Option<Result<OpenStream, StreamError>>, ReadError> {
        let offset = row.offset;
        let (header, bytes) = self.own_block(offset, None)?;
        let known = self.origin_of(header.segment_id).is_some();
        if !known || (header.block_type, header.stream_id) != (BlockType::Stream, row.stream_id) {
            let what = "the index says it is another STREAM block".into();
            return Err(ReadError::Damaged { offset, what });
        }
        let block = Block {
            offset,
            header,
            bytes: &bytes,
            stored: Stored::Whole,
        };
        let here = secrets.iter().filter(|(origin, _)| *origin == header.segment_id);
        let opened = here
            .flat_map(|(_, secrets)| OpenStream::open(&block, secrets))
            .next();
        Ok(opened.map(|opened| opened.map_err(|why| StreamError::Open { offset, why })))
    }

    /// The chunks of a stream in this file, by stream_seq; duplicates are left out. If the index does not list them without a
    /// jump, the segment is scanned to see whether it is the index that lacks them.
    pub fn chunk_rows(&mut self, stream: &OpenStream) -> Result<Vec<ChunkRow>, ReadError> {
        if !self.scanned {
            let rows = self.chunk_rows_of(stream);
            let counted = self.stream_row(stream).map_or(0, |(_, row)| row.chunks);
            match rows {
                Ok(rows) if rows.len() as u64 == counted && is_dense(&rows) => return Ok(rows),
                Err(error @ ReadError::Io { .. }) => return Err(error),
                _ => self.scan()?,
            }
        }
        self.chunk_rows_of(stream)
    }

    /// Shows every chunk of the file with its stream, in one pass over the index, or over what a scan found. A copy of a chunk may
    /// come twice.
    pub fn each_chunk(&self, mut visit: impl FnMut(&StreamRow, &ChunkRow)) -> Result<(), ReadError> {
        let streams = &self.tables.streams;
        let mut show = |row: &ChunkRow| {
            if let Some(stream) = streams.get(row.stream_row as usize) {
                visit(stream, row);
            }
        };
        match &self.footer {
            Some(footer) if !self.scanned => {
                self.index_rows(footer.chunks_offset, footer.chunks_len, |index| match index {
                    IndexRows::Chunks(rows) => {
                        rows.iter().for_each(&mut show);
                        true
                    }
                    _ => false,
                })
            }
            _ => {
                self.tables.chunks.iter().for_each(show);
                Ok(())
            }
        }
    }

    fn stream_row(&self, stream: &OpenStream) -> Option<(usize, &StreamRow)> {
        let mut rows = self.tables.streams.iter().enumerate();
        rows.find(|(_, row)| row.stream_id == stream.stream_id)
    }

    fn chunk_rows_of(&self, stream: &OpenStream) -> Result<Vec<ChunkRow>, ReadError> {
        let Some((at, _)) = self.stream_row(stream) else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        let mut take = |row: ChunkRow| rows.extend((row.stream_row as usize == at).then_some(row));
        match &self.footer {
            Some(footer) if !self.scanned => {
                self.index_rows(footer.chunks_offset, footer.chunks_len, |index| match index {
                    IndexRows::Chunks(index) => {
                        index.into_iter().for_each(&mut take);
                        true
                    }
                    _ => false,
                })?
            }
            _ => self.tables.chunks.iter().copied().for_each(take),
        }
        rows.sort_by_key(|row| row.stream_seq);
        rows.dedup_by_key(|row| row.block_no);
        Ok(rows)
    }

    /// Reads and opens the chunk that `row` leads to.
    pub fn read_chunk(&self, stream: &OpenStream, row: &ChunkRow) -> Result<OpenChunk, StreamError> {
        let offset = row.offset;
        let (header, stored, bytes) = self.valid_block(offset, Some(row.total_len))?;
        if !stream.owns(&header) || header.stream_seq != row.stream_seq || header.block_no != row.block_no {
            let what = "the index says it is another CHUNK block".into();
            return Err(ReadError::Damaged { offset, what }.into());
        }
        let opened = match stored {
            Stored::Whole => stream.open_chunk(&header, bytes),
            Stored::Erased => Err(OpenError::Erased),
        };
        opened.map_err(|why| StreamError::Open { offset, why })
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
            Err(StreamError::Read(error))
                if !self.segment.scanned && !matches!(error, ReadError::Io { .. }) =>
            {
                self.scan_for(&row, error)
            }
            read => read,
        })
    }
}

impl<S: Source> Chunks<'_, S> {
    /// The index led astray: from here on the chunks are those that a scan finds. `error` stands if the one of `row` is not among them.
    fn scan_for(&mut self, row: &ChunkRow, error: ReadError) -> Result<OpenChunk, StreamError> {
        self.segment.scan()?;
        let mut rows = self.segment.chunk_rows_of(self.stream)?;
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
