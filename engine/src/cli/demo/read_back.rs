//! Reading back what was recorded: verified without a key and opened with both identities, all at once.
//!
//! Three threads walk the same segments in the same order, so that what one has read from the disk the others find in
//! memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use harborseal_loadgen::compare::Verdict;
use harborseal_loadgen::{FleetSpec, SentLog};
use harborseal_segment::head::Head;

use super::super::error::CliError;
use super::super::output::people;
use super::super::paths;
use super::Stop;
use super::audit::{Audit, Trespass};
use super::health;
use super::lab::{Customer, Lab};
use crate::archive::FileSource;
use crate::text::{Grouped, counted};

/// What verification and both identities found, all together.
#[derive(Default)]
pub struct ReadBack {
    /// What is damaged or missing, one line each.
    pub damage: Vec<String>,
    pub verdict: Verdict,
    /// RTP and RTCP bytes of the packets found, without any overhead.
    pub packet_bytes: u64,
    /// Bytes of all segment files.
    pub segment_bytes: u64,
    pub segments: usize,
    pub trespass: Trespass,
    /// Packets found, by SSRC.
    pub found: HashMap<u32, u64>,
    /// A camera of alice's that has all its packets, or the most complete one.
    pub best_camera: u32,
}

/// Verifies every segment, opens it with both identities, and compares with the sender's log.
pub fn read_back(
    lab: &Lab,
    spec: &FleetSpec,
    customers: [Customer; 2],
    stop: &Stop,
) -> Result<ReadBack, CliError> {
    let sent = SentLog::open(&lab.sent_log()).map_err(CliError::io)?;
    if !sent.complete() {
        return Err(CliError::damage(
            "the sender did not close its log: nothing can be compared",
        ));
    }
    let segments = in_order(paths::find_segments(&[lab.data()])?.segments)?;
    let sizes = segments.iter().map(|path| path.metadata().map(|meta| meta.len()));
    let segment_bytes: u64 = sizes
        .sum::<Result<_, _>>()
        .map_err(|why| CliError::file("read", &lab.data(), &why))?;

    let bar = paths::progress("reading back", 3 * segment_bytes);
    let read = &AtomicU64::new(0);
    let (damage, audits) = std::thread::scope(|scope| {
        let (sent, segments) = (&sent, &segments);
        let verifying = scope.spawn(|| health::verify(segments, read, stop));
        let audit = |(index, customer): (usize, Customer)| {
            scope.spawn(move || Audit::new(sent, spec, index, customer.identity)?.run(segments, read, stop))
        };
        let audits: Vec<_> = customers.into_iter().enumerate().map(audit).collect();
        while !(verifying.is_finished() && audits.iter().all(ScopedJoinHandle::is_finished)) {
            bar.set_position(read.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(20));
        }
        let audits: Vec<_> = audits.into_iter().map(join).collect();
        (join(verifying), audits)
    });
    bar.finish_and_clear();

    let mut back = ReadBack {
        damage: damage?,
        segment_bytes,
        segments: segments.len(),
        ..ReadBack::default()
    };
    people(format_args!(
        "verified {}: {}",
        counted(back.segments, "segment"),
        match back.damage.len() {
            0 => "nothing is damaged or missing".to_owned(),
            found => counted(found, "finding"),
        }
    ));
    for audited in audits {
        let audited = audited?;
        back.verdict += audited.verdict;
        back.packet_bytes += audited.packet_bytes;
        back.trespass.tried += audited.trespass.tried;
        back.trespass.opened += audited.trespass.opened;
        back.found.extend(audited.found);
        if audited.customer == 0 {
            back.best_camera = audited.best_camera;
        }
    }
    let stored = back.verdict.stored + back.verdict.rtcp_stored;
    people(format_args!(
        "opened with both identities and compared: {} packets",
        Grouped(stored)
    ));
    Ok(back)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Segments of a shard in the order of their chain: then a stream's chunks come in their order.
fn in_order(paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, CliError> {
    let mut heads = Vec::with_capacity(paths.len());
    for path in paths {
        let head = FileSource::open(&path)
            .map_err(|why| CliError::file("read", &path, &why))
            .and_then(|source| Head::read(&source).map_err(|why| damaged(&path, &why)))?;
        heads.push((head.body.shard, head.body.chain_seq, path));
    }
    heads.sort();
    Ok(heads.into_iter().map(|(_, _, path)| path).collect())
}

fn damaged(path: &Path, why: &dyn std::fmt::Display) -> CliError {
    CliError::damage(format_args!("{}: {why}", path.display()))
}
