//! One camera: where it is in the program, and the numbers its packets carry.
//!
//! Time is an argument, nanoseconds on the fleet's clock (0 = the run's start). Invariants: a camera begins at a key frame
//! and ends behind a whole frame; sequence numbers and timestamps run on over the clip's loops; every due time is derived
//! from the start alone, so nothing drifts and nothing a late sender does moves the schedule.

use crate::mark::Mark;
use crate::program::{Burst, Entry, Program};
use crate::rtp::{CLOCK_RATE, Header, SenderReport};

/// The time from a camera's first packet to its first sender report: soon, so that even a short recording has its clock.
const FIRST_REPORT_NS: u64 = 200_000_000;

/// What a camera is told once.
pub struct Setup {
    pub index: u32,
    pub ssrc: u32,
    pub seed: u64,
    /// First packet, and the moment from which no further frame begins.
    pub begins_ns: u64,
    pub ends_ns: u64,
}

pub struct Camera {
    setup: Setup,
    sequence_base: u16,
    timestamp_base: u32,
    entry_at_ns: u64,
    loops: u64,
    burst: usize,
    sequence: u64,
    sent: Sent,
    next_report_ns: u64,
}

/// What really left, as sender reports state it.
#[derive(Default, Clone, Copy)]
struct Sent {
    packets: u32,
    octets: u32,
}

/// What is the same for all packets of a run.
#[derive(Clone, Copy)]
pub struct RunClock {
    pub run: u64,
    /// CLOCK_REALTIME of the fleet clock's 0, nanoseconds.
    pub start_ns: u64,
}

impl Camera {
    /// A camera that begins at `entry`; its sequence and timestamp begin anywhere (RFC 3550 §5.1), as the seed says.
    pub fn new(setup: Setup, entry: &Entry) -> Camera {
        let (sequence_base, timestamp_base) = first_numbers(setup.seed, setup.index);
        Camera {
            sequence_base,
            timestamp_base,
            entry_at_ns: entry.at_ns,
            loops: 0,
            burst: entry.burst,
            sequence: 0,
            sent: Sent::default(),
            next_report_ns: setup.begins_ns + FIRST_REPORT_NS,
            setup,
        }
    }

    pub fn index(&self) -> u32 {
        self.setup.index
    }

    /// RTP packets taken from the schedule so far, sent or not.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next burst and when it is due; `None` when the camera's time is over.
    pub fn next_burst<'a>(&self, program: &'a Program) -> Option<(u64, &'a Burst)> {
        let burst = &program.bursts[self.burst];
        let frame_due_ns = self.on_fleet_clock(program, burst.frame_at_ns);
        let over = burst.starts_frame && frame_due_ns >= self.setup.ends_ns;
        (!over).then(|| (self.on_fleet_clock(program, burst.at_ns), burst))
    }

    /// Writes one packet of the next burst into `out` (as long as [`Program::packet_bytes`] says) and counts its sequence.
    pub fn write_packet(&mut self, program: &Program, packet: usize, clock: RunClock, out: &mut [u8]) {
        let burst = &program.bursts[self.burst];
        let frame_ns = self.on_fleet_clock(program, burst.frame_at_ns);
        let header = Header {
            marker: burst.ends_frame && packet + 1 == burst.packets.end,
            sequence: self.sequence_base.wrapping_add(self.sequence as u16),
            timestamp: self.timestamp(frame_ns),
            ssrc: self.setup.ssrc,
        };
        let mark = Mark {
            stream: self.setup.index,
            sequence: self.sequence,
            intended_ns: clock.start_ns + self.on_fleet_clock(program, burst.at_ns),
        };
        header.write(&mark, clock.run, program.payload(packet), out);
        self.sequence += 1;
    }

    /// Goes on to the next burst, from the loop's last to the next loop's first.
    pub fn advance(&mut self, program: &Program) {
        self.burst += 1;
        if self.burst == program.bursts.len() {
            self.burst = 0;
            self.loops += 1;
        }
    }

    /// Counts what left, for the sender reports.
    pub fn count_sent(&mut self, packets: u32, payload_bytes: u32) {
        self.sent.packets = self.sent.packets.wrapping_add(packets);
        self.sent.octets = self.sent.octets.wrapping_add(payload_bytes);
    }

    /// When the next sender report is due; `None` when the camera's time is over.
    pub fn next_report_ns(&self) -> Option<u64> {
        (self.next_report_ns < self.setup.ends_ns).then_some(self.next_report_ns)
    }

    /// The sender report due now, and the next one after `interval_ns`.
    pub fn take_report(&mut self, interval_ns: u64, clock: RunClock) -> SenderReport {
        let at_ns = self.next_report_ns;
        self.next_report_ns += interval_ns;
        SenderReport {
            ssrc: self.setup.ssrc,
            time_ns: clock.start_ns + at_ns,
            timestamp: self.timestamp(at_ns),
            packets: self.sent.packets,
            octets: self.sent.octets,
        }
    }

    /// RFC 3550 §8.1 wants a name that is the same for all streams of one source and lasts.
    pub fn cname(&self) -> String {
        cname(self.setup.index)
    }

    fn on_fleet_clock(&self, program: &Program, at_ns: u64) -> u64 {
        self.setup.begins_ns + self.loops * program.loop_ns + at_ns - self.entry_at_ns
    }

    /// The RTP clock at a moment of the fleet's clock: one is the other × 90,000/10^9, so no rounding adds up.
    fn timestamp(&self, at_ns: u64) -> u32 {
        const NS_PER_S: u64 = 1_000_000_000;
        const DIVISOR: u64 = NS_PER_S / 10_000;
        let ticks = (at_ns - self.setup.begins_ns) * (CLOCK_RATE as u64 / 10_000) / DIVISOR;
        self.timestamp_base.wrapping_add(ticks as u32)
    }
}

