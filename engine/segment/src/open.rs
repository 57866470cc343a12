//! Opening what is for one identity: its slots, its streams, their chunks, the packets in them.
//!
//! Nothing is opened before its stream's commitment was checked, and nothing is handed out that did not authenticate whole.
//! Every type here that holds a key is wiped when dropped and cannot be printed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::block::{BlockType, Header};
use crate::body::{BodyError, ChunkHead, KeyEntry, OriginBody, SCOPE_CUSTOMER, StreamInfo};
use crate::cipher::OpenKey;
use crate::erase::{EraseSecret, Release};
use crate::identity::Opener;
use crate::ids::{NodeId, RunId, SegmentId, StreamId};
use crate::keys::{Hint, Secret, StreamKeys, StreamSecret, UnwrapError, unwrap};
use crate::planted::{Planted, planted};
use crate::record::{RecordError, Records};
use crate::scan::Block;

/// Whose KEY entries are to be tried: the origin of a KEY block, as its SEGMENT block or an ORIGIN block tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The segment.
    pub segment_id: SegmentId,
    /// The node that wrote it.
    pub node_id: NodeId,
    /// With the shard, its chain.
    pub run_id: RunId,
    /// With the run, its chain.
    pub shard: u32,
    /// Its place in the chain.
    pub chain_seq: u64,
}

impl From<&OriginBody> for Origin {
    fn from(body: &OriginBody) -> Self {
        Origin {
            segment_id: body.segment_id,
            node_id: body.node_id,
            run_id: body.run_id,
            shard: body.shard,
            chain_seq: body.chain_seq,
        }
    }
}

/// The key of one stream of one segment, as a customer hands it over.
#[derive(Clone)]
pub struct Granted {
    /// The segment.
    pub segment_id: SegmentId,
    /// The stream in it.
    pub stream_id: StreamId,
    /// The slot that the stream stands in.
    pub slot: u32,
    /// K_st. Of an erasable slot, too, it is what the chunks' key comes from, and not masked.
    pub secret: StreamSecret,
}

/// What opens: an identity and what it has learned, H of every chain of which it has opened a segment; or what a customer granted, and nothing else.
///
/// With an identity, open the segments of a chain in the order of chain_seq. Then one of them costs a decapsulation per KEY entry, about a tenth of
/// a millisecond each, and every later one a single decapsulation. In another order every one costs them all.
pub struct Keyring {
    /// None where only what was granted is to open.
    opener: Option<Arc<Opener>>,
    granted: HashMap<SegmentId, Vec<Granted>>,
    chains: HashMap<(RunId, u32), Vec<KnownHint>>,
    /// E by segment and slot.
    releases: HashMap<(SegmentId, u32), EraseSecret>,
}

/// H_n of one slot of this identity, at chain_seq n.
struct KnownHint {
    chain_seq: u64,
    hint: Hint,
}

/// A secret of this identity in one segment.
pub struct Unlocked {
    /// The slot it belongs to.
    pub slot: u32,
    /// What it opens: the slot's streams, or one of them.
    pub secret: Secret,
    /// The slot is erasable: what it opens needs E too.
    pub erasable: bool,
    /// E of the slot, if it was released.
    pub release: Option<EraseSecret>,
}

impl From<&Granted> for Unlocked {
    fn from(granted: &Granted) -> Self {
        Unlocked {
            slot: granted.slot,
            secret: Secret::Stream(granted.stream_id, granted.secret.clone()),
            erasable: false,
            release: None,
        }
    }
}

impl Unlocked {
    /// The keys of a stream of `segment_id` in `slot`: `None` if this secret is not for it.
    fn keys(
        &self,
        segment_id: &SegmentId,
        slot: u32,
        stream_id: &StreamId,
    ) -> Option<Result<StreamKeys, OpenError>> {
        let for_it = match &self.secret {
            Secret::Customer(_) => self.slot == slot,
            Secret::Stream(granted, _) => granted == stream_id,
        };
        if !for_it {
            return None;
        }
        let release = match (self.erasable, &self.release) {
            (true, None) => return Some(Err(OpenError::NeedsRelease)),
            (true, release) => release.as_ref(),
            (false, _) => None,
        };
        Some(Ok(match (&self.secret, release) {
            (Secret::Customer(secret), None) => StreamKeys::derive(segment_id, secret, stream_id),
            (Secret::Customer(secret), Some(erase)) => {
                StreamKeys::derive_erasable(segment_id, secret, erase, stream_id)
            }
            (Secret::Stream(_, secret), None) => StreamKeys::from_secret(secret.clone()),
            (Secret::Stream(_, secret), Some(erase)) => {
                StreamKeys::from_secret(secret.clone().masked(erase, stream_id))
            }
        }))
    }
}

