//! A fleet of RTP cameras that says exactly what it sent.
//!
//! The path of a packet: the [`clip`] is cut into frames, [`packetize`]d once, laid out in time as a [`program`]; each
//! [`camera`] walks it with its own sequence, timestamps and [`mark`].

#![forbid(unsafe_code)]

pub mod camera;
pub mod clip;
pub mod mark;
pub mod packetize;
pub mod program;
pub mod rtp;
