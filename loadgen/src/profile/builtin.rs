//! The profiles that are part of the program.

/// A profile of `config/profiles/`.
pub struct BuiltIn {
    pub name: &'static str,
    /// As messages call it.
    pub file: &'static str,
    pub text: &'static str,
}

macro_rules! built_in {
    ($name:literal) => {
        BuiltIn {
            name: $name,
            file: concat!($name, ".toml"),
            text: include_str!(concat!("../../../config/profiles/", $name, ".toml")),
        }
    };
}

/// All of them, the gentle ones first.
pub const BUILTIN: &[BuiltIn] = &[
    built_in!("tiny"),
    built_in!("clip"),
    built_in!("small"),
    built_in!("mixed"),
    built_in!("day"),
    built_in!("bad-network"),
    built_in!("noisy-neighbour"),
    built_in!("aligned"),
    built_in!("city"),
    built_in!("line-rate"),
];
