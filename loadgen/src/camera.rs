//! One stream of a camera: where it is in its program, and the numbers its packets carry.
//!
//! Time is an argument, nanoseconds on the fleet's clock (0 = the run's start). Invariants: a stream begins each of its times
//! at an entry of its program and ends it behind a whole frame; it changes programs at key frames only; sequence numbers and
//! timestamps run on over loops, pauses and programs; every due time is derived from a begin by whole loops, so nothing
//! drifts and nothing a late sender does moves the schedule.

use crate::impair::Change;
use crate::mark::Mark;
use crate::plan::{Impairments, StreamPlan};
use crate::program::{Burst, Program};
use crate::rtp::{Header, SenderReport};
use std::ops::Range;

/// The time from a stream's first packet to its first sender report: soon, so that even a short recording has its clock.
const FIRST_REPORT_NS: u64 = 200_000_000;
/// By how much a timestamp jump leaps.
const TIMESTAMP_JUMP_S: u32 = 10;
/// First payload type that is not statically assigned (RFC 3551 §6).
const FIRST_DYNAMIC: u8 = 96;

/// A stream under way.
pub struct Stream<'p> {
    number: u32,
    plan: &'p StreamPlan,
    programs: &'p [Program],
    /// The program that plays, an index into `programs`.
    program: u32,
    burst: usize,
    /// When the loop under way began, on the fleet's clock; wrapping, as the first may begin before 0.
    loop_began_ns: u64,
    /// The time it is in, an index into `plan.on`.
    time: usize,
    sequence: u64,
    numbers: Numbers,
    timestamp: u32,
    clock: Clock,
    sent: Sent,
    reports: u64,
    next_report_ns: u64,
}

/// What a restart changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    ssrc: u32,
    /// The RTP sequence number is the mark's plus this.
    sequence_base: u16,
    timestamp_base: u32,
    payload_type: u8,
}

/// From the fleet's time to RTP's.
#[derive(Debug, Clone, Copy)]
struct Clock {
    zero_ns: u64,
    /// Whole even for a clock that runs some parts per million fast.
    ticks_per_1e6_s: u64,
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

impl Clock {
    fn new(zero_ns: u64, rate: u32, ppm: f64) -> Clock {
        Clock {
            zero_ns,
            ticks_per_1e6_s: (f64::from(rate) * (1e6 + ppm)).round() as u64,
        }
    }

    /// Ticks since its zero, so that no rounding adds up.
    fn ticks(self, at_ns: u64) -> u32 {
        let since_ns = u128::from(at_ns.saturating_sub(self.zero_ns));
        (since_ns * u128::from(self.ticks_per_1e6_s) / 1_000_000_000_000_000) as u32
    }
}

impl<'p> Stream<'p> {
    /// The stream of this number, about to begin; `None` if the plan never has it on.
    pub fn new(
        number: u32,
        plan: &'p StreamPlan,
        programs: &'p [Program],
        impair: &Impairments,
    ) -> Option<Stream<'p>> {
        let begins_ns = plan.on.first()?.start;
        let mut stream = Stream {
            number,
            plan,
            programs,
            program: plan.program,
            burst: 0,
            loop_began_ns: 0,
            time: 0,
            sequence: 0,
            numbers: Numbers {
                ssrc: plan.ssrc,
                sequence_base: plan.first_sequence,
                timestamp_base: plan.first_timestamp,
                payload_type: plan.payload_type,
            },
            timestamp: plan.first_timestamp,
            clock: Clock::new(begins_ns, plan.clock_rate, impair.clock_ppm),
            sent: Sent::default(),
            reports: 0,
            next_report_ns: begins_ns + FIRST_REPORT_NS,
        };
        stream.enter(begins_ns);
        Some(stream)
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn ssrc(&self) -> u32 {
        self.numbers.ssrc
    }

    /// The mark's sequence number of the next packet: how many came due so far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn program(&self) -> &'p Program {
        &self.programs[self.program as usize]
    }

