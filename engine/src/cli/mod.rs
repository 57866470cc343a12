//! The command line: what is typed, which command it means, and how it ends.
//!
//! One file per command, each with `pub struct Args` (clap) and `pub fn run(args: Args) -> Result<ExitStatus, CliError>`.
//! To add one: its module and a variant of [`Command`] below, with the text of its help, and its line in
//! [`dispatch`]. Data goes to stdout, people's text to stderr ([`output`]); every error is one line ([`error`]).

use clap::Parser;
use clap::error::ErrorKind;

use crate::process;

pub mod audit;
pub mod check;
mod clock;
pub mod demo;
pub mod enrol;
pub mod erase;
pub mod error;
mod expecting;
pub mod export;
mod findings;
mod footage;
mod fresh;
pub mod grant;
pub mod hold;
mod identities;
pub mod inspect;
mod instant;
mod keeping;
pub mod keygen;
pub mod list;
mod opening;
pub mod output;
pub mod paths;
mod progress;
mod recording;
pub mod recover;
pub mod release;
pub mod run;
mod statements;
pub mod verify;

pub use error::{CliError, ExitStatus};

/// Streaming ingest for RTP camera streams: every packet is sealed for the customer who owns it before the first byte
/// reaches a disk.
#[derive(Debug, Parser)]
#[command(name = "harborseal", version)]
#[command(after_help = "\
PATH is a segment (.hseal) or a folder, searched through for segments.

Exit status: 0 ok · 1 damage or a failed check · 2 usage or configuration
             3 nothing here for this identity or range · 4 input/output")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The commands, in the order a newcomer meets them. Help is the text of each command's `Args`, unless its variant has one here, which
/// would take the place of all of it.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Demo(demo::Args),
    /// A process of the demo
    #[command(hide = true, subcommand)]
    DemoChild(demo::ChildArgs),
    Run(run::Args),
    /// Say what this machine lacks for a configuration, and the remedy for each
    Check(check::Args),
    /// Make a customer's identity, or show its public key
    Keygen(keygen::Args),
    Enrol(enrol::Args),
    Grant(Box<grant::Args>),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Recover(recover::Args),
    List(list::Args),
    Export(export::Args),
    Audit(audit::Args),
    Release(release::Args),
    Erase(erase::Args),
    Hold(hold::Args),
}

fn dispatch(command: Command) -> Result<ExitStatus, CliError> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::DemoChild(args) => demo::run_child(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(args),
        Command::Keygen(args) => keygen::run(args),
        Command::Enrol(args) => enrol::run(&args),
        Command::Grant(args) => grant::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Recover(args) => recover::run(&args),
        Command::List(args) => list::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Release(args) => release::run(&args),
        Command::Erase(args) => erase::run(&args),
        Command::Hold(args) => hold::run(&args),
    }
}

/// Parses the process's arguments, runs the command, prints its error if any, and returns its exit status.
pub fn main() -> std::process::ExitCode {
    // Before anything is read that might be secret. What the kernel refuses of it, `run` and `check` tell.
    process::begin();
    let result = match Cli::try_parse() {
        Ok(cli) => dispatch(cli.command),
        Err(error) => refuse(&error),
    };
    let status = result.unwrap_or_else(|error| {
        output::people(format_args!("harborseal: {error}"));
        error.status()
    });
    status.into()
}

/// Help and version are data; anything else clap says is folded into one line that names the command's own help.
fn refuse(error: &clap::Error) -> Result<ExitStatus, CliError> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::data(error.render().to_string().trim_end())?;
            Ok(ExitStatus::Ok)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::people(error.render().to_string().trim_end());
            Ok(ExitStatus::Usage)
        }
        _ => {
            let text = error.render().to_string();
            let what = text.split("\n\nUsage:").next().unwrap_or(&text);
            let what = what.split("\n\nFor more information").next().unwrap_or(what);
            let what = what.strip_prefix("error: ").unwrap_or(what);
            Err(CliError::usage(what).remedy("`harborseal help COMMAND` shows how it is used"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line_with_status_2() {
        let error = Cli::try_parse_from(["harborseal", "sail"]).expect_err("no such command");
        let error = refuse(&error).expect_err("a usage error");
        assert_eq!(error.status(), ExitStatus::Usage);
        assert!(
            error.to_string().starts_with("unrecognized subcommand 'sail'"),
            "{error}"
        );
    }
}
