"""A lane that was given up, and the one that goes on in its place: what the lane_open of the second says of the first.

The first stays what it is. Of it counts what its first `entries` entries say, the last of them with the hash `head`.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from kernel.canonical import Value
from kernel.chain import GENESIS_PREV
from kernel.entry import Body, compromise_bytes
from kernel.errors import ChainError, NoteError
from kernel.note import VerifierKey, Verify, base64_bytes
from kernel.trust import is_lane, log_id_of

KEY_COMPROMISED = "key_compromised"
_RESULTS = frozenset({"tampered", "rolled_back", "incomplete", KEY_COMPROMISED})
_HASH = re.compile(r"[0-9a-f]{64}")
_NUMBERED = re.compile(r"(.+)-([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Loss:
    """What is known of a lane that was given up. `found` says in words what was wrong with it.

    `state` is the blake3, in hex, of the file with the state that the successor begins with; None where there is none.
    """

    lane: str
    entries: int
    head: str
    result: str
    reason: str
    operator: str
    by: str
    found: str
    state: str | None

    def fields(self) -> Body:
        """The field `loss` of lane_open."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Succession:
    """A loss, and the lane that goes on."""

    successor: str
    loss: Loss


def succeeds(successor: str, lane: str) -> bool:
    """Whether a lane has the name of what goes on in the place of `lane`: main-1 of main, main-2 of main-1."""
    found = _NUMBERED.fullmatch(successor)
    if found is None:
        return False
    base, number = found[1], int(found[2])
    return lane == (base if number == 1 else f"{base}-{number - 1}")


@dataclass(frozen=True, slots=True)
class Compromise:
    """That the entries of a lane from number `entries` on, which key `kid` signed, are vouched for by nobody."""

    lane: str
    kid: str
    entries: int
    head: str

    def is_of(self, loss: Loss | None) -> bool:
        """Whether it speaks of the loss that the lane_open before it tells."""
        told = None if loss is None else (loss.result, loss.lane, loss.entries, loss.head)
        return told == (KEY_COMPROMISED, self.lane, self.entries, self.head)


def compromise_in(entry: Value, root: VerifierKey | None, verify: Verify) -> Compromise:
    """What a key_compromised entry says, which `root` signed where one is known; else `ChainError`."""
    match entry:
        case {"of": str(lane), "kid": str(kid), "entries": int(entries), "head": str(head), "statement": str(signed)}:
            if root is not None and not verify(root.public, _signature(signed), compromise_bytes(
                    log_id_of(root), lane, kid, entries, head)):
                raise ChainError("key_compromised is not said by the root key")
            return Compromise(lane, kid, entries, head)
    raise ChainError("key_compromised does not say which key, and up to where it is trusted")


def _signature(text: str) -> bytes:
    try:
        return base64_bytes(text)
    except NoteError as error:
        raise ChainError(f"statement: {error}") from None


def loss_in(entry: Value, successor: str) -> Loss | None:
    """The loss that the lane_open of `successor` tells; None where it succeeds no lane. `ChainError` where it is none.

    An entry that is no object tells none: that is found by whoever reads it for what it is.
    """
    told = entry.get("loss") if isinstance(entry, dict) else None
    if told is None:
        return None
    match told:
        case {"lane": str(lane), "entries": int(entries), "head": str(head), "result": str(result),
              "reason": str(reason), "operator": str(operator), "by": str(by), "found": str(found),
              "state": str() | None as state, **rest} if (
            not rest
            and is_lane(lane)
            and succeeds(successor, lane)
            and type(entries) is int
            and entries >= 0
            and _HASH.fullmatch(head)
            and (entries > 0 or head == GENESIS_PREV)
            and result in _RESULTS
            and (state is None or _HASH.fullmatch(state))
        ):
            return Loss(lane, entries, head, result, reason, operator, by, found, state)
    raise ChainError("loss is not what is known of the lane before this one")