    /// The next burst and when it is due; `None` when the stream's time is over.
    pub fn next_burst(&self) -> Option<(u64, &'p Burst)> {
        (self.time < self.plan.on.len()).then(|| {
            let burst = &self.program().bursts[self.burst];
            (self.loop_began_ns.wrapping_add(burst.at_ns), burst)
        })
    }

    /// When the next burst's frame is due, and with it the packets' timestamp.
    pub fn frame_due_ns(&self) -> u64 {
        let burst = &self.program().bursts[self.burst];
        self.loop_began_ns.wrapping_add(burst.frame_at_ns)
    }

    /// To be called before the packets of a burst that starts a frame are written.
    pub fn begin_frame(&mut self) {
        self.timestamp = self.timestamp_at(self.frame_due_ns());
    }

    /// Writes one packet of the next burst into `out` (as long as [`Program::packet_bytes`] says) and counts its sequence.
    pub fn write_packet(&mut self, packet: usize, due_ns: u64, clock: RunClock, out: &mut [u8]) {
        let program = self.program();
        let burst = &program.bursts[self.burst];
        let header = Header {
            marker: burst.ends_frame && packet + 1 == burst.packets.end,
            payload_type: self.numbers.payload_type,
            sequence: self.numbers.sequence_base.wrapping_add(self.sequence as u16),
            timestamp: self.timestamp,
            ssrc: self.numbers.ssrc,
        };
        let mark = Mark {
            stream: self.number,
            sequence: self.sequence,
            intended_ns: clock.start_ns + due_ns,
        };
        header.write(&mark, clock.run, program.payload(packet), out);
        self.sequence += 1;
    }

    /// Goes on to the next burst: the next of the loop, the next loop's first, another program's, or of the stream's next time.
    pub fn advance(&mut self) {
        let program = self.program();
        self.burst += 1;
        if self.burst == program.bursts.len() {
            self.burst = 0;
            self.loop_began_ns = self.loop_began_ns.wrapping_add(program.loop_ns);
        }
        if !program.bursts[self.burst].starts_frame {
            return;
        }
        let due_ns = self.frame_due_ns();
        if due_ns >= self.plan.on[self.time].end {
            self.time += 1;
            if let Some(next) = self.plan.on.get(self.time) {
                self.enter(next.start.max(due_ns));
            }
        } else if self.program != self.wanted_program(due_ns) && self.at_key_frame() {
            self.go_over(due_ns);
        }
    }

    /// Changes programs at a key frame that is due now: to the same place of the other, where that has a key frame too, so that
    /// streams which were spread stay so; else to its next key frame behind the plan's entry.
    fn go_over(&mut self, at_ns: u64) {
        let place_ns = at_ns.wrapping_sub(self.loop_began_ns);
        self.program = self.wanted_program(at_ns);
        let entries = &self.program().entries;
        let begin = self.plan.entry as usize % entries.len();
        let mut keys = entries[begin..]
            .iter()
            .chain(&entries[..begin])
            .filter(|entry| entry.key);
        let next = keys.clone().next().unwrap_or(&entries[begin]);
        let entry = keys.find(|entry| entry.at_ns == place_ns).unwrap_or(next);
        self.burst = entry.burst;
        self.loop_began_ns = at_ns.wrapping_sub(entry.at_ns);
    }

    /// Begins at the plan's entry, which is due now, of the program that it is time for.
    fn enter(&mut self, at_ns: u64) {
        self.program = self.wanted_program(at_ns);
        let entries = &self.program().entries;
        let entry = &entries[self.plan.entry as usize % entries.len()];
        self.burst = entry.burst;
        self.loop_began_ns = at_ns.wrapping_sub(entry.at_ns);
    }

    fn wanted_program(&self, at_ns: u64) -> u32 {
        match &self.plan.night {
            Some((night, times)) if holds(times, at_ns) => *night,
            _ => self.plan.program,
        }
    }

