//! A fleet of RTP cameras that says exactly what it sent.
//!
//! The path of a packet: the [`clip`] is cut into frames, [`packetize`]d once and laid out in time as a [`program`]; each
//! [`camera`] walks it with its own sequence, timestamps and [`mark`]; the [`schedule`] says whose turn it is; [`send`]
//! hands batches to the kernel; the [`fleet`] counts what left and the [`sentlog`] keeps its hashes, with which
//! [`compare`] matches what was stored.
//!
//! The load is open-loop: when a packet is due follows from the [`spec`] alone, and a late generator shows as lateness
//! in the [`report`], never as a smaller load.

#![deny(unsafe_code)] // one room may lift it: send/uring.rs

pub mod plan;
pub mod profile;
pub mod result;
pub mod spec;

pub mod nearest;

pub mod clip;
pub mod filler;
pub mod frames;
pub mod packetize;
pub mod program;

pub mod camera;
pub mod mark;
pub mod rtp;
pub mod sdp;

pub mod fleet;
pub mod impair;
pub mod report;
pub mod schedule;
pub mod send;

pub mod assert;
pub mod compare;
pub mod sentlog;
pub mod stats;
pub mod verify;

pub mod doctor;
pub mod environment;
pub mod output;
pub mod versus;

pub mod ndr;
pub mod replay;

pub mod cli;

pub use clip::Clip;
pub use fleet::{Control, FleetError, LiveSecond, RunOptions, run, run_plan};
pub use report::FleetReport;
pub use sentlog::{Lane, SentLog};
pub use spec::FleetSpec;
