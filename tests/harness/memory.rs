//! What stands in a process's memory, as root sees it: through `/proc/PID/mem`, and in a core that gdb makes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cli;

/// Bytes looked for, under the name by which a test tells of them.
pub struct Needle {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Needle {
    pub fn new(name: impl Into<String>, bytes: &[u8]) -> Needle {
        assert!(bytes.len() >= 8, "short bytes are found everywhere");
        Needle {
            name: name.into(),
            bytes: bytes.to_vec(),
        }
    }
}

/// Many needles looked for at once.
pub struct Search<'a> {
    needles: &'a [Needle],
    /// By their first two bytes.
    starts: Vec<Vec<usize>>,
}

impl<'a> Search<'a> {
    pub fn new(needles: &'a [Needle]) -> Search<'a> {
        let mut starts = vec![Vec::new(); 1 << 16];
        for (at, needle) in needles.iter().enumerate() {
            starts[usize::from(u16::from_ne_bytes([needle.bytes[0], needle.bytes[1]]))].push(at);
        }
        Search { needles, starts }
    }

    /// The names of all needles in `hay`, and where each stands.
    pub fn found_in(&self, hay: &[u8]) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for (at, pair) in hay.array_windows::<2>().enumerate() {
            for &needle in &self.starts[usize::from(u16::from_ne_bytes(*pair))] {
                let Needle { name, bytes } = &self.needles[needle];
                if hay[at..].starts_with(bytes) {
                    found.push((name.clone(), at));
                }
            }
        }
        found
    }

    /// The same in a file.
    pub fn found_in_file(&self, path: &Path) -> Vec<String> {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let found = self.found_in(&bytes);
        found
            .into_iter()
            .map(|(name, at)| format!("{name} in {} at {at}", path.display()))
            .collect()
    }

    /// Everything that root can read of the process's memory. Also how many bytes of it could be read.
    pub fn found_in_process(&self, pid: u32) -> (Vec<String>, u64) {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
        let memory = File::open(format!("/proc/{pid}/mem")).expect("root may read memory");
        let (mut found, mut read_bytes) = (Vec::new(), 0);
        for line in maps.lines() {
            let range = line.split(' ').next().expect("a range");
            let (from, to) = range.split_once('-').expect("two addresses");
            let address = |text| u64::from_str_radix(text, 16).expect("an address");
            let (from, to) = (address(from), address(to));
            // A needle may stand across two pieces: the next begins a little before the end of this one.
            const PIECE: u64 = 4 << 20;
            const OVERLAP: u64 = 256;
            let mut at = from;
            while at < to {
                let mut piece = vec![0; (to - at).min(PIECE + OVERLAP) as usize];
                // What was never touched, or is out of reach, cannot be read.
                if let Ok(len) = memory.read_at(&mut piece, at) {
                    read_bytes += len as u64;
                    let here = self.found_in(&piece[..len]);
                    found.extend(
                        here.into_iter()
                            .map(|(name, offset)| format!("{name} at {:x}: {line}", at + offset as u64)),
                    );
                }
                at += PIECE;
            }
        }
        (found, read_bytes)
    }
}

/// A core of the process with everything in it, also what is marked as not to be dumped; the process goes on.
#[track_caller]
pub fn core_of(pid: u32, folder: &Path) -> PathBuf {
    let prefix = folder.join("core");
    let mut command = std::process::Command::new("gcore");
    command.arg("-a").arg("-o").arg(&prefix).arg(pid.to_string());
    let outcome = cli::run(command, Duration::from_secs(120));
    let core = folder.join(format!("core.{pid}"));
    assert!(core.is_file(), "no core: {}\n{}", outcome.stdout, outcome.stderr);
    core
}
