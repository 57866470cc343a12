"""One segment, checked without a key (FORMAT.md §8).

The file is walked once, in its order. Whether a stretch without a block is damage depends on how the file ends, and
on its floor: so stretches are judged at the end, everything else where it stands.
"""

from dataclasses import dataclass, field

from . import closing, keys, layout
from .findings import NOTE, Finding
from .layout import (CHECKPOINT, CHUNK, ERASED, DELETED, FOOTER, INDEX, KEY, LOST, ORIGIN, PAGE, RECOVERED, SEALED,
                     SEGMENT, SIGNED, STREAM, TOMBSTONE, Malformed)
from .merkle import Tree
from .scan import Scan, Stretch
from .tables import Numbers, Tables, is_lost

OPEN = "open"
_BEHIND_A_HOLE = {"key_missing", "recipients", "stream_missing"}


@dataclass
class Report:
    """What is known of a segment without a key."""

    scan: Scan
    state: str = OPEN
    footer: layout.Footer | None = None
    footer_block: layout.Block | None = None
    floor: int = 0
    data_end: int = 0
    leaf_count: int = 0
    root: bytes = b""
    findings: list = field(default_factory=list)
    checkpoints: list = field(default_factory=list)  # (block, Checkpoint, whether its signature is the node's)
    tombstones: list = field(default_factory=list)  # (block, Tombstone), signed ones that verify
    origins: list = field(default_factory=list)
    erased: list = field(default_factory=list)  # CHUNK blocks
    entries: list = field(default_factory=list)  # (block, KeyEntry)

    @property
    def head(self):
        return self.scan.head

    @property
    def segment_id(self):
        return self.scan.segment_id

    def node_of(self, origin):
        """The node_id of an origin, which opening its KEY entries needs (§4.6, §5.2)."""
        if origin == self.segment_id:
            return self.head.node_id
        return next((o.node_id for o in self.origins if o.segment_id == origin), None)

    @property
    def unused(self):
        """Prepared ahead and never appended to (§2.1)."""
        kinds = {block.type for block in self.scan.blocks}
        last = self.scan.items[-1]
        reserved = isinstance(last, Stretch) and last.zeros
        whole = all(finding.severity == NOTE for finding in self.findings)
        return kinds <= {SEGMENT, KEY, STREAM} and self.floor == 0 and reserved and whole

    def unclosed(self):
        """The finding for who knows that no process writes this file (§13)."""
        return [Finding("unclosed", self.data_end)] if self.state == OPEN and not self.unused else []


def verify(scan):
    """Everything of §8 that one file shows."""
    return _Walk(scan).report()


