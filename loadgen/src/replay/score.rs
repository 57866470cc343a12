//! When each packet of each clone is due: decided beforehand, pure.
//!
//! A clone goes through the capture at its own pace of 1/speed, as often as asked; clones begin spread over a while, so that
//! their key frames do not come together (they would, being of one capture). Loops follow each other with the gap that the
//! busiest stream has between two packets.

use super::clones::CloneStream;
use super::find::{Found, Packet};
use crate::spec::golden_share;

/// Clones begin within this time at most, as a fleet's cameras do over a key frame interval.
const SPREAD_NS_MAX: u64 = 2_000_000_000;
/// A stream costs its lanes of the sent log, as a fleet's does.
pub const STREAMS_MAX: u64 = 1_000_000;

/// How to replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    pub clones: u32,
    /// 2.0: in half the time.
    pub speed: f64,
    /// How often to send the capture.
    pub loops: u64,
    /// Clones begin within this time; `None`: over the capture's length, at most two seconds.
    pub spread_s: Option<f64>,
    pub seed: u64,
    /// The numbers of the capture; for one clone.
    pub keep: bool,
}

/// Why a replay cannot be.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TimesError {
    #[error("there are 1 to {STREAMS_MAX} streams in a replay; {0} clones of {1} streams are more")]
    Streams(u32, usize),
    #[error("a replay has at least one clone")]
    NoClone,
    #[error("speed must be 0.001 to 1000, not {0}")]
    Speed(f64),
    #[error("a capture is sent 1 to 10^9 times, not {0} times")]
    Loops(u64),
    #[error("clones begin within 0 to 3600 s, not {0} s")]
    Spread(f64),
    #[error(
        "with their own numbers kept, two clones could not be told from each other; leave out --keep, or --clone"
    )]
    Keep,
}

/// The replay, as far as it has come.
pub struct Score<'a> {
    found: &'a Found,
    times: Times,
    loop_ns: u64,
    parts: Vec<Part>,
}

/// One stream of one clone.
struct Part {
    stream: usize,
    clone: CloneStream,
    begins_ns: u64,
    repetition: u64,
    next: usize,
}

/// A packet whose turn it is.
pub struct Due<'a> {
    pub packet: &'a Packet,
    pub clone: &'a CloneStream,
    pub repetition: u64,
    pub at_ns: u64,
}

impl Times {
    pub fn check(&self, streams: usize) -> Result<(), TimesError> {
        if self.clones == 0 {
            return Err(TimesError::NoClone);
        }
        if u64::from(self.clones) * streams as u64 > STREAMS_MAX {
            return Err(TimesError::Streams(self.clones, streams));
        }
        if !(0.001..=1000.0).contains(&self.speed) {
            return Err(TimesError::Speed(self.speed));
        }
        if !(1..=1_000_000_000).contains(&self.loops) {
            return Err(TimesError::Loops(self.loops));
        }
        match self.spread_s {
            Some(spread) if !(0.0..=3600.0).contains(&spread) => Err(TimesError::Spread(spread)),
            _ if self.keep && self.clones > 1 => Err(TimesError::Keep),
            _ => Ok(()),
        }
    }
}

impl<'a> Score<'a> {
    /// Clone c's stream s is part `c × streams + s`. The times must be checked, and `found` hold a stream.
    pub fn new(found: &'a Found, times: Times) -> Score<'a> {
        let packets = found.streams.iter().map(|stream| stream.packets.len() as u64);
        let busiest = packets.max().expect("something to replay");
        let loop_ns = found.span_ns + found.span_ns / (busiest - 1).max(1);
        let loop_ns = loop_ns.max(1_000_000);
        let spread_ns = match times.spread_s {
            Some(seconds) => (seconds * 1e9) as u64,
            None => ((loop_ns as f64 / times.speed) as u64).min(SPREAD_NS_MAX),
        };
        let streams = found.streams.len() as u32;
        let part = |index: u32| {
            let (clone, stream) = (index / streams, (index % streams) as usize);
            Part {
                stream,
                clone: CloneStream::new(&found.streams[stream], index, times.seed, loop_ns, times.keep),
                begins_ns: golden_share(clone, spread_ns),
                repetition: 0,
                next: 0,
            }
        };
        let parts = (0..times.clones * streams).map(part).collect();
        Score {
            found,
            times,
            loop_ns,
            parts,
        }
    }

    pub fn parts(&self) -> u32 {
        self.parts.len() as u32
    }

    /// The SSRC of a part, and the number of the stream it is of.
    pub fn part(&self, part: u32) -> (u32, usize) {
        let part = &self.parts[part as usize];
        (part.clone.ssrc, part.stream)
    }

    /// The part's next packet; `None` when it is through.
    pub fn due(&self, part: u32) -> Option<Due<'_>> {
        let part = &self.parts[part as usize];
        if part.repetition == self.times.loops {
            return None;
        }
        let packet = &self.found.streams[part.stream].packets[part.next];
        Some(Due {
            packet,
            clone: &part.clone,
            repetition: part.repetition,
            at_ns: part.begins_ns + self.paced(part.repetition * self.loop_ns + packet.at_ns),
        })
    }

