//! See `harborseal_fuzz::export`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::export(data));
