//! Copying: what moving a packet from a receive buffer into a chunk costs, and the memory bus.

use std::hint::black_box;

use harborseal::uring::sys;

use super::Case;
use crate::sample::Sample;

struct Copy {
    name: &'static str,
    from: Vec<u8>,
    to: Vec<u8>,
    /// Bytes per copy.
    len: usize,
    at: usize,
}

pub fn cases() -> Vec<Box<dyn Case>> {
    const MIB: usize = 1 << 20;
    let case = |name, from_bytes: usize, to_bytes: usize, len| Copy {
        name,
        from: vec![1; from_bytes],
        to: vec![2; to_bytes],
        len,
        at: 0,
    };
    let cases = [
        case("1,200 B, in cache", 64 << 10, 64 << 10, 1200),
        // 4,000 streams' chunks and 8 MiB of receive buffers: mostly outside the caches of one core.
        case("1,200 B, 8 MiB to 256 MiB", 8 * MIB, 256 * MIB, 1200),
        case("64 KiB, 256 MiB to 256 MiB", 256 * MIB, 256 * MIB, 64 << 10),
    ];
    cases
        .into_iter()
        .map(|case| Box::new(case) as Box<dyn Case>)
        .collect()
}

impl Case for Copy {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn run(&mut self, seconds: f64) -> anyhow::Result<Sample> {
        repeat(seconds, 1 << 20, self.len as u64, || {
            self.at += 1;
            // Sources in order, targets scattered, as streams take turns (a large odd step visits all of them).
            let from = self.at * self.len % (self.from.len() - self.len);
            let to = self.at.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (self.to.len() - self.len);
            black_box(&mut self.to[to..to + self.len])
                .copy_from_slice(black_box(&self.from[from..from + self.len]));
        })
    }
}

/// Repeats `work`, which handles `bytes`, for a while; looks at the clock about every `between_bytes`.
pub fn repeat(
    seconds: f64,
    between_bytes: u64,
    bytes: u64,
    mut work: impl FnMut(),
) -> anyhow::Result<Sample> {
    let rounds = (between_bytes / bytes).max(1);
    let (cpu_ns, start_ns) = (sys::Usage::of_process().cpu_ns(), sys::monotonic_ns());
    let end_ns = start_ns + (seconds * 1e9) as u64;
    let mut count = 0;
    loop {
        for _ in 0..rounds {
            work();
        }
        count += rounds;
        let now_ns = sys::monotonic_ns();
        if now_ns >= end_ns {
            let cpu_now_ns = sys::Usage::of_process().cpu_ns();
            return Ok(Sample {
                count,
                bytes: count * bytes,
                wall_ns: now_ns - start_ns,
                cpu_ns: cpu_now_ns - cpu_ns,
            });
        }
    }
}
