//! RTP time: 32 bits that wrap every 13 hours at 90 kHz, made into a line that does not (RFC 3550 §5.1, §6.4.1).
//!
//! The arrival clock chooses the wrap, so outages of any length are measured. Where the two clocks disagree by more
//! than networks explain, the camera's clock was set anew, and a new *epoch* begins. Within an epoch time is the
//! camera's alone; epochs are placed by sender reports, else by arrival, once all are known ([`place`]).

/// How far RTP time may run from arrival time between two packets. Wide, because files and bursts are sent faster
/// than they play.
const TOLERANCE_NS: i64 = 10_000_000_000;
/// The same where the sequence numbers already say that something began anew.
const TOLERANCE_ANEW_NS: i64 = 1_000_000_000;
/// A sender report further than this from arrival comes from a camera whose clock is not set (a wrong time zone is
/// the usual case); the recorder's clock is then the better one.
pub(super) const REPORT_TOLERANCE_NS: u64 = 15 * 60 * 1_000_000_000;
/// Seconds from 1900 (NTP) to 1970.
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

/// Extends the timestamps of one SSRC.
pub(super) struct RtpClock {
    rate_hz: u32,
    last: Option<Last>,
}

#[derive(Clone, Copy)]
struct Last {
    rtp_time: u32,
    ticks: i64,
    arrival_ns: u64,
}

impl RtpClock {
    /// A clock of `rate_hz`, which must not be 0.
    pub fn new(rate_hz: u32) -> RtpClock {
        assert!(
            rate_hz > 0,
            "the session description's parser gives only positive clock rates"
        );
        RtpClock { rate_hz, last: None }
    }

    /// The extended time of a packet, in ticks, and whether a new epoch begins with it. `anew`: its sequence number
    /// does not continue the previous one.
    pub fn extend(&mut self, rtp_time: u32, arrival_ns: u64, anew: bool) -> (i64, bool) {
        let (ticks, broken) = match self.last {
            None => (i64::from(rtp_time), true),
            Some(last) => {
                let elapsed = self.ticks_between(last.arrival_ns, arrival_ns);
                let step = i64::from(rtp_time.wrapping_sub(last.rtp_time) as i32);
                let cycle = 1i64 << 32;
                let wraps = (elapsed - step + cycle / 2).div_euclid(cycle);
                let step = step + wraps * cycle;
                let tolerance_ns = if anew { TOLERANCE_ANEW_NS } else { TOLERANCE_NS };
                let tolerance = tolerance_ns / 1_000 * i64::from(self.rate_hz) / 1_000_000;
                (last.ticks + step, (step - elapsed).abs() > tolerance)
            }
        };
        self.last = Some(Last {
            rtp_time,
            ticks,
            arrival_ns,
        });
        (ticks, broken)
    }

    /// The extended time that is nearest to the last packet's; `None` before the first packet.
    pub fn nearest(&self, rtp_time: u32) -> Option<i64> {
        let last = self.last?;
        Some(last.ticks + i64::from(rtp_time.wrapping_sub(last.rtp_time) as i32))
    }

    /// Extended time and arrival of the last packet.
    pub fn now(&self) -> Option<(i64, u64)> {
        self.last.map(|last| (last.ticks, last.arrival_ns))
    }

    fn ticks_between(&self, from_ns: u64, to_ns: u64) -> i64 {
        let ns = i128::from(to_ns) - i128::from(from_ns);
        (ns * i128::from(self.rate_hz) / 1_000_000_000) as i64
    }
}

/// What an RTCP sender report says: at wall time `unix_ns` the RTP clock stood at `rtp_time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SenderReport {
    pub ssrc: u32,
    pub rtp_time: u32,
    pub unix_ns: u64,
}

impl SenderReport {
    /// The first sender report in a compound packet, if its wall clock is set and near `arrival_ns`.
    pub fn find(mut compound: &[u8], arrival_ns: u64) -> Option<SenderReport> {
        const SENDER_REPORT: u8 = 200;
        while compound.len() >= 4 {
            let length = (usize::from(u16::from_be_bytes([compound[2], compound[3]])) + 1) * 4;
            let packet = compound.get(..length)?;
            if packet[1] == SENDER_REPORT && length >= 20 {
                let word =
                    |at| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
                let seconds = u64::from(word(8)).checked_sub(NTP_TO_UNIX_S)?;
                let nanoseconds = (u64::from(word(12)) * 1_000_000_000) >> 32;
                let unix_ns = seconds * 1_000_000_000 + nanoseconds;
                let near = unix_ns.abs_diff(arrival_ns) <= REPORT_TOLERANCE_NS;
                return near.then_some(SenderReport {
                    ssrc: word(4),
                    rtp_time: word(16),
                    unix_ns,
                });
            }
            compound = &compound[length..];
        }
        None
    }
}

/// A stretch of one RTP clock that runs without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    pub rate_hz: u32,
    /// Extended time and arrival of its first frame.
    pub first_ticks: i64,
    pub first_arrival_ns: u64,
    /// Extended time and wall time of a sender report in it.
    pub report: Option<(i64, u64)>,
}

