"""Bytes into fields: block headers and the bodies that are not sealed (FORMAT.md §3 and §4).

Nothing here judges a file. A body that contradicts its own table raises `Malformed`; a place without a valid block
raises `NoBlock` with the cause that §13 names.
"""

from dataclasses import dataclass, field
import struct

from .crc32c import crc32c

PAGE = 4096
MAX_BLOCK = 1 << 20
MAGIC = b"\x89HS1"
NOBODY = bytes(16)

SEGMENT, KEY, STREAM, CHUNK, CHECKPOINT, ORIGIN, INDEX, FOOTER, TOMBSTONE = range(1, 10)

CRITICAL, HASHED = 1, 2  # header flags
ERASABLE, STRONG_LEAF = 1, 2  # incompat bits
COMPACTED = 1  # compat bit
SEALED, RECOVERED, SIGNED = 1, 2, 4  # FOOTER flags
DELETED, LOST, ERASED = 1, 2, 3  # TOMBSTONE kinds
CHUNK_ROWS, STREAM_ROWS, KEY_ROWS = 1, 2, 3  # INDEX kinds
ROW_LEN = {CHUNK_ROWS: 48, STREAM_ROWS: 64, KEY_ROWS: 24}


class Malformed(Exception):
    """A body or plaintext against its table."""


class NoBlock(Exception):
    """No valid block stands here; `cause` as in §13."""

    def __init__(self, cause):
        super().__init__(cause)
        self.cause = cause


_HEADER = struct.Struct("<4sBBHII16sQ16sIIQQQII16sIQI")
assert _HEADER.size == 128


@dataclass(frozen=True)
class Block:
    """A valid block, and the bytes of it."""

    offset: int
    type: int
    flags: int
    header_len: int
    total_len: int
    body_len: int
    segment_id: bytes
    block_no: int
    stream_id: bytes
    slot: int
    first_s: int
    last_s: int
    stream_seq: int
    durable: int
    tag: bytes
    erased: bool
    raw: bytes = field(repr=False)

    @property
    def end(self):
        return self.offset + self.total_len

    @property
    def head(self):
        """Header and extension."""
        return self.raw[: self.header_len]

    @property
    def body(self):
        return self.raw[self.header_len : self.header_len + self.body_len]

    @property
    def critical(self):
        return bool(self.flags & CRITICAL)

    @property
    def hashed(self):
        return self.type == CHUNK and bool(self.flags & HASHED)

    @property
    def leaf(self):
        """What the Merkle tree hashes of it (§6)."""
        return self.head if self.type == CHUNK else self.raw


def parse_header(data, offset):
    """The fields of the header at `offset`, by the first three checks of §3.2."""
    if bytes(data[offset : offset + 4]) != MAGIC:
        raise NoBlock("no_block")
    if offset + 128 > len(data):
        raise NoBlock("cut")
    header = bytes(data[offset : offset + 128])
    fields = _HEADER.unpack(header)
    if crc32c(header[:124]) != fields[-1]:
        raise NoBlock("header_crc")
    if not _fields_agree(*fields[1:6]):
        raise NoBlock("field")
    return fields


def parse_block(data, offset):
    """The valid block at `offset`, by §3.2's checks in §3.2's order."""
    (_, kind, flags, header_len, total_len, body_len, segment_id, block_no, stream_id, slot, _, first_s, last_s,
     stream_seq, _, durable, tag, body_crc, _, _) = parse_header(data, offset)
    if offset + total_len > len(data):
        raise NoBlock("cut")
    raw = bytes(data[offset : offset + total_len])
    stored_end = header_len + body_len
    erased = False
    if crc32c(raw[128:stored_end]) != body_crc:
        erased = kind == CHUNK and body_len > 0 and is_zero(raw[header_len:])
        if not erased:
            raise NoBlock("body_crc")
    if not is_zero(raw[stored_end:]):
        raise NoBlock("padding")
    return Block(offset, kind, flags, header_len, total_len, body_len, segment_id, block_no, stream_id, slot, first_s,
                 last_s, stream_seq, durable, tag, erased, raw)


