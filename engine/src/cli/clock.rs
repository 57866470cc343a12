//! This machine's clock, as far as commands look at it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::CliError;

/// Whole seconds since 1970.
pub fn now_s() -> Result<u64, CliError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since =
        since.map_err(|_| CliError::usage("this machine's clock stands before 1970: set it first"))?;
    Ok(since.as_secs())
}
