//! `harborseal audit receipt`: what a receipt of an erasure says, and that the log has it.

use std::path::PathBuf;

use serde::Serialize;

use super::opened::Opened;
use super::{Common, Whose};
use crate::audit::Fact;
use crate::cli::error::OneLine;
use crate::cli::output::{self, people};
use crate::cli::{CliError, ExitStatus, instant, statements};
use crate::statement::Receipt;

/// Check the receipt of an erasure: that this node signed it, and that its audit log has the erasure.
///
/// The log has the ids of the keys that were destroyed, and a commitment to the receipt which only its customer can check: with an identity, an enrolment or its
/// audit salt, that is checked too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  harborseal audit receipt alice.receipt data
  harborseal audit receipt --enrolment alice.enrolment --json alice.receipt data")]
pub struct Args {
    #[command(flatten)]
    whose: Whose,

    #[command(flatten)]
    common: Common,

    /// The receipt, as `harborseal erase -o` wrote it
    #[arg(value_name = "RECEIPT")]
    receipt: PathBuf,

    /// The node's data folder, its audit folder, or a copy of that
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

#[derive(Serialize)]
struct Shown {
    made: String,
    from: String,
    before: String,
    keys: usize,
    segments: usize,
    disclosed: Vec<Disclosed>,
    /// Where the log has it.
    entry: u64,
    /// Whether the log's commitment to this very receipt was checked, too.
    commitment_checked: bool,
}

#[derive(Serialize)]
struct Disclosed {
    time: String,
    what: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let salt = args.whose.salt()?;
    let (receipt, node, hash) = statements::read(&args.receipt, Receipt::parse)?;
    let named = args.receipt.display();
    let log = Opened::open(&args.path, args.common.key.as_deref())?;
    if node != log.key.public {
        return Err(CliError::damage(format_args!(
            "{named}: another node signed it than the one of this log, {}",
            log.key.name
        )));
    }
    let is_of_it = |fact: &Fact| match fact {
        Fact::Erasure { keys, .. } => receipt.keys.iter().any(|id| keys.iter().any(|key| key.0 == id.0)),
        _ => false,
    };
    let found = log.entries(|entry| entry.is_some_and(|entry| is_of_it(&entry.fact)))?;
    // A key that came back from a stale copy is in a later erasure again: its receipt is another.
    let fits = |entry: &crate::audit::Entry| match (&salt, &entry.fact) {
        (Some(salt), Fact::Erasure { receipt, .. }) => entry.nonce().commitment(salt, &hash) == *receipt,
        _ => salt.is_none(),
    };
    let Some(entry) = found
        .iter()
        .find(|placed| placed.entry.as_ref().is_some_and(fits))
    else {
        return Err(CliError::damage(match found.first() {
            None => format!("{named}: the log has no erasure of its keys"),
            Some(other) => format!(
                "{named}: entry {} of the log erased its keys and commits to another receipt, or to another customer's",
                other.index
            ),
        }));
    };
    let shown = Shown {
        made: instant::seconds(receipt.made_s),
        from: receipt.days.0.clone(),
        before: receipt.days.1.clone(),
        keys: receipt.keys.len(),
        segments: receipt.segments.len(),
        disclosed: receipt
            .disclosed
            .iter()
            .map(|(when_s, what)| Disclosed {
                time: instant::seconds(*when_s),
                what: what.clone(),
            })
            .collect(),
        entry: entry.index,
        commitment_checked: salt.is_some(),
    };
    tell(args, &shown)?;
    Ok(ExitStatus::Ok)
}

fn tell(args: &Args, shown: &Shown) -> Result<(), CliError> {
    if args.common.print.json {
        return output::json(shown);
    }
    output::data(format_args!("made       {}", shown.made))?;
    output::data(format_args!(
        "erased     {} up to, and without, {}, in UTC",
        shown.from, shown.before
    ))?;
    output::data(format_args!("keys       {}", shown.keys))?;
    output::data(format_args!("segments   {}", shown.segments))?;
    for Disclosed { time, what } in &shown.disclosed {
        output::data(format_args!("disclosed  {time}  {}", OneLine(what)))?;
    }
    output::data(format_args!("entry      {} of the audit log", shown.entry))?;
    people(match shown.commitment_checked {
        true => "its node signed it, and the log has it: these keys, this receipt",
        false => {
            "its node signed it, and the log has an erasure of these keys; --enrolment checks the receipt itself, too"
        }
    });
    Ok(())
}
