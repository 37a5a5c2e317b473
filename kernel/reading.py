"""Lines read strictly, and fast where many have the same shape.

A line is read in full at first (split, parse, compare with the canonical form). From an entry so proved, a regular
expression is made that matches only lines with the same keys in the same places, simple ASCII strings and short
integers; what it matches is canonical too, as nothing in such a line has a second spelling. Lines that match none
are read in full.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import cast

from kernel.canonical import Value, encode
from kernel.chain import MAX_LINE_BYTES, split_text
from kernel.errors import ChainError

type Fields = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""The entry, its lane, prev, seq, ts, type and v, then kid and sig, all as they stand in the line."""
type Parse = Callable[[bytes], Value]

_STRING = rb'"[ !#-\[\]-~]*+"'
_NUMBER = rb"(?:0|-?[1-9][0-9]{0,14}+)"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|null|true|false)"
_SCALARS = rb"\[(?:" + _SCALAR + rb"(?:," + _SCALAR + rb")*+)?\]"
_TEXT_GROUP = rb'"([ !#-\[\]-~]*+)"'
_COMMON = {
    "lane": _TEXT_GROUP,
    "mono_us": _NUMBER,
    "prev": _TEXT_GROUP,
    "seq": rb"(" + _NUMBER + rb")",
    "ts": _TEXT_GROUP,
    "type": _TEXT_GROUP,
    "v": rb"(" + _NUMBER + rb")",
}
# The last of the 86 characters of 64 bytes carries four unused bits, which are zero in A, Q, g and w.
_TAIL = rb',"kid":"([0-9a-f]{8}+)","sig":"([A-Za-z0-9+/]{85}+[AQgw]==)"\}\n'

# What a log can make a reader learn is bounded: making an expression takes milliseconds.
_SHAPES = 64
_SHAPES_PER_KEY = 4
_LEARN_AFTER = 16
_LEARN_BYTES = 4096
_KEY = slice(5, 16)


class LineReader:
    """Reads lines of one log; `parse` is the canonical parser for those of no known shape."""

    def __init__(self, parse: Parse) -> None:
        self._parse = parse
        self._shapes: dict[bytes, tuple[re.Pattern[bytes], ...]] = {}
        self._seen: Counter[bytes] = Counter()
        self._learned = 0

    def read(self, line: bytes) -> Fields:
        """The fields of one line (LF included), or ChainError or CanonicalError."""
        if len(line) <= MAX_LINE_BYTES:
            for shape in self._shapes.get(line[_KEY], ()):
                if found := shape.fullmatch(line):
                    return cast("Fields", found.groups())
        return self._read_in_full(line)

    def _read_in_full(self, line: bytes) -> Fields:
        raw, kid, signature = split_text(line)
        entry = self._parse(raw)
        fields = (raw, *common_fields(entry), kid, signature)
        self._consider(line[_KEY], raw, entry)
        return fields

    def _consider(self, key: bytes, raw: bytes, entry: Value) -> None:
        if self._learned >= _SHAPES or len(raw) > _LEARN_BYTES:
            return
        self._seen[key] += 1
        known = self._shapes.get(key, ())
        if self._seen[key] < _LEARN_AFTER or len(known) >= _SHAPES_PER_KEY:
            return
        self._seen[key] = 0
        self._learned += 1
        self._shapes[key] = (*known, re.compile(rb'\{"e":(' + _shape(entry, _COMMON) + rb")" + _TAIL))


def common_fields(entry: Value) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
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


def _shape(value: Value, common: dict[str, bytes]) -> bytes:
    if isinstance(value, dict):
        members = (_member(key, common.get(key) or _shape(value[key], {})) for key in sorted(value))
        return rb"\{" + b",".join(members) + rb"\}"
    if isinstance(value, list | tuple):
        if any(isinstance(item, dict | list | tuple) for item in value):
            return rb"\[" + b",".join(_shape(item, {}) for item in value) + rb"\]"
        return _SCALARS
    return _SCALAR


def _member(key: str, shape: bytes) -> bytes:
    return rb"%b:%b" % (re.escape(encode(key)), shape)
