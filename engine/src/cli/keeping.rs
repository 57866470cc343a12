//! What the commands for erasable footage share: the node that a configuration names, its customer, and how refusals end.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::CliError;
use crate::config::Config;
use crate::engine::{self, StartError};
use crate::erasure::{ErasureError, Node, Whose};
use crate::keystore::StoreError;
use crate::stream::registry::Customer;
use crate::uring::sys;

/// Which node, and whose footage.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// The engine's configuration; this is for the operator of the node, as the user that the engine runs as
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// The customer, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    pub customer: String,

    /// Who decided it, if not the user who types this; the audit log shows it
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
}

impl Which {
    /// Who decided it.
    pub fn by(&self) -> Result<String, CliError> {
        let by = self.by.as_deref().map(|by| said("--by", by)).transpose()?;
        Ok(by.map_or_else(user, str::to_owned))
    }
}

/// Words that somebody will read in the log.
pub fn said<'a>(option: &str, text: &'a str) -> Result<&'a str, CliError> {
    match text.trim() {
        "" => Err(CliError::usage(format_args!(
            "{option} must say something: it is what the audit log shows"
        ))),
        text if text.len() > 500 => Err(CliError::usage(format_args!("{option} is longer than 500 bytes"))),
        text => Ok(text),
    }
}

/// Loads the configuration and opens its node.
pub fn open(config: &Path) -> Result<(Config, Node), CliError> {
    let config = Config::load(config)?;
    as_its_owner(&config.data_dir.join("keys"))?;
    let key = engine::node_key_of(&config.data_dir).map_err(start_error)?;
    let node = Node::open(&config.data_dir, key).map_err(refused)?;
    Ok((config, node))
}

/// Refuses to work as anybody but the owner of the node's keys: what root made there, an engine of another user could not read.
fn as_its_owner(keys: &Path) -> Result<(), CliError> {
    let owner = std::fs::metadata(keys)
        .map_err(|error| {
            CliError::file("look at", keys, &error).remedy("the engine makes it when it first starts")
        })?
        .uid();
    let own = rustix::process::geteuid().as_raw();
    match owner == own {
        true => Ok(()),
        false => Err(CliError::usage(format_args!(
            "{} belongs to user {owner}, and this runs as user {own}",
            keys.display()
        ))
        .remedy(format_args!(
            "run it as the engine's own user: `sudo -u '#{owner}' harborseal ...`"
        ))),
    }
}

/// The customer of this name.
pub fn customer<'a>(config: &'a Config, name: &str) -> Result<&'a Customer, CliError> {
    let found = config
        .registry
        .customers
        .iter()
        .find(|customer| &*customer.name == name);
    found.ok_or_else(|| {
        CliError::usage(format_args!(
            "{}: no [[customer]] has the name '{name}'",
            config.path.display()
        ))
        .remedy("footage is erased and released by the name under which it was recorded")
    })
}

/// A customer as the node's own commands know it.
pub fn whose<'a>(config: &'a Config, customer: &'a Customer) -> Whose<'a> {
    let registry = &config.registry;
    let of_customer = registry.grants.iter().filter(|granting| {
        let camera = &registry.cameras[granting.camera as usize];
        registry.customers[camera.customer as usize].name == customer.name
    });
    Whose {
        name: &customer.name,
        public_key: &customer.public_key,
        salt: customer.audit_salt().copied(),
        others: of_customer.map(|granting| granting.grant.audit_salt).collect(),
    }
}

/// Whoever types this, as far as the environment says.
pub fn user() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// Seconds since 1970, by this node's clock.
pub fn now_s() -> u64 {
    sys::realtime_ns() / 1_000_000_000
}

fn start_error(error: StartError) -> CliError {
    let StartError { message, remedy, .. } = error;
    match remedy.is_empty() {
        true => CliError::io(message),
        false => CliError::io(message).remedy(remedy),
    }
}

/// How a refusal ends a command.
pub fn refused(error: ErasureError) -> CliError {
    let shown = error.to_string();
    match error {
        ErasureError::NoKey(_) => CliError::nothing_here(shown),
        ErasureError::Held(_) => {
            CliError::damage(shown).remedy("`harborseal hold --lift` lifts it, on the record")
        }
        ErasureError::Stale(_) => {
            CliError::damage(shown).remedy("`harborseal erase` destroys it again; find out who put it there")
        }
        ErasureError::Store(StoreError::Broken { .. }) => CliError::damage(shown),
        ErasureError::Log(ref why) if !why.is_io() => CliError::damage(shown),
        ErasureError::Store(_) | ErasureError::Log(_) | ErasureError::Segments { .. } => CliError::io(shown),
    }
}
