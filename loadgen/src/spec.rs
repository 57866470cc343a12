//! What a fleet is: how many cameras, at which rate, to where, and everything that follows from it without sending.

use crate::camera::{cname, first_numbers, mix};
use crate::clip::Clip;
use crate::plan::{CameraPlan, Group, Impairments, Media, Plan, Stage, StreamPlan};
use crate::program::{BURST_PACKETS_MAX, MBPS_MAX, MBPS_MIN, Pacing, Program};
use crate::report::LATENESS_BUDGET_MS;
use crate::rtp::{CLOCK_RATE, PAYLOAD_TYPE};
use crate::sdp::sdp;
use crate::send::Rtcp;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Two packets per second and camera for four months, or what anybody waits for.
const SECONDS_MAX: f64 = 1e7;
/// A camera costs about 2.2 KiB (its state, its lanes of the sent log): a million of them 2.2 GB.
const CAMERAS_MAX: u32 = 1_000_000;
/// Odd, so that index × step meets every 32-bit value once: SSRCs never collide, and neighbours differ in their low bits,
/// by which receivers spread streams over shards (Knuth's multiplicative constant, TAOCP 3 §6.4).
const SSRC_STEP: u32 = 0x9e37_79b1;

/// When the cameras' key frames come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Phase {
    /// Evenly over the key frame interval: the cameras begin one after another.
    Spread,
    /// All at once: the worst case.
    Aligned,
}

#[derive(Debug, Clone)]
pub struct FleetSpec {
    pub cameras: u32,
    /// Per camera: RTP packets with their headers, without UDP and IP; 1 Mb = 10^6 bits.
    pub mbps: f64,
    /// How long each camera sends.
    pub seconds: f64,
    /// Camera i sends to target i mod n.
    pub targets: Vec<SocketAddr>,
    /// Address to send from.
    pub source: Option<IpAddr>,
    /// Decides SSRCs, first sequence numbers and timestamps, and keys the marks.
    pub seed: u64,
    /// Camera i has SSRC base + i instead of one derived from the seed.
    pub ssrc_base: Option<u32>,
    pub rtcp: Rtcp,
    /// Seconds between sender reports of a camera.
    pub report_seconds: f64,
    pub pacing: Pacing,
    pub phase: Phase,
    /// Packets that may leave back to back, 1 to 54.
    pub burst_packets: usize,
    /// Send bursts by `UDP_SEGMENT` where the system can.
    pub gso: bool,
    /// Pin the sending thread to this CPU.
    pub cpu: Option<usize>,
    /// Write the sent log here.
    pub sent_log: Option<PathBuf>,
}

/// Why a fleet cannot be; each text says what would do.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SpecError {
    #[error("cameras must be 1 to {CAMERAS_MAX}, not {0}")]
    Cameras(u32),
    #[error("mbps must be {MBPS_MIN} to {MBPS_MAX} (Mb/s per camera), not {0}")]
    Mbps(f64),
    #[error("seconds must be above 0 and at most {SECONDS_MAX}, not {0}")]
    Seconds(f64),
    #[error("sender reports come every 0.1 s or more, not every {0} s")]
    ReportSeconds(f64),
    #[error("a burst has 1 to {BURST_PACKETS_MAX} packets, not {0}")]
    Burst(usize),
    #[error("no target to send to")]
    NoTarget,
    #[error("{0} is no target: port 0")]
    PortZero(SocketAddr),
    #[error("source {0} and target {1} are of different address families")]
    Family(IpAddr, SocketAddr),
}

impl FleetSpec {
    /// A fleet with every choice at its default.
    pub fn new(cameras: u32, mbps: f64, seconds: f64, targets: Vec<SocketAddr>) -> FleetSpec {
        FleetSpec {
            cameras,
            mbps,
            seconds,
            targets,
            source: None,
            seed: 1,
            ssrc_base: None,
            rtcp: Rtcp::Same,
            report_seconds: 5.0,
            pacing: Pacing::Smooth,
            phase: Phase::Spread,
            burst_packets: 8,
            gso: true,
            cpu: None,
            sent_log: None,
        }
    }

