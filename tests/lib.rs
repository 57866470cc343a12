//! What the end-to-end tests share: a laboratory with an engine in it, cameras that send exactly what they are told,
//! and the ways back from segments to packets.
//!
//! The engine is met only as its users meet it: command line, configuration, sockets, signals, files. Nothing here
//! asserts how long something takes; every wait has a bound, and a bound that runs out is a failure that says what
//! was awaited.

pub mod harness;
pub mod power_cut;
// The two exceptions: here the engine's decisions are met from inside, under a clock or in a world that is simulated.
pub mod alone;
pub mod sim;
#[path = "vectors/generate/mod.rs"]
pub mod vectors;
