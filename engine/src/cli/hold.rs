//! `harborseal hold`: a legal hold keeps a customer's footage from erasure and retention, until it is lifted.

use std::path::PathBuf;

use serde::Serialize;

use super::error::{CliError, ExitStatus};
use super::output::{self, Output, people};
use super::{instant, keeping};
use crate::text::OneLine;

/// Keep a customer's footage from being erased or deleted (a legal hold), lift that again, or list what is held.
///
/// Retention deletes no segment that holds footage of a held customer. For a customer that is not `erasable` nobody can tell which segments those are, so
/// it deletes none. Setting and lifting are entries in the audit log.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  harborseal hold --config engine.toml --customer alice --reason \"court order 17/2026\"
  harborseal hold --config engine.toml --customer alice --reason \"order withdrawn\" --lift
  harborseal hold --config engine.toml")]
pub struct Args {
    /// The engine's configuration; this is for the operator of the node, as the user that the engine runs as
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// The customer, by its name in the configuration; without it, what is held is listed
    #[arg(long, value_name = "NAME", requires = "reason")]
    customer: Option<String>,

    /// Why, in your words; the audit log shows it
    #[arg(long, value_name = "TEXT", requires = "customer")]
    reason: Option<String>,

    /// Who decided it, if not the user who types this
    #[arg(long, value_name = "WHO", requires = "customer")]
    by: Option<String>,

    /// Lift the hold
    #[arg(long, requires = "customer")]
    lift: bool,

    #[command(flatten)]
    print: Output,
}

#[derive(Serialize)]
struct Report {
    entry: Option<u64>,
    holds: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    customer: Option<String>,
    since: String,
    reason: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let (config, node) = keeping::open(&args.config)?;
    let mut entry = None;
    if let (Some(name), Some(reason)) = (&args.customer, &args.reason) {
        let whose = keeping::whose(&config, keeping::customer(&config, name)?);
        let reason = keeping::said("--reason", reason)?;
        let by = args
            .by
            .as_deref()
            .map(|by| keeping::said("--by", by))
            .transpose()?;
        let by = by.map_or_else(keeping::user, str::to_owned);
        let set = node.hold(&whose, !args.lift, (&by, reason), keeping::now_s());
        entry = Some(set.map_err(keeping::refused)?);
    }
    let store_failed = |error| keeping::refused(crate::erasure::ErasureError::Store(error));
    let holds = node.store.holds().map_err(store_failed)?;
    let names: Vec<_> = match holds.is_empty() {
        true => Vec::new(),
        false => {
            let store = node.store.lock().map_err(store_failed)?;
            let customers = config.registry.customers.iter();
            customers
                .map(|customer| (store.owner(&customer.name), &customer.name))
                .collect()
        }
    };
    let line = |hold: crate::keystore::holds::Hold| Line {
        customer: names
            .iter()
            .find(|(owner, _)| *owner == hold.owner)
            .map(|(_, name)| name.to_string()),
        since: instant::seconds(hold.since_s),
        reason: hold.reason,
    };
    let report = Report {
        entry,
        holds: holds.into_iter().map(line).collect(),
    };
    if args.print.json {
        output::json(&report)?;
        return Ok(ExitStatus::Ok);
    }
    if let Some(entry) = report.entry {
        people(format_args!("entry {entry} of the audit log"));
    }
    for Line {
        customer,
        since,
        reason,
    } in &report.holds
    {
        let customer = customer
            .as_deref()
            .unwrap_or("(a customer that the configuration does not have any more)");
        output::data(format_args!(
            "{customer}  held since {since}: {}",
            OneLine(reason)
        ))?;
    }
    if report.holds.is_empty() {
        people("nothing is held");
    }
    Ok(ExitStatus::Ok)
}
