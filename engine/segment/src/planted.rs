//! Faults planted in this crate on purpose, for the tests that must catch them (`tests/canaries`).
//!
//! Owns the choice: one fault at most, named by the environment variable `HARBORSEAL_PLANT` when the process first asks. All of it
//! is behind the cargo feature `planted-faults`, which nothing that ships turns on: without it `planted` is a constant `false`, and
//! the compiler leaves neither the fault nor the question in the program.

/// The faults of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A block's header is believed whatever its CRC.
    HeaderCrcUnchecked,
    /// A block's body is believed whatever its CRC.
    BodyCrcUnchecked,
    /// Bytes behind a block's body may be anything.
    PaddingUnchecked,
    /// A whole block of any segment is taken for one of the file's own.
    StrangersAccepted,
    /// A stream is opened without a look at what its STREAM block commits to.
    CommitmentUnchecked,
    /// Nobody compares the root of a CHECKPOINT or FOOTER with the blocks before it.
    RootUnchecked,
    /// A statement of deletion counts whoever signed it.
    TombstoneSignatureUnchecked,
    /// A FOOTER counts whoever signed it.
    FooterSignatureUnchecked,
    /// Two blocks of a segment get one number, and so one nonce.
    NumberUsedTwice,
    /// A STREAM block may stand before the KEY block of its slot (the engine's fault of this name makes it so).
    KeyAfterChunk,
    /// H stays what it was from segment to segment.
    HintNotRatcheted,
    /// Recovery ends a segment at the first hole.
    IslandCutOff,
}

/// Whether `fault` is planted in this process.
#[cfg(not(feature = "planted-faults"))]
#[inline(always)]
pub(crate) const fn planted(_fault: Planted) -> bool {
    false
}

#[cfg(not(feature = "planted-faults"))]
const _: () = assert!(!planted(Planted::HeaderCrcUnchecked));

#[cfg(feature = "planted-faults")]
pub use on::choice;
#[cfg(feature = "planted-faults")]
pub(crate) use on::planted;

#[cfg(feature = "planted-faults")]
mod on {
    use std::sync::OnceLock;

    use super::Planted;

    static CHOICE: OnceLock<Option<(String, Option<u64>)>> = OnceLock::new();

    /// The fault that the environment asks for, `NAME` or `NAME=NUMBER`.
    pub fn choice() -> Option<(&'static str, Option<u64>)> {
        let read = || {
            let text = std::env::var("HARBORSEAL_PLANT").ok()?;
            let (name, number) = text.split_once('=').unwrap_or((&text, ""));
            Some((name.to_owned(), number.parse().ok()))
        };
        let choice = CHOICE.get_or_init(read).as_ref()?;
        Some((&choice.0, choice.1))
    }

    pub(crate) fn planted(fault: Planted) -> bool {
        choice().is_some_and(|(name, _)| name == format!("{fault:?}"))
    }
}
