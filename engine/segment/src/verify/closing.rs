//! The end of a survey: the FOOTER's figures, the index, and whether the gaps are damage.

use super::finding::Finding;
use super::survey::{GAPS_KEPT, Survey, malformed};
use super::what::What;
use crate::block::{BLOCK_ALIGN, BlockType, HEADER_LEN, Header};
use crate::body::{BodyError, FOOTER_RECOVERED, FOOTER_SIGNED, FooterBody, IndexBody, IndexRows};
use crate::ids::StreamId;
use crate::merkle::Hash;
use crate::reader::State;
use crate::scan::{Block, Gap, GapReason};

impl Survey<'_> {
    pub(super) fn note_index(&mut self, block: &Block<'_>) {
        let kind = match IndexBody::parse(block.body()) {
            Err(error) => return self.find(block, malformed(error)),
            Ok(IndexBody { rows, .. }) => match rows {
                IndexRows::Chunks(_) => 0,
                IndexRows::Streams(rows) => {
                    self.index_streams.extend(rows);
                    1
                }
                IndexRows::Keys(rows) => {
                    self.index_keys.extend(rows);
                    2
                }
            },
        };
        self.spans[kind].add(block.offset, u64::from(block.header.total_len));
    }

    /// Takes a FOOTER for the end of the segment: at the file's end always, elsewhere only if all before it is as it says. Else a
    /// crash came while it was being written: its INDEX may have been lost with it, and the segment is still open.
    pub(super) fn close(&mut self, block: &Block<'_>) {
        let before = std::mem::take(&mut self.findings);
        self.check_footer(block);
        let told = std::mem::replace(&mut self.findings, before);
        if block.end() == self.file_len() || told.are_clean() {
            self.findings.absorb(told);
        } else {
            self.footer = None;
            self.footer_left_over = true;
            self.find(block, What::Unfinished);
        }
    }

    fn check_footer(&mut self, block: &Block<'_>) {
        let body = match FooterBody::parse(block.body()) {
            Ok(body) => body,
            Err(error) => return self.find(block, What::Body(error)),
        };
        self.footer = Some((block.offset, body));
        self.check_watermark(block, body.durable_upto);
        self.check_footer_header(block, &body);
        if body.flags & FOOTER_SIGNED != 0 {
            if !self.node.verify_footer(block.body(), &self.head.id) {
                self.find(
                    block,
                    What::Signature {
                        on: BlockType::Footer,
                    },
                );
            }
        } else if body.flags & FOOTER_RECOVERED != 0 {
            let signed_leaf_count = body.signed_leaf_count;
            self.find(block, What::Unsigned { signed_leaf_count });
        } else {
            self.find(
                block,
                What::Signature {
                    on: BlockType::Footer,
                },
            );
        }
        if body.prev_root != Hash::default() {
            self.prev_root = Some(body.prev_root);
        }
        if self.is_broken() {
            return;
        }
        self.check_root(block, BlockType::Footer, body.leaf_count, &body.root);
        let signed_leaf_count = match body.flags & FOOTER_RECOVERED {
            0 => body.leaf_count,
            _ => self.signed_leaf_count,
        };
        let [chunks, streams, keys] = self.spans;
        for (field, stated, found) in [
            ("data_end", body.data_end, self.tables.data_end),
            ("chunk_count", body.chunk_count, self.counts.chunks),
            ("first_s", body.first_s, self.counts.first_s),
            ("last_s", body.last_s, self.counts.last_s),
            ("signed_leaf_count", body.signed_leaf_count, signed_leaf_count),
            ("chunks_offset", body.chunks_offset, chunks.offset),
            ("chunks_len", body.chunks_len, chunks.len),
            ("streams_offset", body.streams_offset, streams.offset),
            ("streams_len", body.streams_len, streams.len),
            ("keys_offset", body.keys_offset, keys.offset),
            ("keys_len", body.keys_len, keys.len),
        ] {
            if stated != found {
                self.find(block, What::Footer { field, stated, found });
            }
        }
        if self.index_streams != self.tables.streams {
            self.find(block, What::Index { table: "streams" });
        }
        if self.index_keys != self.tables.keys {
            self.find(block, What::Index { table: "keys" });
        }
    }

    /// No leaf covers the FOOTER, and the signature only its body: so in this version its header holds nothing else.
    fn check_footer_header(&mut self, block: &Block<'_>, body: &FooterBody) {
        if self.head.body.minor > 0 {
            return;
        }
        let expected = Header {
            durable_4k: (body.durable_upto / BLOCK_ALIGN as u64) as u32,
            body_crc32c: block.header.body_crc32c,
            ..Header::new(
                BlockType::Footer,
                self.head.id,
                block.header.block_no,
                FooterBody::LEN,
            )
        };
        if expected.encode() != block.bytes[..HEADER_LEN] {
            self.find(
                block,
                What::Body(BodyError::Field {
                    block: "FOOTER",
                    at: 0,
                    rule: "the header says more than the signed body",
                }),
            );
        }
    }

    pub(super) fn finish(&mut self) {
        self.rest_is_zero = self
            .trailing
            .as_ref()
            .is_none_or(|gap| gap.reason == GapReason::Zero);
        for (at, fault) in self.head.clone().faults() {
            // Where nothing says that anything was durable, a crash while the file was prepared may have torn its head too.
            let what = match self.floor == 0 && self.state() != State::Sealed {
                true => What::Unfinished,
                false => What::SegmentCopy(fault.clone()),
            };
            self.findings.push(Finding::new(at, 4096, what));
        }
        if let Some(gap) = self.trailing.take() {
            match (&self.footer, gap.reason) {
                (Some(_), _) => self
                    .findings
                    .push(Finding::new(gap.offset, gap.len, What::NotTruncated)),
                (None, GapReason::Zero) => {}
                (None, _) => self.gaps.push(gap),
            }
        }
        self.note_missed_at_the_end();
        let mut missed = std::mem::take(&mut self.missed).into_iter();
        for gap in std::mem::take(&mut self.gaps) {
            self.judge_gap(&gap, missed.next().unwrap_or_default());
        }
        for (offset, len) in self.holes.iter().skip(GAPS_KEPT).copied().collect::<Vec<_>>() {
            let reason = GapReason::Zero;
            let headers = Vec::new();
            let gap = Gap {
                offset,
                len,
                reason,
                headers,
            };
            self.judge_gap(&gap, Vec::new());
        }
        self.findings.sort();
    }

    /// A stream whose last chunks went with a gap shows no jump. The index of a closed segment still counts them.
    fn note_missed_at_the_end(&mut self) {
        if !self.is_broken() {
            return;
        }
        for row in std::mem::take(&mut self.index_streams) {
            if let Some(track) = self.streams.get(&row.stream_id).copied()
                && track.origin == self.head.id
                && row.chunks > track.next_seq
            {
                self.note_missed(row.stream_id, &track);
            }
        }
    }

    /// Below the floor, and in a segment that its writer closed, a gap is damage; above it is what a crash or a running writer leaves.
    fn judge_gap(&mut self, gap: &Gap, missed: Vec<StreamId>) {
        let (must_hold, what) = match (self.state(), &self.footer) {
            (State::Open, _) | (_, None) => (self.floor, What::Unfinished),
            (State::Sealed, _) => (u64::MAX, What::Hole),
            (State::Recovered, Some((_, footer))) if gap.offset >= footer.data_end => (u64::MAX, What::Hole),
            (State::Recovered, _) => (self.floor, What::Hole),
        };
        let mut streams = missed;
        streams.extend(gap.headers.iter().map(|header| header.stream_id));
        streams.retain(|stream| !stream.is_zero());
        streams.sort();
        streams.dedup();
        let damaged = must_hold.clamp(gap.offset, gap.end()) - gap.offset;
        for (offset, len, what) in [
            (gap.offset, damaged, What::Gap(gap.reason)),
            (gap.offset + damaged, gap.len - damaged, what),
        ] {
            if len > 0 {
                let streams = streams.clone();
                self.findings.push(Finding {
                    offset,
                    len,
                    streams,
                    what,
                });
            }
        }
    }
}
