//! `harborseal audit enter`: puts a grant on the record that its customer made elsewhere.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::output::{self, Output, people};
use crate::cli::recording::{self, Entered};
use crate::cli::{CliError, ExitStatus, clock, statements};
use crate::engine;
use crate::statement::Grant;

/// Enter a customer's grant in the audit log of a node.
///
/// `harborseal grant` does so by itself where it is pointed at a node's data folder. A customer who makes a grant from copies of segments
/// gives it to the node's operator, who enters it before it is used. It must be signed by the customer whose enrolment is in force here. To
/// enter it again changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  harborseal audit enter front-door.grant data")]
pub struct Args {
    /// The grant
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The node's data folder
    #[arg(value_name = "DATA")]
    data: PathBuf,

    #[command(flatten)]
    print: Output,
}

#[derive(Serialize)]
struct Summary {
    grant: String,
    entry: u64,
    /// It was in the log before.
    already: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let grant = statements::read(&args.file, Grant::parse)?;
    let node = recording::node_key(&args.data)?;
    let enrolment = engine::enrolment_of(&args.data, &node, &grant.terms.customer)
        .map_err(CliError::io)?
        .ok_or_else(|| {
            CliError::damage(format_args!(
                "{}: signed by {}, and no enrolment in force on this node is of that customer",
                args.file.display(),
                grant.terms.customer.fingerprint()
            ))
            .remedy("compare the fingerprint with the customer's")
        })?;
    let entered = recording::enter(&args.data, node, &grant, &enrolment.audit_salt, clock::now_s()?)?;
    let summary = Summary {
        grant: args.file.display().to_string(),
        entry: entered.index(),
        already: matches!(entered, Entered::Before(_)),
    };
    match (args.print.json, &entered) {
        (true, _) => output::json(&summary)?,
        (false, Entered::Now(index)) => people(format_args!("{}: entry {index}", summary.grant)),
        (false, Entered::Before(index)) => people(format_args!(
            "{}: in the log already, as entry {index}",
            summary.grant
        )),
    }
    Ok(ExitStatus::Ok)
}
