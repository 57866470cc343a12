//! See `harborseal_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::config(data));
