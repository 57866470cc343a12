//! What really is in the segments: each identity opens what it can, and every packet is held against the sender's log.
//!
//! This is a reader of its own kind: it walks every block of every segment in file order, trusts no index, and tries each
//! identity's secrets on the other customer's streams as well.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use harborseal_loadgen::compare::{StreamCheck, Verdict};
use harborseal_loadgen::{FleetSpec, SentLog};
use harborseal_segment::block::BlockType;
use harborseal_segment::body::KeyBody;
use harborseal_segment::identity::Identity;
use harborseal_segment::keys::{Secret, StreamKeys};
use harborseal_segment::open::{Keyring, OpenStream, Unlocked};
use harborseal_segment::reader::{Segment, StreamError};
use harborseal_segment::scan::{Block, Item, Scanner};
use harborseal_segment::{SegmentId, StreamId};

use super::super::error::CliError;
use super::Stop;
use super::lab::{NAMES, camera_id, owner};
use crate::archive::FileSource;

/// What one identity opened.
#[derive(Default)]
pub struct Audited {
    pub customer: usize,
    pub verdict: Verdict,
    /// RTP and RTCP bytes of the packets found, without any overhead.
    pub packet_bytes: u64,
    pub trespass: Trespass,
    /// Packets found, by SSRC.
    pub found: HashMap<u32, u64>,
    /// The camera with the fewest packets missing, best none.
    pub best_camera: u32,
}

/// Each identity's attempts on the other customer's streams.
#[derive(Default, Clone, Copy)]
pub struct Trespass {
    /// KEY entries that did not open, and STREAM and CHUNK blocks tried with every secret the identity holds.
    pub tried: u64,
    /// Those that opened. One is too many.
    pub opened: u64,
}

/// One identity's way through all segments.
pub struct Audit {
    customer: usize,
    keyring: Keyring,
    checks: HashMap<u32, StreamCheck>,
    camera_of: HashMap<u32, u32>,
    streams: HashMap<(SegmentId, StreamId), (OpenStream, u32)>,
    /// The other customer's streams, with what this identity's secrets make of their keys.
    others: HashMap<(SegmentId, StreamId), Vec<StreamKeys>>,
    /// Chunks taken: a copy made after a failed write counts once (docs/FORMAT.md, ORIGIN).
    taken: HashSet<(SegmentId, u64)>,
    audited: Audited,
}

impl Audit {
    /// For the customer of this index, whose cameras must be found complete.
    pub fn new(
        sent: &SentLog,
        spec: &FleetSpec,
        customer: usize,
        identity: Identity,
    ) -> Result<Audit, CliError> {
        let own: Vec<u32> = (0..spec.cameras)
            .filter(|&camera| owner(camera) == customer)
            .collect();
        let mut checks = HashMap::with_capacity(own.len());
        for &camera in &own {
            checks.insert(camera, StreamCheck::new(sent, camera).map_err(CliError::io)?);
        }
        Ok(Audit {
            customer,
            keyring: Keyring::new(identity),
            checks,
            camera_of: (0..spec.cameras)
                .map(|camera| (spec.ssrc(camera), camera))
                .collect(),
            streams: HashMap::new(),
            others: HashMap::new(),
            taken: HashSet::new(),
            audited: Audited {
                customer,
                ..Audited::default()
            },
        })
    }

    /// Goes through the segments, in their order; `read` counts bytes.
    pub fn run(mut self, segments: &[PathBuf], read: &AtomicU64, stop: &Stop) -> Result<Audited, CliError> {
        for path in segments {
            let source = FileSource::open(path).map_err(|why| CliError::file("read", path, &why))?;
            self.segment(source, read, stop)
                .map_err(|why| match stop.asked() {
                    true => CliError::damage("stopped"),
                    false => CliError::damage(format_args!("{}: {why}", path.display())),
                })?;
        }
        Ok(self.finish())
    }

    /// Opens the streams of one segment, then walks its blocks.
    fn segment(&mut self, source: FileSource, read: &AtomicU64, stop: &Stop) -> Result<(), Fault> {
        let mut segment = Segment::open(source)?;
        let streams = match segment.open_streams(&mut self.keyring) {
            Err(StreamError::NothingForIdentity) => Vec::new(), // a customer without cameras, or none yet
            streams => streams?,
        };
        for stream in streams {
            let stream = stream?;
            let camera = self.camera_of(&stream)?;
            self.streams
                .insert((stream.origin, stream.stream_id), (stream, camera));
        }
        let origin = segment.head().origin();
        let mut scanner = Scanner::new(segment.source(), origin.segment_id);
        let mut secrets: Vec<Unlocked> = Vec::new();
        let mut at = 0;
        while let Some(item) = scanner.next_item()? {
            let Item::Block(block) = item else { continue };
            match block.header.block_type {
                BlockType::Key => {
                    let body = KeyBody::parse(block.body()).map_err(|why| Fault(why.to_string()))?;
                    let own = self.keyring.unlock(&origin, &body.entries);
                    self.audited.trespass.tried += (body.entries.len() - own.len()) as u64;
                    secrets.extend(own);
                }
                BlockType::Stream => self.try_stream(&block, &secrets),
                BlockType::Chunk => self.chunk(&block)?,
                _ => {}
            }
            read.fetch_add(block.end() - at, Ordering::Relaxed);
            at = block.end();
            if stop.asked() {
                return Err(Fault("stopped".into()));
            }
        }
        Ok(())
    }

