//! On what a run was measured: processor, kernel, limits, file system, revision. What a run's figures depend on stands in its
//! file, so that a comparison can refuse what is not alike. Invariant: what cannot be read is called so, never left out.
//!
//! Everything is read from /proc and /sys or asked of a command that may be missing; the parsers are pure.

use crate::output::text::quoted;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name → value.
pub type Environment = BTreeMap<String, String>;

/// The command line that made a run.
pub const COMMAND: &str = "command";
/// Of the working copy the command was started in, or that the binary was built from.
pub const REVISION: &str = "git_revision";

/// What may differ between runs that are compared: how they were started, and what is often the very thing compared.
pub const OF_ONE_RUN: [&str; 3] = [COMMAND, REVISION, "load_average"];

const UNREADABLE: &str = "cannot be read";

/// Limits of the kernel on which a receiver's or a sender's loss depends.
pub const SYSCTLS: [&str; 9] = [
    "net.core.rmem_max",
    "net.core.rmem_default",
    "net.core.wmem_max",
    "net.core.wmem_default",
    "net.core.netdev_max_backlog",
    "net.core.netdev_budget",
    "net.ipv4.udp_mem",
    "net.ipv4.ip_local_port_range",
    "kernel.io_uring_disabled",
];

/// Instructions that sealing, checking and copying choose by.
const FLAGS: [&str; 12] = [
    "aes",
    "avx",
    "avx2",
    "avx512f",
    "gfni",
    "pclmulqdq",
    "sha_ni",
    "sse4_2",
    "vaes",
    "vpclmulqdq",
    "erms",
    "asimd",
];

/// The environment of a run that writes to `folder`.
pub fn capture(folder: Option<&Path>) -> Environment {
    let mut all = Environment::new();
    let mut note = |name: &str, value: Option<String>| {
        let value = value.filter(|value| !value.is_empty());
        all.insert(name.to_owned(), value.unwrap_or_else(|| UNREADABLE.to_owned()));
    };
    let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
    note("cpu_model", field(&cpuinfo, &["model name", "CPU part"]));
    note("cpu_flags", flags(&cpuinfo));
    note(
        "cpus",
        std::thread::available_parallelism()
            .ok()
            .map(|cpus| cpus.to_string()),
    );
    note(
        "cpus_allowed",
        read("/proc/self/status").and_then(|text| field(&text, &["Cpus_allowed_list"])),
    );
    note("cpu_governor", Some(governor()));
    note("virtual_machine", Some(virtual_machine(&cpuinfo)));
    note("numa_nodes", read("/sys/devices/system/node/online"));
    note(
        "memory_mib",
        read("/proc/meminfo").and_then(|text| mib(&field(&text, &["MemTotal"])?)),
    );
    note(
        "transparent_hugepages",
        read("/sys/kernel/mm/transparent_hugepage/enabled")
            .as_deref()
            .and_then(chosen),
    );
    note(
        "clock_source",
        read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    );
    note("kernel", read("/proc/sys/kernel/osrelease"));
    note("load_average", read("/proc/loadavg"));
    for name in SYSCTLS {
        note(&format!("sysctl_{name}"), sysctl(name));
    }
    note("cgroup_cpu_max", cgroup("cpu.max"));
    note("cgroup_memory_max", cgroup("memory.max"));
    note("loopback_mtu", read("/sys/class/net/lo/mtu"));
    note("loopback_offloads", Some(offloads("lo")));
    if let Some(folder) = folder {
        note("file_system", file_system(folder));
    }
    note(REVISION, revision());
    note("loadgen_version", Some(env!("CARGO_PKG_VERSION").to_owned()));
    note(COMMAND, Some(command_line()));
    all
}

/// A file's text without the white space around it.
pub fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// A kernel parameter, its fields separated by single spaces.
pub fn sysctl(name: &str) -> Option<String> {
    let text = read(format!("/proc/sys/{}", name.replace('.', "/")))?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The value of `name : value` on the first line with one of the names.
pub fn field(text: &str, names: &[&str]) -> Option<String> {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    let mut wanted = values.filter(|(name, _)| names.contains(&name.trim()));
    wanted.next().map(|(_, value)| value.trim().to_owned())
}

/// The processor's flags, of those that matter here.
fn flags(cpuinfo: &str) -> Option<String> {
    let all = field(cpuinfo, &["flags", "Features"])?;
    let has = |flag: &&&str| all.split_whitespace().any(|other| other == **flag);
    Some(FLAGS.iter().filter(has).copied().collect::<Vec<_>>().join(" "))
}

/// The one of `always [madvise] never` in brackets.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// `24635208 kB` in MiB.
fn mib(text: &str) -> Option<String> {
    let kib: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some((kib / 1024).to_string())
}

/// The frequency governors of all processors, if the system has such.
pub fn governor() -> String {
    let of_cpu = |cpu: usize| {
        read(format!(
            "/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"
        ))
    };
    let mut found: Vec<String> = (0..4096).map_while(of_cpu).collect();
    found.sort();
    found.dedup();
    match found.is_empty() {
        true => "none (the system does not set frequencies)".to_owned(),
        false => found.join(", "),
    }
}

/// Whether a hypervisor is underneath: it takes time away (steal) and makes clocks dearer.
fn virtual_machine(cpuinfo: &str) -> String {
    let product = read("/sys/class/dmi/id/product_name").unwrap_or_default();
    let flagged = field(cpuinfo, &["flags"])
        .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    let name = if product.is_empty() {
        String::new()
    } else {
        format!(" ({product})")
    };
    match flagged {
        true => format!("yes{name}"),
        false => format!("not told by the processor{name}"),
    }
}

/// A limit of this process's control group (v2), or of the nearest one above that has it.
pub fn cgroup(name: &str) -> Option<String> {
    let text = read("/proc/self/cgroup")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own.trim_start_matches('/'));
    let limits = own.ancestors().take_while(|folder| folder.starts_with(root));
    // The root group has no such file, and no limit.
    let limit = limits
        .filter_map(|folder| read(folder.join(name)))
        .find(|limit| !limit.starts_with("max"));
    Some(limit.unwrap_or_else(|| "no limit".to_owned()))
}

