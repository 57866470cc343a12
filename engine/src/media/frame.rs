//! From packets in order to frames (access units), each complete or not at all.
//!
//! A frame ends where the timestamp changes, or where a new picture begins within one timestamp. The marker bit is a
//! hint only: some cameras never set it, some set it on every slice. It proves a frame complete where packets are
//! missing right behind it. A frame with a packet missing inside, or possibly missing at its end, is left out.
//!
//! Parameter sets are taken out of the frames and kept in [`Sets`]; a frame carries the sets in force at its first
//! slice. Information ahead of a picture stays with it, also when it came under another timestamp.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use super::codec::sets::{Sets, Snapshot};
use super::codec::{Codec, Kind, Malformed, PictureStart, Piece, Unit};
use super::order::{Follows, Ordered};

/// No camera's frame comes near; a sender that never ends one must not fill the memory.
const MAX_FRAME_BYTES: usize = 64 << 20;
/// Each NAL unit in a frame stands behind its length, u32 big-endian (ISO/IEC 14496-15 §5.3.3).
const LENGTH_BYTES: usize = 4;

/// One complete access unit.
pub(super) struct Frame {
    /// Length-prefixed NAL units, without parameter sets and filler.
    pub data: Vec<u8>,
    /// Presentation time, extended RTP ticks.
    pub ticks: i64,
    /// How often the clock had been set anew.
    pub clock: u32,
    /// Arrival of its first and of its last packet.
    pub first_arrival_ns: u64,
    pub arrival_ns: u64,
    pub picture: PictureStart,
    /// It is a recovery point, with output right after so many reference frames.
    pub recovery: Option<u32>,
    /// The parameter sets it needs.
    pub sets: Arc<Snapshot>,
}

/// Frames and payloads that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Frames with a packet missing or damaged.
    pub incomplete: u64,
    /// Frames before the first parameter sets.
    pub undescribed: u64,
    /// Payloads that contradict themselves.
    pub malformed: u64,
    /// Payloads of an interleaving sender.
    pub interleaved: u64,
}

impl LeftOut {
    /// Each count of both, combined by `with`.
    fn combine(self, other: LeftOut, with: impl Fn(u64, u64) -> u64) -> LeftOut {
        LeftOut {
            incomplete: with(self.incomplete, other.incomplete),
            undescribed: with(self.undescribed, other.undescribed),
            malformed: with(self.malformed, other.malformed),
            interleaved: with(self.interleaved, other.interleaved),
        }
    }

    /// The sum of two senders' counts.
    pub fn plus(self, other: LeftOut) -> LeftOut {
        self.combine(other, |a, b| a + b)
    }

    /// What came since `earlier`.
    pub fn since(self, earlier: LeftOut) -> LeftOut {
        self.combine(earlier, u64::saturating_sub)
    }
}

/// A frame in the making.
#[derive(Default)]
struct Building {
    data: Vec<u8>,
    ticks: i64,
    clock: u32,
    arrivals: Option<(u64, u64)>,
    /// The last packet had the marker bit.
    marker: bool,
    /// Something of it is missing.
    broken: bool,
    /// Packets before its first are missing: only a picture's first slice proves it whole.
    unproved: bool,
    picture: Option<PictureStart>,
    recovery: Option<u32>,
    sets: Option<Arc<Snapshot>>,
    /// Where in `data` the next picture's leading NAL units seem to begin, and the recovery point among them.
    ahead: Option<(usize, Option<u32>)>,
}

/// Builds the frames of one stream.
pub(super) struct Assembler {
    codec: Codec,
    pub sets: Sets,
    building: Building,
    /// Where in `building.data` a fragmented NAL unit began.
    fragment: Option<usize>,
    order_number: Option<u16>,
    /// A gap was seen at a packet without payload.
    gap_pending: bool,
    marker_seen: bool,
    ready: VecDeque<Frame>,
    pub left_out: LeftOut,
}

impl Assembler {
    pub fn new(codec: Codec) -> Assembler {
        Assembler {
            codec,
            sets: Sets::new(codec),
            building: Building::default(),
            fragment: None,
            order_number: None,
            gap_pending: false,
            marker_seen: false,
            ready: VecDeque::new(),
            left_out: LeftOut::default(),
        }
    }

