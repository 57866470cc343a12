//! A guest that records on a logged disk: Debian's kernel, an initramfs with the engine in it, QEMU.
//!
//! KVM is used where the processor has it. Elsewhere QEMU emulates one: slower, but the kernel, its file systems and the
//! order of its writes are the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::initramfs::Archive;
use super::{DISK_BYTES, FS_BYTES};
use crate::harness::cli;
use crate::harness::tools::{text, tool};

/// A file system the guest records on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    /// Makes the disk: the file system at its start, room for marks behind it.
    pub fn make(self, disk: &Path) {
        let file = std::fs::File::create(disk).expect("the laboratory's folder can be written");
        file.set_len(FS_BYTES).expect("a sparse file");
        match self {
            // Nothing is left for a kernel thread to initialise later: its writes would drown ours in the log.
            FileSystem::Ext4 => tool(
                "mkfs.ext4",
                &["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", text(disk)],
            ),
            FileSystem::Xfs => tool("mkfs.xfs", &["-q", text(disk)]),
        };
        file.set_len(DISK_BYTES).expect("a sparse file");
    }
}

/// A kernel for guests, as a Debian package unpacks to it.
#[derive(Debug)]
pub struct Kernel {
    image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Kernel {
    /// The one that `tests/run` has unpacked, and QEMU to run it. Says what is missing.
    pub fn find() -> Result<Kernel, String> {
        let folder = cli::build_folder()
            .parent()
            .expect("target/<profile>")
            .join("guest-kernel");
        let files = cli::files_under(&folder);
        let is_image = |path: &&PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("vmlinuz"))
        };
        let Some(image) = files.iter().find(is_image) else {
            return Err(format!(
                "no kernel for guests in {} (tests/run puts one there)",
                folder.display()
            ));
        };
        if Command::new(QEMU).arg("--version").output().is_err() {
            return Err(format!("no {QEMU}"));
        }
        let modules = files
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "ko"));
        Ok(Kernel {
            image: image.clone(),
            modules: modules.cloned().collect(),
        })
    }

    /// The files of a module and of those it needs, these first. Empty: it is part of the kernel.
    fn with_needs(&self, name: &str, order: &mut Vec<PathBuf>) {
        let is_it = |path: &&PathBuf| {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            stem.is_some_and(|stem| stem.replace('-', "_") == name.replace('-', "_"))
        };
        let Some(path) = self.modules.iter().find(is_it) else {
            return;
        };
        if order.contains(path) {
            return;
        }
        let bytes = std::fs::read(path).expect("a module can be read");
        // The section .modinfo holds "depends=a,b" among other strings, each closed by a zero byte.
        let label = b"\0depends=";
        let needs = bytes
            .windows(label.len())
            .position(|window| window == label)
            .and_then(|at| bytes[at + label.len()..].split(|byte| *byte == 0).next());
        let needs = String::from_utf8_lossy(needs.unwrap_or_default()).into_owned();
        for need in needs.split(',').filter(|need| !need.is_empty()) {
            self.with_needs(need, order);
        }
        order.push(path.clone());
    }
}

const QEMU: &str = "qemu-system-x86_64";

/// One life of the engine in the guest.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub millis: u64,
    /// SIGKILL at its end instead of SIGTERM.
    pub killed: bool,
}

/// What the guest does.
#[derive(Debug)]
pub struct Plan<'a> {
    pub file_system: FileSystem,
    /// The engine's configuration; its data folder is `/disk/data`.
    pub config: &'a Path,
    pub port: u16,
    pub streams: u32,
    pub lives: &'a [Life],
    /// The program [`inside`](../inside.rs).
    pub inside: &'a Path,
}

const INIT: &str = "#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
for module in $($busybox cat /modules/order); do $busybox insmod /modules/$module; done
$busybox ip link set lo up
$busybox mount -t FILE_SYSTEM /dev/vda /disk && /bin/inside && echo the guest is done
$busybox umount /disk
$busybox poweroff -f
";

