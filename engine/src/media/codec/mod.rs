//! The two video codecs: RTP payload to NAL units, and what a NAL unit says of itself.
//!
//! Leaves only: nothing here has state. Each function takes one payload or one NAL unit; [`Codec`] branches.

mod bits;
pub(super) mod h264;
pub(super) mod h265;
pub(super) mod sets;

#[cfg(test)]
pub(super) mod tests;

use bits::Bits;

/// Which codec a payload type carries, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    H264,
    /// `don`: decoding order numbers are in the payload (`sprop-max-don-diff` > 0).
    H265 {
        don: bool,
    },
}

/// A NAL unit's part in an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A slice (segment), with a header that tells its picture.
    Picture,
    /// A data partition without such a header.
    PicturePart,
    Vps,
    Sps,
    Pps,
    /// Supplemental information ahead of a picture.
    Info,
    /// Anything else that stands ahead of a picture.
    Lead,
    /// What belongs to the picture before it.
    Trail,
    /// Not to be stored.
    Skip,
}

/// What an RTP payload holds.
pub(super) enum Unit<'a> {
    /// One NAL unit.
    Whole(&'a [u8]),
    /// A piece of one.
    Piece(Piece<'a>),
    /// The decoding order number of what follows.
    OrderNumber(u16),
}

/// A piece of a fragmented NAL unit.
pub(super) struct Piece<'a> {
    pub first: bool,
    pub last: bool,
    /// The NAL unit's header, which pieces do not repeat.
    pub header: &'a [u8],
    pub bytes: &'a [u8],
}

/// Receives the units of a payload, in order.
pub(super) type Visit<'v> = &'v mut dyn FnMut(Unit<'_>) -> Result<(), Malformed>;

/// Why a payload cannot be used. The frame it belongs to is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It ends before its own lengths say so.
    Cut,
    /// A structure within a structure that may not hold one.
    Nested,
    /// A piece whose first piece is missing.
    Orphan,
    /// The sender interleaves frames (H.264 `packetization-mode=2`, H.265 falling order numbers).
    Interleaved,
}

/// What a slice header tells of its picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PictureStart {
    /// The slice is its picture's first.
    pub first: bool,
    /// H.264: it is intra coded.
    pub intra: bool,
    /// IDR (H.264) or IRAP (H.265): decoding can begin here.
    pub key: bool,
    /// Others may refer to it.
    pub reference: bool,
    /// H.265 BLA: its leading pictures cannot be decoded.
    pub broken_link: bool,
    /// H.265 RASL: a leading picture that refers to what came before its CRA.
    pub skipped_leading: bool,
    /// H.264: a single field, with its frame number and whether it is the bottom one.
    pub field: Option<(u32, bool)>,
}

impl Codec {
    /// A NAL unit's kind. `nal` is not shorter than its header.
    pub fn kind(self, nal: &[u8]) -> Kind {
        match self {
            Codec::H264 => h264::kind(nal),
            Codec::H265 { .. } => h265::kind(nal),
        }
    }

    /// Bytes of a NAL unit's header.
    pub fn header_bytes(self) -> usize {
        match self {
            Codec::H264 => 1,
            Codec::H265 { .. } => 2,
        }
    }

    /// Gives the units of a payload that is not empty to `visit`.
    ///
    /// # Errors
    /// If it is malformed; units before the fault have been given out.
    pub fn unpack(self, payload: &[u8], visit: Visit<'_>) -> Result<(), Malformed> {
        match self {
            Codec::H264 => h264::unpack(payload, visit),
            Codec::H265 { don } => h265::unpack(payload, don, visit),
        }
    }

    /// From an SEI NAL unit: after how many pictures output is right, if it says so.
    pub fn recovery_count(self, nal: &[u8]) -> Option<u32> {
        match self {
            Codec::H264 => h264::recovery_count(nal),
            Codec::H265 { .. } => h265::recovery_count(nal),
        }
    }
}

/// A big-endian u16 and what follows it.
fn word(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    match bytes {
        [high, low, rest @ ..] => Ok((u16::from_be_bytes([*high, *low]), rest)),
        _ => Err(Malformed::Cut),
    }
}

/// As many bytes as a leading u16 says, and what follows them.
fn sized(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (length, rest) = word(bytes)?;
    rest.split_at_checked(usize::from(length)).ok_or(Malformed::Cut)
}

/// The reader at the payload of the recovery point message (type 6 in both codecs), if the SEI NAL unit has one.
fn recovery_message(bytes: &[u8]) -> Option<Bits<'_>> {
    const RECOVERY_POINT: u32 = 6;
    let mut b = Bits::new(bytes);
    loop {
        let kind = read_ff_coded(&mut b)?;
        let length = read_ff_coded(&mut b)?;
        if kind == RECOVERY_POINT && length > 0 {
            return Some(b);
        }
        b.skip(length.checked_mul(8)?)?;
    }
}

/// A number as SEI messages write it: 255 for each full byte, then the rest.
fn read_ff_coded(b: &mut Bits<'_>) -> Option<u32> {
    let mut value = 0u32;
    loop {
        let byte = b.u(8)?;
        value = value.checked_add(byte)?;
        if byte != 0xFF {
            return Some(value);
        }
    }
}

/// Sample aspect ratio as in both codecs' VUI (H.264 table E-1); `Some(None)` when it is unspecified.
fn read_aspect(b: &mut Bits<'_>) -> Option<Option<(u32, u32)>> {
    const TABLE: [(u32, u32); 16] = [
        (1, 1),
        (12, 11),
        (10, 11),
        (16, 11),
        (40, 33),
        (24, 11),
        (20, 11),
        (32, 11),
        (80, 33),
        (18, 11),
        (15, 11),
        (64, 33),
        (160, 99),
        (4, 3),
        (3, 2),
        (2, 1),
    ];
    const EXTENDED: u32 = 255;
    let code = b.u(8)?;
    Some(match code {
        1..=16 => Some(TABLE[code as usize - 1]),
        EXTENDED => Some((b.u(16)?, b.u(16)?)).filter(|&(x, y)| x > 0 && y > 0),
        _ => None,
    })
}
