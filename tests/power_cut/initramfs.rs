//! A guest's whole user space as one archive in the kernel's own format, "newc" (Linux
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::harness::tools::tool;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<PathBuf>,
    entries: u32,
}

impl Archive {
    /// An archive with `/dev/console` in it: without one the kernel starts init with nothing to speak through.
    pub fn new() -> Archive {
        let mut archive = Archive::default();
        archive.folder(Path::new("dev"));
        archive.entry("dev/console", DEVICE, (5, 1), &[]);
        archive
    }

    /// Adds a folder and those it is in.
    pub fn folder(&mut self, path: &Path) {
        let mut missing: Vec<&Path> = path
            .ancestors()
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect();
        missing.reverse();
        for folder in missing {
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder.to_str().expect("UTF-8"), FOLDER, (0, 0), &[]);
            }
        }
    }

    /// Adds a file, executable. `path` is from the root, without its slash.
    pub fn file(&mut self, path: &str, bytes: &[u8]) {
        if let Some(folder) = Path::new(path).parent() {
            self.folder(folder);
        }
        self.entry(path, PROGRAM, (0, 0), bytes);
    }

    /// Adds a program of this machine as `path`, with the libraries it is linked with where it looks for them.
    pub fn program(&mut self, path: &str, of: &Path, libraries: &mut BTreeSet<PathBuf>) -> io::Result<()> {
        self.file(path, &std::fs::read(of)?);
        // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", or the loader: "/lib64/ld-linux-x86-64.so.2 (0x…)".
        // One that needs none (busybox may be static) makes ldd fail, and lists nothing.
        let listed = tool("sh", &["-c", "ldd \"$0\" || true", of.to_str().expect("UTF-8")]);
        let found = listed
            .lines()
            .flat_map(str::split_whitespace)
            .filter(|word| word.starts_with('/'));
        for library in found.map(PathBuf::from) {
            if libraries.insert(library.clone()) {
                self.file(
                    library.to_str().expect("UTF-8").trim_start_matches('/'),
                    &std::fs::read(&library)?,
                );
            }
        }
        Ok(())
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), bytes: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(bytes.len()).expect("a file of an initramfs fits 4 GiB");
        let name_size = path.len() as u32 + 1;
        let (no_id, links, no_time, no_sum) = (0, 1, 0, 0);
        let fields = [
            self.entries,
            mode,
            no_id,
            no_id,
            links,
            no_time,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            no_sum,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        let len = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(len, 0);
    }
}