/// Boots the guest on `disk` and waits for its end; what its disk was asked to do is in `log` then.
#[track_caller]
pub fn boot(kernel: &Kernel, plan: &Plan<'_>, disk: &Path, log: &Path) {
    let folder = disk.parent().expect("the disk lies in a folder");
    let initrd = folder.join("initrd");
    std::fs::write(&initrd, initramfs(kernel, plan)).expect("the laboratory's folder can be written");
    std::fs::write(log, b"").expect("the laboratory's folder can be written");
    // The host's own cut is not what is tried: `no-flush` spares its disk the guest's flushes. They are logged above it.
    let file = |node: &str, path: &Path| {
        format!(
            "driver=file,node-name={node},cache.no-flush=on,filename={}",
            text(path)
        )
    };
    let (accelerator, bound) = accelerator();
    let recorded: u64 = plan.lives.iter().map(|life| life.millis).sum();
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "1024"])
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ])
        .args(["-blockdev", &file("file", disk), "-blockdev", &file("log", log)])
        .args([
            "-blockdev",
            "driver=blklogwrites,node-name=logged,file=file,log=log",
        ])
        .args(["-device", "virtio-blk-pci,drive=logged"])
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&initrd);
    let outcome = cli::run(command, bound + Duration::from_millis(10 * recorded));
    assert!(
        outcome.code == Some(0) && outcome.stdout.contains("the guest is done"),
        "the guest did not end well:\n{}\n{}",
        outcome.stdout,
        outcome.stderr
    );
    println!("{}", outcome.stdout.trim());
}

/// KVM where the processor itself runs guests; `/dev/kvm` alone may be the door to a hypervisor that wants guests made
/// for it. With the bound for a boot.
fn accelerator() -> (&'static str, Duration) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| cpu.split_whitespace().any(|word| word == flag);
    let kvm = (has("vmx") || has("svm")) && std::fs::File::options().write(true).open("/dev/kvm").is_ok();
    match kvm {
        true => ("kvm", Duration::from_secs(60)),
        false => ("tcg,thread=multi", Duration::from_secs(180)),
    }
}

fn initramfs(kernel: &Kernel, plan: &Plan<'_>) -> Vec<u8> {
    let mut archive = Archive::new();
    let mut libraries = BTreeSet::new();
    let busybox = tool("sh", &["-c", "command -v busybox"]);
    let programs = [
        ("bin/busybox", PathBuf::from(busybox.trim())),
        ("bin/harborseal", cli::binary()),
        ("bin/inside", plan.inside.to_owned()),
    ];
    for (path, of) in programs {
        archive
            .program(path, &of, &mut libraries)
            .expect("a program of this machine can be read");
    }
    for folder in ["proc", "sys", "disk", "tmp"] {
        archive.folder(Path::new(folder));
    }
    let mut order = Vec::new();
    for module in [
        "crc32c_generic",
        "virtio_pci",
        "virtio_blk",
        plan.file_system.name(),
    ] {
        kernel.with_needs(module, &mut order);
    }
    let names: Vec<&str> = order
        .iter()
        .map(|path| path.file_name().and_then(|name| name.to_str()).expect("UTF-8"))
        .collect();
    for (path, name) in order.iter().zip(&names) {
        archive.file(
            &format!("modules/{name}"),
            &std::fs::read(path).expect("a module can be read"),
        );
    }
    archive.file("modules/order", names.join(" ").as_bytes());
    archive.file(
        "init",
        INIT.replace("FILE_SYSTEM", plan.file_system.name()).as_bytes(),
    );
    archive.file(
        "etc/engine.toml",
        &std::fs::read(plan.config).expect("the configuration was written"),
    );
    // The enrolments that it names stand beside it.
    let beside = plan.config.parent().expect("it stands in a folder");
    for path in std::fs::read_dir(beside)
        .expect("its folder can be read")
        .flatten()
    {
        let (path, name) = (path.path(), path.file_name());
        if path.extension().is_some_and(|it| it == "enrolment") {
            let text = std::fs::read(&path).expect("it was made");
            archive.file(&format!("etc/{}", name.to_string_lossy()), &text);
        }
    }
    let lives: Vec<_> = plan.lives.iter().map(|life| (life.millis, life.killed)).collect();
    let todo = json!({ "port": plan.port, "streams": plan.streams, "lives": lives });
    archive.file("etc/plan.json", todo.to_string().as_bytes());
    archive.finish()
}
