//! What a run leaves and shows: the [`folder`] with its files ([`csv`], [`hlog`]), the reports made from them, and the
//! views of a run under way.
//!
//! Everything here reads [`RunResult`](crate::result::RunResult) and histograms; nothing here measures. A percentile comes
//! from one histogram, or from several merged, and is never an average of percentiles.

pub mod csv;
pub mod folder;
pub mod hlog;

pub mod html;
pub mod plot;
pub mod series;
pub mod text;
pub mod waterfall;
pub mod words;

pub mod live;
#[cfg(feature = "tui")]
pub mod tui;
pub mod watch;

#[cfg(test)]
pub(crate) mod fixture;

pub use folder::{OutputError, RunFolder};
pub use hlog::{HlogWriter, Interval};
pub use live::About;
pub use watch::View;
