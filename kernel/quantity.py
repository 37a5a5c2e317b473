"""What a policy may write as a size, a number, money, a time or a rate: whole numbers out of text, or `PatternError`.

A size is in bytes; KB MB GB are 10^3 6 9 and KiB MiB GiB 2^10 20 30. Numbers may end with k M G. Money is US dollars
with at most six places, kept as micro-USD. The hint of an error says what to write instead.
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
_TALLY = re.compile(r"([0-9]+)([kMG]?)", re.ASCII)
_TALLY_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_MONEY = re.compile(r"([0-9]+)(?:\.([0-9]{1,6}))?", re.ASCII)
_MICRO = 10**6
_MOST_MONEY = 10**9 * _MICRO
_DURATION = re.compile(r"([0-9]+)([smhd])", re.ASCII)
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONG_UNITS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "hr": "h", "day": "d"}
_MOST_SECONDS = 10 * 366 * 86400
_PERCENTAGE = re.compile(r"([0-9]{1,6})%", re.ASCII)
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
    return _positive(text, size(text), "a size", _MOST_BYTES)


def count(text: str) -> int:
    """A whole number above 0."""
    if not _COUNT.fullmatch(text):
        raise PatternError(f'"{text}" is not a whole number', "write one such as 8")
    return _positive(text, _number(text), "a number", _MOST)


def tally(text: str) -> int:
    """A whole number above 0, perhaps in thousands, millions or thousands of millions: `4M`."""
    parts = _TALLY.fullmatch(text)
    if parts is None:
        raise PatternError(f'"{text}" is not a number', _tally_hint(text))
    return _positive(text, _number(parts[1]) * _TALLY_UNITS[parts[2]], "a number", _MOST_BYTES)


def money(text: str) -> int:
    """The micro-USD of an amount in US dollars above 0: `5`, `0.25`."""
    parts = _MONEY.fullmatch(text)
    if parts is None:
        raise PatternError(f'"{text}" is not an amount of money', _money_hint(text))
    found = _number(parts[1]) * _MICRO + int((parts[2] or "").ljust(6, "0"))
    return _positive(text, found, "an amount", _MOST_MONEY)


def duration(text: str) -> int:
    """The seconds of `90s`, `10m`, `8h` or `7d`."""
    parts = _DURATION.fullmatch(text)
    if parts is None:
        raise PatternError(f'"{text}" is not a duration', _duration_hint(text))
    found = _number(parts[1]) * _DURATION_UNITS[parts[2]]
    if found == 0:
        raise PatternError(f'"{text}" is no time at all', "write a duration such as 10m")
    if found > _MOST_SECONDS:
        raise PatternError(f'"{text}" is longer than ten years', "write a shorter one")
    return found


def percentage(text: str) -> int:
    """The number of `80%`; it may be above 100."""
    parts = _PERCENTAGE.fullmatch(text)
    if parts is None:
        digits = re.sub(r"[\s%]", "", text)
        whole = digits if _COUNT.fullmatch(digits) and len(digits) <= 6 else "80"
        raise PatternError(f'"{text}" is not a percentage', f"write {int(whole)}%")
    found = int(parts[1])
    if found == 0:
        raise PatternError(f'"{text}" is reached before anything happens', "write one above 0%")
    return found


def rate(text: str) -> Rate:
    """`100/second`: a whole number above 0 in a second, minute, hour or day."""
    parts = _RATE.fullmatch(text)
    if parts is None or parts[2] not in _PERIODS:
        raise PatternError(f'"{text}" is not a rate', _rate_hint(text))
    return Rate(_positive(text, _number(parts[1]), "a number", _MOST), _PERIODS[parts[2]])


def _number(digits: str) -> int:
    if len(digits.lstrip("0")) > _MOST_DIGITS:
        raise PatternError(f"a number of {len(digits)} digits is more than anything can reach", "write a smaller one")
    return int(digits)


def _positive(text: str, found: int, what: str, most: int) -> int:
    if found == 0:
        raise PatternError(f'"{text}" would let nothing pass', f"write {what} above 0, or refuse it with a deny")
    if found > most:
        raise PatternError(f'"{text}" is more than anything here can reach', "leave it out to mean any")
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


def _tally_hint(text: str) -> str:
    plain = re.sub(r"[\s,_']", "", text)
    spelled = plain[:-1] + plain[-1:].replace("K", "k").replace("m", "M").replace("g", "G").replace("B", "G")
    parts = _TALLY.fullmatch(spelled)
    if parts is not None:
        return f"write {parts[0]}"
    if tenth := re.fullmatch(r"([0-9]{1,9})\.([0-9])([MG])", spelled, re.ASCII):
        return f"write {tenth[1].lstrip('0')}{tenth[2]}00{ {'M': 'k', 'G': 'M'}[tenth[3]] }"
    return "write a whole number, or one with k, M or G (thousand, million, thousand million): 4M"


def _money_hint(text: str) -> str:
    digits = re.sub(r"\s|\$|USD", "", text, flags=re.IGNORECASE)
    if re.fullmatch(r"[0-9]+,[0-9]{1,2}", digits, re.ASCII):
        digits = digits.replace(",", ".")
    if _MONEY.fullmatch(digits):
        return f"write {digits}: usd says that it is US dollars"
    if re.fullmatch(r"[0-9]+\.[0-9]{7,}", digits, re.ASCII):
        return "at most six places after the point are kept"
    return "write US dollars with a point: 5 or 0.25"


def _duration_hint(text: str) -> str:
    parts = re.fullmatch(r"\s*([0-9]{1,9})\s*([A-Za-z]*)\s*", text, re.ASCII)
    if parts is not None and (unit := _LONG_UNITS.get(parts[2].lower().removesuffix("s"))):
        return f"write {parts[1]}{unit}"
    if parts is not None and not parts[2]:
        return f"say the unit: {parts[1]}s, {parts[1]}m, {parts[1]}h or {parts[1]}d"
    return "write a whole number with s, m, h or d: 10m"
