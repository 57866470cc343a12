//! Verifying: what is whole passes, what was taken away is found and named. What was changed on purpose is in `tampering`.

mod common;

use common::*;
use harborseal_segment::block::{BlockType, FLAG_CRITICAL, Header, encode_block, parse_block};
use harborseal_segment::body::{ChainHead, DeletedSegment, DeletionReason, HEAD_FOOTER, OriginBody};
use harborseal_segment::ids::SegmentId;
use harborseal_segment::node::NodeKey;
use harborseal_segment::open::Keyring;
use harborseal_segment::reader::State;
use harborseal_segment::verify::{Chains, Report, Severity, verify};
use harborseal_segment::writer::{FinishParams, SegmentWriter};

fn check(file: &[u8]) -> Report {
    verify(&file, None, |_| ()).expect("readable")
}

/// The kinds of what was found, worse than a note.
fn faults(report: &Report) -> Vec<&'static str> {
    let findings = report.findings.iter();
    findings
        .filter(|f| f.severity() > Severity::Note)
        .map(|f| f.what.name())
        .collect()
}

/// Every block from 8192 on: offset, header.
fn blocks(file: &[u8]) -> Vec<(usize, Header)> {
    let mut blocks = Vec::new();
    let mut at = 8192;
    while at < file.len() {
        let header = parse_block(&file[at..]).expect("a whole block");
        blocks.push((at, header));
        at += header.total_len as usize;
    }
    blocks
}

fn of_type(file: &[u8], kind: BlockType) -> Vec<(usize, Header)> {
    blocks(file)
        .into_iter()
        .filter(|(_, header)| header.block_type == kind)
        .collect()
}

/// The footer and index that somebody without the node's key can write over whatever stands before.
fn refinished(blocks: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    let id = parse_block(&blocks[0].1).expect("SEGMENT").segment_id;
    let mut writer = SegmentWriter::adopting(id);
    for (offset, block) in blocks {
        file.resize(*offset, 0);
        file.extend_from_slice(block);
        if *offset == 0 {
            file.extend_from_slice(block);
        }
        writer.adopt(*offset as u64, &parse_block(block).expect("whole"), block);
    }
    let finished = writer.finish(None, FinishParams::recovered(None, 0, BEGAN_S, 0));
    file.extend_from_slice(&finished.bytes);
    file
}

/// The blocks of a file up to its index, SEGMENT once.
fn parts(file: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let head = [(0, parse_block(file).expect("SEGMENT"))];
    let all = head.into_iter().chain(blocks(file));
    all.filter(|(_, header)| !matches!(header.block_type, BlockType::Index | BlockType::Footer))
        .map(|(at, header)| (at, file[at..at + header.total_len as usize].to_vec()))
        .collect()
}

#[test]
fn a_closed_segment_is_clean_and_its_figures_are_right() {
    let file = closed_segment(0);
    let report = check(&file);
    assert_eq!(faults(&report), [""; 0]);
    assert_eq!(report.findings.iter().count(), 0);
    assert_eq!(report.state, State::Sealed);
    assert_eq!(
        (
            report.counts.chunks,
            report.counts.key_entries,
            report.counts.checkpoints
        ),
        (7, 2, 1)
    );
    assert_eq!(report.streams.len(), 3);
    assert_eq!(report.footer.expect("closed").root, report.root);
}

#[test]
fn with_an_identity_everything_of_its_own_is_opened() {
    let file = closed_segment(0);
    let mut keyring = Keyring::new(alice());
    let report = verify(&&file[..], Some(&mut keyring), |_| ()).expect("readable");
    assert!(report.is_clean());
    let own: Vec<_> = report
        .own_streams
        .iter()
        .map(|own| (own.camera_id.as_str(), own.chunks, own.packets))
        .collect();
    assert_eq!(own, [("front-door", 3, 6), ("garden", 2, 14)]);
    let stranger = verify(&&file[..], Some(&mut Keyring::new(eve())), |_| ()).expect("readable");
    assert!(stranger.is_clean() && stranger.own_streams.is_empty());
}

