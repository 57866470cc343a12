//! `harborseal audit export`: what one customer may take with it, and nothing else.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::opened::Opened;
use super::{Common, Whose, prove};
use crate::cli::fresh;
use crate::cli::output::{self, people};
use crate::cli::{CliError, ExitStatus};

/// Write a customer's entries to a file, each with the proof that it is in the log.
///
/// For the customer, who cannot read the node's disk: the operator makes the file with the enrolment's audit salt, and the customer checks it with
/// `audit prove --check`, and that nothing of it is missing by its own `audit show` of a copy of the log, or a witness's.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  harborseal audit export --enrolment alice.enrolment -o alice.audit data
  harborseal audit prove --check alice.audit --key log.vkey")]
pub struct Args {
    #[command(flatten)]
    whose: Whose,

    /// The file to write (an existing file is never overwritten)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    common: Common,

    /// The node's data folder, its audit folder, or a copy of that
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// The file.
#[derive(Serialize, Deserialize)]
pub struct Exported {
    /// The log's key, for comparing; a verifier brings its own.
    pub key: String,
    /// The checkpoint that all proofs are about.
    pub checkpoint: String,
    /// The entries, each in a C2SP tlog-proof.
    pub proofs: Vec<String>,
}

#[derive(Serialize)]
struct Summary {
    output: String,
    entries: usize,
    size: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let salt = args.whose.salt()?.ok_or_else(|| {
        CliError::usage("whose entries? name the customer with --identity, --enrolment or --salt")
    })?;
    let log = Opened::open(&args.path, args.common.key.as_deref())?;
    let found = log.entries(|entry| entry.is_some_and(|entry| entry.concerns(&salt)))?;
    if found.is_empty() {
        return Err(CliError::nothing_here(format_args!(
            "{}: nothing in this log concerns this customer",
            log.folder.display()
        )));
    }
    let proofs = found
        .iter()
        .map(|placed| Ok(prove::inclusion(&log, placed.index)?.to_text()))
        .collect::<Result<_, CliError>>()?;
    let exported = Exported {
        key: log.key.to_text(),
        checkpoint: log.note.to_text(),
        proofs,
    };
    let text = serde_json::to_string_pretty(&exported)
        .expect("our own types have string keys and no failing serialiser");
    fresh::write(&args.output, (text + "\n").as_bytes())?;
    let summary = Summary {
        output: args.output.display().to_string(),
        entries: found.len(),
        size: log.size(),
    };
    match args.common.print.json {
        true => output::json(&summary)?,
        false => people(format_args!(
            "{}: {} of {} entries, each with its proof",
            summary.output, summary.entries, summary.size
        )),
    }
    Ok(ExitStatus::Ok)
}
