//! The harness: one file per instrument.

pub mod blocks;
pub mod cli;
pub mod disk;
pub mod engine;
pub mod faulty;
pub mod fleet;
pub mod lab;
pub mod memory;
pub mod net;
pub mod packets;
pub mod readers;
pub mod root;
pub mod rtp;
pub mod secrets;
pub mod slow;
pub mod tools;
mod wire;

pub use cli::{Outcome, harborseal};
pub use engine::Engine;
pub use lab::{Camera, Lab};
pub use net::Sender;
pub use packets::Packet;
pub use rtp::Stream;
