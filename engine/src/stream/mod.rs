//! Which packets belong to which stream, and what became of them.

pub mod registry;
