//! What a clone sends: the captured packet, with numbers of its own.
//!
//! A clone has its own SSRCs, and its sequence numbers and timestamps begin elsewhere (RFC 3550 §5.1); a packet sent again in a
//! later loop goes on where the loop before ended. Nothing else of a packet changes, and no two packets of a replay are equal
//! that were not in the capture, so that `verify` knows each by its bytes. Sender reports follow: SSRC, RTP time and wall
//! clock.

use super::find::{Found, Packet, Stream, u16_at, u32_at};
use crate::camera::mix;
use crate::mark::{MARK_BYTES, Mark};

/// Odd, so that no two SSRCs of a replay are equal (as the fleet's are, see [`crate::spec`]).
const SSRC_STEP: u32 = 0x9e37_79b1;
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const FEEDBACK: std::ops::RangeInclusive<u8> = 205..=206;
const REPORT_BLOCK_BYTES: usize = 24;
const EXTENSION: u8 = 0x10;

/// One stream of one clone.
#[derive(Debug, Clone, PartialEq)]
pub struct CloneStream {
    pub ssrc: u32,
    captured_ssrc: u32,
    sequence_offset: u16,
    time_offset: u32,
    /// What a loop adds.
    sequence_span: u64,
    ticks_per_loop: f64,
}

/// Where a packet stands in its replay.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// How often the capture was sent through before.
    pub repetition: u64,
    /// What to add to the capture's wall clock.
    pub later_ns: i128,
    /// The key of the run and the mark to put in; packets with a header extension of their own get none.
    pub mark: Option<(u64, Mark)>,
}

impl CloneStream {
    /// The clone of a stream that has number `index` of all. With `keep` it has the numbers of the capture.
    pub fn new(stream: &Stream, index: u32, seed: u64, loop_ns: u64, keep: bool) -> CloneStream {
        let random = mix(seed ^ u64::from(index).rotate_left(32));
        let ssrc = (mix(seed) as u32).wrapping_add(index.wrapping_mul(SSRC_STEP));
        CloneStream {
            ssrc: if keep { stream.ssrc } else { ssrc },
            captured_ssrc: stream.ssrc,
            sequence_offset: if keep { 0 } else { random as u16 },
            time_offset: if keep { 0 } else { (random >> 16) as u32 },
            sequence_span: stream.sequence_span,
            ticks_per_loop: stream.clock * loop_ns as f64 / 1e9,
        }
    }

