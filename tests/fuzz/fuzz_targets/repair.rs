//! See `harborseal_fuzz::repair`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::repair(data));
