//! `harborseal release`: lets somebody open erasable footage, on the record.

use std::path::PathBuf;

use harborseal_segment::identity::PublicKey;
use harborseal_segment::random::os_random;
use serde::Serialize;

use super::error::{CliError, ExitStatus};
use super::keeping::{self, Which};
use super::output::{self, Output, people};
use super::{fresh, instant};
use crate::erasure::{ErasureError, Range, Said};
use crate::statement::ReleaseTerms;
use crate::text::counted;

/// A segment is made ready while the one before it is recorded, and then recorded itself.
const MADE_AHEAD: u64 = 2;

/// Release erasable footage: hand over what it takes to open it beside the customer's identity, on the record.
///
/// For customers with `erasable = true`. The release holds one secret for each segment that touches the range, and never the key of a day;
/// it is sealed to one public key, the customer's own unless --to-key names another. The audit log has to whom, what, when and why
/// before the file is written. What was released cannot be taken back: erasing later does not reach it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  harborseal release --config engine.toml --customer alice --for \"Alice herself\" --purpose \"break-in\" \\
      --from 2026-11-23T14:00:00Z --to 2026-11-23T15:00:00Z -o alice.release
  harborseal list --identity alice.identity --release alice.release data")]
pub struct Args {
    #[command(flatten)]
    which: Which,

    /// Release what arrived from T on (RFC 3339 with zone); from the beginning unless set
    #[arg(long, value_name = "T")]
    from: Option<String>,

    /// Release what arrived before T (RFC 3339 with zone); up to now unless set
    #[arg(long, value_name = "T")]
    to: Option<String>,

    /// Who gets it, in your words; the audit log shows it
    #[arg(long = "for", value_name = "WHO")]
    to_whom: String,

    /// Why, in your words; the audit log shows it
    #[arg(long, value_name = "TEXT")]
    purpose: String,

    /// Seal it to this public key (hsp1...): of whom the customer granted the footage to, or the customer's own of before a change of keys
    #[arg(long, value_name = "PUBLIC_KEY")]
    to_key: Option<String>,

    /// The file to write (mode 0600; an existing file is never overwritten)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    #[command(flatten)]
    print: Output,
}

#[derive(Serialize)]
struct Report {
    release: String,
    segments: usize,
    entry: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let range = range_of(args)?;
    let to = keeping::said("--for", &args.to_whom)?;
    let purpose = keeping::said("--purpose", &args.purpose)?;
    let by = args.which.by()?;
    let to_key = args.to_key.as_deref().map(str::parse::<PublicKey>).transpose();
    let to_key = to_key.map_err(|error| CliError::usage(format_args!("--to-key: {error}")))?;
    fresh::expect_to(
        &args.output,
        "choose another name or folder; nothing was released",
    )?;
    let (config, node) = keeping::open(&args.which.config)?;
    let customer = keeping::customer(&config, &args.which.customer)?;
    let whose = keeping::whose(&config, customer);
    let now_s = keeping::now_s();
    let slack_s = MADE_AHEAD * config.settings.segment.max_age.as_secs();
    let to_key = to_key.unwrap_or_else(|| customer.public_key.clone());
    let said = Said {
        to,
        to_key: &to_key,
        by: &by,
        purpose,
    };
    let released = node.release(&whose, range, slack_s, &said, now_s);
    let (releases, entry) = released.map_err(|error| {
        if !matches!(error, ErasureError::Log(_)) {
            node.enter_refusal("release", &error, &whose, now_s);
        }
        match customer.erasable {
            true => keeping::refused(error),
            false => keeping::refused(error).remedy("what is not `erasable` opens without a release"),
        }
    })?;
    let terms = ReleaseTerms {
        to_key,
        to: to.to_owned(),
        purpose: purpose.to_owned(),
        made_s: now_s,
    };
    let text = terms.seal(&releases, &node.key, &mut os_random());
    fresh::write(&args.output, text.as_bytes())?;
    if args.print.json {
        output::json(&Report {
            release: args.output.display().to_string(),
            segments: releases.len(),
            entry,
        })?;
    } else {
        people(format_args!(
            "{}: opens {} together with the identity it is sealed to; entry {entry} of the audit log",
            args.output.display(),
            counted(releases.len(), "segment")
        ));
    }
    Ok(ExitStatus::Ok)
}

fn range_of(args: &Args) -> Result<Range, CliError> {
    let parse =
        |name, text: &Option<String>| text.as_deref().map(|text| instant::parse(name, text)).transpose();
    let from_s = parse("--from", &args.from)?.map_or(0, |ns| ns / 1_000_000_000);
    let to_s = parse("--to", &args.to)?.map_or(u64::MAX, |ns| ns.div_ceil(1_000_000_000));
    match from_s < to_s {
        true => Ok(Range { from_s, to_s }),
        false => Err(CliError::usage(
            "--from is not before --to, so the range is empty",
        )),
    }
}
