//! The whole engine from outside, one file per behaviour.

mod addresses;
mod bad_days;
mod bad_input;
mod cameras;
mod control;
mod crash;
mod deleted_folder;
mod demo;
mod disk_full;
mod hostile;
mod identity;
mod io_errors;
mod ledger;
mod lifecycle;
mod loadgen;
mod loadgen_ndr;
mod memory;
mod plaintext;
mod power_cut;
mod profiles;
mod read_only;
mod readers;
mod reload;
mod retention;
mod shards;
mod tampering;
