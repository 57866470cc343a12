//! From one camera's packets to the samples of an MP4: which sender, from which frame on, in which stretch of time.
//!
//! - **Where it begins.** At the last key frame at or before `from`, else at the first after it. Later key frames
//!   before `from` restart the file. Where a camera sends no key frames, at a recovery point or an intra picture.
//! - **What is shown.** A frame has arrived when its last packet has. Frames that arrived before `from` are only
//!   decoded; frames at or after `to` are not written.
//! - **Who sends.** A new SSRC, or a payload type of another codec, is a new sender: the old one's order is closed,
//!   and the new one begins at a key frame of its own.
//! - **When.** Each stretch of an unbroken RTP clock is an epoch; epochs are placed by sender reports or arrival.

use std::collections::VecDeque;
use std::sync::Arc;

use rtp_rs::RtpReader;

use super::clock::{self, Epoch, SenderReport};
use super::codec::Codec;
use super::frame::Frame;
use super::mp4::{Sample, TICKS_HZ, Writer};
use super::notes::Tally;
use super::sdp::{self, Payload};
use super::sender::Sender;
use super::target::Target;
use super::{Error, Packet, Range, Report, Stream};

/// An earlier SSRC is taken up again only after the present one has been silent for so long; packets of it that
/// come before are stragglers.
const SILENCE_NS: u64 = 2_000_000_000;
/// How many earlier SSRCs are remembered.
const RETIRED: usize = 16;
/// An intra picture that announces nothing is given up for a real entry point within this time after it.
const TENTATIVE_S: i64 = 10;

/// How good a frame is to begin at; the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// An H.264 picture of intra slices only.
    Intra,
    /// A recovery point SEI message.
    Recovery,
    /// IDR or IRAP.
    Key,
}

impl Entry {
    fn of(frame: &Frame) -> Option<Entry> {
        let recovery = frame.recovery.map(|_| Entry::Recovery);
        let intra = frame.picture.intra.then_some(Entry::Intra);
        if frame.picture.key {
            Some(Entry::Key)
        } else {
            recovery.or(intra)
        }
    }
}

/// How the present sender began.
struct Begun {
    entry: Entry,
    ticks: i64,
    clock: u32,
    /// All samples of the file are this sender's.
    alone: bool,
    /// Reference frames until output is right.
    settling: u32,
    /// RASL pictures that come now refer to what is not there.
    drop_skipped: bool,
    /// Frames shown before the entry refer to what is not there.
    drop_earlier: bool,
}

/// An MP4 export in progress.
pub(super) struct Movie {
    writer: Writer,
    range: Range,
    /// The m-line that is exported.
    media_index: u16,
    /// The session description seen last, and what it says.
    described: Option<(Arc<str>, Arc<[Payload]>)>,
    /// The payload type seen last.
    payload_type: Option<u8>,
    sender: Option<Sender>,
    begun: Option<Begun>,
    retired: VecDeque<u32>,
    /// A report of an SSRC that has sent nothing else yet.
    early_report: Option<SenderReport>,
    epochs: Vec<Epoch>,
    /// Which setting of the present sender's clock the last epoch belongs to.
    epoch_clock: Option<u32>,
    /// Largest time in the last epoch.
    epoch_high: i64,
    /// Track of each codec.
    tracks: Vec<(Codec, usize)>,
    tally: Tally,
    packets: u64,
    span_ns: Option<(u64, u64)>,
}

/// Ticks of a clock of `rate_hz` in those of the MP4.
fn rescale(ticks: i64, rate_hz: u32) -> i64 {
    (i128::from(ticks) * i128::from(TICKS_HZ) / i128::from(rate_hz)) as i64
}

/// The m-line that an MP4 of `streams` shows: the first with H.264 or H.265.
///
/// # Errors
/// [`Error::NoVideo`] if there is none.
pub(super) fn choose_media(streams: &[Stream]) -> Result<u16, Error> {
    let video = streams
        .iter()
        .filter(|s| sdp::payloads(s).iter().any(|p| codec_of(p).is_some()));
    video.map(|s| s.media_index).min().ok_or_else(|| {
        let mut names: Vec<String> = streams.iter().map(sdp::codec_name).collect();
        names.sort();
        names.dedup();
        Error::NoVideo(format!(
            "an MP4 needs H.264 or H.265, described by the camera's SDP; this camera has: {}",
            names.join(", ")
        ))
    })
}

fn codec_of(payload: &Payload) -> Option<Codec> {
    match payload.encoding.as_str() {
        "H264" => Some(Codec::H264),
        "H265" | "HEVC" => Some(Codec::H265 {
            don: payload.number_parameter("sprop-max-don-diff", 0) > 0,
        }),
        _ => None,
    }
}

impl Movie {
    /// Begins an MP4 of the m-line `media_index` in `target`.
    ///
    /// # Errors
    /// Those of the file.
    pub fn new(target: Target, range: Range, media_index: u16) -> Result<Movie, Error> {
        Ok(Movie {
            writer: Writer::new(target)?,
            range,
            media_index,
            described: None,
            payload_type: None,
            sender: None,
            begun: None,
            retired: VecDeque::new(),
            early_report: None,
            epochs: Vec::new(),
            epoch_clock: None,
            epoch_high: i64::MIN,
            tracks: Vec::new(),
            tally: Tally::default(),
            packets: 0,
            span_ns: None,
        })
    }

