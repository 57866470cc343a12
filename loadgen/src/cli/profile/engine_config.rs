//! `profile engine-config`: a folder with the engine's configuration and the customers' identities for a profile's fleet.
//!
//! Invariants: an identity that is there is never overwritten, nor is a configuration that is not ours.

use super::{Chosen, Failure, print};
use crate::cli::{EXIT_UNREACHABLE, resolve};
use crate::output::words::with_commas;
use crate::plan::Plan;
use crate::profile::{ENGINE_CONFIG_MARK, EngineConfig};
use clap::Args;
use harborseal_segment::identity::Identity;
use harborseal_segment::random::os_random;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The folder then holds engine.toml, with the cameras' session descriptions in it, and one identity file per customer (mode \
0600). Identities that are already there are kept, so that what was recorded for them stays readable. Next:

  harborseal check --config DIR/engine.toml
  harborseal run --config DIR/engine.toml")]
pub(in crate::cli) struct EngineConfigArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Where the engine listens, and the fleet will send; given several times, the cameras are dealt out over them
    #[arg(long, value_name = "IP:PORT", required = true, value_parser = resolve)]
    target: Vec<SocketAddr>,
    /// Folder to write into; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Where the engine keeps segments, seen from DIR
    #[arg(long, value_name = "DIR", default_value = "data")]
    data_dir: String,
    /// CPUs the engine records on [default: the first that this process may use]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    cpus: Vec<usize>,
}

pub(super) fn write(args: &EngineConfigArgs) -> Result<(), Failure> {
    let profile = args.chosen.load()?;
    let plan = Plan::from_profile(&profile, args.target.clone()).map_err(Failure::usage)?;
    let cpus = match args.cpus.as_slice() {
        [] => vec![first_cpu()],
        cpus => cpus.to_vec(),
    };
    let sources = args.target.iter().map(|target| source(profile.source, *target));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let path = config_path(&args.output)?;
    let identities = profile
        .customers
        .iter()
        .map(|name| identity(&args.output.join(format!("{name}.identity"))));
    let identities = identities.collect::<Result<Vec<_>, _>>()?;
    let public_keys: Vec<String> = identities
        .iter()
        .map(|identity| identity.public().to_text())
        .collect();
    let config = EngineConfig {
        profile: &profile,
        plan: &plan,
        data_dir: &args.data_dir,
        cpus: &cpus,
        public_keys: &public_keys,
        sources: &sources,
    };
    write_config(&path, &config.to_toml())?;
    let known = plan
        .cameras
        .iter()
        .filter(|camera| !plan.groups[camera.group as usize].unknown)
        .count();
    print(&format!(
        "{}: {} cameras of {} customers, whose identities stand beside it\n",
        path.display(),
        with_commas(known as u64),
        with_commas(identities.len() as u64),
    ))
}

/// Makes the folder of a configuration, and says where in it the configuration goes.
pub(in crate::cli) fn config_path(folder: &Path) -> Result<PathBuf, Failure> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(folder);
    made.map_err(|why| Failure::file("make the folder", folder, &why))?;
    let path = folder.join("engine.toml");
    refuse_foreign(&path)?;
    Ok(path)
}

pub(in crate::cli) fn write_config(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|why| Failure::file("write", path, &why))
}

/// The address that packets to `target` come from: the one that is set, or the kernel's choice.
pub(in crate::cli) fn source(set: Option<IpAddr>, target: SocketAddr) -> Result<IpAddr, Failure> {
    if let Some(source) = set {
        return Ok(source);
    }
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting sends nothing: it asks the kernel for its route.
    let local = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(target)?;
        socket.local_addr()
    });
    local.map(|local| local.ip()).map_err(|why| Failure {
        status: EXIT_UNREACHABLE,
        message: format!(
            "no way to {target}: {why}; to write a configuration for elsewhere, set -s source=IP"
        ),
    })
}

pub(in crate::cli) fn first_cpu() -> usize {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count())
        .find(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .unwrap_or(0)
}

/// A configuration that somebody else wrote stays as it is.
fn refuse_foreign(path: &Path) -> Result<(), Failure> {
    match fs::read_to_string(path) {
        Ok(text) if text.starts_with(ENGINE_CONFIG_MARK) => Ok(()),
        Ok(_) => Err(Failure::usage(format!(
            "{} is there and is not ours: name another folder",
            path.display()
        ))),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(Failure::file("read", path, &why)),
    }
}

/// The identity in a file; if there is none, a new one, as `harborseal keygen` makes it.
pub(in crate::cli) fn identity(path: &Path) -> Result<Identity, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            return Identity::from_file_text(&text)
                .map_err(|why| Failure::usage(format!("{}: {why}", path.display())));
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(Failure::file("read", path, &why)),
    }
    let identity = Identity::generate(&mut os_random());
    let write = |mut file: File| {
        // The mode given to open() is cut by the umask; exactly 0600 is promised.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(identity.to_file_text().as_bytes())
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(write)
        .map_err(|why| Failure::file("write", path, &why))?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::EXIT_USAGE;

    fn args(profile: &str, output: &Path) -> EngineConfigArgs {
        EngineConfigArgs {
            chosen: Chosen {
                profile: profile.to_owned(),
                settings: Vec::new(),
            },
            target: vec!["127.0.0.1:5004".parse().expect("an address")],
            output: output.to_owned(),
            data_dir: "data".to_owned(),
            cpus: vec![0],
        }
    }

    #[test]
    fn identities_are_private_and_kept_and_a_foreign_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(write(&args("tiny", folder.path())).is_ok());
        let path = folder.path().join("alice.identity");
        assert_eq!(
            path.metadata().expect("made").permissions().mode() & 0o7777,
            0o600
        );
        let before = fs::read(&path).expect("an identity");
        assert!(write(&args("clip", folder.path())).is_ok());
        assert_eq!(fs::read(&path).expect("an identity"), before);
        let config = folder.path().join("engine.toml");
        fs::write(&config, "data_dir = \"precious\"\n").expect("written");
        let failure = write(&args("tiny", folder.path())).expect_err("refused");
        assert_eq!(failure.status, EXIT_USAGE);
        assert_eq!(
            fs::read(&config).expect("still there"),
            b"data_dir = \"precious\"\n"
        );
    }

    #[test]
    fn strangers_are_left_out_and_cameras_of_their_own_address_are_known_by_it_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(write(&args("bad-network", folder.path())).is_ok());
        let text = fs::read_to_string(folder.path().join("engine.toml")).expect("written");
        assert!(!text.contains("stranger"));
        let by_address = text
            .split("[[camera]]")
            .find(|camera| camera.contains("\"restarting-known-00002\""));
        let by_address = by_address.expect("configured");
        assert!(
            by_address.contains("source = \"127.64.0.1:20004\""),
            "{by_address}"
        );
        assert!(!by_address.contains("ssrc"), "{by_address}");
        let both = text
            .split("[[camera]]")
            .find(|camera| camera.contains("\"everything-00000\""));
        let both = both.expect("configured");
        assert!(both.contains("m=video") && both.contains("m=audio"), "{both}");
    }
}
