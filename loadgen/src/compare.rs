//! What was stored against what was sent, packet by packet.
//!
//! The mark in a stored RTP packet says which entry of the sent log it must be; the hash says whether every byte is as it
//! was sent. RTCP carries no mark: stored reports must be the sent ones, in their order, with holes at most.

use crate::mark::Mark;
use crate::sentlog::{Flags, Lane, SentLog, SentLogError, packet_hash};
use serde::Serialize;
use std::ops::AddAssign;

/// The outcome for one stream, or summed over many.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// RTP packets that left the sender.
    pub sent: u64,
    /// RTP packets that were due and never left: nobody can have stored them.
    pub not_sent: u64,
    /// Sent packets found stored, each counted once.
    pub stored: u64,
    /// Sent and not found.
    pub missing: u64,
    /// Found again.
    pub duplicate: u64,
    /// Found behind a packet that was sent later.
    pub out_of_order: u64,
    /// Marked as one of this stream's packets, but not with the bytes that were sent.
    pub corrupt: u64,
    /// Not of this stream and run, or never sent.
    pub foreign: u64,
    pub rtcp_sent: u64,
    pub rtcp_stored: u64,
    pub rtcp_missing: u64,
    /// RTCP that was not sent, or not in this order.
    pub rtcp_foreign: u64,
}

impl Verdict {
    /// Whether every stored packet is one that was sent, byte for byte, once and in order. Something may be missing.
    pub fn exact(&self) -> bool {
        self.duplicate + self.out_of_order + self.corrupt + self.foreign + self.rtcp_foreign == 0
    }

    /// Whether besides nothing is missing.
    pub fn complete(&self) -> bool {
        self.exact() && self.missing + self.rtcp_missing == 0
    }
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Verdict) {
        self.sent += other.sent;
        self.not_sent += other.not_sent;
        self.stored += other.stored;
        self.missing += other.missing;
        self.duplicate += other.duplicate;
        self.out_of_order += other.out_of_order;
        self.corrupt += other.corrupt;
        self.foreign += other.foreign;
        self.rtcp_sent += other.rtcp_sent;
        self.rtcp_stored += other.rtcp_stored;
        self.rtcp_missing += other.rtcp_missing;
        self.rtcp_foreign += other.rtcp_foreign;
    }
}

/// Compares one stream; feed it the stored packets in their order.
pub struct StreamCheck {
    run: u64,
    stream: u32,
    /// By sequence: the hash sent, if it was.
    rtp: Vec<Option<u64>>,
    /// By sequence: found already.
    found: Vec<bool>,
    /// The next sequence that would be in order.
    next: u64,
    rtcp: Vec<Option<u64>>,
    rtcp_next: usize,
    verdict: Verdict,
}

impl StreamCheck {
    /// Reads the stream's entries: 9 bytes of memory per packet, one stream at a time.
    pub fn new(log: &SentLog, stream: u32) -> Result<StreamCheck, SentLogError> {
        let mut rtp = Vec::new();
        for entry in log.packets(stream, Lane::Rtp) {
            let entry = entry?;
            let sequence = entry.sequence as usize;
            rtp.resize(rtp.len().max(sequence + 1), None);
            if entry.flags.has(Flags::SENT) {
                rtp[sequence] = Some(entry.hash);
            }
        }
        let rtcp = log.packets(stream, Lane::Rtcp);
        let rtcp: Vec<Option<u64>> = rtcp
            .map(|entry| Ok(Some(entry?.hash)))
            .collect::<Result<_, _>>()?;
        let sent = rtp.iter().flatten().count() as u64;
        Ok(StreamCheck {
            run: log.run(),
            stream,
            found: vec![false; rtp.len()],
            next: 0,
            rtcp_next: 0,
            verdict: Verdict {
                sent,
                not_sent: rtp.len() as u64 - sent,
                rtcp_sent: rtcp.len() as u64,
                ..Verdict::default()
            },
            rtp,
            rtcp,
        })
    }

    /// One stored packet.
    pub fn packet(&mut self, rtcp: bool, bytes: &[u8]) {
        if rtcp {
            self.rtcp(bytes);
        } else {
            self.rtp(bytes);
        }
    }

