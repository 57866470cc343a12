//! `doctor`: what would spoil a run on this machine.

use super::{EXIT_UNREACHABLE, fail};
use crate::doctor::{Check, fit, probe};
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Something would spoil a run.
const EXIT_UNFIT: u8 = 1;

/// One look at the machine.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
OK is well; WARN makes runs worse or less certain; FAIL would spoil them. Sends packets to itself on loopback for about three \
seconds, to say what one core can.

Exit status: 0 nothing would spoil a run · 1 something would.")]
pub struct DoctorArgs {
    /// Where runs will be written
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Look at limits only, send nothing
    #[arg(long)]
    quick: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome<'a> {
    schema: &'static str,
    fit: bool,
    checks: &'a [Check],
}

pub fn main(args: &DoctorArgs) -> ExitCode {
    let checks = probe::all(&args.dir, !args.quick);
    let fit = fit(&checks);
    let text = match args.json {
        true => {
            let outcome = Outcome {
                schema: "harborseal-loadgen/doctor/1",
                fit,
                checks: &checks,
            };
            serde_json::to_string(&outcome).expect("texts are always JSON") + "\n"
        }
        false => {
            let end = if fit {
                "Nothing here would spoil a run."
            } else {
                "Runs here would be spoilt: see FAIL."
            };
            checks.iter().map(Check::lines).collect::<String>() + end + "\n"
        }
    };
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        return fail(EXIT_UNREACHABLE, &format!("cannot write the result: {error}"));
    }
    if fit {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_UNFIT)
    }
}
