"""Canonical JSON: RFC 8785 restricted to what one reading only can be had of. No floats, ASCII keys, bounded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NoReturn

from kernel.errors import CanonicalError

type Value = bool | int | str | list[Value] | tuple[Value, ...] | dict[str, Value] | None

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32
# With the 121 bytes that a signed line adds (kernel/chain.py), a line is at most 1 MiB, its LF included.
MAX_BYTES = 2**20 - 121


def encode(value: Value, most_bytes: int = MAX_BYTES) -> bytes:
    """The one canonical form of `value`, or CanonicalError where it has none or one of more than `most_bytes`."""
    check(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise CanonicalError("a string holds a lone surrogate") from None
    return bounded(raw, most_bytes)


def parse(raw: bytes, most_bytes: int = MAX_BYTES) -> Value:
    """The value whose canonical form is exactly `raw`, or CanonicalError."""
    bounded(raw, most_bytes)
    try:
        value: Value = _DECODER.decode(raw.decode())
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"not JSON: {error}") from None
    if encode(value, most_bytes) != raw:
        raise CanonicalError("not in canonical form")
    return value


def read(raw: bytes) -> Value:
    """The value of JSON whose bytes are proved otherwise, or CanonicalError. Of its form only this much is asked: no
    NaN, and no text that could not be written again.
    """
    try:
        value: Value = json.loads(raw.decode(), parse_constant=_refuse_number)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"not JSON: {error}") from None
    return value


def bounded(raw: bytes, most_bytes: int = MAX_BYTES) -> bytes:
    """`raw` itself, or CanonicalError where it is longer; the default is what an entry may have."""
    if len(raw) > most_bytes:
        raise CanonicalError(f"{len(raw)} bytes, at most {most_bytes} are allowed")
    return raw


def check(value: object, depth: int = MAX_DEPTH) -> None:
    """Nothing where `value` has a canonical form (lone surrogates and length aside), else CanonicalError."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not key.isascii():
                raise CanonicalError("a key is not an ASCII string")
        _check_items(value.values(), depth)
    elif isinstance(value, list | tuple):
        _check_items(value, depth)
    elif isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise CanonicalError("an integer is beyond 2^53-1")
    elif value is not None and not isinstance(value, str):
        raise CanonicalError(f"a {type(value).__name__} has no canonical form")


def _check_items(items: Iterable[object], depth: int) -> None:
    if depth == 0:
        raise CanonicalError(f"nested deeper than {MAX_DEPTH}")
    for item in items:
        # Text is most of every entry; passed over here, it costs no call.
        if type(item) is not str and item is not None:
            check(item, depth - 1)


def _once(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise CanonicalError("a key occurs twice")
    return read


def _refuse_number(text: str) -> NoReturn:
    raise CanonicalError(f"{text[:40]} is not an integer")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_float=_refuse_number, parse_constant=_refuse_number)
