//! Landlock: the folders and ports this process may still reach.
//!
//! Held by inode: whatever is later put under the same name, or mounted over it, is another folder. So rules are for folders, never for files
//! that editors replace.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::Protection;
use crate::text::Plain;

/// What is asked of the kernel; an older one is asked for as much of it as it knows. V6 (Linux 6.12) is the last that forbids something
/// this process could do.
const ASKED: ABI = ABI::V6;

/// Read by the engine itself, beside what the configuration names: its own figures, and whether huge pages are to be had.
const OWN: [&str; 3] = [
    "/proc/self",
    "/proc/meminfo",
    "/sys/kernel/mm/transparent_hugepage",
];

/// Where a process may still go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// May be read and written, all that is in them.
    pub written: Vec<PathBuf>,
    /// May be read, all that is in them.
    pub read: Vec<PathBuf>,
    /// The supervisor's socket has an abstract name, so such names must stay reachable.
    pub abstract_sockets: bool,
}

impl Reach {
    /// What the engine needs: its data, and what a SIGHUP reads again. `named` are the folders of the files that the configuration refers
    /// to. A folder counts as where links lead to from its name, and the configuration's also as the one it really stands in.
    pub fn of_engine(config: &Path, data_dir: &Path, named: &[PathBuf], more: &[PathBuf]) -> Reach {
        let inside = ["", "segments", "keys", "audit"].map(|name| data_dir.join(name));
        let real = |path: &PathBuf| path.canonicalize().ok();
        let own = OWN.map(PathBuf::from);
        let named = named.iter().chain(more).chain(&own).filter_map(real);
        let mut reach = Reach {
            written: inside.iter().filter_map(real).collect(),
            read: folders_of(config).into_iter().chain(named).collect(),
            abstract_sockets: std::env::var_os("NOTIFY_SOCKET")
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"@")),
        };
        for list in [&mut reach.written, &mut reach.read] {
            list.sort();
            list.dedup();
        }
        reach
    }
}

/// The folder a file stands in, and the one it really stands in.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = file.canonicalize().ok();
    [Some(folder(file)), real.as_deref().map(folder)]
        .into_iter()
        .flatten()
        .filter_map(|folder| folder.canonicalize().ok())
        .collect()
}

/// No program that this process could run gets more rights than it has itself.
pub fn no_new_privs() -> Protection {
    let name = "no_new_privs";
    match rustix::thread::set_no_new_privs(true) {
        Ok(()) => Protection::holds(name, "set"),
        Err(error) => Protection::lacks(name, error.to_string(), "a newer kernel"),
    }
}

/// Confines this thread, and all that it starts from now on.
pub fn landlock(reach: &Reach) -> Protection {
    let name = "Landlock";
    let status = match restrict(reach) {
        Ok(status) => status,
        Err(error) => {
            let why = format!("refused: {}", Plain(&std::io::Error::other(error.to_string())));
            return Protection::lacks(name, why, "see `dmesg | grep landlock`");
        }
    };
    let remedy = "a kernel with Landlock (Linux 6.12 or later has all of it; `landlock` must be in its `lsm=` list); in a container a \
                  seccomp profile that allows landlock_create_ruleset";
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => Protection::holds(
            name,
            "data_dir, the configuration's folders and nothing else of the file system",
        ),
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            Protection::lacks(
                name,
                format!("in force, as far as this kernel knows it ({effective_abi:?})"),
                remedy,
            )
        }
        (_, LandlockStatus::NotEnabled) => Protection::lacks(name, "not enabled on this machine", remedy),
        (_, _) => Protection::lacks(name, "this kernel has none", remedy),
    }
}

fn restrict(reach: &Reach) -> Result<RestrictionStatus, RulesetError> {
    let mut scope = Scope::from_all(ASKED);
    if reach.abstract_sockets {
        scope.remove(Scope::AbstractUnixSocket);
    }
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ASKED))?
        // With no rule for any port: sockets were bound before, and it connects to nobody.
        .handle_access(AccessNet::from_all(ASKED))?
        .scope(scope)?
        .create()?;
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let changing = AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    ruleset
        .add_rules(rules(&reach.written, reading | changing))?
        .add_rules(rules(&reach.read, reading))?
        .restrict_self()
}

/// What is not there cannot be reached, and needs no rule. Only a folder can have rights that are about what is in it.
fn rules(
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>> {
    landlock::path_beneath_rules(paths, access)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_reached_by_its_name_and_by_where_links_lead() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir_all(root.join("real")).unwrap();
        std::fs::write(root.join("real/engine.toml"), "").unwrap();
        std::os::unix::fs::symlink("../real/engine.toml", root.join("etc/engine.toml")).unwrap();
        let reach = Reach::of_engine(
            &root.join("etc/engine.toml"),
            &root.join("no-such-data"),
            &[root.join("not-there")],
            &[],
        );
        assert_eq!(reach.written, [] as [PathBuf; 0]);
        assert!(reach.read.contains(&root.join("etc")) && reach.read.contains(&root.join("real")));
        assert!(!reach.read.contains(&root));
    }

    #[test]
    fn a_confined_thread_reads_and_writes_where_it_may_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let path = move |name: &str| root.join(name);
        for name in ["data", "config", "other"] {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(path(name).join("file"), name).unwrap();
        }
        let reach = Reach {
            written: vec![path("data")],
            read: vec![path("config")],
            abstract_sockets: false,
        };
        let confined = std::thread::spawn(move || {
            let protection = landlock(&reach);
            if protection.detail.contains("none") || protection.detail.contains("not enabled") {
                return; // nothing to show here, and `check` says so
            }
            std::fs::create_dir_all(path("data/new/folder")).unwrap();
            std::fs::write(path("data/new/file"), "x").unwrap();
            std::fs::rename(path("data/new/file"), path("data/new/folder/file")).unwrap();
            std::fs::remove_file(path("data/file")).unwrap();
            assert_eq!(std::fs::read(path("config/file")).unwrap(), b"config");
            let denied = |result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
            };
            denied(std::fs::write(path("config/file"), "x"));
            denied(std::fs::write(path("config/new"), "x"));
            denied(std::fs::read(path("other/file")).map(drop));
            denied(std::fs::read("/etc/passwd").map(drop));
            denied(std::fs::read_dir("/").map(drop));
        });
        confined.join().unwrap();
    }
}
