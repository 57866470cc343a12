"""What KEY, STREAM and CHUNK blocks owe each other (FORMAT.md §4.2 to §4.4, §8): who may open what, and which
chunks are missing. Everything is kept per origin: relocated blocks have slots, streams and numbers of their own."""

from dataclasses import dataclass
from hashlib import sha256

from . import layout
from .layout import TOMBSTONE


@dataclass
class Stream:
    """A STREAM block, and where its chunks stand."""

    block: layout.Block
    next_seq: int | None  # None: a foreign stream may begin anywhere
    holes: int  # how many holes lay before its last block


class Numbers:
    """block_no: own ones dense, those of a foreign origin rising; a hole lets own ones jump (§3.1, §4.9, §8)."""

    def __init__(self, own):
        self._own = own
        self._next = 1
        self._holes = 0
        self._last = {}  # foreign origin -> block_no

    def wrong(self, block, holes, lost):
        """Whether this number may not stand here."""
        if block.offset < 2 * layout.PAGE:
            return block.block_no != 0
        if block.segment_id != self._own:
            before = self._last.get(block.segment_id, -1)
            self._last[block.segment_id] = max(before, block.block_no)
            return block.block_no <= before
        jumped = block.block_no > self._next and holes == self._holes
        wrong = block.block_no < self._next or jumped
        # A TOMBSTONE(lost) uses no number up, and the next may be any that is not lower.
        self._next = block.block_no if lost else max(self._next, block.block_no + 1)
        self._holes = -1 if lost else holes
        return wrong


class Tables:
    """The slots and streams seen so far."""

    def __init__(self, own, incompat):
        self._own = own
        self._incompat = incompat
        self._recipients = {}  # (origin, slot, scope, stream) -> (n, {i})
        self._erasable = {}  # (origin, slot) -> bool
        self.streams = {}  # (origin, stream_id) -> Stream

    def key(self, block, entries):
        """The names of what is wrong with a KEY block's entries."""
        wrong = set()
        for entry in entries:
            # An unknown suite is a recipient all the same, an unknown scope is none (§10).
            if entry.scope not in (0, 1):
                continue
            if entry.erasable and not self._incompat & layout.ERASABLE:
                wrong.add("feature_unstated")
            if self._erasable.setdefault((block.segment_id, entry.slot), entry.erasable) != entry.erasable:
                wrong.add("recipients")
            stream = entry.stream_id if entry.scope else None
            n, seen = self._recipients.setdefault((block.segment_id, entry.slot, entry.scope, stream), (entry.n, set()))
            if entry.n != n or entry.i >= n or entry.i in seen:
                wrong.add("recipients")
            seen.add(entry.i)
        return wrong

    def stream(self, block, holes):
        name, wrong = (block.segment_id, block.stream_id), set()
        if name in self.streams:
            wrong.add("stream_repeated")
        else:
            self.streams[name] = Stream(block, 0 if block.segment_id == self._own else None, holes)
        n, seen = self._recipients.get((block.segment_id, block.slot, 0, None), (0, ()))
        if not seen:
            wrong.add("key_missing")
        elif any(i not in seen for i in range(n)):
            wrong.add("recipients")
        return wrong

    def chunk(self, block, holes):
        wrong = set()
        states = bool(self._incompat & layout.STRONG_LEAF)
        if block.hashed:
            if not states:
                wrong.add("feature_unstated")
            if not block.erased and sha256(block.body).digest() != block.raw[128:160]:
                wrong.add("body_hash")
        elif states and block.segment_id == self._own:
            wrong.add("feature_unstated")
        stream = self.streams.get((block.segment_id, block.stream_id))
        if stream is None:
            return wrong | {"stream_missing"}
        if block.slot != stream.block.slot:
            wrong.add("slot_differs")
        if stream.next_seq is not None and block.stream_seq < stream.next_seq:
            stream.holes = holes
            return wrong | {"stream_seq_repeated"}
        if stream.next_seq is not None and block.stream_seq > stream.next_seq:
            wrong.add("chunks_lost" if holes > stream.holes else "chunks_missing")
        stream.next_seq, stream.holes = block.stream_seq + 1, holes
        return wrong


def is_lost(block):
    """Whether it is a TOMBSTONE(lost), which stands for a hole (§4.9)."""
    return block.type == TOMBSTONE and block.body[:4] == (layout.LOST).to_bytes(4, "little")
