//! What a run came to: counts, lateness, and whether the generator itself was the limit.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Half a frame interval at 25 frames/s: a load later than that is no longer the load that was asked for.
pub const LATENESS_BUDGET_MS: f64 = 20.0;
/// How much longer than planned a run may take and still be the load that was asked for.
pub const STRETCH_BUDGET_PERCENT: f64 = 1.0;

/// How late packets left, counted from their intended time; in microseconds, to three digits, up to 1,000 s.
pub struct Lateness(Histogram<u64>);

impl Default for Lateness {
    fn default() -> Lateness {
        Lateness(Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("bounds the histogram allows"))
    }
}

impl Lateness {
    pub fn count(&mut self, late_ns: u64, packets: u64) {
        self.0.saturating_record_n(late_ns / 1000, packets);
    }

    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1000.0
    }

    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }
}

/// What one stream sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StreamCount {
    pub ssrc: u32,
    pub sent: u64,
    pub sent_bytes: u64,
    /// RTP packets that were due and did not leave.
    pub not_sent: u64,
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
    pub send_errors: BTreeMap<&'static str, u64>,
    /// Stopped before its time.
    pub stopped: bool,
    /// Whether the load was the one asked for; if not, why.
    pub valid: bool,
    pub invalid_because: Vec<String>,
    #[serde(skip)]
    pub streams: Vec<StreamCount>,
}

impl FleetReport {
    /// Whether nobody listened at the target for most of the time. (One refusal may be of a receiver that ended early; and
    /// each is told on one later send, so a closed port refuses about every second batch.)
    pub fn unreachable(&self) -> bool {
        self.sent > 0 && self.refused as f64 * self.packets_per_send * 4.0 > self.sent as f64
    }

    /// The gate: a run limited by the generator says so.
    pub(crate) fn judge(mut self) -> FleetReport {
        let mut because = Vec::new();
        if self.lateness_ms_p99 > LATENESS_BUDGET_MS {
            let p99 = self.lateness_ms_p99;
            because.push(format!(
                "packets left late: p99 {p99:.1} ms, the budget is {LATENESS_BUDGET_MS} ms"
            ));
        }
        if self.stretch_percent > STRETCH_BUDGET_PERCENT {
            let stretch = self.stretch_percent;
            because.push(format!("the run took {stretch:.1} % longer than its schedule"));
        }
        if self.not_sent > 0 {
            because.push(format!(
                "{} packets could not be sent: {:?}",
                self.not_sent, self.send_errors
            ));
        }
        self.valid = because.is_empty();
        self.invalid_because = because;
        self
    }
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
