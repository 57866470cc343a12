//! Control groups of our own: a receiver that gets a part of its core, a disk that takes so many bytes a second. Both kinds of groups that
//! Linux has (cgroups(7)): version 1, one hierarchy for each controller, and version 2. Needs root, and says so.
//!
//! A group is removed when it is done with, which the kernel allows once the process in it has ended; dropped early, its process is sent
//! back where it came from first.

use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

/// Of the CPU's time. Short, so that a receiver that has used its part waits for a moment and not for a batch of packets; the kernel wants a part
/// of a millisecond at least.
const PERIOD_US: u64 = 10_000;
const QUOTA_LEAST_US: u64 = 1_000;

/// One group, with one limit.
pub struct Group {
    folder: PathBuf,
    /// Where its process is sent back to.
    parent: PathBuf,
    version: Version,
    taken: std::cell::Cell<Option<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Group {
    /// Processes in it get this share of one core in all.
    pub fn of_cpu(share: f64) -> anyhow::Result<Group> {
        ensure!(
            share > 0.0 && share <= 1.0,
            "a share of a core is above 0 and at most 1"
        );
        let group = Group::create("cpu", "cpu")?;
        let quota_us = ((PERIOD_US as f64 * share) as u64).max(QUOTA_LEAST_US);
        match group.version {
            Version::One => {
                group.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
                group.set("cpu.cfs_quota_us", &quota_us.to_string())?;
            }
            Version::Two => group.set("cpu.max", &format!("{quota_us} {PERIOD_US}"))?,
        }
        Ok(group)
    }

    /// What processes in it write can be slowed down.
    pub fn of_disk() -> anyhow::Result<Group> {
        Group::create("blkio", "io")
    }

    /// From now on the disk under `dir` takes so many bytes a second of them; `None`: as many as it can.
    pub fn slow_down(&self, dir: &Path, bytes_per_second: Option<u64>) -> anyhow::Result<()> {
        let disk = disk_under(dir)?;
        match (self.version, bytes_per_second) {
            (Version::One, rate) => self.set(
                "blkio.throttle.write_bps_device",
                &format!("{disk} {}", rate.unwrap_or(0)),
            ),
            (Version::Two, Some(rate)) => self.set("io.max", &format!("{disk} wbps={rate}")),
            (Version::Two, None) => self.set("io.max", &format!("{disk} wbps=max")),
        }
    }

    /// Takes a process, with all the threads that it has and will have.
    pub fn take(&self, pid: u32) -> anyhow::Result<()> {
        self.set("cgroup.procs", &pid.to_string())?;
        self.taken.set(Some(pid));
        Ok(())
    }

    /// Removes it. Its process has ended by then.
    pub fn remove(self) -> anyhow::Result<()> {
        self.taken.set(None);
        let removed = std::fs::remove_dir(&self.folder);
        removed.with_context(|| format!("removing {}", self.folder.display()))
    }

    fn create(name_v1: &str, name_v2: &str) -> anyhow::Result<Group> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "limiting a process by a control group needs root"
        );
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
        let own = format!("harborseal-bench-{}-{name_v2}", std::process::id());
        let (parent, version) = match mounted(&mounts, name_v1) {
            Some(parent) => (parent, Version::One),
            None => (unified(&mounts, name_v2)?, Version::Two),
        };
        let folder = parent.join(own);
        std::fs::create_dir(&folder).with_context(|| format!("making the group {}", folder.display()))?;
        Ok(Group {
            folder,
            parent,
            version,
            taken: std::cell::Cell::new(None),
        })
    }

    fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.folder.join(file);
        std::fs::write(&path, value).with_context(|| format!("writing {value:?} to {}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After `remove` there is nothing left of it. What cannot be undone here nobody else could undo either.
        if let Some(pid) = self.taken.get() {
            let _back = std::fs::write(self.parent.join("cgroup.procs"), pid.to_string());
        }
        let _removed = std::fs::remove_dir(&self.folder);
    }
}

/// Where version 1 has a controller: `cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0` (proc_pid_mounts(5)).
fn mounted(mounts: &str, controller: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, point, "cgroup", options, ..] = fields[..] else {
            return None;
        };
        options
            .split(',')
            .any(|option| option == controller)
            .then(|| PathBuf::from(point))
    })
}

/// Where version 2 is, with the controller switched on for groups below.
fn unified(mounts: &str, controller: &str) -> anyhow::Result<PathBuf> {
    let point = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    });
    let Some(point) = point else {
        bail!("no control groups are mounted here");
    };
    let has = |file: &str| {
        let text = std::fs::read_to_string(point.join(file)).unwrap_or_default();
        text.split_whitespace().any(|name| name == controller)
    };
    ensure!(
        has("cgroup.controllers"),
        "the control groups here have no `{controller}`"
    );
    if !has("cgroup.subtree_control") {
        let path = point.join("cgroup.subtree_control");
        std::fs::write(&path, format!("+{controller}"))
            .with_context(|| format!("switching `{controller}` on in {}", path.display()))?;
    }
    Ok(point)
}

/// `MAJOR:MINOR` of the disk that holds a folder; of a partition, the disk that it is part of, which alone can be slowed down.
fn disk_under(dir: &Path) -> anyhow::Result<String> {
    let about = std::fs::metadata(dir).with_context(|| format!("looking at {}", dir.display()))?;
    let device = about.st_dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let entry = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    ensure!(
        entry.exists(),
        "{} is on no disk that could be slowed down (device {major}:{minor}); name another folder with --dir",
        dir.display()
    );
    if !entry.join("partition").exists() {
        return Ok(format!("{major}:{minor}"));
    }
    // The entry is a link into the folder of the disk.
    let disk = entry.join("..").join("dev");
    let number = std::fs::read_to_string(&disk).with_context(|| format!("reading {}", disk.display()))?;
    Ok(number.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_found_by_its_own_name() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpuacct cgroup rw,relatime,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mounted(mounts, "cpu"), Some(PathBuf::from("/sys/fs/cgroup/cpu")));
        assert_eq!(mounted(mounts, "blkio"), None);
    }

    #[test]
    fn a_folder_in_memory_has_no_disk_to_slow_down() {
        let error = disk_under(Path::new("/proc")).expect_err("proc is on no disk");
        assert!(error.to_string().contains("--dir"), "{error}");
    }
}
