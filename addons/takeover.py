"""What verbs did while no Governor ran: they write into lane `cli`, and the next one to run takes it over.

It writes each act into its own lane, with `by` as `cli/SEQ`, and only then does it count: its own lane alone makes its
state, and says how far it has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from addons import keys
from addons.audit_log import lines, open_regular
from addons.rebuilding import parsed
from addons.recovery import tampered
from addons.segment import segment_names
from kernel import chain, entry
from kernel.errors import CanonicalError, ChainError
from kernel.key_chain import KeyChain
from kernel.transition import CLI

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from addons.home import Home

MORE = ("until", "sources")
"""What an act may say beside what every act says."""


def acts(home: Home, taken_over: int) -> list[dict[str, Any]]:
    """The operator entries of lane `cli` after number `taken_over`, in order, as the own lane is to have them.

    `taken_over` is the state's. To be written at a start once the state is known and the clock was looked at, so that a
    clock that was accepted meanwhile is accepted. `StartRefused` where the lane does not hold.
    """
    folder = home.paths.lane(CLI)
    if not home.paths.lane_key(CLI).exists() or not folder.exists():
        return []
    certified = KeyChain(CLI, home.root, keys.verifies)
    found: list[dict[str, Any]] = []
    for seq, body in _entries(folder, certified):
        if seq > taken_over and body["type"] == "operator":
            said = entry.operator(body["act"], body["agent"], body["reason"], body["operator"], f"{CLI}/{seq}")
            found.append(said | {name: body[name] for name in MORE if name in body})
    return found


def _entries(folder: Path, certified: KeyChain) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries of the lane by their numbers, each one checked."""
    seq, prev = 0, chain.GENESIS_PREV
    for name in segment_names(folder):
        with open_regular(folder / name) as file:
            for line in lines(file):
                if not line.endswith(b"\n"):
                    # A verb that is writing it, or died: its next one puts the end of the lane in order.
                    return
                try:
                    body, following = _checked(line, seq, prev, certified)
                except (ChainError, CanonicalError) as fault:
                    raise tampered(folder / name, f"entry {seq}: {fault}") from fault
                yield seq, body
                seq, prev = seq + 1, following


def _checked(line: bytes, seq: int, prev: str, certified: KeyChain) -> tuple[dict[str, Any], str]:
    """The entry of a line and its hash: it follows the one before it, and the lane's key of its place signed it."""
    raw, kid, signature = chain.split(line)
    body, hashed = parsed(raw), chain.entry_hash(raw)
    if (body.get("seq"), body.get("prev"), body.get("lane")) != (seq, prev, CLI):
        raise ChainError("it does not follow from the entry before it")
    kind = body.get("type")
    # The first lane of a log begins with genesis, which the root signs; nothing is done by it.
    if kind == "genesis":
        return body, hashed.hex()
    key = certified.begin(body) if kind == "lane_open" else certified.current
    if key is None or kid != key.kid or not keys.verifies(key.public, signature, chain.signed_bytes(hashed)):
        raise ChainError("the lane's key did not sign it")
    if kind == "key_rotate":
        certified.rotate(body)
    return body, hashed.hex()