#[test]
fn an_open_segment_is_clean_up_to_its_floor_and_says_so() {
    let recording = open_segment(0);
    let floor = recording.durable;
    let mut file = recording.bytes;
    file.resize(file.len() + (3 << 20), 0);
    let report = check(&file);
    assert!(report.is_clean());
    assert_eq!((report.state, report.floor), (State::Open, floor));
    assert_eq!(report.findings.iter().count(), 0);

    // Above the floor a block may be on its way still; below it, it may not be missing.
    let [.., (above, _), _] = of_type(&file[..file.len() - (3 << 20)], BlockType::Chunk)[..] else {
        panic!("chunks")
    };
    let mut torn = file.clone();
    torn[above + 100..above + 4096].fill(0);
    let report = check(&torn);
    assert!(report.is_clean(), "{:?}", faults(&report));
    assert!(report.findings.iter().any(|f| f.what.name() == "unfinished"));
    let (below, _) = of_type(&file[..floor as usize], BlockType::Chunk)[1];
    let mut damaged = file;
    damaged[below + 200] ^= 1;
    let report = check(&damaged);
    assert_eq!(faults(&report), ["broken_block"]);
    let finding = report
        .findings
        .iter()
        .find(|f| f.what.name() == "broken_block")
        .expect("it");
    assert_eq!(
        (finding.offset, finding.len, finding.streams.len()),
        (below as u64, 4096, 1)
    );
}

#[test]
fn a_block_taken_out_without_a_trace_is_found_by_number_and_stream() {
    let file = closed_segment(0);
    let mut left = parts(&file);
    let gone = left.remove(7);
    let len = gone.1.len();
    assert_eq!(parse_block(&gone.1).expect("whole").block_type, BlockType::Chunk);
    left.iter_mut().skip(7).for_each(|(at, _)| *at -= len);
    let report = check(&refinished(&left));
    for kind in ["block_number", "chunks_missing", "leaf_count"] {
        assert!(faults(&report).contains(&kind), "{kind} in {:?}", faults(&report));
    }
}

/// Where nothing of a block is left, not even its header, the jumps of stream_seq behind it say whose it was; and where none comes
/// behind it, the index does.
#[test]
fn a_hole_names_the_streams_whose_chunks_went_with_it() {
    let whole = closed_segment(0);
    let chunks = of_type(&whole, BlockType::Chunk);
    let last = chunks.len() - 1;
    for hole in [0..1, 0..3, 1..4, last..last + 1, 0..last + 1] {
        let gone = &chunks[hole];
        let mut file = whole.clone();
        for (at, header) in gone {
            file[*at..at + header.total_len as usize].fill(0);
        }
        let mut streams: Vec<_> = gone.iter().map(|(_, header)| header.stream_id).collect();
        streams.sort();
        streams.dedup();
        let report = check(&file);
        let zeros: Vec<_> = report
            .findings
            .iter()
            .filter(|finding| finding.what.name() == "zeros")
            .collect();
        assert_eq!(zeros[0].offset, gone[0].0 as u64);
        assert_eq!(zeros[0].streams, streams);
    }
}

#[test]
fn another_nodes_signature_is_none() {
    let mut params = params(0);
    params.node = NodeKey::from_bytes(&[0x66; 32]).public();
    let mut recording = Recording::begin_with(params, 0);
    recording.small_chunk(0);
    recording.checkpoint(None, &[]);
    let report = check(&recording.finish(None).0);
    assert_eq!(faults(&report), ["signature", "signature"]);
}

#[test]
fn an_unsigned_footer_is_noted_if_recovery_wrote_it_and_refused_if_the_writer_did() {
    let file = closed_segment(0);
    let report = check(&refinished(&parts(&file)));
    assert_eq!(report.state, State::Recovered);
    assert!(report.findings.iter().any(|f| f.what.name() == "unsigned"));
    let mut recording = open_segment(0);
    let finished = recording
        .writer
        .finish(None, FinishParams::sealed(None, 0, BEGAN_S));
    recording.bytes.extend_from_slice(&finished.bytes);
    assert_eq!(faults(&check(&recording.bytes)), ["signature"]);
}

#[test]
fn an_index_that_lies_is_found_by_its_table() {
    let (file, finished) = open_segment(0).finish(None);
    let footer = finished.footer;
    let tables = [
        ("chunks", footer.chunks_offset, 16 + 32),
        ("streams", footer.streams_offset, 16 + 24),
        ("keys", footer.keys_offset, 16 + 12),
    ];
    for (table, offset, at) in tables {
        let mut file = file.clone();
        let start = offset as usize;
        let header = parse_block(&file[start..]).expect("INDEX");
        let mut body = header.body(&file[start..]).to_vec();
        body[at] ^= 1;
        let block = encode_block(header, &body);
        file[start..start + block.len()].copy_from_slice(&block);
        let report = check(&file);
        let mut kinds = faults(&report);
        kinds.sort();
        assert_eq!(kinds, ["index", "root"], "{table}");
        let text: Vec<_> = report.findings.iter().map(|f| f.to_string()).collect();
        assert!(
            text.iter().any(|t| t.contains(&format!("index of {table}"))),
            "{text:?}"
        );
    }
}

