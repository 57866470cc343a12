//! H.264: what its NAL units say of themselves (ITU-T H.264 §7.3), and its RTP payload (RFC 6184).
//!
//! ```text
//! NAL unit header   F 1 · ref_idc 2 · type 5
//! 1–23  one NAL unit            24 STAP-A: (size u16, NAL unit)*
//! 28 FU-A: indicator, then S 1 · E 1 · R 1 · type 5, then a piece
//! 25 STAP-B, 26–27 MTAP, 29 FU-B: interleaved mode, not read (no camera in sight sends it)
//! ```

use super::bits::Bits;
use super::{Kind, Malformed, PictureStart, Piece, Unit, Visit};

const STAP_A: u8 = 24;
const FU_A: u8 = 28;

pub(super) fn kind(nal: &[u8]) -> Kind {
    match nal[0] & 0x1F {
        1 | 2 | 5 => Kind::Picture,
        3 | 4 => Kind::PicturePart,
        6 => Kind::Info,
        7 => Kind::Sps,
        8 => Kind::Pps,
        // AUD, and what must stand before a picture as well (§7.4.1.2.3).
        9 | 14..=18 => Kind::Lead,
        // End of sequence and of stream, extensions of the SPS, auxiliary and extension slices.
        10 | 11 | 13 | 19..=21 => Kind::Trail,
        // Filler, reserved, and the payload structures, which may not be nested.
        _ => Kind::Skip,
    }
}

/// Splits one RTP payload into NAL units, or pieces of one.
pub(super) fn unpack(payload: &[u8], visit: Visit<'_>) -> Result<(), Malformed> {
    match payload[0] & 0x1F {
        1..=23 => visit(Unit::Whole(payload)),
        STAP_A => {
            let mut rest = &payload[1..];
            while !rest.is_empty() {
                let (unit, after) = super::sized(rest)?;
                visit(Unit::Whole(unit))?;
                rest = after;
            }
            Ok(())
        }
        FU_A => {
            let [indicator, header, piece @ ..] = payload else {
                return Err(Malformed::Cut);
            };
            let nal_header = indicator & 0xE0 | header & 0x1F;
            visit(Unit::Piece(Piece {
                first: header & 0x80 != 0,
                last: header & 0x40 != 0,
                header: &[nal_header],
                bytes: piece,
            }))
        }
        25..=27 | 29 => Err(Malformed::Interleaved),
        _ => Ok(()),
    }
}

/// Facts of a sequence parameter set, §7.3.2.1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::media) struct Sps {
    pub id: u8,
    pub profile: [u8; 3],
    pub chroma_format: u8,
    pub luma_bits: u8,
    pub chroma_bits: u8,
    pub width: u32,
    pub height: u32,
    /// Sample aspect ratio, when it is stated.
    pub aspect: Option<(u32, u32)>,
    /// Pictures are shown in the order in which they are decoded.
    pub in_order: bool,
    frame_number_bits: u32,
    frames_only: bool,
    separate_planes: bool,
}

