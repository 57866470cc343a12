//! The `harborseal` command: parses and dispatches, nothing else.
fn main() {}
