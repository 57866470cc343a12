//! See `harborseal_fuzz::bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::bodies(data));
