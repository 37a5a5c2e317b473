"""Canonical JSON: RFC 8785 restricted to what one reading only can be had of. No floats, ASCII keys, bounded."""

from __future__ import annotations

import json
from typing import NoReturn

from kernel.errors import CanonicalError

type Value = bool | int | str | list[Value] | tuple[Value, ...] | dict[str, Value] | None

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32
# With the 121 bytes that a signed line adds (kernel/chain.py), a line is at most 1 MiB, its LF included.
MAX_BYTES = 2**20 - 121


def encode(value: Value) -> bytes:
    """The one canonical form of `value`, or CanonicalError."""
    check(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise CanonicalError("a string holds a lone surrogate") from None
    return bounded(raw)


def parse(raw: bytes) -> Value:
    """The value whose canonical form is exactly `raw`, or CanonicalError."""
    bounded(raw)
    try:
        value: Value = _DECODER.decode(raw.decode())
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"not JSON: {error}") from None
    if encode(value) != raw:
        raise CanonicalError("not in canonical form")
    return value


def bounded(raw: bytes) -> bytes:
    """`raw` itself, or CanonicalError where it is longer than an entry may be."""
    if len(raw) > MAX_BYTES:
        raise CanonicalError(f"{len(raw)} bytes, at most {MAX_BYTES} are allowed")
    return raw


def check(value: object, depth: int = MAX_DEPTH) -> None:
    """Nothing where `value` has a canonical form (lone surrogates and length aside), else CanonicalError."""
    match value:
        case None | bool() | str():
            return
        case int():
            _check_integer(value)
        case dict() | list() | tuple():
            _check_container(value, depth)
        case _:
            raise CanonicalError(f"a {type(value).__name__} has no canonical form")


def _check_integer(value: int) -> None:
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise CanonicalError("an integer is beyond 2^53-1")


def _check_container(value: dict[object, object] | list[object] | tuple[object, ...], depth: int) -> None:
    if depth == 0:
        raise CanonicalError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not key.isascii():
                raise CanonicalError("a key is not an ASCII string")
    for item in value.values() if isinstance(value, dict) else value:
        # Text is most of every entry, and checking it here spares a call for each.
        if type(item) is not str:
            check(item, depth - 1)


def _once(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise CanonicalError("a key occurs twice")
    return read


def _refuse_number(text: str) -> NoReturn:
    raise CanonicalError(f"{text[:40]} is not an integer")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_float=_refuse_number, parse_constant=_refuse_number)
