"""CRC32C (FORMAT.md §1), fast enough without a native library.

A byte-by-byte loop takes minutes where the interpreter takes seconds for anything else. But CRC is linear, so a
long input can be cut into lanes of equal length that advance together: one step of all lanes is four table
look-ups, done for all lanes at once by `bytes.translate`, and XORs of long integers. At the end the lanes are
joined pairwise by "advance over n zero bytes", which is linear too.
"""

_POLY = 0x82F63B78  # Castagnoli, reflected
_LANE = 64  # bytes in a lane


def _byte_table():
    table = []
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLY if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _byte_table()
# _PLANES[k]: byte k of the table's entries, as a table for bytes.translate.
_PLANES = [bytes((entry >> (8 * k)) & 0xFF for entry in _TABLE) for k in range(4)]


def _xor(a, b):
    return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")


def _over_zeros(count):
    """Four tables of 256: byte k of a raw state, advanced over `count` zero bytes."""
    tables = []
    for k in range(4):
        images = [_raw(1 << (8 * k + bit), bytes(count)) for bit in range(8)]
        table = [0] * 256
        for index in range(1, 256):
            low = index & -index
            table[index] = table[index ^ low] ^ images[low.bit_length() - 1]
        tables.append(table)
    return tables


def _raw(state, data):
    """The plain definition; also the oracle of the fast way (see `selftest`)."""
    for byte in data:
        state = (state >> 8) ^ _TABLE[(state ^ byte) & 0xFF]
    return state


_JOIN = _over_zeros(_LANE)


def _lanes(data):
    """The raw CRCs, each begun at 0, of the lanes of `data`, whose length is a multiple of _LANE."""
    count = len(data) // _LANE
    state = [bytes(count)] * 4
    for step in range(_LANE):
        index = _xor(state[0], data[step::_LANE])
        state = [_xor(state[k + 1], index.translate(_PLANES[k])) for k in range(3)] + [index.translate(_PLANES[3])]
    return [a | b << 8 | c << 16 | d << 24 for a, b, c, d in zip(*state)]


def crc32c(data):
    """The CRC32C of `data` (bytes)."""
    state = 0xFFFFFFFF
    whole = len(data) - len(data) % _LANE
    if whole >= 8 * _LANE:
        t0, t1, t2, t3 = _JOIN
        for lane in _lanes(bytes(data[:whole])):
            state = lane ^ t0[state & 255] ^ t1[state >> 8 & 255] ^ t2[state >> 16 & 255] ^ t3[state >> 24]
        data = data[whole:]
    return _raw(state, data) ^ 0xFFFFFFFF


def selftest():
    """RFC 3720 B.4, and the fast way against the plain one at the lengths where they part."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    text = bytes(index * 7 % 251 for index in range(4096))
    for length in (0, 1, 1023, 1024, 1025, 4000, 4096):
        assert crc32c(text[:length]) == _raw(0xFFFFFFFF, text[:length]) ^ 0xFFFFFFFF
