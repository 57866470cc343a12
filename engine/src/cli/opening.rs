//! What opens footage, as the commands that read it are given it: an identity, and perhaps a grant or releases to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harborseal_segment::identity::Opener;
use harborseal_segment::open::Keyring;

use super::error::{CliError, ExitStatus};
use super::identities::{self, Unlock};
use super::{clock, statements};
use crate::statement::{Grant, SealedRelease, TimeError, UseError};

/// The options of a command that opens footage.
#[derive(Debug, clap::Args)]
pub struct Opening {
    /// The identity that opens: the customer's, as keygen made it, or the grantee's
    #[arg(long, value_name = "FILE")]
    pub identity: PathBuf,

    /// Open only what the customer granted in FILE to this identity
    #[arg(long, value_name = "FILE")]
    pub grant: Option<PathBuf>,

    #[command(flatten)]
    pub released: Released,

    #[command(flatten)]
    pub unlock: Unlock,
}

impl Opening {
    /// Reads identity, grant and releases.
    pub fn read(&self) -> Result<Opened, CliError> {
        let mut opened = read(&self.identity, self.grant.as_deref(), &self.unlock)?;
        self.released.add_to(&mut opened)?;
        Ok(opened)
    }
}

/// The releases of erasable footage that a command is given.
#[derive(Debug, clap::Args)]
pub struct Released {
    /// Also open the erasable footage that its node released in FILE to this identity; can be given several times
    #[arg(long = "release", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Released {
    /// Refuses releases where there is no identity to open them.
    pub fn need_identity(&self) -> Result<(), CliError> {
        match self.files.is_empty() {
            true => Ok(()),
            false => Err(CliError::usage(
                "--release needs --identity: a release opens nothing without it",
            )),
        }
    }

    /// Reads the releases, and hands the keyring what they hold.
    pub fn add_to(&self, opened: &mut Opened) -> Result<(), CliError> {
        for path in &self.files {
            let sealed = statements::read(path, SealedRelease::parse)?;
            let releases = sealed.open(&opened.opener);
            opened.answered()?;
            let releases = releases.map_err(|why| match why {
                UseError::Foreign => not_mine(path, &why)
                    .remedy("it opens with the identity that it was made for, `--to-key` of release"),
                UseError::Malformed => CliError::damage(format_args!("{}: {why}", path.display())),
            })?;
            releases
                .into_iter()
                .for_each(|release| opened.keyring.add_release(release));
        }
        Ok(())
    }
}

fn not_mine(path: &Path, why: &UseError) -> CliError {
    CliError::nothing_here(format_args!("{}: {why}", path.display()))
}

/// An identity that was read, and what of footage it opens.
pub struct Opened {
    /// All that is the identity's own, or of a grant to it exactly what that holds.
    pub keyring: Keyring,
    /// The grant.
    pub grant: Option<Grant>,
    /// The identity.
    pub opener: Arc<Opener>,
}

impl Opened {
    /// Refuses what came of an identity on a token that could not be asked: that nothing opened would be no answer.
    pub fn answered(&self) -> Result<(), CliError> {
        self.opener.failure().map_or(Ok(()), |why| Err(CliError::io(why)))
    }
}

/// Reads an identity, and a grant to it.
pub fn read(identity: &Path, grant: Option<&Path>, unlock: &Unlock) -> Result<Opened, CliError> {
    let opener = identities::opener(identity, unlock)?;
    let Some(path) = grant else {
        return Ok(Opened {
            keyring: Keyring::new(Arc::clone(&opener)),
            grant: None,
            opener,
        });
    };
    let grant = statements::read(path, Grant::parse)?;
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    grant
        .in_time(clock::now_s()?)
        .map_err(|why| too_early_or_late(&named(&why), why))?;
    let keys = grant.open(&opener).map_err(|why| match why {
        UseError::Foreign => not_mine(path, &why).remedy("--identity must be the grantee's"),
        UseError::Malformed => CliError::damage(named(&why)),
    });
    let keys = opener.failure().map_or(keys, |why| Err(CliError::io(why)))?;
    Ok(Opened {
        keyring: Keyring::of_granted(keys),
        grant: Some(grant),
        opener,
    })
}

fn too_early_or_late(message: &str, why: TimeError) -> CliError {
    let refused = CliError::new(ExitStatus::Damage, message);
    match why {
        TimeError::Expired { .. } => refused.remedy("ask its customer for a new one"),
        TimeError::FromTheFuture { .. } => refused.remedy("`date -u` shows this one's"),
    }
}
