//! One loop of a stream at one rate: every packet's payload and the moment it is due.
//!
//! All streams of a kind share a few programs, so a stream is a few dozen bytes and sending a packet is a header and a copy.
//! Invariants: packets are in sending order; a burst is packets of one frame that are all [`Program::segment_bytes`] long
//! except at most its last (what one `UDP_SEGMENT` send can carry); burst times never fall within a loop.

use crate::clip::Clip;
use crate::filler::Filler;
use crate::frames::FrameModel;
use crate::packetize::{self, Payloads};
use crate::rtp::HEADER_BYTES;
use std::ops::Range;
use std::sync::Arc;

/// Largest RTP packet unless a profile says otherwise: with IPv6 and UDP headers 1,248 bytes, under the smallest MTU IPv6
/// allows (1,280, RFC 8200 §5).
pub const PACKET_BYTES: usize = 1200;
/// Largest RTP payload of such a packet.
pub const PAYLOAD_BYTES: usize = PACKET_BYTES - HEADER_BYTES;
/// Packets one send may carry: a UDP datagram before segmentation is at most 65,507 bytes, and 54 × 1,200 = 64,800.
pub const BURST_PACKETS_MAX: usize = 54;
/// What a datagram may hold before the kernel cuts it (65,535 less the IPv4 and UDP headers).
const BURST_BYTES_MAX: usize = 65_507;
/// What a loop of clip and filler may take in memory decides this: 100 Mb/s × 3 s = 37.5 MB.
pub const MBPS_MAX: f64 = 100.0;
/// One frame every four seconds; below it nothing is video.
pub const MBPS_MIN: f64 = 0.01;

/// When the packets of a frame leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pacing {
    /// Spread over the frame's interval, in bursts.
    Smooth,
    /// All at the frame's time, as most cameras do: a key frame is a burst at line rate.
    #[value(name = "line-rate", alias = "frame")]
    Frame,
}

/// Packets that leave together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burst {
    /// Due, from the start of the loop.
    pub at_ns: u64,
    /// The time of its frame, which its RTP timestamp states.
    pub frame_at_ns: u64,
    /// Which packets of the program.
    pub packets: Range<usize>,
    pub starts_frame: bool,
    /// Its last packet ends a picture, and carries the marker (RFC 6184 §5.1, RFC 7798 §4.1).
    pub ends_frame: bool,
}

/// A place where a stream may begin: a frame. Of a clip only its key frames, so that what is recorded plays from the start;
/// of filler, which nobody plays, any frame, so that the load is even from the first moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub burst: usize,
    pub at_ns: u64,
    pub key: bool,
}

/// What is common to all frames of a program when they are cut into bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bursting {
    pub pacing: Pacing,
    /// Packets that may leave back to back, 1 to [`BURST_PACKETS_MAX`].
    pub packets: usize,
}

pub struct Program {
    /// Where each packet's payload stands in `bytes`.
    payloads: Vec<Slice>,
    bytes: Arc<[u8]>,
    pub bursts: Vec<Burst>,
    pub entries: Vec<Entry>,
    pub loop_ns: u64,
    /// Bytes of all RTP packets of one loop, headers included.
    pub loop_bytes: u64,
    /// Bytes of each packet of a burst but its last, RTP header and mark included.
    pub segment_bytes: usize,
}

/// A part of a buffer: 8 bytes, because a loop has thousands.
#[derive(Clone, Copy)]
struct Slice {
    at: u32,
    len: u32,
}

