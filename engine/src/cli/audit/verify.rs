//! `harborseal audit verify`: whether a log holds together, and is the log that it was.

use std::path::PathBuf;

use harborseal_segment::merkle::Hash;
use serde::Serialize;

use super::Common;
use super::opened::{Opened, cli_error, parse_key, read_note};
use crate::audit::disk::OsDisk;
use crate::audit::log::continues;
use crate::audit::note::{Note, VerifierKey};
use crate::audit::tiles::{TILE_WIDTH, joined};
use crate::audit::{AuditError, read};
use crate::cli::output::{self, people};
use crate::cli::{CliError, ExitStatus, instant};

/// Check a node's audit log: every entry, every hash, its checkpoint, and older checkpoints.
///
/// The log is read whole, from the entries to the root that its node signed. With a checkpoint that was kept, it is found out whether anything was removed or
/// rewritten since: everything that was in the log then must still be there, in its place.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Two checkpoints that one node signed and that do not fit one another are proof that it showed two logs: keep both.

Examples:
  harborseal audit verify data
  harborseal audit verify --since monday.checkpoint data
  harborseal audit verify --witness witness.example/w1+ff75eda8+BK… data")]
pub struct Args {
    /// A checkpoint that was kept; may be given several times
    #[arg(long, value_name = "OLD_CHECKPOINT")]
    since: Vec<PathBuf>,

    /// The key of a witness that must have signed the newest checkpoint that has a witness's signature, or one given by --since
    #[arg(long, value_name = "VKEY|FILE")]
    witness: Vec<String>,

    #[command(flatten)]
    common: Common,

    /// The node's data folder, its audit folder, or a copy of that
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

#[derive(Serialize)]
struct Verified<'a> {
    ok: bool,
    origin: &'a str,
    size: u64,
    root: String,
    /// Entries of a kind or version that this program does not know.
    unknown: u64,
    since: Vec<Since>,
    witnesses: Vec<Witnessed>,
}

#[derive(Serialize)]
struct Since {
    checkpoint: String,
    size: u64,
}

#[derive(Serialize)]
struct Witnessed {
    witness: String,
    size: u64,
    time: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let log = Opened::open(&args.path, args.common.key.as_deref())?;
    let mut unknown = 0;
    log.entries(|entry| {
        unknown += u64::from(entry.is_none());
        false
    })?;
    check_tiles(&log)?;
    let mut kept = Vec::new();
    let mut since = Vec::new();
    for path in &args.since {
        let note = read_note(path, &log.key)?;
        continues(&OsDisk, &log.folder, &note.checkpoint, &log.note.checkpoint).map_err(|error| {
            let remedy = format!(
                "both checkpoints are signed by {}: keep {} and the log's own, together they prove it",
                log.key.name,
                path.display()
            );
            cli_error(error).remedy(remedy)
        })?;
        since.push(Since {
            checkpoint: path.display().to_string(),
            size: note.checkpoint.size,
        });
        kept.push(note);
    }
    let witnesses = witnesses(args, &log, kept)?;
    let checkpoint = &log.note.checkpoint;
    let root: String = checkpoint.root.iter().map(|byte| format!("{byte:02x}")).collect();
    for old in &since {
        people(format_args!(
            "{}: nothing of its {} entries was removed or rewritten",
            old.checkpoint, old.size
        ));
    }
    for seen in &witnesses {
        people(format_args!(
            "{} signed {} entries at {}",
            seen.witness, seen.size, seen.time
        ));
    }
    if args.common.print.json {
        output::json(&Verified {
            ok: true,
            origin: &checkpoint.origin,
            size: checkpoint.size,
            root,
            unknown,
            since,
            witnesses,
        })?;
    } else {
        output::data(format_args!(
            "ok: {} with {} entries, root {root}",
            checkpoint.origin, checkpoint.size
        ))?;
    }
    Ok(ExitStatus::Ok)
}

/// The tiles above the lowest, which entries are not read through: each hash against the tile below it.
fn check_tiles(log: &Opened) -> Result<(), CliError> {
    let mut reader = log.reader();
    let mut count = log.size() / TILE_WIDTH;
    for level in 1.. {
        if count == 0 {
            break;
        }
        for at in 0..count {
            let below: Hash = joined(reader.hashes(level - 1, at).map_err(cli_error)?);
            let here = reader.hashes(level, at / TILE_WIDTH).map_err(cli_error)?[(at % TILE_WIDTH) as usize];
            if below != here {
                return Err(cli_error(AuditError::EditedTree {
                    path: log.folder.clone(),
                    size: log.size(),
                }));
            }
        }
        count /= TILE_WIDTH;
    }
    Ok(())
}

/// Each witness asked for, on the newest checkpoint that it signed.
fn witnesses(args: &Args, log: &Opened, kept: Vec<Note>) -> Result<Vec<Witnessed>, CliError> {
    if args.witness.is_empty() {
        return Ok(Vec::new());
    }
    let mut notes = kept;
    let cosigned = log.folder.join("cosigned");
    if cosigned.exists() {
        let note = read::checkpoint(&OsDisk, &cosigned).map_err(cli_error)?;
        continues(&OsDisk, &log.folder, &note.checkpoint, &log.note.checkpoint).map_err(cli_error)?;
        notes.push(note);
    }
    notes.push(log.note.clone());
    notes.sort_by_key(|note| std::cmp::Reverse(note.checkpoint.size));
    let mut witnessed = Vec::new();
    for witness in &args.witness {
        let key: VerifierKey = parse_key(witness)?;
        let signed = notes.iter().find_map(|note| Some((note, note.signed_by(&key)?)));
        let (note, signed) = signed.ok_or_else(|| {
            CliError::damage(format_args!("{} signed no checkpoint of this log", key.name))
                .remedy("a checkpoint with its line goes to DATA/audit/cosigned, or is given with --since")
        })?;
        witnessed.push(Witnessed {
            witness: key.name,
            size: note.checkpoint.size,
            time: signed
                .time_s
                .map_or("a time it does not say".to_owned(), instant::seconds),
        });
    }
    Ok(witnessed)
}
