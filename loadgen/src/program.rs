//! One loop of the clip at one rate: every packet's payload and the moment it is due.
//!
//! All cameras of a rate share one program, so a camera is a few dozen bytes and sending a packet is a header and a copy.
//! Invariants: packets are in sending order; a burst is packets of one frame that are all [`Program::segment_bytes`] long
//! except at most its last (what one `UDP_SEGMENT` send can carry); burst times never fall within a loop.

use crate::clip::Clip;
use crate::packetize::{self, Payloads};
use crate::rtp::HEADER_BYTES;
use std::ops::Range;

/// Largest RTP packet: with IPv6 and UDP headers 1,248 bytes, under the smallest MTU IPv6 allows (1,280, RFC 8200 §5).
pub const PACKET_BYTES: usize = 1200;
/// Largest RTP payload.
pub const PAYLOAD_BYTES: usize = PACKET_BYTES - HEADER_BYTES;
/// Packets one send may carry: a UDP datagram before segmentation is at most 65,507 bytes, and 54 × 1,200 = 64,800.
pub const BURST_PACKETS_MAX: usize = 54;
/// What a loop of filler may take in memory decides this: 100 Mb/s × 3 s = 37.5 MB.
pub const MBPS_MAX: f64 = 100.0;
/// One frame every four seconds; below it nothing is video.
pub const MBPS_MIN: f64 = 0.01;

/// When the packets of a frame leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pacing {
    /// Spread over the frame's interval, in bursts.
    Smooth,
    /// All at the frame's time, as most cameras do: a key frame is a burst at line rate.
    Frame,
}

/// Packets that leave together.
pub struct Burst {
    /// Due, from the start of the loop.
    pub at_ns: u64,
    /// The time of its frame, which its RTP timestamp states.
    pub frame_at_ns: u64,
    /// Which packets of the program.
    pub packets: Range<usize>,
    pub starts_frame: bool,
    pub ends_frame: bool,
}

/// A place where a camera may begin: a key frame.
pub struct Entry {
    pub burst: usize,
    pub at_ns: u64,
}

pub struct Program {
    payloads: Payloads,
    pub bursts: Vec<Burst>,
    pub entries: Vec<Entry>,
    pub loop_ns: u64,
    /// Bytes of all RTP packets of one loop, headers included.
    pub loop_bytes: u64,
    /// Bytes of each packet of a burst but its last, RTP header and mark included.
    pub segment_bytes: usize,
}

impl Program {
    /// Lays out `clip` at `mbps` (RTP packets, headers included; 1 Mb = 10^6 bits). Below the clip's own rate frames come
    /// more slowly; above it each frame is followed by filler, in proportion, so that key frames stay the large ones.
    pub fn new(clip: &Clip, mbps: f64, pacing: Pacing, burst_packets: usize) -> Program {
        let bits_per_s = mbps * 1e6;
        let frames = clip.frames();
        let native_s = frames.len() as f64 / f64::from(clip.fps());
        let mut payloads = Payloads::default();
        let mut ranges = Vec::with_capacity(frames.len());

        let native_bytes = {
            let mut all = Payloads::default();
            frames
                .iter()
                .map(|frame| wire_bytes(&packetize_frame(clip, frame, &mut all), &all))
                .sum::<usize>()
        };
        let filler_share = (bits_per_s * native_s / 8.0 / native_bytes as f64 - 1.0).max(0.0);
        let mut owed = 0.0;
        for frame in frames {
            let mut range = packetize_frame(clip, frame, &mut payloads);
            owed += filler_share * wire_bytes(&range, &payloads) as f64;
            owed -= packetize::filler(owed as usize, HEADER_BYTES, PAYLOAD_BYTES, &mut payloads) as f64;
            range.end = payloads.len();
            ranges.push(range);
        }

        // From the bytes really laid out, so that the rate is exact whatever rounding the filler left.
        let loop_bytes = wire_bytes(&(0..payloads.len()), &payloads) as u64;
        let loop_ns = (loop_bytes as f64 * 8e9 / bits_per_s) as u64;
        let mut program = Program {
            payloads,
            bursts: Vec::new(),
            entries: Vec::new(),
            loop_ns,
            loop_bytes,
            segment_bytes: PACKET_BYTES,
        };
        for (at, (range, frame)) in ranges.iter().zip(frames).enumerate() {
            let from_ns = loop_ns * at as u64 / frames.len() as u64;
            let to_ns = loop_ns * (at as u64 + 1) / frames.len() as u64;
            if frame.key {
                program.entries.push(Entry {
                    burst: program.bursts.len(),
                    at_ns: from_ns,
                });
            }
            program.lay_out(range.clone(), from_ns..to_ns, pacing, burst_packets);
        }
        program
    }

