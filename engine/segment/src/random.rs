//! Where random bytes come from: the operating system, or, for vectors, the caller.

pub use rand_core::CryptoRng;

use rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;

/// Draws by system call every time, so that a cloned or restored machine does not repeat itself.
///
/// Its methods panic if the system call fails, which on Linux it does not after boot.
#[cfg(feature = "os-random")]
pub fn os_random() -> impl CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// Hands out given bytes, once, in order: for test vectors that must come out the same every time.
///
/// Panics when they run out, rather than repeat.
pub struct FixedBytes<'a>(pub &'a [u8]);

impl TryRng for FixedBytes<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)
            .map(|()| u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)
            .map(|()| u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let (given, rest) = self
            .0
            .split_at_checked(bytes.len())
            .expect("a vector brings all its random bytes");
        bytes.copy_from_slice(given);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for FixedBytes<'_> {}
