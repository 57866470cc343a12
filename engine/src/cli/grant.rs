//! `harborseal grant`: lets somebody else see one camera for a bounded time, and shows what a grant says.
//!
//! Nothing of the keys is on the screen, in the file in the clear, or anywhere but in this process until it ends.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harborseal_segment::identity::PublicKey;
use harborseal_segment::open::{Granted, Keyring};
use harborseal_segment::random::os_random;
use serde::Serialize;

use super::error::{CliError, ExitStatus, OneLine};
use super::identities::{self, Unlock};
use super::opening::{Opened, Released};
use super::output::{self, Output, people};
use super::{clock, footage, fresh, instant, recording, statements};
use crate::archive::library::{Part, Track, Wanted};
use crate::audit::Salt;
use crate::media::Range;
use crate::statement::{
    self, Disclosure, Grant, LONGEST_S, PURPOSE_BYTES_MAX, StandingGrant, StatementError, Terms,
};
use crate::text::counted;

const NS_PER_S: u64 = 1_000_000_000;
/// How long our tools take a grant if nothing else is said: a month is enough to copy out what was granted.
const EXPIRES_AFTER_S: u64 = 30 * 86_400;

/// Let somebody else see one camera's footage of a bounded time: hand over its keys, sealed to them and signed by you.
///
/// A grant holds the keys of whole segments, so it discloses somewhat more than is asked for; both ranges are shown before anything is
/// signed. A disclosed key cannot be taken back. The range asked for and the expiry bind harborseal's own export; somebody with a reader
/// of their own opens all that is disclosed, for as long as they keep the grant.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  harborseal grant --identity alice.identity --camera front-door --from 2026-11-23T14:00:00Z --to 2026-11-23T14:05:00Z \\
      --to-key hsp1... --purpose \"theft of 23 November\" -o front-door.grant data
  harborseal grant --standing --identity alice.identity --camera front-door --from 2026-11-24T00:00:00Z \\
      --to 2026-12-24T00:00:00Z --to-key hsp1... --purpose \"guard service\" -o guard.grant
  harborseal grant show front-door.grant
  harborseal export --grant front-door.grant --identity bob.identity -o out.mp4 data")]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,

    // A group that holds others is none to clap, so these stand beside it.
    #[command(flatten)]
    make: Option<MakeArgs>,

    #[command(flatten)]
    released: Released,

    #[command(flatten)]
    unlock: Unlock,

    #[command(flatten)]
    print: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check a grant's signature and show what it says; needs no key
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The grant
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    print: Output,
}

#[derive(Debug, clap::Args)]
struct MakeArgs {
    /// The customer's identity, which opens the footage and signs the grant
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,

    /// The identity that signs, if --identity has no signing key: one on a token, or of age
    #[arg(long, value_name = "FILE")]
    signing_identity: Option<PathBuf>,

    /// The camera, as `harborseal list` shows it
    #[arg(long, value_name = "ID")]
    camera: String,

    /// Grant what arrived from T on (RFC 3339 with zone)
    #[arg(long, value_name = "T")]
    from: String,

    /// Grant what arrived before T (RFC 3339 with zone)
    #[arg(long, value_name = "T")]
    to: String,

    /// The public key of who may see it. Compare its fingerprint with them
    #[arg(long, value_name = "PUBLIC_KEY")]
    to_key: String,

    /// Why, in your words; the grant shows it
    #[arg(long, value_name = "TEXT")]
    purpose: String,

    /// When harborseal stops taking the grant (RFC 3339 with zone); 30 days from now unless set
    #[arg(long, value_name = "T")]
    expires: Option<String>,

    /// Show what would be disclosed, and sign nothing
    #[arg(long, conflicts_with = "output")]
    dry_run: bool,

    /// The file to write (mode 0600; an existing file is never overwritten)
    #[arg(short, long, value_name = "FILE", required_unless_present = "dry_run")]
    output: Option<PathBuf>,

    /// Sign a standing grant, for time to come, which the node carries out: it adds a key for the grantee to each segment of the camera
    /// until --to. No PATH is read
    #[arg(long, conflicts_with_all = ["paths", "expires", "dry_run"])]
    standing: bool,

    /// Segments, or folders that are searched for them
    #[arg(value_name = "PATH", required_unless_present = "standing")]
    paths: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    match (&args.action, &args.make) {
        (Some(Action::Show(args)), _) => show(args),
        (None, Some(make)) if make.standing => make_standing(make, &args.unlock, args.print),
        (None, Some(make)) => self::make(make, (&args.released, &args.unlock), args.print),
        (None, None) => Err(
            CliError::usage("grant needs --identity FILE and more, or show FILE")
                .remedy("`harborseal help grant` shows how it is used"),
        ),
    }
}

