//! `harborseal enrol`: makes the statement by which a node accepts a customer's key, or shows one.

use std::path::{Path, PathBuf};

use harborseal_segment::identity::{Identity, PublicKey};
use serde::Serialize;

use super::identities::{self, Unlock};
use super::output::{self, Output, people};
use super::{CliError, ExitStatus, clock, fresh, instant, statements};
use crate::statement::{self, Enrolment};

/// Make the statement that enrols a customer's key with a node, signed by the customer; or show one.
///
/// The node takes the first one it is given, and from then on only one that the key in force has signed. So the first is compared out of
/// band: both sides see the same fingerprint, or somebody stands between them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Whoever is named by --recovery can open all that is recorded under the enrolment, as the customer can. Everybody who has a
segment sees how many recipients it has.

Examples:
  harborseal enrol --identity alice.identity -o alice.enrolment
  harborseal enrol --identity alice.identity --recovery hsp1... --replaces alice.enrolment -o alice-2.enrolment
  harborseal enrol --identity new.identity --replaces alice.enrolment --previous-identity alice.identity -o alice-2.enrolment
  harborseal enrol --kem-key age1pq1... --signing-identity alice.identity -o alice.enrolment
  harborseal enrol --show alice.enrolment")]
#[command(group = clap::ArgGroup::new("what").required(true).args(["identity", "kem_key", "show"]))]
pub struct Args {
    /// The identity whose key is enrolled, as keygen made it; its signing key signs
    #[arg(long, value_name = "FILE", requires = "output")]
    identity: Option<PathBuf>,

    /// Enrol this key, which opens, under the signing key of another identity: an age1pq... key, the pkcs11: URI of a key on a token, or an
    /// identity file that holds either
    #[arg(long, value_name = "KEY", requires_all = ["signing_identity", "output"])]
    kem_key: Option<String>,

    /// The identity that signs for --kem-key, as keygen made it
    #[arg(long, value_name = "FILE", requires = "kem_key")]
    signing_identity: Option<PathBuf>,

    /// Seal every segment to this public key too; may be given several times
    #[arg(long, value_name = "PUBLIC_KEY", conflicts_with = "show")]
    recovery: Vec<String>,

    /// The enrolment in force, which the new one replaces
    #[arg(long, value_name = "OLD", conflicts_with = "show")]
    replaces: Option<PathBuf>,

    /// The identity that signed OLD, if a new one signs now: only the key in force can replace itself
    #[arg(long, value_name = "FILE", requires = "replaces")]
    previous_identity: Option<PathBuf>,

    /// The file to write (mode 0600; an existing file is never overwritten)
    #[arg(short, long, value_name = "FILE", conflicts_with = "show")]
    output: Option<PathBuf>,

    /// Check the enrolment in FILE and show what it says
    #[arg(long, value_name = "FILE")]
    show: Option<PathBuf>,

    #[command(flatten)]
    unlock: Unlock,

    #[command(flatten)]
    print: Output,
}

#[derive(Serialize)]
struct Shown<'a> {
    enrolment: &'a str,
    fingerprint: String,
    seq: u64,
    made: String,
    recovery_recipients: Vec<String>,
    public_key: String,
    sha256: String,
    replaces: Option<String>,
}

/// Runs the command. The fingerprint stands alone on the last line of stdout, or in the object that `--json` prints.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let (path, enrolment) = match (&args.output, &args.show) {
        (_, Some(path)) => (path, read(path)?),
        (Some(path), None) => (path, make(args, path)?),
        (None, None) => {
            return Err(CliError::usage(
                "enrol needs --identity FILE and -o FILE, or --show FILE",
            ));
        }
    };
    let shown = Shown {
        enrolment: &path.to_string_lossy(),
        fingerprint: enrolment.fingerprint(),
        seq: enrolment.seq,
        made: instant::seconds(enrolment.made_s),
        recovery_recipients: enrolment.recovery.iter().map(PublicKey::to_text).collect(),
        public_key: enrolment.public.to_text(),
        sha256: statement::hex(enrolment.hash()),
        replaces: enrolment.previous.as_ref().map(statement::hex),
    };
    if args.print.json {
        output::json(&shown)?;
        return Ok(ExitStatus::Ok);
    }
    let recovery = match shown.recovery_recipients.len() {
        0 => "no recovery recipient: if the identity is lost, so is the footage".to_owned(),
        n => format!("recovery recipients: {n}, who can open all that is recorded under it"),
    };
    people(format_args!(
        "{}: enrolment {} of {}; {recovery}",
        path.display(),
        shown.seq,
        shown.made
    ));
    people("the signing key's fingerprint, to be compared over another channel than the file's:");
    output::data(shown.fingerprint)?;
    Ok(ExitStatus::Ok)
}

fn make(args: &Args, path: &Path) -> Result<Enrolment, CliError> {
    let (identity, public) = signer(args)?;
    let recovery = args.recovery.iter().map(|text| recovery_key(text, &identity));
    let recovery = recovery.collect::<Result<Vec<_>, _>>()?;
    let made_s = clock::now_s()?;
    let text = match &args.replaces {
        None => Enrolment::first(&public, &recovery, &identity, made_s),
        Some(old_path) => {
            let old = read(old_path)?;
            let before = args.previous_identity.as_deref();
            let before = before
                .map(|path| identities::whole(path, &args.unlock))
                .transpose()?;
            let signer = before.as_ref().unwrap_or(&identity);
            signs_for(signer, &old, old_path)?;
            Enrolment::next(&public, &recovery, &identity, made_s, (&old, signer))
        }
    };
    // A statement that nobody would take is not written.
    let enrolment =
        Enrolment::parse(&text).map_err(|why| CliError::usage(format_args!("--recovery: {why}")))?;
    fresh::write(path, text.as_bytes())?;
    Ok(enrolment)
}

/// Who signs, and the key that is enrolled.
fn signer(args: &Args) -> Result<(Identity, PublicKey), CliError> {
    match (&args.identity, &args.kem_key, &args.signing_identity) {
        (Some(path), _, _) => {
            let identity = identities::whole(path, &args.unlock)?;
            let public = identity.public().clone();
            Ok((identity, public))
        }
        (None, Some(key), Some(signing)) => identities::vouched(key, signing, &args.unlock),
        _ => Err(CliError::usage("--kem-key KEY needs --signing-identity FILE")),
    }
}

fn signs_for(signer: &Identity, old: &Enrolment, path: &Path) -> Result<(), CliError> {
    if signer.public().signing_key() == old.public.signing_key() {
        return Ok(());
    }
    let refused = CliError::usage(format_args!(
        "{} was signed by another identity, and only that one can replace it",
        path.display()
    ));
    Err(refused.remedy("name it with --previous-identity FILE"))
}

/// A public key of ours, or one of age's, for which the customer vouches.
fn recovery_key(text: &str, customer: &Identity) -> Result<PublicKey, CliError> {
    if text.starts_with("age1") {
        return identities::age_key(text, customer, "--recovery");
    }
    text.parse()
        .map_err(|why| CliError::usage(format_args!("--recovery: {why}")))
}

/// Reads an enrolment and checks its signature.
pub fn read(path: &Path) -> Result<Enrolment, CliError> {
    statements::read(path, Enrolment::parse)
}
