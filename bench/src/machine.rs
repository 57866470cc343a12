//! What was measured on: enough to judge whether two results can be compared.

use std::path::Path;

use harborseal::uring::sys;
use serde::Serialize;

use crate::output::progress;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: Vec<usize>,
    pub memory_mib: u64,
    pub kernel: String,
    /// A build without optimisation measures nothing.
    pub optimised: bool,
}

/// Which CPUs do what.
#[derive(Clone, Debug, Serialize)]
pub struct Cpus {
    pub engine: Vec<usize>,
    pub fleet: usize,
}

/// The type of the file system that holds a folder, by its longest mount point.
pub fn file_system(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holds = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        dir.starts_with(point).then(|| (point.len(), kind.to_owned()))
    };
    let longest = mounts.lines().filter_map(holds).max();
    longest.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

impl Machine {
    pub fn read() -> anyhow::Result<Machine> {
        let field = |path: &str, name: &str| -> Option<String> {
            let text = std::fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Ok(Machine {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: sys::allowed_cpus()?,
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            kernel: sys::kernel_release(),
            optimised: !cfg!(debug_assertions),
        })
    }

    /// The first CPUs for the engine, one for each shard, and the next for the fleet.
    pub fn divide(&self, shards: usize) -> Cpus {
        let engine: Vec<usize> = self.cpus.iter().copied().take(shards).collect();
        let last = engine.last().copied().unwrap_or(0);
        Cpus {
            fleet: self.cpus.get(shards).copied().unwrap_or(last),
            engine,
        }
    }

    /// Says what will spoil the figures.
    pub fn warn(&self, cpus: &Cpus) {
        progress(format_args!(
            "{}, {} MiB, Linux {}; engine on CPU {:?}, fleet on CPU {}",
            self.cpu, self.memory_mib, self.kernel, cpus.engine, cpus.fleet
        ));
        if !self.optimised {
            progress(format_args!(
                "WARNING: not a release build; these figures mean nothing"
            ));
        }
        if cpus.engine.contains(&cpus.fleet) {
            progress(format_args!(
                "WARNING: fleet and engine share a CPU: expect losses, and read no figure"
            ));
        }
    }

    /// Where to receive and where to send: different CPUs if there are two.
    pub fn receive_and_send_cpus(&self) -> (usize, usize) {
        let first = self.cpus.first().copied().unwrap_or(0);
        (first, self.cpus.get(1).copied().unwrap_or(first))
    }
}
