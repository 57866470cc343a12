//! The sequence account of one stream: extended sequence, loss, duplicates, reordering, jitter.
//!
//! Follows RFC 3550 §6.4.1, A.1 (sequence validity), A.3 (loss) and A.8 (jitter), with two additions. A window of
//! the last [`WINDOW`] sequence numbers tells a duplicate from a late packet exactly; and a jump too large for
//! A.1 still counts as loss when the media clock says that as much time was skipped as went by, so that an outage of
//! a minute is a number in the ledger and not a "restart".
//!
//! Invariant: lost = expected − unique over all epochs; an epoch ends when the sender starts its sequence anew.

use crate::ledger::Account;
use crate::planted::{Planted, planted};

/// Sequence numbers remembered behind the highest one, to tell duplicates from late packets.
pub const WINDOW: u64 = 1024;
/// Largest forward jump taken as loss without asking the clock (RFC 3550 A.1, MAX_DROPOUT).
const MAX_DROPOUT: u16 = 3000;
/// How far media time and arrival time may differ over a jump that is still loss, in nanoseconds.
const COHERENCE_NS: u64 = 2_000_000_000;
/// Where a stream's extended sequence starts: one whole cycle up, so that a late packet never goes below zero.
const FIRST_CYCLE: u64 = 1 << 16;

/// The account of one stream. 128 bytes of it are the window.
#[derive(Clone, Debug)]
pub struct SequenceAccount {
    started: bool,
    /// Clock rate of the payload in Hz; 0 when the SDP does not say.
    clock_rate: u32,
    /// Extended sequence of the first packet of this epoch.
    base: u64,
    /// Highest extended sequence seen.
    highest: u64,
    /// Different sequence numbers seen in this epoch.
    unique: u64,
    /// Loss of finished epochs.
    lost_before_epoch: u64,
    window: [u64; WINDOW as usize / 64],
    /// A packet far from the sequence; a second one right behind it means a restart (RFC 3550 A.1, bad_seq).
    suspect: Option<u16>,
    counts: Account,
    last_timestamp: u32,
    last_arrival_ns: u64,
    /// Jitter in timestamp units, times 16 (RFC 3550 A.8).
    jitter_q4: u32,
}

impl SequenceAccount {
    /// An account that has seen nothing. `clock_rate` in Hz, 0 if unknown.
    pub fn new(clock_rate: u32) -> Self {
        SequenceAccount {
            started: false,
            clock_rate,
            base: 0,
            highest: 0,
            unique: 0,
            lost_before_epoch: 0,
            window: [0; WINDOW as usize / 64],
            suspect: None,
            counts: Account::default(),
            last_timestamp: 0,
            last_arrival_ns: 0,
            jitter_q4: 0,
        }
    }

    /// Whether `sequence` is the one that comes next.
    #[inline]
    pub fn is_next(&self, sequence: u16) -> bool {
        self.started && sequence == (self.highest as u16).wrapping_add(1)
    }

    /// Whether any packet was seen.
    pub fn started(&self) -> bool {
        self.started
    }

    /// Takes one RTP packet into account. `arrival_ns` is realtime.
    #[inline]
    pub fn receive(&mut self, sequence: u16, timestamp: u32, arrival_ns: u64) {
        if !self.started {
            self.started = true;
            self.begin_epoch(sequence);
        } else {
            let ahead = sequence.wrapping_sub(self.highest as u16);
            let behind = u64::from((self.highest as u16).wrapping_sub(sequence));
            if self.suspect == Some(sequence) {
                self.restart(sequence);
            } else if ahead != 0 && (ahead <= MAX_DROPOUT || self.coherent_jump(ahead, timestamp, arrival_ns))
            {
                self.advance(u64::from(ahead));
            } else if behind < WINDOW {
                self.late(behind);
            } else {
                self.suspect = Some(sequence.wrapping_add(1));
                self.counts.reordered += 1;
                return; // its timestamp may be another clock's: it tells nothing about jitter
            }
        }
        self.take_jitter(timestamp, arrival_ns);
    }

    /// The counts so far.
    pub fn counts(&self) -> Account {
        Account {
            lost: self.lost(),
            ..self.counts
        }
    }

