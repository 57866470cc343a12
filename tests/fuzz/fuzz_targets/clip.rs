//! See `harborseal_fuzz::clip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::clip(data));
