//! One camera: its streams' entries, the streams of the archive that claim to be it, and which packet belongs where.

use super::Found;
use super::archive::{Archive, StoredStream};
use super::check::{Match, StreamCheck, StreamVerdict, Truth};
use crate::mark::Mark;
use crate::sentlog::{Entry, Lane, SentLog, SentLogError, packet_hash};
use harborseal_segment::open::Packet;
use std::collections::HashMap;

/// The engine's arrival stamps and the marks are of one clock, but for its slewing.
const CLOCK_SLACK_NS: u64 = 10_000_000;
/// What comes so long after the last packet was due, and is not known, is another run's.
const AFTER_NS: u64 = 10_000_000_000;
/// What comes so long after is not even looked at.
const LONG_AFTER_S: u64 = 120;

/// A camera of the log and what the archive has under its name; or only the latter, and no stream: a name that is not the plan's.
pub struct Camera {
    /// Their numbers.
    streams: Vec<u32>,
    /// Whether the identity of its customer was given.
    looked_at: bool,
    /// Indices into [`Archive::streams`], in their order.
    stored: Vec<usize>,
}

impl Camera {
    /// Every camera of the log, by customer and name, and one more for all that belongs to none of them.
    pub fn all(log: &SentLog, archive: &Archive, owners: &[Option<String>]) -> Vec<Camera> {
        let mut at: HashMap<(&str, &str), usize> = HashMap::new();
        let mut cameras: Vec<Camera> = Vec::new();
        for (number, stream) in (0u32..).zip(log.streams()) {
            let name = (stream.customer.as_str(), stream.camera.as_str());
            let camera = *at.entry(name).or_insert_with(|| {
                cameras.push(Camera {
                    streams: Vec::new(),
                    looked_at: owners.iter().flatten().any(|owner| *owner == stream.customer),
                    stored: Vec::new(),
                });
                cameras.len() - 1
            });
            cameras[camera].streams.push(number);
        }
        let nobody = cameras.len();
        cameras.push(Camera {
            streams: Vec::new(),
            looked_at: true,
            stored: Vec::new(),
        });
        for (index, stored) in archive.streams.iter().enumerate() {
            let owner = owners[stored.identity].as_deref();
            let own = owner.and_then(|owner| at.get(&(owner, stored.camera())));
            cameras[own.copied().unwrap_or(nobody)].stored.push(index);
        }
        cameras
    }
}

/// What belongs to no stream.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// No packet of this run, under a camera of it and in its time.
    pub foreign: u64,
    pub rtcp_foreign: u64,
    pub beyond_log: u64,
    pub other_runs: u64,
}

impl Finding {
    pub fn merge(&mut self, other: &Finding) {
        self.foreign += other.foreign;
        self.rtcp_foreign += other.rtcp_foreign;
        self.beyond_log += other.beyond_log;
        self.other_runs += other.other_runs;
    }
}

/// One camera's comparison under way.
pub struct CameraCheck<'a> {
    log: &'a SentLog,
    camera: &'a Camera,
    checks: Vec<StreamCheck>,
    rtcp: Reports,
    /// When the run began, and when its last packet of this camera was due.
    from_ns: u64,
    last_ns: u64,
}

/// The reports of a camera: by hash, how often each was sent and not found yet, and whose it is.
#[derive(Default)]
struct Reports {
    left: HashMap<u64, (usize, u64)>,
    /// By stream of the camera: expected and found.
    counts: Vec<(u64, u64)>,
}