    /// Takes the next packet in order, whose extended time is `ticks` since the clock was set for the `clock`-th time.
    /// Then [`Assembler::next_frame`] gives what became complete.
    pub fn push(&mut self, packet: &Ordered<'_>, ticks: i64, clock: u32) {
        self.gap_pending |= packet.follows != Follows::Directly;
        if packet.payload.is_empty() {
            return;
        }
        let gap = mem::take(&mut self.gap_pending);
        if gap {
            self.order_number = None;
        }
        self.enter(ticks, clock, gap);
        let (first_ns, last_ns) = self
            .building
            .arrivals
            .unwrap_or((packet.arrival_ns, packet.arrival_ns));
        self.building.arrivals = Some((first_ns, last_ns.max(packet.arrival_ns)));

        let codec = self.codec;
        if let Err(why) = codec.unpack(packet.payload, &mut |unit| self.take(unit)) {
            self.building.broken = true;
            match why {
                Malformed::Interleaved => self.left_out.interleaved += 1,
                // Its first piece was lost, which the gap told already.
                Malformed::Orphan => {}
                Malformed::Cut | Malformed::Nested => self.left_out.malformed += 1,
            }
        }
        if self.building.data.len() > MAX_FRAME_BYTES {
            self.abandon();
        }
        self.building.marker = packet.marker;
        self.marker_seen |= packet.marker;
    }

