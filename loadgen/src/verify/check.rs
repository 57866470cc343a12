//! One stream's stored packets against what the sent log says of it, packet by packet.
//!
//! A stored packet is matched with an entry of the log by the hash of its bytes, then by its mark: the mark says which packet it
//! was meant to be, the hash whether every byte is as it left. Entries are taken once each, so that two copies that were sent
//! are two packets that must be stored. Nothing here reads a file or knows a clock.
//!
//! Memory: 48 bytes per packet of the stream (its entry 32, its place by number 4, what its header said 12).

use super::gaps::{Gap, Gaps};
use crate::mark::Mark;
use crate::plan::Media;
use crate::sentlog::{Entry, Flags, packet_hash};
use serde::{Deserialize, Serialize};

/// What came of one stream. Packets are datagrams of the RTP lane unless a name says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamVerdict {
    /// The number its marks carry.
    pub stream: u32,
    pub camera: String,
    pub customer: String,
    pub group: String,
    /// The first one.
    pub ssrc: u32,
    /// Whether the engine was told of it.
    pub known: bool,
    /// False where the identity of its customer was not given: then nothing is said of what was stored.
    pub looked_at: bool,
    /// What came due: every entry of the log but second copies.
    pub intended: u64,
    pub sent: u64,
    /// Lost by the generator: the kernel did not take them.
    pub not_sent: u64,
    /// Lost on purpose.
    pub impaired_lost: u64,
    /// Sent, and cut so short that nobody may store them.
    pub runts: u64,
    /// Sent under a name or from a place the engine does not know.
    pub strangers: u64,
    /// Sent and fit to be stored.
    pub expected: u64,
    pub stored: u64,
    /// `expected - stored`.
    pub lost: u64,
    /// Stored once more than sent.
    pub duplicates: u64,
    pub copies: Pair,
    /// Stored behind a packet that left later.
    pub reordered: u64,
    pub delayed: Pair,
    /// Stored with other bytes than left.
    pub corrupt: u64,
    pub corrupted: Pair,
    pub truncated: Pair,
    /// What must be refused and is stored all the same: runts, strangers, and what was lost on purpose and yet is there.
    pub runts_stored: u64,
    pub strangers_stored: u64,
    pub ghosts: u64,
    /// Other SSRCs that the stream took and under which it sent what is fit to be stored.
    pub ssrc_changes: u64,
    /// Its packets found with another customer, another camera or another stream.
    pub wrong: u64,
    /// Found with it, and never sent, or sent as what must be refused.
    pub foreign: u64,
    pub rtcp_expected: u64,
    pub rtcp_stored: u64,
    pub gaps: u64,
    pub longest_gap: u64,
    pub worst_gaps: Vec<Gap>,
    pub seen: Seen,
    /// What the engine says it dropped of this stream, where its last line was there to read.
    pub engine_dropped: u64,
}

/// What the plan did on purpose, and how much of it was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub expected: u64,
    pub found: u64,
}

/// What the headers of the stored packets say of changes, in the order of their marks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub ssrc_changes: u64,
    pub sequence_jumps: u64,
    pub sequence_wraps: u64,
    pub timestamp_jumps: u64,
    pub timestamp_wraps: u64,
    pub payload_type_changes: u64,
    /// How fast the RTP clock runs against the intended times, where a second or more could be measured.
    pub clock_ppm: Option<f64>,
}

/// A stored packet of this stream, as its mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// A packet that was to be stored; its entry's index.
    Stored(usize),
    /// One that has been found as often as it was sent.
    Again,
    /// Ours, with other bytes.
    Corrupt,
    /// Sent, and yet to be refused, or not even sent: it must not be here. Its entry's index.
    Refusable(usize),
    /// Of another run with the same key, or never sent.
    Foreign,
    /// Behind the end of a log that was cut.
    BeyondLog,
}

/// What the log has of one stream.
pub struct Truth {
    /// In the log's order.
    pub entries: Vec<Entry>,
    /// Numbers from which on it has another SSRC, in order.
    pub restarts: Vec<u64>,
    /// CLOCK_REALTIME of the run's 0.
    pub start_ns: u64,
    /// The log was closed.
    pub complete: bool,
    pub media: Media,
    pub known: bool,
}

