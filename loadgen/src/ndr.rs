//! The search for the highest load that an engine takes with a given loss.

pub mod search;
