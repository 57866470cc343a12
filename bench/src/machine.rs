//! What was measured on: enough to judge whether two results can be compared.

use serde::Serialize;

use harborseal::uring::sys;

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

    /// Where to receive and where to send: different CPUs if there are two.
    pub fn receive_and_send_cpus(&self) -> (usize, usize) {
        let first = self.cpus.first().copied().unwrap_or(0);
        (first, self.cpus.get(1).copied().unwrap_or(first))
    }
}
