//! What the process itself costs, asked of the kernel.

use rustix::time::{ClockId, clock_gettime};

use crate::metrics::Process;

/// Now, on the monotonic clock, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// Cost so far. A figure that the kernel does not give is 0.
pub fn cost() -> Process {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Kernel workers of an io_uring are threads of the process: their time is in its clock.
    Process {
        cpu_ns: clock_ns(ClockId::ProcessCPUTime),
        memory_bytes: memory_bytes(&status),
    }
}

fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// VmRSS leaves huge pages out, so both are added.
fn memory_bytes(status: &str) -> u64 {
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| {
            rest.trim_start_matches(':')
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .unwrap_or(0)
    };
    1024 * (kib("VmRSS") + kib("HugetlbPages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_is_resident_and_the_huge_pages() {
        assert_eq!(
            memory_bytes("VmPeak:\t 9 kB\nVmRSS:\t    100 kB\nHugetlbPages:\t  2048 kB\n"),
            2148 * 1024
        );
        assert_eq!(memory_bytes(""), 0);
    }

    #[test]
    fn this_process_costs_something() {
        let cost = cost();
        assert!(cost.cpu_ns > 0 && cost.memory_bytes > 100_000, "{cost:?}");
    }
}
