//! Harborseal's engine. Modules stand in the order in which a packet meets them; imports point from the shard down.

#[doc(hidden)]
pub mod planted;

pub mod ledger;
pub mod port;
pub mod text;

pub mod statement;

pub mod uring;

pub mod rtp;

pub mod stream;

pub mod chunk;

pub mod audit;

pub mod keystore;

pub mod log;

pub mod shard;

pub mod archive;

pub mod erasure;

pub mod janitor;
pub mod recovery;

pub mod media;

pub mod metrics;

pub mod control;

pub mod config;

pub mod process;

pub mod engine;

pub mod cli;
