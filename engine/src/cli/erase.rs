//! `harborseal erase`: destroys the keys of a customer's footage, so that no copy of it opens any more, and gives the disk its space back.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::{CliError, ExitStatus};
use super::keeping::{self, Which};
use super::output::{self, Output, people};
use super::{fresh, instant};
use crate::erasure::{ErasePlan, Erased, ErasureError, Node, Whose};
use crate::keystore::Day;
use crate::statement::{self, Receipt};
use crate::text::{Grouped, counted};

/// Erase a customer's footage from every copy: destroy the keys without which no copy opens, for good.
///
/// For customers with `erasable = true`. What is destroyed are the erasure keys of whole UTC days; a segment belongs to the day on which it was
/// made ready, so the last one of a day may reach some minutes into the next. Afterwards no copy of the segments opens, not with the
/// customer's own identity either, except for whom something had been released, granted or exported before: the signed receipt lists
/// what the audit log knows of that. Disk space is given back too. Works beside a running engine and without one; a crash at any point is finished by
/// running it again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
There is no way back. Copies of DATA/keys/erase made before are one: destroy them too.

`harborseal audit receipt` checks a receipt, and that the log has it.

Examples:
  harborseal erase --config engine.toml --customer alice -o alice.receipt
  harborseal erase --config engine.toml --customer alice --before 2026-11-24T00:00:00Z --yes -o alice.receipt
  harborseal erase --config engine.toml --customer alice --dry-run")]
pub struct Args {
    #[command(flatten)]
    which: Which,

    /// Erase the days before T (RFC 3339 with zone), rounded down to a whole UTC day. Without it: everything up to now
    #[arg(long, value_name = "T")]
    before: Option<String>,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    /// Show what would be erased, and erase nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,

    /// Write the signed receipt to FILE (mode 0600; an existing file is never overwritten)
    #[arg(short, long, value_name = "FILE", conflicts_with = "dry_run")]
    output: Option<PathBuf>,

    #[command(flatten)]
    print: Output,
}

#[derive(Serialize)]
struct Report {
    erased: bool,
    /// The first UTC day, and the first that is not erased.
    from: String,
    before: String,
    keys: usize,
    /// Those that no longer open.
    segments: Vec<String>,
    /// What had left the node before, by its audit log.
    disclosed: Vec<Disclosed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<u64>,
    finished_an_earlier_one: bool,
    files_deleted: usize,
    files_punched: usize,
    bytes_freed: u64,
    not_yet_freed: Vec<String>,
}

#[derive(Serialize)]
struct Disclosed {
    time: String,
    what: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let now_s = keeping::now_s();
    let before = args
        .before
        .as_deref()
        .map(|text| day_before(text, now_s))
        .transpose()?;
    if let Some(path) = &args.output {
        fresh::expect_to(path, "choose another name or folder; nothing was erased")?;
    }
    let by = args.which.by()?;
    let (config, node) = keeping::open(&args.which.config)?;
    let customer = keeping::customer(&config, &args.which.customer)?;
    let whose = keeping::whose(&config, customer);
    if !node.is_pending(&whose).map_err(keeping::refused)? {
        let plan = node.plan_erasure(&whose, before).map_err(|error| {
            let nothing = matches!(error, ErasureError::NoKey(_)) && !customer.erasable;
            match nothing {
                true => keeping::refused(error).remedy(
                    "it is not `erasable` in the configuration, and never was: retention deletes its footage",
                ),
                false => keeping::refused(error),
            }
        })?;
        show(&plan, before, now_s, &whose);
        if args.dry_run {
            return dry(args, &plan, before, now_s);
        }
        confirm(args.yes, whose.name)?;
    } else if args.dry_run {
        people("an erasure was begun and not finished; without --dry-run it is finished now");
        return Ok(ExitStatus::Ok);
    } else {
        people("harborseal: an erasure was begun and not finished: finishing it");
    }
    let erased = node.erase(&whose, (before, &by), now_s, |receipt| match &args.output {
        None => Ok(()),
        Some(path) => fresh::write(path, receipt.as_bytes()).map_err(|error| {
            Failed::Receipt(
                error.remedy("the keys are destroyed: run it again with another -o to get the receipt"),
            )
        }),
    });
    match erased {
        Ok(erased) => tell(args, &node, &erased),
        Err(Failed::Receipt(error)) => Err(error),
        Err(Failed::Erasure(error)) => {
            node.enter_refusal("erase", &error, &whose, now_s);
            Err(keeping::refused(error))
        }
    }
}

/// Why an erasure did not end well.
enum Failed {
    Erasure(ErasureError),
    Receipt(CliError),
}

impl From<ErasureError> for Failed {
    fn from(error: ErasureError) -> Self {
        Failed::Erasure(error)
    }
}

