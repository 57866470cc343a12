//! Sample entries: what a decoder must be told before a track's samples (ISO/IEC 14496-15 §5.4, §8.4).
//!
//! `avc1` and `hvc1`: the parameter sets stand here and nowhere else, which is what every player understands. When
//! they change, another entry follows; a resolution change is that, and no more.

use std::sync::Arc;

use shiguredo_mp4::boxes::{
    Avc1Box, AvccBox, Hvc1Box, HvccBox, HvccNalUintArray, SampleEntry, UnknownBox, VisualSampleEntryFields,
};
use shiguredo_mp4::{BoxSize, BoxType, Uint};

use crate::media::Error;
use crate::media::codec::sets::{Snapshot, Sps};
use crate::media::codec::{h264, h265};

/// NAL unit types of the parameter sets in `hvcC` (H.265 table 7-1).
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
/// Lengths before NAL units are four bytes.
const LENGTH_SIZE_MINUS_ONE: u8 = 3;

/// A sample entry and the size its pictures are meant to be shown at.
pub(in crate::media) struct VideoEntry {
    pub entry: SampleEntry,
    pub shown_width: u16,
    pub shown_height: u16,
}

impl VideoEntry {
    /// The entry for frames that need `sets`.
    ///
    /// # Errors
    /// If the picture is too large for an MP4.
    pub fn new(sets: &Snapshot) -> Result<VideoEntry, Error> {
        let (_, sps) = sets.sps.first().expect("a snapshot has a sequence parameter set");
        match sps {
            Sps::H264(sps) => avc1(sets, sps),
            Sps::H265(sps) => hvc1(sets, sps),
        }
    }
}

fn avc1(sets: &Snapshot, sps: &h264::Sps) -> Result<VideoEntry, Error> {
    let [profile, compatibility, level] = sps.profile;
    let extended = !matches!(profile, 66 | 77 | 88);
    let aspect = sps.aspect.filter(|(x, y)| x != y);
    let entry = Avc1Box {
        visual: visual(sps.width, sps.height)?,
        avcc_box: AvccBox {
            avc_profile_indication: profile,
            profile_compatibility: compatibility,
            avc_level_indication: level,
            length_size_minus_one: Uint::new(LENGTH_SIZE_MINUS_ONE),
            sps_list: sets.sps.iter().map(|(nal, _)| nal.to_vec()).collect(),
            pps_list: sets.pps.iter().map(|nal| nal.to_vec()).collect(),
            chroma_format: extended.then(|| Uint::new(sps.chroma_format)),
            bit_depth_luma_minus8: extended.then(|| Uint::new(sps.luma_bits - 8)),
            bit_depth_chroma_minus8: extended.then(|| Uint::new(sps.chroma_bits - 8)),
            sps_ext_list: Vec::new(),
        },
        unknown_boxes: aspect.map(pixel_aspect).into_iter().collect(),
    };
    let (x, y) = aspect.unwrap_or((1, 1));
    let shown_width = u64::from(sps.width) * u64::from(x) / u64::from(y);
    Ok(VideoEntry {
        shown_width: u16::try_from(shown_width).unwrap_or(entry.visual.width),
        shown_height: entry.visual.height,
        entry: SampleEntry::Avc1(entry),
    })
}

fn hvc1(sets: &Snapshot, sps: &h265::Sps) -> Result<VideoEntry, Error> {
    let ptl = &sps.profile_tier_level;
    let constraints = ptl[5..11]
        .iter()
        .fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let sequence: Vec<Arc<[u8]>> = sets.sps.iter().map(|(nal, _)| Arc::clone(nal)).collect();
    let entry = Hvc1Box {
        visual: visual(sps.width, sps.height)?,
        hvcc_box: HvccBox {
            general_profile_space: Uint::new(ptl[0] >> 6),
            general_tier_flag: Uint::new(ptl[0] >> 5 & 1),
            general_profile_idc: Uint::new(ptl[0] & 0x1F),
            general_profile_compatibility_flags: u32::from_be_bytes([ptl[1], ptl[2], ptl[3], ptl[4]]),
            general_constraint_indicator_flags: Uint::new(constraints),
            general_level_idc: ptl[11],
            min_spatial_segmentation_idc: Uint::new(0),
            parallelism_type: Uint::new(0),
            chroma_format_idc: Uint::new(sps.chroma_format),
            // Three bits each; 16-bit video says 15, as it cannot say more.
            bit_depth_luma_minus8: Uint::new((sps.luma_bits - 8).min(7)),
            bit_depth_chroma_minus8: Uint::new((sps.chroma_bits - 8).min(7)),
            avg_frame_rate: 0,
            constant_frame_rate: Uint::new(0),
            num_temporal_layers: Uint::new(sps.temporal_layers),
            temporal_id_nested: Uint::from(sps.temporal_nesting),
            length_size_minus_one: Uint::new(LENGTH_SIZE_MINUS_ONE),
            nalu_arrays: vec![
                array(VPS, &sets.vps),
                array(SPS, &sequence),
                array(PPS, &sets.pps),
            ],
        },
        unknown_boxes: Vec::new(),
    };
    Ok(VideoEntry {
        shown_width: entry.visual.width,
        shown_height: entry.visual.height,
        entry: SampleEntry::Hvc1(entry),
    })
}

fn array(kind: u8, nals: &[Arc<[u8]>]) -> HvccNalUintArray {
    HvccNalUintArray {
        array_completeness: Uint::new(1),
        nal_unit_type: Uint::new(kind),
        nalus: nals.iter().map(|nal| nal.to_vec()).collect(),
    }
}

fn visual(width: u32, height: u32) -> Result<VisualSampleEntryFields, Error> {
    let fit = |size: u32| {
        u16::try_from(size)
            .map_err(|_| Error::Unsupported(format!("pictures of {width}×{height} do not fit into an MP4")))
    };
    Ok(VisualSampleEntryFields {
        data_reference_index: VisualSampleEntryFields::DEFAULT_DATA_REFERENCE_INDEX,
        width: fit(width)?,
        height: fit(height)?,
        horizresolution: VisualSampleEntryFields::DEFAULT_HORIZRESOLUTION,
        vertresolution: VisualSampleEntryFields::DEFAULT_VERTRESOLUTION,
        frame_count: VisualSampleEntryFields::DEFAULT_FRAME_COUNT,
        compressorname: VisualSampleEntryFields::NULL_COMPRESSORNAME,
        depth: VisualSampleEntryFields::DEFAULT_DEPTH,
    })
}

/// `pasp` (ISO/IEC 14496-12 §12.1.4.2), which the box library does not know.
fn pixel_aspect((x, y): (u32, u32)) -> UnknownBox {
    let box_type = BoxType::Normal(*b"pasp");
    let payload: Vec<u8> = [x.to_be_bytes(), y.to_be_bytes()].concat();
    UnknownBox {
        box_type,
        box_size: BoxSize::with_payload_size(box_type, payload.len() as u64),
        payload,
    }
}
