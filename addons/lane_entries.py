"""The entries of a lane, one by one, each of them proved by itself: chain, canonical form, and the key of its place.

Slower than a start, which trusts signed heads. For lanes that are short, or of which no head can be trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from addons import keys
from addons.audit_log import lines, open_regular
from addons.rebuilding import parsed
from addons.segment import segment_name, segment_names
from kernel import chain, entry
from kernel.errors import CanonicalError, ChainError
from kernel.key_chain import KeyChain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kernel.note import VerifierKey


class Proved(NamedTuple):
    """An entry that follows from the one before it. `line` has its line feed, `head` is its hash in hex."""

    seq: int
    body: dict[str, Any]
    head: str
    line: bytes


class LaneEntries:
    """The entries of the lane in a folder. `keys` are the lane's as far as it was read."""

    def __init__(self, folder: Path, lane: str, root: VerifierKey) -> None:
        self._folder, self._lane, self._root = folder, lane, root
        self.keys = KeyChain(lane, root, keys.verifies)

    def __iter__(self) -> Iterator[Proved]:
        """Each entry in turn, up to an unfinished last line; `ChainError` or `CanonicalError` at the first bad one."""
        seq, prev = 0, chain.GENESIS_PREV
        names = segment_names(self._folder)
        for number, name in enumerate(names):
            if name != segment_name(number):
                raise ChainError(f"{segment_name(number)} is missing")
            with open_regular(self._folder / name) as file:
                for line in lines(file):
                    if not line.endswith(b"\n"):
                        if name == names[-1] and len(line) <= chain.MAX_LINE_BYTES:
                            # Somebody writes it, or died: the next writer puts the end of the lane in order.
                            return
                        raise ChainError(f"entry {seq}: a line without its line feed")
                    body, prev = self._proved(line, seq, prev)
                    yield Proved(seq, body, prev, line)
                    seq += 1

    def _proved(self, line: bytes, seq: int, prev: str) -> tuple[dict[str, Any], str]:
        try:
            raw, kid, signature = chain.split(line)
            body, hashed = parsed(raw), chain.entry_hash(raw)
            place = (entry.VERSION, seq, prev, self._lane)
            if (body.get("v"), body.get("seq"), body.get("prev"), body.get("lane")) != place:
                raise ChainError("it does not follow from the entry before it")
            key = self._signer(body, seq)
            if key is None or kid != key.kid or not keys.verifies(key.public, signature, chain.signed_bytes(hashed)):
                raise ChainError("the lane's key did not sign it")
            if body.get("type") == "key_rotate":
                self.keys.rotate(body)
        except (ChainError, CanonicalError) as fault:
            raise ChainError(f"entry {seq}: {fault}") from fault
        return body, hashed.hex()

    def _signer(self, body: dict[str, Any], seq: int) -> VerifierKey | None:
        kind = body.get("type")
        if kind == "genesis" and not seq:
            return self._root
        return self.keys.begin(body) if kind == "lane_open" else self.keys.current
