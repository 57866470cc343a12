//! Where commands write: data to stdout, text for people to stderr.
//!
//! A reader that went away (`harborseal list … | head`) changes nothing: what follows is dropped and the command still
//! ends with the status it earned. Every other failure to write to stdout is an I/O error, so that a full disk under
//! `> list.txt` is not taken for success.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::error::{CliError, Plain};

/// Set once stdout's reader is gone. A plain flag: nothing else is ordered by it.
static READER_GONE: AtomicBool = AtomicBool::new(false);

/// The option every printing command has.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Output {
    /// End with one JSON object on the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// Writes one line of data to stdout.
pub fn data(line: impl Display) -> Result<(), CliError> {
    if READER_GONE.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            READER_GONE.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => Err(CliError::io(format_args!(
            "cannot write to standard output: {}",
            Plain(&error)
        ))),
    }
}

/// Writes one JSON object as one line to stdout: the last thing a command with `--json` prints.
pub fn json(object: &impl Serialize) -> Result<(), CliError> {
    data(serde_json::to_string(object).expect("our own types have string keys and no failing serialiser"))
}

/// Writes one line for people to stderr. A closed stderr is nobody's loss: errors are dropped.
pub fn people(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
