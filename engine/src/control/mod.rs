//! The control plane: what runs beside the shards and never in their way.

pub use crate::port::{Durable, Inbox, ShardPort, Stray, connect};
