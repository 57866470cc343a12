"""What one identity opens of a verified segment (FORMAT.md §5, §7.4, §7.5)."""

from dataclasses import dataclass, field
from hashlib import sha256
import struct

from . import keys, layout
from .findings import Finding
from .layout import CHUNK, STREAM, Malformed


@dataclass
class OpenedStream:
    """A stream whose STREAM block opened, and those of its chunks that did."""

    origin: bytes
    stream_id: bytes
    slot: int
    offset: int
    text: layout.StreamText
    chunks: dict = field(default_factory=dict)  # block_no -> (stream_seq, offset, ChunkText)
    erased: int = 0  # CHUNK blocks without a body

    def in_order(self):
        return [chunk for _, _, chunk in sorted(self.chunks.values(), key=lambda found: found[0])]

    def packets(self):
        return [packet for chunk in self.in_order() for packet in chunk.packets]

    def sha256(self):
        """The hash that vectors state: over arrival, kind, length and bytes of every packet."""
        total = sha256()
        for packet in self.packets():
            total.update(struct.pack("<QBI", packet.arrival_ns % 2**64, packet.rtcp, len(packet.data)))
            total.update(packet.data)
        return total.hexdigest()


@dataclass
class Opened:
    """What an identity got out of one file."""

    streams: dict = field(default_factory=dict)  # (origin, stream_id) -> OpenedStream
    findings: list = field(default_factory=list)
    needs_release: bool = False
    entries: int = 0  # KEY entries that opened
    hinted: int = 0  # those of them that earlier segments' H foretold


class Ratchets:
    """H per run and shard, learned from opened entries (§5.4)."""

    def __init__(self):
        self._known = {}  # (run_id, shard) -> {(chain_seq, H)}

    def learn(self, place, chain_seq, h):
        self._known.setdefault(place, set()).add((chain_seq, h))

    def hints(self, place, chain_seq, segment_id):
        """The hints to look for in a segment of that chain."""
        hints = set()
        for since, h in self._known.get(place, ()):
            if 0 <= chain_seq - since <= keys.MAX_RATCHET:
                for _ in range(chain_seq - since):
                    h = keys.next_h(h)
                hints.add(keys.hint(h, segment_id))
        return hints


def open_segment(report, identity, releases, ratchets):
    """Opens everything of `identity` in a file. `releases`: (segment_id, slot) -> E."""
    opened = Opened()
    secrets = _open_entries(report, identity, ratchets, opened)
    stream_keys = {}
    for block in report.scan.blocks:
        if block.type == STREAM:
            k_st = _stream_key(block, secrets, releases, opened)
            if k_st is not None:
                stream_keys[block.segment_id, block.stream_id] = k_st
                _open_stream(block, k_st, opened)
        elif block.type == CHUNK and (block.segment_id, block.stream_id) in opened.streams:
            stream = opened.streams[block.segment_id, block.stream_id]
            if block.erased:
                stream.erased += 1
            else:
                _open_chunk(block, stream_keys[block.segment_id, block.stream_id], stream, opened)
    opened.findings.sort(key=lambda finding: finding.rank)
    return opened


def _open_entries(report, identity, ratchets, opened):
    """(origin, slot, None) -> (S, erasable) and (origin, slot, stream_id) -> (K_st, erasable).

    Every entry is tried: a hint would only save time, and miss a grant that is new. But whether the hints would have
    named the entries that open is counted.
    """
    places = {report.segment_id: (report.head.run_id, report.head.shard, report.head.chain_seq)}
    for origin in report.origins:
        places.setdefault(origin.segment_id, (origin.run_id, origin.shard, origin.chain_seq))
    hints = {origin: ratchets.hints(place[:2], place[2], origin) for origin, place in places.items()}
    secrets = {}
    for block, entry in report.entries:
        origin = block.segment_id
        node = report.node_of(origin)
        if entry.scope > 1 or node is None:
            continue
        plain = identity.open_entry(entry, node, origin)
        if plain is None:
            continue
        if len(plain) != 64 or keys.hint(plain[:32], origin) != entry.hint:
            opened.findings.append(Finding("malformed_plaintext", block.offset, what="a KEY entry"))
            continue
        opened.entries += 1
        opened.hinted += entry.hint in hints[origin]
        ratchets.learn(places[origin][:2], places[origin][2], plain[:32])
        stream = entry.stream_id if entry.scope == 1 else None
        secrets.setdefault((origin, entry.slot, stream), (plain[32:], entry.erasable))
    return secrets


def _stream_key(block, secrets, releases, opened):
    """K_st of a STREAM block, if the identity can have it."""
    origin, slot = block.segment_id, block.slot
    whole, granted = secrets.get((origin, slot, None)), secrets.get((origin, slot, block.stream_id))
    if whole is None and granted is None:
        return None
    secret, erasable = whole or granted
    e = releases.get((origin, slot)) if erasable else None
    if erasable and e is None:
        opened.needs_release = True
        opened.findings.append(Finding("needs_release", block.offset))
        return None
    if whole is not None:
        return keys.stream_key(origin, block.stream_id, secret, e)
    return keys.granted_key(secret, block.stream_id, e)


def _open_stream(block, k_st, opened):
    if not keys.commits(k_st, block.raw[128:160]):
        opened.findings.append(Finding("commitment", block.offset))
        return
    plain = keys.open_block(k_st, block)
    if plain is None:
        opened.findings.append(Finding("not_authentic", block.offset))
        return
    try:
        text = layout.parse_stream(plain)
    except Malformed:
        opened.findings.append(Finding("malformed_plaintext", block.offset))
        return
    stream = OpenedStream(block.segment_id, block.stream_id, block.slot, block.offset, text)
    opened.streams.setdefault((block.segment_id, block.stream_id), stream)


def _open_chunk(block, k_st, stream, opened):
    plain = keys.open_block(k_st, block)
    if plain is None:
        opened.findings.append(Finding("not_authentic", block.offset))
        return
    try:
        chunk = layout.parse_chunk(plain)
    except Malformed:
        opened.findings.append(Finding("malformed_plaintext", block.offset))
        return
    stream.chunks.setdefault(block.block_no, (block.stream_seq, block.offset, chunk))
