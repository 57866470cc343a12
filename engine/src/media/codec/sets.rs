//! The parameter sets in force: from the session description first, then as they come in band.
//!
//! A set replaces the one with its id. When a sequence parameter set changes, the picture parameter sets built on
//! the old one are forgotten, as decoders do (ffmpeg among them); the sender must repeat them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Codec, Kind, PictureStart, h264, h265};

/// A sequence parameter set's facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::media) enum Sps {
    H264(h264::Sps),
    H265(h265::Sps),
}

impl Sps {
    fn id(&self) -> u8 {
        match self {
            Sps::H264(sps) => sps.id,
            Sps::H265(sps) => sps.id,
        }
    }

    /// Pictures are shown in the order in which they are decoded.
    pub fn in_order(&self) -> bool {
        match self {
            Sps::H264(sps) => sps.in_order,
            Sps::H265(sps) => sps.in_order,
        }
    }
}

/// All sets in force at one frame: what a decoder has to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::media) struct Snapshot {
    pub vps: Vec<Arc<[u8]>>,
    /// Never empty.
    pub sps: Vec<(Arc<[u8]>, Sps)>,
    /// Never empty.
    pub pps: Vec<Arc<[u8]>>,
}

/// The sets of one stream.
pub(in crate::media) struct Sets {
    codec: Codec,
    vps: BTreeMap<u8, Arc<[u8]>>,
    sps: BTreeMap<u8, (Arc<[u8]>, Sps)>,
    pps: BTreeMap<u8, (Arc<[u8]>, u8)>,
    /// Made when it is asked for, dropped when a set changes.
    snapshot: Option<Arc<Snapshot>>,
}

impl Sets {
    pub fn new(codec: Codec) -> Sets {
        Sets {
            codec,
            vps: BTreeMap::new(),
            sps: BTreeMap::new(),
            pps: BTreeMap::new(),
            snapshot: None,
        }
    }

    /// Takes a parameter set NAL unit; anything else, and a set that cannot be read, is ignored.
    pub fn insert(&mut self, nal: &[u8]) {
        // Zeros behind the stop bit are no part of a NAL unit; some senders let them slip in.
        let end = nal.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        let nal = &nal[..end];
        if nal.len() <= self.codec.header_bytes() {
            return;
        }
        let changed = match (self.codec, self.codec.kind(nal)) {
            (Codec::H265 { .. }, Kind::Vps) => h265::vps_id(nal).map(|id| replace(&mut self.vps, id, nal)),
            (Codec::H264, Kind::Sps) => h264::Sps::parse(nal).map(|sps| self.insert_sps(nal, Sps::H264(sps))),
            (Codec::H265 { .. }, Kind::Sps) => {
                h265::Sps::parse(nal).map(|sps| self.insert_sps(nal, Sps::H265(sps)))
            }
            (Codec::H264, Kind::Pps) => h264::pps_ids(nal).map(|ids| self.insert_pps(nal, ids)),
            (Codec::H265 { .. }, Kind::Pps) => h265::pps_ids(nal).map(|ids| self.insert_pps(nal, ids)),
            _ => None,
        };
        if changed == Some(true) {
            self.snapshot = None;
        }
    }

    fn insert_sps(&mut self, nal: &[u8], sps: Sps) -> bool {
        let id = sps.id();
        if self.sps.get(&id).is_some_and(|(old, _)| **old == *nal) {
            return false;
        }
        self.pps.retain(|_, (_, sps_id)| *sps_id != id);
        self.sps.insert(id, (nal.into(), sps));
        true
    }

    fn insert_pps(&mut self, nal: &[u8], (id, sps): (u8, u8)) -> bool {
        if self.pps.get(&id).is_some_and(|(old, _)| **old == *nal) {
            return false;
        }
        self.pps.insert(id, (nal.into(), sps));
        true
    }

    /// The sets in force; `None` while one that every decoder needs is missing.
    pub fn snapshot(&mut self) -> Option<Arc<Snapshot>> {
        let needs_vps = matches!(self.codec, Codec::H265 { .. });
        if self.sps.is_empty() || self.pps.is_empty() || (needs_vps && self.vps.is_empty()) {
            return None;
        }
        Some(Arc::clone(self.snapshot.get_or_insert_with(|| {
            Arc::new(Snapshot {
                vps: self.vps.values().cloned().collect(),
                sps: self.sps.values().cloned().collect(),
                pps: self.pps.values().map(|(nal, _)| Arc::clone(nal)).collect(),
            })
        })))
    }

    /// What a slice's header tells; `None` if it is cut.
    pub fn picture_start(&self, nal: &[u8]) -> Option<PictureStart> {
        match self.codec {
            Codec::H264 => h264::picture_start(nal, |pps| self.h264_sps_of(pps)),
            Codec::H265 { .. } => h265::picture_start(nal),
        }
    }

    fn h264_sps_of(&self, pps: u8) -> Option<&h264::Sps> {
        let (_, sps_id) = self.pps.get(&pps)?;
        match self.sps.get(sps_id)? {
            (_, Sps::H264(sps)) => Some(sps),
            (_, Sps::H265(_)) => None,
        }
    }
}

/// Puts `nal` in its place and tells whether that changed anything.
fn replace(sets: &mut BTreeMap<u8, Arc<[u8]>>, id: u8, nal: &[u8]) -> bool {
    if sets.get(&id).is_some_and(|old| **old == *nal) {
        return false;
    }
    sets.insert(id, nal.into());
    true
}
