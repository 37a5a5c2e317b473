"""The RFC 6962 tree over the lines of a lane, kept as O(log n) hashes (a compact range)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Self

EMPTY_ROOT = sha256().digest()


def leaf_hash(line: bytes) -> bytes:
    """The leaf of a line: the whole line, signature included, without its LF."""
    return sha256(b"\0" + line).digest()


def leaf_hashes(lines: Iterable[bytes]) -> list[bytes]:
    """The leaves of whole lines, LFs included."""
    return [sha256(b"\0" + line[:-1]).digest() for line in lines]


class Tree:
    """A tree that only grows. `size` is the number of leaves."""

    __slots__ = ("_complete", "size")

    def __init__(self) -> None:
        self.size = 0
        self._complete: list[bytes | None] = []

    @classmethod
    def resumed(cls, complete: Sequence[bytes | None]) -> Self:
        """The tree whose `complete` is this; the last of them is no None."""
        tree = cls()
        tree._complete = list(complete)
        tree.size = sum(2**level for level, node in enumerate(complete) if node is not None)
        return tree

    @property
    def complete(self) -> tuple[bytes | None, ...]:
        """The root of the complete subtree of 2^n leaves for each bit n of the size, None where that is 0."""
        return tuple(self._complete)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash at the end."""
        self.extend((leaf,))

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaf hashes at the end, a whole level at a time."""
        self.size += len(leaves)
        nodes, level = list(leaves), 0
        while nodes:
            if level == len(self._complete):
                self._complete.append(None)
            waiting = self._complete[level]
            if waiting is not None:
                nodes.insert(0, waiting)
            self._complete[level] = nodes.pop() if len(nodes) % 2 else None
            pairs = iter(nodes)
            nodes = [sha256(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            level += 1

    def root(self) -> bytes:
        """The Merkle tree hash of all leaves so far."""
        root = None
        for node in self._complete:
            if node is not None:
                root = node if root is None else sha256(b"\1" + node + root).digest()
        return EMPTY_ROOT if root is None else root