#[derive(Serialize)]
struct RangeLine {
    from: String,
    to: String,
}

impl RangeLine {
    fn of((from_ns, to_ns): (u64, u64)) -> Self {
        RangeLine {
            from: instant::exact(from_ns),
            to: instant::exact(to_ns),
        }
    }
}

/// What a grant says, made or about to be.
#[derive(Serialize)]
struct Shown {
    /// Absent before it is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<String>,
    camera: String,
    purpose: String,
    asked: RangeLine,
    disclosed: RangeLine,
    streams: u64,
    open_segments: u64,
    expires: String,
    expired: bool,
    customer_fingerprint: String,
    grantee_fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Absent where none was made. Where it stands on the record: the nodes whose footage was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    entered: Option<Vec<EnteredLine>>,
}

/// An entry in the audit log of a node.
#[derive(Serialize)]
struct EnteredLine {
    /// The node's data folder.
    data: String,
    entry: u64,
}

impl Shown {
    fn new(terms: &Terms, disclosure: &Disclosure, streams: u64, (expires_s, now_s): (u64, u64)) -> Self {
        Shown {
            grant: None,
            camera: terms.camera.clone(),
            purpose: terms.purpose.clone(),
            asked: RangeLine::of(disclosure.asked_ns),
            disclosed: RangeLine::of(disclosure.disclosed_ns),
            streams,
            open_segments: disclosure.open_segments,
            expires: instant::seconds(expires_s),
            expired: now_s >= expires_s,
            customer_fingerprint: terms.customer.fingerprint(),
            grantee_fingerprint: terms.grantee.fingerprint(),
            made: None,
            sha256: None,
            entered: None,
        }
    }

    fn of(grant: &Grant, path: &Path, now_s: u64) -> Self {
        let times = (grant.expires_s, now_s);
        Shown {
            grant: Some(path.to_string_lossy().into_owned()),
            made: Some(instant::seconds(grant.made_s)),
            sha256: Some(statement::hex(grant.hash())),
            ..Shown::new(&grant.terms, &grant.disclosure, grant.streams, times)
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("camera     {}", OneLine(&self.camera)),
            format!("purpose    {}", OneLine(&self.purpose)),
            format!(
                "of         {}  (the customer's fingerprint)",
                self.customer_fingerprint
            ),
            format!(
                "to         {}  (the grantee's fingerprint)",
                self.grantee_fingerprint
            ),
            format!("asked      {} to {}", self.asked.from, self.asked.to),
            format!(
                "disclosed  {} to {}, {} in whole segments",
                self.disclosed.from,
                self.disclosed.to,
                counted(self.streams as usize, "stream")
            ),
        ];
        if self.open_segments > 0 {
            let segments = counted(self.open_segments as usize, "segment");
            lines.push(format!(
                "           and what is recorded in {segments} still being written, until closed"
            ));
        }
        let late = if self.expired { "  (EXPIRED)" } else { "" };
        lines.push(format!("expires    {}{late}", self.expires));
        lines
    }
}

/// A grant of either kind.
enum Either {
    Past(Box<Grant>),
    Standing(Box<StandingGrant>),
}

fn show(args: &ShowArgs) -> Result<ExitStatus, CliError> {
    let either = |text: &str| match StandingGrant::parse(text) {
        Err(StatementError::OtherKind { .. }) => {
            Grant::parse(text).map(|grant| Either::Past(Box::new(grant)))
        }
        standing => standing.map(|grant| Either::Standing(Box::new(grant))),
    };
    let grant = statements::read(&args.file, either)?;
    let now_s = clock::now_s()?;
    let told = match &grant {
        Either::Past(grant) => tell(&Shown::of(grant, &args.file, now_s), Shown::lines, args.print),
        Either::Standing(grant) => {
            let shown = ShownStanding::of(grant, &args.file, now_s);
            tell(&shown, ShownStanding::lines, args.print)
        }
    };
    told?;
    if !args.print.json {
        people(
            "its signature holds; whether the customer's fingerprint is the right one is for you to compare",
        );
    }
    Ok(ExitStatus::Ok)
}

fn tell<T: Serialize>(shown: &T, lines: fn(&T) -> Vec<String>, print: Output) -> Result<(), CliError> {
    if print.json {
        return output::json(shown);
    }
    lines(shown).iter().try_for_each(output::data)
}

/// What a standing grant says.
#[derive(Serialize)]
struct ShownStanding {
    standing_grant: String,
    camera: String,
    purpose: String,
    granted: RangeLine,
    expired: bool,
    customer_fingerprint: String,
    grantee_fingerprint: String,
    made: String,
    sha256: String,
}