    /// Packets that never arrived, by sequence. Falls again when a late packet arrives after all.
    pub fn lost(&self) -> u64 {
        if !self.started {
            return 0;
        }
        self.lost_before_epoch + (self.highest - self.base + 1) - self.unique
    }

    /// Interarrival jitter in timestamp units.
    pub fn jitter_rtp(&self) -> u32 {
        self.jitter_q4 >> 4
    }

    fn begin_epoch(&mut self, sequence: u16) {
        self.base = FIRST_CYCLE + u64::from(sequence);
        self.highest = self.base;
        self.unique = 1;
        self.window = [0; WINDOW as usize / 64];
        self.mark(self.base);
        self.suspect = None;
        self.last_arrival_ns = 0;
    }

    fn restart(&mut self, second: u16) {
        let lost = self.lost();
        self.lost_before_epoch = lost;
        self.counts.restarts += 1;
        // The first packet of the new sequence was counted as reordered while it was only suspect.
        self.counts.reordered -= 1;
        self.begin_epoch(second.wrapping_sub(1));
        self.advance(1);
    }

    fn advance(&mut self, ahead: u64) {
        let from = self.highest + 1;
        self.highest += ahead;
        if (from - 1) >> 16 != self.highest >> 16 && planted(Planted::LossAtWrap) {
            self.lost_before_epoch += 1;
        }
        for skipped in from.max(self.highest.saturating_sub(WINDOW - 1))..self.highest {
            self.window[Self::word(skipped)] &= !Self::bit(skipped);
        }
        self.mark(self.highest);
        self.unique += 1;
        self.suspect = None;
    }

    fn late(&mut self, behind: u64) {
        let extended = self.highest - behind;
        if extended < self.base {
            // Older than the first packet we saw: the epoch begins earlier than we thought.
            self.widen(extended);
        } else if self.window[Self::word(extended)] & Self::bit(extended) != 0 {
            self.counts.duplicates += 1;
            return;
        }
        self.mark(extended);
        self.unique += 1;
        self.counts.reordered += 1;
    }

    fn widen(&mut self, extended: u64) {
        for skipped in extended..self.base {
            self.window[Self::word(skipped)] &= !Self::bit(skipped);
        }
        self.base = extended;
    }

    /// A jump over more than [`MAX_DROPOUT`] is loss if the media clock advanced about as far as the arrival clock.
    fn coherent_jump(&self, ahead: u16, timestamp: u32, arrival_ns: u64) -> bool {
        if ahead >= 0x8000 || self.clock_rate == 0 || self.last_arrival_ns == 0 {
            return false;
        }
        let media_ticks = timestamp.wrapping_sub(self.last_timestamp);
        let media_ns = u64::from(media_ticks) * 1_000_000_000 / u64::from(self.clock_rate);
        let elapsed_ns = arrival_ns.saturating_sub(self.last_arrival_ns);
        media_ns.abs_diff(elapsed_ns) <= COHERENCE_NS
    }

    /// RFC 3550 A.8. The difference of transit times needs no common clock, only a common rate.
    fn take_jitter(&mut self, timestamp: u32, arrival_ns: u64) {
        if self.clock_rate != 0 && self.last_arrival_ns != 0 {
            let elapsed_ticks = self.ticks(arrival_ns.wrapping_sub(self.last_arrival_ns) as i64);
            let media_ticks = i64::from(timestamp.wrapping_sub(self.last_timestamp) as i32);
            let difference = elapsed_ticks
                .saturating_sub(media_ticks)
                .unsigned_abs()
                .min(u64::from(u32::MAX >> 8)) as u32;
            self.jitter_q4 = self.jitter_q4 + difference - ((self.jitter_q4 + 8) >> 4);
        }
        self.last_timestamp = timestamp;
        self.last_arrival_ns = arrival_ns;
    }

    /// A time in units of the media clock, rounded towards zero. In 64 bits, whole seconds and the rest apart: dividing 128 bits is a call.
    fn ticks(&self, ns: i64) -> i64 {
        let rate = i64::from(self.clock_rate);
        let (seconds, rest_ns) = (ns / 1_000_000_000, ns % 1_000_000_000);
        seconds
            .saturating_mul(rate)
            .saturating_add(rest_ns * rate / 1_000_000_000)
    }