impl Keyring {
    /// A keyring that has not seen any segment.
    pub fn new(identity: impl Into<Arc<Opener>>) -> Self {
        Keyring {
            opener: Some(identity.into()),
            granted: HashMap::new(),
            chains: HashMap::new(),
            releases: HashMap::new(),
        }
    }

    /// A keyring of these streams' keys alone.
    pub fn of_granted(keys: Vec<Granted>) -> Self {
        let mut granted: HashMap<SegmentId, Vec<Granted>> = HashMap::new();
        for key in keys {
            granted.entry(key.segment_id).or_default().push(key);
        }
        Keyring {
            opener: None,
            granted,
            chains: HashMap::new(),
            releases: HashMap::new(),
        }
    }

    /// Takes E of an erasable slot, which is in no segment. Without it, what is in the slot is found and stays closed.
    pub fn add_release(&mut self, release: Release) {
        let Release {
            segment_id,
            slot,
            secret,
        } = release;
        self.releases.insert((segment_id, slot), secret);
    }

    /// Opens the entries that are for this identity. None at all is an ordinary answer.
    ///
    /// Where every known H of the chain finds its entry by hint, the other entries of customers are not tried: a second slot for the same
    /// identity that came up in the middle of a chain, beside the first, would be missed, and no writer makes one. Entries of standing grants
    /// are always tried.
    pub fn unlock(&mut self, origin: &Origin, entries: &[KeyEntry]) -> Vec<Unlocked> {
        self.unlock_telling(origin, entries, |_| {})
    }

    /// The same, and tells which entries are for this identity and do not hold what the format says: those open nothing.
    pub(crate) fn unlock_telling(
        &mut self,
        origin: &Origin,
        entries: &[KeyEntry],
        mut malformed: impl FnMut(usize),
    ) -> Vec<Unlocked> {
        let Some(opener) = &self.opener else {
            let granted = self.granted.get(&origin.segment_id);
            return granted.into_iter().flatten().map(Unlocked::from).collect();
        };
        let known = self.chains.entry((origin.run_id, origin.shard)).or_default();
        let mut hints = HashSet::new();
        // What was learned twice, from segments out of order, comes to the same hint here.
        known.retain_mut(|known| match known.turn_to(origin) {
            Turned::Here(hint) => hints.insert(hint),
            Turned::Past => true,
            Turned::TooFar => false,
        });
        let mut missing = known.is_empty() || hints.len() < known.len();
        let mut unlocked = Vec::new();
        let mut tried = vec![false; entries.len()];
        for hint in &hints {
            let shown = (0..entries.len()).filter(|at| entries[*at].hint == *hint);
            let mut found = false;
            for at in shown {
                // All recipients of a slot show one hint, and one of them is meant. All streams of a standing grant show one, and all are.
                if found && entries[at].scope == SCOPE_CUSTOMER {
                    continue;
                }
                tried[at] = true;
                match open_entry(opener, &self.releases, origin, &entries[at]) {
                    Err(Malformed) => malformed(at),
                    Ok(None) => {}
                    Ok(Some((_, opened))) => {
                        found = true;
                        unlocked.push(opened);
                    }
                }
            }
            missing |= !found;
        }
        // Standing grants come up in the middle of a chain, beside what is known of it.
        let untried = |at: &usize| !tried[*at] && (missing || entries[*at].scope != SCOPE_CUSTOMER);
        for at in (0..entries.len()).filter(untried) {
            let opened = match open_entry(opener, &self.releases, origin, &entries[at]) {
                Ok(opened) => opened,
                Err(Malformed) => {
                    malformed(at);
                    continue;
                }
            };
            let Some((hint, opened)) = opened else { continue };
            let chain_seq = origin.chain_seq;
            known.push(KnownHint { chain_seq, hint });
            unlocked.push(opened);
        }
        unlocked
    }
}

