//! What will be sent, all of it decided before the first packet: cameras, their streams, when each is on, and what happens
//! to their packets on the way. Made from a profile or from the few figures of a [`FleetSpec`](crate::FleetSpec); read by
//! the sender, by `verify`, and by whoever writes the engine's configuration for the fleet.
//!
//! Words: a *group* is cameras of one kind; a *camera* belongs to a customer and has one *stream* per track (video, audio);
//! a stream has one SSRC and one number, which its marks carry. Times are nanoseconds on the fleet's clock (0 = the start).

use crate::program::Program;
use crate::send::Rtcp;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// A whole run, decided.
pub struct Plan {
    /// Name of the profile.
    pub name: String,
    /// Decides everything that is random.
    pub seed: u64,
    /// Key of the marks.
    pub run: u64,
    /// Where to send; a stream names its target by index.
    pub targets: Vec<SocketAddr>,
    /// Address to send from; cameras with an address of their own have it instead.
    pub source: Option<IpAddr>,
    /// Names of the customers.
    pub customers: Vec<String>,
    pub groups: Vec<Group>,
    pub cameras: Vec<CameraPlan>,
    /// By the number their marks carry.
    pub streams: Vec<StreamPlan>,
    /// Shared by streams of one kind.
    pub programs: Vec<Program>,
    /// How the load goes up and down, without gaps from 0.
    pub stages: Vec<Stage>,
    /// Left out of the figures at the beginning. (Truth and verdict hold every packet.)
    pub warm_up_ns: u64,
    pub rtcp: Rtcp,
    /// Between sender reports of a stream.
    pub report_ns: u64,
    /// Packets that may leave back to back, 1 to 54.
    pub burst_packets: usize,
    /// Lateness at p99 above which the run is invalid, in milliseconds.
    pub lateness_budget_ms: f64,
}

/// Part of a run: the share of all cameras that are on goes from one figure to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    pub from_ns: u64,
    pub to_ns: u64,
    /// Share of the cameras, 0 to 1, at its begin and at its end; between them it is linear.
    pub share: (f64, f64),
}

/// Cameras of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub name: String,
    /// Not in the engine's configuration: everything it sends must be refused.
    pub unknown: bool,
    /// Each camera sends from an address and port of its own, by which alone the engine knows it.
    pub by_address: bool,
    pub impair: Impairments,
    /// Datagrams that are no RTP, beside the cameras'.
    pub junk: Option<Junk>,
}

/// Noise of a group: datagrams of random bytes, sent from the group's sockets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Junk {
    pub per_second: f64,
    /// Sizes in bytes, evenly between these.
    pub bytes: (u16, u16),
}

/// One camera.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraPlan {
    pub id: String,
    /// Index into [`Plan::customers`].
    pub customer: u32,
    /// Index into [`Plan::groups`].
    pub group: u32,
    /// Where it sends from, if it has an address of its own.
    pub address: Option<SocketAddr>,
}

/// One stream: what one SSRC sends.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamPlan {
    /// Index into [`Plan::cameras`].
    pub camera: u32,
    pub media: Media,
    pub ssrc: u32,
    pub payload_type: u8,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    pub first_sequence: u16,
    pub first_timestamp: u32,
    /// Index into [`Plan::targets`].
    pub target: u32,
    /// Index into [`Plan::programs`]; by night the other one.
    pub program: u32,
    /// Index into the program's entries: where it begins.
    pub entry: u32,
    /// The other program and when it is night; the change waits for a key frame.
    pub night: Option<(u32, Vec<Range<u64>>)>,
    /// When it sends: disjoint, in order. It begins each with an entry and ends each with a whole frame.
    pub on: Vec<Range<u64>>,
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    /// RFC 6184, 90 kHz.
    H264,
    /// RFC 7798, 90 kHz.
    H265,
    /// RFC 3551 §4.5.14, 8 kHz, 160 bytes every 20 ms.
    Pcmu,
}

/// What the network, or a bad camera, does to a stream's packets. Each is decided per stream by the plan's seed alone, so that
/// a repeated run does the same to the same packets. Probabilities are per packet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Impairments {
    /// Independent loss.
    pub loss: f64,
    /// Loss in bursts (Gilbert-Elliott).
    pub bursts: Option<GilbertElliott>,
    /// A packet takes a place up to `reorder_depth` packets later.
    pub reorder: f64,
    pub reorder_depth: u32,
    /// Sent twice.
    pub duplicate: f64,
    /// Sent up to this much later than due, evenly, in order. Nanoseconds.
    pub jitter_ns: u64,
    /// One to three bits of the payload flipped.
    pub corrupt: f64,
    /// Cut to a length between 1 and all but one of its bytes.
    pub truncate: f64,
    /// RTP timestamps run fast by so many parts per million.
    pub clock_ppm: f64,
    /// Every so many nanoseconds (0: never), at a moment of the stream's own: a new SSRC, sequence and timestamp.
    pub restart_every_ns: u64,
    /// The sequence number leaps ahead by [`Impairments::SEQUENCE_JUMP`] and stays there.
    pub sequence_jump_every_ns: u64,
    /// The timestamp leaps by ten seconds and stays there.
    pub timestamp_jump_every_ns: u64,
    /// The payload type changes to the next dynamic one, and back.
    pub payload_type_every_ns: u64,
    /// The camera sends from another source port.
    pub rebind_every_ns: u64,
}

impl Impairments {
    /// Far beyond what a receiver may take for loss (RFC 3550 A.1: MAX_DROPOUT is 3,000).
    pub const SEQUENCE_JUMP: u16 = 20_000;

    /// Whether packets go out as they are.
    pub fn none(&self) -> bool {
        *self == Impairments::default()
    }
}

/// Loss by a chain of two states; in each packet's turn it may change its state, then the state's loss decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GilbertElliott {
    /// Probability to go from good to bad, and back.
    pub to_bad: f64,
    pub to_good: f64,
    pub loss_good: f64,
    pub loss_bad: f64,
}