/// Compares one stream; feed it the stored packets in their order.
pub struct StreamCheck {
    entries: Vec<Entry>,
    /// Indices of entries by (sequence, index).
    by_sequence: Vec<u32>,
    /// By entry: the header of the packet found for it.
    found: Vec<Option<HeaderSeen>>,
    /// Where the next packet is likely to stand in `by_sequence`.
    likely: usize,
    /// By SSRC: the furthest entry found so far, and the highest number. Two SSRCs are two streams to a receiver and
    /// have no order between them.
    furthest: Vec<Option<(usize, u64)>>,
    /// Numbers from which on the stream has another SSRC, in order.
    restarts: Vec<u64>,
    start_ns: u64,
    complete: bool,
    clock_rate: u32,
    verdict: StreamVerdict,
}

#[derive(Debug, Clone, Copy)]
struct HeaderSeen {
    ssrc: u32,
    timestamp: u32,
    sequence: u16,
    payload_type: u8,
}

impl HeaderSeen {
    fn read(packet: &[u8]) -> HeaderSeen {
        let word =
            |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        HeaderSeen {
            ssrc: word(8),
            timestamp: word(4),
            sequence: word(0) as u16,
            payload_type: packet[1] & 0x7f,
        }
    }
}

impl StreamCheck {
    /// From what the log has of the stream.
    pub fn new(truth: Truth) -> StreamCheck {
        let Truth {
            entries,
            restarts,
            start_ns,
            complete,
            media,
            known,
        } = truth;
        let mut by_sequence: Vec<u32> = (0..entries.len() as u32).collect();
        by_sequence.sort_by_key(|&at| entries[at as usize].sequence);
        StreamCheck {
            verdict: expectation(&entries, &restarts, known),
            found: vec![None; entries.len()],
            by_sequence,
            likely: 0,
            furthest: vec![None; restarts.len() + 1],
            restarts,
            start_ns,
            complete,
            clock_rate: match media {
                Media::H264 | Media::H265 => 90_000,
                Media::Pcmu => 8_000,
            },
            entries,
        }
    }

