"""How a log, its lanes and its segments begin: the root key of `genesis`, the certified key of `lane_open`, the tree
of `segment_open`.
"""

from __future__ import annotations

import base64
import binascii
import re

from kernel.canonical import Value
from kernel.chain import GENESIS_PREV
from kernel.entry import certificate_bytes
from kernel.errors import ChainError, NoteError, TrustError
from kernel.marks import Claim
from kernel.merkle import Tree
from kernel.note import VerifierKey, Verify, lane_name, parse_verifier_key
from kernel.trust import is_lane, log_id_of

_HEAD = re.compile(r"[0-9a-f]{64}")


def genesis_root(entry: Value, root: VerifierKey | None) -> VerifierKey:
    """The root key that a genesis entry names, which is `root` where one is known; else ChainError."""
    fields = _fields(entry)
    named = _key(fields, "root")
    try:
        log_id = log_id_of(named)
    except TrustError as error:
        raise ChainError(str(error)) from None
    if fields.get("log_id") != log_id or fields.get("origin") != named.name:
        raise ChainError("log_id, origin and root of genesis do not agree")
    if root is not None and named != root:
        raise ChainError(f"genesis names another root key ({named.name}, {named.kid}) than the trusted one")
    return named


def lane_key(entry: Value, lane: str, root: VerifierKey | None, verify: Verify) -> VerifierKey:
    """The key that a lane_open entry brings, certified by `root` where one is known; else ChainError."""
    fields = _fields(entry)
    key = _key(fields, "key")
    claims(entry, lane)
    if root is None:
        return key
    log_id = log_id_of(root)
    if key.name != lane_name(log_id, lane):
        raise ChainError(f"the lane's key is named {key.name}, expected {lane_name(log_id, lane)}")
    if not verify(root.public, _certificate(fields), certificate_bytes(log_id, lane, str(key))):
        raise ChainError("the lane's key is not certified by the root key")
    return key


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
    """What a lane_open entry of lane `by` recorded of other lanes, or ChainError."""
    siblings = _fields(entry).get("siblings")
    if not isinstance(siblings, list):
        raise ChainError("siblings is not a list")
    return dict(_claim(sibling, by) for sibling in siblings)


def _claim(sibling: Value, by: str) -> tuple[str, Claim]:
    match sibling:
        case {"lane": str(lane), "entries": int(entries), "head": str(head)} if (
            is_lane(lane) and _HEAD.fullmatch(head) and entries >= 0 and (entries > 0 or head == GENESIS_PREV)
        ):
            return lane, Claim(entries, head, f"lane {by}")
    raise ChainError("siblings holds something other than lane, entries and head")


def _fields(entry: Value) -> dict[str, Value]:
    if not isinstance(entry, dict):
        raise ChainError("an entry is an object")
    return entry


def _key(fields: dict[str, Value], name: str) -> VerifierKey:
    try:
        return parse_verifier_key(str(fields.get(name)))
    except NoteError as error:
        raise ChainError(f"{name}: {error}") from None


def _certificate(fields: dict[str, Value]) -> bytes:
    try:
        return base64.b64decode(str(fields.get("certificate")), validate=True)
    except (binascii.Error, ValueError):
        raise ChainError("certificate is not base64") from None
