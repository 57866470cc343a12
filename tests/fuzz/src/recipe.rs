//! The words of a recipe for a segment.
//!
//! ```text
//! recipe   how it ends u8 · what is wrong with the head u8, where u8, by what u8 · features u8 · step, step, …
//! step     kind u8 · flaws u8 · slot u8 · stream u8 · seq u8 · durable u8 · body_len u16 · [at u8 · xor u8] · body
//! ```
//!
//! A kind below 0xE0 is a block of that type, above it an [`op`]. Without flaws the block is as the writer would make it at that
//! place: numbers, checksums, tag, leaf count, root and signature are right, and an empty body stands for a plausible one. Each
//! [`flaw`] takes away one of these.

use super::input::Input;

/// What a step does not get right.
pub mod flaw {
    pub const HEADER_CRC: u8 = 1;
    pub const BODY_CRC: u8 = 2;
    /// block_no is off by the step's `seq` − 128.
    pub const NUMBER: u8 = 4;
    /// The block is of the foreign segment.
    pub const FOREIGN: u8 = 8;
    /// One byte of the header is changed, before the checksum is made.
    pub const XOR: u8 = 16;
    /// A page more of padding; with `BODY_CRC` not all zeros.
    pub const PADDED: u8 = 32;
    /// Root and signature are not made; STREAM and CHUNK are not sealed.
    pub const UNSEALED: u8 = 64;
    /// The flag "critical" is turned round.
    pub const CRITICAL: u8 = 128;
}

/// Steps that are no block.
pub mod op {
    /// `slot` pages of zeros.
    pub const ZEROS: u8 = 0xE0;
    /// A page of the body, repeated.
    pub const GARBAGE: u8 = 0xE1;
    /// An earlier block again, number `slot`.
    pub const REPEAT: u8 = 0xE2;
    /// What is there so far is durable.
    pub const SYNC: u8 = 0xE3;
    /// The last two blocks change places.
    pub const SWAP: u8 = 0xE4;
    /// A chunk of `seq` × 4 KiB.
    pub const LONG_CHUNK: u8 = 0xE5;
    /// The last `slot` bytes × 16 are cut off.
    pub const CUT: u8 = 0xE6;
    /// INDEX and FOOTER, here.
    pub const CLOSE: u8 = 0xE7;
    /// The body of an earlier block, number `slot`, is zeros from here on.
    pub const ERASE: u8 = 0xE8;
}

/// Feature masks: incompat in the low half, ro_compat in the high one.
pub mod feature {
    pub const ERASABLE: u8 = 1;
    pub const STRONG_LEAF: u8 = 2;
}

/// How the file ends: bits of the recipe's first byte.
pub mod ending {
    pub const SEALED: u8 = 1;
    pub const RECOVERED: u8 = 2;
    pub const UNSIGNED: u8 = 4;
    /// Pages of reserved space, 0 to 7, from this bit on.
    pub const PAGES_SHIFT: u8 = 3;
    /// Carol reads it, not Alice.
    pub const CAROL: u8 = 64;
    /// Nobody opens it: the fuzzer may save the time.
    pub const NO_KEY: u8 = 128;
}

/// One step of a recipe.
pub struct Step<'a> {
    pub kind: u8,
    pub flaws: u8,
    pub slot: u8,
    pub stream: u8,
    pub seq: u8,
    pub durable: u8,
    pub xor: [u8; 2],
    pub body: &'a [u8],
}

impl<'a> Step<'a> {
    pub fn take(input: &mut Input<'a>) -> Self {
        let [kind, flaws, slot, stream, seq, durable] = input.array();
        let body_len = usize::from(input.u16());
        let xor = match flaws & flaw::XOR {
            0 => [0; 2],
            _ => input.array(),
        };
        Step {
            kind,
            flaws,
            slot,
            stream,
            seq,
            durable,
            xor,
            body: input.bytes(body_len.min(8192)),
        }
    }

    pub fn has(&self, flaw: u8) -> bool {
        self.flaws & flaw != 0
    }
}

/// Small numbers as they are; the last one is the largest of its kind.
pub fn wide(value: u8) -> u64 {
    match value {
        u8::MAX => u64::MAX,
        254 => u64::MAX - 1,
        small => small.into(),
    }
}