impl ShownStanding {
    fn of(grant: &StandingGrant, path: &Path, now_s: u64) -> Self {
        ShownStanding {
            standing_grant: path.to_string_lossy().into_owned(),
            camera: grant.terms.camera.clone(),
            purpose: grant.terms.purpose.clone(),
            granted: RangeLine::of(grant.granted_ns),
            expired: grant.granted_ns.1 <= now_s.saturating_mul(NS_PER_S),
            customer_fingerprint: grant.terms.customer.fingerprint(),
            grantee_fingerprint: grant.terms.grantee.fingerprint(),
            made: instant::seconds(grant.made_s),
            sha256: statement::hex(grant.hash()),
        }
    }

    fn lines(&self) -> Vec<String> {
        let over = if self.expired { "  (OVER)" } else { "" };
        vec![
            format!("camera     {}", OneLine(&self.camera)),
            format!("purpose    {}", OneLine(&self.purpose)),
            format!(
                "of         {}  (the customer's fingerprint)",
                self.customer_fingerprint
            ),
            format!(
                "to         {}  (the grantee's fingerprint)",
                self.grantee_fingerprint
            ),
            format!(
                "granted    {} to {}, in whole segments{over}",
                self.granted.from, self.granted.to
            ),
        ]
    }
}

fn make_standing(args: &MakeArgs, unlock: &Unlock, print: Output) -> Result<ExitStatus, CliError> {
    let range = instant::range(Some(&args.from), Some(&args.to))?;
    // Outward to full seconds, by which nodes go.
    let (from_ns, to_ns) = (range.from_ns.unwrap_or(0), range.to_ns.unwrap_or(0));
    let granted_ns = (
        from_ns / NS_PER_S * NS_PER_S,
        to_ns.div_ceil(NS_PER_S).saturating_mul(NS_PER_S),
    );
    let now_s = clock::now_s()?;
    if granted_ns.1 / NS_PER_S <= now_s {
        return Err(
            CliError::usage("--to is in the past: a standing grant is for time to come")
                .remedy("without --standing, a grant hands over what is recorded already"),
        );
    }
    if (granted_ns.1 - granted_ns.0) / NS_PER_S > LONGEST_S {
        return Err(CliError::usage(
            "a standing grant lasts a year and a day at most: say it anew then",
        ));
    }
    let output = args
        .output
        .as_deref()
        .ok_or_else(|| CliError::usage("--standing needs -o FILE"))?;
    let signer = identities::signer(&args.identity, args.signing_identity.as_deref(), unlock)?;
    let terms = terms(args, &signer.public)?;
    let text = StandingGrant::make(&terms, granted_ns, now_s, &signer.identity);
    let parsed = StandingGrant::parse(&text);
    let grant = parsed.map_err(|why| CliError::usage(format_args!("nothing was signed: {why}")))?;
    let shown = ShownStanding::of(&grant, output, now_s);
    if !print.json {
        shown.lines().iter().for_each(people);
    }
    people(
        "Until then every segment with this camera opens it for the grantee. What it disclosed cannot be taken back.",
    );
    fresh::write(output, text.as_bytes())?;
    match print.json {
        true => output::json(&shown)?,
        false => people(format_args!(
            "{}: signed; it takes effect once the node has it, as one of its customer's grants",
            output.display()
        )),
    }
    Ok(ExitStatus::Ok)
}

