//! Verifying what was recorded: every check that needs no key, over every segment, and the chain they form.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use harborseal_segment::verify::{Chains, Severity, verify as verify_segment};

use super::super::error::CliError;
use super::Stop;
use crate::archive::FileSource;

/// Findings told one by one; a disk full of garbage must not fill the table.
const TOLD: usize = 10;

/// Checks every segment; what is damaged or missing, one line each. Nothing is the good answer. `read` counts bytes.
pub fn verify(segments: &[PathBuf], read: &AtomicU64, stop: &Stop) -> Result<Vec<String>, CliError> {
    let (mut chains, mut damage) = (Chains::default(), Vec::new());
    for path in segments {
        stop.check()?;
        let source = FileSource::open(path).map_err(|why| CliError::file("read", path, &why))?;
        let mut before = 0;
        let progress = |reached: u64| {
            read.fetch_add(reached - before, Ordering::Relaxed);
            before = reached;
        };
        match verify_segment(&source, None, progress) {
            Ok(report) => {
                let findings = report.findings.iter();
                let findings = findings.filter(|finding| finding.severity() > Severity::Note);
                damage.extend(findings.map(|finding| format!("{}: {finding}", path.display())));
                chains.add(report.member);
            }
            Err(why) => damage.push(format!("{}: {why}", path.display())),
        }
    }
    let in_chain = chains.check(true, &|_| false).into_iter();
    let in_chain = in_chain.filter(|found| found.finding.severity() > Severity::Note);
    damage.extend(in_chain.map(|found| format!("segment {}: {}", found.segment_id, found.finding)));
    damage.truncate(TOLD);
    Ok(damage)
}
