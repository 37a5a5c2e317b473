"""RFC 6962 proofs over the lines of a lane: that a line is in a tree, and that one tree is the beginning of another.

A proof is a list of subtree hashes, the deepest first. Making one takes a single pass over the leaf hashes; checking
one takes the hashes alone (RFC 9162, sections 2.1.3.2 and 2.1.4.2).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Self

from kernel.errors import ProofError
from kernel.merkle import Tree

type Proof = tuple[bytes, ...]
type Span = tuple[int, int]
"""The leaves from the first number on and below the second: a node of the tree."""


class _Cut:
    """A tree of `size` leaves, read once, of which the hashes of those nodes are kept that `opens` does not divide."""

    def __init__(self, size: int, opens: Callable[[int, int], bool]) -> None:
        self.size = size
        self._whole = list(_whole_spans((0, size), opens))
        self._hashes: dict[Span, bytes] = {}
        self._at = 0
        self._tree = Tree()

    @property
    def read(self) -> int:
        """How many leaves have come; no more than `size` are taken."""
        return self.size if self._at == len(self._whole) else self._whole[self._at][0] + self._tree.size

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Take the next leaf hashes. What comes after the last leaf of the tree is passed over."""
        while leaves and self._at < len(self._whole):
            start, end = self._whole[self._at]
            missing = end - start - self._tree.size
            self._tree.extend(leaves[:missing])
            leaves = leaves[missing:]
            if self._tree.size == end - start:
                self._hashes[start, end] = self._tree.root()
                self._at += 1
                self._tree = Tree()

    def root(self) -> bytes:
        """The root of the whole tree."""
        return self._hash((0, self.size))

    def _hash(self, span: Span) -> bytes:
        if self.read < self.size:
            raise ProofError(f"the tree has {self.size} leaves, and {self.read} have come")
        if span not in self._hashes:
            left, right = _halves(span)
            self._hashes[span] = _node(self._hash(left), self._hash(right))
        return self._hashes[span]


class Inclusions(_Cut):
    """Makes inclusion proofs of the leaves `wanted` in the tree of the first `size`: O(log size) memory for each."""

    def __init__(self, size: int, wanted: Iterable[int]) -> None:
        self.wanted = sorted(set(wanted))
        if self.wanted and not 0 <= self.wanted[0] <= self.wanted[-1] < size:
            raise ProofError(f"a tree of {size} leaves does not hold leaf {self.wanted[-1]}")
        super().__init__(size, self._opens)

    def proof(self, index: int) -> Proof:
        """The proof of one of the leaves `wanted`, once all leaves have come."""
        siblings, span = [], (0, self.size)
        while span != (index, index + 1):
            left, right = _halves(span)
            span, sibling = (left, right) if index < left[1] else (right, left)
            siblings.append(self._hash(sibling))
        return tuple(reversed(siblings))

    def _opens(self, start: int, end: int) -> bool:
        at = bisect_left(self.wanted, start)
        return at < len(self.wanted) and self.wanted[at] < end


class Growth(_Cut):
    """Makes the consistency proof between the trees of the first `old` leaves and of the first `size`."""

    def __init__(self, old: int, size: int) -> None:
        if not 0 < old <= size:
            raise ProofError(f"a tree of {size} leaves did not grow from one of {old}")
        self.old = old
        super().__init__(size, lambda start, end: start < old < end)

    @classmethod
    def after(cls, old: Tree, size: int) -> Self:
        """The same where the old tree is known: only the leaves after it are to come."""
        growth = cls(old.size, size)
        # The nodes that end with the old tree or before it are its complete subtrees, the largest first.
        known = [node for node in reversed(old.complete) if node is not None] if old.size < size else [old.root()]
        growth._hashes = dict(zip(growth._whole, known, strict=False))
        growth._at = len(known)
        return growth

    def proof(self) -> Proof:
        """RFC 6962, section 2.1.2, once all leaves have come."""
        others, span = self._descent()
        hashes = [self._hash(other) for other in others]
        if span[0] > 0:
            # Where it begins at 0 it is the old root itself, which is known to whoever checks.
            hashes.append(self._hash(span))
        return tuple(reversed(hashes))

    def old_root(self) -> bytes:
        """The root of the first `old` leaves, once all leaves have come."""
        others, span = self._descent()
        root = self._hash(span)
        for other in reversed(others):
            if other[0] < span[0]:
                root = _node(self._hash(other), root)
        return root

    def _descent(self) -> tuple[list[Span], Span]:
        """The node that ends with the old tree, and the nodes passed by on the way down to it."""
        others, span = [], (0, self.size)
        while span[1] != self.old:
            left, right = _halves(span)
            span, other = (left, right) if self.old <= left[1] else (right, left)
            others.append(other)
        return others, span


def included_root(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root of the tree of `size` leaves whose leaf `index` is `leaf`, as `proof` has it, or ProofError."""
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} leaves does not hold leaf {index}")
    root = leaf
    for hashed, is_left in zip(proof, _sides(index, size - 1, len(proof)), strict=True):
        root = _node(hashed, root) if is_left else _node(root, hashed)
    return root


def check_growth(old: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Nothing where `proof` shows the tree of `old` leaves to be the beginning of that of `size`, else ProofError."""
    if not 0 < old <= size:
        raise ProofError(f"a tree of {size} leaves did not grow from one of {old}")
    if old == size:
        if proof or old_root != root:
            raise ProofError("two trees of one size have one root, and a proof of that is empty")
        return
    # A complete old tree is a node of the new one, and stands in no proof.
    hashes = proof if old & old - 1 else (old_root, *proof)
    if not hashes:
        raise ProofError("the proof is too short")
    before = after = hashes[0]
    position, last = old - 1, size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    for hashed, is_left in zip(hashes[1:], _sides(position, last, len(hashes) - 1), strict=True):
        before = _node(hashed, before) if is_left else before
        after = _node(hashed, after) if is_left else _node(after, hashed)
    if before != old_root or after != root:
        raise ProofError(f"the consistency proof does not lead to the {'new' if before == old_root else 'old'} root")


def _sides(position: int, last: int, count: int) -> Iterator[bool]:
    """For each of `count` hashes on the way up from a node, whether it stands on the left; ProofError where the way is
    longer or shorter. `last` is the last node of the same level.
    """
    for _ in range(count):
        if last == 0:
            raise ProofError("the proof is too long")
        is_left = bool(position & 1) or position == last
        yield is_left
        while is_left and position and not position & 1:
            position, last = position >> 1, last >> 1
        position, last = position >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def _halves(span: Span) -> tuple[Span, Span]:
    """The children of a node: the left one has the largest power of two of leaves that leaves some to the right."""
    start, end = span
    middle = start + (1 << (end - start - 1).bit_length() - 1)
    return (start, middle), (middle, end)


def _whole_spans(span: Span, opens: Callable[[int, int], bool]) -> Iterator[Span]:
    start, end = span
    if end - start > 1 and opens(start, end):
        for half in _halves(span):
            yield from _whole_spans(half, opens)
    elif end > start:
        yield span
