//! One SSRC's packets to frames: order, clock and assembler in a row.

use super::clock::{RtpClock, SenderReport};
use super::codec::Codec;
use super::frame::{Assembler, Frame, LeftOut};
use super::order::{Counts, Follows, Order, Ordered};
use super::sdp::Payload;

/// A sender of video.
pub(super) struct Sender {
    pub ssrc: u32,
    pub codec: Codec,
    pub rate_hz: u32,
    /// Arrival of its last packet.
    pub last_arrival_ns: u64,
    /// Its last sender report.
    pub report: Option<Reported>,
    /// A report that came before the first packet.
    early_report: Option<SenderReport>,
    order: Order,
    stages: Stages,
}

/// A sender report on the extended clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reported {
    /// How often the clock had been set anew.
    pub clock: u32,
    /// Extended time and wall time, nanoseconds since 1970.
    pub at: (i64, u64),
}

/// What follows the order; apart, so that the order can hand packets to it.
struct Stages {
    clock: RtpClock,
    assembler: Assembler,
    /// How often the clock has been set anew.
    clocks: u32,
}

impl Stages {
    fn push(&mut self, packet: &Ordered<'_>) {
        let anew = packet.follows == Follows::Anew;
        let (ticks, epoch_break) = self.clock.extend(packet.rtp_time, packet.arrival_ns, anew);
        self.clocks += u32::from(epoch_break);
        self.assembler.push(packet, ticks, self.clocks);
    }
}

impl Sender {
    /// A sender of `payload`, which carries `codec`.
    pub fn new(ssrc: u32, codec: Codec, payload: &Payload, early_report: Option<SenderReport>) -> Sender {
        let mut sender = Sender {
            ssrc,
            codec,
            rate_hz: payload.clock_rate,
            last_arrival_ns: 0,
            report: None,
            early_report,
            order: Order::new(),
            stages: Stages {
                clock: RtpClock::new(payload.clock_rate),
                assembler: Assembler::new(codec),
                clocks: 0,
            },
        };
        sender.describe(payload);
        sender
    }

    /// Takes the parameter sets of a session description.
    pub fn describe(&mut self, payload: &Payload) {
        for set in payload.parameter_sets() {
            self.stages.assembler.sets.insert(&set);
        }
    }

    /// Takes its next RTP packet by arrival. Then [`Sender::next_frame`] gives what became complete.
    pub fn push(&mut self, arrival_ns: u64, bytes: &[u8]) {
        self.last_arrival_ns = arrival_ns;
        let stages = &mut self.stages;
        self.order
            .push(arrival_ns, bytes, &mut |packet| stages.push(&packet));
        self.after_push();
    }

    /// No more packets come. Then [`Sender::next_frame`] gives the rest.
    pub fn flush(&mut self) {
        let stages = &mut self.stages;
        self.order.flush(&mut |packet| stages.push(&packet));
        self.stages.assembler.flush();
        self.after_push();
    }

    fn after_push(&mut self) {
        if self.stages.clock.now().is_some()
            && let Some(report) = self.early_report.take()
        {
            self.take_report(report);
        }
    }

    /// Takes a sender report of this SSRC.
    pub fn take_report(&mut self, report: SenderReport) {
        let Some((ticks, arrival_ns)) = self.stages.clock.now() else {
            self.early_report = Some(report);
            return;
        };
        let Some(reported) = self.stages.clock.nearest(report.rtp_time) else {
            return;
        };
        // A report of a clock whose packets have not come yet would place this one hours away.
        let age_ns = i128::from(ticks - reported) * 1_000_000_000 / i128::from(self.rate_hz);
        let placed_ns = i128::from(report.unix_ns) + age_ns - i128::from(arrival_ns);
        if placed_ns.unsigned_abs() <= u128::from(super::clock::REPORT_TOLERANCE_NS) {
            self.report = Some(Reported {
                clock: self.stages.clocks,
                at: (reported, report.unix_ns),
            });
        }
    }

    /// The next complete frame, in decoding order.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.stages.assembler.next_frame()
    }

    /// What its packets told.
    pub fn counts(&self) -> (Counts, LeftOut) {
        (self.order.counts, self.stages.assembler.left_out)
    }
}
