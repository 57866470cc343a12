//! How the bytes of a structure are drawn: one table, from which offsets, sizes and checks follow.
//!
//! `layout! { name: SIZE => offset length FIELD, … }` makes a module `name` with one `Range` per field. The
//! table is checked at compile time: every field starts where the one before it ends, and the last ends at
//! SIZE. So a table in this crate is the drawing, the definition and the assert of its bytes at once.

use std::ops::Range;

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident: $size:literal => $($at:literal $len:literal $field:ident),+ $(,)?) => {
        $(#[$doc])*
        #[allow(dead_code)] // reserved fields are drawn too, and never read
        mod $name {
            pub const SIZE: usize = $size;
            $(pub const $field: std::ops::Range<usize> = $at..$at + $len;)+
            const _: () = {
                let mut next = 0;
                $(assert!($at == next); next += $len;)+
                assert!(next == SIZE);
            };
        }
    };
}
pub(crate) use layout;

pub(crate) fn u16_in(bytes: &[u8], field: Range<usize>) -> u16 {
    u16::from_le_bytes(array_in(bytes, field))
}

pub(crate) fn u32_in(bytes: &[u8], field: Range<usize>) -> u32 {
    u32::from_le_bytes(array_in(bytes, field))
}

pub(crate) fn u64_in(bytes: &[u8], field: Range<usize>) -> u64 {
    u64::from_le_bytes(array_in(bytes, field))
}

/// The field's bytes. The caller has checked that the structure is there whole.
pub(crate) fn array_in<const N: usize>(bytes: &[u8], field: Range<usize>) -> [u8; N] {
    bytes[field].try_into().expect("a field is as long as its type")
}

#[inline(always)]
pub(crate) fn put(bytes: &mut [u8], field: Range<usize>, value: &[u8]) {
    bytes[field].copy_from_slice(value);
}

pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    first_nonzero(bytes).is_none()
}

/// Where the first byte other than zero stands.
pub(crate) fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    // By words first: padding is checked in every block that is scrubbed.
    let words = bytes.chunks_exact(8);
    let tail = bytes.len() - words.remainder().len();
    let from = words
        .clone()
        .position(|w| w != [0; 8])
        .map_or(tail, |word| word * 8);
    bytes[from..].iter().position(|b| *b != 0).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_nonzero_finds_any_single_byte() {
        for len in 0..40 {
            assert_eq!(first_nonzero(&vec![0; len]), None);
            for at in 0..len {
                let mut bytes = vec![0; len];
                bytes[at] = 1;
                assert_eq!(first_nonzero(&bytes), Some(at));
            }
        }
    }
}