impl Epoch {
    /// Wall time of the first frame by the sender report.
    fn reported_ns(&self) -> Option<i64> {
        let (ticks, unix_ns) = self.report?;
        let before = i128::from(ticks - self.first_ticks) * 1_000_000_000 / i128::from(self.rate_hz);
        Some((i128::from(unix_ns) - before) as i64)
    }
}

/// Wall time of each epoch's first frame, nanoseconds since 1970.
///
/// Camera clock and recorder clock differ by a delay, and often by more. An epoch without a report is therefore
/// placed at its arrival plus the difference last seen in one that has a report, so that a missing report moves
/// nothing; without any report, at its arrival.
pub(super) fn place(epochs: &[Epoch]) -> Vec<i64> {
    let difference = |epoch: &Epoch| epoch.reported_ns().map(|ns| ns - epoch.first_arrival_ns as i64);
    let mut current = epochs.iter().find_map(difference).unwrap_or(0);
    epochs
        .iter()
        .map(|epoch| {
            current = difference(epoch).unwrap_or(current);
            epoch.first_arrival_ns as i64 + current
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const T0: u64 = 1_700_000_000 * S;

    #[test]
    fn the_timestamp_wrap_is_no_break() {
        let mut clock = RtpClock::new(90_000);
        let start = u32::MAX - 3_600;
        let (first, _) = clock.extend(start, T0, false);
        for i in 1..10u32 {
            let (ticks, broken) =
                clock.extend(start.wrapping_add(i * 3_600), T0 + u64::from(i) * S / 25, false);
            assert_eq!((ticks - first, broken), (i64::from(i) * 3_600, false));
        }
    }

    #[test]
    fn an_outage_of_days_is_measured_through_all_its_wraps() {
        let mut clock = RtpClock::new(90_000);
        let (first, _) = clock.extend(1_000, T0, false);
        let days = 3 * 86_400u64;
        let rtp_time = (1_000 + days * 90_000) as u32;
        let (ticks, broken) = clock.extend(rtp_time, T0 + days * S + S / 10, true);
        assert_eq!((ticks - first, broken), (days as i64 * 90_000, false));
    }

    #[test]
    fn a_clock_set_anew_begins_an_epoch() {
        let mut clock = RtpClock::new(90_000);
        clock.extend(1_000, T0, false);
        assert!(clock.extend(900_000_000, T0 + S, false).1);
        assert!(!clock.extend(900_003_600, T0 + S, false).1);
        // A restarted sender that happens to begin near the old time.
        assert!(clock.extend(900_000_000 - 180_000, T0 + 2 * S, true).1);
    }

    #[test]
    fn frames_sent_faster_than_they_play_are_one_epoch() {
        let mut clock = RtpClock::new(90_000);
        clock.extend(0, T0, false);
        for i in 1..1_000u32 {
            assert!(!clock.extend(i * 90_000, T0 + u64::from(i), false).1);
        }
    }

    fn report(unix_s: u64, rtp_time: u32) -> Vec<u8> {
        let mut bytes = vec![0x80, 200, 0, 6];
        bytes.extend(9u32.to_be_bytes());
        bytes.extend(((unix_s + NTP_TO_UNIX_S) as u32).to_be_bytes());
        bytes.extend((1u32 << 31).to_be_bytes());
        bytes.extend(rtp_time.to_be_bytes());
        bytes.extend([0; 8]);
        bytes
    }

    #[test]
    fn a_sender_report_is_found_in_a_compound_packet() {
        let mut compound = vec![0x80, 201, 0, 1, 0, 0, 0, 9];
        compound.extend(report(1_700_000_000, 77));
        let found = SenderReport::find(&compound, T0).unwrap();
        assert_eq!(
            found,
            SenderReport {
                ssrc: 9,
                rtp_time: 77,
                unix_ns: T0 + S / 2
            }
        );
    }

    #[test]
    fn an_unset_camera_clock_and_cut_packets_give_no_report() {
        assert_eq!(SenderReport::find(&report(1_600_000_000, 77), T0), None);
        let whole = report(1_700_000_000, 77);
        for length in 0..whole.len() {
            assert_eq!(SenderReport::find(&whole[..length], T0), None);
        }
    }

    #[test]
    fn epochs_without_reports_keep_the_difference_of_those_with() {
        let epoch = |arrival_ns, report| Epoch {
            rate_hz: 90_000,
            first_ticks: 0,
            first_arrival_ns: arrival_ns,
            report,
        };
        // The second epoch's report: 1 s after its first frame, camera 3 s ahead.
        let epochs = [
            epoch(T0, None),
            epoch(T0 + 60 * S, Some((90_000, T0 + 64 * S))),
            epoch(T0 + 90 * S, None),
        ];
        let t0 = T0 as i64;
        let s = S as i64;
        assert_eq!(place(&epochs), [t0 + 3 * s, t0 + 63 * s, t0 + 93 * s]);
        assert_eq!(place(&epochs[..1]), [t0]);
    }
}
