//! O_DIRECT writes through the engine's ring: gathered from 64 KiB buffers, into preallocated space, made durable.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use harborseal::uring::{Event, Flow, Region, RegionOptions, Ring, RingOptions, Span, Waker, sys};

use super::{Case, Options};
use crate::sample::Sample;

const CHUNK_BYTES: usize = 64 << 10;
/// The most one repetition writes; a longer one starts again from the front, over what is written.
const FILE_BYTES: u64 = 1 << 30;
/// Different bytes to write, so that no layer below sees one page over and over.
const POOL_BYTES: usize = 16 << 20;

struct Write {
    folder: Arc<Folder>,
    /// Bytes per write.
    bytes: usize,
    /// Writes in flight.
    depth: usize,
}

/// The folder, removed with the last case if it is our own.
struct Folder {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

pub fn cases(options: &Options) -> anyhow::Result<Vec<Box<dyn Case>>> {
    let folder = match &options.dir {
        Some(path) => Folder {
            path: path.clone(),
            _temporary: None,
        },
        None => {
            let temporary = tempfile::tempdir().context("making a temporary folder")?;
            Folder {
                path: temporary.path().to_owned(),
                _temporary: Some(temporary),
            }
        }
    };
    let (free, _) = sys::free_space(&folder.path).with_context(|| format!("{}", folder.path.display()))?;
    ensure!(
        free > 2 * FILE_BYTES,
        "{}: {} MiB free, {} MiB needed; name another folder with --dir",
        folder.path.display(),
        free >> 20,
        (2 * FILE_BYTES) >> 20
    );
    let folder = Arc::new(folder);
    let sizes = [
        (64 << 10, 1),
        (64 << 10, 8),
        (256 << 10, 4),
        (1 << 20, 1),
        (1 << 20, 4),
        (4 << 20, 2),
    ];
    let cases = sizes.map(|(bytes, depth)| Write {
        folder: Arc::clone(&folder),
        bytes,
        depth,
    });
    Ok(cases
        .into_iter()
        .map(|case| Box::new(case) as Box<dyn Case>)
        .collect())
}

impl Case for Write {
    fn name(&self) -> String {
        format!("{} KiB, {} in flight", self.bytes >> 10, self.depth)
    }

    fn run(&mut self, seconds: f64) -> anyhow::Result<Sample> {
        let path = self.folder.path.join("harborseal-bench.tmp");
        let result = self.write(&path, seconds);
        // Removed even if the measurement failed; its own error is the one to report.
        let removed = std::fs::remove_file(&path);
        let sample = result?;
        removed.with_context(|| format!("removing {}", path.display()))?;
        Ok(sample)
    }
}

impl Write {
    fn write(&self, path: &Path, seconds: f64) -> anyhow::Result<Sample> {
        let opened = sys::create_direct(path).with_context(|| format!("creating {}", path.display()))?;
        ensure!(
            opened.direct,
            "{}: this file system has no O_DIRECT; name another folder with --dir",
            path.display()
        );
        sys::preallocate(&opened.file, FILE_BYTES).context("preallocating")?;
        let file = Arc::new(opened.file);
        let mut pool = Region::new(RegionOptions {
            lock: false,
            ..RegionOptions::plaintext(POOL_BYTES)
        })?;
        for (i, byte) in pool.bytes_mut().iter_mut().enumerate() {
            *byte = (i.wrapping_mul(0x9E37_79B1) >> 13) as u8;
        }
        let mut ring = Ring::new(
            &RingOptions {
                lock: false,
                ..RingOptions::default()
            },
            &Waker::new()?,
        )?;
        let cpu_ns = sys::Usage::of_process().cpu_ns();
        let start_ns = sys::monotonic_ns();
        let count = self.write_for(&mut ring, &file, &pool, start_ns + (seconds * 1e9) as u64)?;
        let wall_ns = sys::monotonic_ns() - start_ns;
        let cpu_ns = sys::Usage::of_process().cpu_ns() - cpu_ns;
        Ok(Sample {
            count,
            bytes: count * self.bytes as u64,
            wall_ns,
            cpu_ns,
        })
    }

    /// Keeps `depth` writes in flight until the time is over, then makes them durable. Returns how many.
    fn write_for(
        &self,
        ring: &mut Ring,
        file: &Arc<File>,
        pool: &Region,
        end_ns: u64,
    ) -> anyhow::Result<u64> {
        let (mut started, mut done) = (0u64, 0u64);
        let mut bad = None;
        while sys::monotonic_ns() < end_ns || done < started {
            while sys::monotonic_ns() < end_ns && started - done < self.depth as u64 {
                let at = started * self.bytes as u64 % FILE_BYTES;
                let from = (started as usize * self.bytes) % (POOL_BYTES - self.bytes + CHUNK_BYTES);
                let spans = (0..self.bytes / CHUNK_BYTES).map(|i| Span {
                    offset: (from / CHUNK_BYTES + i) * CHUNK_BYTES % POOL_BYTES,
                    len: CHUNK_BYTES,
                });
                ring.write(file, at, pool, spans, started)?;
                started += 1;
            }
            ring.wait(0, 10_000)?;
            ring.drain(64, |event| {
                if let Event::Written { result, .. } = event {
                    done += 1;
                    if result != self.bytes as i32 {
                        bad = Some(result);
                    }
                }
                Flow::Continue
            })?;
        }
        if let Some(result) = bad {
            anyhow::bail!("a write of {} bytes returned {result}", self.bytes);
        }
        self.make_durable(ring, file)?;
        Ok(done)
    }

    fn make_durable(&self, ring: &mut Ring, file: &Arc<File>) -> anyhow::Result<()> {
        ring.sync(file, 0)?;
        let mut synced = None;
        while synced.is_none() {
            ring.wait(0, 10_000)?;
            ring.drain(64, |event| {
                if let Event::Synced { result, .. } = event {
                    synced = Some(result);
                }
                Flow::Continue
            })?;
        }
        ensure!(
            synced == Some(0),
            "fdatasync failed: errno {}",
            -synced.unwrap_or(0)
        );
        Ok(())
    }
}