    /// The longest time between key frames, which is the time from the last to the first of the next loop or any before.
    pub fn key_interval_ns(&self) -> u64 {
        let starts = self.entries.iter().map(|entry| entry.at_ns);
        let ends = starts.clone().skip(1).chain([self.loop_ns]);
        starts
            .zip(ends)
            .map(|(start, end)| end - start)
            .max()
            .unwrap_or(self.loop_ns)
    }

    /// Packets of one loop.
    pub fn packets(&self) -> usize {
        self.payloads.len()
    }

    /// The bytes of a packet behind its RTP header and mark.
    pub fn payload(&self, packet: usize) -> &[u8] {
        self.payloads.get(packet)
    }

    pub fn packet_bytes(&self, packet: usize) -> usize {
        HEADER_BYTES + self.payload(packet).len()
    }

    /// Cuts a frame into bursts and gives each its time: with [`Pacing::Smooth`] where its first byte falls in the interval.
    fn lay_out(&mut self, packets: Range<usize>, interval: Range<u64>, pacing: Pacing, burst_packets: usize) {
        let frame_bytes = wire_bytes(&packets, &self.payloads) as u64;
        let (mut before, mut first) = (0, packets.start);
        while first < packets.end {
            let full = |packet: &usize| self.packet_bytes(*packet) == self.segment_bytes;
            let run = (first..packets.end).take(burst_packets).take_while(full).count();
            let tail = usize::from(run < burst_packets && first + run < packets.end);
            let burst = first..first + run + tail;
            let offset_ns = match pacing {
                Pacing::Smooth => (interval.end - interval.start) * before / frame_bytes,
                Pacing::Frame => 0,
            };
            before += wire_bytes(&burst, &self.payloads) as u64;
            self.bursts.push(Burst {
                at_ns: interval.start + offset_ns,
                frame_at_ns: interval.start,
                starts_frame: burst.start == packets.start,
                ends_frame: burst.end == packets.end,
                packets: burst.clone(),
            });
            first = burst.end;
        }
    }
}

fn packetize_frame(clip: &Clip, frame: &crate::clip::Frame, out: &mut Payloads) -> Range<usize> {
    packetize::frame(clip.nals(frame), PAYLOAD_BYTES, out)
}

fn wire_bytes(packets: &Range<usize>, payloads: &Payloads) -> usize {
    packets
        .clone()
        .map(|at| HEADER_BYTES + payloads.get(at).len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(mbps: f64, pacing: Pacing) -> Program {
        Program::new(&Clip::builtin(), mbps, pacing, 8)
    }

    #[test]
    fn the_rate_is_exact_below_at_and_above_the_clips_own() {
        for mbps in [0.05, 0.5, 1.0, 1.01, 2.0, 7.3, 40.0] {
            let program = program(mbps, Pacing::Smooth);
            let really = program.loop_bytes as f64 * 8e3 / program.loop_ns as f64;
            assert!(
                (really / mbps - 1.0).abs() < 1e-6,
                "asked {mbps}, laid out {really}"
            );
        }
    }

    #[test]
    fn above_its_own_rate_the_clip_keeps_its_frame_rate_and_below_it_slows() {
        let seconds = |mbps| program(mbps, Pacing::Smooth).loop_ns as f64 / 1e9;
        assert!((seconds(4.0) - 3.0).abs() < 0.003);
        assert!((seconds(0.5) - 6.0).abs() < 0.1);
    }

    #[test]
    fn a_burst_is_full_packets_with_at_most_its_last_one_shorter() {
        for (mbps, pacing) in [(1.0, Pacing::Smooth), (3.0, Pacing::Frame)] {
            let program = program(mbps, pacing);
            let mut next = 0;
            for burst in &program.bursts {
                assert_eq!(burst.packets.start, next);
                next = burst.packets.end;
                assert!((1..=8).contains(&burst.packets.len()));
                for packet in burst.packets.start..burst.packets.end - 1 {
                    assert_eq!(program.packet_bytes(packet), program.segment_bytes);
                }
            }
            assert_eq!(next, program.packets());
        }
    }

    #[test]
    fn smoothed_bursts_spread_over_the_frame_and_never_go_back() {
        let program = program(1.0, Pacing::Smooth);
        assert!(program.bursts.is_sorted_by_key(|burst| burst.at_ns));
        let key_frame = &program.bursts[..program.entries[1].burst];
        let key_frame: Vec<&Burst> = key_frame.iter().filter(|burst| burst.frame_at_ns == 0).collect();
        assert!(key_frame.len() >= 3);
        let last = key_frame[key_frame.len() - 1];
        assert!(last.ends_frame && last.at_ns > program.loop_ns / 75 / 3);
    }

    #[test]
    fn cameras_may_begin_at_each_key_frame() {
        let program = program(1.0, Pacing::Smooth);
        assert_eq!(program.entries.len(), 3);
        assert!(
            program
                .entries
                .iter()
                .all(|entry| program.bursts[entry.burst].starts_frame)
        );
        assert!(program.key_interval_ns() >= program.loop_ns / 3);
    }
}
