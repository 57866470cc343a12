//! See `harborseal_fuzz::recover`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::recover(data));