fn make(
    args: &MakeArgs,
    (released, unlock): (&Released, &Unlock),
    print: Output,
) -> Result<ExitStatus, CliError> {
    let range = instant::range(Some(&args.from), Some(&args.to))?;
    let now_s = clock::now_s()?;
    let expires_s = match &args.expires {
        None => now_s.saturating_add(EXPIRES_AFTER_S),
        Some(text) => instant::parse("--expires", text)? / NS_PER_S,
    };
    if expires_s <= now_s {
        return Err(CliError::usage(
            "--expires is in the past: nobody could use the grant",
        ));
    }
    let signer = identities::signer(&args.identity, args.signing_identity.as_deref(), unlock)?;
    let terms = terms(args, &signer.public)?;
    let mut opened = Opened {
        keyring: Keyring::new(Arc::clone(&signer.opener)),
        grant: None,
        opener: Arc::clone(&signer.opener),
    };
    released.add_to(&mut opened)?;
    let library = footage::open(&mut opened, &args.paths, wanted(&args.camera, range))?;
    let tracks: Vec<&Track> = library.tracks_of(&args.camera).collect();
    if tracks.is_empty() {
        return Err(footage::unknown_camera(&library, &args.camera));
    }
    let granted = parts_within(&tracks, range);
    if granted.is_empty() {
        return Err(footage::nothing_in_range(&tracks));
    }
    let disclosure = disclosure(&granted, range);
    let keys: Vec<Granted> = granted.iter().map(|part| key(part)).collect();

    let shown = Shown::new(&terms, &disclosure, keys.len() as u64, (expires_s, now_s));
    shown.lines().iter().for_each(people);
    people(
        "A disclosed key cannot be taken back. The range asked for and the expiry bind this program, not the keys.",
    );
    let Some(output) = &args.output else {
        if print.json {
            output::json(&shown)?;
        }
        return Ok(footage::status_after(&library.problems));
    };
    let times = (now_s, expires_s);
    let text = Grant::make(
        &terms,
        &disclosure,
        times,
        &keys,
        &signer.identity,
        &mut os_random(),
    );
    let parsed = Grant::parse(&text);
    let grant = parsed.map_err(|why| CliError::usage(format_args!("nothing was signed: {why}")))?;
    let entered = enter(args, output, &grant, &signer.identity.audit_salt(), now_s)?;
    fresh::write(output, text.as_bytes())?;
    match print.json {
        true => output::json(&Shown {
            entered: Some(entered),
            ..Shown::of(&grant, output, now_s)
        })?,
        false => {
            people(format_args!("{}: signed", output.display()));
            entered.iter().for_each(|line| {
                people(format_args!(
                    "entered in the audit log of {}, as entry {}",
                    line.data, line.entry
                ));
            });
            if entered.is_empty() {
                people(
                    "It stands in no node's audit log, for these are copies. Have the node's operator enter it: `harborseal audit enter FILE DATA`.",
                );
            }
        }
    }
    Ok(footage::status_after(&library.problems))
}

/// Puts the grant on the record of each node whose footage it opens, before it is in anybody's hands.
fn enter(
    args: &MakeArgs,
    output: &Path,
    grant: &Grant,
    salt: &Salt,
    now_s: u64,
) -> Result<Vec<EnteredLine>, CliError> {
    // The log must not tell of a grant that could not be written for want of a name.
    fresh::expect_to(output, "choose another name or folder; nothing was granted")?;
    let nodes = recording::nodes_of(&args.paths).into_iter();
    let enter = |data: PathBuf| {
        let node = recording::node_key(&data)?;
        let entered = recording::enter(&data, node, grant, salt, now_s).map_err(|error| {
            error.remedy("what cannot be entered in the audit log is not granted: nothing was written")
        })?;
        Ok(EnteredLine {
            data: data.display().to_string(),
            entry: entered.index(),
        })
    };
    nodes.map(enter).collect()
}

fn terms(args: &MakeArgs, customer: &PublicKey) -> Result<Terms, CliError> {
    let grantee: PublicKey = args
        .to_key
        .parse()
        .map_err(|why| CliError::usage(format_args!("--to-key: {why}")))?;
    if args.purpose.trim().is_empty() || args.purpose.len() > PURPOSE_BYTES_MAX {
        return Err(CliError::usage(format_args!(
            "--purpose: say in 1 to {PURPOSE_BYTES_MAX} bytes why"
        )));
    }
    Ok(Terms {
        customer: customer.clone(),
        grantee,
        camera: args.camera.clone(),
        purpose: args.purpose.clone(),
    })
}

fn wanted(camera_id: &str, range: Range) -> Wanted<'_> {
    let (from_s, to_s) = footage::whole_seconds(range);
    Wanted::Chunks {
        camera_id,
        from_s,
        to_s,
    }
}

/// What segments hold of the camera in the range: a key opens all of it, so all of it is disclosed.
fn parts_within<'a>(tracks: &[&'a Track], range: Range) -> Vec<&'a Part> {
    let (from_s, to_s) = footage::whole_seconds(range);
    footage::parts(tracks)
        .filter(|part| part.is_within(from_s, to_s))
        .collect()
}

fn key(part: &Part) -> Granted {
    Granted {
        segment_id: part.stream.origin,
        stream_id: part.stream.stream_id,
        slot: part.stream.slot,
        secret: part.stream.keys.secret().clone(),
    }
}

fn disclosure(granted: &[&Part], range: Range) -> Disclosure {
    let first_s = granted.iter().map(|part| part.first_s).min().unwrap_or(0);
    let last_s = granted.iter().map(|part| part.last_s).max().unwrap_or(0);
    let open: HashSet<_> = granted
        .iter()
        .filter(|part| part.open)
        .map(|part| part.stream.origin)
        .collect();
    Disclosure {
        asked_ns: (range.from_ns.unwrap_or(0), range.to_ns.unwrap_or(u64::MAX)),
        // By the unsealed headers, in whole seconds: what they cover, and not a second less.
        disclosed_ns: (
            first_s.saturating_mul(NS_PER_S),
            last_s.saturating_add(1).saturating_mul(NS_PER_S),
        ),
        open_segments: open.len() as u64,
    }
}
