//! The Harborseal segment format, without I/O: bytes and times come in, bytes and offsets go out.
#![forbid(unsafe_code)]

pub mod source;
