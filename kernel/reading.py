"""Lines read strictly, and fast where many have the same shape.

A line is read in full at first (split, parse, compare with the canonical form). From an entry so proved, a regular
expression is made that matches only lines with the same keys in the same places, simple ASCII strings and short
integers; what it matches is canonical too, as nothing in such a line has a second spelling. Lines that match none
are read in full.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

from kernel.canonical import Value, encode
from kernel.chain import MAX_LINE_BYTES, split_text
from kernel.errors import CanonicalError, ChainError

type Fields = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""The entry, its lane, prev, seq, ts, type and v, then kid and sig, all as they stand in the line."""
type Varying = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""The entry, its prev (64 bytes), seq and ts (19 bytes, a fraction, Z), kid and sig: what differs in usual lines."""
type Parse = Callable[[bytes], Value]

_STRING = rb'"[ !#-\[\]-~]*+"'
_NUMBER = rb"(?:0|-?[1-9][0-9]{0,14}+)"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|null|true|false)"
_SCALARS = rb"\[(?:" + _SCALAR + rb"(?:," + _SCALAR + rb")*+)?\]"
_PREV_BYTES = 64
_TIME = re.compile(rb"[ !#-\[\]-~]{19}\.[0-9]{6}Z")
# Whoever uses these compares prev and seq with what they must be, and checks ts as far as its fraction.
_VARYING = {
    "prev": rb'"([^"]{%d})"' % _PREV_BYTES,
    "seq": rb"(" + _NUMBER + rb")",
    "ts": rb'"(' + _TIME.pattern + rb')"',
}
_FIXED = frozenset(("lane", "type", "v"))
# The last of the 86 characters of 64 bytes carries four unused bits, which are zero in A, Q, g and w.
_SIGNED = rb',"kid":"([0-9a-f]{8})","sig":"([A-Za-z0-9+/]{85}[AQgw]==)"\}\n'

# What a log can make a reader learn is bounded: making an expression takes milliseconds.
_SHAPES = 128
_SHAPES_PER_KEY = 16
_LEARN_AFTER = 16
_KEYS = 4096
_LEARN_BYTES = 4096
_EXPRESSION_BYTES = 2**18
# An entry ends in its type or its verdict, which tells most shapes apart.
_KEY = slice(-132, -116)

KNOWN_V = b"1"
GENESIS = b"genesis"
LANE_OPEN = b"lane_open"
SEGMENT_OPEN = b"segment_open"
KEY_ROTATE = b"key_rotate"
KEY_COMPROMISED = b"key_compromised"
LEASE = b"lease"
CLOSED = b'"type":"close"'
"""Stands in an entry that closes a lane. Within a string the quotes would be escaped."""
BEGINNINGS = frozenset((GENESIS, LANE_OPEN))
"""Types with which a lane begins."""
OPENINGS = BEGINNINGS | {SEGMENT_OPEN, KEY_ROTATE, KEY_COMPROMISED}
"""Types that are read one by one, as they change what the lines after them are held to."""


class LineReader:
    """Reads the lines of one lane. `parse` is the canonical parser."""

    def __init__(self, parse: Parse, lane: bytes) -> None:
        self._parse, self._lane = parse, lane
        self._shapes: dict[bytes, tuple[re.Pattern[bytes], ...]] = {}
        self._seen: Counter[bytes] = Counter()
        self._learned = self._learned_bytes = 0

    def read(self, line: bytes) -> Fields:
        """The fields of one line (LF included), read in full, or ChainError or CanonicalError."""
        raw, kid, signature = split_text(line)
        return (raw, *_common_fields(self._parse(raw)), kid, signature)

    def read_usual(self, lines: Sequence[bytes]) -> list[Varying] | None:
        """What varies, where every line is one of this lane that opens nothing; else None."""
        shapes = self._shapes
        found = [shape[0].fullmatch(line) if (shape := shapes.get(line[_KEY])) else None for line in lines]
        if max(map(len, lines)) > MAX_LINE_BYTES:
            return None
        if None in found:
            return self._read_rest(found, lines)
        return cast("list[Varying]", [match.groups() for match in found if match])

    def _read_rest(self, found: Sequence[re.Match[bytes] | None], lines: Sequence[bytes]) -> list[Varying] | None:
        varying = []
        for match, line in zip(found, lines, strict=True):
            fields = match.groups() if match else self._read_other(line)
            if fields is None:
                return None
            varying.append(fields)
        return cast("list[Varying]", varying)

    def _read_other(self, line: bytes) -> Varying | None:
        key = line[_KEY]
        for shape in self._shapes.get(key, ()):
            if match := shape.fullmatch(line):
                return cast("Varying", match.groups())
        try:
            raw, lane, prev, seq, ts, kind, v, kid, signature = self.read(line)
        except (ChainError, CanonicalError):
            return None
        if lane != self._lane or v != KNOWN_V or kind in OPENINGS:
            return None
        if len(prev) != _PREV_BYTES or not _TIME.fullmatch(ts):
            return None
        # It ends in the number of its window: each new one would be a kind of its own.
        if kind != LEASE:
            self._learn(key, raw)
        return raw, prev, seq, ts, kid, signature

    def _learn(self, key: bytes, raw: bytes) -> None:
        """Remember the shape of a line, once enough like it have come."""
        known = self._shapes.get(key, ())
        if len(self._seen) >= _KEYS:
            self._seen.clear()
        self._seen[key] += 1
        if self._seen[key] < _LEARN_AFTER or len(known) >= _SHAPES_PER_KEY or self._learned >= _SHAPES:
            return
        if len(raw) > _LEARN_BYTES:
            return
        self._seen[key] = 0
        entry = _shape(self._parse(raw), top=True)
        if self._learned_bytes + len(entry) > _EXPRESSION_BYTES:
            return
        self._learned += 1
        self._learned_bytes += len(entry)
        self._shapes[key] = (*known, re.compile(rb'\{"e":(' + entry + rb")" + _SIGNED))


def _common_fields(entry: Value) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
    """lane, prev, seq, ts, type and v of a parsed entry as text, or ChainError."""
    if not isinstance(entry, dict):
        raise ChainError("an entry is an object")
    _integer(entry, "mono_us")
    return (
        _text(entry, "lane"),
        _text(entry, "prev"),
        _integer(entry, "seq"),
        _text(entry, "ts"),
        _text(entry, "type"),
        _integer(entry, "v"),
    )


def _text(entry: dict[str, Value], name: str) -> bytes:
    value = entry.get(name)
    if not isinstance(value, str):
        raise ChainError(f"{name} is missing or not a string")
    return value.encode()


def _integer(entry: dict[str, Value], name: str) -> bytes:
    value = entry.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ChainError(f"{name} is missing or not an integer")
    return b"%d" % value


def _shape(value: Value, *, top: bool = False) -> bytes:
    match value:
        case dict():
            members = (_member(key, value[key], top=top) for key in sorted(value))
            return rb"\{" + b",".join(members) + rb"\}"
        case list() | tuple():
            if any(isinstance(item, dict | list | tuple) for item in value):
                return rb"\[" + b",".join(_shape(item) for item in value) + rb"\]"
            return _SCALARS
        case str():
            return _STRING
        case bool() | None:
            return rb"(?:null|true|false)"
        case int():
            return _NUMBER


def _member(key: str, value: Value, *, top: bool) -> bytes:
    if top and key in _FIXED:
        shape = re.escape(encode(value))
    else:
        shape = _VARYING[key] if top and key in _VARYING else _shape(value)
    return rb"%b:%b" % (re.escape(encode(key)), shape)