impl Sps {
    pub fn parse(nal: &[u8]) -> Option<Sps> {
        let mut b = Bits::new(nal.get(1..)?);
        let profile = [b.u(8)? as u8, b.u(8)? as u8, b.u(8)? as u8];
        let id = u8::try_from(b.ue()?).ok().filter(|&id| id < 32)?;
        let (mut chroma_format, mut luma_bits, mut chroma_bits, mut separate_planes) = (1, 8, 8, false);
        if matches!(
            profile[0],
            100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
        ) {
            chroma_format = b.ue()?;
            separate_planes = chroma_format == 3 && b.flag()?;
            luma_bits = b.ue()?.checked_add(8)?;
            chroma_bits = b.ue()?.checked_add(8)?;
            b.skip(1)?;
            if b.flag()? {
                for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                    if b.flag()? {
                        skip_scaling_list(&mut b, if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        let frame_number_bits = b.ue()?.checked_add(4).filter(|&bits| bits <= 16)?;
        let order_type = b.ue()?;
        skip_order(&mut b, order_type)?;
        b.ue()?; // reference frames
        b.skip(1)?;
        let width_mbs = b.ue()?.checked_add(1).filter(|&n| n <= 4096)?;
        let height_units = b.ue()?.checked_add(1).filter(|&n| n <= 4096)?;
        let frames_only = b.flag()?;
        if !frames_only {
            b.skip(1)?;
        }
        b.skip(1)?;
        let field_factor = if frames_only { 1 } else { 2 };
        let crop = crop(
            &mut b,
            if separate_planes { 0 } else { chroma_format },
            field_factor,
        )?;
        let vui = if b.flag()? {
            Vui::parse(&mut b)
        } else {
            Vui::default()
        };
        Some(Sps {
            id,
            profile,
            chroma_format: u8::try_from(chroma_format).ok().filter(|&c| c <= 3)?,
            luma_bits: u8::try_from(luma_bits).ok().filter(|&n| n <= 14)?,
            chroma_bits: u8::try_from(chroma_bits).ok().filter(|&n| n <= 14)?,
            width: (width_mbs * 16).checked_sub(crop.0)?,
            height: (height_units * 16 * field_factor).checked_sub(crop.1)?,
            aspect: vui.aspect,
            in_order: order_type == 2 || profile[0] == 66 || vui.reorder_frames == Some(0),
            frame_number_bits,
            frames_only,
            separate_planes,
        })
    }
}

fn skip_scaling_list(b: &mut Bits<'_>, size: u32) -> Option<()> {
    let mut next = 8i32;
    for _ in 0..size {
        if next != 0 {
            next = next.wrapping_add(b.se()?) & 0xFF;
        }
    }
    Some(())
}

/// Passes over what describes picture order count.
fn skip_order(b: &mut Bits<'_>, order_type: u32) -> Option<()> {
    match order_type {
        0 => b.ue().map(drop),
        1 => {
            b.skip(1)?;
            b.se()?;
            b.se()?;
            let cycle = b.ue()?.min(255);
            (0..cycle).try_for_each(|_| b.se().map(drop))
        }
        _ => Some(()),
    }
}

/// Width and height cut away at the edges, in luma samples (§7.4.2.1.1).
fn crop(b: &mut Bits<'_>, chroma_format: u32, field_factor: u32) -> Option<(u32, u32)> {
    if !b.flag()? {
        return Some((0, 0));
    }
    let unit_x = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma_format == 1 { 2 } else { 1 } * field_factor;
    let (left, right, top, bottom) = (b.ue()?, b.ue()?, b.ue()?, b.ue()?);
    let x = left.checked_add(right)?.checked_mul(unit_x)?;
    let y = top.checked_add(bottom)?.checked_mul(unit_y)?;
    Some((x, y))
}

/// What is of use in the video usability information (Annex E.1.1).
#[derive(Default)]
struct Vui {
    aspect: Option<(u32, u32)>,
    reorder_frames: Option<u32>,
}

impl Vui {
    /// As far as it can be read: encoders cut it short, and nothing here is needed for decoding.
    fn parse(b: &mut Bits<'_>) -> Vui {
        let mut vui = Vui::default();
        // `None` only says that reading stopped early.
        let _ = vui.read(b);
        vui
    }

    fn read(&mut self, b: &mut Bits<'_>) -> Option<()> {
        if b.flag()? {
            self.aspect = super::read_aspect(b)?;
        }
        if b.flag()? {
            b.skip(1)?; // overscan
        }
        if b.flag()? {
            b.skip(4)?; // video signal type
            if b.flag()? {
                b.skip(24)?;
            }
        }
        if b.flag()? {
            b.ue()?; // chroma location
            b.ue()?;
        }
        if b.flag()? {
            b.skip(65)?; // timing
        }
        let (nal_hrd, vcl_hrd) = (skip_hrd(b)?, skip_hrd(b)?);
        if nal_hrd || vcl_hrd {
            b.skip(1)?;
        }
        b.skip(1)?;
        if b.flag()? {
            b.skip(1)?;
            for _ in 0..4 {
                b.ue()?;
            }
            self.reorder_frames = Some(b.ue()?);
        }
        Some(())
    }
}

/// Passes over HRD parameters (Annex E.1.2) and tells whether there were any.
fn skip_hrd(b: &mut Bits<'_>) -> Option<bool> {
    if !b.flag()? {
        return Some(false);
    }
    let count = b.ue()?.min(31) + 1;
    b.skip(8)?;
    for _ in 0..count {
        b.ue()?;
        b.ue()?;
        b.skip(1)?;
    }
    b.skip(20)?;
    Some(true)
}

/// Id of a picture parameter set, and of the sequence parameter set it builds on.
pub(super) fn pps_ids(nal: &[u8]) -> Option<(u8, u8)> {
    let mut b = Bits::new(nal.get(1..)?);
    let id = u8::try_from(b.ue()?).ok()?;
    let sps = u8::try_from(b.ue()?).ok().filter(|&sps| sps < 32)?;
    Some((id, sps))
}

/// Reads as much of a slice header (§7.3.3) as tells pictures apart.
pub(super) fn picture_start<'s>(nal: &[u8], sps_of: impl Fn(u8) -> Option<&'s Sps>) -> Option<PictureStart> {
    let mut b = Bits::new(nal.get(1..)?);
    let first = b.ue()? == 0;
    let slice_type = b.ue()? % 5;
    let mut start = PictureStart {
        first,
        intra: matches!(slice_type, 2 | 4),
        key: nal[0] & 0x1F == 5,
        reference: nal[0] & 0x60 != 0,
        ..PictureStart::default()
    };
    let pps = u8::try_from(b.ue()?).ok()?;
    if let Some(sps) = sps_of(pps) {
        if sps.separate_planes {
            b.skip(2)?;
        }
        let frame_number = b.u(sps.frame_number_bits)?;
        if !sps.frames_only && b.flag()? {
            start.field = Some((frame_number, b.flag()?));
        }
    }
    Some(start)
}

/// How many reference pictures after this one until output is right, from a recovery point SEI message (§D.1.8).
pub(super) fn recovery_count(nal: &[u8]) -> Option<u32> {
    super::recovery_message(nal.get(1..)?).and_then(|mut b| b.ue())
}