    /// Takes the next packet.
    ///
    /// # Errors
    /// Those of the file.
    pub fn push(&mut self, stream: &Stream, packet: Packet<'_>) -> Result<(), Error> {
        if stream.media_index != self.media_index {
            self.tally.other_media(stream);
            return Ok(());
        }
        // Beyond 2262 lies no arrival, and times below it fit an i64.
        if self.range.is_after(packet.arrival_ns) || packet.arrival_ns > i64::MAX as u64 {
            return Ok(());
        }
        if packet.rtcp {
            self.take_report(packet);
            return Ok(());
        }
        let Ok(rtp) = RtpReader::new(packet.bytes) else {
            return Ok(());
        };
        let payloads = self.payloads_of(stream);
        let Some((payload, codec)) = payloads
            .iter()
            .find(|p| p.number == rtp.payload_type())
            .and_then(|p| codec_of(p).map(|codec| (p, codec)))
        else {
            self.tally.other_payload(rtp.payload_type());
            return Ok(());
        };
        if !self.range.is_before(packet.arrival_ns) {
            self.packets += 1;
            let present = self.sender.as_ref().map(Sender::counts);
            self.tally.begin_range(present.unwrap_or_default());
        }
        self.turn_to(stream.ssrc, payload, codec, packet.arrival_ns)?;
        match &mut self.sender {
            Some(sender) if sender.ssrc == stream.ssrc => sender.push(packet.arrival_ns, packet.bytes),
            _ => self.tally.stragglers += 1,
        }
        self.place_frames()
    }

    /// Whether a frame has been written.
    pub fn has_begun(&self) -> bool {
        self.writer.samples() > 0
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`Error::NothingInRange`] if there is no frame to show, and those of the file.
    pub fn finish(mut self) -> Result<Report, Error> {
        self.retire()?;
        if self.writer.samples() == 0 {
            return Err(self.tally.nothing());
        }
        let (frames, bytes) = self.writer.finish(&clock::place(&self.epochs))?;
        let (counts, _) = self.tally.of_range();
        Ok(Report {
            frames,
            packets: self.packets,
            bytes,
            span_ns: self.span_ns,
            gaps: counts.gaps,
            lost: counts.lost,
            notes: self.tally.notes(self.tracks.len()),
        })
    }

    /// What the stream's session description says; kept, since it seldom changes.
    fn payloads_of(&mut self, stream: &Stream) -> Arc<[Payload]> {
        if let Some((text, payloads)) = &self.described
            && (Arc::ptr_eq(text, &stream.sdp) || text == &stream.sdp)
        {
            return Arc::clone(payloads);
        }
        let payloads: Arc<[Payload]> = sdp::payloads(stream).into();
        self.described = Some((Arc::clone(&stream.sdp), Arc::clone(&payloads)));
        // Another description may bring other parameter sets for the payload type at hand.
        self.payload_type = None;
        payloads
    }

    /// Makes the owner of a packet the present sender, unless the packet is a straggler of an earlier one.
    fn turn_to(&mut self, ssrc: u32, payload: &Payload, codec: Codec, arrival_ns: u64) -> Result<(), Error> {
        if let Some(sender) = &mut self.sender {
            if sender.ssrc == ssrc && sender.codec == codec && sender.rate_hz == payload.clock_rate {
                if self.payload_type.replace(payload.number) != Some(payload.number) {
                    sender.describe(payload);
                }
                return Ok(());
            }
            let silent = arrival_ns.saturating_sub(sender.last_arrival_ns) > SILENCE_NS;
            if sender.ssrc != ssrc && self.retired.contains(&ssrc) && !silent {
                return Ok(());
            }
        }
        self.retire()?;
        let early_report = self.early_report.take_if(|report| report.ssrc == ssrc);
        self.payload_type = Some(payload.number);
        self.sender = Some(Sender::new(ssrc, codec, payload, early_report));
        Ok(())
    }

    /// Ends the present sender.
    fn retire(&mut self) -> Result<(), Error> {
        let Some(sender) = &mut self.sender else {
            return Ok(());
        };
        sender.flush();
        self.place_frames()?;
        let Some(sender) = self.sender.take() else {
            return Ok(());
        };
        self.tally.add(sender.counts());
        self.tally.senders += 1;
        self.begun = None;
        self.epoch_clock = None;
        self.retired.retain(|&ssrc| ssrc != sender.ssrc);
        self.retired.push_back(sender.ssrc);
        if self.retired.len() > RETIRED {
            self.retired.pop_front();
        }
        Ok(())
    }

