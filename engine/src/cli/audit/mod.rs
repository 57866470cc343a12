//! `harborseal audit`: what a node's audit log says, and whether it is the log that it was.

mod enter;
mod export;
mod opened;
mod prove;
mod receipt;
mod show;
mod verify;

use std::path::PathBuf;

pub use opened::cli_error;

use super::keygen;
use super::output::Output;
use super::{CliError, ExitStatus};
use crate::audit::Salt;
use crate::audit::entry::Bytes;
use crate::statement::Enrolment;

/// Show, verify and prove what a node's audit log says.
///
/// A node enters in its log, before it happens: that it starts, with which program and configuration; every enrolment and its replacement;
/// every segment it seals; every grant, release and erasure; and what it refused. The log is a Merkle tree with signed checkpoints: whoever keeps one can prove
/// later that nothing before it was removed or rewritten. So keep checkpoints, away from the node.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
PATH is a node's data folder, its audit folder, or a copy of that.

Examples:
  harborseal audit show --identity alice.identity data
  cp data/audit/checkpoint monday.checkpoint
  harborseal audit verify --since monday.checkpoint data
  harborseal audit export --identity alice.identity -o alice.audit data
  harborseal audit prove --check alice.audit --key log.vkey")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Show(show::Args),
    Verify(verify::Args),
    Prove(prove::Args),
    Export(export::Args),
    Receipt(receipt::Args),
    Enter(enter::Args),
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    match &args.command {
        Command::Show(args) => show::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Prove(args) => prove::run(args),
        Command::Export(args) => export::run(args),
        Command::Receipt(args) => receipt::run(args),
        Command::Enter(args) => enter::run(args),
    }
}

/// Whose entries: one of three ways to tell.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Whose {
    /// Only what concerns the customer with this identity
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,

    /// Only what concerns the customer of this enrolment
    #[arg(long, value_name = "FILE")]
    enrolment: Option<PathBuf>,

    /// Only what concerns the customer with this audit salt: 64 hex digits, as in an enrolment
    #[arg(long, value_name = "HEX")]
    salt: Option<Bytes<32>>,
}

impl Whose {
    /// The salt; `None` where nobody was named.
    fn salt(&self) -> Result<Option<Salt>, CliError> {
        if let Some(path) = &self.identity {
            return Ok(Some(keygen::read(path)?.audit_salt()));
        }
        if let Some(path) = &self.enrolment {
            let text = std::fs::read_to_string(path).map_err(|error| CliError::file("read", path, &error))?;
            let enrolment = Enrolment::parse(&text)
                .map_err(|error| CliError::usage(format_args!("{}: {error}", path.display())))?;
            return Ok(Some(enrolment.audit_salt));
        }
        Ok(self.salt.map(|salt| salt.0))
    }
}

/// What the commands print in common.
#[derive(Debug, clap::Args)]
struct Common {
    /// The log's key as it was noted once, or the file it is in. Without it the log.vkey beside the log is taken, which whoever made
    /// another log would have replaced with it
    #[arg(long, value_name = "VKEY|FILE")]
    key: Option<String>,

    #[command(flatten)]
    print: Output,
}
