//! H.265: what its NAL units say of themselves (ITU-T H.265 §7.3), and its RTP payload (RFC 7798).
//!
//! ```text
//! NAL unit header   F 1 · type 6 · layer 6 · temporal id + 1 3
//! 0–47  one NAL unit            48 AP: (size u16, NAL unit)*
//! 49 FU: header, then S 1 · E 1 · type 6, then a piece
//! 50 PACI: header, then A 1 · cType 6 · PHSsize 5 · F0–F2 3 · Y 1, then PHSsize bytes, then the payload it wraps
//! ```
//! Where the description says `sprop-max-don-diff` > 0, decoding order numbers (DONL, DOND) stand between; they are
//! checked to rise, since a sender that really interleaves is not read.

use super::bits::Bits;
use super::{Kind, Malformed, PictureStart, Piece, Unit, Visit};

const AP: u8 = 48;
const FU: u8 = 49;
const PACI: u8 = 50;

fn unit_type(nal: &[u8]) -> u8 {
    nal[0] >> 1 & 0x3F
}

pub(super) fn kind(nal: &[u8]) -> Kind {
    match unit_type(nal) {
        // Other layers are carried along with the picture they belong to.
        0..=40 if layer(nal) != 0 => Kind::Trail,
        0..=9 | 16..=21 => Kind::Picture,
        32 => Kind::Vps,
        33 => Kind::Sps,
        34 => Kind::Pps,
        39 => Kind::Info,
        // AUD, and what must stand before a picture as well (§7.4.2.4.4).
        35 | 41..=44 => Kind::Lead,
        // End of sequence and of bitstream, suffix SEI.
        36 | 37 | 40 => Kind::Trail,
        // Filler, reserved, and the payload structures, which may not be nested.
        _ => Kind::Skip,
    }
}

fn layer(nal: &[u8]) -> u8 {
    (nal[0] & 1) << 5 | nal.get(1).map_or(0, |b| b >> 3)
}

/// Splits one RTP payload into NAL units, or pieces of one. `don`: numbers of the decoding order are present.
pub(super) fn unpack(payload: &[u8], don: bool, visit: Visit<'_>) -> Result<(), Malformed> {
    let &[first, second, ref rest @ ..] = payload else {
        return Err(Malformed::Cut);
    };
    match unit_type(payload) {
        AP => unpack_aggregate(rest, don, visit),
        FU => {
            let (&fu_header, mut piece) = rest.split_first().ok_or(Malformed::Cut)?;
            let starts = fu_header & 0x80 != 0;
            if don && starts {
                piece = take_don(piece, visit)?;
            }
            let header = [first & 0x81 | (fu_header & 0x3F) << 1, second];
            visit(Unit::Piece(Piece {
                first: starts,
                last: fu_header & 0x40 != 0,
                header: &header,
                bytes: piece,
            }))
        }
        PACI => {
            let inner = unwrap_paci(payload)?;
            if unit_type(&inner) == PACI {
                Err(Malformed::Nested)
            } else {
                unpack(&inner, don, visit)
            }
        }
        0..=47 if don => {
            let mut nal = vec![first, second];
            nal.extend(take_don(rest, visit)?);
            visit(Unit::Whole(&nal))
        }
        0..=47 => visit(Unit::Whole(payload)),
        _ => Ok(()),
    }
}

fn unpack_aggregate(mut rest: &[u8], don: bool, visit: Visit<'_>) -> Result<(), Malformed> {
    let mut current: Option<u16> = None;
    while !rest.is_empty() {
        if don {
            rest = match current {
                None => {
                    let (number, after) = super::word(rest)?;
                    current = Some(number);
                    after
                }
                Some(before) => {
                    let (&difference, after) = rest.split_first().ok_or(Malformed::Cut)?;
                    current = Some(before.wrapping_add(u16::from(difference)).wrapping_add(1));
                    after
                }
            };
        }
        if let Some(number) = current {
            visit(Unit::OrderNumber(number))?;
        }
        let (unit, after) = super::sized(rest)?;
        if unit.len() < 2 {
            return Err(Malformed::Cut);
        }
        visit(Unit::Whole(unit))?;
        rest = after;
    }
    Ok(())
}

fn take_don<'a>(rest: &'a [u8], visit: Visit<'_>) -> Result<&'a [u8], Malformed> {
    let (number, after) = super::word(rest)?;
    visit(Unit::OrderNumber(number))?;
    Ok(after)
}

/// The payload that a PACI packet wraps, with its header put back (RFC 7798 §4.4.4).
fn unwrap_paci(payload: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (fields, rest) = super::word(&payload[2..])?;
    let inner_type = (fields >> 9 & 0x3F) as u8;
    let extension = usize::from(fields >> 4 & 0x1F);
    let forbidden = (fields >> 8 & 0x80) as u8;
    let mut inner = vec![forbidden | inner_type << 1 | payload[0] & 1, payload[1]];
    inner.extend(rest.get(extension..).ok_or(Malformed::Cut)?);
    Ok(inner)
}

