//! The whole engine from outside, one file per behaviour.

mod ledger;
