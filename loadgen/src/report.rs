//! What a run came to: counts, lateness, and whether the generator itself was the limit.

use crate::result::RunResult;
use crate::send::Method;
use crate::spec::FleetSpec;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Half a frame interval at 25 frames/s: a load later than that is no longer the load that was asked for.
pub const LATENESS_BUDGET_MS: f64 = 20.0;
/// How much longer than planned a run may take and still be the load that was asked for.
pub const STRETCH_BUDGET_PERCENT: f64 = 1.0;

/// What one stream sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StreamCount {
    /// The one it began with.
    pub ssrc: u32,
    /// Packets that came due.
    pub intended: u64,
    pub sent: u64,
    pub sent_bytes: u64,
    /// RTP packets that were due and did not leave.
    pub not_sent: u64,
    /// Lost on purpose.
    pub lost: u64,
    pub rtcp_sent: u64,
}

/// The report of a run. Packets are RTP packets, unless it says RTCP; bytes are theirs, without UDP and IP headers.
#[derive(Debug, Clone, Serialize)]
pub struct FleetReport {
    pub cameras: u32,
    pub mbps: f64,
    pub seconds: f64,
    pub seed: u64,
    /// Packets that came due: sent + not_sent.
    pub intended: u64,
    pub sent: u64,
    pub not_sent: u64,
    pub sent_bytes: u64,
    pub rtcp_sent: u64,
    pub rtcp_not_sent: u64,
    /// While all cameras were on; where there was no such time, over the whole run.
    pub gbps: f64,
    pub duration_s: f64,
    /// How much longer the run took than its schedule.
    pub stretch_percent: f64,
    /// From a packet's intended time to the return of the system call that sent it.
    pub lateness_ms_p50: f64,
    pub lateness_ms_p99: f64,
    pub lateness_ms_max: f64,
    /// The sending thread's CPU time (with loopback, the kernel's work of delivering is in it).
    pub cpu_ns_per_packet: u64,
    pub packets_per_send: f64,
    pub gso: bool,
    /// ICMP refusals met: nobody listened.
    pub refused: u64,
    /// Messages the kernel did not take, by reason.
    pub send_errors: BTreeMap<String, u64>,
    /// Stopped before its time.
    pub stopped: bool,
    /// Whether the load was the one asked for; if not, why.
    pub valid: bool,
    pub invalid_because: Vec<String>,
    #[serde(skip)]
    pub streams: Vec<StreamCount>,
}

impl FleetReport {
    /// What a fleet's run came to, in the words of its few figures.
    pub fn new(spec: &FleetSpec, result: RunResult) -> FleetReport {
        let (load, sending) = (result.load, result.sending);
        FleetReport {
            cameras: spec.cameras,
            mbps: spec.mbps,
            seconds: spec.seconds,
            seed: spec.seed,
            intended: load.intended,
            sent: load.sent,
            not_sent: load.not_sent,
            sent_bytes: load.sent_bytes,
            rtcp_sent: load.rtcp_sent,
            rtcp_not_sent: load.rtcp_not_sent,
            gbps: load.gbps,
            duration_s: load.duration_s,
            stretch_percent: load.stretch_percent,
            lateness_ms_p50: sending.lateness_ms.p50,
            lateness_ms_p99: sending.lateness_ms.p99,
            lateness_ms_max: sending.lateness_ms.max,
            cpu_ns_per_packet: sending.cpu_ns_per_packet as u64,
            packets_per_send: sending.packets_per_message,
            gso: sending.method != Method::Sendmmsg.name(),
            refused: sending.refused,
            send_errors: sending.errors,
            stopped: result.stopped,
            valid: result.valid,
            invalid_because: result.invalid_because,
            streams: result.streams,
        }
    }

    /// Whether nobody listened at the target for most of the time.
    pub fn unreachable(&self) -> bool {
        unreachable(self.sent, self.refused, self.packets_per_send)
    }
}

/// Whether nobody listened at the target for most of the time. (One refusal may be of a receiver that ended early; and
/// each is told on one later send, so a closed port refuses about every second batch.)
pub fn unreachable(sent: u64, refused: u64, packets_per_message: f64) -> bool {
    sent > 0 && refused as f64 * packets_per_message * 4.0 > sent as f64
}

/// A moment as RFC 3339 has it, in UTC.
pub fn utc(since_1970_ns: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(since_1970_ns));
    let time = time.expect("nanoseconds in 64 bits end in the year 2554");
    time.format(&Rfc3339).expect("a time in UTC has this form")
}

/// For people: one line per question.
impl fmt::Display for FleetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cameras, mbps, seconds) = (self.cameras, self.mbps, self.seconds);
        writeln!(
            f,
            "fleet      {cameras} cameras × {mbps} Mb/s × {seconds} s, seed {}",
            self.seed
        )?;
        writeln!(
            f,
            "intended   {} packets{}",
            self.intended,
            if self.stopped { " until it was stopped" } else { "" }
        )?;
        writeln!(
            f,
            "sent       {} packets, {} bytes; {} RTCP",
            self.sent, self.sent_bytes, self.rtcp_sent
        )?;
        writeln!(
            f,
            "not sent   {} packets; {} RTCP {:?}",
            self.not_sent, self.rtcp_not_sent, self.send_errors
        )?;
        writeln!(
            f,
            "rate       {:.3} Gb/s with all cameras on, {:.2} s in all",
            self.gbps, self.duration_s
        )?;
        let (p50, p99, max) = (self.lateness_ms_p50, self.lateness_ms_p99, self.lateness_ms_max);
        writeln!(
            f,
            "lateness   p50 {p50:.2} ms · p99 {p99:.2} ms · max {max:.2} ms"
        )?;
        let gso = if self.gso { "UDP_SEGMENT" } else { "single packets" };
        let (each, cpu) = (self.packets_per_send, self.cpu_ns_per_packet);
        writeln!(
            f,
            "sending    {each:.1} packets per message ({gso}), {cpu} ns CPU per packet"
        )?;
        match self.valid {
            true => write!(f, "valid      yes: the load was the one asked for"),
            false => write!(f, "valid      NO: {}", self.invalid_because.join("; ")),
        }
    }
}
