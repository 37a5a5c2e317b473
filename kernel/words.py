"""Words for amounts, times and agents, as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernel.budget import Unit
from kernel.document import joined
from kernel.measures import Rate
from kernel.policy import AgentPattern

Groups = Mapping[str, tuple[AgentPattern, ...]]

_SIZE_UNITS = (("GB", 10**9), ("GiB", 2**30), ("MB", 10**6), ("MiB", 2**20), ("KB", 10**3), ("KiB", 2**10))
PERIODS = {1: "a second", 60: "a minute", 3600: "an hour", 86400: "a day"}
_MICRO = 10**6
_DURATIONS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def agents_in_words(agents: Sequence[AgentPattern], groups: Groups, *, members: bool = False) -> str:
    """Whom a rule names: groups by their name, others as they are written."""
    left, named = dict.fromkeys(agents), []
    for name, patterns in groups.items():
        if patterns and all(pattern in agents for pattern in patterns):
            shown = f" ({joined([pattern.text for pattern in patterns], 'and')})" if members else ""
            named.append(f"{name}{shown}")
            for pattern in patterns:
                left.pop(pattern, None)
    return joined([*named, *(pattern.text for pattern in left)], "and")


def rate_in_words(rate: Rate) -> str:
    """`60 a minute`."""
    return f"{rate.count:,} {PERIODS[rate.seconds]}"


def size_in_words(bytes_: int) -> str:
    """In the largest unit of which it is a whole number: `10 MB`."""
    for unit, factor in _SIZE_UNITS:
        if bytes_ >= factor and bytes_ % factor == 0:
            return f"{bytes_ // factor} {unit}"
    return f"{bytes_} byte{'' if bytes_ == 1 else 's'}"


def amount_in_words(unit: Unit, amount: int) -> str:
    """`0.25 USD`, `4,000,000 tokens`, `10 GB`, `8 hours`, `20 new hosts`."""
    match unit:
        case Unit.USD:
            whole, rest = divmod(amount, _MICRO)
            return f"{whole:,}{f'.{rest:06}'.rstrip('0') if rest else ''} USD"
        case Unit.BYTES:
            return size_in_words(amount)
        case Unit.SECONDS:
            return duration_in_words(amount)
        case Unit.RISK:
            return f"{amount:,} point{'' if amount == 1 else 's'} of risk"
        case Unit.TOKENS | Unit.REQUESTS | Unit.NEW_HOSTS:
            noun = unit.value.replace("-", " ")
            return f"{amount:,} {noun.removesuffix('s') if amount == 1 else noun}"


def duration_in_words(seconds: int) -> str:
    """In the largest unit of which it is a whole number: `90 seconds`, `2 hours`."""
    unit, length = next((unit, length) for unit, length in _DURATIONS if seconds % length == 0)
    number = seconds // length
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def capital(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]
