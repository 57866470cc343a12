//! The Harborseal segment format, without I/O: bytes and times come in, bytes and offsets go out.
//!
//! A segment is one file of 4 KiB-aligned blocks. Everything a camera sent is inside sealed CHUNK blocks; what
//! is in the clear is only what scrubbing, recovery and verification need without a key.
//!
//! Modules stand in the order in which a segment lives: names ([`ids`]), bytes ([`block`], [`body`], [`record`]),
//! proofs ([`merkle`], [`node`]), keys ([`random`], [`identity`], [`keys`], [`cipher`]), the [`writer`] that ties
//! them, and then the way back: any [`source`] of bytes, [`scan`], [`head`], [`open`] and
//! [`reader`] for those who watch, [`verify`] for those who doubt, [`recover`] for bad days, [`compact`] for later.
//!
//! Invariants of the whole crate: no clock, no files, no threads, no unsafe. All numbers on disk are
//! little-endian and of fixed width. Bytes from outside are parsed into a type once; a parser returns an error
//! and never panics.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod layout;

#[doc(hidden)]
pub mod planted;

pub mod ids;

pub mod block;
pub mod body;
pub mod record;

pub mod merkle;
pub mod node;

pub mod random;

pub mod identity;
mod kem;

pub mod erase;
pub mod keys;

pub mod cipher;

pub mod writer;

pub mod source;

pub mod scan;

pub mod head;
pub mod open;

pub mod reader;
pub mod verify;

pub mod recover;

pub mod compact;

pub use block::{BlockType, Header};
pub use identity::{Identity, PublicKey};
pub use ids::{NodeId, RunId, SegmentId, StreamId};
pub use node::NodeKey;
pub use open::{Keyring, OpenChunk, OpenStream, Packet};
pub use reader::{Segment, State, StreamError};
pub use scan::{ReadError, Scanner};
pub use source::Source;
pub use writer::SegmentWriter;