/// A segment with a block of type `kind` before its last chunks, closed by recovery.
fn with_unknown(kind: u8, flags: u8) -> Vec<u8> {
    let mut recording = Recording::begin(0);
    recording.small_chunk(0);
    let mut parts = parts(&recording.bytes);
    let no = recording.writer.next_block_no();
    let kind = BlockType::from_u8(kind).expect("not zero");
    let mut header = Header::new(kind, segment_id(0), no, 100);
    header.flags = flags;
    parts.push((recording.bytes.len(), encode_block(header, &[7; 100])));
    refinished(&parts)
}

#[test]
fn unknown_blocks_are_skipped_unless_they_are_critical() {
    for kind in [10, 0x7F, 0x80, 0xFF] {
        let report = check(&with_unknown(kind, 0));
        assert_eq!(faults(&report), [""; 0], "{kind:#x}");
        assert_eq!(report.counts.unknown, 1);
        let report = check(&with_unknown(kind, FLAG_CRITICAL));
        assert_eq!(faults(&report), ["unsupported"], "{kind:#x}");
        assert_eq!(report.findings.count(Severity::Damage), 0);
    }
}

/// Segment 1, in which the chunks of segment 0 from its second on stand again.
fn with_relocated() -> (Vec<u8>, Vec<u8>) {
    let mut old = Recording::begin(0);
    for _ in 0..3 {
        old.small_chunk(0);
    }
    let moved = blocks(&old.bytes);
    let mut new = Recording::begin(1);
    let origin = OriginBody {
        segment_id: segment_id(0),
        node_id: node().public().id(),
        run_id: run(),
        shard: 0,
        chain_seq: 0,
        first_block_no: 1,
        last_block_no: moved.last().expect("blocks").1.block_no,
    };
    let written = new.writer.origin(&origin);
    new.put(written);
    for (at, header) in moved {
        if header.block_type != BlockType::Chunk || header.stream_seq > 0 {
            let block = old.bytes[at..at + header.total_len as usize].to_vec();
            let placed = new.writer.place_copy(&header, &block);
            new.put((placed, block));
        }
    }
    new.so_far = old.so_far;
    new.small_chunk(0);
    (old.bytes, new.finish(None).0)
}

#[test]
fn relocated_blocks_are_clean_behind_their_origin_and_open() {
    let (_, file) = with_relocated();
    let mut keyring = Keyring::new(alice());
    let report = verify(&&file[..], Some(&mut keyring), |_| ()).expect("readable");
    assert_eq!(faults(&report), [""; 0]);
    assert_eq!(report.counts.relocated, 6);
    let front: Vec<_> = report
        .own_streams
        .iter()
        .filter(|own| own.camera_id == "front-door")
        .collect();
    assert_eq!(front.iter().map(|own| own.chunks).sum::<u64>(), 3);
}

fn chain_faults(files: &[Vec<u8>], complete: bool) -> Vec<(SegmentId, &'static str)> {
    let mut chains = Chains::default();
    let mut keyring = Keyring::new(alice());
    for file in files {
        let report = verify(&&file[..], Some(&mut keyring), |_| ()).expect("readable");
        chains.add(report.member);
    }
    let found = chains.check(complete, &|_| false);
    let faults = found.iter().filter(|found| found.severity() > Severity::Note);
    faults
        .map(|found| (found.segment_id, found.finding.what.name()))
        .collect()
}

/// Four segments of one chain whose streams run through and whose roots are linked.
fn chain() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let (mut so_far, mut prev_root) = ([0; 3], None);
    for n in 0..4 {
        let mut recording = Recording::begin(n);
        recording.so_far = so_far;
        for camera in [0, 1, 2, 0] {
            recording.small_chunk(camera);
        }
        so_far = recording.so_far;
        recording.checkpoint(prev_root, &[]);
        let (file, finished) = recording.finish(prev_root);
        prev_root = Some(finished.root);
        files.push(file);
    }
    files
}

#[test]
fn a_whole_chain_is_clean() {
    assert_eq!(chain_faults(&chain(), true), []);
    let (old, new) = with_relocated();
    assert_eq!(chain_faults(&[old, new], true), []);
}

#[test]
fn a_deleted_segment_is_missed_in_the_middle_and_at_the_beginning() {
    let mut files = chain();
    files.remove(1);
    assert_eq!(chain_faults(&files, true), [(segment_id(2), "segments_missing")]);
    assert_eq!(chain_faults(&files, false), [(segment_id(2), "segments_missing")]);
    let files = &chain()[1..];
    assert_eq!(chain_faults(files, true), [(segment_id(1), "segments_missing")]);
    assert_eq!(chain_faults(files, false), [], "nobody said that these are all");
}

