//! The check with an identity: everything that is for it must open, parse, and go on where it left off.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::what::What;
use crate::body::KeyEntry;
use crate::ids::{SegmentId, StreamId};
use crate::keys::Secret;
use crate::open::{Keyring, OpenError, OpenStream, Origin, Unlocked};
use crate::scan::Block;

/// One identity beside the survey.
pub(crate) struct Owner<'k> {
    keyring: &'k mut Keyring,
    keys: HashMap<SegmentId, OriginKeys>,
    streams: HashMap<StreamId, Own>,
    scratch: Zeroizing<Vec<u8>>,
    /// KEY blocks with an entry for the identity that opens to nonsense, and whether that was said.
    malformed: HashMap<u64, bool>,
}

#[derive(Default)]
struct OriginKeys {
    entries: Vec<KeyEntry>,
    /// Where the KEY block of each entry stands.
    offsets: Vec<u64>,
    secrets: Vec<Unlocked>,
    /// `secrets` are those of all `entries`.
    tried: bool,
}

struct Own {
    stream: OpenStream,
    seen: OwnStream,
    /// stream_seq and chunks_so_far of its last chunk.
    last: Option<(u64, u64)>,
}

/// What was opened of one stream in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnStream {
    /// Its segment of origin.
    pub origin: SegmentId,
    /// Its name there.
    pub stream_id: StreamId,
    /// The camera.
    pub camera_id: String,
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// Which m-line of the SDP; 0xFFFF unknown.
    pub media_index: u16,
    /// Chunks opened.
    pub chunks: u64,
    /// Packets in them.
    pub packets: u64,
    /// Chunks of the stream in this run before the first chunk here, and up to the last one here.
    pub so_far: Option<(u64, u64)>,
    /// Where its first chunk stands.
    pub first_offset: u64,
    /// It opened by a grant: of the same stream's chunks before, nobody need have the keys.
    pub granted: bool,
}

impl<'k> Owner<'k> {
    pub(crate) fn new(keyring: &'k mut Keyring) -> Self {
        Owner {
            keyring,
            keys: HashMap::new(),
            streams: HashMap::new(),
            scratch: Zeroizing::default(),
            malformed: HashMap::new(),
        }
    }

    /// Notes the entries of a KEY block; they are tried when the first STREAM needs them, with those of all KEY blocks before it.
    pub(super) fn keys(&mut self, origin: SegmentId, offset: u64, entries: Vec<KeyEntry>) {
        let keys = self.keys.entry(origin).or_default();
        keys.offsets.extend(std::iter::repeat_n(offset, entries.len()));
        keys.entries.extend(entries);
        keys.tried = false;
    }

    /// Opens a STREAM block if it is for the identity.
    pub(super) fn stream(&mut self, block: &Block<'_>, origins: &[Origin]) -> Result<(), OpenError> {
        let header = &block.header;
        let origin = origins
            .iter()
            .find(|origin| origin.segment_id == header.segment_id);
        let (Some(origin), Some(keys)) = (origin, self.keys.get_mut(&header.segment_id)) else {
            return Ok(());
        };
        if !keys.tried {
            let (offsets, malformed) = (&keys.offsets, &mut self.malformed);
            keys.secrets = self.keyring.unlock_telling(origin, &keys.entries, |at| {
                malformed.entry(offsets[at]).or_insert(false);
            });
            keys.tried = true;
        }
        let Some(stream) = OpenStream::open(block, &keys.secrets).transpose()? else {
            return Ok(());
        };
        let of_customer = |unlocked: &Unlocked| {
            unlocked.slot == stream.slot && matches!(unlocked.secret, Secret::Customer(_))
        };
        let granted = !keys.secrets.iter().any(of_customer);
        let seen = OwnStream {
            origin: stream.origin,
            stream_id: stream.stream_id,
            camera_id: stream.info.camera_id.clone(),
            ssrc: stream.info.ssrc,
            media_index: stream.info.media_index,
            chunks: 0,
            packets: 0,
            so_far: None,
            first_offset: 0,
            granted,
        };
        let last = None;
        self.streams.insert(header.stream_id, Own { stream, seen, last });
        Ok(())
    }

    /// KEY blocks that turned out to have an entry for the identity which opens to nonsense; each once.
    pub(super) fn malformed_keys(&mut self) -> Vec<u64> {
        let untold = self.malformed.iter_mut().filter(|(_, told)| !**told);
        untold
            .map(|(offset, told)| {
                *told = true;
                *offset
            })
            .collect()
    }

    /// Opens a CHUNK if it is for the identity, and says what is wrong with it.
    pub(super) fn chunk(&mut self, block: &Block<'_>) -> Option<What> {
        let own = self.streams.get_mut(&block.header.stream_id)?;
        if !own.stream.owns(&block.header) {
            return None;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(block.bytes);
        let head = match own.stream.check_chunk(&block.header, &mut self.scratch) {
            Ok(head) => head,
            Err(error) => return Some(What::Open(error)),
        };
        let (seq, found) = (block.header.stream_seq, head.chunks_so_far);
        let due = own
            .last
            .map(|(last_seq, last)| (seq.wrapping_sub(last_seq), last));
        own.last = Some((seq, found));
        let seen = &mut own.seen;
        if seen.chunks == 0 {
            seen.first_offset = block.offset;
        }
        seen.chunks += 1;
        seen.packets += u64::from(head.packet_count);
        seen.so_far = Some(match seen.so_far {
            None => (found, found.saturating_add(1)),
            Some((first, end)) => (first.min(found), end.max(found.saturating_add(1))),
        });
        // Both numbers count the same chunks, so they must rise together; a copy of a chunk rises by nothing.
        let (steps, last) = due?;
        let expected = last.wrapping_add(steps);
        (found != expected).then_some(What::ChunksSoFar { expected, found })
    }

    /// What was opened, in the order of the STREAM blocks' names.
    pub(crate) fn into_streams(self) -> Vec<OwnStream> {
        let mut streams: Vec<_> = self.streams.into_values().map(|own| own.seen).collect();
        streams.sort_by(|a, b| {
            (&a.camera_id, a.media_index, a.ssrc).cmp(&(&b.camera_id, b.media_index, b.ssrc))
        });
        streams
    }
}
