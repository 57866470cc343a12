"""A file into accepted blocks and the stretches between them (FORMAT.md §2, §3, §7)."""

from dataclasses import dataclass

from . import keys, layout
from .findings import Finding, Refused
from .layout import CHUNK, FOOTER, MAGIC, ORIGIN, PAGE, SEGMENT, Malformed, NoBlock, parse_block

KNOWN_INCOMPAT = layout.ERASABLE | layout.STRONG_LEAF


@dataclass(frozen=True)
class Stretch:
    """A part of the file without an accepted block, as long as it goes."""

    offset: int
    end: int
    finding: Finding

    @property
    def zeros(self):
        return self.finding.name == "zeros"


@dataclass(frozen=True)
class Scan:
    """Everything in the file, in its order: `items` are Blocks and Stretches from the SEGMENT block on."""

    data: memoryview
    head: layout.Segment
    segment_id: bytes
    items: list
    findings: list

    @property
    def blocks(self):
        return [item for item in self.items if isinstance(item, layout.Block)]

    @property
    def stretches(self):
        return [item for item in self.items if isinstance(item, Stretch)]


def scan(data):
    """Reads the whole file; raises Refused where it has no SEGMENT block to go by."""
    data = memoryview(data)
    block, head, findings = _head(data)
    items, ranges, offset = [block], [], 2 * PAGE
    while offset < len(data):
        item = _look(data, offset, block.segment_id, ranges)
        if not isinstance(item, layout.Block):
            item = _stretch(data, offset, block.segment_id, ranges)
        elif item.type == ORIGIN:
            _remember(item, ranges)
        items.append(item)
        offset = item.end
    return Scan(data, head, block.segment_id, items, findings)


def _look(data, offset, own, ranges):
    """The accepted block at `offset`, else the name and cause of what stands there instead (§3.2, §3.3)."""
    try:
        block = parse_block(data, offset)
    except NoBlock as no:
        return "broken_block", no.cause
    if block.type == SEGMENT:
        return "misplaced_block", None
    if block.segment_id == own:
        return block
    in_range = any(block.segment_id == origin and first <= block.block_no <= last for origin, first, last in ranges)
    return block if in_range and block.type != FOOTER else ("foreign_block", None)


def _remember(block, ranges):
    try:
        origin = layout.parse_origin(block.body)
    except Malformed:
        return  # said by verify; it accepts nothing
    ranges.append((origin.segment_id, origin.first_block_no, origin.last_block_no))


def _stretch(data, start, own, ranges):
    """From a place without an accepted block to the next one (§3.3). It is one finding, at its beginning: what stands
    at the first place in it that is not all zeros."""
    told, offset = None, start
    while offset < len(data):
        seen = _look(data, offset, own, ranges)
        if isinstance(seen, layout.Block):
            break
        if told is None and not layout.is_zero(bytes(data[offset : offset + PAGE])):
            told = seen
        offset += PAGE
    name, cause = told or ("zeros", None)
    return Stretch(start, min(offset, len(data)), Finding(name, start, cause))


def _head(data):
    """The SEGMENT block that the file goes by, with what is to be said about the two copies (§4.1, §7.1)."""
    valid = {at: copy for at in (0, PAGE) if (copy := _copy(data, at)) is not None}
    if not valid:
        raise Refused(_other_version(data) or _headless(data))
    at = min(valid)
    block, head = valid[at]
    unknown = head.incompat & ~KNOWN_INCOMPAT
    if unknown:
        raise Refused(Finding("unsupported", at, what=f"incompat bits {unknown:#x}"))
    if at == PAGE:
        return block, head, [Finding("segment_copy", 0, what="not a valid SEGMENT block")]
    if PAGE in valid and valid[PAGE][0].raw == block.raw:
        return block, head, []
    return block, head, [Finding("segment_copy", PAGE, what="not a valid SEGMENT block, or not that at 0")]


def _copy(data, at):
    """(block, fields) of the SEGMENT block at `at`, or None; raises Refused for a valid one of another major."""
    try:
        block = parse_block(data, at)
        if block.type != SEGMENT:
            return None
        major = layout.parse_major(block.body)
        if major != 1:
            raise Refused(Finding("unsupported", at, what=f"major version {major}"))
        head = layout.parse_segment(block.body)
    except (NoBlock, Malformed):
        return None
    return (block, head) if keys.node_id(head.node_key) == head.node_id else None


def _other_version(data):
    """The finding about a file that begins with the magic of another version (§10)."""
    for at in (0, PAGE):
        magic = bytes(data[at : at + 4])
        if len(magic) == 4 and magic[:3] == MAGIC[:3] and magic != MAGIC:
            return Finding("unsupported", at, what="the magic of another version")
    return None


def _headless(data):
    """Why a file without a valid SEGMENT block is refused (§13)."""
    found, begun = False, False
    for offset in range(0, len(data), PAGE):
        try:
            (_, kind, *_, durable, _, _, _, _) = layout.parse_header(data, offset)
        except NoBlock:
            continue
        found = True
        begun = begun or kind == CHUNK or durable > 0
    if found:
        return Finding("head_lost" if begun else "never_begun", 0)
    if bytes(data[:4]) == MAGIC:
        return Finding("damaged", 0)
    zeros = all(layout.is_zero(bytes(data[at : at + (1 << 20)])) for at in range(0, len(data), 1 << 20))
    return Finding("never_begun" if zeros else "not_a_segment", 0)
