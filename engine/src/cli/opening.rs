//! What opens footage, as the commands that read it are given it: an identity, and perhaps a grant to it.

use std::path::{Path, PathBuf};

use harborseal_segment::open::Keyring;

use super::error::{CliError, ExitStatus};
use super::identities::{self, Unlock};
use super::{clock, statements};
use crate::statement::{Grant, TimeError, UseError};

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
    pub unlock: Unlock,
}

impl Opening {
    /// Reads identity and grant.
    pub fn keyring(&self) -> Result<(Keyring, Option<Grant>), CliError> {
        keyring(&self.identity, self.grant.as_deref(), &self.unlock)
    }
}

/// What `identity` opens: all that is its own, or of a grant to it exactly what that holds.
pub fn keyring(
    identity: &Path,
    grant: Option<&Path>,
    unlock: &Unlock,
) -> Result<(Keyring, Option<Grant>), CliError> {
    let opener = identities::opener(identity, unlock)?;
    let Some(path) = grant else {
        return Ok((Keyring::new(opener), None));
    };
    let grant = statements::read(path, Grant::parse)?;
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    grant
        .in_time(clock::now_s()?)
        .map_err(|why| too_early_or_late(&named(&why), why))?;
    let keys = grant.open(&opener).map_err(|why| match why {
        UseError::Foreign => CliError::nothing_here(named(&why)).remedy("--identity must be the grantee's"),
        UseError::Malformed => CliError::damage(named(&why)),
    })?;
    Ok((Keyring::of_granted(keys), Some(grant)))
}

fn too_early_or_late(message: &str, why: TimeError) -> CliError {
    let refused = CliError::new(ExitStatus::Damage, message);
    match why {
        TimeError::Expired { .. } => refused.remedy("ask its customer for a new one"),
        TimeError::FromTheFuture { .. } => refused.remedy("`date -u` shows this one's"),
    }
}