/// Facts of a sequence parameter set, §7.3.2.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::media) struct Sps {
    pub id: u8,
    pub vps: u8,
    /// The 12 bytes from general_profile_space to general_level_idc, as in `hvcC`.
    pub profile_tier_level: [u8; 12],
    pub temporal_layers: u8,
    pub temporal_nesting: bool,
    pub chroma_format: u8,
    pub luma_bits: u8,
    pub chroma_bits: u8,
    pub width: u32,
    pub height: u32,
    /// Pictures are shown in the order in which they are decoded.
    pub in_order: bool,
}

impl Sps {
    pub fn parse(nal: &[u8]) -> Option<Sps> {
        let mut b = Bits::new(nal.get(2..)?);
        let vps = b.u(4)? as u8;
        let sub_layers_minus1 = b.u(3)?;
        let temporal_nesting = b.flag()?;
        let mut profile_tier_level = [0u8; 12];
        for byte in &mut profile_tier_level {
            *byte = b.u(8)? as u8;
        }
        skip_sub_layers(&mut b, sub_layers_minus1)?;
        let id = u8::try_from(b.ue()?).ok().filter(|&id| id < 16)?;
        let chroma_format = b.ue()?;
        let separate_planes = chroma_format == 3 && b.flag()?;
        let (coded_width, coded_height) = (b.ue()?, b.ue()?);
        let (mut crop_x, mut crop_y) = (0, 0);
        if b.flag()? {
            let sampled = if separate_planes { 0 } else { chroma_format };
            let unit_x = if matches!(sampled, 1 | 2) { 2 } else { 1 };
            let unit_y = if sampled == 1 { 2 } else { 1 };
            crop_x = b.ue()?.checked_add(b.ue()?)?.checked_mul(unit_x)?;
            crop_y = b.ue()?.checked_add(b.ue()?)?.checked_mul(unit_y)?;
        }
        let luma_bits = b.ue()?.checked_add(8)?;
        let chroma_bits = b.ue()?.checked_add(8)?;
        b.ue()?; // bits of the picture order count
        let every_layer = b.flag()?;
        let mut reorder = 0;
        for _ in if every_layer { 0 } else { sub_layers_minus1 }..=sub_layers_minus1 {
            b.ue()?;
            reorder = b.ue()?;
            b.ue()?;
        }
        Some(Sps {
            id,
            vps,
            profile_tier_level,
            temporal_layers: sub_layers_minus1 as u8 + 1,
            temporal_nesting,
            chroma_format: u8::try_from(chroma_format).ok().filter(|&c| c <= 3)?,
            luma_bits: u8::try_from(luma_bits).ok().filter(|&n| n <= 16)?,
            chroma_bits: u8::try_from(chroma_bits).ok().filter(|&n| n <= 16)?,
            width: coded_width.checked_sub(crop_x)?,
            height: coded_height.checked_sub(crop_y)?,
            in_order: reorder == 0,
        })
    }
}

/// Passes over the profiles and levels of the lower temporal layers (§7.3.3).
fn skip_sub_layers(b: &mut Bits<'_>, sub_layers_minus1: u32) -> Option<()> {
    let mut present = Vec::new();
    for _ in 0..sub_layers_minus1 {
        present.push((b.flag()?, b.flag()?));
    }
    if sub_layers_minus1 > 0 {
        b.skip(2 * (8 - sub_layers_minus1))?;
    }
    for (profile, level) in present {
        b.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(())
}

/// Id of a picture parameter set, and of the sequence parameter set it builds on.
pub(super) fn pps_ids(nal: &[u8]) -> Option<(u8, u8)> {
    let mut b = Bits::new(nal.get(2..)?);
    let id = u8::try_from(b.ue()?).ok().filter(|&id| id < 64)?;
    let sps = u8::try_from(b.ue()?).ok().filter(|&sps| sps < 16)?;
    Some((id, sps))
}

/// Id of a video parameter set.
pub(super) fn vps_id(nal: &[u8]) -> Option<u8> {
    Some(nal.get(2)? >> 4)
}

/// What a slice segment's first bits tell (§7.3.6.1), and its type (table 7-1).
pub(super) fn picture_start(nal: &[u8]) -> Option<PictureStart> {
    let unit_type = unit_type(nal);
    Some(PictureStart {
        first: *nal.get(2)? & 0x80 != 0,
        key: (16..=21).contains(&unit_type),
        // BLA, and a CRA where decoding begins, have RASL pictures that nothing can decode.
        broken_link: (16..=18).contains(&unit_type),
        skipped_leading: matches!(unit_type, 8 | 9),
        reference: unit_type > 15 || unit_type % 2 == 1,
        ..PictureStart::default()
    })
}

/// How far after this picture output is right, from a recovery point SEI message (§D.2.8).
pub(super) fn recovery_count(nal: &[u8]) -> Option<u32> {
    let count = super::recovery_message(nal.get(2..)?).and_then(|mut b| b.se())?;
    Some(count.max(0) as u32)
}
