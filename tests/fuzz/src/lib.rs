//! What is fuzzed, and what must hold: one function per target, from the fuzzer's bytes to an assertion.
//!
//! The files in `fuzz_targets/` call these, one line each, under libFuzzer; the test `corpus.rs` calls the same functions with every
//! file of the corpora and every past finding, on stable, in the ordinary test run.
//!
//! Checksums and signatures would stop a mutator cold: what comes out of it is refused at the first check and nothing behind is
//! reached. So an input is not a file but a recipe ([`recipe`]): choices and contents, from which a file is made whose checksums,
//! tags, roots and signatures are right, unless the recipe says which of them are to be wrong.

mod bodies;
mod config;
mod contents;
mod customers;
mod export;
mod forge;
mod input;
mod keys;

mod reading;
mod recipe;
mod repair;
mod wire;

/// A target.
pub type Target = fn(&[u8]);

pub use bodies::{bodies, header, records};
pub use config::config;
pub use export::{clip, export};
pub use keys::keys;
pub use reading::{reader, recover, verify};
pub use repair::repair;
pub use wire::{account, rtcp, rtp};

/// Every target by its name: that of its file in `fuzz_targets/` and of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 14] = [
    ("header", header),
    ("bodies", bodies),
    ("records", records),
    ("keys", keys),
    ("reader", reader),
    ("verify", verify),
    ("recover", recover),
    ("repair", repair),
    ("rtp", rtp),
    ("rtcp", rtcp),
    ("account", account),
    ("config", config),
    ("export", export),
    ("clip", clip),
];
