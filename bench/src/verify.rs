//! `verify`: how fast a check reads, on one core, with the files in the page cache.
//!
//! The bar with an identity is the opening library alone: `aes-gcm` over the bodies of the same chunks, in place, one after another, lying
//! in memory. Everything else that verify does (reading, CRC, padding, Merkle tree, parsing) is what it may be slower by. That the
//! library is faster still over a few chunks that never leave the core's cache is shown beside it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use harborseal::archive::FileSource;
use harborseal::archive::verify::check;
use harborseal::uring::sys::{self, Usage};
use harborseal_segment::block::{BlockType, Header};
use harborseal_segment::cipher::{BlockAad, OpenKey, nonce};
use harborseal_segment::head::Head;
use harborseal_segment::keys::{SegmentSecret, StreamKeys};
use harborseal_segment::open::Keyring;
use harborseal_segment::scan::{Item, Scanner};
use harborseal_segment::writer::Features;
use serde::Serialize;

use crate::machine::Machine;
use crate::output::Output;
use crate::sample::{Figure, Sample, median};
use crate::segments::{self, End};
use crate::table::{self, Columns};

#[derive(Args, Debug)]
pub struct Options {
    /// Gibibytes of segments to make and check.
    #[arg(long, default_value_t = 2.0)]
    pub gib: f64,
    /// Segments they are spread over.
    #[arg(long, default_value_t = 4)]
    pub segments: u8,
    /// With the format's STRONG_LEAF: every chunk's body has a SHA-256 that verify checks too.
    #[arg(long)]
    pub strong_leaf: bool,
    /// Repetitions, of all cases in turn.
    #[arg(long, default_value_t = 7)]
    pub repeats: u32,
    /// Folder for the segments (which are removed); a temporary one if not given.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    bytes: u64,
    segments: u8,
    strong_leaf: bool,
    repeats: u32,
    figures: Vec<Figure>,
    /// Verify with an identity, as a share of the opening library's own speed: median over the repetitions.
    share_of_opening_alone: f64,
    /// The same by CPU time, which holds on a busy machine.
    share_of_opening_alone_by_cpu: f64,
}

/// Chunks of 64 KiB that fit a core's own cache, and that do not: 256 KiB and 128 MiB.
const IN_CACHE: usize = 4;
const IN_MEMORY: usize = 2048;
/// Chunks opened alone in one repetition: 256 MiB.
const OPENED: usize = 4096;

pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.repeats > 0, "--repeats must be at least 1");
    ensure!(
        options.gib > 0.0 && options.gib <= 64.0,
        "--gib must be above 0 and at most 64"
    );
    ensure!((1..=8).contains(&options.segments), "--segments must be 1 to 8");
    let machine = Machine::read()?;
    sys::pin_to_cpu(machine.receive_and_send_cpus().0)?;
    let folder = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let each = (options.gib * (1u64 << 30) as f64) as u64 / u64::from(options.segments);
    let features = Features {
        strong_leaf: options.strong_leaf,
        ..Features::default()
    };
    let mut paths = Vec::new();
    for n in 0..options.segments {
        let path = folder.path().join(format!("{n}.hseal"));
        segments::write(&path, n, each, End::Sealed, features)?;
        paths.push(path);
    }
    let chunks = some_chunks(&paths[0])?;
    let mut opened: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.block.clone()).collect();
    let names = [
        "verify, no key",
        "verify, with identity",
        "aes-gcm alone, in memory",
        "aes-gcm alone, in cache",
    ];
    let mut samples = [const { Vec::new() }; 4];
    // Once for the page cache.
    verify_all(&paths, None)?;
    for _ in 0..options.repeats {
        samples[0].push(verify_all(&paths, None)?);
        samples[1].push(verify_all(&paths, Some(&mut Keyring::new(segments::identity())))?);
        samples[2].push(open_alone(&chunks, &mut opened)?);
        let few = IN_CACHE.min(chunks.len());
        samples[3].push(open_alone(&chunks[..few], &mut opened[..few])?);
    }
    let figures: Vec<Figure> = names
        .iter()
        .zip(&samples)
        .map(|(name, samples)| Figure::of(name, samples))
        .collect();
    let share = |speed: fn(&Sample) -> f64| {
        let pairs = samples[1].iter().zip(&samples[2]);
        median(
            pairs
                .map(|(verify, alone)| speed(verify) / speed(alone))
                .collect(),
        )
    };
    let report = Report {
        machine,
        bytes: samples[0][0].bytes,
        segments: options.segments,
        strong_leaf: options.strong_leaf,
        repeats: options.repeats,
        share_of_opening_alone: share(|sample| sample.bytes as f64 / sample.wall_ns as f64),
        share_of_opening_alone_by_cpu: share(|sample| sample.bytes as f64 / sample.cpu_ns.max(1) as f64),
        figures,
    };
    let mut table = table::of(
        "verify, files in the page cache",
        &Columns::Bytes,
        &report.figures,
    );
    table += &format!(
        "verify with an identity runs at {:.0} % of aes-gcm alone ({:.0} % by CPU time)\n",
        report.share_of_opening_alone * 100.0,
        report.share_of_opening_alone_by_cpu * 100.0
    );
    options.output.write(&table, &report)
}