#[test]
fn a_segment_deleted_by_policy_is_told_from_a_missing_one() {
    let mut files = chain();
    let deleted = |n: u8| DeletedSegment {
        segment_id: segment_id(n),
        run_id: run(),
        shard: 0,
        reason: DeletionReason::MaxAge,
        chain_seq: n.into(),
        root: [0; 32],
    };
    let mut recording = Recording::begin(4);
    recording.tombstone(&[deleted(0), deleted(1)]);
    files.push(recording.finish(None).0);
    assert_eq!(chain_faults(&files[2..], true), []);
    assert_eq!(
        chain_faults(&files[3..], true),
        [(segment_id(3), "segments_missing")]
    );
}

#[test]
fn a_segment_that_was_cut_and_closed_again_is_betrayed_by_the_next() {
    let mut files = chain();
    let mut left = parts(&files[1]);
    left.truncate(left.len() - 2);
    files[1] = refinished(&left);
    assert!(
        check(&files[1]).is_clean(),
        "by itself it looks like a recovered one"
    );
    let faults = chain_faults(&files, true);
    assert!(faults.contains(&(segment_id(1), "root_since")), "{faults:?}");
    assert!(faults.contains(&(segment_id(2), "chunks_so_far")), "{faults:?}");
}

#[test]
fn the_end_of_an_earlier_chain_is_missed() {
    let files = chain();
    let last = check(&files[3]);
    let head = ChainHead {
        run_id: run(),
        shard: 0,
        flags: HEAD_FOOTER,
        chain_seq: 3,
        segment_id: segment_id(3),
        durable_upto: 0,
        leaf_count: last.leaf_count,
        root: last.root,
    };
    let mut params = params(9);
    params.run_id = harborseal_segment::RunId([0x99; 16]);
    (params.prev, params.chain_seq) = (SegmentId::ZERO, 0);
    let mut next_run = Recording::bare(params, 9);
    next_run.checkpoint(None, &[head]);
    let next_run = next_run.finish(None).0;
    let mut all = files.clone();
    all.push(next_run.clone());
    assert_eq!(chain_faults(&all, true), []);
    all.remove(3);
    assert_eq!(chain_faults(&all, true), [(segment_id(9), "head_missing")]);
    let mut left = parts(&files[3]);
    left.truncate(left.len() - 2);
    all.push(refinished(&left));
    assert_eq!(chain_faults(&all, true), [(segment_id(3), "root_since")]);
}

#[test]
fn two_segments_in_one_place_are_found() {
    let mut files = chain();
    let mut params = params(2);
    params.segment_id = SegmentId([0xEE; 16]);
    let mut twin = Recording::begin_with(params, 2);
    twin.small_chunk(0);
    files.push(twin.finish(None).0);
    assert!(
        chain_faults(&files, true)
            .iter()
            .any(|(_, kind)| *kind == "same_place")
    );
}

#[test]
fn a_prepared_segment_that_was_never_used_is_no_fault() {
    let mut files = chain();
    let mut unused = Recording::begin(4).bytes;
    unused.resize(1 << 20, 0);
    let report = check(&unused);
    assert!(report.is_clean() && report.unused);
    files.push(unused);
    assert_eq!(chain_faults(&files, true), []);
}

/// The table in docs/FORMAT.md §13 is what readers are compared by; so are its order and its words.
#[test]
fn the_error_classes_are_those_of_the_format_in_its_order() {
    let format = include_str!("../../../docs/FORMAT.md");
    let (_, section) = format.split_once("## 13. Error classes").expect("the section");
    let (section, _) = section.split_once("\n## 14.").expect("the next one");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut stated = Vec::new();
    for row in rows {
        let (names, _) = row.split_once(" |").expect("a table row");
        stated.extend(names.split(", ").map(|name| name.trim_matches('`')));
    }
    assert_eq!(stated, harborseal_segment::verify::CLASSES);
}

#[test]
fn findings_come_by_offset_and_at_one_offset_by_class() {
    // A chunk in the place of another: its number, its stream's order and the index all say so at one offset.
    let mut file = closed_segment(0);
    let chunks = of_type(&file, BlockType::Chunk);
    let (first, second) = (chunks[0].0, chunks[3].0);
    file.copy_within(first..first + 4096, second);
    let report = check(&file);
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.offset, f.what.name()))
        .collect();
    let rank = |class: &str| {
        harborseal_segment::verify::CLASSES
            .iter()
            .position(|c| *c == class)
    };
    assert!(
        found.iter().filter(|(at, _)| *at == second as u64).count() > 1,
        "{found:?}"
    );
    assert!(
        found.is_sorted_by_key(|(at, class)| (*at, rank(class))),
        "{found:?}"
    );
}
