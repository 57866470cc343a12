//! Reading signed statements: what every command that is given one refuses in the same words.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::CliError;
use crate::statement::StatementError;

/// Longest statement read. The largest are grants: 10,000 segments of a camera make about 3 MB.
const BYTES_MAX: u64 = 64 << 20;

/// Reads a statement from a file. One that is not genuine or not whole is a failed check (1); a file of another kind is a usage error (2).
pub fn read<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, StatementError>) -> Result<T, CliError> {
    let failed = |error: io::Error| CliError::file("read", path, &error);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    let too_long = bytes.len() as u64 > BYTES_MAX;
    // What is no text is no statement; its label says so.
    let text = match too_long {
        true => String::new(),
        false => String::from_utf8(bytes).unwrap_or_default(),
    };
    parse(&text).map_err(|why| refused(path, &why))
}

fn refused(path: &Path, why: &StatementError) -> CliError {
    let message = format!("{}: {why}", path.display());
    match why {
        StatementError::NotAStatement { .. } | StatementError::OtherKind { .. } => CliError::usage(message),
        _ => CliError::damage(message),
    }
}
