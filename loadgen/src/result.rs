//! What a run came to, as `run.json` holds it: the one shape that the sender fills, `verify` completes, and reports,
//! comparisons and assertions read. Fields are only added; whoever changes the meaning of one raises [`SCHEMA`].
//!
//! Packets are RTP packets unless a name says otherwise; bytes are theirs, without UDP and IP headers. A figure that was not
//! measured is `null`, never 0. A field that an older file lacks has its default.

use crate::report::StreamCount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name and version of the object.
pub const SCHEMA: &str = "harborseal-loadgen/run/1";

/// One run. In a run's folder:
///
/// ```text
/// run.json  this         profile.toml  the profile with every override     sent.log      every packet (see `sentlog`)
/// seconds.csv            streams.csv   what each stream sent               lateness.hlog HdrHistogram V2, an interval a second
/// verify.json            stored.csv    what was stored of each stream      engine.jsonl  the engine's lines, as they came
/// durable.hlog           (from the engine's lines or the stored arrivals)  report.html   what `report --html` made
/// ```
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunResult {
    pub schema: String,
    pub version: String,
    pub profile: String,
    /// Overrides, as given.
    pub settings: Vec<String>,
    pub seed: u64,
    /// RFC 3339, UTC.
    pub started: String,
    pub targets: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// Whether the load was the one asked for; if not, why.
    pub valid: bool,
    pub invalid_because: Vec<String>,
    /// Ended by a signal.
    pub stopped: bool,
    pub load: Load,
    pub sending: Sending,
    pub impaired: Impaired,
    pub seconds: Vec<Second>,
    /// From the engine's lines.
    pub engine: Option<EngineFigures>,
    /// From the segments.
    pub stored: Option<StoredFigures>,
    pub assertions: Vec<Assertion>,
    /// By number; in the folder as `streams.csv`.
    #[serde(skip)]
    pub streams: Vec<StreamCount>,
}

/// What was asked for and what left. Counts are of the whole run, rates without warm-up and ramps.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    pub cameras: u64,
    pub streams: u64,
    pub customers: u64,
    /// What the schedule wanted, in Mb/s with all cameras on.
    pub mbps_offered: f64,
    pub seconds: f64,
    pub warm_up_s: f64,
    /// Packets that came due.
    pub intended: u64,
    /// Datagrams with RTP of known streams that the kernel took, duplicates included.
    pub sent: u64,
    /// Packets due and meant to leave that the kernel did not take.
    pub not_sent: u64,
    pub sent_bytes: u64,
    pub rtcp_sent: u64,
    pub rtcp_not_sent: u64,
    pub gbps: f64,
    pub packets_per_second: f64,
    pub duration_s: f64,
    /// How much longer the run took than its schedule.
    pub stretch_percent: f64,
}

/// How the sender did: lateness counts from a packet's intended time to the return of the call that sent it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sending {
    /// `sendmmsg`, `gso` or `io_uring`: what was in use, which may be less than was asked for.
    pub method: String,
    /// Packets left as fast as they went and not at their time: nothing is said of lateness then.
    pub unpaced: bool,
    /// What was asked for and refused, and what was done instead.
    pub notes: Vec<String>,
    pub lateness_ms: Percentiles,
    /// |gap between two sends of a stream − intended gap|.
    pub pacing_error_ms: Percentiles,
    pub packets_per_message: f64,
    pub packets_per_message_max: u64,
    pub messages_per_call: f64,
    /// Packets back to back from one stream: size → how often.
    pub bursts: BTreeMap<u64, u64>,
    /// CPU time of the sending thread; on loopback the kernel's delivery is in it.
    pub cpu_ns_per_packet: f64,
    /// Its share of one core.
    pub cpu_percent: f64,
    /// ICMP refusals met.
    pub refused: u64,
    /// Messages the kernel did not take, by reason.
    pub errors: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// What was done to packets on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Impaired {
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupted: u64,
    /// Cut within the payload: still RTP.
    pub truncated: u64,
    /// Cut before the payload: no receiver may take them for RTP of ours.
    pub runts: u64,
    pub restarts: u64,
    pub sequence_jumps: u64,
    pub timestamp_jumps: u64,
    pub payload_type_changes: u64,
    pub rebinds: u64,
    pub junk: u64,
    /// Packets of unknown groups.
    pub unknown: u64,
}

