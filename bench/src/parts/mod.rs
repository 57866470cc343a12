//! Parts of the path in the order in which a packet meets them, and packets to send through.
//!
//! ```text
//! [Packets] ─▶ parse ─▶ [Admission] admit, account ─▶ [Packing] pack ─▶ seal ─▶ [NullDisk] append, written and synced at once
//! ```
//! What is here holds no decision of the engine's: it calls the engine's functions in the engine's order, and leaves some out.

/// Bursts of which the instructions are counted together: 1,000 packets of video, 125 of audio.
pub const BURSTS: u32 = 125;

mod admission;
mod null_disk;
mod packets;
mod packing;
mod seal_times;
mod steps;

pub use admission::{Admission, Admitted, registry};
pub use null_disk::NullDisk;
pub use packets::{Packets, SOURCE, Shape};
pub use packing::{Packing, Sealing};
pub use seal_times::SealRates;
pub use steps::{Admit, Append, Pack, Parse, Seal};