    fn mark(&mut self, extended: u64) {
        self.window[Self::word(extended)] |= Self::bit(extended);
    }

    fn word(extended: u64) -> usize {
        (extended % WINDOW / 64) as usize
    }

    fn bit(extended: u64) -> u64 {
        1 << (extended % 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds sequence numbers at 25 packets a second with matching timestamps.
    fn account(sequences: impl IntoIterator<Item = u16>) -> Account {
        let mut account = SequenceAccount::new(90_000);
        for (i, sequence) in sequences.into_iter().enumerate() {
            account.receive(
                sequence,
                i as u32 * 3600,
                1_000_000_000_000 + i as u64 * 40_000_000,
            );
        }
        account.counts()
    }

    #[test]
    fn a_whole_sequence_over_a_wrap_has_nothing_to_report() {
        assert_eq!(account((65_000..=65_535).chain(0..500)), Account::default());
    }

    #[test]
    fn gaps_are_loss_and_late_packets_take_it_back() {
        assert_eq!(
            account([1, 2, 5, 6]),
            Account {
                lost: 2,
                ..Account::default()
            }
        );
        assert_eq!(
            account([1, 2, 5, 3, 4, 6]),
            Account {
                reordered: 2,
                ..Account::default()
            }
        );
        assert_eq!(
            account([65_534, 1, 65_535, 0]),
            Account {
                reordered: 2,
                ..Account::default()
            }
        );
    }

    #[test]
    fn duplicates_are_told_from_late_packets() {
        assert_eq!(
            account([1, 2, 2, 3, 1]),
            Account {
                duplicates: 2,
                ..Account::default()
            }
        );
        assert_eq!(
            account([1, 4, 4, 2, 2]),
            Account {
                lost: 1,
                duplicates: 2,
                reordered: 1,
                restarts: 0
            }
        );
    }

    #[test]
    fn a_packet_older_than_the_first_widens_the_epoch() {
        assert_eq!(
            account([10, 8, 9, 11]),
            Account {
                reordered: 2,
                ..Account::default()
            }
        );
        assert_eq!(
            account([10, 7]),
            Account {
                lost: 2,
                reordered: 1,
                ..Account::default()
            }
        );
    }

    #[test]
    fn a_restarted_sender_is_a_restart_and_no_loss() {
        assert_eq!(
            account([100, 101, 40_000, 40_001, 40_002]),
            Account {
                restarts: 1,
                ..Account::default()
            }
        );
        assert_eq!(
            account([100, 101, 40_000, 102, 103]),
            Account {
                reordered: 1,
                ..Account::default()
            },
            "a stray"
        );
    }

    #[test]
    fn an_outage_is_loss_when_both_clocks_agree() {
        let mut account = SequenceAccount::new(90_000);
        account.receive(1, 0, 1_000_000_000);
        account.receive(20_001, 90_000 * 60, 61_000_000_000);
        assert_eq!(
            account.counts(),
            Account {
                lost: 19_999,
                ..Account::default()
            }
        );
    }

    #[test]
    fn thirty_percent_loss_is_counted_to_the_packet() {
        let kept: Vec<u16> = (0..60_000u32)
            .filter(|i| i % 10 >= 3 || *i == 0 || *i == 59_999)
            .map(|i| i as u16)
            .collect();
        let lost = 60_000 - kept.len() as u64;
        assert_eq!(
            account(kept),
            Account {
                lost,
                ..Account::default()
            }
        );
    }

    #[test]
    fn jitter_follows_the_rfc_estimator() {
        let mut account = SequenceAccount::new(90_000);
        account.receive(0, 0, 1_000_000_000);
        for i in 1..2000u32 {
            // 10 ms late and early in turn: |D| = 20 ms = 1800 ticks for ever.
            let swing_ns = if i % 2 == 0 { 0 } else { 20_000_000 };
            account.receive(
                i as u16,
                i * 3600,
                1_000_000_000 + u64::from(i) * 40_000_000 + swing_ns,
            );
        }
        assert!(
            (1790..=1810).contains(&account.jitter_rtp()),
            "{}",
            account.jitter_rtp()
        );
    }
}