    pub fn check(&self) -> Result<(), SpecError> {
        if !(1..=CAMERAS_MAX).contains(&self.cameras) {
            return Err(SpecError::Cameras(self.cameras));
        }
        if !(MBPS_MIN..=MBPS_MAX).contains(&self.mbps) {
            return Err(SpecError::Mbps(self.mbps));
        }
        if !(self.seconds > 0.0 && self.seconds <= SECONDS_MAX) {
            return Err(SpecError::Seconds(self.seconds));
        }
        if !(0.1..=SECONDS_MAX).contains(&self.report_seconds) {
            return Err(SpecError::ReportSeconds(self.report_seconds));
        }
        if !(1..=BURST_PACKETS_MAX).contains(&self.burst_packets) {
            return Err(SpecError::Burst(self.burst_packets));
        }
        if self.targets.is_empty() {
            return Err(SpecError::NoTarget);
        }
        for target in &self.targets {
            if target.port() == 0 {
                return Err(SpecError::PortZero(*target));
            }
            if let Some(source) = self.source.filter(|source| source.is_ipv4() != target.is_ipv4()) {
                return Err(SpecError::Family(source, *target));
            }
        }
        Ok(())
    }

    /// The SSRC of a camera: no two of a fleet are equal.
    pub fn ssrc(&self, camera: u32) -> u32 {
        match self.ssrc_base {
            Some(base) => base.wrapping_add(camera),
            None => (mix(self.seed) as u32).wrapping_add(camera.wrapping_mul(SSRC_STEP)),
        }
    }

    /// The index of a camera's target.
    pub fn target(&self, camera: u32) -> usize {
        camera as usize % self.targets.len()
    }

    /// The session description of a camera; the spec must hold (see [`FleetSpec::check`]).
    pub fn sdp(&self, clip: &Clip, camera: u32) -> String {
        sdp(clip, camera, self.ssrc(camera), self.targets[self.target(camera)])
    }

    /// The key of the run's marks.
    pub fn run(&self) -> u64 {
        mix(self.seed ^ 0x6d61_726b)
    }

    pub fn seconds_ns(&self) -> u64 {
        (self.seconds * 1e9) as u64
    }

    /// Over what time the cameras begin: one key frame interval, so that key frames never come together, but at most half
    /// of a camera's time, so that all send at once for a while.
    pub fn spread_ns(&self, program: &Program) -> u64 {
        match self.phase {
            Phase::Spread => program.key_interval_ns().min(self.seconds_ns() / 2),
            Phase::Aligned => 0,
        }
    }

    /// From the first camera's beginning to the last one's end, if nothing is late.
    pub fn duration_s(&self) -> f64 {
        let program = Program::new(&Clip::builtin(), self.mbps, self.pacing, self.burst_packets);
        self.seconds + self.spread_ns(&program) as f64 / 1e9
    }

