"""The fields of a JSON body (RFC 8259): texts by dotted paths, for bodies that all readers read alike.

Readers differ about a name that stands twice, about NaN, about invalid UTF-8 and half surrogates: such a body has no
fields. Numbers have one spelling here: `2e2` is 200, `1.50` is 1.5, `-0` is 0. What is read takes time in proportion to
its bytes.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from itertools import accumulate
from typing import Any, NoReturn

from kernel.comparison import MOST_DIGITS, Gap, Value

MOST_LEVELS = 64
"""Objects and arrays within each other."""
MOST_NODES = 20_000
"""Objects and arrays in all."""

_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?", re.ASCII)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
# Each bracket as the signed byte by which it changes the level.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_LONGEST_EXPONENT = 4
_TOO_LONG = Gap(f"the number has more than {MOST_DIGITS} digits")
_NO_VALUE = Gap("it is an object or an array")


class _Refused(Exception):
    """The body has no one reading."""


class JsonFields:
    """The fields of a body that has one reading."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._spellings: dict[int, Counter[str]] = {}

    def value(self, name: str) -> Value:
        """The text at a dotted path: a string, a number, true, false or null. None where a name of it is absent."""
        node = self._root
        for key in name.split("."):
            if not isinstance(node, dict):
                return Gap("what should hold it is no object")
            # Some readers take a name in any case.
            if self._spelled(node)[key.casefold()] > (key in node):
                return Gap(f'there is a name that differs from "{key}" in case alone')
            if key not in node:
                return None
            node = node[key]
        return _text(node)

    def _spelled(self, node: dict[str, Any]) -> Counter[str]:
        """How many names of an object are the same but for their case."""
        if id(node) not in self._spellings:
            self._spellings[id(node)] = Counter(map(str.casefold, node))
        return self._spellings[id(node)]


def _text(node: Any) -> Value:
    match node:
        case bytes():
            return _number(node.decode())
        case str():
            return node
        case dict() | list():
            return _NO_VALUE
        case None:
            return "null"
        case bool():
            return "true" if node else "false"
        case _:
            return _number(str(node))


def read_json(body: bytes) -> JsonFields | Gap:
    """The fields of a body, or why it has none."""
    try:
        _check_texts(body)
    except _Refused as refused:
        return Gap(str(refused))
    root = read_tree(body)
    return root if isinstance(root, Gap) else JsonFields(root)


def read_tree(body: bytes) -> Any | Gap:
    """What a body says, where all readers find the same names and values in it. Fractions are bytes, as written."""
    try:
        _check_form(body)
        return _DECODER.decode(body.decode())
    except _Refused as refused:
        return Gap(str(refused))
    except UnicodeError:
        return Gap("the body is not UTF-8")
    except ValueError:
        return Gap("the body is not JSON")


def _check_texts(body: bytes) -> None:
    if rb"\u0000" in body:
        raise _Refused("some readers end a text at a NUL")
    # A backslash that is itself escaped begins nothing.
    if _HALF.search(body) and _HALF.search(_PAIR.sub(b"", body.replace(rb"\\", b"--"))):
        raise _Refused("the JSON has half a surrogate pair")


def _check_form(body: bytes) -> None:
    nodes = body.count(b"{") + body.count(b"[")
    if nodes > MOST_NODES:
        raise _Refused(f"the JSON has more than {MOST_NODES} objects and arrays")
    if nodes <= MOST_LEVELS:
        return
    steps = array("b", _STRING.sub(b"", body).translate(_STEPS, _NO_BRACKETS))
    if max(accumulate(steps), default=0) > MOST_LEVELS:
        raise _Refused(f"the JSON is nested deeper than {MOST_LEVELS} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Refused("a name stands twice in one object of the JSON")
    return made


def _refuse_constant(text: str) -> NoReturn:
    raise _Refused(f"{text} is no JSON")


# A number with a fraction or an exponent stays as it is written, in bytes: a float would round it.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=str.encode, parse_constant=_refuse_constant)


def _number(text: str) -> str | Gap:
    """The number in plain decimal notation, without a zero too many."""
    parts = _NUMBER.fullmatch(text)
    assert parts is not None
    sign, whole, fraction, exponent = parts[1], parts[2], parts[3] or "", parts[4] or "0"
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    if len(exponent.lstrip("+-0")) > _LONGEST_EXPONENT:
        return _TOO_LONG
    point = len(digits) - len(fraction) + int(exponent)
    digits = digits.rstrip("0")
    if max(point, len(digits)) - min(point - 1, 0) > MOST_DIGITS:
        return _TOO_LONG
    before = digits[:max(point, 0)].ljust(point, "0") or "0"
    after = "0" * -min(point, 0) + digits[max(point, 0):]
    return f"{sign}{before}.{after}" if after else f"{sign}{before}"
