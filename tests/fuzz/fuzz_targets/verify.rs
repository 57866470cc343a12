//! See `harborseal_fuzz::verify`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::verify(data));