impl<'a> CameraCheck<'a> {
    /// Reads the camera's entries.
    pub fn new(log: &'a SentLog, camera: &'a Camera) -> Result<CameraCheck<'a>, SentLogError> {
        let (mut checks, mut rtcp, mut last_ns) = (Vec::new(), Reports::default(), 0);
        for (at, &stream) in camera.streams.iter().enumerate() {
            let logged = &log.streams()[stream as usize];
            let entries = log
                .packets(stream, Lane::Rtp)
                .collect::<Result<Vec<Entry>, _>>()?;
            last_ns = entries
                .iter()
                .map(|entry| entry.intended_ns)
                .fold(last_ns, u64::max);
            let restarts = log
                .ssrcs(stream)?
                .iter()
                .skip(1)
                .map(|ssrc| ssrc.sequence)
                .collect();
            checks.push(StreamCheck::new(Truth {
                entries,
                restarts,
                start_ns: log.start_ns(),
                complete: log.complete(),
                media: logged.media,
                known: logged.known,
            }));
            let mut expected = 0;
            for report in log.packets(stream, Lane::Rtcp) {
                let report = report?;
                if logged.known && report.flags.fit_to_store() {
                    expected += 1;
                    rtcp.left.entry(report.hash).or_insert((at, 0)).1 += 1;
                }
            }
            rtcp.counts.push((expected, 0));
        }
        Ok(CameraCheck {
            log,
            camera,
            checks,
            rtcp,
            from_ns: log.start_ns(),
            last_ns: log.start_ns() + last_ns,
        })
    }

    /// Goes through all that is stored of the camera, and adds what it found to `found`.
    pub(super) fn run(mut self, archive: &Archive, found: &mut Found) {
        let window = match self.camera.streams.is_empty() {
            // Under another name it may be anybody's, at any time.
            true => (self.from_ns / 1_000_000_000, u64::MAX),
            false => (
                self.from_ns / 1_000_000_000,
                self.last_ns / 1_000_000_000 + LONG_AFTER_S,
            ),
        };
        for &stored in &self.camera.stored {
            let stored = &archive.streams[stored];
            let problems = archive.read(stored, window, |packet| self.packet(stored, packet, found));
            found.damage.extend(problems);
        }
        self.finish(found);
    }

    fn packet(&mut self, stored: &StoredStream, packet: Packet<'_>, found: &mut Found) {
        if packet.rtcp {
            return self.report(packet, found);
        }
        let Some(mark) = Mark::read(packet.bytes, self.log.run()) else {
            return self.without_mark(packet, found);
        };
        // Another run of the same seed marks alike; its packets were due at another time.
        let after_ns = self.last_ns
            + if self.log.complete() {
                AFTER_NS
            } else {
                u64::MAX - self.last_ns
            };
        if !(self.from_ns..=after_ns).contains(&mark.intended_ns) && !self.camera.streams.is_empty() {
            found.finding.other_runs += 1;
            return;
        }
        let at = self
            .camera
            .streams
            .iter()
            .position(|stream| *stream == mark.stream);
        let ssrc = u32::from_be_bytes(
            *packet.bytes[8..]
                .first_chunk()
                .expect("a marked packet has its header"),
        );
        let Some(at) = at.filter(|_| ssrc == stored.ssrc()) else {
            if mark.intended_ns >= self.from_ns {
                *found.misplaced.entry(mark.stream).or_default() += 1;
            }
            return;
        };
        match self.checks[at].packet(&mark, packet.bytes) {
            Match::Stored(_) => {
                let late_us = packet.arrival_ns.saturating_sub(mark.intended_ns) / 1000;
                found.arrival_us.saturating_record(late_us);
            }
            Match::BeyondLog => found.finding.beyond_log += 1,
            Match::Again | Match::Corrupt | Match::Refusable(_) | Match::Foreign => {}
        }
    }

    /// A packet whose mark is gone, or which never had one.
    fn without_mark(&mut self, packet: Packet<'_>, found: &mut Found) {
        if self.camera.streams.is_empty() {
            return; // nothing of ours under a name that is not ours
        }
        let hash = packet_hash(packet.bytes);
        let matched = self
            .checks
            .iter_mut()
            .find_map(|check| check.packet_without_mark(hash, packet.bytes));
        if matched.is_none() {
            match self.is_in_time(packet.arrival_ns) {
                true => found.finding.foreign += 1,
                false => found.finding.other_runs += 1,
            }
        }
    }

    fn report(&mut self, packet: Packet<'_>, found: &mut Found) {
        if self.camera.streams.is_empty() {
            return; // a report has no mark: whose it is under another name, nobody can tell
        }
        let in_time = self.is_in_time(packet.arrival_ns);
        match self.rtcp.left.get_mut(&packet_hash(packet.bytes)) {
            Some((at, left)) if *left > 0 => {
                *left -= 1;
                self.rtcp.counts[*at].1 += 1;
            }
            _ if !self.log.complete() && packet.arrival_ns > self.from_ns => found.finding.beyond_log += 1,
            _ if in_time => found.finding.rtcp_foreign += 1,
            _ => found.finding.other_runs += 1,
        }
    }

    fn is_in_time(&self, arrival_ns: u64) -> bool {
        (self.from_ns.saturating_sub(CLOCK_SLACK_NS)..=self.last_ns + AFTER_NS).contains(&arrival_ns)
    }

    fn finish(self, found: &mut Found) {
        let streams = self.camera.streams.iter().zip(self.checks).zip(self.rtcp.counts);
        for ((&number, check), (rtcp_expected, rtcp_stored)) in streams {
            let logged = &self.log.streams()[number as usize];
            if self.camera.looked_at && logged.known {
                for (at, entry) in check.entries().iter().enumerate() {
                    if entry.flags.fit_to_store() {
                        found.heat.count(number, entry.intended_ns, !check.is_found(at));
                    }
                }
            }
            let verdict = check.finish();
            found.streams.push(StreamVerdict {
                stream: number,
                camera: logged.camera.clone(),
                customer: logged.customer.clone(),
                group: logged.group.clone(),
                ssrc: logged.ssrc,
                // What nobody was told of is nobody's: there is nothing to open, and nothing may be found.
                looked_at: self.camera.looked_at || !logged.known,
                rtcp_expected,
                rtcp_stored,
                ..verdict
            });
        }
    }
}