    /// Writes a packet as this clone sends it.
    pub fn write(&self, found: &Found, packet: &Packet, turn: &Turn, out: &mut Vec<u8>) {
        let captured = found.bytes(packet);
        out.clear();
        if packet.rtcp {
            out.extend_from_slice(captured);
            self.rewrite_reports(out, turn);
            return;
        }
        let sources = usize::from(captured[0] & 0x0f);
        let (head, rest) = captured.split_at(12 + 4 * sources);
        out.extend_from_slice(head);
        if let Some((run, mark)) = turn.mark.filter(|_| head[0] & EXTENSION == 0) {
            let mut extension = [0; MARK_BYTES];
            mark.write(run, &mut extension);
            out.extend_from_slice(&extension);
            out[0] |= EXTENSION;
        }
        out.extend_from_slice(rest);

        let sequence = u16_at(captured, 2)
            .wrapping_add(self.sequence_offset)
            .wrapping_add((turn.repetition * self.sequence_span) as u16);
        out[2..4].copy_from_slice(&sequence.to_be_bytes());
        out[4..8].copy_from_slice(&self.time(u32_at(captured, 4), turn).to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
    }

    fn time(&self, captured: u32, turn: &Turn) -> u32 {
        let ticks = (turn.repetition as f64 * self.ticks_per_loop).round() as u64;
        captured.wrapping_add(self.time_offset).wrapping_add(ticks as u32)
    }

    /// The packets of a compound, one after the other (RFC 3550 §6.1). Their lengths were checked when it was found; what is
    /// inside of one may still be cut.
    fn rewrite_reports(&self, compound: &mut [u8], turn: &Turn) {
        let mut rest = compound;
        while rest.len() >= 4 {
            let len = 4 * (usize::from(u16_at(rest, 2)) + 1);
            let Some((packet, behind)) = rest.split_at_mut_checked(len) else {
                return;
            };
            self.rewrite_report(packet, turn);
            rest = behind;
        }
    }

    fn rewrite_report(&self, packet: &mut [u8], turn: &Turn) {
        let count = usize::from(packet[0] & 0x1f);
        match packet[1] {
            SENDER_REPORT => {
                self.rewrite_ssrc(packet, 4);
                if packet.len() >= 20 {
                    let clock = u64::from(u32_at(packet, 8)) << 32 | u64::from(u32_at(packet, 12));
                    packet[8..16].copy_from_slice(&later(clock, turn.later_ns).to_be_bytes());
                    let time = self.time(u32_at(packet, 16), turn);
                    packet[16..20].copy_from_slice(&time.to_be_bytes());
                }
                (0..count).for_each(|block| self.rewrite_ssrc(packet, 28 + block * REPORT_BLOCK_BYTES));
            }
            RECEIVER_REPORT => {
                self.rewrite_ssrc(packet, 4);
                (0..count).for_each(|block| self.rewrite_ssrc(packet, 8 + block * REPORT_BLOCK_BYTES));
            }
            SOURCE_DESCRIPTION => {
                let mut at = 4;
                for _ in 0..count {
                    self.rewrite_ssrc(packet, at);
                    at = after_chunk(packet, at);
                }
            }
            GOODBYE => (0..count).for_each(|source| self.rewrite_ssrc(packet, 4 + 4 * source)),
            kind if FEEDBACK.contains(&kind) => {
                self.rewrite_ssrc(packet, 4);
                self.rewrite_ssrc(packet, 8);
            }
            _ => self.rewrite_ssrc(packet, 4),
        }
    }

    fn rewrite_ssrc(&self, packet: &mut [u8], at: usize) {
        if let Some(ssrc) = packet.get_mut(at..at + 4)
            && u32_at(ssrc, 0) == self.captured_ssrc
        {
            ssrc.copy_from_slice(&self.ssrc.to_be_bytes());
        }
    }
}

/// An NTP time, moved by nanoseconds.
fn later(ntp: u64, ns: i128) -> u64 {
    let fraction = (ns << 32) / 1_000_000_000;
    ntp.wrapping_add(fraction as u64)
}

/// Behind the chunk at `at` of a source description: items up to a zero, then up to a multiple of four (RFC 3550 §6.5).
fn after_chunk(packet: &[u8], at: usize) -> usize {
    let mut item = at + 4;
    while let Some(&kind) = packet.get(item) {
        if kind == 0 {
            return (item + 1).next_multiple_of(4);
        }
        item += 2 + packet.get(item + 1).map_or(0, |&len| usize::from(len));
    }
    packet.len()
}

#[cfg(test)]
mod tests {
    use super::super::find::tests::{found, rtp, sender_report};
    use super::super::link::tests::ipv4_packet;
    use super::*;
    use std::collections::HashSet;

    const FIRST: Turn = Turn {
        repetition: 0,
        later_ns: 0,
        mark: None,
    };

    fn capture() -> Found {
        let packet = |n: u16| rtp(65_530u16.wrapping_add(n), 1_000 + 900 * u32::from(n), 7);
        let mut packets: Vec<_> = (0..100)
            .map(|n| (u64::from(n) * 10_000_000, ipv4_packet(5004, &packet(n))))
            .collect();
        packets.push((500_000_000, ipv4_packet(5005, &sender_report(7, 46_000))));
        found(&packets, &[])
    }

    fn written(found: &Found, clone: &CloneStream, turn: Turn) -> Vec<Vec<u8>> {
        let write = |packet: &Packet| {
            let mut out = Vec::new();
            clone.write(found, packet, &turn, &mut out);
            out
        };
        found.streams[0].packets.iter().map(write).collect()
    }

    #[test]
    fn numbers_run_on_over_loops_and_their_ends() {
        let found = capture();
        let clone = CloneStream::new(&found.streams[0], 3, 1, 1_000_000_000, false);
        let mut all = Vec::new();
        for repetition in 0..1000 {
            let turn = Turn { repetition, ..FIRST };
            all.extend(
                written(&found, &clone, turn)
                    .into_iter()
                    .filter(|packet| packet[1] == 96),
            );
        }
        for pair in all.windows(2) {
            assert_eq!(u16_at(&pair[1], 2).wrapping_sub(u16_at(&pair[0], 2)), 1);
            assert_eq!(u32_at(&pair[1], 4).wrapping_sub(u32_at(&pair[0], 4)), 900);
            assert_eq!(u32_at(&pair[0], 8), clone.ssrc);
        }
    }