class _Walk:
    def __init__(self, scan):
        self._scan = scan
        self._report = Report(scan)
        self._tree = Tree()
        self._numbers = Numbers(scan.segment_id)
        self._tables = Tables(scan.segment_id, scan.head.incompat)
        self._found = closing.Found()
        self._holes = 0
        self._stretches = []
        self._footers = 0  # blocks of that type so far
        self._behind = []  # blocks behind any of them

    def report(self):
        report = self._report
        for item in self._scan.items:
            if isinstance(item, Stretch):
                self._holes += 1
                self._stretches.append(item)
            else:
                self._block(item)
        if report.footer is None:
            report.leaf_count, report.root = self._tree.count, self._tree.root()
        report.findings += [Finding("after_footer", block.offset) for block in self._behind]
        report.data_end = self._found.data_end
        report.findings += self._copies()
        for stretch in self._stretches:
            report.findings += self._judge(stretch)
        report.findings.sort(key=lambda finding: finding.rank)
        return report

    def _copies(self):
        """A crash before the first fsync may leave one copy of SEGMENT only: that is no damage where no watermark is
        stated and no writer closed the file."""
        unsafe = self._report.state != "sealed" and self._report.floor == 0
        return [Finding("unfinished", f.offset) if unsafe else f for f in self._scan.findings]

    def _say(self, block, name):
        self._report.findings.append(Finding(name, block.offset))

    def _block(self, block):
        if self._footers:
            self._behind.append(block)
        if self._report.footer is not None:
            return
        lost = is_lost(block)
        if self._numbers.wrong(block, self._holes, lost):
            self._say(block, "block_number")
        self._holes += lost
        own = block.segment_id == self._scan.segment_id
        if own:
            self._states(block, block.durable * PAGE)
        handle = {KEY: self._key, STREAM: self._stream, CHUNK: self._chunk, CHECKPOINT: self._checkpoint,
                  ORIGIN: self._origin, INDEX: self._index, FOOTER: self._footer, TOMBSTONE: self._tombstone,
                  SEGMENT: self._segment}.get(block.type)
        try:
            if handle is None and block.critical:
                self._say(block, "unsupported")
            elif handle is not None and (own or block.type not in (CHECKPOINT, INDEX)):
                handle(block)
        except Malformed:
            self._say(block, "malformed_body")
        if block.type != FOOTER:
            self._tree.add(block.leaf)
        if block.type not in (INDEX, FOOTER):
            self._found.add_data(block)

    def _states(self, block, watermark):
        """A watermark that an own block states (§2.1)."""
        if watermark > block.offset:
            self._say(block, "watermark_ahead")
        else:
            self._report.floor = max(self._report.floor, watermark)

    def _segment(self, block):
        pass  # scan has checked it

    def _key(self, block):
        entries = layout.parse_key(block.body)
        self._found.add_key(block, entries)
        self._report.entries += [(block, entry) for entry in entries]
        for name in self._tables.key(block, entries):
            self._say(block, name)

    def _stream(self, block):
        self._belongs(block)
        self._found.add_stream(block)
        self._say_unless_behind_a_hole(block, self._tables.stream(block, self._holes))

    def _chunk(self, block):
        self._belongs(block)
        self._found.add_chunk(block)
        if block.erased:
            self._report.erased.append(block)
        self._say_unless_behind_a_hole(block, self._tables.chunk(block, self._holes))

    def _belongs(self, block):
        """A COMPACTED file has no footage of its own (§14)."""
        if self._scan.head.compat & layout.COMPACTED and block.segment_id == self._scan.segment_id:
            self._say(block, "misplaced_block")

    def _say_unless_behind_a_hole(self, block, names):
        for name in names:
            self._say(block, "went_with_hole" if self._holes and name in _BEHIND_A_HOLE else name)

    def _checkpoint(self, block):
        checkpoint = layout.parse_checkpoint(block.body)
        self._states(block, checkpoint.durable_upto)
        signed = self._is_signed(block, checkpoint.signature, b"checkpoint", checkpoint.signed)
        self._report.checkpoints.append((block, checkpoint, signed))
        # Behind a hole nobody can say whether the leaves before it were these.
        if self._holes == 0 and self._leaves(block, checkpoint) and signed:
            self._found.signed_leaves = checkpoint.leaf_count

    def _is_signed(self, block, signature, label, message):
        head = self._scan.head
        signed = keys.signed_by(head.node_key, signature, label, head.node_id + block.segment_id + message)
        if not signed:
            self._say(block, "signature")
        return signed

    def _leaves(self, block, stated):
        """Whether leaf count and root of a CHECKPOINT are those of the leaves before it."""
        wrong = _leaf_breach(self._tree, stated)
        if wrong:
            self._say(block, wrong)
        return not wrong

    def _origin(self, block):
        self._report.origins.append(layout.parse_origin(block.body))

    def _index(self, block):
        index = layout.parse_index(block.body)
        if index.kind in layout.ROW_LEN:
            self._found.index[index.kind].append((block, index))
        else:
            self._say(block, "skipped")

    def _tombstone(self, block):
        tombstone = layout.parse_tombstone(block.body)
        if tombstone.kind == LOST:
            self._say(block, "lost")
        elif tombstone.kind not in (DELETED, ERASED):
            self._say(block, "skipped")
        elif self._report.node_of(block.segment_id) != self._scan.head.node_id:
            pass  # another node's word, relocated: its key is not here, and it speaks of its own segments only
        elif self._is_signed(block, tombstone.signature, b"tombstone", tombstone.signed):
            self._report.tombstones.append((block, tombstone))

    def _footer(self, block):
        self._footers += 1
        footer = closing.parse(block)
        self._states(block, footer.durable_upto)
        wrong = self._closing_breaches(block, footer)
        at_end = block.end == len(self._scan.data)
        if not at_end and (wrong or self._damaged(footer)):
            self._say(block, "unfinished")
            return
        report = self._report
        report.findings += wrong
        report.footer, report.footer_block = footer, block
        report.state = "recovered" if footer.flags & RECOVERED else "sealed"
        report.leaf_count, report.root = self._tree.count, self._tree.root()
        if not footer.flags & SIGNED and footer.flags & RECOVERED:
            self._say(block, "unsigned")

    def _closing_breaches(self, block, footer):
        """What a FOOTER says that is not so."""
        head = self._scan.head
        wrong = []
        if closing.header_says_more(block, footer, head.minor):
            wrong.append(Finding("malformed_body", block.offset))
        if not closing.signature_fits(footer, head.node_key, head.node_id, block.segment_id):
            wrong.append(Finding("signature", block.offset))
        if footer.flags & SEALED and self._damaged(footer):
            return wrong  # what is lost cannot be counted; recovery counted what it found
        leaf_breach = _leaf_breach(self._tree, footer)
        if leaf_breach:
            wrong.append(Finding(leaf_breach, block.offset))
        if not self._found.figures(footer):
            wrong.append(Finding("footer", block.offset))
        wrong += [Finding("index", (at or block).offset) for at in self._found.index_breaches()]
        return wrong

    def _damaged(self, footer):
        """Whether a stretch before this FOOTER is damage: in a RECOVERED segment it is below the floor only."""
        recovered = footer.flags & RECOVERED
        return any(not recovered or s.offset < footer.durable_upto for s in self._stretches)

    def _judge(self, stretch):
        """What a stretch without a block means, now that the file's end is known."""
        report = self._report
        reaches_end = stretch.end == len(self._scan.data)
        if report.footer is not None and stretch.offset > report.footer_block.offset:
            return [Finding("not_truncated", stretch.offset)] if reaches_end else []
        if report.state == "sealed" or stretch.offset < report.floor:
            return [stretch.finding]
        if report.state == "recovered" and stretch.offset >= report.footer.data_end:
            return [stretch.finding]
        if report.state == OPEN:
            return [] if reaches_end and stretch.zeros else [Finding("unfinished", stretch.offset)]
        return [Finding("hole", stretch.offset)]


def _leaf_breach(tree, stated):
    """What is wrong with the leaf count and root that a block states, if anything."""
    if stated.leaf_count != tree.count:
        return "leaf_count"
    return "root" if stated.root != tree.root() else None
