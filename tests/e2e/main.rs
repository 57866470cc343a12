//! The whole engine from outside, one file per behaviour.

mod addresses;
mod cameras;
mod hostile;
mod ledger;
mod plaintext;
mod shards;
