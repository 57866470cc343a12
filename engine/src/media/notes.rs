//! What an export left out, and the words in which a person is told.

use std::collections::BTreeSet;

use super::frame::LeftOut;
use super::movie::Entry;
use super::order::Counts;
use super::{Error, Stream, sdp};

/// What was seen and what was left out while an MP4 was made.
#[derive(Default)]
pub(super) struct Tally {
    counts: Counts,
    left_out: LeftOut,
    /// Of the above, what came before the range.
    before_range: Option<(Counts, LeftOut)>,
    /// Frames in the range before the first that can be decoded on its own.
    pub before_entry: u64,
    /// Leading pictures of an entry point.
    pub leading: u64,
    /// Packets of an SSRC that another one had followed.
    pub stragglers: u64,
    /// Packets of payload types that are no video.
    other_payloads: u64,
    other_payload_types: BTreeSet<u8>,
    /// Senders that ended.
    pub senders: u64,
    other_media: BTreeSet<u16>,
    other_codecs: BTreeSet<String>,
    weakest: Option<Entry>,
}

impl Tally {
    /// A packet of an m-line that is not exported.
    pub fn other_media(&mut self, stream: &Stream) {
        if self.other_media.insert(stream.media_index) {
            self.other_codecs.insert(sdp::codec_name(stream));
        }
    }

    /// A sender begins.
    pub fn begin(&mut self, entry: Entry) {
        self.weakest = Some(self.weakest.map_or(entry, |weakest| weakest.min(entry)));
    }

    /// The file begins anew.
    pub fn restart(&mut self) {
        self.weakest = None;
        self.before_entry = 0;
        self.leading = 0;
    }

    /// Adds what a sender told at its end.
    pub fn add(&mut self, (counts, left_out): (Counts, LeftOut)) {
        self.counts = self.counts.plus(counts);
        self.left_out = self.left_out.plus(left_out);
    }

    /// The range begins, and `present` is what the present sender has told so far: none of it counts.
    pub fn begin_range(&mut self, present: (Counts, LeftOut)) {
        if self.before_range.is_none() {
            self.before_range = Some((self.counts.plus(present.0), self.left_out.plus(present.1)));
        }
    }

    /// What the senders told of the range.
    pub fn of_range(&self) -> (Counts, LeftOut) {
        let (counts, left_out) = self.before_range.unwrap_or_default();
        (self.counts.since(counts), self.left_out.since(left_out))
    }

    /// A packet of a payload type that is no video.
    pub fn other_payload(&mut self, payload_type: u8) {
        self.other_payloads += 1;
        self.other_payload_types.insert(payload_type);
    }

    /// Why no frame could be written.
    pub fn nothing(&self) -> Error {
        let LeftOut {
            incomplete,
            undescribed,
            interleaved,
            ..
        } = self.left_out;
        let why = if interleaved > 0 {
            return Error::NoVideo(
                "this camera interleaves frames (packetization-mode=2), which is not read".into(),
            );
        } else if undescribed > 0 {
            format!("{undescribed} frames, but no parameter sets, neither in the stream nor in the SDP")
        } else if self.before_entry > 0 {
            format!("{} frames, but no key frame to begin at", self.before_entry)
        } else if incomplete > 0 {
            format!("{incomplete} frames, none of them complete")
        } else if self.other_payloads > 0 {
            let numbers: Vec<String> = self.other_payload_types.iter().map(u8::to_string).collect();
            format!(
                "the SDP does not describe payload type {} as video",
                numbers.join(" or ")
            )
        } else {
            "no video packet".into()
        };
        Error::NothingInRange(format!("nothing to show in the range: {why}"))
    }

    /// Everything worth telling, one sentence each.
    pub fn notes(&self, tracks: usize) -> Vec<String> {
        let mut notes = Vec::new();
        let (counts, left_out) = self.of_range();
        let mut counted = |count: u64, what: &str| {
            if count > 0 {
                notes.push(format!("{count} {what}"));
            }
        };
        counted(
            left_out.incomplete,
            "frames left out: packets of them are missing",
        );
        counted(
            self.before_entry,
            "frames left out: they stand before the first key frame",
        );
        counted(
            self.leading,
            "frames left out: they refer to frames before the first key frame",
        );
        counted(
            left_out.undescribed,
            "frames left out: their parameter sets are missing",
        );
        counted(
            left_out.malformed,
            "packets contradict themselves; their frames are left out",
        );
        counted(
            left_out.interleaved,
            "packets are interleaved, which is not read; their frames are left out",
        );
        counted(counts.duplicates, "duplicate packets dropped");
        counted(counts.late, "packets came too late to be put in order");
        counted(
            self.stragglers,
            "packets of a second sender at the same time left out",
        );
        counted(self.other_payloads, "packets of other payload types left out");
        if self.senders > 1 {
            notes.push(format!(
                "the camera began anew {} times (new SSRC)",
                self.senders - 1
            ));
        }
        if tracks > 1 {
            notes.push("the camera changed its codec: the file has a track for each".into());
        }
        match self.weakest {
            Some(Entry::Recovery) => {
                notes.push("no key frame to begin at: begins at a recovery point".into())
            }
            Some(Entry::Intra) => notes.push(
                "neither key frame nor recovery point to begin at: begins at an intra picture; \
                 the first frames may show errors"
                    .into(),
            ),
            Some(Entry::Key) | None => {}
        }
        if !self.other_codecs.is_empty() {
            let codecs: Vec<&str> = self.other_codecs.iter().map(String::as_str).collect();
            notes.push(format!(
                "not in the MP4: {} (a .pcapng holds every stream)",
                codecs.join(", ")
            ));
        }
        notes
    }
}
