//! Captured RTP, sent again.
//!
//! A [`capture`] gives frames, [`link`] the datagrams in them, [`find`] the streams; [`score`] says when each packet of each
//! [`clones`] is due, and [`play`] sends it. The capture's times are intended times, so a replay is as open-loop as a fleet is.

pub mod account;
pub mod capture;
pub mod clones;
pub mod codec;
pub mod engine_config;
pub mod find;
pub mod link;
pub mod play;
pub mod post;
pub mod score;
