//! See `harborseal_fuzz::header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::header(data));
