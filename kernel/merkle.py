"""The RFC 6962 tree over the lines of a lane, kept as O(log n) hashes (a compact range)."""

from __future__ import annotations

from hashlib import sha256

EMPTY_ROOT = sha256().digest()


def leaf_hash(line: bytes) -> bytes:
    """The leaf of a line: the whole line, signature included, without its LF."""
    return sha256(b"\0" + line).digest()


class Tree:
    """A tree that only grows. `size` is the number of leaves."""

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash at the end."""
        peaks = self._peaks
        size = self.size
        # Each set bit of the size is a complete subtree; a new leaf merges those that the carry runs through.
        while size & 1:
            leaf = sha256(b"\1" + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The Merkle tree hash of all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = sha256(b"\1" + peak + root).digest()
        return root
