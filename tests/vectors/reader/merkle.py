"""The Merkle tree of RFC 6962 §2.1, grown leaf by leaf (FORMAT.md §6)."""

from hashlib import sha256


class Tree:
    """Keeps the roots of the full subtrees on the right edge only: as many as the leaf count has one bits."""

    def __init__(self):
        self.count = 0
        self._edge = []  # (leaves, hash), largest first

    def add(self, data):
        size, node = 1, sha256(b"\0" + data).digest()
        while self._edge and self._edge[-1][0] == size:
            node = sha256(b"\1" + self._edge.pop()[1] + node).digest()
            size *= 2
        self._edge.append((size, node))
        self.count += 1

    def root(self):
        if not self._edge:
            return sha256(b"").digest()
        node = self._edge[-1][1]
        for _, left in reversed(self._edge[:-1]):
            node = sha256(b"\1" + left + node).digest()
        return node