/// A stream's first sequence number and timestamp: anything (RFC 3550 §5.1), as the seed says.
pub(crate) fn first_numbers(seed: u64, stream: u32) -> (u16, u32) {
    let random = mix(seed ^ u64::from(stream).rotate_left(32));
    (random as u16, (random >> 16) as u32)
}

pub(crate) fn cname(index: u32) -> String {
    format!("camera-{index:05}")
}

/// SplitMix64's output function: spreads a counter over 64 bits (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014).
pub(crate) fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::Clip;
    use crate::program::Pacing;

    const CLOCK: RunClock = RunClock {
        run: 5,
        start_ns: 1_000,
    };

    /// Plays a camera to its end and returns (due, packet) of every packet.
    fn play(program: &Program, entry: usize, seed: u64, seconds: u64) -> Vec<(u64, Vec<u8>)> {
        let setup = Setup {
            index: 3,
            ssrc: 9,
            seed,
            begins_ns: 40_000_000,
            ends_ns: 40_000_000 + seconds * 1_000_000_000,
        };
        let mut camera = Camera::new(setup, &program.entries[entry]);
        let mut all = Vec::new();
        while let Some((due, burst)) = camera.next_burst(program) {
            for packet in burst.packets.clone() {
                let mut out = vec![0; program.packet_bytes(packet)];
                camera.write_packet(program, packet, CLOCK, &mut out);
                all.push((due, out));
            }
            camera.advance(program);
        }
        all
    }

    fn timestamp(packet: &[u8]) -> u32 {
        u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])
    }

    #[test]
    fn sequence_numbers_and_marks_run_on_over_loops_and_wraps() {
        let program = Program::new(&Clip::builtin(), 40.0, Pacing::Smooth, 8);
        let all = play(&program, 1, 77, 20);
        assert!(all.len() > 65_536, "long enough to wrap the sequence");
        let base = u16::from_be_bytes([all[0].1[2], all[0].1[3]]);
        for (at, (due, packet)) in all.iter().enumerate() {
            assert_eq!(
                u16::from_be_bytes([packet[2], packet[3]]),
                base.wrapping_add(at as u16)
            );
            let mark = Mark::read(packet, 5).expect("every packet has its mark");
            assert_eq!((mark.stream, mark.sequence), (3, at as u64));
            assert_eq!(mark.intended_ns, 1_000 + due);
        }
    }

    #[test]
    fn due_times_follow_the_rate_to_the_nanosecond_and_timestamps_follow_them() {
        let program = Program::new(&Clip::builtin(), 1.0, Pacing::Frame, 8);
        let all = play(&program, 2, 1, 30);
        let first = timestamp(&all[0].1);
        for (due, packet) in &all {
            let since_ns = due - 40_000_000;
            assert_eq!(
                timestamp(packet).wrapping_sub(first),
                (since_ns * 9 / 100_000) as u32
            );
        }
        let bytes: usize = all.iter().map(|(_, packet)| packet.len()).sum();
        let mbps = bytes as f64 * 8.0 / 30e6;
        assert!((mbps - 1.0).abs() < 0.01, "{mbps} Mb/s over 30 s");
        assert!(all.is_sorted_by_key(|(due, _)| *due));
    }

    #[test]
    fn a_camera_begins_at_a_key_frame_and_ends_behind_a_whole_frame() {
        let program = Program::new(&Clip::builtin(), 1.0, Pacing::Smooth, 8);
        for entry in 0..3 {
            let all = play(&program, entry, 1, 2);
            let payload = &all[0].1[crate::rtp::HEADER_BYTES..];
            assert_eq!(payload[0] & 0x1f, 24, "parameter sets come first");
            let last = &all.last().expect("packets were sent").1;
            assert_eq!(last[1] & 0x80, 0x80, "the last packet ends its frame");
        }
    }

    #[test]
    fn a_report_ties_the_wall_clock_to_the_rtp_clock_of_the_same_instant() {
        let program = Program::new(&Clip::builtin(), 1.0, Pacing::Smooth, 8);
        let setup = Setup {
            index: 0,
            ssrc: 9,
            seed: 1,
            begins_ns: 500,
            ends_ns: 10_000_000_000,
        };
        let mut camera = Camera::new(setup, &program.entries[0]);
        let base = camera.timestamp(500);
        camera.count_sent(3, 700);
        assert_eq!(camera.next_report_ns(), Some(500 + FIRST_REPORT_NS));
        let report = camera.take_report(5_000_000_000, CLOCK);
        assert_eq!(report.time_ns, 1_500 + FIRST_REPORT_NS);
        assert_eq!(report.timestamp.wrapping_sub(base), 18_000);
        assert_eq!((report.packets, report.octets), (3, 700));
        camera.take_report(5_000_000_000, CLOCK);
        assert_eq!(
            camera.next_report_ns(),
            None,
            "the third would fall behind its end"
        );
    }
}