    /// The fleet as a plan: one group, one customer, a video stream for each camera. The spec must hold (see
    /// [`FleetSpec::check`]).
    pub fn plan(&self) -> Plan {
        let program = Program::new(&Clip::builtin(), self.mbps, self.pacing, self.burst_packets);
        let spread_ns = self.spread_ns(&program);
        let stream = |camera: u32| {
            let begins_ns = golden_share(camera, spread_ns);
            let (first_sequence, first_timestamp) = first_numbers(self.seed, camera);
            StreamPlan {
                camera,
                media: Media::H264,
                ssrc: self.ssrc(camera),
                payload_type: PAYLOAD_TYPE,
                clock_rate: CLOCK_RATE,
                first_sequence,
                first_timestamp,
                target: self.target(camera) as u32,
                program: 0,
                entry: camera % program.entries.len() as u32,
                night: None,
                on: std::iter::once(begins_ns..begins_ns + self.seconds_ns()).collect(),
            }
        };
        let camera = |camera| CameraPlan {
            id: cname(camera),
            customer: 0,
            group: 0,
            address: None,
        };
        Plan {
            name: "clip".to_owned(),
            seed: self.seed,
            run: self.run(),
            targets: self.targets.clone(),
            source: self.source,
            customers: vec!["customer".to_owned()],
            groups: vec![Group {
                name: "cameras".to_owned(),
                unknown: false,
                by_address: false,
                impair: Impairments::default(),
                junk: None,
            }],
            cameras: (0..self.cameras).map(camera).collect(),
            streams: (0..self.cameras).map(stream).collect(),
            stages: vec![Stage {
                from_ns: 0,
                to_ns: spread_ns + self.seconds_ns(),
                share: (1.0, 1.0),
            }],
            warm_up_ns: 0,
            rtcp: self.rtcp,
            report_ns: (self.report_seconds * 1e9) as u64,
            burst_packets: self.burst_packets,
            lateness_budget_ms: LATENESS_BUDGET_MS,
            programs: vec![program],
        }
    }
}

/// The index's place in 0..`whole`, neighbours far apart and any first n nearly even: multiples of the golden ratio modulo
/// one, in 32-bit fixed point (Weyl's sequence).
pub(crate) fn golden_share(index: u32, whole: u64) -> u64 {
    let share = u64::from(index.wrapping_mul(SSRC_STEP));
    ((u128::from(share) * u128::from(whole)) >> 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn spec() -> FleetSpec {
        FleetSpec::new(
            4000,
            1.0,
            10.0,
            vec!["127.0.0.1:5004".parse().expect("an address")],
        )
    }

    #[test]
    fn ssrcs_are_distinct_and_even_over_any_few_shards() {
        let spec = spec();
        let ssrcs: HashSet<u32> = (0..4000).map(|camera| spec.ssrc(camera)).collect();
        assert_eq!(ssrcs.len(), 4000);
        for shards in 2..=8 {
            for shard in 0..shards {
                let share = ssrcs.iter().filter(|&&ssrc| ssrc % shards == shard).count();
                let even = 4000 / shards as usize;
                assert!(
                    share.abs_diff(even) <= even / 10,
                    "{share} of 4000 on shard {shard} of {shards}"
                );
            }
        }
    }

    #[test]
    fn the_load_is_even_over_every_millisecond_of_the_key_frame_interval() {
        let spec = spec();
        let program = Program::new(&Clip::builtin(), 1.0, Pacing::Smooth, 8);
        let spread_ns = spec.spread_ns(&program);
        let mut starts = vec![0u32; spread_ns as usize / 1_000_000 + 1];
        for stream in spec.plan().streams {
            starts[stream.on[0].start as usize / 1_000_000] += 1;
        }
        let most = starts.iter().max().copied();
        assert!(
            most <= Some(6),
            "{most:?} cameras begin in one millisecond, 4 would be even"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_fleet_and_another_another() {
        let (one, two) = (spec(), FleetSpec { seed: 2, ..spec() });
        assert_eq!(one.plan().streams, spec().plan().streams);
        assert_eq!(one.ssrc(17), spec().ssrc(17));
        assert_ne!(one.ssrc(17), two.ssrc(17));
        assert_ne!(one.run(), two.run());
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_would_do() {
        let refused = |change: fn(&mut FleetSpec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.check().expect_err("must be refused").to_string()
        };
        assert!(refused(|spec| spec.cameras = 0).contains("1 to"));
        assert!(refused(|spec| spec.mbps = f64::NAN).contains("mbps must be"));
        assert!(refused(|spec| spec.seconds = 0.0).contains("above 0"));
        assert!(refused(|spec| spec.burst_packets = 55).contains("1 to 54"));
        assert!(refused(|spec| spec.targets.clear()).contains("target"));
        assert!(refused(|spec| spec.source = Some([0u16; 8].into())).contains("families"));
        assert_eq!(spec().check(), Ok(()));
    }
}
