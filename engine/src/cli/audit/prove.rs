//! `harborseal audit prove`: makes proofs that convince elsewhere, and checks them.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Common;
use super::export::Exported;
use super::opened::{Opened, cli_error, parse_key, read_note};
use crate::audit::note::VerifierKey;
use crate::audit::proof::{Consistency, Inclusion, Proof, ProofError};
use crate::audit::{AuditError, tree};
use crate::cli::output::{self, people};
use crate::cli::{CliError, ExitStatus};

/// Prove to somebody else that an entry is in a log, or that nothing before a checkpoint was removed or rewritten.
///
/// A proof is a small text file in the forms of C2SP tlog-proof and tlog-witness. It is checked with the log's key alone, by this command with --check or by any
/// other tool for such logs.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["entry", "check", "since"]).multiple(true))]
#[command(after_help = "\
Examples:
  harborseal audit prove --entry 17 data > 17.proof
  harborseal audit prove --since monday.checkpoint data > since-monday.proof
  harborseal audit prove --check 17.proof --key log.vkey
  harborseal audit prove --check since-monday.proof --since monday.checkpoint --key log.vkey")]
pub struct Args {
    /// Prove that this entry is in the log: its index, as `audit show` prints it
    #[arg(long, value_name = "N", conflicts_with_all = ["check", "since"])]
    entry: Option<u64>,

    /// Prove that the log goes on from this checkpoint, or check such a proof against it
    #[arg(long, value_name = "OLD_CHECKPOINT")]
    since: Option<PathBuf>,

    /// Check the proof in FILE, or an export; needs --key
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "path")]
    check: Option<PathBuf>,

    #[command(flatten)]
    common: Common,

    /// The node's data folder, its audit folder, or a copy of that
    #[arg(value_name = "PATH", required_unless_present = "check")]
    path: Option<PathBuf>,
}

#[derive(Serialize)]
struct Made {
    proof: String,
}

#[derive(Serialize)]
struct Checked {
    ok: bool,
    proves: &'static str,
    size: u64,
    entries: Vec<serde_json::Value>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    if let Some(file) = &args.check {
        return check(args, file);
    }
    let path = args.path.as_deref().unwrap_or(Path::new("."));
    let log = Opened::open(path, args.common.key.as_deref())?;
    let proof = match (args.entry, &args.since) {
        (Some(index), _) => inclusion(&log, index)?.to_text(),
        (None, Some(since)) => consistency(&log, since)?.to_text(),
        (None, None) => return Err(CliError::usage("prove needs --entry, --since or --check")),
    };
    if args.common.print.json {
        output::json(&Made { proof })?;
    } else {
        output::data(proof.trim_end())?;
    }
    Ok(ExitStatus::Ok)
}

/// The proof of one entry; it is checked before it is handed out.
pub fn inclusion(log: &Opened, index: u64) -> Result<Inclusion, CliError> {
    let size = log.size();
    if index >= size {
        return Err(
            CliError::nothing_here(format_args!("there is no entry {index}: the log has {size}"))
                .remedy("`harborseal audit show` lists them, from 0"),
        );
    }
    let mut reader = log.reader();
    let mut bundle = reader.entries(index / 256).map_err(cli_error)?;
    let entry = bundle.swap_remove((index % 256) as usize);
    let hashes = tree::inclusion_proof(index, size, &mut |level, at| reader.hash(level, at));
    let proof = Inclusion {
        entry,
        index,
        hashes: hashes.map_err(cli_error)?,
        note: log.note.clone(),
    };
    let edited = || AuditError::EditedTree {
        path: log.folder.clone(),
        size,
    };
    proof.check(&log.key).map_err(|_| cli_error(edited()))?;
    Ok(proof)
}

fn consistency(log: &Opened, since: &Path) -> Result<Consistency, CliError> {
    let old = read_note(since, &log.key)?;
    let size = log.size();
    if old.checkpoint.size > size {
        return Err(cli_error(AuditError::RolledBack {
            path: log.folder.clone(),
            known: old.checkpoint.size,
            size,
        }));
    }
    let mut reader = log.reader();
    let hashes = tree::consistency_proof(old.checkpoint.size, size, &mut |level, at| reader.hash(level, at));
    let proof = Consistency {
        old: old.checkpoint.size,
        hashes: hashes.map_err(cli_error)?,
        note: log.note.clone(),
    };
    let refused = |error| CliError::damage(format_args!("{}: {error}", log.folder.display()));
    proof.check(&log.key, &old).map_err(refused)?;
    Ok(proof)
}

fn check(args: &Args, file: &Path) -> Result<ExitStatus, CliError> {
    let key = parse_key(args.common.key.as_deref().unwrap_or_default())?;
    let text = std::fs::read_to_string(file).map_err(|error| CliError::file("read", file, &error))?;
    let refused = |error: ProofError| match error {
        ProofError::Form => CliError::usage(format_args!("{}: {error}", file.display())),
        _ => CliError::damage(format_args!("{}: {error}", file.display())),
    };
    let checked = match serde_json::from_str::<Exported>(&text) {
        Ok(exported) => check_export(&exported, &key).map_err(refused)?,
        Err(_) => match Proof::parse(&text).map_err(refused)? {
            Proof::Inclusion(proof) => {
                proof.check(&key).map_err(refused)?;
                Checked {
                    ok: true,
                    proves: "inclusion",
                    size: proof.note.checkpoint.size,
                    entries: vec![value(&proof)],
                }
            }
            Proof::Consistency(proof) => {
                let since = args.since.as_deref().ok_or_else(|| {
                    CliError::usage("this proof is about an older checkpoint: name it with --since")
                })?;
                proof.check(&key, &read_note(since, &key)?).map_err(refused)?;
                Checked {
                    ok: true,
                    proves: "consistency",
                    size: proof.note.checkpoint.size,
                    entries: Vec::new(),
                }
            }
        },
    };
    if args.common.print.json {
        output::json(&checked)?;
    } else {
        for entry in &checked.entries {
            output::data(entry)?;
        }
        people(format_args!(
            "{}: it holds, in a log of {} entries",
            file.display(),
            checked.size
        ));
    }
    Ok(ExitStatus::Ok)
}

/// Every proof of an export, all of one checkpoint.
fn check_export(exported: &Exported, key: &VerifierKey) -> Result<Checked, ProofError> {
    let mut entries = Vec::new();
    let mut size = 0;
    for proof in &exported.proofs {
        let Proof::Inclusion(proof) = Proof::parse(proof)? else {
            return Err(ProofError::Form);
        };
        proof.check(key)?;
        size = proof.note.checkpoint.size;
        entries.push(value(&proof));
    }
    Ok(Checked {
        ok: true,
        proves: "inclusion",
        size,
        entries,
    })
}

fn value(proof: &Inclusion) -> serde_json::Value {
    serde_json::from_slice(&proof.entry)
        .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(&proof.entry).into_owned()))
}