/// An entry that opens to nonsense. Whoever made it had the public key and broke the format.
struct Malformed;

/// Opens one entry. Most are for others, and one of an unknown suite is for somebody with a newer reader.
fn open_entry(
    opener: &Opener,
    releases: &HashMap<(SegmentId, u32), EraseSecret>,
    origin: &Origin,
    entry: &KeyEntry,
) -> Result<Option<(Hint, Unlocked)>, Malformed> {
    let opened = match unwrap(&opener, entry, &origin.node_id, &origin.segment_id) {
        Ok(opened) => opened,
        Err(UnwrapError::Malformed) => return Err(Malformed),
        Err(UnwrapError::NotForThisIdentity | UnwrapError::Unsupported { .. }) => return Ok(None),
    };
    let release = releases.get(&(origin.segment_id, entry.slot)).cloned();
    let unlocked = Unlocked {
        slot: entry.slot,
        secret: opened.secret,
        erasable: opened.erasable,
        release,
    };
    Ok(Some((opened.hint, unlocked)))
}

/// What comes of turning an H to a segment.
enum Turned {
    /// The hint to look for there.
    Here([u8; 16]),
    /// H is past it, and there is no way back.
    Past,
    /// The segment is so far on that trying all entries costs less.
    TooFar,
}

impl KnownHint {
    /// Steps of about a microsecond each that still cost less than trying a few dozen entries. Without a bound, a forged
    /// chain_seq would turn it for years.
    const FAR: u64 = 4096;

    fn turn_to(&mut self, origin: &Origin) -> Turned {
        match origin.chain_seq.checked_sub(self.chain_seq) {
            None => Turned::Past,
            Some(steps) if steps > Self::FAR => Turned::TooFar,
            Some(steps) => {
                (0..steps).for_each(|_| self.hint.ratchet());
                self.chain_seq = origin.chain_seq;
                Turned::Here(self.hint.for_segment(&origin.segment_id))
            }
        }
    }
}

/// Why something of this identity's own does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The slot is erasable, and its E was not given. Nothing is wrong with the segment.
    #[error("the slot is erasable: a release from its node is needed to open it")]
    NeedsRelease,
    /// The STREAM block commits to another key than the KEY entry gives.
    #[error("the stream's key is not the one its STREAM block commits to")]
    Commitment,
    /// A KEY entry opened, but not to what the format says.
    #[error("a KEY entry for this identity does not hold what the format says")]
    Entry,
    /// The hash in a hashed CHUNK's extension is not that of its body.
    #[error("the CHUNK's body is not the one whose hash it carries")]
    BodyHash,
    /// The CHUNK's body was erased: only its header is left.
    #[error("the CHUNK was erased")]
    Erased,
    /// The ciphertext, or a header field that it authenticates, was changed.
    #[error("the {0} does not authenticate under its stream's key")]
    NotAuthentic(&'static str),
    /// It opened, but not to what the format says.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It opened, but its records do not.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// It opened, but not to as many packets as it says.
    #[error("the CHUNK says {stated} packets and holds {found}")]
    PacketCount {
        /// By its head.
        stated: u32,
        /// By its records.
        found: usize,
    },
}

/// A stream of this identity in one segment of origin, with its key.
pub struct OpenStream {
    /// The segment its chunks were first written to. A copy of them elsewhere is the same stream.
    pub origin: SegmentId,
    /// Its random name there.
    pub stream_id: StreamId,
    /// Its customer's slot there.
    pub slot: u32,
    /// Which camera and media it is.
    pub info: StreamInfo,
    /// What a grant for it hands over, and what the chunks' key comes from.
    pub keys: StreamKeys,
    key: OpenKey,
}

