"""chunks_so_far over the segments of a chain (FORMAT.md §4.4): what shows, to the customer alone, that the end of a
stream is gone."""

from .findings import DAMAGE, Finding
from .layout import CHUNK


def breaches(reports, findings, opened):
    """(file number, Finding) for each place where the count does not go on.

    `reports`: of all files, None where one was refused. `findings`: a list for each file. `opened`: file number ->
    Opened, of the files that are read.
    """
    chains = {}
    for number in opened:
        head = reports[number].head
        if reports[number].unused:
            continue
        chains.setdefault((head.node_id, head.run_id, head.shard), {}).setdefault(head.chain_seq, number)
    for members in chains.values():
        yield from _chain(members, reports, findings, opened)
    for number, one in opened.items():
        for stream in one.streams.values():
            yield from _within(number, stream)


def _within(number, stream):
    """In one origin the count goes on with stream_seq."""
    base = None
    for seq, offset, chunk in sorted(stream.chunks.values(), key=lambda found: found[0]):
        if base is not None and chunk.chunks_so_far - seq != base:
            yield number, Finding("chunks_so_far", offset)
        base = chunk.chunks_so_far - seq


def _chain(members, reports, findings, opened):
    """From segment to segment, as long as each is there and whole: what a crash took, nobody can count."""
    counts = {}  # (camera_id, ssrc) -> chunks so far
    initial, next_seq = 0, 0  # what a stream that is new here counts from; None where that is not known
    for seq, number in sorted(members.items()):
        report = reports[number]
        if seq != next_seq:
            counts, initial = {}, None
        next_seq = seq + 1
        whole = report.state == "sealed" and all(finding.severity != DAMAGE for finding in findings[number])
        own = {stream_id: stream for (origin, stream_id), stream in opened[number].streams.items()
               if origin == report.segment_id}
        for stream_id, stream in own.items():
            name = (stream.text.camera_id, stream.text.ssrc)
            if not stream.chunks:
                continue
            first, offset, chunk = min(stream.chunks.values(), key=lambda found: found[0])
            base = chunk.chunks_so_far - first
            if counts.get(name, initial) not in (None, base):
                yield number, Finding("chunks_so_far", offset)
            counts[name] = base + _held(report, stream_id)
        if not whole:
            counts, initial = {}, None


def _held(report, stream_id):
    """Chunks of an own stream in the file, erased ones too."""
    return sum(block.type == CHUNK and block.segment_id == report.segment_id and block.stream_id == stream_id
               for block in report.scan.blocks)
