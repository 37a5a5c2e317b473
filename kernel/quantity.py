"""What a policy may write as a size, a number, money, a time or a rate: whole numbers out of text, or `PatternError`.

A size is in bytes; KB MB GB are 10^3 6 9 and KiB MiB GiB 2^10 20 30. Numbers may end with k M G. Money is US dollars
with at most six places, kept as micro-USD. The hint of an error says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from kernel.document import did_you_mean
from kernel.errors import PatternError
from kernel.measures import Rate

_DECIMAL_SIZES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_BINARY_SIZES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE_UNITS = _DECIMAL_SIZES | _BINARY_SIZES
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
_LONG_UNITS = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "hr": "h", "day": "d", "week": "w"}
# What is read only to say what to write instead.
_WRITTEN_UNITS = {**_DURATION_UNITS, "w": 7 * 86400}
_TIMES = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)", re.ASCII)
_ALL_TIMES = re.compile(r"\s*(?:[0-9]{1,9}(?:\.[0-9]{1,6})?\s*[A-Za-z]*\s*){1,6}", re.ASCII)
_FRACTION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([A-Za-z]*)", re.ASCII)
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
        raise PatternError(f'"{text}" is not a whole number', _count_hint(text))
    return _positive(text, _number(text), "a number", _MOST)


def tally(text: str) -> int:
    """A whole number above 0, perhaps in thousands, millions or thousands of millions: `4M`."""
    parts = _TALLY.fullmatch(text)
    if parts is None:
        raise PatternError(f'"{text}" is not a number', _tally_hint(text))
    return _positive(text, _number(parts[1]) * _TALLY_UNITS[parts[2]], "a number", _MOST_BYTES)


def money(text: str) -> int:
    """The micro-USD of an amount in US dollars above 0: `5`, `0.25`."""
    return _positive(text, _micro_usd(text), "an amount", _MOST_MONEY)


def price(text: str) -> int:
    """The micro-USD of an amount in US dollars; 0 is one."""
    found = _micro_usd(text)
    if found > _MOST_MONEY:
        raise PatternError(f'"{text}" is more than anything costs', "write a smaller amount")
    return found


def _micro_usd(text: str) -> int:
    parts = _MONEY.fullmatch(text)
    if parts is None:
        raise PatternError(f'"{text}" is not an amount of money', _money_hint(text))
    return _number(parts[1]) * _MICRO + int((parts[2] or "").ljust(6, "0"))


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
    spelled = _ungrouped(text).upper().replace("IB", "iB").replace("BYTES", "")
    spelled = spelled.removesuffix("B") if spelled[:-1].isdecimal() else spelled
    if spelled.endswith(("K", "M", "G", "T")):
        spelled += "B"
    parts = _FRACTION.fullmatch(spelled)
    for written, units in ((_DECIMAL_SIZES | {"TB": 10**12}, _DECIMAL_SIZES),
                           (_BINARY_SIZES | {"TiB": 2**40}, _BINARY_SIZES)):
        if parts is not None and parts[2] in written:
            found = _whole(Fraction(parts[1]) * written[parts[2]], parts[2], units)
            return f"write {found}" if found else f"write {_SIZES}"
    return f"write {_SIZES}"


def _rate_hint(text: str) -> str:
    number, slash, period = re.sub(r"(?i)per", "/", _ungrouped(text)).partition("/")
    period = period.lower().rstrip(".")
    parts = _TALLY.fullmatch(number)
    if slash and parts is not None and int(parts[1]):
        known = _SHORT_PERIODS.get(period, period.removesuffix("s"))
        if known in _PERIODS:
            return f"write {int(parts[1]) * _TALLY_UNITS[parts[2]]}/{known}"
        if hint := did_you_mean(period.rstrip("s"), _PERIODS):
            return hint
    return "write a whole number in a second, minute, hour or day: 100/second"


def _count_hint(text: str) -> str:
    parts = _TALLY.fullmatch(_ungrouped(text).replace("K", "k"))
    return f"write {int(parts[1]) * _TALLY_UNITS[parts[2]]}" if parts is not None else "write one such as 8"


def _tally_hint(text: str) -> str:
    plain = _ungrouped(text)
    spelled = plain[:-1] + plain[-1:].replace("K", "k").replace("m", "M").replace("g", "G").replace("B", "G")
    parts = _FRACTION.fullmatch(spelled)
    if _TALLY.fullmatch(spelled):
        return f"write {spelled}"
    if parts is not None and parts[2] in _TALLY_UNITS:
        found = _whole(Fraction(parts[1]) * _TALLY_UNITS[parts[2]], parts[2], _TALLY_UNITS)
        return f"write {found or '1'}"
    return "write a whole number, or one with k, M or G (thousand, million, thousand million): 4M"


def _money_hint(text: str) -> str:
    digits = re.sub(r"\$|USD", "", _ungrouped(text), flags=re.IGNORECASE)
    if re.fullmatch(r"[0-9]+,[0-9]{1,2}", digits, re.ASCII):
        digits = digits.replace(",", ".")
    digits = f"0{digits}" if digits.startswith(".") else digits.removesuffix(".")
    if _MONEY.fullmatch(digits):
        return f"write {digits}: usd says that it is US dollars"
    if re.fullmatch(r"[0-9]+\.[0-9]{7,}", digits, re.ASCII):
        return "at most six places after the point are kept"
    return "write US dollars with a point: 5 or 0.25"


def _duration_hint(text: str) -> str:
    parts = [(number, _LONG_UNITS.get(unit.lower().removesuffix("s"), unit))
             for number, unit in _TIMES.findall(text)] if _ALL_TIMES.fullmatch(text) else []
    match parts:
        case [(number, "")]:
            return f"say the unit: {number}s, {number}m, {number}h or {number}d"
        case [(number, unit)] if unit in _DURATION_UNITS and number.isdecimal():
            return f"write {number}{unit}"
    if parts and all(unit in _WRITTEN_UNITS for _, unit in parts):
        seconds = sum(Fraction(number) * _WRITTEN_UNITS[unit] for number, unit in parts)
        if found := _whole(Fraction(seconds), "", _DURATION_UNITS):
            return f"write {found}"
    return "write a whole number with s, m, h or d: 10m"


def _ungrouped(text: str) -> str:
    """A number without what people put between its digits: `1,000`, `1 000`, `1_000`."""
    return re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", re.sub(r"[\s_']", "", text))


def _whole(exact: Fraction, unit: str, units: Mapping[str, int]) -> str:
    """An amount as a whole number of its unit or else of the largest that goes; nothing for a part of one, or for 0."""
    if exact.denominator != 1 or exact == 0:
        return ""
    if exact % units.get(unit, exact + 1) == 0:
        return f"{exact // units[unit]}{unit}"
    factor, name = max((factor, name) for name, factor in units.items() if exact % factor == 0)
    return f"{exact // factor}{name}"
