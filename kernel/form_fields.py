"""The fields of a form body or a query (application/x-www-form-urlencoded), where all readers read them alike.

Readers differ about a name that comes twice, a bad escape, bytes that are not UTF-8 and `;` between pairs. Some take a
name in any case, some read `a[]` as a list called `a`, some have `_` where a dot, a space or a bracket stands.
"""

from __future__ import annotations

import re
from binascii import a2b_qp

from kernel.comparison import Gap, Value

MOST_PAIRS = 1000
"""Some readers leave out what comes after as many."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MANGLED = str.maketrans({" ": "_", ".": "_", "[": "_", "]": None})


class Pairs:
    """Names and values in their order, decoded."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = [(name, _mangled(name), value) for name, value in pairs]

    def value(self, name: str) -> Value:
        """The one value of a name; None where the name is absent."""
        mangled = _mangled(name)
        found = [(own, value) for own, like, value in self._pairs if _may_mean(own, like, name, mangled)]
        if not found:
            return None
        if any(own != name for own, _ in found):
            return Gap("some readers take another name for it")
        return found[0][1] if len(found) == 1 else Gap("it comes more than once")


def _mangled(name: str) -> str:
    return name.strip().casefold().translate(_MANGLED)


def _may_mean(own: str, like: str, name: str, mangled: str) -> bool:
    """True where some reader takes the name `own` for `name`, or for a list or object of which `name` is a part."""
    return own == name or like == mangled or _holds(own, name) or _holds(name, own)


def _holds(outer: str, inner: str) -> bool:
    return inner.strip().casefold().startswith(f"{outer.strip().casefold()}[")


def read_pairs(text: str) -> Pairs | Gap:
    """The fields, or why they cannot be read. Raw bytes that are no ASCII come decoded from UTF-8."""
    if ";" in text:
        return Gap('some readers begin a new field at ";"')
    if "%00" in text:
        return Gap("some readers end a text at a NUL")
    if _BAD_ESCAPE.search(text):
        return Gap("it has a % that two hex digits do not follow")
    parts = [part for part in text.split("&") if part]
    if len(parts) > MOST_PAIRS:
        return Gap(f"it has more than {MOST_PAIRS} fields")
    try:
        return Pairs([_pair(part) for part in parts])
    except UnicodeError:
        return Gap("it is not UTF-8")


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return _decoded(name), _decoded(value)


def _decoded(text: str) -> str:
    # As quoted-printable, whose escapes are the same with another sign: that is decoded without a step for each.
    return a2b_qp(text.replace("+", " ").replace("=", "=3D").replace("%", "=").encode()).decode()
