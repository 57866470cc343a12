"""INDEX and FOOTER against what the scan found (FORMAT.md §4.7, §4.8)."""

from . import keys, layout
from .layout import CHUNK_ROWS, KEY_ROWS, RECOVERED, SEALED, SIGNED, STREAM_ROWS

NO_ROW = 0xFFFFFFFF


class Found:
    """What INDEX and FOOTER are made from, gathered block by block."""

    def __init__(self):
        self.chunks = []
        self.streams = {}  # (origin, stream_id) -> [row number, block, chunks, first_s, last_s, bytes]
        self.keys = []  # (offset, total_len, entry_count)
        self.index = {CHUNK_ROWS: [], STREAM_ROWS: [], KEY_ROWS: []}  # [(block, Index)]
        self.data_end = 0
        self.signed_leaves = 0

    def add_data(self, block):
        """Any block but INDEX and FOOTER. An INDEX before one is what a crash left of an attempt to close."""
        self.data_end = max(2 * layout.PAGE, block.end)
        for parts in self.index.values():
            parts.clear()

    def add_key(self, block, entries):
        self.keys.append((block.offset, block.total_len, len(entries)))

    def add_stream(self, block):
        self.streams.setdefault((block.segment_id, block.stream_id), [len(self.streams), block, 0, 0, 0, 0])

    def add_chunk(self, block):
        stream = self.streams.get((block.segment_id, block.stream_id))
        self.chunks.append((block, NO_ROW if stream is None else stream[0]))
        if stream is not None:
            first = block.first_s if stream[2] == 0 else min(stream[3], block.first_s)
            stream[2:] = stream[2] + 1, first, max(stream[4], block.last_s), stream[5] + block.total_len

    def index_breaches(self):
        """Of each kind of INDEX that differs: the CHUNK whose row does, or None where only the FOOTER can be blamed."""
        breaches = []
        rows = {kind: [row for _, part in parts for row in part.rows] for kind, parts in self.index.items()}
        expected = [(b.offset, b.total_len, row, b.first_s, b.last_s, b.block_no, b.stream_seq)
                    for b, row in self.chunks]
        if rows[CHUNK_ROWS] != expected:
            differs = [b for (b, _), row, want in zip(self.chunks, rows[CHUNK_ROWS] + [None] * len(expected), expected)
                       if row != want]
            breaches.append(differs[0] if differs else None)
        streams = [(b.stream_id, b.offset, b.slot, chunks, first, last, size)
                   for _, b, chunks, first, last, size in self.streams.values()]
        if [row[:3] + row[4:] for row in rows[STREAM_ROWS]] != streams:  # unknown flags are skipped (§10)
            breaches.append(None)
        if rows[KEY_ROWS] != self.keys:
            breaches.append(None)
        return breaches

    def figures(self, footer):
        """Whether every figure of the FOOTER is what was found."""
        def place(kind):
            parts = [block for block, _ in self.index[kind]]
            return (parts[0].offset, sum(b.total_len for b in parts)) if parts else (0, 0)

        signed = self.signed_leaves if footer.flags & RECOVERED else footer.leaf_count
        chunks = [block for block, _ in self.chunks]
        return (
            (footer.chunks, footer.streams, footer.keys) == (place(CHUNK_ROWS), place(STREAM_ROWS), place(KEY_ROWS))
            and footer.data_end == self.data_end
            and footer.chunk_count == len(chunks)
            and footer.first_s == min((b.first_s for b in chunks), default=0)
            and footer.last_s == max((b.last_s for b in chunks), default=0)
            and footer.signed_leaf_count == signed
        )


def parse(block):
    """The FOOTER's body. One that is closed in neither or both ways is none."""
    footer = layout.parse_footer(block.body)
    if bool(footer.flags & SEALED) == bool(footer.flags & RECOVERED):
        raise layout.Malformed("flags must name one of SEALED and RECOVERED")
    return footer


def header_says_more(block, footer, minor):
    """§4.8: a FOOTER has no Merkle leaf, so nothing may hide in its header."""
    plain = (
        bytes([*layout.MAGIC, layout.FOOTER, 0]) + (128).to_bytes(2, "little") + layout.PAGE.to_bytes(4, "little")
        + (248).to_bytes(4, "little") + block.segment_id + block.block_no.to_bytes(8, "little") + bytes(52)
        + (footer.durable_upto // layout.PAGE & 0xFFFFFFFF).to_bytes(4, "little") + bytes(16) + block.raw[112:116]
        + bytes(8)
    )
    return minor == 0 and block.raw[:124] != plain


def signature_fits(footer, node_key, node, segment_id):
    """§4.8: a SEALED footer must be signed, and what is signed must be the node's."""
    if not footer.flags & SIGNED:
        return not footer.flags & SEALED
    return keys.signed_by(node_key, footer.signature, b"footer", node + segment_id + footer.signed)


