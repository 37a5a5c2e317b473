"""Where the reading of a lane begins at a start: the newest segment and the newest state that are vouched for.

A segment's first entry tells the tree over all entries before it, and a `state_snapshot` tells the digest of the file
that holds what they made. Both are signed with the key of their segment. What is not exactly as signed is passed over:
then more is read, up to the whole lane.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any

from addons import codec, kept_states, keys
from addons.lineage import states_before
from kernel import chain, entry, snapshot
from kernel.errors import CanonicalError, ChainError
from kernel.folding import States
from kernel.merkle import Tree
from kernel.opening import resumed_tree

if TYPE_CHECKING:
    from pathlib import Path

    from addons.home import Home, Paths
    from kernel.key_chain import KeyChain

_SNAPSHOT = b'"type":"state_snapshot"'


@dataclass(frozen=True, slots=True)
class Beginning:
    """A segment to read from, with what the entries before it make of the chain, and those below `at` of the states.

    `at` is the number of an entry of this segment or of a later one.
    """

    number: int
    tree: Tree
    prev: str
    states: States
    at: int


def beginning(home: Home, lane: str, segments: Sequence[Path], certified: KeyChain, signed: int) -> Beginning:
    """Where to begin, so that the reading comes by the tree of the first `signed` entries, whose head was signed."""
    kept = _newest_snapshot(home.paths, lane, segments, certified)
    states, at = (kept.states, kept.at) if kept is not None else (states_before(home.paths, lane, home.root), 0)
    for path in reversed(segments[1:]):
        resumed = _resumed(path, lane, certified)
        if resumed is not None and resumed[0].size <= min(signed, at):
            tree, prev = resumed
            return Beginning(int(path.stem), tree, prev, states, at)
    return Beginning(0, Tree(), chain.GENESIS_PREV, states, at)


def parsed(raw: bytes) -> dict[str, Any]:
    """The entry whose canonical form is `raw`; `CanonicalError` or `ChainError` where there is none."""
    body = codec.parse(raw)
    if not isinstance(body, dict):
        raise ChainError("an entry is an object")
    return body


def signed_by(certified: KeyChain, line: bytes) -> dict[str, Any] | None:
    """The entry in a line that was signed with the key of its place in the lane; None where the line is none."""
    try:
        raw, kid, signature = chain.split(line)
        body = parsed(raw)
    except (CanonicalError, ChainError):
        return None
    seq = body.get("seq")
    key = certified.signer_of(seq) if isinstance(seq, int) else None
    message = chain.signed_bytes(chain.entry_hash(raw))
    return body if key and kid == key.kid and keys.verifies(key.public, signature, message) else None


def _entry(certified: KeyChain, lane: str, kind: str, line: bytes) -> dict[str, Any] | None:
    """The entry of a line, where it is one of this lane and kind, signed with the key of its place."""
    body = signed_by(certified, line)
    if body is None:
        return None
    return body if (body.get("v"), body.get("type"), body.get("lane")) == (entry.VERSION, kind, lane) else None


def _resumed(path: Path, lane: str, certified: KeyChain) -> tuple[Tree, str] | None:
    """The tree over the entries before a segment, and the hash of the last of them, as the segment itself tells."""
    with path.open("rb") as file:
        body = _entry(certified, lane, "segment_open", file.readline(chain.MAX_LINE_BYTES))
    if body is None:
        return None
    try:
        tree = resumed_tree(body, path.name)
    except ChainError:
        return None
    return (tree, str(body.get("prev"))) if body.get("seq") == tree.size else None


def _newest_snapshot(
    home: Paths, lane: str, segments: Sequence[Path], certified: KeyChain
) -> snapshot.Snapshot | None:
    """The newest state that the lane itself vouches for and whose file is there as it was written."""
    for path in reversed(segments):
        for line in _lines_with(path, _SNAPSHOT):
            body = _entry(certified, lane, "state_snapshot", line)
            found = None if body is None else kept_states.kept(home.states, body.get("digest"))
            if found is not None and body is not None and (found.lane, found.at) == (lane, body.get("at")):
                return found
    return None


def _lines_with(path: Path, mark: bytes) -> Iterator[bytes]:
    """The lines of a file that hold `mark`, the last one first."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        at = len(content)
        while (at := content.rfind(mark, 0, at)) >= 0:
            start = content.rfind(b"\n", 0, at) + 1
            end = content.find(b"\n", at) + 1
            yield content[start : end or len(content)]
            at = start