    fn at_key_frame(&self) -> bool {
        let entries = &self.program().entries;
        let at = entries.binary_search_by_key(&self.burst, |entry| entry.burst);
        at.is_ok_and(|at| entries[at].key)
    }

    /// Another identity, or part of one. (A new source port is the socket's affair.)
    pub fn change(&mut self, change: Change) {
        let numbers = &mut self.numbers;
        match change {
            Change::Restart {
                ssrc,
                sequence,
                timestamp,
            } => {
                numbers.ssrc = ssrc;
                numbers.sequence_base = sequence.wrapping_sub(self.sequence as u16);
                numbers.timestamp_base = timestamp;
                self.sent = Sent::default(); // RFC 3550 §6.4.1: the counts begin anew
            }
            Change::SequenceJump => {
                numbers.sequence_base = numbers.sequence_base.wrapping_add(Impairments::SEQUENCE_JUMP);
            }
            Change::TimestampJump => {
                let leap = TIMESTAMP_JUMP_S * self.plan.clock_rate;
                numbers.timestamp_base = numbers.timestamp_base.wrapping_add(leap);
            }
            Change::PayloadType => {
                let own = self.plan.payload_type;
                let other = if own < FIRST_DYNAMIC {
                    FIRST_DYNAMIC
                } else {
                    own + 1
                };
                let has_own = numbers.payload_type == own;
                numbers.payload_type = if has_own { other.min(127) } else { own };
            }
            Change::Rebind => {}
        }
    }

    /// Counts what left, for the sender reports.
    pub fn count_sent(&mut self, packets: u32, payload_bytes: u32) {
        self.sent.packets = self.sent.packets.wrapping_add(packets);
        self.sent.octets = self.sent.octets.wrapping_add(payload_bytes);
    }

    /// When the next sender report is due; `None` when the stream's time is over.
    pub fn next_report_ns(&self) -> Option<u64> {
        let ends_ns = self.plan.on.last().map_or(0, |time| time.end);
        (self.next_report_ns < ends_ns).then_some(self.next_report_ns)
    }

    /// The sender report due now and its number, or `None` while the stream is off; the next one is due after `interval_ns`.
    pub fn take_report(&mut self, interval_ns: u64, clock: RunClock) -> Option<(u64, SenderReport)> {
        let at_ns = self.next_report_ns;
        self.next_report_ns += interval_ns;
        if !holds(&self.plan.on, at_ns) {
            return None;
        }
        self.reports += 1;
        let report = SenderReport {
            ssrc: self.numbers.ssrc,
            time_ns: clock.start_ns + at_ns,
            timestamp: self.timestamp_at(at_ns),
            packets: self.sent.packets,
            octets: self.sent.octets,
        };
        Some((self.reports - 1, report))
    }

    fn timestamp_at(&self, at_ns: u64) -> u32 {
        self.numbers.timestamp_base.wrapping_add(self.clock.ticks(at_ns))
    }
}

fn holds(times: &[Range<u64>], at_ns: u64) -> bool {
    let at = times.partition_point(|time| time.end <= at_ns);
    times.get(at).is_some_and(|time| time.start <= at_ns)
}

/// A stream's first sequence number and timestamp: anything (RFC 3550 §5.1), as the seed says.
pub(crate) fn first_numbers(seed: u64, stream: u32) -> (u16, u32) {
    let random = mix(seed ^ u64::from(stream).rotate_left(32));
    (random as u16, (random >> 16) as u32)
}

