//! The search for the highest load that an engine takes with a given loss (RFC 2544 §26.1, MLRsearch).
//!
//! [`search`] decides which trial comes next and what is proven; [`hunt`] makes the trials, through whoever can make one
//! (really: [`trial`]), and keeps their figures; [`outcome`] is what comes out, for programs and for people.

pub mod dimension;
pub mod hunt;
pub mod outcome;
pub mod range;
pub mod search;
pub mod trial;

pub use dimension::Dim;
pub use hunt::{Measured, Trial, hunt};
pub use outcome::{NdrResult, SCHEMA};
