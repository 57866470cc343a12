//! See `harborseal_fuzz::records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::records(data));
