//! Reading the bits of a NAL unit's payload (H.264 §7.2, §9.1; H.265 §9.2). Reading past the end gives `None`.

/// Reads bits, skipping emulation prevention bytes (`00 00 03`) on the way.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    zeros: u32,
    byte: u8,
    left: u32,
}

impl<'a> Bits<'a> {
    /// Begins at the first byte of `bytes`, which is what follows the NAL unit's header.
    pub fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits {
            bytes,
            at: 0,
            zeros: 0,
            byte: 0,
            left: 0,
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let mut byte = *self.bytes.get(self.at)?;
        self.at += 1;
        if self.zeros >= 2 && byte == 3 {
            byte = *self.bytes.get(self.at)?;
            self.at += 1;
            self.zeros = 0;
        }
        self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
        Some(byte)
    }

    /// One bit: `u(1)`.
    pub fn flag(&mut self) -> Option<bool> {
        if self.left == 0 {
            self.byte = self.next_byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Some(self.byte >> self.left & 1 == 1)
    }

    /// Up to 32 bits: `u(n)`.
    pub fn u(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| Some(value << 1 | u32::from(self.flag()?)))
    }

    /// Passes over `count` bits.
    pub fn skip(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.flag().map(drop))
    }

    /// Exp-Golomb: `ue(v)`.
    pub fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some(((1u64 << zeros) - 1) as u32 + self.u(zeros)?)
    }

    /// Signed Exp-Golomb: `se(v)`.
    pub fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 1 {
            (code + 1) / 2
        } else {
            -(code / 2)
        } as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_read_as_in_table_9_2() {
        // 1 · 010 · 011 · 00100 · 00111, padded.
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0011, 0b1000_0000]);
        assert_eq!(
            (0..5).map(|_| bits.ue().unwrap()).collect::<Vec<_>>(),
            [0, 1, 2, 3, 6]
        );
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        assert_eq!(
            (0..5).map(|_| bits.se().unwrap()).collect::<Vec<_>>(),
            [0, 1, -1, 2, -2]
        );
    }

    #[test]
    fn emulation_prevention_is_invisible() {
        let mut bits = Bits::new(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 2]);
        assert_eq!(bits.u(24), Some(1));
        assert_eq!(bits.u(32), Some(0));
        assert_eq!(bits.u(8), Some(2));
        assert_eq!(bits.flag(), None);
    }

    #[test]
    fn endless_zeros_are_no_number() {
        assert_eq!(Bits::new(&[0; 64]).ue(), None);
    }
}