/// The whole UTC day before which to erase. One to come is refused: what is recorded until then could not be erased by it.
fn day_before(text: &str, now_s: u64) -> Result<Day, CliError> {
    let instant_s = instant::parse("--before", text)? / 1_000_000_000;
    match instant_s <= now_s {
        true => Ok(Day::of(instant_s)),
        false => Err(CliError::usage(format_args!(
            "--before {text} is in the future: by this node's clock it is {}",
            instant::seconds(now_s)
        ))
        .remedy("without --before everything up to now is erased")),
    }
}

fn show(plan: &ErasePlan, before: Option<Day>, now_s: u64, whose: &Whose<'_>) {
    let (first, _) = plan.days(before, now_s);
    let span = match before {
        Some(day) => format!("{first}T00:00:00Z to {day}T00:00:00Z, whole UTC days"),
        None => format!("{first}T00:00:00Z to now; what is recorded from the next segment on stays"),
    };
    people(format_args!(
        "all footage of {} from {span}: {} in {}",
        whose.name,
        counted(plan.keys.len(), "key"),
        counted(plan.places.len(), "segment")
    ));
}

fn confirm(yes: bool, name: &str) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    let refused = |why: &str| CliError::usage(why).remedy("nothing was erased; --yes erases without asking");
    if !io::stdin().is_terminal() {
        return Err(refused(
            "erasing cannot be undone, and there is no terminal to ask on",
        ));
    }
    people(format_args!(
        "This cannot be undone. Type the customer's name to erase: {name}"
    ));
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| CliError::io(format_args!("cannot read the answer: {error}")))?;
    match line.trim() == name {
        true => Ok(()),
        false => Err(refused("that is not the customer's name")),
    }
}

fn dry(args: &Args, plan: &ErasePlan, before: Option<Day>, now_s: u64) -> Result<ExitStatus, CliError> {
    if args.print.json {
        let (first, end) = plan.days(before, now_s);
        let places = plan.places.iter();
        output::json(&Report {
            erased: false,
            from: first.to_string(),
            before: end.to_string(),
            keys: plan.keys.len(),
            segments: places.map(|place| place.segment.segment_id.to_string()).collect(),
            disclosed: Vec::new(),
            receipt_sha256: None,
            entry: None,
            finished_an_earlier_one: false,
            files_deleted: 0,
            files_punched: 0,
            bytes_freed: 0,
            not_yet_freed: Vec::new(),
        })?;
    }
    Ok(ExitStatus::Ok)
}

fn tell(args: &Args, node: &Node, erased: &Erased) -> Result<ExitStatus, CliError> {
    let (receipt, by, _) = Receipt::parse(&erased.receipt)
        .map_err(|why| CliError::damage(format_args!("the receipt that was kept of this erasure: {why}")))?;
    debug_assert_eq!(by, node.key.public());
    let hash: [u8; 32] = Sha256::digest(&erased.receipt).into();
    let report = Report {
        erased: true,
        from: receipt.days.0.clone(),
        before: receipt.days.1.clone(),
        keys: receipt.keys.len(),
        segments: receipt
            .segments
            .iter()
            .map(|(segment, _)| segment.to_string())
            .collect(),
        disclosed: receipt
            .disclosed
            .iter()
            .map(|(when_s, what)| Disclosed {
                time: instant::seconds(*when_s),
                what: what.clone(),
            })
            .collect(),
        receipt_sha256: Some(statement::hex(&hash)),
        entry: Some(erased.entry),
        finished_an_earlier_one: erased.finished_only,
        files_deleted: erased.freed.deleted,
        files_punched: erased.freed.punched,
        bytes_freed: erased.freed.bytes,
        not_yet_freed: erased.freed.left.clone(),
    };
    for left in &report.not_yet_freed {
        people(format_args!(
            "harborseal: space not given back yet: {left}; run it again"
        ));
    }
    if args.print.json {
        output::json(&report)?;
        return Ok(ExitStatus::Ok);
    }
    output::data(format_args!(
        "{} destroyed; {} of these days no longer open, in any copy",
        counted(report.keys, "key"),
        counted(report.segments.len(), "segment")
    ))?;
    match report.disclosed.len() {
        0 => output::data("nothing had been released or granted of them before, by the audit log")?,
        count => output::data(format_args!(
            "{} had left this node before, and cannot be taken back:",
            counted(count, "disclosure")
        ))?,
    }
    for disclosed in &report.disclosed {
        output::data(format_args!("  {}  {}", disclosed.time, disclosed.what))?;
    }
    output::data(format_args!(
        "{} deleted, {} punched: {} bytes given back",
        counted(report.files_deleted, "file"),
        counted(report.files_punched, "file"),
        Grouped(report.bytes_freed)
    ))?;
    output::data(format_args!(
        "entry {} of the audit log; receipt {}",
        erased.entry,
        statement::hex(&hash)
    ))?;
    Ok(ExitStatus::Ok)
}