fn verify_all(paths: &[PathBuf], mut keyring: Option<&mut Keyring>) -> anyhow::Result<Sample> {
    let (began, cpu) = (Instant::now(), Usage::of_process().cpu_ns());
    let (mut count, mut bytes) = (0, 0);
    for path in paths {
        let checked = check(path, keyring.as_deref_mut(), |_| ())?;
        ensure!(checked.report.is_clean(), "what was just written is whole");
        let opened: u64 = checked.report.own_streams.iter().map(|own| own.chunks).sum();
        ensure!(
            keyring.is_none() || opened == checked.report.counts.chunks,
            "every chunk is for the identity"
        );
        count += checked.report.counts.chunks;
        bytes += checked.report.file_len;
    }
    Ok(Sample {
        count,
        bytes,
        wall_ns: began.elapsed().as_nanos() as u64,
        cpu_ns: Usage::of_process().cpu_ns() - cpu,
    })
}

struct Chunk {
    header: Header,
    block: Vec<u8>,
    key: OpenKey,
}

/// The first chunks of a segment, sealed, with their keys.
fn some_chunks(path: &Path) -> anyhow::Result<Vec<Chunk>> {
    let source = FileSource::open(path)?;
    let head = Head::read(&source)?;
    let mut scanner = Scanner::new(&source, head.id);
    let mut chunks = Vec::new();
    while let Some(item) = scanner.next_item()? {
        let Item::Block(block) = item else { continue };
        if block.header.block_type != BlockType::Chunk {
            continue;
        }
        let secret = SegmentSecret::from_bytes(segments::secret(0));
        let keys = StreamKeys::derive(&head.id, &secret, &block.header.stream_id);
        chunks.push(Chunk {
            header: block.header,
            block: block.bytes.to_vec(),
            key: keys.open_key(),
        });
        if chunks.len() == IN_MEMORY {
            break;
        }
    }
    ensure!(!chunks.is_empty(), "a segment of this bench has chunks");
    Ok(chunks)
}

/// Opens the chunks over and over; putting the sealed bytes back into `blocks` is not counted.
fn open_alone(chunks: &[Chunk], blocks: &mut [Vec<u8>]) -> anyhow::Result<Sample> {
    let mut sample = Sample {
        count: 0,
        bytes: 0,
        wall_ns: 0,
        cpu_ns: 0,
    };
    while sample.count < OPENED as u64 {
        for (block, chunk) in blocks.iter_mut().zip(chunks) {
            block.copy_from_slice(&chunk.block);
        }
        let (began, cpu) = (Instant::now(), sys::thread_cpu_ns());
        for (block, chunk) in blocks.iter_mut().zip(chunks) {
            let Chunk { header, key, .. } = chunk;
            let aad = BlockAad::of(header, block);
            let nonce = nonce(header.block_type, header.block_no);
            let body = &mut block[usize::from(header.header_len)..header.body_end()];
            let opened = key.open_in_place(&nonce, aad.as_bytes(), body, &header.tag);
            opened.context("it was sealed under this key")?;
            sample.count += 1;
            sample.bytes += u64::from(header.total_len);
        }
        sample.cpu_ns += sys::thread_cpu_ns() - cpu;
        sample.wall_ns += began.elapsed().as_nanos() as u64;
    }
    Ok(sample)
}