/// One second of a run, by the clock; the last one may be shorter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// Its begin, from the start.
    pub at_s: f64,
    pub warm_up: bool,
    /// Packets that came due in it, whenever they left.
    pub due: Option<u64>,
    pub sent: u64,
    pub sent_bytes: u64,
    pub not_sent: u64,
    pub impaired_lost: u64,
    pub lateness_ms: Percentiles,
    pub cpu_percent: f64,
    /// The engine's, where its lines were there to read: since the line before.
    pub received: Option<u64>,
    pub stored: Option<u64>,
    pub dropped: Option<u64>,
    pub durable_ms_p50: Option<f64>,
    pub durable_ms_p99: Option<f64>,
}

/// The engine's own account of the run (what its counters say at the end less what they said before).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineFigures {
    pub received: u64,
    pub stored: u64,
    pub dropped: BTreeMap<String, u64>,
    pub in_flight: i64,
    pub kernel_drop_batches: u64,
    pub cpu_ns_per_packet: Option<f64>,
    pub durable_ms_p50: Option<f64>,
    pub durable_ms_p99: Option<f64>,
    pub memory_bytes: Option<u64>,
    /// Sent (junk and unknown included, RTCP included) less received: lost between the two, or still on the way.
    pub never_received: i64,
}

/// What the segments hold, compared packet by packet with the sent log. All streams.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredFigures {
    /// Streams looked at, and those of which something was found.
    pub streams: u64,
    pub streams_found: u64,
    /// Datagrams that ought to be stored: sent ones of known streams that are still RTP.
    pub expected: u64,
    /// Of these, found.
    pub stored: u64,
    /// Of these, not found: `expected - stored`.
    pub stored_loss: u64,
    /// Found once more than sent.
    pub duplicates: u64,
    /// Duplicates that the plan made, and that were found.
    pub duplicates_expected: u64,
    /// Found behind a packet that left later.
    pub reordered: u64,
    /// Found behind a packet with a later number because they left so.
    pub reordered_expected: u64,
    /// Marked as ours, and not with the bytes that left.
    pub corrupt: u64,
    /// Corrupted or truncated by the plan, and found so.
    pub corrupt_expected: u64,
    /// Found with another customer, or under another camera.
    pub wrong_customer: u64,
    /// Nothing of ours, or of another run.
    pub foreign: u64,
    pub rtcp_expected: u64,
    pub rtcp_stored: u64,
    pub rtcp_foreign: u64,
    /// Who lost what. Sums to what was intended and is not stored.
    pub lost_by: LostBy,
    /// Packets of one stream without one of them, longest.
    pub longest_gap: u64,
    pub gaps: u64,
    /// Arrival as the engine stamped it, less the intended time.
    pub arrival_ms: Option<Percentiles>,
    /// Losses by stream and second: rows are streams (or ranges of them), columns seconds, values packets.
    pub heat: Option<HeatMap>,
    /// Streams of customers whose identity was not given: nothing is said of them, and they are in no other figure here.
    pub streams_not_looked_at: u64,
    /// Stored, ours, and behind the end of a sent log that was cut.
    pub beyond_log: u64,
    /// Stored with these cameras at other times: other runs'.
    pub other_runs: u64,
    /// Whether all this is what was to be expected, impairments included.
    pub as_expected: bool,
    /// What is not, and what is damaged, one line each.
    pub differences: Vec<String>,
}

/// Who lost packets that were intended and are not stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LostBy {
    /// Not taken by the kernel at the sender.
    pub generator: u64,
    /// Lost on purpose, or made unfit to be stored.
    pub impairment: u64,
    /// Dropped by the engine, by its reason; only where its lines were read.
    pub engine: BTreeMap<String, u64>,
    /// The rest: kernel, network, or an engine that did not say. With GRO the kernel counts batches and not packets, so
    /// its own counter cannot be set against this.
    pub remainder: i64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HeatMap {
    /// First stream of each row.
    pub rows: Vec<u32>,
    pub streams_per_row: u32,
    pub seconds_per_column: f64,
    /// Row by row.
    pub lost: Vec<Vec<u64>>,
    pub expected: Vec<Vec<u64>>,
}

/// An assertion and how it came out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assertion {
    pub text: String,
    /// What its left side was.
    pub value: Option<f64>,
    pub holds: bool,
}
