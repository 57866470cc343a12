//! The packets of one camera's streams, in the order of arrival over all of them.
//!
//! Each stream is read chunk by chunk, neighbours in one read; what one read gives, 1 MiB at most, is in memory of each.

use crate::archive::library::{Chunks, Part, Problem, Track};
use crate::cli::footage;
use crate::media::{Error, Export, Packet, Stream};
use harborseal_segment::open::OpenChunk;

/// Several streams, merged.
pub struct Merge<'a> {
    cursors: Vec<Cursor<'a>>,
    /// What could not be opened on the way.
    pub problems: Vec<Problem>,
}

struct Cursor<'a> {
    chunks: Chunks<'a>,
    part: Option<&'a Part>,
    stream: Stream,
    chunk: OpenChunk,
    /// Packets of the chunk that were given out.
    done: usize,
    next_ns: u64,
}

impl<'a> Merge<'a> {
    /// Streams from the second `from_s` to the second `to_s`, both inclusive.
    pub fn new(tracks: &[&'a Track], from_s: u64, to_s: u64) -> Merge<'a> {
        let mut problems = Vec::new();
        let cursors = tracks
            .iter()
            .filter_map(|track| Cursor::new(track.chunks(from_s, to_s), &mut problems))
            .collect();
        Merge { cursors, problems }
    }

    /// Gives `export` every packet that arrived before `until_ns`. `tick` is called after each chunk and may stop it.
    pub fn feed(
        &mut self,
        until_ns: u64,
        export: &mut Export,
        tick: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        while let Some(first) = (0..self.cursors.len()).min_by_key(|&i| self.cursors[i].next_ns) {
            if self.cursors[first].next_ns >= until_ns {
                break;
            }
            let others = self.cursors.iter().enumerate().filter(|(i, _)| *i != first);
            let until_ns = others
                .map(|(_, cursor)| cursor.next_ns)
                .min()
                .unwrap_or(u64::MAX)
                .min(until_ns);
            let cursor = &mut self.cursors[first];
            if !cursor.feed(until_ns, export)? {
                tick()?;
                if !cursor.advance(&mut self.problems) {
                    self.cursors.swap_remove(first);
                }
            }
        }
        Ok(())
    }
}

impl<'a> Cursor<'a> {
    /// A cursor at the first chunk, if there is one.
    fn new(mut chunks: Chunks<'a>, problems: &mut Vec<Problem>) -> Option<Cursor<'a>> {
        let chunk = next_chunk(&mut chunks, problems)?;
        let part = chunks.part();
        let stream = footage::stream_of(part?);
        let next_ns = chunk.packets().next().map_or(0, |packet| packet.arrival_ns);
        Some(Cursor {
            chunks,
            part,
            stream,
            chunk,
            done: 0,
            next_ns,
        })
    }

    /// Gives out the chunk's packets that arrived before `until_ns`, but at least one, so that equal times make no endless
    /// loop. `false`: the chunk is at its end.
    fn feed(&mut self, until_ns: u64, export: &mut Export) -> Result<bool, Error> {
        let begun = self.done;
        for packet in self.chunk.packets().skip(begun) {
            if packet.arrival_ns >= until_ns && self.done > begun {
                self.next_ns = packet.arrival_ns;
                return Ok(true);
            }
            let (arrival_ns, rtcp, bytes) = (packet.arrival_ns, packet.rtcp, packet.bytes);
            export.push(
                &self.stream,
                Packet {
                    arrival_ns,
                    rtcp,
                    bytes,
                },
            )?;
            self.done += 1;
        }
        Ok(false)
    }

    /// Goes to the next chunk. `false`: there is none.
    fn advance(&mut self, problems: &mut Vec<Problem>) -> bool {
        let Some(chunk) = next_chunk(&mut self.chunks, problems) else {
            return false;
        };
        let part = self.chunks.part();
        if let Some(part) = part
            && !self.part.is_some_and(|known| std::ptr::eq(known, part))
        {
            self.stream = footage::stream_of(part);
            self.part = Some(part);
        }
        self.chunk = chunk;
        self.done = 0;
        // A chunk without packets is at its end at once.
        self.next_ns = self
            .chunk
            .packets()
            .next()
            .map_or(self.next_ns, |packet| packet.arrival_ns);
        true
    }
}

/// The next chunk that opens.
fn next_chunk(chunks: &mut Chunks<'_>, problems: &mut Vec<Problem>) -> Option<OpenChunk> {
    loop {
        match chunks.next()? {
            Ok(chunk) => return Some(chunk),
            Err(problem) => problems.push(problem),
        }
    }
}
