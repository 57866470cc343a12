//! See `harborseal_fuzz::account`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| harborseal_fuzz::account(data));
