//! Streams: which camera a packet belongs to, and what is known of its stream.

pub mod account;
pub mod registry;
pub mod table;