    /// What is expected, before anything was found.
    pub fn expected(&self) -> &StreamVerdict {
        &self.verdict
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether the packet of this entry was found.
    pub fn is_found(&self, entry: usize) -> bool {
        self.found[entry].is_some()
    }

    /// One stored RTP packet that carries this stream's mark.
    pub fn packet(&mut self, mark: &Mark, bytes: &[u8]) -> Match {
        let place = self.place(mark.sequence);
        let group = self.by_sequence[place..]
            .iter()
            .map(|&at| at as usize)
            .take_while(|&at| self.entries[at].sequence == mark.sequence);
        let hash = packet_hash(bytes);
        let (mut of_this_run, mut again, mut fresh) = (false, false, None);
        let (mut members, mut left) = (0, None);
        for at in group {
            members += 1;
            left = left.or(self.entries[at].flags.has(Flags::SENT).then_some(at));
            // The log has it to the microsecond.
            of_this_run |= (self.start_ns + self.entries[at].intended_ns).abs_diff(mark.intended_ns) < 1000;
            if self.entries[at].hash == hash {
                match self.found[at] {
                    Some(_) => again = true,
                    None => fresh = fresh.or(Some(at)),
                }
            }
        }
        self.likely = place + members;
        let matched = match fresh {
            Some(at) if self.fit(at) => Match::Stored(at),
            Some(at) => Match::Refusable(at),
            None if again => Match::Again,
            None if of_this_run && left.is_some() => Match::Corrupt,
            None if of_this_run => Match::Refusable(self.by_sequence[place] as usize),
            None if members == 0 && !self.complete && self.is_behind_the_end(mark.sequence) => {
                Match::BeyondLog
            }
            None => Match::Foreign,
        };
        if let Some(at) = fresh {
            self.found[at] = Some(HeaderSeen::read(bytes));
        }
        self.count(matched);
        matched
    }

    /// One stored packet whose mark cannot be read: told by its hash alone.
    pub fn packet_without_mark(&mut self, hash: u64, bytes: &[u8]) -> Option<Match> {
        let at = self
            .entries
            .iter()
            .position(|entry| entry.hash == hash && entry.flags.has(Flags::SENT))?;
        let matched = match (self.found[at], self.fit(at)) {
            (Some(_), _) => Match::Again,
            (None, true) => Match::Stored(at),
            (None, false) => Match::Refusable(at),
        };
        if bytes.len() >= 12 {
            self.found[at].get_or_insert(HeaderSeen::read(bytes));
        }
        self.count(matched);
        Some(matched)
    }

    fn fit(&self, at: usize) -> bool {
        self.verdict.known && self.entries[at].flags.fit_to_store()
    }

    /// The first place in `by_sequence` of this number, or where it would be.
    fn place(&self, sequence: u64) -> usize {
        let number = |place: usize| {
            self.by_sequence
                .get(place)
                .map(|&at| self.entries[at as usize].sequence)
        };
        let first = |place: usize| place == 0 || number(place - 1) != Some(sequence);
        if number(self.likely) == Some(sequence) && first(self.likely) {
            return self.likely;
        }
        self.by_sequence
            .partition_point(|&at| self.entries[at as usize].sequence < sequence)
    }

    fn is_behind_the_end(&self, sequence: u64) -> bool {
        let last = self.by_sequence.last();
        last.is_none_or(|&at| self.entries[at as usize].sequence < sequence)
    }

    fn count(&mut self, matched: Match) {
        let verdict = &mut self.verdict;
        match matched {
            Match::Stored(at) => {
                let entry = &self.entries[at];
                let (flags, sequence) = (entry.flags, entry.sequence);
                verdict.stored += 1;
                verdict.copies.found += u64::from(flags.has(Flags::DUPLICATE));
                verdict.corrupted.found += u64::from(flags.has(Flags::CORRUPT));
                verdict.truncated.found += u64::from(flags.has(Flags::TRUNCATED));
                let furthest_of_ssrc = &mut self.furthest[epoch(&self.restarts, sequence)];
                let (furthest, highest) = furthest_of_ssrc.unwrap_or((at, sequence));
                if at < furthest {
                    verdict.reordered += 1;
                } else if sequence < highest && !flags.has(Flags::DUPLICATE) {
                    verdict.delayed.found += 1;
                }
                *furthest_of_ssrc = Some((furthest.max(at), highest.max(sequence)));
            }
            Match::Again => verdict.duplicates += 1,
            Match::Corrupt => verdict.corrupt += 1,
            Match::Refusable(at) => {
                let flags = self.entries[at].flags;
                verdict.foreign += 1;
                match (flags.has(Flags::SENT), flags.has(Flags::RUNT)) {
                    (false, _) => verdict.ghosts += 1,
                    (true, true) => verdict.runts_stored += 1,
                    (true, false) => verdict.strangers_stored += 1,
                }
            }
            Match::Foreign => verdict.foreign += 1,
            Match::BeyondLog => {}
        }
    }

    /// Counts one stored packet of this stream in a place that is not its own.
    pub fn misplaced(&mut self, packets: u64) {
        self.verdict.wrong += packets;
    }

    pub fn finish(mut self) -> StreamVerdict {
        let gaps = Gaps::of(self.entries.len(), |place| {
            let at = self.by_sequence[place] as usize;
            let entry = &self.entries[at];
            (entry, self.found[at].is_some(), self.fit(at))
        });
        self.verdict.seen = self.changes();
        StreamVerdict {
            lost: self.verdict.expected - self.verdict.stored,
            gaps: gaps.count,
            longest_gap: gaps.longest,
            worst_gaps: gaps.worst,
            ..self.verdict
        }
    }

    /// Goes through what was found in the order of its numbers and counts what changed in the headers.
    fn changes(&self) -> Seen {
        let mut changes = Changes::new(self.clock_rate);
        for &at in &self.by_sequence {
            let entry = &self.entries[at as usize];
            if let Some(header) = self.found[at as usize]
                && !entry.flags.has(Flags::DUPLICATE)
            {
                changes.packet(entry, header);
            }
        }
        changes.finish()
    }
}

/// Which of the stream's SSRCs a number belongs to, from 0.
fn epoch(restarts: &[u64], sequence: u64) -> usize {
    restarts.partition_point(|&from| from <= sequence)
}

/// What the log says must come out.
fn expectation(entries: &[Entry], restarts: &[u64], known: bool) -> StreamVerdict {
    let mut verdict = StreamVerdict {
        known,
        ..StreamVerdict::default()
    };
    let mut highest = vec![0; restarts.len() + 1];
    let mut in_use = vec![false; restarts.len() + 1];
    for entry in entries {
        let has = |flag| u64::from(entry.flags.has(flag));
        let fit = known && entry.flags.fit_to_store();
        verdict.intended += 1 - has(Flags::DUPLICATE);
        verdict.sent += has(Flags::SENT);
        verdict.not_sent += has(Flags::FAILED);
        verdict.impaired_lost += has(Flags::LOST);
        if entry.flags.has(Flags::SENT) && !fit {
            let runt = entry.flags.has(Flags::RUNT);
            verdict.runts += u64::from(runt);
            verdict.strangers += u64::from(!runt);
        }
        if fit {
            verdict.expected += 1;
            verdict.copies.expected += has(Flags::DUPLICATE);
            verdict.corrupted.expected += has(Flags::CORRUPT);
            verdict.truncated.expected += has(Flags::TRUNCATED);
            let epoch = epoch(restarts, entry.sequence);
            in_use[epoch] = true;
            let highest = &mut highest[epoch];
            let behind = entry.sequence < *highest && !entry.flags.has(Flags::DUPLICATE);
            verdict.delayed.expected += u64::from(behind);
            *highest = entry.sequence.max(*highest);
        }
    }
    let ssrcs = in_use.iter().filter(|used| **used).count() as u64;
    verdict.ssrc_changes = ssrcs.saturating_sub(1);
    verdict
}

/// What changed from packet to packet.
struct Changes {
    clock_rate: f64,
    last: Option<(u64, u64, HeaderSeen)>,
    seen: Seen,
    /// Since the last jump: when its first frame was due, and how many ticks have gone by since.
    stretch: Option<(u64, i64)>,
    best: Option<(u64, f64)>,
}

impl Changes {
    /// A timestamp this far from where its intended time wants it has jumped: half of the jump that the plan makes, and far beyond what
    /// smoothing a frame or a slow clock come to.
    const JUMP_S: f64 = 5.0;
    /// A shorter stretch says nothing about parts per million.
    const MEASURABLE_NS: u64 = 1_000_000_000;

