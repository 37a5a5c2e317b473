"""What a policy may write as a size, a count or a rate: text in, whole numbers out, or `PatternError`.

A size is in bytes; KB MB GB are 10^3 6 9 and KiB MiB GiB 2^10 20 30. The hint of an error says what to write instead.
"""

from __future__ import annotations

import re

from kernel.document import did_you_mean
from kernel.errors import PatternError
from kernel.measures import Rate

_SIZE_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_SHORT_PERIODS = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day"}
_SIZE = re.compile(r"([0-9]+)([A-Za-z]*)", re.ASCII)
_COUNT = re.compile(r"[0-9]+", re.ASCII)
_RATE = re.compile(r"([0-9]+)/([A-Za-z]+)", re.ASCII)
_MOST_DIGITS = 15
_MOST_BYTES = 10**15  # more than any flow will ever carry, and exact in every reader of the log
_MOST = 10**9
_SIZES = "a whole number of bytes, or one with KB, MB, GB, KiB, MiB or GiB: 10MB"


def size(text: str) -> int:
    """The bytes that a size stands for; 0 is one."""
    parts = _SIZE.fullmatch(text)
    if parts is None or parts[2] not in _SIZE_UNITS:
        raise PatternError(f'"{text}" is not a size', _size_hint(text))
    found = _number(parts[1]) * _SIZE_UNITS[parts[2]]
    if found > _MOST_BYTES:
        raise PatternError(f'"{text}" is more than anything that passes here', "leave the measure out to mean any size")
    return found


def positive_size(text: str) -> int:
    """A size under which something can still pass."""
    found = size(text)
    if found == 0:
        raise PatternError(f'"{text}" would let nothing pass', "write a size above 0, or refuse it with a deny")
    return found


def count(text: str) -> int:
    """A whole number above 0."""
    if not _COUNT.fullmatch(text):
        raise PatternError(f'"{text}" is not a whole number', "write one such as 8")
    return _positive(text, _number(text))


def rate(text: str) -> Rate:
    """`100/second`: a whole number above 0 in a second, minute, hour or day."""
    parts = _RATE.fullmatch(text)
    if parts is None or parts[2] not in _PERIODS:
        raise PatternError(f'"{text}" is not a rate', _rate_hint(text))
    return Rate(_positive(text, _number(parts[1])), _PERIODS[parts[2]])


def _number(digits: str) -> int:
    if len(digits.lstrip("0")) > _MOST_DIGITS:
        raise PatternError(f"a number of {len(digits)} digits is more than anything can reach", "write a smaller one")
    return int(digits)


def _positive(text: str, found: int) -> int:
    if found == 0:
        raise PatternError(f'"{text}" would let nothing pass', "write a number above 0, or refuse it with a deny")
    if found > _MOST:
        raise PatternError(f'"{text}" is more than anything here can reach', "leave the measure out to mean any number")
    return found


def _size_hint(text: str) -> str:
    spelled = re.sub(r"\s", "", text).upper().replace("IB", "iB")
    if spelled.endswith(("K", "M", "G")):
        spelled += "B"
    parts = _SIZE.fullmatch(spelled.removesuffix("B") if spelled[:-1].isdecimal() else spelled)
    return f"write {parts[0]}" if parts is not None and parts[2] in _SIZE_UNITS else f"write {_SIZES}"


def _rate_hint(text: str) -> str:
    number, slash, period = text.replace(" ", "").partition("/")
    if slash and number.isdecimal():
        if period in _SHORT_PERIODS:
            return f"write {number}/{_SHORT_PERIODS[period]}"
        if hint := did_you_mean(period.rstrip("s"), _PERIODS):
            return hint
    return "write a whole number in a second, minute, hour or day: 100/second"
