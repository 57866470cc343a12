//! The room that talks to the kernel: memory, the ring, sockets, and small system calls.
//!
//! This is the only place in the workspace with `unsafe`. What leaves it is safe to call in any order:
//! a caller can lose data by using it wrongly, never memory safety.
//!
//! ```text
//! socket ─ bind_group ─▶ UdpSocket per shard            steer: which shard an SSRC belongs to
//!                            │
//! sys::Waker ──────────▶  ring  ──▶ Event::{Datagram, Written, Synced, Woken}
//!                            │
//! memory::Region ──────── write (gathered, O_DIRECT) ─▶ file
//! ```
//!
//! Invariants of the room:
//! - memory the kernel may write is never reachable as a Rust reference while it may be written;
//! - memory and files named by an operation in flight are kept alive by the ring until it completes,
//!   and leaked rather than freed if it does not;
//! - nothing here reads a clock on behalf of a decision, and nothing here panics on what a network sends.
#![allow(unsafe_code)]

mod buffers;
mod core;
mod datagram;
mod event;
mod flights;
pub mod memory;
mod options;
pub mod probe;
mod receiver;
pub mod ring;
pub mod secret;
pub mod slots;
pub mod socket;
pub mod steer;
pub mod sys;

pub use datagram::Datagram;
pub use memory::{Huge, Region, RegionOptions};
pub use ring::{Busy, Event, Flow, Ring, RingOptions, Span};
pub use secret::{Locked, scrub_stack};
pub use slots::{Slot, SlotArena};
pub use socket::{Group, SocketOptions, bind_group};
pub use sys::Waker;

#[cfg(test)]
mod tests;
