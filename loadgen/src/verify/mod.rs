//! The verdict: intended, sent, received, stored. Every stored packet of every stream is held against the sent log, which says
//! what left and what was done to it on purpose; what then differs has a name and somebody to blame.
//!
//! The segments are walked once by their indices ([`archive`]); then cameras are taken one after the other by a few threads, and
//! for each its entries are read, its chunks opened and its packets matched ([`check`]). Bounded by that: the memory is one
//! camera's per thread. Who lost what is decided in [`blame`], what differs from what was to be expected in [`judge`].

pub mod archive;
pub mod blame;
pub mod camera;
pub mod check;
pub mod gaps;
pub mod heat;
pub mod judge;
pub mod table;

pub use archive::ArchiveError;
pub use check::{Pair, StreamVerdict};

use crate::nearest::nearest;
use crate::result::{EngineFigures, Impaired, Percentiles, StoredFigures};
use crate::sentlog::{Lane, SentLog, SentLogError};
use archive::Archive;
use camera::{Camera, CameraCheck, Finding};
use harborseal_segment::identity::Identity;
use hdrhistogram::Histogram;
use heat::Heat;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More threads than this wait for the disk or the memory.
const THREADS_MAX: usize = 8;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{0}")]
    Log(#[from] SentLogError),
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    #[error("cannot read identity {path}: {source}")]
    Identity { path: PathBuf, source: std::io::Error },
    #[error("identity {path}: {why}")]
    NoIdentity { path: PathBuf, why: String },
    #[error("{name:?} is no customer of this run{}", .nearest.as_ref().map_or(String::new(), |n| format!("; did you mean {n:?}?")))]
    Customer { name: String, nearest: Option<String> },
}

impl VerifyError {
    /// Whether the command was wrong, and not a file.
    pub fn is_usage(&self) -> bool {
        matches!(self, VerifyError::Customer { .. })
    }
}

/// An identity and whose it is.
pub struct NamedIdentity {
    pub identity: Identity,
    /// The file's name without its extension, or what stood before the `=`.
    pub name: String,
    /// Said by hand: it must be a customer's.
    pub said: bool,
}

impl NamedIdentity {
    /// From `FILE`, whose name says whose it is, or `CUSTOMER=FILE`.
    pub fn read(argument: &str) -> Result<NamedIdentity, VerifyError> {
        let whole = Path::new(argument);
        let (name, path, said) = match argument.split_once('=') {
            Some((name, path)) if !whole.exists() => (name.to_owned(), Path::new(path), true),
            _ => {
                let stem = whole.file_stem().unwrap_or_default();
                (stem.to_string_lossy().into_owned(), whole, false)
            }
        };
        let text = std::fs::read_to_string(path).map_err(|source| VerifyError::Identity {
            path: path.to_owned(),
            source,
        })?;
        let identity = Identity::from_file_text(&text).map_err(|why| VerifyError::NoIdentity {
            path: path.to_owned(),
            why: why.to_string(),
        })?;
        Ok(NamedIdentity { identity, name, said })
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Segments opened, of so many.
    Segments(usize, usize),
    /// Cameras compared, of so many.
    Cameras(usize, usize),
}

/// What else is known of the run.
#[derive(Default, Clone, Copy)]
pub struct Known<'a> {
    /// From `run.json`: what the sender counted. Of it, noise is needed to blame rightly, and jumps to expect them.
    pub impaired: Option<&'a Impaired>,
    pub engine: Option<&'a EngineFigures>,
    /// Dropped packets by SSRC, as the engine's last line has them.
    pub dropped_of: Option<&'a HashMap<u32, u64>>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Verdict {
    pub figures: StoredFigures,
    /// By the number their marks carry.
    pub streams: Vec<StreamVerdict>,
    pub impairments: Vec<judge::Impairment>,
    pub segments: usize,
    /// What to know besides: whose identities are missing, that the log was cut, and the like.
    pub notes: Vec<String>,
}