    fn rtp(&mut self, bytes: &[u8]) {
        let verdict = &mut self.verdict;
        let mark = Mark::read(bytes, self.run).filter(|mark| mark.stream == self.stream);
        let entry =
            mark.and_then(|mark| Some((mark.sequence, self.rtp.get(mark.sequence as usize).copied()??)));
        let Some((sequence, hash)) = entry else {
            verdict.foreign += 1;
            return;
        };
        if hash != packet_hash(bytes) {
            verdict.corrupt += 1;
            return;
        }
        if std::mem::replace(&mut self.found[sequence as usize], true) {
            verdict.duplicate += 1;
            return;
        }
        verdict.stored += 1;
        if sequence < self.next {
            verdict.out_of_order += 1;
        }
        self.next = self.next.max(sequence + 1);
    }

    fn rtcp(&mut self, bytes: &[u8]) {
        let hash = Some(packet_hash(bytes));
        match self.rtcp[self.rtcp_next..].iter().position(|sent| *sent == hash) {
            Some(skipped) => {
                self.rtcp_next += skipped + 1;
                self.verdict.rtcp_stored += 1;
            }
            None => self.verdict.rtcp_foreign += 1,
        }
    }

    pub fn finish(self) -> Verdict {
        let verdict = self.verdict;
        Verdict {
            missing: verdict.sent - verdict.stored,
            rtcp_missing: verdict.rtcp_sent - verdict.rtcp_stored,
            ..verdict
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mark::MARK_BYTES;
    use crate::sentlog::SentLogWriter;
    use crate::sentlog::tests::{about, not_sent, sent};

    fn packet(stream: u32, sequence: u64) -> Vec<u8> {
        let mut bytes = vec![sequence as u8; 12 + MARK_BYTES + 5];
        bytes[0] = 0x90;
        let mark = Mark {
            stream,
            sequence,
            intended_ns: 0,
        };
        mark.write(7, bytes[12..].first_chunk_mut().expect("room for the mark"));
        bytes
    }

    /// Ten packets, the fourth not sent, and three reports.
    fn check(stored: impl FnOnce(&mut StreamCheck)) -> Verdict {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("sent");
        let mut log = SentLogWriter::create(&path, &about(1)).expect("a temporary file");
        for sequence in 0..10 {
            let entry = match sequence {
                3 => not_sent(sequence, Flags::FAILED),
                _ => sent(sequence, &packet(0, sequence)),
            };
            log.note(0, Lane::Rtp, entry);
        }
        for (number, report) in (0..).zip([b"one", b"two", b"six"]) {
            log.note(0, Lane::Rtcp, sent(number, report));
        }
        log.finish().expect("a temporary file");
        let log = SentLog::open(&path).expect("just written");
        let mut check = StreamCheck::new(&log, 0).expect("just written");
        stored(&mut check);
        check.finish()
    }

    fn all_but_the_unsent() -> impl Iterator<Item = u64> {
        (0..10).filter(|&sequence| sequence != 3)
    }

    #[test]
    fn everything_stored_once_and_in_order_is_complete() {
        let verdict = check(|check| {
            all_but_the_unsent().for_each(|sequence| check.packet(false, &packet(0, sequence)));
            [b"one", b"two", b"six"]
                .iter()
                .for_each(|report| check.packet(true, *report));
        });
        assert!(verdict.complete(), "{verdict:?}");
        assert_eq!((verdict.sent, verdict.not_sent, verdict.stored), (9, 1, 9));
    }

    #[test]
    fn each_kind_of_difference_is_counted_as_itself() {
        let verdict = check(|check| {
            check.packet(false, &packet(0, 1));
            check.packet(false, &packet(0, 0)); // behind a later one
            check.packet(false, &packet(0, 1)); // again
            check.packet(false, &packet(0, 3)); // never sent
            check.packet(false, &packet(1, 4)); // another stream's
            check.packet(false, b"no packet at all");
            let mut changed = packet(0, 5);
            *changed.last_mut().expect("not empty") ^= 1;
            check.packet(false, &changed);
            check.packet(true, b"two");
            check.packet(true, b"one"); // behind a later one
        });
        assert!(!verdict.exact());
        let expected = Verdict {
            sent: 9,
            not_sent: 1,
            stored: 2,
            missing: 7,
            duplicate: 1,
            out_of_order: 1,
            corrupt: 1,
            foreign: 3,
            rtcp_sent: 3,
            rtcp_stored: 1,
            rtcp_missing: 2,
            rtcp_foreign: 1,
        };
        assert_eq!(verdict, expected);
    }
}