/// What the interface does in place of the processor, by `ethtool`: asking the kernel directly takes an ioctl.
fn offloads(interface: &str) -> String {
    match run("ethtool", &["-k", interface]) {
        Some(text) => switched_on(&text),
        None => format!("{UNREADABLE} (ethtool is missing)"),
    }
}

/// The features that are on, of those that shape UDP traffic.
fn switched_on(text: &str) -> String {
    let shapes = [
        "checksumming",
        "segmentation",
        "receive-offload",
        "scatter-gather",
        "gro",
        "gso",
    ];
    let on = text.lines().filter_map(|line| {
        let (name, state) = line.split_once(':')?;
        let top = !name.starts_with(['\t', ' ']);
        (top && state.trim().starts_with("on") && shapes.iter().any(|shape| name.contains(shape)))
            .then_some(name)
    });
    on.collect::<Vec<_>>().join(" ")
}

/// Type, device and mount options of the file system a path is on.
pub fn file_system(path: &Path) -> Option<String> {
    let path = existing(path)?;
    mount_of(&path, &read("/proc/self/mountinfo")?)
}

/// The path itself, or the nearest one above that is there: a run's folder is made later.
fn existing(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find_map(|path| path.canonicalize().ok())
}

/// The mount with the longest mount point above the path (proc_pid_mountinfo(5)); of equal ones the last, which covers the others.
fn mount_of(path: &Path, mountinfo: &str) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mountinfo.lines() {
        let Some((mount, system)) = line.split_once(" - ") else {
            continue;
        };
        let mount: Vec<&str> = mount.split(' ').collect();
        let system: Vec<&str> = system.split(' ').collect();
        let (Some(point), Some(options), [kind, device, more @ ..]) =
            (mount.get(4), mount.get(5), &system[..])
        else {
            continue;
        };
        let point = point.replace("\\040", " ");
        let longest = best.as_ref().is_none_or(|(length, _)| point.len() >= *length);
        if path.starts_with(&point) && longest {
            let more = more.first().map_or_else(String::new, |more| format!(" ({more})"));
            best = Some((point.len(), format!("{kind} on {device}, {options}{more}")));
        }
    }
    best.map(|(_, text)| text)
}

/// The revision: of the build if the build said so, else of the working copy around the current folder.
fn revision() -> Option<String> {
    if let Some(built) = option_env!("HARBORSEAL_REVISION") {
        return Some(built.to_owned());
    }
    Some(
        match run("git", &["describe", "--always", "--dirty", "--abbrev=12"]) {
            Some(revision) => format!("{} (of the folder it was started in)", revision.trim()),
            None => "not built in, and started outside a working copy".to_owned(),
        },
    )
}

fn run(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// This process's arguments, as a shell takes them; the program by its bare name.
fn command_line() -> String {
    let mut words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if let Some(program) = words.first_mut() {
        let name = Path::new(program.as_str())
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        *program = name.unwrap_or_else(|| program.clone());
    }
    words
        .iter()
        .map(|word| quoted(word))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_tells_something_of_everything() {
        let all = capture(Some(Path::new("/tmp/a run that is not there yet")));
        for name in [
            "cpus",
            "kernel",
            "memory_mib",
            "file_system",
            "loopback_offloads",
            COMMAND,
            "cgroup_cpu_max",
        ] {
            assert!(
                all.get(name).is_some_and(|value| !value.is_empty()),
                "{name}: {all:?}"
            );
        }
        assert!(all["cpus"].parse::<u32>().is_ok_and(|cpus| cpus > 0));
    }

    #[test]
    fn the_mount_with_the_longest_point_counts() {
        let text = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                    40 22 0:35 / /data rw,noatime - xfs /dev/vdb rw,noquota\n\
                    41 22 0:36 / /data\\040two rw - tmpfs tmpfs rw";
        let of = |path: &str| mount_of(Path::new(path), text).unwrap_or_default();
        assert_eq!(of("/data/run"), "xfs on /dev/vdb, rw,noatime (rw,noquota)");
        assert_eq!(of("/data two/run"), "tmpfs on tmpfs, rw (rw)");
        assert_eq!(of("/datax"), "ext4 on /dev/vda, rw,relatime (rw)");
        assert_eq!(mount_of(Path::new("/"), "nonsense\n - \n"), None);
    }

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let cpuinfo = "processor : 0\nmodel name\t: AMD EPYC 9B14\nflags\t\t: fpu aes avx2 hypervisor\n";
        assert_eq!(field(cpuinfo, &["model name"]).as_deref(), Some("AMD EPYC 9B14"));
        assert_eq!(flags(cpuinfo).as_deref(), Some("aes avx2"));
        assert!(virtual_machine(cpuinfo).starts_with("yes"));
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(mib("24635208 kB").as_deref(), Some("24057"));
        let text = "Features for lo:\nrx-checksumming: on [fixed]\n\ttx-checksum-ipv4: off\ngeneric-receive-offload: on\nx: on\n";
        assert_eq!(switched_on(text), "rx-checksumming generic-receive-offload");
    }
}
