"""What three readers must agree on, as JSON: the schema of the test vectors (tests/vectors/README.md)."""


def structure(report):
    """A file's structure."""
    head = report.head
    return {
        "segment_id": report.segment_id.hex(),
        "node_id": head.node_id.hex(),
        "run_id": head.run_id.hex(),
        "shard": head.shard,
        "chain_seq": head.chain_seq,
        "prev_segment_id": head.prev_segment_id.hex(),
        "created_s": head.created_s,
        "incompat": head.incompat,
        "ro_compat": head.ro_compat,
        "compat": head.compat,
        "state": report.state,
        "file_len": len(report.scan.data),
        "data_end": report.data_end,
        "floor": report.floor,
        "leaf_count": report.leaf_count,
        "root": report.root.hex(),
        "blocks": [block_row(block) for block in report.scan.blocks],
        "gaps": [{"offset": s.offset, "len": s.end - s.offset} for s in report.scan.stretches],
    }


def block_row(block):
    return {
        "offset": block.offset,
        "type": block.type,
        "flags": block.flags,
        "block_no": block.block_no,
        "total_len": block.total_len,
        "body_len": block.body_len,
        "segment_id": block.segment_id.hex(),
        "stream_id": block.stream_id.hex(),
        "stream_seq": block.stream_seq,
        "erased": block.erased,
    }


def stream_row(stream):
    """A stream as an identity sees it."""
    text = stream.text
    return {
        "origin": stream.origin.hex(),
        "stream_id": stream.stream_id.hex(),
        "slot": stream.slot,
        "camera_id": text.camera_id,
        "ssrc": text.ssrc,
        "media_index": text.media_index,
        "clock_rate": text.clock_rate,
        "sdp": text.sdp,
        "chunks": len(stream.chunks),
        "packets": len(stream.packets()),
        "sha256": stream.sha256(),
    }


def opened_row(streams, opened):
    """What an identity opens of a set of files."""
    rows = [stream_row(stream) for _, stream in sorted(streams.items())]
    return {"streams": rows, "needs_release": any(one.needs_release for one in opened)}


def finding_row(file, finding):
    row = {"file": file, "class": finding.name, "offset": finding.offset, "severity": finding.severity}
    if finding.cause is not None:
        row["cause"] = finding.cause
    return row