    fn new(clock_rate: u32) -> Changes {
        Changes {
            clock_rate: f64::from(clock_rate),
            last: None,
            seen: Seen::default(),
            stretch: None,
            best: None,
        }
    }

    fn packet(&mut self, entry: &Entry, header: HeaderSeen) {
        let Some((number, intended_ns, last)) =
            self.last.replace((entry.sequence, entry.intended_ns, header))
        else {
            return;
        };
        self.seen.payload_type_changes += u64::from(header.payload_type != last.payload_type);
        if header.ssrc != last.ssrc {
            self.seen.ssrc_changes += 1;
            self.end_stretch();
            return;
        }
        let steps = (entry.sequence - number) as u16;
        if header.sequence != last.sequence.wrapping_add(steps) {
            self.seen.sequence_jumps += 1;
        } else if header.sequence < last.sequence {
            self.seen.sequence_wraps += 1;
        }
        let ticks = i64::from(header.timestamp.wrapping_sub(last.timestamp) as i32);
        let wanted = (entry.intended_ns as f64 - intended_ns as f64) * self.clock_rate / 1e9;
        if (ticks as f64 - wanted).abs() > Changes::JUMP_S * self.clock_rate {
            self.seen.timestamp_jumps += 1;
            self.end_stretch();
            return;
        }
        if ticks > 0 && header.timestamp < last.timestamp {
            self.seen.timestamp_wraps += 1;
        }
        self.go_on(entry, ticks, steps == 1);
    }

    /// Only a frame's first packet is due when its timestamp says; the others come smoothed behind it.
    fn go_on(&mut self, entry: &Entry, ticks: i64, next: bool) {
        let begins_frame = ticks != 0 && next;
        match &mut self.stretch {
            None if begins_frame => self.stretch = Some((entry.intended_ns, 0)),
            None => {}
            Some((first_ns, sum)) => {
                *sum += ticks;
                let span_ns = entry.intended_ns.saturating_sub(*first_ns);
                if begins_frame
                    && span_ns >= Changes::MEASURABLE_NS
                    && self.best.is_none_or(|(best, _)| span_ns > best)
                {
                    let wanted = span_ns as f64 * self.clock_rate / 1e9;
                    self.best = Some((span_ns, (*sum as f64 / wanted - 1.0) * 1e6));
                }
            }
        }
    }

    fn end_stretch(&mut self) {
        self.stretch = None;
    }

    fn finish(mut self) -> Seen {
        self.seen.clock_ppm = self.best.map(|(_, ppm)| (ppm * 10.0).round() / 10.0);
        self.seen
    }
}