    /// The next complete frame, in decoding order.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.ready.pop_front()
    }

    /// The stream ends here: its last frame is complete only if the marker says so, or never says anything.
    pub fn flush(&mut self) {
        self.building.broken |= self.marker_seen && !self.building.marker;
        self.close();
        self.building = Building::default();
    }

    /// Makes `building` the frame of `ticks`.
    fn enter(&mut self, ticks: i64, clock: u32, gap: bool) {
        let begun = self.building.arrivals.is_some();
        if begun && (ticks, clock) != (self.building.ticks, self.building.clock) {
            self.building.broken |= gap && !self.building.marker;
            self.close();
            self.building.unproved = gap;
        } else if begun {
            self.building.broken |= gap;
        } else {
            self.building.unproved = gap;
        }
        if gap && self.building.arrivals.is_none() {
            // What stood ahead of a lost picture is not known to belong to this one.
            self.building.data.clear();
            self.building.recovery = None;
        }
        self.building.ticks = ticks;
        self.building.clock = clock;
    }

    /// Takes one unit of a payload.
    fn take(&mut self, unit: Unit<'_>) -> Result<(), Malformed> {
        match unit {
            Unit::OrderNumber(number) => {
                let before = self.order_number.replace(number).unwrap_or(number);
                if (number.wrapping_sub(before) as i16) < 0 {
                    return Err(Malformed::Interleaved);
                }
                Ok(())
            }
            Unit::Whole(nal) => {
                self.abort_fragment();
                if nal.len() < self.codec.header_bytes() {
                    return Err(Malformed::Cut);
                }
                let at = self.building.data.len();
                self.building.data.extend((nal.len() as u32).to_be_bytes());
                self.building.data.extend(nal);
                self.accept(at);
                Ok(())
            }
            Unit::Piece(piece) => self.take_piece(&piece),
        }
    }

    fn take_piece(&mut self, piece: &Piece<'_>) -> Result<(), Malformed> {
        if piece.first {
            self.abort_fragment();
            self.fragment = Some(self.building.data.len());
            self.building.data.extend([0; LENGTH_BYTES]);
            self.building.data.extend(piece.header);
        }
        let at = self.fragment.ok_or(Malformed::Orphan)?;
        self.building.data.extend(piece.bytes);
        if piece.last {
            self.fragment = None;
            let length = (self.building.data.len() - at - LENGTH_BYTES) as u32;
            self.building.data[at..at + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
            self.accept(at);
        }
        Ok(())
    }

    /// A fragmented NAL unit that ends without its last piece is no NAL unit.
    fn abort_fragment(&mut self) {
        if let Some(at) = self.fragment.take() {
            self.building.data.truncate(at);
            self.building.broken = true;
        }
    }

    fn abandon(&mut self) {
        self.fragment = None;
        self.building.data = Vec::new();
        self.building.ahead = None;
        self.building.broken = true;
    }

    /// Decides on the NAL unit that stands, with its length, at `at`.
    fn accept(&mut self, at: usize) {
        let nal = &self.building.data[at + LENGTH_BYTES..];
        // RFC 6184 §5.3, RFC 7798 §1.1.4: the forbidden bit says that the unit is damaged.
        if nal[0] & 0x80 != 0 {
            self.building.broken = true;
        }
        match self.codec.kind(nal) {
            Kind::Picture => self.accept_picture(at),
            Kind::PicturePart | Kind::Trail => {}
            Kind::Skip => self.building.data.truncate(at),
            Kind::Vps | Kind::Sps | Kind::Pps => {
                self.sets.insert(nal);
                self.building.data.truncate(at);
                self.lead(at, None);
            }
            Kind::Info => {
                let recovery = self.codec.recovery_count(nal);
                self.lead(at, recovery);
            }
            Kind::Lead => self.lead(at, None),
        }
    }

    /// A NAL unit that stands ahead of a picture: of this one, or of the next if this one has begun.
    fn lead(&mut self, at: usize, recovery: Option<u32>) {
        if self.building.picture.is_none() {
            self.building.recovery = recovery.or(self.building.recovery);
        } else {
            let (_, ahead_recovery) = self.building.ahead.get_or_insert((at, None));
            *ahead_recovery = recovery.or(*ahead_recovery);
        }
    }

    fn accept_picture(&mut self, at: usize) {
        let Some(slice) = self.sets.picture_start(&self.building.data[at + LENGTH_BYTES..]) else {
            self.building.broken = true;
            return;
        };
        match self.building.picture {
            Some(picture) if self.begins_another(&picture, &slice) => {
                let cut = self.building.ahead.map_or(at, |(ahead, _)| ahead);
                self.split(cut);
            }
            Some(ref mut picture) => {
                // Whatever stood between two slices of one picture belongs to it.
                self.building.ahead = None;
                picture.intra &= slice.intra;
                picture.key &= slice.key;
                picture.reference |= slice.reference;
                return;
            }
            None => {}
        }
        self.building.broken |= self.building.unproved && !slice.first;
        self.building.picture = Some(slice);
        self.building.sets = self.sets.snapshot();
    }

    /// Whether `slice` begins a picture other than `picture` under the same timestamp. In H.264 a first slice alone
    /// does not say so: slices may come in any order, and the second field of a frame belongs with the first.
    fn begins_another(&self, picture: &PictureStart, slice: &PictureStart) -> bool {
        let second_field = match (picture.field, slice.field) {
            (Some((number, bottom)), Some((other_number, other_bottom))) => {
                number == other_number && bottom != other_bottom
            }
            _ => false,
        };
        let separated = self.building.ahead.is_some() || self.building.marker;
        match self.codec {
            Codec::H264 => slice.first && separated && !second_field,
            Codec::H265 { .. } => slice.first,
        }
    }

    /// Ends the frame at `cut`; what follows is the next one, under the same timestamp.
    fn split(&mut self, cut: usize) {
        let (ticks, clock) = (self.building.ticks, self.building.clock);
        let (arrivals, broken) = (self.building.arrivals, self.building.broken);
        self.building.ahead = Some((cut, self.building.ahead.and_then(|(_, recovery)| recovery)));
        self.close();
        self.building.ticks = ticks;
        self.building.clock = clock;
        self.building.arrivals = arrivals;
        // A packet lost under this timestamp may have been of either.
        self.building.broken |= broken;
    }

    /// Gives out the frame if it is whole, and begins the next with what stood ahead of it.
    fn close(&mut self) {
        self.abort_fragment();
        let mut done = mem::take(&mut self.building);
        let Some(picture) = done.picture else {
            // Nothing but leading NAL units: they wait for their picture.
            if !done.broken {
                self.building.data = done.data;
                self.building.recovery = done.recovery;
            }
            return;
        };
        if let Some((cut, recovery)) = done.ahead {
            self.building.data = done.data.split_off(cut);
            self.building.recovery = recovery;
        }
        let Some((first_arrival_ns, arrival_ns)) = done.arrivals else {
            return;
        };
        match done.sets {
            _ if done.broken => self.left_out.incomplete += 1,
            None => self.left_out.undescribed += 1,
            Some(sets) => self.ready.push_back(Frame {
                data: done.data,
                ticks: done.ticks,
                clock: done.clock,
                first_arrival_ns,
                arrival_ns,
                picture,
                recovery: done.recovery,
                sets,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
