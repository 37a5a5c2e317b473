"""What lies between two heads of a lane on this disk: the proof that the one grew from the other.

The lines before the older head are not read again: its compact range is known from the proof before, or from the
`segment_open` before it. So a proof costs reading what was written since, and after a start one segment more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from addons import codec
from addons.anchors.protocol import AnchorError
from addons.audit_log import lines, open_regular
from addons.segment import segment_names
from kernel import chain
from kernel.errors import KernelError
from kernel.merkle import Tree, leaf_hashes
from kernel.opening import resumed_tree
from kernel.proofs import Growth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kernel.note import Checkpoint
    from kernel.proofs import Proof

_LINES_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class _Place:
    """A place in the lines of a lane: the segment, the byte in it, and the tree over all lines before."""

    segment: int
    offset: int
    tree: Tree


class History:
    """Proofs from the lines of the lanes below `lanes`. For one thread at a time."""

    def __init__(self, lanes: Path) -> None:
        self._lanes = lanes
        self._known: dict[str, _Place] = {}

    def proof(self, lane: str, old: int, head: Checkpoint) -> Proof:
        """The consistency proof from the first `old` entries to `head`; `AnchorError` where the lines are not those."""
        try:
            place = self._place(lane, old)
            self._known[lane] = place
            if place.tree.size != old:
                raise AnchorError(f"lane {lane} holds {place.tree.size} entries on this disk, and the anchor has {old}")
            growth = Growth.after(place.tree, head.size)
            for leaves, _ in self._leaves(lane, place, head.size - old):
                growth.extend(leaves)
        except (OSError, KernelError) as fault:
            raise AnchorError(f"lane {lane} cannot be read: {fault}; governor audit verify says more") from fault
        if growth.read < head.size or growth.root() != head.root:
            raise AnchorError(f"lane {lane}: the lines on this disk are not those of its signed head of {head.size} "
                              "entries; governor audit verify says more")
        return growth.proof()

    def _place(self, lane: str, size: int) -> _Place:
        """The place behind the first `size` lines, or the end of the lane before it."""
        known = self._known.get(lane)
        start = known if known is not None and known.tree.size <= size else self._beginning(lane, size)
        tree = Tree.resumed(start.tree.complete)
        at = start.segment, start.offset
        for leaves, behind in self._leaves(lane, start, size - tree.size):
            tree.extend(leaves)
            at = behind
        return _Place(*at, tree)

    def _beginning(self, lane: str, size: int) -> _Place:
        """The beginning of the last segment before which no more than `size` lines lie."""
        folder = self._lanes / lane
        for name in reversed(segment_names(folder)[1:]):
            with open_regular(folder / name) as file:
                first = next(lines(file), b"")
            if first.endswith(b"\n"):
                tree = resumed_tree(codec.parse(chain.split(first)[0]), name)
                if tree.size <= size:
                    return _Place(int(name.partition(".")[0]), 0, tree)
        return _Place(0, 0, Tree())

    def _leaves(self, lane: str, start: _Place, count: int) -> Iterator[tuple[list[bytes], tuple[int, int]]]:
        """The leaves of the next `count` lines, in pieces, each with the segment and the byte behind it."""
        folder, offset = self._lanes / lane, start.offset
        for name in segment_names(folder)[start.segment:]:
            with open_regular(folder / name) as file:
                file.seek(offset)
                while found := list(islice(lines(file), min(_LINES_AT_ONCE, count))):
                    if not found[-1].endswith(b"\n"):
                        return
                    offset += sum(map(len, found))
                    count -= len(found)
                    yield leaf_hashes(found), (int(name.partition(".")[0]), offset)
            if not count:
                return
            offset = 0