def _fields_agree(kind, flags, header_len, total_len, body_len):
    extended = kind == STREAM or (kind == CHUNK and flags & HASHED)
    return (
        kind != 0
        and header_len >= (160 if extended else 128)
        and total_len % PAGE == 0
        and PAGE <= total_len <= MAX_BLOCK
        and header_len + body_len <= total_len
        and (kind not in (SEGMENT, FOOTER) or total_len == PAGE)
    )


def is_zero(data):
    return data.count(0) == len(data)


def _take(form, body, offset=0):
    try:
        return struct.unpack_from(form, body, offset)
    except struct.error as error:
        raise Malformed(f"the body is shorter than its table: {error}") from None


@dataclass(frozen=True)
class Segment:
    """§4.1."""

    major: int
    minor: int
    shard: int
    incompat: int
    ro_compat: int
    compat: int
    node_id: bytes
    run_id: bytes
    prev_segment_id: bytes
    chain_seq: int
    created_s: int
    node_key: bytes


def parse_major(body):
    """The major version, which says how to read the rest."""
    return _take("<H", body)[0]


def parse_segment(body):
    return Segment(*_take("<HHIQQQ16s16s16sQQ32s", body))


@dataclass(frozen=True)
class KeyEntry:
    """§4.2."""

    kem: int
    kdf: int
    aead: int
    slot: int
    scope: int
    i: int
    n: int
    flags: int
    stream_id: bytes
    hint: bytes
    enc: bytes
    ct: bytes

    @property
    def erasable(self):
        return bool(self.flags & 1)


ENC_LEN = {0x647A: 1120, 0x0010: 65}


def parse_key(body):
    """The entries of a KEY body, unknown suites and scopes included: their frame is the same for all."""
    (count, _) = _take("<II", body)
    entries, at = [], 8
    for _ in range(count):
        (entry_len, kem, kdf, aead, slot, scope, i, n, flags, stream_id, hint, enc_len, ct_len, _) = _take(
            "<HHHHIBBBB16s16sHHI", body, at)
        if entry_len % 8 or at + entry_len > len(body) or 56 + enc_len + ct_len > entry_len:
            raise Malformed("an entry does not fit")
        known = ENC_LEN.get(kem)
        if known is not None and (kdf, aead) == (1, 2) and (enc_len, ct_len) != (known, 80):
            raise Malformed("an entry's lengths are not those of its suite")
        enc_end = at + 56 + enc_len
        entries.append(KeyEntry(kem, kdf, aead, slot, scope, i, n, flags, stream_id, hint,
                                body[at + 56 : enc_end], body[enc_end : enc_end + ct_len]))
        at += entry_len
    return entries


@dataclass(frozen=True)
class Head:
    """A chain end that a CHECKPOINT names (§4.5)."""

    run_id: bytes
    shard: int
    flags: int
    chain_seq: int
    segment_id: bytes
    durable_upto: int
    leaf_count: int
    root: bytes


@dataclass(frozen=True)
class Checkpoint:
    """§4.5."""

    durable_upto: int
    leaf_count: int
    root: bytes
    prev_root: bytes
    time_s: int
    flags: int
    signature: bytes
    signed: bytes
    heads: list

    @property
    def prev_root_known(self):
        return bool(self.flags & 1)


def parse_checkpoint(body):
    (upto, leaves, root, prev_root, time_s, flags, count, signature) = _take("<QQ32s32sQII64s", body)
    if 160 + 96 * count > len(body):
        raise Malformed("heads do not fit")
    heads = [Head(*struct.unpack_from("<16sIIQ16sQQ32s", body, 160 + 96 * k)) for k in range(count)]
    # What is signed of the body is its first 88 bytes, in their order.
    return Checkpoint(upto, leaves, root, prev_root, time_s, flags, signature, body[:88], heads)


@dataclass(frozen=True)
class Origin:
    """§4.6."""

    segment_id: bytes
    node_id: bytes
    run_id: bytes
    shard: int
    flags: int
    chain_seq: int
    first_block_no: int
    last_block_no: int


def parse_origin(body):
    origin = Origin(*_take("<16s16s16sIIQQQ", body))
    if origin.first_block_no > origin.last_block_no:
        raise Malformed("a range that ends before it begins")
    return origin