impl OpenStream {
    /// Opens a STREAM block with the secrets of its origin; `None` if none of them is for it.
    pub fn open(block: &Block<'_>, secrets: &[Unlocked]) -> Option<Result<Self, OpenError>> {
        let header = &block.header;
        let (segment_id, slot, stream_id) = (&header.segment_id, header.key_slot, &header.stream_id);
        let mut keys = secrets
            .iter()
            .filter_map(|unlocked| unlocked.keys(segment_id, slot, stream_id));
        match keys.next()? {
            Ok(keys) => Some(Self::open_with(block, keys)),
            Err(why) => Some(Err(why)),
        }
    }

    /// Opens a STREAM block with its keys.
    pub fn open_with(block: &Block<'_>, keys: StreamKeys) -> Result<Self, OpenError> {
        let header = &block.header;
        if !keys.matches(header.extension(block.bytes)) && !planted(Planted::CommitmentUnchecked) {
            return Err(OpenError::Commitment);
        }
        let key = keys.open_key();
        let mut bytes = Zeroizing::new(block.bytes.to_vec());
        let text = key
            .open_block(header, &mut bytes)
            .map_err(|_| OpenError::NotAuthentic("STREAM"))?;
        let info = StreamInfo::parse(text)?;
        Ok(OpenStream {
            origin: header.segment_id,
            stream_id: header.stream_id,
            slot: header.key_slot,
            info,
            keys,
            key,
        })
    }

    /// Whether a CHUNK with this header is one of this stream.
    pub fn owns(&self, header: &Header) -> bool {
        header.block_type == BlockType::Chunk
            && header.segment_id == self.origin
            && header.stream_id == self.stream_id
    }

    /// Opens one of its CHUNKs: `bytes` is the whole block, whose header and CRCs were checked. The hash of a hashed one is checked
    /// here.
    pub fn open_chunk(&self, header: &Header, mut bytes: Zeroizing<Vec<u8>>) -> Result<OpenChunk, OpenError> {
        if !header.hash_fits(&bytes) {
            return Err(OpenError::BodyHash);
        }
        let head = self.check_chunk(header, &mut bytes)?;
        Ok(OpenChunk {
            head,
            block_no: header.block_no,
            stream_seq: header.stream_seq,
            body: usize::from(header.header_len)..header.body_end(),
            bytes,
        })
    }

    /// Opens a CHUNK in place and parses it to its end, without a look at the hash of a hashed one. On failure not a byte of `block` was decrypted, or what was does not
    /// follow the format.
    pub fn check_chunk(&self, header: &Header, block: &mut [u8]) -> Result<ChunkHead, OpenError> {
        let opened = self.key.open_block(header, block);
        let text = opened.map_err(|_| OpenError::NotAuthentic("CHUNK"))?;
        let head = ChunkHead::parse(text)?;
        let mut found = 0;
        for record in Records::new(text) {
            record?;
            found += 1;
        }
        if found != head.packet_count as usize {
            let stated = head.packet_count;
            return Err(OpenError::PacketCount { stated, found });
        }
        Ok(head)
    }
}

/// An opened chunk: authentic, and parsed to its end.
pub struct OpenChunk {
    /// Its first 32 bytes: arrival of the first packet, counts, losses.
    pub head: ChunkHead,
    /// Its number in its segment of origin.
    pub block_no: u64,
    /// Its number in its stream and segment of origin.
    pub stream_seq: u64,
    bytes: Zeroizing<Vec<u8>>,
    body: std::ops::Range<usize>,
}

impl OpenChunk {
    /// Its packets, in the order of arrival.
    pub fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        let base_ns = self.head.base_ns;
        let records = Records::new(&self.bytes[self.body.clone()]);
        records.map(move |record| {
            let record = record.expect("the records were parsed to their end when the chunk was opened");
            Packet {
                // A forged base near the end of time is the writer's lie, and no reason to stop.
                arrival_ns: base_ns.saturating_add(1000 * u64::from(record.arrival_delta_us)),
                rtcp: record.rtcp,
                bytes: record.packet,
            }
        })
    }
}

/// One RTP or RTCP packet as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When the recording machine's kernel received it: nanoseconds since 1970, to the microsecond.
    pub arrival_ns: u64,
    /// RTCP; else RTP.
    pub rtcp: bool,
    /// The packet.
    pub bytes: &'a [u8],
}
