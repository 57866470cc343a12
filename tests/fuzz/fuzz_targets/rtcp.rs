//! See `harborseal_fuzz::rtcp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::rtcp(data));
