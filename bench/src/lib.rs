//! The parts of a packet's path, each alone, made of the engine's own code: for the micro-benchmarks in `benches/` and for
//! `harborseal-bench stages`; and the guard that holds their instructions to a baseline.

pub mod guard;
pub mod parts;
