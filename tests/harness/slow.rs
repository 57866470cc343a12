//! A disk that can be slowed down for one process: a control group of its own with a limit on what it writes to a device (cgroups(7),
//! version 1 or 2). Takes root.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// A process whose writes can be slowed down; let go when dropped.
pub struct SlowDisk {
    group: PathBuf,
    pid: u32,
    device: String,
    /// The file that takes the limit, and what takes it away.
    file: &'static str,
    key: &'static str,
    none: &'static str,
}

impl SlowDisk {
    /// For what a process writes to the file system at `folder`, which has a device of its own. An error says what this machine lacks.
    pub fn of(pid: u32, folder: &Path) -> Result<SlowDisk, String> {
        let device = std::fs::metadata(folder).expect("a mounted file system").dev();
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let (parent, file, key, none) = match point_of(&mounts, "cgroup", Some("blkio")) {
            Some(parent) => (parent, "blkio.throttle.write_bps_device", "", "0"),
            None => (unified(&mounts)?, "io.max", "wbps=", "max"),
        };
        let group = parent.join(format!("harborseal-test-{pid}"));
        std::fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        let slow = SlowDisk {
            group,
            pid,
            device: format!("{}:{}", major(device), minor(device)),
            file,
            key,
            none,
        };
        slow.set("cgroup.procs", &pid.to_string())?;
        // Whether the kernel can slow this device down shows before anything depends on it.
        slow.set(file, &format!("{} {key}{none}", slow.device))?;
        Ok(slow)
    }

    /// From now on so many bytes a second, or as many as the disk takes.
    #[track_caller]
    pub fn limit(&self, bytes_per_s: Option<u64>) {
        let rate = bytes_per_s.map_or(self.none.to_owned(), |rate| rate.to_string());
        let line = format!("{} {}{rate}", self.device, self.key);
        self.set(self.file, &line).expect("it was taken before");
    }

    fn set(&self, file: &str, value: &str) -> Result<(), String> {
        let path = self.group.join(file);
        std::fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // A process that is left must not stay slow; one that has ended is in no group any more.
        if let Some(parent) = self.group.parent() {
            std::fs::write(parent.join("cgroup.procs"), self.pid.to_string()).ok();
        }
        std::fs::remove_dir(&self.group).ok();
    }
}

/// Where a kind of control groups is mounted, with this controller if one is named.
fn point_of(mounts: &str, kind: &str, controller: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let has = |wanted| fields[3].split(',').any(|option| option == wanted);
        (fields[2] == kind && controller.is_none_or(has)).then(|| PathBuf::from(fields[1]))
    })
}

/// Version 2, with the controller switched on for the groups below.
fn unified(mounts: &str) -> Result<PathBuf, String> {
    let point = point_of(mounts, "cgroup2", None).ok_or("no control groups are mounted")?;
    let has = |file: &str| {
        let text = std::fs::read_to_string(point.join(file)).unwrap_or_default();
        text.split_whitespace().any(|name| name == "io")
    };
    if !has("cgroup.controllers") {
        return Err("the control groups here cannot slow a disk down (no `io`, no `blkio`)".to_owned());
    }
    if !has("cgroup.subtree_control") {
        let path = point.join("cgroup.subtree_control");
        std::fs::write(&path, "+io").map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(point)
}