/// RFC 3550 §8.1 wants a name that is the same for all streams of one source and lasts.
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
    use crate::plan::Media;
    use crate::program::Pacing;

    const CLOCK: RunClock = RunClock {
        run: 5,
        start_ns: 1_000,
    };

    fn plan(entry: u32, on: &[Range<u64>]) -> StreamPlan {
        StreamPlan {
            camera: 3,
            media: Media::H264,
            ssrc: 9,
            payload_type: 96,
            clock_rate: 90_000,
            first_sequence: 65_000,
            first_timestamp: 7,
            target: 0,
            program: 0,
            entry,
            night: None,
            on: on.to_vec(),
        }
    }

    fn seconds(from_ms: u64, to_ms: u64) -> Range<u64> {
        from_ms * 1_000_000..to_ms * 1_000_000
    }

    /// Plays a stream to its end and returns (due, packet) of every packet.
    fn play(plan: &StreamPlan, programs: &[Program], impair: &Impairments) -> Vec<(u64, Vec<u8>)> {
        let mut stream = Stream::new(3, plan, programs, impair).expect("it is on");
        let mut all = Vec::new();
        while let Some((due, burst)) = stream.next_burst() {
            if burst.starts_frame {
                stream.begin_frame();
            }
            for packet in burst.packets.clone() {
                let mut out = vec![0; stream.program().packet_bytes(packet)];
                stream.write_packet(packet, due, CLOCK, &mut out);
                all.push((due, out));
            }
            stream.advance();
        }
        all
    }

    fn clip(mbps: f64, pacing: Pacing) -> Vec<Program> {
        vec![Program::new(&Clip::builtin(), mbps, pacing, 8)]
    }

    fn timestamp(packet: &[u8]) -> u32 {
        u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])
    }

    #[test]
    fn sequence_numbers_and_marks_run_on_over_loops_and_wraps() {
        let plan = plan(1, &[seconds(40, 20_040)]);
        let all = play(&plan, &clip(40.0, Pacing::Smooth), &Impairments::default());
        assert!(all.len() > 65_536, "long enough to wrap the sequence");
        for (at, (due, packet)) in all.iter().enumerate() {
            let sequence = u16::from_be_bytes([packet[2], packet[3]]);
            assert_eq!(sequence, 65_000u16.wrapping_add(at as u16));
            let mark = Mark::read(packet, 5).expect("every packet has its mark");
            assert_eq!((mark.stream, mark.sequence), (3, at as u64));
            assert_eq!(mark.intended_ns, 1_000 + due);
        }
    }

    #[test]
    fn due_times_follow_the_rate_to_the_nanosecond_and_timestamps_follow_them() {
        for (ppm, per_ns) in [(0.0, 90_000e-9), (200.0, 90_018e-9)] {
            let impair = Impairments {
                clock_ppm: ppm,
                ..Impairments::default()
            };
            let plan = plan(2, &[seconds(40, 30_040)]);
            let all = play(&plan, &clip(1.0, Pacing::Frame), &impair);
            for (due, packet) in &all {
                let ticks = ((due - 40_000_000) as f64 * per_ns + 1e-6).floor();
                assert_eq!(timestamp(packet).wrapping_sub(7), ticks as u32);
            }
            let bytes: usize = all.iter().map(|(_, packet)| packet.len()).sum();
            let mbps = bytes as f64 * 8.0 / 30e6;
            assert!((mbps - 1.0).abs() < 0.01, "{mbps} Mb/s over 30 s");
            assert!(all.is_sorted_by_key(|(due, _)| *due));
        }
    }

    #[test]
    fn a_stream_begins_each_time_at_a_key_frame_and_ends_it_behind_a_whole_frame() {
        let programs = clip(1.0, Pacing::Smooth);
        for entry in 0..3 {
            let plan = plan(entry, &[seconds(0, 2_000), seconds(3_500, 5_000)]);
            let all = play(&plan, &programs, &Impairments::default());
            let second = all.iter().position(|(due, _)| *due >= 3_500_000_000);
            let second = second.expect("it comes back");
            assert_eq!(all[second].0, 3_500_000_000);
            for first in [&all[0].1, &all[second].1] {
                let payload = &first[crate::rtp::HEADER_BYTES..];
                assert_eq!(payload[0] & 0x1f, 24, "parameter sets come first");
            }
            for last in [&all[second - 1], &all[all.len() - 1]] {
                assert_eq!(last.1[1] & 0x80, 0x80, "the last packet ends its frame");
            }
            assert!(
                all[second - 1].0 < 2_040_000_000,
                "at most a frame beyond its end"
            );
            let pause = timestamp(&all[second].1).wrapping_sub(timestamp(&all[0].1));
            assert_eq!(pause, 315_000, "the clock goes on while nothing is sent");
        }
    }

    #[test]
    fn night_falls_and_day_breaks_at_key_frames() {
        let mut programs = clip(4.0, Pacing::Frame);
        programs.extend(clip(1.0, Pacing::Frame));
        let mut plan = plan(0, &[seconds(0, 20_000)]);
        plan.night = Some((1, vec![seconds(5_500, 12_300)]));
        let mut stream = Stream::new(0, &plan, &programs, &Impairments::default()).expect("it is on");
        let mut changes = vec![(0, stream.program)];
        while let Some((due, burst)) = stream.next_burst() {
            if changes.last().map(|last| last.1) != Some(stream.program) {
                assert!(burst.starts_frame && stream.at_key_frame());
                changes.push((due, stream.program));
            }
            stream.advance();
        }
        let key_ns = programs.iter().map(Program::key_interval_ns).max().expect("two");
        let [(0, 0), (dusk, 1), (dawn, 0)] = changes[..] else {
            panic!("{changes:?}");
        };
        assert!((5_500_000_000..5_500_000_000 + key_ns).contains(&dusk), "{dusk}");
        assert!(
            (12_300_000_000..12_300_000_000 + key_ns).contains(&dawn),
            "{dawn}"
        );
    }

    #[test]
    fn changes_change_what_they_name_and_last() {
        let plan = plan(0, &[seconds(0, 60_000)]);
        let programs = clip(1.0, Pacing::Frame);
        let mut stream = Stream::new(0, &plan, &programs, &Impairments::default()).expect("it is on");
        stream.sequence = 10;
        let first = stream.numbers;
        stream.change(Change::SequenceJump);
        assert_eq!(
            stream.numbers.sequence_base,
            first.sequence_base.wrapping_add(20_000)
        );
        stream.change(Change::TimestampJump);
        assert_eq!(stream.numbers.timestamp_base, 7 + 900_000);
        stream.change(Change::PayloadType);
        assert_eq!(stream.numbers.payload_type, 97);
        stream.change(Change::PayloadType);
        assert_eq!(stream.numbers.payload_type, 96);
        stream.count_sent(5, 5);
        stream.change(Change::Restart {
            ssrc: 77,
            sequence: 4,
            timestamp: 5,
        });
        assert_eq!((stream.ssrc(), stream.sent.packets), (77, 0));
        assert_eq!(stream.numbers.sequence_base.wrapping_add(10), 4);
    }

    #[test]
    fn a_report_ties_the_wall_clock_to_the_rtp_clock_of_the_same_instant() {
        let plan = plan(0, &[500..8_000_000_000, 12_000_000_000..14_000_000_000]);
        let programs = clip(1.0, Pacing::Smooth);
        let mut stream = Stream::new(0, &plan, &programs, &Impairments::default()).expect("it is on");
        stream.count_sent(3, 700);
        assert_eq!(stream.next_report_ns(), Some(500 + FIRST_REPORT_NS));
        let (number, report) = stream.take_report(5_000_000_000, CLOCK).expect("on");
        assert_eq!((number, report.time_ns), (0, 1_500 + FIRST_REPORT_NS));
        assert_eq!(report.timestamp, 7 + 18_000);
        assert_eq!((report.packets, report.octets), (3, 700));
        assert!(stream.take_report(5_000_000_000, CLOCK).is_some());
        assert!(stream.take_report(5_000_000_000, CLOCK).is_none(), "it is off");
        assert_eq!(
            stream.next_report_ns(),
            None,
            "the fourth would fall behind its end"
        );
    }
}