    /// The camera that a stream claims to be: it must be one of this customer's, under its own name.
    fn camera_of(&self, stream: &OpenStream) -> Result<u32, Fault> {
        let camera = self.camera_of.get(&stream.info.ssrc).copied();
        let camera = camera.filter(|&camera| camera_id(camera) == stream.info.camera_id);
        let own = camera.filter(|&camera| owner(camera) == self.customer);
        own.ok_or_else(|| {
            let (name, id) = (NAMES[self.customer], &stream.info.camera_id);
            Fault(format!(
                "{name}'s identity opens a stream of {id:?}, SSRC {}",
                stream.info.ssrc
            ))
        })
    }

    fn chunk(&mut self, block: &Block<'_>) -> Result<(), Fault> {
        let header = &block.header;
        let Some((stream, camera)) = self.streams.get(&(header.segment_id, header.stream_id)) else {
            self.try_chunk(block);
            return Ok(());
        };
        if !self.taken.insert((header.segment_id, header.block_no)) {
            return Ok(());
        }
        let opened = stream.open_chunk(header, block.bytes.to_vec().into());
        let opened = opened.map_err(|why| Fault(format!("at offset {}: {why}", block.offset)))?;
        let check = self
            .checks
            .get_mut(camera)
            .expect("every own camera has its check");
        for packet in opened.packets() {
            self.audited.packet_bytes += packet.bytes.len() as u64;
            check.packet(packet.rtcp, packet.bytes);
        }
        Ok(())
    }

    /// Tries every secret of this identity on a stream of the other customer's: derives the key that it would have, and opens.
    fn try_stream(&mut self, block: &Block<'_>, secrets: &[Unlocked]) {
        let header = &block.header;
        let name = (header.segment_id, header.stream_id);
        if self.streams.contains_key(&name) {
            return;
        }
        let customer_secrets = secrets.iter().filter_map(|unlocked| match &unlocked.secret {
            Secret::Customer(secret) => Some(secret),
            Secret::Stream(..) => None,
        });
        let derive = |secret| StreamKeys::derive(&header.segment_id, secret, &header.stream_id);
        let keys: Vec<StreamKeys> = customer_secrets.map(derive).collect();
        for keys in &keys {
            self.audited.trespass.tried += 1;
            let mut bytes = block.bytes.to_vec();
            let opens = keys.open_key().open_block(header, &mut bytes).is_ok();
            self.audited.trespass.opened += u64::from(opens || keys.matches(header.extension(block.bytes)));
        }
        self.others.insert(name, keys);
    }

    /// Tries what [`Audit::try_stream`] derived on the stream's first chunk; the others have the same key.
    fn try_chunk(&mut self, block: &Block<'_>) {
        let header = &block.header;
        for keys in self
            .others
            .remove(&(header.segment_id, header.stream_id))
            .unwrap_or_default()
        {
            self.audited.trespass.tried += 1;
            let mut bytes = block.bytes.to_vec();
            let opens = keys.open_key().open_block(header, &mut bytes).is_ok();
            self.audited.trespass.opened += u64::from(opens);
        }
    }

    fn finish(mut self) -> Audited {
        let mut best = None;
        let mut checks: Vec<_> = self.checks.into_iter().collect();
        checks.sort_by_key(|(camera, _)| *camera);
        let ssrc_of: HashMap<u32, u32> = self
            .camera_of
            .iter()
            .map(|(ssrc, camera)| (*camera, *ssrc))
            .collect();
        for (camera, check) in checks {
            let verdict = check.finish();
            self.audited
                .found
                .insert(ssrc_of[&camera], verdict.stored + verdict.rtcp_stored);
            if best.is_none_or(|(_, missing)| verdict.missing < missing) {
                best = Some((camera, verdict.missing));
            }
            self.audited.verdict += verdict;
        }
        self.audited.best_camera = best.map_or(0, |(camera, _)| camera);
        self.audited
    }
}

/// Why a segment cannot be audited to its end.
struct Fault(String);

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault(error.to_string())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