    fn take_report(&mut self, packet: Packet<'_>) {
        let Some(report) = SenderReport::find(packet.bytes, packet.arrival_ns) else {
            return;
        };
        let Some(sender) = self.sender.as_mut().filter(|sender| sender.ssrc == report.ssrc) else {
            self.early_report = Some(report);
            return;
        };
        sender.take_report(report);
        if let (Some(report), Some(clock), Some(epoch)) =
            (sender.report, self.epoch_clock, self.epochs.last_mut())
            && report.clock == clock
        {
            epoch.report = epoch.report.or(Some(report.at));
        }
    }

    /// Writes the frames that became complete.
    fn place_frames(&mut self) -> Result<(), Error> {
        while let Some(frame) = self.sender.as_mut().and_then(Sender::next_frame) {
            if self.begins(&frame)? {
                self.write(&frame)?;
            }
        }
        Ok(())
    }

    /// Whether a frame can be decoded after what is in the file; it may be where the file begins, or begins anew.
    fn begins(&mut self, frame: &Frame) -> Result<bool, Error> {
        let entry = Entry::of(frame);
        let early = self.range.is_before(frame.arrival_ns);
        let Some(begun) = &mut self.begun else {
            let Some(entry) = entry else {
                self.tally.before_entry += u64::from(!early);
                return Ok(false);
            };
            self.begin(entry, frame);
            return Ok(true);
        };
        let better = match entry {
            // From gradual refresh to gradual refresh nothing is gained before the later one has settled.
            Some(Entry::Recovery) if begun.entry == Entry::Recovery => early && frame.recovery == Some(0),
            Some(entry) if early => entry >= begun.entry,
            Some(entry) if begun.entry == Entry::Intra && entry > Entry::Intra && begun.alone => {
                let rate_hz = self.sender.as_ref().map_or(TICKS_HZ, |s| s.rate_hz);
                frame.ticks - begun.ticks < TENTATIVE_S * i64::from(rate_hz)
            }
            _ => false,
        };
        if let (true, Some(entry)) = (better, entry) {
            self.restart()?;
            self.begin(entry, frame);
            return Ok(true);
        }
        if frame.picture.key {
            begun.drop_skipped = frame.picture.broken_link;
            begun.settling = 0;
        } else if frame.picture.reference {
            begun.settling = begun.settling.saturating_sub(1);
        }
        begun.drop_earlier &= frame.ticks < begun.ticks && frame.clock == begun.clock;
        if begun.drop_earlier || (frame.picture.skipped_leading && begun.drop_skipped) {
            self.tally.leading += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// The sender begins with `frame`.
    fn begin(&mut self, entry: Entry, frame: &Frame) {
        self.tally.begin(entry);
        self.begun = Some(Begun {
            entry,
            ticks: frame.ticks,
            clock: frame.clock,
            alone: self.writer.samples() == 0,
            settling: if entry == Entry::Recovery {
                frame.recovery.unwrap_or(0)
            } else {
                0
            },
            drop_skipped: true,
            drop_earlier: entry != Entry::Key,
        });
    }

    /// Forgets all that was written: a better beginning has come.
    fn restart(&mut self) -> Result<(), Error> {
        self.writer.restart()?;
        self.tracks.clear();
        self.epochs.clear();
        self.tally.restart();
        self.epoch_clock = None;
        Ok(())
    }

    fn write(&mut self, frame: &Frame) -> Result<(), Error> {
        let (Some(sender), Some(begun)) = (&mut self.sender, &self.begun) else {
            return Ok(());
        };
        // Whatever precedes a key frame in decoding order is shown before it; a key frame that is not later than
        // all before it tells that the clock was set back.
        let same_clock = self.epoch_clock == Some(frame.clock);
        let set_back = same_clock && frame.picture.key && frame.ticks <= self.epoch_high;
        if set_back {
            sender.report = None;
        }
        if !same_clock || set_back {
            let report = sender.report.filter(|report| report.clock == frame.clock);
            self.epochs.push(Epoch {
                rate_hz: sender.rate_hz,
                first_ticks: frame.ticks,
                first_arrival_ns: frame.first_arrival_ns,
                report: report.map(|report| report.at),
            });
            self.epoch_clock = Some(frame.clock);
            self.epoch_high = i64::MIN;
        }
        self.epoch_high = self.epoch_high.max(frame.ticks);
        let epoch = self.epochs.last().expect("an epoch begins with the first frame");
        let wanted = !self.range.is_before(frame.arrival_ns) && begun.settling == 0;
        let sample = Sample {
            epoch: self.epochs.len() as u32 - 1,
            ticks: rescale(frame.ticks - epoch.first_ticks, epoch.rate_hz),
            key: frame.picture.key,
            point: Entry::of(frame).is_some(),
            wanted,
            in_order: frame.sets.sps.iter().all(|(_, sps)| sps.in_order()),
        };
        if wanted {
            let first_ns = self.span_ns.map_or(frame.arrival_ns, |span| span.0);
            self.span_ns = Some((first_ns, frame.arrival_ns));
        }
        let track = match self.tracks.iter().find(|(codec, _)| *codec == sender.codec) {
            Some(&(_, track)) => track,
            None => {
                let track = self.writer.add_track();
                self.tracks.push((sender.codec, track));
                track
            }
        };
        self.writer.append(track, &frame.sets, sample, &frame.data)
    }
}