@dataclass(frozen=True)
class Index:
    """§4.7; `rows` are cut to the fields known here."""

    kind: int
    part: int
    rows: list


_ROWS = {CHUNK_ROWS: "<QIIQQQQ", STREAM_ROWS: "<16sQIIQQQQ", KEY_ROWS: "<QII"}


def parse_index(body):
    (kind, row_len, row_count, part) = _take("<IIII", body)
    if kind not in ROW_LEN:
        return Index(kind, part, [])
    if row_len < ROW_LEN[kind] or 16 + row_len * row_count > len(body):
        raise Malformed("rows do not fit")
    rows = [struct.unpack_from(_ROWS[kind], body, 16 + row_len * k) for k in range(row_count)]
    return Index(kind, part, rows)


@dataclass(frozen=True)
class Footer:
    """§4.8."""

    flags: int
    chunks: tuple
    streams: tuple
    keys: tuple
    leaf_count: int
    root: bytes
    prev_root: bytes
    durable_upto: int
    data_end: int
    chunk_count: int
    first_s: int
    last_s: int
    signed_leaf_count: int
    closed_s: int
    signature: bytes
    signed: bytes


def parse_footer(body):
    f = _take("<IIQQQQQQQ32s32sQQQQQQQ64s", body)
    return Footer(f[0], f[2:4], f[4:6], f[6:8], *f[8:], body[:184])


@dataclass(frozen=True)
class TombstoneEntry:
    """§4.9; `what` is the reason of a deletion, or the slot of an erasure."""

    segment_id: bytes
    run_id: bytes
    shard: int
    what: int
    chain_seq: int
    root: bytes


@dataclass(frozen=True)
class Tombstone:
    """§4.9."""

    kind: int
    time_s: int
    signature: bytes
    signed: bytes
    entries: list


def parse_tombstone(body):
    (kind, count, time_s, signature) = _take("<IIQ64s", body)
    if kind not in (DELETED, ERASED):
        return Tombstone(kind, time_s, signature, b"", [])
    end = 80 + 80 * count
    if end > len(body):
        raise Malformed("entries do not fit")
    entries = [TombstoneEntry(*struct.unpack_from("<16s16sIIQ32s", body, 80 + 80 * k)) for k in range(count)]
    return Tombstone(kind, time_s, signature, body[:16] + body[80:end], entries)


@dataclass(frozen=True)
class StreamText:
    """The plaintext of a STREAM (§4.3)."""

    ssrc: int
    media_index: int
    clock_rate: int
    opened_ns: int
    camera_id: str
    sdp: str


def parse_stream(plain):
    (ssrc, media_index, id_len, sdp_len, clock_rate, opened_ns, _) = _take("<IHHIIQQ", plain)
    if 32 + id_len + sdp_len > len(plain):
        raise Malformed("camera_id and sdp do not fit")
    try:
        camera_id = plain[32 : 32 + id_len].decode("utf-8")
        sdp = plain[32 + id_len : 32 + id_len + sdp_len].decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("text that is not UTF-8") from None
    return StreamText(ssrc, media_index, clock_rate, opened_ns, camera_id, sdp)


@dataclass(frozen=True)
class Packet:
    arrival_ns: int
    rtcp: bool
    data: bytes


@dataclass(frozen=True)
class ChunkText:
    """The plaintext of a CHUNK (§4.4)."""

    base_ns: int
    lost_before: int
    chunks_so_far: int
    packets: list


def parse_chunk(plain):
    (base_ns, count, lost_before, so_far, _) = _take("<QIIQQ", plain)
    packets, at = [], 32
    while at < len(plain):
        (length, flags, delta_us) = _take("<HHI", plain, at)
        at += 8
        if at + length > len(plain):
            raise Malformed("a record does not fit")
        packets.append(Packet(base_ns + 1000 * delta_us, bool(flags & 1), plain[at : at + length]))
        at += length
    if len(packets) != count:
        raise Malformed("records and packet_count differ")
    return ChunkText(base_ns, lost_before, so_far, packets)
