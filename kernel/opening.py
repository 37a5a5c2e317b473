"""How a log, its lanes and its segments begin: the root key of `genesis`, what `lane_open` says of other lanes, the
tree of `segment_open`. The keys of lanes are in key_chain.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernel.canonical import Value
from kernel.chain import GENESIS_PREV
from kernel.errors import ChainError, NoteError, TrustError
from kernel.loss import loss_in
from kernel.merkle import Tree
from kernel.note import VerifierKey, parse_verifier_key
from kernel.trust import is_lane, log_id_of

_HEAD = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Claim:
    """What the `lane_open` of another lane recorded: after `entries` entries the last hash was `head` (hex)."""

    entries: int
    head: str
    by: str


def genesis_root(entry: Value, root: VerifierKey | None) -> VerifierKey:
    """The root key that a genesis entry names, which is `root` where one is known; else ChainError."""
    fields = fields_of(entry)
    named = key_in(fields, "root")
    try:
        log_id = log_id_of(named)
    except TrustError as error:
        raise ChainError(str(error)) from None
    if fields.get("log_id") != log_id or fields.get("origin") != named.name:
        raise ChainError("log_id, origin and root of genesis do not agree")
    if root is not None and named != root:
        raise ChainError(f"genesis names another root key ({named.name}, {named.kid}) than the trusted one")
    return named


def resumed_tree(entry: Value, segment: str) -> Tree:
    """The tree over the entries before a segment, as the segment_open entry in its file says; else ChainError."""
    match entry:
        case {"segment": str(named), "entries": int(entries), "tree": list(nodes)} if (
            named == segment
            and type(entries) is int
            and entries > 0
            and len(nodes) == entries.bit_length()
            and all(_is_node(node, entries >> level & 1) for level, node in enumerate(nodes))
        ):
            return Tree.resumed([bytes.fromhex(node) if isinstance(node, str) else None for node in nodes])
    raise ChainError("segment_open is no beginning of this segment")


def _is_node(node: Value, there: int) -> bool:
    return isinstance(node, str) and _HEAD.fullmatch(node) is not None if there else node is None


def claims(entry: Value, by: str) -> dict[str, Claim]:
    """What a lane_open entry of lane `by` recorded of other lanes, the one that it succeeds too, or ChainError."""
    siblings = fields_of(entry).get("siblings")
    if not isinstance(siblings, list):
        raise ChainError("siblings is not a list")
    recorded = dict(_claim(sibling, by) for sibling in siblings)
    if len(recorded) != len(siblings):
        raise ChainError("siblings names a lane twice")
    loss = loss_in(entry, by)
    if loss is not None:
        recorded[loss.lane] = Claim(loss.entries, loss.head, f"lane {by}")
    return recorded


def _claim(sibling: Value, by: str) -> tuple[str, Claim]:
    match sibling:
        case {"lane": str(lane), "entries": int(entries), "head": str(head)} if (
            is_lane(lane)
            and _HEAD.fullmatch(head)
            and type(entries) is int
            and entries >= 0
            and (entries > 0 or head == GENESIS_PREV)
        ):
            return lane, Claim(entries, head, f"lane {by}")
    raise ChainError("siblings holds something other than lane, entries and head")


def fields_of(entry: Value) -> dict[str, Value]:
    """The fields of an entry, or ChainError where it is no object."""
    if not isinstance(entry, dict):
        raise ChainError("an entry is an object")
    return entry


def key_in(fields: dict[str, Value], name: str) -> VerifierKey:
    """The key in a field of an entry, or ChainError."""
    try:
        return parse_verifier_key(str(fields.get(name)))
    except NoteError as error:
        raise ChainError(f"{name}: {error}") from None
