//! The control plane: what runs beside the shards and never in their way.

mod port;

pub use port::{Durable, Inbox, ShardPort, Stray, connect};