    pub fn advance(&mut self, part: u32) {
        let part = &mut self.parts[part as usize];
        part.next += 1;
        if part.next == self.found.streams[part.stream].packets.len() {
            part.next = 0;
            part.repetition += 1;
        }
    }

    /// Mean rate with all clones on, RTP bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        let bytes: u64 = self.found.streams.iter().map(|stream| stream.rtp_bytes).sum();
        let seconds = self.paced(self.loop_ns) as f64 / 1e9;
        bytes as f64 * f64::from(self.times.clones) / seconds
    }

    /// From the first packet to the last, if nothing is late.
    pub fn duration_s(&self) -> f64 {
        let last = self.parts.iter().map(|part| part.begins_ns).max().unwrap_or(0);
        let capture = (self.times.loops - 1) * self.loop_ns + self.found.span_ns;
        (last + self.paced(capture)) as f64 / 1e9
    }

    /// When all clones are on: from the last one's begin to the first one's end.
    pub fn steady_ns(&self) -> std::ops::Range<u64> {
        let begins = self.parts.iter().map(|part| part.begins_ns);
        let end = self.paced((self.times.loops - 1) * self.loop_ns + self.found.span_ns);
        begins.max().unwrap_or(0)..end
    }

    fn paced(&self, capture_ns: u64) -> u64 {
        (capture_ns as f64 / self.times.speed) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::find::tests::{found, rtp};
    use super::super::link::tests::ipv4_packet;
    use super::*;

    const TIMES: Times = Times {
        clones: 1,
        speed: 1.0,
        loops: 1,
        spread_s: None,
        seed: 1,
        keep: false,
    };

    /// Eleven packets every 10 ms.
    fn capture() -> Found {
        let packet = |n: u16| rtp(n, 900 * u32::from(n), 7);
        let packets: Vec<_> = (0..11)
            .map(|n| {
                (
                    5_000_000_000 + u64::from(n) * 10_000_000,
                    ipv4_packet(5004, &packet(n)),
                )
            })
            .collect();
        found(&packets, &[])
    }

    fn times_of(score: &mut Score<'_>, part: u32) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(due) = score.due(part) {
            times.push(due.at_ns);
            score.advance(part);
        }
        times
    }

    #[test]
    fn a_capture_goes_out_at_its_own_times_and_loops_without_a_seam() {
        let found = capture();
        let mut score = Score::new(&found, Times { loops: 3, ..TIMES });
        let times = times_of(&mut score, 0);
        let expected: Vec<u64> = (0..33).map(|n| n * 10_000_000).collect();
        assert_eq!(times, expected);
        assert!((score.duration_s() - 0.32).abs() < 1e-9);
    }

    #[test]
    fn speed_divides_every_time() {
        let found = capture();
        let mut score = Score::new(
            &found,
            Times {
                speed: 4.0,
                loops: 2,
                ..TIMES
            },
        );
        let times = times_of(&mut score, 0);
        let expected: Vec<u64> = (0..22).map(|n| n * 2_500_000).collect();
        assert_eq!(times, expected);
        let bytes_per_second = 16.0 * 400.0;
        assert!((score.bytes_per_second() / bytes_per_second - 1.0).abs() < 1e-6);
    }

    #[test]
    fn clones_begin_spread_and_none_equals_another() {
        let found = capture();
        let score = Score::new(
            &found,
            Times {
                clones: 100,
                spread_s: Some(1.0),
                ..TIMES
            },
        );
        let mut begins: Vec<u64> = (0..100)
            .map(|part| score.due(part).expect("not yet through").at_ns)
            .collect();
        begins.sort();
        let gaps = begins.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(
            gaps.clone().all(|gap| (2_000_000..=25_000_000).contains(&gap)),
            "{begins:?}"
        );
        let mut ssrcs: Vec<u32> = (0..100).map(|part| score.part(part).0).collect();
        ssrcs.sort();
        ssrcs.dedup();
        assert_eq!(ssrcs.len(), 100);
        let together = Score::new(
            &found,
            Times {
                clones: 100,
                spread_s: Some(0.0),
                ..TIMES
            },
        );
        assert!((0..100).all(|part| together.due(part).expect("not yet through").at_ns == 0));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_would_do() {
        let refused = |times: Times| times.check(2).expect_err("must be refused").to_string();
        assert!(refused(Times { clones: 0, ..TIMES }).contains("at least one"));
        assert!(
            refused(Times {
                clones: 600_000,
                ..TIMES
            })
            .contains("1 to 1000000")
        );
        assert!(
            refused(Times {
                speed: f64::NAN,
                ..TIMES
            })
            .contains("0.001")
        );
        assert!(refused(Times { loops: 0, ..TIMES }).contains("1 to"));
        assert!(
            refused(Times {
                spread_s: Some(-1.0),
                ..TIMES
            })
            .contains("within")
        );
        assert!(
            refused(Times {
                keep: true,
                clones: 2,
                ..TIMES
            })
            .contains("--keep")
        );
        assert_eq!(TIMES.check(2), Ok(()));
    }
}
