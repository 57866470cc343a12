//! `harborseal inspect`: what one segment is made of, and whether it is whole. Needs no key, and tells nothing that needs one.

use std::path::{Path, PathBuf};

use harborseal_segment::head::Head;
use harborseal_segment::scan::{Item, Scanner};
use harborseal_segment::verify::Report;
use serde::Serialize;

use super::error::{CliError, ExitStatus};
use super::findings::{self, FindingLine};
use super::output::{self, Output};
use super::{instant, paths};
use crate::archive::FileSource;
use crate::archive::verify::{Checked, check, total_bytes};

/// Show a segment's structure and health.
///
/// No key is needed, and none is of use here: what is shown is what anybody who has the file can see. Sizes are bytes, times are UTC.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  harborseal inspect data/segments/20261123/5d….hseal
  harborseal inspect --blocks data/segments/20261123/5d….hseal | less")]
pub struct Args {
    /// Also list every block, one a line
    #[arg(long)]
    blocks: bool,

    #[command(flatten)]
    print: Output,

    /// A segment file
    #[arg(value_name = "SEGMENT")]
    segment: PathBuf,
}

/// Everything that a segment shows.
#[derive(Serialize)]
struct Structure {
    path: String,
    segment: String,
    node: String,
    node_key: String,
    run: String,
    shard: u32,
    chain_seq: u64,
    previous: Option<String>,
    version: String,
    created: String,
    state: &'static str,
    being_written: bool,
    healthy: bool,
    bytes: u64,
    data_end: u64,
    floor: u64,
    last_block_no: u64,
    blocks: u64,
    chunks: u64,
    chunk_bytes: u64,
    streams: usize,
    key_entries: u64,
    checkpoints: u64,
    relocated: u64,
    unknown_blocks: u64,
    from: Option<String>,
    to: Option<String>,
    leaf_count: u64,
    root: String,
    signed: bool,
    signed_leaf_count: Option<u64>,
    closed: Option<String>,
    findings: Vec<FindingLine>,
    findings_left_out: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitStatus, CliError> {
    let path = &args.segment;
    paths::one_segment(path)?;
    let bar = paths::progress("inspecting", total_bytes(std::slice::from_ref(path)));
    let checked = check(path, None, |done| bar.set_position(done));
    bar.finish_and_clear();
    let checked = checked.map_err(|error| findings::unreadable(path, &error.0))?;
    let structure = describe(path, &checked);
    if !args.print.json {
        print(&structure)?;
    }
    if args.blocks {
        print_blocks(path, &checked.report.head)?;
    }
    findings::tell(path, &checked.report.findings);
    if args.print.json {
        output::json(&structure)?;
    }
    Ok(if structure.healthy {
        ExitStatus::Ok
    } else {
        ExitStatus::Damage
    })
}

fn describe(
    path: &Path,
    Checked {
        report,
        being_written,
    }: &Checked,
) -> Structure {
    let Report {
        head, counts, footer, ..
    } = report;
    let body = &head.body;
    let times = (counts.chunks > 0).then_some((counts.first_s, counts.last_s));
    Structure {
        path: path.display().to_string(),
        segment: head.id.to_string(),
        node: head.node_id.to_string(),
        node_key: hex(&body.node_key),
        run: body.run_id.to_string(),
        shard: body.shard,
        chain_seq: body.chain_seq,
        previous: (!body.prev_segment_id.is_zero()).then(|| body.prev_segment_id.to_string()),
        version: format!("1.{}", body.minor),
        created: instant::seconds(body.created_s),
        state: report.state.name(),
        being_written: *being_written,
        healthy: report.is_clean(),
        bytes: report.file_len,
        data_end: report.data_end,
        floor: report.floor,
        last_block_no: report.last_block_no,
        blocks: counts.blocks,
        chunks: counts.chunks,
        chunk_bytes: counts.chunk_bytes,
        streams: report.streams.len(),
        key_entries: counts.key_entries,
        checkpoints: counts.checkpoints,
        relocated: counts.relocated,
        unknown_blocks: counts.unknown,
        from: times.map(|(from, _)| instant::seconds(from)),
        to: times.map(|(_, to)| instant::seconds(to.saturating_add(1))),
        leaf_count: report.leaf_count,
        root: hex(&report.root),
        signed: footer.is_some_and(|footer| footer.flags & harborseal_segment::body::FOOTER_SIGNED != 0),
        signed_leaf_count: footer.map(|footer| footer.signed_leaf_count),
        closed: footer.map(|footer| instant::seconds(footer.closed_s)),
        findings: report
            .findings
            .iter()
            .map(|finding| FindingLine::new(None, finding))
            .collect(),
        findings_left_out: report.findings.left_out(),
    }
}

fn print(s: &Structure) -> Result<(), CliError> {
    let state = match (s.state, s.being_written) {
        ("open", true) => "open, being written",
        ("open", false) => "open, and nobody writes it",
        (state, _) => state,
    };
    let none = || "none".to_owned();
    for (name, value) in [
        ("segment", s.segment.clone()),
        ("state", state.to_owned()),
        (
            "health",
            if s.healthy { "whole" } else { "damaged, see below" }.to_owned(),
        ),
        ("format", s.version.clone()),
        ("node", s.node.clone()),
        ("run, shard", format!("{}, {}", s.run, s.shard)),
        (
            "in its chain",
            format!(
                "number {}, after {}",
                s.chain_seq,
                s.previous.clone().unwrap_or_else(none)
            ),
        ),
        ("created", s.created.clone()),
        ("closed", s.closed.clone().unwrap_or_else(|| "no".to_owned())),
        (
            "arrivals",
            match (&s.from, &s.to) {
                (Some(from), Some(to)) => format!("{from} to {to}"),
                _ => none(),
            },
        ),
        (
            "file",
            format!(
                "{} bytes, blocks to {}, durable for certain to {}",
                s.bytes, s.data_end, s.floor
            ),
        ),
        (
            "blocks",
            format!(
                "{} ({} relocated, {} of unknown types)",
                s.blocks, s.relocated, s.unknown_blocks
            ),
        ),
        (
            "chunks",
            format!("{} of {} streams, {} bytes", s.chunks, s.streams, s.chunk_bytes),
        ),
        ("key entries", s.key_entries.to_string()),
        ("checkpoints", s.checkpoints.to_string()),
        (
            "root",
            format!(
                "{} over {} leaves{}",
                s.root,
                s.leaf_count,
                if s.signed { ", signed" } else { "" }
            ),
        ),
    ] {
        output::data(format_args!("{name:<13}{value}"))?;
    }
    Ok(())
}

/// One line per block: offset, bytes, type, number, and what else its header says.
fn print_blocks(path: &Path, head: &Head) -> Result<(), CliError> {
    let source = FileSource::open(path).map_err(|why| CliError::file("read", path, &why))?;
    let mut scanner = Scanner::new(&source, head.id);
    while let Some(item) = scanner
        .next_item()
        .map_err(|error| findings::unreadable(path, &error))?
    {
        match item {
            Item::Gap(gap) => output::data(format_args!(
                "{:>14} {:>9} -          {}",
                gap.offset, gap.len, gap.reason
            ))?,
            Item::Block(block) => {
                let header = &block.header;
                let foreign = match header.segment_id == head.id {
                    true => String::new(),
                    false => format!(" of {}", header.segment_id),
                };
                let stream = match header.stream_id.is_zero() {
                    true => String::new(),
                    false => format!(
                        " stream {} slot {} seq {}",
                        header.stream_id, header.key_slot, header.stream_seq
                    ),
                };
                output::data(format_args!(
                    "{:>14} {:>9} {:<10} no {}{foreign}{stream}",
                    block.offset,
                    header.total_len,
                    header.block_type.name(),
                    header.block_no
                ))?;
            }
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