    #[test]
    fn clones_differ_in_every_number_and_payload_stays() {
        let found = capture();
        let mut seen = HashSet::new();
        for index in 0..50 {
            let clone = CloneStream::new(&found.streams[0], index, 1, 1_000_000_000, false);
            for (packet, captured) in written(&found, &clone, FIRST)
                .into_iter()
                .zip(&found.streams[0].packets)
            {
                if !captured.rtcp {
                    assert_eq!(packet[12..], found.bytes(captured)[12..]);
                    assert!(seen.insert(packet), "two equal packets");
                }
            }
        }
    }

    #[test]
    fn the_numbers_of_the_capture_can_be_kept() {
        let found = capture();
        let clone = CloneStream::new(&found.streams[0], 0, 1, 1_000_000_000, true);
        for (packet, captured) in written(&found, &clone, FIRST)
            .iter()
            .zip(&found.streams[0].packets)
        {
            assert_eq!(packet, found.bytes(captured));
        }
    }

    #[test]
    fn reports_follow_with_their_stream_and_the_clock_of_the_wall() {
        let found = capture();
        let clone = CloneStream::new(&found.streams[0], 3, 1, 1_000_000_000, false);
        let turn = Turn {
            repetition: 2,
            later_ns: 1_500_000_000,
            mark: None,
        };
        let packets = written(&found, &clone, turn);
        let report = packets
            .iter()
            .find(|packet| packet[1] == SENDER_REPORT)
            .expect("one report");
        let captured = sender_report(7, 46_000);
        assert_eq!(report.len(), captured.len());
        let (ssrc, description) = (u32_at(report, 4), u32_at(report, 28 + 4));
        assert_eq!((ssrc, description), (clone.ssrc, clone.ssrc));
        assert_eq!(u32_at(report, 8), u32_at(&captured, 8) + 1);
        assert_eq!(u32_at(report, 12), 1 << 31, "half a second");
        // The report keeps its place on the stream's clock: 1,000 ticks after the packet at 45,000 + 1,000.
        let rtp_first = u32_at(&packets[0], 4);
        assert_eq!(u32_at(report, 16).wrapping_sub(rtp_first), 45_000);
    }

    #[test]
    fn every_ssrc_of_a_compound_is_the_clones_and_others_stay() {
        let found = capture();
        let clone = CloneStream::new(&found.streams[0], 3, 1, 1, false);
        let words = |head: [u8; 4], words: &[u32]| {
            let mut bytes = head.to_vec();
            words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
            bytes
        };
        let block = |ssrc| [ssrc, 1, 2, 3, 4, 5];
        let mut compound = words(
            [0x82, RECEIVER_REPORT, 0, 13],
            &[&[7][..], &block(8), &block(7)].concat(),
        );
        compound.extend(words([0x82, GOODBYE, 0, 2], &[9, 7]));
        compound.extend(words([0x81, 205, 0, 2], &[8, 7]));
        // Two chunks: SSRC 7 with one item of three bytes, SSRC 7 with none.
        compound.extend(words(
            [0x82, SOURCE_DESCRIPTION, 0, 5],
            &[7, 0x0103_6162, 0x6300_0000, 7, 0],
        ));
        let before = compound.clone();
        clone.rewrite_reports(&mut compound, &FIRST);
        let changed: Vec<usize> = (0..before.len() / 4)
            .filter(|word| u32_at(&before, 4 * word) != u32_at(&compound, 4 * word))
            .collect();
        let sevens: Vec<usize> = (0..before.len() / 4)
            .filter(|word| u32_at(&before, 4 * word) == 7)
            .collect();
        assert_eq!(changed, sevens);
        assert_eq!(changed.len(), 6);
        for len in 0..before.len() {
            clone.rewrite_reports(&mut before[..len].to_vec(), &FIRST); // no panic
        }
    }

    #[test]
    fn a_mark_is_put_in_where_no_other_extension_is() {
        let found = capture();
        let clone = CloneStream::new(&found.streams[0], 3, 1, 1, false);
        let mark = Mark {
            stream: 3,
            sequence: 5,
            intended_ns: 6,
        };
        let turn = Turn {
            mark: Some((99, mark)),
            ..FIRST
        };
        let packets = written(&found, &clone, turn);
        assert_eq!(Mark::read(&packets[0], 99), Some(mark));
        assert_eq!(
            packets[0][12 + MARK_BYTES..],
            found.bytes(&found.streams[0].packets[0])[12..]
        );
    }
}