impl From<Range<usize>> for Slice {
    fn from(range: Range<usize>) -> Slice {
        let fit = |value: usize| u32::try_from(value).expect("a loop has less than 4 GiB of payloads");
        Slice {
            at: fit(range.start),
            len: fit(range.len()),
        }
    }
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
                .map(|frame| wire_bytes(packetize_frame(clip, frame, &mut all), &all))
                .sum::<usize>()
        };
        let filler_share = (bits_per_s * native_s / 8.0 / native_bytes as f64 - 1.0).max(0.0);
        let mut owed = 0.0;
        for frame in frames {
            let mut range = packetize_frame(clip, frame, &mut payloads);
            owed += filler_share * wire_bytes(range.clone(), &payloads) as f64;
            owed -= packetize::filler(owed as usize, HEADER_BYTES, PAYLOAD_BYTES, &mut payloads) as f64;
            range.end = payloads.len();
            ranges.push((range, frame.key));
        }

        // From the bytes really laid out, so that the rate is exact whatever rounding the filler left.
        let loop_bytes = wire_bytes(0..payloads.len(), &payloads) as u64;
        let loop_ns = (loop_bytes as f64 * 8e9 / bits_per_s) as u64;
        let slices = (0..payloads.len()).map(|at| payloads.range(at).into()).collect();
        let mut program = Program::empty(slices, payloads.into_bytes().into(), loop_ns, PACKET_BYTES);
        let bursting = Bursting {
            pacing,
            packets: burst_packets,
        };
        program.lay_out(&ranges, bursting);
        program.entries.retain(|entry| entry.key);
        program
    }

    /// Lays out frames of filler as large as `model` and `seed` say, at exactly the model's frame rate: programs of one
    /// frame rate and group of pictures keep step with each other for ever.
    pub fn filler(
        model: &FrameModel,
        filler: &Filler,
        packet_bytes: usize,
        seed: u64,
        bursting: Bursting,
    ) -> Program {
        let sizes = model.sizes(seed, crate::filler::PACKET_BYTES_MIN as f64);
        let loop_ns = (sizes.len() as f64 * 1e9 / model.fps) as u64;
        let is_key = |at: usize| at.is_multiple_of(model.gop as usize);
        Program::of_frames(&sizes, is_key, filler, packet_bytes, loop_ns, bursting)
    }

    /// One packet every 20 ms.
    pub fn pcmu(filler: &Filler) -> Program {
        let packet_bytes = HEADER_BYTES + crate::filler::PCMU_BYTES;
        let bursting = Bursting {
            pacing: Pacing::Frame,
            packets: 1,
        };
        let frames = [0.0; PCMU_FRAMES];
        let mut program = Program::of_frames(&frames, |_| true, filler, packet_bytes, PCMU_LOOP_NS, bursting);
        // Audio's marker begins a talkspurt (RFC 3551 §4.1), and this is one that never pauses.
        program
            .bursts
            .iter_mut()
            .for_each(|burst| burst.ends_frame = false);
        program
    }

    fn of_frames(
        sizes: &[f64],
        is_key: impl Fn(usize) -> bool,
        filler: &Filler,
        packet_bytes: usize,
        loop_ns: u64,
        bursting: Bursting,
    ) -> Program {
        let (mut slices, mut frames) = (Vec::new(), Vec::with_capacity(sizes.len()));
        let mut owed = 0.0;
        for (at, size) in sizes.iter().enumerate() {
            let first = slices.len();
            owed += size;
            owed -= filler.frame(owed, &mut slices) as f64;
            frames.push((first..slices.len(), is_key(at)));
        }
        let slices = slices.into_iter().map(Slice::from).collect();
        let mut program = Program::empty(slices, filler.bytes(), loop_ns, packet_bytes);
        program.lay_out(&frames, bursting);
        program
    }

    fn empty(payloads: Vec<Slice>, bytes: Arc<[u8]>, loop_ns: u64, segment_bytes: usize) -> Program {
        let loop_bytes = payloads
            .iter()
            .map(|slice| (HEADER_BYTES as u32 + slice.len) as u64)
            .sum();
        Program {
            payloads,
            bytes,
            bursts: Vec::new(),
            entries: Vec::new(),
            loop_ns,
            loop_bytes,
            segment_bytes,
        }
    }

    /// The longest time between key frames, the one from a loop's last to the next loop's first included.
    pub fn key_interval_ns(&self) -> u64 {
        let keys = || {
            self.entries
                .iter()
                .filter(|entry| entry.key)
                .map(|entry| entry.at_ns)
        };
        let again = keys().next().map(|first| first + self.loop_ns);
        keys()
            .zip(keys().skip(1).chain(again))
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
        let slice = self.payloads[packet];
        &self.bytes[slice.at as usize..(slice.at + slice.len) as usize]
    }

    pub fn packet_bytes(&self, packet: usize) -> usize {
        HEADER_BYTES + self.payloads[packet].len as usize
    }

    /// Bits per second of its packets, headers included.
    pub fn bits_per_s(&self) -> f64 {
        self.loop_bytes as f64 * 8e9 / self.loop_ns as f64
    }

    /// What it takes in memory, without the buffer of payloads that it may share.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.payloads) + size_of_val(&*self.bursts) + size_of_val(&*self.entries)
    }

    /// Gives each frame (its packets, and whether it is a key frame) its even share of the loop's time, and an entry.
    fn lay_out(&mut self, frames: &[(Range<usize>, bool)], bursting: Bursting) {
        let count = frames.len() as u64;
        for (at, (packets, key)) in (0..).zip(frames) {
            let from_ns = self.loop_ns * at / count;
            let to_ns = self.loop_ns * (at + 1) / count;
            self.entries.push(Entry {
                burst: self.bursts.len(),
                at_ns: from_ns,
                key: *key,
            });
            self.lay_out_frame(packets.clone(), from_ns..to_ns, bursting);
        }
    }

    /// Cuts a frame into bursts and gives each its time: with [`Pacing::Smooth`] where its first byte falls in the interval.
    fn lay_out_frame(&mut self, packets: Range<usize>, interval: Range<u64>, bursting: Bursting) {
        let most = bursting.packets.min(BURST_BYTES_MAX / self.segment_bytes);
        let frame_bytes = self.wire_bytes(packets.clone());
        let (mut before, mut first) = (0, packets.start);
        while first < packets.end {
            let full = |packet: &usize| self.packet_bytes(*packet) == self.segment_bytes;
            let run = (first..packets.end).take(most).take_while(full).count();
            let tail = usize::from(run < most && first + run < packets.end);
            let burst = first..first + run + tail;
            let offset_ns = match bursting.pacing {
                Pacing::Smooth => (interval.end - interval.start) * before / frame_bytes,
                Pacing::Frame => 0,
            };
            before += self.wire_bytes(burst.clone());
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

    fn wire_bytes(&self, packets: Range<usize>) -> u64 {
        packets.map(|packet| self.packet_bytes(packet) as u64).sum()
    }
}

/// A second of audio.
const PCMU_FRAMES: usize = 50;
const PCMU_LOOP_NS: u64 = 1_000_000_000;

fn packetize_frame(clip: &Clip, frame: &crate::clip::Frame, out: &mut Payloads) -> Range<usize> {
    packetize::frame(clip.nals(frame), PAYLOAD_BYTES, out)
}

fn wire_bytes(packets: Range<usize>, payloads: &Payloads) -> usize {
    packets.map(|at| HEADER_BYTES + payloads.get(at).len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Media;

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

    fn filler_program(model: &FrameModel, seed: u64, bursting: Bursting) -> Program {
        Program::filler(model, &Filler::new(Media::H264, 1200), 1200, seed, bursting)
    }

    const MODEL: FrameModel = FrameModel {
        mbps: 2.0,
        fps: 25.0,
        gop: 50,
        i_to_p: 8.0,
        sigma: 0.35,
    };

    #[test]
    fn filler_keeps_the_rate_the_frame_rate_and_the_ratio_of_its_frames() {
        let line_rate = Bursting {
            pacing: Pacing::Frame,
            packets: 54,
        };
        for (mbps, fps, gop) in [
            (2.0, 25.0, 50),
            (0.1, 5.0, 50),
            (20.0, 30.0, 300),
            (6.0, 29.97, 60),
        ] {
            let model = FrameModel {
                mbps,
                fps,
                gop,
                ..MODEL
            };
            let program = filler_program(&model, 4, line_rate);
            let rate = program.bits_per_s() / 1e6;
            assert!((rate / mbps - 1.0).abs() < 1e-3, "asked {mbps}, laid out {rate}");
            let seconds = program.loop_ns as f64 / 1e9;
            assert!((program.entries.len() as f64 / seconds / fps - 1.0).abs() < 1e-6);
            let size = |key: bool| {
                let of_kind: Vec<u64> = (0..program.entries.len())
                    .filter(|&at| program.entries[at].key == key)
                    .map(|at| {
                        let end = program
                            .entries
                            .get(at + 1)
                            .map_or(program.bursts.len(), |next| next.burst);
                        let bursts = &program.bursts[program.entries[at].burst..end];
                        bursts
                            .iter()
                            .map(|burst| program.wire_bytes(burst.packets.clone()))
                            .sum()
                    })
                    .collect();
                of_kind.iter().sum::<u64>() as f64 / of_kind.len() as f64
            };
            let ratio = size(true) / size(false);
            assert!(
                (ratio / 8.0 - 1.0).abs() < 0.02,
                "at {mbps} Mb/s I-frames are {ratio} P-frames"
            );
            let gop_ns = program.key_interval_ns() as f64;
            assert!((gop_ns * fps / 1e9 / f64::from(gop) - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_burst_of_filler_never_outgrows_a_datagram() {
        let model = FrameModel { mbps: 40.0, ..MODEL };
        let bursting = Bursting {
            pacing: Pacing::Frame,
            packets: 54,
        };
        let program = Program::filler(&model, &Filler::new(Media::H265, 1472), 1472, 1, bursting);
        let longest = program.bursts.iter().map(|burst| burst.packets.len()).max();
        assert_eq!(longest, Some(44));
        for burst in &program.bursts {
            assert!(program.wire_bytes(burst.packets.clone()) <= 65_507);
            let (last, full) = (burst.packets.end - 1, burst.packets.start..burst.packets.end - 1);
            assert!(
                full.into_iter()
                    .all(|packet| program.packet_bytes(packet) == 1472)
            );
            assert!(program.packet_bytes(last) <= 1472);
        }
    }

    #[test]
    fn audio_is_a_small_packet_every_20_ms() {
        let program = Program::pcmu(&Filler::new(Media::Pcmu, 1200));
        assert_eq!((program.packets(), program.segment_bytes), (50, 208));
        assert!(
            program
                .bursts
                .iter()
                .enumerate()
                .all(|(at, burst)| burst.at_ns == 20_000_000 * at as u64)
        );
        assert!((program.bits_per_s() - 83_200.0).abs() < 1e-6);
        assert!(
            program.bursts.iter().all(|burst| !burst.ends_frame),
            "no packet has a marker"
        );
    }
}