/// Compares everything stored with everything sent.
pub fn verify(
    log: &SentLog,
    segments: &[PathBuf],
    identities: Vec<NamedIdentity>,
    known: Known<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Verdict, VerifyError> {
    let customers: BTreeSet<&str> = log.streams().iter().map(|s| s.customer.as_str()).collect();
    let mut names = Vec::new();
    for NamedIdentity { name, said, .. } in &identities {
        if *said && !customers.contains(name.as_str()) {
            return Err(VerifyError::Customer {
                name: name.clone(),
                nearest: nearest(name, customers.iter().copied()).map(str::to_owned),
            });
        }
        names.push(name.clone());
    }
    let identities = identities.into_iter().map(|named| named.identity).collect();
    let archive = Archive::open(segments, identities, |done, all| {
        progress(Progress::Segments(done, all))
    })?;
    let mut notes = Vec::new();
    let owners = owners(&names, &customers, log, &archive, &mut notes);
    for (identity, name) in names.iter().enumerate() {
        if !archive.streams.iter().any(|stream| stream.identity == identity) {
            notes.push(format!(
                "identity {name:?} opens nothing in these segments: is it the one that the engine was told of?"
            ));
        }
    }
    let cameras = Camera::all(log, &archive, &owners);
    let found = compare(log, &archive, &cameras, progress)?;
    if !log.complete() {
        notes.push("the sent log was cut: what was sent behind its end is not judged".to_owned());
    }
    Ok(sum_up(log, &archive, found, known, notes))
}

/// Which customer each identity is: the one of its name, the only one, or else the one whose cameras it opens.
fn owners(
    names: &[String],
    customers: &BTreeSet<&str>,
    log: &SentLog,
    archive: &Archive,
    notes: &mut Vec<String>,
) -> Vec<Option<String>> {
    let mut of_camera: HashMap<&str, Vec<&str>> = HashMap::new();
    for stream in log.streams() {
        let owners = of_camera.entry(&stream.camera).or_default();
        if !owners.contains(&stream.customer.as_str()) {
            owners.push(&stream.customer);
        }
    }
    let by_what_it_opens = |identity: usize| {
        let mut votes: HashMap<&str, usize> = HashMap::new();
        for stream in archive
            .streams
            .iter()
            .filter(|stream| stream.identity == identity)
        {
            for owner in of_camera.get(stream.camera()).into_iter().flatten() {
                *votes.entry(owner).or_default() += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(_, votes)| *votes)
            .map(|(owner, _)| owner.to_owned())
    };
    let mut owner = |(identity, name): (usize, &String)| {
        if customers.contains(name.as_str()) {
            return Some(name.clone());
        }
        if let (Some(only), 1, 1) = (customers.first(), customers.len(), names.len()) {
            return Some((*only).to_owned());
        }
        let owner = by_what_it_opens(identity);
        notes.push(match &owner {
            Some(owner) => format!(
                "identity {name:?} has the name of no customer; by the cameras it opens it is {owner:?} (--identity CUSTOMER=FILE says it)"
            ),
            None => format!("identity {name:?} has the name of no customer of this run, and opens none of its cameras"),
        });
        owner
    };
    names.iter().enumerate().map(&mut owner).collect()
}

/// All that the threads found together.
struct Found {
    streams: Vec<StreamVerdict>,
    heat: Heat,
    arrival_us: Histogram<u64>,
    finding: Finding,
    /// Packets of streams that were found in a place not theirs.
    misplaced: HashMap<u32, u64>,
    damage: Vec<String>,
}

/// Takes one camera after the other, with a few threads.
fn compare(
    log: &SentLog,
    archive: &Archive,
    cameras: &[Camera],
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Found, VerifyError> {
    let length_ns = length_ns(log)?;
    let fresh = || Found {
        streams: Vec::new(),
        heat: Heat::new(log.streams().len(), length_ns),
        arrival_us: Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds the histogram allows"),
        finding: Finding::default(),
        misplaced: HashMap::new(),
        damage: Vec::new(),
    };
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let all = Mutex::new(fresh());
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS_MAX);
    std::thread::scope(|scope| {
        let work = || -> Result<(), VerifyError> {
            let mut mine = fresh();
            while let Some(camera) = cameras.get(next.fetch_add(1, Ordering::Relaxed)) {
                let check = CameraCheck::new(log, camera)?;
                check.run(archive, &mut mine);
                progress(Progress::Cameras(
                    done.fetch_add(1, Ordering::Relaxed) + 1,
                    cameras.len(),
                ));
            }
            all.lock().expect("no thread panics").merge(mine);
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("no thread panics"))
    })?;
    let mut all = all.into_inner().expect("no thread panics");
    all.streams.sort_by_key(|stream| stream.stream);
    for stream in &mut all.streams {
        stream.wrong = all.misplaced.get(&stream.stream).copied().unwrap_or(0);
    }
    Ok(all)
}

impl Found {
    fn merge(&mut self, other: Found) {
        self.streams.extend(other.streams);
        self.heat.merge(&other.heat);
        self.arrival_us
            .add(&other.arrival_us)
            .expect("of the same bounds");
        self.finding.merge(&other.finding);
        for (stream, packets) in other.misplaced {
            *self.misplaced.entry(stream).or_default() += packets;
        }
        self.damage.extend(other.damage);
    }
}

/// Until when packets were due: the latest of the streams' last entries. A stream's last block is nearly its last in time.
fn length_ns(log: &SentLog) -> Result<u64, SentLogError> {
    let mut latest = 0;
    for stream in 0..log.streams().len() as u32 {
        let last = log.last_block(stream, Lane::Rtp)?;
        latest = last.iter().map(|entry| entry.intended_ns).fold(latest, u64::max);
    }
    Ok(latest)
}

fn sum_up(
    log: &SentLog,
    archive: &Archive,
    found: Found,
    known: Known<'_>,
    mut notes: Vec<String>,
) -> Verdict {
    let mut streams = found.streams;
    if let Some(dropped_of) = known.dropped_of {
        for stream in &mut streams {
            stream.engine_dropped = dropped_of.get(&stream.ssrc).copied().unwrap_or(0);
        }
    }
    let closed: BTreeSet<&str> = log
        .streams()
        .iter()
        .zip(&streams)
        .filter(|(logged, stream)| logged.known && !stream.looked_at)
        .map(|(logged, _)| logged.customer.as_str())
        .collect();
    if !closed.is_empty() {
        let names: Vec<&str> = closed.into_iter().collect();
        notes.push(format!(
            "without the identities of {}, their streams were not looked at",
            names.join(", ")
        ));
    }
    let mut figures = judge::figures(&streams, &found.finding);
    figures.lost_by = blame::lost_by(
        &streams,
        known.impaired.map_or(0, |impaired| impaired.junk),
        known.engine,
    );
    figures.heat = Some(found.heat.map());
    figures.arrival_ms = (!found.arrival_us.is_empty()).then(|| percentiles_ms(&found.arrival_us));
    let impairments = judge::impairments(&streams, known.impaired);
    let damage = archive.damage.iter().chain(&found.damage).cloned();
    figures.differences = judge::differences(&figures, &impairments, damage.collect());
    figures.as_expected = figures.differences.is_empty();
    Verdict {
        figures,
        streams,
        impairments,
        segments: archive.segments(),
        notes,
    }
}

fn percentiles_ms(histogram: &Histogram<u64>) -> Percentiles {
    let at = |percentile| histogram.value_at_percentile(percentile) as f64 / 1000.0;
    Percentiles {
        p50: at(50.0),
        p90: at(90.0),
        p99: at(99.0),
        p999: at(99.9),
        max: histogram.max() as f64 / 1000.0,
    }
}

#[cfg(test)]
mod tests;
