"""trust.json and minimum.json: what a log says about its root key, and the sizes that it must not fall below."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kernel.canonical import Value, encode, parse
from kernel.errors import CanonicalError, NoteError, TrustError
from kernel.note import VerifierKey, parse_verifier_key, root_name

_LOG_ID = re.compile(r"[0-9a-f]{16}")
_LANE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class TrustFile:
    """What trust.json says. It proves nothing: only a key from outside the log does."""

    log_id: str
    root: VerifierKey


@dataclass(frozen=True, slots=True)
class Minimum:
    """What minimum.json says: the text of each lane's newest checkpoint."""

    log_id: str
    notes: Mapping[str, str] = field(default_factory=dict)


def is_log_id(text: str) -> bool:
    return _LOG_ID.fullmatch(text) is not None


def is_lane(text: str) -> bool:
    return _LANE.fullmatch(text) is not None


def log_id_of(root: VerifierKey) -> str:
    """The log that a root key belongs to, or TrustError where it is no root key's name."""
    log_id = root.name.removeprefix("governor/")
    if not is_log_id(log_id) or root.name != root_name(log_id):
        raise TrustError(f"{root.name} is not the name of a log's root key (expected governor/LOG_ID)")
    return log_id


def trust_file(root: VerifierKey) -> bytes:
    """The bytes of trust.json."""
    stated: Value = {"anchors": [], "log_id": log_id_of(root), "origin": root.name, "root": str(root)}
    return encode(stated) + b"\n"


def parse_trust_file(data: bytes) -> TrustFile:
    """What the bytes of trust.json say, or TrustError."""
    stated = _object(data, "trust.json")
    try:
        root = parse_verifier_key(str(stated.get("root")))
    except NoteError as error:
        raise TrustError(f"trust.json: root: {error}") from None
    log_id = log_id_of(root)
    expected = {"anchors": stated.get("anchors"), "log_id": log_id, "origin": root.name, "root": str(root)}
    if stated != expected or not isinstance(stated.get("anchors"), list):
        raise TrustError("trust.json: expected anchors, log_id, origin and root that agree")
    return TrustFile(log_id, root)


def minimum_file(minimum: Minimum) -> bytes:
    """The bytes of minimum.json."""
    stated: Value = {"lanes": dict(minimum.notes), "log_id": minimum.log_id, "v": 1}
    return encode(stated) + b"\n"


def parse_minimum_file(data: bytes) -> Minimum:
    """What the bytes of minimum.json say, or TrustError. The notes are not yet verified."""
    stated = _object(data, "minimum.json")
    log_id, lanes = stated.get("log_id"), stated.get("lanes")
    if stated.get("v") != 1 or not isinstance(log_id, str) or not isinstance(lanes, dict):
        raise TrustError("minimum.json: expected v 1, log_id and lanes")
    return Minimum(log_id, {lane: str(note) for lane, note in lanes.items()})


def _object(data: bytes, name: str) -> dict[str, Value]:
    try:
        value = parse(data.removesuffix(b"\n"))
    except CanonicalError as error:
        raise TrustError(f"{name}: {error}") from None
    if not isinstance(value, dict):
        raise TrustError(f"{name}: not an object")
    return value
